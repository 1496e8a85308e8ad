/* SPDX-License-Identifier: MIT */
/* What coshm/limiter.h promises to one process. P and N numbers are that header's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>
#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "base/hash.h"
#include "modules/limiter/limiter.h"
#include "support/procs.h"
#include "support/shmfs.h"

#define SECOND UINT64_C(1000000000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)

static char segment_name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;

static int set_up(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = 2 << 20,
						    .size_max_bytes = 64 << 20};

	(void)state;
	test_segment_name(segment_name, "limiter");
	return coshm_segment_create(segment_name, &config, 0, &segment);
}

static int tear_down(void **state)
{
	(void)state;
	if (coshm_segment_detach(segment))
		return -1;
	return coshm_segment_unlink(segment_name);
}

static struct coshm_limiter *limiter_new(const char *name, uint64_t rate, uint64_t per_ns,
					 uint64_t burst)
{
	const struct coshm_limiter_config config = {
		.rate = rate, .per_ns = per_ns, .burst = burst, .keys_max = 1000};
	struct coshm_limiter *limiter = NULL;

	assert_int_equal(coshm_limiter_create(segment, name, &config, 0, &limiter), 0);
	return limiter;
}

static uint64_t counter(const char *object, const char *name)
{
	uint64_t value = UINT64_MAX;

	assert_int_equal(coshm_stats_value(segment, object, name, &value), 0);
	return value;
}

/* How many of @count tries pass at one moment? */
static int passes(struct coshm_limiter *limiter, const char *key, int count, uint64_t now_ns)
{
	int passed = 0;

	for (int i = 0; i < count; i++) {
		int answer = coshm_limiter_try_at(limiter, key, strlen(key), 1, now_ns, NULL);

		assert_in_range(answer, 0, 1);
		passed += answer;
	}
	return passed;
}

/* The process's side of it. Never assert inside of an operation: closing would wait for its end. */
static struct coshm__handle *handle_of(struct coshm_limiter *limiter)
{
	struct coshm__op op;

	assert_int_equal(coshm__op_begin(&op, limiter, COSHM_OBJECT_LIMITER), 0);
	coshm__op_end(&op);
	return op.handle;
}

/* --- the textbook ------------------------------------------------------------------------------------------- */

/* P1, P2, P5 */
static void of_105_tries_against_100_tokens_5_are_refused_and_half_a_second_brings_5(void **state)
{
	struct coshm_limiter *limiter = limiter_new("textbook", 10, SECOND, 100);
	struct coshm_limiter_result result;
	uint64_t now_ns = coshm_segment_now_ns(segment) - SECOND;

	(void)state;
	assert_int_equal(passes(limiter, "k", 105, now_ns), 100);
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 1, now_ns, &result), 0);
	assert_int_equal(result.limit, 100);
	assert_int_equal(result.remaining, 0);
	assert_int_equal(result.retry_after_ns, SECOND / 10);
	assert_int_equal(result.reset_after_ns, 10 * SECOND);
	now_ns += SECOND / 2;
	assert_int_equal(passes(limiter, "k", 6, now_ns), 5);
	assert_int_equal(coshm_limiter_try_at(limiter, "other", 5, 100, now_ns, &result), 1);
	assert_int_equal(result.remaining, 0);
	assert_int_equal(result.retry_after_ns, 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void cost_takes_that_many_tokens_or_none(void **state)
{
	struct coshm_limiter *limiter = limiter_new("cost", 1, HOUR, 10);
	struct coshm_limiter_result result;

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 7, &result), 1);
	assert_int_equal(result.remaining, 3);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 4, &result), 0);
	assert_int_equal(result.remaining, 3);
	assert_in_range(result.retry_after_ns, HOUR - 60 * SECOND, HOUR);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 3, &result), 1);
	assert_int_equal(result.remaining, 0);
	memset(&result, 0x55, sizeof(result));
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 11, &result), -E2BIG);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, UINT64_MAX, &result), -E2BIG);
	assert_int_equal(coshm_limiter_try(limiter, NULL, 1, 1, &result), -EINVAL);
	assert_int_equal(result.limit, UINT64_C(0x5555555555555555));
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void cost_of_zero_only_looks(void **state)
{
	struct coshm_limiter *limiter = limiter_new("zero", 1, HOUR, 2);
	struct coshm_limiter_result result;

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 0, &result), 1);
	assert_int_equal(result.remaining, 2);
	assert_int_equal(result.reset_after_ns, 0);
	assert_int_equal(counter("zero", "inserted"), 0);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 2, NULL), 1);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 0, &result), 1);
	assert_int_equal(result.remaining, 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void empty_key_is_a_key_like_any_other(void **state)
{
	struct coshm_limiter *limiter = limiter_new("empty", 1, HOUR, 2);

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, NULL, 0, 2, NULL), 1);
	assert_int_equal(coshm_limiter_try(limiter, "", 0, 1, NULL), 0);
	assert_int_equal(coshm_limiter_try(limiter, "\0", 1, 1, NULL), 1);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* P3: but for its own counter, a refusal writes nothing */
