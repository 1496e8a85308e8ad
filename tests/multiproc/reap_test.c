/* SPDX-License-Identifier: MIT */
/* What is promised about the dead: recorded once, cleaned up by anyone, a slot reused only when nothing names them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/toy.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define REAPERS 8
#define ROUNDS	300

struct shared {
	struct proc_barrier *barrier;
	_Atomic uint64_t start_at_ns;
	_Atomic uint32_t victim;
	_Atomic int stop;
};

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static struct shared *shared;

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "reap");
	shared = proc_shared_alloc(sizeof(*shared));
	segment = toy_segment_create(name, 0);
	return toy_create(segment, "toy", 0, 0, &token);
}

static int end(void **state)
{
	(void)state;
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

static int claim_and_die(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	if (toy_begin(&op, token, &toy))
		return 1;
	for (int i = 0; i < TOY_CLAIMS; i += 9)
		coshm__a64_store_relaxed(&toy->claims[i], op.member_id);
	coshm__hazard_protect(&op, 0, 4096);
	coshm__pin_set(&op, 4096);
	atomic_store(&shared->victim, op.member_id);
	kill(getpid(), SIGKILL);
	return 2;
}

static void make_a_dead_member(void)
{
	assert_int_equal(proc_collect(proc_spawn(claim_and_die, NULL), PROC_DEADLINE_NS), -SIGKILL);
}

static uint64_t victims_word(void)
{
	return coshm__a64_load_relaxed(
		&toy_segment(segment)->members[COSHM__MEMBER_SLOT_OF(shared->victim)].word);
}

static void assert_nothing_is_left(uint64_t deaths)
{
	uint64_t damage, pending, busy;
	const uint64_t page = 4096;
	struct toy_shm *toy = toy_peek(token);

	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage, 0);
	assert_int_equal(pending, 0);
	for (int i = 0; i < TOY_CLAIMS; i++)
		assert_int_equal(coshm__a64_load_relaxed(&toy->claims[i]), 0);
	assert_int_equal(toy_stat(segment, "deaths"), deaths);
	assert_int_equal(toy_stat(segment, "reaped"), deaths);
	assert_int_equal(toy_stat(segment, "members"), 1);
	coshm__hazard_scan(toy_segment(segment),
			   COSHM__HAZARD_READ | COSHM__HAZARD_WRITE | COSHM__HAZARD_PIN, &page, 1,
			   &busy);
	assert_int_equal(busy, 0);
}

static void reap_gives_back_all_that_the_dead_held(void **state)
{
	struct coshm_member_info info;
	uint32_t count = 99;
	pid_t pid;
	struct proc *victim;

	(void)state;
	victim = proc_spawn(claim_and_die, NULL);
	pid = proc_pid(victim);
	assert_int_equal(proc_collect(victim, PROC_DEADLINE_NS), -SIGKILL);
	/* Shown as dead before anybody has done anything about it. */
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)pid, &info), 1);
	assert_int_equal(info.state, COSHM_MEMBER_DEAD);
	assert_int_equal(info.id, shared->victim);
	assert_int_equal(info.leases_held, 8);
	assert_int_equal(info.pages_pinned, 1);
	assert_int_equal(info.pages_read, 1);
	assert_int_equal(coshm_segment_reap(segment, &count), 0);
	assert_int_equal(count, 1);
	assert_nothing_is_left(1);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)pid, &info), 0);
	assert_int_equal(coshm_segment_reap(segment, &count), 0);
	assert_int_equal(count, 0);
}

static int reap_at_once(void *arg)
{
	(void)arg;
	if (coshm_segment_reap(segment, NULL)) /* to be a member before the start */
		return 1;
	for (int round = 0; round < ROUNDS; round++) {
		if (proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS)) /* the victim is dead */
			return 2;
		/* All at the same moment, as far as there are CPUs. */
		while (coshm_segment_now_ns(segment) < atomic_load(&shared->start_at_ns))
			coshm__cpu_pause();
		if (!coshm__member_is_dead(toy_segment(segment), atomic_load(&shared->victim)))
			return 3;
		if (coshm_segment_reap(segment, NULL))
			return 4;
		/* After one's own reap nothing of the dead is left, whoever else is reaping. */
		for (int i = 0; i < TOY_CLAIMS; i++)
			if (coshm__a64_load_acquire(&toy_peek(token)->claims[i]) == shared->victim)
				return 5;
		if (proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS))
			return 6;
	}
	return coshm_segment_detach(segment) ? 7 : 0;
}

