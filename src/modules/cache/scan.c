/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/scan.c - walking over all items, with a cursor
 *
 * Bucket by bucket. A bucket's items are copied, then the operation ends and the callback runs: it may do anything. An
 * item keeps its slot while it lives, so one that is there during the whole walk is met exactly where it is.
 */
#include "base/log.h"
#include "modules/cache/cache.h"

#include <stdlib.h>

struct batch {
	struct coshm__cache_copy copy[COSHM__CACHE_BUCKET_SLOTS];
	uint32_t count;
};

/* For a large value the leader of its pages is kept as well. 0: the slot changed meanwhile */
static int keep_leader(struct coshm__op *op, const struct coshm__cache *cache,
		       const struct coshm__a64 *slot, uint64_t word)
{
	uint32_t offset = coshm__cache_slot_offset(word), bytes;
	const unsigned char *item;
	struct coshm__cache_large large;
	uint64_t word0;

	if (offset + sizeof(struct coshm__cache_item_shm) > cache->page_bytes)
		return 1;
	item = coshm__cache_page(cache, coshm__cache_slot_page(word)) + offset;
	memcpy(&word0, item, 8);
	bytes = coshm__cache_item_bytes(cache, word0);
	if (!(coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE) || bytes == 0 ||
	    offset + bytes > cache->page_bytes ||
	    !coshm__cache_large_read(cache, item + COSHM__CACHE_LARGE_AT, word0, &large))
		return 1;
	coshm__hazard_protect(op, 1, coshm__cache_page_offset(cache, large.leader));
	return coshm__cache_same(coshm__hazard_recheck_load(op, slot), word);
}

/* Copies what a slot names, kept by a hazard. 1, 0, -ENOMEM */
static int copy_kept(struct coshm__op *op, const struct coshm__cache *cache,
		     const struct coshm__a64 *slot, int with_value, struct coshm__cache_copy *copy)
{
	for (int tries = 0; tries < 1000; tries++) {
		uint64_t word = coshm__a64_load_relaxed(slot);
		uint32_t page = coshm__cache_slot_page(word);
		int result;

		if (!word || page >= cache->page_count)
			break;
		coshm__hazard_protect(op, 0, coshm__cache_page_offset(cache, page));
		if (!coshm__cache_same(coshm__hazard_recheck_load(op, slot), word))
			continue;
		/* What the copy checks cannot happen to what is kept: this only saves a second way of copying. */
		if (!keep_leader(op, cache, slot, word))
			continue;
		result = coshm__cache_copy_slot(cache, slot, with_value, copy);
		coshm__hazard_clear(op, 1);
		coshm__hazard_clear(op, 0);
		if (result != -EAGAIN)
			return result;
	}
	coshm__hazard_clear(op, 1);
	coshm__hazard_clear(op, 0);
	return 0;
}

/* On a read-only attach. Nobody waits for such a reader: a large value's head may move each time that it is copied. */
static int copy_unkept(const struct coshm__cache *cache, const struct coshm__a64 *slot,
		       int with_value, struct coshm__cache_copy *copy)
{
	int result = -EAGAIN;

	for (int tries = 0; tries < 1000 && result == -EAGAIN; tries++)
		result = coshm__cache_copy_slot(cache, slot, with_value, copy);
	return result;
}

static void batch_free(struct batch *batch)
{
	while (batch->count > 0)
		free(batch->copy[--batch->count].key);
}

static int copy_bucket(struct coshm__op *op, uint64_t bucket, int with_value, struct batch *batch)
{
	const struct coshm__cache *cache = op->handle->local;
	uint64_t now_ms = coshm__cache_now_ms(coshm__now_coarse_ns(op->segment));

	batch->count = 0;
	for (uint32_t i = 0; i < COSHM__CACHE_BUCKET_SLOTS; i++) {
		const struct coshm__a64 *slot = &cache->buckets[bucket].slot[i];
		struct coshm__cache_copy *copy = &batch->copy[batch->count];
		int expired, result;

		if (!coshm__a64_load_relaxed(slot))
			continue;
		result = op->thread ? copy_kept(op, cache, slot, with_value, copy)
				    : copy_unkept(cache, slot, with_value, copy);
		/* What was there all the time must not be left out. */
		if (result == -ENOMEM || result == -EAGAIN) {
			batch_free(batch);
			return result;
		}
		if (result != 1)
			continue;
		if (coshm__cache_item_gone(cache, copy->word1, now_ms, &expired))
			free(copy->key);
		else
			batch->count++;
	}
	if (coshm__look_is_stale(op)) {
		batch_free(batch);
		return -ESTALE;
	}
	return 0;
}

int coshm_cache_scan(struct coshm_cache *token, uint64_t *cursor, uint64_t budget, uint32_t flags,
		     int (*each)(void *context, const void *key, size_t key_size_bytes,
				 const void *value, const struct coshm_cache_item *item),
		     void *context)
{
	int with_value = (flags & COSHM_CACHE_SCAN_VALUES) != 0;
	uint64_t bucket_count, done = 0, bucket;

	if (!cursor || !each)
		return coshm__fail(-EINVAL, "cache: %s is NULL", cursor ? "each" : "cursor");
	if (flags & ~(uint32_t)COSHM_CACHE_SCAN_VALUES)
		return coshm__fail(-EINVAL, "cache: flags %x are unknown", flags);
	bucket = *cursor;
	do {
		struct batch batch;
		struct coshm__op op;
		uint64_t now_ms;
		int result = coshm__op_begin_look(&op, token, COSHM_OBJECT_CACHE);

		if (result)
			return result;
		bucket_count = ((const struct coshm__cache *)op.handle->local)->bucket_count;
		batch.count = 0;
		if (bucket < bucket_count)
			result = copy_bucket(&op, bucket, with_value, &batch);
		now_ms = coshm__cache_now_ms(coshm__now_coarse_ns(op.segment));
		coshm__op_end(&op);
		for (uint32_t i = 0; i < batch.count; i++) {
			struct coshm__cache_copy *copy = &batch.copy[i];
			uint64_t expire_ms = copy->word1 >> 24;
			struct coshm_cache_item item = {
				.value_size_bytes = copy->value_bytes,
				.ttl_ns = expire_ms == 0 ? COSHM_FOREVER
					  : expire_ms > now_ms
						  ? (expire_ms - now_ms) * COSHM__NS_PER_MS
						  : 0,
				.version = copy->version,
				.number = (coshm__cache_item_flags(copy->word0) &
					   COSHM__CACHE_ITEM_NUMBER) != 0,
			};

			if (!result)
				result = each(context, copy->key, copy->key_bytes,
					      with_value ? copy->value : NULL, &item);
			free(copy->key);
		}
		if (result)
			return result;
		*cursor = ++bucket < bucket_count ? bucket : 0;
	} while (*cursor != 0 && (budget == 0 || ++done < budget));
	return 0;
}
