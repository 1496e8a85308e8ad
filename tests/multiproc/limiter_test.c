/* SPDX-License-Identifier: MIT */
/* What coshm/limiter.h promises to many processes, some of which are killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "support/procs.h"

#define SECOND UINT64_C(1000000000)
#define HOUR   (3600 * SECOND)
#define PROCS  16
#define ROUNDS 300
#define KEYS   64

struct shared {
	_Atomic uint32_t passed[ROUNDS]; /* per key */
	_Atomic uint32_t started[KEYS];	 /* per key: tries that may have taken something */
	_Atomic uint32_t round;
	_Atomic uint32_t arrived;
	_Atomic int stop;
	_Atomic uint64_t bad;
	_Atomic uint64_t done;
};

static struct shared *shared;
static struct coshm_segment *segment;
static struct coshm_limiter *limiter;
static char segment_name[TEST_SEGMENT_NAME_SIZE];

static void make(const struct coshm_limiter_config *config)
{
	const struct coshm_segment_config memory = {.size_bytes = 4 << 20};

	shared = proc_shared_alloc(sizeof(*shared));
	test_segment_name(segment_name, "limiter-mp");
	assert_int_equal(coshm_segment_create(segment_name, &memory, 0, &segment), 0);
	assert_int_equal(coshm_limiter_create(segment, "l", config, 0, &limiter), 0);
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level > COSHM_VERIFY_NOTE)
		fprintf(stderr, "# %s: %s\n", where, text);
}

static void end(void)
{
	struct coshm_verify_result result;

	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm_inspect_verify(segment, NULL, print_finding, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(result.pending, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(segment_name), 0);
}

static uint64_t counter(const char *name)
{
	uint64_t value = UINT64_MAX;

	assert_int_equal(coshm_stats_value(segment, "l", name, &value), 0);
	return value;
}

static void spawn_all(struct proc *procs[], int (*body)(void *arg))
{
	for (uintptr_t i = 0; i < PROCS; i++)
		procs[i] = proc_spawn(body, (void *)i);
}

/* --- P2 ----------------------------------------------------------------------------------------------------- */

/* All meet for each key, so that their first tries of it come as close together as can be. */
static int hammer_fresh_keys(void *arg)
{
	(void)arg;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t passed = 0;

		if (atomic_fetch_add(&shared->arrived, 1) + 1 == PROCS * (round + 1))
			atomic_store(&shared->round, round + 1);
		while (atomic_load(&shared->round) <= round)
			sched_yield();
		for (int i = 0; i < 10; i++) {
			int answer = coshm_limiter_try(limiter, &round, sizeof(round), 1, NULL);

			if (answer < 0)
				return 1;
			passed += (uint32_t)answer;
		}
		atomic_fetch_add(&shared->passed[round], passed);
	}
	return 0;
}

static void burst_of_50_admits_exactly_50_from_16_processes_on_a_fresh_key(void **state)
{
	const struct coshm_limiter_config config = {
		.rate = 1, .per_ns = HOUR, .burst = 50, .keys_max = 1000};
	struct proc *procs[PROCS];

	(void)state;
	make(&config);
	spawn_all(procs, hammer_fresh_keys);
	assert_int_equal(proc_collect_all(procs, PROCS, PROC_DEADLINE_NS, NULL), 0);
	for (int i = 0; i < ROUNDS; i++)
		assert_int_equal(shared->passed[i], 50);
	assert_int_equal(counter("allowed"), 50 * ROUNDS);
	assert_int_equal(counter("denied"), (10 * PROCS - 50) * ROUNDS);
	assert_int_equal(counter("inserted"), ROUNDS);
	assert_int_equal(counter("evicted_live"), 0);
	assert_int_equal(counter("fail_open"), 0);
	end();
}

/* --- P1 ----------------------------------------------------------------------------------------------------- */

