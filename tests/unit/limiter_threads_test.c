/* SPDX-License-Identifier: MIT */
/* The limiter with threads as members: what ThreadSanitizer can see of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "support/procs.h"

#define SECOND	UINT64_C(1000000000)
#define HOUR	(3600 * SECOND)
#define THREADS 8
#define KEYS	400

static char segment_name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static struct coshm_limiter *limiter;
static _Atomic uint32_t passed[KEYS];
static _Atomic uint32_t bad, stop;

static void make(const struct coshm_limiter_config *config)
{
	const struct coshm_segment_config memory = {.size_bytes = 1 << 20};

	test_segment_name(segment_name, "limiter-threads");
	assert_int_equal(coshm_segment_create(segment_name, &memory, 0, &segment), 0);
	assert_int_equal(coshm_limiter_create(segment, "l", config, 0, &limiter), 0);
	for (int i = 0; i < KEYS; i++)
		atomic_store(&passed[i], 0);
	atomic_store(&bad, 0);
	atomic_store(&stop, 0);
}

static void end(void)
{
	struct coshm_verify_result result = {0};

	assert_int_equal(coshm_inspect_verify(segment, NULL, NULL, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(segment_name), 0);
}

static void run(void *(*const bodies[])(void *), int count)
{
	pthread_t threads[THREADS];

	for (intptr_t i = 0; i < count; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], (void *)i), 0);
	for (int i = 0; i < count; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void *take_all_keys(void *arg)
{
	(void)arg;
	for (uint32_t key = 0; key < KEYS; key++)
		for (int i = 0; i < 4; i++) {
			int answer = coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL);

			if (answer < 0)
				atomic_fetch_add(&bad, 1);
			else
				atomic_fetch_add(&passed[key], (uint32_t)answer);
		}
	return NULL;
}

/* P2 */
static void burst_of_10_admits_exactly_10_from_8_threads(void **state)
{
	const struct coshm_limiter_config config = {
		.rate = 1, .per_ns = HOUR, .burst = 10, .keys_max = 1000};
	void *(*const bodies[THREADS])(void *) = {take_all_keys, take_all_keys, take_all_keys,
						  take_all_keys, take_all_keys, take_all_keys,
						  take_all_keys, take_all_keys};

	(void)state;
	make(&config);
	run(bodies, THREADS);
	assert_int_equal(bad, 0);
	for (int key = 0; key < KEYS; key++)
		assert_int_equal(passed[key], 10);
	end();
}

static void *take_and_give(void *arg)
{
	uint32_t key = (uint32_t)(intptr_t)arg;

	while (!atomic_load(&stop)) {
		struct coshm_limiter_result result;

		key = (key * 1103515245u + 12345u) % 100;
		if (coshm_limiter_try(limiter, &key, sizeof(key), 1 + key % 3, &result) < 0 ||
		    (result.limit != 5 && result.limit != 50) ||
		    coshm_limiter_peek(limiter, &key, sizeof(key), &result) < 0 ||
		    coshm_limiter_refund(limiter, &key, sizeof(key), 1) != 0 ||
		    (key % 10 == 0 && coshm_limiter_reset(limiter, &key, sizeof(key)) != 0))
			atomic_fetch_add(&bad, 1);
	}
	return NULL;
}

static void *configure_and_stop(void *arg)
{
	const struct coshm_limiter_config configs[2] = {{.rate = 1000, .burst = 5},
							{.rate = 1, .per_ns = HOUR, .burst = 50}};

	(void)arg;
	for (int i = 0; i < 1000; i++)
		if (coshm_limiter_configure(limiter, &configs[i % 2]) != 0)
			atomic_fetch_add(&bad, 1);
	atomic_store(&stop, 1);
	return NULL;
}

/* More keys than slots, a configuration that changes all the time: nothing that TSan objects to. */
static void everything_at_once_in_a_small_table(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1000, .burst = 5, .keys_max = 1};
	void *(*const bodies[])(void *) = {configure_and_stop, take_and_give, take_and_give,
					   take_and_give, take_and_give};
	uint64_t fail_open = 1;

	(void)state;
	make(&config);
	run(bodies, 5);
	assert_int_equal(bad, 0);
	assert_int_equal(coshm_stats_value(segment, "l", "fail_open", &fail_open), 0);
	assert_int_equal(fail_open, 0);
	end();
}

static void *use_until_closed(void *arg)
{
	(void)arg;
	for (;;) {
		int answer = coshm_limiter_try(limiter, "k", 1, 1, NULL);

		if (answer == -EBADF)
			return NULL;
		if (answer < 0)
			atomic_fetch_add(&bad, 1);
	}
}

static void *close_soon(void *arg)
{
	(void)arg;
	test_sleep_ns(SECOND / 50);
	if (coshm_limiter_close(limiter) != 0)
		atomic_fetch_add(&bad, 1);
	return NULL;
}

static void handle_is_closed_while_others_use_it(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1000, .burst = 5, .keys_max = 100};
	void *(*const bodies[])(void *) = {close_soon, use_until_closed, use_until_closed,
					   use_until_closed};

	(void)state;
	make(&config);
	run(bodies, 4);
	assert_int_equal(bad, 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(burst_of_10_admits_exactly_10_from_8_threads),
		cmocka_unit_test(everything_at_once_in_a_small_table),
		cmocka_unit_test(handle_is_closed_while_others_use_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
