/* SPDX-License-Identifier: MIT */
/* summary.h - what an object is set to and holds, on one line */
#ifndef SHMCTL_SUMMARY_H
#define SHMCTL_SUMMARY_H

#include <coshm/coshm.h>
#include <jansson.h>

struct summary {
	uint32_t type; /* coshm_object_type; 0: could not be read, nothing below is set */
	/* cache */
	struct coshm_cache_config cache;
	uint64_t items, hits, misses;
	/* limiter */
	struct coshm_limiter_config limiter;
	/* queue */
	struct coshm_queue_config queue;
	struct coshm_queue_depth depth;
};

struct summary_text {
	char text[128];
};

struct summary summary_of(struct coshm_segment *segment, const struct coshm_object_info *info);
struct summary_text summary_text(const struct summary *summary);
/* An object with all of it; {} if it could not be read. */
json_t *summary_json(const struct summary *summary);

const char *summary_policy_name(uint32_t policy);
const char *summary_backoff_name(uint32_t kind);
/* 0, or -EINVAL */
int summary_policy_parse(const char *name, uint32_t *ret_policy);

#endif
