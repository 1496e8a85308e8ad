/* SPDX-License-Identifier: MIT */
/*
 * The limiter's own code under every schedule of a few callers, up to a number of forced switches.
 *
 * Callers are coroutines. In front of each access to a slot that matters the explorer decides who goes on, and whether
 * the caller is killed there. A run is a list of such decisions; the next run differs in the last decision that has an
 * alternative left (depth first). So a failing schedule fails every time.
 *
 * EXPLORE_SWITCHES=1 in the environment allows one more switch than usual: minutes instead of seconds.
 *
 * Memory is sequential here: what is weaker than that is for the labels in the source and for ThreadSanitizer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <cmocka.h>

#include "base/crash.h"
#include "segment/object.h"
#include "stats/stats.h"
#include "support/shmfs.h"

/* --- the code under test, with a stop in front of each access ----------------------------------------------- */

static void stop_before(const void *word);
static uint64_t model_clock_ns(void);

#define coshm__a64_load_relaxed(a)	(stop_before(a), coshm__a64_load_relaxed(a))
#define coshm__a64_load_acquire(a)	(stop_before(a), coshm__a64_load_acquire(a))
#define coshm__a64_load_seq_cst(a)	(stop_before(a), coshm__a64_load_seq_cst(a))
#define coshm__a64_cas_acq_rel(a, e, d) (stop_before(a), coshm__a64_cas_acq_rel(a, e, d))
#define coshm__a64_cas_seq_cst(a, e, d) (stop_before(a), coshm__a64_cas_seq_cst(a, e, d))
#define coshm__now_ns(segment)		((void)(segment), model_clock_ns())
#define coshm__cpu_pause()		((void)0)
#define coshm__limiter_insert		model_insert
#define coshm__limiter_decide		model_decide

#include "modules/limiter/claim.c"
#include "modules/limiter/decide.c"

#undef coshm__a64_load_relaxed
#undef coshm__a64_load_acquire
#undef coshm__a64_load_seq_cst
#undef coshm__a64_cas_acq_rel
#undef coshm__a64_cas_seq_cst
#undef coshm__now_ns

/* --- the world ---------------------------------------------------------------------------------------------- */

#define SECOND	      UINT64_C(1000000000)
#define CALLERS_MAX   4
#define KEYS	      3
#define STACK_BYTES   (64 * 1024)
#define DECISIONS_MAX 4000
#define START_NS      (1000 * SECOND)

/* Apart: the head ends in a flexible array, which may not stand inside of a struct. */
static struct coshm__limiter_shm head __attribute__((aligned(128)));
static struct coshm__limiter_bucket_shm buckets[2] __attribute__((aligned(128)));

static struct coshm__segment segment;
static struct coshm__thread_shm threads[1];
static struct coshm__limiter limiter;
static struct coshm__handle handle = {.segment = &segment, .local = &limiter};
static struct coshm__op op = {.segment = &segment, .handle = &handle, .thread = threads};
static struct coshm__gcra gcra;
static uint64_t clock_ns;

static uint64_t model_clock_ns(void)
{
	return clock_ns;
}

static struct coshm__limiter_key key_number(uint64_t number)
{
	return (struct coshm__limiter_key){.word = (number + 1) << 8,
					   .buckets = {&buckets[0], &buckets[1]}};
}

static void slot_set(int position, uint64_t number, uint64_t tat_ns)
{
	struct coshm__limiter_key key = key_number(number);
	struct coshm__limiter_slot slot = slot_at(&key, position);

	coshm__a64_store_relaxed(slot.key, key.word | 4);
	coshm__a64_store_relaxed(slot.tat, coshm__gcra_ticks(tat_ns));
}

