/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/cache.h - process-local side of a cache, and what its files offer each other
 *
 * From bottom to top: layout (sizes), page (the page table), index (slots), lane (appending), large (values of many
 * pages), lru (recency lists), target (moving into the last page), evict (making room), then the public operations: get,
 * set, number, pin, scan, and what the segment asks of every object: type, reap, verify.
 *
 * Hazards of a thread: read 0 the item looked at, read 1 the leader of its large value, or of one that is pushed out or
 * moved, read 2 an item that is pushed out, read 3 the head of a group under suspicion; write 0 the page appended to.
 */
#ifndef COSHM__MODULES_CACHE_CACHE_H
#define COSHM__MODULES_CACHE_CACHE_H

#include "base/hash.h"
#include "base/tags.h"
#include "modules/cache/cache_shm.h"
#include "segment/member.h"
#include "segment/object.h"
#include "segment/rlock.h"
#include "segment/segment.h"
#include "stats/stats.h"
#include "structs/hazard.h"

#include <coshm/cache.h>
#include <errno.h>
#include <string.h>

extern const struct coshm__object_type coshm__cache_type;

/* Const after attach, all computed from the checked configuration: no offset or count is ever read from the segment. */
struct coshm__cache {
	struct coshm__cache_shm *shm;
	struct coshm__counters_shm *counters;
	struct coshm__cache_lane_shm *lanes;
	struct coshm__cache_stripe_shm *stripes;
	struct coshm__cache_list_shm *lists;
	struct coshm__a64 *words;
	struct coshm__cache_page_shm *pages;
	struct coshm__cache_node_shm *nodes;
	struct coshm__cache_bucket_shm *buckets;
	unsigned char *log;
	uint64_t log_offset; /* of the first page, in the segment: what hazards name */
	uint64_t seed;
	uint64_t bucket_count;
	uint64_t bucket_step_modulus;
	uint64_t item_bytes_max;
	uint64_t total_bytes;
	uint64_t ghost_age_bytes; /* one step of the ghosts' clock */
	uint64_t max_entries;
	uint64_t average_item_bytes;
	uint32_t policy;
	uint32_t lane_count;
	uint32_t lane_total;   /* and a spare one, used when the others are busy */
	uint32_t stripe_count; /* a power of two */
	uint32_t page_bytes;
	uint32_t page_count;
	uint32_t node_count;
	uint32_t list_nodes;				     /* nodes of each list */
	uint32_t head_bytes;				     /* of an item before its key */
	uint32_t limbo_batch;				     /* pages per barrier */
	uint32_t spare_pages;				     /* kept back for cleaning */
	uint64_t lanes_offset, stripes_offset, lists_offset; /* in the object */
};

/* --- layout.c ----------------------------------------------------------------------------------------------- */

/* Fills in defaults and all sizes and, if @base is given, all pointers. 0, -EINVAL */
int coshm__cache_layout(struct coshm__cache *cache, const struct coshm_cache_config *config,
			void *base);

/* --- slots -------------------------------------------------------------------------------------------------- */

#define COSHM__CACHE_FREQUENCY_ONE  (UINT64_C(1) << 46)
#define COSHM__CACHE_FREQUENCY_MASK (UINT64_C(3) << 46)
#define COSHM__CACHE_TAG_MASK	    (UINT64_C(0xffff) << 48)

static inline uint64_t coshm__cache_slot(uint64_t hash, uint32_t item_class, uint32_t page,
					 uint32_t offset, uint64_t page_word)
{
	return hash << 48 | (uint64_t)(item_class + 1) << 44 | (uint64_t)page << 24 |
	       (uint64_t)(offset / 8) << 7 | (page_word & 0x7f);
}

static inline uint32_t coshm__cache_slot_page(uint64_t word)
{
	return (uint32_t)(word >> 24) & (COSHM__CACHE_PAGES_MAX - 1);
}

static inline uint32_t coshm__cache_slot_offset(uint64_t word)
{
	return ((uint32_t)(word >> 7) & 0x1ffff) * 8;
}

static inline uint32_t coshm__cache_slot_frequency(uint64_t word)
{
	return (uint32_t)(word >> 46) & 3;
}

static inline uint32_t coshm__cache_slot_class(uint64_t word)
{
	return ((uint32_t)(word >> 44) & 3) == 1 ? COSHM__CACHE_SMALL : COSHM__CACHE_MAIN;
}

/*
 * All changes of a slot. [C6] seq_cst, pairs [C5]: carries the item to who finds it (H2 in structs/hazard.h), and in a FENCED segment the
 * change itself to readers whose hazard the scan of the page's reuser does not see. The hazard on the page that
 * *expected names is kept until after it (H2).
 */
