#!/bin/bash
# Prints the figures of issue 3, and fails if one is missing: RUNS simulated clusters from seed
# FIRST on, a crash at every event of the scripts (every STRIDE-th), the exhaustive tables, and
# POINTS kill points of real daemons, which mostly wait and so run beside the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
out=bin/proof
mkdir -p "$out"
rm -f "$out"/*.log
began=$(date +%s)
bad=0

# part NAME COMMAND...: keeps the output, and says how it went and how long it took.
part() {
	local name=$1 start
	start=$(date +%s)
	shift
	if "$@" >"$out/$name.log" 2>&1; then
		echo "ok    $name, $(($(date +%s) - start)) s"
	else
		echo "FAIL  $name: $out/$name.log"
		return 1
	fi
}

part kill-points go run ./soak kill-points -points "${POINTS:-2000}" &
kill_points=$!
part simulator go test ./sim -run 'TestSim$|TestPlans' -v -count=1 -timeout 30m -args -sim.first="${FIRST:-1}" -sim.runs="${RUNS:-10000}" || bad=1
part crashes go test ./sim -run 'TestCrashAtEveryEvent' -v -count=1 -timeout 30m -args -sim.stride="${STRIDE:-1}" || bad=1
part tables go test ./replication ./replication/state ./activitylog ./metadata ./bitmap -count=1 -v \
	-run 'Table|Every|Torn|Flip|Mirrored|Golden|AllTuples' || bad=1
wait $kill_points || bad=1

echo
echo "simulator:"
grep -hE 'scenarios in|faults by kind' "$out/simulator.log" | sed 's/^ *sim_test.go:[0-9]*: /  /' || bad=1
echo "crash at every event:"
grep -h 'scripts of' "$out/crashes.log" | sed 's/^ *crash_test.go:[0-9]*: /  /' || bad=1
echo "tables: $(grep -c '^--- PASS' "$out/tables.log") tests"
grep -hE 'tuples|pairs|states|torn|flipped|bits' "$out/tables.log" | grep -E '_test.go:' | sed 's/^ *[a-z_]*_test.go:[0-9]*: /  /'
echo "kill points:"
grep -E '^  all |^takeovers|^comparisons|^acknowledged|^blocks|^time' "$out/kill-points.log" | sed 's/^ */  /'
if [ $bad = 0 ]; then
	echo "lost acknowledged writes, stale reads, silent differences, false split brains: 0 (each would have failed)"
fi
echo "make proof: $(($(date +%s) - began)) s, $([ $bad = 0 ] && echo all green || echo NOT green)"
exit $bad
