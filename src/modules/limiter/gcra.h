/* SPDX-License-Identifier: MIT */
/*
 * limiter/gcra.h - a token bucket that is one point in time
 *
 * tat ("theoretical arrival time", ITU-T I.371) is when the bucket will be full again. Pure functions on numbers: no
 * clock, no shared memory.
 *
 * Ticks are 1/256 ns, modulo 2^64, which is 2.28 years; points in time are compared by their signed difference. Periods,
 * and with them all times, are even: the table uses odd values of the same word for something else.
 */
#ifndef COSHM__LIMITER_GCRA_H
#define COSHM__LIMITER_GCRA_H

#include "base/atomic.h"

#include <coshm/limiter.h>

#include <errno.h>

#define COSHM__GCRA_TICKS_PER_NS UINT64_C(256)
#define COSHM__GCRA_SECOND	 (UINT64_C(1000000000) * COSHM__GCRA_TICKS_PER_NS)
/* A bucket takes at most this long to fill: 208 days. Two of them stay below half of the clock's range. */
#define COSHM__GCRA_CAPACITY_LIMIT (UINT64_C(1) << 62)
/*
 * How far a debt may exceed the bucket before it is looked at again: a caller whose clock is a little old sees it larger
 * than it was.
 */
#define COSHM__GCRA_SLACK COSHM__GCRA_SECOND
/* No debt is this large. */
#define COSHM__GCRA_STRANGE UINT64_MAX

struct coshm__gcra {
	uint64_t burst;
	uint64_t period;	/* ticks per token, even, never 0 */
	uint64_t capacity;	/* burst x period: from empty to full */
	uint64_t capacity_ever; /* the largest capacity that this limiter ever had */
};

static inline uint64_t coshm__gcra_ticks(uint64_t at_ns)
{
	return at_ns * COSHM__GCRA_TICKS_PER_NS;
}

static inline uint64_t coshm__gcra_ns_up(uint64_t ticks)
{
	return ticks / COSHM__GCRA_TICKS_PER_NS + (ticks % COSHM__GCRA_TICKS_PER_NS != 0);
}

/* 0, or -EINVAL: more than one token per 1/128 ns, or over 208 days to fill. No argument may be 0. */
static inline int coshm__gcra_make(uint64_t rate, uint64_t per_ns, uint64_t burst,
				   struct coshm__gcra *ret_gcra)
{
	const unsigned int half = COSHM__GCRA_TICKS_PER_NS / 2;
	unsigned __int128 span = (unsigned __int128)per_ns * half;
	unsigned __int128 period = (span + rate - 1) / rate * 2;

	if (span < rate || period >= COSHM__GCRA_CAPACITY_LIMIT ||
	    period * burst >= COSHM__GCRA_CAPACITY_LIMIT)
		return -EINVAL;
	ret_gcra->burst = burst;
	ret_gcra->period = (uint64_t)period;
	ret_gcra->capacity = (uint64_t)(period * burst);
	ret_gcra->capacity_ever = ret_gcra->capacity;
	return 0;
}

/* Could coshm__gcra_make have made it? Not all is checked: only that sums do not overflow and a division does not trap. */
static inline bool coshm__gcra_is_sane(const struct coshm__gcra *gcra)
{
	return coshm__likely(gcra->period != 0 && gcra->period % 2 == 0 &&
			     (gcra->capacity | gcra->capacity_ever) < COSHM__GCRA_CAPACITY_LIMIT);
}

/* From how far tat is ahead; COSHM__GCRA_STRANGE if that cannot be a debt of this bucket. */
static inline uint64_t coshm__gcra_debt(const struct coshm__gcra *gcra, uint64_t tat, uint64_t now)
{
	int64_t ahead = (int64_t)(tat - now);

	if (ahead <= 0)
		return 0;
	if (coshm__likely((uint64_t)ahead <= gcra->capacity + COSHM__GCRA_SLACK))
		return (uint64_t)ahead;
	return COSHM__GCRA_STRANGE;
}

/*
 * Is a tat that was strange for a fresh clock a debt that was made when the bucket was larger? If not, it is more than a
 * year old, and no debt.
 */
static inline bool coshm__gcra_is_old_debt(const struct coshm__gcra *gcra, uint64_t tat,
					   uint64_t now)
{
	return tat - now <= gcra->capacity_ever + COSHM__GCRA_SLACK;
}

/*
 * Exact for the moment of the decision: @debt as the decision leaves it, @need what it asked for (0 cost: the debt). A
 * clock that is a little old sees more debt than the bucket can have: then that moment is the first at which it can.
 */
static inline void coshm__gcra_result(const struct coshm__gcra *gcra, bool allowed, uint64_t debt,
				      uint64_t need, struct coshm_limiter_result *ret)
{
	uint64_t old = debt > gcra->capacity ? debt - gcra->capacity : 0;

	debt -= old;
	need -= old;
	ret->limit = gcra->burst;
	ret->remaining = debt < gcra->capacity ? (gcra->capacity - debt) / gcra->period : 0;
	ret->retry_after_ns = allowed ? 0 : coshm__gcra_ns_up(need - gcra->capacity);
	ret->reset_after_ns = coshm__gcra_ns_up(debt);
}

#endif
