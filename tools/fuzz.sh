#!/bin/bash
# Runs every fuzz target of the repository, all of them together for FUZZTIME seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
targets=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r package; do
	go test -list '^Fuzz' "$package" | sed -n "s,^Fuzz.*,$package &,p"
done)
count=$(grep -c . <<<"$targets" || true)
if [ "$count" = 0 ]; then echo "no fuzz targets"; exit 0; fi
each=$((${FUZZTIME:-60} / count))
[ "$each" -ge 1 ] || each=1
echo "$count fuzz targets, $each s each"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while read -r package target; do
	if go test -run '^$' -fuzz "^$target\$" -fuzztime "${each}s" -fuzzminimizetime 5x "$package" 2>&1 | tee "$log"; then continue; fi
	# The engine may report the end of its own time as a failure of the target, with no
	# other line and no failing input. Everything else is a finding.
	if grep -q '^ *context deadline exceeded$' "$log" && ! grep -Eq 'Failing input|panic:|\.go:[0-9]+:' "$log"; then
		echo "(the engine ran out of its time while stopping; nothing was found)"
		continue
	fi
	exit 1
done <<<"$targets"
