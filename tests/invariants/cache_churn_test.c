/* SPDX-License-Identifier: MIT */
/*
 * cache.h P1, P2, P4, P5 under fire: each value is a function of what its first bytes say, so a
 * reader can tell a whole value from anything else; writers, readers and pinners are killed and
 * stopped while a small cache evicts all the time.
 */
#include "invariants/crowd.h"

#include "modules/cache/cache.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/cache.h>
#include <coshm/stats.h>

#define MEMBERS	   8
#define WRITERS	   4
#define KEYS	   1500
#define CACHE_SIZE (4 << 20)
/* Small enough that pins and values being written never take all pages. */
#define VALUE_MAX (CACHE_SIZE / 32)

enum reader_kind { READ_GET, READ_PIN, READ_MGET, READ_SCAN };

struct head {
	uint64_t seed;
	uint32_t key;
	uint32_t size_bytes;
};

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint64_t stored, hits, misses;
};

static size_t random_size(uint64_t *seed)
{
	const size_t small = sizeof(struct head);

	switch (random_below(seed, 40)) {
	case 0:
		return VALUE_MAX;
	case 1:
	case 2:
		return small + random_below(seed, VALUE_MAX - small);
	case 3:
	case 4:
	case 5:
	case 6:
		return small + random_below(seed, 9000);
	default:
		return small + random_below(seed, 400);
	}
}

static int value_is_whole(uint32_t key, const void *value, size_t size_bytes)
{
	struct head head;

	PROMISE(size_bytes >= sizeof(head));
	memcpy(&head, value, sizeof(head));
	PROMISE_EQUAL(head.key, key);
	PROMISE_EQUAL(head.size_bytes, size_bytes);
	PROMISE(pattern_matches(head.seed, (const char *)value + sizeof(head),
				size_bytes - sizeof(head)));
	return 0;
}

static int write_one(struct books *books, struct coshm_cache *cache, uint64_t *seed, char *value)
{
	struct head head = {
		.seed = random_next(seed),
		.key = (uint32_t)random_below(seed, KEYS),
		.size_bytes = (uint32_t)random_size(seed),
	};
	/* Mostly without end; sometimes gone within the test. */
	const uint64_t ttl_ns = random_below(seed, 4) ? 0 : random_below(seed, 50 * MS) + 1;
	const unsigned int what = (unsigned int)random_below(seed, 20);
	int rc;

	memcpy(value, &head, sizeof(head));
	pattern_fill(head.seed, value + sizeof(head), head.size_bytes - sizeof(head));
	if (what < 12)
		rc = coshm_cache_set(cache, &head.key, sizeof(head.key), value, head.size_bytes,
				     ttl_ns);
	else if (what < 15)
		rc = coshm_cache_add(cache, &head.key, sizeof(head.key), value, head.size_bytes,
				     ttl_ns);
	else if (what < 18)
		rc = coshm_cache_replace(cache, &head.key, sizeof(head.key), value, head.size_bytes,
					 ttl_ns);
	else
		rc = coshm_cache_delete(cache, &head.key, sizeof(head.key));
	if (rc == -EAGAIN) {
		/* Where all wait for two CPUs a lock can be busy for 100 ms; a delete has none. */
		PROMISE(what < 18);
		return 0;
	}
	PROMISE(what < 12 ? rc == 0 : rc == 0 || rc == 1);
	books->stored += what < 12 || rc == 1;
	return 0;
}

static int read_get(struct books *books, struct coshm_cache *cache, uint64_t *seed, char *value)
{
	const uint32_t key = (uint32_t)random_below(seed, KEYS);
	size_t capacity_bytes = random_below(seed, 8) ? VALUE_MAX : random_below(seed, 1000);
	size_t size_bytes = capacity_bytes;
	const int peek = (int)random_below(seed, 2);
	struct coshm_cache_item item;
	int rc;

	value[capacity_bytes] = 0x55;
	rc = peek ? coshm_cache_peek(cache, &key, sizeof(key), value, &size_bytes, &item)
		  : coshm_cache_get(cache, &key, sizeof(key), value, &size_bytes, &item);
	PROMISE_EQUAL(value[capacity_bytes], 0x55);
	if (rc == -ENOBUFS) {
		PROMISE(size_bytes > capacity_bytes && size_bytes <= VALUE_MAX);
		return 0;
	}
	PROMISE(rc == 0 || rc == 1);
	books->hits += rc == 1;
	books->misses += rc == 0;
	if (rc == 0)
		return 0;
	PROMISE_EQUAL(item.value_size_bytes, size_bytes);
	PROMISE_EQUAL(item.number, 0);
	PROMISE(item.ttl_ns == COSHM_FOREVER || item.ttl_ns <= 60 * MS);
	return value_is_whole(key, value, size_bytes);
}

