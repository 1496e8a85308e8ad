/* SPDX-License-Identifier: MIT */
/* What coshm/cache.h promises to one process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "modules/cache/cache.h"
#include "support/procs.h"

#define MIB (UINT64_C(1) << 20)

struct fixture {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
};

static int set_up(void **state)
{
	struct coshm_segment_config config = {.size_bytes = 4 * MIB, .size_max_bytes = 256 * MIB};
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	test_segment_name(fixture->name, "cache");
	assert_int_equal(coshm_segment_create(fixture->name, &config, 0, &fixture->segment), 0);
	*state = fixture;
	return 0;
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level > COSHM_VERIFY_NOTE)
		fprintf(stderr, "# %s %s: %s\n",
			level == COSHM_VERIFY_DAMAGE ? "damage" : "pending", where, text);
}

static void assert_sound(struct coshm_segment *segment)
{
	struct coshm_verify_result result;

	assert_int_equal(coshm_inspect_verify(segment, NULL, print_finding, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(result.pending, 0);
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	assert_sound(fixture->segment);
	assert_int_equal(coshm_segment_detach(fixture->segment), 0);
	assert_int_equal(coshm_segment_unlink(fixture->name), 0);
	free(fixture);
	return 0;
}

static struct coshm_cache *make(void **state, const char *name,
				const struct coshm_cache_config *config)
{
	struct fixture *fixture = *state;
	struct coshm_cache *cache;

	assert_int_equal(coshm_cache_create(fixture->segment, name, config, 0, &cache), 0);
	return cache;
}

static uint64_t stat_of(void **state, const char *object, const char *name)
{
	struct fixture *fixture = *state;
	uint64_t value = 0;

	assert_int_equal(coshm_stats_value(fixture->segment, object, name, &value), 0);
	return value;
}

static int set(struct coshm_cache *cache, const char *key, const char *value)
{
	return coshm_cache_set(cache, key, strlen(key), value, strlen(value), 0);
}

/* The value as text; NULL: a miss. */
static const char *get(struct coshm_cache *cache, const char *key)
{
	static char buffer[4096];
	size_t size = sizeof(buffer) - 1;
	int result = coshm_cache_get(cache, key, strlen(key), buffer, &size, NULL);

	assert_in_range(result, 0, 1);
	if (!result)
		return NULL;
	buffer[size] = '\0';
	return buffer;
}

/* The segment's clock goes by @ns for this process. */
static void pass_time(struct coshm_cache *cache, uint64_t ns)
{
	struct coshm__op op;

	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	op.segment->clock_offset_ns -= (int64_t)ns;
	coshm__op_end(&op);
}

static const struct coshm_cache_config small_cache = {.size_bytes = MIB};

static void what_was_set_is_got_until_it_is_deleted(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);

	assert_null(get(cache, "a"));
	assert_int_equal(set(cache, "a", "one"), 0);
	assert_string_equal(get(cache, "a"), "one");
	assert_int_equal(set(cache, "a", "two, and longer"), 0);
	assert_string_equal(get(cache, "a"), "two, and longer");
	assert_int_equal(coshm_cache_delete(cache, "a", 1), 1);
	assert_null(get(cache, "a"));
	assert_int_equal(coshm_cache_delete(cache, "a", 1), 0);
	assert_int_equal(stat_of(state, "c", "hits"), 2);
	assert_int_equal(stat_of(state, "c", "misses"), 2);
	assert_int_equal(stat_of(state, "c", "sets"), 2);
	assert_int_equal(stat_of(state, "c", "deletes"), 1);
}

static void empty_slot_is_no_item_whatever_the_tag(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm__op op;
	uint64_t key = 0, hash;
	size_t size = 8;
	char value[8];

	/* A key with tag 0, as empty slots have it, at the place that an empty slot would name. */
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	do {
		key++;
		hash = coshm__cache_hash(op.handle->local, &key, sizeof(key));
	} while ((hash & 0xffff) != 0);
	coshm__op_end(&op);
	assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), "value", 5, 0), 0);
	assert_int_equal(coshm_cache_get(cache, &key, sizeof(key), value, &size, NULL), 1);
	assert_int_equal(coshm_cache_delete(cache, &key, sizeof(key)), 1);
	size = sizeof(value);
	assert_int_equal(coshm_cache_get(cache, &key, sizeof(key), value, &size, NULL), 0);
	assert_int_equal(coshm_cache_add(cache, &key, sizeof(key), "other", 5, 0), 1);
}

static void add_needs_absence_and_replace_presence(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);

	assert_int_equal(coshm_cache_replace(cache, "a", 1, "x", 1, 0), 0);
	assert_int_equal(coshm_cache_add(cache, "a", 1, "x", 1, 0), 1);
	assert_int_equal(coshm_cache_add(cache, "a", 1, "y", 1, 0), 0);
	assert_string_equal(get(cache, "a"), "x");
	assert_int_equal(coshm_cache_replace(cache, "a", 1, "z", 1, 0), 1);
	assert_string_equal(get(cache, "a"), "z");
	assert_int_equal(stat_of(state, "c", "sets_refused"), 2);
}

static void too_small_buffer_copies_nothing_and_says_the_size(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char buffer[4] = "abc";
	size_t size = 3;

	assert_int_equal(set(cache, "a", "four"), 0);
	assert_int_equal(coshm_cache_get(cache, "a", 1, buffer, &size, NULL), -ENOBUFS);
	assert_int_equal(size, 4);
	assert_string_equal(buffer, "abc");
	size = 0;
	assert_int_equal(coshm_cache_get(cache, "a", 1, NULL, &size, NULL), -ENOBUFS);
	assert_int_equal(set(cache, "empty", ""), 0);
	size = 0;
	assert_int_equal(coshm_cache_get(cache, "empty", 5, NULL, &size, NULL), 1);
	assert_int_equal(size, 0);
}

static void arguments_out_of_range_are_einval(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_cache_config bad[] = {
		{.size_bytes = 1000},
		{.size_bytes = MIB, .policy = 3},
		{.size_bytes = MIB, .max_entries = 3},
		{.size_bytes = MIB, .lanes = 1000},
		{.size_bytes = MIB, .policy = COSHM_CACHE_LRU, .max_entries = 1000000},
		{.size_bytes = MIB, .reserved = {0, 1}},
	};
	struct coshm_cache *other;
	struct fixture *fixture = *state;
	size_t size = 0;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(coshm_cache_create(fixture->segment, "x", &bad[i], 0, &other),
				 -EINVAL);
	assert_int_equal(coshm_cache_set(cache, "", 0, "x", 1, 0), -EINVAL);
	assert_int_equal(coshm_cache_set(cache, "a", 65536, "x", 1, 0), -EINVAL);
	assert_int_equal(coshm_cache_set(cache, "a", 1, NULL, 1, 0), -EINVAL);
	assert_int_equal(coshm_cache_get(cache, NULL, 1, NULL, &size, NULL), -EINVAL);
	assert_int_equal(coshm_cache_get(NULL, "a", 1, NULL, &size, NULL), -EBADF);
	assert_int_equal(coshm_cache_close(cache), 0);
	assert_int_equal(coshm_cache_set(cache, "a", 1, "x", 1, 0), -EBADF);
	assert_int_equal(coshm_cache_close(NULL), 0);
}

