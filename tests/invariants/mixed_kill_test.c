/* SPDX-License-Identifier: MIT */
/*
 * segment.h P3, P5 and inspect.h: one segment with all three kinds of objects, members that use
 * all of them at once and die anywhere; what is left is sound, and all of it still works.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/cache.h>
#include <coshm/inspect.h>
#include <coshm/limiter.h>
#include <coshm/queue.h>
#include <coshm/stats.h>

#define MEMBERS 8
#define KEYS	200

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint64_t requests;
	_Atomic uint64_t tasks;
};

struct objects {
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct coshm_limiter *limiter;
	struct coshm_queue *queue;
};

static int objects_open(const struct member *member, struct objects *objects)
{
	struct books *books = member->books;

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &objects->segment),
		      0);
	PROMISE_EQUAL(coshm_cache_open(objects->segment, "pages", &objects->cache), 0);
	PROMISE_EQUAL(coshm_limiter_open(objects->segment, "api", &objects->limiter), 0);
	PROMISE_EQUAL(coshm_queue_open(objects->segment, "render", &objects->queue), 0);
	return 0;
}

/* Ask the limiter, look into the cache, else hand the page to somebody who makes it. */
static int request(struct books *books, struct objects *objects, uint64_t *seed)
{
	static unsigned char page[20000];
	const uint32_t key = (uint32_t)random_below(seed, KEYS);
	const uint32_t client = (uint32_t)random_below(seed, 5000);
	size_t size_bytes = sizeof(page);
	struct coshm_cache_view view;
	int64_t visits;
	int rc;

	books->requests++;
	rc = coshm_limiter_try(objects->limiter, &client, sizeof(client), 1, NULL);
	PROMISE(rc == 0 || rc == 1);
	if (rc == 0)
		return 0;
	rc = coshm_cache_incr(objects->cache, "visits", 6, 1, 0, 0, &visits);
	PROMISE(rc == 0 || rc == -EAGAIN);
	rc = coshm_cache_get(objects->cache, &key, sizeof(key), page, &size_bytes, NULL);
	PROMISE(rc == 0 || rc == 1);
	if (rc == 1) {
		PROMISE(pattern_matches(key, page, size_bytes));
		if (coshm_cache_pin(objects->cache, &key, sizeof(key), &view) == 1) {
			if (view.data)
				PROMISE(pattern_matches(key, view.data, view.size_bytes));
			PROMISE_EQUAL(coshm_cache_unpin(objects->cache, &view), 0);
		}
		return 0;
	}
	rc = coshm_queue_enqueue(objects->queue, &key, sizeof(key), NULL, NULL);
	PROMISE(rc == 0 || rc == -EAGAIN);
	if (rc == -EAGAIN)
		PROMISE_EQUAL(coshm_limiter_refund(objects->limiter, &client, sizeof(client), 1),
			      0);
	return 0;
}

static int render(struct books *books, struct objects *objects, uint64_t *seed, uint64_t wait_ns)
{
	static unsigned char page[20000];
	struct coshm_task task;
	uint32_t key;
	size_t size_bytes = sizeof(key);
	int rc = coshm_queue_reserve(objects->queue, wait_ns, &task);

	PROMISE(rc == 0 || rc == 1);
	if (rc == 0)
		return 0;
	PROMISE_EQUAL(coshm_queue_payload(objects->queue, &task, &key, &size_bytes), 0);
	PROMISE_EQUAL(size_bytes, sizeof(key));
	PROMISE(key < KEYS);
	size_bytes = random_below(seed, sizeof(page));
	pattern_fill(key, page, size_bytes);
	rc = coshm_cache_set(objects->cache, &key, sizeof(key), page, size_bytes,
			     random_below(seed, 100 * MS) + 1);
	PROMISE(rc == 0 || rc == -EAGAIN);
	PROMISE_EQUAL(coshm_queue_ack(objects->queue, &task), 0);
	books->tasks++;
	return 0;
}

