/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/evict.c - making room, a page at a time
 *
 * Who needs a page looks at all page words, picks a victim, and owns it by one CAS. Then it walks over the items: an item
 * is live if a slot points right here. What should survive is appended elsewhere and its slot moved by one CAS; other
 * slots are emptied. At the end no slot names the page: it waits in LIMBO for a barrier, together with others.
 *
 * Killed in the walk: the page says EVICT(dead); the next one begins at its start. That repeats nothing, because what
 * was moved is not pointed to here any more.
 * Stopped in the walk: nobody touches the page; the others choose another one.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

#include <time.h>

#define GROUP	   16 /* items whose buckets are fetched at once */
#define AVOID_MAX  16
#define PAUSE_NS   (200 * 1000)
#define ROUNDS_MAX 64 /* without a page more than before */

enum mode {
	MODE_CLEAN, /* all live items survive where they are in the order */
	MODE_SMALL,
	MODE_MAIN,
};

/* One look at the page table. */
struct survey {
	uint32_t free, limbo, sealed, small;
	uint32_t evicting;   /* by others, who live */
	uint64_t words_hash; /* of all page words: has anything happened since an earlier look? */
	uint64_t dead_bytes; /* of sealed pages */
	uint32_t expired;    /* wholly expired or flushed; pages, UINT32_MAX: none */
	uint32_t partly_expired;
	uint32_t most_dead;
	uint32_t most_dead_bytes;
	/* For policy none: */
	uint32_t least_bytes[2]; /* what lives in the two emptiest pages */
	uint32_t emptiest;	 /* of the sealed ones */
	uint32_t emptiest_bytes;
	uint32_t next_bytes;	   /* what lives in the next one of these */
	uint32_t open_dead_bytes;  /* most in an open page */
	uint32_t open_least_bytes; /* what lives in the emptiest open page */
	uint32_t open_bytes; /* the same of those that would have more room if they were moved */
	uint32_t held;	     /* open pages of lanes that somebody holds */
	uint32_t oldest[2];
	uint32_t source; /* of a TARGET, to be gone on with; UINT32_MAX: none */
};

struct avoid {
	uint32_t page[AVOID_MAX];
	uint32_t count;
};

/* What room is made for. */
struct need {
	uint32_t pages;
	uint32_t bytes; /* policy none: this in the open page is as good; 0: not */
	int replaces;
	int may_seal; /* open pages, too: they may be all there is */
	int given;    /* a page, or some of one, was given back */
};

static int is_avoided(const struct avoid *avoid, uint32_t page)
{
	for (uint32_t i = 0; i < avoid->count; i++)
		if (avoid->page[i] == page)
			return 1;
	return 0;
}

/*
 * Pages that dead members left.
 * @alive  who was found alive last: a large value's pages are many of one owner, and each answer may be a system call
 */
static uint64_t inherit(struct coshm__op *op, struct coshm__cache *cache, uint32_t page,
			uint64_t word, uint32_t *alive)
{
	uint32_t state = coshm__cache_page_state(word), owner = coshm__cache_page_owner(word);

	if ((state != COSHM__CACHE_PAGE_EVICT && state != COSHM__CACHE_PAGE_BUILD) ||
	    owner == *alive)
		return word;
	if (coshm__member_is_dead24(op->segment, owner))
		coshm__cache_page_inherit(cache, page, &word);
	else
		*alive = owner;
	return word;
}

static void note_live(struct survey *survey, uint32_t bytes)
{
	if (bytes < survey->least_bytes[0]) {
		survey->least_bytes[1] = survey->least_bytes[0];
		survey->least_bytes[0] = bytes;
	} else if (bytes < survey->least_bytes[1]) {
		survey->least_bytes[1] = bytes;
	}
}

