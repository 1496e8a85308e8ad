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
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = coshm__a64_load_relaxed(&cache->words[found[i]]);

		if (coshm__cache_page_state(word) == COSHM__CACHE_PAGE_FREE &&
		    coshm__cache_page_change(cache, found[i], &word, state, owner)) {
			*ret_page = found[i];
			*ret_word = word;
			return 0;
		}
	}
	return -ENOBUFS;
}

int coshm__cache_page_settle(struct coshm__op *op, struct coshm__cache *cache)
{
	uint32_t page[64], leader[64], count = 0, leaders = 0;
	uint64_t word[64], offset[64], leader_offset[64];
	uint64_t busy = 0, leader_busy = 0;
	int error, freed = 0;

	for (uint32_t i = 0; i < cache->page_count && count < 64; i++) {
		uint64_t w = coshm__cache_page_load(cache, i);

		if (coshm__cache_page_state(w) != COSHM__CACHE_PAGE_LIMBO)
			continue;
		page[count] = i;
		word[count] = w;
		offset[count] = coshm__cache_page_offset(cache, i);
		count++;
		/* Readers of a large value keep its leader only; which may be in use for something else by now. */
		if (coshm__cache_page_owner(w) != 0 &&
		    coshm__cache_page_owner(w) <= cache->page_count) {
			uint32_t l = coshm__cache_page_owner(w) - 1, at = leaders;

			while (at > 0 && leader[at - 1] > l)
				at--;
			if (at == 0 || leader[at - 1] != l) {
				memmove(&leader[at + 1], &leader[at],
					(leaders - at) * sizeof(leader[0]));
				leader[at] = l;
				leaders++;
			}
		}
	}
	if (count == 0)
		return 0;
	error = coshm__hazard_barrier(op->segment);
	if (error)
		return error;
	coshm__count(op, cache->counters, COSHM__STAT_CACHE_barriers, 1);
	coshm__hazard_scan(op->segment,
			   COSHM__HAZARD_READ | COSHM__HAZARD_WRITE | COSHM__HAZARD_PIN, offset,
			   count, &busy);
	if (leaders > 0) {
		for (uint32_t i = 0; i < leaders; i++)
			leader_offset[i] = coshm__cache_page_offset(cache, leader[i]);
		coshm__hazard_scan(op->segment, COSHM__HAZARD_READ | COSHM__HAZARD_PIN,
				   leader_offset, leaders, &leader_busy);
	}
	for (uint32_t i = 0; i < count; i++) {
		int kept = (busy >> i & 1) != 0;

		for (uint32_t j = 0; j < leaders && !kept; j++)
			kept = coshm__cache_page_owner(word[i]) == leader[j] + 1 &&
			       (leader_busy >> j & 1);
		if (kept)
			continue;
		/* [C1] acq_rel. With the generation in what it expects: who comes late frees nothing. */
		if (coshm__a64_cas_acq_rel(
			    &cache->words[page[i]], &word[i],
			    coshm__cache_page_word(COSHM__CACHE_PAGE_FREE, 0, word[i] + 1))) {
			COSHM__CRASH_POINT(cache_page_freed);
			freed++;
		}
	}
	return freed;
}
