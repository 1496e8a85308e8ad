/* SPDX-License-Identifier: MIT */
/*
 * A member is killed, or stopped and resumed, at each row of the cache's section of crash_points.def, the first time it
 * gets there and later times, under each policy that gets there. The others go on meanwhile, every hit is whole, and
 * afterwards nothing is damaged, pending or lost but the one value on its way. Rows of the last page: last_page_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "base/crash.h"
#include "modules/cache/cache.h"
#include "support/procs.h"

enum { KEYS = 400, STEPS = 60000, VALUE_MAX = 80000 /* two pages and a bit */ };

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static char base_name[TEST_SEGMENT_NAME_SIZE], segment_name[TEST_SEGMENT_NAME_SIZE + 16];

struct plan {
	enum coshm__crash_point point;
	int signal;
	uint32_t countdown;
	uint32_t policy;
};

static int make(uint32_t policy)
{
	struct coshm_segment_config memory = {.size_bytes = 3 << 20, .member_count_max = 16};
	struct coshm_cache_config config = {.size_bytes = 1 << 20, .policy = policy, .lanes = 1};

	static unsigned int count;

	/* One reserved name: it has to do for hundreds of segments, one after the other. */
	if (count == 0)
		test_segment_name(base_name, "cache-crash");
	snprintf(segment_name, sizeof(segment_name), "%s-%u", base_name, count++);
	if (policy == COSHM_CACHE_LRU)
		config.max_entries = 120;
	return coshm_segment_create(segment_name, &memory, 0, &segment) ||
	       coshm_cache_create(segment, "c", &config, 0, &cache);
}

static unsigned int next_random(unsigned int *state)
{
	*state = *state * 1103515245 + 12345;
	return *state >> 8;
}

static size_t fill(unsigned char *value, uint32_t key, unsigned int *random, uint32_t policy)
{
	uint32_t version = next_random(random), kind = next_random(random) % 40;
	uint32_t size =
		12 + next_random(random) %
			     (kind == 0 && policy != COSHM_CACHE_NONE ? VALUE_MAX - 12 : 300);

	for (uint32_t i = 12; i < size; i++)
		value[i] = (unsigned char)(key + version * 3 + i);
	memcpy(value, &key, 4);
	memcpy(value + 4, &version, 4);
	memcpy(value + 8, &size, 4);
	return size;
}

static int is_whole(const unsigned char *value, size_t size, uint32_t key)
{
	uint32_t k, version, s;

	memcpy(&k, value, 4);
	memcpy(&version, value + 4, 4);
	memcpy(&s, value + 8, 4);
	if (k != key || s != size)
		return 0;
	for (uint32_t i = 12; i < size; i++)
		if (value[i] != (unsigned char)(key + version * 3 + i))
			return 0;
	return 1;
}

/* One of everything. 0, or what is wrong. */
static int operate(unsigned int *random, uint32_t policy)
{
	static unsigned char value[VALUE_MAX];
	uint32_t key = next_random(random) % (policy == COSHM_CACHE_NONE ? KEYS / 2 : KEYS);
	size_t size = sizeof(value);
	int result;

	switch (next_random(random) % 12) {
	case 0:
		result = coshm_cache_delete(cache, &key, sizeof(key));
		break;
	case 1:
		key %= 20;
		result = coshm_cache_incr(cache, (char *)&key, 3, 1, 0, 0, NULL);
		break;
	case 2:
		result = coshm_cache_add(cache, &key, sizeof(key), value,
					 fill(value, key, random, policy), 0);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		result = coshm_cache_set(cache, &key, sizeof(key), value,
					 fill(value, key, random, policy),
					 next_random(random) % 8 ? 0 : 30000000);
		break;
	case 7:
		if (next_random(random) % 500 == 0)
			return coshm_cache_flush(cache);
		/* fall through */
	default:
		result = coshm_cache_get(cache, &key, sizeof(key), value, &size, NULL);
		if (result == 1 && !is_whole(value, size, key))
			return 2;
	}
	return result < 0 && result != -EAGAIN && result != -ENOSPC ? 3 : 0;
}

/* Rows that only who finds all lanes held comes by. */
static int needs_no_lane(const struct plan *plan)
{
	return plan->point == COSHM__CRASH_cache_alone_placed ||
	       plan->point == COSHM__CRASH_cache_alone_sealed;
}

/* The lane with that number, and then stands still. */
static int keep_a_lane(void *arg)
{
	struct coshm__cache *local;
	struct coshm__op op;

	if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	local = op.handle->local;
	if (coshm__rlock_acquire(&op, &local->lanes[(uintptr_t)arg].lock, 0))
		return 2;
	raise(SIGSTOP);
	return 3;
}

