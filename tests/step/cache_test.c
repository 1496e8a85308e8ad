/* SPDX-License-Identifier: MIT */
/* Each operation of a cache, killed at every instruction, under each policy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "modules/cache/cache.h"
#include "support/step.h"

enum {
	FILLERS_MAX = 400,
	FILLER_BYTES = 1000,
	LARGE_BYTES = 17500,
	VALUE_MAX = 40000,
	LARGER = 4300,
	SMALLER = 3000
};

enum op {
	SET_NEW,
	SET_OVER,
	SET_FULL, /* needs a page: something is evicted, moved or cleaned for it */
	SET_LARGE,
	SET_LARGE_OVER,
	SET_LARGE_FULL,
	SET_INDEX_FULL, /* a neighbour in the index goes for it */
	SET_AT_LIMIT,	/* lru: one entry goes for it */
	SET_EXPIRED,	/* over what has expired */
	SET_LAST_PAGE,	/* none: one page is free, and nothing is dead anywhere */
	ADD_NEW,
	ADD_REFUSED,
	REPLACE,
	DELETE,
	DELETE_LARGE,
	INCR_NEW,
	INCR,
	FLUSH,
	FLUSH_SWEEP, /* one in four million: empties the index of what is forgotten */
	GET,
	GET_OLDEST, /* lru: to the front */
	GET_LARGE,
	MGET,
	PIN,
	UNPIN,
	SCAN,
	OP_COUNT,
};

static const char *const op_names[OP_COUNT] = {
	"set_new",	  "set_over",	    "set_full",	    "set_large",   "set_large_over",
	"set_large_full", "set_index_full", "set_at_limit", "set_expired", "set_last_page",
	"add_new",	  "add_refused",    "replace",	    "delete",	   "delete_large",
	"incr_new",	  "incr",	    "flush",	    "flush_sweep", "get",
	"get_oldest",	  "get_large",	    "mget",	    "pin",	   "unpin",
	"scan",
};

static const char *const policy_names[] = {"s3fifo", "lru", "none"};

/* variant = lanes << 16 | policy << 8 | op; no lanes are one */
static uint32_t policy_of(const struct step_world *w)
{
	return w->row->variant >> 8 & 0xff;
}

static enum op op_of(const struct step_world *w)
{
	return (enum op)(w->row->variant & 0xff);
}

struct notes {
	uint32_t fillers; /* keys 0 .. are there before */
	uint32_t may_go;  /* and may be evicted by the operation */
	/* by who overtook: "k" was deleted, then it was set once more; so many of the last keys were */
	int deleted, again, last;
};

/* --- values -------------------------------------------------------------------------------------------------- */

enum kind {
	ABSENT,
	OLD,
	NEW,
	BOTH, /* a number: what the actor and a rival have added */
};

static unsigned char buffer[VALUE_MAX];

static void fill(const char *key, enum kind kind, size_t size)
{
	unsigned int seed = (unsigned int)kind * 77;

	for (; *key; key++)
		seed = seed * 31 + (unsigned char)*key;
	for (size_t i = 0; i < size; i++)
		buffer[i] = (unsigned char)(seed + i * 7 + (i >> 8));
}

static int is_filled(const char *key, enum kind kind, size_t size)
{
	unsigned int seed = (unsigned int)kind * 77;

	for (; *key; key++)
		seed = seed * 31 + (unsigned char)*key;
	for (size_t i = 0; i < size; i++)
		if (buffer[i] != (unsigned char)(seed + i * 7 + (i >> 8)))
			return 0;
	return 1;
}

static size_t size_of(const struct step_world *w, enum kind kind)
{
	switch (op_of(w)) {
	case SET_LARGE:
	case SET_LARGE_FULL:
	case DELETE_LARGE:
	case GET_LARGE:
		return LARGE_BYTES;
	case SET_LARGE_OVER:
		return kind == NEW ? LARGE_BYTES : LARGE_BYTES - 600;
	case SET_FULL:
		return FILLER_BYTES;
	case SET_LAST_PAGE:
		return SMALLER;
	default:
		return kind == NEW ? 300 : 200;
	}
}

static int is_number(const struct step_world *w)
{
	return op_of(w) == INCR || op_of(w) == INCR_NEW;
}

