# SPDX-License-Identifier: MIT
# A short soak. Longer ones: tests/torture/torture --seconds 3600
. "$srcdir/tests/support/tap.sh"

torture=tests/torture/torture
seconds=${COSHM_TORTURE_SECONDS:-12}

check_status 2 "a count that makes no sense is refused" "$torture" --processes 1

# A soak takes 40 MiB, and what else runs needs some, too.
free_kib=$(df -Pk /dev/shm | awk 'NR == 2 { print $4 }')
if [ "${free_kib:-0}" -lt 131072 ]; then
	skip "members are killed and stopped" "/dev/shm has only $free_kib KiB free"
	finish
fi
check "members are killed and stopped for $seconds s, and no book is wrong" \
	"$torture" --seconds "$seconds" --processes 8
check "a few more of which nobody is killed" "$torture" --seconds 2 --processes 4 --no-kill
finish
