# SPDX-License-Identifier: MIT
# A short soak. Longer ones: tests/torture/torture --seconds 3600
. "$srcdir/tests/support/tap.sh"

torture=tests/torture/torture
seconds=${COSHM_TORTURE_SECONDS:-12}

check_status 2 "a count that makes no sense is refused" "$torture" --processes 1
check "members are killed and stopped for $seconds s, and no book is wrong" \
	"$torture" --seconds "$seconds" --processes 8
check "a few more of which nobody is killed" "$torture" --seconds 2 --processes 4 --no-kill
finish
