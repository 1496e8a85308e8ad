/* SPDX-License-Identifier: MIT */
/* modules/cache/set.c - storing: set, add, replace, delete, flush */
#include "modules/cache/cache.h"

#include "base/crash.h"

#define TRIES_MAX 8

uint64_t coshm__cache_expire_ms(uint64_t now_ns, uint64_t ttl_ns)
{
	uint64_t at;

	if (ttl_ns == 0 || ttl_ns > UINT64_MAX - now_ns - COSHM__NS_PER_MS)
		return 0;
	at = (now_ns + ttl_ns + COSHM__NS_PER_MS - 1) / COSHM__NS_PER_MS;
	return at < UINT64_C(1) << 40 ? at : 0;
}

int coshm__cache_reserve_room(struct coshm__op *op, struct coshm__cache *cache,
			      struct coshm__cache_request *request, int replaces,
			      struct coshm__cache_space *ret_space)
{
	int error, room = 0;

	request->keep = coshm__cache_keep(cache, replaces);
	for (int tries = 0;;) {
		error = coshm__cache_reserve(op, cache, request, 1, ret_space);
		if (coshm__likely(error != -ENOBUFS))
			return error;
		/* Tried even so: no page may be had, but what was moved can have left room in one. */
		if (room < 0)
			return room;
		if (room > 0 && ++tries > TRIES_MAX)
			return -EAGAIN; /* others were faster each time */
		room = coshm__cache_make_room(
			op, cache, 1, coshm__cache_item_bytes(cache, request->word0), replaces);
	}
}

/* A value on its way into the cache. */
struct store {
	const unsigned char *key;
	const void *value;
	size_t key_bytes, value_bytes;
	uint64_t hash, expire_ms, now_ms, word1;
	enum coshm__cache_store_mode mode;
	uint32_t item_class;
	int is_large;
	int replaces; /* as far as a first look could tell */
	struct coshm__cache_group group;
	struct coshm__cache_space space;
	uint32_t node; /* lru */
};

static void write_item(struct coshm__cache *cache, struct store *store)
{
	unsigned char *item = store->space.item;

	memcpy(item + 16, &store->space.version_low, 4);
	if (coshm__unlikely(store->is_large)) {
		uint64_t value_bytes = store->value_bytes;
		uint32_t head = offsetof(struct coshm__cache_large_shm, page);

		memcpy(item + 24, &value_bytes, 8);
		memcpy(item + 32, &store->hash, 8);
		memcpy(item + 40, &store->group.page_count, 4);
		memcpy(item + 24 + head, store->group.pages, store->group.page_count * 4);
		coshm__cache_group_fill(cache, &store->group, store->key, store->key_bytes,
					store->value, store->value_bytes,
					item + 24 + head + 4 * store->group.page_count);
		return;
	}
	memcpy(item + cache->head_bytes, store->key, store->key_bytes);
	if (store->value_bytes)
		memcpy(item + cache->head_bytes + store->key_bytes, store->value,
		       store->value_bytes);
}

static void stamp(struct store *store, uint64_t epoch)
{
	store->word1 = coshm__cache_item_word1(store->expire_ms, epoch);
	memcpy(store->space.item + 8, &store->word1, 8);
}

static void set_node(struct coshm__cache *cache, struct store *store, uint32_t node)
{
	if (cache->policy == COSHM_CACHE_LRU)
		memcpy(store->space.item + offsetof(struct coshm__cache_item_shm, node), &node, 4);
	store->node = node;
}

/* Before each try to publish in a slot: whoever is found by that slot must know it first. */
static void aim(struct coshm__cache *cache, struct store *store, uint32_t slot_index)
{
	if (store->is_large)
		coshm__cache_group_aim(cache, &store->group, slot_index);
}

struct insert_context {
	struct coshm__cache *cache;
	struct store *store;
};

static void before_insert(void *context, uint32_t slot_index)
{
	struct insert_context *c = context;

	if (c->cache->policy == COSHM_CACHE_LRU)
		coshm__cache_lru_aim(c->cache, c->store->node, slot_index);
	aim(c->cache, c->store, slot_index);
}