static void configuration_is_kept_with_its_defaults(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_LRU, .max_entries = 7, .lanes = 1};
	struct coshm_cache_config read = {.struct_size_bytes = sizeof(read)};
	struct coshm_cache *cache = make(state, "c", &config);

	assert_int_equal(coshm_cache_config(cache, &read), 0);
	assert_int_equal(read.size_bytes, MIB);
	assert_int_equal(read.policy, COSHM_CACHE_LRU);
	assert_int_equal(read.max_entries, 7);
	assert_int_equal(read.lanes, 1);
	assert_int_equal(read.average_item_bytes, 256);
}

/* P6 */
static void expired_value_is_a_miss_and_add_finds_it_absent(void **state)
{
	const uint64_t minute_ns = UINT64_C(60000000000), hour_ns = 60 * minute_ns;
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_cache_item item;
	char buffer[8];
	size_t size = sizeof(buffer);

	assert_int_equal(coshm_cache_set(cache, "a", 1, "x", 1, hour_ns), 0);
	assert_int_equal(coshm_cache_set(cache, "b", 1, "y", 1, COSHM_FOREVER), 0);
	assert_int_equal(coshm_cache_get(cache, "a", 1, buffer, &size, &item), 1);
	/* The clock of the machine goes on as well, but not by minutes. */
	assert_in_range(item.ttl_ns, hour_ns - 5 * minute_ns, hour_ns + UINT64_C(10000000));
	pass_time(cache, hour_ns - 10 * minute_ns);
	assert_string_equal(get(cache, "a"), "x");
	pass_time(cache, 10 * minute_ns + UINT64_C(10000000));
	assert_null(get(cache, "a"));
	assert_int_equal(coshm_cache_exists(cache, "a", 1), 0);
	assert_int_equal(coshm_cache_replace(cache, "a", 1, "z", 1, 0), 0);
	assert_int_equal(coshm_cache_delete(cache, "a", 1), 0);
	assert_int_equal(coshm_cache_add(cache, "a", 1, "new", 3, 0), 1);
	assert_string_equal(get(cache, "a"), "new");
	pass_time(cache, UINT64_C(1000000000000));
	assert_string_equal(get(cache, "b"), "y");
	size = sizeof(buffer);
	assert_int_equal(coshm_cache_get(cache, "b", 1, buffer, &size, &item), 1);
	assert_true(item.ttl_ns == COSHM_FOREVER);
	assert_true(stat_of(state, "c", "expired") >= 1);
}

static void expired_pages_are_reclaimed_before_live_ones(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char key[32], value[1000] = {0};

	for (int i = 0; i < 400; i++) {
		snprintf(key, sizeof(key), "short %d", i);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value),
						 UINT64_C(1000000000)),
				 0);
	}
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "long %d", i);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
	}
	pass_time(cache, UINT64_C(2000000000));
	for (int i = 0; i < 400; i++) {
		snprintf(key, sizeof(key), "new %d", i);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
	}
	assert_int_equal(stat_of(state, "c", "evicted_small"), 0);
	assert_true(stat_of(state, "c", "evicted_expired") > 100);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "long %d", i);
		assert_int_equal(coshm_cache_exists(cache, key, strlen(key)), 1);
	}
}

static uint64_t version_of(struct coshm_cache *cache, const char *key)
{
	struct coshm_cache_item item;
	char buffer[64];
	size_t size = sizeof(buffer);

	assert_int_equal(coshm_cache_get(cache, key, strlen(key), buffer, &size, &item), 1);
	return item.version;
}

static void version_differs_between_any_two_values(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	uint64_t versions[2000];

	for (int i = 0; i < 1000; i++) {
		assert_int_equal(set(cache, "a", "same"), 0);
		versions[i] = version_of(cache, "a");
		assert_true(version_of(cache, "a") == versions[i]);
	}
	assert_int_equal(coshm_cache_delete(cache, "a", 1), 1);
	for (int i = 1000; i < 2000; i++) {
		assert_int_equal(coshm_cache_incr(cache, "a", 1, 1, 0, 0, NULL), 0);
		versions[i] = version_of(cache, "a");
	}
	for (int i = 0; i < 2000; i++)
		for (int j = 0; j < i; j++)
			assert_true(versions[i] != versions[j]);
}

/* Values survive being moved: with their version, their time and, for numbers, what was added since. */
static void item_that_is_moved_keeps_value_version_and_expiry(void **state)
{
	struct coshm_cache_config config = {.size_bytes = MIB, .policy = COSHM_CACHE_NONE};
	struct coshm_cache *cache = make(state, "c", &config);
	struct coshm_cache_item before, after;
	char buffer[64], value[1000] = {1};
	size_t size = sizeof(buffer);
	struct coshm__cache *local;
	struct coshm__op op;
	int64_t number;

	/* A version lies in two words of an item: have something in both. */
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
	for (uint32_t lane = 0; lane < local->lane_count; lane++)
		coshm__a64_store_relaxed(&local->lanes[lane].sequence, UINT64_C(1) << 40);
	coshm__op_end(&op);
	assert_int_equal(coshm_cache_set(cache, "keep", 4, "kept", 4, UINT64_C(3600000000000)), 0);
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 5, 0, 0, &number), 0);
	assert_int_equal(coshm_cache_get(cache, "keep", 4, buffer, &size, &before), 1);
	for (int i = 0; i < 5000; i++) {
		char key[32];

		/* Live and dead side by side, so that cleaning has to move something. */
		snprintf(key, sizeof(key), "beside %d", i % 2 ? 0 : i % 1000);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
		assert_int_equal(coshm_cache_incr(cache, "n", 1, 1, 0, 0, &number), 0);
		assert_int_equal(number, 6 + i);
	}
	assert_true(stat_of(state, "c", "relocated") > 0);
	size = sizeof(buffer);
	assert_int_equal(coshm_cache_get(cache, "keep", 4, buffer, &size, &after), 1);
	assert_memory_equal(buffer, "kept", 4);
	assert_true(before.version == after.version);
	assert_in_range(before.ttl_ns - after.ttl_ns, 0, UINT64_C(60000000000));
}