static void survey_sealed(const struct coshm__cache *cache, uint32_t page, uint64_t now_ms,
			  uint64_t oldest_seal[2], struct survey *survey)
{
	const struct coshm__cache_page_shm *info = &cache->pages[page];
	uint64_t seal = coshm__a64_load_relaxed(&info->seal);
	uint32_t item_class = seal & 3 ? COSHM__CACHE_MAIN : COSHM__CACHE_SMALL;
	uint32_t used = coshm__a32_load_relaxed(&info->used_bytes);
	uint32_t dead = coshm__a32_load_relaxed(&info->dead_bytes);

	/*
	 * What was left over when it was sealed is no reason to clean: a page that holds one item of two thirds of its
	 * size would look no better afterwards, for ever. Only who must not drop anything makes one page of two.
	 */
	if (used > cache->page_bytes || dead >= used) {
		dead = cache->page_bytes; /* nothing in it lives: it costs no copy, however little was used of it */
	} else {
		note_live(survey, used - dead);
		if (used - dead <= survey->emptiest_bytes) {
			survey->next_bytes = survey->emptiest_bytes;
			survey->emptiest = page;
			survey->emptiest_bytes = used - dead;
		} else if (used - dead < survey->next_bytes) {
			survey->next_bytes = used - dead;
		}
	}
	survey->dead_bytes += dead;
	if (survey->most_dead == UINT32_MAX || dead > survey->most_dead_bytes) {
		survey->most_dead = page;
		survey->most_dead_bytes = dead;
	}
	if (coshm__a64_load_relaxed(&info->expire_last_ms) <= now_ms ||
	    seal >> 2 < coshm__a64_load_relaxed(&cache->shm->flush_seal))
		survey->expired = page;
	if (coshm__a64_load_relaxed(&info->expire_first_ms) <= now_ms ||
	    coshm__cache_page_is_flushed(cache, page))
		survey->partly_expired = page;
	if (seal < oldest_seal[item_class]) {
		oldest_seal[item_class] = seal;
		survey->oldest[item_class] = page;
	}
}

/*
 * relaxed, without its lane's lock: what is sealed or not for it is no more than a good or a bad choice. What is open for
 * a lane whose holder stands still cannot be sealed; a holder who goes on changes what is seen by the next look.
 */
static void survey_open(struct coshm__op *op, const struct coshm__cache *cache, uint32_t page,
			uint32_t lane, uint64_t now_ms, struct survey *survey)
{
	const struct coshm__cache_page_shm *info = &cache->pages[page];
	uint32_t dead = coshm__a32_load_relaxed(&info->dead_bytes), used, live;
	uint64_t hold = coshm__cache_lane_hold(cache, lane);

	if (hold) {
		if ((uint32_t)hold == COSHM__RLOCK_POISONED)
			return;
		survey->words_hash ^= hold;
		survey->held++;
		return;
	}
	used = coshm__cache_lane_used(cache, lane, page);
	live = used > dead ? used - dead : 0;
	if (used && (!live || coshm__a64_load_relaxed(&info->expire_first_ms) <= now_ms ||
		     coshm__cache_page_is_flushed(cache, page)))
		dead = cache->page_bytes;
	if (dead > survey->open_dead_bytes)
		survey->open_dead_bytes = dead;
	if (live) {
		note_live(survey, live);
		if (live < survey->open_least_bytes)
			survey->open_least_bytes = live;
	}
	/* The next lane's is tried anyway: moving it is of use if something in it is dead. */
	if (live && live < survey->open_bytes &&
	    (lane != coshm__cache_lane_next(op, cache) || dead))
		survey->open_bytes = live;
}

static void look(struct coshm__op *op, struct coshm__cache *cache, const struct avoid *avoid,
		 struct survey *survey)
{
	uint64_t oldest_seal[2] = {UINT64_MAX, UINT64_MAX};
	uint32_t alive = coshm__id24(op->member_id);
	uint64_t now_ms = coshm__cache_now_ms(coshm__now_coarse_ns(op->segment));

