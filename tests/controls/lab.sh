# SPDX-License-Identifier: MIT
# lab.sh - the library with one change in it: sourced by scripts/controls and scripts/mutate
#
# The working tree is not touched. build-controls/VARIANT is a build of it as it is. A change is an
# overlay: a folder with the changed files only, which comes first in the include path. What has
# to be compiled from there is linked in front of the build's archive.
#
#   plain  gcc -O1        crash  with crash points        tsan  clang, ThreadSanitizer
#
# shellcheck shell=sh disable=SC2034,SC2046,SC2086,SC2154  # variables of the scripts; words that eval puts together
lab=$PWD/build-controls

lab_configure() { # VARIANT
	case $1 in
	plain) set -- plain CC="${CC:-gcc}" CFLAGS=-O1 ;;
	crash) set -- crash CC="${CC:-gcc}" CFLAGS=-O1 --enable-crash-points ;;
	tsan) set -- tsan CC="$(command -v clang-14 || command -v clang)" CFLAGS=-O1 --enable-tsan ;;
	*) echo "$0: no variant '$1'" >&2 && return 1 ;;
	esac
	variant=$1
	shift
	flock "$lab/make.lock" scripts/build --dir "build-controls/$variant" --jobs "${lab_jobs:-1}" \
		--target libcoshm-internal.la --disable-shared "$@" \
		>"$lab/$variant.log" 2>&1 9>&- && lab_flags "$variant"
}

# The flags of library and tests as make would use them, for eval.
lab_flags() { # VARIANT
	cat >"$lab/flags.mk" <<-'END'
		lab-flags:
		$(info lab_cc='$(CC)')
		$(info lab_flags='$(DEFS) $(AM_CPPFLAGS) $(CPPFLAGS) $(AM_CFLAGS) $(CFLAGS)')
		$(info lab_library_flags='-include $(top_srcdir)/src/exports.h $(STRICT_CFLAGS) $(HIDDEN_CFLAGS) $(URCU_CFLAGS)')
		$(info lab_link='$(CC) $(AM_CFLAGS) $(CFLAGS) $(AM_LDFLAGS) $(LDFLAGS)')
		$(info lab_faults_link='$(tests_starved_faults_test_LDFLAGS)')
		$(info lab_libs='$(CMOCKA_LIBS) $(URCU_LIBS) $(LIBS)')
	END
	make -s -C "$lab/$1" -f Makefile -f "$lab/flags.mk" lab-flags 2>/dev/null | grep '^lab_' >"$lab/$1.flags"
}

# Runs one test of a program.
lab_filter() {
	(cd "$lab/$lab_variant" && eval "$lab_cc $lab_flags" -c ../../tests/controls/filter.c -o filter.o)
}

# Each variant is brought up to date once per run.
lab_ready='' lab_made=''
lab_use() { # VARIANT
	case " $lab_ready " in
	*" $1 "*) ;;
	*)
		if ! lab_configure "$1"; then
			tail -n 20 "$lab/$1.log" >&2
			echo "$0: the build '$1' failed, see build-controls/$1.log" >&2
			exit 1
		fi
		lab_ready="$lab_ready $1"
		;;
	esac
	lab_variant=$1
	# shellcheck disable=SC1090
	. "$lab/$1.flags"
	[ -n "$(find "$lab/$1/filter.o" -newer tests/controls/filter.c 2>/dev/null)" ] || lab_filter
}

# Those of the library whose code an overlay may change.
lab_sources() { # OVERLAY
	(cd "$1" && find src include -type f 2>/dev/null) | while IFS= read -r file; do
		case $file in
		*.c) echo "$file" ;;
		*) (cd "$lab/$lab_variant" && find src -name '*.Plo' -exec grep -lF "/$file" {} +) |
			sed 's,\.deps/libcoshm_internal_la-\(.*\)\.Plo$,\1.c,' ;;
		esac
	done | sort -u
}

