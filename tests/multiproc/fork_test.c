/* SPDX-License-Identifier: MIT */
/* What segment.h promises about fork: handles are inherited, membership, locks and pins are not, nothing deadlocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "support/procs.h"
#include "support/toy.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static _Atomic int *stop;

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "fork");
	stop = proc_shared_alloc(4096);
	segment = toy_segment_create(name, 0);
	return toy_create(segment, "toy", 0, 77, &token);
}

static int end(void **state)
{
	int error;

	(void)state;
	if (segment)
		coshm_segment_detach(segment);
	segment = NULL;
	error = coshm_segment_unlink(name);
	return error == -ENOENT ? 0 : error;
}

static uint32_t member_id(void)
{
	struct coshm__op op;
	uint32_t id;

	if (coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT))
		return 0;
	id = op.member_id;
	coshm__op_end(&op);
	return id;
}

static int uses_all_that_it_inherited(void *arg)
{
	const uint32_t parent = (uint32_t)(uintptr_t)arg;
	struct coshm__op op;
	struct toy_shm *toy;
	void *second;

	/* The first call is on the object, not on the segment. */
	if (toy_begin(&op, token, &toy))
		return 1;
	if (op.member_id == parent || op.member_id == 0)
		return 2;
	if (coshm__a32_load_relaxed(&op.thread->owner) != op.member_id)
		return 3;
	if (coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS) || toy_step(&op, toy))
		return 4;
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	if (toy_peek(token)->payload.value != 77)
		return 5;
	if (coshm__object_open_count(toy_segment(segment), 0) != 2)
		return 6;
	if (toy_open(segment, "toy", &second) || toy_close(second))
		return 7;
	if (toy_close(token))
		return 8;
	if (coshm__object_open_count(toy_segment(segment), 0) != 1)
		return 9;
	return coshm_segment_detach(segment) ? 10 : 0;
}

static void child_uses_inherited_handles_as_a_member_of_its_own(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(proc_collect(proc_spawn(uses_all_that_it_inherited,
							 (void *)(uintptr_t)member_id()),
					      PROC_DEADLINE_NS),
				 0);
	/* What the child closed and detached is the child's. */
	assert_int_equal(toy_peek(token)->payload.value, 77);
	assert_int_equal(coshm__object_open_count(toy_segment(segment), 0), 1);
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_int_equal(toy_stat(segment, "attaches"), 6);
	assert_int_equal(toy_stat(segment, "detaches"), 5);
	assert_int_equal(toy_stat(segment, "deaths"), 0);
}

static int does_nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int only_detaches(void *arg)
{
	(void)arg;
	return coshm_segment_detach(segment) ? 1 : 0;
}

static void child_that_uses_nothing_is_no_member(void **state)
{
	(void)state;
	assert_int_equal(proc_collect(proc_spawn(does_nothing, NULL), PROC_DEADLINE_NS), 0);
	assert_int_equal(proc_collect(proc_spawn(only_detaches, NULL), PROC_DEADLINE_NS), 0);
	assert_int_equal(toy_stat(segment, "attaches"), 1);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_stat(segment, "deaths"), 0);
	assert_int_equal(toy_stat(segment, "detaches"), 0);
	assert_int_equal(toy_peek(token)->payload.value, 77);
}

static int grandchild(void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(uses_all_that_it_inherited(arg));
	if (member_id() == (uint32_t)(uintptr_t)arg)
		return 20;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 21;
	/* 6, 9: there is one member more, this process, at the one look or at the other. */
	status = WEXITSTATUS(status);
	return status == 0 || status == 6 || status == 9 ? 0 : 22;
}

static void grandchildren_do_so_too(void **state)
{
	(void)state;
	assert_int_equal(proc_collect(proc_spawn(grandchild, (void *)(uintptr_t)member_id()),
				      PROC_DEADLINE_NS),
			 0);
}

static int raw_clone(void *arg)
{
	const long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	int status;

	if (pid == 0)
		_exit(uses_all_that_it_inherited(arg));
	if (pid < 0 || waitpid((pid_t)pid, &status, 0) != pid)
		return 30;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 31;
}

static void child_of_a_raw_clone_does_so_too(void **state)
{
	(void)state;
	assert_int_equal(proc_collect(proc_spawn(raw_clone, (void *)(uintptr_t)member_id()),
				      PROC_DEADLINE_NS),
			 0);
}