static void refusal_leaves_every_byte_of_the_table_alone(void **state)
{
	struct coshm_limiter *limiter = limiter_new("bytes", 1, HOUR, 3);
	struct coshm__limiter_shm *shm = handle_of(limiter)->object, *copy;
	size_t size_bytes = handle_of(limiter)->size_bytes;
	int refused = 0;

	(void)state;
	assert_int_equal(passes(limiter, "k", 3, coshm_segment_now_ns(segment)), 3);
	copy = malloc(size_bytes);
	assert_non_null(copy);
	memcpy(copy, shm, size_bytes);
	for (int i = 0; i < 100; i++)
		refused += coshm_limiter_try(limiter, "k", 1, 1, NULL) == 0;
	assert_int_equal(refused, 100);
	assert_memory_equal(copy, shm, offsetof(struct coshm__limiter_shm, counters));
	assert_memory_equal(copy->buckets, shm->buckets,
			    size_bytes - sizeof(struct coshm__limiter_shm));
	free(copy);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* --- peek, refund, reset, wait ------------------------------------------------------------------------------ */

static void peek_sees_what_a_try_would_and_takes_nothing_also_read_only(void **state)
{
	struct coshm_limiter *limiter = limiter_new("peek", 1, HOUR, 5), *reader;
	struct coshm_segment *read_only;
	struct coshm_limiter_config config = {0};
	struct coshm_limiter_result result;

	(void)state;
	assert_int_equal(coshm_segment_attach(segment_name, COSHM_ATTACH_READ_ONLY, &read_only), 0);
	assert_int_equal(coshm_limiter_open(read_only, "peek", &reader), 0);
	assert_int_equal(coshm_limiter_peek(reader, "k", 1, &result), 1);
	assert_int_equal(result.remaining, 5);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 4, NULL), 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(coshm_limiter_peek(reader, "k", 1, &result), 1);
		assert_int_equal(result.remaining, 1);
		assert_int_equal(coshm_limiter_peek(limiter, "k", 1, NULL), 1);
	}
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), 1);
	assert_int_equal(coshm_limiter_peek(reader, "k", 1, &result), 0);
	assert_int_equal(result.remaining, 0);
	assert_in_range(result.retry_after_ns, HOUR - 60 * SECOND, HOUR);
	assert_int_equal(coshm_limiter_config(reader, &config), 0);
	assert_int_equal(config.burst, 5);
	assert_int_equal(coshm_limiter_try(reader, "k", 1, 1, NULL), -EROFS);
	assert_int_equal(coshm_limiter_refund(reader, "k", 1, 1), -EROFS);
	assert_int_equal(coshm_limiter_reset(reader, "k", 1), -EROFS);
	assert_int_equal(coshm_limiter_wait(reader, "k", 1, 1, 0, NULL), -EROFS);
	assert_int_equal(coshm_limiter_configure(reader, &config), -EROFS);
	assert_int_equal(coshm_segment_detach(read_only), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void refund_gives_back_but_never_more_than_the_bucket_holds(void **state)
{
	struct coshm_limiter *limiter = limiter_new("refund", 1, HOUR, 10);
	struct coshm_limiter_result result;
	uint64_t now_ns = coshm_segment_now_ns(segment);

	(void)state;
	assert_int_equal(coshm_limiter_refund(limiter, "k", 1, 3), 0);
	assert_int_equal(passes(limiter, "k", 11, now_ns), 10);
	assert_int_equal(coshm_limiter_refund(limiter, "k", 1, 3), 0);
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 0, now_ns, &result), 1);
	assert_int_equal(result.remaining, 3);
	assert_int_equal(passes(limiter, "k", 4, now_ns), 3);
	assert_int_equal(coshm_limiter_refund(limiter, "k", 1, UINT64_MAX), 0);
	assert_int_equal(passes(limiter, "k", 11, coshm_segment_now_ns(segment)), 10);
	assert_int_equal(coshm_limiter_refund(limiter, "k", 1, 9), 0);
	assert_int_equal(coshm_limiter_refund(limiter, "k", 1, 9), 0);
	assert_int_equal(passes(limiter, "k", 11, coshm_segment_now_ns(segment)), 10);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void reset_fills_the_bucket_of_that_key_only(void **state)
{
	struct coshm_limiter *limiter = limiter_new("reset", 1, HOUR, 10);
	uint64_t now_ns = coshm_segment_now_ns(segment);

	(void)state;
	assert_int_equal(passes(limiter, "a", 11, now_ns), 10);
	assert_int_equal(passes(limiter, "b", 11, now_ns), 10);
	assert_int_equal(coshm_limiter_reset(limiter, "a", 1), 0);
	assert_int_equal(coshm_limiter_reset(limiter, "never seen", 10), 0);
	now_ns = coshm_segment_now_ns(segment);
	assert_int_equal(passes(limiter, "a", 11, now_ns), 10);
	assert_int_equal(passes(limiter, "b", 1, now_ns), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void wait_sleeps_until_its_tokens_are_there(void **state)
{
	struct coshm_limiter *limiter = limiter_new("wait", 20, SECOND, 2);
	uint64_t start_ns = test_now_ns();

	(void)state;
	for (int i = 0; i < 6; i++)
		assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, COSHM_FOREVER, NULL), 1);
	/* Two at once, then four at 50 ms each. */
	assert_true(test_now_ns() - start_ns >= 4 * SECOND / 20);
	assert_int_equal(counter("wait", "allowed"), 6);
	assert_int_equal(counter("wait", "denied"), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void wait_that_would_be_too_long_answers_at_once(void **state)
{
	struct coshm_limiter *limiter = limiter_new("too-long", 1, HOUR, 1);
	struct coshm_limiter_result result;
	uint64_t start_ns = test_now_ns();

	(void)state;
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, 0, NULL), 1);
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, 60 * SECOND, &result), 0);
	assert_true(test_now_ns() - start_ns < 50 * SECOND);
	assert_in_range(result.retry_after_ns, HOUR - 60 * SECOND, HOUR);
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 2, COSHM_FOREVER, NULL), -E2BIG);
	assert_int_equal(counter("too-long", "denied"), 1);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void on_alarm(int signal_number)
{
	(void)signal_number;
}