/* All slots belong to other keys, deep in debt. */
static void world_fill(uint64_t rate, uint64_t per_ns, uint64_t burst)
{
	const struct coshm_limiter_config config = {.rate = rate, .per_ns = per_ns, .burst = burst};

	memset(&head, 0, sizeof(head));
	memset(buckets, 0, sizeof(buckets));
	memset(&gcra, 0, sizeof(gcra));
	if (coshm__gcra_make(rate, per_ns, burst, &gcra))
		abort();
	coshm__limiter_config_start(&head, &config, &gcra);
	limiter.shm = &head;
	limiter.buckets = buckets;
	limiter.bucket_count = 2;
	segment.threads = threads;
	clock_ns = START_NS;
	for (int i = 0; i < POSITIONS; i++)
		slot_set(i, 100 + (uint64_t)i,
			 START_NS + coshm__gcra_ns_up(gcra.capacity) - 100 + (uint64_t)i);
}

static void slot_make_vacant(int position)
{
	struct coshm__limiter_key key = key_number(0);
	struct coshm__limiter_slot slot = slot_at(&key, position);

	coshm__a64_store_relaxed(slot.key, 0);
	coshm__a64_store_relaxed(slot.tat, 0);
}

static int open_entries(uint64_t number)
{
	struct coshm__limiter_key key = key_number(number);
	int count = 0;

	for (int i = 0; i < POSITIONS; i++) {
		struct coshm__limiter_slot slot = slot_at(&key, i);

		count += !coshm__limiter_is_claim(coshm__a64_load_relaxed(slot.tat)) &&
			 coshm__limiter_same_key(coshm__a64_load_relaxed(slot.key), key.word);
	}
	return count;
}

static uint64_t counted(uint32_t row)
{
	return coshm__count_sum(&head.counters, row);
}

/* --- callers ------------------------------------------------------------------------------------------------ */

struct caller {
	/* what it does */
	uint64_t key;
	int tries;
	uint64_t clock_jump_ns; /* instead: time passes */
	uint64_t late_ns;	/* how old its clock is */
	/* how far it has come */
	ucontext_t context;
	int is_running; /* has started and not ended */
	int is_over;
	int is_killed;
	int allowed;
	unsigned char stack[STACK_BYTES] __attribute__((aligned(64)));
};

static struct caller callers[CALLERS_MAX];
static int caller_count;
static int current; /* -1: the explorer */
static ucontext_t explorer_context;
static unsigned int interesting; /* bit per position: others never change in a scenario */

/* --- decisions ---------------------------------------------------------------------------------------------- */

struct choice_point {
	int taken;
	int count;
};

static struct choice_point points[DECISIONS_MAX];
static int point_count; /* of the run before: what is replayed */
static int point_next;
static int switches_left, kills_left;
static const char *broken;

static int decide_among(int count)
{
	if (count == 1)
		return 0;
	if (point_next == point_count) {
		if (point_count == DECISIONS_MAX) {
			broken = "the run does not end";
			return 0;
		}
		points[point_count++] = (struct choice_point){.taken = 0, .count = count};
	}
	return points[point_next++].taken;
}

/* 0 if all runs have been made */
static int next_run(void)
{
	while (point_count > 0 &&
	       points[point_count - 1].taken + 1 == points[point_count - 1].count)
		point_count--;
	if (point_count == 0)
		return 0;
	points[point_count - 1].taken++;
	return 1;
}

static int can_go_on(int i)
{
	return !callers[i].is_over && !callers[i].is_killed;
}

static void to_explorer(void)
{
	int me = current;

	current = -1;
	swapcontext(&callers[me].context, &explorer_context);
}

static int is_interesting(const void *word)
{
	uintptr_t at = (uintptr_t)word - (uintptr_t)buckets;

	if ((uintptr_t)word < (uintptr_t)buckets || at >= sizeof(buckets))
		return 0;
	return interesting >> (at / 128 * COSHM__LIMITER_SLOTS + at % 64 / 8) & 1;
}

static int switch_to = -1; /* whom the explorer goes on with; -1: it chooses */

