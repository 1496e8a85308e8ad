/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/cache_shm.h - what a cache looks like in the segment
 *
 *   struct coshm__cache_shm          configuration, epoch, sequences
 *   struct coshm__counters_shm       statistics
 *   struct coshm__cache_lane_shm     x lane_total       where writers append
 *   struct coshm__cache_stripe_shm   x stripe_count     inserts of absent keys, numbers
 *   struct coshm__cache_list_shm     x lane_count       policy lru: recency lists
 *   struct coshm__a64                x page_count       page words: the truth about pages
 *   struct coshm__cache_page_shm     x page_count       what is known of each page
 *   struct coshm__cache_node_shm     x node_count       policy lru
 *   struct coshm__cache_bucket_shm   x bucket_count     the index
 *   pages                            x page_count       the log: items, one behind the other
 *
 * I1  A slot that is not 0 names an item that was completely written, in a page that is OPEN, SEALED, EVICT or TARGET.
 * I2  A key stands in at most one slot, and never moves to another one as long as it is there.
 * I3  Items of a page lie back to back from 0 to used_bytes; the first word of each tells its length.
 * I4  A page becomes FREE only after all slots that named it were changed, a barrier, and a scan that found no hazard.
 * I5  Only OPEN pages grow, only under their lane's lock, and only by members that announce it as write hazard; and TARGET
 *     pages, only by who owns their source by EVICT.
 * I6  A CHUNK page belongs to the group of its leader; a group lives as long as the slot that its leader names says so.
 * I7  bucket.meta.spill is at least the number of keys of that home that stand elsewhere.
 * I8  Policy none: the last FREE page becomes nothing but a TARGET. What lives in the source of a TARGET and what lies in
 *     the TARGET are no more than a page together.
 */
#ifndef COSHM__MODULES_CACHE_CACHE_SHM_H
#define COSHM__MODULES_CACHE_CACHE_SHM_H

#include "segment/segment_shm.h"

#include <stddef.h>

/*
 * Page word = state:4 << 60 | owner:24 << 36 | generation:36. All changes by CAS.
 *
 *   FREE(g)      -> OPEN(lane, g)    under the lane's lock
 *   FREE(g)      -> BUILD(me, g)     for a large value that is being written, or an item that no lane can take
 *   OPEN(lane)   -> SEALED           under the lane's lock
 *   BUILD(me)    -> SEALED           the one item that no lane could take has its place in it
 *   SEALED       -> EVICT(me)        anyone; EVICT(dead) -> SEALED by anyone
 *   BUILD(me)    -> TARGET(source)   policy none: the owner of the source by EVICT, which moves here
 *   TARGET(s)    -> OPEN(lane)       under the lane's lock, or SEALED: the owner of the source, when nothing lives there
 *   EVICT(me)    -> LIMBO, or back to SEALED
 *   BUILD(me)    -> CHUNK(leader)    before the value is published; BUILD(dead) -> LIMBO by anyone
 *   CHUNK(l)     -> LIMBO(l + 1)     by whoever unpublished the value, or found that nothing names it; leader last
 *   LIMBO(g)     -> FREE(g + 1)      anyone, after a barrier and a scan
 */
enum coshm__cache_page_state {
	COSHM__CACHE_PAGE_FREE = 0,
	COSHM__CACHE_PAGE_OPEN = 1,
	COSHM__CACHE_PAGE_SEALED = 2,
	COSHM__CACHE_PAGE_EVICT = 3,
	COSHM__CACHE_PAGE_LIMBO = 4,
	COSHM__CACHE_PAGE_BUILD = 5,
	COSHM__CACHE_PAGE_CHUNK = 6,
	COSHM__CACHE_PAGE_TARGET = 7,
};

#define COSHM__CACHE_GENERATION_MASK ((UINT64_C(1) << 36) - 1)
#define COSHM__CACHE_PAGES_MAX	     (1u << 20)
#define COSHM__CACHE_PAGE_BYTES_MAX  (1u << 20)
#define COSHM__CACHE_LANES_MAX	     62 /* and the spare one, and none: the version has 6 bits for it */

/* Where an item stands in the eviction order; also the index of a lane's open pages. */
enum coshm__cache_class {
	COSHM__CACHE_SMALL = 0, /* s3fifo: not proven yet */
	COSHM__CACHE_MAIN = 1,	/* s3fifo: was read again; all items of the other policies */
};

struct coshm__cache_shm {
	/* const, written by the creator; everything else about the layout is computed from these */
	uint64_t size_bytes;
	uint64_t max_entries;
	uint64_t average_item_bytes;
	uint32_t policy;
	uint32_t lane_count;
	uint64_t reserved0[4];

	/* Read by every get, written by flush: items of another epoch (its low 24 bits) are gone. Only up, by CAS. */
	struct coshm__a64 epoch;
	struct coshm__a64 epoch_swept; /* no slot names an item of an epoch before this one */
	struct coshm__a64 flush_seal;  /* seal_sequence at the last flush: a hint for evictors */
	uint8_t padding0[128 - 88];

	struct coshm__a64 seal_sequence; /* order of the log: fetch_add by sealers */
	struct coshm__a64
		ghost_bytes; /* ever dropped from SMALL: the clock of the ghosts. Evictors add. */
	uint8_t padding1[128 - 16];
};