static void number_is_text_to_get_and_wraps(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_cache_item item;
	char buffer[32];
	size_t size = sizeof(buffer);
	int64_t value;

	assert_int_equal(coshm_cache_incr(cache, "n", 1, -7, 5, 0, &value), 0);
	assert_int_equal(value, -2);
	assert_string_equal(get(cache, "n"), "-2");
	assert_int_equal(coshm_cache_incr(cache, "n", 1, INT64_MIN, 0, 0, &value), 0);
	assert_true(value == INT64_MAX - 1);
	assert_string_equal(get(cache, "n"), "9223372036854775806");
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 2, 0, 0, &value), 0);
	assert_true(value == INT64_MIN);
	assert_string_equal(get(cache, "n"), "-9223372036854775808");
	assert_int_equal(coshm_cache_get(cache, "n", 1, buffer, &size, &item), 1);
	assert_int_equal(item.number, 1);
	assert_int_equal(set(cache, "s", "12"), 0);
	assert_int_equal(coshm_cache_incr(cache, "s", 1, 1, 0, 0, &value), -EBADMSG);
	assert_int_equal(set(cache, "n", "text"), 0);
	assert_string_equal(get(cache, "n"), "text");
}

/* P5 */
static void number_in_use_stays(void **state)
{
	for (uint32_t policy = COSHM_CACHE_S3FIFO; policy <= COSHM_CACHE_LRU; policy++) {
		struct coshm_cache_config config = {.size_bytes = MIB, .policy = policy};
		char name[16], value[200] = {0};
		struct coshm_cache *cache;
		int64_t number = 0;

		snprintf(name, sizeof(name), "c%u", policy);
		cache = make(state, name, &config);
		for (int i = 0; i < 20000; i++) {
			assert_int_equal(
				coshm_cache_set(cache, &i, sizeof(i), value, sizeof(value), 0), 0);
			if (i % 10 == 0)
				assert_int_equal(
					coshm_cache_incr(cache, "number", 6, 1, 0, 0, &number), 0);
		}
		assert_int_equal(number, 2000);
	}
}

static void any_size_up_to_an_eighth_can_be_stored_for_ever(void **state)
{
	static const uint64_t sizes[] = {MIB / 4, MIB, 8 * MIB};
	unsigned char *value = malloc(MIB), *read = malloc(MIB);

	for (size_t s = 0; s < 3; s++) {
		for (uint32_t policy = 0; policy <= COSHM_CACHE_LRU; policy++) {
			struct coshm_cache_config config = {.size_bytes = sizes[s],
							    .policy = policy};
			char name[32], key[32];
			struct coshm_cache *cache;
			unsigned int random = 1;

			snprintf(name, sizeof(name), "c%zu-%u", s, policy);
			cache = make(state, name, &config);
			for (int i = 0; i < 3000; i++) {
				size_t key_size =
					(size_t)snprintf(key, sizeof(key), "key %d", i % 97);
				size_t size, read_size = MIB;

				random = random * 1103515245 + 12345;
				size = random / 8 % (sizes[s] / 8 - key_size + 1);
				if (i % 50 == 0)
					size = sizes[s] / 8 - key_size;
				memset(value, i, size);
				assert_int_equal(
					coshm_cache_set(cache, key, key_size, value, size, 0), 0);
				assert_int_equal(coshm_cache_get(cache, key, key_size, read,
								 &read_size, NULL),
						 1);
				assert_int_equal(read_size, size);
				assert_memory_equal(read, value, size);
			}
			assert_int_equal(coshm_cache_set(cache, "k", 1, value, sizes[s] / 8, 0),
					 -E2BIG);
			assert_sound(((struct fixture *)*state)->segment);
		}
	}
	free(value);
	free(read);
}

static void keys_of_any_length_work(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char *key = malloc(65535), buffer[16];

	memset(key, 'k', 65535);
	for (size_t size = 1; size <= 65535; size = size * 3 + (size == 1)) {
		size_t read = sizeof(buffer);

		assert_int_equal(coshm_cache_set(cache, key, size, "v", 1, 0), 0);
		assert_int_equal(coshm_cache_get(cache, key, size, buffer, &read, NULL), 1);
		assert_int_equal(coshm_cache_delete(cache, key, size), 1);
	}
	assert_int_equal(coshm_cache_set(cache, key, 65535, "last", 4, 0), 0);
	key[65534] = 'x';
	assert_int_equal(coshm_cache_exists(cache, key, 65535), 0);
	key[65534] = 'k';
	assert_int_equal(coshm_cache_exists(cache, key, 65535), 1);
	free(key);
}

static void incr_of_a_new_key_makes_room_in_a_full_index(void **state)
{
	/* Far more keys than the index has slots for: items were announced larger than they are. */
	for (uint32_t policy = COSHM_CACHE_S3FIFO; policy <= COSHM_CACHE_LRU; policy++) {
		struct coshm_cache_config config = {
			.size_bytes = MIB, .policy = policy, .average_item_bytes = 4096};
		struct coshm_cache *cache =
			make(state, policy == COSHM_CACHE_LRU ? "lru" : "s3fifo", &config);
		char key[32];
		int64_t value;

		for (int i = 0; i < 20000; i++) {
			snprintf(key, sizeof(key), "key %d", i);
			value = 0;
			assert_int_equal(coshm_cache_incr(cache, key, strlen(key), 1, 0, 0, &value),
					 0);
			assert_int_equal(value, 1);
			assert_int_equal(coshm_cache_exists(cache, key, strlen(key)), 1);
		}
	}
}

static void policy_none_is_full_at_last_and_loses_nothing(void **state)
{
	struct coshm_cache_config config = {.size_bytes = MIB, .policy = COSHM_CACHE_NONE};
	struct coshm_cache *cache = make(state, "c", &config);
	char key[32], value[500];
	int stored = 0;

	memset(value, 7, sizeof(value));
	for (;; stored++) {
		int result;

		snprintf(key, sizeof(key), "key %d", stored);
		result = coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0);
		if (result == 0)
			continue;
		assert_int_equal(result, -ENOSPC);
		break;
	}
	assert_true((uint64_t)stored * sizeof(value) > MIB * 7 / 10);
	/* Full as it is, each value can be replaced by one of its size. */
	for (int i = 0; i < 4 * stored; i++) {
		snprintf(key, sizeof(key), "key %d", i % stored);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
	}
	for (int i = 0; i < stored; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		assert_int_equal(coshm_cache_exists(cache, key, strlen(key)), 1);
	}
	/* And what is deleted can be used again. */
	for (int i = 0; i < stored / 2; i++) {
		snprintf(key, sizeof(key), "key %d", 2 * i);
		assert_int_equal(coshm_cache_delete(cache, key, strlen(key)), 1);
	}
	for (int i = 0; i < stored / 3; i++) {
		snprintf(key, sizeof(key), "new %d", i);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
	}
	assert_int_equal(stat_of(state, "c", "evicted"), 0);
}

