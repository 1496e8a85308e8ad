/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/verify.c - every invariant of cache_shm.h, as questions
 *
 * Reads only, and without hazards: items are looked at through checked copies. A cache in use is never still, so a
 * finding counts only if it is there again and again; what a dead member left is pending, not damage.
 */
#include "modules/cache/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define LOOKS	     5
#define PAUSE_NS     (2 * 1000 * 1000)
#define SUSPECTS_MAX 512 /* that share the pauses between looks */

/* One answer: text NULL is fine. */
struct answer {
	const char *text;
	int level;
};

static const struct answer fine = {NULL, 0};

static struct answer damage(const char *text)
{
	return (struct answer){text, COSHM_VERIFY_DAMAGE};
}

static struct answer pending(const char *text)
{
	return (struct answer){text, COSHM_VERIFY_PENDING};
}

/* One question, and what it is still to be asked about. */
struct inquiry {
	struct coshm__handle *handle;
	struct coshm__findings *findings;
	const char *where;
	struct answer (*about)(struct coshm__handle *handle, uint64_t index);
	uint32_t suspect_count;
	uint64_t suspects[SUSPECTS_MAX];
};

/* Asks about all suspects until the answer is fine, or the same a few times in a row. */
static void confront(struct inquiry *inquiry)
{
	struct timespec pause = {0, PAUSE_NS};

	for (int look = 1; look < LOOKS && inquiry->suspect_count; look++) {
		uint32_t count = inquiry->suspect_count;

		inquiry->suspect_count = 0;
		nanosleep(&pause, NULL);
		for (uint32_t i = 0; i < count; i++) {
			uint64_t index = inquiry->suspects[i];
			struct answer answer = inquiry->about(inquiry->handle, index);

			if (!answer.text)
				continue;
			inquiry->suspects[inquiry->suspect_count++] = index;
			if (look + 1 == LOOKS)
				coshm__finding(inquiry->findings, answer.level, inquiry->where,
					       "%llu: %s", (unsigned long long)index, answer.text);
		}
	}
	inquiry->suspect_count = 0;
}

static void ask(struct inquiry *inquiry, uint64_t index)
{
	if (!inquiry->about(inquiry->handle, index).text)
		return;
	inquiry->suspects[inquiry->suspect_count++] = index;
	if (inquiry->suspect_count == SUSPECTS_MAX)
		confront(inquiry);
}

static void ask_all(struct coshm__handle *handle, struct coshm__findings *findings,
		    const char *where,
		    struct answer (*about)(struct coshm__handle *handle, uint64_t index),
		    uint64_t count)
{
	struct inquiry inquiry = {
		.handle = handle, .findings = findings, .where = where, .about = about};

	for (uint64_t i = 0; i < count; i++)
		ask(&inquiry, i);
	confront(&inquiry);
}

/* What a lane's lock guards is in motion while it is held. 1: answered */
static int lane_in_motion(struct coshm__handle *handle, uint32_t lane, struct answer *answer)
{
	const struct coshm__cache *cache = handle->local;
	uint32_t owner = coshm__rlock_owner(&cache->lanes[lane].lock);

	if (!owner)
		return 0;
	*answer = coshm__member_is_dead(handle->segment, owner)
			  ? pending("its lane's holder died; the next one repairs it")
			  : fine;
	return 1;
}

/* Died, not cleaned up after, and this cache open: its reaper looks at every group. */
static int will_be_reaped(struct coshm__handle *handle)
{
	struct coshm__segment *segment = handle->segment;
	uint32_t entry = handle->entry_index;

	for (uint32_t i = 0; i < segment->member_count_max; i++) {
		const struct coshm__member_shm *member = &segment->members[i];
		uint64_t word = coshm__a64_load_acquire(&member->word); /* [M2] */
		uint32_t id = (uint32_t)(i << COSHM__MEMBER_GENERATION_BITS | word >> 2);

		if (!(coshm__a64_load_relaxed(&member->open_objects[entry / 64]) >> (entry % 64) &
		      1))
			continue;
		if ((word & 3) == COSHM__MEMBER_DEAD ||
		    ((word & 3) == COSHM__MEMBER_ALIVE && coshm__member_is_dead(segment, id)))
			return 1;
	}
	return 0;
}

/*
 * A group without a slot. Who takes its value out of the slot keeps the leader by a hazard until all pages are given
 * back, however long it is stopped in between.
 */