struct coshm__cache_lane_shm {
	struct coshm__rlock_shm lock;
	/* All under the lock. open[class] = (page + 1) << 40 | bytes used; 0: none. */
	struct coshm__a64 open[2];
	struct coshm__a64 sequence; /* versions given out */
	uint8_t padding[64 - 32];
};

struct coshm__cache_stripe_shm {
	struct coshm__rlock_shm lock;
	uint8_t padding[64 - 8];
};

/* In the same order as the page words. */
struct coshm__cache_page_shm {
	struct coshm__a64 seal;	      /* sequence << 2 | class: the sealer; CHUNK leader: class */
	struct coshm__a32 used_bytes; /* the sealer, before SEALED */
	struct coshm__a32
		dead_bytes; /* a hint: who unpublishes an item adds, under a hazard on the page */
	struct coshm__a64
		expire_first_ms; /* smallest and largest expiry of its items, under the lane's lock; */
	struct coshm__a64 expire_last_ms; /* UINT64_MAX: never */
	/* CHUNK leader: index of the slot that names (or will name) the value. TARGET: see target.c */
	struct coshm__a64 group_slot;
	/* CHUNK leader: member id while it publishes, else 0. Pages with items: the epoch that they were begun in << 32 */
	struct coshm__a64 group_builder;
};

/*
 * Slot = tag:16 << 48 | frequency:2 << 46 | kind:2 << 44 | page:20 << 24 | offset / 8:17 << 7 | low 7 bits of the page's
 * generation; 0 is empty. kind = class + 1. Published, replaced and removed by one CAS.
 *
 * meta = ghosts:3 x 17 << 11 | distance:3 << 8 | spill:8. CAS by anyone.
 *   spill      keys whose home is this bucket but which stand in another; 255 sticks
 *   distance   how many further buckets to look at while spill is not 0
 *   ghost      fingerprint:11 << 6 | age:6 of keys that were dropped from SMALL unread, newest first
 */
#define COSHM__CACHE_BUCKET_SLOTS 7

struct coshm__cache_bucket_shm {
	_Alignas(64) struct coshm__a64 meta;
	struct coshm__a64 slot[COSHM__CACHE_BUCKET_SLOTS];
};

/*
 * Item, at a multiple of 8. Const once published, except a number's value.
 *
 *   word0   inline_bytes:20 | key_bytes:16 << 20 | flags:6 << 36 | version, high 22 bits << 42
 *   word1   expire_ms:40 << 24 | epoch:24      expire_ms 0: never
 *   u32     version, low 32 bits
 *   u32     index of the node, policy lru only
 *   key, value                                 inline_bytes: of the value
 *   NUMBER: key, then the number at a multiple of 8
 *   LARGE:  struct coshm__cache_large_shm at a multiple of 8, then the rest; inline_bytes: of all that
 */
enum coshm__cache_item_flags {
	COSHM__CACHE_ITEM_NUMBER = 1,
	COSHM__CACHE_ITEM_LARGE = 2,
};

struct coshm__cache_item_shm {
	uint64_t word0;
	uint64_t word1;
	uint32_t version_low;
	uint32_t node; /* policy lru only: the key begins here otherwise */
};

/*
 * The payload (key, then value) fills the pages, each completely; what is left over follows page[page_count].
 * page[0] is the leader: a hazard on it covers all.
 */
struct coshm__cache_large_shm {
	uint64_t value_bytes;
	uint64_t hash;
	uint32_t page_count;
	uint32_t page[];
};

/* All by holders of the list's lock, through the journal. Index UINT32_MAX is none. */
struct coshm__cache_node_shm {
	struct coshm__a32 newer; /* free nodes: the next free one */
	struct coshm__a32 older;
	struct coshm__a32 slot; /* index of the slot whose item names this node */
};

#define COSHM__CACHE_JOURNAL_ENTRIES 14

/*
 * One recency list. Undo journal: entry = which word << 32 | its value before; recovery restores journal_count entries
 * from last to first. A transaction commits by journal_count = 0.
 */
struct coshm__cache_list_shm {
	struct coshm__rlock_shm lock;
	struct coshm__a32 newest;
	struct coshm__a32 oldest;
	struct coshm__a32 free;
	struct coshm__a32 count;
	struct coshm__a32 journal_count;
	struct coshm__a32 reserved;
	struct coshm__a64 journal[COSHM__CACHE_JOURNAL_ENTRIES];
	uint8_t padding[192 - 32 - 8 * COSHM__CACHE_JOURNAL_ENTRIES];
};

_Static_assert(sizeof(struct coshm__cache_shm) == 256, "header");
_Static_assert(sizeof(struct coshm__cache_lane_shm) == 64, "lane");
_Static_assert(sizeof(struct coshm__cache_stripe_shm) == 64, "stripe");
_Static_assert(sizeof(struct coshm__cache_page_shm) == 48, "page");
_Static_assert(sizeof(struct coshm__cache_bucket_shm) == 64, "bucket");
_Static_assert(sizeof(struct coshm__cache_item_shm) == 24, "item");
_Static_assert(offsetof(struct coshm__cache_item_shm, node) == 20, "item without node");
_Static_assert(sizeof(struct coshm__cache_large_shm) == 24, "large");
_Static_assert(offsetof(struct coshm__cache_large_shm, page) == 20, "large");
_Static_assert(sizeof(struct coshm__cache_node_shm) == 12, "node");
_Static_assert(sizeof(struct coshm__cache_list_shm) == 192, "list");

#endif
