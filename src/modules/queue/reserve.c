/* SPDX-License-Identifier: MIT */
/* Reserve: lease the next task; wait for one. */
#include "base/futex.h"
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>

struct coshm__a32 coshm__queue_leased_here[COSHM__SEGMENTS_MAX][COSHM__ENTRY_COUNT];

#define SPIN_CHECK 32 /* looks at the ring for one look at the clock */

/* 1 leased, 0 there is none. */
static int take(struct coshm__op *op, struct coshm__queue *q, uint64_t now_ns, uint32_t *ret_index,
		uint64_t *ret_word)
{
	uint32_t owner = coshm__id24(op->member_id);
	/* relaxed: a bound that is missed here is found at the next look, and before sleeping */
	int due = now_ns / 1000 >= coshm__bound_us(coshm__a64_load_relaxed(&q->shm->due_top));

	if (coshm__unlikely(due)) {
		/* By turns, so that neither retries nor new tasks starve the other. relaxed: fair enough */
		uint32_t turn = coshm__a32_load_relaxed(&q->turn);

		coshm__a32_store_relaxed(&q->turn, turn + 1);
		if (turn % 2 == 0) {
			if (coshm__queue_claim_due(q, owner, now_ns, ret_index, ret_word))
				return 1;
			due = 0;
		}
	}
	if (coshm__likely(coshm__queue_claim(q, &q->ready, COSHM__TAKEABLE_READY, owner,
					     COSHM__RECORD_LEASED, ret_index, ret_word)))
		return 1;
	return due ? coshm__queue_claim_due(q, owner, now_ns, ret_index, ret_word) : 0;
}

static void deliver(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word,
		    uint64_t now_ns, struct coshm_task *ret_task)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t attempts = coshm__a64_load_relaxed(&record->attempts);
	uint64_t base = coshm__a64_load_relaxed(&record->attempts_base);
	uint64_t size_bytes = coshm__a32_load_relaxed(&record->payload_size_bytes);
	struct coshm__a32 *leased_here =
		&coshm__queue_leased_here[op->segment->index][op->handle->entry_index];

	/* relaxed: read when no thread is inside any more */
	if (coshm__unlikely(!coshm__a32_load_relaxed(leased_here)))
		coshm__a32_store_relaxed(leased_here, 1);
	/* relaxed: for display only; the ticket before the lease's marks it as the beginning */
	coshm__a64_store_relaxed(&record->due,
				 coshm__stamp(coshm__record_ticket(word) - 1, now_ns / 1000));
	COSHM__CRASH_POINT(QUEUE_LEASE_STAMPED);
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_reserved, 1);
	*ret_task = (struct coshm_task){
		.id = coshm__task_id(coshm__a64_load_relaxed(&record->sequence), index),
		/* A damaged one must not make callers allocate more than any payload takes. */
		.payload_size_bytes =
			size_bytes < q->payload_max_bytes ? size_bytes : q->payload_max_bytes,
		.enqueued_at_ns = coshm__a64_load_relaxed(&record->enqueued_at_ns),
		.attempt = (uint32_t)attempts - (uint32_t)base + 1,
		.max_attempts = coshm__a32_load_relaxed(&record->max_attempts),
		.opaque = {word, (uint64_t)op->handle->entry_index << 32 | index,
			   op->handle->entry_word},
	};
	/* Whoever should have woken another one may be dead. relaxed: then the tick does it */
	if (coshm__unlikely(coshm__a32_load_relaxed(&q->shm->event) & COSHM__EVENT_SLEEPERS) &&
	    coshm__hint_ring_recheck(&q->ready))
		coshm__queue_wake_one(op, q);
	if (coshm__unlikely(coshm__a32_load_relaxed(&q->shm->unhinted)))
		coshm__queue_sweep(op, q, now_ns);
}

/* As take, with the exact time, and after a sweep where one is due. */
static int take_thoroughly(struct coshm__op *op, struct coshm__queue *q, uint64_t now_ns,
			   uint32_t *ret_index, uint64_t *ret_word)
{
	if (coshm__queue_claim_due(q, coshm__id24(op->member_id), now_ns, ret_index, ret_word))
		return 1;
	coshm__queue_sweep(op, q, now_ns);
	return take(op, q, now_ns, ret_index, ret_word);
}

/* 1 as soon as there is a hint, 0 after the time. */
static int spin(struct coshm__queue *q, const struct coshm__segment *segment, uint64_t for_ns)
{
	uint64_t position, end_ns = coshm__now_ns(segment) + for_ns;
	uint32_t index;

	for (unsigned int n = 1;; n++) {
		if (coshm__hint_ring_peek(&q->ready, &position, &index))
			return 1;
		coshm__cpu_pause();
		if (n % SPIN_CHECK == 0 && coshm__now_ns(segment) >= end_ns)
			return 0;
	}
}