/* Keys from @first on, until it is full. Returns how many. */
static uint32_t fill_from(struct coshm_cache *cache, uint32_t first, size_t value_bytes)
{
	static const char value[31000];
	uint32_t key = first;
	int error;

	while ((error = coshm_cache_set(cache, &key, sizeof(key), value, value_bytes, 0)) == 0)
		key++;
	assert_int_equal(error, -ENOSPC);
	return key - first;
}

static uint32_t fill(struct coshm_cache *cache, size_t value_bytes)
{
	return fill_from(cache, 0, value_bytes);
}

/* The page that is nearly empty could be moved for ever. */
static void policy_none_is_full_though_a_page_is_nearly_empty(void **state)
{
	struct coshm_cache_config config = {.size_bytes = MIB, .policy = COSHM_CACHE_NONE};
	struct coshm_cache *cache = make(state, "c", &config);
	char value[2000] = {0};
	uint32_t last = fill(cache, 31000) - 1;

	assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
	assert_int_equal(coshm_cache_set(cache, "small", 5, value, sizeof(value), 0), 0);
	assert_int_equal(fill(cache, 31000), last);
	assert_int_equal(coshm_cache_exists(cache, "small", 5), 1);
}

/* Alone in its page, with room for 30 others behind it. */
static void policy_none_finds_the_room_behind_a_small_value(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	uint32_t last = fill(cache, sizeof(value)) - 1, first = 0, more = 1000;

	assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
	assert_int_equal(coshm_cache_set(cache, "small", 5, value, 2000, 0), 0);
	/* Now its page is closed. */
	assert_int_equal(coshm_cache_set(cache, &first, sizeof(first), value, sizeof(value), 0), 0);
	while (coshm_cache_set(cache, &more, sizeof(more), value, 1000, 0) == 0)
		more++;
	/* And one behind each of the others. */
	assert_in_range(more, 1028 + last, 1032 + last);
	assert_int_equal(coshm_cache_exists(cache, "small", 5), 1);
}

/* So much was deleted there that it fits. */
static void policy_none_finds_the_room_of_what_was_deleted_in_the_open_page(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	uint32_t last = fill(cache, sizeof(value)) - 1;

	assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
	assert_int_equal(coshm_cache_set(cache, "small", 5, value, 2000, 0), 0);
	assert_int_equal(coshm_cache_set(cache, "other", 5, value, 1500, 0), 0);
	assert_int_equal(coshm_cache_delete(cache, "other", 5), 1);
	assert_int_equal(coshm_cache_set(cache, &last, sizeof(last), value, 30000, 0), 0);
	assert_int_equal(coshm_cache_exists(cache, "small", 5), 1);
}

/* One is nearly empty and closed; the other one is open, and more than half full. */
static void policy_none_makes_one_page_of_two(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	uint32_t last = fill(cache, sizeof(value)) - 1, before = last - 1, first = 0;

	assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
	assert_int_equal(coshm_cache_delete(cache, &before, sizeof(before)), 1);
	assert_int_equal(coshm_cache_set(cache, "small", 5, value, 2000, 0), 0);
	assert_int_equal(coshm_cache_set(cache, &first, sizeof(first), value, sizeof(value), 0), 0);
	assert_int_equal(coshm_cache_set(cache, "middle", 6, value, 17000, 0), 0);
	assert_int_equal(coshm_cache_set(cache, &last, sizeof(last), value, sizeof(value), 0), 0);
	assert_int_equal(coshm_cache_set(cache, &before, sizeof(before), value, sizeof(value), 0),
			 -ENOSPC);
	assert_int_equal(coshm_cache_exists(cache, "small", 5), 1);
	assert_int_equal(coshm_cache_exists(cache, "middle", 6), 1);
}

/* In each page is one value of more than half of it. */
static void policy_none_finds_the_room_behind_large_values(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	struct coshm_cache *cache = make(state, "c", &config);
	uint32_t pages = fill(cache, 17000);

	assert_in_range(fill_from(cache, 1000, 1000), pages * 14, pages * 16);
	for (uint32_t key = 0; key < pages; key++)
		assert_int_equal(coshm_cache_exists(cache, &key, sizeof(key)), 1);
}

static void policy_none_gives_back_an_open_page_of_the_deleted(void **state)
{
	struct coshm_cache_config config = {.size_bytes = MIB, .policy = COSHM_CACHE_NONE};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	uint32_t last = fill(cache, sizeof(value)) - 1;

	for (int i = 0; i < 5; i++) {
		assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
		assert_int_equal(coshm_cache_set(cache, "small", 5, value, 2000, 0), 0);
		assert_int_equal(coshm_cache_delete(cache, "small", 5), 1);
		assert_int_equal(
			coshm_cache_set(cache, &last, sizeof(last), value, sizeof(value), 0), 0);
	}
}

struct lane_holder {
	struct coshm_cache *cache;
	pthread_barrier_t held, over;
	int stores; /* something, before */
	int error;
};

static void *hold_a_lane(void *arg)
{
	struct lane_holder *holder = arg;
	struct coshm__rlock_shm *lock;
	struct coshm__cache *local;
	struct coshm__op op;
	char value[2000] = {0};

	holder->error = holder->stores &&
			coshm_cache_set(holder->cache, "other", 5, value, sizeof(value), 0);
	holder->error |= coshm__op_begin(&op, holder->cache, COSHM_OBJECT_CACHE);
	local = op.handle->local;
	lock = &local->lanes[coshm__cache_lane_next(&op, local)].lock;
	holder->error |= coshm__rlock_acquire(&op, lock, 0);
	pthread_barrier_wait(&holder->held);
	pthread_barrier_wait(&holder->over);
	coshm__rlock_release(&op, lock);
	coshm__op_end(&op);
	return NULL;
}

static void hold_begin(struct lane_holder *holder, struct coshm_cache *cache, pthread_t *thread)
{
	holder->cache = cache;
	pthread_barrier_init(&holder->held, NULL, 2);
	pthread_barrier_init(&holder->over, NULL, 2);
	assert_int_equal(pthread_create(thread, NULL, hold_a_lane, holder), 0);
	pthread_barrier_wait(&holder->held);
}

static void hold_end(struct lane_holder *holder, pthread_t thread)
{
	pthread_barrier_wait(&holder->over);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&holder->held);
	pthread_barrier_destroy(&holder->over);
	assert_int_equal(holder->error, 0);
}

/* Two pages are half empty, but one of them is open for a lane that nobody can take. */
static void policy_none_is_full_though_a_lane_is_held(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = 2 * MIB, .policy = COSHM_CACHE_NONE, .lanes = 2};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	struct lane_holder holder = {.stores = 1};
	uint32_t last, first = 0;
	pthread_t thread;
	int error;

	assert_int_equal(coshm_cache_set(cache, &first, sizeof(first), value, sizeof(value), 0), 0);
	hold_begin(&holder, cache, &thread);
	last = fill(cache, sizeof(value)) - 1;
	assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
	assert_int_equal(coshm_cache_set(cache, "small", 5, value, 2000, 0), 0);
	assert_int_equal(coshm_cache_set(cache, &first, sizeof(first), value, sizeof(value), 0), 0);
	error = coshm_cache_set(cache, &last, sizeof(last), value, sizeof(value), 0);
	hold_end(&holder, thread);
	assert_int_equal(error, -ENOSPC);
	/* It has gone on: two small values share a page now. */
	assert_int_equal(fill(cache, sizeof(value)), last + 1);
}

