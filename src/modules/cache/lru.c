/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/lru.c - recency lists, policy lru only
 *
 * A key belongs to one list by its hash; one lock per list. Nodes are an array; an item names its node, a node the slot
 * of its item, and a pair that does not name each other is no pair: the item is not in the list, the node is a
 * leftover that whoever meets it frees. So the index is never tied to the list by more than one CAS:
 *   insert    take a node to the front, aim it at the slot, publish the item.      killed: a leftover
 *   remove    empty the slot, give the node back.                                  killed: a leftover
 *   replace   the new item takes over the node: no lock at all
 *
 * Lists are changed in transactions. Before a word changes, the journal has its old value; recovery puts all back.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

#define NONE	   UINT32_MAX
#define WHICH_LIST 0xfffffff0u
#define FORGET_NS  (5 * COSHM__NS_PER_MS)

enum field { NODE_NEWER, NODE_OLDER, NODE_SLOT };
enum list_field { LIST_NEWEST, LIST_OLDEST, LIST_FREE, LIST_COUNT };

static uint32_t list_index(const struct coshm__cache *cache,
			   const struct coshm__cache_list_shm *list)
{
	return (uint32_t)(list - cache->lists);
}

/* Is it a node of this list? */
static int is_node(const struct coshm__cache *cache, const struct coshm__cache_list_shm *list,
		   uint32_t node)
{
	return node < cache->node_count && node / cache->list_nodes == list_index(cache, list);
}

static struct coshm__a32 *word_at(struct coshm__cache *cache, struct coshm__cache_list_shm *list,
				  uint32_t which)
{
	if (which >= WHICH_LIST) {
		switch (which - WHICH_LIST) {
		case LIST_NEWEST:
			return &list->newest;
		case LIST_OLDEST:
			return &list->oldest;
		case LIST_FREE:
			return &list->free;
		case LIST_COUNT:
			return &list->count;
		default:
			return NULL;
		}
	}
	if (!is_node(cache, list, which / 4))
		return NULL;
	switch (which % 4) {
	case NODE_NEWER:
		return &cache->nodes[which / 4].newer;
	case NODE_OLDER:
		return &cache->nodes[which / 4].older;
	case NODE_SLOT:
		return &cache->nodes[which / 4].slot;
	default:
		return NULL;
	}
}

/*
 * All stores here are relaxed and only kept in order by compiler barriers: nobody but holders of the lock reads them,
 * and who takes the lock over from a dead process sees all that it stored.
 */
static void change(struct coshm__cache *cache, struct coshm__cache_list_shm *list, uint32_t which,
		   uint32_t value)
{
	uint32_t count = coshm__a32_load_relaxed(&list->journal_count);
	struct coshm__a32 *word = word_at(cache, list, which);

	if (!word || count >= COSHM__CACHE_JOURNAL_ENTRIES)
		return;
	coshm__a64_store_relaxed(&list->journal[count],
				 (uint64_t)which << 32 | coshm__a32_load_relaxed(word));
	coshm__compiler_barrier();
	coshm__a32_store_relaxed(&list->journal_count, count + 1);
	coshm__compiler_barrier();
	COSHM__CRASH_POINT(cache_lru_journaled);
	coshm__a32_store_relaxed(word, value);
	COSHM__CRASH_POINT(cache_lru_changed);
}

static void commit(struct coshm__cache_list_shm *list)
{
	coshm__compiler_barrier();
	coshm__a32_store_relaxed(&list->journal_count, 0);
	coshm__compiler_barrier();
	COSHM__CRASH_POINT(cache_lru_committed);
}

int coshm__cache_lru_recover(struct coshm__cache *cache, struct coshm__cache_list_shm *list)
{
	uint32_t count = coshm__a32_load_relaxed(&list->journal_count);

	if (count > COSHM__CACHE_JOURNAL_ENTRIES)
		return -EUCLEAN;
	while (count-- > 0) {
		uint64_t entry = coshm__a64_load_relaxed(&list->journal[count]);
		struct coshm__a32 *word = word_at(cache, list, (uint32_t)(entry >> 32));

		if (!word)
			return -EUCLEAN;
		coshm__a32_store_relaxed(word, (uint32_t)entry);
		COSHM__CRASH_POINT(cache_lru_restored);
	}
	commit(list);
	return 0;
}

static uint32_t get_node(struct coshm__cache *cache, uint32_t node, enum field field)
{
	struct coshm__cache_node_shm *n = &cache->nodes[node];

	return coshm__a32_load_relaxed(field == NODE_NEWER   ? &n->newer
				       : field == NODE_OLDER ? &n->older
							     : &n->slot);
}

