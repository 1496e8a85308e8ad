# SPDX-License-Identifier: MIT
# shmctl queue pop -- CMD: how CMD ends decides what becomes of the task, and signals reach CMD.
. "$srcdir/tests/cli/cli.sh"

"$shmctl" create "$seg" --size 16M
"$shmctl" queue create "$seg/mail" --capacity 16 --max-payload 2M --max-attempts 3 --backoff fixed:1h

push() {
	"$shmctl" queue push "$seg/mail" "$1" >/dev/null
}
# Start anew: no task of the test before is in the way.
fresh() {
	"$shmctl" rm "$seg/mail" --yes
	"$shmctl" queue create "$seg/mail" --capacity 16 --max-payload 2M --max-attempts 3 --backoff fixed:1h
}

expect 7 "an empty queue" queue pop "$seg/mail" -- echo never
check_equal "... runs nothing" "" "$(cat "$out")"
expect 7 "an empty queue after a wait" queue pop "$seg/mail" --wait 50ms -- true

push hello
expect 0 "CMD gets the payload on its stdin" queue pop "$seg/mail" -- cat
check_equal "... and owns stdout" "$(printf hello | od -c)" "$(od -c <"$out")"
expect 7 "... and the task is done" queue pop "$seg/mail" -- cat

head -c 1500000 /dev/urandom >"$tap_dir/noise"
"$shmctl" queue push "$seg/mail" - <"$tap_dir/noise" >/dev/null
expect 0 "a large payload" queue pop "$seg/mail" -- cat
check "... arrives as it was" cmp "$tap_dir/noise" "$out"
"$shmctl" queue push "$seg/mail" - <"$tap_dir/noise" >/dev/null
expect 0 "a CMD that does not read a large payload" queue pop "$seg/mail" -- true
expect 7 "... has done its task all the same" queue pop "$seg/mail" -- cat
push ""
expect 0 "an empty payload" queue pop "$seg/mail" -- sh -c 'test -z "$(cat)"'

push x
expect 0 "what is behind -- is CMD's" queue pop "$seg/mail" -- echo --json -n --wait 5s
check_equal "... untouched" "--json -n --wait 5s" "$(cat "$out")"

# Failures.
push x
expect 9 "CMD's exit status is passed on" queue pop "$seg/mail" -- sh -c 'exit 9'
check "... and the task waits for its next attempt" depth mail delayed 1
run queue peek "$seg/mail" --json
check_equal "... with the error in its history" "exit 9" "$(in_json tasks.0.failed_attempts.0.error)"
check_equal "... and one attempt counted" 1 "$(in_json tasks.0.attempts)"
fresh
push x
expect 137 "CMD killed by a signal" queue pop "$seg/mail" -- sh -c 'kill -9 $$'
run queue peek "$seg/mail" --json
check_equal "... is in the history" "signal 9" "$(in_json tasks.0.failed_attempts.0.error)"
fresh
push x
expect 127 "CMD that is not there" queue pop "$seg/mail" -- /no/such/command
says "... is named" "/no/such/command"
check "... and the task is ready" depth mail ready 1
run queue peek "$seg/mail" --json
check_equal "... with no attempt counted" 0 "$(in_json tasks.0.attempts)"
echo "not a program" >"$tap_dir/file"
expect 126 "CMD that cannot be run" queue pop "$seg/mail" -- "$tap_dir/file"
check "... and the task is ready" depth mail ready 1

# Signals. A background shell ignores SIGINT, so that one is not sent here.
start_pop() { # CMD...
	rm -f "$tap_dir/ready"
	"$shmctl" queue pop "$seg/mail" -- "$@" >"$tap_dir/pop.out" 2>&1 &
	pop=$!
	eventually depth mail leased 1
}
stop_pop() {
	kill "-$1" "$pop"
	status=0
	wait "$pop" || status=$?
}
fresh
push x
start_pop sleep 600
stop_pop TERM
check_equal "SIGTERM while CMD runs ends CMD" 143 "$status"
check "... and the task is ready again" depth mail ready 1
run queue peek "$seg/mail" --json
check_equal "... with no attempt counted" 0 "$(in_json tasks.0.attempts)"

# shellcheck disable=SC2016
start_pop sh -c 'trap "exit 0" TERM; touch "$0"; for i in $(seq 12000); do sleep 0.05; done' "$tap_dir/ready"
eventually test -e "$tap_dir/ready"
stop_pop TERM
check_equal "a CMD that finishes on SIGTERM" 0 "$status"
expect 7 "... has done its task" queue pop "$seg/mail" -- true

push x
# shellcheck disable=SC2016
start_pop sh -c 'trap "exit 5" TERM; touch "$0"; for i in $(seq 12000); do sleep 0.05; done' "$tap_dir/ready"
eventually test -e "$tap_dir/ready"
stop_pop TERM
check_equal "a CMD that gives up on SIGTERM" 5 "$status"
check "... has failed its task" depth mail delayed 1

fresh
"$shmctl" queue pop "$seg/mail" --wait 1h -- true >"$tap_dir/pop.out" 2>&1 &
pop=$!
waiting() {
	run ps "$seg" --json
	[ "$(in_json members.length)" = 1 ]
}
check "a pop that waits is a member" eventually waiting
stop_pop TERM
check_equal "SIGTERM while nothing is there to do" 143 "$status"
run ps "$seg" --json
check_equal "... leaves in order" 0 "$(in_json members.length)"

# The wait ends when a task comes.
"$shmctl" queue pop "$seg/mail" --wait 1h -- cat >"$tap_dir/pop.out" 2>&1 &
pop=$!
eventually waiting
push "at last"
status=0
wait "$pop" || status=$?
check_equal "a pop that waits gets the next task" "0 at last" "$status $(cat "$tap_dir/pop.out")"
expect 0 "verify afterwards" verify "$seg"
finish
