# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# Sourced by the tests of shmctl, after it they can say:
#
#   run VERB...               runs shmctl; then $status, and the files $out and $err
#   in_json PATH              what is at PATH in the JSON document in $out
#   expect 3 "a thing" VERB...    passes if shmctl exits with 3
#   says "a thing" TEXT       passes if TEXT (a fixed string) is in $err
#   prints "a thing" TEXT     passes if TEXT (a fixed string) is in $out
#   prints_not "a thing" TEXT
#   eventually COMMAND...     tries it for a minute at least
#
# $seg is a segment name that no other test has; what begins with it in /dev/shm is removed at the end.
# SHMCTL names another shmctl than the one that was built.

shmctl=${SHMCTL:-tools/shmctl/shmctl}
if ! [ -x "$shmctl" ]; then
	echo "1..0 # SKIP shmctl is not built (it needs libsmartcols and jansson)"
	exit 0
fi
shmctl=$(cd "$(dirname "$shmctl")" && pwd)/$(basename "$shmctl")
jsonq=$PWD/tests/cli/jsonq
stopper=$PWD/tests/cli/stopper

. "$srcdir/tests/support/tap.sh"

# The messages that are looked for are those of the C locale, and no colour is wanted.
LC_ALL=C.UTF-8
TERM=dumb
export LC_ALL TERM
unset SHMCTL_WRITE NO_COLOR POSIXLY_CORRECT

seg=cli-$(basename "$0" .sh)-$$
out=$tap_dir/out
err=$tap_dir/err
status=0

clean_up() {
	rm -f "/dev/shm/$seg"*
	rm -rf "$tap_dir"
}
trap clean_up EXIT

run() {
	status=0
	"$shmctl" "$@" >"$out" 2>"$err" </dev/null || status=$?
}

in_json() {
	"$jsonq" "$@" <"$out"
}

expect() {
	expect_wanted=$1 expect_name=$2
	shift 2
	run "$@"
	{
		echo "shmctl $*: exit status $status, wanted $expect_wanted"
		cat "$out" "$err"
	} >"$tap_dir/.output"
	tap_result "$([ "$status" = "$expect_wanted" ] && echo 0 || echo 1)" "$expect_name"
}

has() { # FILE TEXT NAME WANTED
	has_got=1
	grep -qF -e "$2" "$1" && has_got=0
	{
		[ "$4" = 0 ] && echo "not found: $2" || echo "found: $2"
		cat "$1"
	} >"$tap_dir/.output"
	tap_result "$([ "$has_got" = "$4" ] && echo 0 || echo 1)" "$3"
}

says() {
	has "$err" "$2" "$1" 0
}

prints() {
	has "$out" "$2" "$1" 0
}

prints_not() {
	has "$out" "$2" "$1" 1
}

eventually() {
	eventually_tries=0
	until "$@" >/dev/null 2>&1; do
		eventually_tries=$((eventually_tries + 1))
		[ "$eventually_tries" -lt 1200 ] || return 1
		sleep 0.05
	done
}

# depth QUEUE STATE NUMBER: does the queue hold so many tasks in that state?
depth() {
	run ls "$seg" --json
	depth_index=0
	while [ "$(in_json "objects.$depth_index.name")" != "$1" ]; do
		depth_index=$((depth_index + 1))
		[ "$depth_index" -lt 64 ] || return 2
	done
	[ "$(in_json "objects.$depth_index.contents.$2")" = "$3" ]
}
