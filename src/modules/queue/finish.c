/* SPDX-License-Identifier: MIT */
/*
 * How leases end. Commit of ack: the CAS from LEASED. Of nack and bury: the store of DELAYED or DEAD; who dies before
 * it has not said anything, and the attempt counts as crashed.
 */
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>
#include <string.h>

#define DELAY_LIMIT_NS (UINT64_C(1) << 57)

static int no_task(void)
{
	return coshm__fail(-EINVAL, "queue: task is NULL");
}

/* The record of a lease that is this process's; its word must still be *ret_word. 0, -ESTALE */
static int lease_find(const struct coshm__op *op, const struct coshm__queue *q,
		      const struct coshm_task *task, uint32_t *ret_index, uint64_t *ret_word)
{
	uint64_t word = task->opaque[0];
	uint32_t index = (uint32_t)task->opaque[1];

	if (coshm__unlikely(index >= q->capacity ||
			    task->opaque[1] >> 32 != op->handle->entry_index ||
			    task->opaque[2] != op->handle->entry_word ||
			    coshm__record_state(word) != COSHM__RECORD_LEASED ||
			    coshm__record_owner(word) != coshm__id24(op->member_id)))
		return -ESTALE;
	*ret_index = index;
	*ret_word = word;
	return 0;
}

/* LEASED -> @state. 0, or -ESTALE: the lease was ended before. */
static int lease_end(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t *word,
		     uint32_t state)
{
	uint64_t next = coshm__record_next(*word, coshm__id24(op->member_id), state);

	if (!coshm__record_cas(&q->records[index], word, next))
		return -ESTALE;
	*word = next;
	return 0;
}

void coshm__queue_clean(struct coshm__queue *q, uint32_t index, uint64_t word)
{
	if (coshm__record_state(word) == COSHM__RECORD_CLEAN) {
		coshm__blocks_free(q, index);
		word = coshm__record_next(word, coshm__record_owner(word), COSHM__RECORD_FREEPUB);
		coshm__record_store(&q->records[index], word);
		COSHM__CRASH_POINT(QUEUE_FREEPUB);
	}
	coshm__queue_free(q, index, word);
}

/* Without blocks there is nothing to clean. */
static uint32_t state_after_ack(const struct coshm__queue *q, uint32_t index)
{
	return coshm__a32_load_relaxed(&q->records[index].first_block) ? COSHM__RECORD_CLEAN
								       : COSHM__RECORD_FREEPUB;
}

int coshm_queue_ack(struct coshm_queue *queue, const struct coshm_task *task)
{
	struct coshm__op op;
	struct coshm__queue *q;
	uint64_t word;
	uint32_t index;
	int error = task ? coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE) : no_task();

	if (error)
		return error;
	q = op.handle->local;
	error = lease_find(&op, q, task, &index, &word);
	if (!error)
		error = lease_end(&op, q, index, &word, state_after_ack(q, index));
	if (!error) {
		COSHM__CRASH_POINT(QUEUE_ACKED);
		coshm__count(&op, q->counters, COSHM__STAT_QUEUE_acked, 1);
		coshm__queue_clean(q, index, word);
	}
	coshm__op_end(&op);
	return error;
}

int coshm__queue_release_lease(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			       uint64_t word)
{
	int error = lease_end(op, q, index, &word, COSHM__RECORD_PUBLISH);

	if (error)
		return error;
	COSHM__CRASH_POINT(QUEUE_RELEASED);
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_released, 1);
	coshm__queue_publish(op, q, index, word);
	return 0;
}

int coshm_queue_release(struct coshm_queue *queue, const struct coshm_task *task)
{
	struct coshm__op op;
	uint64_t word;
	uint32_t index;
	int error = task ? coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE) : no_task();

	if (error)
		return error;
	error = lease_find(&op, op.handle->local, task, &index, &word);
	if (!error)
		error = coshm__queue_release_lease(&op, op.handle->local, index, word);
	coshm__op_end(&op);
	return error;
}