static struct answer left_behind(struct coshm__handle *handle, uint32_t leader, const char *text)
{
	uint64_t offset = coshm__cache_page_offset(handle->local, leader), kept;

	if (will_be_reaped(handle))
		return pending(text);
	coshm__hazard_scan(handle->segment, COSHM__HAZARD_READ, &offset, 1, &kept);
	return kept ? fine : damage(text);
}

/* --- pages -------------------------------------------------------------------------------------------------- */

static uint64_t lane_open(const struct coshm__cache *cache, uint32_t lane, uint32_t item_class)
{
	/* [C13] acquire, pairs [C8]; the lengths of all items before the end */
	return coshm__a64_load_acquire(&cache->lanes[lane].open[item_class]);
}

/* UINT32_MAX: the lane does not have the page open */
static uint32_t open_used(const struct coshm__cache *cache, uint32_t lane, uint32_t page)
{
	for (uint32_t c = 0; c < 2; c++) {
		uint64_t open = lane_open(cache, lane, c);

		if (open >> 40 == (uint64_t)page + 1)
			return (uint32_t)open;
	}
	return UINT32_MAX;
}

static struct answer page_items(const struct coshm__cache *cache, uint32_t page, uint32_t used)
{
	const unsigned char *at = coshm__cache_page(cache, page);
	uint32_t offset = 0;

	if (used > cache->page_bytes)
		return damage("says that it is longer than a page");
	while (offset < used) {
		/* relaxed: may change under us; then the page's word has changed as well, and we look again */
		uint64_t word0 = coshm__a64_load_relaxed(
			(const struct coshm__a64 *)(const void *)(at + offset));
		uint32_t bytes = coshm__cache_item_bytes(cache, word0);

		if (bytes == 0 || bytes > used - offset)
			return damage("an item's length makes no sense");
		offset += bytes;
	}
	return fine;
}

static struct answer page_owner(struct coshm__handle *handle, uint32_t state, uint32_t owner)
{
	if (coshm__member_is_dead24(handle->segment, owner))
		return pending(state == COSHM__CACHE_PAGE_EVICT
				       ? "its evictor died; the next one goes on"
				       : "pages of a large value whose writer died");
	return fine;
}

static struct answer page_target(const struct coshm__cache *cache, uint32_t page, uint32_t source)
{
	uint32_t state, used;

	if (source >= cache->page_count)
		return damage("is to take in what lives in a page that is none");
	state = coshm__cache_page_state(coshm__cache_page_load(cache, source));
	if (state != COSHM__CACHE_PAGE_EVICT && state != COSHM__CACHE_PAGE_SEALED)
		return damage("is to take in what lives in a page without items");
	used = coshm__cache_target_used(cache, source, page);
	if (used + coshm__cache_target_lives(cache, source) > cache->page_bytes)
		return damage("has too little room for what lives in its source");
	return page_items(cache, page, used);
}

static struct answer page_group(struct coshm__handle *handle, uint32_t page, uint32_t leader)
{
	const struct coshm__cache *cache = handle->local;
	struct coshm__cache_copy copy;
	const struct coshm__a64 *slot;
	uint64_t builder, word;
	int found;

	if (leader >= cache->page_count)
		return damage("belongs to a page that is none");
	word = coshm__cache_page_load(cache, leader);
	if (coshm__cache_page_state(word) != COSHM__CACHE_PAGE_CHUNK ||
	    coshm__cache_page_owner(word) != leader)
		return damage("its group has no leader");
	if (leader != page)
		return fine;
	builder = coshm__cache_group_builder(cache, leader);
	if (builder != 0)
		return coshm__member_is_dead(handle->segment, (uint32_t)builder)
			       ? pending("the writer of a large value died")
			       : fine;
	slot = coshm__cache_slot_at(cache, coshm__a64_load_relaxed(&cache->pages[page].group_slot));
	if (!slot)
		return left_behind(handle, page, "a large value without a slot");
	found = coshm__cache_copy_slot(cache, slot, 0, &copy);
	if (found < 0)
		return fine; /* it changes all the time, or memory is short: not known */
	if (found == 0)
		return left_behind(handle, page, "a large value that no slot names");
	free(copy.key);
	return copy.leader == page
		       ? fine
		       : left_behind(handle, page, "a large value whose slot names another");
}

