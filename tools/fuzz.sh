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
while read -r package target; do
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${each}s" "$package"
done <<<"$targets"
