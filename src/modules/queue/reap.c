/* SPDX-License-Identifier: MIT */
/*
 * What a dead member left in a queue.
 *
 * Any number of reapers at once, each may die or be stopped anywhere. Every store is a CAS from a value that was loaded
 * while the record's word still named the dead, and no such value ever comes back: a reaper that wakes up late, when the
 * record lives another life, changes nothing.
 */
#include "modules/queue/queue.h"

/* What the steps of a crashed attempt start from. */
struct snapshot {
	uint64_t word, attempts, base, due, status, ended;
	uint64_t before; /* status of the attempt before this one */
	uint32_t lease;	 /* ticket of the dead member's lease */
	uint32_t total;	 /* attempts, this one included */
	struct coshm__attempt_shm *attempt;
};

/* 1, or 0: the word has changed meanwhile. */
static int snapshot_take(const struct coshm__queue *q, uint32_t index, uint64_t word,
			 struct snapshot *s)
{
	struct coshm__record_shm *record = &q->records[index];

	s->word = word;
	s->lease = coshm__record_lease_ticket(word);
	s->attempts = coshm__a64_load_relaxed(&record->attempts);
	s->base = coshm__a64_load_relaxed(&record->attempts_base);
	s->due = coshm__a64_load_relaxed(&record->due);
	s->total = (uint32_t)s->attempts + (s->attempts >> 32 != s->lease);
	s->attempt = coshm__queue_attempt(q, index, s->total);
	s->status = coshm__a64_load_relaxed(&s->attempt->status);
	s->before = coshm__a64_load_relaxed(&coshm__queue_attempt(q, index, s->total - 1)->status);
	s->ended = coshm__a64_load_relaxed(&s->attempt->ended);
	/* All of it was so while the word was this. */
	coshm__acquire_fence();
	return coshm__a64_load_relaxed(&record->word) == word;
}

/*
 * The attempt ended with its worker: into the log, and counted. Each CAS is lost only to another reaper who does the same.
 * relaxed: published by the record's word.
 */
static void crash_log(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
		      const struct snapshot *s, uint64_t now_ns)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t status = s->status, ended = s->ended, attempts = s->attempts;

	if (status >> 32 != s->lease) {
		if (!coshm__stamp_is_of(ended, s->lease))
			coshm__a64_cas_relaxed(&s->attempt->ended, &ended,
					       coshm__stamp(s->lease, now_ns / 1000));
		COSHM__CRASH_POINT(QUEUE_REAP_ENDED);
		coshm__a64_cas_relaxed(&s->attempt->status, &status,
				       (uint64_t)s->lease << 32 |
					       (uint64_t)(s->total & 0xfffffff) << 4 |
					       COSHM_ATTEMPT_CRASHED);
		COSHM__CRASH_POINT(QUEUE_REAP_LOGGED);
	}
	if (attempts >> 32 != s->lease &&
	    coshm__a64_cas_relaxed(&record->attempts, &attempts,
				   (uint64_t)s->lease << 32 | s->total))
		coshm__count(op, q->counters, COSHM__STAT_QUEUE_crashed, 1);
	COSHM__CRASH_POINT(QUEUE_REAP_COUNTED);
}

/*
 * A worker that dies says little about the task at its hands: that comes back at once. Two that die one after the other
 * over the same task say that it may be what kills them: that waits. So does a failure that was told, and a task whose
 * attempt before is not known any more.
 */
static uint64_t retry_delay_ns(const struct coshm__op *op, const struct coshm__queue *q,
			       uint32_t index, const struct snapshot *s)
{
	const struct coshm__record_shm *record = &q->records[index];
	uint32_t failed = s->total - (uint32_t)s->base;
	int told = s->status >> 32 == s->lease && (s->status & 0xf) == COSHM_ATTEMPT_FAILED;
	int failed_before = (s->before >> 4 & 0xfffffff) == ((s->total - 1) & 0xfffffff) &&
			    (s->before & 0xf) == COSHM_ATTEMPT_FAILED;

	if (!told && (failed == 1 || failed_before))
		return 0;
	return coshm__queue_backoff_ns(
		op->segment, q, coshm__task_id(coshm__a64_load_relaxed(&record->sequence), index),
		failed);
}

