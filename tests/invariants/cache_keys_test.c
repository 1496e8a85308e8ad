/* SPDX-License-Identifier: MIT */
/*
 * cache.h, what holds for the items of one key or of all: one adder wins, numbers are exact,
 * what is pinned stays, a walk misses nothing, many gets are as one.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/cache.h>

#define ADDERS	 16
#define ROUNDS	 300
#define NUMBERS	 3
#define PINS_MAX 64

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct proc_barrier *barrier;
	_Atomic uint32_t winners[ROUNDS];
	_Atomic uint32_t winner[ROUNDS];
	_Atomic int64_t started[NUMBERS], returned[NUMBERS];
	_Atomic uint32_t inside;
	struct coshm_cache_view view;
};

/* Policy lru with one lane: what was set last is there for certain. */
static struct books *books_new_policy(const char *tag, uint64_t size_bytes, uint32_t policy)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = size_bytes,
						  .policy = policy,
						  .lanes = policy == COSHM_CACHE_LRU};
	struct books *books = proc_shared_alloc(sizeof(*books));

	books->segment = segment_for_test(books->name, tag, size_bytes + (1 << 20));
	assert_int_equal(coshm_cache_create(books->segment, "c", &config, 0, &books->cache), 0);
	return books;
}

static struct books *books_new(const char *tag, uint64_t size_bytes)
{
	return books_new_policy(tag, size_bytes, COSHM_CACHE_S3FIFO);
}

static void books_close(struct books *books)
{
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int member_cache(const struct member *member, struct coshm_cache **ret_cache)
{
	struct books *books = member->books;
	struct coshm_segment *segment;
	const int rc = segment_for_member(member, books->name, books->segment, &segment);

	return rc ? rc : coshm_cache_open(segment, "c", ret_cache);
}

/* add. --------------------------------------------------------------------------------------- */

static int add_together(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache *cache;

	PROMISE_EQUAL(member_cache(member, &cache), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		/* Fresh keys, and one that was there before. */
		const uint32_t key = round % 2 ? round : 0;
		uint32_t seen = 0;
		size_t size_bytes = sizeof(seen);
		int rc;

		if (key == 0 && member->index == 0)
			PROMISE(coshm_cache_delete(cache, &key, sizeof(key)) >= 0);
		PROMISE_EQUAL(proc_barrier_wait(books->barrier, PROC_DEADLINE_NS), 0);
		rc = coshm_cache_add(cache, &key, sizeof(key), &member->index,
				     sizeof(member->index), 0);
		PROMISE(rc == 0 || rc == 1);
		if (rc == 1) {
			atomic_fetch_add(&books->winners[round], 1);
			atomic_store(&books->winner[round], member->index);
		}
		/* Who lost sees whose it is, at once. */
		PROMISE_EQUAL(coshm_cache_get(cache, &key, sizeof(key), &seen, &size_bytes, NULL),
			      1);
		PROMISE_EQUAL(proc_barrier_wait(books->barrier, PROC_DEADLINE_NS), 0);
		PROMISE_EQUAL(books->winners[round], 1);
		PROMISE_EQUAL(books->winner[round], seen);
	}
	return 0;
}

static void exactly_one_of_sixteen_adders_wins(void **state)
{
	struct books *books = books_new("cache-add", 4 << 20);
	struct crowd crowd;

	(void)state;
	books->barrier = proc_barrier_new(ADDERS);
	crowd_start(&crowd, ADDERS, add_together, books, NULL);
	crowd_join(&crowd);
	books_close(books);
}

/* incr. -------------------------------------------------------------------------------------- */

static int count_up(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);
	int64_t last[NUMBERS] = {0};

	PROMISE_EQUAL(member_cache(member, &cache), 0);
	while (!crowd_is_over()) {
		const uint32_t key = (uint32_t)random_below(&seed, NUMBERS);
		const int64_t delta = (int64_t)random_below(&seed, 3) + 1;
		int64_t sum = 0;
		int rc;

		atomic_fetch_add(&books->started[key], delta);
		while ((rc = coshm_cache_incr(cache, &key, sizeof(key), delta, 0, 0, &sum)) ==
		       -EAGAIN)
			;
		PROMISE_EQUAL(rc, 0);
		atomic_fetch_add(&books->returned[key], delta);
		PROMISE(sum >= last[key] + delta);
		last[key] = sum;
		/* Others must not be able to take the number away. */
		if (random_below(&seed, 64) == 0) {
			char text[32];
			size_t size_bytes = sizeof(text) - 1;
			struct coshm_cache_item item;

			PROMISE_EQUAL(coshm_cache_add(cache, &key, sizeof(key), "x", 1, 0), 0);
			PROMISE_EQUAL(
				coshm_cache_get(cache, &key, sizeof(key), text, &size_bytes, &item),
				1);
			PROMISE_EQUAL(item.number, 1);
			text[size_bytes] = 0;
			PROMISE(strtoll(text, NULL, 10) >= last[key]);
		}
	}
	return 0;
}

