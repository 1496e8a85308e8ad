# SPDX-License-Identifier: MIT

# COSHM_COMPILE_FLAGS(VARIABLE, FLAGS)
# Substitutes VARIABLE with those of FLAGS that the compiler takes without a word.
# Clang only warns about a flag it does not know, hence -Werror in the probe.
AC_DEFUN([COSHM_COMPILE_FLAGS],
[AC_REQUIRE([AC_PROG_CC])
$1=
for coshm_flag in $2; do
	AC_MSG_CHECKING([whether $CC takes $coshm_flag])
	coshm_saved_cflags=$CFLAGS
	CFLAGS="$CFLAGS -Werror $coshm_flag"
	AC_COMPILE_IFELSE([AC_LANG_PROGRAM()],
		[AC_MSG_RESULT([yes])
		AS_VAR_APPEND([$1], [" $coshm_flag"])],
		[AC_MSG_RESULT([no])])
	CFLAGS=$coshm_saved_cflags
done
AC_SUBST([$1])
])

# COSHM_REQUIRE_LINK(FLAGS)
# Stops unless a program compiled and linked with FLAGS links; no flags, no probe.
AC_DEFUN([COSHM_REQUIRE_LINK],
[AC_REQUIRE([AC_PROG_CC])
AS_IF([test -n "$1"],
	[AC_MSG_CHECKING([whether $CC links with $1])
	coshm_saved_cflags=$CFLAGS
	CFLAGS="$CFLAGS $1"
	AC_LINK_IFELSE([AC_LANG_PROGRAM()],
		[AC_MSG_RESULT([yes])],
		[AC_MSG_RESULT([no])
		AC_MSG_ERROR([the compiler cannot link with $1 (clang needs libclang-rt-dev for sanitizers)])])
	CFLAGS=$coshm_saved_cflags])
])
