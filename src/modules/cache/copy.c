/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/copy.c - reading without announcing it
 *
 * A read-only attach cannot set hazards. It copies into private memory and asks afterwards whether what it copied was
 * still what it meant:
 *	slot; generation of its page; slot again, the same; copy word by word, with bounds from the copy; generation
 *	again, the same: then no byte of the page was reused meanwhile.
 * The generation goes up before the first byte of a page's next life is written [C7]. The slot alone would not do: the
 * same key may come to stand at the same place again.
 */
#include "modules/cache/cache.h"

#include <stdlib.h>

#define TRIES 8

/* Relaxed loads of whole words: the bytes may be written meanwhile, which the caller finds out. */
static void copy_racing(void *to, const unsigned char *from, size_t size)
{
	unsigned char *out = to;

	while (size > 0) {
		uintptr_t within = (uintptr_t)from % 8;
		size_t bytes = 8 - within < size ? 8 - within : size;
		uint64_t word = coshm__a64_load_relaxed(
			(const struct coshm__a64 *)(const void *)(from - within));

		memcpy(out, (unsigned char *)&word + within, bytes);
		out += bytes;
		from += bytes;
		size -= bytes;
	}
}

static uint64_t page_generation(const struct coshm__cache *cache, uint32_t page)
{
	return coshm__cache_page_load(cache, page) & COSHM__CACHE_GENERATION_MASK;
}

static int generation_is(const struct coshm__cache *cache, uint32_t page, uint64_t generation)
{
	/* A fence, [C12], pairs [C7]: the copy's loads, which are relaxed, are done before this one. */
	coshm__acquire_fence();
	return (coshm__a64_load_relaxed(&cache->words[page]) & COSHM__CACHE_GENERATION_MASK) ==
	       generation;
}

/* What lies in pages of a large value: each page is checked for itself. 1; 0: changed meanwhile */
static int copy_large(const struct coshm__cache *cache, const struct coshm__a64 *slot,
		      uint64_t word, const struct coshm__cache_large *large,
		      uint64_t head_generation, unsigned char *to, uint64_t size)
{
	for (uint32_t i = 0; size > 0 && i <= large->page_count; i++) {
		uint64_t bytes, generation;
		uint32_t page;

		if (i == large->page_count) {
			copy_racing(to, large->rest,
				    size < large->rest_bytes ? size : large->rest_bytes);
			break;
		}
		copy_racing(&page, (const unsigned char *)&large->shm->page[i], 4);
		if (page >= cache->page_count)
			return 0;
		generation = page_generation(cache, page);
		/* The slot still names the value after the page's generation was read: so that is its generation. */
		if (!coshm__cache_same(coshm__cache_slot_load(slot), word) ||
		    !generation_is(cache, coshm__cache_slot_page(word), head_generation))
			return 0;
		bytes = size < cache->page_bytes ? size : cache->page_bytes;
		copy_racing(to, coshm__cache_page(cache, page), bytes);
		if (!generation_is(cache, page, generation))
			return 0;
		to += bytes;
		size -= bytes;
	}
	return 1;
}

