# SPDX-License-Identifier: MIT
# The shared library exports what the public headers declare, nothing else, and cannot be
# unloaded under the handlers it registered.
. "$srcdir/tests/support/tap.sh"

library=.libs/libcoshm.so
if [ ! -e $library ]; then
	skip "exported symbols" "built without the shared library"
	finish
fi
check "exports are the declarations of the public headers" "$srcdir/scripts/check-symbols" $library
readelf -d $library >"$tap_dir/dynamic"
check "the library stays loaded after dlclose" grep -q 'Flags:.*NODELETE' "$tap_dir/dynamic"
# The run-time libraries of the compiler and its sanitizers aside.
check_equal "it needs nothing but libc and liburcu-bp" "" \
	"$(sed -n 's/.*(NEEDED).*\[\(.*\)\.so.*\]/\1/p' "$tap_dir/dynamic" |
		grep -Evx 'libc|ld-linux.*|liburcu-(bp|common)|lib(gcc_s|m|asan|ubsan|tsan|gcov)')"
finish