static inline int coshm__cache_slot_change(struct coshm__a64 *slot, uint64_t *expected,
					   uint64_t desired)
{
	return coshm__a64_cas_seq_cst(slot, expected, desired);
}

static inline uint64_t coshm__cache_slot_load(const struct coshm__a64 *slot)
{
	return coshm__a64_load_seq_cst(slot); /* [C5] seq_cst, pairs [C6] */
}

/* Do two slot words name the same item? Its frequency may differ. */
static inline int coshm__cache_same(uint64_t a, uint64_t b)
{
	return ((a ^ b) & ~COSHM__CACHE_FREQUENCY_MASK) == 0;
}

/* --- items -------------------------------------------------------------------------------------------------- */

/* Where the description of a large value begins in its item. */
#define COSHM__CACHE_LARGE_AT 24

static inline uint32_t coshm__cache_align8(uint32_t bytes)
{
	return (bytes + 7) & ~7u;
}

static inline uint32_t coshm__cache_item_inline(uint64_t word0)
{
	return (uint32_t)word0 & 0xfffff;
}

static inline uint32_t coshm__cache_item_key(uint64_t word0)
{
	return (uint32_t)(word0 >> 20) & 0xffff;
}

static inline uint32_t coshm__cache_item_flags(uint64_t word0)
{
	return (uint32_t)(word0 >> 36) & 0x3f;
}

/* Where what follows the key of a number, or the description of a large value, begins in the item. */
static inline uint32_t coshm__cache_item_body(const struct coshm__cache *cache, uint64_t word0)
{
	uint32_t flags = coshm__cache_item_flags(word0);

	if (flags & COSHM__CACHE_ITEM_LARGE)
		return COSHM__CACHE_LARGE_AT;
	if (flags & COSHM__CACHE_ITEM_NUMBER)
		return coshm__cache_align8(cache->head_bytes + coshm__cache_item_key(word0));
	return cache->head_bytes + coshm__cache_item_key(word0);
}

/* Length in the log; 0 if no item looks like that. */
static inline uint32_t coshm__cache_item_bytes(const struct coshm__cache *cache, uint64_t word0)
{
	uint32_t flags = coshm__cache_item_flags(word0);
	uint32_t inline_bytes = coshm__cache_item_inline(word0);

	if (coshm__likely(flags == 0 && coshm__cache_item_key(word0) != 0))
		return coshm__cache_align8(cache->head_bytes + coshm__cache_item_key(word0) +
					   inline_bytes);
	if (coshm__cache_item_key(word0) == 0 ||
	    flags > (COSHM__CACHE_ITEM_NUMBER | COSHM__CACHE_ITEM_LARGE) ||
	    flags == (COSHM__CACHE_ITEM_NUMBER | COSHM__CACHE_ITEM_LARGE) ||
	    (flags == COSHM__CACHE_ITEM_NUMBER && inline_bytes != 8) ||
	    (flags == COSHM__CACHE_ITEM_LARGE &&
	     inline_bytes < offsetof(struct coshm__cache_large_shm, page) + 4))
		return 0;
	return coshm__cache_align8(coshm__cache_item_body(cache, word0) + inline_bytes);
}

static inline uint64_t coshm__cache_item_version(uint64_t word0, uint32_t version_low)
{
	return (word0 >> 42) << 32 | version_low;
}

/*
 * The epoch for an item that is to be published. To be asked between the look at its slot and the CAS of it: if the item
 * were of an older epoch than what it replaces, or than what was there and gone meanwhile, a flush in between would take
 * away a value that was stored after that flush. A flush from now on may or may not see the item; both orders are right.
 */
static inline uint64_t coshm__cache_epoch(const struct coshm__cache *cache)
{
	/* relaxed: behind the acquire load of the slot, so not older than what is replaced */
	return coshm__a64_load_relaxed(&cache->shm->epoch);
}

static inline uint64_t coshm__cache_item_word1(uint64_t expire_ms, uint64_t epoch)
{
	return expire_ms << 24 | (epoch & 0xffffff);
}

/* Expired or flushed? */
static inline int coshm__cache_item_gone(const struct coshm__cache *cache, uint64_t word1,
					 uint64_t now_ms, int *ret_expired)
{
	uint64_t expire_ms = word1 >> 24;

	*ret_expired = expire_ms != 0 && now_ms >= expire_ms;
	return *ret_expired || ((word1 ^ coshm__cache_epoch(cache)) & 0xffffff);
}

/* --- page.c ------------------------------------------------------------------------------------------------- */

