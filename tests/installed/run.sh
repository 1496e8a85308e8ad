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
#   <!-- own prefix -->       the block makes the shell find what was installed in $HOME/.local
#   <!-- default prefix -->   the block installs into /usr/local
#
# Each document has a folder of its own.  What it says is done twice, after the block "own prefix"
# with HOME such that PREFIX is $HOME/.local, and after the block "default prefix" where PREFIX is
# mounted on /usr/local (as root, in a mount namespace).  Prints TAP.
srcdir=$(cd "$(dirname "$0")/../.." && pwd)
. "$srcdir/tests/support/tap.sh"

prefix=$(cd "$1" && pwd) || exit 99
pc=$(find "$prefix" -name coshm.pc) || exit 99
libdir=$(dirname "$(dirname "$pc")")
bare_path=$PATH
PKG_CONFIG_PATH=$(dirname "$pc")${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
PATH=$tap_dir/bin:$prefix/bin:$PATH
export LD_LIBRARY_PATH PATH PKG_CONFIG_PATH

# "cc" in a document is the compiler under test.
mkdir "$tap_dir/bin"
printf '#!/bin/sh\nexec %s -Wall -Wextra -Werror "$@"\n' "${CC:-cc}" >"$tap_dir/bin/cc"
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
		!in_block && /^<!-- (example: [A-Za-z0-9._-]+|run|prints|(own|default) prefix) -->$/ {
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

# The block of kind $1 in the README, into file $2.
readme_block() {
	mkdir -p "$tap_dir/prefix-blocks"
	extract "$srcdir/README.md" "$tap_dir/prefix-blocks" |
		sed -n "s,^\\([0-9]*\\) $1\$,$tap_dir/prefix-blocks/.block-\\1,p" | while read -r file; do
		cp "$file" "$2"
	done
	test -s "$2"
}

# Like a reader's: no variable tells where the library is.
reader() {
	env -u LD_LIBRARY_PATH -u PKG_CONFIG_PATH PATH="$tap_dir/bin:$bare_path" HOME="$tap_dir/home" "$@"
}

# "make" is done already.
mkdir "$tap_dir/home" "$tap_dir/etc" "$tap_dir/done"
ln -s "$prefix" "$tap_dir/home/.local"
printf '#!/bin/sh\n' >"$tap_dir/done/make"
chmod +x "$tap_dir/done/make"

run_own() { # DIR BLOCK
	# shellcheck disable=SC2016  # expanded by the inner shell
	(cd "$1" && reader sh -eu -c '. "$1"; . "$2"' sh "$tap_dir/own-prefix" "$2" >.stdout) </dev/null
}

run_default() { # DIR BLOCK
	# shellcheck disable=SC2016  # expanded by the inner shell
	(cd "$1" && reader unshare -m --propagation private sh -eu -c '
		mount -t tmpfs tmpfs "$1/etc"
		cp -a /etc/. "$1/etc"
		mount --bind "$1/etc" /etc
		mount --bind "$2" /usr/local
		PATH=$1/done:$PATH:/usr/local/bin:/usr/sbin:/sbin sh -eu "$1/default-prefix" >&2
		PATH=$PATH:/usr/local/bin sh -eu "$3"' sh "$tap_dir" "$prefix" "$2" >.stdout) </dev/null
}

may_mount() {
	case $(command -v "${CC:-cc}") in
	/usr/local/*) return 1 ;;
	esac
	[ "$(id -u)" = 0 ] && [ -d /usr/local ] && command -v ldconfig >/dev/null &&
		unshare -m sh -c 'mount -t tmpfs tmpfs /etc' 2>/dev/null
}

segment=coshm-test-readme-$$
trap 'rm -rf "$tap_dir"; rm -f /dev/shm/*"$segment"*' EXIT

document() { # HOW FILE
	name=${2#"$srcdir"/}
	dir=$tap_dir/$1-$(echo "$name" | tr / -)
	mkdir "$dir"
	extract "$2" "$dir" >"$dir/.list"
	while read -r number kind file; do
		block=$dir/.block-$number
		case $kind in
		# The segment gets a name of its own: other tests run at the same time.
		example:) sed "s/\"readme\"/\"$segment\"/" "$block" >"$dir/$file" ;;
		run)
			sed -i "s/\\<readme\\>/$segment/" "$block"
			check "$name: block $number runs, $1 prefix" "run_$1" "$dir" "$block"
			;;
		prints) check "$name: block $number is what was printed" diff -u "$block" "$dir/.stdout" ;;
		esac
	done <"$dir/.list"
}

for how in own default; do
	check "README.md tells what the $how prefix needs" \
		readme_block "$how prefix" "$tap_dir/$how-prefix"
	if [ $how = default ] && ! may_mount; then
		skip "README.md, default prefix" "needs root and a mount namespace"
		continue
	fi
	for file in "$srcdir"/README.md "$srcdir"/docs/*.md; do
		[ ! -e "$file" ] || document $how "$file"
	done
done

finish
