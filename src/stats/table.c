/* SPDX-License-Identifier: MIT */
#include "stats/table.h"

#include <coshm/types.h>
#include <stddef.h>

#define ROW(name, kind, unit, doc) {#name, COSHM__STAT_IS_##kind, unit, doc},

static const struct coshm__stat_row segment_rows[] = {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc) ROW(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc)
#include "stats/counters.def"
};
static const struct coshm__stat_row cache_rows[] = {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc) ROW(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc)
#include "stats/counters.def"
};
static const struct coshm__stat_row limiter_rows[] = {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc) ROW(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc)
#include "stats/counters.def"
};
static const struct coshm__stat_row queue_rows[] = {
#define COSHM__STAT_SEGMENT(name, kind, unit, doc)
#define COSHM__STAT_CACHE(name, kind, unit, doc)
#define COSHM__STAT_LIMITER(name, kind, unit, doc)
#define COSHM__STAT_QUEUE(name, kind, unit, doc) ROW(name, kind, unit, doc)
#include "stats/counters.def"
};

#define COUNT_OF(rows) (uint32_t)(sizeof(rows) / sizeof((rows)[0]))

const struct coshm__stat_row *coshm__stat_rows(uint32_t type, uint32_t *ret_count)
{
	switch (type) {
	case 0:
		*ret_count = COUNT_OF(segment_rows);
		return segment_rows;
	case COSHM_OBJECT_CACHE:
		*ret_count = COUNT_OF(cache_rows);
		return cache_rows;
	case COSHM_OBJECT_LIMITER:
		*ret_count = COUNT_OF(limiter_rows);
		return limiter_rows;
	case COSHM_OBJECT_QUEUE:
		*ret_count = COUNT_OF(queue_rows);
		return queue_rows;
	}
	*ret_count = 0;
	return NULL;
}
