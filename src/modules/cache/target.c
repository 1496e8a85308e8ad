/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/target.c - the last free page
 *
 * With policy none nothing may be dropped, so the last free page decides whether anything can be moved at all. It is given
 * to one page, its source, and filled only by who owns the source by EVICT: with what lives there, and with a value that
 * replaces one of the source's and is no larger. So all of it fits, and the source becomes free in its place, whoever is
 * killed meanwhile: a page is TARGET until nothing lives in its source any more, and the source's next owner goes on.
 *
 * The one word that changes while it is filled (group_slot, of no other use in such a page) is
 *
 *   used_bytes:32 << 32 | item of the source that is on its way here, offset + 1; 0: none
 *
 *   1. the word: nothing is on its way
 *   2. the length of the copy, at used_bytes
 *   3. the word: this item is on its way
 *   4. the copy
 *   5. CAS of the slot, which named the item in the source
 *   6. the word: used_bytes behind the copy, nothing on its way
 *
 * Killed between 3 and 6: if the slot still names the source nobody has ever seen the copy, and the next owner writes in
 * its place. If not, it was published, or the item was replaced by others: either way it does not live in the source any
 * more, and the copy, which others may be reading, counts as used.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

static struct coshm__a64 *progress_of(const struct coshm__cache *cache, uint32_t page)
{
	return &cache->pages[page].group_slot;
}

/* Length of the item at a place; 0: none can be there. */
static uint32_t bytes_at(const struct coshm__cache *cache, uint32_t page, uint32_t offset,
			 uint64_t *ret_word0)
{
	uint32_t bytes;

	if (offset % 8 || offset > cache->page_bytes - 24)
		return 0;
	memcpy(ret_word0, coshm__cache_page(cache, page) + offset, 8);
	bytes = coshm__cache_item_bytes(cache, *ret_word0);
	return bytes <= cache->page_bytes - offset ? bytes : 0;
}

static int lives_at(const struct coshm__cache *cache, uint32_t page, uint32_t offset)
{
	struct coshm__cache_place place;
	uint64_t word0, hash;

	if (!bytes_at(cache, page, offset, &word0))
		return 0;
	hash = coshm__cache_item_hash(cache, coshm__cache_page(cache, page) + offset, word0);
	return coshm__cache_find_location(cache, hash, page, offset, &place);
}

uint32_t coshm__cache_target_used(const struct coshm__cache *cache, uint32_t source, uint32_t page)
{
	/* [C16] acquire, pairs [C15]; the slots of what is used, the length of what is coming */
	uint64_t progress = coshm__a64_load_acquire(progress_of(cache, page)), word0;
	uint32_t used = (uint32_t)(progress >> 32), coming = (uint32_t)progress, bytes;

	if (used > cache->page_bytes || used % 8)
		return cache->page_bytes; /* damage: full */
	if (!coming || lives_at(cache, source, coming - 1))
		return used;
	bytes = bytes_at(cache, page, used, &word0);
	return bytes ? used + bytes : cache->page_bytes;
}

uint32_t coshm__cache_target_lives(const struct coshm__cache *cache, uint32_t source)
{
	uint32_t offset = 0, bytes, live = 0;
	uint64_t word0;

	while ((bytes = bytes_at(cache, source, offset, &word0)) != 0) {
		if (lives_at(cache, source, offset))
			live += bytes;
		offset += bytes;
	}
	return live;
}

void coshm__cache_target_find(const struct coshm__cache *cache, uint32_t source,
			      struct coshm__cache_target *ret_target)
{
	*ret_target = (struct coshm__cache_target){.source = source, .page = UINT32_MAX};
	for (uint32_t page = 0; page < cache->page_count; page++) {
		uint64_t word = coshm__cache_page_load(cache, page);

		if (coshm__cache_page_state(word) != COSHM__CACHE_PAGE_TARGET ||
		    coshm__cache_page_owner(word) != source)
			continue;
		ret_target->page = page;
		ret_target->used = coshm__cache_target_used(cache, source, page);
		/* What was on its way is there, or its place lies idle from now on. */
		if (ret_target->used != coshm__a64_load_relaxed(progress_of(cache, page)) >> 32)
			coshm__cache_page_look_first(cache, page);
		ret_target->word = word;
		return;
	}
}

static int take(struct coshm__op *op, struct coshm__cache *cache,
		struct coshm__cache_target *target)
{
	uint32_t me = coshm__id24(op->member_id), page;
	uint64_t word;
	int error = coshm__cache_page_take(cache, op->member_id * 7, 0, COSHM__CACHE_PAGE_BUILD, me,
					   &page, &word);

	if (error)
		return error;
	coshm__cache_page_begin(cache, page);
	coshm__a64_store_relaxed(progress_of(cache, page), 0); /* carried by the CAS */
	if (!coshm__cache_page_change(cache, page, &word, COSHM__CACHE_PAGE_TARGET, target->source))
		return -EUCLEAN;
	COSHM__CRASH_POINT(cache_target_taken);
	target->page = page;
	target->used = 0;
	target->word = word;
	return 0;
}

int coshm__cache_target_place(struct coshm__op *op, struct coshm__cache *cache,
			      struct coshm__cache_target *target, uint32_t offset,
			      const struct coshm__cache_request *request,
			      struct coshm__cache_space *ret_space)
{
	uint32_t bytes = coshm__cache_item_bytes(cache, request->word0);
	int error = target->page == UINT32_MAX ? take(op, cache, target) : 0;

	if (error)
		return error;
	if (bytes > cache->page_bytes - target->used)
		return -ENOBUFS; /* damage */
	/*
	 * Nothing is on its way, before the length of something else stands there, which is a plain store. relaxed: only
	 * matters to who comes after a death.
	 */
	coshm__a64_store_relaxed(progress_of(cache, target->page), (uint64_t)target->used << 32);
	coshm__compiler_barrier();
	coshm__cache_place_item(op, cache, request,
				request->version ? request->version
						 : coshm__cache_version_without_lane(cache),
				target->page, target->used, target->word, ret_space);
	COSHM__CRASH_POINT(cache_target_described);
	/* [C15] release, pairs [C16] */
	coshm__a64_store_release(progress_of(cache, target->page),
				 (uint64_t)target->used << 32 | (offset + 1));
	COSHM__CRASH_POINT(cache_target_placed);
	return 0;
}

void coshm__cache_target_count(struct coshm__cache *cache, struct coshm__cache_target *target,
			       uint32_t bytes)
{
	target->used += bytes;
	/* [C15] release */
	coshm__a64_store_release(progress_of(cache, target->page), (uint64_t)target->used << 32);
	COSHM__CRASH_POINT(cache_target_counted);
}
