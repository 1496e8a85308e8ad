/* SPDX-License-Identifier: MIT */
/*
 * Due times: retry delays, and how a task is found when its time has come.
 *
 * The truth is the record: state DELAYED and its due word. The index over it is two levels of lower bounds, one per 64
 * records and one on top. A bound may be too low, which costs a look, but never too high (I4).
 *
 * Insert    with the flag DUE in the record's word: lower the group's bound, then the top; then DELAYED.
 * Raise     load a bound, look at everything below it, CAS it up from exactly that value.
 * Why       each insertion changes the bound's version, also where the bound is low enough already. If it comes between
 *           load and CAS, the CAS fails; if before, the look finds the flag or DELAYED; if after, it lowers again.
 * Taking    a task that is due is leased straight from DELAYED: nothing is moved for others, so nobody who stops in
 *           the middle can hide a task.
 */
#include "base/hash.h"
#include "modules/queue/queue.h"

uint64_t coshm__queue_backoff_ns(const struct coshm__segment *segment, const struct coshm__queue *q,
				 uint64_t id, uint32_t attempts)
{
	const uint64_t key[2] = {id, attempts};
	uint64_t delay_ns = q->backoff_base_ns, span_ns;
	uint32_t doublings = attempts - 1;

	if (attempts == 0)
		return q->backoff_max_ns; /* damage */
	if (q->backoff_kind == COSHM_BACKOFF_EXPONENTIAL)
		delay_ns = doublings >= 63 || delay_ns > q->backoff_max_ns >> doublings
				   ? q->backoff_max_ns
				   : delay_ns << doublings;
	else if (q->backoff_kind == COSHM_BACKOFF_LINEAR)
		delay_ns = delay_ns > q->backoff_max_ns / attempts ? q->backoff_max_ns
								   : delay_ns * attempts;
	if (delay_ns > q->backoff_max_ns)
		delay_ns = q->backoff_max_ns;
	/* The share is random among tasks and attempts, but the same for all who finish the same attempt. */
	span_ns = delay_ns / 100 * q->backoff_jitter_percent;
	if (span_ns)
		delay_ns -= coshm__hash_place(segment->header->place_seed, key, sizeof(key)) %
			    (span_ns + 1);
	return delay_ns;
}

uint64_t coshm__due_us(uint64_t now_ns, uint64_t delay_ns)
{
	uint64_t due_ns = now_ns + delay_ns;

	if (delay_ns == 0)
		return now_ns / 1000; /* no delay is no delay */
	if (due_ns < now_ns)
		due_ns = UINT64_MAX;
	return due_ns / 1000 + (due_ns % 1000 != 0);
}

static uint64_t bound_load(const struct coshm__a64 *bound)
{
	return coshm__a64_load_acquire(bound); /* [Q9] acquire, pairs [Q8], [Q10] */
}

static void bound_lower(struct coshm__a64 *bound, uint64_t us)
{
	uint64_t desired, seen = coshm__a64_load_relaxed(bound);

	do {
		desired = us < coshm__bound_us(seen) ? us : coshm__bound_us(seen);
		desired = desired << 16 | ((seen + 1) & 0xffff);
		/* [Q8] seq_cst, pairs [Q7], [Q9]; carries the record's flag, and the group's bound before the top's */
	} while (!coshm__a64_cas_seq_cst(bound, &seen, desired));
}

/* @seen was loaded before everything below was looked at, of which @us is the least. */
static uint64_t bound_raise(struct coshm__a64 *bound, uint64_t seen, uint64_t us)
{
	uint64_t desired = us << 16 | ((seen + 1) & 0xffff);

	if (us <= coshm__bound_us(seen))
		return seen;
	/* [Q10] acq_rel, pairs [Q9]; keeps up the chain from insertions before it */
	if (!coshm__a64_cas_acq_rel(bound, &seen, desired))
		return seen;
	COSHM__CRASH_POINT(QUEUE_DUE_RAISED);
	return desired;
}