static int tries_the_parents_lock_and_pin(void *arg)
{
	const uint32_t pin = (uint32_t)(uintptr_t)arg;
	struct coshm__op op;
	struct toy_shm *toy;
	uint32_t owner;
	int error;

	if (toy_begin(&op, token, &toy))
		return 1;
	owner = coshm__rlock_owner(&toy->lock);
	if (owner == 0 || owner == op.member_id)
		return 2;
	error = coshm__rlock_acquire(&op, &toy->lock, COSHM__NS_PER_MS);
	if (error != -EAGAIN)
		return 3;
	coshm__rlock_release(&op, &toy->lock); /* not its own: refused */
	if (coshm__rlock_owner(&toy->lock) != owner)
		return 4;
	if (coshm__pin_clear(&op, pin, 8192) != -ESTALE)
		return 5;
	coshm__op_end(&op);
	/* Not held by it, so leaving does not give it back either. */
	if (coshm_segment_detach(segment))
		return 6;
	return 0;
}

static void locks_and_pins_of_the_parent_are_not_the_childs(void **state)
{
	const uint64_t page = 8192;
	struct coshm__op op;
	struct toy_shm *toy;
	uint64_t busy;
	int pin;

	(void)state;
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, 0), 0);
	pin = coshm__pin_set(&op, page);
	coshm__op_end(&op);
	assert_int_equal(proc_collect(proc_spawn(tries_the_parents_lock_and_pin,
						 (void *)(uintptr_t)(uint32_t)pin),
				      PROC_DEADLINE_NS),
			 0);
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_owner(&toy->lock), op.member_id);
	coshm__hazard_scan(op.segment, COSHM__HAZARD_PIN, &page, 1, &busy);
	assert_int_equal(busy, 1);
	assert_int_equal(coshm__pin_clear(&op, (uint32_t)pin, page), 0);
	coshm__rlock_release(&op, &toy->lock);
	assert_int_equal(coshm__rlock_owner(&toy->lock), 0);
	coshm__op_end(&op);
}

static struct proc_barrier *barrier;

static int comes_too_late(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	if (proc_barrier_wait(barrier, PROC_DEADLINE_NS))
		return 1;
	/* By now the object is gone, and its memory is another one's. */
	if (toy_begin(&op, token, &toy) != -ESTALE)
		return 2;
	if (toy_begin(&op, token, &toy) != -ESTALE)
		return 3;
	if (coshm__object_open_count(toy_segment(segment), 0) != 1)
		return 4;
	if (toy_close(token))
		return 5;
	/* The new object's bit is not the old handle's to clear. */
	if (coshm__object_open_count(toy_segment(segment), 0) != 1)
		return 6;
	if (toy_open(segment, "new", &token) || toy_peek(token)->payload.value != 5)
		return 7;
	return coshm_segment_detach(segment) ? 8 : 0;
}

static void handle_on_an_object_that_went_before_the_childs_first_call_is_stale(void **state)
{
	struct proc *child;

	(void)state;
	barrier = proc_barrier_new(2);
	child = proc_spawn(comes_too_late, NULL);
	assert_int_equal(coshm_object_remove(segment, "toy"), 0);
	assert_int_equal(toy_close(token), 0);
	assert_int_equal(toy_create(segment, "new", 0, 5, &token), 0);
	assert_int_equal(toy_peek(token)->payload.value, 5);
	assert_int_equal(proc_barrier_wait(barrier, PROC_DEADLINE_NS), 0);
	assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
	assert_int_equal(toy_peek(token)->payload.value, 5);
	assert_int_equal(coshm__object_open_count(toy_segment(segment), 0), 1);
}

static int cannot_reach_the_file(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;
	struct coshm_segment_info info;

	(void)arg;
	if (close_range(3, ~0u, 0))
		closefrom(3);
	heard_start();
	if (toy_begin(&op, token, &toy) != -ENOTCONN)
		return 1;
	if (!strstr(heard_text(), name))
		return 2;
	if (coshm_segment_info(segment, &info) != -ENOTCONN)
		return 3;
	if (toy_close(token))
		return 4;
	return coshm_segment_detach(segment) ? 5 : 0;
}

static int reaches_it_by_its_descriptor(void *arg)
{
	(void)arg;
	return member_id() ? 0 : 1;
}