static inline uint64_t coshm__cache_page_word(uint32_t state, uint32_t owner, uint64_t generation)
{
	return (uint64_t)state << 60 | (uint64_t)owner << 36 |
	       (generation & COSHM__CACHE_GENERATION_MASK);
}

static inline uint32_t coshm__cache_page_state(uint64_t word)
{
	return (uint32_t)(word >> 60);
}

static inline uint32_t coshm__cache_page_owner(uint64_t word)
{
	return (uint32_t)(word >> 36) & 0xffffff;
}

static inline unsigned char *coshm__cache_page(const struct coshm__cache *cache, uint32_t page)
{
	return cache->log + (uint64_t)page * cache->page_bytes;
}

/* What hazards call the page. */
static inline uint64_t coshm__cache_page_offset(const struct coshm__cache *cache, uint32_t page)
{
	return cache->log_offset + (uint64_t)page * cache->page_bytes;
}

static inline uint64_t coshm__cache_page_load(const struct coshm__cache *cache, uint32_t page)
{
	/* [C2] acquire, pairs [C1]; what the page's last owner left: items, their end, empty slots */
	return coshm__a64_load_acquire(&cache->words[page]);
}

/* CAS of the page's word to another state and owner in the same generation. */
int coshm__cache_page_change(struct coshm__cache *cache, uint32_t page, uint64_t *word,
			     uint32_t state, uint32_t owner);

/*
 * Takes a free page for @state and @owner if more than @keep are free. The page and its word, or -ENOBUFS. With policy
 * none at least @keep are free afterwards, even if several take one at once.
 * @start  where to begin to look, so that lanes do not run into each other
 */
int coshm__cache_page_take(struct coshm__cache *cache, uint32_t start, uint32_t keep,
			   uint32_t state, uint32_t owner, uint32_t *ret_page, uint64_t *ret_word);

/* The life of a page that was just taken. */
void coshm__cache_page_begin(struct coshm__cache *cache, uint32_t page);
/* From EVICT or BUILD of a dead member: *word is what names it. */
void coshm__cache_page_inherit(struct coshm__cache *cache, uint32_t page, uint64_t *word);
/* A hint: nobody knows how many bytes are dead here. Who needs room cleans the page first, and the walk tells. */
void coshm__cache_page_look_first(const struct coshm__cache *cache, uint32_t page);

/* May it hold what a flush has forgotten? Then there is room in it, which nobody has counted. */
static inline int coshm__cache_page_is_flushed(const struct coshm__cache *cache, uint32_t page)
{
	/* relaxed: a hint for the cleaner */
	return coshm__a64_load_relaxed(&cache->pages[page].group_builder) !=
	       coshm__cache_epoch(cache) << 32;
}

/* Frees up to 64 of the pages in LIMBO that nobody reads or writes. Number of pages freed, or negative errno. */
int coshm__cache_page_settle(struct coshm__op *op, struct coshm__cache *cache);

static inline void coshm__cache_page_dead(struct coshm__op *op, struct coshm__cache *cache,
					  uint32_t page, uint32_t bytes)
{
	/* relaxed: a hint for the cleaner */
	coshm__a32_fetch_add_relaxed(&cache->pages[page].dead_bytes, bytes);
	coshm__count(op, cache->counters, COSHM__STAT_CACHE_dead, bytes);
}

/* --- index.c ------------------------------------------------------------------------------------------------ */

/* Where a key is, or was a moment ago. */
struct coshm__cache_place {
	struct coshm__a64 *slot;
	uint64_t word;	   /* of the slot */
	uint64_t home;	   /* bucket */
	uint32_t distance; /* 0: in its home bucket */
	uint32_t page;
	uint32_t bytes;	     /* of the item */
	unsigned char *item; /* valid while read hazard 0 is kept */
	uint64_t word0, word1;
};

static inline int coshm__cache_is_key(const void *key, size_t key_bytes)
{
	return key && key_bytes > 0 && key_bytes <= UINT16_MAX;
}

/* Say what is wrong with what the caller gave: -EINVAL no key; -EINVAL NULL; -E2BIG too large. */
int coshm__cache_refuse_key(const void *key, size_t key_bytes);
int coshm__cache_refuse_null(const char *argument);
int coshm__cache_refuse_size(uint64_t item_bytes, uint64_t item_bytes_max);

static inline uint64_t coshm__cache_hash(const struct coshm__cache *cache, const void *key,
					 size_t key_bytes)
{
	return coshm__hash_place(cache->seed, key, key_bytes);
}

static inline uint64_t coshm__cache_home(const struct coshm__cache *cache, uint64_t hash)
{
	return ((hash >> 32) * cache->bucket_count) >> 32;
}