static void set_node(struct coshm__cache *cache, struct coshm__cache_list_shm *list, uint32_t node,
		     enum field field, uint32_t value)
{
	change(cache, list, node * 4 + field, value);
}

static void set_list(struct coshm__cache *cache, struct coshm__cache_list_shm *list,
		     enum list_field field, uint32_t value)
{
	change(cache, list, WHICH_LIST + field, value);
}

static void link_newest(struct coshm__cache *cache, struct coshm__cache_list_shm *list,
			uint32_t node)
{
	uint32_t newest = coshm__a32_load_relaxed(&list->newest);

	set_node(cache, list, node, NODE_NEWER, NONE);
	set_node(cache, list, node, NODE_OLDER, newest);
	if (is_node(cache, list, newest))
		set_node(cache, list, newest, NODE_NEWER, node);
	else
		set_list(cache, list, LIST_OLDEST, node);
	set_list(cache, list, LIST_NEWEST, node);
}

static void unlink_node(struct coshm__cache *cache, struct coshm__cache_list_shm *list,
			uint32_t node)
{
	uint32_t newer = get_node(cache, node, NODE_NEWER);
	uint32_t older = get_node(cache, node, NODE_OLDER);

	if (is_node(cache, list, newer))
		set_node(cache, list, newer, NODE_OLDER, older);
	else
		set_list(cache, list, LIST_NEWEST, older);
	if (is_node(cache, list, older))
		set_node(cache, list, older, NODE_NEWER, newer);
	else
		set_list(cache, list, LIST_OLDEST, newer);
}

void coshm__cache_lru_give(struct coshm__cache *cache, struct coshm__cache_list_shm *list,
			   uint32_t node)
{
	uint32_t count = coshm__a32_load_relaxed(&list->count);

	unlink_node(cache, list, node);
	set_node(cache, list, node, NODE_SLOT, NONE);
	set_node(cache, list, node, NODE_NEWER, coshm__a32_load_relaxed(&list->free));
	set_list(cache, list, LIST_FREE, node);
	set_list(cache, list, LIST_COUNT, count ? count - 1 : 0);
	commit(list);
}

static uint64_t large_bytes(const struct coshm__cache *cache, const unsigned char *item,
			    uint64_t word0)
{
	struct coshm__cache_large large;

	if (!(coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE) ||
	    !coshm__cache_large_read(cache, item + COSHM__CACHE_LARGE_AT, word0, &large))
		return 0;
	return (uint64_t)large.page_count * cache->page_bytes;
}

/* Pushes the oldest entry out. 0: the list is empty or damaged; who goes on with one that leads in a circle never ends. */
static int push_out(struct coshm__op *op, struct coshm__cache *cache,
		    struct coshm__cache_list_shm *list, uint32_t counter, uint64_t *bytes)
{
	uint32_t node = coshm__a32_load_relaxed(&list->oldest);
	struct coshm__cache_kept kept;
	struct coshm__a64 *slot;

	if (!is_node(cache, list, node) || is_node(cache, list, get_node(cache, node, NODE_OLDER)))
		return 0;
	slot = coshm__cache_slot_at(cache, get_node(cache, node, NODE_SLOT));
	for (int tries = 0; slot && tries < 1000 && coshm__cache_keep_slot(op, cache, slot, &kept);
	     tries++) {
		/* Another item's by now: the node has outlived its own. */
		if (coshm__cache_item_node(cache, kept.item) != node)
			break;
		if (coshm__cache_push_out_kept(op, cache, slot, &kept, counter)) {
			*bytes += kept.bytes + large_bytes(cache, kept.item, kept.word0);
			break;
		}
	}
	coshm__hazard_clear(op, 2);
	coshm__cache_lru_give(cache, list, node);
	return 1;
}

uint32_t coshm__cache_lru_take(struct coshm__op *op, struct coshm__cache *cache,
			       struct coshm__cache_list_shm *list)
{
	uint64_t bytes = 0;
	uint32_t node;

	if (coshm__a32_load_relaxed(&list->free) == NONE)
		push_out(op, cache, list,
			 cache->max_entries ? COSHM__STAT_CACHE_evicted_max_entries
					    : COSHM__STAT_CACHE_evicted_lru,
			 &bytes);
	node = coshm__a32_load_relaxed(&list->free);
	if (!is_node(cache, list, node))
		return NONE;
	set_list(cache, list, LIST_FREE, get_node(cache, node, NODE_NEWER));
	link_newest(cache, list, node);
	set_list(cache, list, LIST_COUNT, coshm__a32_load_relaxed(&list->count) + 1);
	commit(list);
	return node;
}

