/* SPDX-License-Identifier: MIT */
#include "store.h"

#include <coshm/coshm.h>

#include <string.h>

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static size_t value_bytes;

static int our_open(const struct store_shape *shape)
{
	uint64_t item_bytes = BENCH_KEY_BYTES + shape->value_bytes;
	uint64_t all_bytes = (item_bytes + 44) * (shape->key_count + UINT64_C(10000));
	struct coshm_cache_config config = {
		.size_bytes = shape->evict_at_bytes ? shape->evict_at_bytes : all_bytes / 8 * 10,
		.average_item_bytes = item_bytes,
	};
	struct coshm_segment_config memory = {
		.size_bytes = config.size_bytes + (16 << 20),
		.flags = bench_huge_pages ? COSHM_SEGMENT_HUGE_PAGES : 0,
	};

	value_bytes = shape->value_bytes;
	bench_need(coshm_segment_create(bench_segment_name(), &memory, 0, &segment), "segment");
	bench_need(coshm_cache_create(segment, "cache", &config, 0, &cache), "cache");
	return 0;
}

static void our_close(void)
{
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
}

static void our_enter(void)
{
}

static void our_fill(const struct store_shape *shape)
{
	char key[BENCH_KEY_BYTES], value[STORE_VALUE_MAX];

	for (uint32_t i = 0; i < shape->key_count; i++) {
		bench_make_key(key, i);
		store_value(value, value_bytes, i);
		bench_need(coshm_cache_set(cache, key, BENCH_KEY_BYTES, value, value_bytes, 0),
			   "set");
	}
}

/* An orderly end: the next case has no dead to clean up after. */
static void our_leave(void)
{
	bench_need(coshm_segment_detach(segment), "detach");
}

static int our_get(store_key key, void *value)
{
	size_t size_bytes = STORE_VALUE_MAX;
	int hit = coshm_cache_get(cache, key, BENCH_KEY_BYTES, value, &size_bytes, NULL);

	return hit == 1 && size_bytes != value_bytes ? -1 : hit;
}

static int our_set(store_key key, const void *value)
{
	return coshm_cache_set(cache, key, BENCH_KEY_BYTES, value, value_bytes, 0) == 0;
}

static int our_mget(store_key *keys, void *values)
{
	struct coshm_cache_request requests[STORE_BATCH];

	for (size_t i = 0; i < STORE_BATCH; i++)
		requests[i] =
			(struct coshm_cache_request){.key = keys[i],
						     .key_size_bytes = BENCH_KEY_BYTES,
						     .buffer = (char *)values + i * value_bytes,
						     .buffer_size_bytes = value_bytes};
	return coshm_cache_mget(cache, requests, STORE_BATCH);
}

const struct store store_coshm = {
	.name = "coshm",
	.lacks = "",
	.evicts = 1,
	.has_mget = 1,
	.open = our_open,
	.fill = our_fill,
	.close = our_close,
	.enter = our_enter,
	.leave = our_leave,
	.get = our_get,
	.set = our_set,
	.mget = our_mget,
};
