/* SPDX-License-Identifier: MIT */
/* modules/cache/layout.c - how the memory of a cache is divided */
#include "base/log.h"
#include "modules/cache/cache.h"

#include <unistd.h>

#define SIZE_MIN	 (UINT64_C(256) << 10)
#define SIZE_MAX_BYTES	 (UINT64_C(1) << 40)
#define PAGE_BYTES_MIN	 (UINT64_C(4) << 10)
#define PAGE_BYTES_USUAL (UINT64_C(32) << 10)
#define AVERAGE_DEFAULT	 256
#define ITEM_OVERHEAD	 40
/* Bytes that one barrier (up to 13 us, and an interrupt to each CPU that runs a member) should pay for. */
#define BARRIER_BYTES (UINT64_C(256) << 10)

static uint64_t power_of_two_below(uint64_t value)
{
	return UINT64_C(1) << (63 - __builtin_clzll(value));
}

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
	return value < low ? low : value > high ? high : value;
}

/*
 * Large enough that a barrier per few pages costs nothing per item, small enough that the small queue, a tenth, is
 * still many pages. Caches of large items get larger pages: at the end of each, half an item is wasted.
 */
static uint64_t choose_page_bytes(uint64_t size_bytes, uint64_t average_item_bytes)
{
	uint64_t page_bytes = clamp(power_of_two_below(size_bytes / 512), PAGE_BYTES_USUAL,
				    COSHM__CACHE_PAGE_BYTES_MAX);

	while (page_bytes < COSHM__CACHE_PAGE_BYTES_MAX && page_bytes < 8 * average_item_bytes &&
	       page_bytes * 2 <= size_bytes / 256)
		page_bytes *= 2;
	while (page_bytes > PAGE_BYTES_MIN && size_bytes / page_bytes < 24)
		page_bytes /= 2;
	return page_bytes;
}

/*
 * 7 slots per bucket. At a load of 0.6 no key ever fails to find a slot among 8 buckets and one in ten stands away
 * from home. Where items are large the index costs nothing: more room keeps more ghosts.
 */
static uint64_t choose_bucket_count(uint64_t entries, uint64_t average_item_bytes)
{
	uint64_t load_percent = average_item_bytes < 1024   ? 60
				: average_item_bytes < 4096 ? 40
							    : 15;

	uint64_t count = clamp(entries * 100 / (COSHM__CACHE_BUCKET_SLOTS * load_percent) + 1, 16,
			       UINT32_MAX / 8 - 16);

	/* No common divisor with 2 to 7: then 8 steps of any length lead to 8 different buckets. */
	while (count % 2 == 0 || count % 3 == 0 || count % 5 == 0 || count % 7 == 0)
		count++;
	return count;
}

static uint32_t choose_lane_count(uint32_t page_count)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t lanes = page_count / 64;

	if (cpus > 0 && (uint64_t)cpus < lanes)
		lanes = (uint64_t)cpus;
	return (uint32_t)clamp(lanes, 1, COSHM__CACHE_LANES_MAX);
}

struct carver {
	unsigned char *base;
	uint64_t used;
};

static void *carve(struct carver *carver, uint64_t count, uint64_t each, uint64_t align)
{
	uint64_t at = (carver->used + align - 1) / align * align;

	carver->used = at + count * each;
	return carver->base ? carver->base + at : NULL;
}

static void carve_all(struct coshm__cache *cache, struct carver *carver)
{
	cache->shm = carve(carver, 1, sizeof(*cache->shm), 64);
	cache->counters = carve(carver, 1, sizeof(*cache->counters), 64);
	cache->lanes_offset = carver->used;
	cache->lanes = carve(carver, cache->lane_total, sizeof(*cache->lanes), 64);
	cache->stripes_offset = carver->used;
	cache->stripes = carve(carver, cache->stripe_count, sizeof(*cache->stripes), 64);
	cache->lists_offset = carver->used;
	cache->lists = carve(carver, cache->policy == COSHM_CACHE_LRU ? cache->lane_count : 0,
			     sizeof(*cache->lists), 64);
	cache->words = carve(carver, cache->page_count, sizeof(*cache->words), 64);
	cache->pages = carve(carver, cache->page_count, sizeof(*cache->pages), 64);
	cache->nodes = carve(carver, cache->node_count, sizeof(*cache->nodes), 64);
	cache->buckets = carve(carver, cache->bucket_count, sizeof(*cache->buckets), 64);
	cache->log = carve(carver, cache->page_count, cache->page_bytes, COSHM__PAGE_BYTES);
}

