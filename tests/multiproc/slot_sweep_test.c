/* SPDX-License-Identifier: MIT */
/*
 * Whose slot is it, of a thread or of a member? Decisions that take a system call between the look at a slot and the store to it: what may
 * happen in between is made to happen, from inside that call.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "support/procs.h"
#include "support/toy.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMBERS 2
#define THREADS 2 /* slots beside the reserves: the main thread's and one more */

struct shared {
	_Atomic int go;
	_Atomic int has_slot;
	_Atomic int stop;
	_Atomic uint32_t id;
	_Atomic uint32_t index;
};

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static struct shared *shared;

static _Atomic int leaves; /* the thread that has the second slot */
static pthread_t holder;
static _Atomic long holder_tid;
static pthread_t sweeper;
static _Atomic int is_sweeping;

static int wait_for(_Atomic int *word)
{
	const uint64_t start_ns = test_now_ns();

	while (!atomic_load(word)) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return -1;
		test_sleep_ns(200000);
	}
	return 0;
}

/*
 * The library calls this one. The sweeper asks whether the holder still lives; it has read that the slot is its own
 * process's. Now the holder gives it back and ends, and another member claims it.
 */
long syscall(long number, ...)
{
	static long (*next)(long number, ...);
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "syscall");
	if (number == SYS_tgkill && atomic_load(&is_sweeping) &&
	    pthread_equal(pthread_self(), sweeper) && a[1] == atomic_load(&holder_tid)) {
		atomic_store(&leaves, 1);
		pthread_join(holder, NULL);
		atomic_store(&shared->go, 1);
		wait_for(&shared->has_slot);
		errno = ESRCH;
		return -1;
	}
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int is_newcomer; /* in one process only */

/*
 * The library calls this one. The newcomer has seen that a member slot is free, and asks for its byte. Now another one takes
 * that slot and dies in it.
 */
int fcntl(int fd, int command, ...)
{
	static int (*next)(int fd, int command, ...);
	struct flock *range;
	va_list list;

	va_start(list, command);
	range = va_arg(list, struct flock *);
	va_end(list);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "fcntl");
	if (command == F_OFD_SETLK && is_newcomer) {
		struct flock asked;

		is_newcomer = 0;
		atomic_store(&shared->go, 1);
		wait_for(&shared->has_slot);
		/* The kernel gives the byte back some time after the kill. */
		do
			asked = *range;
		while (next(fd, F_OFD_GETLK, &asked) == 0 && asked.l_type != F_UNLCK);
	}
	return next(fd, command, range);
}

static int begin(void **state)
{
	const struct coshm_segment_config config = {
		.size_bytes = 1 << 20, .member_count_max = MEMBERS, .thread_count_max = THREADS};

	(void)state;
	test_segment_name(name, "slot-sweep");
	shared = proc_shared_alloc(sizeof(*shared));
	if (coshm_segment_create(name, &config, 0, &segment))
		return -1;
	return toy_create(segment, "toy", 0, 0, &token);
}

static int end(void **state)
{
	(void)state;
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

/* Another member, which is told when to take the first slot that is free, and works with it. */
static int claims_when_told(void *arg)
{
	struct coshm__op op;
	uint32_t id;

	(void)arg;
	if (wait_for(&shared->go) || coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE))
		return 1;
	id = op.member_id;
	atomic_store(&shared->id, id);
	atomic_store(&shared->index, (uint32_t)(op.thread - op.segment->threads));
	atomic_store(&shared->has_slot, 1);
	if (wait_for(&shared->stop))
		return 2;
	if (coshm__a32_load_relaxed(&op.thread->owner) != id)
		return 3;
	coshm__op_end(&op);
	return coshm_segment_detach(segment) ? 4 : 0;
}

static void *hold_a_slot(void *arg)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE))
		return NULL;
	coshm__op_end(&op);
	atomic_store(&holder_tid, syscall(SYS_gettid));
	atomic_store((_Atomic int *)arg, 1);
	wait_for(&leaves);
	return NULL;
}

static void *sweep(void *arg)
{
	struct coshm__op op;

	sweeper = pthread_self();
	atomic_store(&is_sweeping, 1);
	if (coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE) == 0) {
		*(uint32_t *)arg = op.shares_slot + 1;
		coshm__op_end(&op);
	}
	atomic_store(&is_sweeping, 0);
	return NULL;
}

static void slot_that_moved_on_is_not_swept(void **state)
{
	struct proc *other = proc_spawn(claims_when_told, NULL);
	struct coshm__thread_shm *slot;
	_Atomic int holds = 0;
	uint32_t shares = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&holder, NULL, hold_a_slot, &holds), 0);
	assert_int_equal(wait_for(&holds), 0);
	assert_int_equal(pthread_create(&thread, NULL, sweep, &shares), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);

	assert_int_equal(atomic_load(&shared->has_slot), 1);
	slot = &toy_segment(segment)->threads[atomic_load(&shared->index)];
	assert_true(atomic_load(&shared->index) >= toy_segment(segment)->member_count_max);
	assert_int_equal(coshm__a32_load_acquire(&slot->owner), atomic_load(&shared->id));
	/* No slot was left for who swept. */
	assert_int_equal(shares, 1 + 1);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect(other, PROC_DEADLINE_NS), 0);
}

static int enters_and_dies(void *arg)
{
	struct coshm__op op;

	(void)arg;
	if (wait_for(&shared->go) || coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE))
		return 1;
	atomic_store(&shared->id, op.member_id);
	atomic_store(&shared->has_slot, 1);
	return raise(SIGKILL);
}

static int enters_behind(void *arg)
{
	struct coshm__op op;
	uint32_t id;

	(void)arg;
	is_newcomer = 1;
	if (coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE))
		return 1;
	id = op.member_id;
	coshm__op_end(&op);
	if (is_newcomer)
		return 2; /* nobody asked for a byte */
	atomic_store(&shared->index, id);
	return coshm_segment_detach(segment) ? 3 : 0;
}

/* What the dead left is cleaned up before somebody else has their slot: nobody would look for it afterwards. */
static void member_slot_that_moved_on_is_not_entered(void **state)
{
	struct proc *first = proc_spawn(enters_and_dies, NULL);
	struct proc *second = proc_spawn(enters_behind, NULL);
	uint32_t id;

	(void)state;
	assert_int_equal(proc_collect(first, PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(proc_collect(second, PROC_DEADLINE_NS), 0);
	id = atomic_load(&shared->id);
	/* The only slot that there was. */
	assert_int_equal(COSHM__MEMBER_SLOT_OF(id), COSHM__MEMBER_SLOT_OF(shared->index));
	assert_int_equal(coshm__thread_count(toy_segment(segment), id), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(slot_that_moved_on_is_not_swept, begin, end),
		cmocka_unit_test_setup_teardown(member_slot_that_moved_on_is_not_entered, begin,
						end),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("slot_sweep", tests, NULL, NULL);
}
