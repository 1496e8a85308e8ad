/* SPDX-License-Identifier: MIT */
/*
 * cache.h P3: operations on one key are linearizable, those of killed members included.
 *
 * A few processes work on a few keys of a cache that is too large to evict.  Each writes down when
 * a call began, when it returned and what it said; the clock is a counter that all share.  A
 * search then looks for one order of the calls on a key that agrees with all answers and with
 * every "returned before the other began" (Wing and Gong 1993; a place in the search is
 * remembered, as Lowe 2017 does).  The last call of a killed member may have happened or not.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/cache.h>

#define MEMBERS 4
#define KEYS	2
#define CALLS	1000
#define HOPE	UINT64_MAX /* began and never returned */
#define LARGE	3000	   /* some values go to other pages than others */

enum call_kind {
	CALL_GET,
	CALL_PIN,
	CALL_MGET,
	CALL_PEEK,
	CALL_EXISTS,
	CALL_SET,
	CALL_ADD,
	CALL_REPLACE,
	CALL_DELETE,
	CALL_INCR,
	CALL_FLUSH,
	CALL_KINDS,
};

/* What a key holds: 0 nothing, else value << 1, or number << 1 | 1. */

struct call {
	_Atomic uint64_t began_at; /* 0: not yet; written last before the call */
	uint64_t returned_at;	   /* HOPE until it has */
	uint32_t kind;
	uint32_t key;
	uint64_t argument;
	uint64_t answer; /* of reads and incr */
	uint64_t version;
	int rc;
};

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint64_t clock;
	uint32_t kinds;
	struct proc_barrier *start;
	struct call calls[MEMBERS][CALLS];
};

static int read_value(const char *value, size_t size_bytes, uint32_t number, uint64_t *ret)
{
	uint64_t id;

	if (number) {
		char text[32];

		PROMISE(size_bytes < sizeof(text));
		memcpy(text, value, size_bytes);
		text[size_bytes] = 0;
		*ret = strtoull(text, NULL, 10) << 1 | 1;
		return 0;
	}
	PROMISE(size_bytes >= sizeof(id));
	memcpy(&id, value, sizeof(id));
	PROMISE(pattern_matches(id, value + sizeof(id), size_bytes - sizeof(id)));
	*ret = id << 1;
	return 0;
}

static int do_call(struct books *books, struct coshm_cache *cache, struct call *call, char *value)
{
	const uint64_t id = call->argument >> 1;
	const size_t stored_bytes = id % 7 ? 8 + id % 300 : LARGE + id % 5000;
	struct coshm_cache_item item = {.number = 0};
	struct coshm_cache_view view;
	struct coshm_cache_request request = {
		.key = &call->key,
		.key_size_bytes = sizeof(call->key),
		.buffer = value,
		.buffer_size_bytes = 2 * LARGE + 5000,
	};
	size_t size_bytes = request.buffer_size_bytes;
	int64_t sum = 0;

	memcpy(value, &id, sizeof(id));
	pattern_fill(id, value + sizeof(id), stored_bytes - sizeof(id));
	call->returned_at = HOPE;
	atomic_store(&call->began_at, atomic_fetch_add(&books->clock, 1) + 1);
	switch (call->kind) {
	case CALL_GET:
		call->rc = coshm_cache_get(cache, &call->key, sizeof(call->key), value, &size_bytes,
					   &item);
		break;
	case CALL_PEEK:
		call->rc = coshm_cache_peek(cache, &call->key, sizeof(call->key), value,
					    &size_bytes, &item);
		break;
	case CALL_PIN:
		call->rc = coshm_cache_pin(cache, &call->key, sizeof(call->key), &view);
		if (call->rc == 1) {
			size_bytes = 0;
			for (uint32_t i = 0; i < view.part_count; i++) {
				const void *part;
				size_t part_bytes;

				PROMISE_EQUAL(coshm_cache_view_part(&view, i, &part, &part_bytes),
					      0);
				memcpy(value + size_bytes, part, part_bytes);
				size_bytes += part_bytes;
			}
			item = view.item;
			PROMISE_EQUAL(coshm_cache_unpin(cache, &view), 0);
		}
		break;
	case CALL_MGET:
		call->rc = coshm_cache_mget(cache, &request, 1);
		PROMISE_EQUAL(call->rc, request.ret_result);
		size_bytes = request.ret_value_size_bytes;
		break;
	case CALL_EXISTS:
		call->rc = coshm_cache_exists(cache, &call->key, sizeof(call->key));
		break;
	case CALL_SET:
		call->rc = coshm_cache_set(cache, &call->key, sizeof(call->key), value,
					   stored_bytes, 0);
		break;
	case CALL_ADD:
		call->rc = coshm_cache_add(cache, &call->key, sizeof(call->key), value,
					   stored_bytes, 0);
		break;
	case CALL_REPLACE:
		call->rc = coshm_cache_replace(cache, &call->key, sizeof(call->key), value,
					       stored_bytes, 0);
		break;
	case CALL_DELETE:
		call->rc = coshm_cache_delete(cache, &call->key, sizeof(call->key));
		break;
	case CALL_INCR:
		call->rc = coshm_cache_incr(cache, &call->key, sizeof(call->key), 1, 100, 0, &sum);
		call->answer = (uint64_t)sum << 1 | 1;
		break;
	case CALL_FLUSH:
		call->rc = coshm_cache_flush(cache);
		break;
	}
	if (call->kind <= CALL_PEEK && call->rc == 1) {
		/* mget does not tell numbers: they are shorter than any value. */
		if (call->kind == CALL_MGET)
			item.number = size_bytes < 8;
		if (read_value(value, size_bytes, item.number, &call->answer))
			return 1;
		call->version = call->kind == CALL_MGET ? 0 : item.version;
	}
	call->returned_at = atomic_fetch_add(&books->clock, 1) + 1;
	return 0;
}