/* *ret_kind: what "k" is now. Anything but one whole value of two is wrong. */
static int look_at_k(struct step_world *w, enum kind *ret_kind)
{
	size_t size = sizeof(buffer);
	int found = coshm_cache_peek(w->cache, "k", 1, buffer, &size, NULL);

	STEP_NEED(found == 0 || found == 1);
	*ret_kind = ABSENT;
	if (!found)
		return 0;
	if (is_number(w)) {
		/* 41 before, the actor adds 1, and a rival 40. */
		STEP_NEED(size == 2 && (buffer[0] == '4' ||
					(buffer[0] == '8' && w->overtaken >= STEP_RIVALLED)));
		STEP_NEED(buffer[1] == '1' || buffer[1] == '2');
		*ret_kind = buffer[1] == '1' ? OLD : buffer[0] == '4' ? NEW : BOTH;
		return 0;
	}
	*ret_kind = size == size_of(w, NEW) && is_filled("k", NEW, size) ? NEW : OLD;
	STEP_NEED(*ret_kind == NEW || (size == size_of(w, OLD) && is_filled("k", OLD, size)));
	return 0;
}

/* What lies among the items of a full cache. */
enum filler { PLAIN, A_NUMBER, EXPIRES, A_LARGE };

static enum filler filler_of(const struct step_world *w, uint32_t i)
{
	if (op_of(w) != SET_FULL && op_of(w) != SET_LARGE_FULL)
		return PLAIN;
	if (i % 7 == 3)
		return A_NUMBER;
	if (policy_of(w) == COSHM_CACHE_NONE)
		return PLAIN;
	return i % 11 == 5 ? EXPIRES : i % 40 == 9 ? A_LARGE : PLAIN;
}

static void filler_name(char name[16], uint32_t i)
{
	snprintf(name, 16, "f%u", i);
}

static int set_filler(struct step_world *w, uint32_t i, size_t size)
{
	enum filler filler = filler_of(w, i);
	int64_t number = 0;
	char name[16];

	filler_name(name, i);
	if (filler == A_NUMBER) {
		int error = coshm_cache_incr(w->cache, name, strlen(name), 0, 1000 + i, 0, &number);

		return error ? error : number == 1000 + i ? 0 : -EDOM;
	}
	if (filler == A_LARGE)
		size = LARGE_BYTES;
	fill(name, OLD, size);
	return coshm_cache_set(w->cache, name, strlen(name), buffer, size,
			       filler == EXPIRES ? 1000000 : 0);
}

static int filler_is_whole(const struct step_world *w, uint32_t i, size_t size)
{
	char name[16], text[24];

	if (filler_of(w, i) == A_NUMBER)
		return (int)size == snprintf(text, sizeof(text), "%u", 1000 + i) &&
		       memcmp(buffer, text, size) == 0;
	filler_name(name, i);
	return is_filled(name, OLD, size);
}

/* *ret_there: how many of them. None may be torn. */
static int look_at_fillers(struct step_world *w, uint32_t *ret_there)
{
	const struct notes *notes = w->notes;

	*ret_there = 0;
	for (uint32_t i = 0; i < notes->fillers; i++) {
		size_t size = sizeof(buffer);
		char name[16];
		int found;

		filler_name(name, i);
		found = coshm_cache_peek(w->cache, name, strlen(name), buffer, &size, NULL);
		STEP_NEED(found == 0 || (found == 1 && filler_is_whole(w, i, size)));
		*ret_there += (uint32_t)found;
	}
	return 0;
}

/* --- before -------------------------------------------------------------------------------------------------- */

static int had_k(enum op op)
{
	return op != SET_NEW && op != SET_LARGE && op != SET_LARGE_FULL && op != SET_INDEX_FULL &&
	       op != SET_AT_LIMIT && op != ADD_NEW && op != INCR_NEW && op != SET_EXPIRED;
}

/* Bytes left in the open page that items of the class go to. */
static uint64_t room_left(struct step_world *w, uint32_t item_class)
{
	struct coshm__cache *cache;
	struct coshm__op op;
	uint64_t open;

	if (coshm__op_begin(&op, w->cache, COSHM_OBJECT_CACHE))
		return 0;
	cache = op.handle->local;
	open = coshm__a64_load_relaxed(&cache->lanes[0].open[item_class]);
	coshm__op_end(&op);
	return open ? cache->page_bytes - (open & 0xffffffffff) : 0;
}

static uint64_t evictions(struct step_world *w)
{
	uint64_t evicted = 0, cleaned = 0;

	if (coshm_stats_value(w->segment, "c", "pages_evicted", &evicted) ||
	    coshm_stats_value(w->segment, "c", "pages_cleaned", &cleaned))
		return UINT64_MAX;
	return evicted + cleaned;
}

