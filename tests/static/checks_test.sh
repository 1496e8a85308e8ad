# SPDX-License-Identifier: MIT
# Each scripts/check-* finds what it is there to find: every case is a small tree with one fault.
. "$srcdir/tests/support/tap.sh"

source_scripts=$(cd "$srcdir/scripts" && pwd)
source_tests=$(cd "$srcdir/tests" && pwd)

# A sound tree, in which one file at a time is then written.
fresh() {
	rm -rf "$tap_dir/tree"
	mkdir -p "$tap_dir/tree/scripts" "$tap_dir/tree/include/coshm" "$tap_dir/tree/tests" \
		"$tap_dir/tree/tools" "$tap_dir/tree/examples"
	for layer in base segment stats structs modules/cache modules/queue; do
		mkdir -p "$tap_dir/tree/src/$layer"
	done
	for script in tree-files check-layers check-lists check-order check-words; do
		cp "$source_scripts/$script" "$tap_dir/tree/scripts"
	done
	cat >"$tap_dir/tree/scripts/local.am" <<-'END'
		EXTRA_DIST += %D%/check-layers %D%/check-lists %D%/check-order %D%/check-words \
			%D%/tree-files
	END
	printf 'include scripts/local.am\ninclude src/base/local.am\n' >"$tap_dir/tree/Makefile.am"
	printf 'sources += \\\n\t%%D%%/atomic.h \\\n\t%%D%%/pair.c\n' >"$tap_dir/tree/src/base/local.am"
	cat >"$tap_dir/tree/src/base/atomic.h" <<-'END'
		#include <stdatomic.h>
		int coshm__a64_load_acquire(int *word);
		void coshm__a64_store_release(int *word, int value);
	END
	cat >"$tap_dir/tree/src/base/pair.c" <<-'END'
		#include "base/atomic.h"
		void put(int *word)
		{
			/* [Q1] release, pairs [Q2]; carries nothing */
			coshm__a64_store_release(word, 1);
		}
		int get(int *word)
		{
			/* [Q2] acquire, pairs [Q1]; sees nothing */
			return coshm__a64_load_acquire(word);
		}
	END
}

put() { # FILE, text on stdin
	mkdir -p "$(dirname "$tap_dir/tree/$1")"
	cat >"$tap_dir/tree/$1"
}

sound() {
	check "$1: sound tree passes" "$tap_dir/tree/scripts/$1"
}

faulty() {
	check_fails "$1: $2" "$tap_dir/tree/scripts/$1"
	fresh
}

fresh
for script in check-layers check-lists check-order check-words; do
	sound $script
done

# Layers --------------------------------------------------------------------------------------

touch "$tap_dir/tree/src/segment/segment.h"
echo '#include "segment/segment.h"' | put src/base/up.c
faulty check-layers "an include that points up"

touch "$tap_dir/tree/src/segment/segment.h"
echo '#include "../segment/segment.h"' | put src/base/up.c
faulty check-layers "an include that points up by a relative path"

touch "$tap_dir/tree/src/modules/queue/queue.h"
echo '#include "modules/queue/queue.h"' | put src/modules/cache/side.c
faulty check-layers "a module that includes another module"

echo '#include <coshm/cache.h>' | put src/base/public.c
faulty check-layers "a public header of a higher layer"

echo '#include "base/atomic.h"' | put tools/tool.c
faulty check-layers "a tool that includes an internal header"

echo '#include <coshm/inspect.h>' | put examples/example.c
faulty check-layers "an example that includes the inspection header"

echo '#include "base/atomic.h"' | put include/coshm/leak.h
faulty check-layers "a public header that includes an internal one"

echo '#include <stdatomic.h>' | put src/structs/atomics.c
faulty check-layers "stdatomic.h outside of base/atomic.h"

echo 'int f(int *p) { return __atomic_load_n(p, 0); }' | put src/structs/atomics.c
faulty check-layers "a builtin atomic outside of base/atomic.h"

