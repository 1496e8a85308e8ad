/* SPDX-License-Identifier: MIT */
/*
 * Why coshm has a lock of its own: docs/adr/0003-robust-mutex.md.
 *
 * Two containers share a segment, and in each the worker is process number 1. A holds a lock, B waits for it, B is
 * killed. With PTHREAD_MUTEX_ROBUST the kernel takes A's lock for B's, since it compares the numbers that the processes
 * have in their own PID namespaces, and gives it away while A is inside. The pthread half of this test is a negative
 * control: it fails on the day on which that is no longer so, and the decision may be thought over.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/shmfs.h"
#include "support/toy.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
	pthread_mutex_t mutex;
	_Atomic int holds;   /* A is inside */
	_Atomic int leave;   /* A may go */
	_Atomic int result;  /* of A's release */
	_Atomic int waits;   /* B is about to wait */
	_Atomic int entered; /* B came in */
	_Atomic int pids[2]; /* of A and B, as the parent sees them */
};

static struct shared *shared;
static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;

/* What process number 1 of a namespace does. */
struct container {
	int index;
	int (*body)(void);
};

static int container(void *arg)
{
	const struct container *self = arg;
	pid_t pid;
	int status;

	if (unshare(CLONE_NEWPID))
		return 1;
	pid = fork();
	if (pid == 0)
		_exit(getpid() == 1 ? self->body() : 2);
	if (pid < 0)
		return 3;
	atomic_store(&shared->pids[self->index], pid);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 50;
}

static int comes_true(_Atomic int *word)
{
	const uint64_t start_ns = test_now_ns();

	while (!atomic_load(word)) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return 0;
		test_sleep_ns(200000);
	}
	return 1;
}

static void mutex_make(int type)
{
	pthread_mutexattr_t attributes;

	shared = proc_shared_alloc(sizeof(*shared));
	assert_int_equal(pthread_mutexattr_init(&attributes), 0);
	assert_int_equal(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
	assert_int_equal(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST), 0);
	assert_int_equal(pthread_mutexattr_settype(&attributes, type), 0);
	assert_int_equal(pthread_mutex_init(&shared->mutex, &attributes), 0);
	assert_int_equal(pthread_mutexattr_destroy(&attributes), 0);
}

static int mutex_hold(void)
{
	if (pthread_mutex_lock(&shared->mutex))
		return 10;
	atomic_store(&shared->holds, 1);
	if (!comes_true(&shared->leave))
		return 11;
	atomic_store(&shared->result, pthread_mutex_unlock(&shared->mutex));
	return 0;
}

static int mutex_wait(void)
{
	atomic_store(&shared->waits, 1);
	if (pthread_mutex_lock(&shared->mutex) == 0)
		atomic_store(&shared->entered, 1);
	while (pause())
		;
	return 0;
}

static struct container a, b;

