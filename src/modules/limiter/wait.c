/* SPDX-License-Identifier: MIT */
/* Taking tokens that are not there yet. Nothing is reserved: a waiter that dies has taken nothing. */
#include "base/hash.h"
#include "base/log.h"
#include "modules/limiter/limiter.h"

/* One sleep. The operation is over meanwhile: the handle may be closed, the others may reap. -EINTR: a signal handler ran */
static int doze(uint64_t for_ns)
{
	struct timespec span;

	if (for_ns > COSHM__SLEEP_TICK_NS)
		for_ns = COSHM__SLEEP_TICK_NS;
	span.tv_sec = (time_t)(for_ns / COSHM__NS_PER_S);
	span.tv_nsec = (long)(for_ns % COSHM__NS_PER_S);
	return -clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL);
}

int coshm_limiter_wait(struct coshm_limiter *token, const void *key, size_t key_size_bytes,
		       uint64_t cost, uint64_t timeout_ns, struct coshm_limiter_result *ret_result)
{
	struct coshm_limiter_result result = {0};
	uint64_t end_ns = 0;
	int answer = 0;

	if (!key && key_size_bytes)
		return coshm__fail(-EINVAL, "limiter: key is NULL, its size is not 0");
	for (;;) {
		const struct coshm__limiter *limiter;
		struct coshm__limiter_key hashed;
		struct coshm__op op;
		uint64_t now_ns;
		bool is_over;
		int error = coshm__op_begin(&op, token, COSHM_OBJECT_LIMITER);

		if (error)
			return error;
		limiter = coshm__limiter_of(&op);
		coshm__limiter_key_make(
			&hashed, limiter->buckets, limiter->bucket_count,
			coshm__hash_fingerprint(limiter->secret, key, key_size_bytes));
		now_ns = coshm__now_ns(op.segment);
		if (end_ns == 0)
			end_ns =
				timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX;
		answer = coshm__limiter_decide(&op, &hashed, cost, now_ns, &result);
		is_over =
			answer != 0 || now_ns >= end_ns || result.retry_after_ns > end_ns - now_ns;
		if (answer >= 0 && is_over)
			coshm__limiter_count(&op, answer ? COSHM__STAT_LIMITER_allowed
							 : COSHM__STAT_LIMITER_denied);
		coshm__tick(&op, now_ns);
		coshm__op_end(&op);
		if (is_over)
			break;
		error = doze(result.retry_after_ns);
		if (error)
			return error;
	}
	if (answer >= 0 && ret_result)
		*ret_result = result;
	return answer;
}
