# SPDX-License-Identifier: MIT
# The exit codes of shmctl, and that each complaint says what to do: 2 usage, 3 nothing there, 4 permission, 5 layout,
# 6 damage.  (7 belongs to the verbs that say no: see the tests of cache, limit and queue.)
. "$srcdir/tests/cli/cli.sh"

patch() { # FILE OFFSET BYTE-IN-OCTAL
	printf "\\$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

"$shmctl" create "$seg" --size 2M

# 2: usage ------------------------------------------------------------------------------------

expect 2 "an unknown command" cahce ls
says "... with the nearest one" "did you mean shmctl cache?"
expect 2 "an unknown verb of a group" cache lst
says "... with the nearest one" "did you mean shmctl cache ls?"
expect 2 "a verb without its group" peek
says "... with its group" "did you mean shmctl queue peek?"
expect 2 "a group without a verb" cache
expect 2 "an unknown option" ls --jsom
says "... with the nearest one" "did you mean --json?"
expect 2 "an unknown letter" limit take "$seg/x" -q
expect 2 "an operand too few" cache get "$seg/pages"
says "... names it" "KEY is missing"
expect 2 "an operand too many" info "$seg" more
expect 2 "an option without its value" create "$seg" --size
expect 2 "a mistake, wanted as JSON" cache create "$seg/pages" --json
check_equal "... tells the command" "cache create" "$(in_json subject)"
check_equal "... what it is" "--size S is missing" "$(in_json error)"
check_equal "... and the exit code" 2 "$(in_json exit_code)"
expect 2 "an unknown command, wanted as JSON" cahce ls --json
check_equal "... tells what to do" "did you mean shmctl cache?" "$(in_json fix)"
expect 2 "a value for an option that takes none" ls --json=yes
expect 2 "a required option is missing" create "$seg"
says "... names it" "--size S is missing"
expect 2 "a size with an unknown unit" create "$seg" --size 12Q
expect 2 "a negative size" create "$seg" --size -1M
expect 2 "a size beyond 64 bits" create "$seg" --size 99999999999G
says "... says so" "too large"
expect 2 "an object where a segment is wanted" info "$seg/pages"
expect 2 "a segment where an object is wanted" cache ls "$seg"
expect 2 "a name with two slashes" cache ls "$seg/a/b"
expect 2 "an empty object" cache ls "$seg/"
expect 2 "an empty name" info ""
expect 2 "a duration without a unit" cache set "$seg/pages" key value --ttl 5
expect 2 "a rate without a unit" limit create "$seg/login" --rate 10 --burst 5 --keys 10
expect 2 "a rate of nothing" limit create "$seg/login" --rate 0/s --burst 5 --keys 10
expect 2 "a policy that does not exist" cache create "$seg/pages" --size 1M --policy mru
expect 2 "a backoff that does not exist" queue create "$seg/mail" --capacity 9 --max-payload 1K --backoff square:1s
expect 2 "a fixed backoff with two delays" queue create "$seg/mail" --capacity 9 --max-payload 1K --backoff fixed:1s..2s
expect 2 "a linear backoff over the longest delay's default" queue create "$seg/mail" --capacity 9 --max-payload 1K --backoff linear:2h
expect 2 "a key of nothing" cache set "$seg/pages" "" value
says "... names it" "KEY has 0 bytes"
expect 2 "entries without lru" cache create "$seg/pages" --size 1M --max-entries 5
says "... says so" "--policy lru"
expect 2 "a cache that is too small" cache create "$seg/pages" --size 1K
says "... names the size, and the least" "size_bytes is 1024; it is 256 KiB at least"
expect 2 "too many lanes" cache create "$seg/pages" --size 1M --lanes 1000000
says "... names them" "lanes is 1000000"
expect 2 "a queue for too many tasks" queue create "$seg/mail" --capacity 65537 --max-payload 1K
says "... names the capacity" "capacity is 1 to 65536"
expect 2 "a burst that takes years" limit create "$seg/login" --rate 1/h --burst 99999999 --keys 10
says "... names it" "burst of 99999999"

# 0 would be the library's default, which is not what was said.
zero_is_refused() { # OPTION VERB...
	zero_option=$1
	shift
	expect 2 "$* is refused" "$@"
	says "... by its name" "$zero_option"
}
zero_is_refused --max-size create "$seg-x" --size 1M --max-size 0
zero_is_refused --mode create "$seg-x" --size 1M --mode 0000
zero_is_refused --ttl cache set "$seg/pages" key value --ttl 0
zero_is_refused --max-entries cache create "$seg/pages" --size 1M --policy lru --max-entries 0
zero_is_refused --lanes cache create "$seg/pages" --size 1M --lanes 0
zero_is_refused --burst limit create "$seg/login" --rate 1/s --burst 0 --keys 1
zero_is_refused --keys limit create "$seg/login" --rate 1/s --burst 1 --keys 0
zero_is_refused capacity queue create "$seg/mail" --capacity 0 --max-payload 1
for option in "--max-payload 0" "--max-payload 1 --pool 0" "--max-payload 1 --max-attempts 0" \
	"--max-payload 1 --backoff fixed:0" "--max-payload 1 --backoff linear:0..1s" \
	"--max-payload 1 --backoff exponential:1s..0"; do
	# shellcheck disable=SC2086
	zero_is_refused "--${option##*--}" queue create "$seg/mail" --capacity 1 $option
done

expect 2 "queue pop without --" queue pop "$seg/mail" cat
expect 2 "queue pop with nothing behind --" queue pop "$seg/mail" --
expect 2 "--json and --prom at once" stats "$seg" --json --prom
expect 2 "a bad name for an object" cache create "$seg/a b" --size 1M
check_equal "a usage error prints nothing on stdout" "" "$(cat "$out")"

# 3: nothing there ----------------------------------------------------------------------------

missing="$seg-missing"
for verb in "ls" "info" "ps" "stats" "verify" "queue ls" "reap" "rm --yes"; do
	# shellcheck disable=SC2086
	expect 3 "$verb of a missing segment" $verb "$missing"
done
says "... names it" "shmctl: $missing: no such segment"
says "... and what to do" "shmctl ls"
for verb in "stats" "verify" "rm --yes" "cache ls" "queue peek" "queue dead"; do
	# shellcheck disable=SC2086
	expect 3 "$verb of a missing object" $verb "$seg/missing"
	says "... names it" "shmctl: $seg/missing: no such object"
done
expect 3 "cache get from a missing cache" cache get "$seg/missing" key
expect 3 "cache get --peek from a missing cache" cache get --peek "$seg/missing" key
expect 3 "cache set into a missing cache" cache set "$seg/missing" key value
expect 3 "cache del from a missing cache" cache del "$seg/missing" key
expect 3 "limit show of a missing limiter" limit show "$seg/missing" key
expect 3 "limit take from a missing limiter" limit take "$seg/missing" key
expect 3 "queue push to a missing queue" queue push "$seg/missing" payload
expect 3 "queue pop from a missing queue" queue pop "$seg/missing" -- true
expect 3 "cache create in a missing segment" cache create "$missing/pages" --size 1M
expect 3 "limit create in a missing segment" limit create "$missing/login" --rate 1/s --burst 1 --keys 1
expect 3 "queue create in a missing segment" queue create "$missing/mail" --capacity 1 --max-payload 1
expect 3 "a path in a missing folder" info /no/such/folder/segment

# 4: permission -------------------------------------------------------------------------------

# root may do everything, so root asks as somebody else.
as_nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups "$shmctl" "$@"
}
cp "/dev/shm/$seg" "/dev/shm/$seg-locked"
chmod 600 "/dev/shm/$seg-locked"
if [ "$(id -u)" != 0 ]; then
	chmod 0 "/dev/shm/$seg-locked"
	refused() {
		"$shmctl" "$@"
	}