/* Both lanes of the cache, the spare one included. 0, or what is wrong. */
static int keep_all_lanes(struct proc *holders[2])
{
	for (uintptr_t i = 0; i < 2; i++) {
		holders[i] = proc_spawn(keep_a_lane, (void *)i);
		if (proc_wait_stopped(holders[i], PROC_DEADLINE_NS) != 1)
			return 1;
	}
	return 0;
}

static int act(void *arg)
{
	const struct plan *plan = arg;
	unsigned int random = 1;
	struct coshm__op op;
	int wrong = 0;

	for (int i = 0; i < (needs_no_lane(plan) ? 0 : 2000) && !wrong; i++)
		wrong = operate(&random, plan->policy);
	if (plan->point == COSHM__CRASH_cache_epoch_swept) {
		if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
			return 4;
		coshm__a64_store_relaxed(&((struct coshm__cache *)op.handle->local)->shm->epoch,
					 UINT64_C(1) << 22);
		coshm__op_end(&op);
	}
	coshm__crash_arm(plan->point, plan->signal, plan->countdown);
	/* Each that finds all lanes held takes 10 ms. */
	for (int i = 0; i < (needs_no_lane(plan) ? 120 : STEPS) && !wrong; i++)
		wrong = operate(&random, plan->policy);
	return wrong;
}

/* Dies in the repair of what another left. */
static int act_restore(void *arg)
{
	const struct plan *plan = arg;
	struct plan first = {COSHM__CRASH_cache_lru_changed, SIGKILL, 3, plan->policy};
	unsigned int random = 7;

	proc_collect(proc_spawn(act, &first), PROC_DEADLINE_NS);
	coshm__crash_arm(plan->point, plan->signal, plan->countdown);
	for (int i = 0; i < STEPS; i++)
		if (operate(&random, plan->policy))
			return 1;
	return 0;
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	if (level >= *(int *)context)
		fprintf(stderr, "# %s: %s\n", where, text);
}

static int verify(int least)
{
	struct coshm_verify_result result;

	if (coshm_inspect_verify(segment, NULL, print_finding, &least, &result))
		return 1;
	return result.damage != 0 || (least <= COSHM_VERIFY_PENDING && result.pending != 0);
}

static int go_on(const struct plan *plan)
{
	/* Bounded in time: who meets a stripe that a stopped member holds waits for 100 ms, each time; who finds all lanes held
	 * takes 10 ms, and some thirty of these go by all pages. */
	uint64_t end = test_now_ns() + UINT64_C(100000000) * (needs_no_lane(plan) ? 6 : 1);
	unsigned int random = 99;
	int wrong = 0;

	for (int i = 0; i < 5000 && !wrong && test_now_ns() < end; i++)
		wrong = operate(&random, plan->policy);
	return wrong;
}

/* NULL, or what went wrong. *ret_reached 0: this policy does not get there. */
static const char *run(const struct plan *plan, int *ret_reached)
{
	int (*actor)(void *) = plan->point == COSHM__CRASH_cache_lru_restored ? act_restore : act;
	struct proc *child, *holders[2] = {NULL, NULL};
	const char *wrong = NULL;
	unsigned int random = 5;
	int result;

	if (make(plan->policy))
		return "cannot make the cache";
	if (needs_no_lane(plan)) {
		for (int i = 0; i < 2000; i++)
			if (operate(&random, plan->policy))
				return "the cache is wrong before";
		if (keep_all_lanes(holders))
			return "cannot take all lanes";
	}
	child = proc_spawn(actor, (void *)plan);
	*ret_reached = 1;
	if (plan->signal == SIGSTOP) {
		*ret_reached = proc_wait_stopped(child, PROC_DEADLINE_NS) == 1;
		if (*ret_reached) {
			if (verify(COSHM_VERIFY_DAMAGE))
				wrong = "damage while it is stopped";
			else if (go_on(plan))
				wrong = "others are wrong while it is stopped";
			coshm__crash_arm(plan->point, 0, 0);
			proc_resume(child);
		}
		result = proc_collect(child, PROC_DEADLINE_NS);
		if (result && !wrong)
			wrong = "the actor is wrong after it was resumed";
	} else {
		result = proc_collect(child, PROC_DEADLINE_NS);
		*ret_reached = result == -SIGKILL;
		if (result > 0 || result == PROC_HUNG)
			wrong = "the actor is wrong";
		if (!wrong && verify(COSHM_VERIFY_DAMAGE))
			wrong = "damage after the death";
		if (!wrong && go_on(plan))
			wrong = "others are wrong after the death";
	}
	for (int i = 0; i < 2; i++)
		if (holders[i])
			proc_kill(holders[i]);
	if (coshm_segment_reap(segment, NULL) && !wrong)
		wrong = "reap failed";
	if (!wrong && verify(COSHM_VERIFY_PENDING))
		wrong = "something is left";
	if (!wrong && go_on(plan))
		wrong = "others are wrong at the end";
	if (coshm_segment_detach(segment) || coshm_segment_unlink(segment_name))
		wrong = "cannot detach";
	return wrong;
}