static void *store_a_little(void *arg)
{
	struct lane_holder *holder = arg;
	char value[2000] = {0};

	holder->error = coshm_cache_set(holder->cache, "other", 5, value, sizeof(value), 0);
	return NULL;
}

/* With any of the others, which have one value each, it would make a page, but it is open for another lane. */
static void policy_none_closes_the_page_of_another_lane_first(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = 2 * MIB, .policy = COSHM_CACHE_NONE, .lanes = 2};
	struct coshm_cache *cache = make(state, "c", &config);
	struct lane_holder holder = {.cache = cache};
	uint32_t first = 10000, pages;
	char value[17000] = {0};
	pthread_t thread;

	assert_int_equal(coshm_cache_set(cache, &first, sizeof(first), value, sizeof(value), 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, store_a_little, &holder), 0);
	pthread_join(thread, NULL);
	assert_int_equal(holder.error, 0);
	pages = fill(cache, sizeof(value));
	assert_in_range(pages, 40, 64);
	assert_int_equal(coshm_cache_exists(cache, "other", 5), 1);
}

/* The open page and a closed one would make one page, but for what is dead in the open one, which is too little. */
static void policy_none_is_full_beside_an_open_page_with_a_little_dead(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	static const struct {
		const char *key;
		size_t size_bytes;
	} values[] = {{"a", 100}, {"b", 100}, {"a", 16976}, {"c", 979}, {"b", 15379}, {"d", 979}};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	uint32_t count = fill(cache, sizeof(value)), key = 5000;

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		assert_int_equal(
			coshm_cache_set(cache, values[i].key, 1, value, values[i].size_bytes, 0),
			0);
	assert_int_equal(coshm_cache_delete(cache, "d", 1), 1);
	assert_int_equal(coshm_cache_delete(cache, "c", 1), 1);
	assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), value, 20000, 0), -ENOSPC);
	for (key = 0; key < count; key++)
		assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value), 0),
				 0);
}

/* The one that this thread would take, so it takes the spare one. */
static void policy_none_finds_room_though_its_lane_is_held(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[31000];
	struct lane_holder holder = {.stores = 0};
	uint32_t last = fill(cache, sizeof(value)) - 1, first = 0, key = 1000;
	pthread_t thread;

	assert_int_equal(coshm_cache_delete(cache, &last, sizeof(last)), 1);
	assert_int_equal(coshm_cache_set(cache, "small", 5, value, 2000, 0), 0);
	assert_int_equal(coshm_cache_set(cache, &first, sizeof(first), value, sizeof(value), 0), 0);
	hold_begin(&holder, cache, &thread);
	while (coshm_cache_set(cache, &key, sizeof(key), value, 1000, 0) == 0 && key < 1020)
		key++;
	hold_end(&holder, thread);
	assert_int_equal(key, 1020);
	/* By one move, not by moving to and fro until time is up. */
	assert_in_range(stat_of(state, "c", "relocated"), 1, 32 << 10);
}

/* @killed: by somebody who dies as soon as all is forgotten. */
static void forget_all(struct coshm_cache *cache, int killed)
{
	struct coshm__cache *local;
	struct coshm__op op;

	if (!killed) {
		assert_int_equal(coshm_cache_flush(cache), 0);
		return;
	}
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
	coshm__a64_store_relaxed(&local->shm->epoch, coshm__cache_epoch(local) + 1);
	coshm__op_end(&op);
}

static void all_that_is_flushed_comes_back(void **state, int killed)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_NONE, .lanes = 1};
	struct coshm_cache *cache = make(state, "c", &config);
	char value[1000] = {0};
	uint32_t most = fill(cache, sizeof(value)), key = 0;

	for (uint32_t count = 0; count < 20; count++) {
		forget_all(cache, killed);
		/* The last page that was opened is partly full at the next flush. */
		for (uint32_t i = 0; i < count; i++, key++)
			assert_int_equal(
				coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value), 0),
				0);
		forget_all(cache, killed);
		assert_int_equal(fill_from(cache, count * 10000, sizeof(value)), most);
	}
}

static void policy_none_gives_back_all_that_is_flushed(void **state)
{
	all_that_is_flushed_comes_back(state, 0);
}

static void policy_none_gives_back_what_a_killed_flusher_forgot(void **state)
{
	all_that_is_flushed_comes_back(state, 1);
}

static void ten_keys_overwritten_for_ever_fit(void **state)
{
	struct coshm_cache_config config = {.size_bytes = MIB / 4, .policy = COSHM_CACHE_NONE};
	struct coshm_cache *cache = make(state, "c", &config);
	char key[32], value[1000] = {0};

	for (int i = 0; i < 50000; i++) {
		snprintf(key, sizeof(key), "key %d", i % 10);
		assert_int_equal(
			coshm_cache_set(cache, key, strlen(key), value, (size_t)(i * 7 % 1000), 0),
			0);
	}
}

static void lanes_never_take_the_room_of_items(void **state)
{
	struct coshm_cache_config config = {.size_bytes = MIB / 4, .lanes = 62};
	struct coshm_cache *cache = make(state, "c", &config);
	static char value[32000];

	assert_int_equal(coshm_cache_config(cache, &config), 0);
	assert_true(config.lanes >= 1 && config.lanes < 62);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), value, sizeof(value), 0), 0);
		assert_int_equal(coshm_cache_exists(cache, &i, sizeof(i)), 1);
	}
}

static void flush_forgets_all_and_keeps_what_is_set_afterwards(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char key[32];
	uint64_t count;

	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		assert_int_equal(set(cache, key, "value"), 0);
	}
	assert_int_equal(coshm_cache_count(cache, &count), 0);
	assert_int_equal(count, 1000);
	assert_int_equal(coshm_cache_flush(cache), 0);
	assert_int_equal(coshm_cache_count(cache, &count), 0);
	assert_int_equal(count, 0);
	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		assert_null(get(cache, key));
	}
	assert_int_equal(coshm_cache_add(cache, "key 1", 5, "new", 3, 0), 1);
	assert_int_equal(coshm_cache_delete(cache, "key 2", 5), 0);
	assert_int_equal(coshm_cache_incr(cache, "key 3", 5, 1, 0, 0, NULL), 0);
	assert_string_equal(get(cache, "key 1"), "new");
	assert_int_equal(coshm_cache_count(cache, &count), 0);
	assert_int_equal(count, 2);
}