static void death_is_recorded_and_cleaned_up_once_by_many_at_once(void **state)
{
	struct proc *reapers[REAPERS];

	(void)state;
	shared->barrier = proc_barrier_new(REAPERS + 1);
	for (int i = 0; i < REAPERS; i++)
		reapers[i] = proc_spawn(reap_at_once, NULL);
	for (int round = 0; round < ROUNDS; round++) {
		make_a_dead_member();
		atomic_store(&shared->start_at_ns, coshm_segment_now_ns(segment) + 200000);
		assert_int_equal(proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS), 0);
		assert_int_equal(proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS), 0);
		assert_int_equal(toy_stat(segment, "deaths"), round + 1);
		assert_int_equal(toy_stat(segment, "reaped"), round + 1);
	}
	assert_int_equal(proc_collect_all(reapers, REAPERS, PROC_DEADLINE_NS, NULL), 0);
	assert_nothing_is_left(ROUNDS);
}

static void slot_is_free_only_when_each_object_says_so(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	uint32_t count = 99;
	uint64_t word;

	(void)state;
	coshm__a64_store_relaxed(&toy->reap_refuses, 1);
	make_a_dead_member();
	assert_int_equal(coshm_segment_reap(segment, &count), 0);
	assert_int_equal(count, 0);
	word = victims_word();
	assert_int_equal(word & 3, COSHM__MEMBER_DEAD);
	/* The id stays dead, and nobody gets the slot. */
	assert_int_equal(coshm__member_is_dead(toy_segment(segment), shared->victim), 1);
	{
		uint32_t first = shared->victim;

		make_a_dead_member();
		assert_true(COSHM__MEMBER_SLOT_OF(first) != COSHM__MEMBER_SLOT_OF(shared->victim));
	}
	coshm__a64_store_relaxed(&toy->reap_refuses, 0);
	assert_int_equal(coshm_segment_reap(segment, &count), 0);
	assert_int_equal(count, 2);
	assert_nothing_is_left(2);
}