void coshm__cache_lru_aim(struct coshm__cache *cache, uint32_t node, uint32_t slot_index)
{
	/* One word, and nothing hangs on it before the slot names the node: no journal. */
	coshm__a32_store_relaxed(&cache->nodes[node].slot, slot_index);
	COSHM__CRASH_POINT(cache_lru_aimed);
}

int coshm__cache_lru_owns(const struct coshm__cache *cache, uint32_t node, uint32_t slot_index)
{
	return node < cache->node_count &&
	       coshm__a32_load_relaxed(&cache->nodes[node].slot) == slot_index;
}

void coshm__cache_lru_touch(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			    const struct coshm__cache_place *place)
{
	struct coshm__cache_list_shm *list = coshm__cache_list(cache, hash);
	uint32_t node = coshm__cache_item_node(cache, place->item);

	/* relaxed: a hint; at worst one touch is lost */
	if (!is_node(cache, list, node) || coshm__a32_load_relaxed(&list->newest) == node ||
	    coshm__rlock_acquire(op, &list->lock, 0))
		return;
	if (coshm__cache_lru_owns(cache, node, coshm__cache_slot_index(cache, place->slot)) &&
	    coshm__cache_same(coshm__a64_load_relaxed(place->slot), place->word) &&
	    coshm__a32_load_relaxed(&list->newest) != node) {
		unlink_node(cache, list, node);
		link_newest(cache, list, node);
		commit(list);
	}
	coshm__rlock_release(op, &list->lock);
}

void coshm__cache_lru_forget(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			     uint32_t node, uint32_t slot_index)
{
	struct coshm__cache_list_shm *list = coshm__cache_list(cache, hash);
	struct coshm__a64 *slot = coshm__cache_slot_at(cache, slot_index);
	struct coshm__cache_kept kept;

	if (!slot || !is_node(cache, list, node) ||
	    coshm__rlock_acquire(op, &list->lock, FORGET_NS))
		return;
	if (coshm__cache_lru_owns(cache, node, slot_index)) {
		/* The node may have been given back and taken again for a new item in the same slot. */
		if (!coshm__cache_keep_slot(op, cache, slot, &kept) ||
		    coshm__cache_item_node(cache, kept.item) != node)
			coshm__cache_lru_give(cache, list, node);
		coshm__hazard_clear(op, 2);
	}
	coshm__rlock_release(op, &list->lock);
}

/* Of several lists the longest gives: nothing tells which has the oldest end, and a short one may hold only what is new. */
uint64_t coshm__cache_lru_evict(struct coshm__op *op, struct coshm__cache *cache, uint64_t bytes)
{
	uint64_t done = 0,
		 busy = 0; /* bit i: list i is held by somebody who does not get on, or is empty */

	/* No more than there are nodes: the rest is damage that looks sound at each step. */
	for (uint32_t pushed = 0; done < bytes && pushed < cache->node_count; pushed++) {
		struct coshm__cache_list_shm *longest = NULL;

		for (uint32_t i = 0; i < cache->lane_count; i++)
			if (!(busy >> i & 1) &&
			    (!longest || coshm__a32_load_relaxed(&cache->lists[i].count) >
						 coshm__a32_load_relaxed(&longest->count)))
				longest = &cache->lists[i];
		if (!longest)
			break;
		if (coshm__rlock_acquire(op, &longest->lock, FORGET_NS)) {
			busy |= UINT64_C(1) << list_index(cache, longest);
			continue;
		}
		if (!push_out(op, cache, longest, COSHM__STAT_CACHE_evicted_lru, &done))
			busy |= UINT64_C(1) << list_index(cache, longest);
		coshm__rlock_release(op, &longest->lock);
	}
	return done;
}

void coshm__cache_lru_initialise(struct coshm__cache *cache)
{
	for (uint32_t i = 0; i < cache->lane_count; i++) {
		struct coshm__cache_list_shm *list = &cache->lists[i];
		uint32_t first = i * cache->list_nodes;

		coshm__a32_store_relaxed(&list->newest, NONE);
		coshm__a32_store_relaxed(&list->oldest, NONE);
		coshm__a32_store_relaxed(&list->free, first);
		for (uint32_t n = 0; n < cache->list_nodes; n++) {
			coshm__a32_store_relaxed(&cache->nodes[first + n].newer,
						 n + 1 < cache->list_nodes ? first + n + 1 : NONE);
			coshm__a32_store_relaxed(&cache->nodes[first + n].slot, NONE);
		}
	}
}