/* The items' 24 bits of the epoch come round again: what was forgotten must not come back. */
static void nothing_comes_back_when_the_epoch_wraps(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm__cache *local;
	struct coshm__op op;

	assert_int_equal(set(cache, "old", "value"), 0);
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
	for (uint64_t jump = UINT64_C(1) << 22; jump <= UINT64_C(1) << 24;
	     jump += UINT64_C(1) << 22) {
		coshm__a64_store_relaxed(&local->shm->epoch, jump - 1);
		coshm__op_end(&op);
		assert_int_equal(coshm_cache_flush(cache), 0);
		assert_null(get(cache, "old"));
		assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	}
	assert_int_equal(coshm__a64_load_relaxed(&local->shm->epoch) & 0xffffff, 0);
	coshm__op_end(&op);
	assert_null(get(cache, "old"));
	assert_int_equal(set(cache, "new", "value"), 0);
	assert_string_equal(get(cache, "new"), "value");
}

/*
 * P7. In each page lie two values, and behind them is too little room for another one; in one page there is one value of @last_bytes,
 * if any. Nothing is dead that could be cleaned away, and but one page is taken by others.
 */
static void replace_though_nothing_is_dead(void **state, size_t last_bytes)
{
	const struct coshm_cache_config config = {
		.size_bytes = MIB, .lanes = 1, .policy = COSHM_CACHE_NONE};
	static const size_t sizes[2] = {17000, 12000};
	static char value[17000], seen[17000];
	struct coshm_cache *cache = make(state, "c", &config);
	struct coshm__cache *local;
	struct coshm__op op;
	uint32_t page;
	uint64_t word;

	for (uint32_t key = 0; key < 20; key++)
		assert_int_equal(
			coshm_cache_set(cache, &key, sizeof(key), value, sizes[key % 2], 0), 0);
	if (last_bytes)
		assert_int_equal(coshm_cache_set(cache, "last", 4, value, last_bytes, 0), 0);
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
	assert_int_equal(coshm__cache_seal_all(&op, local, COSHM__CACHE_MAIN), 1);
	while (coshm__cache_page_take(local, 0, 1, COSHM__CACHE_PAGE_BUILD,
				      coshm__id24(op.member_id), &page, &word) == 0)
		;
	coshm__op_end(&op);
	for (uint32_t i = 0; i < 200; i++) {
		const uint32_t key = i * 7 % 20;
		size_t size_bytes = sizeof(seen);

		memset(value, (int)i, sizeof(value));
		assert_int_equal(
			coshm_cache_set(cache, &key, sizeof(key), value, sizes[key % 2], 0), 0);
		assert_int_equal(coshm_cache_get(cache, &key, sizeof(key), seen, &size_bytes, NULL),
				 1);
		assert_int_equal(size_bytes, sizes[key % 2]);
		assert_memory_equal(seen, value, size_bytes);
	}
}

static void value_is_replaced_though_nothing_is_dead(void **state)
{
	replace_though_nothing_is_dead(state, 0);
}

static void value_is_replaced_though_moving_makes_no_page_free(void **state)
{
	replace_though_nothing_is_dead(state, 9700);
}

static void mget_answers_each_request_for_itself(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_cache_request requests[50];
	char keys[50][16], values[50][16];

	for (int i = 0; i < 50; i++) {
		snprintf(keys[i], sizeof(keys[i]), "key %d", i);
		requests[i] = (struct coshm_cache_request){.key = keys[i],
							   .key_size_bytes = strlen(keys[i]),
							   .buffer = values[i],
							   .buffer_size_bytes = i == 7 ? 1 : 16};
		if (i % 3)
			assert_int_equal(set(cache, keys[i], keys[i]), 0);
	}
	assert_int_equal(coshm_cache_mget(cache, requests, 50), 32);
	for (int i = 0; i < 50; i++) {
		if (i % 3 == 0) {
			assert_int_equal(requests[i].ret_result, 0);
		} else if (i == 7) {
			assert_int_equal(requests[i].ret_result, -ENOBUFS);
			assert_int_equal(requests[i].ret_value_size_bytes, strlen(keys[i]));
		} else {
			assert_int_equal(requests[i].ret_result, 1);
			assert_int_equal(requests[i].ret_value_size_bytes, strlen(keys[i]));
			assert_memory_equal(values[i], keys[i], strlen(keys[i]));
		}
	}
	assert_int_equal(coshm_cache_mget(cache, NULL, 0), 0);
}

static int is_filled(const struct coshm_cache_view *view, unsigned char with)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < view->part_count; i++) {
		const void *data;
		size_t size;

		if (coshm_cache_view_part(view, i, &data, &size))
			return 0;
		for (size_t b = 0; b < size; b++)
			if (((const unsigned char *)data)[b] != with)
				return 0;
		total += size;
	}
	return total == view->size_bytes;
}

static void pinned_bytes_stay_whatever_happens_to_the_item(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_cache_view small_view, large_view, other;
	unsigned char value[100000];
	const void *data;
	size_t size;

	memset(value, 1, sizeof(value));
	assert_int_equal(coshm_cache_set(cache, "s", 1, value, 100, 0), 0);
	assert_int_equal(coshm_cache_set(cache, "l", 1, value, 100000, 0), 0);
	assert_int_equal(coshm_cache_pin(cache, "none", 4, &other), 0);
	assert_int_equal(coshm_cache_pin(cache, "s", 1, &small_view), 1);
	assert_int_equal(coshm_cache_pin(cache, "l", 1, &large_view), 1);
	assert_non_null(small_view.data);
	assert_int_equal(small_view.part_count, 1);
	assert_null(large_view.data);
	assert_true(large_view.part_count > 1);
	for (int i = 0; i < 5000; i++) {
		memset(value, i | 2, sizeof(value));
		assert_int_equal(coshm_cache_set(cache, i % 2 ? "s" : "l", 1, value,
						 (size_t)(i * 131 % 100000), 0),
				 0);
		if (i % 100 == 0) {
			assert_true(is_filled(&small_view, 1));
			assert_true(is_filled(&large_view, 1));
		}
	}
	assert_int_equal(coshm_cache_view_part(&large_view, large_view.part_count, &data, &size),
			 -EINVAL);
	assert_int_equal(coshm_cache_unpin(cache, &small_view), 0);
	assert_int_equal(coshm_cache_unpin(cache, &small_view), -ESTALE);
	assert_int_equal(coshm_cache_unpin(cache, &large_view), 0);
	for (int i = 0; i < 64; i++) {
		struct coshm_cache_view *views = test_calloc(65, sizeof(*views));
		int pinned = 0;

		assert_int_equal(coshm_cache_set(cache, "s", 1, value, 100, 0), 0);
		while (pinned < 65 && coshm_cache_pin(cache, "s", 1, &views[pinned]) == 1)
			pinned++;
		assert_int_equal(pinned, 64);
		assert_int_equal(coshm_cache_pin(cache, "s", 1, &views[64]), -EAGAIN);
		while (pinned-- > 0)
			assert_int_equal(coshm_cache_unpin(cache, &views[pinned]), 0);
		test_free(views);
	}
}