static inline struct coshm__cache_stripe_shm *coshm__cache_stripe(const struct coshm__cache *cache,
								  uint64_t home)
{
	return &cache->stripes[home & (cache->stripe_count - 1)];
}

/*
 * The slots of a bucket that may be the hash's: bit i + 1 for slot i, as the words of the line. Empty slots have tag 0.
 */
static inline uint32_t coshm__cache_bucket_match(const struct coshm__cache_bucket_shm *bucket,
						 uint64_t hash)
{
	return coshm__tags_match(&bucket->meta, (uint16_t)hash) & ~1u;
}

/* Takes the next slot out of what coshm__cache_bucket_match found. */
static inline struct coshm__a64 *coshm__cache_match_next(struct coshm__cache_bucket_shm *bucket,
							 uint32_t *match)
{
	struct coshm__a64 *slot = &bucket->slot[__builtin_ctz(*match) - 1];

	*match &= *match - 1;
	return slot;
}

static inline uint32_t coshm__cache_slot_index(const struct coshm__cache *cache,
					       const struct coshm__a64 *slot)
{
	return (uint32_t)((const uint64_t *)slot - (const uint64_t *)cache->buckets);
}

/* NULL if it is no slot's index. */
static inline struct coshm__a64 *coshm__cache_slot_at(const struct coshm__cache *cache,
						      uint64_t index)
{
	if (index / 8 >= cache->bucket_count || index % 8 == 0)
		return NULL;
	return &cache->buckets[index / 8].slot[index % 8 - 1];
}

#define COSHM__CACHE_SPILL_MASK UINT64_C(0xff)

/*
 * How many buckets beyond the home one may have its keys. [C3] acquire, pairs [C4]: an insert raises the distance before
 * it publishes, so who loads an older one has begun before that insert was done, and may miss it.
 */
static inline uint32_t coshm__cache_distance(const struct coshm__cache *cache, uint64_t home)
{
	uint64_t meta = coshm__a64_load_acquire(&cache->buckets[home].meta);

	return meta & COSHM__CACHE_SPILL_MASK ? (uint32_t)(meta >> 8) & 7 : 0;
}

/* The @distance-th of the buckets that a hash names. */
uint64_t coshm__cache_probe(const struct coshm__cache *cache, uint64_t hash, uint32_t distance);

/*
 * Finds a key. 1: read hazard 0 keeps the item (and read hazard 1 the leader of a large one) until
 * coshm__cache_let_go; 0: the key is not there, nothing is kept.
 */
int coshm__cache_find(struct coshm__op *op, const struct coshm__cache *cache, uint64_t hash,
		      const void *key, size_t key_bytes, struct coshm__cache_place *ret_place);

static inline void coshm__cache_let_go(struct coshm__op *op, const struct coshm__cache_place *place)
{
	if (coshm__unlikely(coshm__cache_item_flags(place->word0) & COSHM__CACHE_ITEM_LARGE))
		coshm__hazard_clear(op, 1);
	coshm__hazard_clear(op, 0);
}

/* Finds the slot that names the item at a place of the log. 1 or 0; keeps nothing. For who owns the page. */
int coshm__cache_find_location(const struct coshm__cache *cache, uint64_t hash, uint32_t page,
			       uint32_t offset, struct coshm__cache_place *ret_place);

/*
 * Puts a slot word into an empty slot; the caller holds the stripe and knows that the key is not there. @before is
 * called with the slot's index before each try. If there is no place within reach, a neighbour is pushed out, by way of
 * read hazard 2. 0, or -ENOSPC: policy none, or all neighbours change all the time.
 */
int coshm__cache_insert(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			uint64_t word, void (*before)(void *context, uint32_t slot_index),
			void *context);

/* After a slot was emptied by CAS: home's spill count and the number of entries. @word1: of the item */
void coshm__cache_left(struct coshm__op *op, struct coshm__cache *cache, uint64_t home,
		       uint32_t distance, uint64_t word1);

/* Slot that names @page: 0. For pages whose items cannot be read. Number of slots emptied. */
uint32_t coshm__cache_sweep_page(struct coshm__op *op, struct coshm__cache *cache, uint32_t page);

/* The ghosts' clock, which goes by the bytes that were pushed out. Divides: once per page. */
uint32_t coshm__cache_ghost_now(const struct coshm__cache *cache);
void coshm__cache_ghost_add(struct coshm__cache *cache, uint64_t hash, uint32_t now);
/* 1: the key was dropped unread not long ago. */
int coshm__cache_ghost_has(const struct coshm__cache *cache, uint64_t hash);

