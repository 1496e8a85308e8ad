/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/index.c - from keys to slots
 *
 * A key's home bucket and up to 7 further ones that its hash names. The further ones are looked at only while the
 * home's spill count says that a key of this home stands elsewhere. A key keeps its slot until it is gone, so that one
 * CAS replaces, moves or deletes it and no reader can miss it in between.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"
#include "base/log.h"

#define PROBES		8
#define TRIES_MAX	1000 /* of one slot that changes under the reader */
#define GHOST_COUNT	3
#define GHOST_BITS	17
#define GHOST_SHIFT	11
#define GHOST_MASK	((UINT64_C(1) << (GHOST_COUNT * GHOST_BITS)) - 1)
#define GHOST_AGES	64
#define GHOST_AGE_LIMIT 8

int coshm__cache_refuse_key(const void *key, size_t key_bytes)
{
	return coshm__fail(-EINVAL, "cache: a key has 1 to 65535 bytes, not %zu",
			   key ? key_bytes : 0);
}

int coshm__cache_refuse_null(const char *argument)
{
	return coshm__fail(-EINVAL, "cache: %s is NULL", argument);
}

int coshm__cache_refuse_size(uint64_t item_bytes, uint64_t item_bytes_max)
{
	return coshm__fail(-E2BIG, "cache: key and value have %llu bytes, at most %llu fit",
			   (unsigned long long)item_bytes, (unsigned long long)item_bytes_max);
}

static uint64_t step_of(const struct coshm__cache *cache, uint64_t hash)
{
	return 1 + (hash >> 8 & 0xffffff) % cache->bucket_step_modulus;
}

static uint64_t step_on(const struct coshm__cache *cache, uint64_t bucket, uint64_t step)
{
	bucket += step;
	return bucket >= cache->bucket_count ? bucket - cache->bucket_count : bucket;
}

uint64_t coshm__cache_probe(const struct coshm__cache *cache, uint64_t hash, uint32_t distance)
{
	uint64_t bucket = coshm__cache_home(cache, hash), step = step_of(cache, hash);

	while (distance-- > 0)
		bucket = step_on(cache, bucket, step);
	return bucket;
}

static void spill_more(struct coshm__cache *cache, uint64_t home, uint32_t distance)
{
	uint64_t meta = coshm__a64_load_relaxed(&cache->buckets[home].meta);
	uint64_t next;

	do {
		next = meta & COSHM__CACHE_SPILL_MASK ? meta : meta & ~(UINT64_C(7) << 8);
		if ((next & COSHM__CACHE_SPILL_MASK) != COSHM__CACHE_SPILL_MASK)
			next++;
		if (((uint32_t)(next >> 8) & 7) < distance)
			next = (next & ~(UINT64_C(7) << 8)) | (uint64_t)distance << 8;
		/* [C4] release, pairs [C3] */
	} while (!coshm__a64_cas_release(&cache->buckets[home].meta, &meta, next));
	COSHM__CRASH_POINT(cache_spill_raised);
}

static void spill_less(struct coshm__cache *cache, uint64_t home)
{
	uint64_t meta = coshm__a64_load_relaxed(&cache->buckets[home].meta);

	/* relaxed: seen early or late, it only decides whether one more bucket is looked at; I7 holds either way */
	while ((meta & COSHM__CACHE_SPILL_MASK) != 0 &&
	       (meta & COSHM__CACHE_SPILL_MASK) != COSHM__CACHE_SPILL_MASK &&
	       !coshm__a64_cas_relaxed(&cache->buckets[home].meta, &meta, meta - 1))
		;
}

/*
 * Keeps the page of *word by read hazard 0, if the slot still names the same item then. 1 kept; 0: *word is what is
 * there now. H1: nobody reads a byte of an item without this.
 */