static int log_calls(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct call *calls = books->calls[member->index];
	static char value[2 * LARGE + 5000];
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);

	/* Nobody's successor: a column of the history has one author. */
	if (member->lifetime > 0)
		return 0;
	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_cache_open(segment, "c", &cache), 0);
	PROMISE_EQUAL(proc_barrier_wait(books->start, PROC_DEADLINE_NS), 0);
	for (uint32_t i = 0; i < CALLS; i++) {
		struct call *call = &calls[i];

		do
			call->kind = (uint32_t)random_below(&seed, CALL_KINDS);
		while (!(books->kinds & 1u << call->kind));
		/* Flushes are few, or nothing else would be there to see. */
		if (call->kind == CALL_FLUSH && random_below(&seed, 8))
			call->kind = CALL_SET;
		call->key = (uint32_t)random_below(&seed, KEYS);
		/* Give way in the middle of things: there are fewer CPUs than members. */
		if (random_below(&seed, 4) == 0)
			sched_yield();
		call->argument = ((uint64_t)(member->index + 1) << 32 | i) << 1;
		if (do_call(books, cache, call, value))
			return 1;
	}
	return 0;
}

/* The search. -------------------------------------------------------------------------------- */

struct place {
	uint16_t at[MEMBERS];
	uint64_t held;
};

struct search {
	const struct call *columns[MEMBERS][CALLS]; /* of one key, in order */
	uint32_t counts[MEMBERS];
	struct place *seen; /* open addressing; held == HOPE: free */
	size_t seen_size;
	struct place *stack;
	size_t stack_size;
	size_t furthest; /* calls in order so far, and where that was */
	uint16_t furthest_at[MEMBERS];
};

/* Does a key that holds @held allow this call with its answer? Then what does it hold after it? */
static int step(const struct call *call, uint64_t held, uint64_t *ret_held)
{
	const int returned = call->returned_at != HOPE;

	*ret_held = held;
	switch (call->kind) {
	case CALL_GET:
	case CALL_PIN:
	case CALL_MGET:
	case CALL_PEEK:
		/* A number has no bytes that could be pinned. */
		if (call->kind == CALL_PIN && returned && call->rc == -EBADMSG)
			return held & 1;
		return !returned ||
		       (call->rc == 1 ? held == call->answer : call->rc == 0 && held == 0);
	case CALL_EXISTS:
		return !returned || call->rc == (held != 0);
	case CALL_SET:
		*ret_held = call->argument;
		return !returned || call->rc == 0;
	case CALL_ADD:
		if (held == 0)
			*ret_held = call->argument;
		return !returned || call->rc == (held == 0);
	case CALL_REPLACE:
		if (held != 0)
			*ret_held = call->argument;
		return !returned || call->rc == (held != 0);
	case CALL_DELETE:
		*ret_held = 0;
		return !returned || call->rc == (held != 0);
	case CALL_FLUSH:
		*ret_held = 0;
		return !returned || call->rc == 0;
	case CALL_INCR:
		if (held != 0 && (held & 1) == 0)
			return !returned || call->rc == -EBADMSG;
		*ret_held = held == 0 ? 101 << 1 | 1 : held + 2;
		return !returned || (call->rc == 0 && call->answer == *ret_held);
	}
	return 0;
}

