# SPDX-License-Identifier: MIT
# The textbook programs of examples/ print what the textbook says.
. "$srcdir/tests/support/tap.sh"

check_equal "lru-capacity-3 evicts 2" 0 \
	"$(examples/lru-capacity-3 >"$tap_dir/lru" 2>&1; echo $?)"
check "2 is gone, and nothing else" test "$(grep -c "there$" "$tap_dir/lru") $(grep -c "^get 2 -> gone" "$tap_dir/lru")" = "4 1"

check_equal "limiter-105-tries ends well" 0 \
	"$(examples/limiter-105-tries >"$tap_dir/limiter" 2>&1; echo $?)"
check "100 of 105 pass at once" grep -q '105 tries: 100 allowed, 5 denied' "$tap_dir/limiter"

check_equal "queue-worker ends well" 0 \
	"$(examples/queue-worker >"$tap_dir/queue" 2>&1; echo $?)"
cat >"$tap_dir/wanted" <<'END'
submitted  welcome
submitted  flaky newsletter
submitted  broken address
worker     welcome, attempt 1: done
worker     flaky newsletter, attempt 1: failed, comes back
worker     broken address, attempt 1 of 3: failed
worker     told to stop, 6 deliveries handled
dead       broken address after 3 attempts, the last: no such address
END
# The retries of two tasks may come in any order.
grep -v 'attempt [23]' "$tap_dir/queue" >"$tap_dir/got"
check "its transcript" diff -u "$tap_dir/wanted" "$tap_dir/got"
check "the flaky one is done at its second attempt" \
	grep -q 'flaky newsletter, attempt 2: done' "$tap_dir/queue"
check "the broken one is tried three times" \
	grep -q 'broken address, attempt 3 of 3: failed' "$tap_dir/queue"

finish