static void object_that_only_the_dead_had_open_is_reaped_too(void **state)
{
	uint32_t count;
	struct toy_shm *toy = toy_peek(token);

	(void)state;
	make_a_dead_member();
	/* This process has it open no more, the dead one's bit keeps the memory, also after a removal. */
	assert_int_equal(toy_close(token), 0);
	assert_int_equal(coshm_object_remove(segment, "toy"), 0);
	assert_int_equal(coshm_segment_reap(segment, &count), 0);
	assert_int_equal(count, 1);
	for (int i = 0; i < TOY_CLAIMS; i++)
		assert_int_equal(coshm__a64_load_relaxed(&toy->claims[i]), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_int_equal(toy_create(segment, "toy", 0, 0, &token), 0);
}

static void operations_reap_in_passing(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct coshm__op op;

	(void)state;
	make_a_dead_member();
	while (toy_stat(segment, "reaped") == 0) {
		assert_true(test_now_ns() - start_ns < PROC_DEADLINE_NS);
		assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
		coshm__tick(&op, coshm__now_ns(op.segment));
		coshm__op_end(&op);
	}
	print_message("# reaped in passing after %llu us\n",
		      (unsigned long long)(test_now_ns() - start_ns) / 1000);
	assert_nothing_is_left(1);
}

static void *reap_in_a_thread(void *arg)
{
	return coshm_segment_reap(segment, NULL) ? arg : NULL;
}

static void reap_has_done_it_when_it_returns_though_another_thread_reaps_as_well(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	const uint64_t start_ns = test_now_ns();
	pthread_t first, second;
	void *result;

	(void)state;
	make_a_dead_member();
	atomic_store(&toy_reap_hold, 1); /* a long one */
	assert_int_equal(pthread_create(&first, NULL, reap_in_a_thread, toy), 0);
	while (coshm__a64_load_relaxed(&toy->reap_calls) == 0 &&
	       test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(100000);
	assert_int_equal(pthread_create(&second, NULL, reap_in_a_thread, toy), 0);
	test_sleep_ns(30000000);
	atomic_store(&toy_reap_hold, 0);
	assert_int_equal(pthread_join(second, &result), 0);
	assert_null(result);
	assert_int_equal(victims_word() & 3, COSHM__MEMBER_FREE);
	assert_int_equal(pthread_join(first, &result), 0);
	assert_null(result);
	assert_nothing_is_left(1);
}

static int reaps_as_a_child(void *arg)
{
	struct toy_shm *toy = toy_peek(token);

	(void)arg;
	coshm__a64_store_relaxed(&toy->reap_first_cursor, TOY_NO_CURSOR);
	atomic_store(&toy_reap_hold, 0); /* the parent's own stays 1 */
	if (coshm_segment_reap(segment, NULL))
		return 1;
	if (coshm__a64_load_relaxed(&toy->reap_first_cursor) != 0)
		return 3;
	return (victims_word() & 3) == COSHM__MEMBER_FREE ? 0 : 2;
}

/*
 * A process that forks while one of its threads is in the middle of a reap: what that thread has not done yet is not
 * done in the child's eyes either.
 */
static void child_of_a_reaper_does_not_inherit_half_a_pass(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	const uint64_t start_ns = test_now_ns();
	struct proc *child;
	pthread_t first;
	void *result;

	(void)state;
	make_a_dead_member();
	atomic_store(&toy_reap_hold, 1);
	assert_int_equal(pthread_create(&first, NULL, reap_in_a_thread, toy), 0);
	while (coshm__a64_load_relaxed(&toy->reap_calls) == 0 &&
	       test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(100000);
	child = proc_spawn(reaps_as_a_child, NULL);
	assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
	atomic_store(&toy_reap_hold, 0);
	assert_int_equal(pthread_join(first, &result), 0);
	assert_null(result);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
}

static int churn(void *arg)
{
	(void)arg;
	while (!atomic_load(&shared->stop)) {
		struct coshm__op op;
		struct toy_shm *toy;

		if (toy_begin(&op, token, &toy))
			return 1;
		for (int i = 0; i < TOY_CLAIMS; i++) {
			uint64_t nobody = 0, mine = op.member_id;

			if (coshm__a64_cas_acq_rel(&toy->claims[i], &nobody, mine))
				coshm__a64_cas_acq_rel(&toy->claims[i], &mine, 0);
			else if (coshm__member_is_known_dead(op.segment, (uint32_t)nobody) &&
				 coshm__a64_load_acquire(&toy->claims[i]) == nobody &&
				 (coshm__a64_load_acquire(
					  &op.segment->members[COSHM__MEMBER_SLOT_OF(nobody)]
						   .word) &
				  3) == COSHM__MEMBER_FREE &&
				 coshm__a64_load_acquire(&toy->claims[i]) == nobody)
				return 2; /* a slot is FREE though a word names it */
		}
		coshm__tick(&op, coshm__now_ns(op.segment));
		coshm__op_end(&op);
	}
	return 0;
}

static void members_are_killed_at_random_and_nothing_is_lost(void **state)
{
	struct proc *workers[4];
	unsigned int seed = 7;
	uint64_t damage, pending;

	(void)state;
	for (int i = 0; i < 4; i++)
		workers[i] = proc_spawn(churn, NULL);
	for (int kills = 0; kills < 300; kills++) {
		int victim = (int)((seed = seed * 1103515245 + 12345) >> 16) % 4;

		test_sleep_ns((seed >> 8) % 2000000);
		proc_kill(workers[victim]);
		workers[victim] = proc_spawn(churn, NULL);
	}
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(workers, 4, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_true(toy_stat(segment, "threads") <= 1);
	for (int i = 0; i < TOY_CLAIMS; i++)
		assert_int_equal(coshm__a64_load_relaxed(&toy_peek(token)->claims[i]), 0);
}

#define REAP_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		REAP_TEST(reap_gives_back_all_that_the_dead_held),
		REAP_TEST(death_is_recorded_and_cleaned_up_once_by_many_at_once),
		REAP_TEST(slot_is_free_only_when_each_object_says_so),
		REAP_TEST(object_that_only_the_dead_had_open_is_reaped_too),
		REAP_TEST(operations_reap_in_passing),
		REAP_TEST(reap_has_done_it_when_it_returns_though_another_thread_reaps_as_well),
		REAP_TEST(child_of_a_reaper_does_not_inherit_half_a_pass),
		REAP_TEST(members_are_killed_at_random_and_nothing_is_lost),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("reap", tests, NULL, NULL);
}
