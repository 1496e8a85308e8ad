/* SPDX-License-Identifier: MIT */
/*
 * Threads of one process on the same handles: closing waits until the others are out, and then nobody touches what was
 * freed. Run under ThreadSanitizer, which sees a use after free even where the memory still looks right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/toy.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define THREADS 3

/* As many as fit into a time, but at least a few. */
#define ROUNDS	     150
#define ROUNDS_LEAST 10
#define RUN_NS	     UINT64_C(10000000000)

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static _Atomic(void *) shared_token;
static _Atomic(struct coshm_segment *) shared_segment;
static _Atomic int stop;
static _Atomic unsigned int hits, misses, wrong;

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "threads");
	atomic_store(&stop, 0);
	atomic_store(&hits, 0);
	atomic_store(&misses, 0);
	atomic_store(&wrong, 0);
	segment = toy_segment_create(name, 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

/* On one CPU nobody would ever see what is open for a moment only: each state is left to the threads until one used it. */
static void run(void *(*body)(void *), void (*act)(void))
{
	const uint64_t start_ns = test_now_ns();
	pthread_t threads[THREADS];
	int rounds = 0;

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, body, NULL), 0);
	while (rounds < ROUNDS && (rounds < ROUNDS_LEAST || test_now_ns() - start_ns < RUN_NS)) {
		const unsigned int seen = atomic_load(&hits);

		act();
		while (atomic_load(&hits) == seen && !atomic_load(&wrong) &&
		       test_now_ns() - start_ns < PROC_DEADLINE_NS)
			sched_yield();
		rounds++;
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&wrong), 0);
	assert_true(atomic_load(&hits) >= ROUNDS_LEAST);
}

/* Reads the process-local side of a handle that the main thread closes at any moment. */
static void *use_object(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		struct coshm__op op;
		struct toy_shm *toy;
		int error = toy_begin(&op, atomic_load(&shared_token), &toy);

		if (error == -EBADF) {
			atomic_fetch_add(&misses, 1);
			sched_yield();
			continue;
		}
		if (error) {
			atomic_fetch_add(&wrong, 1);
			return NULL;
		}
		for (int i = 0; i < 20; i++) {
			/* handle->local is malloc'ed by attach and freed by detach. */
			volatile unsigned char *local = op.handle->local;

			if (op.handle->token != (uintptr_t)atomic_load(&shared_token) && !local)
				atomic_fetch_add(&wrong, 1);
			(void)local[0];
		}
		if (coshm__a64_load_relaxed(&toy->payload) != 4)
			atomic_fetch_add(&wrong, 1);
		coshm__op_end(&op);
		atomic_fetch_add(&hits, 1);
	}
	return NULL;
}

static void reopen_object(void)
{
	void *old = atomic_load(&shared_token), *fresh;

	if (toy_open(segment, "toy", &fresh))
		atomic_fetch_add(&wrong, 1);
	atomic_store(&shared_token, fresh);
	if (toy_close(old))
		atomic_fetch_add(&wrong, 1);
}

static void object_is_closed_under_its_users(void **state)
{
	void *token;

	(void)state;
	assert_int_equal(toy_create(segment, "toy", 0, 4, &token), 0);
	atomic_store(&shared_token, token);
	run(use_object, reopen_object);
}

/* The mapping itself goes away with the last handle. */
static void *use_segment(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		struct coshm_segment *token = atomic_load(&shared_segment);
		struct coshm_segment_info info;
		struct coshm__op op;
		int error = coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT);

		if (error == -EBADF) {
			atomic_fetch_add(&misses, 1);
			sched_yield();
			continue;
		}
		if (error) {
			atomic_fetch_add(&wrong, 1);
			return NULL;
		}
		for (int i = 0; i < 20; i++)
			if (op.segment->header->magic != COSHM__MAGIC)
				atomic_fetch_add(&wrong, 1);
		coshm__op_end(&op);
		error = coshm_segment_info(token, &info);
		if (error && error != -EBADF)
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add(&hits, 1);
	}
	return NULL;
}

static void reattach_segment(void)
{
	struct coshm_segment *old = atomic_load(&shared_segment), *fresh;

	if (coshm_segment_detach(old))
		atomic_fetch_add(&wrong, 1);
	if (coshm_segment_attach(name, 0, &fresh)) {
		atomic_fetch_add(&wrong, 1);
		return;
	}
	atomic_store(&shared_segment, fresh);
}

static void segment_is_detached_under_its_users(void **state)
{
	(void)state;
	atomic_store(&shared_segment, segment);
	run(use_segment, reattach_segment);
	segment = atomic_load(&shared_segment);
}

static void *open_and_close(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		void *token;
		int error = toy_create(segment, "x", COSHM_CREATE_OR_OPEN, 4, &token);

		if (error == -ENOENT || error == -EAGAIN)
			continue; /* removed in between */
		if (error || toy_close(token))
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add(&hits, 1);
	}
	return NULL;
}

static void remove_it(void)
{
	int error = coshm_object_remove(segment, "x");

	if (error && error != -ENOENT && error != -EAGAIN)
		atomic_fetch_add(&wrong, 1);
}

static void objects_come_and_go_in_all_threads(void **state)
{
	(void)state;
	run(open_and_close, remove_it);
}

#define THREADS_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		THREADS_TEST(object_is_closed_under_its_users),
		THREADS_TEST(segment_is_detached_under_its_users),
		THREADS_TEST(objects_come_and_go_in_all_threads),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