static void numbers_count_what_returned_and_nothing_unasked(void **state)
{
	struct books *books = books_new("cache-incr", 1 << 20);
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 6, count_up, books, NULL);
	crowd_torment(&crowd, 0, 6, CROWD_KILL | CROWD_STOP, test_run_ns());
	for (uint32_t key = 0; key < NUMBERS; key++)
		CROWD_UNTIL(books->returned[key] > 0);
	crowd_finish(&crowd);
	assert_true(crowd.kills > 0);
	for (uint32_t key = 0; key < NUMBERS; key++) {
		int64_t sum = 0;

		assert_int_equal(coshm_cache_incr(books->cache, &key, sizeof(key), 0, 0, 0, &sum),
				 0);
		assert_true(books->returned[key] > 0);
		assert_true(books->returned[key] <= sum);
		assert_true(sum <= books->started[key]);
	}
	books_close(books);
}

static void numbers_wrap_and_values_are_no_numbers(void **state)
{
	struct books *books = books_new("cache-wrap", 1 << 20);
	char text[32];
	size_t size_bytes = sizeof(text);
	int64_t sum = 77;

	(void)state;
	assert_int_equal(coshm_cache_incr(books->cache, "n", 1, 1, INT64_MAX, 0, &sum), 0);
	assert_true(sum == INT64_MIN);
	assert_int_equal(coshm_cache_get(books->cache, "n", 1, text, &size_bytes, NULL), 1);
	assert_int_equal(size_bytes, 20);
	assert_memory_equal(text, "-9223372036854775808", 20);
	assert_int_equal(coshm_cache_incr(books->cache, "n", 1, -1, 0, 0, &sum), 0);
	assert_true(sum == INT64_MAX);
	assert_int_equal(coshm_cache_set(books->cache, "v", 1, "5", 1, 0), 0);
	sum = 77;
	assert_int_equal(coshm_cache_incr(books->cache, "v", 1, 1, 0, 0, &sum), -EBADMSG);
	assert_int_equal(sum, 77);
	size_bytes = sizeof(text);
	assert_int_equal(coshm_cache_get(books->cache, "v", 1, text, &size_bytes, NULL), 1);
	assert_int_equal(size_bytes, 1);
	/* Set makes it a value, whatever it was. */
	assert_int_equal(coshm_cache_set(books->cache, "n", 1, "5", 1, 0), 0);
	assert_int_equal(coshm_cache_incr(books->cache, "n", 1, 1, 0, 0, &sum), -EBADMSG);
	books_close(books);
}

/* pin. --------------------------------------------------------------------------------------- */

static int churn(void *arg)
{
	const struct member *member = arg;
	static unsigned char value[20000];
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(member_cache(member, &cache), 0);
	while (!crowd_is_over()) {
		const uint32_t key = (uint32_t)random_below(&seed, 3000);
		const size_t size_bytes =
			random_below(&seed, random_below(&seed, 10) ? 500 : sizeof(value));
		int rc;

		memset(value, 0xc5, size_bytes);
		rc = coshm_cache_set(cache, &key, sizeof(key), value, size_bytes, 0);
		PROMISE(rc == 0 || rc == -EAGAIN);
		if (random_below(&seed, 4) == 0)
			PROMISE(coshm_cache_delete(cache, &key, sizeof(key)) >= 0);
	}
	return 0;
}