/* Of the key of a well-formed item: a large value's head tells it, its key lies elsewhere. */
static inline uint64_t coshm__cache_item_hash(const struct coshm__cache *cache,
					      const unsigned char *item, uint64_t word0)
{
	uint64_t hash;

	if (!(coshm__cache_item_flags(word0) & COSHM__CACHE_ITEM_LARGE))
		return coshm__cache_hash(cache, item + cache->head_bytes,
					 coshm__cache_item_key(word0));
	memcpy(&hash, item + COSHM__CACHE_LARGE_AT + 8, 8);
	return hash;
}

/*
 * Keeps the leader of a large value by read hazard 1, for who keeps the page of its head. 1; 0: *word is not what the
 * slot names any more. Nothing to do for other items: 1.
 */
int coshm__cache_keep_leader(struct coshm__op *op, const struct coshm__cache *cache,
			     const struct coshm__a64 *slot, uint64_t *word,
			     const unsigned char *item, uint64_t word0);

/*
 * Pushes an item out of its slot, whose word is *word; the caller keeps its page, and counts its bytes as dead. Uses
 * read hazard 1. 1; 0: *word is not what the slot names any more.
 */
int coshm__cache_push_out(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			  struct coshm__a64 *slot, uint64_t *word, const unsigned char *item,
			  uint32_t counter);

/* What a slot names, kept by read hazard 2. */
struct coshm__cache_kept {
	unsigned char *item;
	uint64_t word, word0;
	uint32_t bytes;
};

/* 1 kept, until read hazard 2 is cleared; 0 the slot is empty, or what it names is no item. */
int coshm__cache_keep_slot(struct coshm__op *op, const struct coshm__cache *cache,
			   const struct coshm__a64 *slot, struct coshm__cache_kept *ret_kept);

/* Pushes out what was kept, and counts its bytes as dead. 1; 0: the slot names something else by now. */
int coshm__cache_push_out_kept(struct coshm__op *op, struct coshm__cache *cache,
			       struct coshm__a64 *slot, const struct coshm__cache_kept *kept,
			       uint32_t counter);

/*
 * After the CAS that took an item out of its slot, while a hazard is kept on its page, and on the leader of a large
 * one: accounts for its bytes and gives back the pages of a large value.
 */
void coshm__cache_item_dropped(struct coshm__op *op, struct coshm__cache *cache, uint32_t page,
			       const unsigned char *item, uint64_t word0);

/* --- lane.c ------------------------------------------------------------------------------------------------- */

/* What is to be appended. */
struct coshm__cache_request {
	uint64_t word0;	  /* without the version */
	uint64_t version; /* 0: a new one */
	uint64_t expire_ms;
	uint32_t item_class;
	uint32_t keep; /* as coshm__cache_page_take */
};

/* Space in the log. write hazard 0 keeps the page until coshm__cache_reserve_done. */
struct coshm__cache_space {
	unsigned char *item;
	uint64_t word0; /* with the version in it */
	uint32_t version_low;
	uint32_t page;
	uint32_t offset; /* 0: a page was opened */
	uint32_t bytes;
	uint64_t page_word;
};

/*
 * Appends room for an item and writes its first word. Tries one lane after the other; when all stay busy, opens a page
 * for it alone, or without @may_wait gives up.
 * 0; -EAGAIN: lanes busy; -ENOBUFS: no free page, make room first; -ENOTRECOVERABLE
 */
int coshm__cache_reserve(struct coshm__op *op, struct coshm__cache *cache,
			 const struct coshm__cache_request *request, int may_wait,
			 struct coshm__cache_space *ret_space);

static inline void coshm__cache_reserve_done(struct coshm__op *op)
{
	coshm__hazard_write_clear(op, 0);
}

/* Reserved, but not published after all; @again: the same place will be given again. */
void coshm__cache_reserve_undo(struct coshm__op *op, struct coshm__cache *cache,
			       const struct coshm__cache_space *space, int again);

/* Seals what is open and not empty, so that it can be evicted. Number of pages. */
uint32_t coshm__cache_seal_all(struct coshm__op *op, struct coshm__cache *cache,
			       uint32_t item_class);

/* The place of an item: describes it, announces its page and writes the first word. For who may write there. */
void coshm__cache_place_item(struct coshm__op *op, struct coshm__cache *cache,
			     const struct coshm__cache_request *request, uint64_t version,
			     uint32_t page, uint32_t used, uint64_t page_word,
			     struct coshm__cache_space *space);

/* Versions for items that no lane has: as of one more lane. */
uint64_t coshm__cache_version_without_lane(struct coshm__cache *cache);

