#!/bin/sh
# Runs every fuzz target of the module for FUZZTIME each. Fails at the first finding.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
total=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for pkg in $($go list ./...); do
	for target in $($go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "fuzz $pkg $target"
		fuzz() { $go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-5s}" -fuzzminimizetime 10x -parallel "${FUZZPARALLEL:-2}" "$pkg" >"$log" 2>&1; }
		fuzz || {
			# On a busy machine Go's fuzzer sometimes takes its own end of time for a failure. A
			# real one has an input, which it writes down.
			if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; then
				echo "  (ended late; once more)"
				fuzz || { cat "$log"; exit 1; }
			else
				cat "$log"
				exit 1
			fi
		}
		grep 'execs:' "$log" | tail -n 1
		total=$((total + 1))
	done
done
echo "fuzz: $total targets ran clean"
