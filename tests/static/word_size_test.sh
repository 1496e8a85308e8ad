# SPDX-License-Identifier: MIT
# A 32-bit program is told what is wrong, by the first header that it includes.
. "$srcdir/tests/support/tap.sh"

echo '#include <coshm/coshm.h>' >"$tap_dir/program.c"
compiles() {
	# Freestanding: the headers of a 32-bit C library are not here, and not needed.
	$CC -std=gnu11 -ffreestanding -fsyntax-only -I "$srcdir/include" "$@" "$tap_dir/program.c"
}
says_why() {
	! compiles "$@" 2>"$tap_dir/errors" && grep 'coshm is for 64-bit programs only' "$tap_dir/errors"
}

check "a 64-bit program compiles" compiles
: >"$tap_dir/empty.c"
if $CC -m32 -ffreestanding -fsyntax-only "$tap_dir/empty.c" 2>/dev/null; then
	check "a 32-bit program is refused by name" says_why -m32
else
	skip "a 32-bit program is refused by name" "a compiler with -m32"
fi
finish