/*
 * Hints, all of them. The lane that a reservation would take now; what is left in its open page of class MAIN; the end of a
 * page that is open for a lane, 0: it is not; the word of a lane's lock while somebody holds it (another one each time), 0:
 * it is free.
 */
uint32_t coshm__cache_lane_next(struct coshm__op *op, const struct coshm__cache *cache);
uint32_t coshm__cache_lane_room(struct coshm__op *op, const struct coshm__cache *cache);
uint32_t coshm__cache_lane_used(const struct coshm__cache *cache, uint32_t lane, uint32_t page);
uint64_t coshm__cache_lane_hold(const struct coshm__cache *cache, uint32_t lane);

/* A TARGET with @used bytes in it becomes the open page of a lane, or SEALED. For who owns its source. */
void coshm__cache_lane_adopt(struct coshm__op *op, struct coshm__cache *cache, uint32_t page,
			     uint32_t used, uint64_t word);
int coshm__cache_lane_recover(struct coshm__cache *cache, uint32_t lane);

/* --- target.c ----------------------------------------------------------------------------------------------- */

/* Where what lives in a page moves to when no other page is free. For who owns the source by EVICT. */
struct coshm__cache_target {
	uint32_t source;
	uint32_t page; /* UINT32_MAX: none */
	uint32_t used; /* bytes of items that are, or were, in their slots */
	uint64_t word;
};

/* Bytes that are taken: what its slots name or named. Bytes that live in the source still. Together at most a page. */
uint32_t coshm__cache_target_used(const struct coshm__cache *cache, uint32_t source, uint32_t page);
uint32_t coshm__cache_target_lives(const struct coshm__cache *cache, uint32_t source);

void coshm__cache_target_find(const struct coshm__cache *cache, uint32_t source,
			      struct coshm__cache_target *ret_target);

/*
 * A place for what replaces the item at @offset of the source, or is its copy, and is no larger; takes the last free page
 * if need be. Until it is counted the next call gives the same place again. 0; -ENOBUFS: no page is free
 */
int coshm__cache_target_place(struct coshm__op *op, struct coshm__cache *cache,
			      struct coshm__cache_target *target, uint32_t offset,
			      const struct coshm__cache_request *request,
			      struct coshm__cache_space *ret_space);

/* After the item's slot names its place. */
void coshm__cache_target_count(struct coshm__cache *cache, struct coshm__cache_target *target,
			       uint32_t bytes);

/* --- large.c ------------------------------------------------------------------------------------------------ */

/* Pages that this member fills for one large value. */
struct coshm__cache_group {
	uint32_t page_count;
	uint32_t *pages; /* malloc'ed */
	uint64_t *words;
	uint32_t inline_bytes; /* rest of the payload, in the head */
};

int coshm__cache_group_take(struct coshm__op *op, struct coshm__cache *cache,
			    uint64_t payload_bytes, int replaces, struct coshm__cache_group *group);
void coshm__cache_group_fill(struct coshm__cache *cache, const struct coshm__cache_group *group,
			     const void *key, size_t key_bytes, const void *value,
			     size_t value_bytes, unsigned char *rest);
/* BUILD -> CHUNK; from now on the leader's builder word says that it is not forgotten. */
int coshm__cache_group_adopt(struct coshm__op *op, struct coshm__cache *cache,
			     struct coshm__cache_group *group, uint32_t item_class);
void coshm__cache_group_aim(struct coshm__cache *cache, const struct coshm__cache_group *group,
			    uint32_t slot_index);
void coshm__cache_group_published(struct coshm__cache *cache,
				  const struct coshm__cache_group *group);
/* Not published after all. */
void coshm__cache_group_undo(struct coshm__op *op, struct coshm__cache *cache,
			     struct coshm__cache_group *group);
void coshm__cache_group_free(struct coshm__cache_group *group);

/* A large value's description, read once and checked: what the segment says later changes nothing. */
struct coshm__cache_large {
	const struct coshm__cache_large_shm *shm;
	uint64_t value_bytes;
	uint64_t hash;
	const unsigned char *rest; /* of the payload, behind the pages */
	uint32_t rest_bytes;
	uint32_t key_bytes;
	uint32_t page_count;
	uint32_t leader;
};

/* 1, or 0: damaged. */
int coshm__cache_large_read(const struct coshm__cache *cache, const unsigned char *description,
			    uint64_t word0, struct coshm__cache_large *ret_large);
/* Part @index of the payload: a page, or the rest. Its bytes; 0: no such part. */
uint32_t coshm__cache_large_part(const struct coshm__cache *cache,
				 const struct coshm__cache_large *large, uint32_t index,
				 const unsigned char **ret_data);
