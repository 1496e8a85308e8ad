/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/number.c - numbers that are added to in place
 *
 * The one value that changes after it was published: an aligned word, by fetch_add, with the key's stripe held. The
 * stripe keeps away who would copy the number to another page meanwhile; replacing and deleting need no lock, an
 * addition that meets them happened just before.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

size_t coshm__cache_number_text(uint64_t number, char text[COSHM__CACHE_NUMBER_TEXT_BYTES])
{
	char digits[COSHM__CACHE_NUMBER_TEXT_BYTES];
	uint64_t rest = number >> 63 ? 0 - number : number;
	size_t count = 0, size = 0;

	do {
		digits[count++] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	if (number >> 63)
		text[size++] = '-';
	while (count)
		text[size++] = digits[--count];
	return size;
}

/* One to one for a given item, so two values of one number never share a version. */
uint64_t coshm__cache_number_version(uint64_t version, uint64_t number)
{
	number *= UINT64_C(0x9e3779b97f4a7c15);
	return version ^ number ^ number >> 32;
}

struct increment {
	const unsigned char *key;
	size_t key_bytes;
	uint64_t delta, initial, expire_ms, now_ms, word1, hash, value;
	struct coshm__cache_space space;
	int reserved;
	int used; /* the reserved place was published */
};

static int reserve_number(struct coshm__op *op, struct coshm__cache *cache,
			  struct increment *increment)
{
	uint64_t word0 =
		8 | (uint64_t)increment->key_bytes << 20 | (uint64_t)COSHM__CACHE_ITEM_NUMBER << 36;
	struct coshm__cache_request request = {.word0 = word0,
					       .expire_ms = increment->expire_ms,
					       .item_class = cache->policy == COSHM_CACHE_S3FIFO
								     ? COSHM__CACHE_SMALL
								     : COSHM__CACHE_MAIN};
	uint64_t number = increment->initial + increment->delta;
	int error = coshm__cache_reserve_room(op, cache, &request, 0, &increment->space);
	unsigned char *item = increment->space.item;

	if (error)
		return error;
	memcpy(item + 16, &increment->space.version_low, 4);
	memcpy(item + cache->head_bytes, increment->key, increment->key_bytes);
	memcpy(item + coshm__cache_item_body(cache, word0), &number, 8);
	increment->reserved = 1;
	return 0;
}

static void stamp(const struct coshm__cache *cache, struct increment *increment)
{
	increment->word1 = coshm__cache_item_word1(increment->expire_ms, coshm__cache_epoch(cache));
	memcpy(increment->space.item + 8, &increment->word1, 8);
}

struct aim {
	struct coshm__cache *cache;
	uint32_t node;
};

static void before_insert(void *context, uint32_t slot_index)
{
	struct aim *aim = context;

	if (aim->cache->policy == COSHM_CACHE_LRU)
		coshm__cache_lru_aim(aim->cache, aim->node, slot_index);
}

static int insert_number(struct coshm__op *op, struct coshm__cache *cache,
			 struct increment *increment)
{
	const struct coshm__cache_space *space = &increment->space;
	uint64_t next = coshm__cache_slot(increment->hash,
					  cache->policy == COSHM_CACHE_S3FIFO ? COSHM__CACHE_SMALL
									      : COSHM__CACHE_MAIN,
					  space->page, space->offset, space->page_word);
	struct coshm__cache_list_shm *list = coshm__cache_list(cache, increment->hash);
	struct aim aim = {cache, UINT32_MAX};
	int error;

	stamp(cache, increment);
	if (cache->policy == COSHM_CACHE_LRU) {
		aim.node = coshm__cache_lru_take(op, cache, list);
		if (aim.node == UINT32_MAX)
			return -EUCLEAN;
		memcpy(space->item + offsetof(struct coshm__cache_item_shm, node), &aim.node, 4);
	}
	error = coshm__cache_insert(op, cache, increment->hash, next, before_insert, &aim);
	if (error && cache->policy == COSHM_CACHE_LRU)
		coshm__cache_lru_give(cache, list, aim.node);
	return error;
}

/* With the stripe held. 0 done; 1: a place in the log is needed first; or an error. */
static int increment_locked(struct coshm__op *op, struct coshm__cache *cache,
			    struct increment *increment)
{
	struct coshm__cache_place place;
	int expired, result;

	for (;;) {
		uint64_t word, next;

		if (!coshm__cache_find(op, cache, increment->hash, increment->key,
				       increment->key_bytes, &place)) {
			if (!increment->reserved)
				return 1;
			result = insert_number(op, cache, increment);
			if (!result) {
				increment->value = increment->initial + increment->delta;
				increment->used = 1;
			}
			return result;
		}
		if (!coshm__cache_item_gone(cache, place.word1, increment->now_ms, &expired)) {
			result = -EBADMSG;
			if (coshm__cache_item_flags(place.word0) == COSHM__CACHE_ITEM_NUMBER) {
				uint32_t body = coshm__cache_item_body(cache, place.word0);

				/* relaxed: one word, exact by itself; under the stripe for relocation's sake */
				increment->value =
					coshm__a64_fetch_add_relaxed(
						(struct coshm__a64 *)(void *)(place.item + body),
						increment->delta) +
					increment->delta;
				COSHM__CRASH_POINT(cache_number_added);
				coshm__cache_touch(op, cache, increment->hash, &place);
				result = 0;
			}
			coshm__cache_let_go(op, &place);
			return result;
		}
		if (!increment->reserved) {
			coshm__cache_let_go(op, &place);
			return 1;
		}
		word = place.word;
		next = coshm__cache_slot(increment->hash, coshm__cache_slot_class(word),
					 increment->space.page, increment->space.offset,
					 increment->space.page_word);
		stamp(cache, increment);
		if (cache->policy == COSHM_CACHE_LRU) {
			uint32_t node = coshm__cache_item_node(cache, place.item);

			memcpy(increment->space.item + offsetof(struct coshm__cache_item_shm, node),
			       &node, 4);
		}
		result = coshm__cache_slot_change(place.slot, &word, next);
		if (result) {
			coshm__cache_entries_replaced(op, cache, place.word1, increment->word1);
			coshm__cache_item_dropped(op, cache, place.page, place.item, place.word0);
		}
		coshm__cache_let_go(op, &place);
		if (result) {
			increment->value = increment->initial + increment->delta;
			increment->used = 1;
			return 0;
		}
	}
}

/* Under lru the list's lock excludes other inserters, the stripe excludes copying: first the one, then the other. */
static int increment_with_locks(struct coshm__op *op, struct coshm__cache *cache,
				struct increment *increment)
{
	struct coshm__rlock_shm *stripe =
		&coshm__cache_stripe(cache, coshm__cache_home(cache, increment->hash))->lock;
	struct coshm__rlock_shm *list = NULL;
	int error;

	if (cache->policy == COSHM_CACHE_LRU && increment->reserved) {
		list = &coshm__cache_list(cache, increment->hash)->lock;
		error = coshm__rlock_acquire(op, list, COSHM__LOCK_TIMEOUT_NS);
		if (error)
			return error;
	}
	error = coshm__rlock_acquire(op, stripe, COSHM__LOCK_TIMEOUT_NS);
	if (!error) {
		error = increment_locked(op, cache, increment);
		coshm__rlock_release(op, stripe);
	}
	if (list)
		coshm__rlock_release(op, list);
	return error;
}

int coshm_cache_incr(struct coshm_cache *token, const void *key, size_t key_size_bytes,
		     int64_t delta, int64_t initial, uint64_t ttl_ns, int64_t *ret_value)
{
	struct increment increment = {.key = key,
				      .key_bytes = key_size_bytes,
				      .delta = (uint64_t)delta,
				      .initial = (uint64_t)initial};
	struct coshm__cache *cache;
	struct coshm__op op;
	uint64_t now_ns;
	int error;

	if (!coshm__cache_is_key(key, key_size_bytes))
		return coshm__cache_refuse_key(key, key_size_bytes);
	error = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (error)
		return error;
	cache = op.handle->local;
	now_ns = coshm__now_coarse_ns(op.segment);
	coshm__tick(&op, now_ns);
	increment.now_ms = coshm__cache_now_ms(now_ns);
	increment.expire_ms = coshm__cache_expire_ms(now_ns, ttl_ns);
	increment.hash = coshm__cache_hash(cache, key, key_size_bytes);
	if (key_size_bytes + 64 > cache->page_bytes || key_size_bytes + 8 > cache->item_bytes_max) {
		uint64_t most = cache->page_bytes - 56 < cache->item_bytes_max
					? cache->page_bytes - 56
					: cache->item_bytes_max;

		coshm__op_end(&op);
		return coshm__cache_refuse_size(key_size_bytes + 8, most);
	}
	error = increment_with_locks(&op, cache, &increment);
	if (error == 1) {
		error = reserve_number(&op, cache, &increment);
		if (!error)
			error = increment_with_locks(&op, cache, &increment);
		if (increment.reserved) {
			if (increment.used)
				coshm__cache_reserve_done(&op);
			else
				coshm__cache_reserve_undo(&op, cache, &increment.space, 0);
			if (increment.space.offset == 0)
				coshm__cache_make_pace(&op, cache, increment.space.page);
		}
	}
	if (!error) {
		coshm__count(&op, cache->counters, COSHM__STAT_CACHE_increments, 1);
		if (ret_value)
			*ret_value = (int64_t)increment.value;
	}
	coshm__op_end(&op);
	return error;
}