/* Until each page taken costs another one, and the next item of "k"'s class takes one. */
static int fill_up(struct step_world *w)
{
	struct notes *notes = w->notes;
	uint32_t item_class = policy_of(w) == COSHM_CACHE_S3FIFO && !had_k(op_of(w)) ? 0 : 1;
	uint32_t keys = policy_of(w) == COSHM_CACHE_NONE ? 20 : FILLERS_MAX;
	uint32_t i = 0;

	/* s3fifo: the replaced item keeps its class, which is SMALL for one that was never read */
	if (policy_of(w) == COSHM_CACHE_S3FIFO)
		item_class = 0;
	for (; i < 4000 && (evictions(w) < 3 || room_left(w, item_class) > FILLER_BYTES); i++) {
		size_t size = sizeof(buffer);

		STEP_NEED(set_filler(w, i % keys, FILLER_BYTES) == 0);
		/* Some are in use, and so moved when their page goes. */
		if (i % 3 == 0) {
			char name[16];

			filler_name(name, i % keys);
			STEP_NEED(coshm_cache_get(w->cache, name, strlen(name), buffer, &size,
						  NULL) >= 0);
		}
		if (had_k(op_of(w)) && i % 5 == 0) {
			fill("k", OLD, size_of(w, OLD));
			STEP_NEED(coshm_cache_set(w->cache, "k", 1, buffer, size_of(w, OLD), 0) ==
				  0);
		}
	}
	STEP_NEED(i < 4000);
	notes->fillers = i < keys ? i : keys;
	notes->may_go = policy_of(w) != COSHM_CACHE_NONE;
	return 0;
}

/*
 * Two values to a page of 8 KiB, and too little room behind them for another one. What is kept back for replacing, but for
 * the last page, goes to some that were small.
 */
static int fill_to_the_last_page(struct step_world *w)
{
	enum { SMALL_ONES = 10 };
	struct notes *notes = w->notes;
	uint64_t free_pages = 0;
	int error = 0;

	for (uint32_t i = 0; i < FILLERS_MAX && !error; i++) {
		error = set_filler(w, i, i < SMALL_ONES ? 50 : i % 2 ? SMALLER : LARGER);
		notes->fillers = i;
	}
	STEP_NEED(error == -ENOSPC);
	for (uint32_t i = 0; i < SMALL_ONES; i++) {
		STEP_NEED(coshm_stats_value(w->segment, "c", "pages_free", &free_pages) == 0);
		if (free_pages == 1 && room_left(w, COSHM__CACHE_MAIN) < SMALLER)
			return 0;
		STEP_NEED(set_filler(w, i, i % 2 ? SMALLER : LARGER) == 0);
	}
	STEP_NEED(!"the last page");
	return 0;
}

/* More keys than the index has slots. */
static int fill_index(struct step_world *w)
{
	struct notes *notes = w->notes;
	uint64_t evicted = 0;

	for (; notes->fillers < FILLERS_MAX; notes->fillers++)
		STEP_NEED(set_filler(w, notes->fillers, 20) == 0);
	STEP_NEED(
		coshm_stats_value(w->segment, "c",
				  policy_of(w) == COSHM_CACHE_LRU ? "evicted_lru" : "evicted_index",
				  &evicted) == 0);
	STEP_NEED(evicted > 100);
	notes->may_go = 1;
	return 0;
}

/* The next flush is one that sweeps, and there is something for it to sweep. */
static int age_epoch(struct step_world *w)
{
	struct coshm__cache *cache;
	struct coshm__op op;

	STEP_NEED(coshm__op_begin(&op, w->cache, COSHM_OBJECT_CACHE) == 0);
	cache = op.handle->local;
	coshm__a64_store_relaxed(&cache->shm->epoch, (UINT64_C(1) << 22) - 1);
	coshm__op_end(&op);
	for (uint32_t i = 0; i < 4; i++)
		STEP_NEED(set_filler(w, 300 + i, 50) == 0);
	STEP_NEED(coshm_cache_flush(w->cache) == 0);
	return 0;
}

static int prepare_k(struct step_world *w)
{
	enum op op = op_of(w);
	int64_t value;

	if (op == SET_EXPIRED) {
		fill("k", OLD, size_of(w, OLD));
		STEP_NEED(coshm_cache_set(w->cache, "k", 1, buffer, size_of(w, OLD), 1000000) == 0);
		while (coshm_cache_exists(w->cache, "k", 1) == 1)
			;
		return 0;
	}
	if (op == INCR) {
		STEP_NEED(coshm_cache_incr(w->cache, "k", 1, 40, 1, 0, &value) == 0);
		return 0;
	}
	if (!had_k(op))
		return 0;
	fill("k", OLD, size_of(w, OLD));
	STEP_NEED(coshm_cache_set(w->cache, "k", 1, buffer, size_of(w, OLD), 0) == 0);
	return 0;
}