elif as_nobody --version >/dev/null 2>&1; then
	refused() {
		as_nobody "$@"
	}
else
	refused() {
		return 99
	}
fi
if refused --version >/dev/null 2>&1; then
	check_status 4 "info without permission" refused info "$seg-locked"
	check_status 4 "cache set without permission" refused cache set "$seg-locked/pages" key value
	refused info "$seg-locked" 2>"$err" || true
	says "... says whose file it is" "/dev/shm/$seg-locked belongs to"
	refused ls >"$out" 2>"$err" || true
	check_equal "ls shows it with the reason" 1 "$(grep -c "^$seg-locked .*no permission" "$out")"
else
	skip "verbs without permission" "no way to be an unprivileged user here"
fi
cp "/dev/shm/$seg" "/dev/shm/$seg-open"
chmod 666 "/dev/shm/$seg-open"
expect 4 "a segment that everyone may write to is refused" info "$seg-open"
says "... says what to do" "chmod o-w /dev/shm/$seg-open"
run ls
check_equal "... and ls shows it with the reason" 1 "$(grep -c "^$seg-open .*writable by all" "$out")"

# Where and for whom a segment may be made.
if [ "$(id -u)" = 0 ] && as_nobody --version >/dev/null 2>&1; then
	chmod 711 "$tap_dir"
	mkdir -m 700 "$tap_dir/private"
	refused create "$tap_dir/private/x" --size 1M 2>"$err" || true
	says "a folder that one may not write to: says what to do" "choose a folder"
	says "... and whose it is" "$tap_dir/private belongs to"
	check_status 4 "a group that one is no member of" refused create "$seg-x" --size 1M --group root
	refused create "$seg-x" --size 1M --group root 2>"$err" || true
	says "... says which are" "id -Gn"
	has "$err" any-owner "... and nothing about owners" 1
	check_fails "... and nothing is left" test -e "/dev/shm/$seg-x"