static struct answer about_page(struct coshm__handle *handle, uint64_t index)
{
	const struct coshm__cache *cache = handle->local;
	uint32_t page = (uint32_t)index, used;
	uint64_t word = coshm__cache_page_load(cache, page);
	uint32_t owner = coshm__cache_page_owner(word), state = coshm__cache_page_state(word);
	struct answer answer = fine;

	switch (state) {
	case COSHM__CACHE_PAGE_FREE:
		break;
	case COSHM__CACHE_PAGE_OPEN:
		if (owner >= cache->lane_total)
			return damage("open for a lane that does not exist");
		used = open_used(cache, owner, page);
		if (used != UINT32_MAX)
			answer = page_items(cache, page, used);
		else if (!lane_in_motion(handle, owner, &answer))
			answer = damage("open, but its lane does not know it");
		break;
	case COSHM__CACHE_PAGE_EVICT:
	case COSHM__CACHE_PAGE_BUILD:
		answer = page_owner(handle, state, owner);
		break;
	case COSHM__CACHE_PAGE_SEALED:
		answer = page_items(cache, page,
				    coshm__a32_load_relaxed(&cache->pages[page].used_bytes));
		break;
	case COSHM__CACHE_PAGE_LIMBO:
		if (owner > cache->page_count)
			answer = damage("waits for a page that is none");
		break;
	case COSHM__CACHE_PAGE_CHUNK:
		answer = page_group(handle, page, owner);
		break;
	case COSHM__CACHE_PAGE_TARGET:
		answer = page_target(cache, page, owner);
		break;
	default:
		answer = damage("in a state that does not exist");
	}
	/* A fence: all that was looked at, before the page's word is looked at again. */
	coshm__acquire_fence();
	return coshm__a64_load_relaxed(&cache->words[page]) == word ? answer : fine;
}

static struct answer about_lane(struct coshm__handle *handle, uint64_t index)
{
	const struct coshm__cache *cache = handle->local;
	struct answer answer;

	if (lane_in_motion(handle, (uint32_t)index, &answer))
		return answer;
	for (uint32_t c = 0; c < 2; c++) {
		uint64_t open = lane_open(cache, (uint32_t)index, c), word;

		if (open == 0)
			continue;
		if ((open >> 40) - 1 >= cache->page_count ||
		    (open & 0xffffffffff) > cache->page_bytes)
			return damage("its open page is none");
		word = coshm__cache_page_load(cache, (uint32_t)(open >> 40) - 1);
		if (coshm__cache_page_state(word) != COSHM__CACHE_PAGE_OPEN ||
		    coshm__cache_page_owner(word) != index)
			return damage("its open page is not open for it");
	}
	return fine;
}

/* --- index -------------------------------------------------------------------------------------------------- */

static struct answer slot_page(const struct coshm__cache *cache, uint64_t word)
{
	uint32_t page = coshm__cache_slot_page(word), end = cache->page_bytes;
	uint64_t page_word;

	if (page >= cache->page_count || (word >> 44 & 3) == 0 || (word >> 44 & 3) == 3)
		return damage("names no page");
	page_word = coshm__cache_page_load(cache, page);
	if ((page_word ^ word) & 0x7f)
		return damage("names an earlier life of its page");
	switch (coshm__cache_page_state(page_word)) {
	case COSHM__CACHE_PAGE_OPEN:
		if (coshm__cache_page_owner(page_word) < cache->lane_total)
			end = open_used(cache, coshm__cache_page_owner(page_word), page);
		break;
	case COSHM__CACHE_PAGE_SEALED:
	case COSHM__CACHE_PAGE_EVICT:
		end = coshm__a32_load_relaxed(&cache->pages[page].used_bytes);
		break;
	case COSHM__CACHE_PAGE_TARGET:
		end = coshm__cache_page_owner(page_word) < cache->page_count
			      ? coshm__cache_target_used(cache, coshm__cache_page_owner(page_word),
							 page)
			      : 0;
		break;
	default:
		return damage("names a page without items");
	}
	return coshm__cache_slot_offset(word) < end ? fine : damage("names what was never written");
}

