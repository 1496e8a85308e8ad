#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh PREFIX - use coshm as its users do: what is installed in PREFIX, found by pkg-config
#
# Builds and runs each program beside this script, compiles each installed header on its own, as
# C and as C++, and then does what README.md and docs/*.md tell the reader to do.  There, a
# comment on the line before a code block marks it:
#
#   <!-- example: share.c --> the block is written into this file
#   <!-- run -->              the block is run by "sh -eu", in the folder of the files; it must
#                             succeed.  cc, pkg-config and what is installed in bin/ are found.
#   <!-- prints -->           the block is what the last run wrote to its standard output
#
# Each document has a folder of its own.  Prints TAP.
srcdir=$(cd "$(dirname "$0")/../.." && pwd)
. "$srcdir/tests/support/tap.sh"

prefix=$(cd "$1" && pwd) || exit 99
pc=$(find "$prefix" -name coshm.pc) || exit 99
libdir=$(dirname "$(dirname "$pc")")
PKG_CONFIG_PATH=$(dirname "$pc")${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
PATH=$tap_dir/bin:$prefix/bin:$PATH
export LD_LIBRARY_PATH PATH PKG_CONFIG_PATH

# "cc" in a document is the compiler under test.
mkdir "$tap_dir/bin"
printf '#!/bin/sh\nexec %s "$@"\n' "${CC:-cc}" >"$tap_dir/bin/cc"
chmod +x "$tap_dir/bin/cc"

build() { # SOURCE OUTPUT [LIBRARY PKG-CONFIG-ARG...]
	build_source=$1 build_output=$2 build_library=${3:-}
	shift 2
	[ $# = 0 ] || shift
	# What pkg-config prints is quoted for a shell.
	eval "cc -Wall -Wextra -Werror -o \"\$build_output\" \"\$build_source\" \
		$build_library $(pkg-config "$@" --cflags --libs coshm)"
}

check "pkg-config finds coshm" pkg-config --exists --print-errors coshm

# Headers -------------------------------------------------------------------------------------

compile_alone() { # LANGUAGE COMPILER HEADER
	echo "#include <coshm/$3>" |
		eval "$2 -x $1 -Wall -Wextra -Werror -fsyntax-only $(pkg-config --cflags coshm) -"
}

includedir=$(pkg-config --variable=includedir coshm)
for header in "$includedir"/coshm/*.h; do
	name=coshm/$(basename "$header")
	check "$name compiles on its own" compile_alone c "cc -std=c11 -pedantic" "$(basename "$header")"
	if command -v g++ >/dev/null; then
		check "$name compiles as C++" compile_alone c++ g++ "$(basename "$header")"
	else
		skip "$name compiles as C++" "no g++"
	fi
done

# Programs ------------------------------------------------------------------------------------

for source in "$srcdir"/tests/installed/*.c; do
	name=$(basename "$source" .c)
	check "$name.c builds" build "$source" "$tap_dir/$name"
	check "$name runs" "$tap_dir/$name"
	if [ -e "$libdir/libcoshm.a" ]; then
		check "$name.c builds with libcoshm.a" \
			build "$source" "$tap_dir/$name-static" '"$libdir/libcoshm.a"' --static
		check "$name-static runs" env LD_LIBRARY_PATH= "$tap_dir/$name-static"
	fi
done

if [ -x "$prefix/bin/shmctl" ]; then
	check "installed shmctl starts" shmctl --version
fi

# Documents -----------------------------------------------------------------------------------

# Splits a document into block-1, block-2 ... and prints "N KIND [FILE]" for each.
extract() {
	awk -v dir="$2" '
		!in_block && /^<!-- (example: [A-Za-z0-9._-]+|run|prints) -->$/ {
			mark = $0; gsub(/^<!-- | -->$/, "", mark); next
		}
		/^```/ && in_block { close(out); in_block = 0; mark = ""; out = ""; next }
		/^```/ {
			in_block = 1
			if (mark != "") { out = dir "/.block-" ++n; printf "" >out; print n, mark }
			next
		}
		in_block && out != "" { print >out; next }
		!in_block && NF { mark = "" }
	' "$1"
}

run_block() {
	(cd "$1" && sh -eu "$2" >.stdout) </dev/null
}

segment=coshm-test-readme-$$
trap 'rm -rf "$tap_dir"; rm -f /dev/shm/*"$segment"*' EXIT

for document in "$srcdir"/README.md "$srcdir"/docs/*.md; do
	[ -e "$document" ] || continue
	name=${document#"$srcdir"/}
	dir=$tap_dir/$(echo "$name" | tr / -)
	mkdir "$dir"
	extract "$document" "$dir" >"$dir/.list"
	while read -r number kind file; do
		block=$dir/.block-$number
		case $kind in
		# The segment gets a name of its own: other tests run at the same time.
		example:) sed "s/\"readme\"/\"$segment\"/" "$block" >"$dir/$file" ;;
		run)
			sed -i "s/\\<readme\\>/$segment/" "$block"
			check "$name: block $number runs" run_block "$dir" "$block"
			;;
		prints) check "$name: block $number is what was printed" diff -u "$block" "$dir/.stdout" ;;
		esac
	done <"$dir/.list"
done

finish
