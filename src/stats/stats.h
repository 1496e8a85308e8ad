/* SPDX-License-Identifier: MIT */
/*
 * stats/stats.h - counters in shared memory
 *
 * stats/counters.def has a row per counter and gauge. Counters are striped by thread: the first slots, which are all that
 * most pools use, have a stripe of their own each, whose only writer is the slot's owner, so that counting takes
 * no locked instruction; the others share. Stripes are added up by readers and never folded, so a death can not count
 * anything twice.
 */
#ifndef COSHM__STATS_STATS_H
#define COSHM__STATS_STATS_H

#include "segment/object.h"

#include <coshm/stats.h>

/* Rows of one type in counters.def, numbered from 0: COSHM__STAT_CACHE_hits, ... , COSHM__STAT_CACHE_COUNT. */
enum coshm__stat_index_segment {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc) COSHM__STAT_SEGMENT_##name,
#define COSHM__STAT_CACHE(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc)
#include "stats/counters.def"
	COSHM__STAT_SEGMENT_COUNT
};
enum coshm__stat_index_cache {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc) COSHM__STAT_CACHE_##name,
#define COSHM__STAT_LIMITER(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc)
#include "stats/counters.def"
	COSHM__STAT_CACHE_COUNT
};
enum coshm__stat_index_limiter {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc) COSHM__STAT_LIMITER_##name,
#define COSHM__STAT_QUEUE(name, kind, unit, doc)
#include "stats/counters.def"
	COSHM__STAT_LIMITER_COUNT
};
enum coshm__stat_index_queue {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc) COSHM__STAT_QUEUE_##name,
#include "stats/counters.def"
	COSHM__STAT_QUEUE_COUNT
};

#define COSHM__STAT_STRIPES_OWN	   32
#define COSHM__STAT_STRIPES_SHARED 8
#define COSHM__STAT_STRIPES	   (COSHM__STAT_STRIPES_OWN + COSHM__STAT_STRIPES_SHARED)
#define COSHM__STAT_ROWS_MAX	   32 /* per type: one stripe is four lines */

struct coshm__counters_shm {
	struct coshm__a64 value[COSHM__STAT_STRIPES][COSHM__STAT_ROWS_MAX];
};

_Static_assert(COSHM__STAT_CACHE_COUNT <= COSHM__STAT_ROWS_MAX, "rows");
_Static_assert(COSHM__STAT_LIMITER_COUNT <= COSHM__STAT_ROWS_MAX, "rows");
_Static_assert(COSHM__STAT_QUEUE_COUNT <= COSHM__STAT_ROWS_MAX, "rows");

static inline uint32_t coshm__stat_stripe(const struct coshm__op *op)
{
	uint32_t slot = coshm__thread_number(op);

	return slot < COSHM__STAT_STRIPES_OWN
		       ? slot
		       : COSHM__STAT_STRIPES_OWN + slot % COSHM__STAT_STRIPES_SHARED;
}

/* Adds to this thread's stripe. Gauge rows take additions of negative numbers (as two's complement), too. */
static inline void coshm__count(struct coshm__op *op, struct coshm__counters_shm *counters,
				uint32_t row, uint64_t add)
{
	uint32_t stripe = coshm__stat_stripe(op);
	struct coshm__a64 *value = &counters->value[stripe][row];

	/* relaxed: a statistic; it orders nothing. One writer: the slot's owner, who got the former one's sum with [T1]. */
	if (coshm__likely(stripe < COSHM__STAT_STRIPES_OWN))
		coshm__a64_store_relaxed(value, coshm__a64_load_relaxed(value) + add);
	else
		coshm__a64_fetch_add_relaxed(value, add);
}

uint64_t coshm__count_sum(const struct coshm__counters_shm *counters, uint32_t row);

#endif
