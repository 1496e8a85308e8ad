/* SPDX-License-Identifier: MIT */
/* limiter/limiter.h - the process's side of a limiter, and what the files of this folder offer each other */
#ifndef COSHM__LIMITER_LIMITER_H
#define COSHM__LIMITER_LIMITER_H

#include "modules/limiter/config.h"
#include "modules/limiter/gcra.h"
#include "modules/limiter/limiter_shm.h"
#include "modules/limiter/slot.h"
#include "segment/object.h"

extern const struct coshm__object_type coshm__limiter_type;

/* handle->local: bounds and secrets, read from the segment once. */
struct coshm__limiter {
	struct coshm__limiter_shm *shm;
	struct coshm__limiter_bucket_shm *buckets;
	uint64_t bucket_count;
	uint64_t secret[2];
};

static inline struct coshm__limiter *coshm__limiter_of(const struct coshm__op *op)
{
	return op->handle->local;
}

/* @row: COSHM__STAT_LIMITER_... */
static inline void coshm__limiter_count(struct coshm__op *op, uint32_t row)
{
	coshm__count(op, &coshm__limiter_of(op)->shm->counters, row, 1);
}

enum coshm__limiter_outcome {
	COSHM__LIMITER_REFUSED = 0,
	COSHM__LIMITER_ALLOWED = 1,
	COSHM__LIMITER_AGAIN,	/* somebody else changed what was looked at */
	COSHM__LIMITER_STRANGE, /* a tat that needs a closer look */
};

/*
 * claim.c - opens an entry for a key that has none, with a debt of @charge ticks, which must not exceed the bucket. *now
 * moves up to the present if the caller's is too old to know that the key had no debt then.
 * Returns   ALLOWED; AGAIN: look for the key again, it may have an entry now
 */
enum coshm__limiter_outcome coshm__limiter_insert(struct coshm__op *op,
						  const struct coshm__limiter_key *key,
						  const struct coshm__gcra *gcra, uint64_t charge,
						  uint64_t *now);

/* config.c - fills in the defaults of a caller's configuration and checks it. 0, -EINVAL */
int coshm__limiter_config_read(const struct coshm_limiter_config *callers,
			       struct coshm_limiter_config *ret_config,
			       struct coshm__gcra *ret_gcra);
/* The first one, before anyone else sees the object. */
void coshm__limiter_config_start(struct coshm__limiter_shm *shm,
				 const struct coshm_limiter_config *config,
				 const struct coshm__gcra *gcra);

/* decide.c - may @cost tokens be taken at the moment @now_ns? Takes them if so. 1, 0, -E2BIG, -EUCLEAN */
int coshm__limiter_decide(struct coshm__op *op, const struct coshm__limiter_key *key, uint64_t cost,
			  uint64_t now_ns, struct coshm_limiter_result *ret_result);

#endif