static int serve(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct objects objects;
	uint64_t seed = random_seed(member);

	if (objects_open(member, &objects))
		return 1;
	while (!crowd_is_over()) {
		if (member->index < MEMBERS / 2 ? request(books, &objects, &seed)
						: render(books, &objects, &seed, 10 * MS))
			return 1;
		/* Some come and go in order. */
		if (random_below(&seed, 5000) == 0 && member->index % 2) {
			PROMISE_EQUAL(coshm_segment_detach(objects.segment), 0);
			if (objects_open(member, &objects))
				return 1;
		}
	}
	return 0;
}

static int is_at_rest(void *context, const struct coshm_member_info *info)
{
	unsigned int *living = context;

	*living += info->state == COSHM_MEMBER_ALIVE;
	return info->locks_held + info->pages_read + info->pages_written + info->pages_pinned +
	       info->leases_held;
}

static void segment_is_sound_after_many_deaths(void **state)
{
	const struct coshm_cache_config cache_config = {.struct_size_bytes = sizeof(cache_config),
							.size_bytes = 1 << 20};
	const struct coshm_limiter_config limiter_config = {.struct_size_bytes =
								    sizeof(limiter_config),
							    .rate = 50,
							    .burst = 100,
							    .keys_max = 1000};
	const struct coshm_queue_config queue_config = {.struct_size_bytes = sizeof(queue_config),
							.capacity = 100,
							.max_attempts = 1000000,
							.backoff_base_ns = MS,
							.backoff_max_ns = MS};
	struct books *books = proc_shared_alloc(sizeof(*books));
	const struct member self = {.books = books};
	struct coshm_queue_depth depth;
	struct objects objects;
	struct crowd crowd;
	unsigned int living = 0;
	uint64_t seed = random_seed(NULL), start_ns;

	(void)state;
	books->segment = segment_for_test(books->name, "mixed", 8 << 20);
	objects.segment = books->segment;
	assert_int_equal(
		coshm_cache_create(books->segment, "pages", &cache_config, 0, &objects.cache), 0);
	assert_int_equal(
		coshm_limiter_create(books->segment, "api", &limiter_config, 0, &objects.limiter),
		0);
	assert_int_equal(
		coshm_queue_create(books->segment, "render", &queue_config, 0, &objects.queue), 0);

	crowd_start(&crowd, MEMBERS, serve, books, NULL);
	start_ns = test_now_ns();
	while ((crowd.kills <= 10 || test_now_ns() - start_ns < 2 * test_run_ns()) &&
	       !crowd_is_over()) {
		struct coshm_verify_result result;

		crowd_torment(&crowd, 0, MEMBERS, CROWD_KILL | CROWD_STOP, 100 * MS);
		/* In the middle of it: much may be pending, nothing may be damaged. */
		assert_int_equal(coshm_inspect_verify(books->segment, NULL, NULL, NULL, &result),
				 0);
		assert_int_equal(result.damage, 0);
	}
	CROWD_UNTIL(books->requests > KEYS && books->tasks > 0);
	crowd_finish(&crowd);
	assert_true(crowd.kills > 10 && books->requests > KEYS && books->tasks > 0);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_inspect_members(books->segment, is_at_rest, &living), 0);
	assert_int_equal(living, 1);

	/* And all of it works on. */
	assert_int_equal(objects_open(&self, &objects), 0);
	start_ns = test_now_ns();
	do {
		assert_int_equal(render(books, &objects, &seed, 20 * MS), 0);
		assert_int_equal(coshm_queue_depth(objects.queue, &depth), 0);
		assert_true(test_now_ns() - start_ns < PROC_DEADLINE_NS);
	} while (depth.ready + depth.delayed + depth.leased > 0);
	assert_int_equal(depth.dead, 0);
	for (unsigned int i = 0; i < 10000; i++) {
		assert_int_equal(request(books, &objects, &seed), 0);
		assert_int_equal(render(books, &objects, &seed, 0), 0);
	}
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segment_is_sound_after_many_deaths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