/* In FINISH: the failed attempt into the log, and counted. Returns how many have failed since the last redrive. */
static uint32_t failure_log(struct coshm__queue *q, uint32_t index, uint64_t word,
			    const char *error, uint64_t now_ns)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t lease = coshm__record_lease_ticket(word);
	uint32_t total = (uint32_t)coshm__a64_load_relaxed(&record->attempts) + 1;
	uint32_t base = (uint32_t)coshm__a64_load_relaxed(&record->attempts_base);
	struct coshm__attempt_shm *attempt = coshm__queue_attempt(q, index, total);
	uint64_t text[COSHM__QUEUE_ERROR_BYTES / 8] = {0};

	if (error)
		memcpy(text, error, strnlen(error, sizeof(text) - 1));
	coshm__record_writes_begin();
	/* relaxed: published by the record's word; a reaper comes only when we are dead */
	for (unsigned int i = 0; i < COSHM__QUEUE_ERROR_BYTES / 8; i++)
		coshm__a64_store_relaxed(&attempt->text[i], text[i]);
	coshm__a64_store_relaxed(&attempt->ended, coshm__stamp((uint32_t)lease, now_ns / 1000));
	COSHM__CRASH_POINT(QUEUE_FAILURE_WRITTEN);
	coshm__a64_store_relaxed(&attempt->status, lease << 32 |
							   (uint64_t)(total & 0xfffffff) << 4 |
							   COSHM_ATTEMPT_FAILED);
	COSHM__CRASH_POINT(QUEUE_FAILURE_LOGGED);
	coshm__a64_store_relaxed(&record->attempts, lease << 32 | total);
	COSHM__CRASH_POINT(QUEUE_FAILURE_COUNTED);
	return total - base;
}

static void bury(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word)
{
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_buried, 1);
	coshm__record_store(&q->records[index], coshm__record_next(word, 0, COSHM__RECORD_DEAD));
	COSHM__CRASH_POINT(QUEUE_DEAD);
}

/* delay_ns: COSHM_FOREVER takes the queue's backoff. */
static void fail(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word,
		 const char *error, uint64_t delay_ns, int hopeless)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t now_ns = coshm__queue_now_ns(op->segment);
	uint32_t failed = failure_log(q, index, word, error, now_ns);

	coshm__count(op, q->counters, COSHM__STAT_QUEUE_failed, 1);
	if (hopeless || failed >= coshm__a32_load_relaxed(&record->max_attempts)) {
		bury(op, q, index, word);
		return;
	}
	if (delay_ns == COSHM_FOREVER)
		delay_ns = coshm__queue_backoff_ns(
			op->segment, q,
			coshm__task_id(coshm__a64_load_relaxed(&record->sequence), index), failed);
	/* relaxed: published by the flag in the record's word */
	coshm__a64_store_relaxed(&record->due, coshm__stamp(coshm__record_lease_ticket(word),
							    coshm__due_us(now_ns, delay_ns)));
	COSHM__CRASH_POINT(QUEUE_DUE_SET);
	coshm__queue_delay(op, q, index, word, now_ns);
}

static int finish(struct coshm_queue *queue, const struct coshm_task *task, const char *text,
		  uint64_t delay_ns, int hopeless)
{
	struct coshm__op op;
	uint64_t word;
	uint32_t index;
	int error = task ? coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE) : no_task();

	if (error)
		return error;
	error = lease_find(&op, op.handle->local, task, &index, &word);
	if (!error)
		error = lease_end(&op, op.handle->local, index, &word, COSHM__RECORD_FINISH);
	if (!error) {
		COSHM__CRASH_POINT(QUEUE_FINISHING);
		fail(&op, op.handle->local, index, word, text, delay_ns, hopeless);
	}
	coshm__op_end(&op);
	return error;
}

int coshm_queue_nack(struct coshm_queue *queue, const struct coshm_task *task, const char *error,
		     uint64_t delay_ns)
{
	if (delay_ns != COSHM_FOREVER && delay_ns > DELAY_LIMIT_NS)
		return coshm__fail(-EINVAL,
				   "queue: delay_ns is COSHM_FOREVER or at most four years");
	return finish(queue, task, error, delay_ns, 0);
}

int coshm_queue_bury(struct coshm_queue *queue, const struct coshm_task *task, const char *error)
{
	return finish(queue, task, error, 0, 1);
}

int coshm_queue_payload(struct coshm_queue *queue, const struct coshm_task *task, void *buffer,
			size_t *size_bytes)
{
	struct coshm__op op;
	struct coshm__queue *q;
	uint64_t word, needed;
	uint32_t index;
	int error = !task	 ? no_task()
		    : size_bytes ? coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE)
				 : coshm__fail(-EINVAL, "queue: size_bytes is NULL");

	if (error)
		return error;
	q = op.handle->local;
	error = lease_find(&op, q, task, &index, &word);
	if (!error && coshm__record_load(&q->records[index]) != word)
		error = -ESTALE;
	if (error)
		goto out;
	needed = coshm__a32_load_relaxed(&q->records[index].payload_size_bytes);
	if (needed > q->payload_max_bytes)
		error = -EUCLEAN;
	else if (needed > *size_bytes || (needed && !buffer))
		error = -ENOBUFS;
	if (!error)
		error = coshm__blocks_load(q, index, buffer, needed);
	/* The copy before the second look. Another thread may have ended the lease meanwhile. */
	coshm__acquire_fence();
	if (coshm__a64_load_relaxed(&q->records[index].word) != word)
		error = -ESTALE;
	if (!error || error == -ENOBUFS)
		*size_bytes = (size_t)needed;
out:
	coshm__op_end(&op);
	return error;
}
