/* SPDX-License-Identifier: MIT */
/* stats/table.h - the rows of counters.def, by type */
#ifndef COSHM__STATS_TABLE_H
#define COSHM__STATS_TABLE_H

#include <stdint.h>

/* SUM: a gauge that is kept by additions, like a counter, instead of being asked from the object. */
enum coshm__stat_source { COSHM__STAT_IS_COUNTER, COSHM__STAT_IS_GAUGE, COSHM__STAT_IS_SUM };

struct coshm__stat_row {
	const char *name;
	uint32_t source; /* coshm__stat_source */
	const char *unit;
	const char *doc;
};

/* The rows of an object type (0: the segment's own); *ret_count of them, 0 for an unknown type. */
const struct coshm__stat_row *coshm__stat_rows(uint32_t type, uint32_t *ret_count);

#endif