/* The same key in another slot of its path? */
static int is_doubled(const struct coshm__cache *cache, uint64_t hash, uint64_t slot_index,
		      const struct coshm__cache_copy *copy)
{
	uint64_t home = coshm__cache_home(cache, hash);

	for (uint32_t d = 0; d <= coshm__cache_distance(cache, home); d++) {
		uint64_t bucket = coshm__cache_probe(cache, hash, d);

		for (uint32_t i = 1; i <= COSHM__CACHE_BUCKET_SLOTS; i++) {
			const struct coshm__a64 *slot = coshm__cache_slot_at(cache, bucket * 8 + i);
			struct coshm__cache_copy other;
			int same;

			if (bucket * 8 + i == slot_index ||
			    (coshm__a64_load_relaxed(slot) ^ hash << 48) >> 48 ||
			    coshm__cache_copy_slot(cache, slot, 0, &other) != 1)
				continue;
			same = other.key_bytes == copy->key_bytes &&
			       memcmp(other.key, copy->key, copy->key_bytes) == 0;
			free(other.key);
			if (same)
				return 1;
		}
	}
	return 0;
}

static struct answer slot_key(struct coshm__handle *handle, uint64_t index, uint64_t word,
			      const struct coshm__cache_copy *copy)
{
	const struct coshm__cache *cache = handle->local;
	uint64_t hash = coshm__cache_hash(cache, copy->key, copy->key_bytes);
	uint32_t distance = coshm__cache_distance(cache, coshm__cache_home(cache, hash)), d = 0;

	if ((hash ^ word >> 48) & 0xffff)
		return damage("its tag is not its key's");
	while (d <= distance && coshm__cache_probe(cache, hash, d) != index / 8)
		d++;
	if (d > distance)
		return damage("its key is not looked for there");
	return is_doubled(cache, hash, index, copy) ? damage("its key has two slots") : fine;
}

static struct answer about_slot(struct coshm__handle *handle, uint64_t index)
{
	const struct coshm__cache *cache = handle->local;
	const struct coshm__a64 *slot = coshm__cache_slot_at(cache, index);
	uint64_t word = slot ? coshm__cache_slot_load(slot) : 0;
	struct coshm__cache_copy copy;
	struct answer answer;
	int found;

	if (word == 0)
		return fine;
	answer = slot_page(cache, word);
	if (!answer.text) {
		found = coshm__cache_copy_slot(cache, slot, 0, &copy);
		if (found == 1) {
			answer = slot_key(handle, index, word, &copy);
			free(copy.key);
		} else if (found == 0) {
			answer = damage("its item makes no sense");
		} else if (found == -ENOMEM) {
			answer =
				(struct answer){"no memory to look at its item", COSHM_VERIFY_NOTE};
		}
	}
	return coshm__cache_same(coshm__cache_slot_load(slot), word) ? answer : fine;
}

/* I7: as many keys stand away from home as their homes say, or fewer. Only meaningful on a cache at rest. 0, -ENOMEM */
static int count_away(struct coshm__handle *handle, uint8_t *away)
{
	const struct coshm__cache *cache = handle->local;

	for (uint64_t i = 0; i < cache->bucket_count * 8; i++) {
		const struct coshm__a64 *slot = coshm__cache_slot_at(cache, i);
		struct coshm__cache_copy copy;
		uint64_t home;
		int found;

		if (!slot || !coshm__a64_load_relaxed(slot))
			continue;
		found = coshm__cache_copy_slot(cache, slot, 0, &copy);
		if (found == -ENOMEM)
			return found;
		if (found != 1)
			continue;
		home = coshm__cache_home(cache, coshm__cache_hash(cache, copy.key, copy.key_bytes));
		if (home != i / 8 && away[home] < UINT8_MAX)
			away[home]++;
		free(copy.key);
	}
	return 0;
}

static void verify_spills(struct coshm__handle *handle, struct coshm__findings *findings)
{
	const struct coshm__cache *cache = handle->local;
	struct timespec pause = {0, PAUSE_NS};
	uint64_t wrong = UINT64_MAX;

	for (int look = 0; look < LOOKS && wrong; look++) {
		uint8_t *away = calloc(cache->bucket_count, 1);

		if (!away || count_away(handle, away)) {
			free(away);
			findings->error = -ENOMEM;
			return;
		}
		wrong = 0;
		for (uint64_t b = 0; b < cache->bucket_count; b++)
			wrong +=
				(coshm__a64_load_relaxed(&cache->buckets[b].meta) & 0xff) < away[b];
		free(away);
		if (wrong && look + 1 < LOOKS)
			nanosleep(&pause, NULL);
	}
	if (wrong)
		coshm__finding(findings, COSHM_VERIFY_DAMAGE, "cache/index",
			       "%llu buckets count fewer keys elsewhere than there are",
			       (unsigned long long)wrong);
}