static int view_is_whole(uint32_t key, const struct coshm_cache_view *view, char *value)
{
	size_t total_bytes = 0;

	PROMISE(view->part_count >= 1);
	PROMISE((view->data != NULL) == (view->part_count == 1));
	PROMISE(view->size_bytes <= VALUE_MAX);
	for (uint32_t i = 0; i < view->part_count; i++) {
		const void *part;
		size_t part_bytes;

		PROMISE_EQUAL(coshm_cache_view_part(view, i, &part, &part_bytes), 0);
		PROMISE(total_bytes + part_bytes <= view->size_bytes);
		memcpy(value + total_bytes, part, part_bytes);
		total_bytes += part_bytes;
	}
	PROMISE_EQUAL(total_bytes, view->size_bytes);
	return value_is_whole(key, value, total_bytes);
}

/* What is pinned stays as it was, whatever happens to the item meanwhile. */
static int read_pin(struct coshm_cache *cache, uint64_t *seed, char *value)
{
	struct coshm_cache_view views[3];
	uint32_t keys[3];
	unsigned int count = 0;

	while (count < 3) {
		const uint32_t key = (uint32_t)random_below(seed, KEYS);
		const int rc = coshm_cache_pin(cache, &key, sizeof(key), &views[count]);

		PROMISE(rc == 0 || rc == 1);
		if (rc == 0)
			break;
		keys[count++] = key;
	}
	for (unsigned int i = 0; i < count; i++) {
		if (view_is_whole(keys[i], &views[i], value))
			return 1;
	}
	if (random_below(seed, 2))
		test_sleep_ns(random_below(seed, 3 * MS));
	for (unsigned int i = 0; i < count; i++) {
		if (view_is_whole(keys[i], &views[i], value))
			return 1;
		PROMISE_EQUAL(coshm_cache_unpin(cache, &views[i]), 0);
	}
	return 0;
}

#define BATCH 16

static int read_mget(struct coshm_cache *cache, uint64_t *seed, char *value)
{
	struct coshm_cache_request requests[BATCH];
	uint32_t keys[BATCH];
	const size_t each_bytes = VALUE_MAX / BATCH;
	int hits = 0, rc;

	memset(requests, 0, sizeof(requests));
	for (unsigned int i = 0; i < BATCH; i++) {
		keys[i] = (uint32_t)random_below(seed, KEYS);
		requests[i].key = &keys[i];
		requests[i].key_size_bytes = sizeof(keys[i]);
		requests[i].buffer = value + i * each_bytes;
		requests[i].buffer_size_bytes = each_bytes;
	}
	rc = coshm_cache_mget(cache, requests, BATCH);
	for (unsigned int i = 0; i < BATCH; i++) {
		const int result = requests[i].ret_result;

		PROMISE(result == 0 || result == 1 || result == -ENOBUFS);
		hits += result == 1;
		if (result == -ENOBUFS)
			PROMISE(requests[i].ret_value_size_bytes > each_bytes);
		if (result == 1 &&
		    value_is_whole(keys[i], requests[i].buffer, requests[i].ret_value_size_bytes))
			return 1;
	}
	PROMISE_EQUAL(rc, hits);
	return 0;
}

static int scan_one(void *context, const void *key, size_t key_size_bytes, const void *value,
		    const struct coshm_cache_item *item)
{
	uint32_t number;

	(void)context;
	PROMISE_EQUAL(key_size_bytes, sizeof(number));
	memcpy(&number, key, sizeof(number));
	PROMISE(number < KEYS);
	PROMISE(value != NULL);
	return value_is_whole(number, value, item->value_size_bytes);
}