static void view_of_one_part_has_its_data_whatever_the_size(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	static unsigned char key[UINT16_MAX], value[70000];
	struct coshm_cache_view view;

	memset(key, 'k', sizeof(key));
	memset(value, 7, sizeof(value));
	/* Around the sizes at which a value gets pages of its own, and those at which it needs one more. */
	for (size_t size = 0; size < sizeof(value); size += size % 4096 < 4000 ? 500 : 1) {
		assert_int_equal(coshm_cache_set(cache, "k", 1, value, size, 0), 0);
		assert_int_equal(coshm_cache_pin(cache, "k", 1, &view), 1);
		assert_true(view.part_count >= 1);
		assert_true((view.part_count == 1) == (view.data != NULL));
		assert_true(is_filled(&view, 7));
		assert_int_equal(coshm_cache_unpin(cache, &view), 0);
	}
	for (size_t size = 4096; size < sizeof(key); size += 4096) {
		assert_int_equal(coshm_cache_set(cache, key, size, NULL, 0, 0), 0);
		assert_int_equal(coshm_cache_pin(cache, key, size, &view), 1);
		assert_int_equal(view.size_bytes, 0);
		assert_int_equal(view.part_count, 1);
		assert_int_equal(coshm_cache_unpin(cache, &view), 0);
	}
}

static int nothing_each(void *context, const void *key, size_t key_bytes, const void *value,
			const struct coshm_cache_item *item)
{
	(void)context;
	(void)key;
	(void)key_bytes;
	(void)value;
	(void)item;
	return 0;
}

/* A read-only attach has no open bit: its handles do not keep the memory. */
static void read_only_handle_is_stale_once_its_memory_is_free(void **state)
{
	struct fixture *fixture = *state;
	struct coshm_cache *old = make(state, "old", &small_cache), *other, *looks;
	struct coshm_cache_config config = {.struct_size_bytes = sizeof(config)};
	struct coshm_segment *read_only;
	uint64_t cursor = 0, count;
	size_t size = 0;
	char text[32];

	assert_int_equal(set(old, "k", "mine"), 0);
	assert_int_equal(coshm_segment_attach(fixture->name, COSHM_ATTACH_READ_ONLY, &read_only),
			 0);
	assert_int_equal(coshm_cache_open(read_only, "old", &looks), 0);
	assert_int_equal(coshm_object_remove(fixture->segment, "old"), 0);
	size = sizeof(text);
	assert_int_equal(coshm_cache_peek(looks, "k", 1, text, &size, NULL), 1);
	assert_int_equal(coshm_cache_close(old), 0);
	/* The same size, so the same place. */
	other = make(state, "other", &small_cache);
	assert_int_equal(set(other, "k", "not yours"), 0);
	size = sizeof(text);
	assert_int_equal(coshm_cache_peek(looks, "k", 1, text, &size, NULL), -ESTALE);
	assert_int_equal(coshm_cache_exists(looks, "k", 1), -ESTALE);
	assert_int_equal(coshm_cache_count(looks, &count), -ESTALE);
	assert_int_equal(coshm_cache_config(looks, &config), -ESTALE);
	assert_int_equal(coshm_cache_scan(looks, &cursor, 0, 0, nothing_each, NULL), -ESTALE);
	assert_int_equal(coshm_cache_close(looks), 0);
	assert_int_equal(coshm_segment_detach(read_only), 0);
}

static void pin_of_one_page_is_told_as_one(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct fixture *fixture = *state;
	struct coshm_member_info info;
	struct coshm_cache_view view;

	assert_int_equal(set(cache, "a", "value"), 0);
	assert_int_equal(coshm_cache_pin(cache, "a", 1, &view), 1);
	assert_int_equal(coshm_inspect_member(fixture->segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.pages_pinned, 1);
	assert_int_equal(info.pages_read + info.pages_written, 0);
	assert_int_equal(coshm_cache_unpin(cache, &view), 0);
}

static void view_is_not_the_forked_childs(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_cache_view view;
	int status;
	pid_t child;

	assert_int_equal(set(cache, "a", "value"), 0);
	assert_int_equal(coshm_cache_pin(cache, "a", 1, &view), 1);
	child = fork();
	if (child == 0) {
		struct coshm_cache_view own;

		/* A pin of the same page is none of the view. */
		if (coshm_cache_pin(cache, "a", 1, &own) != 1 ||
		    coshm_cache_unpin(cache, &view) != -ESTALE)
			_exit(1);
		_exit(coshm_cache_unpin(cache, &own) == 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(coshm_cache_unpin(cache, &view), 0);
	assert_int_equal(coshm_segment_reap(((struct fixture *)*state)->segment, NULL), 0);
}

struct seen {
	struct coshm_cache *cache;
	int times[1000];
	int with_values;
	int calls;
};

static int see(void *context, const void *key, size_t key_size, const void *value,
	       const struct coshm_cache_item *item)
{
	struct seen *seen = context;
	char text[32] = "";
	int number;

	memcpy(text, key, key_size);
	if (sscanf(text, "key %d", &number) != 1 || number >= 1000)
		return 1;
	if (seen->with_values != (value != NULL) ||
	    (value && (item->value_size_bytes != key_size || memcmp(value, key, key_size) != 0)))
		return 2;
	seen->times[number]++;
	seen->calls++;
	/* The cache may be used in the callback. */
	return coshm_cache_exists(seen->cache, key, key_size) == 1 ? 0 : 3;
}

static void scan_sees_each_item_once_with_any_budget(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char key[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		assert_int_equal(set(cache, key, key), 0);
	}
	for (uint64_t budget = 0; budget < 100; budget += 33) {
		struct seen seen = {.cache = cache, .with_values = budget > 0};
		uint64_t cursor = 0;

		do {
			assert_int_equal(coshm_cache_scan(cache, &cursor, budget,
							  budget ? COSHM_CACHE_SCAN_VALUES : 0, see,
							  &seen),
					 0);
		} while (cursor != 0);
		for (int i = 0; i < 1000; i++)
			assert_int_equal(seen.times[i], 1);
	}
}

static void scan_sees_each_item_once_on_a_read_only_attach(void **state)
{
	struct fixture *fixture = *state;
	struct coshm_cache *cache = make(state, "c", &small_cache);
	struct coshm_segment *segment;
	struct coshm_cache *read_only;
	struct seen seen = {.with_values = 1};
	uint64_t cursor = 0, count;
	char key[32], buffer[64];
	size_t size = sizeof(buffer);
	unsigned char large[100000], copy[100000];
	struct coshm_cache_item item;

	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		assert_int_equal(set(cache, key, key), 0);
	}
	assert_int_equal(coshm_segment_attach(fixture->name, COSHM_ATTACH_READ_ONLY, &segment), 0);
	assert_int_equal(coshm_cache_open(segment, "c", &read_only), 0);
	seen.cache = read_only;
	assert_int_equal(
		coshm_cache_scan(read_only, &cursor, 0, COSHM_CACHE_SCAN_VALUES, see, &seen), 0);
	assert_int_equal(seen.calls, 1000);
	assert_int_equal(coshm_cache_peek(read_only, "key 7", 5, buffer, &size, &item), 1);
	assert_memory_equal(buffer, "key 7", 5);
	assert_true(item.version == version_of(cache, "key 7"));
	assert_int_equal(coshm_cache_peek(read_only, "none", 4, buffer, &size, NULL), 0);
	assert_int_equal(coshm_cache_exists(read_only, "key 9", 5), 1);
	assert_int_equal(coshm_cache_count(read_only, &count), 0);
	assert_int_equal(count, 1000);
	size = sizeof(buffer);
	assert_int_equal(coshm_cache_get(read_only, "key 7", 5, buffer, &size, NULL), -EROFS);
	assert_int_equal(coshm_cache_set(read_only, "a", 1, "b", 1, 0), -EROFS);
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = (unsigned char)(i * 7);
	assert_int_equal(coshm_cache_set(cache, "large", 5, large, sizeof(large), 0), 0);
	size = sizeof(copy);
	assert_int_equal(coshm_cache_peek(read_only, "large", 5, copy, &size, NULL), 1);
	assert_memory_equal(copy, large, sizeof(large));
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 42, 0, 0, NULL), 0);
	size = sizeof(buffer);
	assert_int_equal(coshm_cache_peek(read_only, "n", 1, buffer, &size, &item), 1);
	assert_memory_equal(buffer, "42", 2);
	assert_true(item.version == version_of(cache, "n"));
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void peek_neither_counts_nor_touches(void **state)
{
	struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_LRU, .lanes = 1, .max_entries = 2};
	struct coshm_cache *cache = make(state, "c", &config);
	char buffer[8];
	size_t size = sizeof(buffer);

	assert_int_equal(set(cache, "1", "a"), 0);
	assert_int_equal(set(cache, "2", "b"), 0);
	assert_int_equal(coshm_cache_peek(cache, "1", 1, buffer, &size, NULL), 1);
	assert_int_equal(set(cache, "3", "c"), 0);
	assert_int_equal(coshm_cache_exists(cache, "1", 1), 0);
	assert_int_equal(stat_of(state, "c", "hits"), 0);
}

