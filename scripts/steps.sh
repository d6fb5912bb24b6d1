#!/bin/bash
# Makes targets one after the other and says at the end, whatever happened, how long each took
# and how much CPU time it has cost:
#
#	scripts/steps.sh TARGET...
set -u
said=()

# cpu is the CPU time of all that has run so far, in seconds.
cpu() {
	local f
	read -ra f </proc/$$/stat
	echo $(((f[15] + f[16]) / $(getconf CLK_TCK)))
}

tell() { printf 'make test: %s\n' "${said[@]}"; }

for step; do
	began=$SECONDS before=$(cpu)
	"${MAKE:-make}" --no-print-directory "$step"
	code=$?
	said+=("$step $((SECONDS - began)) s, $(($(cpu) - before)) s of CPU")
	if [ $code != 0 ]; then
		said[-1]+=", FAILED"
		tell
		exit $code
	fi
done
tell
