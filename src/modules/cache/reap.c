/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/reap.c - what a dead member leaves, and who holds what
 *
 * Words that name a member: page words in EVICT and BUILD, the builder of a group, the locks. Locks are found by their
 * holder's thread slot, hazards and pins lie outside of the cache: all that is the segment's work.
 */
#include "modules/cache/cache.h"

static int lock_of(const struct coshm__cache *cache, uint64_t offset, uint32_t *ret_index)
{
	if (offset >= cache->lanes_offset &&
	    offset < cache->lanes_offset + cache->lane_total * sizeof(*cache->lanes)) {
		*ret_index = (uint32_t)((offset - cache->lanes_offset) / sizeof(*cache->lanes));
		return 'a';
	}
	if (cache->policy == COSHM_CACHE_LRU && offset >= cache->lists_offset &&
	    offset < cache->lists_offset + cache->lane_count * sizeof(*cache->lists)) {
		*ret_index = (uint32_t)((offset - cache->lists_offset) / sizeof(*cache->lists));
		return 'l';
	}
	return 0;
}

int coshm__cache_recover_lock(struct coshm__op *op, struct coshm__handle *handle,
			      struct coshm__rlock_shm *lock)
{
	struct coshm__cache *cache = handle->local;
	uint32_t index;

	(void)op;
	switch (lock_of(cache, (uint64_t)((unsigned char *)lock - (unsigned char *)handle->object),
			&index)) {
	case 'a':
		return coshm__cache_lane_recover(cache, index);
	case 'l':
		return coshm__cache_lru_recover(cache, &cache->lists[index]);
	default:
		return 0; /* a stripe guards nothing that can be half done */
	}
}

int coshm__cache_lock_is_lane(struct coshm__handle *handle, uint64_t offset_bytes)
{
	uint32_t index;

	return lock_of(handle->local, offset_bytes, &index) == 'a';
}

/* Who appended and did not publish, or unpublished and did not count it, had the page under a hazard. */
void coshm__cache_abandoned(struct coshm__handle *handle, uint64_t offset_bytes)
{
	struct coshm__cache *cache = handle->local;
	uint64_t page = (offset_bytes - cache->log_offset) / cache->page_bytes;

	if (offset_bytes >= cache->log_offset && page < cache->page_count)
		coshm__cache_page_look_first(cache, (uint32_t)page);
}

/* One page: whatever in it names the dead member. */
static void reap_page(struct coshm__op *op, struct coshm__cache *cache, uint32_t dead_id,
		      uint32_t page)
{
	uint64_t word = coshm__cache_page_load(cache, page);
	uint32_t state = coshm__cache_page_state(word);

	if ((state == COSHM__CACHE_PAGE_EVICT || state == COSHM__CACHE_PAGE_BUILD) &&
	    coshm__cache_page_owner(word) == coshm__id24(dead_id))
		coshm__cache_page_inherit(cache, page, &word);
	/* Killed while it published or took back a large value: the group knows whether it is one. */
	if (state == COSHM__CACHE_PAGE_CHUNK && coshm__cache_page_owner(word) == page)
		coshm__cache_group_check(op, cache, page);
}

int coshm__cache_reap(struct coshm__op *op, struct coshm__handle *handle, uint32_t dead_id,
		      uint64_t *cursor, uint64_t budget)
{
	struct coshm__cache *cache = handle->local;
	uint64_t end = *cursor + (budget ? budget : 1);

	for (; *cursor < cache->page_count && *cursor < end; ++*cursor)
		reap_page(op, cache, dead_id, (uint32_t)*cursor);
	return *cursor >= cache->page_count;
}

/* Beyond hazards and pins, which the segment counts: pages that the member owns for a while. */
void coshm__cache_holdings(struct coshm__handle *handle, uint32_t member_id,
			   struct coshm_member_info *info)
{
	const struct coshm__cache *cache = handle->local;

	/* relaxed: for display, a moment old anyway */
	for (uint32_t i = 0; i < cache->page_count; i++) {
		uint64_t word = coshm__a64_load_relaxed(&cache->words[i]);

		if ((coshm__cache_page_state(word) == COSHM__CACHE_PAGE_EVICT ||
		     coshm__cache_page_state(word) == COSHM__CACHE_PAGE_BUILD) &&
		    coshm__cache_page_owner(word) == coshm__id24(member_id))
			info->pages_written++;
	}
}

uint64_t coshm__cache_gauge(struct coshm__handle *handle, uint32_t index)
{
	const struct coshm__cache *cache = handle->local;
	uint64_t free_count = 0, sealed = 0, large = 0, live = 0;

	if (index == COSHM__STAT_CACHE_entries)
		return coshm__cache_entries(cache);
	for (uint32_t i = 0; i < cache->page_count; i++) {
		uint64_t word = coshm__a64_load_relaxed(&cache->words[i]);
		uint32_t used = coshm__a32_load_relaxed(&cache->pages[i].used_bytes);
		uint32_t dead = coshm__a32_load_relaxed(&cache->pages[i].dead_bytes);

		switch (coshm__cache_page_state(word)) {
		case COSHM__CACHE_PAGE_FREE:
			free_count++;
			break;
		case COSHM__CACHE_PAGE_SEALED:
			sealed++;
			live += dead < used ? used - dead : 0;
			break;
		case COSHM__CACHE_PAGE_CHUNK:
			large++;
			live += cache->page_bytes;
			break;
		default:
			break;
		}
	}
	switch (index) {
	case COSHM__STAT_CACHE_live:
		return live;
	case COSHM__STAT_CACHE_pages_free:
		return free_count;
	case COSHM__STAT_CACHE_pages_sealed:
		return sealed;
	case COSHM__STAT_CACHE_pages_large:
		return large;
	default:
		return 0;
	}
}
