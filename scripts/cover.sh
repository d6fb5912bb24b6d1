#!/bin/sh
# Statement coverage of the core and the codecs by their own tests and by the simulator:
#
#	scripts/cover.sh FLOOR PROFILE PACKAGE...
#
# prints a line for each package, leaves the profile for go tool cover, and fails if a
# package is below FLOOR percent.
set -eu
floor=$1 profile=$2
shift 2
list=$(echo "$@" | tr ' ' ',')
go test -count=1 -timeout 10m -coverpkg="$list" -coverprofile="$profile" "$@"
go test -count=1 -timeout 10m -coverpkg="$list" -coverprofile="$profile.sim" ./sim -run 'TestSim$|TestPlans' -args -sim.runs=500
grep -v '^mode:' "$profile.sim" >>"$profile"
rm -f "$profile.sim"
awk -v floor="$floor" '
	/^mode:/ { next }
	{ statements[$1] = $2; if ($3 > 0) reached[$1] = 1 }
	END {
		for (block in statements) {
			package = block
			sub(/\/[^\/]*$/, "", package)
			all[package] += statements[block]; all["total"] += statements[block]
			if (block in reached) { hit[package] += statements[block]; hit["total"] += statements[block] }
		}
		for (package in all) {
			share = 100 * hit[package] / all[package]
			printf "%-50s %5d of %5d statements  %5.1f %%%s\n", package, hit[package], all[package], share, share < floor ? "  BELOW " floor " %" : "" | "sort"
			low += share < floor
		}
		close("sort")
		exit low > 0
	}' "$profile"
