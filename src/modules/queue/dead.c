/* SPDX-License-Identifier: MIT */
/* Dead letters: redrive and drop. */
#include "modules/queue/queue.h"

#include <errno.h>

/*
 * Makes it ready again. The attempts so far become the base from which counting starts; by CAS, so that somebody who sleeps
 * between the steps and wakes up in another life of the record changes nothing.
 */
static int redrive(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t base = coshm__a64_load_relaxed(&record->attempts_base);
	uint32_t total = (uint32_t)coshm__a64_load_relaxed(&record->attempts);
	uint64_t next;

	/* Both are of this dead letter if the word is, on a second look after them. */
	coshm__acquire_fence();
	if (coshm__a64_load_relaxed(&record->word) != word)
		return 0;
	/* relaxed: published by the word. Lost: somebody else redrives it. */
	coshm__a64_cas_relaxed(&record->attempts_base, &base,
			       (uint64_t)coshm__record_ticket(word) << 32 | total);
	COSHM__CRASH_POINT(QUEUE_REDRIVE_BASED);
	next = coshm__record_next(word, coshm__id24(op->member_id), COSHM__RECORD_PUBLISH);
	if (!coshm__record_cas(record, &word, next))
		return 0;
	COSHM__CRASH_POINT(QUEUE_REDRIVEN);
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_redriven, 1);
	coshm__queue_publish(op, q, index, next);
	return 1;
}

static int drop(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t next = coshm__record_next(word, coshm__id24(op->member_id), COSHM__RECORD_CLEAN);

	if (!coshm__record_cas(record, &word, next))
		return 0;
	COSHM__CRASH_POINT(QUEUE_DROPPED);
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_dropped, 1);
	coshm__queue_clean(q, index, next);
	return 1;
}

typedef int dead_action(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			uint64_t word);

/* Does it to the dead letter at this index, if it is one, and the right one. */
static int act(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t id,
	       dead_action *action)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t word = coshm__record_load(record); /* [Q1] */

	if (coshm__record_state(word) != COSHM__RECORD_DEAD)
		return 0;
	/* relaxed: const until the word changes, from which the action starts */
	if (id && coshm__task_id(coshm__a64_load_relaxed(&record->sequence), index) != id)
		return 0;
	return action(op, q, index, word);
}

static int act_on_dead(struct coshm_queue *queue, uint64_t id, uint64_t *ret_count,
		       dead_action *action)
{
	struct coshm__op op;
	struct coshm__queue *q;
	uint64_t count = 0;
	uint32_t index = (uint32_t)(id & 0xffff);
	int error = coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE);

	if (error)
		return error;
	q = op.handle->local;
	if (id == 0) {
		for (index = 0; index < q->capacity; index++)
			count += (uint64_t)act(&op, q, index, 0, action);
	} else {
		if (index < q->capacity)
			count = (uint64_t)act(&op, q, index, id, action);
		if (!count)
			error = -ENOENT;
	}
	coshm__op_end(&op);
	if (!error && ret_count)
		*ret_count = count;
	return error;
}

int coshm_queue_redrive(struct coshm_queue *queue, uint64_t id, uint64_t *ret_count)
{
	return act_on_dead(queue, id, ret_count, redrive);
}

int coshm_queue_drop(struct coshm_queue *queue, uint64_t id, uint64_t *ret_count)
{
	return act_on_dead(queue, id, ret_count, drop);
}
