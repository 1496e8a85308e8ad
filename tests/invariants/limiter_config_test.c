/* SPDX-License-Identifier: MIT */
/*
 * limiter.h, coshm_limiter_configure: every decision uses the old or the new configuration as a
 * whole, and from its return on the new one holds for all members.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <unistd.h>

#include <coshm/limiter.h>

#define HOUR (3600 * SECOND)
#define KEYS 4

/* Whole and half-taken configurations give different answers: full after T in both. */
static const struct coshm_limiter_config slow = {
	.struct_size_bytes = sizeof(slow), .rate = 10, .per_ns = HOUR, .burst = 10};
static const struct coshm_limiter_config fast = {
	.struct_size_bytes = sizeof(fast), .rate = 1000000, .per_ns = HOUR, .burst = 1000000};

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint64_t decisions[2];
	_Atomic uint64_t configured;
};

static int answer_is_whole(const struct coshm_limiter_result *result, int allowed, uint64_t cost)
{
	const struct coshm_limiter_config *config = result->limit == slow.burst ? &slow : &fast;
	const uint64_t period_ns = HOUR / config->rate;
	const uint64_t full_ns = period_ns * config->burst;

	PROMISE(result->limit == slow.burst || result->limit == fast.burst);
	/* A caller that stood still since it read the clock sees the others' debt as longer. */
	if (result->reset_after_ns > full_ns) {
		PROMISE_EQUAL(allowed, 0);
		PROMISE_EQUAL(result->remaining, 0);
		PROMISE(result->reset_after_ns < full_ns + PROC_DEADLINE_NS);
		return 0;
	}
	PROMISE_EQUAL(result->remaining, (full_ns - result->reset_after_ns) / period_ns);
	if (allowed)
		PROMISE_EQUAL(result->retry_after_ns, 0);
	else
		PROMISE_EQUAL(result->retry_after_ns,
			      result->reset_after_ns - (full_ns - cost * period_ns));
	return 0;
}

static int decide(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	while (!crowd_is_over()) {
		const uint32_t key = (uint32_t)random_below(&seed, KEYS);
		const uint64_t cost = random_below(&seed, 3) + 1;
		struct coshm_limiter_result result;
		const int rc = coshm_limiter_try(limiter, &key, sizeof(key), cost, &result);

		PROMISE(rc == 0 || rc == 1);
		if (answer_is_whole(&result, rc, cost))
			return 1;
		atomic_fetch_add(&books->decisions[result.limit == fast.burst], 1);
		if (random_below(&seed, 50) == 0)
			PROMISE_EQUAL(coshm_limiter_reset(limiter, &key, sizeof(key)), 0);
	}
	return 0;
}

static int configure(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	while (!crowd_is_over()) {
		const struct coshm_limiter_config *config = random_below(&seed, 2) ? &slow : &fast;
		const int rc = coshm_limiter_configure(limiter, config);
		struct coshm_limiter_config seen;

		/* -EAGAIN: the other one was stopped at work. */
		PROMISE(rc == 0 || rc == -EAGAIN);
		books->configured += rc == 0;
		memset(&seen, 0, sizeof(seen));
		seen.struct_size_bytes = sizeof(seen);
		PROMISE_EQUAL(coshm_limiter_config(limiter, &seen), 0);
		PROMISE((seen.rate == slow.rate && seen.burst == slow.burst) ||
			(seen.rate == fast.rate && seen.burst == fast.burst));
		PROMISE_EQUAL(seen.per_ns, HOUR);
		if (random_below(&seed, 4) == 0)
			test_sleep_ns(random_below(&seed, MS));
	}
	return 0;
}

/* 0 and 1 configure, the others decide. */
static int configure_or_decide(void *arg)
{
	const struct member *member = arg;

	return member->index < 2 ? configure(arg) : decide(arg);
}