void coshm__queue_delay(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word,
			uint64_t now_ns)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t us, marked = coshm__record_due_flag(word);

	if (coshm__record_state(word) == COSHM__RECORD_LEASED)
		marked = coshm__record_due_flag(
			coshm__record_next(word, coshm__record_owner(word), COSHM__RECORD_FINISH));
	if (marked != word && !coshm__record_cas(record, &word, marked))
		return;
	COSHM__CRASH_POINT(QUEUE_DELAY_MARKED);
	us = coshm__stamp_us(coshm__a64_load_relaxed(&record->due));
	bound_lower(&q->due_min[index / COSHM__QUEUE_GROUP], us);
	COSHM__CRASH_POINT(QUEUE_DELAY_GROUP);
	bound_lower(&q->shm->due_top, us);
	COSHM__CRASH_POINT(QUEUE_DELAY_TOP);
	if (!coshm__record_cas(record, &marked,
			       coshm__record_next(marked, 0, COSHM__RECORD_DELAYED)))
		return;
	COSHM__CRASH_POINT(QUEUE_DELAYED);
	/* A sleeper knows what was due when it fell asleep; it wakes up after a tick anyway. */
	if (us * 1000 < now_ns + COSHM__SLEEP_TICK_NS)
		coshm__queue_wake(op, q);
}

/* 1 leased; 0 none is due in the group: its bound is raised, *ret_least is what it came to. */
static int claim_in_group(struct coshm__queue *q, uint32_t group, uint64_t bound, uint32_t owner,
			  uint64_t now_us, uint32_t *ret_index, uint64_t *ret_word,
			  uint64_t *ret_least)
{
	uint64_t least = COSHM__DUE_NONE;
	uint32_t end = (group + 1) * COSHM__QUEUE_GROUP;

	for (uint32_t index = group * COSHM__QUEUE_GROUP; index < end && index < q->capacity;
	     index++) {
		struct coshm__record_shm *record = &q->records[index];
		uint64_t us, next, word = coshm__record_load(record);

		while (coshm__record_state(word) == COSHM__RECORD_DELAYED ||
		       coshm__record_flags(word) & COSHM__RECORD_DUE) {
			/* relaxed: if it is of another life by now, the CASes fail, that of the bound too */
			us = coshm__stamp_us(coshm__a64_load_relaxed(&record->due));
			if (coshm__record_state(word) != COSHM__RECORD_DELAYED || us > now_us) {
				least = us < least ? us : least;
				break;
			}
			next = coshm__record_next(word, owner, COSHM__RECORD_LEASED);
			if (coshm__record_cas(record, &word, next)) {
				COSHM__CRASH_POINT(QUEUE_DUE_CLAIMED);
				*ret_index = index;
				*ret_word = next;
				return 1;
			}
		}
	}
	*ret_least = coshm__bound_us(bound_raise(&q->due_min[group], bound, least));
	return 0;
}

int coshm__queue_claim_due(struct coshm__queue *q, uint32_t owner, uint64_t now_ns,
			   uint32_t *ret_index, uint64_t *ret_word)
{
	uint64_t now_us = now_ns / 1000, least = COSHM__DUE_NONE;
	uint64_t us, top = bound_load(&q->shm->due_top); /* [Q9] */
	uint32_t start = coshm__a32_load_relaxed(&q->due_group) % q->group_count;

	if (coshm__bound_us(top) > now_us)
		return 0;
	for (uint32_t i = 0; i < q->group_count; i++) {
		uint32_t group = (start + i) % q->group_count;
		uint64_t bound = bound_load(&q->due_min[group]); /* [Q9] */

		us = coshm__bound_us(bound);
		if (us <= now_us &&
		    claim_in_group(q, group, bound, owner, now_us, ret_index, ret_word, &us)) {
			/* relaxed: where to look first next time */
			coshm__a32_store_relaxed(&q->due_group, group);
			return 1;
		}
		least = us < least ? us : least;
	}
	bound_raise(&q->shm->due_top, top, least);
	return 0;
}
