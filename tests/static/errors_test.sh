# SPDX-License-Identifier: MIT
# Each error that the sources return has a sentence in src/base/errors.def, and each is there once.
. "$srcdir/tests/support/tap.sh"

table=$srcdir/src/base/errors.def

# Of the kernel or between functions: none reaches a caller, or only with a sentence of its own.
internal='EINPROGRESS EIO EISDIR ENXIO'

sed -n 's/^COSHM__ERROR_ROW(\(E[A-Z0-9]*\),.*/\1/p' "$table" | sort >"$tap_dir/rows"
check_equal "no row is there twice" "" "$(uniq -d "$tap_dir/rows")"
check "there are rows" test -s "$tap_dir/rows"

# "-ENOENT" in code and in the manual of the headers.
find "$srcdir/src" "$srcdir/include" -name '*.[ch]' -exec \
	grep -hoE '(^|[^A-Za-z0-9_])-E[A-Z][A-Z0-9]+' {} + | sed 's/.*-//' | sort -u >"$tap_dir/used"
check "errors are found in the sources" grep -qx ENOSPC "$tap_dir/used"
missing=
for error in $(cat "$tap_dir/used"); do
	case " $internal " in *" $error "*) continue ;; esac
	grep -qx "$error" "$tap_dir/rows" || missing="$missing $error"
done
check_equal "each error in src and include has a row" "" "$missing"
check_equal "each row says what to do, in more than three words" "" \
	"$(sed -n 's/^COSHM__ERROR_ROW(\(E[A-Z0-9]*\), "\([^"]*\)").*/\1 \2/p' "$table" |
		awk 'NF < 5 { print $1 }')"
# Programs show what it means and what to do apart, and cut at ": ".
check_equal "each row is cut in two by one colon" "" \
	"$(sed -n 's/^COSHM__ERROR_ROW(\(E[A-Z0-9]*\), "\([^"]*\)").*/\1 \2/p' "$table" |
		awk -F': ' 'NF != 2 { print $1 }')"
finish
