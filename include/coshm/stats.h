/* SPDX-License-Identifier: MIT */
/*
 * coshm/stats.h - counters of objects, as data
 *
 * Each counter has one row in one table of the library; from it come the words in shared memory, the names here, the
 * JSON, the Prometheus text and docs/counters.md.
 *
 * Promises      P1 A counter that was added stays added when the process that added it dies.
 *               P2 Reading takes no lock and works on a read-only attach.
 * Not promised  N1 A process killed between doing something and counting it leaves that one thing uncounted.
 */
#ifndef COSHM_STATS_H
#define COSHM_STATS_H

#include <coshm/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum coshm_stat_kind {
	COSHM_STAT_COUNTER = 0, /* only grows */
	COSHM_STAT_GAUGE = 1,	/* goes up and down */
};

struct coshm_stat {
	const char *object; /* name of the object; "" for the segment's own */
	const char *type;   /* "segment", "cache", "limiter", "queue" */
	const char *name;   /* "hits" */
	const char *unit;   /* "", "bytes" */
	const char *doc;    /* one line */
	uint32_t kind;	    /* coshm_stat_kind */
	uint32_t reserved;
	uint64_t value;
};

/*
 * coshm_stats_each - call back for each counter
 * @object    name of one object, or NULL for the segment and all objects
 * @each      gets a struct that is valid during the call; returning non-zero stops and is returned
 *
 * Safety    MT MP FORK (read-only attach too)
 * Returns   0; what @each returned; -ENOENT; -ENOMEM (of this process); -EBADF
 */
COSHM_CHECK_RESULT int coshm_stats_each(struct coshm_segment *segment, const char *object,
					int (*each)(void *context, const struct coshm_stat *stat),
					void *context);

/*
 * coshm_stats_value - one counter by name
 * Returns   0; -ENOENT (no such object or counter); -ENOMEM; -EBADF
 */
COSHM_CHECK_RESULT int coshm_stats_value(struct coshm_segment *segment, const char *object,
					 const char *name, uint64_t *ret_value);

/*
 * coshm_stats_json, coshm_stats_prometheus - all counters as text
 * @buffer      may be NULL if capacity_bytes is 0
 * @ret_size_bytes  length of the text without its final zero byte; the buffer must be larger than that
 *
 * Prometheus names are coshm_TYPE_NAME[_UNIT][_total] with labels segment and object.
 * Returns   0; -ENOBUFS: @ret_size_bytes says what is needed; -ENOENT; -ENOMEM; -EBADF
 */
COSHM_CHECK_RESULT int coshm_stats_json(struct coshm_segment *segment, const char *object,
					char *buffer, size_t capacity_bytes,
					size_t *ret_size_bytes);
COSHM_CHECK_RESULT int coshm_stats_prometheus(struct coshm_segment *segment, const char *object,
					      char *buffer, size_t capacity_bytes,
					      size_t *ret_size_bytes);

#ifdef __cplusplus
}
#endif
#endif
