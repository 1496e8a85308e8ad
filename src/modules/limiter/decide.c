/* SPDX-License-Identifier: MIT */
/*
 * One decision: load the configuration, load tat, compute, at most one CAS.
 *
 * Commit    the CAS of tat from old to now + need. A refusal is a load of tat, confirmed by a second one after the key
 *           word was seen: nothing is written.
 * Moment    the caller's, if his clock is at most a little old (see claim.c and strange() for the exceptions).
 */
#include "base/crash.h"
#include "base/log.h"
#include "modules/limiter/limiter.h"

/* Each turn of the loop is somebody else's success, or damage. */
#define TRIES_MAX  4096
#define PAUSES_MAX 64

struct decision {
	struct coshm__gcra gcra;
	uint64_t cost;
	uint64_t now;
	uint64_t debt; /* before, and if allowed after */
	uint64_t need;
};

static enum coshm__limiter_outcome decide_in(const struct coshm__limiter_slot *slot, uint64_t tat,
					     struct decision *d)
{
	d->debt = coshm__gcra_debt(&d->gcra, tat, d->now);
	if (coshm__unlikely(d->debt == COSHM__GCRA_STRANGE))
		return COSHM__LIMITER_STRANGE;
	d->need = d->debt + d->cost * d->gcra.period;
	if (d->need > d->gcra.capacity || d->cost == 0) {
		/* relaxed: behind [LM3]; still there means that it was the key's when the key word was loaded */
		if (coshm__a64_load_relaxed(slot->tat) != tat)
			return COSHM__LIMITER_AGAIN;
		return d->need > d->gcra.capacity && d->cost ? COSHM__LIMITER_REFUSED
							     : COSHM__LIMITER_ALLOWED;
	}
	COSHM__CRASH_POINT(LIMITER_TAT_LOADED);
	/* release, as [LM2]: keeps the key word with the time for those who load this one */
	if (!coshm__a64_cas_acq_rel(slot->tat, &tat, d->now + d->need))
		return COSHM__LIMITER_AGAIN;
	COSHM__CRASH_POINT(LIMITER_CHARGED);
	d->debt = d->need;
	return COSHM__LIMITER_ALLOWED;
}

/*
 * A debt that the bucket cannot have. tat, then the configuration, then the clock, in this order: whatever made tat so
 * was there before, and a clock that was read before a stop, or a configuration from before a change, is not believed.
 * What is still strange is the debt of a larger bucket, and is cut down to this one; or it is older than a year, and none.
 */
static void strange(struct coshm__op *op, const struct coshm__limiter_slot *slot,
		    struct decision *d)
{
	const struct coshm__limiter *limiter = coshm__limiter_of(op);
	/* acquire, as [LM1]: comes before the loads of the configuration */
	uint64_t next, present, tat = coshm__a64_load_acquire(slot->tat);
	struct coshm__gcra gcra;

	if (coshm__limiter_is_claim(tat) || coshm__limiter_config_load(limiter->shm, &gcra))
		return;
	present = coshm__gcra_ticks(coshm__now_ns(op->segment));
	/* Never back: a caller may run ahead of us with a clock of his own. */
	if ((int64_t)(present - d->now) < 0)
		present = d->now;
	next = d->now;
	if (coshm__gcra_debt(&gcra, tat, present) != COSHM__GCRA_STRANGE) {
		d->now = present;
		return;
	}
	/* Stored once, or the key would stay locked out until its old debt has passed. */
	if (coshm__gcra_is_old_debt(&gcra, tat, present)) {
		d->now = present;
		next = present + gcra.capacity;
	}
	/* release, as [LM2] */
	if (!coshm__a64_cas_acq_rel(slot->tat, &tat, next))
		return;
	COSHM__CRASH_POINT(LIMITER_CLAMPED);
	coshm__limiter_count(op, COSHM__STAT_LIMITER_clamped);
}

/* Longer each time, and of a different length in each process. */
static void pause_after(int tries, uint64_t now)
{
	int pauses = tries < 6 ? 1 << tries : PAUSES_MAX;

	pauses = pauses / 2 + (int)(now / COSHM__GCRA_TICKS_PER_NS % (uint64_t)(pauses / 2 + 1));
	while (pauses-- > 0)
		coshm__cpu_pause();
}

int coshm__limiter_decide(struct coshm__op *op, const struct coshm__limiter_key *key, uint64_t cost,
			  uint64_t now_ns, struct coshm_limiter_result *ret_result)
{
	const struct coshm__limiter *limiter = coshm__limiter_of(op);
	struct decision d = {.cost = cost, .now = coshm__gcra_ticks(now_ns)};
	enum coshm__limiter_outcome outcome = COSHM__LIMITER_AGAIN;

	for (int tries = 0; outcome > COSHM__LIMITER_ALLOWED; tries++) {
		struct coshm__limiter_slot slot;
		uint64_t tat;
		int error = coshm__limiter_config_load(limiter->shm, &d.gcra);

		if (coshm__unlikely(error))
			return error;
		if (coshm__unlikely(cost > d.gcra.burst))
			return coshm__fail(-E2BIG, "limiter: cost is %llu, the burst only %llu",
					   (unsigned long long)cost,
					   (unsigned long long)d.gcra.burst);
		if (coshm__unlikely(tries > 0)) {
			coshm__limiter_count(op, COSHM__STAT_LIMITER_retries);
			pause_after(tries, d.now);
		}
		d.debt = d.need = cost * d.gcra.period;
		if (coshm__unlikely(tries > TRIES_MAX)) {
			coshm__limiter_count(op, COSHM__STAT_LIMITER_fail_open);
			outcome = COSHM__LIMITER_ALLOWED;
		} else if (coshm__likely(coshm__limiter_find(key, &slot, &tat))) {
			outcome = decide_in(&slot, tat, &d);
			if (coshm__unlikely(outcome == COSHM__LIMITER_STRANGE))
				strange(op, &slot, &d);
		} else if (cost == 0) {
			outcome = COSHM__LIMITER_ALLOWED;
		} else {
			outcome = coshm__limiter_insert(op, key, &d.gcra, d.need, &d.now);
		}
	}
	if (ret_result)
		coshm__gcra_result(&d.gcra, outcome == COSHM__LIMITER_ALLOWED, d.debt, d.need,
				   ret_result);
	return outcome == COSHM__LIMITER_ALLOWED;
}
