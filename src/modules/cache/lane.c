/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/lane.c - appending to the log
 *
 * A lane has an open page per class. Under its lock a writer gets its place, writes the item's first word (which tells
 * the length, so that the page can be walked) and announces the page as its write hazard; all other bytes are written
 * outside the lock. Who seals the page takes the same lock, so whoever sees SEALED sees all hazards of its writers.
 *
 * Whoever finds the holders of all lanes stopped opens a page for his item alone, so no member can keep others from
 * writing.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

#define OPEN_NONE	      0
#define OPEN_WORD(page, used) (((uint64_t)(page) + 1) << 40 | (used))
#define OPEN_PAGE(word)	      ((uint32_t)((word) >> 40) - 1)
#define OPEN_USED(word)	      ((uint32_t)(word))

/* All lanes busy for this long: some holder is stopped or waits for a CPU, and the spare lane is used. */
#define SPARE_AFTER_NS 50000
/* The spare one, too: its holder is hardly just about to go on, so the item gets a page of its own, which costs room. */
#define ALONE_AFTER_NS 10000000

/* The lane's open page of a class, if its word agrees. */
static int open_page(const struct coshm__cache *cache, uint32_t lane, uint32_t item_class,
		     uint32_t *ret_page, uint32_t *ret_used, uint64_t *ret_word)
{
	/* relaxed: under the lane's lock */
	uint64_t open = coshm__a64_load_relaxed(&cache->lanes[lane].open[item_class]);
	uint64_t word;

	if (open == OPEN_NONE || OPEN_PAGE(open) >= cache->page_count ||
	    OPEN_USED(open) > cache->page_bytes || OPEN_USED(open) % 8 != 0)
		return 0;
	word = coshm__a64_load_relaxed(&cache->words[OPEN_PAGE(open)]);
	if (coshm__cache_page_state(word) != COSHM__CACHE_PAGE_OPEN ||
	    coshm__cache_page_owner(word) != lane)
		return 0;
	*ret_page = OPEN_PAGE(open);
	*ret_used = OPEN_USED(open);
	*ret_word = word;
	return 1;
}

/* What is known of a page that is about to be sealed. */
static void note_seal(struct coshm__cache *cache, uint32_t page, uint32_t item_class, uint32_t used)
{
	struct coshm__cache_page_shm *info = &cache->pages[page];
	uint64_t sequence = coshm__a64_fetch_add_relaxed(&cache->shm->seal_sequence, 1);

	/* relaxed: carried by the CAS to SEALED */
	coshm__a32_store_relaxed(&info->used_bytes, used);
	coshm__a64_store_relaxed(&info->seal, sequence << 2 | item_class);
}

static void seal(struct coshm__cache *cache, uint32_t lane, uint32_t item_class, uint32_t page,
		 uint32_t used, uint64_t word)
{
	note_seal(cache, page, item_class, used);
	COSHM__CRASH_POINT(cache_page_sealing);
	coshm__cache_page_change(cache, page, &word, COSHM__CACHE_PAGE_SEALED, 0);
	COSHM__CRASH_POINT(cache_page_sealed);
	coshm__a64_store_relaxed(&cache->lanes[lane].open[item_class], OPEN_NONE);
	COSHM__CRASH_POINT(cache_lane_closed);
}

/* Opens a page, and only then closes the one that is open: what is left in that is still of use if there is no other. */
static int open_new(struct coshm__cache *cache, uint32_t lane, uint32_t item_class, uint32_t keep,
		    uint32_t *ret_page, uint64_t *ret_word)
{
	uint32_t former, used;
	uint64_t former_word;
	int error = coshm__cache_page_take(cache, lane * (cache->page_count / cache->lane_total),
					   keep, COSHM__CACHE_PAGE_OPEN, lane, ret_page, ret_word);

	if (error)
		return error;
	COSHM__CRASH_POINT(cache_page_taken);
	coshm__cache_page_begin(cache, *ret_page);
	if (open_page(cache, lane, item_class, &former, &used, &former_word))
		seal(cache, lane, item_class, former, used, former_word);
	coshm__a64_store_relaxed(&cache->lanes[lane].open[item_class], OPEN_WORD(*ret_page, 0));
	COSHM__CRASH_POINT(cache_page_opened);
	return 0;
}

