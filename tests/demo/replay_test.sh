# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC1091,SC2154
# replay passes an honest server and turns red for each lie, by the rule that is meant for it.
srcdir=${srcdir:-.}
. "$srcdir/tests/support/tap.sh"

if [ ! -x examples/replay ] || [ ! -x tests/demo/liar ]; then
	skip "replay against honest and lying servers" "libevent or jansson is missing"
	finish
fi

seconds=1
liar_pid=
trap '[ -z "$liar_pid" ] || kill "$liar_pid" 2>/dev/null; rm -rf "$tap_dir"' EXIT

# try LIE STATUS [REPLAY-ARG...] - leaves the report in $tap_dir/report
try() {
	lie=$1 wanted=$2
	shift 2
	run_dir=$tap_dir/$lie
	mkdir "$run_dir"
	tests/demo/liar "$run_dir" "$lie" &
	liar_pid=$!
	tries=0
	while [ ! -e "$run_dir/server" ] && kill -0 $liar_pid 2>/dev/null && [ $tries -lt 1200 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	status=0
	COSHM_ACCESS_LOG='' examples/replay --run-dir "$run_dir" --seconds "$seconds" \
		--max-block-ms 60000 "$@" \
		>"$tap_dir/report" 2>&1 || status=$?
	kill "$liar_pid"
	wait "$liar_pid"
	liar_pid=
	rm -rf "$run_dir"
	[ $status = "$wanted" ]
}

# red LIE RULE [REPLAY-ARG...] - the lie is found out, and by this rule
red() {
	lie=$1 rule=$2
	shift 2
	# On a machine with much else to do, the occasion for a lie may not come in one second.
	for seconds in 1 4 16; do
		try "$lie" 1 "$@" || :
		! grep -q "$rule *BROKEN" "$tap_dir/report" || break
	done
	seconds=1
	cp "$tap_dir/report" "$tap_dir/.output"
	echo "exit status $status" >>"$tap_dir/.output"
	[ $status = 1 ] && grep -q "$rule *BROKEN" "$tap_dir/report"
	tap_result $? "$lie is found out by: $rule"
}

check "an honest server passes" try honest 0
red flip-bit "every body is right"
red mix-versions "every body is right"
red other-url "every body is right"
red truncate "every body is right"
red expired "every body is right"
red wrong-304 "every body is right"
red headers "no response breaks the contract"
red error "no response breaks the contract"
red burst "no client got more than B + r\*T"
red hang "no request was blocked" --max-block-ms 1000
red lose-task "no accepted task was lost"
red run-twice "no task ran again without a death"
red crash "no process died by itself"
red leftover "the queue ran empty"
red forget "pages went early by eviction alone"
red damage "the segment is sound"

check "the honest one passes with --json" try honest 0 --json
for key in seconds requests status resets hit_ratio evictions bad_bodies over_admitted \
	tasks_accepted tasks_executed tasks_lost tasks_run_twice redelivered_after_death kills \
	kills_holding recovery_ms longest_block_ms requests_per_worker verify ok; do
	check "the JSON has $key" grep -q "^  \"$key\": " "$tap_dir/report"
done
check_equal "the JSON has no other key" 20 "$(grep -c '^  "' "$tap_dir/report")"

check_status 2 "no server named is a usage error" examples/replay --seconds 1
check_status 2 "an unusable number is a usage error" examples/replay --port 1 --seconds x
check_status 1 "a server that is not there is a failure" examples/replay --run-dir "$tap_dir"
check "help is no error" examples/replay --help
finish