static void child_that_cannot_reach_the_file_is_told(void **state)
{
	(void)state;
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(
		proc_collect(proc_spawn(reaches_it_by_its_descriptor, NULL), PROC_DEADLINE_NS), 0);
	assert_int_equal(proc_collect(proc_spawn(cannot_reach_the_file, NULL), PROC_DEADLINE_NS),
			 0);
	assert_int_equal(toy_peek(token)->payload.value, 77);
}

/* --- forks in the middle of everything -------------------------------------------------------------------------- */

static void *works(void *arg)
{
	(void)arg;
	while (!atomic_load(stop)) {
		struct coshm__op op;
		struct toy_shm *toy;

		if (toy_begin(&op, token, &toy))
			return (void *)1;
		if (coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS) == 0)
			coshm__rlock_release(&op, &toy->lock);
		coshm__tick(&op, coshm__now_ns(op.segment));
		coshm__op_end(&op);
	}
	return NULL;
}

static void *opens(void *arg)
{
	(void)arg;
	while (!atomic_load(stop)) {
		void *second;

		if (toy_open(segment, "toy", &second) || toy_close(second))
			return (void *)2;
	}
	return NULL;
}

static void *attaches(void *arg)
{
	(void)arg;
	while (!atomic_load(stop)) {
		struct coshm_segment *own;
		uint64_t damage, pending;

		if (coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &own))
			return (void *)3;
		if (toy_verify(own, &damage, &pending) || damage)
			return (void *)4;
		if (coshm_segment_detach(own))
			return (void *)5;
		if (coshm_segment_attach(name, 0, &own) || coshm_segment_detach(own))
			return (void *)6;
	}
	return NULL;
}

/* -EAGAIN: a child that has the lock of the directory does not get to run. */
static void *creates(void *arg)
{
	(void)arg;
	while (!atomic_load(stop)) {
		void *toy;
		int error = toy_create(segment, "x", 0, 1, &toy);

		if (error == -EAGAIN)
			continue;
		if (error)
			return (void *)7;
		do
			error = coshm_object_remove(segment, "x");
		while (error == -EAGAIN);
		if (error || toy_close(toy))
			return (void *)8;
	}
	return NULL;
}

static int tries_everything(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;
	struct coshm_segment *own;
	void *second;
	int error;

	(void)arg;
	if (toy_begin(&op, token, &toy))
		return 1;
	/* Threads of the parent may hold it, and do so for a moment only. */
	if (coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS))
		return 2;
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	if (toy_open(segment, "toy", &second) || toy_close(second))
		return 3;
	error = toy_create(segment, "y", COSHM_CREATE_OR_OPEN, 1, &second);
	if (error && error != -EAGAIN)
		return 4;
	if (!error && toy_close(second))
		return 5;
	if (coshm_segment_attach(name, 0, &own) || coshm_segment_detach(own))
		return 6;
	if (coshm_segment_reap(segment, NULL))
		return 7;
	return coshm_segment_detach(segment) ? 8 : 0;
}

static void fork_while_threads_are_inside_everything_deadlocks_nobody(void **state)
{
	void *(*const bodies[])(void *) = {works, opens, attaches, creates};
	pthread_t threads[4];
	void *result;
	int failed = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], NULL), 0);
	for (int i = 0; i < 150 && !failed; i++) {
		struct proc *child = proc_spawn(tries_everything, NULL);
		int code = proc_collect(child, PROC_DEADLINE_NS);

		if (code) {
			print_message("# round %d: %d\n", i, code);
			failed = 1;
		}
	}
	atomic_store(stop, 1);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_null(result);
	}
	assert_int_equal(failed, 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
	/* A child that inherited the handle of another thread in the middle of its attach leaves as a dead member. */
	assert_int_equal(toy_stat(segment, "reaped"), toy_stat(segment, "deaths"));
	assert_int_equal(coshm__object_open_count(toy_segment(segment), 0), 1);
}

#define FORK_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		FORK_TEST(child_uses_inherited_handles_as_a_member_of_its_own),
		FORK_TEST(child_that_uses_nothing_is_no_member),
		FORK_TEST(grandchildren_do_so_too),
		FORK_TEST(child_of_a_raw_clone_does_so_too),
		FORK_TEST(locks_and_pins_of_the_parent_are_not_the_childs),
		FORK_TEST(handle_on_an_object_that_went_before_the_childs_first_call_is_stale),
		FORK_TEST(child_that_cannot_reach_the_file_is_told),
		FORK_TEST(fork_while_threads_are_inside_everything_deadlocks_nobody),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("fork", tests, NULL, NULL);
}
