/* SPDX-License-Identifier: MIT */
/* What src/segment/rlock.h promises among processes: one holder, whoever is killed, stopped or asleep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/toy.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS	 4
#define LONG_NS	 PROC_DEADLINE_NS
#define SHORT_NS COSHM__LOCK_TIMEOUT_NS

struct shared {
	_Atomic int stop;
	_Atomic unsigned int steps;
	_Atomic unsigned int wrong;
	_Atomic int holds;
	_Atomic int woken;
	_Atomic int result;
};

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static struct shared *shared;

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "rlock");
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

/* 0, or the error of the acquisition; counts what it saw to be wrong. */
static int step(uint64_t timeout_ns)
{
	struct coshm__op op;
	struct toy_shm *toy;
	int error = toy_begin(&op, token, &toy);

	if (error)
		return error;
	error = coshm__rlock_acquire(&op, &toy->lock, timeout_ns);
	if (!error) {
		if (toy_step(&op, toy))
			atomic_fetch_add(&shared->wrong, 1);
		coshm__rlock_release(&op, &toy->lock);
	}
	coshm__op_end(&op);
	return error;
}

static int steps(void *arg)
{
	for (int i = *(int *)arg; i > 0; i--)
		if (step(LONG_NS))
			return 1;
	return 0;
}

