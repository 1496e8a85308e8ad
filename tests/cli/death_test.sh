# SPDX-License-Identifier: MIT
# A worker is killed with a task in its hands: shmctl shows it without touching it, and reap finishes it.
. "$srcdir/tests/cli/cli.sh"

"$shmctl" create "$seg" --size 4M
"$shmctl" queue create "$seg/mail" --capacity 16 --max-payload 1K --max-attempts 3 --backoff fixed:1ms
"$shmctl" queue push "$seg/mail" task >/dev/null
"$shmctl" queue pop "$seg/mail" -- sleep 600 >"$tap_dir/pop.out" 2>&1 &
pop=$!
check "the worker has the task" eventually depth mail leased 1

run ps "$seg" --json
check_equal "ps: one member" 1 "$(in_json members.length)"
check_equal "ps: its pid" "$pop" "$(in_json members.0.pid)"
check_equal "ps: alive" alive "$(in_json members.0.state)"
check_equal "ps: what it holds" 1 "$(in_json members.0.holds.leases)"
run ps "$seg"
prints "ps for people" "1 lease"
run queue peek "$seg/mail" --json
check_equal "peek: who has the task" "$pop" "$(in_json tasks.0.holder_pid)"
expect 0 "control: verify while it lives" verify "$seg" --json
check_equal "... finds nothing pending" 0 "$(in_json pending)"

child=$(pgrep -P "$pop" 2>/dev/null || cat "/proc/$pop/task/$pop/children" 2>/dev/null || true)
kill -9 "$pop"
wait "$pop" 2>/dev/null

dead() {
	run ps "$seg" --json
	[ "$(in_json members.0.state)" = dead ]
}
check "ps: dead" eventually dead
run ls
check_equal "ls shows it" 1 "$(grep -c "^$seg .*1 dead member" "$out")"
expect 0 "verify: no damage" verify "$seg" --json
check "... but work that is pending" test "$(in_json pending)" -gt 0
check_equal "... is called that" pending "$(in_json findings.0.level)"
check_equal "... and which queue has it" mail/records "$(in_json findings.1.where)"
check_equal "... in words" "record 0 belongs to a dead member: its worker had the task" "$(in_json findings.1.text)"
expect 0 "verify for people" verify "$seg"
prints "... calls it ok" "$seg: ok"
check "looking changed nothing" dead
if [ -n "$child" ]; then
	# Where process 1 is no init, nobody collects it.
	gone() {
		case $(sed 's/.*) //' "/proc/$child/stat" 2>/dev/null) in '' | [ZX]*) ;; *) return 1 ;; esac
	}
	check "the program that the worker ran was told to stop" eventually gone
else
	skip "the program that the worker ran was told to stop" "its pid cannot be found here"
fi

expect 0 "reap" reap "$seg" --json
check_equal "... leaves no dead" 0 "$(in_json dead_left)"
run ps "$seg" --json
check_equal "nobody is left" 0 "$(in_json members.length)"
expect 0 "verify after the reap" verify "$seg" --json
check_equal "... nothing is pending" 0 "$(in_json pending)"
expect 0 "the task is delivered again" queue pop "$seg/mail" --wait 1m -- cat
check_equal "... as it was" task "$(cat "$out")"
finish