else
	skip "creating where one may not" "needs root and setpriv"
fi

# Of another owner: read by anyone who may, written to only on request.
if [ "$(id -u)" = 0 ]; then
	cp "/dev/shm/$seg" "/dev/shm/$seg-theirs"
	chown 65534:65534 "/dev/shm/$seg-theirs"
	expect 0 "looking at a segment of another owner" info "$seg-theirs"
	expect 4 "acting on a segment of another owner" reap "$seg-theirs"
	says "... says how" "--any-owner"
	expect 0 "... works when asked for" reap "$seg-theirs" --any-owner
else
	skip "a segment of another owner" "needs root"
fi

# 5: another layout ---------------------------------------------------------------------------

copy=/dev/shm/$seg-copy
cp "/dev/shm/$seg" "$copy"
expect 0 "control: a copy at a path is a segment" info "$copy"
patch "$copy" 8 143
expect 5 "a segment of another layout" info "$copy"
says "... says which" "layout version"
expect 5 "verify of another layout" verify "$copy"
expect 5 "acting on another layout" reap "$copy"
run ls
check_equal "ls shows it with the reason" 1 "$(grep -c "^$seg-copy .*other layout" "$out")"
expect 0 "it can be removed" rm "$copy" --yes

# 6: damage -----------------------------------------------------------------------------------

cp "/dev/shm/$seg" "$copy"
expect 0 "control: the copy is sound" verify "$copy"
patch "$copy" 4096 003
expect 6 "a member word that cannot be" verify "$copy"
prints "... is called damage" "DAMAGE"
expect 6 "... also with --json" verify "$copy" --json
check_equal "... which says so" false "$(in_json ok)"
check_equal "... and where" segment/members "$(in_json findings.0.where)"
expect 0 "looking elsewhere still works" info "$copy"
cp "/dev/shm/$seg" "$copy"
truncate -s 65536 "$copy"
expect 6 "a segment that was cut off" info "$copy"
says "... says what to do" "then shmctl rm $copy"
run ls
check_equal "ls shows it with the reason" 1 "$(grep -c "^$seg-copy .*damaged" "$out")"
expect 0 "what it says works" rm "$copy" --yes
cp "/dev/shm/$seg" "$copy"
patch "$copy" 24 001
expect 3 "a segment whose creator died" info "$copy"
says "... says so" "never finished by its creator"
run ls
check_equal "ls shows it with the reason" 1 "$(grep -c "^$seg-copy .*never finished" "$out")"
expect 0 "creating it again works" create "$seg-copy" --size 1M

