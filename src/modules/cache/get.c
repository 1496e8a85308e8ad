/* SPDX-License-Identifier: MIT */
/* modules/cache/get.c - reading: get, peek, mget, exists, count */
#include "modules/cache/cache.h"

#include "base/crash.h"

#include <stdlib.h>

#define MGET_BATCH 16

void coshm__cache_touch(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			const struct coshm__cache_place *place)
{
	uint64_t word = place->word;

	if (cache->policy == COSHM_CACHE_LRU)
		coshm__cache_lru_touch(op, cache, hash, place);
	else if ((word & COSHM__CACHE_FREQUENCY_MASK) != COSHM__CACHE_FREQUENCY_MASK &&
		 cache->policy == COSHM_CACHE_S3FIFO)
		/* relaxed: the item was published by an earlier change of the slot, whose release sequence this
		 * goes on. The hazard is kept (H2). If somebody was faster, one hit is forgotten. */
		coshm__a64_cas_relaxed(place->slot, &word, word + COSHM__CACHE_FREQUENCY_ONE);
}

static uint64_t ttl_of(uint64_t word1, uint64_t now_ns)
{
	uint64_t expire_at_ns = (word1 >> 24) * COSHM__NS_PER_MS;

	if (expire_at_ns == 0)
		return COSHM_FOREVER;
	return expire_at_ns > now_ns ? expire_at_ns - now_ns : 0;
}

/* Copies what was found, unless the buffer is too small. *size_bytes: capacity, then the value's size. */
static int copy_out(const struct coshm__cache *cache, const struct coshm__cache_place *place,
		    void *buffer, size_t *size_bytes, struct coshm_cache_item *ret_item,
		    uint64_t now_ns)
{
	uint32_t flags = coshm__cache_item_flags(place->word0);
	uint32_t body = coshm__cache_item_body(cache, place->word0);
	char text[COSHM__CACHE_NUMBER_TEXT_BYTES];
	struct coshm__cache_large large;
	const unsigned char *value = place->item + body;
	size_t size = coshm__cache_item_inline(place->word0), capacity = *size_bytes;
	uint64_t version;
	uint32_t version_low;

	memcpy(&version_low, place->item + 16, 4);
	version = coshm__cache_item_version(place->word0, version_low);
	if (coshm__unlikely(flags)) {
		if (flags & COSHM__CACHE_ITEM_LARGE) {
			if (!coshm__cache_large_read(cache, place->item + COSHM__CACHE_LARGE_AT,
						     place->word0, &large))
				return -EUCLEAN;
			size = large.value_bytes;
		} else {
			/* relaxed: one word; incr orders nothing else by it */
			uint64_t number = coshm__a64_load_relaxed(
				(const struct coshm__a64 *)(const void *)value);

			size = coshm__cache_number_text(number, text);
			version = coshm__cache_number_version(version, number);
			value = (const unsigned char *)text;
		}
	}
	*size_bytes = size;
	if (size > capacity)
		return -ENOBUFS;
	if (coshm__unlikely(flags & COSHM__CACHE_ITEM_LARGE))
		coshm__cache_large_copy(cache, &large, large.key_bytes, buffer, size);
	else if (size > 0)
		memcpy(buffer, value, size);
	if (ret_item) {
		memset(ret_item, 0, sizeof(*ret_item));
		ret_item->value_size_bytes = size;
		ret_item->ttl_ns = ttl_of(place->word1, now_ns);
		ret_item->version = version;
		ret_item->number = (flags & COSHM__CACHE_ITEM_NUMBER) != 0;
	}
	return 1;
}

/* Keys are short: a call of memcmp costs more than the comparison. */
static inline int same_bytes(const unsigned char *a, const unsigned char *b, size_t size)
{
	uint64_t x, y;

	if (size < 8 || size > 64)
		return memcmp(a, b, size) == 0;
	for (size_t i = 0; i + 8 < size; i += 8) {
		memcpy(&x, a + i, 8);
		memcpy(&y, b + i, 8);
		if (x != y)
			return 0;
	}
	memcpy(&x, a + size - 8, 8);
	memcpy(&y, b + size - 8, 8);
	return x == y;
}

/*
 * The usual hit, in as few instructions as possible: a plain value in its key's home bucket, into a buffer that is large
 * enough. While an item's line is on its way the CPU works on what comes behind, as far as it can see; a hit that is short
 * lets it see the next one. Rules H1 and H2 of the hazards as in index.c.
 * 1 hit; 0 miss: no slot has the tag; -1: nothing was done, take the long way
 */
