/* SPDX-License-Identifier: MIT */
/*
 * limiter.h P2, P3, P4, P5 with a bucket that does not refill during the test: every token can be
 * counted.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <unistd.h>

#include <coshm/limiter.h>
#include <coshm/stats.h>

#define MEMBERS 16
#define ROUNDS	200
#define BURST	50
#define HOUR	(3600 * SECOND)
/* More than all kills of a run can lose. */
#define BURST_MANY 2000
#define COST_MAX   4

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct proc_barrier *barrier;
	_Atomic uint32_t taken[ROUNDS];
	/* Of the tests with kills. */
	_Atomic uint64_t started;
	_Atomic uint64_t got;
	_Atomic uint64_t gave_back_started;
	_Atomic uint64_t gave_back;
};

static struct coshm_limiter *limiter_new(struct books *books, const char *tag, uint64_t burst)
{
	const struct coshm_limiter_config config = {
		.struct_size_bytes = sizeof(config),
		.rate = 1,
		.per_ns = HOUR,
		.burst = burst,
		.keys_max = 10000,
	};
	struct coshm_limiter *limiter;

	books->segment = segment_for_test(books->name, tag, 4 << 20);
	assert_int_equal(coshm_limiter_create(books->segment, "api", &config, 0, &limiter), 0);
	return limiter;
}

static int drain_together(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct coshm_limiter_result result;
		int rc;

		PROMISE_EQUAL(proc_barrier_wait(books->barrier, PROC_DEADLINE_NS), 0);
		while ((rc = coshm_limiter_try(limiter, &round, sizeof(round), 1, &result)) == 1) {
			atomic_fetch_add(&books->taken[round], 1);
			PROMISE(result.remaining < BURST);
			PROMISE_EQUAL(result.retry_after_ns, 0);
		}
		PROMISE_EQUAL(rc, 0);
		PROMISE_EQUAL(result.remaining, 0);
		/* From the moment that its clock showed, which may be before the bucket was emptied. */
		PROMISE(result.retry_after_ns > 0);
		PROMISE(result.retry_after_ns <= HOUR + PROC_DEADLINE_NS);
	}
	return 0;
}

static void sixteen_processes_at_once_get_exactly_burst_of_a_fresh_key(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct crowd crowd;

	(void)state;
	(void)limiter_new(books, "limiter-burst", BURST);
	books->barrier = proc_barrier_new(MEMBERS);
	crowd_start(&crowd, MEMBERS, drain_together, books, NULL);
	crowd_join(&crowd);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		assert_int_equal(books->taken[round], BURST);
	}
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int flood(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_limiter *limiter;

	PROMISE_EQUAL(coshm_limiter_open(books->segment, "api", &limiter), 0);
	for (unsigned int i = 0; i < 20000; i++) {
		struct coshm_limiter_result result;

		PROMISE_EQUAL(coshm_limiter_try(limiter, "k", 1, 1 + i % BURST, &result), 0);
		PROMISE_EQUAL(result.remaining, 0);
		PROMISE(result.reset_after_ns <= BURST * HOUR);
	}
	return 0;
}

static void refused_tries_change_nothing(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-refuse", BURST);
	struct coshm_limiter_result before, after;
	const uint64_t now_ns = coshm_segment_now_ns(books->segment);
	struct crowd crowd;

	(void)state;
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, BURST, now_ns, NULL), 1);
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 1, now_ns, &before), 0);
	crowd_start(&crowd, 4, flood, books, NULL);
	crowd_join(&crowd);
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 1, now_ns, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
	/* Nor do tries that can never pass, on a key that has room. */
	for (unsigned int i = 0; i < 1000; i++)
		assert_int_equal(coshm_limiter_try(limiter, "l", 1, BURST + 1, NULL), -E2BIG);
	assert_int_equal(coshm_limiter_try(limiter, "l", 1, BURST, NULL), 1);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

/* A refund of a killed member may have happened or not; so may a try. ------------------------- */

