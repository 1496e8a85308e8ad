/* SPDX-License-Identifier: MIT */
/*
 * cache.h P6: an expired value is never served, and none is gone early, but for the clock's
 * coarseness.  Each comparison is between moments that surround the calls, so a slow machine
 * can only make it weaker, never wrong.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <coshm/cache.h>

#define KEYS 64

struct entry {
	/* Of the set that is in the cache; odd sequence: a set is under way. */
	_Atomic uint64_t sequence;
	_Atomic uint64_t before_ns;
	_Atomic uint64_t after_ns;
	_Atomic uint64_t ttl_ns;
};

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint64_t hits, expired;
	struct entry entries[KEYS];
};

/*
 * The clock that the header means. Where a hypervisor takes CPUs away it may fall behind the exact one by far more than
 * its tick, so times are compared with its own.
 */
static uint64_t coarse_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* Times to live are kept in whole milliseconds. */
static int write_with_ttl(struct books *books, struct coshm_cache *cache, uint64_t *seed,
			  uint32_t key)
{
	struct entry *entry = &books->entries[key];
	const uint64_t sequence = entry->sequence;
	uint64_t value[8];
	int rc;

	for (unsigned int i = 0; i < 8; i++)
		value[i] = sequence + 1;
	atomic_store(&entry->sequence, sequence + 1);
	atomic_store(&entry->ttl_ns, random_below(seed, 40 * MS) + 1);
	atomic_store(&entry->before_ns, coarse_now_ns());
	rc = coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value), entry->ttl_ns);
	PROMISE_EQUAL(rc, 0);
	atomic_store(&entry->after_ns, coarse_now_ns());
	atomic_store(&entry->sequence, sequence + 2);
	return 0;
}

static int read_with_ttl(struct books *books, struct coshm_cache *cache, uint32_t key)
{
	struct entry *entry = &books->entries[key];
	const uint64_t sequence = atomic_load(&entry->sequence);
	const uint64_t ttl_ns = entry->ttl_ns, set_before_ns = entry->before_ns,
		       set_after_ns = entry->after_ns;
	const uint64_t before_ns = coarse_now_ns();
	struct coshm_cache_item item;
	uint64_t value[8], after_ns;
	size_t size_bytes = sizeof(value);
	int rc, exists;

	exists = coshm_cache_exists(cache, &key, sizeof(key));
	rc = coshm_cache_get(cache, &key, sizeof(key), value, &size_bytes, &item);
	after_ns = coarse_now_ns();
	/* Only if the set had returned and no other began meanwhile. */
	if (sequence % 2 || sequence == 0 || atomic_load(&entry->sequence) != sequence)
		return 0;
	PROMISE(rc == 0 || rc == 1);
	if (rc == 1) {
		PROMISE_EQUAL(value[0], sequence - 1);
		PROMISE(before_ns <= set_after_ns + ttl_ns + MS);
		PROMISE(item.ttl_ns <= ttl_ns + MS);
		PROMISE(before_ns + item.ttl_ns <= set_after_ns + ttl_ns + MS);
		books->hits++;
	} else {
		PROMISE(after_ns >= set_before_ns + ttl_ns);
		books->expired++;
	}
	if (exists)
		PROMISE(before_ns <= set_after_ns + ttl_ns + MS);
	return 0;
}

/* Each key has one writer; all read. */
static int watch_the_time(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_cache_open(segment, "c", &cache), 0);
	while (!crowd_is_over()) {
		const uint32_t key = (uint32_t)random_below(&seed, KEYS);

		if (key % 4 == member->index && random_below(&seed, 100) == 0 &&
		    write_with_ttl(books, cache, &seed, key))
			return 1;
		if (read_with_ttl(books, cache, key))
			return 1;
		/* Readers as well, that long after the last look. */
		if (random_below(&seed, 500) == 0)
			test_sleep_ns(random_below(&seed, 5 * MS));
	}
	return 0;
}

static struct coshm_cache *cache_new(struct books *books, const char *tag)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 4 << 20};
	struct coshm_cache *cache;

	books->segment = segment_for_test(books->name, tag, 6 << 20);
	assert_int_equal(coshm_cache_create(books->segment, "c", &config, 0, &cache), 0);
	return cache;
}

