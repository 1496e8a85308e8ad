# SPDX-License-Identifier: MIT
# What every verb prints: --json is one valid document, a pipe gets a plain table, --help teaches.
. "$srcdir/tests/cli/cli.sh"

"$shmctl" create "$seg" --size 8M
"$shmctl" cache create "$seg/pages" --size 2M
"$shmctl" limit create "$seg/login" --rate 10/m --burst 5 --keys 100
"$shmctl" queue create "$seg/mail" --capacity 10 --max-payload 1K
"$shmctl" cache set "$seg/pages" key value
"$shmctl" queue push "$seg/mail" payload >/dev/null

each_verb() { # calls $1 with the words of every verb that has --json and changes nothing
	$1 ls
	$1 ls "$seg"
	$1 info "$seg"
	$1 ps "$seg"
	$1 stats "$seg"
	$1 stats "$seg/pages"
	$1 verify "$seg"
	$1 verify "$seg/mail"
	$1 cache ls "$seg/pages"
	$1 cache get --peek "$seg/pages" key
	$1 limit show "$seg/login" key
	$1 queue ls "$seg"
	$1 queue peek "$seg/mail"
	$1 queue dead "$seg/mail"
}

one_document() {
	expect 0 "$*: --json works" "$@" --json
	check "$*: --json is one document" sh -c "'$jsonq' <'$out'"
	check_equal "$*: --json says nothing beside it" "" "$(cat "$err")"
	run --json "$@"
	check "$*: --json before the verb is the same" sh -c "'$jsonq' <'$out'"
}
each_verb one_document
check_fails "control: two documents are not one" sh -c "echo '{} {}' | '$jsonq'"

for words in "cache set $seg/pages k v" "cache del $seg/pages k" "limit take $seg/login k" \
	"queue push $seg/mail x" "reap $seg" "limit create $seg/l2 --rate 1/s --burst 1 --keys 1" \
	"cache create $seg/c2 --size 1M" "queue create $seg/q2 --capacity 1 --max-payload 1" "rm $seg/q2 --yes"; do
	# shellcheck disable=SC2086
	one_document_of_deed() {
		expect 0 "$words: --json works" $words --json
		check "$words: --json is one document" sh -c "'$jsonq' <'$out'"
	}
	one_document_of_deed
done

# Errors are a document, too.
fails_in_json() { # STATUS ERROR VERB...
	fails_status=$1 fails_error=$2
	shift 2
	expect "$fails_status" "$*: fails with --json" "$@" --json
	check_equal "... with one document, which says what" "$fails_error" "$(in_json error)"
	check_equal "... and has the exit code" "$fails_status" "$(in_json exit_code)"
	check "... and what to do" in_json fix
}
fails_in_json 3 "no such segment" info "$seg-missing"
fails_in_json 3 "no such object" cache ls "$seg/missing"
fails_in_json 3 "is a queue, not a cache" cache get "$seg/mail" key
fails_in_json 1 "a segment or object of that name exists" cache create "$seg/pages" --size 1M
check "... and the detail" in_json detail
check_status 1 "a failure after a document" sh -c "echo k | '$shmctl' limit take '$seg/login' -n 9 - --json >'$out' 2>'$err'"
check "... adds no second one" sh -c "'$jsonq' <'$out'"

# Of counters: as of everything else, what it is about comes first.
run stats "$seg" --json
check_equal "stats --json: segment" "$seg" "$(in_json segment)"
check "stats --json: its counters" in_json counters.committed_bytes
check_equal "stats --json: all objects" 5 "$(in_json objects.length)"
check_equal "stats --json: name" pages "$(in_json objects.0.name)"
check_equal "stats --json: type" cache "$(in_json objects.0.type)"
check "stats --json: counters" in_json objects.0.counters.hits
run stats "$seg/mail" --json
check_equal "stats --json of an object: object" mail "$(in_json object)"
check_equal "stats --json of an object: type" queue "$(in_json type)"
check_equal "stats --json of an object: counters" 2 "$(in_json counters.enqueued)"

plain() {
	run "$@"
	check_fails "$*: no escape bytes in a pipe" grep -q "$(printf '\033')" "$out"
	check_equal "$*: no talk in a pipe" "" "$(cat "$err")"
}
each_verb plain

run info "$seg"
lines=$(wc -l <"$out")
run info "$seg" --noheadings
check_equal "--noheadings takes one line away" $((lines - 1)) "$(wc -l <"$out")"

# A reader that goes away early.
check "a closed pipe is no disaster" sh -c "'$shmctl' stats '$seg' | head -1"

# Prometheus text.
expect 0 "stats --prom" stats "$seg" --prom
prints "... has a type line" "# TYPE coshm_cache_hits_total counter"
prints "... and a sample with labels" "coshm_cache_hits_total{segment=\"$seg\",object=\"pages\"} "
prints "... with a size's unit once" "coshm_cache_live_bytes{"
check_equal "... and nothing that is no sample or comment" 0 "$(grep -cvE '^(#|coshm_[a-z_]+\{.*\} [0-9]+$)' "$out")"
expect 0 "stats of one object" stats "$seg/pages"
prints_not "... leaves out the others" login

run stats "$seg/pages"
prints "the table has the same names" live_bytes

# On a terminal of 80 columns.
on_terminal() {
	script -qec "stty cols 80 rows 24; '$shmctl' $*" /dev/null 2>/dev/null </dev/null | tr -d '\r' >"$out"
}
if command -v script >/dev/null && on_terminal --version && grep -q shmctl "$out"; then
	long=$(printf '%0200d' 0)
	"$shmctl" cache set "$seg/pages" a-key-of-twenty-five-bytes "$long"
	on_terminal cache ls "$seg/pages" --show-values
	prints "a short cell beside a long one stays whole" "a-key-of-twenty-five-bytes "
	check_equal "a cell that is cut has a mark" 1 "$(grep -c '0…$' "$out")"
	check_equal "no line is too long" "" "$(awk '{ gsub(/…/, "x") } length > 80' "$out")"
	on_terminal ls "$seg"
	prints "what a queue holds fits in" "0 dead of 10"
else
	skip "tables on a terminal" "script(1) is missing"
fi

# Help.
expect 0 "--help" --help
prints "... says what to try first" "Try first"
prints "... shows the groups" "Rate limiters"
check_equal "... fits on a terminal" "" "$(awk 'length > 80' "$out")"
for verb in ls info ps stats verify create rm reap "cache create" "cache ls" "cache get" "cache set" "cache del" \
	"limit create" "limit show" "limit take" "queue create" "queue ls" "queue peek" "queue dead" \
	"queue redrive" "queue drop" "queue push" "queue pop"; do
	# shellcheck disable=SC2086
	help_of() {
		run --help
		prints "--help lists $verb" "  $verb "
		expect 0 "$verb --help" $verb --help
		prints "... starts with its usage" "Usage: shmctl $verb"
		prints "... and has an example" "  shmctl $verb"
		check_equal "... and fits on a terminal" "" "$(awk 'length > 80' "$out")"
		cp "$out" "$tap_dir/help"
		run help $verb
		check "help $verb is the same" cmp "$tap_dir/help" "$out"
	}
	help_of
done
expect 0 "--version" --version
prints "... says it" "shmctl 0."
finish
