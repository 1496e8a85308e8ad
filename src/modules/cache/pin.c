/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/pin.c - values read in place
 *
 * A pin is a hazard that outlives the call: a word of the member, not of the thread. It is set while the thread's own
 * hazard keeps the page, so there is nothing to check again: whoever frees the page sees the one or the other.
 */
#include "base/log.h"
#include "modules/cache/cache.h"

/* coshm_cache_view.opaque */
enum {
	VIEW_MEMBER, /* id of who pinned; index of the second pin << 40 | of the first << 32 */
	VIEW_HEAD,   /* offset in the segment of the page of the head; 0: unpinned */
	VIEW_LEADER, /* of the leader of a large value, or 0 */
	VIEW_LOG,    /* address of the first page */
	VIEW_SHAPE,  /* page_count:24 << 40 | key_bytes:16 << 24 | log2 of page_bytes */
	VIEW_PARTS,  /* address of the list of pages; that of the rest follows it */
};

static void describe(const struct coshm__cache *cache, const struct coshm__cache_large *large,
		     struct coshm_cache_view *view)
{
	uint64_t payload = large->key_bytes + large->value_bytes;
	uint64_t first = large->key_bytes / cache->page_bytes;
	uint64_t parts = (payload + cache->page_bytes - 1) / cache->page_bytes;

	if (parts > large->page_count + (large->rest_bytes > 0))
		parts = large->page_count + (large->rest_bytes > 0);
	view->size_bytes = large->value_bytes;
	view->part_count = parts > first ? (uint32_t)(parts - first) : 1; /* a value of 0 bytes */
	view->opaque[VIEW_LEADER] = coshm__cache_page_offset(cache, large->leader);
	view->opaque[VIEW_LOG] = (uintptr_t)cache->log;
	view->opaque[VIEW_SHAPE] = (uint64_t)cache->page_count << 40 |
				   (uint64_t)large->key_bytes << 24 |
				   (uint64_t)__builtin_ctz(cache->page_bytes);
	view->opaque[VIEW_PARTS] = (uintptr_t)large->shm;
}

static int pin_pages(struct coshm__op *op, const struct coshm__cache *cache,
		     const struct coshm__cache_place *place, struct coshm_cache_view *view)
{
	int head, leader = 0;

	view->opaque[VIEW_HEAD] = coshm__cache_page_offset(cache, place->page);
	head = coshm__pin_set(op, view->opaque[VIEW_HEAD]);
	if (head < 0)
		return head;
	if (view->opaque[VIEW_LEADER]) {
		leader = coshm__pin_set(op, view->opaque[VIEW_LEADER]);
		if (leader < 0) {
			coshm__pin_clear(op, (uint32_t)head, view->opaque[VIEW_HEAD]);
			return leader;
		}
	}
	view->opaque[VIEW_MEMBER] = (uint64_t)leader << 40 | (uint64_t)head << 32 | op->member_id;
	return 1;
}

static int pin_found(struct coshm__op *op, struct coshm__cache *cache,
		     const struct coshm__cache_place *place, uint64_t now_ns,
		     struct coshm_cache_view *view)
{
	uint32_t flags = coshm__cache_item_flags(place->word0);
	uint64_t expire_at_ns = (place->word1 >> 24) * COSHM__NS_PER_MS;
	struct coshm__cache_large large;
	uint32_t version_low;
	size_t size;

	memcpy(&version_low, place->item + 16, 4);
	view->item.version = coshm__cache_item_version(place->word0, version_low);
	view->item.ttl_ns = expire_at_ns == 0	    ? COSHM_FOREVER
			    : expire_at_ns > now_ns ? expire_at_ns - now_ns
						    : 0;
	view->part_count = 1;
	if (flags & COSHM__CACHE_ITEM_LARGE) {
		if (!coshm__cache_large_read(cache, place->item + COSHM__CACHE_LARGE_AT,
					     place->word0, &large))
			return -EUCLEAN;
		describe(cache, &large, view);
		if (view->part_count == 1 && coshm_cache_view_part(view, 0, &view->data, &size))
			return -EUCLEAN;
	} else if (flags & COSHM__CACHE_ITEM_NUMBER) {
		return -EBADMSG;
	} else {
		view->data = place->item + coshm__cache_item_body(cache, place->word0);
		view->size_bytes = coshm__cache_item_inline(place->word0);
	}
	view->item.value_size_bytes = view->size_bytes;
	return pin_pages(op, cache, place, view);
}

int coshm_cache_pin(struct coshm_cache *token, const void *key, size_t key_size_bytes,
		    struct coshm_cache_view *ret_view)
{
	struct coshm__cache_place place;
	struct coshm_cache_view view;
	struct coshm__cache *cache;
	struct coshm__op op;
	uint64_t now_ns, hash;
	int result, expired = 0;