static void no_value_is_served_late_or_gone_early(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct crowd crowd;

	(void)state;
	(void)cache_new(books, "cache-ttl");
	crowd_start(&crowd, 4, watch_the_time, books, NULL);
	crowd_torment(&crowd, 0, 4, CROWD_STOP, test_run_ns());
	CROWD_UNTIL(books->hits > 0 && books->expired > 0);
	crowd_finish(&crowd);
	assert_true(books->hits > 0 && books->expired > 0);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

/* Set with this ttl it must be there a moment later, and for ever with those. */
static void long_times_to_live_do_not_overflow(void **state)
{
	static const uint64_t ttls_ns[] = {
		0,
		COSHM_FOREVER,
		COSHM_FOREVER - 1,
		UINT64_MAX / 2,
		INT64_MAX,
		3600 * SECOND,
		UINT64_C(365) * 86400 * SECOND,
		UINT64_C(0xffffffff) * MS,
		UINT64_C(1) << 52,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_cache *cache = cache_new(books, "cache-long");

	(void)state;
	for (unsigned int i = 0; i < sizeof(ttls_ns) / sizeof(ttls_ns[0]); i++) {
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), "x", 1, ttls_ns[i]), 0);
		assert_int_equal(coshm_cache_exists(cache, &i, sizeof(i)), 1);
	}
	test_sleep_ns(30 * MS);
	for (unsigned int i = 0; i < sizeof(ttls_ns) / sizeof(ttls_ns[0]); i++) {
		struct coshm_cache_item item;
		char value[1];
		size_t size_bytes = 1;

		assert_int_equal(coshm_cache_get(cache, &i, sizeof(i), value, &size_bytes, &item),
				 1);
		if (i < 2)
			assert_true(item.ttl_ns == COSHM_FOREVER);
		else
			assert_true(item.ttl_ns > 1000 * SECOND);
	}
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void expired_key_is_absent_for_every_operation(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_cache *cache = cache_new(books, "cache-gone");
	const uint64_t ttl_ns = 2 * MS;
	uint64_t until_ns;
	struct coshm_cache_view view;
	char value[32];
	size_t size_bytes = sizeof(value);
	int64_t sum = 0;

	(void)state;
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), "old", 3, ttl_ns), 0);
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 5, 0, ttl_ns, &sum), 0);
	for (until_ns = coarse_now_ns() + ttl_ns + MS; coarse_now_ns() < until_ns;)
		test_sleep_ns(MS);
	for (uint32_t i = 0; i < 10; i++) {
		assert_int_equal(coshm_cache_exists(cache, &i, sizeof(i)), 0);
		assert_int_equal(coshm_cache_peek(cache, &i, sizeof(i), value, &size_bytes, NULL),
				 0);
		assert_int_equal(coshm_cache_pin(cache, &i, sizeof(i), &view), 0);
		assert_int_equal(coshm_cache_replace(cache, &i, sizeof(i), "new", 3, 0), 0);
		assert_int_equal(coshm_cache_delete(cache, &i, sizeof(i)), 0);
		assert_int_equal(coshm_cache_add(cache, &i, sizeof(i), "newer", 5, 0), 1);
		size_bytes = sizeof(value);
		assert_int_equal(coshm_cache_get(cache, &i, sizeof(i), value, &size_bytes, NULL),
				 1);
		assert_int_equal(size_bytes, 5);
		assert_memory_equal(value, "newer", 5);
	}
	/* A new number begins at its initial value. */
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 1, 1000, 0, &sum), 0);
	assert_int_equal(sum, 1001);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void number_keeps_the_time_of_its_creation(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_cache *cache = cache_new(books, "cache-num-ttl");
	struct coshm_cache_item item;
	char value[32];
	int64_t sum = 0;

	(void)state;
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 1, 0, 3600 * SECOND, &sum), 0);
	for (unsigned int i = 0; i < 100; i++) {
		size_t size_bytes = sizeof(value);

		assert_int_equal(coshm_cache_incr(cache, "n", 1, 1, 0, i % 2 ? MS : 0, &sum), 0);
		assert_int_equal(coshm_cache_get(cache, "n", 1, value, &size_bytes, &item), 1);
		assert_true(item.ttl_ns <= 3600 * SECOND + MS);
		assert_true(item.ttl_ns > 3000 * SECOND);
		assert_int_equal(item.number, 1);
	}
	assert_int_equal(sum, 101);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_value_is_served_late_or_gone_early),
		cmocka_unit_test(long_times_to_live_do_not_overflow),
		cmocka_unit_test(expired_key_is_absent_for_every_operation),
		cmocka_unit_test(number_keeps_the_time_of_its_creation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