static int hammer_some_keys(void *arg)
{
	uint64_t random = 88172645463325252u + (uintptr_t)arg * 7919;

	while (!atomic_load(&shared->stop)) {
		uint32_t key;
		int answer;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		key = (uint32_t)(random >> 33) % KEYS;
		atomic_fetch_add(&shared->started[key], 1);
		answer = coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL);
		if (answer < 0)
			return 1;
		atomic_fetch_add(&shared->passed[key], (uint32_t)answer);
		if (answer)
			atomic_fetch_add(&shared->done, 1);
	}
	return 0;
}

/*
 * Keys whose debts end all the time, in a table so small that slots change hands all the time. @kill: a process is killed
 * every few ms, and a new one takes its place.
 */
static void no_key_gets_more_than_burst_and_rate(int kill)
{
	const struct coshm_limiter_config config = {.rate = 20, .burst = 3, .keys_max = 100};
	struct proc *procs[PROCS];
	uint64_t start_ns, span_ns;

	make(&config);
	start_ns = test_now_ns();
	spawn_all(procs, hammer_some_keys);
	for (uintptr_t i = 0; i < 150; i++) {
		test_sleep_ns(10000000);
		if (kill) {
			proc_kill(procs[i % PROCS]);
			procs[i % PROCS] = proc_spawn(hammer_some_keys, (void *)(i + PROCS));
		}
	}
	for (uint32_t key = 0; key < KEYS && !kill; key++)
		while (atomic_load(&shared->started[key]) < 3 &&
		       test_now_ns() - start_ns < PROC_DEADLINE_NS)
			test_sleep_ns(10000000);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(procs, PROCS, PROC_DEADLINE_NS, NULL), 0);
	span_ns = test_now_ns() - start_ns;
	for (uint32_t key = 0; key < KEYS; key++) {
		uint64_t most = 3 + span_ns * 20 / SECOND;

		if (shared->passed[key] > most)
			fail_msg("key %u: %u passed, at most %llu may", key, shared->passed[key],
				 (unsigned long long)most);
		/* And no less than the burst; how much more depends on how often the machine lets somebody ask. */
		assert_true(shared->passed[key] + (kill ? 150 : 0) >= 3);
	}
	assert_int_equal(counter("evicted_live"), 0);
	assert_int_equal(counter("fail_open"), 0);
	end();
}

static void no_key_gets_more_than_burst_and_rate_from_16_processes(void **state)
{
	(void)state;
	no_key_gets_more_than_burst_and_rate(0);
}

/* P4 */
static void no_key_gets_more_than_burst_and_rate_while_processes_are_killed(void **state)
{
	(void)state;
	no_key_gets_more_than_burst_and_rate(1);
}

/* Entries are displaced and made again all the time: 4000 keys pass through 130 slots. */
static int churn(void *arg)
{
	uint64_t key = (uintptr_t)arg << 32;

	while (!atomic_load(&shared->stop)) {
		uint64_t which = (key >> 32) << 32 | (key + 1) % 4000;
		int answer;

		key = which;
		answer = coshm_limiter_try(limiter, &which, 4, 1, NULL);
		if (answer < 0)
			return 1;
		atomic_fetch_add(&shared->done, (uint64_t)answer);
	}
	return 0;
}

static void table_that_is_far_too_small_stays_sound_while_processes_are_killed(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1, .burst = 3, .keys_max = 100};
	const uint64_t start_ns = test_now_ns();
	struct proc *procs[PROCS];

	(void)state;
	make(&config);
	spawn_all(procs, churn);
	for (uintptr_t i = 0; i < 100; i++) {
		test_sleep_ns(10000000);
		proc_kill(procs[i % PROCS]);
		procs[i % PROCS] = proc_spawn(churn, (void *)(i + PROCS));
	}
	while (atomic_load(&shared->done) <= 1000 && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(10000000);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(procs, PROCS, PROC_DEADLINE_NS, NULL), 0);
	assert_true(shared->done > 1000);
	assert_int_equal(counter("fail_open"), 0);
	end();
}

/* --- configuration ------------------------------------------------------------------------------------------ */

static const struct coshm_limiter_config config_a = {
	.rate = 1, .per_ns = HOUR, .burst = 10, .keys_max = 1000};