static void note_expiry(struct coshm__cache_page_shm *info, uint64_t expire_ms)
{
	uint64_t at = expire_ms ? expire_ms : UINT64_MAX;

	/* relaxed: under the lane's lock; carried by the CAS to SEALED */
	if (at < coshm__a64_load_relaxed(&info->expire_first_ms))
		coshm__a64_store_relaxed(&info->expire_first_ms, at);
	if (at > coshm__a64_load_relaxed(&info->expire_last_ms))
		coshm__a64_store_relaxed(&info->expire_last_ms, at);
}

static uint64_t version_of(uint32_t lane, uint64_t sequence)
{
	return (uint64_t)lane << 48 | (sequence & ((UINT64_C(1) << 48) - 1));
}

uint64_t coshm__cache_version_without_lane(struct coshm__cache *cache)
{
	return version_of(cache->lane_total,
			  coshm__a64_fetch_add_relaxed(&cache->shm->seal_sequence, 1) + 1);
}

static inline void place(struct coshm__op *op, struct coshm__cache *cache,
			 const struct coshm__cache_request *request, uint64_t version,
			 uint32_t page, uint32_t used, uint64_t page_word,
			 struct coshm__cache_space *space)
{
	space->word0 = request->word0 | version >> 32 << 42;
	space->item = coshm__cache_page(cache, page) + used;
	space->version_low = (uint32_t)version;
	space->page = page;
	space->offset = used;
	space->bytes = coshm__cache_item_bytes(cache, request->word0);
	space->page_word = page_word;
	note_expiry(&cache->pages[page], request->expire_ms);
	coshm__hazard_write(op, 0, coshm__cache_page_offset(cache, page));
	COSHM__CRASH_POINT(cache_write_announced);
	memcpy(space->item, &space->word0, 8);
}

void coshm__cache_place_item(struct coshm__op *op, struct coshm__cache *cache,
			     const struct coshm__cache_request *request, uint64_t version,
			     uint32_t page, uint32_t used, uint64_t page_word,
			     struct coshm__cache_space *space)
{
	place(op, cache, request, version, page, used, page_word, space);
}

static int append(struct coshm__op *op, struct coshm__cache *cache, uint32_t lane,
		  const struct coshm__cache_request *request, struct coshm__cache_space *space)
{
	uint32_t bytes = coshm__cache_item_bytes(cache, request->word0), page = 0, used = 0;
	uint32_t item_class = request->item_class;
	uint64_t page_word = 0, version = request->version;
	int is_open = open_page(cache, lane, item_class, &page, &used, &page_word);

	if (!is_open || used + bytes > cache->page_bytes) {
		int error = open_new(cache, lane, item_class, request->keep, &page, &page_word);

		if (error)
			return error;
		used = 0;
	}
	if (version == 0) {
		/* relaxed: under the lane's lock */
		version = coshm__a64_load_relaxed(&cache->lanes[lane].sequence) + 1;
		coshm__a64_store_relaxed(&cache->lanes[lane].sequence, version);
		version = version_of(lane, version);
	}
	place(op, cache, request, version, page, used, page_word, space);
	/* The next item's place, if it is as long as this one: the CPU has none of its lines, and the unlock waits for every
	 * store before it. Past the end of the page this does no harm. */
	for (uint32_t ahead = 0; ahead < 192; ahead += 64)
		__builtin_prefetch(space->item + bytes + 128 + ahead, 1);
	/* [C8] release, pairs [C13] in verify; who takes the lock over from a dead holder needs no more than this order:
	 * the length stands before the end moves */
	coshm__a64_store_release(&cache->lanes[lane].open[item_class],
				 OPEN_WORD(page, used + bytes));
	COSHM__CRASH_POINT(cache_reserved);
	return 0;
}

/*
 * Without a lane: into a page that nobody else knows until it is sealed, with the one item in it. The write hazard is
 * announced before, so whoever sees SEALED sees it, here too. For versions this is one more lane, whose sequence is that
 * of the seals.
 */
