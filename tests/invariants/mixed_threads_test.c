/* SPDX-License-Identifier: MIT */
/*
 * types.h MT: the threads of one process share handles.  The same books as among processes, for
 * ThreadSanitizer to read along; and a handle that is closed under its users answers -EBADF.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <coshm/cache.h>
#include <coshm/limiter.h>
#include <coshm/queue.h>

#define THREADS	  4
#define TASKS	  4000
#define BURST	  1000
#define KEYS	  64
#define VALUE_MAX 3000
#define CLOSERS	  200

struct books {
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct coshm_limiter *limiter;
	struct coshm_queue *queue;
	_Atomic uint32_t next, executed[TASKS], executed_count;
	_Atomic uint64_t admitted, counted;
	_Atomic int over;
	_Atomic(struct coshm_cache *) lent;
};

struct thread {
	struct books *books;
	struct member member;
};

static int value_check(struct coshm_cache *cache, uint32_t key, unsigned char *value)
{
	struct coshm_cache_view view;
	uint64_t head[2];
	size_t size_bytes = VALUE_MAX;
	int rc = coshm_cache_get(cache, &key, sizeof(key), value, &size_bytes, NULL);

	PROMISE(rc == 0 || rc == 1);
	if (rc == 1) {
		PROMISE(size_bytes >= sizeof(head));
		memcpy(head, value, sizeof(head));
		PROMISE_EQUAL(head[1], key);
		PROMISE(pattern_matches(head[0], value + sizeof(head), size_bytes - sizeof(head)));
	}
	rc = coshm_cache_pin(cache, &key, sizeof(key), &view);
	PROMISE(rc == 0 || rc == 1 || rc == -EAGAIN);
	if (rc == 1) {
		PROMISE(view.data != NULL);
		memcpy(head, view.data, sizeof(head));
		PROMISE_EQUAL(head[1], key);
		PROMISE(pattern_matches(head[0], (const char *)view.data + sizeof(head),
					view.size_bytes - sizeof(head)));
		PROMISE_EQUAL(coshm_cache_unpin(cache, &view), 0);
	}
	return 0;
}

static int use_all(struct thread *thread)
{
	struct books *books = thread->books;
	static _Thread_local unsigned char value[VALUE_MAX];
	uint64_t seed = random_seed(&thread->member);

	while (atomic_load(&books->executed_count) < TASKS) {
		const uint32_t key = (uint32_t)random_below(&seed, KEYS);
		const size_t size_bytes = 16 + random_below(&seed, VALUE_MAX - 16);
		uint64_t head[2] = {random_next(&seed), key};
		struct coshm_task task;
		uint32_t number;
		int64_t sum;
		size_t number_bytes = sizeof(number);
		int rc;

		memcpy(value, head, sizeof(head));
		pattern_fill(head[0], value + sizeof(head), size_bytes - sizeof(head));
		rc = coshm_cache_set(books->cache, &key, sizeof(key), value, size_bytes, 0);
		PROMISE(rc == 0 || rc == -EAGAIN);
		if (value_check(books->cache, (uint32_t)random_below(&seed, KEYS), value))
			return 1;
		rc = coshm_cache_incr(books->cache, "sum", 3, 1, 0, 0, &sum);
		PROMISE(rc == 0 || rc == -EAGAIN);
		books->counted += rc == 0;
		rc = coshm_limiter_try(books->limiter, "k", 1, 1, NULL);
		PROMISE(rc == 0 || rc == 1);
		books->admitted += (uint64_t)rc;
		number = atomic_load(&books->next);
		if (number < TASKS &&
		    atomic_compare_exchange_strong(&books->next, &number, number + 1)) {
			while ((rc = coshm_queue_enqueue(books->queue, &number, sizeof(number),
							 NULL, NULL)) == -EAGAIN)
				;
			PROMISE_EQUAL(rc, 0);
		}
		rc = coshm_queue_reserve(books->queue, random_below(&seed, 8) ? 0 : MS, &task);
		PROMISE(rc == 0 || rc == 1);
		if (rc == 1) {
			PROMISE_EQUAL(
				coshm_queue_payload(books->queue, &task, &number, &number_bytes),
				0);
			PROMISE(number < TASKS);
			PROMISE_EQUAL(atomic_fetch_add(&books->executed[number], 1), 0);
			PROMISE_EQUAL(coshm_queue_ack(books->queue, &task), 0);
			atomic_fetch_add(&books->executed_count, 1);
		}
	}
	return 0;
}

static void *use_all_in_thread(void *arg)
{
	/* The others would wait for what this one will not do. */
	if (use_all(arg))
		abort();
	return NULL;
}