static int prepare(struct step_world *w)
{
	uint32_t lanes = w->row->variant >> 16;
	struct coshm_cache_config config = {.size_bytes = 256 << 10,
					    .policy = policy_of(w),
					    .lanes = lanes ? lanes : 1,
					    .average_item_bytes = 1000};
	struct notes *notes = w->notes;
	enum op op = op_of(w);

	if (op == SET_AT_LIMIT || op == GET_OLDEST)
		config.max_entries = 8;
	if (op == SET_INDEX_FULL)
		config.average_item_bytes = 1 << 20;
	if (step_make(w, 0))
		return -1;
	STEP_NEED(coshm_cache_create(w->segment, "c", &config, 0, &w->cache) == 0);
	if (op == FLUSH_SWEEP && age_epoch(w))
		return -1;
	if (prepare_k(w))
		return -1;
	if (op == SET_FULL || op == SET_LARGE_FULL)
		return fill_up(w);
	if (op == SET_INDEX_FULL)
		return fill_index(w);
	if (op == SET_LAST_PAGE)
		return fill_to_the_last_page(w);
	notes->fillers = op == SET_AT_LIMIT ? 8 : 7;
	notes->may_go = op == SET_AT_LIMIT;
	for (uint32_t i = 0; i < notes->fillers; i++)
		STEP_NEED(set_filler(w, i, 50 + i) == 0);
	return 0;
}

/* --- the operation ------------------------------------------------------------------------------------------- */

static struct coshm_cache_view view;

static int ready(struct step_world *w)
{
	if (op_of(w) == UNPIN)
		STEP_NEED(coshm_cache_pin(w->cache, "k", 1, &view) == 1);
	fill("k", NEW, size_of(w, NEW));
	return 0;
}

/* The value that was read: the one from before, unless others set one. */
static int is_read_whole(struct step_world *w, const void *bytes, size_t size)
{
	STEP_NEED(size == size_of(w, OLD));
	memcpy(buffer, bytes, size);
	STEP_NEED(is_filled("k", OLD, size));
	return 1;
}

struct scanned {
	struct step_world *world;
	uint32_t fillers, k;
};

static int see_item(void *context, const void *key, size_t key_size, const void *value,
		    const struct coshm_cache_item *item)
{
	struct scanned *scanned = context;

	if (key_size == 1 && *(const char *)key == 'k') {
		scanned->k++;
		return is_read_whole(scanned->world, value, item->value_size_bytes) == 1 ? 0
											 : -EDOM;
	}
	scanned->fillers += *(const char *)key == 'f';
	return 0;
}

/* What was there all the while is seen. */
static int scan(struct step_world *w)
{
	const struct notes *notes = w->notes;
	struct scanned scanned = {.world = w};
	uint64_t cursor = 0;
	int error =
		coshm_cache_scan(w->cache, &cursor, 0, COSHM_CACHE_SCAN_VALUES, see_item, &scanned);

	STEP_NEED(error == 0);
	STEP_NEED(scanned.fillers >= notes->fillers || notes->may_go);
	STEP_NEED(scanned.k >= 1 || w->overtaken >= STEP_OVERTAKEN);
	return 0;
}

static int call(struct step_world *w)
{
	static unsigned char out[VALUE_MAX];
	size_t size = size_of(w, NEW), out_size = sizeof(out);
	struct coshm_cache_request requests[] = {
		{"k", 1, out, 1000, 0, 0, 0},
		{"none", 4, NULL, 0, 0, 0, 0},
		{"f0", 2, out + 1000, 1000, 0, 0, 0},
	};
	int64_t number = 0;
	int result;

	switch (op_of(w)) {
	case ADD_NEW:
	case ADD_REFUSED:
		return coshm_cache_add(w->cache, "k", 1, buffer, size, 0);
	case REPLACE:
		return coshm_cache_replace(w->cache, "k", 1, buffer, size, 0);
	case DELETE:
	case DELETE_LARGE:
		return coshm_cache_delete(w->cache, "k", 1);
	case INCR_NEW:
	case INCR:
		result = coshm_cache_incr(w->cache, "k", 1, 1, 41, 0, &number);
		return result ? result : (int)number;
	case FLUSH:
	case FLUSH_SWEEP:
		return coshm_cache_flush(w->cache);
	case GET:
	case GET_OLDEST:
	case GET_LARGE:
		result = coshm_cache_get(w->cache, "k", 1, out, &out_size, NULL);
		return result == 1 ? is_read_whole(w, out, out_size) : result;
	case MGET:
		return coshm_cache_mget(w->cache, requests, 3);
	case PIN:
		return coshm_cache_pin(w->cache, "k", 1, &view);
	case UNPIN:
		return coshm_cache_unpin(w->cache, &view);
	case SCAN:
		return scan(w);
	default:
		return coshm_cache_set(w->cache, "k", 1, buffer, size, 0);
	}
}

/* What the call gives when nobody else is there. */
static int due(enum op op)
{
	switch (op) {
	case ADD_NEW:
	case REPLACE:
	case DELETE:
	case DELETE_LARGE:
	case GET:
	case GET_OLDEST:
	case GET_LARGE:
	case PIN:
		return 1;
	case MGET:
		return 2;
	case INCR:
	case INCR_NEW:
		return 42;
	default:
		return 0;
	}
}