static int append_alone(struct coshm__op *op, struct coshm__cache *cache,
			const struct coshm__cache_request *request,
			struct coshm__cache_space *space)
{
	uint64_t page_word;
	uint32_t page;
	int error = coshm__cache_page_take(cache, op->member_id * 7, request->keep,
					   COSHM__CACHE_PAGE_BUILD, coshm__id24(op->member_id),
					   &page, &page_word);

	if (error)
		return error;
	coshm__cache_page_begin(cache, page);
	place(op, cache, request,
	      request->version ? request->version : coshm__cache_version_without_lane(cache), page,
	      0, page_word, space);
	note_seal(cache, page, request->item_class, space->bytes);
	COSHM__CRASH_POINT(cache_alone_placed);
	if (!coshm__cache_page_change(cache, page, &page_word, COSHM__CACHE_PAGE_SEALED, 0)) {
		coshm__cache_reserve_done(op);
		return -EUCLEAN;
	}
	COSHM__CRASH_POINT(cache_alone_sealed);
	return 0;
}

int coshm__cache_reserve(struct coshm__op *op, struct coshm__cache *cache,
			 const struct coshm__cache_request *request, int may_wait,
			 struct coshm__cache_space *ret_space)
{
	uint32_t slot = coshm__thread_number(op);
	uint32_t first = slot < cache->lane_count ? slot : slot % cache->lane_count, lane = first;
	int error;

	for (uint32_t i = 0; i < cache->lane_count; i++) {
		lane = first + i < cache->lane_count ? first + i : first + i - cache->lane_count;
		error = coshm__rlock_acquire(op, &cache->lanes[lane].lock, 0);
		if (coshm__likely(!error))
			goto locked;
	}
	coshm__count(op, cache->counters, COSHM__STAT_CACHE_lane_waits, 1);
	lane = first;
	error = coshm__rlock_acquire(op, &cache->lanes[lane].lock, may_wait ? SPARE_AFTER_NS : 0);
	if (error) {
		lane = cache->lane_count;
		error = coshm__rlock_acquire(op, &cache->lanes[lane].lock,
					     may_wait ? ALONE_AFTER_NS : 0);
	}
	if (error)
		return may_wait ? append_alone(op, cache, request, ret_space) : error;
locked:
	error = append(op, cache, lane, request, ret_space);
	coshm__rlock_release(op, &cache->lanes[lane].lock);
	return error;
}

void coshm__cache_reserve_undo(struct coshm__op *op, struct coshm__cache *cache,
			       const struct coshm__cache_space *space, int again)
{
	if (!again)
		coshm__cache_page_dead(op, cache, space->page, space->bytes);
	coshm__cache_reserve_done(op);
}

uint32_t coshm__cache_seal_all(struct coshm__op *op, struct coshm__cache *cache,
			       uint32_t item_class)
{
	uint32_t sealed = 0, page, used;
	uint64_t word;

	for (uint32_t lane = 0; lane < cache->lane_total; lane++) {
		if (coshm__rlock_acquire(op, &cache->lanes[lane].lock, 0))
			continue;
		if (open_page(cache, lane, item_class, &page, &used, &word) && used > 0) {
			seal(cache, lane, item_class, page, used, word);
			sealed++;
		}
		coshm__rlock_release(op, &cache->lanes[lane].lock);
	}
	return sealed;
}

uint64_t coshm__cache_lane_hold(const struct coshm__cache *cache, uint32_t lane)
{
	/* relaxed: a hint */
	uint64_t word = lane < cache->lane_total
				? coshm__a64_load_relaxed(&cache->lanes[lane].lock.word)
				: 0;

	return (uint32_t)word ? word : 0;
}

uint32_t coshm__cache_lane_next(struct coshm__op *op, const struct coshm__cache *cache)
{
	uint32_t first = coshm__thread_number(op) % cache->lane_count;

	for (uint32_t i = 0; i < cache->lane_count; i++) {
		uint32_t lane = (first + i) % cache->lane_count;

		if (!coshm__cache_lane_hold(cache, lane))
			return lane;
	}
	return cache->lane_count;
}