/* One try. 1, 0 nothing there, -EAGAIN changed meanwhile, -ENOMEM */
static int copy_once(const struct coshm__cache *cache, const struct coshm__a64 *slot, uint64_t word,
		     int with_value, struct coshm__cache_copy *copy)
{
	uint32_t page = coshm__cache_slot_page(word), offset = coshm__cache_slot_offset(word);
	const unsigned char *item;
	uint64_t generation, value_bytes;
	struct coshm__cache_large large;
	uint32_t version_low, flags, bytes;
	int result = -EAGAIN;

	memset(copy, 0, sizeof(*copy));
	memset(&large, 0, sizeof(large));
	if (!word || page >= cache->page_count ||
	    offset + sizeof(struct coshm__cache_item_shm) > cache->page_bytes)
		return 0;
	generation = page_generation(cache, page);
	if (!coshm__cache_same(coshm__cache_slot_load(slot), word))
		return -EAGAIN;
	if ((generation ^ word) & 0x7f)
		return 0;
	item = coshm__cache_page(cache, page) + offset;
	copy_racing(&copy->word0, item, 8);
	copy_racing(&copy->word1, item + 8, 8);
	copy_racing(&version_low, item + 16, 4);
	copy->version = coshm__cache_item_version(copy->word0, version_low);
	copy->key_bytes = coshm__cache_item_key(copy->word0);
	flags = coshm__cache_item_flags(copy->word0);
	bytes = coshm__cache_item_bytes(cache, copy->word0);
	if (bytes == 0 || offset + bytes > cache->page_bytes)
		return generation_is(cache, page, generation) ? 0 : -EAGAIN;
	value_bytes = coshm__cache_item_inline(copy->word0);
	if (flags & COSHM__CACHE_ITEM_NUMBER)
		value_bytes = COSHM__CACHE_NUMBER_TEXT_BYTES;
	if (flags & COSHM__CACHE_ITEM_LARGE) {
		unsigned char description[sizeof(struct coshm__cache_large_shm)];

		copy_racing(description, item + 24, sizeof(description));
		if (!coshm__cache_large_read(cache, description, copy->word0, &large))
			return generation_is(cache, page, generation) ? 0 : -EAGAIN;
		large.shm = (const void *)(item + 24);
		large.rest = item + 24 + offsetof(struct coshm__cache_large_shm, page) +
			     4 * large.page_count;
		value_bytes = large.value_bytes;
		copy->leader = large.leader;
	}
	copy->key = malloc(copy->key_bytes + (with_value ? value_bytes : 0) + 1);
	if (!copy->key)
		return -ENOMEM;
	copy->value = copy->key + copy->key_bytes;
	copy->value_bytes = value_bytes;
	if (flags & COSHM__CACHE_ITEM_LARGE) {
		if (!copy_large(cache, slot, word, &large, generation, copy->key,
				copy->key_bytes + (with_value ? value_bytes : 0)))
			goto changed;
	} else {
		uint32_t body = coshm__cache_item_body(cache, copy->word0);

		copy_racing(copy->key, item + cache->head_bytes, copy->key_bytes);
		if (flags & COSHM__CACHE_ITEM_NUMBER) {
			char text[COSHM__CACHE_NUMBER_TEXT_BYTES];
			uint64_t number;

			copy_racing(&number, item + body, 8);
			copy->value_bytes = coshm__cache_number_text(number, text);
			copy->version = coshm__cache_number_version(copy->version, number);
			if (with_value)
				memcpy(copy->value, text, copy->value_bytes);
		} else if (with_value) {
			copy_racing(copy->value, item + body, value_bytes);
		}
	}
	if (generation_is(cache, page, generation))
		return 1;
changed:
	free(copy->key);
	/* The pages of a large value go only after its slot has changed. If it has not, they never were its own: damage. */
	if (coshm__cache_same(coshm__cache_slot_load(slot), word) &&
	    generation_is(cache, page, generation))
		return 0;
	return result;
}

int coshm__cache_copy_slot(const struct coshm__cache *cache, const struct coshm__a64 *slot,
			   int with_value, struct coshm__cache_copy *ret_copy)
{
	int result = -EAGAIN;

	for (int tries = 0; result == -EAGAIN && tries < TRIES; tries++) {
		/* relaxed: loaded again behind the generation */
		result =
			copy_once(cache, slot, coshm__a64_load_relaxed(slot), with_value, ret_copy);
	}
	return result;
}

int coshm__cache_copy_find(const struct coshm__cache *cache, uint64_t hash, const void *key,
			   size_t key_bytes, int with_value, struct coshm__cache_copy *ret_copy)
{
	uint64_t home = coshm__cache_home(cache, hash);
	int busy = 0;

	for (uint32_t d = 0; d <= coshm__cache_distance(cache, home); d++) {
		const struct coshm__cache_bucket_shm *b =
			&cache->buckets[coshm__cache_probe(cache, hash, d)];

		for (uint32_t i = 0; i < COSHM__CACHE_BUCKET_SLOTS; i++) {
			struct coshm__cache_copy copy;
			int result;

			if ((coshm__a64_load_relaxed(&b->slot[i]) ^ hash << 48) >> 48)
				continue;
			result = coshm__cache_copy_slot(cache, &b->slot[i], with_value, &copy);
			if (result == -ENOMEM)
				return result;
			busy |= result == -EAGAIN;
			if (result != 1)
				continue;
			if (copy.key_bytes == key_bytes && memcmp(copy.key, key, key_bytes) == 0) {
				*ret_copy = copy;
				return 1;
			}
			free(copy.key);
		}
	}
	return busy ? -EAGAIN : 0;
}