static int try_to_unpin(void *arg)
{
	struct books *books = arg;

	PROMISE_EQUAL(coshm_cache_unpin(books->cache, &books->view), -ESTALE);
	return 0;
}

static int die_with_the_parents_pins(void *arg)
{
	struct books *books = arg;
	size_t size_bytes = 0;

	PROMISE(coshm_cache_get(books->cache, "none", 4, NULL, &size_bytes, NULL) == 0);
	return raise(SIGKILL);
}

static int view_is(uint64_t seed, const struct coshm_cache_view *view)
{
	static unsigned char value[20000];
	size_t total_bytes = 0;

	for (uint32_t i = 0; i < view->part_count; i++) {
		const void *part;
		size_t part_bytes;

		if (coshm_cache_view_part(view, i, &part, &part_bytes) ||
		    total_bytes + part_bytes > sizeof(value))
			return 0;
		memcpy(value + total_bytes, part, part_bytes);
		total_bytes += part_bytes;
	}
	return total_bytes == view->size_bytes && pattern_matches(seed, value, total_bytes);
}

/* Everything else in the cache is replaced many times over. */
static void pinned_bytes_stay_through_replacement_eviction_flush_and_fork(void **state)
{
	struct books *books = books_new("cache-pin", 8 << 20);
	static unsigned char value[20000];
	struct coshm_cache_view views[10];
	uint64_t start_ns;
	struct crowd crowd;

	(void)state;
	for (uint32_t i = 0; i < 10; i++) {
		const uint32_t key = 100000 + i;

		pattern_fill(i, value, i * 2000 + 1);
		assert_int_equal(
			coshm_cache_set(books->cache, &key, sizeof(key), value, i * 2000 + 1, 0),
			0);
		assert_int_equal(coshm_cache_pin(books->cache, &key, sizeof(key), &views[i]), 1);
		/* Gone from the index in one way or another. */
		if (i % 3 == 0)
			assert_int_equal(coshm_cache_delete(books->cache, &key, sizeof(key)), 1);
		else if (i % 3 == 1)
			assert_int_equal(
				coshm_cache_set(books->cache, &key, sizeof(key), "new", 3, 0), 0);
	}
	crowd_start(&crowd, 4, churn, books, NULL);
	start_ns = test_now_ns();
	while (test_now_ns() - start_ns < test_run_ns()) {
		crowd_torment(&crowd, 0, 4, CROWD_KILL, 20 * MS);
		for (uint32_t i = 0; i < 10; i++)
			assert_true(view_is(i, &views[i]));
		books->view = views[3];
		assert_int_equal(proc_collect(proc_spawn(try_to_unpin, books), PROC_DEADLINE_NS),
				 0);
		assert_int_equal(proc_collect(proc_spawn(die_with_the_parents_pins, books),
					      PROC_DEADLINE_NS),
				 -SIGKILL);
		assert_int_equal(coshm_cache_flush(books->cache), 0);
	}
	crowd_finish(&crowd);
	for (uint32_t i = 0; i < 10; i++) {
		assert_true(view_is(i, &views[i]));
		assert_int_equal(coshm_cache_unpin(books->cache, &views[i]), 0);
		assert_int_equal(coshm_cache_unpin(books->cache, &views[i]), -ESTALE);
	}
	books_close(books);
}

static int pin_and_die(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache_view views[PINS_MAX + 1];
	struct coshm_cache *cache;
	uint32_t key;

	PROMISE_EQUAL(member_cache(member, &cache), 0);
	for (key = 0; key < PINS_MAX; key++)
		PROMISE_EQUAL(coshm_cache_pin(cache, &key, sizeof(key), &views[key]), 1);
	PROMISE_EQUAL(coshm_cache_pin(cache, &key, sizeof(key), &views[key]), -EAGAIN);
	PROMISE_EQUAL(coshm_cache_unpin(cache, &views[5]), 0);
	PROMISE_EQUAL(coshm_cache_pin(cache, &key, sizeof(key), &views[key]), 1);
	atomic_fetch_add(&books->inside, 1);
	return raise(SIGKILL);
}

