# Sallyport. Needs Go, git and make; `make demo` and most of `make test` also root.
# `make generate` (and so `make check`) needs clang-14, llvm-14, libbpf-dev and libc6-dev.

VERSION     ?= $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT      ?= $(shell git -c safe.directory='*' rev-parse HEAD 2>/dev/null)
LDFLAGS      = -s -w -X sallyport/cmd/internal/version.stamp=$(VERSION) -X sallyport/cmd/internal/version.commit=$(COMMIT)
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROGRAMS     = sallyportd sallyport sallyport-bench
# The folder of each program that exists.
PACKAGE_sallyportd      = ./cmd/sallyportd
PACKAGE_sallyport       = ./cmd/sallyport
PACKAGE_sallyport-bench = $(firstword $(wildcard ./cmd/sallyport-bench ./bench/sallyport-bench))
FUZZTIME    ?= 60

export CGO_ENABLED = 0
# Under sudo the clone belongs to someone else and git refuses to speak of it; the version is stamped above.
export GOFLAGS += -buildvcs=false

.PHONY: build demo interop test test-all generate check fuzz bench clean root
.DEFAULT_GOAL := build

build:
	@mkdir -p build
	@set -e; for p in $(foreach p,$(PROGRAMS),$(if $(wildcard $(PACKAGE_$(p))),$(p)=$(PACKAGE_$(p)))); do \
		echo "go build $${p%%=*}"; go build -trimpath -ldflags '$(LDFLAGS)' -o build/$${p%%=*} $${p#*=}; done

# What needs root says so and what to do.
root:
	@[ "$$(id -u)" = 0 ] || { echo "This makes network namespaces and attaches XDP programs, so it needs root: sudo make $(MAKECMDGOALS)"; exit 1; }

# HOLD=1 keeps the two gateways running with traffic until Ctrl-C, to try the tools.
demo: root build
	@go build -trimpath -o build/sallyport-demo ./tools/demo
	@exec build/sallyport-demo -bin build -json build/demo.json $(if $(HOLD),-hold)

# The gateway against strongSwan, in namespaces. SMOKE=1: a few scenarios only; SCENARIOS="psk dpd": those; REFERENCE=1:
# strongSwan at both ends, which tests the scenarios. On Debian, what is missing is installed.
interop: root build
	@tools/interop/peer.sh
	@go build -trimpath -o build/sallyport-interop ./tools/interop
	@exec build/sallyport-interop -bin build -json build/interop.json -logs build/interop $(if $(SMOKE),-smoke) $(if $(REFERENCE),-reference) $(SCENARIOS)

# Without root the namespace tests skip by name; with STRICT=1 they then fail.
test:
	@[ "$$(id -u)" = 0 ] || echo "Not root: tests that need network namespaces skip, each by name. For all of them: sudo make test"
	go test -timeout 8m ./...

# Everything, also what takes long, then once more under the race detector, which needs cgo and a C compiler.
test-all: root
	SALLYPORT_LONG=1 STRICT=1 go test -count=1 -timeout 60m ./...
	CGO_ENABLED=1 go test -race -count=1 -timeout 60m ./...

generate:
	go generate ./...

# Generated files are what their sources say, and the sources are clean.
check:
	@command -v clang-14 >/dev/null || { echo "check regenerates the BPF object, so it needs: apt-get install clang-14 llvm-14 libbpf-dev libc6-dev"; exit 1; }
	@git() { command git -c safe.directory='*' "$$@"; }; before=$$(git diff HEAD | sha256sum; git status --porcelain); $(MAKE) --no-print-directory generate || exit 1; \
	after=$$(git diff HEAD | sha256sum; git status --porcelain); \
	[ "$$before" = "$$after" ] || { echo "make generate changes files; commit what it makes:"; git status --short; git diff --stat HEAD; exit 1; }
	go vet ./...
	go vet -C tools/asmgen ./...
	go run $(STATICCHECK) ./...
	go test -count=1 ./tools/repocheck

# A FUZZTIME (seconds) shared by all fuzz targets.
fuzz:
	@FUZZTIME=$(FUZZTIME) ./tools/fuzz.sh

# Two minutes: build/bench/results.json and build/bench/report.html. With root also on the wire.
bench: build
	build/sallyport-bench run --quick

clean:
	rm -rf build