	*survey = (struct survey){.expired = UINT32_MAX,
				  .partly_expired = UINT32_MAX,
				  .most_dead = UINT32_MAX,
				  .emptiest = UINT32_MAX,
				  .emptiest_bytes = UINT32_MAX,
				  .next_bytes = UINT32_MAX,
				  .open_bytes = UINT32_MAX,
				  .open_least_bytes = UINT32_MAX,
				  .least_bytes = {UINT32_MAX, UINT32_MAX},
				  .oldest = {UINT32_MAX, UINT32_MAX},
				  .source = UINT32_MAX};
	for (uint32_t i = 0; i < cache->page_count; i++) {
		uint64_t word = inherit(op, cache, i, coshm__cache_page_load(cache, i), &alive);
		uint32_t owner = coshm__cache_page_owner(word);

		survey->words_hash = (survey->words_hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		switch (coshm__cache_page_state(word)) {
		case COSHM__CACHE_PAGE_FREE:
			survey->free++;
			break;
		case COSHM__CACHE_PAGE_LIMBO:
			survey->limbo++;
			break;
		case COSHM__CACHE_PAGE_OPEN:
			if (cache->policy == COSHM_CACHE_NONE)
				survey_open(op, cache, i, owner, now_ms, survey);
			break;
		case COSHM__CACHE_PAGE_EVICT:
			survey->evicting++;
			break;
		case COSHM__CACHE_PAGE_TARGET:
			if (owner < cache->page_count && !is_avoided(avoid, owner))
				survey->source = owner;
			break;
		case COSHM__CACHE_PAGE_CHUNK:
			if (owner < cache->page_count &&
			    (coshm__a64_load_relaxed(&cache->pages[owner].seal) & 3) ==
				    COSHM__CACHE_SMALL)
				survey->small++;
			break;
		case COSHM__CACHE_PAGE_SEALED:
			survey->sealed++;
			if ((coshm__a64_load_relaxed(&cache->pages[i].seal) & 3) ==
			    COSHM__CACHE_SMALL)
				survey->small++;
			if (!is_avoided(avoid, i))
				survey_sealed(cache, i, now_ms, oldest_seal, survey);
			break;
		default:
			break;
		}
	}
}

/* What one walk did. */
struct walk {
	uint32_t page;
	enum mode mode;
	uint32_t threshold; /* frequency that survives */
	uint32_t wanted_pages;
	int for_room;	 /* nothing is dead in it; whoever keeps it makes moving it useless */
	uint32_t chunks; /* pages of large values that were given back */
	uint32_t ghost_now;
	struct coshm__cache_target target; /* policy none */
	uint64_t moved_bytes, now_ms, ghost_bytes;
	uint32_t dead_bytes; /* counted at the end, in case that the page stays */
};

struct walked_item {
	unsigned char *at;
	uint64_t word0, word1, hash;
	uint32_t offset, bytes;
};

/* What was moved may have been flushed after it was found alive, and before the page was begun. Under its write hazard. */
static void note_late_flush(struct coshm__cache *cache, uint32_t page, uint64_t word1)
{
	uint64_t epoch = coshm__cache_epoch(cache);

	if (coshm__unlikely((word1 ^ epoch) & 0xffffff))
		coshm__a64_store_relaxed(&cache->pages[page].group_builder, (epoch - 1) << 32);
}

/* Copies the item to an open page and moves its slot there. 1 done or gone meanwhile; 0 not possible. */
static int relocate(struct coshm__op *op, struct coshm__cache *cache, struct walk *walk,
		    const struct walked_item *item, struct coshm__cache_place *place,
		    uint32_t item_class, uint32_t frequency)
{
	struct coshm__cache_request request = {
		.word0 = item->word0 & ((UINT64_C(1) << 42) - 1),
		.version = 0,
		.expire_ms = item->word1 >> 24,
		.item_class = item_class,
		.keep = cache->policy == COSHM_CACHE_NONE, /* the last one is the target */
	};
	struct coshm__rlock_shm *stripe = NULL;
	struct coshm__cache_space space;
	uint32_t version_low;
	uint64_t word, next;
	int moved = 0, to_target = 0;

	memcpy(&version_low, item->at + 16, 4);
	request.version = coshm__cache_item_version(item->word0, version_low);
	if (request.version == 0)
		request.version = 1; /* damage; 0 would ask for a new one */
	if (coshm__cache_reserve(op, cache, &request, 0, &space)) {
		if (cache->policy != COSHM_CACHE_NONE ||
		    coshm__cache_target_place(op, cache, &walk->target, item->offset, &request,
					      &space))
			return 0;
		to_target = 1;
	}
	if (coshm__cache_item_flags(item->word0) & COSHM__CACHE_ITEM_NUMBER) {
		/* incr adds in place under this lock: an addition behind our copy would be lost */
		stripe = &coshm__cache_stripe(cache, place->home)->lock;
		if (coshm__rlock_acquire(op, stripe, 0)) {
			coshm__cache_reserve_undo(op, cache, &space, to_target);
			return 0;
		}
	}
	memcpy(space.item + 8, item->at + 8, item->bytes - 8);
	COSHM__CRASH_POINT(cache_move_copied);
	word = place->word;
	if (coshm__cache_keep_leader(op, cache, place->slot, &word, item->at, item->word0))
		do {
			next = coshm__cache_slot(item->hash, item_class, space.page, space.offset,
						 space.page_word);
			if (walk->mode == MODE_CLEAN)
				frequency = coshm__cache_slot_frequency(word);
			next |= (uint64_t)frequency << 46;
			moved = coshm__cache_slot_change(place->slot, &word, next);
		} while (!moved && coshm__cache_same(word, place->word));
	COSHM__CRASH_POINT(cache_moved);
	if (stripe)
		coshm__rlock_release(op, stripe);
	if (moved) {
		if (to_target)
			coshm__cache_target_count(cache, &walk->target, item->bytes);
		if (cache->policy == COSHM_CACHE_NONE)
			note_late_flush(cache, space.page, item->word1);
		coshm__cache_reserve_done(op);
		walk->moved_bytes += item->bytes;
		walk->dead_bytes += item->bytes;
	} else {
		coshm__cache_reserve_undo(op, cache, &space, to_target);
	}
	if (coshm__cache_item_flags(item->word0) & COSHM__CACHE_ITEM_LARGE) {
		struct coshm__cache_large large;

		/* relaxed: only decides to which share the pages are counted */
		if (moved && coshm__cache_large_read(cache, item->at + COSHM__CACHE_LARGE_AT,
						     item->word0, &large))
			coshm__a64_store_relaxed(&cache->pages[large.leader].seal, item_class);
		coshm__hazard_clear(op, 1);
	}
	return 1;
}

static void drop(struct coshm__op *op, struct coshm__cache *cache, struct walk *walk,
		 const struct walked_item *item, struct coshm__cache_place *place, uint32_t counter)
{
	uint64_t word = place->word;
	struct coshm__cache_large large;

	if (!coshm__cache_push_out(op, cache, item->hash, place->slot, &word, item->at, counter))
		return;
	walk->dead_bytes += item->bytes;
	if (coshm__cache_item_flags(item->word0) & COSHM__CACHE_ITEM_LARGE &&
	    coshm__cache_large_read(cache, item->at + COSHM__CACHE_LARGE_AT, item->word0, &large)) {
		walk->chunks += large.page_count;
		walk->ghost_bytes += large.value_bytes;
	}
	if (cache->policy == COSHM_CACHE_LRU)
		coshm__cache_lru_forget(op, cache, item->hash,
					coshm__cache_item_node(cache, item->at),
					coshm__cache_slot_index(cache, place->slot));
}

/* 0; -EAGAIN: the item has to stay and cannot be moved now. */
static int walk_item(struct coshm__op *op, struct coshm__cache *cache, struct walk *walk,
		     const struct walked_item *item)
{
	struct coshm__cache_place place;
	uint32_t frequency, counter;
	int expired, kept;

	if (!coshm__cache_find_location(cache, item->hash, walk->page, item->offset, &place))
		return 0;
	if (coshm__cache_item_gone(cache, item->word1, walk->now_ms, &expired)) {
		drop(op, cache, walk, item, &place,
		     expired ? COSHM__STAT_CACHE_evicted_expired
			     : COSHM__STAT_CACHE_evicted_flushed);
		return 0;
	}
	if (cache->policy == COSHM_CACHE_LRU &&
	    !coshm__cache_lru_owns(cache, coshm__cache_item_node(cache, item->at),
				   coshm__cache_slot_index(cache, place.slot))) {
		drop(op, cache, walk, item, &place, COSHM__STAT_CACHE_evicted_lru);
		return 0;
	}
	frequency = coshm__cache_slot_frequency(place.word);
	kept = walk->mode == MODE_CLEAN || frequency >= walk->threshold;
	if (kept) {
		uint32_t item_class = walk->mode == MODE_CLEAN ? coshm__cache_slot_class(place.word)
							       : COSHM__CACHE_MAIN;
		uint32_t next = walk->mode == MODE_MAIN && frequency ? frequency - 1 : 0;

		if (relocate(op, cache, walk, item, &place, item_class, next))
			return 0;
		if (cache->policy != COSHM_CACHE_S3FIFO)
			return -EAGAIN;
		coshm__count(op, cache->counters, COSHM__STAT_CACHE_dropped_busy, 1);
	}
	counter = coshm__cache_slot_class(place.word) == COSHM__CACHE_SMALL
			  ? COSHM__STAT_CACHE_evicted_small
			  : COSHM__STAT_CACHE_evicted_main;
	if (walk->mode == MODE_SMALL && !kept) {
		coshm__cache_ghost_add(cache, item->hash, walk->ghost_now);
		walk->ghost_bytes += item->bytes;
	}
	drop(op, cache, walk, item, &place, counter);
	return 0;
}

/* Reads up to GROUP items from *offset on; their buckets are on the way into the CPU's caches then. -1: damage. */
static int read_group(const struct coshm__cache *cache, const struct walk *walk, uint32_t used,
		      uint32_t *offset, struct walked_item items[GROUP])
{
	int count = 0;

	while (count < GROUP && *offset < used) {
		struct walked_item *item = &items[count];

		item->at = coshm__cache_page(cache, walk->page) + *offset;
		if (used - *offset < 24)
			return -1;
		memcpy(&item->word0, item->at, 8);
		memcpy(&item->word1, item->at + 8, 8);
		item->bytes = coshm__cache_item_bytes(cache, item->word0);
		if (item->bytes == 0 || item->bytes > used - *offset)
			return -1;
		item->hash = coshm__cache_item_hash(cache, item->at, item->word0);
		__builtin_prefetch(&cache->buckets[coshm__cache_home(cache, item->hash)], 1);
		item->offset = *offset;
		*offset += item->bytes;
		count++;
	}
	return count;
}

/* Empties a page that this process owns. 0; 1: enough was given back, the rest stays; -EAGAIN: an item has to stay. */
static int walk_page(struct coshm__op *op, struct coshm__cache *cache, struct walk *walk)
{
	uint32_t used = coshm__a32_load_relaxed(&cache->pages[walk->page].used_bytes);
	struct walked_item items[GROUP];
	uint32_t offset = 0;
	int error = 0;

	while (offset < used && !error) {
		int count = used <= cache->page_bytes
				    ? read_group(cache, walk, used, &offset, items)
				    : -1;

		if (count < 0) {
			/* Damage. What lies behind it cannot be found through the page, so through the index. */
			coshm__count(op, cache->counters, COSHM__STAT_CACHE_damaged, 1);
			coshm__cache_sweep_page(op, cache, walk->page);
			break;
		}
		for (int i = 0; i < count && !error; i++) {
			error = walk_item(op, cache, walk, &items[i]);
			if (!error && walk->chunks && walk->chunks >= walk->wanted_pages &&
			    items[i].offset + items[i].bytes < used)
				error = 1;
		}
	}
	coshm__cache_page_dead(op, cache, walk->page, walk->dead_bytes);
	if (walk->ghost_bytes)
		coshm__a64_fetch_add_relaxed(&cache->shm->ghost_bytes, walk->ghost_bytes);
	coshm__count(op, cache->counters, COSHM__STAT_CACHE_relocated, walk->moved_bytes);
	return error;
}

/* EVICT for this member, with its word. 0: it is not to be had, or somebody has a hazard of these kinds on it. */
static int own(struct coshm__op *op, struct coshm__cache *cache, uint32_t page, uint32_t kinds,
	       uint64_t *word)
{
	uint64_t offset = coshm__cache_page_offset(cache, page), busy = 0;

	*word = coshm__cache_page_load(cache, page);
	if (coshm__cache_page_state(*word) != COSHM__CACHE_PAGE_SEALED ||
	    !coshm__cache_page_change(cache, page, word, COSHM__CACHE_PAGE_EVICT,
				      coshm__id24(op->member_id)))
		return 0;
	COSHM__CRASH_POINT(cache_evict_owned);
	/* H3: who still writes here publishes behind our back. No barrier: see the top of lane.c. */
	coshm__hazard_scan(op->segment, kinds, &offset, 1, &busy);
	if (!busy)
		return 1;
	coshm__cache_page_change(cache, page, word, COSHM__CACHE_PAGE_SEALED, 0);
	return 0;
}

/* Walks a page that is EVICT for this member, and gives it on. 1: it is in LIMBO; 0: it stays, choose another. */
static int empty(struct coshm__op *op, struct coshm__cache *cache, struct walk *walk, uint64_t word)
{
	int error;

	walk->now_ms = coshm__cache_now_ms(coshm__now_coarse_ns(op->segment));
	walk->ghost_now = coshm__cache_ghost_now(cache);
	error = walk_page(op, cache, walk);
	if (!error && walk->target.page != UINT32_MAX) {
		/* Killed behind this, nobody takes it for a page with something in it. */
		coshm__a32_store_relaxed(&cache->pages[walk->page].used_bytes, 0);
		coshm__cache_lane_adopt(op, cache, walk->target.page, walk->target.used,
					walk->target.word);
	}
	COSHM__CRASH_POINT(cache_evict_walked);
	coshm__cache_page_change(cache, walk->page, &word,
				 error ? COSHM__CACHE_PAGE_SEALED : COSHM__CACHE_PAGE_LIMBO, 0);
	COSHM__CRASH_POINT(cache_evict_done);
	if (error == 0)
		coshm__count(op, cache->counters,
			     walk->mode == MODE_CLEAN ? COSHM__STAT_CACHE_pages_cleaned
						      : COSHM__STAT_CACHE_pages_evicted,
			     1);
	return error == 0 || walk->chunks > 0;
}

static int evict(struct coshm__op *op, struct coshm__cache *cache, struct walk *walk)
{
	uint64_t word;

	if (!own(op, cache, walk->page,
		 walk->for_room ? COSHM__HAZARD_WRITE | COSHM__HAZARD_READ | COSHM__HAZARD_PIN
				: COSHM__HAZARD_WRITE,
		 &word))
		return 0;
	walk->target.page = UINT32_MAX;
	if (cache->policy == COSHM_CACHE_NONE)
		coshm__cache_target_find(cache, walk->page, &walk->target);
	return empty(op, cache, walk, word);
}

/* What makes a page worth cleaning: copying what lives in it costs time, doing without what is dead costs room. */
static uint32_t dead_least(const struct coshm__cache *cache, const struct need *need)
{
	switch (cache->policy) {
	case COSHM_CACHE_LRU:
		return cache->page_bytes / 8;
	case COSHM_CACHE_NONE:
		return need->replaces ? 1 : cache->page_bytes / 16;
	default:
		return cache->page_bytes / 3;
	}
}

static int fits_behind(const struct coshm__cache *cache, uint32_t bytes, const struct need *need)
{
	return need->bytes && bytes <= cache->page_bytes &&
	       need->bytes <= cache->page_bytes - bytes;
}

static int is_pair(const struct coshm__cache *cache, uint32_t bytes, uint32_t other_bytes)
{
	return other_bytes <= cache->page_bytes && bytes <= cache->page_bytes - other_bytes;
}

/*
 * Policy none, and nothing is dead: is it of use to move the emptiest page? A page that is moved for nothing could be moved
 * to and fro for ever. So with one that is open it makes a pair only if that has room for it; others are closed first.
 */
static int is_worth_moving(struct coshm__op *op, const struct coshm__cache *cache,
			   const struct survey *survey, const struct need *need)
{
	return survey->emptiest != UINT32_MAX &&
	       (fits_behind(cache, survey->emptiest_bytes, need) ||
		survey->emptiest_bytes <= coshm__cache_lane_room(op, cache) ||
		is_pair(cache, survey->emptiest_bytes, survey->next_bytes));
}

/* Which page goes next, and how? 0: none. */
static int choose(struct coshm__op *op, const struct coshm__cache *cache,
		  const struct survey *survey, const struct need *need, struct walk *walk)
{
	walk->mode = MODE_CLEAN;
	walk->page = survey->source;
	if (walk->page != UINT32_MAX)
		return 1;
	walk->page = survey->expired;
	if (walk->page != UINT32_MAX)
		return 1;
	walk->page = survey->most_dead;
	if (walk->page != UINT32_MAX && survey->most_dead_bytes >= dead_least(cache, need))
		return 1;
	if (cache->policy == COSHM_CACHE_LRU)
		return 0;
	if (cache->policy == COSHM_CACHE_NONE) {
		walk->page = survey->partly_expired;
		if (walk->page == UINT32_MAX && is_worth_moving(op, cache, survey, need)) {
			walk->page = survey->emptiest;
			walk->for_room = 1;
		}
		return walk->page != UINT32_MAX;
	}
	/* A tenth of the pages, those of large values included, is for what was not proven yet. */
	if (survey->small * 10 >= cache->page_count) {
		walk->mode = MODE_SMALL;
		walk->page = survey->oldest[COSHM__CACHE_SMALL];
	} else {
		walk->mode = MODE_MAIN;
		walk->page = survey->oldest[COSHM__CACHE_MAIN];
	}
	return walk->page != UINT32_MAX;
}

/* The class that is to give has only open pages (few bytes, but perhaps heads of large values), or nothing at all. */
static int choose_other(struct coshm__op *op, struct coshm__cache *cache,
			const struct survey *survey, const struct need *need, struct walk *walk)
{
	if (cache->policy != COSHM_CACHE_S3FIFO)
		return 0;
	if (need->may_seal && coshm__cache_seal_all(op, cache,
						    walk->mode == MODE_SMALL ? COSHM__CACHE_SMALL
									     : COSHM__CACHE_MAIN))
		return 0;
	walk->mode = walk->mode == MODE_SMALL ? MODE_MAIN : MODE_SMALL;
	walk->page =
		survey->oldest[walk->mode == MODE_SMALL ? COSHM__CACHE_SMALL : COSHM__CACHE_MAIN];
	return walk->page != UINT32_MAX;
}

/* One victim. 1: something was given back, or another one is to be tried; 0: nothing could be. */
static int evict_one(struct coshm__op *op, struct coshm__cache *cache, const struct survey *survey,
		     struct need *need, struct avoid *avoid, uint32_t *stubborn)
{
	struct walk walk = {.threshold = 1, .wanted_pages = need->pages};