static int keep(struct coshm__op *op, const struct coshm__cache *cache,
		const struct coshm__a64 *slot, uint64_t *word)
{
	const unsigned char *item = coshm__cache_page(cache, coshm__cache_slot_page(*word)) +
				    coshm__cache_slot_offset(*word);
	uint64_t again;

	/* All lines of a small item at once: where the value lies is known only when its first line has come. */
	__builtin_prefetch(item);
	__builtin_prefetch(item + 64);
	__builtin_prefetch(item + 128);

	COSHM__CRASH_POINT(cache_slot_loaded);
	coshm__hazard_protect(op, 0,
			      coshm__cache_page_offset(cache, coshm__cache_slot_page(*word)));
	COSHM__CRASH_POINT(cache_read_announced);
	again = coshm__hazard_recheck_load(op, slot);
	if (coshm__likely(coshm__cache_same(again, *word))) {
		*word = again;
		return 1;
	}
	*word = again;
	return 0;
}

/* Is the item of a kept slot word well formed and of this key? Fills the place. */
static int is_key(struct coshm__op *op, const struct coshm__cache *cache, uint64_t hash,
		  const void *key, size_t key_bytes, const struct coshm__a64 *slot, uint64_t word,
		  struct coshm__cache_place *place)
{
	uint32_t page = coshm__cache_slot_page(word);
	uint32_t offset = coshm__cache_slot_offset(word);
	unsigned char *item;

	/* H4. relaxed: the slot was loaded again after the hazard, so the page cannot change its generation now */
	if (coshm__unlikely(((coshm__a64_load_relaxed(&cache->words[page]) ^ word) & 0x7f) != 0 ||
			    offset + sizeof(struct coshm__cache_item_shm) > cache->page_bytes))
		return 0;
	item = coshm__cache_page(cache, page) + offset;
	memcpy(&place->word0, item, 8);
	if (coshm__cache_item_key(place->word0) != key_bytes)
		return 0;
	place->bytes = coshm__cache_item_bytes(cache, place->word0);
	if (coshm__unlikely(place->bytes == 0 || offset + place->bytes > cache->page_bytes))
		return 0;
	memcpy(&place->word1, item + 8, 8);
	place->slot = (struct coshm__a64 *)slot;
	place->word = word;
	place->page = page;
	place->item = item;
	if (coshm__unlikely(coshm__cache_item_flags(place->word0) & COSHM__CACHE_ITEM_LARGE)) {
		struct coshm__cache_large large;
		uint64_t again;

		if (!coshm__cache_large_read(cache, item + COSHM__CACHE_LARGE_AT, place->word0,
					     &large) ||
		    large.hash != hash)
			return 0;
		coshm__hazard_protect(op, 1, coshm__cache_page_offset(cache, large.leader));
		again = coshm__hazard_recheck_load(op, slot);
		if (coshm__cache_same(again, word) &&
		    coshm__cache_large_key_is(cache, &large, key, key_bytes))
			return 1;
		coshm__hazard_clear(op, 1);
		return 0;
	}
	return memcmp(item + cache->head_bytes, key, key_bytes) == 0;
}

/* Looks at one slot whose tag is right. 1: it is the key's, and is kept */
static int try_slot(struct coshm__op *op, const struct coshm__cache *cache, uint64_t hash,
		    const void *key, size_t key_bytes, const struct coshm__a64 *slot,
		    struct coshm__cache_place *place)
{
	uint64_t word = coshm__a64_load_relaxed(slot), again;

	for (int tries = 0; tries < TRIES_MAX; tries++) {
		if (coshm__unlikely(((word ^ hash << 48) & COSHM__CACHE_TAG_MASK) != 0 || !word ||
				    coshm__cache_slot_page(word) >= cache->page_count))
			return 0;
		if (coshm__unlikely(!keep(op, cache, slot, &word)))
			continue;
		if (coshm__likely(is_key(op, cache, hash, key, key_bytes, slot, word, place)))
			return 1;
		/* Another key, or this one was replaced since: then the slot has changed. */
		again = coshm__a64_load_relaxed(slot);
		if (coshm__cache_same(again, word))
			return 0;
		word = again;
	}
	return 0;
}