static void nobody_trips_over_a_death_or_a_stop_at_any_row(void **state)
{
	static const uint32_t countdowns[] = {1, 37};
	unsigned int failed = 0, missed = 0;

	(void)state;
	for (int row = 0; row < COSHM__CRASH_COUNT; row++) {
		int reached_ever = 0, reached = 0;

		if (strncmp(coshm__crash_rows[row].name, "cache_", 6) != 0 ||
		    strncmp(coshm__crash_rows[row].name, "cache_target_", 13) == 0)
			continue;
		for (uint32_t how = 0; how < 2 * 2 * 3; how++) {
			struct plan plan = {.point = (enum coshm__crash_point)row,
					    .signal = how % 2 ? SIGSTOP : SIGKILL,
					    .countdown = countdowns[how / 2 % 2],
					    .policy = how / 4};
			const char *wrong;

			/* Not even once under this policy: it does not come by. */
			if (how % 4 != 0 && !reached)
				continue;
			wrong = run(&plan, &reached);
			reached_ever |= reached;
			if (!wrong)
				continue;
			fprintf(stderr, "# FAILED: %s, %s, %u. time, policy %u: %s\n",
				coshm__crash_rows[row].name,
				plan.signal == SIGKILL ? "killed" : "stopped", plan.countdown,
				plan.policy, wrong);
			failed++;
		}
		if (!reached_ever) {
			fprintf(stderr, "# not reached: %s\n", coshm__crash_rows[row].name);
			missed++;
		}
	}
	assert_int_equal(missed, 0);
	assert_int_equal(failed, 0);
}

/* --- H1: what the second look at the slot is for --- */

enum { SWAPPED = 15000, DELAYS = 400 };

static _Atomic int *stop_writing;

static int write_one_key(void *arg)
{
	static unsigned char value[SWAPPED];
	unsigned char version = (unsigned char)(uintptr_t)arg;

	while (!atomic_load(stop_writing)) {
		int error;

		version = (unsigned char)(version + 2);
		memset(value, version, sizeof(value));
		error = coshm_cache_set(cache, "k", 1, value, sizeof(value), 0);
		if (error && error != -EAGAIN)
			return 1;
	}
	return 0;
}

/* Stopped between its first look at the slot and its hazard, each time, while the pages go round under it. */
static int read_with_delays(void *arg)
{
	static unsigned char value[SWAPPED];

	(void)arg;
	for (int i = 0; i < DELAYS; i++) {
		struct coshm_cache_item item;
		size_t size = sizeof(value);
		int result;

		coshm__crash_arm(COSHM__CRASH_cache_slot_loaded, SIGSTOP, 1);
		/* Both ways: the usual hit, and the long one that also tells about the item. */
		result = coshm_cache_get(cache, "k", 1, value, &size, i % 2 ? &item : NULL);
		if (result != 1)
			continue;
		for (size_t b = 0; b < size; b++)
			if (value[b] != value[0])
				return 2;
	}
	return 0;
}

static void reader_delayed_before_its_hazard_sees_a_whole_value(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct proc *writers[2], *reader;
	unsigned int stops = 0;
	int result;

	(void)state;
	stop_writing = proc_shared_alloc(sizeof(*stop_writing));
	assert_int_equal(make(COSHM_CACHE_S3FIFO), 0);
	for (uintptr_t i = 0; i < 2; i++)
		writers[i] = proc_spawn(write_one_key, (void *)i);
	while (coshm_cache_exists(cache, "k", 1) != 1 &&
	       test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	reader = proc_spawn(read_with_delays, NULL);
	while (proc_wait_stopped(reader, PROC_DEADLINE_NS) == 1) {
		stops++;
		test_sleep_ns(500000);
		proc_resume(reader);
	}
	result = proc_collect(reader, PROC_DEADLINE_NS);
	atomic_store(stop_writing, 1);
	assert_int_equal(proc_collect_all(writers, 2, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(result, 0);
	assert_true(stops > DELAYS / 2);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(verify(COSHM_VERIFY_PENDING), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(segment_name), 0);
}

/* --- what is reserved and not published --- */

enum { RESERVED = 17000 };

static int reserve_and_die(void *arg)
{
	static unsigned char value[RESERVED];
	const uint32_t key = (uint32_t)(uintptr_t)arg;

	coshm__crash_arm(COSHM__CRASH_cache_reserved, SIGKILL, 1);
	return coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value), 0) != 0;
}

static void space_that_the_dead_reserved_comes_back(void **state)
{
	static const uint32_t policies[] = {COSHM_CACHE_S3FIFO, COSHM_CACHE_LRU, COSHM_CACHE_NONE};
	static unsigned char value[RESERVED];

	(void)state;
	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		assert_int_equal(make(policies[p]), 0);
		/* Three times as much as there is; who comes next finds it himself. */
		for (uintptr_t i = 0; i < 100; i++) {
			assert_int_equal(proc_collect(proc_spawn(reserve_and_die, (void *)i),
						      PROC_DEADLINE_NS),
					 -SIGKILL);
		}
		for (uint32_t i = 0; i < 20; i++)
			assert_int_equal(
				coshm_cache_set(cache, &i, sizeof(i), value, sizeof(value), 0), 0);
		for (uint32_t i = 0; i < 20 && policies[p] == COSHM_CACHE_NONE; i++)
			assert_int_equal(coshm_cache_exists(cache, &i, sizeof(i)), 1);
		assert_int_equal(coshm_segment_reap(segment, NULL), 0);
		assert_int_equal(verify(COSHM_VERIFY_PENDING), 0);
		assert_int_equal(coshm_segment_detach(segment), 0);
		assert_int_equal(coshm_segment_unlink(segment_name), 0);
	}
}

