# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC1091,SC2154
# The demo as a whole: what it promises, that it leaves nothing behind, and the request path.
srcdir=${srcdir:-.}
. "$srcdir/tests/support/tap.sh"

if [ ! -x examples/prefork-web ] || [ ! -x examples/replay ]; then
	skip "the demo as a whole" "libevent or jansson is missing"
	finish
fi

builddir=$PWD
srcdir=$(cd "$srcdir" && pwd)
unset COSHM_ACCESS_LOG
QUICKSTART_BUILD_DIR=$builddir
# Nothing may be left in here at the end.
TMPDIR=$tap_dir/tmp
mkdir "$TMPDIR"
export QUICKSTART_BUILD_DIR TMPDIR

web=
trap '[ -z "$web" ] || kill "$web" 2>/dev/null; rm -rf "$tap_dir"' EXIT

# Waits for a command to succeed; two minutes are more than any machine needs.
soon() {
	tries=0
	until "$@" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || return 1
		sleep 0.1
	done
}

gone() {
	[ ! -e "/dev/shm/quickstart-$1" ] && [ -z "$(ls "$TMPDIR")" ]
}

# run ARG... - quickstart, its stdout in $tap_dir/out; sets $pid, which names the segment.
# A machine that runs tests does other things as well: how long an answer took is not judged.
run() {
	"$srcdir/scripts/quickstart" "$@" -- --max-block-ms 60000 >"$tap_dir/out" 2>"$tap_dir/err" &
	pid=$!
	status=0
	wait "$pid" || status=$?
	cat "$tap_dir/out" "$tap_dir/err"
	return $status
}

json() {
	sed -n "s/^  \"$1\": \(.*[^,]\),*$/\1/p" "$tap_dir/out"
}

# On a machine with much else to do nobody may come by to be killed in three seconds.
for seconds in 3 12 48; do
	check "$seconds seconds with kills hold every invariant" run --seconds $seconds --json
	[ "$(json kills)" = 0 ] || break
done
check_equal "its JSON says so" true "$(json ok)"
check "a line for each second goes to stderr" grep -q "^ *1s  *[0-9]" "$tap_dir/err"
check "... under a header that names each status" grep -q " 429  *503 " "$tap_dir/err"
check "... and none to stdout" test "$(head -c 1 "$tap_dir/out")" = "{"
check_equal "no task is lost" 0 "$(json tasks_lost)"
check_equal "no body is bad" 0 "$(json bad_bodies)"
check_equal "no client is over" 0 "$(json over_admitted)"
check_equal "the segment is sound" '"ok"' "$(json verify)"
check "somebody was killed" test "$(json kills)" -gt 0
check "segment and run directory are gone" gone "$pid"

mkdir "$tap_dir/a folder"
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
	echo "10.0.0.$i - - [x] \"GET /page?n=$i HTTP/1.1\" 200 ${i}0000 \"-\" \"-\""
	echo "broken line"
done >"$tap_dir/a folder/a log"
cd "$tap_dir/a folder" || exit 99
check "without kills, a log by a relative path with spaces" run --no-kill --seconds 2 --json \
	--log "a log"
cd "$builddir" || exit 99
check_equal "nobody was killed" 0 "$(json kills)"
check_equal "no connection was reset" 0 "$(json resets)"
check_equal "no task was run twice" 0 "$(json tasks_run_twice)"

check "without --json there is a live line per second and a verdict" run --seconds 2
check "the live lines" grep -q '^ *1s ' "$tap_dir/out"
check "the verdict" grep -q '^every invariant held' "$tap_dir/out"

for expected in INT:130 TERM:143 HUP:129; do
	signal=${expected%:*}
	# What the run before has said must not be taken for this one's: the shell's child empties the file only once it
	# runs, and a signal that reaches it before it is quickstart runs this script's traps in it.
	rm -f "$tap_dir/out"
	# a shell ignores SIGINT in what it starts in the background; env undoes that
	env --default-signal=INT "$srcdir/scripts/quickstart" --seconds 600 >"$tap_dir/out" 2>&1 &
	pid=$!
	check "it runs before SIG$signal" soon grep -q '^ *1s ' "$tap_dir/out"
	kill -"$signal" "$pid"
	status=0
	wait "$pid" || status=$?
	check_equal "SIG$signal ends it" "${expected#*:}" "$status"
	check "SIG$signal leaves nothing behind" soon gone $pid
done

check "--stay returns while the server goes on" run --seconds 1 --stay
master=$(sed -n 's/^  kill \([0-9]*\)$/\1/p' "$tap_dir/out")
check "it says how to stop" test -n "$master"
check "the server is there" kill -0 "${master:-0}"
# What it says to try works as it stands; shmctl is built only where its libraries are.
sed -n '/^The server goes on/,/^Stop it/s/^  //p' "$tap_dir/out" | grep -v '^kill -9' |
	sed '/examples\/replay/s/ *#.*/ --max-block-ms 60000/' >"$tap_dir/try"
command -v curl >/dev/null || sed -i /curl/d "$tap_dir/try"
[ -x tools/shmctl/shmctl ] || sed -i /shmctl/d "$tap_dir/try"
check "what it says to try works" sh -eu "$tap_dir/try"
[ -z "$master" ] || kill "$master"
check "and gone when it is told" soon gone "$pid"

check_status 2 "an unknown option" "$srcdir/scripts/quickstart" --sceonds 3
check_status 2 "a number that is none" "$srcdir/scripts/quickstart" --seconds 0
check_status 2 "a log that is not there" "$srcdir/scripts/quickstart" --log "$tap_dir/none"
check "help" "$srcdir/scripts/quickstart" --help

# The server alone ------------------------------------------------------------------------------