static int act(struct step_world *w)
{
	int result;

	/* What is pinned keeps its bytes, whatever others did. */
	if (op_of(w) == UNPIN && is_read_whole(w, view.data, view.size_bytes) < 0)
		return -1;
	result = call(w);
	if (op_of(w) == PIN && result == 1 && is_read_whole(w, view.data, view.size_bytes) < 0)
		return -1;
	return step_result(w, result, due(op_of(w)));
}

/* --- what others see ----------------------------------------------------------------------------------------- */

static int outcome_of(struct step_world *w, enum kind k, uint32_t there)
{
	const struct notes *notes = w->notes;
	enum kind before = had_k(op_of(w)) ? OLD : ABSENT;

	switch (op_of(w)) {
	case DELETE:
	case DELETE_LARGE:
		STEP_NEED(k != NEW && there == notes->fillers);
		return k == OLD ? STEP_BEFORE : STEP_AFTER;
	case FLUSH:
	case FLUSH_SWEEP:
		STEP_NEED(k != NEW && there == (k == OLD ? notes->fillers : 0));
		return k == OLD ? STEP_BEFORE : STEP_AFTER;
	case GET:
	case GET_LARGE:
	case GET_OLDEST:
	case MGET:
	case ADD_REFUSED:
	case PIN:
	case UNPIN:
	case SCAN:
		STEP_NEED(k == OLD && there == notes->fillers);
		return STEP_EITHER;
	case SET_AT_LIMIT:
		STEP_NEED(there >= notes->fillers - 1);
		break;
	default:
		STEP_NEED(notes->may_go || there == notes->fillers);
		break;
	}
	/* What it replaces may go first, where something has to. */
	STEP_NEED(k == NEW || k == before || (notes->may_go && k == ABSENT));
	return k == NEW ? STEP_AFTER : STEP_BEFORE;
}

static int read_raw(struct step_world *w)
{
	uint32_t there;
	enum kind k;

	if (look_at_k(w, &k) || look_at_fillers(w, &there))
		return -1;
	/* A rival may have been at them; when both have returned, resumed counts. */
	if (w->overtaken >= STEP_RIVALLED)
		return STEP_EITHER;
	return outcome_of(w, k, there);
}

/* One for the actor, one for a second dead. */
static int check_count(struct step_world *w, enum kind k, uint32_t there)
{
	uint64_t count = 0, actual = there + (k != ABSENT);

	for (int i = 0; i < 12; i++) {
		char name[16];

		snprintf(name, sizeof(name), "p%d", i);
		actual += coshm_cache_exists(w->cache, name, strlen(name)) == 1;
	}
	STEP_NEED(coshm_cache_count(w->cache, &count) == 0);
	/* Expired ones count until they are reclaimed. */
	STEP_NEED(count + 2 >= actual);
	STEP_NEED(op_of(w) == SET_FULL || op_of(w) == SET_LARGE_FULL ||
		  count <= actual + 2 + (op_of(w) == SET_EXPIRED));
	return 0;
}

/* Exact LRU: the one that goes next tells whether "k" was read. */
static int check_order(struct step_world *w)
{
	int k, first;

	STEP_NEED(coshm_cache_set(w->cache, "x", 1, "x", 1, 0) == 0);
	k = coshm_cache_exists(w->cache, "k", 1);
	first = coshm_cache_exists(w->cache, "f0", 2);
	STEP_NEED(k + first == 1);
	for (uint32_t i = 1; i < 7; i++) {
		char name[16];

		filler_name(name, i);
		STEP_NEED(coshm_cache_exists(w->cache, name, strlen(name)) == 1);
	}
	return k ? STEP_AFTER : STEP_BEFORE;
}

static int check(struct step_world *w)
{
	uint32_t there;
	enum kind k;
	int outcome;

	if (look_at_k(w, &k) || look_at_fillers(w, &there))
		return -1;
	outcome = outcome_of(w, k, there);
	if (outcome < 0 || check_count(w, k, there))
		return -1;
	return op_of(w) == GET_OLDEST ? check_order(w) : outcome;
}