static int read_scan(struct coshm_cache *cache, uint64_t *seed)
{
	uint64_t cursor = 0;
	unsigned int calls = 0;

	do {
		PROMISE_EQUAL(coshm_cache_scan(cache, &cursor, random_below(seed, 100),
					       COSHM_CACHE_SCAN_VALUES, scan_one, NULL),
			      0);
		PROMISE(++calls < 1000000);
	} while (cursor && !crowd_is_over());
	return 0;
}

static int churn(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	static char value[VALUE_MAX + 64];
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);
	int rc = 0;

	/* One of them only looks. */
	if (member->index == MEMBERS - 1)
		PROMISE_EQUAL(coshm_segment_attach(books->name, COSHM_ATTACH_READ_ONLY, &segment),
			      0);
	else
		PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_cache_open(segment, "pages", &cache), 0);
	while (!crowd_is_over() && !rc) {
		if (member->index < WRITERS) {
			rc = write_one(books, cache, &seed, value);
			continue;
		}
		if (member->index == MEMBERS - 1) {
			const uint32_t key = (uint32_t)random_below(&seed, KEYS);
			size_t size_bytes = VALUE_MAX;
			const int hit = coshm_cache_peek(cache, &key, sizeof(key), value,
							 &size_bytes, NULL);

			/* -EAGAIN: it changed each time that it was copied. */
			PROMISE(hit == 0 || hit == 1 || hit == -EAGAIN);
			rc = (hit == 1 && value_is_whole(key, value, size_bytes)) ||
			     (random_below(&seed, 200) == 0 && read_scan(cache, &seed));
			continue;
		}
		switch (random_below(&seed, 200) ? random_below(&seed, READ_SCAN) : READ_SCAN) {
		case READ_GET:
			rc = read_get(books, cache, &seed, value);
			break;
		case READ_PIN:
			rc = read_pin(cache, &seed, value);
			break;
		case READ_MGET:
			rc = read_mget(cache, &seed, value);
			break;
		default:
			rc = read_scan(cache, &seed);
		}
	}
	return rc;
}

struct counted {
	uint64_t items;
};

static int count_one(void *context, const void *key, size_t key_size_bytes, const void *value,
		     const struct coshm_cache_item *item)
{
	struct counted *counted = context;

	(void)key;
	(void)key_size_bytes;
	(void)value;
	(void)item;
	counted->items++;
	return 0;
}

static void values_are_whole(uint32_t policy, uint32_t lanes, int torments)
{
	const struct coshm_cache_config config = {
		.struct_size_bytes = sizeof(config),
		.size_bytes = CACHE_SIZE,
		.policy = policy,
		.lanes = lanes,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));
	static char value[VALUE_MAX + 64];
	struct counted counted = {0};
	uint64_t count = 0, cursor = 0;
	struct coshm_cache *cache;
	struct crowd crowd;

	books->segment = segment_for_test(books->name, "cache-churn", 6 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "pages", &config, 0, &cache), 0);
	crowd_start(&crowd, MEMBERS, churn, books, NULL);
	if (torments)
		crowd_torment(&crowd, 0, MEMBERS, torments, test_run_ns());
	else
		test_sleep_ns(test_run_ns() / 2);
	CROWD_UNTIL(books->hits > 0 && books->misses > 0 && books->stored > KEYS);
	crowd_finish(&crowd);
	assert_true(books->hits > 0 && books->misses > 0 && books->stored > KEYS);

	/* Those that expired count until they are reclaimed: let all that can expire be gone. */
	test_sleep_ns(70 * MS);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_cache_scan(cache, &cursor, 0, 0, count_one, &counted), 0);
	assert_int_equal(coshm_cache_count(cache, &count), 0);
	assert_true(count + crowd.kills >= counted.items);
	assert_true(counted.items <= KEYS);

	/* It is as large as before: what fills it twice over can still be stored. */
	for (uint32_t i = 0; i < 64; i++) {
		const struct head head = {.seed = i, .key = i, .size_bytes = VALUE_MAX};
		size_t size_bytes = VALUE_MAX;

		memcpy(value, &head, sizeof(head));
		pattern_fill(i, value + sizeof(head), VALUE_MAX - sizeof(head));
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), value, VALUE_MAX, 0), 0);
		memset(value, 0, sizeof(value));
		assert_int_equal(coshm_cache_get(cache, &i, sizeof(i), value, &size_bytes, NULL),
				 1);
		assert_int_equal(value_is_whole(i, value, size_bytes), 0);
	}
	segment_is_sound(books->segment);
	assert_int_equal(coshm_cache_flush(cache), 0);
	counted.items = 0;
	assert_int_equal(coshm_cache_scan(cache, &cursor, 0, 0, count_one, &counted), 0);
	assert_int_equal(counted.items, 0);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void values_are_whole_while_the_cache_evicts(void **state)
{
	(void)state;
	values_are_whole(COSHM_CACHE_S3FIFO, 0, 0);
	values_are_whole(COSHM_CACHE_LRU, 1, 0);
}