struct wait {
	uint64_t deadline_ns;
	uint64_t spin_ns; /* left of it */
	const struct coshm__a32 *stop_count;
	uint32_t stop_seen;
};

/*
 * Sleeps until somebody wakes us, something is due, or a tick is over; less if something turns up first. Ends the operation
 * and begins it again. 0; -EINTR; what coshm__op_begin returns, and then the operation is over.
 */
static int sleep_once(struct coshm__op *op, struct coshm_queue *token, const struct wait *wait,
		      uint64_t now_ns)
{
	struct coshm__queue *q = op->handle->local;
	struct coshm__a32 *event = &q->shm->event;
	uint32_t mark, seen = coshm__a32_load_relaxed(event);
	uint64_t for_ns = COSHM__SLEEP_TICK_NS, due_ns;
	int error, woken = 0;

	do {
		mark = (seen + COSHM__EVENT_STEP) | COSHM__EVENT_SLEEPERS;
		/* [Q12] seq_cst, pairs [Q11]; before the last look for a task */
	} while (!coshm__a32_cas_seq_cst(event, &seen, mark));
	COSHM__CRASH_POINT(QUEUE_SLEEPER_MARKED);
	due_ns = coshm__queue_next_due_ns(q);
	if (coshm__hint_ring_recheck(&q->ready) || due_ns <= now_ns ||
	    coshm__a32_load_seq_cst(&q->shm->removed) || /* [Q15] seq_cst, pairs [Q16] */
	    (wait->stop_count && coshm__a32_load_relaxed(wait->stop_count) != wait->stop_seen))
		return 0;
	if (for_ns > wait->deadline_ns - now_ns)
		for_ns = wait->deadline_ns - now_ns;
	if (for_ns > due_ns - now_ns)
		for_ns = due_ns - now_ns;
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_sleeps, 1);
	coshm__op_end(op);
	woken = coshm__futex_wait(event, mark, for_ns);
	error = coshm__op_begin(op, token, COSHM_OBJECT_QUEUE);
	return error ? error : woken == -EINTR ? -EINTR : 0;
}

/* Inside an operation, which is over when this returns. */
static int reserve_or_wait(struct coshm__op *op, struct coshm_queue *token, uint64_t timeout_ns,
			   struct wait *wait, struct coshm_task *ret_task)
{
	struct coshm__queue *q = op->handle->local;
	uint64_t word, now_ns = coshm__queue_now_coarse_ns(op->segment);
	uint32_t index;
	int result, found = take(op, q, now_ns, &index, &word);

	coshm__tick(op, now_ns);
	wait->spin_ns = q->spin_ns;
	while (coshm__unlikely(!found)) {
		now_ns = coshm__queue_now_ns(op->segment);
		coshm__tick(op, now_ns);
		if (take_thoroughly(op, q, now_ns, &index, &word))
			break;
		result = 0;
		if (coshm__a32_load_relaxed(&q->shm->removed) &&
		    coshm__queue_next_due_ns(q) == UINT64_MAX)
			result = -ESHUTDOWN;
		if (!wait->deadline_ns)
			wait->deadline_ns =
				timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX;
		if (result || now_ns >= wait->deadline_ns ||
		    (wait->stop_count &&
		     coshm__a32_load_relaxed(wait->stop_count) != wait->stop_seen)) {
			coshm__op_end(op);
			return result;
		}
		if (wait->spin_ns > wait->deadline_ns - now_ns)
			wait->spin_ns = wait->deadline_ns - now_ns;
		if (wait->spin_ns) {
			spin(q, op->segment, wait->spin_ns);
			wait->spin_ns = 0;
			found = take(op, q, now_ns, &index, &word);
			continue;
		}
		result = sleep_once(op, token, wait, now_ns);
		if (result == -EINTR)
			coshm__op_end(op);
		if (result)
			return result;
		q = op->handle->local;
	}
	deliver(op, q, index, word, now_ns, ret_task);
	coshm__op_end(op);
	return 1;
}

int coshm__queue_reserve(struct coshm_queue *token, uint64_t timeout_ns,
			 const struct coshm__a32 *stop_count, uint32_t stop_seen,
			 struct coshm_task *ret_task)
{
	struct wait wait = {.stop_count = stop_count, .stop_seen = stop_seen};
	struct coshm__op op;
	int error = coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE);

	return error ? error : reserve_or_wait(&op, token, timeout_ns, &wait, ret_task);
}

int coshm_queue_reserve(struct coshm_queue *queue, uint64_t timeout_ns, struct coshm_task *ret_task)
{
	if (coshm__unlikely(!ret_task))
		return coshm__fail(-EINVAL, "queue: ret_task is NULL");
	return coshm__queue_reserve(queue, timeout_ns, NULL, 0, ret_task);
}