static void values_read_once_leave_and_values_read_again_stay(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char key[32], value[200] = {0};
	size_t size;
	int kept = 0;

	for (int i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "hot %d", i);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
	}
	for (int i = 0; i < 40000; i++) {
		snprintf(key, sizeof(key), "hot %d", i % 500);
		size = sizeof(value);
		assert_in_range(coshm_cache_get(cache, key, strlen(key), value, &size, NULL), 0, 1);
		snprintf(key, sizeof(key), "cold %d", i);
		assert_int_equal(coshm_cache_set(cache, key, strlen(key), value, sizeof(value), 0),
				 0);
	}
	for (int i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "hot %d", i);
		kept += coshm_cache_exists(cache, key, strlen(key));
	}
	assert_int_equal(kept, 500);
}

static void errno_is_left_alone(void **state)
{
	struct coshm_cache *cache = make(state, "c", &small_cache);
	char buffer[4];
	size_t size = sizeof(buffer);

	errno = 12345;
	assert_int_equal(set(cache, "a", "b"), 0);
	assert_int_equal(coshm_cache_get(cache, "a", 1, buffer, &size, NULL), 1);
	assert_int_equal(coshm_cache_get(cache, "x", 1, buffer, &size, NULL), 0);
	assert_int_equal(coshm_cache_set(cache, "a", 1, buffer, SIZE_MAX, 0), -E2BIG);
	assert_int_equal(errno, 12345);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_set_is_got_until_it_is_deleted),
		TEST(empty_slot_is_no_item_whatever_the_tag),
		TEST(add_needs_absence_and_replace_presence),
		TEST(too_small_buffer_copies_nothing_and_says_the_size),
		TEST(arguments_out_of_range_are_einval),
		TEST(configuration_is_kept_with_its_defaults),
		TEST(expired_value_is_a_miss_and_add_finds_it_absent),
		TEST(expired_pages_are_reclaimed_before_live_ones),
		TEST(version_differs_between_any_two_values),
		TEST(item_that_is_moved_keeps_value_version_and_expiry),
		TEST(number_is_text_to_get_and_wraps),
		TEST(number_in_use_stays),
		TEST(any_size_up_to_an_eighth_can_be_stored_for_ever),
		TEST(keys_of_any_length_work),
		TEST(incr_of_a_new_key_makes_room_in_a_full_index),
		TEST(policy_none_is_full_at_last_and_loses_nothing),
		TEST(policy_none_is_full_though_a_page_is_nearly_empty),
		TEST(policy_none_finds_the_room_behind_a_small_value),
		TEST(policy_none_finds_the_room_of_what_was_deleted_in_the_open_page),
		TEST(policy_none_makes_one_page_of_two),
		TEST(policy_none_finds_the_room_behind_large_values),
		TEST(policy_none_closes_the_page_of_another_lane_first),
		TEST(policy_none_is_full_beside_an_open_page_with_a_little_dead),
		TEST(policy_none_finds_room_though_its_lane_is_held),
		TEST(policy_none_gives_back_an_open_page_of_the_deleted),
		TEST(policy_none_is_full_though_a_lane_is_held),
		TEST(policy_none_gives_back_all_that_is_flushed),
		TEST(policy_none_gives_back_what_a_killed_flusher_forgot),
		TEST(ten_keys_overwritten_for_ever_fit),
		TEST(lanes_never_take_the_room_of_items),
		TEST(flush_forgets_all_and_keeps_what_is_set_afterwards),
		TEST(nothing_comes_back_when_the_epoch_wraps),
		TEST(value_is_replaced_though_nothing_is_dead),
		TEST(value_is_replaced_though_moving_makes_no_page_free),
		TEST(mget_answers_each_request_for_itself),
		TEST(pin_of_one_page_is_told_as_one),
		TEST(read_only_handle_is_stale_once_its_memory_is_free),
		TEST(pinned_bytes_stay_whatever_happens_to_the_item),
		TEST(view_of_one_part_has_its_data_whatever_the_size),
		TEST(view_is_not_the_forked_childs),
		TEST(scan_sees_each_item_once_with_any_budget),
		TEST(scan_sees_each_item_once_on_a_read_only_attach),
		TEST(peek_neither_counts_nor_touches),
		TEST(values_read_once_leave_and_values_read_again_stay),
		TEST(errno_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