/* [from, from + size) of the payload. */
void coshm__cache_large_copy(const struct coshm__cache *cache,
			     const struct coshm__cache_large *large, uint64_t from, void *buffer,
			     uint64_t size);
int coshm__cache_large_key_is(const struct coshm__cache *cache,
			      const struct coshm__cache_large *large, const void *key,
			      size_t key_bytes);
/* CHUNK -> LIMBO for all pages of the value, leader last. */
void coshm__cache_large_retire(struct coshm__cache *cache, const struct coshm__cache_large *large);
/* Member id of who publishes the group; 0: its slot tells. */
static inline uint64_t coshm__cache_group_builder(const struct coshm__cache *cache, uint32_t leader)
{
	/* [C9] acquire, pairs [C10] */
	return coshm__a64_load_acquire(&cache->pages[leader].group_builder);
}

/* Does the group of this leader belong to a value that is published or about to be? If not, retires it. */
int coshm__cache_group_check(struct coshm__op *op, struct coshm__cache *cache, uint32_t leader);

/* --- lru.c -------------------------------------------------------------------------------------------------- */

static inline struct coshm__cache_list_shm *coshm__cache_list(const struct coshm__cache *cache,
							      uint64_t hash)
{
	return &cache->lists[(hash >> 24) % cache->lane_count];
}

/* A hit: to the front, unless the list is busy. */
void coshm__cache_lru_touch(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			    const struct coshm__cache_place *place);
/* With the list's lock held: a node at the front; pushes the oldest entry out when there is none left. UINT32_MAX: none */
uint32_t coshm__cache_lru_take(struct coshm__op *op, struct coshm__cache *cache,
			       struct coshm__cache_list_shm *list);
void coshm__cache_lru_aim(struct coshm__cache *cache, uint32_t node, uint32_t slot_index);
/* With the lock held. */
void coshm__cache_lru_give(struct coshm__cache *cache, struct coshm__cache_list_shm *list,
			   uint32_t node);
/* An item was deleted: gives its node back, or leaves it for whoever finds it at the end of the list. */
void coshm__cache_lru_forget(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			     uint32_t node, uint32_t slot_index);
/* Pushes out oldest entries worth @bytes. Bytes pushed out. */
uint64_t coshm__cache_lru_evict(struct coshm__op *op, struct coshm__cache *cache, uint64_t bytes);
/* Is the node in use for this slot? */
int coshm__cache_lru_owns(const struct coshm__cache *cache, uint32_t node, uint32_t slot_index);
int coshm__cache_lru_recover(struct coshm__cache *cache, struct coshm__cache_list_shm *list);
void coshm__cache_lru_initialise(struct coshm__cache *cache);

static inline uint32_t coshm__cache_item_node(const struct coshm__cache *cache,
					      const unsigned char *item)
{
	return cache->policy == COSHM_CACHE_LRU
		       ? ((const struct coshm__cache_item_shm *)(const void *)item)->node
		       : UINT32_MAX;
}

/* --- evict.c ------------------------------------------------------------------------------------------------ */

/*
 * Free pages that are kept back so that survivors can be moved. Who replaces a value leaves as much dead behind as it
 * takes: with policy none it may use what is kept back but the last.
 */
static inline uint32_t coshm__cache_keep(const struct coshm__cache *cache, int replaces)
{
	return replaces && cache->policy == COSHM_CACHE_NONE ? 1 : cache->spare_pages;
}

/* Room for a value in place of another one, until coshm__cache_way_end. */
struct coshm__cache_way {
	uint64_t word; /* of the page with the former value, which is EVICT */
	struct coshm__cache_target target;
};

/*
 * Policy none, and no page is to be had: a place in the last free page for what replaces this key's value and is no
 * larger. What shares the page with that value moves after it in coshm__cache_way_end, so another page is free then.
 * 0; -ENOENT: there is no such value; -ENOSPC: it is smaller; -EAGAIN: not within 100 ms
 */
int coshm__cache_make_way(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			  const void *key, size_t key_bytes,
			  const struct coshm__cache_request *request, struct coshm__cache_way *way,
			  struct coshm__cache_space *ret_space);
void coshm__cache_way_end(struct coshm__op *op, struct coshm__cache *cache,
			  struct coshm__cache_way *way, const struct coshm__cache_space *space,
			  int published);

/*
 * Makes at least @pages free pages beyond those kept back. Holds no lock; keeps no hazard.
 * 0; 1: not that, but with policy none there is room for @bytes (0: does not matter) where this thread appends;
 * -EAGAIN: all pages are pinned or being worked on; -ENOSPC: policy none
 */