int coshm__cache_find(struct coshm__op *op, const struct coshm__cache *cache, uint64_t hash,
		      const void *key, size_t key_bytes, struct coshm__cache_place *ret_place)
{
	uint64_t home = coshm__cache_home(cache, hash), bucket = home, step = 0;
	uint32_t distance = coshm__cache_distance(cache, home);

	ret_place->home = home;
	for (uint32_t d = 0;; d++) {
		struct coshm__cache_bucket_shm *b = &cache->buckets[bucket];
		uint32_t match = coshm__cache_bucket_match(b, hash);

		ret_place->distance = d;
		while (match)
			if (coshm__likely(try_slot(op, cache, hash, key, key_bytes,
						   coshm__cache_match_next(b, &match), ret_place)))
				return 1;
		if (coshm__likely(d >= distance))
			break;
		if (d == 0)
			step = step_of(cache, hash);
		bucket = step_on(cache, bucket, step);
	}
	coshm__hazard_clear(op, 0);
	return 0;
}

int coshm__cache_find_location(const struct coshm__cache *cache, uint64_t hash, uint32_t page,
			       uint32_t offset, struct coshm__cache_place *ret_place)
{
	uint64_t home = coshm__cache_home(cache, hash), bucket = home, step = 0;
	uint32_t distance = coshm__cache_distance(cache, home);

	for (uint32_t d = 0;; d++) {
		struct coshm__cache_bucket_shm *b = &cache->buckets[bucket];
		uint32_t match = coshm__cache_bucket_match(b, hash);

		while (match) {
			struct coshm__a64 *slot = coshm__cache_match_next(b, &match);
			uint64_t word = coshm__cache_slot_load(slot);

			if (word && coshm__cache_slot_page(word) == page &&
			    coshm__cache_slot_offset(word) == offset) {
				ret_place->slot = slot;
				ret_place->word = word;
				ret_place->home = home;
				ret_place->distance = d;
				ret_place->page = page;
				return 1;
			}
		}
		if (coshm__likely(d >= distance))
			return 0;
		if (d == 0)
			step = step_of(cache, hash);
		bucket = step_on(cache, bucket, step);
	}
}

/* 0, or -ENOSPC: no place within reach */
static int insert_once(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
		       uint64_t word, void (*before)(void *context, uint32_t slot_index),
		       void *context)
{
	uint64_t home = coshm__cache_home(cache, hash), bucket = home, step = 0;
	uint64_t word1;

	memcpy(&word1,
	       coshm__cache_page(cache, coshm__cache_slot_page(word)) +
		       coshm__cache_slot_offset(word) + 8,
	       8);
	for (uint32_t d = 0; d < PROBES; d++) {
		struct coshm__cache_bucket_shm *b = &cache->buckets[bucket];
		uint32_t match =
			coshm__cache_bucket_match(b, 0); /* the empty ones are among them */

		while (match) {
			struct coshm__a64 *slot = coshm__cache_match_next(b, &match);
			uint64_t empty = 0;

			if (coshm__a64_load_relaxed(slot) != 0)
				continue;
			if (d > 0)
				spill_more(cache, home, d);
			if (before)
				before(context, coshm__cache_slot_index(cache, slot));
			if (coshm__cache_slot_change(slot, &empty, word)) {
				COSHM__CRASH_POINT(cache_inserted);
				coshm__cache_entries_add(op, cache, word1, 1);
				return 0;
			}
			if (d > 0)
				spill_less(cache, home);
		}
		if (d == 0)
			step = step_of(cache, hash);
		bucket = step_on(cache, bucket, step);
	}
	return -ENOSPC;
}

void coshm__cache_left(struct coshm__op *op, struct coshm__cache *cache, uint64_t home,
		       uint32_t distance, uint64_t word1)
{
	COSHM__CRASH_POINT(cache_slot_emptied);
	if (distance > 0)
		spill_less(cache, home);
	coshm__cache_entries_add(op, cache, word1, UINT64_MAX);
}

uint32_t coshm__cache_sweep_page(struct coshm__op *op, struct coshm__cache *cache, uint32_t page)
{
	uint32_t swept = 0;

	for (uint64_t b = 0; b < cache->bucket_count; b++) {
		for (uint32_t i = 0; i < COSHM__CACHE_BUCKET_SLOTS; i++) {
			struct coshm__a64 *slot = &cache->buckets[b].slot[i];
			uint64_t word = coshm__cache_slot_load(slot);

			while (word && coshm__cache_slot_page(word) == page) {
				if (coshm__cache_slot_change(slot, &word, 0)) {
					/* The key cannot be read: its home may keep one spill too many (I7). */
					coshm__cache_left(
						op, cache, 0, 0,
						coshm__a64_load_relaxed(&cache->shm->epoch));
					swept++;
					break;
				}
			}
		}
	}
	return swept;
}