static inline int get_usual(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			    const unsigned char *key, size_t key_bytes, unsigned char *buffer,
			    size_t *size_bytes)
{
	uint64_t home = coshm__cache_home(cache, hash), word, word0, word1, end;
	struct coshm__cache_bucket_shm *bucket = &cache->buckets[home];
	uint32_t distance = coshm__cache_distance(cache, home); /* before the tags */
	uint32_t match = coshm__cache_bucket_match(bucket, hash), page, offset, size;
	const unsigned char *item;
	struct coshm__a64 *slot;

	if (!match)
		return distance ? -1 : 0;
	slot = coshm__cache_match_next(bucket, &match);
	/* relaxed: loaded again below */
	word = coshm__a64_load_relaxed(slot);
	page = coshm__cache_slot_page(word);
	offset = coshm__cache_slot_offset(word);
	/* An empty slot looks like one of tag 0. */
	if (coshm__unlikely(!word || page >= cache->page_count ||
			    offset + sizeof(struct coshm__cache_item_shm) > cache->page_bytes))
		return -1;
	item = coshm__cache_page(cache, page) + offset;
	__builtin_prefetch(item + 64);
	__builtin_prefetch(item + 128);
	COSHM__CRASH_POINT(cache_slot_loaded);
	coshm__hazard_protect(op, 0, coshm__cache_page_offset(cache, page));
	COSHM__CRASH_POINT(cache_read_announced);
	/* relaxed: the page's generation, as in is_key() of index.c */
	if (coshm__unlikely(!coshm__cache_same(coshm__hazard_recheck_load(op, slot), word) ||
			    ((coshm__a64_load_relaxed(&cache->words[page]) ^ word) & 0x7f) != 0))
		return -1;
	memcpy(&word0, item, 8);
	memcpy(&word1, item + 8, 8);
	size = coshm__cache_item_inline(word0);
	end = offset + cache->head_bytes + key_bytes + size;
	/* What word0 has between the length and the version: the key's length and no flag. relaxed: the epoch, as in
	 * coshm__cache_item_gone() */
	if (coshm__unlikely((word0 & UINT64_C(0x3fffff00000)) != (uint64_t)key_bytes << 20 ||
			    ((word1 ^ coshm__a64_load_relaxed(&cache->shm->epoch)) & 0xffffff) !=
				    0 ||
			    end > cache->page_bytes || size > *size_bytes ||
			    !same_bytes(item + cache->head_bytes, key, key_bytes)))
		return -1;
	if (word1 >> 24 && word1 >> 24 <= coshm__cache_now_ms(coshm__now_coarse_ns(op->segment)))
		return -1;
	if (coshm__likely(size > 0)) /* else buffer may be NULL */
		memcpy(buffer, item + cache->head_bytes + key_bytes, size);
	*size_bytes = size;
	if (coshm__unlikely((word & COSHM__CACHE_FREQUENCY_MASK) != COSHM__CACHE_FREQUENCY_MASK))
		/* relaxed: as in coshm__cache_touch() */
		coshm__a64_cas_relaxed(slot, &word, word + COSHM__CACHE_FREQUENCY_ONE);
	coshm__hazard_clear(op, 0);
	return 1;
}

/* @counts: hits and misses are added here; NULL: a peek */
static int look_up(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash, const void *key,
		   size_t key_bytes, void *buffer, size_t *size_bytes,
		   struct coshm_cache_item *ret_item, uint64_t now_ns, uint32_t counts[2])
{
	struct coshm__cache_place place;
	int result = 0, expired = 0;

	if (coshm__cache_find(op, cache, hash, key, key_bytes, &place)) {
		if (coshm__likely(!coshm__cache_item_gone(cache, place.word1,
							  coshm__cache_now_ms(now_ns), &expired))) {
			result = copy_out(cache, &place, buffer, size_bytes, ret_item, now_ns);
			if (counts && result == 1)
				coshm__cache_touch(op, cache, hash, &place);
		}
		coshm__cache_let_go(op, &place);
	}
	if (counts) {
		counts[result != 0]++;
		if (coshm__unlikely(expired))
			coshm__count(op, cache->counters, COSHM__STAT_CACHE_expired, 1);
	}
	return result;
}

static void add_counts(struct coshm__op *op, struct coshm__cache *cache, const uint32_t counts[2])
{
	if (counts[1])
		coshm__count(op, cache->counters, COSHM__STAT_CACHE_hits, counts[1]);
	if (counts[0])
		coshm__count(op, cache->counters, COSHM__STAT_CACHE_misses, counts[0]);
}

