/* SPDX-License-Identifier: MIT */
/* What users call for one key. */
#include "base/crash.h"
#include "base/hash.h"
#include "base/log.h"
#include "modules/limiter/limiter.h"

#define CHANGES_MAX 4096 /* each is somebody else's success */
#define PEEKS_MAX   8

static inline void hash_key(const struct coshm__op *op, const void *key, size_t key_size_bytes,
			    struct coshm__limiter_key *ret_key)
{
	const struct coshm__limiter *limiter = coshm__limiter_of(op);

	coshm__limiter_key_make(ret_key, limiter->buckets, limiter->bucket_count,
				coshm__hash_fingerprint(limiter->secret, key, key_size_bytes));
}

static inline int begin(struct coshm__op *op, const struct coshm_limiter *token, const void *key,
			size_t key_size_bytes)
{
	if (coshm__unlikely(!key && key_size_bytes))
		return coshm__fail(-EINVAL, "limiter: key is NULL, its size is not 0");
	return coshm__op_begin(op, token, COSHM_OBJECT_LIMITER);
}

/* Counts the answer, and looks for the dead now and then. */
static inline int answered(struct coshm__op *op, int answer, uint64_t now_ns)
{
	if (answer >= 0)
		coshm__limiter_count(op, answer ? COSHM__STAT_LIMITER_allowed
						: COSHM__STAT_LIMITER_denied);
	coshm__tick(op, now_ns);
	return answer;
}

int coshm_limiter_try(struct coshm_limiter *token, const void *key, size_t key_size_bytes,
		      uint64_t cost, struct coshm_limiter_result *ret_result)
{
	struct coshm__limiter_key hashed;
	struct coshm__op op;
	uint64_t now_ns;
	int answer = begin(&op, token, key, key_size_bytes);

	if (coshm__unlikely(answer))
		return answer;
	hash_key(&op, key, key_size_bytes, &hashed);
	now_ns = coshm__now_ns(op.segment);
	COSHM__CRASH_POINT(LIMITER_CLOCK_READ);
	answer = answered(&op, coshm__limiter_decide(&op, &hashed, cost, now_ns, ret_result),
			  now_ns);
	coshm__op_end(&op);
	return answer;
}

int coshm_limiter_try_at(struct coshm_limiter *token, const void *key, size_t key_size_bytes,
			 uint64_t cost, uint64_t now_ns, struct coshm_limiter_result *ret_result)
{
	struct coshm__limiter_key hashed;
	struct coshm__op op;
	int answer = begin(&op, token, key, key_size_bytes);

	if (coshm__unlikely(answer))
		return answer;
	hash_key(&op, key, key_size_bytes, &hashed);
	answer = answered(&op, coshm__limiter_decide(&op, &hashed, cost, now_ns, ret_result),
			  now_ns);
	coshm__op_end(&op);
	return answer;
}

/* --- looking ------------------------------------------------------------------------------------------------ */

int coshm_limiter_peek(struct coshm_limiter *token, const void *key, size_t key_size_bytes,
		       struct coshm_limiter_result *ret_result)
{
	struct coshm__limiter_key hashed;
	struct coshm__gcra gcra;
	struct coshm__op op;
	uint64_t debt = 0, need;
	int error = !key && key_size_bytes
			    ? coshm__fail(-EINVAL, "limiter: key is NULL, its size is not 0")
			    : coshm__op_begin_look(&op, token, COSHM_OBJECT_LIMITER);

	if (error)
		return error;
	hash_key(&op, key, key_size_bytes, &hashed);
	for (int tries = 0; tries < PEEKS_MAX; tries++) {
		struct coshm__limiter_slot slot;
		uint64_t now, tat;
		bool found = coshm__limiter_find(&hashed, &slot, &tat);

		/* After tat, so that what is strange now is not due to an old clock or configuration. */
		error = coshm__limiter_config_load(coshm__limiter_of(&op)->shm, &gcra);
		if (error || !found)
			break;
		now = coshm__gcra_ticks(coshm__now_ns(op.segment));
		debt = coshm__gcra_debt(&gcra, tat, now);
		if (debt == COSHM__GCRA_STRANGE)
			debt = coshm__gcra_is_old_debt(&gcra, tat, now) ? gcra.capacity : 0;
		/* relaxed: behind [LM3]. A tat that moves on is the key's as well: the last one will do. */
		if (coshm__a64_load_relaxed(slot.tat) == tat)
			break;
	}
	if (coshm__look_is_stale(&op))
		error = -ESTALE;
	coshm__op_end(&op);
	if (error)
		return error;
	need = debt + gcra.period;
	if (ret_result)
		coshm__gcra_result(&gcra, need <= gcra.capacity, debt, need, ret_result);
	return need <= gcra.capacity;
}

/* --- giving back -------------------------------------------------------------------------------------------- */

/* What tat becomes, given a clock that was read after it; the same tat: leave it. */
static uint64_t less_debt(const struct coshm__gcra *gcra, uint64_t tat, uint64_t now, uint64_t cost)
{
	uint64_t debt = coshm__gcra_debt(gcra, tat, now);

	if (debt == COSHM__GCRA_STRANGE) {
		debt = coshm__gcra_is_old_debt(gcra, tat, now) ? gcra->capacity : 0;
		tat = now + debt;
	}
	if (cost >= gcra->burst || cost * gcra->period >= debt)
		return debt ? now : tat;
	return tat - cost * gcra->period;
}

static int give_back(struct coshm_limiter *token, const void *key, size_t key_size_bytes,
		     uint64_t cost, bool all)
{
	struct coshm__limiter_key hashed;
	struct coshm__op op;
	int error = begin(&op, token, key, key_size_bytes);

	if (error)
		return error;
	hash_key(&op, key, key_size_bytes, &hashed);
	for (int changes = 0; !error; changes++) {
		struct coshm__limiter *limiter = coshm__limiter_of(&op);
		struct coshm__limiter_slot slot;
		struct coshm__gcra gcra;
		uint64_t tat, less;

		if (!coshm__limiter_find(&hashed, &slot, &tat))
			break; /* no entry: full */
		error = coshm__limiter_config_load(limiter->shm, &gcra);
		if (error)
			break;
		less = less_debt(&gcra, tat, coshm__gcra_ticks(coshm__now_ns(op.segment)),
				 all ? UINT64_MAX : cost);
		if (less == tat)
			break;
		/* release, as [LM2] */
		if (coshm__a64_cas_acq_rel(slot.tat, &tat, less)) {
			COSHM__CRASH_POINT(LIMITER_GIVEN_BACK);
			break;
		}
		error = changes == CHANGES_MAX ? -EAGAIN : 0;
	}
	if (!error && !all)
		coshm__limiter_count(&op, COSHM__STAT_LIMITER_refunds);
	coshm__op_end(&op);
	return error;
}

int coshm_limiter_refund(struct coshm_limiter *token, const void *key, size_t key_size_bytes,
			 uint64_t cost)
{
	return give_back(token, key, key_size_bytes, cost, false);
}

int coshm_limiter_reset(struct coshm_limiter *token, const void *key, size_t key_size_bytes)
{
	return give_back(token, key, key_size_bytes, 0, true);
}