static int place_is_new(struct search *search, const struct place *place)
{
	uint64_t hash = place->held;

	for (unsigned int m = 0; m < MEMBERS; m++)
		hash = hash * UINT64_C(0x9e3779b97f4a7c15) + place->at[m];
	hash ^= hash >> 29;
	for (size_t i = hash % search->seen_size, tries = 0; tries < search->seen_size; tries++) {
		struct place *slot = &search->seen[i];

		if (slot->held == HOPE) {
			*slot = *place;
			return 1;
		}
		if (slot->held == place->held && memcmp(slot->at, place->at, sizeof(slot->at)) == 0)
			return 0;
		i = (i + 1) % search->seen_size;
	}
	fail_msg("the search is too large");
	return 0;
}

static void push(struct search *search, size_t *depth, const struct place *place)
{
	size_t done = 0;

	for (unsigned int m = 0; m < MEMBERS; m++)
		done += place->at[m];
	if (done > search->furthest) {
		search->furthest = done;
		memcpy(search->furthest_at, place->at, sizeof(place->at));
	}
	if (!place_is_new(search, place))
		return;
	assert_true(*depth < search->stack_size);
	search->stack[(*depth)++] = *place;
}

/* 1 if all calls that returned have a place in one order. */
static int order_exists(struct search *search)
{
	struct place place;
	size_t depth = 0;

	memset(&place, 0, sizeof(place));
	memset(search->seen, 0xff, search->seen_size * sizeof(*search->seen));
	search->furthest = 0;
	push(search, &depth, &place);
	while (depth > 0) {
		uint64_t first_return = HOPE;
		int done = 1;

		place = search->stack[--depth];
		for (unsigned int m = 0; m < MEMBERS; m++) {
			if (place.at[m] < search->counts[m]) {
				const struct call *call = search->columns[m][place.at[m]];

				done = done && call->returned_at == HOPE;
				if (call->returned_at < first_return)
					first_return = call->returned_at;
			}
		}
		if (done)
			return 1;
		for (unsigned int m = 0; m < MEMBERS; m++) {
			struct place next = place;
			const struct call *call;

			if (place.at[m] == search->counts[m])
				continue;
			call = search->columns[m][place.at[m]];
			/* Another one returned before this began: that one comes first. */
			if (call->began_at > first_return)
				continue;
			if (step(call, place.held, &next.held)) {
				next.at[m]++;
				push(search, &depth, &next);
			}
		}
	}
	return 0;
}

static void print_stuck(const struct search *search, uint32_t key)
{
	static const char *const names[] = {"get", "pin",     "mget",	"peek", "exists", "set",
					    "add", "replace", "delete", "incr", "flush"};

	print_message("# key %u: no order after %zu calls; where it got no further:\n", key,
		      search->furthest);
	for (unsigned int m = 0; m < MEMBERS; m++) {
		const uint32_t middle = search->furthest_at[m];

		for (uint32_t i = middle > 4 ? middle - 4 : 0;
		     i < search->counts[m] && i < middle + 4; i++) {
			const struct call *call = search->columns[m][i];

			print_message(
				"# %s%u: %llu..%lld %s(%llx) = %d, %llx\n", i == middle ? "*" : " ",
				m, (unsigned long long)call->began_at, (long long)call->returned_at,
				names[call->kind], (unsigned long long)call->argument, call->rc,
				(unsigned long long)call->answer);
		}
	}
}