static void values_are_whole_while_members_are_killed(void **state)
{
	(void)state;
	values_are_whole(COSHM_CACHE_S3FIFO, 0, CROWD_KILL);
	values_are_whole(COSHM_CACHE_LRU, 2, CROWD_KILL);
}

static void values_are_whole_while_members_are_killed_and_stopped(void **state)
{
	(void)state;
	values_are_whole(COSHM_CACHE_S3FIFO, 2, CROWD_KILL | CROWD_STOP);
}

/* Read-only members hold no page: what changed while they stood still must not be believed. --- */

static int write_or_walk(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	static char value[VALUE_MAX + 64];
	struct coshm_segment *segment = books->segment;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);
	int rc = 0;

	if (member->index >= WRITERS)
		PROMISE_EQUAL(coshm_segment_attach(books->name, COSHM_ATTACH_READ_ONLY, &segment),
			      0);
	PROMISE_EQUAL(coshm_cache_open(segment, "pages", &cache), 0);
	while (!crowd_is_over() && !rc) {
		const uint32_t key = (uint32_t)random_below(&seed, KEYS);
		size_t size_bytes = VALUE_MAX;

		if (member->index < WRITERS) {
			rc = write_one(books, cache, &seed, value);
		} else if (random_below(&seed, 1000) == 0) {
			rc = read_scan(cache, &seed);
		} else {
			const int hit = coshm_cache_peek(cache, &key, sizeof(key), value,
							 &size_bytes, NULL);

			PROMISE(hit == 0 || hit == 1 || hit == -EAGAIN);
			rc = hit == 1 && value_is_whole(key, value, size_bytes);
		}
	}
	return rc;
}

static void read_only_members_stopped_anywhere_see_whole_values(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = CACHE_SIZE};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_cache *cache;
	struct crowd crowd;

	(void)state;
	books->segment = segment_for_test(books->name, "cache-walk", 6 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "pages", &config, 0, &cache), 0);
	crowd_start(&crowd, MEMBERS, write_or_walk, books, NULL);
	crowd_torment(&crowd, WRITERS, MEMBERS - WRITERS, CROWD_STOP, 2 * test_run_ns());
	CROWD_UNTIL(books->stored > KEYS);
	crowd_finish(&crowd);
	assert_true(crowd.stops > 0 && books->stored > KEYS);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

/* Writers that stand still anywhere: readers, replacing writers and deleters go on. ---------- */

#define STILL_LAPS 30
#define STILL_KEYS 50

static int write_all_the_time(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);
	static char value[VALUE_MAX + 64];

	PROMISE_EQUAL(coshm_cache_open(books->segment, "pages", &cache), 0);
	while (!crowd_is_over()) {
		/* The first keys are replaced only; new ones come and go. */
		const uint32_t key = random_below(&seed, 2)
					     ? (uint32_t)random_below(&seed, STILL_KEYS)
					     : 1000 + (uint32_t)random_below(&seed, 1000);
		const struct head head = {
			.seed = random_next(&seed),
			.key = key,
			.size_bytes = (uint32_t)(sizeof(head) + random_below(&seed, 500)),
		};
		int rc;

		memcpy(value, &head, sizeof(head));
		pattern_fill(head.seed, value + sizeof(head), head.size_bytes - sizeof(head));
		rc = coshm_cache_set(cache, &key, sizeof(key), value, head.size_bytes, 0);
		PROMISE(rc == 0 || rc == -EAGAIN);
		if (key >= 1000 && random_below(&seed, 2))
			PROMISE(coshm_cache_delete(cache, &key, sizeof(key)) >= 0);
	}
	return 0;
}

