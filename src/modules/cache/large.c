/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/large.c - values of many pages
 *
 * The payload (key, then value) fills whole pages; what is left over lies in the head, an ordinary item of the log
 * which also lists the pages. Only the head is in the index. The pages form a group under the first, the leader: it
 * never moves while the value lives, even when the head does, so a reader that keeps the leader keeps them all.
 *
 * A group lives as long as the slot that its leader names holds a head that lists the leader first. So nothing but
 * the slot's CAS publishes or ends it, and who was killed right behind that CAS leaves a group that anyone can tell
 * to be garbage (coshm__cache_group_check).
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

#include <stdlib.h>

static uint64_t minimum(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int coshm__cache_large_read(const struct coshm__cache *cache, const unsigned char *description,
			    uint64_t word0, struct coshm__cache_large *ret_large)
{
	const uint32_t head = offsetof(struct coshm__cache_large_shm, page);
	uint32_t inline_bytes = coshm__cache_item_inline(word0);
	struct coshm__cache_large large = {.shm = (const void *)description};
	uint64_t payload, in_pages;

	memcpy(&large.value_bytes, description, 8);
	memcpy(&large.hash, description + 8, 8);
	memcpy(&large.page_count, description + 16, 4);
	memcpy(&large.leader, description + 20, 4);
	large.key_bytes = coshm__cache_item_key(word0);
	if (large.page_count == 0 || large.page_count > cache->page_count ||
	    large.leader >= cache->page_count || inline_bytes < head ||
	    (inline_bytes - head) / 4 < large.page_count ||
	    large.value_bytes > cache->item_bytes_max)
		return 0;
	large.rest = description + head + 4 * large.page_count;
	large.rest_bytes = inline_bytes - head - 4 * large.page_count;
	payload = large.key_bytes + large.value_bytes;
	in_pages = (uint64_t)large.page_count * cache->page_bytes;
	if (payload > in_pages + large.rest_bytes || payload + cache->page_bytes <= in_pages)
		return 0;
	*ret_large = large;
	return 1;
}

uint32_t coshm__cache_large_part(const struct coshm__cache *cache,
				 const struct coshm__cache_large *large, uint32_t index,
				 const unsigned char **ret_data)
{
	uint64_t payload = large->key_bytes + large->value_bytes;
	uint64_t from = (uint64_t)index * cache->page_bytes;
	uint32_t page;

	if (index > large->page_count || from >= payload)
		return 0;
	if (index == large->page_count) {
		*ret_data = large->rest;
		return (uint32_t)minimum(payload - from, large->rest_bytes);
	}
	memcpy(&page, &large->shm->page[index], 4);
	if (page >= cache->page_count)
		page = large->leader; /* damage: any page will do to stay inside the cache */
	*ret_data = coshm__cache_page(cache, page);
	return (uint32_t)minimum(payload - from, cache->page_bytes);
}

void coshm__cache_large_copy(const struct coshm__cache *cache,
			     const struct coshm__cache_large *large, uint64_t from, void *buffer,
			     uint64_t size)
{
	unsigned char *to = buffer;

	while (size > 0) {
		const unsigned char *data;
		uint32_t within = (uint32_t)(from % cache->page_bytes);
		uint32_t part = coshm__cache_large_part(
			cache, large, (uint32_t)(from / cache->page_bytes), &data);
		uint64_t bytes;

		if (part <= within)
			return;
		bytes = minimum(size, part - within);
		memcpy(to, data + within, bytes);
		to += bytes;
		from += bytes;
		size -= bytes;
	}
}

int coshm__cache_large_key_is(const struct coshm__cache *cache,
			      const struct coshm__cache_large *large, const void *key,
			      size_t key_bytes)
{
	const unsigned char *expected = key, *data;

	for (size_t at = 0; at < key_bytes;) {
		uint32_t part = coshm__cache_large_part(cache, large,
							(uint32_t)(at / cache->page_bytes), &data);
		size_t bytes = minimum(part, key_bytes - at);

		if (bytes == 0 || memcmp(data, expected + at, bytes) != 0)
			return 0;
		at += bytes;
	}
	return 1;
}

static void retire_page(struct coshm__cache *cache, uint32_t page, uint64_t word, uint32_t leader)
{
	if (coshm__cache_page_state(word) == COSHM__CACHE_PAGE_CHUNK &&
	    coshm__cache_page_owner(word) == leader &&
	    coshm__cache_page_change(cache, page, &word, COSHM__CACHE_PAGE_LIMBO, leader + 1))
		COSHM__CRASH_POINT(cache_chunk_retired);
}

void coshm__cache_large_retire(struct coshm__cache *cache, const struct coshm__cache_large *large)
{
	for (uint32_t i = large->page_count; i-- > 0;) {
		uint32_t page = large->leader;

		if (i > 0)
			memcpy(&page, &large->shm->page[i], 4);
		if (page < cache->page_count)
			retire_page(cache, page, coshm__cache_page_load(cache, page),
				    large->leader);
	}
}

/* Does the slot that the leader names hold a head that lists the leader? */
static int group_is_published(struct coshm__op *op, struct coshm__cache *cache, uint32_t leader)
{
	const struct coshm__a64 *slot = coshm__cache_slot_at(
		cache, coshm__a64_load_relaxed(&cache->pages[leader].group_slot));

	if (!slot)
		return 0;
	for (int tries = 0; tries < 1000; tries++) {
		uint64_t word = coshm__cache_slot_load(slot);
		uint32_t page = coshm__cache_slot_page(word);
		uint32_t offset = coshm__cache_slot_offset(word), bytes;
		struct coshm__cache_large large;
		unsigned char *item;
		uint64_t word0;
		int is = 0;

		if (!word || page >= cache->page_count ||
		    offset + sizeof(struct coshm__cache_item_shm) > cache->page_bytes) {
			coshm__hazard_clear(op, 3);
			return 0;
		}
		coshm__hazard_protect(op, 3, coshm__cache_page_offset(cache, page));
		if (!coshm__cache_same(coshm__hazard_recheck_load(op, slot), word))
			continue;
		item = coshm__cache_page(cache, page) + offset;
		memcpy(&word0, item, 8);
		bytes = coshm__cache_item_bytes(cache, word0);
		if (bytes && offset + bytes <= cache->page_bytes &&
		    (coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE))
			is = coshm__cache_large_read(cache, item + COSHM__CACHE_LARGE_AT, word0,
						     &large) &&
			     large.leader == leader;
		coshm__hazard_clear(op, 3);
		return is;
	}
	coshm__hazard_clear(op, 3);
	return 1; /* busy slot: ask again another time */
}

/* Is it published, or will its builder say so? */
static int group_is_alive(struct coshm__op *op, struct coshm__cache *cache, uint32_t leader)
{
	uint64_t builder = coshm__cache_group_builder(cache, leader);

	if (builder != 0 && !coshm__member_is_dead(op->segment, (uint32_t)builder))
		return 1;
	if (!group_is_published(op, cache, leader))
		return 0;
	if (builder != 0)
		coshm__a64_cas_relaxed(&cache->pages[leader].group_builder, &builder, 0);
	return 1;
}

int coshm__cache_group_check(struct coshm__op *op, struct coshm__cache *cache, uint32_t leader)
{
	for (;;) {
		uint32_t page[64], count = 0;
		uint64_t word[64];
		uint64_t leader_word = coshm__cache_page_load(cache, leader);

		if (coshm__cache_page_state(leader_word) != COSHM__CACHE_PAGE_CHUNK ||
		    coshm__cache_page_owner(leader_word) != leader)
			return 1;
		/* Nearly always, and cheaper than to look for its pages. */
		if (group_is_alive(op, cache, leader))
			return 1;
		/* First the words, then the question: if the answer is no, it is no for these generations for ever. */
		for (uint32_t i = 0; i < cache->page_count && count < 64; i++) {
			uint64_t w = coshm__cache_page_load(cache, i);

			if (coshm__cache_page_state(w) == COSHM__CACHE_PAGE_CHUNK &&
			    coshm__cache_page_owner(w) == leader && i != leader) {
				page[count] = i;
				word[count++] = w;
			}
		}
		if (group_is_alive(op, cache, leader))
			return 1;
		for (uint32_t i = 0; i < count; i++)
			retire_page(cache, page[i], word[i], leader);
		if (count < 64) {
			retire_page(cache, leader, leader_word, leader);
			return 0;
		}
	}
}

int coshm__cache_group_take(struct coshm__op *op, struct coshm__cache *cache,
			    uint64_t payload_bytes, int replaces, struct coshm__cache_group *group)
{
	uint64_t count = payload_bytes / cache->page_bytes;
	uint64_t rest = payload_bytes % cache->page_bytes;
	uint32_t me = coshm__id24(op->member_id);
	int error;

	if (count == 0 || rest > cache->page_bytes / 4 * 3 ||
	    64 + 4 * count + rest > cache->page_bytes) {
		count++;
		rest = 0;
	}
	if (64 + 4 * count + rest > cache->page_bytes)
		return -E2BIG;
	memset(group, 0, sizeof(*group));
	group->inline_bytes =
		(uint32_t)(offsetof(struct coshm__cache_large_shm, page) + 4 * count + rest);
	group->pages = malloc(count * sizeof(*group->pages));
	group->words = malloc(count * sizeof(*group->words));
	if (!group->pages || !group->words) {
		coshm__cache_group_free(group);
		return -ENOMEM;
	}
	while (group->page_count < count) {
		error = coshm__cache_page_take(
			cache, op->member_id * 7, coshm__cache_keep(cache, replaces),
			COSHM__CACHE_PAGE_BUILD, me, &group->pages[group->page_count],
			&group->words[group->page_count]);
		if (!error) {
			COSHM__CRASH_POINT(cache_chunk_taken);
			group->page_count++;
			continue;
		}
		error = coshm__cache_make_room(op, cache, (uint32_t)count - group->page_count, 0,
					       replaces);
		if (error) {
			coshm__cache_group_undo(op, cache, group);
			return error;
		}
	}
	/* A fence, as [C7]: the generations are there before the first bytes. */
	coshm__release_fence();
	return 0;
}

void coshm__cache_group_fill(struct coshm__cache *cache, const struct coshm__cache_group *group,
			     const void *key, size_t key_bytes, const void *value,
			     size_t value_bytes, unsigned char *rest)
{
	const unsigned char *part[2] = {key, value};
	size_t left[2] = {key_bytes, value_bytes};
	uint32_t p = 0;

	for (uint32_t i = 0; i <= group->page_count; i++) {
		unsigned char *to =
			i < group->page_count ? coshm__cache_page(cache, group->pages[i]) : rest;
		size_t room = cache->page_bytes;

		while (room > 0 && p < 2) {
			size_t bytes = minimum(room, left[p]);

			if (bytes)
				memcpy(to, part[p], bytes);
			to += bytes;
			part[p] += bytes;
			left[p] -= bytes;
			room -= bytes;
			if (left[p] == 0)
				p++;
		}
	}
}

int coshm__cache_group_adopt(struct coshm__op *op, struct coshm__cache *cache,
			     struct coshm__cache_group *group, uint32_t item_class)
{
	uint32_t leader = group->pages[0];
	struct coshm__cache_page_shm *info = &cache->pages[leader];

	/* relaxed: carried by the CAS of the leader's word */
	coshm__a64_store_relaxed(&info->seal, item_class);
	coshm__a64_store_relaxed(&info->group_slot, UINT64_MAX);
	coshm__a64_store_relaxed(&info->group_builder, op->member_id);
	for (uint32_t i = 0; i < group->page_count; i++) {
		if (!coshm__cache_page_change(cache, group->pages[i], &group->words[i],
					      COSHM__CACHE_PAGE_CHUNK, leader))
			return -EUCLEAN;
		COSHM__CRASH_POINT(cache_chunk_adopted);
	}
	return 0;
}

void coshm__cache_group_aim(struct coshm__cache *cache, const struct coshm__cache_group *group,
			    uint32_t slot_index)
{
	/* relaxed: carried by the CAS that publishes */
	coshm__a64_store_relaxed(&cache->pages[group->pages[0]].group_slot, slot_index);
	COSHM__CRASH_POINT(cache_group_aimed);
}

void coshm__cache_group_published(struct coshm__cache *cache,
				  const struct coshm__cache_group *group)
{
	/* The caller keeps the leader by a hazard: it is still this group's. */
	/* [C10] release, pairs [C9]; the slot was changed before */
	coshm__a64_store_release(&cache->pages[group->pages[0]].group_builder, 0);
}

void coshm__cache_group_undo(struct coshm__op *op, struct coshm__cache *cache,
			     struct coshm__cache_group *group)
{
	(void)op;
	for (uint32_t i = group->page_count; i-- > 0;)
		coshm__cache_page_change(cache, group->pages[i], &group->words[i],
					 COSHM__CACHE_PAGE_LIMBO, group->pages[0] + 1);
	coshm__cache_group_free(group);
}

void coshm__cache_group_free(struct coshm__cache_group *group)
{
	free(group->pages);
	free(group->words);
	group->pages = NULL;
	group->words = NULL;
}