/* Inserts under each of the eight stripes, and everything that takes a lane or the list. */
static int pass(struct step_world *w)
{
	int64_t number;
	int error;

	if (op_of(w) == SET_LAST_PAGE) {
		for (uint32_t i = 0; i < 4; i++) {
			error = set_filler(w, i, i % 2 ? SMALLER : LARGER);
			STEP_NEED(step_went(w, error));
		}
		return 0;
	}
	for (int i = 0; i < 12; i++) {
		char name[16];

		snprintf(name, sizeof(name), "p%d", i);
		error = coshm_cache_set(w->cache, name, strlen(name), name, 16, 0);
		STEP_NEED(step_went(w, error));
	}
	STEP_NEED(coshm_cache_delete(w->cache, "p3", 2) >= 0);
	error = coshm_cache_incr(w->cache, "p4n", 3, 1, 0, 0, &number);
	STEP_NEED(step_went(w, error) || (error == -ENOSPC && op_of(w) == SET_INDEX_FULL));
	STEP_NEED(coshm_cache_delete(w->cache, "p4n", 3) >= 0);
	return 0;
}

static int store_and_see(struct step_world *w, const char *key, size_t size)
{
	size_t got = sizeof(buffer);

	fill(key, NEW, size);
	STEP_NEED(coshm_cache_set(w->cache, key, strlen(key), buffer, size, 0) == 0);
	memset(buffer, 0, size);
	STEP_NEED(coshm_cache_get(w->cache, key, strlen(key), buffer, &got, NULL) == 1);
	STEP_NEED(got == size && is_filled(key, NEW, size));
	return 0;
}

/* Nothing was used up: each value can be replaced. */
static int use_last_page(struct step_world *w)
{
	const struct notes *notes = w->notes;

	for (uint32_t i = 0; i < notes->fillers; i++) {
		size_t size = sizeof(buffer);
		char name[16];

		filler_name(name, i);
		STEP_NEED(coshm_cache_peek(w->cache, name, strlen(name), buffer, &size, NULL) == 1);
		if (store_and_see(w, name, size))
			return -1;
	}
	return store_and_see(w, "k", SMALLER);
}

static int use(struct step_world *w)
{
	int64_t number = 0;
	int error;

	if (op_of(w) == SET_LAST_PAGE)
		return use_last_page(w);
	if (store_and_see(w, "k", 300) || store_and_see(w, "k", 300))
		return -1;
	STEP_NEED(coshm_cache_delete(w->cache, "k", 1) == 1);
	STEP_NEED(coshm_cache_add(w->cache, "k", 1, "v", 1, 0) == 1);
	STEP_NEED(coshm_cache_delete(w->cache, "k", 1) == 1);
	error = coshm_cache_incr(w->cache, "k", 1, 1, 1, 0, &number);
	STEP_NEED((error == 0 && number == 2) || (error == -ENOSPC && op_of(w) == SET_INDEX_FULL));
	STEP_NEED(coshm_cache_flush(w->cache) == 0);
	/* An eighth of the cache fits whatever happened, P5; two of them need what the dead may have kept. */
	if (store_and_see(w, "large", 30000) || store_and_see(w, "huge", 30000))
		return -1;
	if (w->round % 4)
		return 0;
	/* Every page once round. */
	for (int i = 0; i < 260; i++) {
		char name[16];

		snprintf(name, sizeof(name), "u%d", i);
		fill(name, NEW, FILLER_BYTES);
		error = coshm_cache_set(w->cache, name, strlen(name), buffer, FILLER_BYTES, 0);
		STEP_NEED(error == 0 ||
			  (error == -ENOSPC && policy_of(w) == COSHM_CACHE_NONE && i > 60));
	}
	return 0;
}

/* --- overtaken ----------------------------------------------------------------------------------------------- */

enum { LAST_KEYS = 6, LAST_BYTES = 40 };

static int set_k(struct step_world *w)
{
	size_t size = size_of(w, OLD);
	int64_t number;

	if (is_number(w))
		return coshm_cache_incr(w->cache, "k", 1, 40, 1, 0, &number);
	fill("k", OLD, size);
	return coshm_cache_set(w->cache, "k", 1, buffer, size, 0);
}

/* Once round all pages, so that those that were open or read when the actor stood still have another life. */
static int churn(struct step_world *w)
{
	uint32_t keys = policy_of(w) == COSHM_CACHE_NONE ? 20 : FILLERS_MAX;
	int error;

	for (uint32_t i = 0; i < FILLERS_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "y%u", i % keys);
		fill(name, NEW, FILLER_BYTES);
		error = coshm_cache_set(w->cache, name, strlen(name), buffer, FILLER_BYTES, 0);
		STEP_NEED(step_went(w, error) ||
			  (error == -ENOSPC && policy_of(w) == COSHM_CACHE_NONE));
	}
	return 0;
}

