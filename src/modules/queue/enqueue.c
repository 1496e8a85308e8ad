/* SPDX-License-Identifier: MIT */
/* Enqueue: claim a record, fill it, publish it. Commit: the store of PUBLISH, or DELAYED. */
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>

#define DELAY_LIMIT_NS \
	(UINT64_C(1) << 57) /* four years: due times fit into 48 bits of microseconds */

struct order {
	const void *payload;
	uint64_t size_bytes;
	uint64_t delay_ns;
	uint32_t max_attempts;
};

static int order_read(struct order *order, const struct coshm_enqueue_options *callers)
{
	struct coshm_enqueue_options options;
	int error = coshm__read_struct(&options, sizeof(options), sizeof(options), callers);

	if (!error && options.delay_ns > DELAY_LIMIT_NS)
		error = coshm__fail(-EINVAL, "queue: delay_ns is at most four years");
	if (error)
		return error;
	order->delay_ns = options.delay_ns;
	order->max_attempts = options.max_attempts;
	return 0;
}

/* A free record in BUILD. When there is none, hints may be missing or a dead member may keep some. */
static int claim_free(struct coshm__op *op, struct coshm__queue *q, uint64_t now_ns,
		      uint32_t *ret_index, uint64_t *ret_word)
{
	uint32_t owner = coshm__id24(op->member_id);

	if (coshm__likely(coshm__queue_claim(q, &q->free, COSHM__TAKEABLE_FREE, owner,
					     COSHM__RECORD_BUILD, ret_index, ret_word)))
		return 1;
	coshm__tick(op, now_ns);
	coshm__queue_sweep(op, q, now_ns);
	return coshm__queue_claim(q, &q->free, COSHM__TAKEABLE_FREE, owner, COSHM__RECORD_BUILD,
				  ret_index, ret_word);
}

/* In BUILD: all fields. 0, or -EAGAIN: no room for the payload. */
static int fill(struct coshm__queue *q, uint32_t index, uint64_t word, const struct order *order,
		uint64_t now_ns, uint64_t *ret_id)
{
	struct coshm__record_shm *record = &q->records[index];
	uint64_t ticket = coshm__record_ticket(word);
	uint64_t sequence = coshm__a64_load_relaxed(&record->sequence) + 1;

	/* relaxed throughout: published by the record's word */
	coshm__record_writes_begin();
	coshm__a64_store_relaxed(&record->sequence, sequence);
	coshm__a64_store_relaxed(&record->enqueued_at_ns, now_ns);
	coshm__a64_store_relaxed(&record->attempts, ticket << 32);
	coshm__a64_store_relaxed(&record->attempts_base, ticket << 32);
	coshm__a32_store_relaxed(&record->payload_size_bytes, (uint32_t)order->size_bytes);
	coshm__a32_store_relaxed(&record->max_attempts,
				 order->max_attempts ? order->max_attempts : q->max_attempts);
	*ret_id = coshm__task_id(sequence, index);
	COSHM__CRASH_POINT(QUEUE_BUILT);
	return coshm__blocks_store(q, index, (uint32_t)ticket, order->payload, order->size_bytes);
}

static void commit_delayed(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			   uint64_t word, uint64_t delay_ns)
{
	uint64_t now_ns = coshm__queue_now_ns(op->segment);

	coshm__a64_store_relaxed(
		&q->records[index].due,
		coshm__stamp(coshm__record_ticket(word), coshm__due_us(now_ns, delay_ns)));
	coshm__queue_delay(op, q, index, word, now_ns);
}

static void commit_ready(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			 uint64_t word)
{
	uint64_t published =
		coshm__record_next(word, coshm__id24(op->member_id), COSHM__RECORD_PUBLISH);

	coshm__record_store(&q->records[index], published);
	COSHM__CRASH_POINT(QUEUE_PUBLISHED);
	coshm__queue_publish(op, q, index, published);
}

static void give_back(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word)
{
	uint64_t freepub =
		coshm__record_next(word, coshm__id24(op->member_id), COSHM__RECORD_FREEPUB);

	coshm__record_store(&q->records[index], freepub);
	COSHM__CRASH_POINT(QUEUE_FREEPUB);
	coshm__queue_free(q, index, freepub);
}

static int enqueue(struct coshm__op *op, struct coshm__queue *q, const struct order *order,
		   uint64_t *ret_id)
{
	uint64_t word, id, now_ns = coshm__queue_now_coarse_ns(op->segment);
	uint32_t index;

	if (coshm__unlikely(order->size_bytes > q->payload_max_bytes))
		return coshm__fail(-EMSGSIZE, "a payload of %llu bytes, the queue takes %llu",
				   (unsigned long long)order->size_bytes,
				   (unsigned long long)q->payload_max_bytes);
	/* relaxed: whoever enqueues while the queue is being removed may come before or after */
	if (coshm__unlikely(coshm__a32_load_relaxed(&q->shm->removed)))
		return -ESHUTDOWN;
	if (coshm__unlikely(!claim_free(op, q, now_ns, &index, &word))) {
		coshm__count(op, q->counters, COSHM__STAT_QUEUE_full, 1);
		return -EAGAIN;
	}
	if (coshm__unlikely(fill(q, index, word, order, now_ns, &id))) {
		give_back(op, q, index, word);
		coshm__queue_sweep(op, q, now_ns);
		coshm__tick(op, now_ns);
		coshm__count(op, q->counters, COSHM__STAT_QUEUE_full, 1);
		return -EAGAIN;
	}
	/* Counted first: a task that was run is never missing in the count of those that were accepted. */
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_enqueued, 1);
	if (coshm__unlikely(order->delay_ns))
		commit_delayed(op, q, index, word, order->delay_ns);
	else
		commit_ready(op, q, index, word);
	coshm__tick(op, now_ns);
	if (ret_id)
		*ret_id = id;
	return 0;
}

int coshm_queue_enqueue(struct coshm_queue *queue, const void *payload, size_t payload_size_bytes,
			const struct coshm_enqueue_options *options, uint64_t *ret_id)
{
	struct order order = {.payload = payload, .size_bytes = payload_size_bytes};
	struct coshm__op op;
	int error;

	if (coshm__unlikely(!payload && payload_size_bytes))
		return coshm__fail(-EINVAL, "queue: payload is NULL, its size is not 0");
	if (coshm__unlikely(options != NULL)) {
		error = order_read(&order, options);
		if (error)
			return error;
	}
	error = coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE);
	if (error)
		return error;
	error = enqueue(&op, op.handle->local, &order, ret_id);
	coshm__op_end(&op);
	return error;
}