static int compare_versions(const void *a, const void *b)
{
	const struct call *x = *(const struct call *const *)a;
	const struct call *y = *(const struct call *const *)b;

	if (x->version != y->version)
		return x->version < y->version ? -1 : 1;
	return x->answer < y->answer ? -1 : x->answer > y->answer;
}

/* Two values of a key never have one version. */
static void versions_tell_values_apart(const struct books *books, uint32_t key)
{
	static const struct call *reads[MEMBERS * CALLS];
	size_t count = 0;

	for (unsigned int m = 0; m < MEMBERS; m++) {
		for (unsigned int i = 0; i < CALLS; i++) {
			const struct call *call = &books->calls[m][i];

			if (call->began_at && call->returned_at != HOPE && call->key == key &&
			    call->version)
				reads[count++] = call;
		}
	}
	qsort(reads, count, sizeof(reads[0]), compare_versions);
	for (size_t i = 1; i < count; i++) {
		if (reads[i]->version == reads[i - 1]->version &&
		    reads[i]->answer != reads[i - 1]->answer)
			fail_msg("values %llx and %llx of key %u share version %llu",
				 (unsigned long long)reads[i - 1]->answer,
				 (unsigned long long)reads[i]->answer, key,
				 (unsigned long long)reads[i]->version);
	}
}

static void history_is_linearizable(const struct books *books, struct search *search)
{
	for (uint32_t key = 0; key < KEYS; key++) {
		for (unsigned int m = 0; m < MEMBERS; m++) {
			search->counts[m] = 0;
			for (unsigned int i = 0; i < CALLS; i++) {
				const struct call *call = &books->calls[m][i];

				/* An error return has changed nothing: it says nothing. */
				if (call->began_at == 0 ||
				    (call->key != key && call->kind != CALL_FLUSH) ||
				    (call->returned_at != HOPE && call->rc == -EAGAIN))
					continue;
				search->columns[m][search->counts[m]++] = call;
			}
		}
		if (!order_exists(search)) {
			print_stuck(search, key);
			fail();
		}
		versions_tell_values_apart(books, key);
	}
}

static void linearizable(uint32_t kinds, int torments)
{
	const struct coshm_cache_config config = {
		.struct_size_bytes = sizeof(config), .size_bytes = 16 << 20, .lanes = 2};
	struct search *search = calloc(1, sizeof(*search));
	struct books *books = proc_shared_alloc(sizeof(*books));
	const uint64_t start_ns = test_now_ns();
	uint64_t seed = random_seed(NULL);
	unsigned int rounds = 0, kills = 0;
	struct coshm_cache *cache;

	assert_non_null(search);
	search->seen_size = 1 << 18;
	search->seen = malloc(search->seen_size * sizeof(*search->seen));
	search->stack_size = 1 << 20;
	search->stack = malloc(search->stack_size * sizeof(*search->stack));
	assert_true(search->seen && search->stack);
	books->segment = segment_for_test(books->name, "cache-linear", 17 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "c", &config, 0, &cache), 0);
	books->kinds = kinds;
	books->start = proc_barrier_new(MEMBERS + 1);
	/* Members may be done with it all before anybody comes to kill one. */
	while (rounds < 5 || test_now_ns() - start_ns < test_run_ns() ||
	       (torments && !kills && test_now_ns() - start_ns < PROC_DEADLINE_NS)) {
		struct crowd crowd;

		memset(books->calls, 0, sizeof(books->calls));
		books->clock = 0;
		for (uint32_t key = 0; key < KEYS; key++)
			assert_true(coshm_cache_delete(cache, &key, sizeof(key)) >= 0);
		crowd_start(&crowd, MEMBERS, log_calls, books, NULL);
		assert_int_equal(proc_barrier_wait(books->start, PROC_DEADLINE_NS), 0);
		if (torments) {
			/* One stands still in the middle of something while another one dies. */
			const unsigned int still = (rounds + 1) % MEMBERS;

			test_sleep_ns(random_below(&seed, MS));
			if (proc_pause(crowd.procs[still]) == 0) {
				test_sleep_ns(random_below(&seed, MS));
				crowd_kill(&crowd, rounds % MEMBERS);
				test_sleep_ns(random_below(&seed, MS));
				proc_resume(crowd.procs[still]);
			}
		}
		crowd_join(&crowd);
		kills += crowd.kills;
		history_is_linearizable(books, search);
		rounds++;
	}
	assert_true(!torments || kills > 0);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
	free(search->seen);
	free(search->stack);
	free(search);
}

