# SPDX-License-Identifier: MIT
# shmctl queue create, ls, push, peek, dead: what went in can be seen, and looking takes nothing.
. "$srcdir/tests/cli/cli.sh"

"$shmctl" create "$seg" --size 16M
expect 0 "queue create" queue create "$seg/mail" --capacity 4 --max-payload 64K --max-attempts 2 --backoff fixed:1ms
expect 0 "queue create with an exponential backoff" queue create "$seg/slow" --capacity 4 --max-payload 1K \
	--backoff exponential:1s..5m
expect 0 "push prints the id" queue push "$seg/mail" "to: alice"
first=$(cat "$out")
check "... which is a number above 0" test "$first" -gt 0
expect 0 "push --json" queue push "$seg/mail" "to: bob" --json
check "... has the id as a number" test "$(in_json id)" -gt 0
head -c 60000 /dev/urandom >"$tap_dir/noise"
check "push - reads stdin" sh -c "'$shmctl' queue push '$seg/mail' - <'$tap_dir/noise'"
check_status 1 "a payload that is too large" sh -c "head -c 70000 /dev/zero | '$shmctl' queue push '$seg/mail' -"
expect 0 "push the last that fits" queue push "$seg/mail" ""
expect 1 "push to a full queue" queue push "$seg/mail" "one more"
says "... says so" "the queue is full"
says "... and by what" "all 4 places are taken (4 ready, 0 delayed, 0 with workers)"

run queue ls "$seg" --json
check_equal "ls lists all queues" 2 "$(in_json queues.length)"
check_equal "ls --json: ready" 4 "$(in_json queues.0.ready)"
check_equal "ls --json: capacity" 4 "$(in_json queues.0.capacity)"
check_equal "ls --json: the pool" 262144 "$(in_json queues.0.payload_pool_bytes)"
check_equal "ls --json: the kind of backoff" fixed "$(in_json queues.0.backoff.kind)"
check_equal "... and its delay" 1000000 "$(in_json queues.0.backoff.base_ns)"
run queue ls "$seg"
prints "ls shows the backoff" "exponential:1s..5m00s"

run queue peek "$seg/mail"
prints "peek lists the tasks" ready
prints_not "... without payloads" "to: alice"
run queue peek "$seg/mail" --json
check_equal "peek --json: all tasks" 4 "$(in_json tasks.length)"
check_equal "peek --json: oldest first" "$first" "$(in_json tasks.0.id)"
check_equal "peek --json: sizes" 9 "$(in_json tasks.0.payload_size_bytes)"
check_fails "peek --json hides payloads" in_json tasks.0.payload
run queue peek "$seg/mail" --show-values --json
check_equal "peek --show-values: text" "to: alice" "$(in_json tasks.0.payload)"
check_equal "peek --show-values: other bytes in hexadecimal" \
	"$(od -An -v -tx1 <"$tap_dir/noise" | tr -d ' \n' | cksum)" "$(in_json tasks.2.payload_hex | tr -d '\n' | cksum)"
run queue peek "$seg/mail" --show-values
prints "peek --show-values shows a line" "to: alice"
run queue peek "$seg/mail" --limit 1 --json
check_equal "peek --limit" 1 "$(in_json tasks.length)"
check_equal "... says that there is more" true "$(in_json truncated)"
check "looking took nothing" depth mail ready 4

# Dead letters.
expect 0 "dead of a queue without dead letters" queue dead "$seg/mail" --json
check_equal "... is empty" 0 "$(in_json tasks.length)"
fail_once() {
	run queue pop "$seg/mail" --wait 10s -- sh -c 'exit 3'
	[ "$status" = 3 ]
}
# Two attempts each, for four tasks.
for task in 1 2 3 4 5 6 7 8; do
	fail_once || echo "# pop $task: exit status $status"
done
check "tasks out of attempts are dead" depth mail dead 4
run queue dead "$seg/mail" --json
check_equal "dead --json lists them" 4 "$(in_json tasks.length)"
check_equal "dead --json: each attempt" 2 "$(in_json tasks.0.failed_attempts.length)"
check_equal "dead --json: its error" "exit 3" "$(in_json tasks.0.failed_attempts.1.error)"
check_equal "dead --json: how it ended" failed "$(in_json tasks.0.failed_attempts.1.outcome)"
run queue dead "$seg/mail"
prints "dead shows the error of each attempt" "exit 3"
prints_not "dead hides payloads" "to: alice"
run queue peek "$seg/mail" --json
check_equal "peek leaves dead letters to dead" 0 "$(in_json tasks.length)"
expect 1 "push to a queue full of dead letters" queue push "$seg/mail" "one more"
says "... says by what" "4 of its 4 tasks are dead letters"
says "... and what to do" "queue drop"

# Redrive and drop.
run queue dead "$seg/mail" --json
one=$(in_json tasks.0.id) two=$(in_json tasks.1.id)
expect 2 "redrive without an id" queue redrive "$seg/mail"
expect 2 "redrive of what is no id" queue redrive "$seg/mail" 0
expect 0 "redrive of one" queue redrive "$seg/mail" "$one"
prints "... says how many" "1 dead letter redriven"
check "... which is ready" depth mail ready 1
check "... and no other" depth mail dead 3
expect 3 "redrive of what is no dead letter" queue redrive "$seg/mail" "$one"
says "... says where to look" "shmctl queue dead $seg/mail"
expect 2 "drop without --yes where nobody can be asked" queue drop "$seg/mail" "$two"
check "... drops nothing" depth mail dead 3
expect 0 "drop of one" queue drop "$seg/mail" "$two" --yes --json
check_equal "... says how many" 1 "$(in_json dropped)"
check "... which is gone" depth mail dead 2
expect 0 "drop of all" queue drop "$seg/mail" all --yes
prints "... says how many" "2 dead letters dropped"
check "... which are gone" depth mail dead 0
check "... and the one that is ready is not" depth mail ready 1
expect 0 "push has room again" queue push "$seg/mail" "one more"
expect 0 "redrive of all when there are none" queue redrive "$seg/mail" all
prints "... says so" "0 dead letters redriven"

# A task whose time has come while no worker looked.
"$shmctl" queue create "$seg/later" --capacity 4 --max-payload 1K --backoff fixed:1ms
"$shmctl" queue push "$seg/later" task >/dev/null
run queue pop "$seg/later" -- sh -c 'exit 1'
due() {
	run queue peek "$seg/later"
	grep -q "due [0-9].* ago" "$out"
}
check "peek says for how long a task has been due" eventually due

# A pool smaller than the tasks need.
head -c 900000 /dev/zero >"$tap_dir/large"
expect 0 "queue create --pool" queue create "$seg/large" --capacity 1000 --max-payload 1M --pool 2M
run queue ls "$seg"
check_equal "ls shows the pool" 1 "$(grep -cE '^large .* 1000 +1M +2M ' "$out")"
push_large() {
	"$shmctl" queue push "$seg/large" - <"$tap_dir/large" 2>"$err"
}
check "a large payload" push_large
check "two large payloads" push_large
check_status 1 "a third one does not fit" push_large
push_large >/dev/null || true
says "... says why" "2 of 1000 places are taken, but the pool of 2M"
says "... and what would help" "--pool"
expect 0 "a small one does" queue push "$seg/large" small
expect 2 "a pool for less than one payload" queue create "$seg/tiny" --capacity 1 --max-payload 1M --pool 64K
says "... says so" "payload_pool_bytes"
expect 0 "verify afterwards" verify "$seg"
finish