check_status 2 "prefork-web: an unknown option" examples/prefork-web --prot 1
check_status 2 "prefork-web: a stray argument" examples/prefork-web 8080
check_status 1 "prefork-web: a log that is not there" examples/prefork-web --log "$tap_dir/none"
check_status 1 "prefork-web: a cache too small for the largest page" \
	examples/prefork-web --cache-size 256K --segment "web-test-$$"
check "prefork-web: help" examples/prefork-web --help

if ! command -v curl >/dev/null; then
	skip "the request path" "curl is missing"
	finish
fi

mkdir "$tap_dir/run"
examples/prefork-web --run-dir "$tap_dir/run" --segment "web-test-$$" --rate 1 --burst 7 \
	--queue-workers 1 >"$tap_dir/web" 2>&1 &
web=$!
check "prefork-web starts" soon test -e "$tap_dir/run/server"
url=http://127.0.0.1:$(sed -n 's/^port //p' "$tap_dir/run/server")

# get CLIENT PATH [CURL-ARG...] - head in $tap_dir/head, body in $tap_dir/body; prints the status
get() {
	to_charge=$1 path=$2
	shift 2
	curl -s -m 120 -H "X-Client: $to_charge" -D "$tap_dir/head" -o "$tap_dir/body" \
		-w '%{http_code}' "$@" "$url$path"
}

head_has() {
	tr -d '\r' <"$tap_dir/head$2" | grep -qiE "^$1\$"
}

# keep N - what came back, for later
keep() {
	mv "$tap_dir/head" "$tap_dir/head$1" && mv "$tap_dir/body" "$tap_dir/body$1"
}

# The life of a page, which is five seconds. What is asked for within less has met one and the same.
page_life() {
	born=$(date +%s)
	miss=$(get "$client" "$page") && keep 1
	etag=$(tr -d '\r' <"$tap_dir/head1" | sed -n 's/^ETag: //p')
	hit=$(get "$client" "$page") && keep 2
	match=$(get "$client" "$page" -H "If-None-Match: $etag")
	other=$(get "$client" "$page" -H 'If-None-Match: "0"')
	head=$(get "$client" "$page" -I)
	[ $(($(date +%s) - born)) -lt 4 ]
}

# On a slow machine the page may take longer than a request waits, or all of it longer than a page lives: then with
# another one.
got_miss() {
	tries=0
	while [ $tries -lt 100 ]; do
		tries=$((tries + 1)) page=/one/$tries client=a$tries
		! page_life || [ "$miss" != 200 ] || return 0
	done
	return 1
}
check "a miss waits for the page" got_miss
check "and says that it was one" head_has 'X-Cache: MISS' 1
check "it has an ETag" head_has 'ETag: "[0-9a-f]{16}"' 1
check "and says where the client stands" head_has 'RateLimit: "default";r=6;t=[0-9]+' 1
check "under which policy" head_has 'RateLimit-Policy: "default";q=7;w=7' 1
check "and the same in the older way" head_has 'X-RateLimit-Remaining: 6' 1
check_equal "the second one" 200 "$hit"
check "is a hit" head_has 'X-Cache: HIT' 2
check "with the same bytes" cmp "$tap_dir/body1" "$tap_dir/body2"
check_equal "a client that has it is told so" 304 "$match"
check_equal "with another ETag it is sent" 200 "$other"
check_equal "HEAD has no body" 200 "$head"
# In one go: tokens come back meanwhile, but not as fast.
set --
for i in $(seq 60); do
	set -- "$@" -o /dev/null "$url$page"
done
curl -s -m 120 -H "X-Client: $client" -D "$tap_dir/heads" "$@"
awk '/^HTTP/ { over = / 429 / } over && /^HTTP/ { head = "" } over { head = head $0 "\n" } END { printf "%s", head }' \
	"$tap_dir/heads" >"$tap_dir/head3"
check "over the limit" head_has 'HTTP/1.1 429.*' 3
check "it is told when to come back" head_has 'Retry-After: 1' 3
check "nothing is left" head_has 'X-RateLimit-Remaining: 0' 3
check "how much there is at all" head_has 'X-RateLimit-Limit: 7' 3
check "and when all is back" head_has 'X-RateLimit-Reset: [67]' 3
check "another client is not touched by that" test "$(get b "$page")" != 429
check_equal "a long URL is refused" 414 \
	"$(get c "/$(printf '%01100d' 0)")"

# Forty misses at once for one renderer: some wait in vain, all are answered, none is lost.
for i in $(seq 40); do
	curl -s -m 120 -o /dev/null -w '%{http_code}\n' -H "X-Client: d$i" "$url/page/$i" &
done >"$tap_dir/codes"
for i in $(seq 20); do
	curl -s -m 0.02 -o /dev/null -H "X-Client: e$i" "$url/gone/$i" &
done
sleep 1
soon sh -c "[ \$(wc -l <'$tap_dir/codes') = 40 ]"
check_equal "all of forty misses at once are answered" 40 "$(grep -cE '^(200|202|503)$' \
	"$tap_dir/codes")"
check_equal "one to the queue that had no time is there a moment later" 200 "$(soon \
	sh -c "[ \$(curl -s -o /dev/null -w '%{http_code}' -H 'X-Client: f' $url/page/40) = 200 ]" &&
	echo 200)"
check "those who hung up while they waited did no harm" soon \
	sh -c "[ \$(curl -s -o /dev/null -w '%{http_code}' -H 'X-Client: g' $url/two) = 200 ]"

check_status 1 "a second server on the same segment is refused" \
	examples/prefork-web --segment "web-test-$$"
kill "$web"
status=0
wait "$web" || status=$?
web=
check_equal "SIGTERM drains and ends well" 0 "$status"
check_fails "and removes the segment" test -e "/dev/shm/web-test-$$"
finish