	if (!coshm__cache_is_key(key, key_size_bytes))
		return coshm__cache_refuse_key(key, key_size_bytes);
	if (!ret_view)
		return coshm__fail(-EINVAL, "cache: ret_view is NULL");
	result = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	cache = op.handle->local;
	now_ns = coshm__now_coarse_ns(op.segment);
	hash = coshm__cache_hash(cache, key, key_size_bytes);
	memset(&view, 0, sizeof(view));
	if (coshm__cache_find(&op, cache, hash, key, key_size_bytes, &place)) {
		if (!coshm__cache_item_gone(cache, place.word1, coshm__cache_now_ms(now_ns),
					    &expired)) {
			result = pin_found(&op, cache, &place, now_ns, &view);
			if (result == 1)
				coshm__cache_touch(&op, cache, hash, &place);
		}
		coshm__cache_let_go(&op, &place);
	}
	if (result >= 0)
		coshm__count(&op, cache->counters,
			     result ? COSHM__STAT_CACHE_hits : COSHM__STAT_CACHE_misses, 1);
	if (expired)
		coshm__count(&op, cache->counters, COSHM__STAT_CACHE_expired, 1);
	if (result == 1) {
		coshm__count(&op, cache->counters, COSHM__STAT_CACHE_pins, 1);
		*ret_view = view;
	}
	coshm__op_end(&op);
	return result;
}

int coshm_cache_unpin(struct coshm_cache *token, struct coshm_cache_view *view)
{
	struct coshm__op op;
	uint64_t member;
	int result;

	if (!view)
		return coshm__fail(-EINVAL, "cache: view is NULL");
	result = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);
	if (result)
		return result;
	member = view->opaque[VIEW_MEMBER];
	if (view->opaque[VIEW_HEAD] == 0 || (uint32_t)member != op.member_id) {
		result = -ESTALE;
	} else {
		result = coshm__pin_clear(&op, (uint32_t)(member >> 32) & 0xff,
					  view->opaque[VIEW_HEAD]);
		if (view->opaque[VIEW_LEADER])
			coshm__pin_clear(&op, (uint32_t)(member >> 40) & 0xff,
					 view->opaque[VIEW_LEADER]);
		view->opaque[VIEW_HEAD] = 0;
		view->data = NULL;
		view->part_count = 0;
	}
	coshm__op_end(&op);
	return result;
}

/* From the view alone: no handle is needed, and what the segment says by now cannot lead out of the pages. */
int coshm_cache_view_part(const struct coshm_cache_view *view, uint32_t index,
			  const void **ret_data, size_t *ret_size_bytes)
{
	const struct coshm__cache_large_shm *large;
	uint64_t shape, page_bytes, key_bytes, from, to, payload;
	uint32_t page, page_count;
	const unsigned char *data;

	if (!view || !ret_data || !ret_size_bytes)
		return coshm__fail(-EINVAL, "cache: view, ret_data or ret_size_bytes is NULL");
	if (index >= view->part_count)
		return coshm__fail(-EINVAL, "cache: index is %u, the view has %u parts", index,
				   view->part_count);
	if (view->opaque[VIEW_LEADER] == 0) {
		*ret_data = view->data;
		*ret_size_bytes = view->size_bytes;
		return 0;
	}
	large = (const void *)(uintptr_t)view->opaque[VIEW_PARTS];
	shape = view->opaque[VIEW_SHAPE];
	page_bytes = UINT64_C(1) << (shape & 0xff);
	key_bytes = shape >> 24 & 0xffff;
	payload = key_bytes + view->size_bytes;
	index += (uint32_t)(key_bytes / page_bytes);
	from = index * page_bytes;
	to = from + page_bytes < payload ? from + page_bytes : payload;
	memcpy(&page_count, &large->page_count, 4);
	if (index >= page_count) {
		if (page_count > shape >> 40)
			return -EUCLEAN;
		data = (const unsigned char *)large->page + 4 * (size_t)page_count;
		/* The head's page may be the last one. */
		if ((uintptr_t)data - view->opaque[VIEW_LOG] + (to - from) >
		    (shape >> 40) * page_bytes)
			return -EUCLEAN;
	} else {
		memcpy(&page, &large->page[index], 4);
		if (page >= shape >> 40)
			return -EUCLEAN;
		data = (const unsigned char *)(uintptr_t)view->opaque[VIEW_LOG] + page * page_bytes;
	}
	if (from < key_bytes) {
		data += key_bytes - from;
		from = key_bytes;
	}
	*ret_data = data;
	*ret_size_bytes = to - from;
	return 0;
}