static void pins_of_the_dead_are_void(void **state)
{
	struct books *books = books_new_policy("cache-dead-pins", 1 << 20, COSHM_CACHE_LRU);
	static unsigned char value[6000];
	const struct member member = {.books = books, .index = 0};

	(void)state;
	for (unsigned int lap = 0; lap < 60; lap++) {
		/* What the last one pinned is free again a moment after its death, or now. */
		assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
		/* Over many pages. */
		for (uint32_t key = 0; key < PINS_MAX + 1; key++)
			assert_int_equal(coshm_cache_set(books->cache, &key, sizeof(key), value,
							 sizeof(value), 0),
					 0);
		assert_int_equal(proc_collect(proc_spawn(pin_and_die, (void *)(uintptr_t)&member),
					      PROC_DEADLINE_NS),
				 -SIGKILL);
		assert_int_equal(books->inside, lap + 1);
		/* Twice the cache: every page is needed again. */
		for (uint32_t key = 1000; key < 1200; key++)
			assert_int_equal(coshm_cache_set(books->cache, &key, sizeof(key), value,
							 sizeof(value), 0),
					 0);
	}
	books_close(books);
}

/* scan, count. ------------------------------------------------------------------------------- */

#define STABLE 500

static int churn_around(void *arg)
{
	const struct member *member = arg;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);
	unsigned char value[600];

	PROMISE_EQUAL(member_cache(member, &cache), 0);
	memset(value, 1, sizeof(value));
	while (!crowd_is_over()) {
		const uint32_t stable = (uint32_t)random_below(&seed, STABLE);
		const uint32_t other = STABLE + (uint32_t)random_below(&seed, 2000);

		const int rc = coshm_cache_set(cache, &other, sizeof(other), value,
					       random_below(&seed, sizeof(value)), 0);

		PROMISE(rc == 0 || rc == -EAGAIN);
		if (random_below(&seed, 2))
			PROMISE(coshm_cache_delete(cache, &other, sizeof(other)) >= 0);
		/* Moves, but is always there. */
		PROMISE_EQUAL(coshm_cache_replace(cache, &stable, sizeof(stable), value,
						  random_below(&seed, sizeof(value)), 0),
			      1);
	}
	return 0;
}

struct walk {
	uint32_t seen[STABLE + 2000];
	uint64_t total;
};

static int walk_one(void *context, const void *key, size_t key_size_bytes, const void *value,
		    const struct coshm_cache_item *item)
{
	struct walk *walk = context;
	uint32_t number;

	(void)item;
	if (key_size_bytes != sizeof(number) || value)
		return -1;
	memcpy(&number, key, sizeof(number));
	if (number >= STABLE + 2000)
		return -2;
	walk->total += walk->seen[number] == 0;
	walk->seen[number]++;
	return 0;
}

static void walk_sees_each_item_that_is_always_there(void **state)
{
	struct books *books = books_new("cache-scan", 8 << 20);
	struct walk *walk = calloc(1, sizeof(*walk));
	const uint64_t start_ns = test_now_ns();
	uint64_t cursor = 0, count = 0;
	unsigned int walks = 0;
	struct crowd crowd;

	(void)state;
	assert_non_null(walk);
	for (uint32_t key = 0; key < STABLE; key++)
		assert_int_equal(coshm_cache_set(books->cache, &key, sizeof(key), "x", 1, 0), 0);
	crowd_start(&crowd, 4, churn_around, books, NULL);
	while ((walks <= 3 || test_now_ns() - start_ns < test_run_ns()) && !crowd_is_over()) {
		memset(walk, 0, sizeof(*walk));
		do
			assert_int_equal(coshm_cache_scan(books->cache, &cursor,
							  walks % 3 ? walks % 50 : 0, 0, walk_one,
							  walk),
					 0);
		while (cursor);
		for (uint32_t key = 0; key < STABLE; key++)
			assert_true(walk->seen[key] >= 1);
		walks++;
	}
	crowd_finish(&crowd);
	assert_true(walks > 3);
	/* At rest, and nobody was killed: exact. */
	memset(walk, 0, sizeof(*walk));
	assert_int_equal(coshm_cache_scan(books->cache, &cursor, 0, 0, walk_one, walk), 0);
	assert_int_equal(cursor, 0);
	for (uint32_t key = 0; key < STABLE + 2000; key++)
		assert_true(walk->seen[key] <= 1);
	assert_int_equal(coshm_cache_count(books->cache, &count), 0);
	assert_int_equal(count, walk->total);
	free(walk);
	books_close(books);
}