static const struct coshm_limiter_config config_b = {.rate = 7, .per_ns = 7000, .burst = 1000};

static int reconfigure(void *arg)
{
	(void)arg;
	while (!atomic_load(&shared->stop)) {
		int error = coshm_limiter_configure(
			limiter, atomic_fetch_add(&shared->round, 1) % 2 ? &config_a : &config_b);

		if (error && error != -EAGAIN)
			return 1;
	}
	return 0;
}

/* A fresh key's result tells all parts of the configuration that was used. */
static int decide_with_one_configuration(void *arg)
{
	uint64_t key = (uint64_t)(uintptr_t)arg << 32;

	for (; !atomic_load(&shared->stop); key++) {
		struct coshm_limiter_result result = {0};
		int answer = coshm_limiter_try(limiter, &key, sizeof(key), 1, &result);
		int is_a = result.limit == 10 && result.reset_after_ns == HOUR;
		int is_b = result.limit == 1000 && result.reset_after_ns == 1000;

		if (answer != 1 || result.remaining != result.limit - 1 || is_a + is_b != 1)
			atomic_fetch_add(&shared->bad, 1);
		atomic_fetch_add(is_a ? &shared->passed[0] : &shared->passed[1], 1);
	}
	return 0;
}

static void each_decision_uses_one_configuration_while_configurers_are_killed(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct proc *procs[PROCS], *configurers[3];
	struct coshm_limiter_config config = {0};

	(void)state;
	make(&config_a);
	for (int i = 0; i < 3; i++)
		configurers[i] = proc_spawn(reconfigure, NULL);
	spawn_all(procs, decide_with_one_configuration);
	for (int i = 0; i < 30; i++) {
		test_sleep_ns(10000000);
		proc_kill(configurers[i % 3]);
		configurers[i % 3] = proc_spawn(reconfigure, NULL);
	}
	while ((atomic_load(&shared->passed[0]) == 0 || atomic_load(&shared->passed[1]) == 0) &&
	       test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(10000000);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(procs, PROCS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(proc_collect_all(configurers, 3, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(shared->bad, 0);
	assert_true(shared->passed[0] > 0 && shared->passed[1] > 0);
	assert_int_equal(coshm_limiter_configure(limiter, &config_a), 0);
	assert_int_equal(coshm_limiter_config(limiter, &config), 0);
	assert_int_equal(config.burst, 10);
	end();
}

/* --- waiting ------------------------------------------------------------------------------------------------ */

static int wait_for_tokens(void *arg)
{
	(void)arg;
	for (int i = 0; i < 3; i++)
		if (coshm_limiter_wait(limiter, "k", 1, 1, COSHM_FOREVER, NULL) != 1)
			return 1;
	return 0;
}

static void waiting_processes_share_the_rate(void **state)
{
	const struct coshm_limiter_config config = {.rate = 100, .burst = 1, .keys_max = 100};
	struct proc *procs[PROCS];
	uint64_t start_ns;

	(void)state;
	make(&config);
	start_ns = test_now_ns();
	spawn_all(procs, wait_for_tokens);
	assert_int_equal(proc_collect_all(procs, PROCS, PROC_DEADLINE_NS, NULL), 0);
	/* 48 tokens: one at once, 47 at 10 ms each. */
	assert_true(test_now_ns() - start_ns >= 47 * SECOND / 100);
	assert_int_equal(counter("allowed"), 48);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(burst_of_50_admits_exactly_50_from_16_processes_on_a_fresh_key),
		cmocka_unit_test(no_key_gets_more_than_burst_and_rate_from_16_processes),
		cmocka_unit_test(no_key_gets_more_than_burst_and_rate_while_processes_are_killed),
		cmocka_unit_test(
			table_that_is_far_too_small_stays_sound_while_processes_are_killed),
		cmocka_unit_test(each_decision_uses_one_configuration_while_configurers_are_killed),
		cmocka_unit_test(waiting_processes_share_the_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