int coshm_cache_get(struct coshm_cache *token, const void *key, size_t key_size_bytes, void *buffer,
		    size_t *value_size_bytes, struct coshm_cache_item *ret_item)
{
	struct coshm__cache *cache;
	struct coshm__op op;
	uint32_t counts[2] = {0, 0};
	uint64_t now_ns, hash;
	int result;

	if (coshm__unlikely(!coshm__cache_is_key(key, key_size_bytes)))
		return coshm__cache_refuse_key(key, key_size_bytes);
	if (coshm__unlikely(!value_size_bytes || (!buffer && *value_size_bytes)))
		return coshm__cache_refuse_null(value_size_bytes ? "buffer" : "value_size_bytes");
	result = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	cache = op.handle->local;
	hash = coshm__cache_hash(cache, key, key_size_bytes);
	result = -1;
	if (coshm__likely(!ret_item && cache->policy == COSHM_CACHE_S3FIFO))
		result = get_usual(&op, cache, hash, key, key_size_bytes, buffer, value_size_bytes);
	if (coshm__likely(result >= 0)) {
		coshm__count(&op, cache->counters,
			     result ? COSHM__STAT_CACHE_hits : COSHM__STAT_CACHE_misses, 1);
	} else {
		/* P1: no tick, which may have to ask the kernel. */
		now_ns = coshm__now_coarse_ns(op.segment);
		result = look_up(&op, cache, hash, key, key_size_bytes, buffer, value_size_bytes,
				 ret_item, now_ns, counts);
		add_counts(&op, cache, counts);
	}
	coshm__op_end(&op);
	return result;
}

/* On a read-only attach: no hazard can be set, so a copy that is checked. */
static int peek_copy(struct coshm__op *op, const void *key, size_t key_bytes, void *buffer,
		     size_t *value_size_bytes, struct coshm_cache_item *ret_item)
{
	const struct coshm__cache *cache = op->handle->local;
	struct coshm__cache_copy copy;
	uint64_t now_ns = coshm__now_coarse_ns(op->segment);
	int expired,
		result = coshm__cache_copy_find(cache, coshm__cache_hash(cache, key, key_bytes),
						key, key_bytes, value_size_bytes != NULL, &copy);

	if (coshm__look_is_stale(op)) {
		if (result == 1)
			free(copy.key);
		return -ESTALE;
	}
	if (result != 1)
		return result;
	if (coshm__cache_item_gone(cache, copy.word1, coshm__cache_now_ms(now_ns), &expired)) {
		result = 0;
	} else if (value_size_bytes) {
		size_t capacity = *value_size_bytes;

		*value_size_bytes = copy.value_bytes;
		if (copy.value_bytes > capacity)
			result = -ENOBUFS;
		else if (copy.value_bytes)
			memcpy(buffer, copy.value, copy.value_bytes);
		if (result == 1 && ret_item) {
			memset(ret_item, 0, sizeof(*ret_item));
			ret_item->value_size_bytes = copy.value_bytes;
			ret_item->ttl_ns = ttl_of(copy.word1, now_ns);
			ret_item->version = copy.version;
			ret_item->number = (coshm__cache_item_flags(copy.word0) &
					    COSHM__CACHE_ITEM_NUMBER) != 0;
		}
	}
	free(copy.key);
	return result;
}

