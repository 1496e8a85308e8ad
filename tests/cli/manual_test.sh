# SPDX-License-Identifier: MIT
# The session that the manual page shows is what really happens: each command is run, each line it prints compared.
. "$srcdir/tests/cli/cli.sh"

mkdir "$tap_dir/bin"
ln -s "$shmctl" "$tap_dir/bin/shmctl"
PATH=$tap_dir/bin:$PATH

awk '/run by tests\/cli\/manual_test.sh/ { marked = 1 } /^\.fi/ { marked = 0 } marked && !/^\./' \
	"$srcdir/man/shmctl.1" | sed -e 's/\\-/-/g' -e 's/\\(aq/'"'"'/g' -e 's/\\&//g' -e 's/\\e/\\/g' \
	-e "s/\bshop\b/$seg/g" >"$tap_dir/session"
check "the manual has a session" grep -q '^\$ shmctl' "$tap_dir/session"

compare() { # the command before, and what it should have printed
	[ -n "$command" ] || return 0
	sh -c "$command" >"$out" 2>&1 </dev/null || true
	check_equal "$ $command" "$(cat "$tap_dir/wanted")" "$(cat "$out")"
	: >"$tap_dir/wanted"
}

command=
: >"$tap_dir/wanted"
while IFS= read -r line; do
	case $line in
	'$ '*)
		compare
		command=${line#??}
		;;
	*) printf '%s\n' "$line" >>"$tap_dir/wanted" ;;
	esac
done <"$tap_dir/session"
compare
check_fails "the session leaves nothing behind" ls "/dev/shm/$seg"
finish