static int seal_and_die(void *arg)
{
	static unsigned char value[RESERVED];

	(void)arg;
	coshm__crash_arm(COSHM__CRASH_cache_page_sealed, SIGKILL, 1);
	for (uint32_t key = 100; key < 200; key++)
		if (coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value), 0))
			return 1;
	return 0;
}

/* The lane still names the page, and there is room behind its last item. */
static void nothing_is_appended_to_a_page_that_the_dead_sealed(void **state)
{
	static unsigned char value[VALUE_MAX];
	const uint32_t small = 0;
	size_t size = 9000;

	(void)state;
	assert_int_equal(make(COSHM_CACHE_NONE), 0);
	assert_int_equal(proc_collect(proc_spawn(seal_and_die, NULL), PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm_cache_set(cache, &small, sizeof(small), value, size, 0), 0);
	/* Nothing else lives there: it is emptied for values that fill pages of their own. */
	for (uint32_t key = 100; key < 200; key++)
		assert_in_range(coshm_cache_delete(cache, &key, sizeof(key)), 0, 1);
	for (uint32_t key = 300; key < 400; key++)
		if (coshm_cache_set(cache, &key, sizeof(key), value, 2 * 32768 - sizeof(key), 0))
			break;
	assert_int_equal(coshm_cache_get(cache, &small, sizeof(small), value, &size, NULL), 1);
	assert_int_equal(verify(COSHM_VERIFY_PENDING), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(segment_name), 0);
}

/* --- verify, of a value that nothing names any more --- */

static int take_large_away(void *arg)
{
	static unsigned char value[VALUE_MAX];
	const enum coshm__crash_point point = (enum coshm__crash_point)(uintptr_t)arg;

	coshm__crash_arm(point, SIGSTOP, 1);
	if (point == COSHM__CRASH_cache_replaced)
		return coshm_cache_set(cache, "large", 5, value, sizeof(value), 0) != 0;
	return coshm_cache_delete(cache, "large", 5) != 1;
}

static void member_stopped_before_it_gives_pages_back_is_no_damage(void **state)
{
	static const enum coshm__crash_point points[] = {
		COSHM__CRASH_cache_replaced,
		COSHM__CRASH_cache_slot_emptied,
		COSHM__CRASH_cache_chunk_retired,
	};
	static unsigned char value[VALUE_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		struct proc *child;

		assert_int_equal(make(COSHM_CACHE_S3FIFO), 0);
		assert_int_equal(coshm_cache_set(cache, "large", 5, value, sizeof(value), 0), 0);
		child = proc_spawn(take_large_away, (void *)(uintptr_t)points[i]);
		assert_int_equal(proc_wait_stopped(child, PROC_DEADLINE_NS), 1);
		assert_int_equal(verify(COSHM_VERIFY_PENDING), 0);
		proc_resume(child);
		assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
		assert_int_equal(coshm_segment_reap(segment, NULL), 0);
		assert_int_equal(verify(COSHM_VERIFY_PENDING), 0);
		assert_int_equal(coshm_segment_detach(segment), 0);
		assert_int_equal(coshm_segment_unlink(segment_name), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reader_delayed_before_its_hazard_sees_a_whole_value),
		cmocka_unit_test(space_that_the_dead_reserved_comes_back),
		cmocka_unit_test(nothing_is_appended_to_a_page_that_the_dead_sealed),
		cmocka_unit_test(member_stopped_before_it_gives_pages_back_is_no_damage),
		cmocka_unit_test(nobody_trips_over_a_death_or_a_stop_at_any_row),
	};

	return cmocka_run_group_tests_name("crash: cache", tests, NULL, NULL);
}
