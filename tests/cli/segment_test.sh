# SPDX-License-Identifier: MIT
# shmctl create, ls, info, rm and reap: the life of a segment, and what each prints.
. "$srcdir/tests/cli/cli.sh"

expect 0 "create makes a segment" create "$seg" --size 2M --max-size 4M --mode 0640
check_equal "create prints nothing on stdout" "" "$(cat "$out")"
check_equal "the file has the mode that was asked for" 640 "$(stat -c %a "/dev/shm/$seg")"
check_equal "the file has the size that was asked for" 2097152 "$(stat -c %s "/dev/shm/$seg")"
expect 1 "create refuses a name that is taken" create "$seg" --size 2M
says "... and says how to go on" "shmctl rm"

run info "$seg" --json
check_equal "info: size in exact bytes" 2097152 "$(in_json size_bytes)"
check_equal "info: largest size in exact bytes" 4194304 "$(in_json size_max_bytes)"
check_equal "info: not fenced unless asked for" false "$(in_json fenced)"
check_equal "info: path" "/dev/shm/$seg" "$(in_json path)"
check_equal "info: looking is no membership" 0 "$(in_json members)"
run info "$seg"
prints "info: sizes for people in the table" "2M of at most 4M"

expect 0 "create for so many members and threads" create "$seg-small" --size 1M --members 3 --threads 5
run info "$seg-small" --json
check_equal "... it is" "3 5" "$(in_json members_max) $(in_json threads_max)"
expect 2 "create with fewer threads than members" create "$seg-x" --size 1M --members 3 --threads 2
expect 2 "create for too many members" create "$seg-x" --size 1M --members 5000000000
expect 0 "create --fenced" create "$seg-fenced" --size 1M --fenced --json
check_equal "create --json names the segment" "$seg-fenced" "$(in_json segment)"
run info "$seg-fenced" --json
check_equal "... makes a fenced segment" true "$(in_json fenced)"
check_equal "... in pages as always" false "$(in_json huge_pages)"
expect 0 "create --huge-pages" create "$seg-huge" --size 4M --huge-pages
run info "$seg-huge" --json
check_equal "... asks for huge pages" true "$(in_json huge_pages)"
run info "$seg-huge"
prints "... and says so" "of 2 MiB where the kernel gives them"

run ls
prints "ls lists the segment" "$seg "
echo "not a segment" >"/dev/shm/$seg-foreign"
run ls
prints_not "ls leaves out files that are no segments" "$seg-foreign"
run ls --json
check "ls --json is one document" "$jsonq" segments.0.name <"$out"

expect 0 "ls of an empty segment" ls "$seg"
run ls "$seg" --json
check_equal "... lists no objects" 0 "$(in_json objects.length)"
expect 0 "a path names the same segment" info "/dev/shm/$seg"

# An object that is removed while nobody has it open.
"$shmctl" cache create "$seg/gone" --size 256K
"$shmctl" rm "$seg/gone" --yes
run ls "$seg"
prints_not "ls does not call open what nobody has open" "still open"
"$shmctl" queue create "$seg/kept" --capacity 4 --max-payload 100
"$shmctl" queue push "$seg/kept" task >/dev/null
"$shmctl" queue pop "$seg/kept" -- sleep 600 >/dev/null 2>&1 &
pop=$!
check "control: a worker has it open" eventually depth kept leased 1
"$shmctl" rm "$seg/kept" --yes
run ls "$seg"
prints "... and that it is still open" "removed, still open in 1 process"
kill "$pop"
wait "$pop" 2>/dev/null || true

# As someone else sees it: --group.
group=$(id -gn)
expect 0 "create --group takes a name" create "$seg-group" --size 1M --mode 0660 --group "$group"
check_equal "... and the file belongs to it" "$group" "$(stat -c %G "/dev/shm/$seg-group")"
expect 0 "create --group takes a number" create "$seg-gid" --size 1M --group "$(id -g)"
expect 2 "create --group refuses a group that does not exist" create "$seg-x" --size 1M --group no-such-group
expect 2 "create refuses a mode that lets everyone write" create "$seg-x" --size 1M --mode 0666
check_fails "... and leaves nothing behind" test -e "/dev/shm/$seg-x"
expect 2 "create refuses less than the least size" create "$seg-x" --size 4K

# Removing.
expect 2 "rm without a terminal wants --yes" rm "$seg-fenced"
says "... and says so" "--yes"
check "... and removes nothing" test -e "/dev/shm/$seg-fenced"
expect 0 "rm --yes removes" rm "$seg-fenced" --yes
check_fails "... the file" test -e "/dev/shm/$seg-fenced"
expect 3 "rm of what is not there" rm "$seg-fenced" --yes
expect 6 "rm leaves files alone that are no segments" rm "$seg-foreign" --yes
check "... which stay" test -e "/dev/shm/$seg-foreign"

# On a terminal it asks. script(1) gives it one.
on_terminal() { # ANSWER COMMAND...
	answer=$1
	shift
	echo "$answer" | script -qec "'$shmctl' $*" /dev/null >"$out" 2>&1
}
if command -v script >/dev/null && [ "$(on_terminal "" --version)" = "" ] && grep -q shmctl "$out"; then
	check_status 1 "rm on a terminal: no keeps it" on_terminal n rm "$seg-gid"
	prints "... having asked" "[y/N]"
	check "... the file is there" test -e "/dev/shm/$seg-gid"
	check "rm on a terminal: yes removes it" on_terminal y rm "$seg-gid"
	check_fails "... the file is gone" test -e "/dev/shm/$seg-gid"
else
	skip "rm on a terminal asks" "script(1) is missing"
fi

expect 0 "reap with nothing to do" reap "$seg" --json
check_equal "... reaps nobody" 0 "$(in_json reaped)"
expect 0 "ps with nobody attached" ps "$seg" --json
check_equal "... lists nobody" 0 "$(in_json members.length)"
expect 0 "verify of a sound segment" verify "$seg"
prints "... says ok" "$seg: ok"

run
prints "without arguments: what is here" "$seg "
prints "... and what to try next" "shmctl ls "
finish