/* Replaces what was found and is kept. 1 done; 0: the slot changed meanwhile. */
static int publish_over(struct coshm__op *op, struct coshm__cache *cache, struct store *store,
			uint64_t next, struct coshm__cache_place *place)
{
	uint64_t word = place->word;

	/*
	 * Who replaces found a value alive and must not outlive it: should a flush come in between, both are forgotten by
	 * it. Others begin anew.
	 */
	stamp(store,
	      store->mode == COSHM__CACHE_STORE_REPLACE ? place->word1 : coshm__cache_epoch(cache));
	set_node(cache, store, coshm__cache_item_node(cache, place->item));
	aim(cache, store, coshm__cache_slot_index(cache, place->slot));
	do {
		if (coshm__cache_slot_change(place->slot, &word,
					     next | (word & COSHM__CACHE_FREQUENCY_MASK))) {
			COSHM__CRASH_POINT(cache_replaced);
			coshm__cache_entries_replaced(op, cache, place->word1, store->word1);
			coshm__cache_item_dropped(op, cache, place->page, place->item,
						  place->word0);
			return 1;
		}
	} while (coshm__cache_same(word, place->word));
	return 0;
}

/* Into an empty slot, with the lock held that all inserts of this key take. */
static int publish_new(struct coshm__op *op, struct coshm__cache *cache, struct store *store,
		       uint64_t next)
{
	struct insert_context context = {cache, store};
	int result;

	stamp(store, coshm__cache_epoch(cache));
	if (cache->policy == COSHM_CACHE_LRU) {
		struct coshm__cache_list_shm *list = coshm__cache_list(cache, store->hash);
		uint32_t node = coshm__cache_lru_take(op, cache, list);

		if (node == UINT32_MAX)
			return -EUCLEAN;
		set_node(cache, store, node);
	}
	result = coshm__cache_insert(op, cache, store->hash, next, before_insert, &context);
	if (result && cache->policy == COSHM_CACHE_LRU)
		coshm__cache_lru_give(cache, coshm__cache_list(cache, store->hash), store->node);
	return result;
}

/* All who insert a key take the same lock, so that it cannot come to stand in two slots. */
static struct coshm__rlock_shm *insert_lock(struct coshm__cache *cache, uint64_t hash)
{
	if (cache->policy == COSHM_CACHE_LRU)
		return &coshm__cache_list(cache, hash)->lock;
	return &coshm__cache_stripe(cache, coshm__cache_home(cache, hash))->lock;
}

/* 1 published, 0 not wanted (add, replace), or an error: nothing happened. */
static int publish(struct coshm__op *op, struct coshm__cache *cache, struct store *store)
{
	uint64_t next = coshm__cache_slot(store->hash, store->item_class, store->space.page,
					  store->space.offset, store->space.page_word);
	struct coshm__rlock_shm *lock = NULL;
	struct coshm__cache_place place;
	/* Whose key was not there a moment ago looks for it under the lock at once. */
	int inserts = !store->replaces && store->mode != COSHM__CACHE_STORE_REPLACE;
	int result, expired;

	for (;;) {
		if (inserts && !lock) {
			lock = insert_lock(cache, store->hash);
			result = coshm__rlock_acquire(op, lock, COSHM__LOCK_TIMEOUT_NS);
			if (result) {
				coshm__count(op, cache->counters, COSHM__STAT_CACHE_lock_timeouts,
					     1);
				return result;
			}
		}
		if (coshm__cache_find(op, cache, store->hash, store->key, store->key_bytes,
				      &place)) {
			int gone = coshm__cache_item_gone(cache, place.word1, store->now_ms,
							  &expired) != 0;

			COSHM__CRASH_POINT(cache_judged);
			if (gone == (store->mode == COSHM__CACHE_STORE_REPLACE) &&
			    store->mode != COSHM__CACHE_STORE_SET)
				result = 0;
			else
				result = publish_over(op, cache, store, next, &place) ? 1 : -EAGAIN;
			if (result == 1 && cache->policy == COSHM_CACHE_LRU && !lock) {
				/* the place is now ours */
				place.word = next;
				place.item = store->space.item;
				coshm__cache_lru_touch(op, cache, store->hash, &place);
			}
			coshm__cache_let_go(op, &place);
			if (result != -EAGAIN)
				break;
		} else if (store->mode == COSHM__CACHE_STORE_REPLACE) {
			result = 0;
			break;
		} else if (lock) {
			result = publish_new(op, cache, store, next);
			if (!result)
				result = 1;
			break;
		} else {
			inserts = 1;
		}
	}
	if (lock)
		coshm__rlock_release(op, lock);
	return result;
}

