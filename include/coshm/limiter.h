/* SPDX-License-Identifier: MIT */
/*
 * coshm/limiter.h - a rate limiter per key, shared by all members of a segment
 *
 * Use when      all workers together should let a client do N things per second, not each worker on its own.
 * Use something else to bound how many are inside at once (that is concurrency, not rate), and for calendar quotas
 *               ("1000 per day, reset at midnight"): this is a token bucket.
 *
 * The algorithm is GCRA, a token bucket in one word per key: burst tokens at once, then rate per second; see the bound P1.
 *
 * Promises      P1 In any span of T seconds a key gets at most burst + rate x T, by all processes together. Never
 *                  more; fewer by at most one part in T1 = per_ns x 256 / rate (rounding of the period per token).
 *               P2 A fresh key gets exactly burst at once, from however many processes.
 *               P3 A refused try changes nothing and costs no shared write: floods do not slow the others down.
 *               P4 Every reachable state is valid: SIGKILL at any instruction loses at most the tokens being taken.
 *               P5 remaining, retry_after_ns and reset_after_ns are exact for the moment of the decision.
 *               P6 A caller with a stale clock (stopped, preempted) cannot make the limiter admit more.
 * Not promised  N1 Fairness between waiters.
 *               N2 When more keys have debt than the table holds, the one with the least debt of its bucket is
 *                  forgotten and starts full again (counter evicted_live). A key without debt needs no memory.
 *               N3 Keys are kept as a keyed 64-bit fingerprint (SipHash): two of 1e6 live keys share one with
 *                  probability 3e-8.
 * Source        GCRA: ITU-T I.371; "virtual scheduling".
 * Example       examples/limiter-105-tries.c
 */
#ifndef COSHM_LIMITER_H
#define COSHM_LIMITER_H

#include <coshm/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct coshm_limiter_config {
	size_t struct_size_bytes;
	uint64_t rate;	   /* tokens ... */
	uint64_t per_ns;   /* ... per this span; default one second */
	uint64_t burst;	   /* tokens at once; default: rate */
	uint64_t keys_max; /* keys with debt that the table is sized for; fixed at creation */
	uint64_t reserved[2];
};

struct coshm_limiter_result {
	uint64_t limit;	    /* the burst in force */
	uint64_t remaining; /* whole tokens left after this decision */
	uint64_t
		retry_after_ns; /* 0 if allowed; else when the same cost would pass if nobody else comes */
	uint64_t reset_after_ns; /* when the bucket is full again */
};

/*
 * Life: create, open, close.
 * Returns   as coshm_cache_create; -EINVAL also for a bucket that takes over 208 days to fill, or a rate above
 *           one token per 1/256 ns
 */
COSHM_CHECK_RESULT int coshm_limiter_create(struct coshm_segment *segment, const char *name,
					    const struct coshm_limiter_config *config,
					    uint32_t flags, struct coshm_limiter **ret_limiter);
COSHM_CHECK_RESULT int coshm_limiter_open(struct coshm_segment *segment, const char *name,
					  struct coshm_limiter **ret_limiter);
int coshm_limiter_close(struct coshm_limiter *limiter);

/*
 * coshm_limiter_config - the configuration in force
 * coshm_limiter_configure - change rate, per_ns and burst at run time, for all members at once
 *
 * Buckets keep their time to full; a key whose debt is larger than the new bucket is clamped to it at its next
 * decision. keys_max cannot change (-EINVAL unless 0 or equal).
 * Safety    MT MP FORK KILL: every decision uses the old or the new configuration as a whole
 * Returns   0; -EINVAL; -EAGAIN (another configure is at work for 100 ms); -EROFS
 */
COSHM_CHECK_RESULT int coshm_limiter_config(struct coshm_limiter *limiter,
					    struct coshm_limiter_config *ret_config);
COSHM_CHECK_RESULT int coshm_limiter_configure(struct coshm_limiter *limiter,
					       const struct coshm_limiter_config *config);

/*
 * coshm_limiter_try - may this key do it now? Takes the tokens if so.
 * @cost        tokens; 0 only looks
 * @ret_result  may be NULL
 *
 * coshm_limiter_try_at is the same at a moment that the caller has read already (coshm_segment_now_ns); it must lie
 * in the past.
 * Safety    MT MP FORK KILL       Progress  lock-free; a key's first token ever may wait up to 100 ms for a lock of
 *           a stopped member and is then allowed without being charged (counter fail_open)
 * Cost      one clock read, one hash, one or two cache lines, one CAS if allowed; no system call
 * Returns   1 allowed; 0 refused; -E2BIG: cost > burst, can never pass; -EINVAL; -EROFS
 */
COSHM_CHECK_RESULT int coshm_limiter_try(struct coshm_limiter *limiter, const void *key,
					 size_t key_size_bytes, uint64_t cost,
					 struct coshm_limiter_result *ret_result);
COSHM_CHECK_RESULT int coshm_limiter_try_at(struct coshm_limiter *limiter, const void *key,
					    size_t key_size_bytes, uint64_t cost, uint64_t now_ns,
					    struct coshm_limiter_result *ret_result);

/* coshm_limiter_peek - look, take nothing; works on a read-only attach. Returns 1 if a token is there, 0 if not. */
COSHM_CHECK_RESULT int coshm_limiter_peek(struct coshm_limiter *limiter, const void *key,
					  size_t key_size_bytes,
					  struct coshm_limiter_result *ret_result);

/*
 * coshm_limiter_wait - take the tokens, sleeping until they are there
 * @timeout_ns  longest sleep in all; COSHM_FOREVER
 *
 * Returns at once with 0 when the wait is already known to be longer than the timeout. Tokens are taken after the
 * sleep, so nothing has to be given back if the process dies meanwhile.
 * Returns   1 taken; 0 not within the timeout; as try
 */
COSHM_CHECK_RESULT int coshm_limiter_wait(struct coshm_limiter *limiter, const void *key,
					  size_t key_size_bytes, uint64_t cost, uint64_t timeout_ns,
					  struct coshm_limiter_result *ret_result);

/*
 * coshm_limiter_refund - give tokens back (the request failed for another reason)
 * Never fills the bucket beyond burst. Returns 0; -EINVAL; -EROFS
 */
COSHM_CHECK_RESULT int coshm_limiter_refund(struct coshm_limiter *limiter, const void *key,
					    size_t key_size_bytes, uint64_t cost);

/* coshm_limiter_reset - forget the key's debt: its bucket is full. Returns 0; -EROFS */
COSHM_CHECK_RESULT int coshm_limiter_reset(struct coshm_limiter *limiter, const void *key,
					   size_t key_size_bytes);

#ifdef __cplusplus
}
#endif
#endif