static void one_holder_at_a_time(void **state)
{
	struct proc *workers[WORKERS];
	int count = 20000;

	(void)state;
	for (int i = 0; i < WORKERS; i++)
		workers[i] = proc_spawn(steps, &count);
	assert_int_equal(proc_collect_all(workers, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(toy_peek(token)->left.value, WORKERS * count);
	assert_int_equal(toy_peek(token)->right.value, WORKERS * count);
	assert_int_equal(toy_peek(token)->recoveries.value, 0);
}

static int steps_until_stopped(void *arg)
{
	(void)arg;
	while (!atomic_load(&shared->stop)) {
		if (step(LONG_NS))
			return 1;
		atomic_fetch_add(&shared->steps, 1);
	}
	return 0;
}

static void killed_holders_are_replaced_and_what_they_left_is_repaired(void **state)
{
	struct proc *workers[WORKERS];
	struct toy_shm *toy = toy_peek(token);
	uint64_t damage, pending;
	unsigned int seed = 1;

	(void)state;
	for (int i = 0; i < WORKERS; i++)
		workers[i] = proc_spawn(steps_until_stopped, NULL);
	for (int kills = 0; kills < 400 || toy->recoveries.value < 5; kills++) {
		int victim = (int)((seed = seed * 1103515245 + 12345) >> 16) % WORKERS;

		assert_true(kills < 20000);
		test_sleep_ns((seed >> 8) % 1000000);
		proc_kill(workers[victim]);
		workers[victim] = proc_spawn(steps_until_stopped, NULL);
	}
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(workers, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_true(atomic_load(&shared->steps) > 0);
	assert_int_equal(step(LONG_NS), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
	assert_true(toy_stat(segment, "lock_steals") >= toy->recoveries.value);
	assert_int_equal(toy_stat(segment, "members"), 1);
}

/* Takes the lock, leaves the guarded words in disorder, and stays inside. */
static int hold(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	if (toy_begin(&op, token, &toy) || coshm__rlock_acquire(&op, &toy->lock, LONG_NS))
		return 1;
	coshm__a64_store_relaxed(&toy->left, coshm__a64_load_relaxed(&toy->left) + 1);
	atomic_store(&shared->holds, 1);
	while (!atomic_load(&shared->stop))
		test_sleep_ns(1000000);
	coshm__a64_store_relaxed(&toy->right, coshm__a64_load_relaxed(&toy->right) + 1);
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	return 0;
}

static struct proc *spawn_holder(void)
{
	struct proc *holder;
	const uint64_t start_ns = test_now_ns();

	atomic_store(&shared->holds, 0);
	holder = proc_spawn(hold, NULL);
	while (!atomic_load(&shared->holds) && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(100000);
	return holder;
}

static void stopped_holder_is_waited_for_only_as_long_as_asked(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	struct proc *holder = spawn_holder();
	uint64_t start_ns = test_now_ns();
	uint32_t owner;

	(void)state;
	assert_int_equal(proc_pause(holder), 0);
	owner = coshm__rlock_owner(&toy->lock);
	assert_int_equal(step(SHORT_NS), -EAGAIN);
	assert_true(test_now_ns() - start_ns >= SHORT_NS);
	assert_int_equal(step(0), -EAGAIN);
	/* Stopped is not dead: neither waiting nor reaping takes it away. */
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm__rlock_owner(&toy->lock), owner);
	assert_int_equal(toy->recoveries.value, 0);
	atomic_store(&shared->stop, 1);
	proc_resume(holder);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
	assert_int_equal(step(LONG_NS), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(toy->recoveries.value, 0);
}

static int waits(void *arg)
{
	(void)arg;
	atomic_store(&shared->result, step(LONG_NS));
	atomic_fetch_add(&shared->woken, 1);
	return 0;
}

static void sleepers_get_the_lock_of_a_holder_that_releases(void **state)
{
	struct proc *sleepers[WORKERS], *holder = spawn_holder();

	(void)state;
	for (int i = 0; i < WORKERS; i++)
		sleepers[i] = proc_spawn(waits, NULL);
	test_sleep_ns(30000000);
	assert_int_equal(atomic_load(&shared->woken), 0);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
	assert_int_equal(proc_collect_all(sleepers, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(toy_peek(token)->left.value, WORKERS + 1);
}

static void sleepers_get_the_lock_of_a_holder_that_is_killed(void **state)
{
	struct proc *sleepers[WORKERS], *holder = spawn_holder();

	(void)state;
	for (int i = 0; i < WORKERS; i++)
		sleepers[i] = proc_spawn(waits, NULL);
	test_sleep_ns(30000000);
	proc_kill(holder);
	assert_int_equal(proc_collect_all(sleepers, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(toy_peek(token)->recoveries.value, 1);
	assert_int_equal(toy_stat(segment, "lock_steals"), 1);
}

static void lock_nobody_waits_for_is_freed_by_a_reaper(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	uint64_t damage, pending;

	(void)state;
	proc_kill(spawn_holder());
	assert_true(toy->left.value != toy->right.value);
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage, 0);
	assert_true(pending > 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm__rlock_owner(&toy->lock), 0);
	assert_int_equal(toy->recoveries.value, 1);
	assert_int_equal(toy->left.value, toy->right.value);
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
}

static void try_takes_over_from_those_that_are_known_to_be_dead(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	uint32_t owner;

	(void)state;
	proc_kill(spawn_holder());
	owner = coshm__rlock_owner(&toy->lock);
	assert_int_equal(coshm__member_is_dead(toy_segment(segment), owner), 1);
	assert_int_equal(step(0), 0);
	assert_int_equal(toy->recoveries.value, 1);
	assert_int_equal(atomic_load(&shared->wrong), 0);
}

static void lock_that_cannot_be_repaired_is_out_of_service_for_all(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	struct proc *sleepers[WORKERS], *holder;
	uint64_t steals;

	(void)state;
	heard_start();
	coshm__a64_store_relaxed(&toy->unrepairable, 1);
	holder = spawn_holder();
	for (int i = 0; i < WORKERS; i++)
		sleepers[i] = proc_spawn(waits, NULL);
	test_sleep_ns(20000000);
	proc_kill(holder);
	/* All of them wake up and are told. */
	assert_int_equal(proc_collect_all(sleepers, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(atomic_load(&shared->woken), WORKERS);
	assert_int_equal(atomic_load(&shared->result), -ENOTRECOVERABLE);
	steals = toy_stat(segment, "lock_steals");
	assert_int_equal(step(SHORT_NS), -ENOTRECOVERABLE);
	assert_int_equal(step(0), -ENOTRECOVERABLE);
	assert_int_equal(coshm__rlock_owner(&toy->lock), 0);
	/* The dead are still reaped. */
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_int_equal(step(0), -ENOTRECOVERABLE);
	/* Nobody has tried to repair it again. */
	assert_int_equal(toy_stat(segment, "lock_steals"), steals);
}

/* Whoever repairs may be killed in it: then the next one repairs. */
static int steal_and_die(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	if (toy_begin(&op, token, &toy) || coshm__rlock_acquire(&op, &toy->lock, LONG_NS))
		return 1;
	coshm__a64_store_relaxed(&toy->inside, op.member_id);
	coshm__a64_store_relaxed(&toy->left, coshm__a64_load_relaxed(&toy->left) + 1);
	kill(getpid(), SIGKILL);
	return 2;
}

static void chain_of_dying_holders(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++)
		assert_int_equal(proc_collect(proc_spawn(steal_and_die, NULL), PROC_DEADLINE_NS),
				 -SIGKILL);
	assert_int_equal(step(LONG_NS), 0);
	assert_int_equal(toy_peek(token)->recoveries.value, 50);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_stat(segment, "deaths"), 50);
	assert_int_equal(toy_stat(segment, "reaped"), 50);
}

static void count_of_acquisitions_grows_and_is_kept_through_unlock(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	uint64_t before = coshm__a64_load_relaxed(&toy->lock.word), after;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(step(0), 0);
	after = coshm__a64_load_relaxed(&toy->lock.word);
	assert_int_equal(after >> 32, (before >> 32) + 10);
	assert_int_equal((uint32_t)after, 0);
}

static void release_frees_only_the_callers_own_hold(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	struct coshm__op op;
	uint64_t word, theirs;

	(void)state;
	heard_start();
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, 0), 0);
	word = coshm__a64_load_relaxed(&toy->lock.word);
	/* As after a false death: somebody else holds it now. */
	theirs = ((word >> 32) + 1) << 32 | (uint64_t)(op.member_id + (1u << 21)) << 1;
	coshm__a64_store_relaxed(&toy->lock.word, theirs);
	coshm__rlock_release(&op, &toy->lock);
	assert_int_equal(coshm__a64_load_relaxed(&toy->lock.word), theirs);
	assert_non_null(strstr(heard_text(), "changed hands"));
	coshm__a64_store_relaxed(&toy->lock.word, 0);
	coshm__op_end(&op);
}

static void two_locks_at_once_and_no_more(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	struct coshm__op op;

	(void)state;
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, 0), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lane_lock, 0), 0);
	assert_true(coshm__rlock_acquire(&op, &op.segment->header->directory_lock, 0) < 0);
	assert_int_equal(coshm__rlock_owner(&op.segment->header->directory_lock), 0);
	coshm__rlock_release(&op, &toy->lock);
	assert_int_equal(coshm__rlock_acquire(&op, &op.segment->header->directory_lock, 0), 0);
	coshm__rlock_release(&op, &op.segment->header->directory_lock);
	coshm__rlock_release(&op, &toy->lane_lock);
	coshm__op_end(&op);
	for (int i = 0; i < COSHM__LOCKS_HELD; i++)
		assert_int_equal(coshm__a64_load_relaxed(&op.thread->lock_offset[i]), 0);
}

/* A word in the slot that names a lock of somebody else, or of nobody, is damage, and in nobody's way. */
static void notes_of_locks_that_are_not_held_take_no_place(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	struct coshm__op op;
	int error;

	(void)state;
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	for (int i = 0; i < COSHM__LOCKS_HELD; i++)
		coshm__a64_store_relaxed(&op.thread->lock_offset[i],
					 coshm__offset_of(op.segment, &toy->lane_lock) |
						 COSHM__LOCK_IS_HELD);
	error = coshm__rlock_acquire(&op, &toy->lock, 0);
	if (!error)
		coshm__rlock_release(&op, &toy->lock);
	for (int i = 0; i < COSHM__LOCKS_HELD; i++)
		coshm__a64_store_relaxed(&op.thread->lock_offset[i], 0);
	coshm__op_end(&op);
	assert_int_equal(error, 0);
}

/* Leaves a note of the lock behind, as who waits for it has one, or had it when he held it. */
static void *exits_with_note(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	if (toy_begin(&op, token, &toy) == 0) {
		coshm__a64_store_relaxed(&op.thread->lock_offset[0],
					 coshm__offset_of(op.segment, &toy->lock) |
						 *(uint64_t *)arg);
		coshm__op_end(&op);
	}
	return NULL;
}

static void exit_with_note(uint64_t mark)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, exits_with_note, &mark), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void thread_that_exits_repairs_no_lock_that_it_does_not_hold(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	struct proc *holder = spawn_holder();
	uint32_t owner = coshm__rlock_owner(&toy->lock);
	struct coshm__op op;
	int error;

	(void)state;
	/* Another member holds it. */
	exit_with_note(COSHM__LOCK_IS_HELD);
	assert_int_equal(coshm__rlock_owner(&toy->lock), owner);
	proc_kill(holder);
	assert_int_equal(step(LONG_NS), 0);
	assert_int_equal(toy->recoveries.value, 1);
	/* Another thread of this process does, while the one that exits has waited for it. */
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	error = coshm__rlock_acquire(&op, &toy->lock, 0);
	exit_with_note(0);
	owner = coshm__rlock_owner(&toy->lock);
	if (!error)
		coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	assert_int_equal(error, 0);
	assert_int_equal(owner, op.member_id);
	assert_int_equal(toy->recoveries.value, 1);
}

static void *dies_inside(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	if (toy_begin(&op, token, &toy) || coshm__rlock_acquire(&op, &toy->lock, LONG_NS))
		return NULL;
	coshm__a64_store_relaxed(&toy->left, coshm__a64_load_relaxed(&toy->left) + 1);
	coshm__op_end(
		&op); /* the thread's exit does not undo the read section, so this is all it forgets */
	atomic_store(&shared->holds, 1);
	/* AddressSanitizer takes the frames that a cancellation leaves out for damage: there the thread just ends. */
	while (atomic_load(&shared->holds) == 1)
#if !defined(__SANITIZE_ADDRESS__)
		pthread_testcancel();
#else
		test_sleep_ns(100000);
#endif
	return NULL;
}

static void lock_of_a_cancelled_thread_is_repaired_and_free(void **state)
{
	struct toy_shm *toy = toy_peek(token);
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, dies_inside, NULL), 0);
	while (!atomic_load(&shared->holds))
		test_sleep_ns(100000);
	assert_int_equal(step(0), -EAGAIN); /* same process, other thread: no recursion */
	/* Long enough to ask the kernel whether the holder is dead, which must not be asked about oneself. */
	assert_int_equal(step(SHORT_NS), -EAGAIN);
#if !defined(__SANITIZE_ADDRESS__)
	assert_int_equal(pthread_cancel(thread), 0);
#else
	atomic_store(&shared->holds, 2);
#endif
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(step(0), 0);
	assert_int_equal(toy->recoveries.value, 1);
	assert_int_equal(atomic_load(&shared->wrong), 0);
}