/* Decides by a first look whether there is anything to store, and where in the order it belongs. 1 go on, 0 not wanted. */
static int look_first(struct coshm__op *op, struct coshm__cache *cache, struct store *store)
{
	struct coshm__cache_place place;
	int gone = 1, found, expired;

	found = coshm__cache_find(op, cache, store->hash, store->key, store->key_bytes, &place);
	store->item_class = COSHM__CACHE_MAIN;
	store->replaces = found;
	if (found) {
		gone = coshm__cache_item_gone(cache, place.word1, store->now_ms, &expired) != 0;
		store->item_class = coshm__cache_slot_class(place.word);
		coshm__cache_let_go(op, &place);
	} else if (cache->policy == COSHM_CACHE_S3FIFO) {
		if (coshm__cache_ghost_has(cache, store->hash))
			coshm__count(op, cache->counters, COSHM__STAT_CACHE_ghost_hits, 1);
		else
			store->item_class = COSHM__CACHE_SMALL;
	}
	return store->mode == COSHM__CACHE_STORE_SET ||
	       gone == (store->mode == COSHM__CACHE_STORE_ADD);
}

static int store_large(struct coshm__op *op, struct coshm__cache *cache, struct store *store,
		       struct coshm__cache_request *request)
{
	int error = coshm__cache_group_take(op, cache, store->key_bytes + store->value_bytes,
					    store->replaces, &store->group);

	if (error)
		return error;
	request->word0 = (uint64_t)store->group.inline_bytes | (uint64_t)store->key_bytes << 20 |
			 (uint64_t)COSHM__CACHE_ITEM_LARGE << 36;
	error = coshm__cache_reserve_room(op, cache, request, store->replaces, &store->space);
	if (error) {
		coshm__cache_group_undo(op, cache, &store->group);
		return error;
	}
	write_item(cache, store);
	/* Keeps the leader while it is published: its builder word must still be ours when we clear it. */
	coshm__hazard_protect(op, 3, coshm__cache_page_offset(cache, store->group.pages[0]));
	error = coshm__cache_group_adopt(op, cache, &store->group, store->item_class);
	if (!error)
		error = publish(op, cache, store);
	if (error == 1) {
		coshm__cache_group_published(cache, &store->group);
		coshm__hazard_clear(op, 3);
		coshm__cache_group_free(&store->group);
		coshm__cache_reserve_done(op);
	} else {
		coshm__hazard_clear(op, 3);
		coshm__cache_group_undo(op, cache, &store->group);
		coshm__cache_reserve_undo(op, cache, &store->space, 0);
	}
	return error;
}

static int write_and_publish(struct coshm__op *op, struct coshm__cache *cache, struct store *store)
{
	write_item(cache, store);
	COSHM__CRASH_POINT(cache_written);
	return publish(op, cache, store);
}

/* Policy none, and no page is to be had: @error. */
static int store_in_last_page(struct coshm__op *op, struct coshm__cache *cache, struct store *store,
			      const struct coshm__cache_request *request, int error)
{
	struct coshm__cache_way way;
	int result = coshm__cache_make_way(op, cache, store->hash, store->key, store->key_bytes,
					   request, &way, &store->space);

	if (result == -ENOENT && store->mode == COSHM__CACHE_STORE_REPLACE)
		return 0;
	if (result)
		return result == -EAGAIN ? result : error;
	result = write_and_publish(op, cache, store);
	coshm__cache_way_end(op, cache, &way, &store->space, result == 1);
	return result;
}

static int store_small(struct coshm__op *op, struct coshm__cache *cache, struct store *store,
		       struct coshm__cache_request *request)
{
	int result;

	request->word0 = (uint64_t)store->value_bytes | (uint64_t)store->key_bytes << 20;
	result = coshm__cache_reserve_room(op, cache, request, store->replaces, &store->space);
	if (coshm__unlikely(result == -ENOSPC || result == -EAGAIN) && store->replaces &&
	    cache->policy == COSHM_CACHE_NONE)
		return store_in_last_page(op, cache, store, request, result);
	if (result)
		return result;
	result = write_and_publish(op, cache, store);
	if (result == 1)
		coshm__cache_reserve_done(op);
	else
		coshm__cache_reserve_undo(op, cache, &store->space, 0);
	return result;
}

static int store_value(struct coshm_cache *token, const void *key, size_t key_bytes,
		       const void *value, size_t value_bytes, uint64_t ttl_ns,
		       enum coshm__cache_store_mode mode)
{
	struct store store = {.key = key,
			      .value = value,
			      .key_bytes = key_bytes,
			      .value_bytes = value_bytes,
			      .mode = mode};
	struct coshm__cache_request request = {.version = 0};
	struct coshm__cache *cache;
	struct coshm__op op;
	uint64_t now_ns;
	int result;