	if (cache->policy == COSHM_CACHE_LRU && survey->expired == UINT32_MAX &&
	    survey->dead_bytes < (uint64_t)survey->sealed * cache->page_bytes / 8) {
		/* Nothing worth cleaning: the oldest entries make it so. */
		if (coshm__cache_lru_evict(op, cache, (uint64_t)cache->page_bytes) > 0)
			return 1;
	}
	if (!choose(op, cache, survey, need, &walk) &&
	    !choose_other(op, cache, survey, need, &walk))
		return 0;
	/* A main queue whose every item is in use gives nothing back: ask for more each time, so that it ends. */
	if (walk.mode != MODE_CLEAN)
		walk.threshold += *stubborn / 2;
	if (!evict(op, cache, &walk)) {
		if (avoid->count < AVOID_MAX)
			avoid->page[avoid->count++] = walk.page;
		return avoid->count < AVOID_MAX;
	}
	if (walk.moved_bytes > cache->page_bytes / 4 * 3)
		++*stubborn;
	need->given = 1;
	return 1;
}

/*
 * Closes the open pages, if that is of use: with policy none what is left in them goes to waste, and one that is closed
 * and moved to a new one each time looks like something under way.
 */
static int seal_open(struct coshm__op *op, struct coshm__cache *cache, const struct survey *survey,
		     const struct need *need)
{
	if (cache->policy == COSHM_CACHE_NONE &&
	    !(is_pair(cache, survey->least_bytes[0], survey->least_bytes[1]) &&
	      survey->open_least_bytes <= survey->least_bytes[1]) &&
	    survey->open_dead_bytes < dead_least(cache, need) &&
	    !fits_behind(cache, survey->open_bytes, need))
		return 0;
	return coshm__cache_seal_all(op, cache, COSHM__CACHE_SMALL) +
		       coshm__cache_seal_all(op, cache, COSHM__CACHE_MAIN) >
	       0;
}

/* What was moved may leave the room that is needed behind it. */
static int has_room(struct coshm__op *op, const struct coshm__cache *cache, const struct need *need)
{
	return cache->policy == COSHM_CACHE_NONE && need->bytes &&
	       coshm__cache_lane_room(op, cache) >= need->bytes;
}

/* Nothing that could be given back, and nothing under way. */
static int is_full(const struct coshm__cache *cache, const struct survey *survey,
		   const struct avoid *avoid)
{
	return cache->policy == COSHM_CACHE_NONE && survey->limbo == 0 && survey->evicting == 0 &&
	       avoid->count == 0;
}

/* What is waited for may be what the dead still keep. Holds no lock and no hazard. */
static void pause_for_others(struct coshm__op *op)
{
	const struct timespec pause = {0, PAUSE_NS};
	int saved_errno = errno;

	nanosleep(&pause, NULL);
	errno = saved_errno;
	coshm__tick(op, coshm__now_coarse_ns(op->segment));
}

int coshm__cache_make_room(struct coshm__op *op, struct coshm__cache *cache, uint32_t pages,
			   uint32_t bytes, int replaces)
{
	uint32_t keep = coshm__cache_keep(cache, replaces);
	struct need need = {.pages = pages, .bytes = bytes, .replaces = replaces, .may_seal = 1};
	uint64_t deadline_ns = coshm__now_ns(op->segment) + COSHM__LOCK_TIMEOUT_NS;
	uint32_t best = 0, stubborn = 0, sealed_all = 0, rounds = 0;
	uint64_t words_hash = 0;
	int reaped = 0;
	struct avoid avoid = {.count = 0};
	struct survey survey;

	for (;;) {
		int progress = 0, full, late;

		need.given = 0;
		look(op, cache, &avoid, &survey);
		if (survey.free >= keep + pages)
			return 0;
		if (survey.free > best) {
			best = survey.free;
			rounds = 0;
			deadline_ns = coshm__now_ns(op->segment) + COSHM__LOCK_TIMEOUT_NS;
		}
		/*
		 * A barrier for a batch; earlier only if what is left is needed to move survivors, or if what waits is
		 * enough: nothing more must go then.
		 */
		if (survey.limbo >= cache->limbo_batch ||
		    (survey.limbo > 0 &&
		     (survey.free <= keep || survey.free + survey.limbo >= keep + pages)))
			progress = coshm__cache_page_settle(op, cache) > 0;
		if (!progress)
			progress = evict_one(op, cache, &survey, &need, &avoid, &stubborn);
		if (need.given && has_room(op, cache, &need))
			return 1;
		if (!progress && survey.limbo > 0)
			progress = coshm__cache_page_settle(op, cache) > 0;
		if (!progress && !sealed_all) {
			sealed_all = 1;
			progress = seal_open(op, cache, &survey, &need);
		}
		/* One look may miss a page that others clean while it goes through the table; two alike do not. */
		full = !progress && is_full(cache, &survey, &avoid) &&
		       survey.words_hash == words_hash;
		/* Time that this thread did not run is no reason to give up while things go on. */
		late = (!progress || ++rounds > ROUNDS_MAX) &&
		       coshm__now_ns(op->segment) > deadline_ns;
		if (late && !full)
			return -EAGAIN;
		if (!progress) {
			if (has_room(op, cache, &need))
				return 1;
			/* Who holds a lane may just wait for a CPU. */
			if (full && (late || !survey.held)) {
				if (reaped)
					return -ENOSPC;
				/* What the dead kept, and pages with what they left, are seen by another look. */
				reaped = coshm__reap_now(op);
				sealed_all = 0;
				if (reaped)
					continue;
				if (late)
					return -EAGAIN;
			}
			words_hash = survey.words_hash;
			pause_for_others(op);
			avoid.count = 0;
			sealed_all = 0;
		}
	}
}

/* As coshm__cache_make_way, but for -EAGAIN: others are at it, or were killed while they were. */
static int try_way(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash, const void *key,
		   size_t key_bytes, const struct coshm__cache_request *request,
		   struct coshm__cache_way *way, struct coshm__cache_space *ret_space)
{
	struct coshm__cache_place place;
	uint32_t offset;
	uint64_t life;
	int fits;

