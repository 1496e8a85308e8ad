/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/page.c - the page table
 *
 * The array of page words is the only record of which pages are free, full or waiting: there is no free list that a
 * death could leave half changed. Who needs a page looks through the array; that is once per page of items, and 4 KiB of
 * words for a cache of 16 MiB and for one of 512 MiB.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

int coshm__cache_page_change(struct coshm__cache *cache, uint32_t page, uint64_t *word,
			     uint32_t state, uint32_t owner)
{
	uint64_t next = coshm__cache_page_word(state, owner, *word);

	/* [C1] acq_rel, pairs [C2] and itself: who takes a page over sees what its former owner left in it */
	if (!coshm__a64_cas_acq_rel(&cache->words[page], word, next))
		return 0;
	*word = next;
	return 1;
}

/*
 * Policy none: who has taken a page looks once more, and puts it back if too few are left. Of two who take one at once at
 * least one sees what the other has taken.
 */
static int is_last(const struct coshm__cache *cache, uint32_t keep)
{
	/* A full fence, pairs itself: the CAS before it, and the loads behind it. */
	coshm__full_fence();
	for (uint32_t i = 0; i < cache->page_count && keep > 0; i++)
		keep -= coshm__cache_page_state(coshm__a64_load_relaxed(&cache->words[i])) ==
			COSHM__CACHE_PAGE_FREE;
	return keep > 0;
}

int coshm__cache_page_take(struct coshm__cache *cache, uint32_t start, uint32_t keep,
			   uint32_t state, uint32_t owner, uint32_t *ret_page, uint64_t *ret_word)
{
	uint32_t found[8], count = 0, free_count = 0, page = start % cache->page_count;

	for (uint32_t i = 0; i < cache->page_count && free_count < keep + 8; i++) {
		/* relaxed: the CAS decides */
		uint64_t word = coshm__a64_load_relaxed(&cache->words[page]);

		if (coshm__cache_page_state(word) == COSHM__CACHE_PAGE_FREE) {
			free_count++;
			if (count < 8)
				found[count++] = page;
		}
		if (++page == cache->page_count)
			page = 0;
	}
	if (free_count <= keep)
		return -ENOBUFS;
	COSHM__CRASH_POINT(cache_page_chosen);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = coshm__a64_load_relaxed(&cache->words[found[i]]);

		if (coshm__cache_page_state(word) == COSHM__CACHE_PAGE_FREE &&
		    coshm__cache_page_change(cache, found[i], &word, state, owner)) {
			if (cache->policy == COSHM_CACHE_NONE && is_last(cache, keep)) {
				coshm__cache_page_change(cache, found[i], &word,
							 COSHM__CACHE_PAGE_FREE, 0);
				return -ENOBUFS;
			}
			*ret_page = found[i];
			*ret_word = word;
			return 0;
		}
	}
	return -ENOBUFS;
}

void coshm__cache_page_inherit(struct coshm__cache *cache, uint32_t page, uint64_t *word)
{
	uint32_t state = COSHM__CACHE_PAGE_LIMBO; /* from BUILD: nobody has ever seen it */

	if (coshm__cache_page_state(*word) == COSHM__CACHE_PAGE_EVICT) {
		/* The next walk begins anew. What this one has moved away from here nobody has counted. */
		coshm__cache_page_look_first(cache, page);
		state = COSHM__CACHE_PAGE_SEALED;
	}
	coshm__cache_page_change(cache, page, word, state, 0);
}

void coshm__cache_page_look_first(const struct coshm__cache *cache, uint32_t page)
{
	coshm__a32_store_relaxed(&cache->pages[page].dead_bytes, cache->page_bytes);
}

void coshm__cache_page_begin(struct coshm__cache *cache, uint32_t page)
{
	struct coshm__cache_page_shm *info = &cache->pages[page];

	/* A fence, [C7], pairs [C12]: the new generation, which the CAS to FREE stored, is there before the first byte
	 * of the new life, which is a plain store; checked copies load in the other order. */
	coshm__release_fence();
	coshm__a32_store_relaxed(&info->dead_bytes, 0);
	coshm__a32_store_relaxed(&info->used_bytes, 0);
	coshm__a64_store_relaxed(&info->expire_first_ms, UINT64_MAX);
	coshm__a64_store_relaxed(&info->expire_last_ms, 0);
	coshm__a64_store_relaxed(&info->group_builder, coshm__cache_epoch(cache) << 32);
}