static void wait_ends_when_a_signal_handler_runs(void **state)
{
	struct coshm_limiter *limiter = limiter_new("signal", 1, HOUR, 1);
	const struct sigaction action = {.sa_handler = on_alarm};
	const struct itimerval every_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
	struct sigaction before;
	int answer;

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), 1);
	sigaction(SIGALRM, &action, &before);
	setitimer(ITIMER_REAL, &every_ms, NULL);
	errno = 4711;
	answer = coshm_limiter_wait(limiter, "k", 1, 1, COSHM_FOREVER, NULL);
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &before, NULL);
	assert_int_equal(answer, -EINTR);
	assert_int_equal(errno, 4711);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* --- configuration ------------------------------------------------------------------------------------------ */

/* "1000 a day" is relaxed to "10 a second" while a client is fully in debt. */
static void client_in_debt_is_let_in_soon_after_its_limit_was_relaxed(void **state)
{
	struct coshm_limiter *limiter = limiter_new("relax", 1000, DAY, 1000);
	const struct coshm_limiter_config relaxed = {.rate = 10, .burst = 20};
	struct coshm_limiter_result result;
	uint64_t now_ns = coshm_segment_now_ns(segment);

	(void)state;
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 1000, now_ns, NULL), 1);
	assert_int_equal(coshm_limiter_configure(limiter, &relaxed), 0);
	/* Its debt is cut down to the new bucket, once and for all: 0.1 s for the first token, not a day. */
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, &result), 0);
	assert_true(result.retry_after_ns <= SECOND / 10);
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, 10 * SECOND, NULL), 1);
	assert_int_equal(counter("relax", "clamped"), 1);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void tightened_limit_keeps_the_time_to_full(void **state)
{
	struct coshm_limiter *limiter = limiter_new("tighten", 100, SECOND, 1000);
	const struct coshm_limiter_config tight = {.rate = 1, .burst = 10};
	struct coshm_limiter_result result;
	uint64_t now_ns = coshm_segment_now_ns(segment);

	(void)state;
	/* 7 s of debt; the new bucket fills in 10 s. */
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 700, now_ns, NULL), 1);
	assert_int_equal(coshm_limiter_configure(limiter, &tight), 0);
	assert_int_equal(coshm_limiter_try_at(limiter, "k", 1, 0, now_ns, &result), 1);
	assert_int_equal(result.limit, 10);
	assert_int_equal(result.remaining, 3);
	assert_int_equal(result.reset_after_ns, 7 * SECOND);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void config_returns_what_is_in_force_with_defaults_filled_in(void **state)
{
	const struct coshm_limiter_config first = {.rate = 7},
					  next = {.rate = 3, .per_ns = DAY, .burst = 9},
					  other_size = {.rate = 3, .keys_max = 11};
	struct coshm_limiter_config config = {0};
	struct coshm_limiter *limiter = NULL;

	(void)state;
	assert_int_equal(coshm_limiter_create(segment, "config", &first, 0, &limiter), 0);
	assert_int_equal(coshm_limiter_config(limiter, &config), 0);
	assert_int_equal(config.rate, 7);
	assert_int_equal(config.per_ns, SECOND);
	assert_int_equal(config.burst, 7);
	assert_int_equal(config.keys_max, 10000);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(coshm_limiter_configure(limiter, &first), 0);
		assert_int_equal(coshm_limiter_configure(limiter, &next), 0);
		assert_int_equal(coshm_limiter_config(limiter, &config), 0);
		assert_int_equal(config.rate, 3);
		assert_int_equal(config.per_ns, DAY);
		assert_int_equal(config.burst, 9);
	}
	assert_int_equal(coshm_limiter_configure(limiter, &other_size), -EINVAL);
	assert_int_equal(coshm_limiter_configure(limiter, &config), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static void impossible_configurations_are_refused_and_change_nothing(void **state)
{
	const struct coshm_limiter_config bad[] = {
		{.rate = 0},
		{.rate = 0, .burst = 5},
		{.rate = 1, .per_ns = DAY, .burst = 209},
		{.rate = 1, .per_ns = UINT64_MAX},
		{.rate = 129, .per_ns = 1},
		{.rate = UINT64_MAX},
		{.rate = 1, .burst = UINT64_MAX},
		{.rate = 1, .reserved = {1}},
		{.rate = 1, .struct_size_bytes = 8},
	};
	struct coshm_limiter *limiter = limiter_new("refused", 1, DAY, 208), *none = NULL;
	struct coshm_limiter_config config = {0};
	const struct coshm_limiter_config too_many = {.rate = 1, .keys_max = UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(coshm_limiter_configure(limiter, &bad[i]), -EINVAL);
		assert_int_equal(coshm_limiter_create(segment, "bad", &bad[i], 0, &none), -EINVAL);
	}
	assert_int_equal(coshm_limiter_create(segment, "bad", &too_many, 0, &none), -EINVAL);
	assert_int_equal(coshm_limiter_create(segment, "bad", NULL, 0, &none), -EINVAL);
	assert_null(none);
	assert_int_equal(coshm_limiter_open(segment, "bad", &none), -ENOENT);
	assert_int_equal(coshm_limiter_config(limiter, &config), 0);
	assert_int_equal(config.burst, 208);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* --- life --------------------------------------------------------------------------------------------------- */

static void closed_handle_answers_ebadf_and_the_debt_stays_for_the_next_one(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1, .per_ns = HOUR, .burst = 2};
	struct coshm_limiter *limiter = limiter_new("life", 1, HOUR, 3), *again = NULL;
	struct coshm_limiter_result result;

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 2, NULL), 1);
	assert_int_equal(coshm_limiter_close(limiter), 0);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), -EBADF);
	assert_int_equal(coshm_limiter_wait(limiter, "k", 1, 1, 0, NULL), -EBADF);
	assert_int_equal(coshm_limiter_peek(NULL, "k", 1, NULL), -EBADF);
	assert_int_equal(coshm_limiter_close(limiter), -EBADF);
	assert_int_equal(coshm_limiter_close(NULL), 0);
	assert_int_equal(coshm_limiter_create(segment, "life", &config, 0, &again), -EEXIST);
	assert_int_equal(
		coshm_limiter_create(segment, "life", &config, COSHM_CREATE_OR_OPEN, &again), 0);
	/* An existing one keeps its own configuration. */
	assert_int_equal(coshm_limiter_peek(again, "k", 1, &result), 1);
	assert_int_equal(result.limit, 3);
	assert_int_equal(result.remaining, 1);
	assert_int_equal(coshm_limiter_close(again), 0);
}

