/* SPDX-License-Identifier: MIT */
/*
 * coshm/limiter.h - a rate limiter per key, shared by all members of a segment
 *
 * Use when      all workers together should let a client do N things per second, not each worker on its own.
 * Use something else to bound how many are inside at once (that is concurrency, not rate), and for calendar quotas
 *               ("1000 per day, reset at midnight"): this is a token bucket.
 *
 * Each key has a bucket of burst tokens that fills up at rate. The bucket is one word: the time at which it is full again
 * (GCRA). So there is nothing to sweep and nothing to repair.
 *
 * Promises      P1 In any span of T seconds a key gets at most burst + rate x T tokens, by all processes together, each
 *                  counted at the moment of its decision, which lies within the call. Never more, but for a try that lost
 *                  to 4096 others in a row (counter fail_open); less by at most one part in per_ns x 128 / rate, since
 *                  the time per token is rounded up to 1/128 ns.
 *               P2 A fresh key gets exactly burst at once, from however many processes.
 *               P3 A refused try changes nothing and writes nothing but its counter: floods do not slow the others down.
 *               P4 Every reachable state is valid: SIGKILL at any instruction loses at most the tokens being taken, and
 *                  SIGSTOP holds nobody up. No call on a key waits for a lock.
 *               P5 remaining, retry_after_ns and reset_after_ns are exact for the moment of the decision.
 *               P6 A caller with a stale clock (stopped, preempted) gets no more than one with a fresh clock.
 * Not promised  N1 Fairness between waiters.
 *               N2 When more keys have debt than the table holds, the one with the least debt of its 16 slots is
 *                  forgotten and starts full again (counter evicted_live). A key without debt needs no memory. A try
 *                  under way on the forgotten key is charged to the one in its place, if their debts end at the same
 *                  nanosecond.
 *               N3 A key is kept as a keyed fingerprint (SipHash): two of 1e6 keys share one with a probability of 1e-7.
 *               N4 Memory that was written over by others gives answers, not promises; and the table heals.
 * After a kill  nothing to do. A half-made entry is finished or replaced by whoever needs its slot.
 * Source        GCRA: ITU-T I.371; "virtual scheduling". docs/design/limiter.md
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
	uint64_t keys_max; /* keys with debt at once; 21 bytes each; fixed; default 10000 */
	uint64_t reserved[2];
};

struct coshm_limiter_result {
	uint64_t limit;		 /* the burst in force */
	uint64_t remaining;	 /* whole tokens left after this decision */
	uint64_t retry_after_ns; /* 0 if allowed; else when this cost passes if nobody else comes */
	uint64_t reset_after_ns; /* when the bucket is full again */
};

/*
 * Life: create, open, close. A limiter that exists keeps its own configuration with COSHM_CREATE_OR_OPEN.
 * Returns   as coshm_cache_create; -EINVAL also for a bucket that takes over 208 days to fill, or more than one token per
 *           1/128 ns
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
 * Buckets keep their time to full. A key whose debt exceeds the new bucket by more than a second is cut down to it at its
 * next decision. keys_max cannot change: 0 or the same.
 * Safety    MT MP FORK KILL (config: on a read-only attach, too)
 * Progress  configure: blocking, at most 100 ms behind a configurer that is stopped. A decision uses the old or the new
 *           configuration as a whole and never waits for either.
 * Returns   0; -EINVAL; -EAGAIN (another configurer has not finished for 100 ms); -EROFS; -EUCLEAN,
 *           -ENOTRECOVERABLE (damage); -EBADF
 */
COSHM_CHECK_RESULT int coshm_limiter_config(struct coshm_limiter *limiter,
					    struct coshm_limiter_config *ret_config);
COSHM_CHECK_RESULT int coshm_limiter_configure(struct coshm_limiter *limiter,
					       const struct coshm_limiter_config *config);

/*
 * coshm_limiter_try - may this key do it now? Takes the tokens if so.
 * @key         any bytes; NULL, 0 is a key, too: one bucket for everybody
 * @cost        tokens; 0 only looks
 * @ret_result  may be NULL
 *
 * Safety    MT MP FORK KILL       Progress  lock-free: it starts again only if another decision on the key came first
 * Cost      one clock read, one hash, 7 of the segment's lines, of which all but the key's own are only
 *           read or the thread's own; one CAS if allowed (three for a key that was not there); no system call
 * Kill      tokens may be gone though the call did not return; they come back with time
 * Returns   1 allowed; 0 refused; -E2BIG: cost > burst, can never pass; -EINVAL; -EROFS; -EUCLEAN; -EBADF
 */
COSHM_CHECK_RESULT int coshm_limiter_try(struct coshm_limiter *limiter, const void *key,
					 size_t key_size_bytes, uint64_t cost,
					 struct coshm_limiter_result *ret_result);

/*
 * coshm_limiter_try_at - the same at a moment that the caller has read already (coshm_segment_now_ns)
 * @now_ns      must lie in the past. One that does not makes the key wait; one that is older than a second, or than the
 *              key's bucket takes to fill, may be decided for the present
 */
COSHM_CHECK_RESULT int coshm_limiter_try_at(struct coshm_limiter *limiter, const void *key,
					    size_t key_size_bytes, uint64_t cost, uint64_t now_ns,
					    struct coshm_limiter_result *ret_result);

/*
 * coshm_limiter_peek - what a try with cost 1 would say; takes nothing
 *
 * Not counted. Works on a read-only attach.
 * Safety    MT MP FORK       Progress  wait-free: at most 8 looks
 * Returns   1 a token is there; 0 none; -EINVAL; -EUCLEAN; -EBADF
 */
COSHM_CHECK_RESULT int coshm_limiter_peek(struct coshm_limiter *limiter, const void *key,
					  size_t key_size_bytes,
					  struct coshm_limiter_result *ret_result);

/*
 * coshm_limiter_wait - take the tokens, sleeping until they are there
 * @timeout_ns  longest sleep in all; COSHM_FOREVER
 *
 * Returns at once with 0 when the wait is already known to be longer than the timeout. Tokens are taken after the
 * sleep, so nothing has to be given back if the process dies meanwhile.
 * Safety    MT MP FORK KILL; another thread may close the handle meanwhile (-EBADF within 50 ms)
 * Progress  blocking, at most timeout_ns
 * Returns   1 taken; 0 not within the timeout; -EINTR: a signal handler ran while asleep; else as try
 */
COSHM_CHECK_RESULT int coshm_limiter_wait(struct coshm_limiter *limiter, const void *key,
					  size_t key_size_bytes, uint64_t cost, uint64_t timeout_ns,
					  struct coshm_limiter_result *ret_result);

/*
 * coshm_limiter_refund - give tokens back (the request failed for another reason)
 * coshm_limiter_reset - give all back: the bucket is full
 *
 * Never fills the bucket beyond burst.
 * Safety    MT MP FORK KILL       Progress  lock-free
 * Returns   0; -EINVAL; -EROFS; -EUCLEAN; -EBADF; -EAGAIN (lost against 4096 decisions on the key in a row)
 */
COSHM_CHECK_RESULT int coshm_limiter_refund(struct coshm_limiter *limiter, const void *key,
					    size_t key_size_bytes, uint64_t cost);
COSHM_CHECK_RESULT int coshm_limiter_reset(struct coshm_limiter *limiter, const void *key,
					   size_t key_size_bytes);

#ifdef __cplusplus
}
#endif
#endif