static void stop_before(const void *word)
{
	int others[CALLERS_MAX], other_count = 0, can_die, taken;

	if (current < 0 || !is_interesting(word) || broken)
		return;
	for (int i = 0; i < caller_count && switches_left > 0; i++)
		if (i != current && can_go_on(i))
			others[other_count++] = i;
	can_die = kills_left > 0;
	taken = decide_among(1 + other_count + can_die);
	if (taken == 0)
		return;
	if (taken <= other_count) {
		switches_left--;
		switch_to = others[taken - 1];
	} else {
		kills_left--;
		callers[current].is_killed = 1;
	}
	to_explorer();
}

static void caller_body(void)
{
	struct caller *me = &callers[current];
	struct coshm__limiter_key key = key_number(me->key);

	clock_ns += me->clock_jump_ns;
	for (int i = 0; i < me->tries; i++) {
		/* The clock is read here: the first access of model_decide may be much later. */
		uint64_t now_ns = clock_ns - me->late_ns;

		me->allowed += model_decide(&op, &key, 1, now_ns, NULL) == 1;
	}
	me->is_over = 1;
	to_explorer();
}

static void run_once(void)
{
	point_next = 0;
	switch_to = -1;
	for (int i = 0; i < caller_count; i++) {
		struct caller *caller = &callers[i];

		caller->is_running = caller->is_over = caller->is_killed = caller->allowed = 0;
		getcontext(&caller->context);
		caller->context.uc_stack.ss_sp = caller->stack;
		caller->context.uc_stack.ss_size = STACK_BYTES;
		caller->context.uc_link = NULL;
		makecontext(&caller->context, caller_body, 0);
	}
	while (!broken) {
		int ready[CALLERS_MAX], ready_count = 0, next = switch_to;

		for (int i = 0; i < caller_count; i++)
			if (can_go_on(i))
				ready[ready_count++] = i;
		if (ready_count == 0)
			return;
		if (next < 0)
			next = ready[decide_among(ready_count)];
		switch_to = -1;
		current = next;
		swapcontext(&explorer_context, &callers[next].context);
	}
}

static int killed_count(void)
{
	int count = 0;

	for (int i = 0; i < caller_count; i++)
		count += callers[i].is_killed;
	return count;
}

static int allowed_of(uint64_t key)
{
	int sum = 0;

	for (int i = 0; i < caller_count; i++)
		sum += callers[i].key == key ? callers[i].allowed : 0;
	return sum;
}

static int killed_of(uint64_t key)
{
	int count = 0;

	for (int i = 0; i < caller_count; i++)
		count += callers[i].key == key && callers[i].is_killed;
	return count;
}

/* Somebody who comes when all is over: takes what is left. */
static int take_the_rest(uint64_t number)
{
	struct coshm__limiter_key key = key_number(number);
	int taken = 0;

	while (taken < 100 && model_decide(&op, &key, 1, clock_ns, NULL) == 1)
		taken++;
	return taken;
}

struct scenario {
	void (*prepare)(void);
	void (*check)(void); /* sets broken */
	int switches;
	int kills;
};

static void fail_if(int condition, const char *text)
{
	if (condition && !broken)
		broken = text;
}

/* Sanitizers do not follow switches between stacks; limiter_threads_test is for them. */
static const char *lacks_stacks(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return "a build without sanitizers that watch the stack";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return "a build without sanitizers that watch the stack";
#endif
#endif
	return NULL;
}

static unsigned long explore(const struct scenario *scenario)
{
	unsigned long runs = 0;

	const char *deeper = getenv("EXPLORE_SWITCHES");
	int more = deeper ? atoi(deeper) : 0;

	TEST_NEEDS(lacks_stacks());
	point_count = 0;
	broken = NULL;
	do {
		scenario->prepare();
		switches_left = scenario->switches + more;
		kills_left = scenario->kills;
		run_once();
		for (uint64_t key = 0; key < KEYS; key++)
			fail_if(open_entries(key) > 1, "a key has two entries");
		fail_if(counted(COSHM__STAT_LIMITER_fail_open) != 0, "a try was not charged");
		if (!broken)
			scenario->check();
		for (uint64_t key = 0; key < KEYS; key++)
			fail_if(open_entries(key) > 1, "a key has two entries afterwards");
		runs++;
	} while (!broken && next_run());
	if (broken)
		print_message("run %lu, after %d decisions: %s\n", runs, point_count, broken);
	else
		print_message("%lu runs\n", runs);
	return broken ? 0 : runs;
}