	/* The last free page may be waiting for its barrier. */
	coshm__cache_page_settle(op, cache);
	if (!coshm__cache_find(op, cache, hash, key, key_bytes, &place))
		return -ENOENT;
	life = coshm__cache_page_load(cache, place.page) & COSHM__CACHE_GENERATION_MASK;
	offset = coshm__cache_slot_offset(place.word);
	fits = coshm__cache_item_bytes(cache, request->word0) <= place.bytes;
	coshm__cache_let_go(op, &place);
	if (!fits)
		return -ENOSPC;
	COSHM__CRASH_POINT(cache_target_wanted);
	if (coshm__cache_page_state(coshm__cache_page_load(cache, place.page)) ==
	    COSHM__CACHE_PAGE_OPEN)
		coshm__cache_seal_all(op, cache, COSHM__CACHE_MAIN);
	if (!own(op, cache, place.page, COSHM__HAZARD_WRITE, &way->word))
		return -EAGAIN;
	COSHM__CRASH_POINT(cache_target_source_owned);
	/*
	 * In this order: the target has room for the value if the former one lives in the source once the target's end is
	 * known. It was not kept, so there may be another page life, or another item in the slot.
	 */
	coshm__cache_target_find(cache, place.page, &way->target);
	if ((way->word & COSHM__CACHE_GENERATION_MASK) == life &&
	    coshm__cache_same(coshm__cache_slot_load(place.slot), place.word) &&
	    coshm__cache_target_place(op, cache, &way->target, offset, request, ret_space) == 0)
		return 0;
	coshm__cache_page_change(cache, place.page, &way->word, COSHM__CACHE_PAGE_SEALED, 0);
	return -EAGAIN;
}

int coshm__cache_make_way(struct coshm__op *op, struct coshm__cache *cache, uint64_t hash,
			  const void *key, size_t key_bytes,
			  const struct coshm__cache_request *request, struct coshm__cache_way *way,
			  struct coshm__cache_space *ret_space)
{
	uint64_t deadline_ns = coshm__now_ns(op->segment) + COSHM__LOCK_TIMEOUT_NS;
	struct need need = {.pages = 1, .replaces = 1, .may_seal = 1};
	struct avoid avoid = {.count = 0};
	uint32_t stubborn = 0;