static void decisions_under_configure_are_of_one_configuration(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter;
	struct crowd crowd;

	(void)state;
	books->segment = segment_for_test(books->name, "limiter-config", 4 << 20);
	assert_int_equal(coshm_limiter_create(books->segment, "api", &slow, 0, &limiter), 0);
	crowd_start(&crowd, 6, configure_or_decide, books, NULL);
	crowd_torment(&crowd, 0, 6, CROWD_KILL | CROWD_STOP, test_run_ns());
	CROWD_UNTIL(books->decisions[0] > 0 && books->decisions[1] > 0 && books->configured > 0);
	crowd_finish(&crowd);
	assert_true(books->decisions[0] > 0 && books->decisions[1] > 0);
	assert_true(books->configured > 0);
	/* A configurer that was killed is in nobody's way. */
	assert_int_equal(coshm_limiter_configure(limiter, &slow), 0);
	assert_int_equal(coshm_limiter_configure(limiter, &fast), 0);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int admissions_of_another_process(void *arg)
{
	struct books *books = arg;
	struct coshm_limiter *limiter;
	unsigned int admitted = 0;

	PROMISE_EQUAL(coshm_limiter_open(books->segment, "api", &limiter), 0);
	while (admitted <= 50 && coshm_limiter_try(limiter, "k", 1, 1, NULL) == 1)
		admitted++;
	return (int)admitted;
}

static void smaller_bucket_holds_for_all_from_the_return_on(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter *limiter;
	struct coshm_limiter_result result;

	(void)state;
	books->segment = segment_for_test(books->name, "limiter-shrink", 4 << 20);
	assert_int_equal(coshm_limiter_create(books->segment, "api", &fast, 0, &limiter), 0);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1000, NULL), 1);
	assert_int_equal(coshm_limiter_configure(limiter, &slow), 0);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, slow.burst + 1, NULL), -E2BIG);
	/* 3.6 s of debt were kept: 10 tokens less a hundredth of one. */
	assert_in_range(
		proc_collect(proc_spawn(admissions_of_another_process, books), PROC_DEADLINE_NS),
		slow.burst - 1, slow.burst);
	/* The debt of a larger bucket is clamped to the new one's. */
	assert_int_equal(coshm_limiter_configure(limiter, &fast), 0);
	assert_int_equal(coshm_limiter_reset(limiter, "k", 1), 0);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, fast.burst, NULL), 1);
	{
		const struct coshm_limiter_config tiny = {.struct_size_bytes = sizeof(tiny),
							  .rate = 1,
							  .per_ns = 50 * MS,
							  .burst = 2};

		assert_int_equal(coshm_limiter_configure(limiter, &tiny), 0);
		assert_true(coshm_limiter_try(limiter, "k", 1, 1, &result) >= 0);
		assert_int_equal(result.limit, 2);
		assert_true(result.reset_after_ns <= 100 * MS);
		/* It would take an hour, were it not clamped. */
		assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, PROC_DEADLINE_NS, NULL), 1);
	}
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void table_size_cannot_change(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_limiter_config config = slow, before, after;
	struct coshm_limiter *limiter;

	(void)state;
	books->segment = segment_for_test(books->name, "limiter-keys", 4 << 20);
	config.keys_max = 5000;
	assert_int_equal(coshm_limiter_create(books->segment, "api", &config, 0, &limiter), 0);
	memset(&before, 0, sizeof(before));
	memset(&after, 0, sizeof(after));
	before.struct_size_bytes = after.struct_size_bytes = sizeof(before);
	assert_int_equal(coshm_limiter_config(limiter, &before), 0);
	config = fast;
	config.keys_max = before.keys_max + 1;
	assert_int_equal(coshm_limiter_configure(limiter, &config), -EINVAL);
	/* An error return changes nothing. */
	assert_int_equal(coshm_limiter_config(limiter, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
	config.keys_max = before.keys_max;
	assert_int_equal(coshm_limiter_configure(limiter, &config), 0);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decisions_under_configure_are_of_one_configuration),
		cmocka_unit_test(smaller_bucket_holds_for_all_from_the_return_on),
		cmocka_unit_test(table_size_cannot_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
