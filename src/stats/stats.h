/* SPDX-License-Identifier: MIT */
/*
 * stats/stats.h - counters in shared memory
 *
 * stats/counters.def has a row per counter and gauge. Counters are striped by thread slot to keep writers off each other's lines;
 * stripes are added up by readers and never folded, so a death can not count anything twice.
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

#define COSHM__STAT_STRIPES  16
#define COSHM__STAT_ROWS_MAX 32 /* per type: one stripe is four lines */

struct coshm__counters_shm {
	struct coshm__a64 value[COSHM__STAT_STRIPES][COSHM__STAT_ROWS_MAX];
};

_Static_assert(COSHM__STAT_CACHE_COUNT <= COSHM__STAT_ROWS_MAX, "rows");
_Static_assert(COSHM__STAT_LIMITER_COUNT <= COSHM__STAT_ROWS_MAX, "rows");
_Static_assert(COSHM__STAT_QUEUE_COUNT <= COSHM__STAT_ROWS_MAX, "rows");

/* Adds to this thread's stripe. Gauge rows take additions of negative numbers (as two's complement), too. */
static inline void coshm__count(struct coshm__op *op, struct coshm__counters_shm *counters,
				uint32_t row, uint64_t add)
{
	uint64_t stripe = (uint64_t)(op->thread - op->segment->threads) % COSHM__STAT_STRIPES;

	/* relaxed: a statistic; it orders nothing */
	coshm__a64_fetch_add_relaxed(&counters->value[stripe][row], add);
}

uint64_t coshm__count_sum(const struct coshm__counters_shm *counters, uint32_t row);

#endif
