#!/bin/sh
# Runs every fuzz target of the module for FUZZTIME each. Fails at the first finding.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
total=0
for pkg in $($go list ./...); do
	for target in $($go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "fuzz $pkg $target"
		$go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-5s}" -fuzzminimizetime 10x -parallel "${FUZZPARALLEL:-2}" "$pkg"
		total=$((total + 1))
	done
done
echo "fuzz: $total targets ran clean"