uint32_t coshm__cache_lane_used(const struct coshm__cache *cache, uint32_t lane, uint32_t page)
{
	uint64_t open;

	if (lane >= cache->lane_total)
		return 0;
	/* relaxed: a hint */
	open = coshm__a64_load_relaxed(&cache->lanes[lane].open[COSHM__CACHE_MAIN]);
	return open != OPEN_NONE && OPEN_PAGE(open) == page ? OPEN_USED(open) : 0;
}

uint32_t coshm__cache_lane_room(struct coshm__op *op, const struct coshm__cache *cache)
{
	uint32_t lane = coshm__cache_lane_next(op, cache);
	uint64_t open = coshm__a64_load_relaxed(&cache->lanes[lane].open[COSHM__CACHE_MAIN]);

	return open == OPEN_NONE || OPEN_USED(open) > cache->page_bytes ||
			       coshm__cache_lane_hold(cache, lane)
		       ? 0
		       : cache->page_bytes - OPEN_USED(open);
}

/* No lock: only who owns its source writes there. */
static void seal_target(struct coshm__cache *cache, uint32_t page, uint32_t used, uint64_t word)
{
	note_seal(cache, page, COSHM__CACHE_MAIN, used);
	coshm__cache_page_change(cache, page, &word, COSHM__CACHE_PAGE_SEALED, 0);
}

/* With the lane's lock held: whichever of its open page and this TARGET has more room left is its open page then. */
static void adopt(struct coshm__cache *cache, uint32_t lane, uint32_t page, uint32_t used,
		  uint64_t word)
{
	uint32_t open, open_used;
	uint64_t open_word;

	if (open_page(cache, lane, COSHM__CACHE_MAIN, &open, &open_used, &open_word)) {
		if (open_used <= used) {
			seal_target(cache, page, used, word);
			return;
		}
		seal(cache, lane, COSHM__CACHE_MAIN, open, open_used, open_word);
	}
	/* [C8] release */
	coshm__a64_store_release(&cache->lanes[lane].open[COSHM__CACHE_MAIN],
				 OPEN_WORD(page, used));
	COSHM__CRASH_POINT(cache_target_entered);
	coshm__cache_page_change(cache, page, &word, COSHM__CACHE_PAGE_OPEN, lane);
}

void coshm__cache_lane_adopt(struct coshm__op *op, struct coshm__cache *cache, uint32_t page,
			     uint32_t used, uint64_t word)
{
	uint32_t first = coshm__thread_number(op) % cache->lane_count;

	/* The spare one last, as in coshm__cache_reserve. */
	for (uint32_t i = 0; i < cache->lane_total; i++) {
		uint32_t lane = i < cache->lane_count ? (first + i) % cache->lane_count : i;

		if (coshm__rlock_acquire(op, &cache->lanes[lane].lock, 0))
			continue;
		adopt(cache, lane, page, used, word);
		coshm__rlock_release(op, &cache->lanes[lane].lock);
		return;
	}
	seal_target(cache, page, used, word);
}

/*
 * The lock was taken over from a dead holder. What the lane says is open stays open, its end is right (C8). A page that
 * was taken for the lane but not entered has no items: it goes on to LIMBO as if it had been emptied. An entry whose
 * page is not the lane's any more (killed after sealing) is dropped.
 */
int coshm__cache_lane_recover(struct coshm__cache *cache, uint32_t lane)
{
	uint32_t page[2] = {UINT32_MAX, UINT32_MAX}, used;
	uint64_t word;

	for (uint32_t c = 0; c < 2; c++) {
		if (!open_page(cache, lane, c, &page[c], &used, &word)) {
			page[c] = UINT32_MAX;
			coshm__a64_store_relaxed(&cache->lanes[lane].open[c], OPEN_NONE);
		}
	}
	for (uint32_t i = 0; i < cache->page_count; i++) {
		word = coshm__cache_page_load(cache, i);
		if (coshm__cache_page_state(word) == COSHM__CACHE_PAGE_OPEN &&
		    coshm__cache_page_owner(word) == lane && i != page[0] && i != page[1])
			coshm__cache_page_change(cache, i, &word, COSHM__CACHE_PAGE_LIMBO, 0);
	}
	return 0;
}