# Its start was overwritten: nothing that shmctl could do would help, but rm(1) does.
printf 'XXXXXXXX' | dd of="$copy" conv=notrunc 2>/dev/null
for verb in info verify "create --size 1M" "rm --yes"; do
	# shellcheck disable=SC2086
	expect 6 "$verb of a segment without its magic number" $verb "$seg-copy"
	says "... says what to do" "then rm $copy"
done
cp "$copy" "$tap_dir/other"
expect 6 "a file elsewhere that is no segment" info "$tap_dir/other"
has "$err" "rm " "... is not for removing" 1
says "... but for another look" "check the path"
echo "neither here nor there" >"$copy"
expect 6 "a file that is no segment" verify "$copy"
says "... says so" "not a coshm segment"

# 1: a stopped creator ------------------------------------------------------------------------

cp "/dev/shm/$seg" "$copy"
patch "$copy" 24 001
"$stopper" "$copy" >"$tap_dir/stopper" &
stopped=$!
check "control: somebody creates it, and is stopped" eventually grep -q locked "$tap_dir/stopper"
expect 1 "a segment whose creator is stopped" info "$seg-copy"
says "... says who it is" "pid $stopped (stopper) has it open and is stopped"
says "... and what to do" "kill -CONT"
kill -CONT "$stopped"
wait "$stopped" 2>/dev/null || true
expect 3 "... which works" info "$seg-copy"

# 1: no room ----------------------------------------------------------------------------------

expect 0 "control: a cache that evicts nothing" cache create "$seg/none" --size 256K --policy none
full=no
for key in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	head -c 20000 /dev/zero | "$shmctl" cache set "$seg/none" $key - 2>"$err" || full=yes
done
check_equal "... is full" yes $full
says "... says why" "--policy none"
has "$err" --max-size "... and nothing about the segment's size" 1
expect 1 "an object that does not fit in" cache create "$seg/large" --size 8M
says "... says what would help" "--max-size"
in_own_mounts() {
	unshare -m sh -c "mount -t tmpfs -o size=4M tmpfs '$tap_dir/fs' && $1" >"$out" 2>"$err"
}
mkdir "$tap_dir/fs"
if in_own_mounts true; then
	in_own_mounts "! '$shmctl' create '$tap_dir/fs/x' --size 8M"
	says "no room on the file system: says where to look" "df -h $tap_dir/fs"
	has "$err" --max-size "... and nothing about --max-size" 1
	in_own_mounts "'$shmctl' create '$tap_dir/fs/x' --size 1M --max-size 64M &&
		! '$shmctl' cache create '$tap_dir/fs/x:c' --size 16M"
	says "no room to grow: says that it is the file system" "file system is full"
	in_own_mounts "'$shmctl' create '$tap_dir/fs/x' --size 2M && '$shmctl' cache create '$tap_dir/fs/x:c' --size 1M &&
		mount -o remount,ro '$tap_dir/fs' && ! '$shmctl' cache set '$tap_dir/fs/x:c' k v &&
		'$shmctl' verify '$tap_dir/fs/x'"
	says "a file system that is mounted read-only: says so" "remount the file system writable"
	has "$err" COSHM_ "... without words of C" 1
	prints "... and looking still works" "ok, 1 object"
else
	skip "full and read-only file systems" "needs root and mount namespaces"
fi

# 1: the rest ---------------------------------------------------------------------------------

if [ -c /dev/full ]; then
	status=0
	"$shmctl" info "$seg" >/dev/full 2>"$err" || status=$?
	check_equal "output that cannot be written is a failure" 1 "$status"
else
	skip "output that cannot be written is a failure" "no /dev/full"
fi
finish