static void count_is_off_by_at_most_one_for_each_kill(void **state)
{
	struct books *books = books_new("cache-count", 8 << 20);
	struct walk *walk = calloc(1, sizeof(*walk));
	uint64_t cursor = 0, count = 0;
	struct crowd crowd;

	(void)state;
	assert_non_null(walk);
	for (uint32_t key = 0; key < STABLE; key++)
		assert_int_equal(coshm_cache_set(books->cache, &key, sizeof(key), "x", 1, 0), 0);
	crowd_start(&crowd, 4, churn_around, books, NULL);
	crowd_torment(&crowd, 0, 4, CROWD_KILL, test_run_ns());
	crowd_finish(&crowd);
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	assert_int_equal(coshm_cache_scan(books->cache, &cursor, 0, 0, walk_one, walk), 0);
	assert_int_equal(coshm_cache_count(books->cache, &count), 0);
	assert_true(count <= walk->total + crowd.kills);
	assert_true(walk->total <= count + crowd.kills);
	for (uint32_t key = 0; key < STABLE; key++)
		assert_true(walk->seen[key] >= 1);
	free(walk);
	books_close(books);
}

/* mget, sizes, handles. ---------------------------------------------------------------------- */

#define BATCH 300

static void mget_gives_what_gets_give(void **state)
{
	struct books *books = books_new("cache-mget", 4 << 20);
	struct coshm_cache_request requests[BATCH];
	static unsigned char buffers[BATCH][1000];
	uint32_t keys[BATCH];
	uint64_t seed = random_seed(NULL);

	(void)state;
	for (uint32_t key = 0; key < 2 * BATCH; key += 2) {
		unsigned char value[1000];
		const size_t size_bytes = random_below(&seed, sizeof(value) + 1);

		pattern_fill(key, value, size_bytes);
		assert_int_equal(
			coshm_cache_set(books->cache, &key, sizeof(key), value, size_bytes, 0), 0);
	}
	for (unsigned int lap = 0; lap < 50; lap++) {
		const size_t count = lap % 10 ? random_below(&seed, BATCH + 1) : lap / 10;
		int hits = 0;

		memset(requests, 0, sizeof(requests));
		for (size_t i = 0; i < count; i++) {
			keys[i] = (uint32_t)random_below(&seed, 2 * BATCH);
			requests[i].key = &keys[i];
			requests[i].key_size_bytes = sizeof(keys[i]);
			requests[i].buffer = buffers[i];
			requests[i].buffer_size_bytes = random_below(&seed, 1001);
			requests[i].ret_result = 12345;
		}
		assert_true(coshm_cache_mget(books->cache, requests, count) >= 0);
		for (size_t i = 0; i < count; i++) {
			unsigned char value[1000];
			size_t size_bytes = requests[i].buffer_size_bytes;
			const int rc = coshm_cache_get(books->cache, &keys[i], sizeof(keys[i]),
						       value, &size_bytes, NULL);

			assert_int_equal(requests[i].ret_result, rc);
			hits += rc == 1;
			if (rc != 0)
				assert_int_equal(requests[i].ret_value_size_bytes, size_bytes);
			if (rc == 1)
				assert_memory_equal(buffers[i], value, size_bytes);
		}
		assert_int_equal(coshm_cache_mget(books->cache, requests, count), hits);
	}
	books_close(books);
}