# Into OVERLAY/VARIANT; lab_output has what the compiler says.
lab_compile() { # OVERLAY
	mkdir -p "$1/$lab_variant"
	lab_output=$1/$lab_variant/compile.log
	: >"$lab_output"
	lab_sources "$1" >"$1/$lab_variant/sources"
	while IFS= read -r file; do
		from=../../$file
		[ ! -e "$1/$file" ] || from=$1/$file
		(cd "$lab/$lab_variant" && eval "$lab_cc -w" -I\"\$1/src\" -I\"\$1/include\" "$lab_flags $lab_library_flags" -c \"\$from\" \
			-o \"\$1/$lab_variant/$(echo "$file" | tr / @).o\") >>"$lab_output" 2>&1 9>&- || return 1
	done <"$1/$lab_variant/sources"
}

# After lab_compile: did the change make any difference to the machine code?
lab_same_code() { # OVERLAY
	while IFS= read -r file; do
		built=$lab/$lab_variant/$(dirname "$file")/libcoshm_internal_la-$(basename "$file" .c).o
		objdump -dr "$built" | sed 1,2d >"$1/before"
		objdump -dr "$1/$lab_variant/$(echo "$file" | tr / @).o" | sed 1,2d >"$1/after"
		cmp -s "$1/before" "$1/after" || return 1
	done <"$1/$lab_variant/sources"
}

# Does a program include what was changed? Some include code of the library, too.
lab_includes() { # OVERLAY DEPENDENCIES
	(cd "$1" && find src include -type f 2>/dev/null) | sed 's,^,/,' >"$1/changed"
	grep -qFf "$1/changed" "$lab/$lab_variant/$2"
}

# Links PROGRAM of tests/ into OVERLAY/VARIANT/program.
lab_program() { # OVERLAY PROGRAM
	libs=tests/support/libtestsupport.la more= link=
	case $2 in
	starved/faults_test)
		libs="tests/starved/libstock.la $libs" more=tests/starved/faults.o link=$lab_faults_link
		;;
	starved/*) libs="tests/starved/libstock.la $libs" ;;
	step/*) libs="tests/step/libstep.la $libs" ;;
	crash/*) libs="tests/crash/support/libwalker.la $libs" ;;
	esac
	case " $lab_made " in
	*" $lab_variant/$2 "*) ;;
	*)
		# shellcheck disable=SC2086  # words
		flock "$lab/make.lock" make -C "$lab/$lab_variant" --no-print-directory "tests/$2.o" $more $libs \
			>"$1/$lab_variant/compile.log" 2>&1 || return 1
		lab_made="$lab_made $lab_variant/$2"
		;;
	esac
	object=tests/$2.o
	dependencies=tests/$(dirname "$2")/.deps/$(basename "$2").Po
	if lab_includes "$1" "$dependencies"; then
		object=$1/$lab_variant/test.o
		(cd "$lab/$lab_variant" && eval "$lab_cc -w" -I\"\$1/src\" -I\"\$1/include\" "$lab_flags" -c "../../tests/$2.c" \
			-o \"\$object\") >"$1/$lab_variant/compile.log" 2>&1 || return 1
	fi
	archives=
	for library in $libs; do
		archives="$archives $(dirname "$library")/.libs/$(basename "$library" .la).a"
	done
	# A program that includes a source file brings what was changed in it along; tests have object types of their own.
	objects=$(while read -r file; do
		[ "$file" = src/modules/object_types.c ] ||
			grep -qF "/$file" "$lab/$lab_variant/$dependencies" || echo "'$1/$lab_variant/$(echo "$file" | tr / @).o'"
	done <"$1/$lab_variant/sources" | tr '\n' ' ')
	(cd "$lab/$lab_variant" && eval "$lab_link $link -o" \"\$1/$lab_variant/program\" \"\$object\" "$more filter.o $objects $archives" \
		.libs/libcoshm-internal.a "$lab_libs") >"$1/$lab_variant/compile.log" 2>&1
}

# Runs it. lab_verdict: green, red, crash, hang, race or broken; lab_red: the names of the tests that failed
lab_run() { # OVERLAY PROGRAM SECONDS [VARIABLE=VALUE...]
	lab_overlay=$1 lab_limit=$3
	lab_log=$lab_overlay/$lab_variant/run.log
	lab_red=
	lab_verdict=broken
	if ! lab_program "$1" "$2"; then
		lab_log=$lab_overlay/$lab_variant/compile.log
		return
	fi
	shift 3
	prefix=
	# Older runtimes of the sanitizer know only the memory layout without randomization.
	[ "$lab_variant" != tsan ] || ! setarch -R true 2>/dev/null || prefix="setarch -R"
	status=0
	# shellcheck disable=SC2086  # words
	(cd "$lab/$lab_variant" && exec env CMOCKA_MESSAGE_OUTPUT=TAP "$@" timeout --kill-after=5 "$lab_limit" \
		sh -c 'echo $$ >"$0"; exec "$@"' "$lab_overlay/pid" $prefix "$lab_overlay/$lab_variant/program") \
		>"$lab_log" 2>&1 9>&- || status=$?
	lab_red=$(sed -n '/^not ok [0-9]* # SKIP/d; s/^not ok [0-9]* - //p' "$lab_log" | tr '\n' ' ')
	# What a program that was ended leaves behind has its number in the name.
	rm -f /dev/shm/*-"$(cat "$lab_overlay/pid")"-*
	case $status in
	0) lab_verdict=green ;;
	124 | 137) lab_verdict=hang ;;
	13[0-9] | 1[4-9][0-9]) lab_verdict=crash ;;
	*)
		lab_verdict=red
		! grep -q "^WARNING: ThreadSanitizer" "$lab_log" || lab_verdict=race
		;;
	esac
}

# An overlay that changes nothing.
lab_empty() { # OVERLAY VARIANT
	rm -rf "$1"
	mkdir -p "$1/$2"
	: >"$1/$2/sources"
}