uint32_t coshm__cache_ghost_now(const struct coshm__cache *cache)
{
	return (uint32_t)(coshm__a64_load_relaxed(&cache->shm->ghost_bytes) /
			  cache->ghost_age_bytes % GHOST_AGES);
}

static uint64_t ghost_fingerprint(uint64_t hash)
{
	uint64_t fingerprint = hash >> 16 & 0x7ff;

	return fingerprint ? fingerprint : 1;
}

void coshm__cache_ghost_add(struct coshm__cache *cache, uint64_t hash, uint32_t now)
{
	struct coshm__a64 *word = &cache->buckets[coshm__cache_home(cache, hash)].meta;
	uint64_t meta = coshm__a64_load_relaxed(word), next;
	uint64_t ghost = ghost_fingerprint(hash) << 6 | now;

	do {
		next = (meta >> GHOST_SHIFT << GHOST_BITS | ghost) & GHOST_MASK;
		next = next << GHOST_SHIFT | (meta & ((1u << GHOST_SHIFT) - 1));
		/* relaxed: a hint that stands alone; the spill bits beside it are unchanged */
	} while (!coshm__a64_cas_relaxed(word, &meta, next));
}

int coshm__cache_ghost_has(const struct coshm__cache *cache, uint64_t hash)
{
	uint64_t meta =
		coshm__a64_load_relaxed(&cache->buckets[coshm__cache_home(cache, hash)].meta);
	uint64_t fingerprint = ghost_fingerprint(hash);

	for (uint32_t i = 0; i < GHOST_COUNT; i++) {
		uint64_t ghost = meta >> (GHOST_SHIFT + i * GHOST_BITS);

		if ((ghost >> 6 & 0x7ff) == fingerprint &&
		    ((coshm__cache_ghost_now(cache) - ghost) & (GHOST_AGES - 1)) <= GHOST_AGE_LIMIT)
			return 1;
	}
	return 0;
}

/* The pages of a large value, whose head no slot names any more. */
static void pages_retire(struct coshm__cache *cache, const unsigned char *item, uint64_t word0)
{
	struct coshm__cache_large large;

	if (coshm__unlikely(coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE) &&
	    coshm__cache_large_read(cache, item + COSHM__CACHE_LARGE_AT, word0, &large))
		coshm__cache_large_retire(cache, &large);
}

void coshm__cache_item_dropped(struct coshm__op *op, struct coshm__cache *cache, uint32_t page,
			       const unsigned char *item, uint64_t word0)
{
	coshm__cache_page_dead(op, cache, page, coshm__cache_item_bytes(cache, word0));
	pages_retire(cache, item, word0);
}

int coshm__cache_keep_leader(struct coshm__op *op, const struct coshm__cache *cache,
			     const struct coshm__a64 *slot, uint64_t *word,
			     const unsigned char *item, uint64_t word0)
{
	struct coshm__cache_large large;
	uint64_t again;

	if (coshm__likely(!(coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE)) ||
	    !coshm__cache_large_read(cache, item + COSHM__CACHE_LARGE_AT, word0, &large))
		return 1;
	coshm__hazard_protect(op, 1, coshm__cache_page_offset(cache, large.leader));
	again = coshm__hazard_recheck_load(op, slot);
	if (coshm__cache_same(again, *word))
		return 1;
	coshm__hazard_clear(op, 1);
	*word = again;
	return 0;
}