/* B is asleep in the kernel, in pthread_mutex_lock or in coshm__rlock_acquire. */
static int is_asleep_on_a_futex(pid_t pid)
{
	const uint64_t start_ns = test_now_ns();
	char path[64], state;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (unsigned int asleep = 0; asleep < 50;) {
		FILE *stat = fopen(path, "r");

		if (!stat || test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return 0;
		asleep = fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state == 'S' ? asleep + 1
										      : 0;
		fclose(stat);
		test_sleep_ns(1000000);
	}
	return 1;
}

static void robust_pthread_mutex_is_given_away_while_its_holder_is_inside(void **state)
{
	struct proc *holder, *waiter;

	(void)state;
	TEST_NEEDS(shmfs_lacks_pid_namespaces());
	mutex_make(PTHREAD_MUTEX_NORMAL);
	a = (struct container){.index = 0, .body = mutex_hold};
	b = (struct container){.index = 1, .body = mutex_wait};
	holder = proc_spawn(container, &a);
	assert_true(comes_true(&shared->holds));
	waiter = proc_spawn(container, &b);
	assert_true(comes_true(&shared->waits));
	assert_true(comes_true(&shared->pids[1]));
	assert_true(is_asleep_on_a_futex(shared->pids[1]));
	assert_int_equal(atomic_load(&shared->entered), 0);
	assert_int_equal(pthread_mutex_trylock(&shared->mutex), EBUSY);

	kill(shared->pids[1], SIGKILL);
	assert_int_equal(proc_collect(waiter, PROC_DEADLINE_NS), 50);
	/* A has not left, and C is told that A is dead: two holders. */
	assert_int_equal(atomic_load(&shared->leave), 0);
	assert_int_equal(pthread_mutex_trylock(&shared->mutex), EOWNERDEAD);
	assert_int_equal(pthread_mutex_consistent(&shared->mutex), 0);
	assert_int_equal(pthread_mutex_unlock(&shared->mutex), 0);
	atomic_store(&shared->leave, 1);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
	assert_int_equal(atomic_load(&shared->result), EPERM);
}

static int mutex_try(void)
{
	atomic_store(&shared->waits, 1);
	atomic_store(&shared->entered, pthread_mutex_trylock(&shared->mutex) == 0);
	return 0;
}

static void recursive_pthread_mutex_lets_a_namesake_in(void **state)
{
	struct proc *holder;

	(void)state;
	TEST_NEEDS(shmfs_lacks_pid_namespaces());
	mutex_make(PTHREAD_MUTEX_RECURSIVE);
	a = (struct container){.index = 0, .body = mutex_hold};
	b = (struct container){.index = 1, .body = mutex_try};
	holder = proc_spawn(container, &a);
	assert_true(comes_true(&shared->holds));
	/* No death needed. */
	assert_int_equal(proc_collect(proc_spawn(container, &b), PROC_DEADLINE_NS), 0);
	assert_int_equal(atomic_load(&shared->entered), 1);
	atomic_store(&shared->leave, 1);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
}

/* --- the same with coshm's lock ------------------------------------------------------------------------------------ */

static int rlock_hold(void)
{
	struct coshm__op op;
	struct toy_shm *toy;

	if (toy_begin(&op, token, &toy) || coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS))
		return 10;
	atomic_store(&shared->holds, 1);
	if (!comes_true(&shared->leave))
		return 11;
	if (coshm__rlock_owner(&toy->lock) != op.member_id)
		return 12;
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	return coshm_segment_detach(segment) ? 13 : 0;
}

static int rlock_wait(void)
{
	struct coshm__op op;
	struct toy_shm *toy;

	if (toy_begin(&op, token, &toy))
		return 10;
	atomic_store(&shared->waits, 1);
	if (coshm__rlock_acquire(&op, &toy->lock, COSHM_FOREVER) == 0)
		atomic_store(&shared->entered, 1);
	while (pause())
		;
	return 0;
}

static void coshm_lock_stays_with_its_holder(void **state)
{
	struct proc *holder, *waiter;
	struct coshm__op op;
	struct toy_shm *toy;

	(void)state;
	TEST_NEEDS(shmfs_lacks_pid_namespaces());
	shared = proc_shared_alloc(sizeof(*shared));
	test_segment_name(name, "pidns");
	segment = toy_segment_create(name, 0);
	assert_int_equal(toy_create(segment, "toy", 0, 0, &token), 0);
	a = (struct container){.index = 0, .body = rlock_hold};
	b = (struct container){.index = 1, .body = rlock_wait};
	holder = proc_spawn(container, &a);
	assert_true(comes_true(&shared->holds));
	waiter = proc_spawn(container, &b);
	assert_true(comes_true(&shared->waits));
	assert_true(comes_true(&shared->pids[1]));
	test_sleep_ns(50000000);
	assert_int_equal(atomic_load(&shared->entered), 0);

	kill(shared->pids[1], SIGKILL);
	assert_int_equal(proc_collect(waiter, PROC_DEADLINE_NS), 50);
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, COSHM__LOCK_TIMEOUT_NS), -EAGAIN);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, 0), -EAGAIN);
	coshm__op_end(&op);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy->recoveries.value, 0);
	assert_int_equal(toy_stat(segment, "deaths"), 1);

	atomic_store(&shared->leave, 1);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS), 0);
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);

	/* And when A itself is killed, the lock is free, repaired once. */
	memset(shared, 0, sizeof(*shared));
	holder = proc_spawn(container, &a);
	assert_true(comes_true(&shared->holds));
	assert_true(comes_true(&shared->pids[0]));
	kill(shared->pids[0], SIGKILL);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 50);
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS), 0);
	assert_int_equal(toy->recoveries.value, 1);
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#if defined(__GLIBC__)
		cmocka_unit_test(robust_pthread_mutex_is_given_away_while_its_holder_is_inside),
		cmocka_unit_test(recursive_pthread_mutex_lets_a_namesake_in),
#endif
		cmocka_unit_test(coshm_lock_stays_with_its_holder),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("robust locks and PID namespaces", tests, NULL, NULL);
}