/* Says which field is wrong. */
static int config_check(const struct coshm_cache_config *config)
{
	if (config->size_bytes < SIZE_MIN || config->size_bytes > SIZE_MAX_BYTES)
		return coshm__fail(-EINVAL,
				   "cache: size_bytes is %llu; it is 256 KiB at least and 1 TiB "
				   "at most",
				   (unsigned long long)config->size_bytes);
	if (config->policy > COSHM_CACHE_NONE)
		return coshm__fail(-EINVAL, "cache: policy %u is unknown", config->policy);
	if (config->lanes > COSHM__CACHE_LANES_MAX)
		return coshm__fail(-EINVAL, "cache: lanes is %u; it is %d at most", config->lanes,
				   COSHM__CACHE_LANES_MAX);
	if (config->max_entries && config->policy != COSHM_CACHE_LRU)
		return coshm__fail(-EINVAL, "cache: max_entries is for the policy lru only");
	if (config->max_entries > UINT32_MAX / 8)
		return coshm__fail(-EINVAL, "cache: max_entries is %llu; it is %u at most",
				   (unsigned long long)config->max_entries, UINT32_MAX / 8);
	if (config->average_item_bytes > SIZE_MAX_BYTES)
		return coshm__fail(-EINVAL, "cache: average_item_bytes is over 1 TiB");
	if (config->reserved[0] || config->reserved[1])
		return coshm__fail(-EINVAL, "cache: a reserved field is not 0");
	return 0;
}

int coshm__cache_layout(struct coshm__cache *cache, const struct coshm_cache_config *config,
			void *base)
{
	struct carver carver = {NULL, 0};
	uint64_t entries;
	int error = config_check(config);

	memset(cache, 0, sizeof(*cache));
	if (error)
		return error;
	cache->policy = config->policy;
	cache->max_entries = config->max_entries;
	cache->total_bytes = config->size_bytes / COSHM__PAGE_BYTES * COSHM__PAGE_BYTES;
	cache->average_item_bytes =
		config->average_item_bytes ? config->average_item_bytes : AVERAGE_DEFAULT;
	cache->page_bytes =
		(uint32_t)choose_page_bytes(cache->total_bytes, cache->average_item_bytes);
	cache->item_bytes_max = cache->total_bytes / 8;
	cache->head_bytes = cache->policy == COSHM_CACHE_LRU ? 24 : 20;

	entries = cache->max_entries
			  ? cache->max_entries
			  : cache->total_bytes / (cache->average_item_bytes + ITEM_OVERHEAD);
	cache->bucket_count = choose_bucket_count(entries, cache->average_item_bytes);
	cache->bucket_step_modulus = cache->bucket_count - 1;
	cache->stripe_count =
		(uint32_t)clamp(power_of_two_below(cache->bucket_count / 16 + 1), 8, 1024);

	cache->page_count =
		(uint32_t)clamp(cache->total_bytes / cache->page_bytes, 16, COSHM__CACHE_PAGES_MAX);
	cache->lane_count = config->lanes ? config->lanes : choose_lane_count(cache->page_count);
	/* A lane has up to two pages open and one kept back: all lanes together leave most pages to the log. */
	cache->lane_count = (uint32_t)clamp(cache->lane_count, 1, cache->page_count / 8);
	cache->lane_total = cache->lane_count + 1;
	if (cache->policy == COSHM_CACHE_LRU) {
		uint64_t nodes = cache->max_entries ? cache->max_entries
						    : cache->bucket_count *
							      COSHM__CACHE_BUCKET_SLOTS * 17 / 20;

		nodes = clamp(nodes, 1, UINT32_MAX / 8); /* the journal has 30 bits for them */

		cache->list_nodes = (uint32_t)((nodes + cache->lane_count - 1) / cache->lane_count);
		cache->node_count = cache->list_nodes * cache->lane_count;
	}
	/* As many pages as fit beside the tables, which shrink with them. */
	for (;;) {
		carver.used = 0;
		carve_all(cache, &carver);
		if (carver.used <= cache->total_bytes)
			break;
		if (cache->page_count <= 16)
			return coshm__fail(-EINVAL,
					   "cache: size_bytes is %llu, which is too small for the "
					   "tables: raise it, or lower max_entries",
					   (unsigned long long)config->size_bytes);
		cache->page_count -= (uint32_t)clamp((carver.used - cache->total_bytes) /
							     (cache->page_bytes + 64),
						     1, cache->page_count - 16);
	}
	cache->limbo_batch = (uint32_t)clamp(BARRIER_BYTES / cache->page_bytes, 1,
					     clamp(cache->page_count / 32, 1, 64));
	cache->spare_pages = 2 + cache->lane_count;
	cache->ghost_age_bytes = (uint64_t)cache->page_count * cache->page_bytes * 9 / 10 / 8 + 1;
	if (base) {
		carver.base = base;
		carver.used = 0;
		carve_all(cache, &carver);
	}
	return 0;
}