/* --- lists -------------------------------------------------------------------------------------------------- */

static struct answer list_walk(const struct coshm__cache *cache, uint64_t index)
{
	const struct coshm__cache_list_shm *list = &cache->lists[index];
	uint32_t first = (uint32_t)index * cache->list_nodes, newer = UINT32_MAX, count = 0, node;

	for (node = coshm__a32_load_relaxed(&list->newest); node != UINT32_MAX;
	     node = coshm__a32_load_relaxed(&cache->nodes[node].older)) {
		if (node < first || node - first >= cache->list_nodes)
			return damage("a node belongs to another list");
		if (++count > cache->list_nodes)
			return damage("goes round in a circle");
		if (coshm__a32_load_relaxed(&cache->nodes[node].newer) != newer)
			return damage("its neighbours disagree");
		newer = node;
	}
	if (coshm__a32_load_relaxed(&list->oldest) != newer ||
	    coshm__a32_load_relaxed(&list->count) != count)
		return damage("its end or its count is wrong");
	for (node = coshm__a32_load_relaxed(&list->free); node != UINT32_MAX;
	     node = coshm__a32_load_relaxed(&cache->nodes[node].newer)) {
		if (node < first || node - first >= cache->list_nodes)
			return damage("a free node belongs to another list");
		if (++count > cache->list_nodes)
			return damage("its free nodes go round in a circle");
	}
	return count == cache->list_nodes ? fine : damage("nodes are lost");
}

static struct answer about_list(struct coshm__handle *handle, uint64_t index)
{
	const struct coshm__cache *cache = handle->local;
	const struct coshm__cache_list_shm *list = &cache->lists[index];
	/* relaxed: looked at again at the end */
	uint64_t word = coshm__a64_load_relaxed(&list->lock.word);
	uint32_t owner = coshm__rlock_owner(&list->lock);
	struct answer answer;

	if (owner)
		return coshm__member_is_dead(handle->segment, owner)
			       ? pending("its holder died; the next one puts it back")
			       : fine;
	if (coshm__a32_load_relaxed(&list->journal_count) != 0)
		answer = damage("a transaction is open, but nobody holds the lock");
	else
		answer = list_walk(cache, index);
	/* A fence: all that was looked at, before the lock is looked at again. */
	coshm__acquire_fence();
	return coshm__a64_load_relaxed(&list->lock.word) == word ? answer : fine;
}

/* Count is a hint; off by more than the dead explain it is worth a note. */
static void verify_count(struct coshm__handle *handle, struct coshm__findings *findings)
{
	const struct coshm__cache *cache = handle->local;
	uint64_t said = coshm__cache_gauge(handle, COSHM__STAT_CACHE_entries), there = 0;

	for (uint64_t i = 0; i < cache->bucket_count * 8; i++) {
		const struct coshm__a64 *slot = coshm__cache_slot_at(cache, i);
		struct coshm__cache_copy copy;

		if (!slot || !coshm__a64_load_relaxed(slot) ||
		    coshm__cache_copy_slot(cache, slot, 0, &copy) != 1)
			continue;
		there += ((copy.word1 ^ coshm__a64_load_relaxed(&cache->shm->epoch)) & 0xffffff) ==
			 0;
		free(copy.key);
	}
	if (said != there)
		coshm__finding(findings, COSHM_VERIFY_NOTE, "cache/count",
			       "count says %llu, there are %llu", (unsigned long long)said,
			       (unsigned long long)there);
}

void coshm__cache_verify(struct coshm__handle *handle, struct coshm__findings *findings)
{
	const struct coshm__cache *cache = handle->local;

	ask_all(handle, findings, "cache/lanes", about_lane, cache->lane_total);
	ask_all(handle, findings, "cache/pages", about_page, cache->page_count);
	ask_all(handle, findings, "cache/index", about_slot, cache->bucket_count * 8);
	verify_spills(handle, findings);
	if (cache->policy == COSHM_CACHE_LRU)
		ask_all(handle, findings, "cache/lists", about_list, cache->lane_count);
	verify_count(handle, findings);
}