/* Pages in LIMBO, and the leaders of those that were part of a large value; both ascending. */
struct limbo {
	uint32_t page[64], leader[64], count, leaders;
	uint64_t word[64];
};

/* The next up to 64 from *next on. */
static void limbo_collect(const struct coshm__cache *cache, uint32_t *next, struct limbo *limbo)
{
	limbo->count = limbo->leaders = 0;
	for (; *next < cache->page_count && limbo->count < 64; ++*next) {
		uint64_t word = coshm__cache_page_load(cache, *next);
		uint32_t leader = coshm__cache_page_owner(word) - 1, at = limbo->leaders;

		if (coshm__cache_page_state(word) != COSHM__CACHE_PAGE_LIMBO)
			continue;
		limbo->page[limbo->count] = *next;
		limbo->word[limbo->count++] = word;
		/* Readers of a large value keep its leader only; which may be in use for something else by now. */
		if (leader >= cache->page_count)
			continue;
		while (at > 0 && limbo->leader[at - 1] > leader)
			at--;
		if (at > 0 && limbo->leader[at - 1] == leader)
			continue;
		memmove(&limbo->leader[at + 1], &limbo->leader[at],
			(limbo->leaders - at) * sizeof(limbo->leader[0]));
		limbo->leader[at] = leader;
		limbo->leaders++;
	}
}

/* Bit i: page[i] is kept by somebody. */
static uint64_t limbo_kept(struct coshm__op *op, const struct coshm__cache *cache,
			   const struct limbo *limbo)
{
	uint64_t offset[64], kept, leader_kept = 0;

	for (uint32_t i = 0; i < limbo->count; i++)
		offset[i] = coshm__cache_page_offset(cache, limbo->page[i]);
	coshm__hazard_scan(op->segment,
			   COSHM__HAZARD_READ | COSHM__HAZARD_WRITE | COSHM__HAZARD_PIN, offset,
			   limbo->count, &kept);
	if (limbo->leaders > 0) {
		for (uint32_t i = 0; i < limbo->leaders; i++)
			offset[i] = coshm__cache_page_offset(cache, limbo->leader[i]);
		coshm__hazard_scan(op->segment, COSHM__HAZARD_READ | COSHM__HAZARD_PIN, offset,
				   limbo->leaders, &leader_kept);
	}
	for (uint32_t j = 0; leader_kept && j < limbo->leaders; j++)
		for (uint32_t i = 0; (leader_kept >> j & 1) && i < limbo->count; i++)
			if (coshm__cache_page_owner(limbo->word[i]) == limbo->leader[j] + 1)
				kept |= UINT64_C(1) << i;
	return kept;
}

int coshm__cache_page_settle(struct coshm__op *op, struct coshm__cache *cache)
{
	uint32_t next = 0;
	int freed = 0;

	/* One reader of a large value keeps more than 64 pages: those behind them must not wait for it. */
	while (freed == 0 && next < cache->page_count) {
		struct limbo limbo;
		uint64_t kept, all;
		int error;

		limbo_collect(cache, &next, &limbo);
		if (limbo.count == 0)
			break;
		/* Those that are kept anyway are not worth a barrier. */
		kept = limbo_kept(op, cache, &limbo);
		all = UINT64_MAX >> (64 - limbo.count);
		if (kept == all)
			continue;
		error = coshm__hazard_barrier(op->segment);
		if (error)
			return error;
		coshm__count(op, cache->counters, COSHM__STAT_CACHE_barriers, 1);
		kept |= limbo_kept(op, cache, &limbo);
		for (uint32_t i = 0; i < limbo.count; i++) {
			if (kept >> i & 1)
				continue;
			/* [C1] acq_rel. With the generation in what it expects: who comes late frees nothing. */
			if (coshm__a64_cas_acq_rel(&cache->words[limbo.page[i]], &limbo.word[i],
						   coshm__cache_page_word(COSHM__CACHE_PAGE_FREE, 0,
									  limbo.word[i] + 1))) {
				COSHM__CRASH_POINT(cache_page_freed);
				freed++;
			}
		}
	}
	return freed;
}