#define READS \
	(1u << CALL_GET | 1u << CALL_PIN | 1u << CALL_MGET | 1u << CALL_PEEK | 1u << CALL_EXISTS)
#define WRITES	(1u << CALL_SET | 1u << CALL_ADD | 1u << CALL_REPLACE | 1u << CALL_DELETE)
#define NUMBERS (1u << CALL_INCR)

static void values_are_linearizable(void **state)
{
	(void)state;
	linearizable(READS | WRITES, 0);
}

static void values_and_numbers_on_one_key_are_linearizable(void **state)
{
	(void)state;
	linearizable(READS | WRITES | NUMBERS, 0);
}

static void calls_of_killed_members_happened_or_did_not(void **state)
{
	(void)state;
	linearizable(READS | WRITES | NUMBERS, 1);
}

/* The search itself must be able to say no. -------------------------------------------------- */

static void search_finds_what_is_wrong(void **state)
{
	static const struct call set_1 = {1, 2, CALL_SET, 0, 1 << 1, 0, 0, 0};
	static const struct call set_2 = {3, 6, CALL_SET, 0, 2 << 1, 0, 0, 0};
	static const struct call killed_set_3 = {3, HOPE, CALL_SET, 0, 3 << 1, 0, 0, 0};
	const struct {
		struct call reads[3];
		uint32_t count;
		int linearizable;
	} cases[] = {
		/* Old or new during the set. */
		{{{4, 5, CALL_GET, 0, 0, 1 << 1, 0, 1}}, 1, 1},
		{{{4, 5, CALL_GET, 0, 0, 2 << 1, 0, 1}}, 1, 1},
		/* Gone, or one that nobody stored. */
		{{{4, 5, CALL_GET, 0, 0, 0, 0, 0}}, 1, 0},
		{{{4, 5, CALL_GET, 0, 0, 9 << 1, 0, 1}}, 1, 0},
		/* The old one after the set returned. */
		{{{7, 8, CALL_GET, 0, 0, 1 << 1, 0, 1}}, 1, 0},
		/* New, then old again. */
		{{{4, 5, CALL_GET, 0, 0, 2 << 1, 0, 1}, {6, 7, CALL_GET, 0, 0, 1 << 1, 0, 1}},
		 2,
		 0},
		/* The killed member's came at last, or never; but not and yes. */
		{{{9, 10, CALL_GET, 0, 0, 3 << 1, 0, 1}}, 1, 1},
		{{{9, 10, CALL_GET, 0, 0, 3 << 1, 0, 1}, {11, 12, CALL_GET, 0, 0, 2 << 1, 0, 1}},
		 2,
		 0},
		/* Two adders of one absent key. */
		{{{7, 8, CALL_ADD, 0, 5 << 1, 0, 0, 1}}, 1, 0},
	};
	struct search *search = calloc(1, sizeof(*search));

	(void)state;
	assert_non_null(search);
	search->seen_size = search->stack_size = 4096;
	search->seen = malloc(search->seen_size * sizeof(*search->seen));
	search->stack = malloc(search->stack_size * sizeof(*search->stack));
	assert_true(search->seen && search->stack);
	search->columns[0][0] = &set_1;
	search->columns[0][1] = &set_2;
	search->columns[1][0] = &killed_set_3;
	search->counts[0] = 2;
	search->counts[1] = 1;
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		for (uint32_t i = 0; i < cases[c].count; i++)
			search->columns[2][i] = &cases[c].reads[i];
		search->counts[2] = cases[c].count;
		assert_int_equal(order_exists(search), cases[c].linearizable);
	}
	free(search->seen);
	free(search->stack);
	free(search);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(search_finds_what_is_wrong),
		cmocka_unit_test(values_are_linearizable),
		cmocka_unit_test(values_and_numbers_on_one_key_are_linearizable),
		cmocka_unit_test(calls_of_killed_members_happened_or_did_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
