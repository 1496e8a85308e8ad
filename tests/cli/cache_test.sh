# SPDX-License-Identifier: MIT
# shmctl cache: bytes go in and come out as they are; misses are exit code 7; a peek changes nothing.
. "$srcdir/tests/cli/cli.sh"

counter() {
	run stats "$seg/pages" --json
	in_json "counters.$1"
}

"$shmctl" create "$seg" --size 8M
expect 0 "cache create" cache create "$seg/pages" --size 4M
expect 1 "cache create of a name that is taken" cache create "$seg/pages" --size 1M
expect 3 "a queue command on a cache" queue peek "$seg/pages"
says "... says what it is" "is a cache, not a queue"

expect 0 "set" cache set "$seg/pages" greeting hello
check_equal "... prints nothing" "" "$(cat "$out")"
expect 0 "get" cache get "$seg/pages" greeting
check_equal "... prints the value and nothing else" "$(printf hello | od -c)" "$(od -c <"$out")"
expect 0 "the same by path" cache get "/dev/shm/$seg:pages" greeting
expect 7 "get of a missing key" cache get "$seg/pages" nothing
check_equal "... prints nothing" "" "$(cat "$out")"
expect 7 "get of a missing key with --json" cache get "$seg/pages" nothing --json
check_equal "... says so" false "$(in_json hit)"

head -c 100000 /dev/urandom >"$tap_dir/noise"
check "set - reads stdin" sh -c "'$shmctl' cache set '$seg/pages' noise - <'$tap_dir/noise'"
"$shmctl" cache get "$seg/pages" noise >"$tap_dir/noise.out"
check "... and get writes the same bytes" cmp "$tap_dir/noise" "$tap_dir/noise.out"
: >"$tap_dir/nothing"
check "an empty value is a value" sh -c "'$shmctl' cache set '$seg/pages' empty - <'$tap_dir/nothing'"
expect 0 "... and a hit" cache get "$seg/pages" empty
expect 0 "a value that starts with - goes behind --" cache set "$seg/pages" negative -- -5
expect 0 "... and comes back" cache get "$seg/pages" negative
check_equal "... as it was" -5 "$(cat "$out")"
check_status 1 "a value larger than an eighth of the cache" sh -c \
	"head -c 1000000 /dev/zero | '$shmctl' cache set '$seg/pages' huge -"
head -c 1000000 /dev/zero | "$shmctl" cache set "$seg/pages" huge - 2>"$err" || true
says "... says how large one may be" "here 512K"
check_status 1 "an endless value ends" timeout 60 sh -c \
	"'$shmctl' cache set '$seg/pages' huge - </dev/zero"

# Counting.
hits=$(counter hits) misses=$(counter misses)
run cache get "$seg/pages" greeting
check_equal "a get that hits counts one hit" $((hits + 1)) "$(counter hits)"
run cache get "$seg/pages" noise
check_equal "... also of a large value" $((hits + 2)) "$(counter hits)"
run cache get "$seg/pages" nothing
check_equal "a get that misses counts one miss" $((misses + 1)) "$(counter misses)"
expect 0 "get --peek" cache get --peek "$seg/pages" greeting
check_equal "... prints the value" hello "$(cat "$out")"
expect 7 "get --peek of a missing key" cache get --peek "$seg/pages" nothing
check_equal "... counts no hit" $((hits + 2)) "$(counter hits)"
check_equal "... and no miss" $((misses + 1)) "$(counter misses)"

# JSON.
run cache get "$seg/pages" greeting --json
check_equal "get --json: value" hello "$(in_json value)"
check_equal "get --json: size" 5 "$(in_json value_size_bytes)"
check_equal "get --json: no ttl is null" null "$(in_json ttl_ns)"
run cache get "$seg/pages" noise --json
check_equal "get --json: bytes that are no text are null ..." null "$(in_json value)"
check_equal "... and hexadecimal beside it" "$(od -An -v -tx1 <"$tap_dir/noise" | tr -d ' \n' | cksum)" \
	"$(in_json value_hex | tr -d '\n' | cksum)"

# Time to live.
expect 0 "set --ttl" cache set "$seg/pages" short lived --ttl 300ms
# Tried again where this test does not get to run for so long.
there() {
	"$shmctl" cache set "$seg/pages" short lived --ttl 300ms
	run cache get "$seg/pages" short
	[ "$status" = 0 ]
}
check "... is there at first" eventually there
gone() {
	run cache get "$seg/pages" short
	[ "$status" = 7 ]
}
check "... and gone later" eventually gone
run cache set "$seg/pages" hour long --ttl 1h
run cache get "$seg/pages" hour --json
ttl=$(in_json ttl_ns)
check "a ttl of an hour is about one" test "$ttl" -gt 3500000000000 -a "$ttl" -lt 3601000000000

# Listing.
"$shmctl" cache set "$seg/pages" "$(printf 'evil\033[31m\nkey\\')" "$(printf 'tab\there')"
run cache ls "$seg/pages"
prints "ls lists the keys" greeting
prints "... with their sizes" 97.7K
prints_not "... without the values" hello
prints "... control bytes of a key are shown, not sent" 'evil\e[31m\nkey\\'
check_equal "... so that each item is one line" 1 "$(grep -c evil "$out")"
check_fails "... with no escape byte in the output" grep -q "$(printf '\033')" "$out"
run cache ls "$seg/pages" --show-values
prints "ls --show-values shows them" hello
prints "... printable" 'tab\there'
run cache ls "$seg/pages" --limit 2 --json
check_equal "ls --limit" 2 "$(in_json items.length)"
check_equal "... says that there is more" true "$(in_json truncated)"
run cache ls "$seg/pages" --json
check_equal "ls --json: not cut" false "$(in_json truncated)"
check_fails "ls --json hides values" in_json items.0.value
run cache ls "$seg/pages" --noheadings
prints_not "ls --noheadings" SIZE

# Deleting.
expect 0 "del" cache del "$seg/pages" greeting
expect 7 "... the key is gone" cache get "$seg/pages" greeting
expect 7 "del of a missing key" cache del "$seg/pages" greeting

# Policies.
expect 0 "cache create with all options" cache create "$seg/recent" --size 512K --policy lru --max-entries 3 --lanes 1
for key in 1 2 3; do
	"$shmctl" cache set "$seg/recent" $key v
done
run cache get "$seg/recent" 1
run cache get --peek "$seg/recent" 2
"$shmctl" cache set "$seg/recent" 4 v
expect 7 "lru, capacity 3: put 1 2 3, get 1, peek 2, put 4 evicts 2" cache get "$seg/recent" 2
expect 0 "... and keeps 1" cache get "$seg/recent" 1
run ls "$seg"
prints "ls of the segment sums a cache up" "lru, 3 items"

expect 0 "rm of an object" rm "$seg/recent" --yes
expect 3 "... it is gone" cache ls "$seg/recent"
expect 0 "verify afterwards" verify "$seg"
finish