/* "k" once more, and some that are the last ones and so must not go for the actor's. */
static int overtake(struct step_world *w)
{
	struct notes *notes = w->notes;
	int error;

	if (w->round % 4 != 3) {
		/* Others than in "k" are not told from what was there before. */
		notes->may_go = 1;
		if (churn(w))
			return -1;
	}
	if (w->round % 2 || is_number(w)) {
		notes->deleted = coshm_cache_delete(w->cache, "k", 1);
		STEP_NEED(notes->deleted >= 0 || notes->deleted == -EAGAIN);
	}
	error = set_k(w);
	STEP_NEED(step_went(w, error) || (error == -ENOSPC && policy_of(w) == COSHM_CACHE_NONE) ||
		  (error == -EBADMSG && is_number(w)));
	notes->again = error == 0;
	for (int i = 0; i < LAST_KEYS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "z%d", i);
		fill(name, NEW, LAST_BYTES);
		error = coshm_cache_set(w->cache, name, strlen(name), buffer, LAST_BYTES, 0);
		STEP_NEED(step_went(w, error) ||
			  (error == -ENOSPC && policy_of(w) == COSHM_CACHE_NONE));
		if (error == 0)
			notes->last |= 1 << i;
	}
	return 0;
}

static int rival_set(struct step_world *w)
{
	int error = set_k(w);

	STEP_NEED(step_went(w, error));
	return step_result(w, error, 0);
}

static int rival_delete(struct step_world *w)
{
	int result = coshm_cache_delete(w->cache, "k", 1);

	STEP_NEED(result == 0 || result == 1 || result == -EAGAIN);
	return step_result(w, result, 1);
}

static int rival_reap(struct step_world *w)
{
	return step_result(w, coshm_segment_reap(w->segment, NULL), 0);
}

static const struct step_rival rivals[] = {{"set", rival_set, 0},
					   {"delete", rival_delete, 0},
					   {"reap", rival_reap, 0},
					   {NULL, NULL, 0}};

/* It was told that it is stored, behind everything else: it is there, unless a flush came last. */
static int check_last(struct step_world *w)
{
	const struct notes *notes = w->notes;
	int there = 0;

	for (int i = 0; i < LAST_KEYS; i++) {
		size_t size = sizeof(buffer);
		char name[16];
		int found;

		if (!(notes->last & 1 << i))
			continue;
		snprintf(name, sizeof(name), "z%d", i);
		found = coshm_cache_peek(w->cache, name, strlen(name), buffer, &size, NULL);
		STEP_NEED(found == 0 ||
			  (found == 1 && size == LAST_BYTES && is_filled(name, NEW, LAST_BYTES)));
		there |= found << i;
	}
	if (op_of(w) == FLUSH || op_of(w) == FLUSH_SWEEP)
		STEP_NEED(there == notes->last || there == 0);
	else
		STEP_NEED(there == notes->last);
	return 0;
}

static int writes_k(enum op op)
{
	return op <= REPLACE && op != ADD_REFUSED;
}

/* "k" beside who has deleted it, or has set it to what it was. */
static int resumed_overtaken(struct step_world *w, enum kind k)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor;
	enum op op = op_of(w);

	if (check_last(w))
		return -1;
	if (!notes->again)
		return 0;
	/* What others stored behind the actor's own store is not undone by what it does later. */
	if (w->seen == STEP_AFTER || !(writes_k(op) || is_number(w) || op == DELETE ||
				       op == DELETE_LARGE || op == FLUSH || op == FLUSH_SWEEP)) {
		STEP_NEED(k == OLD);
		return 0;
	}
	if (op == DELETE || op == DELETE_LARGE) {
		STEP_NEED(result == -EAGAIN || notes->deleted != 1 ||
			  (result == 1) == (k == ABSENT));
		return 0;
	}
	/* No place was ever without it but between the two calls, after which it was set. */
	if (op == ADD_NEW)
		STEP_NEED(k == OLD);
	if (writes_k(op) || is_number(w))
		STEP_NEED(k == OLD || k == NEW);
	return 0;
}

static int resumed_rivalled(struct step_world *w, enum kind k)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor, rival = w->results->rival;
	enum op op = op_of(w);
	int by_set = w->rival->act == rival_set, by_delete = w->rival->act == rival_delete;

	if (w->overtaken != STEP_RIVALLED || notes->may_go)
		return 0;
	if (is_number(w)) {
		/* Of two additions none is lost; the first one to a number that is absent makes it, which is worth none. */
		STEP_NEED(!by_set || rival != 0 || result <= 0 || k == BOTH ||
			  (op == INCR_NEW && k == NEW));
		return 0;
	}
	/* Each of the two has replaced what was there before. */
	if (by_delete && (op == DELETE || op == DELETE_LARGE) && result >= 0 && rival >= 0)
		STEP_NEED(result + rival == 1 && k == ABSENT);
	if (by_delete && rival == 1 && writes_k(op) && op != REPLACE && result >= 0)
		STEP_NEED(k != OLD);
	if (by_set && rival == 0 && writes_k(op))
		STEP_NEED(k != ABSENT);
	return 0;
}