/* LEASED or FINISH of the dead: a failed attempt. */
static void reap_lease(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t now_ns = coshm__queue_now_ns(op->segment);
	struct snapshot s;
	uint32_t failed;
	uint64_t delay_ns, due;

	if (!snapshot_take(q, index, word, &s))
		return;
	crash_log(op, q, index, &s, now_ns);
	failed = s.total - (uint32_t)s.base;
	if (failed >= coshm__a32_load_relaxed(&record->max_attempts)) {
		if (coshm__record_cas(record, &word,
				      coshm__record_next(word, 0, COSHM__RECORD_DEAD))) {
			COSHM__CRASH_POINT(QUEUE_REAP_DEAD);
			coshm__count(op, q->counters, COSHM__STAT_QUEUE_buried, 1);
		}
		return;
	}
	if (!coshm__stamp_is_of(s.due, s.lease)) {
		delay_ns = retry_delay_ns(op, q, index, &s);
		due = s.due;
		/* relaxed: published by the flag that comes next */
		coshm__a64_cas_relaxed(&record->due, &due,
				       coshm__stamp(s.lease, coshm__due_us(now_ns, delay_ns)));
		COSHM__CRASH_POINT(QUEUE_REAP_DUE);
	}
	coshm__queue_delay(op, q, index, word, now_ns);
}

/*
 * BUILD or CLEAN of the dead: all blocks of this life, then the record. Dead members own few of these, one for each
 * thread that was inside a call. 1 done, 0 the budget is spent.
 */
static int reap_blocks(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word,
		       uint32_t *position, uint64_t *budget)
{
	struct coshm__record_shm *record = &q->records[index];
	uint32_t build_ticket = coshm__record_state(word) == COSHM__RECORD_BUILD
					? coshm__record_ticket(word)
					: coshm__a32_load_relaxed(&record->build_ticket);
	uint64_t next = coshm__record_next(word, coshm__id24(op->member_id), COSHM__RECORD_FREEPUB);

	/* The ticket is of this life. */
	coshm__acquire_fence();
	if (coshm__a64_load_relaxed(&record->word) != word)
		return 1;
	if (!coshm__blocks_reap(q, index, build_ticket, position, budget))
		return 0;
	if (coshm__record_cas(record, &word, next)) {
		COSHM__CRASH_POINT(QUEUE_REAP_FREEPUB);
		coshm__queue_free(q, index, next);
	}
	return 1;
}

/* One step for one record. 1 look at it again, 0 the budget is spent. */
static int reap_step(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word,
		     uint32_t *position, uint64_t *budget)
{
	switch (coshm__record_state(word)) {
	case COSHM__RECORD_BUILD:
	case COSHM__RECORD_CLEAN:
		return reap_blocks(op, q, index, word, position, budget);
	case COSHM__RECORD_LEASED:
	case COSHM__RECORD_FINISH:
		reap_lease(op, q, index, word);
		return 1;
	case COSHM__RECORD_PUBLISH:
		coshm__queue_publish(op, q, index, word);
		return 1;
	case COSHM__RECORD_FREEPUB:
		coshm__queue_free(q, index, word);
		return 1;
	default:
		/* Damage: no state of an owner. Without it nothing names the member any more. */
		coshm__record_cas(&q->records[index], &word,
				  coshm__record_next(word, 0, coshm__record_state(word)));
		return 1;
	}
}

int coshm__queue_reap(struct coshm__op *op, struct coshm__handle *handle, uint32_t dead_id,
		      uint64_t *cursor, uint64_t budget)
{
	struct coshm__queue *q = handle->local;
	uint32_t owner = coshm__id24(dead_id);
	uint32_t index = (uint32_t)(*cursor >> 32), position = (uint32_t)*cursor;

	/* cursor: record in the high half, block in the low one */
	while (index < q->capacity) {
		uint64_t word = coshm__record_load(&q->records[index]); /* [Q1] */

		if (coshm__record_owner(word) != owner) {
			index++;
			position = 0;
			if (budget == 0)
				break;
			budget--;
		} else if (!reap_step(op, q, index, word, &position, &budget)) {
			break;
		}
	}
	*cursor = (uint64_t)index << 32 | position;
	return index >= q->capacity;
}