int coshm_cache_peek(struct coshm_cache *token, const void *key, size_t key_size_bytes,
		     void *buffer, size_t *value_size_bytes, struct coshm_cache_item *ret_item)
{
	struct coshm__op op;
	int result;

	if (coshm__unlikely(!coshm__cache_is_key(key, key_size_bytes)))
		return coshm__cache_refuse_key(key, key_size_bytes);
	if (coshm__unlikely(!value_size_bytes || (!buffer && *value_size_bytes)))
		return coshm__cache_refuse_null(value_size_bytes ? "buffer" : "value_size_bytes");
	result = coshm__op_begin_look(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	if (op.thread) {
		struct coshm__cache *cache = op.handle->local;

		result = look_up(&op, cache, coshm__cache_hash(cache, key, key_size_bytes), key,
				 key_size_bytes, buffer, value_size_bytes, ret_item,
				 coshm__now_coarse_ns(op.segment), NULL);
	} else {
		result = peek_copy(&op, key, key_size_bytes, buffer, value_size_bytes, ret_item);
	}
	coshm__op_end(&op);
	return result;
}

int coshm_cache_exists(struct coshm_cache *token, const void *key, size_t key_size_bytes)
{
	struct coshm__op op;
	int result, expired;

	if (!coshm__cache_is_key(key, key_size_bytes))
		return coshm__cache_refuse_key(key, key_size_bytes);
	result = coshm__op_begin_look(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	if (op.thread) {
		struct coshm__cache *cache = op.handle->local;
		struct coshm__cache_place place;

		result =
			coshm__cache_find(&op, cache, coshm__cache_hash(cache, key, key_size_bytes),
					  key, key_size_bytes, &place);
		if (result) {
			result = !coshm__cache_item_gone(
				cache, place.word1,
				coshm__cache_now_ms(coshm__now_coarse_ns(op.segment)), &expired);
			coshm__cache_let_go(&op, &place);
		}
	} else {
		result = peek_copy(&op, key, key_size_bytes, NULL, NULL, NULL);
	}
	coshm__op_end(&op);
	return result;
}

/*
 * Three passes over a batch: hash and fetch the buckets; find the items' addresses and fetch them; then the gets, which
 * find all in the CPU's caches. The second pass reads slots only, so it needs no hazard; a wrong guess costs a miss.
 */
static void fetch_items(const struct coshm__cache *cache, const uint64_t *hashes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct coshm__cache_bucket_shm *b =
			&cache->buckets[coshm__cache_home(cache, hashes[i])];

		for (uint32_t s = 0; s < COSHM__CACHE_BUCKET_SLOTS; s++) {
			uint64_t word = coshm__a64_load_relaxed(&b->slot[s]);
			uint32_t page = coshm__cache_slot_page(word);

			if (word >> 48 == (hashes[i] & 0xffff) && word &&
			    page < cache->page_count) {
				const unsigned char *item = coshm__cache_page(cache, page) +
							    coshm__cache_slot_offset(word);

				__builtin_prefetch(item);
				__builtin_prefetch(item + 64);
				__builtin_prefetch(item + 128);
			}
		}
	}
}

int coshm_cache_mget(struct coshm_cache *token, struct coshm_cache_request *requests, size_t count)
{
	struct coshm__op op;
	struct coshm__cache *cache;
	uint32_t counts[2] = {0, 0};
	uint64_t hashes[MGET_BATCH], now_ns;
	int hits = 0, error;

	if (!requests && count)
		return coshm__cache_refuse_null("requests");
	for (size_t i = 0; i < count; i++) {
		if (!coshm__cache_is_key(requests[i].key, requests[i].key_size_bytes))
			return coshm__cache_refuse_key(requests[i].key, requests[i].key_size_bytes);
		if (!requests[i].buffer && requests[i].buffer_size_bytes)
			return coshm__cache_refuse_null("a request's buffer");
	}
	error = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (error)
		return error;
	cache = op.handle->local;
	/* P1: no tick, which may have to ask the kernel. */
	now_ns = coshm__now_coarse_ns(op.segment);
	for (size_t from = 0; from < count; from += MGET_BATCH) {
		size_t batch = count - from < MGET_BATCH ? count - from : MGET_BATCH;

		for (size_t i = 0; i < batch; i++) {
			hashes[i] = coshm__cache_hash(cache, requests[from + i].key,
						      requests[from + i].key_size_bytes);
			__builtin_prefetch(&cache->buckets[coshm__cache_home(cache, hashes[i])]);
		}
		fetch_items(cache, hashes, batch);
		for (size_t i = 0; i < batch; i++) {
			struct coshm_cache_request *r = &requests[from + i];
			size_t size = r->buffer_size_bytes;

			r->ret_result = look_up(&op, cache, hashes[i], r->key, r->key_size_bytes,
						r->buffer, &size, NULL, now_ns, counts);
			r->ret_value_size_bytes = r->ret_result != 0 ? size : 0;
			hits += r->ret_result == 1;
		}
	}
	add_counts(&op, cache, counts);
	coshm__op_end(&op);
	return hits;
}

int coshm_cache_count(struct coshm_cache *token, uint64_t *ret_count)
{
	struct coshm__op op;
	uint64_t count;
	int error;

	if (!ret_count)
		return coshm__cache_refuse_null("ret_count");
	error = coshm__op_begin_look(&op, token, COSHM_OBJECT_CACHE);
	if (error)
		return error;
	count = coshm__cache_gauge(op.handle, COSHM__STAT_CACHE_entries);
	if (coshm__look_is_stale(&op))
		error = -ESTALE;
	else
		*ret_count = count;
	coshm__op_end(&op);
	return error;
}