touch "$tap_dir/tree/src/base/atomic.h" "$tap_dir/tree/src/structs/ring.h"
printf '#include "base/atomic.h"\n#include "structs/ring.h"\n#include <coshm/types.h>\n' |
	put src/modules/cache/down.c
sound check-layers
fresh

# Lists ---------------------------------------------------------------------------------------

touch "$tap_dir/tree/src/base/orphan.c"
faulty check-lists "a source file in no list"

touch "$tap_dir/tree/tests/orphan_test.c"
faulty check-lists "a test in no list"

rm "$tap_dir/tree/src/base/pair.c"
faulty check-lists "a listed file that does not exist"

touch "$tap_dir/tree/src/stats/local.am"
faulty check-lists "a local.am that nothing includes"

# Orders --------------------------------------------------------------------------------------

echo '/* [Q1] acquire, pairs [Q2] */' | put src/base/twice.c
faulty check-order "a label defined twice"

echo '/* [Z1] release, pairs [Z9] */' | put src/base/lost.c
faulty check-order "a partner that does not exist"

echo '/* [Z1] release, pairs [Q1] */' | put src/base/oneway.c
faulty check-order "a partner that does not name the label in turn"

echo 'int f(int *p) { return coshm__a64_load_acquire(p); }' | put src/base/bare.c
faulty check-order "an ordered operation without a label"

echo 'void f(void) { atomic_thread_fence(5); }' | put src/base/fence.c
faulty check-order "a fence without a comment"

sed_pair() { # SED-SCRIPT
	sed "$1" "$tap_dir/tree/src/base/pair.c" >"$tap_dir/tree/pair.c"
	mv "$tap_dir/tree/pair.c" "$tap_dir/tree/src/base/pair.c"
}

sed_pair s/load_acquire/load_relaxed/
faulty check-order "a relaxed operation under a label"

sed_pair "s/store_release/store_seq_cst/"
faulty check-order "an operation of another order than its label"

sed_pair "s/store_release(word, 1);/&\n\tcoshm__a64_store_release(word + 1, 1);/"
faulty check-order "a second operation below a label"

sed_pair "s/carries nothing .*/&\n\tcoshm__a64_store_relaxed(word + 1, 1);/"
faulty check-order "a relaxed operation between a label and its own"

# Controls ------------------------------------------------------------------------------------

# The text of one control on stdin.
control() {
	mkdir -p "$tap_dir/tree/tests/controls"
	cp "$source_tests/controls/edit" "$tap_dir/tree/tests/controls"
	cat >"$tap_dir/tree/tests/controls/pair.edits"
	echo 'static void pair_is_whole(void **state) {}' | put tests/unit/pair_test.c
}
check_control() {
	"$tap_dir/tree/tests/controls/edit" check
}
stale() {
	check_fails "controls --check: $1" check_control
	fresh
}

control <<-'END'
	edit put_relaxed
	  breaks  the order
	  red     unit/pair_test pair_is_.*
	  in      src/base/pair.c
	  - coshm__a64_store_release(word, 1);
	  + coshm__a64_store_relaxed(word, 1);
END
check "controls --check: a control that applies" check_control
fresh

control <<-'END'
	edit put_relaxed
	  red     unit/pair_test pair_is_whole
	  in      src/base/pair.c
	  - coshm__a64_store_release(word, 2);
	  +
END
stale "a place that is not there any more"

control <<-'END'
	edit put_relaxed
	  red     unit/pair_test pair_is_whole
	  in      src/base/pair.c
	  - {
	  +
END
stale "a place that is there twice"

control <<-'END'
	edit put_relaxed
	  red     unit/pair_test pair_is_half
	  in      src/base/pair.c
	  - coshm__a64_store_release(word, 1);
	  +
END
stale "a test that is not there"

# Words ---------------------------------------------------------------------------------------

echo "/* TO""DO: finish */" | put src/base/later.c
faulty check-words "unfinished business"

echo "see /wor""k/notes" | put tests/notes.txt
faulty check-words "a path of one machine"

echo "as the iss""ue says" | put tests/notes.txt
faulty check-words "what the repository does not hold"

finish
