# SPDX-License-Identifier: MIT
# shmctl limit: the burst passes, the rest is exit code 7, and looking takes nothing.
. "$srcdir/tests/cli/cli.sh"

"$shmctl" create "$seg" --size 4M
# An hour per token: nothing comes back while the test runs.
expect 0 "limit create" limit create "$seg/login" --rate 1/h --burst 3 --keys 1000
for left in 2 1 0; do
	expect 0 "take: $left left" limit take "$seg/login" alice
done
expect 7 "take beyond the burst is denied" limit take "$seg/login" alice
prints "... and says when to come again" "denied, 0 of 3 left, again in"
expect 0 "another key has a bucket of its own" limit take "$seg/login" bob

run limit take "$seg/login" bob --json
check_equal "take --json: allowed" true "$(in_json allowed)"
check_equal "take --json: limit" 3 "$(in_json limit)"
check_equal "take --json: remaining" 1 "$(in_json remaining)"
check_equal "take --json: retry_after_ns" 0 "$(in_json retry_after_ns)"
check "take --json: reset_after_ns" test "$(in_json reset_after_ns)" -gt 7000000000000
expect 7 "take -n more than is left is denied" limit take "$seg/login" bob -n 2 --json
check_equal "take --json: denied" false "$(in_json allowed)"
check "take --json: when it would pass" test "$(in_json retry_after_ns)" -gt 3000000000000
expect 0 "a denied take took nothing" limit take "$seg/login" bob -n 1
expect 1 "a cost above the burst can never pass" limit take "$seg/login" carol -n 4

expect 0 "show" limit show "$seg/login" alice --json
check_equal "show --json: remaining" 0 "$(in_json remaining)"
check_equal "show --json: rate" 1 "$(in_json rate)"
check_equal "show --json: per_ns" 3600000000000 "$(in_json per_ns)"
for again in 1 2 3 4; do
	run limit show "$seg/login" dave --json
done
check_equal "show takes nothing" 3 "$(in_json remaining)"
run limit show "$seg/login" alice
prints "show as a table" denied

# A key per line.
check_equal "take - : 105 tries against 100 tokens" "allowed 100, denied 5" "$(
	"$shmctl" limit create "$seg/api" --rate 1/h --burst 100 --keys 10
	yes client | head -105 | "$shmctl" limit take "$seg/api" -
)"
printf 'a\nb\n\nc' | "$shmctl" limit take "$seg/api" - --json >"$out"
check_equal "take - : each key counts, an empty line does not, the last needs no end" 3 "$(in_json allowed)"
check_equal "take - --json: denied" 0 "$(in_json denied)"
check_status 7 "take - : exit code 7 if any was denied" sh -c "echo client | '$shmctl' limit take '$seg/api' -"
check_status 0 "take - : exit code 0 if none was" sh -c "echo fresh | '$shmctl' limit take '$seg/api' -"
check_equal "take - of nothing" "allowed 0, denied 0" "$("$shmctl" limit take "$seg/api" - </dev/null)"

run ls "$seg"
prints "ls of the segment sums a limiter up" "1/h, burst 100, for 10 keys"
expect 1 "take more than the burst" limit take "$seg/login" 1 -n 4
says "... says how much that is" "cost is 4, the burst only 3"
says "... and what to do" "--burst"
expect 2 "create without --burst" limit create "$seg/x" --rate 1/s --keys 10
expect 0 "verify afterwards" verify "$seg"
finish