	if (!coshm__cache_is_key(key, key_bytes))
		return coshm__cache_refuse_key(key, key_bytes);
	if (!value && value_bytes)
		return coshm__cache_refuse_null("value");
	result = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	cache = op.handle->local;
	if (value_bytes > cache->item_bytes_max ||
	    key_bytes + value_bytes > cache->item_bytes_max) {
		uint64_t most = cache->item_bytes_max;

		coshm__op_end(&op);
		return coshm__cache_refuse_size(value_bytes > UINT64_MAX - key_bytes
							? value_bytes
							: key_bytes + value_bytes,
						most);
	}
	now_ns = coshm__now_coarse_ns(op.segment);
	coshm__tick(&op, now_ns);
	store.now_ms = coshm__cache_now_ms(now_ns);
	store.expire_ms = coshm__cache_expire_ms(now_ns, ttl_ns);
	store.hash = coshm__cache_hash(cache, key, key_bytes);
	result = look_first(&op, cache, &store);
	if (result) {
		request.expire_ms = store.expire_ms;
		request.item_class = store.item_class;
		store.is_large =
			coshm__cache_align8(cache->head_bytes) + key_bytes + value_bytes + 8 >
			cache->page_bytes;
		result = store.is_large ? store_large(&op, cache, &store, &request)
					: store_small(&op, cache, &store, &request);
		if (result == 1)
			coshm__count(&op, cache->counters, COSHM__STAT_CACHE_sets, 1);
		if (store.space.item && store.space.offset == 0)
			coshm__cache_make_pace(&op, cache, store.space.page);
	}
	if (result == 0)
		coshm__count(&op, cache->counters, COSHM__STAT_CACHE_sets_refused, 1);
	coshm__op_end(&op);
	return result;
}

int coshm_cache_set(struct coshm_cache *cache, const void *key, size_t key_size_bytes,
		    const void *value, size_t value_size_bytes, uint64_t ttl_ns)
{
	int result = store_value(cache, key, key_size_bytes, value, value_size_bytes, ttl_ns,
				 COSHM__CACHE_STORE_SET);

	return result < 0 ? result : 0;
}

int coshm_cache_add(struct coshm_cache *cache, const void *key, size_t key_size_bytes,
		    const void *value, size_t value_size_bytes, uint64_t ttl_ns)
{
	return store_value(cache, key, key_size_bytes, value, value_size_bytes, ttl_ns,
			   COSHM__CACHE_STORE_ADD);
}

int coshm_cache_replace(struct coshm_cache *cache, const void *key, size_t key_size_bytes,
			const void *value, size_t value_size_bytes, uint64_t ttl_ns)
{
	return store_value(cache, key, key_size_bytes, value, value_size_bytes, ttl_ns,
			   COSHM__CACHE_STORE_REPLACE);
}

int coshm_cache_delete(struct coshm_cache *token, const void *key, size_t key_size_bytes)
{
	struct coshm__cache_place place;
	struct coshm__cache *cache;
	struct coshm__op op;
	uint64_t now_ns, hash;
	int result, expired;

	if (!coshm__cache_is_key(key, key_size_bytes))
		return coshm__cache_refuse_key(key, key_size_bytes);
	result = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	cache = op.handle->local;
	now_ns = coshm__now_coarse_ns(op.segment);
	coshm__tick(&op, now_ns);
	hash = coshm__cache_hash(cache, key, key_size_bytes);
	result = 0;
	while (!result && coshm__cache_find(&op, cache, hash, key, key_size_bytes, &place)) {
		uint32_t node = coshm__cache_item_node(cache, place.item);
		uint64_t word = place.word;
		int gone = coshm__cache_item_gone(cache, place.word1, coshm__cache_now_ms(now_ns),
						  &expired) != 0;

		do {
			result = coshm__cache_slot_change(place.slot, &word, 0);
		} while (!result && coshm__cache_same(word, place.word));
		if (result) {
			coshm__cache_left(&op, cache, place.home, place.distance, place.word1);
			coshm__cache_item_dropped(&op, cache, place.page, place.item, place.word0);
		}
		coshm__cache_let_go(&op, &place);
		if (result && cache->policy == COSHM_CACHE_LRU)
			coshm__cache_lru_forget(&op, cache, hash, node,
						coshm__cache_slot_index(cache, place.slot));
		if (result && gone) {
			result = 0;
			break;
		}
	}
	if (result)
		coshm__count(&op, cache->counters, COSHM__STAT_CACHE_deletes, 1);
	coshm__op_end(&op);
	return result;
}