#define HOUR (3600 * SECOND)

static void caller_add(uint64_t key, int tries)
{
	callers[caller_count].key = key;
	callers[caller_count].tries = tries;
	callers[caller_count].clock_jump_ns = 0;
	callers[caller_count].late_ns = 0;
	caller_count++;
}

static void clock_add(uint64_t jump_ns)
{
	caller_add(KEYS, 0);
	callers[caller_count - 1].clock_jump_ns = jump_ns;
}

/* --- scenarios ---------------------------------------------------------------------------------------------- */

/* Three callers bring the same new key, two slots are vacant. */
static void prepare_fresh(void)
{
	world_fill(1, HOUR, 2);
	slot_make_vacant(0);
	slot_make_vacant(2);
	interesting = 1u << 0 | 1u << 2;
	caller_count = 0;
	caller_add(0, 1);
	caller_add(0, 1);
	caller_add(0, 1);
}

/* A killed caller may have taken its token or not. */
static void check_burst_of_two(void)
{
	int total = allowed_of(0) + take_the_rest(0);

	fail_if(total > 2, "more than the burst");
	fail_if(total < 2 - killed_of(0), "less than the burst");
}

/* P2 */
static void fresh_key_gets_exactly_its_burst_from_three_callers(void **state)
{
	const struct scenario scenario = {prepare_fresh, check_burst_of_two, .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* P2, P4 */
static void fresh_key_gets_its_burst_less_what_the_killed_took(void **state)
{
	const struct scenario scenario = {prepare_fresh, check_burst_of_two, .switches = 2,
					  .kills = 1};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/*
 * Two slots to be had, and callers who choose differently: for the one with an old clock the first slot has debt. So
 * there are claims for one key in two places.
 */
static void prepare_two_places(void)
{
	world_fill(1, HOUR, 1);
	slot_set(0, 50, START_NS - 5 * SECOND);
	slot_set(2, 51, START_NS - HOUR);
	interesting = 1u << 0 | 1u << 2;
	caller_count = 0;
	caller_add(0, 1);
	caller_add(0, 1);
	callers[1].late_ns = 20 * SECOND;
	caller_add(0, 1);
}

static void check_burst_of_one(void)
{
	int total = allowed_of(0) + take_the_rest(0);

	fail_if(total > 1, "more than the burst");
	fail_if(total < 1 - killed_of(0), "less than the burst");
	fail_if(counted(COSHM__STAT_LIMITER_evicted_live) > 0, "a debt was evicted");
}

/* I2 */
static void claims_for_one_key_in_two_places_end_as_one_entry(void **state)
{
	const struct scenario scenario = {prepare_two_places, check_burst_of_one, .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

static void claims_in_two_places_end_as_one_entry_with_kills(void **state)
{
	const struct scenario scenario = {prepare_two_places, check_burst_of_one, .switches = 2,
					  .kills = 1};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* Two bring key 0, one brings key 1; both prefer the same slot, and then the other one. */
static void prepare_two_keys(void)
{
	prepare_fresh();
	callers[1].key = 1;
}

static void check_two_keys(void)
{
	check_burst_of_two();
	fail_if(allowed_of(1) + killed_of(1) < 1, "a fresh key was refused");
	fail_if(allowed_of(1) + take_the_rest(1) > 2, "more than the burst for the other key");
	fail_if(counted(COSHM__STAT_LIMITER_evicted_live) > 0,
		"a key with debt was evicted though there was room");
}

static void two_keys_that_want_the_same_slots_both_get_their_burst(void **state)
{
	const struct scenario scenario = {prepare_two_keys, check_two_keys, .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* With kills, claims are left behind: then debts may have to go. */
static void check_two_keys_with_kills(void)
{
	int total = allowed_of(0) + take_the_rest(0);
	uint64_t evicted = counted(COSHM__STAT_LIMITER_evicted_live);

	fail_if(evicted > (uint64_t)killed_count(), "more evictions than claims left behind");
	fail_if(total > 2 + 2 * (int)evicted, "more than the burst");
	fail_if(total < 2 - killed_of(0), "less than the burst");
}

static void claims_of_the_killed_are_taken_over(void **state)
{
	const struct scenario scenario = {prepare_two_keys, check_two_keys_with_kills,
					  .switches = 2, .kills = 1};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* Key 0 has an entry without debt, the only slot to be had. Key 1 needs it while two callers charge key 0. */
static void prepare_displacing(void)
{
	world_fill(1, HOUR, 1);
	slot_set(0, 0, START_NS - HOUR);
	interesting = 1u << 0 | 1u << 1;
	caller_count = 0;
	caller_add(1, 1);
	caller_add(0, 1);
	caller_add(0, 1);
}

static void check_displacing(void)
{
	int evicted = (int)counted(COSHM__STAT_LIMITER_evicted_live);
	int zero = allowed_of(0), one = allowed_of(1);

	/* One of the two keys must evict somebody; it may be the other one. */
	fail_if(zero + one > 2 + evicted, "more than the bursts and what was evicted");
	fail_if(evicted == 0 && zero > 1, "an old key got its burst twice");
	fail_if(zero < 1, "an old key without debt was refused");
	fail_if(one != 1, "a fresh key was refused");
}

static void key_is_not_displaced_while_it_is_charged(void **state)
{
	const struct scenario scenario = {prepare_displacing, check_displacing, .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* The same, but with room for both, so nothing may be lost. */
static void prepare_displacing_with_room(void)
{
	prepare_displacing();
	slot_set(1, 50, START_NS - HOUR);
}

static void check_displacing_with_room(void)
{
	fail_if(counted(COSHM__STAT_LIMITER_evicted_live) != 0, "a debt was evicted");
	fail_if(allowed_of(0) != 1, "an old key did not get exactly its burst");
	fail_if(allowed_of(1) != 1, "a fresh key was refused");
}

static void key_that_is_displaced_before_it_is_charged_gets_exactly_its_burst(void **state)
{
	const struct scenario scenario = {prepare_displacing_with_room, check_displacing_with_room,
					  .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/*
 * A token comes every 15 s. Key 0 takes one, its debt passes, key 1 displaces it, key 0 comes again; all the while a
 * caller with an old clock may be under way. Within these 20 s key 0 may get two.
 */
static void prepare_stale(void)
{
	world_fill(1, 15 * SECOND, 1);
	slot_make_vacant(0);
	interesting = 1u << 0 | 1u << 1;
	caller_count = 0;
	caller_add(0, 2);
	clock_add(20 * SECOND);
	caller_add(1, 1);
	caller_add(0, 1);
}

static void check_stale(void)
{
	int evicted = (int)counted(COSHM__STAT_LIMITER_evicted_live);

	fail_if(allowed_of(0) > 2 + evicted, "a caller with an old clock got more");
}

/* P6 */
static void stale_caller_gains_nothing_from_a_forgotten_debt(void **state)
{
	const struct scenario scenario = {prepare_stale, check_stale, .switches = 2};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* Saturated while a caller with a clock from before the whole capacity looks at it. */
static void prepare_saturated(void)
{
	world_fill(1, 15 * SECOND, 3);
	slot_set(0, 0, START_NS - HOUR);
	interesting = 1u << 0;
	caller_count = 0;
	caller_add(0, 3);
	clock_add(100 * SECOND);
	caller_add(0, 5);
}

/* Three at once, then a full bucket again 100 s later, whoever is late. */
static void check_saturated(void)
{
	fail_if(allowed_of(0) > 6, "a caller with an old clock took a full debt for none");
}

/* P6 */
static void stale_caller_does_not_take_a_full_debt_for_none(void **state)
{
	const struct scenario scenario = {prepare_saturated, check_saturated, .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 100);
}

/*
 * A caller who has found key 0 stands still while key 1 displaces it, and while key 0 comes back in its place: the debt of
 * key 1, which he may have seen in between, is not his. All other slots are deeper in debt.
 */
static void prepare_debt_of_another(void)
{
	world_fill(1, HOUR, 2);
	slot_set(0, 0, START_NS - HOUR);
	for (int i = 1; i < POSITIONS; i++)
		slot_set(i, 100 + (uint64_t)i, START_NS + 2 * HOUR + SECOND);
	interesting = 1u << 0;
	caller_count = 0;
	caller_add(0, 1);
	caller_add(1, 2);
	callers[1].late_ns = 1; /* N2: never the same time as key 0's */
	caller_add(0, 1);
}

static void check_debt_of_another(void)
{
	fail_if(allowed_of(0) != 2, "refused for the debt of another key");
}

static void key_is_not_refused_for_the_debt_of_the_one_in_between(void **state)
{
	const struct scenario scenario = {prepare_debt_of_another, check_debt_of_another,
					  .switches = 3};

	(void)state;
	assert_true(explore(&scenario) > 1000);
}

/* A life is a number of seven bits: who stood still for 128 lives of the slot meets the one that he saw. */
static void settling_a_claim_of_128_lives_ago_changes_nothing(void **state)
{
	struct coshm__limiter_key old = key_number(0), other = key_number(1);
	struct coshm__limiter_slot slot;
	uint64_t claim, key_word;

	(void)state;
	world_fill(1, HOUR, 1);
	slot = slot_at(&old, 0);
	claim = coshm__limiter_next_word(coshm__a64_load_relaxed(slot.key), old.word) |
		COSHM__LIMITER_CLAIM;
	for (int life = 0; life < 128; life++) {
		const struct seen seen = {.tat = coshm__a64_load_relaxed(slot.tat),
					  .word = coshm__a64_load_relaxed(slot.key)};
		uint64_t next = claim_for(&slot, seen, (life == 0 ? &old : &other)->word);

		if (life == 0)
			assert_int_equal(next, claim);
		assert_int_equal(settle(&slot, next), next & ~COSHM__LIMITER_CLAIM);
		assert_true(coshm__a64_cas_acq_rel(slot.tat, &next, coshm__gcra_ticks(START_NS)));
	}
	key_word = coshm__a64_load_relaxed(slot.key);
	/* The test is of use only if this is the life before the claim's. */
	assert_int_equal((key_word + COSHM__LIMITER_LIFE_ONE) & COSHM__LIMITER_LIFE_MASK,
			 claim & COSHM__LIMITER_LIFE_MASK);
	assert_int_equal(settle(&slot, claim), key_word);
	assert_int_equal(coshm__a64_load_relaxed(slot.key), key_word);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fresh_key_gets_exactly_its_burst_from_three_callers),
		cmocka_unit_test(fresh_key_gets_its_burst_less_what_the_killed_took),
		cmocka_unit_test(claims_for_one_key_in_two_places_end_as_one_entry),
		cmocka_unit_test(claims_in_two_places_end_as_one_entry_with_kills),
		cmocka_unit_test(two_keys_that_want_the_same_slots_both_get_their_burst),
		cmocka_unit_test(claims_of_the_killed_are_taken_over),
		cmocka_unit_test(key_is_not_displaced_while_it_is_charged),
		cmocka_unit_test(key_that_is_displaced_before_it_is_charged_gets_exactly_its_burst),
		cmocka_unit_test(stale_caller_gains_nothing_from_a_forgotten_debt),
		cmocka_unit_test(stale_caller_does_not_take_a_full_debt_for_none),
		cmocka_unit_test(key_is_not_refused_for_the_debt_of_the_one_in_between),
		cmocka_unit_test(settling_a_claim_of_128_lives_ago_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