/* Reads without any system call: there is nothing it could wait by. */
static int read_without_system_calls(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	static char value[VALUE_MAX + 64];
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);

	if (coshm_cache_open(books->segment, "pages", &cache) ||
	    read_get(books, cache, &seed, value) || forbid_system_calls(SYSTEM_CALLS_NONE))
		return 1;
	for (unsigned int i = 0; i < 20000; i++) {
		const uint32_t key = (uint32_t)(i % STILL_KEYS);
		size_t size_bytes = VALUE_MAX;

		/* Never deleted, and the cache is not full: it must be there. */
		if (coshm_cache_get(cache, &key, sizeof(key), value, &size_bytes, NULL) != 1 ||
		    value_is_whole(key, value, size_bytes) ||
		    coshm_cache_exists(cache, &key, sizeof(key)) != 1)
			_exit(2);
	}
	_exit(0);
}

static int replace_and_delete(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache *cache;
	/* Where those stopped keep all lanes, each replace takes 10 ms and a page. */
	const uint64_t end_ns = test_now_ns() + 300 * MS;

	PROMISE_EQUAL(coshm_cache_open(books->segment, "pages", &cache), 0);
	for (uint32_t i = 0; i < 2000 && (i < 10 || test_now_ns() < end_ns); i++) {
		const uint32_t key = i % STILL_KEYS;
		const struct head head = {.seed = 0, .key = key, .size_bytes = sizeof(head)};
		const uint32_t gone = 1000 + i;

		PROMISE_EQUAL(coshm_cache_replace(cache, &key, sizeof(key), &head, sizeof(head), 0),
			      1);
		PROMISE(coshm_cache_delete(cache, &gone, sizeof(gone)) >= 0);
	}
	return 0;
}

static void writers_stopped_anywhere_block_no_get_replace_or_delete(void **state)
{
	const struct coshm_cache_config config = {
		.struct_size_bytes = sizeof(config), .size_bytes = 8 << 20, .lanes = 1};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct member outsider = {.books = books, .index = 20};
	struct coshm_cache *cache;
	struct crowd crowd;

	(void)state;
	books->segment = segment_for_test(books->name, "cache-still", 10 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "pages", &config, 0, &cache), 0);
	for (uint32_t key = 0; key < STILL_KEYS; key++) {
		const struct head head = {.seed = 0, .key = key, .size_bytes = sizeof(head)};

		assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &head, sizeof(head), 0),
				 0);
	}
	crowd_start(&crowd, 4, write_all_the_time, books, NULL);
	for (unsigned int lap = 0; lap < STILL_LAPS && !crowd_is_over(); lap++) {
		test_sleep_ns(MS * (lap % 7) + MS / 3);
		for (unsigned int i = 0; i < 4; i++)
			assert_int_equal(proc_pause(crowd.procs[i]), 0);
		assert_int_equal(proc_collect(proc_spawn(read_without_system_calls, &outsider),
					      PROC_DEADLINE_NS),
				 0);
		assert_int_equal(
			proc_collect(proc_spawn(replace_and_delete, &outsider), PROC_DEADLINE_NS),
			0);
		for (unsigned int i = 0; i < 4; i++)
			proc_resume(crowd.procs[i]);
	}
	crowd_finish(&crowd);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