static struct books *books_new(char name[TEST_SEGMENT_NAME_SIZE], const char *tag)
{
	const struct coshm_cache_config cache_config = {.struct_size_bytes = sizeof(cache_config),
							.size_bytes = 256 << 10};
	const struct coshm_limiter_config limiter_config = {.struct_size_bytes =
								    sizeof(limiter_config),
							    .rate = 1,
							    .per_ns = 3600 * SECOND,
							    .burst = BURST,
							    .keys_max = 1000};
	const struct coshm_queue_config queue_config = {.struct_size_bytes = sizeof(queue_config),
							.capacity = 64};
	struct books *books = proc_shared_alloc(sizeof(*books));

	books->segment = segment_for_test(name, tag, 4 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "c", &cache_config, 0, &books->cache),
			 0);
	assert_int_equal(
		coshm_limiter_create(books->segment, "l", &limiter_config, 0, &books->limiter), 0);
	assert_int_equal(coshm_queue_create(books->segment, "q", &queue_config, 0, &books->queue),
			 0);
	return books;
}

static void run_threads(struct books *books, void *(*body)(void *thread))
{
	struct thread threads[THREADS];
	pthread_t ids[THREADS];

	random_seed(NULL);
	for (unsigned int i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){books, {.books = books, .index = i}};
		assert_int_equal(pthread_create(&ids[i], NULL, body, &threads[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(ids[i], NULL), 0);
}

static void threads_keep_all_promises_together(void **state)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	struct books *books = books_new(name, "mixed-threads");
	int64_t sum = 0;

	(void)state;
	run_threads(books, use_all_in_thread);
	for (unsigned int i = 0; i < TASKS; i++)
		assert_int_equal(books->executed[i], 1);
	assert_int_equal(books->admitted, BURST);
	assert_int_equal(coshm_cache_incr(books->cache, "sum", 3, 0, 0, 0, &sum), 0);
	/* It may have been evicted, and then begins again. */
	assert_true(sum >= 0 && (uint64_t)sum <= books->counted);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int use_what_may_be_closed(struct thread *thread)
{
	struct books *books = thread->books;
	unsigned char value[64];

	if (thread->member.index == 0) {
		for (unsigned int i = 0; i < CLOSERS; i++) {
			struct coshm_cache *cache;

			PROMISE_EQUAL(coshm_cache_open(books->segment, "c", &cache), 0);
			atomic_store(&books->lent, cache);
			test_sleep_ns(200000);
			PROMISE_EQUAL(coshm_cache_close(cache), 0);
		}
		atomic_store(&books->over, 1);
		return 0;
	}
	while (!atomic_load(&books->over)) {
		struct coshm_cache *cache = atomic_load(&books->lent);
		size_t size_bytes = sizeof(value);
		int rc;

		if (!cache)
			continue;
		rc = coshm_cache_set(cache, "k", 1, "value", 5, 0);
		PROMISE(rc == 0 || rc == -EBADF || rc == -EAGAIN);
		rc = coshm_cache_get(cache, "k", 1, value, &size_bytes, NULL);
		PROMISE(rc == 0 || rc == 1 || rc == -EBADF);
		if (rc == 1)
			PROMISE(size_bytes == 5 && memcmp(value, "value", 5) == 0);
	}
	return 0;
}

static void *use_closed_in_thread(void *arg)
{
	if (use_what_may_be_closed(arg))
		abort();
	return NULL;
}

static void handle_closed_under_its_users_answers_bad_handle(void **state)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	struct books *books = books_new(name, "mixed-close");

	(void)state;
	run_threads(books, use_closed_in_thread);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_keep_all_promises_together),
		cmocka_unit_test(handle_closed_under_its_users_answers_bad_handle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
