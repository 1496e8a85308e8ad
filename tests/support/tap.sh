# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# Sourced by tests that are shell scripts:
#
#   . "$srcdir/tests/support/tap.sh"
#   check "a thing is so" test -f thing        passes if the command succeeds
#   check_fails "it is refused" cmd...         passes if the command fails
#   check_status 3 "no such segment" cmd...    passes if the command exits with 3
#   check_equal "the sum" 4 "$sum"             wanted, got
#   skip "a thing" "needs root"
#   finish                                     always last
#
# "$tap_dir" is a fresh folder, removed at the end.  What a failed command printed is shown.

tap_count=0
tap_failed=0
tap_dir=$(mktemp -d) || exit 99
trap 'rm -rf "$tap_dir"' EXIT
trap 'exit 99' HUP INT TERM

tap_result() {
	tap_count=$((tap_count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $tap_count - $2"
	else
		tap_failed=$((tap_failed + 1))
		echo "not ok $tap_count - $2"
		sed 's/^/# /' "$tap_dir/.output"
	fi
}

check_status() {
	tap_wanted=$1 tap_name=$2
	shift 2
	tap_got=0
	"$@" >"$tap_dir/.output" 2>&1 || tap_got=$?
	if [ "$tap_got" != "$tap_wanted" ]; then
		echo "exit status $tap_got, not $tap_wanted: $*" >>"$tap_dir/.output"
		tap_result 1 "$tap_name"
	else
		tap_result 0 "$tap_name"
	fi
}

check() {
	tap_name=$1
	shift
	check_status 0 "$tap_name" "$@"
}

check_fails() {
	tap_name=$1
	shift
	if "$@" >"$tap_dir/.output" 2>&1; then
		echo "succeeded: $*" >>"$tap_dir/.output"
		tap_result 1 "$tap_name"
	else
		tap_result 0 "$tap_name"
	fi
}

check_equal() {
	if [ "$2" = "$3" ]; then
		tap_result 0 "$1"
	else
		printf 'wanted: %s\ngot:    %s\n' "$2" "$3" >"$tap_dir/.output"
		tap_result 1 "$1"
	fi
}

skip() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # SKIP $2"
}

finish() {
	echo "1..$tap_count"
	[ "$tap_failed" = 0 ]
	exit
}
