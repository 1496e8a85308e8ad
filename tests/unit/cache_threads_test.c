/* SPDX-License-Identifier: MIT */
/* Threads as members of a FENCED segment: what ThreadSanitizer can see of the protocol between processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "support/procs.h"

enum { THREADS = 4, STEPS = 15000, VALUE_MAX = 40000 };

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static char segment_name[TEST_SEGMENT_NAME_SIZE];
static _Atomic unsigned int bad;

static unsigned int next_random(unsigned int *state)
{
	*state = *state * 1103515245 + 12345;
	return *state >> 8;
}

/* All bytes of a value are the same, and the key's. */
static void check(const unsigned char *value, size_t size, uint32_t key)
{
	for (size_t i = 0; i < size; i++)
		if (value[i] != (unsigned char)key)
			bad++;
}

static int see(void *context, const void *key, size_t key_size, const void *value,
	       const struct coshm_cache_item *item)
{
	uint32_t number;

	(void)context;
	if (key_size == sizeof(number)) {
		memcpy(&number, key, sizeof(number));
		check(value, item->value_size_bytes, number);
	}
	return 0;
}

static void *work(void *arg)
{
	unsigned char value[VALUE_MAX];
	unsigned int random = (unsigned int)(uintptr_t)arg;

	for (int i = 0; i < STEPS; i++) {
		uint32_t key = next_random(&random) % 300;
		size_t size = next_random(&random) % (i % 20 ? 300 : VALUE_MAX);
		struct coshm_cache_view view;
		uint64_t cursor = 0;
		int64_t number;
		int result;

		switch (next_random(&random) % 10) {
		case 0:
			result = coshm_cache_delete(cache, &key, sizeof(key));
			break;
		case 1:
			result = coshm_cache_incr(cache, "n", 1, 1, 0, 0, &number);
			break;
		case 2:
			result = coshm_cache_pin(cache, &key, sizeof(key), &view);
			for (uint32_t p = 0; result == 1 && p < view.part_count; p++) {
				const void *data;
				size_t part;

				if (coshm_cache_view_part(&view, p, &data, &part))
					bad++;
				else
					check(data, part, key);
			}
			if (result == 1 && coshm_cache_unpin(cache, &view))
				bad++;
			break;
		case 3:
			cursor = key % 7;
			result = coshm_cache_scan(cache, &cursor, 3, COSHM_CACHE_SCAN_VALUES, see,
						  NULL);
			break;
		case 4:
		case 5:
		case 6:
			memset(value, (int)key, size);
			result = coshm_cache_set(cache, &key, sizeof(key), value, size,
						 i % 3 ? 0 : 5000000);
			break;
		default:
			size = sizeof(value);
			result = coshm_cache_get(cache, &key, sizeof(key), value, &size, NULL);
			if (result == 1)
				check(value, size, key);
		}
		if (result < 0 && result != -EAGAIN)
			bad++;
	}
	return NULL;
}

static void hammer(uint32_t policy)
{
	struct coshm_segment_config memory = {.size_bytes = 3 << 20, .flags = COSHM_SEGMENT_FENCED};
	struct coshm_cache_config config = {.size_bytes = 512 << 10, .policy = policy, .lanes = 2};
	struct coshm_verify_result result;
	pthread_t threads[THREADS];

	test_segment_name(segment_name, "cache-threads");
	assert_int_equal(coshm_segment_create(segment_name, &memory, 0, &segment), 0);
	assert_int_equal(coshm_cache_create(segment, "c", &config, 0, &cache), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(bad, 0);
	assert_int_equal(coshm_inspect_verify(segment, NULL, NULL, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(segment_name), 0);
}

static void threads_see_whole_values_s3fifo(void **state)
{
	(void)state;
	hammer(COSHM_CACHE_S3FIFO);
}

static void threads_see_whole_values_lru(void **state)
{
	(void)state;
	hammer(COSHM_CACHE_LRU);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_see_whole_values_s3fifo),
		cmocka_unit_test(threads_see_whole_values_lru),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