/* --- the clock ---------------------------------------------------------------------------------------------- */

/* Through the public call, with the segment's clock moved: idle gaps, a clock that wraps on the way. */
static void years_pass_and_a_key_is_full_again(void **state)
{
	const uint64_t gaps_ns[] = {30 * DAY, 365 * DAY, 500 * DAY, 700 * DAY, HOUR, 800 * DAY};
	struct coshm_limiter *limiter = limiter_new("years", 10, SECOND, 100);
	struct coshm__segment *local = handle_of(limiter)->segment;
	int64_t offset_before = local->clock_offset_ns;

	(void)state;
	for (size_t i = 0; i < sizeof(gaps_ns) / sizeof(gaps_ns[0]); i++) {
		uint64_t now_ns = coshm_segment_now_ns(segment);

		assert_int_equal(passes(limiter, "k", 101, now_ns), 100);
		assert_int_equal(passes(limiter, "k", 6, now_ns + SECOND / 2), 5);
		local->clock_offset_ns -= (int64_t)gaps_ns[i];
	}
	local->clock_offset_ns = offset_before;
	coshm__a64_store_relaxed(&local->header->next_reap_at_ns, 0);
	assert_int_equal(counter("years", "fail_open"), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* --- the table ---------------------------------------------------------------------------------------------- */

/* What is promised for the table: 1,000,000 keys with debt in 20 MiB, at most 0.1 % of them forgotten. */
static void million_keys_with_debt_fit_in_20_mib(void **state)
{
	const struct coshm_limiter_config config = {
		.rate = 1, .per_ns = HOUR, .burst = 2, .keys_max = 1000000};
	struct coshm_limiter *limiter = NULL;
	uint64_t evicted, still_there = 0;

	(void)state;
	TEST_NEEDS(shmfs_lacks_space(128 << 20)); /* 21 of it, and other tests run beside it */
	assert_int_equal(coshm_limiter_create(segment, "million", &config, 0, &limiter), 0);
	assert_true(handle_of(limiter)->size_bytes <= 20 << 20);
	for (uint64_t i = 0; i < 1000000; i++)
		if (coshm_limiter_try(limiter, &i, sizeof(i), 2, NULL) != 1)
			fail_msg("key %llu was refused", (unsigned long long)i);
	evicted = counter("million", "evicted_live");
	assert_true(evicted <= 1000);
	for (uint64_t i = 0; i < 1000000; i++)
		still_there += coshm_limiter_peek(limiter, &i, sizeof(i), NULL) == 0;
	assert_int_equal(still_there, 1000000 - evicted);
	assert_int_equal(counter("million", "keys"), still_there);
	assert_int_equal(counter("million", "inserted"), 1000000);
	assert_int_equal(coshm_limiter_close(limiter), 0);
	assert_int_equal(coshm_object_remove(segment, "million"), 0);
}

/* N2: a key without debt needs no memory. Keys come and go for a hundred times the table's size. */
static void keys_without_debt_make_room_for_others(void **state)
{
	struct coshm_limiter *limiter = limiter_new("churn", 1000, SECOND, 1);
	uint64_t now_ns = coshm_segment_now_ns(segment) - 500 * SECOND;

	(void)state;
	for (uint64_t i = 0; i < 100000; i++) {
		/* 500 keys in each 2.5 s, debts of 1 ms. */
		now_ns += 5000000;
		if (coshm_limiter_try_at(limiter, &i, sizeof(i), 1, now_ns, NULL) != 1)
			fail_msg("key %llu was refused", (unsigned long long)i);
	}
	assert_int_equal(counter("churn", "evicted_live"), 0);
	assert_int_equal(counter("churn", "fail_open"), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* N2: too many debts. The table has 1304 slots. */
static void overfull_table_forgets_the_least_debt_and_counts_it(void **state)
{
	struct coshm_limiter *limiter = limiter_new("overfull", 1, HOUR, 10);
	uint64_t kept = 0;

	(void)state;
	for (uint64_t i = 0; i < 600; i++)
		assert_int_equal(coshm_limiter_try(limiter, &i, sizeof(i), 10, NULL), 1);
	for (uint64_t i = 600; i < 3000; i++)
		assert_int_equal(coshm_limiter_try(limiter, &i, sizeof(i), 1, NULL), 1);
	for (uint64_t i = 0; i < 600; i++)
		kept += coshm_limiter_peek(limiter, &i, sizeof(i), NULL) == 0;
	assert_int_equal(kept, 600);
	assert_int_equal(counter("overfull", "evicted_live"), 3000 - counter("overfull", "keys"));
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

/* --- verify and damage -------------------------------------------------------------------------------------- */

static struct coshm_verify_result verified(void)
{
	struct coshm_verify_result result = {0};

	assert_int_equal(coshm_inspect_verify(segment, NULL, NULL, NULL, &result), 0);
	return result;
}

struct found {
	struct coshm__limiter_shm *shm;
	struct coshm__limiter_key key;
	struct coshm__limiter_slot slot;
};

static struct found find_key(struct coshm_limiter *limiter, const char *text)
{
	struct coshm__limiter *local = handle_of(limiter)->local;
	struct found found = {0};
	uint64_t tat;

	found.shm = local->shm;
	coshm__limiter_key_make(&found.key, local->buckets, local->bucket_count,
				coshm__hash_fingerprint(local->secret, text, strlen(text)));
	assert_true(coshm__limiter_find(&found.key, &found.slot, &tat));
	return found;
}

static void verify_tells_each_kind_of_damage(void **state)
{
	const struct coshm_limiter_config config = {
		.rate = 1, .per_ns = HOUR, .burst = 10, .keys_max = 20000};
	struct coshm_limiter *limiter = NULL;
	struct found found;
	struct coshm__a64 *key, *tat, *other;
	uint64_t word, time, damaged;

	(void)state;
	assert_int_equal(coshm_limiter_create(segment, "damage", &config, 0, &limiter), 0);
	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(coshm_limiter_try(limiter, &i, sizeof(i), 1, NULL), 1);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), 1);
	assert_int_equal(verified().damage, 0);
	assert_int_equal(verified().pending, 0);
	found = find_key(limiter, "k");
	key = found.slot.key;
	tat = found.slot.tat;
	word = coshm__a64_load_relaxed(key);
	time = coshm__a64_load_relaxed(tat);

	coshm__a64_store_relaxed(key, word | 1);
	assert_int_equal(verified().damage, 1);
	coshm__a64_store_relaxed(key, word);

	/* Other keys' words: nearly all of them belong elsewhere. */
	damaged = 0;
	for (uint64_t i = 1; i <= 50; i++) {
		coshm__a64_store_relaxed(key, word ^ (i * 0x35a5a5) << 40);
		damaged += verified().damage;
	}
	assert_in_range(damaged, 20, 50);
	coshm__a64_store_relaxed(key, word);

	/* Twice in its bucket, and then in its other bucket. */
	for (int b = 0; b < 2; b++) {
		other = &found.key.buckets[b]->key[0];
		for (int i = 1; coshm__limiter_fingerprint_of(coshm__a64_load_relaxed(other)); i++)
			other = &found.key.buckets[b]->key[i];
		coshm__a64_store_relaxed(other, word);
		assert_int_equal(verified().damage, 1);
		coshm__a64_store_relaxed(other, 0);
	}

	/* A claim that follows the key word is an insertion that somebody left, any other one is damage. */
	coshm__a64_store_relaxed(tat, coshm__limiter_next_word(word, UINT64_C(77) << 8) | 1);
	assert_int_equal(verified().damage, 0);
	assert_int_equal(verified().pending, 0);
	coshm__a64_store_relaxed(tat, (word + 8) | 1);
	assert_int_equal(verified().damage, 1);
	coshm__a64_store_relaxed(tat, time);

	word = coshm__a64_load_relaxed(&found.shm->configs[0].period);
	coshm__a64_store_relaxed(&found.shm->configs[0].period, 0);
	assert_int_equal(verified().damage, 1);
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), -EUCLEAN);
	assert_int_equal(coshm_limiter_peek(limiter, "k", 1, NULL), -EUCLEAN);
	coshm__a64_store_relaxed(&found.shm->configs[0].period, word);
	assert_int_equal(verified().damage, 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
}

static uint64_t random_state = 88172645463325252u;

static uint64_t random_bits(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * UINT64_C(2685821657736338717);
}

/* Garbage in every word of the table: answers, no crash, no endless loop; and the keys find their way back. */
static void garbage_in_the_table_gives_answers_and_heals(void **state)
{
	struct coshm_limiter *limiter = limiter_new("garbage", 1, HOUR, 5);
	struct coshm__limiter_shm *shm;
	uint64_t allowed = 0;

	(void)state;
	assert_int_equal(coshm_limiter_try(limiter, "k", 1, 1, NULL), 1);
	shm = find_key(limiter, "k").shm;
	for (int round = 0; round < 20; round++) {
		for (uint64_t b = 0; b < shm->bucket_count; b++)
			for (int i = 0; i < COSHM__LIMITER_SLOTS; i++) {
				coshm__a64_store_relaxed(&shm->buckets[b].key[i], random_bits());
				coshm__a64_store_relaxed(&shm->buckets[b].tat[i], random_bits());
			}
		for (uint64_t i = 0; i < 200; i++) {
			struct coshm_limiter_result result;
			uint64_t key = i + (uint64_t)round * 1000;
			int answer = coshm_limiter_try(limiter, &key, sizeof(key), 1, &result);

			assert_in_range(answer, 0, 1);
			assert_int_equal(result.limit, 5);
			assert_in_range(result.remaining, 0, 4);
			allowed += (uint64_t)answer;
			assert_int_equal(coshm_limiter_refund(limiter, &key, sizeof(key), 1), 0);
			assert_in_range(coshm_limiter_peek(limiter, &key, sizeof(key), NULL), 0, 1);
			assert_int_equal(coshm_limiter_reset(limiter, &key, sizeof(key)), 0);
		}
	}
	assert_true(allowed > 3000);
	assert_int_equal(counter("garbage", "fail_open"), 0);
	assert_int_equal(coshm_limiter_close(limiter), 0);
	assert_int_equal(coshm_object_remove(segment, "garbage"), 0);
}

/* A fingerprint that belongs to both words, and the way back from either bucket. */
static void each_key_is_found_to_belong_to_its_two_buckets_and_hardly_to_others(void **state)
{
	const uint64_t counts[] = {2, 3, 17, 255, 256, 257, 4096, 162500, 3000000000};
	int wrong = 0, tried = 0;

	(void)state;
	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++)
		for (int i = 0; i < 2000; i++) {
			uint64_t hash = random_bits(), count = counts[c];
			uint64_t first = coshm__limiter_scale(hash >> 32, count), word = hash << 8;
			uint64_t second = coshm__limiter_second_bucket(count, word, first);

			assert_true(first < count && second < count && first != second);
			assert_int_equal(coshm__limiter_first_bucket(count, word, second), first);
			assert_true(coshm__limiter_may_be_first(count, word, first));
			if (count >= 4096) {
				tried++;
				wrong += coshm__limiter_may_be_first(count, random_bits() << 8,
								     first);
			}
		}
	assert_true(wrong < tried / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			of_105_tries_against_100_tokens_5_are_refused_and_half_a_second_brings_5),
		cmocka_unit_test(cost_takes_that_many_tokens_or_none),
		cmocka_unit_test(cost_of_zero_only_looks),
		cmocka_unit_test(empty_key_is_a_key_like_any_other),
		cmocka_unit_test(refusal_leaves_every_byte_of_the_table_alone),
		cmocka_unit_test(peek_sees_what_a_try_would_and_takes_nothing_also_read_only),
		cmocka_unit_test(refund_gives_back_but_never_more_than_the_bucket_holds),
		cmocka_unit_test(reset_fills_the_bucket_of_that_key_only),
		cmocka_unit_test(wait_sleeps_until_its_tokens_are_there),
		cmocka_unit_test(wait_that_would_be_too_long_answers_at_once),
		cmocka_unit_test(wait_ends_when_a_signal_handler_runs),
		cmocka_unit_test(client_in_debt_is_let_in_soon_after_its_limit_was_relaxed),
		cmocka_unit_test(tightened_limit_keeps_the_time_to_full),
		cmocka_unit_test(config_returns_what_is_in_force_with_defaults_filled_in),
		cmocka_unit_test(impossible_configurations_are_refused_and_change_nothing),
		cmocka_unit_test(closed_handle_answers_ebadf_and_the_debt_stays_for_the_next_one),
		cmocka_unit_test(years_pass_and_a_key_is_full_again),
		cmocka_unit_test(million_keys_with_debt_fit_in_20_mib),
		cmocka_unit_test(keys_without_debt_make_room_for_others),
		cmocka_unit_test(overfull_table_forgets_the_least_debt_and_counts_it),
		cmocka_unit_test(verify_tells_each_kind_of_damage),
		cmocka_unit_test(garbage_in_the_table_gives_answers_and_heals),
		cmocka_unit_test(
			each_key_is_found_to_belong_to_its_two_buckets_and_hardly_to_others),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