	for (int rounds = 0;; rounds++) {
		struct survey survey;
		int error = try_way(op, cache, hash, key, key_bytes, request, way, ret_space);

		/* Time that this thread did not run is no reason to give up. */
		if (error != -EAGAIN ||
		    (rounds > ROUNDS_MAX && coshm__now_ns(op->segment) > deadline_ns))
			return error;
		look(op, cache, &avoid, &survey);
		if (!evict_one(op, cache, &survey, &need, &avoid, &stubborn)) {
			pause_for_others(op);
			avoid.count = 0;
		}
	}
}

void coshm__cache_way_end(struct coshm__op *op, struct coshm__cache *cache,
			  struct coshm__cache_way *way, const struct coshm__cache_space *space,
			  int published)
{
	struct walk walk = {.page = way->target.source,
			    .mode = MODE_CLEAN,
			    .threshold = 1,
			    .wanted_pages = 1,
			    .target = way->target};

	if (published)
		coshm__cache_target_count(cache, &walk.target, space->bytes);
	coshm__cache_reserve_done(op);
	empty(op, cache, &walk, way->word);
}

void coshm__cache_make_pace(struct coshm__op *op, struct coshm__cache *cache, uint32_t own_page)
{
	struct avoid avoid = {.page = {own_page}, .count = 1};
	struct need need = {.pages = 1};
	struct survey survey;
	uint32_t stubborn = 0;

	/* Two at most: survivors open pages as well, and what is missing must be made up for some time. */
	for (int i = 0; i < 2; i++) {
		look(op, cache, &avoid, &survey);
		if (survey.free + survey.limbo >= cache->spare_pages + cache->limbo_batch ||
		    !evict_one(op, cache, &survey, &need, &avoid, &stubborn))
			break;
	}
	if (survey.limbo >= cache->limbo_batch && survey.free <= cache->spare_pages + 1)
		coshm__cache_page_settle(op, cache);
}