int coshm__cache_make_room(struct coshm__op *op, struct coshm__cache *cache, uint32_t pages,
			   uint32_t bytes, int replaces);

/*
 * One step ahead of need: called after a page was opened, so that each one opened is one evicted; not @own_page, with
 * the item that was stored just now.
 */
void coshm__cache_make_pace(struct coshm__op *op, struct coshm__cache *cache, uint32_t own_page);

/* --- set.c -------------------------------------------------------------------------------------------------- */

enum coshm__cache_store_mode {
	COSHM__CACHE_STORE_SET,
	COSHM__CACHE_STORE_ADD,
	COSHM__CACHE_STORE_REPLACE,
};

static inline uint64_t coshm__cache_now_ms(uint64_t now_ns)
{
	return now_ns / COSHM__NS_PER_MS;
}

/* 0: never. */
uint64_t coshm__cache_expire_ms(uint64_t now_ns, uint64_t ttl_ns);

/* Reserves, making room if need be. Not for callers that hold a lock or a hazard. */
int coshm__cache_reserve_room(struct coshm__op *op, struct coshm__cache *cache,
			      struct coshm__cache_request *request, int replaces,
			      struct coshm__cache_space *ret_space);

/* --- flush.c ------------------------------------------------------------------------------------------------ */

/* Empties all slots whose items are of another epoch than @epoch. */
void coshm__cache_sweep_epoch(struct coshm__op *op, struct coshm__cache *cache, uint64_t epoch);

/* The number of entries. @word1: of the item that came (@add 1) or went (-1) */
void coshm__cache_entries_add(struct coshm__op *op, struct coshm__cache *cache, uint64_t word1,
			      uint64_t add);
uint64_t coshm__cache_entries(const struct coshm__cache *cache);

static inline void coshm__cache_entries_replaced(struct coshm__op *op, struct coshm__cache *cache,
						 uint64_t old_word1, uint64_t new_word1)
{
	if (coshm__likely(((old_word1 ^ new_word1) & 0xffffff) == 0))
		return;
	coshm__cache_entries_add(op, cache, old_word1, UINT64_MAX);
	coshm__cache_entries_add(op, cache, new_word1, 1);
}

/* --- copy.c ------------------------------------------------------------------------------------------------- */

/*
 * The read path of members that may not write: a copy that is checked afterwards. One item into private memory.
 */
struct coshm__cache_copy {
	unsigned char *key, *value; /* malloc'ed together: free(key) */
	size_t key_bytes;
	size_t value_bytes;
	uint64_t word0, word1;
	uint64_t version;
	uint32_t leader; /* of a large value */
};

/* What a slot names. 1; 0: nothing, or something else by now; -EAGAIN: changes too fast; -ENOMEM */
int coshm__cache_copy_slot(const struct coshm__cache *cache, const struct coshm__a64 *slot,
			   int with_value, struct coshm__cache_copy *ret_copy);
/* By key. */
int coshm__cache_copy_find(const struct coshm__cache *cache, uint64_t hash, const void *key,
			   size_t key_bytes, int with_value, struct coshm__cache_copy *ret_copy);

/* --- get.c -------------------------------------------------------------------------------------------------- */

/* Tells the policy of a use of what was found and is kept. */
void coshm__cache_touch(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			const struct coshm__cache_place *place);

/* --- number.c ----------------------------------------------------------------------------------------------- */

#define COSHM__CACHE_NUMBER_TEXT_BYTES 20

/* Decimal text; its length. */
size_t coshm__cache_number_text(uint64_t number, char text[COSHM__CACHE_NUMBER_TEXT_BYTES]);
uint64_t coshm__cache_number_version(uint64_t version, uint64_t number);

/* --- verify.c, reap.c --------------------------------------------------------------------------------------- */

void coshm__cache_verify(struct coshm__handle *handle, struct coshm__findings *findings);
void coshm__cache_abandoned(struct coshm__handle *handle, uint64_t offset_bytes);
int coshm__cache_reap(struct coshm__op *op, struct coshm__handle *handle, uint32_t dead_id,
		      uint64_t *cursor, uint64_t budget);
int coshm__cache_recover_lock(struct coshm__op *op, struct coshm__handle *handle,
			      struct coshm__rlock_shm *lock);
void coshm__cache_holdings(struct coshm__handle *handle, uint32_t member_id,
			   struct coshm_member_info *info);
int coshm__cache_lock_is_lane(struct coshm__handle *handle, uint64_t offset_bytes);
uint64_t coshm__cache_gauge(struct coshm__handle *handle, uint32_t index);

#endif
