/* SPDX-License-Identifier: MIT */
/* Policy lru with one lane is the textbook's: the same keys as a reference after every one of many random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "support/procs.h"

#define KEYS 64

/* The textbook: keys in the order of use, newest first. */
struct reference {
	int key[KEYS];
	int value[KEYS];
	int count;
	int capacity;
};

static int reference_find(const struct reference *r, int key)
{
	for (int i = 0; i < r->count; i++)
		if (r->key[i] == key)
			return i;
	return -1;
}

static void reference_remove(struct reference *r, int at)
{
	r->count--;
	memmove(&r->key[at], &r->key[at + 1], (size_t)(r->count - at) * sizeof(int));
	memmove(&r->value[at], &r->value[at + 1], (size_t)(r->count - at) * sizeof(int));
}

static void reference_to_front(struct reference *r, int key, int value)
{
	int at = reference_find(r, key);

	if (at >= 0)
		reference_remove(r, at);
	else if (r->count == r->capacity)
		r->count--;
	memmove(&r->key[1], &r->key[0], (size_t)r->count * sizeof(int));
	memmove(&r->value[1], &r->value[0], (size_t)r->count * sizeof(int));
	r->key[0] = key;
	r->value[0] = value;
	r->count++;
}

static struct coshm_segment *segment;
static char segment_name[TEST_SEGMENT_NAME_SIZE];

static int set_up(void **state)
{
	struct coshm_segment_config config = {.size_bytes = 16 << 20};

	(void)state;
	test_segment_name(segment_name, "lru");
	return coshm_segment_create(segment_name, &config, 0, &segment);
}

static int tear_down(void **state)
{
	(void)state;
	return coshm_segment_detach(segment) + coshm_segment_unlink(segment_name);
}

static struct coshm_cache *make(uint64_t max_entries, uint32_t lanes)
{
	struct coshm_cache_config config = {.size_bytes = 1 << 20,
					    .policy = COSHM_CACHE_LRU,
					    .max_entries = max_entries,
					    .lanes = lanes};
	struct coshm_cache *cache;

	assert_int_equal(coshm_cache_create(segment, "c", &config, 0, &cache), 0);
	return cache;
}

static void drop(struct coshm_cache *cache)
{
	struct coshm_verify_result result;

	assert_int_equal(coshm_inspect_verify(segment, NULL, NULL, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(coshm_cache_close(cache), 0);
	assert_int_equal(coshm_object_remove(segment, "c"), 0);
}

static void compare(struct coshm_cache *cache, const struct reference *reference)
{
	uint64_t count;

	for (int key = 0; key < KEYS; key++) {
		int at = reference_find(reference, key), value = -1;
		size_t size = sizeof(value);

		assert_int_equal(coshm_cache_peek(cache, &key, sizeof(key), &value, &size, NULL),
				 at >= 0);
		if (at >= 0)
			assert_int_equal(value, reference->value[at]);
	}
	assert_int_equal(coshm_cache_count(cache, &count), 0);
	assert_int_equal(count, reference->count);
}

static void random_operations(struct coshm_cache *cache, struct reference *reference, int steps)
{
	unsigned int random = 42;

	for (int step = 0; step < steps; step++) {
		int key, value = step, at, result;
		size_t size = sizeof(value);

		random = random * 1103515245 + 12345;
		key = (int)(random >> 16) % KEYS;
		at = reference_find(reference, key);
		random = random * 1103515245 + 12345;
		switch ((random >> 16) % 8) {
		case 0:
			assert_int_equal(coshm_cache_delete(cache, &key, sizeof(key)), at >= 0);
			if (at >= 0)
				reference_remove(reference, at);
			break;
		case 1:
			result = coshm_cache_add(cache, &key, sizeof(key), &value, size, 0);
			assert_int_equal(result, at < 0);
			if (at < 0)
				reference_to_front(reference, key, value);
			break;
		case 2:
			result = coshm_cache_replace(cache, &key, sizeof(key), &value, size, 0);
			assert_int_equal(result, at >= 0);
			if (at >= 0)
				reference_to_front(reference, key, value);
			break;
		case 3:
		case 4:
			assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &value, size, 0),
					 0);
			reference_to_front(reference, key, value);
			break;
		default:
			result = coshm_cache_get(cache, &key, sizeof(key), &value, &size, NULL);
			assert_int_equal(result, at >= 0);
			if (at >= 0)
				reference_to_front(reference, key, value);
			break;
		}
		if (step % 16 == 0)
			compare(cache, reference);
	}
	compare(cache, reference);
}

static void capacity_three_put_1_2_3_get_1_put_4_evicts_2(void **state)
{
	struct coshm_cache *cache = make(3, 1);
	struct reference reference = {.capacity = 3};
	int value;
	size_t size = sizeof(value);

	(void)state;
	for (int key = 1; key <= 3; key++) {
		assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &key, sizeof(key), 0),
				 0);
		reference_to_front(&reference, key, key);
	}
	assert_int_equal(coshm_cache_get(cache, &(int){1}, sizeof(int), &value, &size, NULL), 1);
	reference_to_front(&reference, 1, 1);
	assert_int_equal(coshm_cache_set(cache, &(int){4}, sizeof(int), &(int){4}, sizeof(int), 0),
			 0);
	reference_to_front(&reference, 4, 4);
	assert_int_equal(coshm_cache_exists(cache, &(int){2}, sizeof(int)), 0);
	compare(cache, &reference);
	drop(cache);
}

static void one_lane_is_the_textbook_for_any_capacity(void **state)
{
	(void)state;
	for (int capacity = 1; capacity <= KEYS; capacity = capacity * 2 + 1) {
		struct reference reference = {.capacity = capacity < KEYS ? capacity : KEYS};
		struct coshm_cache *cache = make((uint64_t)reference.capacity, 1);

		random_operations(cache, &reference, 20000);
		drop(cache);
	}
}

/* Enough overwriting to recycle every page many times: moving items must not disturb the order. */
static void order_survives_cleaning(void **state)
{
	struct coshm_cache *cache = make(20, 1);
	struct reference reference = {.capacity = 20};
	uint64_t cleaned;

	(void)state;
	random_operations(cache, &reference, 200000);
	assert_int_equal(coshm_stats_value(segment, "c", "pages_cleaned", &cleaned), 0);
	assert_true(cleaned > 30);
	drop(cache);
}

static void several_lanes_never_hold_more_than_max_entries(void **state)
{
	struct coshm_cache *cache = make(100, 4);
	uint64_t count;

	(void)state;
	for (int key = 0; key < 10000; key++) {
		assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &key, sizeof(key), 0),
				 0);
		assert_int_equal(coshm_cache_count(cache, &count), 0);
		assert_true(count <= 100);
	}
	drop(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(capacity_three_put_1_2_3_get_1_put_4_evicts_2),
		cmocka_unit_test(one_lane_is_the_textbook_for_any_capacity),
		cmocka_unit_test(order_survives_cleaning),
		cmocka_unit_test(several_lanes_never_hold_more_than_max_entries),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
