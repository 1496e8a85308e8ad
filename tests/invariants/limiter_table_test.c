/* SPDX-License-Identifier: MIT */
/*
 * limiter.h N2 and wait: a table with more keys than it was made for, and sleepers.
 */
#include "invariants/crowd.h"

#include <unistd.h>

#include <coshm/limiter.h>
#include <coshm/stats.h>

#define HOUR (3600 * SECOND)
#define KEYS 20000

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct proc_barrier *barrier;
	_Atomic uint32_t admitted[KEYS];
	_Atomic uint64_t waited;
};

static struct coshm_limiter *limiter_new(struct books *books, const char *tag, uint64_t burst,
					 uint64_t keys_max)
{
	const struct coshm_limiter_config config = {
		.struct_size_bytes = sizeof(config),
		.rate = 1,
		.per_ns = HOUR,
		.burst = burst,
		.keys_max = keys_max,
	};
	struct coshm_limiter *limiter;

	books->segment = segment_for_test(books->name, tag, 4 << 20);
	assert_int_equal(coshm_limiter_create(books->segment, "api", &config, 0, &limiter), 0);
	return limiter;
}

/* The table is made for them: all keys at once, from four processes in different orders. */
static int take_each_key(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_limiter *limiter;

	PROMISE_EQUAL(coshm_limiter_open(books->segment, "api", &limiter), 0);
	PROMISE_EQUAL(proc_barrier_wait(books->barrier, PROC_DEADLINE_NS), 0);
	for (uint32_t i = 0; i < 2 * KEYS; i++) {
		const uint32_t key = (i * (2 * member->index + 1)) % KEYS;
		const int rc = coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL);

		PROMISE(rc == 0 || rc == 1);
		atomic_fetch_add(&books->admitted[key], (uint32_t)rc);
	}
	return 0;
}

static void as_many_keys_as_configured_keep_their_debt(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	uint64_t forgotten = 0, evicted_live = 0;
	struct crowd crowd;

	(void)state;
	(void)limiter_new(books, "limiter-full", 3, KEYS);
	books->barrier = proc_barrier_new(4);
	crowd_start(&crowd, 4, take_each_key, books, NULL);
	crowd_join(&crowd);
	assert_int_equal(coshm_stats_value(books->segment, "api", "evicted_live", &evicted_live),
			 0);
	for (uint32_t key = 0; key < KEYS; key++) {
		assert_true(books->admitted[key] >= 3);
		forgotten += books->admitted[key] > 3;
	}
	assert_true(forgotten <= evicted_live);
	assert_true(forgotten <= KEYS / 1000);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void keys_with_most_debt_are_kept_under_a_flood_of_others(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-flood", 100, 2000);
	uint64_t evicted_live = 0;
	uint32_t kept = 0;

	(void)state;
	for (uint32_t key = 0; key < 100; key++)
		assert_int_equal(coshm_limiter_try(limiter, &key, sizeof(key), 100, NULL), 1);
	for (uint32_t key = 1000; key < 1000 + 10 * KEYS; key++)
		assert_int_equal(coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL), 1);
	for (uint32_t key = 0; key < 100; key++)
		kept += coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL) == 0;
	assert_int_equal(kept, 100);
	/* The flood did not fit. */
	assert_int_equal(coshm_stats_value(books->segment, "api", "evicted_live", &evicted_live),
			 0);
	assert_true(evicted_live > KEYS);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

/* Whatever the table forgets while its writers die, it stays a table that limits. */
static int flood(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	while (!crowd_is_over()) {
		const uint64_t key = random_below(&seed, 100000);
		struct coshm_limiter_result result;
		const int rc = coshm_limiter_try(limiter, &key, sizeof(key), random_below(&seed, 5),
						 &result);

		PROMISE(rc == 0 || rc == 1);
		PROMISE(result.remaining <= 5);
		PROMISE_EQUAL(result.limit, 5);
		PROMISE(result.reset_after_ns <= 5 * HOUR);
	}
	return 0;
}

static void overfull_table_limits_on_after_kills(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-churn", 5, 500);
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 6, flood, books, NULL);
	crowd_torment(&crowd, 0, 6, CROWD_KILL | CROWD_STOP, test_run_ns());
	crowd_finish(&crowd);
	assert_true(crowd.kills > 0);
	/* One key at a time always fits. */
	for (uint64_t key = 1000000; key < 1001000; key++) {
		assert_int_equal(coshm_limiter_try(limiter, &key, sizeof(key), 5, NULL), 1);
		assert_int_equal(coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL), 0);
	}
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void wait_that_cannot_succeed_returns_at_once(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-wait", 1, 1000);
	struct coshm_limiter_result result;

	(void)state;
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, 0, &result), 1);
	/* run-tap's limit is far below half an hour. */
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, HOUR / 2, &result), 0);
	assert_true(result.retry_after_ns > HOUR / 2);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

#define WAIT_RATE  200
#define WAIT_BURST 10

static int wait_for_tokens(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	while (!crowd_is_over()) {
		PROMISE_EQUAL(coshm_limiter_wait(limiter, "k", 1, 1, COSHM_FOREVER, NULL), 1);
		atomic_fetch_add(&books->waited, 1);
	}
	return 0;
}

static void waiters_get_what_comes_in_and_no_more(void **state)
{
	const struct coshm_limiter_config config = {
		.struct_size_bytes = sizeof(config),
		.rate = WAIT_RATE,
		.burst = WAIT_BURST,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-sleep", WAIT_BURST, 1000);
	uint64_t start_ns, end_ns;
	struct crowd crowd;

	(void)state;
	assert_int_equal(coshm_limiter_configure(limiter, &config), 0);
	start_ns = coshm_segment_now_ns(books->segment);
	crowd_start(&crowd, 4, wait_for_tokens, books, NULL);
	crowd_torment(&crowd, 0, 4, CROWD_KILL, test_run_ns() / 2);
	CROWD_UNTIL(books->waited > WAIT_BURST);
	crowd_finish(&crowd);
	end_ns = coshm_segment_now_ns(books->segment);
	assert_true(books->waited * SECOND <=
		    WAIT_BURST * SECOND + WAIT_RATE * (end_ns - start_ns));
	assert_true(books->waited > WAIT_BURST);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_many_keys_as_configured_keep_their_debt),
		cmocka_unit_test(keys_with_most_debt_are_kept_under_a_flood_of_others),
		cmocka_unit_test(overfull_table_limits_on_after_kills),
		cmocka_unit_test(wait_that_cannot_succeed_returns_at_once),
		cmocka_unit_test(waiters_get_what_comes_in_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