static int take_and_give_back(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	while (!crowd_is_over()) {
		const uint64_t cost = random_below(&seed, COST_MAX) + 1;
		struct coshm_limiter_result result;
		int rc;

		atomic_fetch_add(&books->started, cost);
		rc = coshm_limiter_try(limiter, "k", 1, cost, &result);
		PROMISE(rc == 0 || rc == 1);
		PROMISE(result.remaining <= BURST_MANY - (rc ? cost : 0));
		if (rc == 0) {
			atomic_fetch_sub(&books->started, cost);
			continue;
		}
		atomic_fetch_add(&books->got, cost);
		if (random_below(&seed, 100) == 0)
			test_sleep_ns(random_below(&seed, 100000));
		atomic_fetch_add(&books->gave_back_started, cost);
		PROMISE_EQUAL(coshm_limiter_refund(limiter, "k", 1, cost), 0);
		atomic_fetch_add(&books->gave_back, cost);
	}
	return 0;
}

static void tokens_are_conserved(int torments, unsigned int *ret_kills)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-refund", BURST_MANY);
	struct coshm_limiter_result result;
	uint64_t out_max, out_min;
	struct crowd crowd;

	crowd_start(&crowd, 6, take_and_give_back, books, NULL);
	if (torments)
		crowd_torment(&crowd, 0, 6, torments, test_run_ns() / 2);
	else
		test_sleep_ns(test_run_ns() / 2);
	CROWD_UNTIL(books->got > 0);
	crowd_finish(&crowd);
	*ret_kills = crowd.kills;

	assert_true(coshm_limiter_peek(limiter, "k", 1, &result) >= 0);
	out_max = books->started - books->gave_back;
	out_min = books->got > books->gave_back_started ? books->got - books->gave_back_started : 0;
	if (!torments)
		assert_int_equal(result.remaining, BURST_MANY);
	/* Each kill loses at most the tokens in its hands. */
	assert_true(out_max <= COST_MAX * crowd.kills);
	assert_true(out_min <= BURST_MANY);
	assert_true(result.remaining <= BURST_MANY - out_min);
	assert_true(result.remaining + out_max >= BURST_MANY);
	assert_true(books->got > 0);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void tokens_given_back_are_conserved_exactly(void **state)
{
	unsigned int kills;

	(void)state;
	tokens_are_conserved(0, &kills);
	tokens_are_conserved(CROWD_STOP, &kills);
}

static void each_kill_loses_at_most_the_tokens_being_taken(void **state)
{
	unsigned int kills;

	(void)state;
	tokens_are_conserved(CROWD_KILL | CROWD_STOP, &kills);
	assert_true(kills > 0);
}