int coshm__cache_push_out(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			  struct coshm__a64 *slot, uint64_t *word, const unsigned char *item,
			  uint32_t counter)
{
	uint64_t named = *word, word0, word1, home = coshm__cache_home(cache, hash);
	int done;

	memcpy(&word0, item, 8);
	memcpy(&word1, item + 8, 8);
	/*
	 * Who is stopped behind the CAS must not find the pages in use for another large value when it gives them
	 * back: somebody else may have done it, because nothing named them.
	 */
	if (!coshm__cache_keep_leader(op, cache, slot, word, item, word0))
		return 0;
	do {
		done = coshm__cache_slot_change(slot, word, 0);
	} while (!done && coshm__cache_same(*word, named));
	if (done) {
		coshm__cache_left(op, cache, home, coshm__cache_slot_index(cache, slot) / 8 != home,
				  word1);
		coshm__count(op, cache->counters, counter, 1);
		coshm__count(op, cache->counters, COSHM__STAT_CACHE_evicted,
			     coshm__cache_item_bytes(cache, word0));
		pages_retire(cache, item, word0);
	}
	if (coshm__unlikely(coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE))
		coshm__hazard_clear(op, 1);
	return done;
}

int coshm__cache_keep_slot(struct coshm__op *op, const struct coshm__cache *cache,
			   const struct coshm__a64 *slot, struct coshm__cache_kept *ret_kept)
{
	for (int tries = 0; tries < TRIES_MAX; tries++) {
		/* relaxed: loaded again below */
		uint64_t word = coshm__a64_load_relaxed(slot);
		uint32_t page = coshm__cache_slot_page(word);
		uint32_t offset = coshm__cache_slot_offset(word);

		if (!word || page >= cache->page_count ||
		    offset + sizeof(struct coshm__cache_item_shm) > cache->page_bytes)
			break;
		coshm__hazard_protect(op, 2, coshm__cache_page_offset(cache, page));
		if (!coshm__cache_same(coshm__hazard_recheck_load(op, slot), word))
			continue;
		ret_kept->word = word;
		ret_kept->item = coshm__cache_page(cache, page) + offset;
		memcpy(&ret_kept->word0, ret_kept->item, 8);
		ret_kept->bytes = coshm__cache_item_bytes(cache, ret_kept->word0);
		if (ret_kept->bytes == 0 || offset + ret_kept->bytes > cache->page_bytes)
			break;
		return 1;
	}
	coshm__hazard_clear(op, 2);
	return 0;
}

int coshm__cache_push_out_kept(struct coshm__op *op, struct coshm__cache *cache,
			       struct coshm__a64 *slot, const struct coshm__cache_kept *kept,
			       uint32_t counter)
{
	uint64_t word = kept->word;

	if (!coshm__cache_push_out(op, cache,
				   coshm__cache_item_hash(cache, kept->item, kept->word0), slot,
				   &word, kept->item, counter))
		return 0;
	coshm__cache_page_dead(op, cache, coshm__cache_slot_page(kept->word), kept->bytes);
	return 1;
}

/* The index has no slot left near this key: pushes the least used neighbour out. 1, or 0: none could be. */
static int evict_neighbour(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash)
{
	struct coshm__cache_bucket_shm *bucket = &cache->buckets[coshm__cache_home(cache, hash)];
	struct coshm__cache_kept kept;
	int done = 0;

	for (int tries = 0; tries < 8 && !done; tries++) {
		struct coshm__a64 *slot = &bucket->slot[0];

		for (uint32_t i = 1; i < COSHM__CACHE_BUCKET_SLOTS; i++)
			if (coshm__cache_slot_frequency(coshm__a64_load_relaxed(&bucket->slot[i])) <
			    coshm__cache_slot_frequency(coshm__a64_load_relaxed(slot)))
				slot = &bucket->slot[i];
		if (coshm__cache_keep_slot(op, cache, slot, &kept)) {
			done = coshm__cache_push_out_kept(op, cache, slot, &kept,
							  COSHM__STAT_CACHE_evicted_index);
			coshm__hazard_clear(op, 2);
		} else {
			done = coshm__a64_load_relaxed(slot) == 0;
		}
	}
	return done;
}

int coshm__cache_insert(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			uint64_t word, void (*before)(void *context, uint32_t slot_index),
			void *context)
{
	int error = insert_once(op, cache, hash, word, before, context);

	for (int tries = 0; coshm__unlikely(error == -ENOSPC) && tries < 16; tries++) {
		if (cache->policy == COSHM_CACHE_NONE || !evict_neighbour(op, cache, hash))
			break;
		error = insert_once(op, cache, hash, word, before, context);
	}
	return error;
}