/* The lane with that number, and then stands still. */
static int keep_a_lane(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache *cache;
	struct coshm__cache *local;
	struct coshm__op op;

	PROMISE_EQUAL(coshm_cache_open(books->segment, "pages", &cache), 0);
	PROMISE_EQUAL(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
	PROMISE(member->index < local->lane_total);
	PROMISE_EQUAL(coshm__rlock_acquire(&op, &local->lanes[member->index].lock, 0), 0);
	raise(SIGSTOP);
	coshm__rlock_release(&op, &local->lanes[member->index].lock);
	coshm__op_end(&op);
	return 0;
}

/* More often than the cache has pages, in every way of storing. */
static void store_all_around(struct coshm_cache *cache, uint32_t value_bytes)
{
	static char value[VALUE_MAX], read[VALUE_MAX];

	for (uint32_t i = 0; i < 60; i++) {
		const uint32_t key = i % 20, mine = 1000 + i;
		struct coshm_cache_item first, second;
		size_t size_bytes = sizeof(read);

		pattern_fill(i, value, value_bytes);
		assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), value, value_bytes, 0),
				 0);
		size_bytes = sizeof(read);
		assert_int_equal(
			coshm_cache_get(cache, &key, sizeof(key), read, &size_bytes, &first), 1);
		assert_int_equal(
			coshm_cache_replace(cache, &key, sizeof(key), value, value_bytes, 0), 1);
		size_bytes = sizeof(read);
		assert_int_equal(
			coshm_cache_get(cache, &key, sizeof(key), read, &size_bytes, &second), 1);
		assert_int_equal(size_bytes, value_bytes);
		assert_true(pattern_matches(i, read, value_bytes));
		assert_true(first.version != second.version);
		assert_int_equal(coshm_cache_add(cache, &mine, sizeof(mine), value, value_bytes, 0),
				 1);
		assert_int_equal(coshm_cache_delete(cache, &mine, sizeof(mine)), 1);
	}
}

static void holders_of_all_lanes_that_are_stopped_block_no_set(void **state)
{
	const struct coshm_cache_config config = {
		.struct_size_bytes = sizeof(config), .size_bytes = 1 << 20, .lanes = 1};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct member holders[2] = {{.books = books, .index = 0}, {.books = books, .index = 1}};
	struct proc *procs[2];
	struct coshm_cache *cache;

	(void)state;
	books->segment = segment_for_test(books->name, "cache-lanes", 3 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "pages", &config, 0, &cache), 0);
	for (unsigned int i = 0; i < 2; i++) {
		procs[i] = proc_spawn(keep_a_lane, &holders[i]);
		assert_int_equal(proc_wait_stopped(procs[i], PROC_DEADLINE_NS), 1);
	}
	store_all_around(cache, 500);
	store_all_around(cache, VALUE_MAX / 4);
	proc_resume(procs[0]);
	assert_int_equal(proc_collect(procs[0], PROC_DEADLINE_NS), 0);
	proc_kill(procs[1]);
	store_all_around(cache, 500);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void gets_make_no_system_call_under_churn(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 8 << 20};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct member outsider = {.books = books, .index = 20};
	struct coshm_cache *cache;
	struct crowd crowd;

	(void)state;
	books->segment = segment_for_test(books->name, "cache-sys", 10 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "pages", &config, 0, &cache), 0);
	for (uint32_t key = 0; key < STILL_KEYS; key++) {
		const struct head head = {.seed = 0, .key = key, .size_bytes = sizeof(head)};

		assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &head, sizeof(head), 0),
				 0);
	}
	crowd_start(&crowd, 3, write_all_the_time, books, NULL);
	for (unsigned int lap = 0; lap < 10; lap++)
		assert_int_equal(proc_collect(proc_spawn(read_without_system_calls, &outsider),
					      PROC_DEADLINE_NS),
				 0);
	crowd_finish(&crowd);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_whole_while_the_cache_evicts),
		cmocka_unit_test(values_are_whole_while_members_are_killed),
		cmocka_unit_test(values_are_whole_while_members_are_killed_and_stopped),
		cmocka_unit_test(read_only_members_stopped_anywhere_see_whole_values),
		cmocka_unit_test(writers_stopped_anywhere_block_no_get_replace_or_delete),
		cmocka_unit_test(holders_of_all_lanes_that_are_stopped_block_no_set),
		cmocka_unit_test(gets_make_no_system_call_under_churn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