static void keys_are_compared_whole(void **state)
{
	struct books *books = books_new("cache-long-key", 4 << 20);
	static unsigned char key[65536 + 1];
	static const size_t sizes[] = {1,  2,	7,   8,	   9,	 15,	16,
				       17, 255, 256, 4095, 4096, 65534, 65535};
	char seen[16];

	(void)state;
	memset(key, 'k', sizeof(key));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_int_equal(coshm_cache_set(books->cache, key, sizes[i], &i, sizeof(i), 0), 0);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t size_bytes = sizeof(seen);

		assert_int_equal(
			coshm_cache_get(books->cache, key, sizes[i], seen, &size_bytes, NULL), 1);
		assert_memory_equal(seen, &i, sizeof(i));
		key[sizes[i] - 1] = 'l';
		assert_int_equal(coshm_cache_exists(books->cache, key, sizes[i]), 0);
		key[sizes[i] - 1] = 'k';
	}
	assert_int_equal(coshm_cache_set(books->cache, key, 0, "x", 1, 0), -EINVAL);
	assert_int_equal(coshm_cache_set(books->cache, key, 65536, "x", 1, 0), -EINVAL);
	assert_int_equal(coshm_cache_exists(books->cache, key, 65536), -EINVAL);
	books_close(books);
}

static void too_small_a_buffer_is_left_alone(void **state)
{
	struct books *books = books_new("cache-small", 1 << 20);
	unsigned char value[100], seen[100];
	struct coshm_cache_view view;

	(void)state;
	memset(value, 1, sizeof(value));
	assert_int_equal(coshm_cache_set(books->cache, "k", 1, value, sizeof(value), 0), 0);
	for (size_t capacity = 0; capacity < sizeof(value); capacity++) {
		size_t size_bytes = capacity;

		memset(seen, 2, sizeof(seen));
		assert_int_equal(coshm_cache_get(books->cache, "k", 1, capacity ? seen : NULL,
						 &size_bytes, NULL),
				 -ENOBUFS);
		assert_int_equal(size_bytes, sizeof(value));
		for (size_t i = 0; i < sizeof(seen); i++)
			assert_int_equal(seen[i], 2);
	}
	/* A pinned segment does not go. */
	assert_int_equal(coshm_cache_pin(books->cache, "k", 1, &view), 1);
	assert_int_equal(coshm_segment_detach(books->segment), -EBUSY);
	assert_int_equal(coshm_cache_unpin(books->cache, &view), 0);
	books_close(books);
}

static void closed_handle_stays_harmless(void **state)
{
	struct books *books = books_new("cache-closed", 1 << 20);
	size_t size_bytes = 0;

	(void)state;
	assert_int_equal(coshm_cache_close(books->cache), 0);
	assert_int_equal(coshm_cache_set(books->cache, "k", 1, "x", 1, 0), -EBADF);
	assert_int_equal(coshm_cache_get(books->cache, "k", 1, NULL, &size_bytes, NULL), -EBADF);
	assert_int_equal(coshm_cache_delete(books->cache, "k", 1), -EBADF);
	assert_int_equal(coshm_cache_set(NULL, "k", 1, "x", 1, 0), -EBADF);
	assert_int_equal(coshm_cache_close(NULL), 0);
	assert_int_equal(coshm_cache_open(books->segment, "c", &books->cache), 0);
	assert_int_equal(coshm_cache_set(books->cache, "k", 1, "x", 1, 0), 0);
	books_close(books);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exactly_one_of_sixteen_adders_wins),
		cmocka_unit_test(numbers_count_what_returned_and_nothing_unasked),
		cmocka_unit_test(numbers_wrap_and_values_are_no_numbers),
		cmocka_unit_test(pinned_bytes_stay_through_replacement_eviction_flush_and_fork),
		cmocka_unit_test(pins_of_the_dead_are_void),
		cmocka_unit_test(walk_sees_each_item_that_is_always_there),
		cmocka_unit_test(count_is_off_by_at_most_one_for_each_kill),
		cmocka_unit_test(mget_gives_what_gets_give),
		cmocka_unit_test(keys_are_compared_whole),
		cmocka_unit_test(too_small_a_buffer_is_left_alone),
		cmocka_unit_test(closed_handle_stays_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