static int resumed(struct step_world *w)
{
	int result = w->results->actor;
	uint32_t there;
	enum kind k;

	if (w->overtaken == STEP_PASSED)
		return check(w);
	STEP_NEED(result >= 0 || result == -EAGAIN || result == -EBADMSG ||
		  (result == -ENOSPC && policy_of(w) == COSHM_CACHE_NONE));
	if (look_at_k(w, &k) || look_at_fillers(w, &there))
		return -1;
	if (w->overtaken == STEP_OVERTAKEN ? resumed_overtaken(w, k) : resumed_rivalled(w, k))
		return -1;
	return STEP_EITHER;
}

/* --- rows ---------------------------------------------------------------------------------------------------- */

/* Who came by would push out what the row is about. */
static int is_exact(enum op op)
{
	return op == SET_AT_LIMIT || op == GET_OLDEST || op == SET_INDEX_FULL;
}

/* Much the same under each policy, or very long. */
static int is_left_out(enum op op, uint32_t policy)
{
	if (op == SET_LARGE_FULL || op == SCAN)
		return 1;
	return policy == COSHM_CACHE_NONE && op != SET_NEW && op != SET_OVER && op != SET_FULL &&
	       op != SET_LAST_PAGE && op != SET_LARGE_OVER && op != DELETE && op != INCR &&
	       op != FLUSH;
}

static int is_for(enum op op, uint32_t policy)
{
	if (op == SET_AT_LIMIT || op == GET_OLDEST)
		return policy == COSHM_CACHE_LRU;
	if (op == SET_LAST_PAGE)
		return policy == COSHM_CACHE_NONE;
	return !((op == SET_LARGE_FULL || op == SET_INDEX_FULL) && policy == COSHM_CACHE_NONE);
}

/* Beside the usual ones: with several lanes. */
static const struct {
	enum op op;
	uint32_t policy;
	const char *name;
} with_lanes[] = {
	{SET_NEW, COSHM_CACHE_S3FIFO, "cache_set_new_s3fifo_lanes"},
	{SET_LARGE, COSHM_CACHE_S3FIFO, "cache_set_large_s3fifo_lanes"},
	{SET_OVER, COSHM_CACHE_LRU, "cache_set_over_lru_lanes"},
	{DELETE, COSHM_CACHE_LRU, "cache_delete_lru_lanes"},
};

#define WITH_LANES (sizeof(with_lanes) / sizeof(with_lanes[0]))

static struct step_row row_of(const char *name, uint32_t variant)
{
	int exact = is_exact((enum op)(variant & 0xff));

	return (struct step_row){.name = name,
				 .objects = STEP_CACHE,
				 .variant = variant,
				 .prepare = prepare,
				 .ready = ready,
				 .act = act,
				 .read = read_raw,
				 .pass = exact ? NULL : pass,
				 .check = check,
				 .use = use,
				 .overtake = exact ? NULL : overtake,
				 .rivals = exact ? NULL : rivals,
				 .resumed = resumed};
}

int main(void)
{
	static struct step_row rows[3 * OP_COUNT + WITH_LANES];
	static char names[3 * OP_COUNT][64];
	size_t count = 0;

	for (uint32_t policy = 0; policy < 3; policy++)
		for (uint32_t op = 0; op < OP_COUNT; op++) {
			int again = op != INCR && op != INCR_NEW && !is_exact((enum op)op);
			int control = op == SET_OVER || op == GET_OLDEST;
			int never = op == GET || op == GET_LARGE || op == MGET ||
				    op == ADD_REFUSED || op == PIN || op == UNPIN || op == SCAN;
			int overtaken_too = (op == SET_OVER && policy == COSHM_CACHE_S3FIFO) ||
					    (op == DELETE && policy == COSHM_CACHE_LRU);

			if (!is_for((enum op)op, policy))
				continue;
			snprintf(names[count], sizeof(names[count]), "cache_%s_%s", op_names[op],
				 policy_names[policy]);
			rows[count] = row_of(names[count], policy << 8 | op);
			rows[count].flags =
				(never ? STEP_UNSEEN : 0u) | (control ? STEP_CONTROL : 0u) |
				(again ? STEP_AGAIN : 0u) | (op == PIN ? STEP_KEEPS : 0u) |
				(overtaken_too ? STEP_OVERTAKE_TOO : 0u) |
				(is_left_out((enum op)op, policy) ? STEP_DEEP_ONLY : 0u);
			count++;
		}
	for (size_t i = 0; i < WITH_LANES; i++, count++) {
		rows[count] =
			row_of(with_lanes[i].name,
			       UINT32_C(4) << 16 | with_lanes[i].policy << 8 | with_lanes[i].op);
		rows[count].flags = STEP_AGAIN | STEP_DEEP_ONLY;
	}
	return step_run("step: cache", rows, count);
}