#define RLOCK_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		RLOCK_TEST(one_holder_at_a_time),
		RLOCK_TEST(killed_holders_are_replaced_and_what_they_left_is_repaired),
		RLOCK_TEST(stopped_holder_is_waited_for_only_as_long_as_asked),
		RLOCK_TEST(sleepers_get_the_lock_of_a_holder_that_releases),
		RLOCK_TEST(sleepers_get_the_lock_of_a_holder_that_is_killed),
		RLOCK_TEST(lock_nobody_waits_for_is_freed_by_a_reaper),
		RLOCK_TEST(try_takes_over_from_those_that_are_known_to_be_dead),
		RLOCK_TEST(lock_that_cannot_be_repaired_is_out_of_service_for_all),
		RLOCK_TEST(chain_of_dying_holders),
		RLOCK_TEST(count_of_acquisitions_grows_and_is_kept_through_unlock),
		RLOCK_TEST(release_frees_only_the_callers_own_hold),
		RLOCK_TEST(two_locks_at_once_and_no_more),
		RLOCK_TEST(notes_of_locks_that_are_not_held_take_no_place),
		RLOCK_TEST(thread_that_exits_repairs_no_lock_that_it_does_not_hold),
		RLOCK_TEST(lock_of_a_cancelled_thread_is_repaired_and_free),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("rlock", tests, NULL, NULL);
}