static void refunds_never_fill_the_bucket_beyond_burst(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-refill", BURST);
	const uint64_t refunds[] = {1, BURST, BURST + 1, 1000000, UINT64_MAX / 2, UINT64_MAX};

	(void)state;
	for (uint32_t i = 0; i < sizeof(refunds) / sizeof(refunds[0]); i++) {
		struct coshm_limiter_result result;
		unsigned int taken = 0;

		/* On a key never seen, one with debt, and once more. */
		for (unsigned int lap = 0; lap < 3; lap++) {
			const int rc = coshm_limiter_refund(limiter, &i, sizeof(i), refunds[i]);

			assert_true(rc == 0 || rc == -EINVAL);
			if (lap == 0)
				assert_int_equal(coshm_limiter_try(limiter, &i, sizeof(i), 1, NULL),
						 1);
		}
		assert_true(coshm_limiter_peek(limiter, &i, sizeof(i), &result) >= 0);
		assert_true(result.remaining <= BURST);
		while (coshm_limiter_try(limiter, &i, sizeof(i), 1, NULL) == 1)
			taken++;
		assert_int_equal(taken, result.remaining);
		assert_in_range(taken, BURST - 1, BURST);
	}
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void reset_makes_the_bucket_full_and_no_fuller(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-reset", BURST);

	(void)state;
	for (unsigned int lap = 0; lap < 3; lap++) {
		assert_int_equal(coshm_limiter_reset(limiter, "k", 1), 0);
		assert_int_equal(coshm_limiter_try(limiter, "k", 1, BURST, NULL), 1);
		assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), 0);
		assert_int_equal(coshm_limiter_try(limiter, "other", 5, 1, NULL), lap < BURST);
	}
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int decide_without_system_calls(void *arg)
{
	struct books *books = arg;
	struct coshm_limiter *limiter;

	/* The first call makes this process a member. */
	if (coshm_limiter_open(books->segment, "api", &limiter) ||
	    coshm_limiter_try(limiter, "warm", 4, 1, NULL) != 1 ||
	    forbid_system_calls(SYSTEM_CALLS_OF_A_LOOK))
		return 1;
	for (uint32_t i = 0; i < 20000; i++) {
		const uint32_t key = i % 100;
		struct coshm_limiter_result result;

		if (coshm_limiter_try(limiter, &key, sizeof(key), 1, &result) < 0 ||
		    coshm_limiter_peek(limiter, &key, sizeof(key), &result) < 0 ||
		    coshm_limiter_wait(limiter, &key, sizeof(key), 1, 0, &result) < 0)
			_exit(2);
	}
	_exit(0);
}

static void decisions_make_no_system_call(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));

	(void)state;
	(void)limiter_new(books, "limiter-sys", BURST);
	assert_int_equal(
		proc_collect(proc_spawn(decide_without_system_calls, books), PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int peek_read_only(void *arg)
{
	struct books *books = arg;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	struct coshm_limiter_result result;

	PROMISE_EQUAL(coshm_segment_attach(books->name, COSHM_ATTACH_READ_ONLY, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	PROMISE_EQUAL(coshm_limiter_peek(limiter, "k", 1, &result), 1);
	PROMISE_EQUAL(result.remaining, BURST - 7);
	PROMISE_EQUAL(result.limit, BURST);
	PROMISE_EQUAL(coshm_limiter_peek(limiter, "fresh", 5, &result), 1);
	PROMISE_EQUAL(result.remaining, BURST);
	PROMISE_EQUAL(coshm_limiter_try(limiter, "k", 1, 1, &result), -EROFS);
	PROMISE_EQUAL(coshm_limiter_refund(limiter, "k", 1, 1), -EROFS);
	PROMISE_EQUAL(coshm_limiter_reset(limiter, "k", 1), -EROFS);
	PROMISE_EQUAL(coshm_segment_detach(segment), 0);
	return 0;
}

static void peek_sees_the_same_on_a_read_only_attach_and_takes_nothing(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter = limiter_new(books, "limiter-peek", BURST);
	struct coshm_limiter_result result;

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 7, NULL), 1);
	assert_int_equal(proc_collect(proc_spawn(peek_read_only, books), PROC_DEADLINE_NS), 0);
	for (unsigned int i = 0; i < 1000; i++) {
		assert_int_equal(coshm_limiter_peek(limiter, "k", 1, &result), 1);
		assert_int_equal(result.remaining, BURST - 7);
		assert_true(coshm_limiter_try(limiter, "k", 1, 0, &result) >= 0);
		assert_int_equal(result.remaining, BURST - 7);
	}
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sixteen_processes_at_once_get_exactly_burst_of_a_fresh_key),
		cmocka_unit_test(refused_tries_change_nothing),
		cmocka_unit_test(tokens_given_back_are_conserved_exactly),
		cmocka_unit_test(each_kill_loses_at_most_the_tokens_being_taken),
		cmocka_unit_test(refunds_never_fill_the_bucket_beyond_burst),
		cmocka_unit_test(reset_makes_the_bucket_full_and_no_fuller),
		cmocka_unit_test(decisions_make_no_system_call),
		cmocka_unit_test(peek_sees_the_same_on_a_read_only_attach_and_takes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
