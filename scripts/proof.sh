#!/bin/bash
# Prints the figures of issue 3, and fails if one is missing: RUNS simulated clusters from seed
# FIRST on, a crash at every event of the scripts (every STRIDE-th), the exhaustive tables, and
# POINTS kill points of real daemons. Those mostly wait and so run beside the rest, which is
# niced: daemons that get no processor are not what is to be tested.
set -uo pipefail
cd "$(dirname "$0")/.."
out=bin/proof
mkdir -p "$out"
rm -f "$out"/*.log
began=$(date +%s)
bad=0
soak=
trap '[ -z "$soak" ] || kill "$soak" 2>/dev/null' EXIT

# part NAME COMMAND...: keeps the output, and says how it went and how long it took.
part() {
	local name=$1 start
	start=$(date +%s)
	shift
	"$@" >"$out/$name.log" 2>&1
	report "$name" "$start" $?
}

# report NAME START CODE says how a part went, and shows the end of what it said if it failed.
report() {
	if [ "$3" = 0 ]; then
		echo "ok    $1, $(($(date +%s) - $2)) s"
		return
	fi
	bad=1
	echo "FAIL  $1, code $3: $out/$1.log has"
	{
		grep -E '^ *--- FAIL' "$out/$1.log"
		tail -n 60 "$out/$1.log"
	} | cut -c1-400 | sed 's/^/      /'
}

# sim ARGUMENTS... runs tests of the simulator.
sim() {
	(cd sim && nice "../$out/sim.test" -test.v -test.timeout 60m "$@")
}

# Built before anything runs: a compiler beside them would starve the daemons.
go build -o "$out/soak" ./soak && go test -c -o "$out/sim.test" ./sim || exit 1

"$out/soak" kill-points -points "${POINTS:-2000}" >"$out/kill-points.log" 2>&1 &
soak=$!
part simulator sim -test.run 'TestSim$|TestPlans' -sim.first="${FIRST:-1}" -sim.runs="${RUNS:-10000}"
part crashes sim -test.run TestCrashAtEveryEvent -sim.stride="${STRIDE:-1}"
part tables nice go test ./replication ./replication/state ./activitylog ./metadata ./bitmap -count=1 -v \
	-run 'Table|Every|Torn|Flip|Mirrored|Golden|AllTuples'
wait $soak
code=$?
soak=
report kill-points "$began" $code

echo
echo "simulator:"
grep -hE 'scenarios in|faults by kind' "$out/simulator.log" | sed 's/^ *sim_test.go:[0-9]*: /  /' || bad=1
echo "crash at every event:"
grep -h 'scripts of' "$out/crashes.log" | sed 's/^ *crash_test.go:[0-9]*: /  /' || bad=1
echo "tables: $(grep -c '^--- PASS' "$out/tables.log") tests"
grep -oE '^--- PASS: Test[A-Za-z]*' "$out/tables.log" | cut -c15- | tr '\n' ' ' | fold -s -w 96 | sed 's/^/  /' || bad=1
echo
grep -hE 'tuples|pairs|states|torn|flipped|bits' "$out/tables.log" | grep -E '_test.go:' | sed 's/^ *[a-z_]*_test.go:[0-9]*: /  /'
echo "kill points:"
grep -E '^  all |^takeovers|^comparisons|^acknowledged|^blocks|^time' "$out/kill-points.log" | sed 's/^ */  /' || bad=1
if [ $bad = 0 ]; then
	echo "lost acknowledged writes, stale reads, silent differences, false split brains: 0 (each would have failed)"
fi
echo "make proof: $(($(date +%s) - began)) s, $([ $bad = 0 ] && echo all green || echo NOT green)"
exit $bad
