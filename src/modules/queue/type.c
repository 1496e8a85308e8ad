/* SPDX-License-Identifier: MIT */
/* The queue as a kind of object: what the segment layer calls. */
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#define SPIN_NS UINT64_C(25000) /* about what a sleep and a wake-up cost both sides */

static uint64_t spin_choose_ns(void)
{
	cpu_set_t cpus;

	/* On one CPU whoever spins keeps the other from running. */
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 2)
		return 0;
	return SPIN_NS;
}

static void ring_set(struct coshm__hint_ring *ring, void *shm, uint64_t record_count)
{
	ring->shm = shm;
	ring->entry_count = coshm__hint_ring_entry_count(record_count);
}

static int attach(struct coshm__handle *handle)
{
	struct coshm__queue_layout layout;
	unsigned char *base = handle->object;
	struct coshm__queue_shm shm;
	struct coshm__queue *q;

	if (handle->size_bytes < sizeof(shm))
		return coshm__fail(-EUCLEAN, "too small for a queue");
	/* One private copy: what is checked is what is used. */
	__builtin_memcpy(&shm, base, offsetof(struct coshm__queue_shm, event));
	if (!coshm__queue_check(&shm))
		return coshm__fail(-EUCLEAN, "no queue, or its header is damaged");
	coshm__queue_layout(&shm, &layout);
	if (layout.size_bytes > handle->size_bytes)
		return coshm__fail(-EUCLEAN, "the queue is larger than its memory");
	q = aligned_alloc(64, (sizeof(*q) + 63) / 64 * 64);
	if (!q)
		return -ENOMEM;
	*q = (struct coshm__queue){
		.shm = handle->object,
		.counters = (void *)(base + layout.counters),
		.records = (void *)(base + layout.records),
		.attempts = (void *)(base + layout.attempts),
		.due_min = (void *)(base + layout.due_min),
		.block_words = (void *)(base + layout.block_words),
		.block_next = (void *)(base + layout.block_next),
		.blocks = base + layout.blocks,
		.capacity = (uint32_t)shm.capacity,
		.group_count =
			(uint32_t)((shm.capacity + COSHM__QUEUE_GROUP - 1) / COSHM__QUEUE_GROUP),
		.block_count = (uint32_t)shm.block_count,
		.block_size_bytes = (uint32_t)shm.block_size_bytes,
		.attempt_record_count = shm.attempt_record_count,
		.max_attempts = shm.max_attempts,
		.payload_max_bytes = shm.payload_max_bytes,
		.backoff_base_ns = shm.backoff_base_ns,
		.backoff_max_ns = shm.backoff_max_ns,
		.backoff_kind = shm.backoff_kind,
		.backoff_jitter_percent = shm.backoff_jitter_percent,
		.spin_ns = spin_choose_ns(),
	};
	ring_set(&q->free, base + layout.free_ring, shm.capacity);
	ring_set(&q->ready, base + layout.ready_ring, shm.capacity);
	ring_set(&q->block_ring, base + layout.block_ring, shm.block_count);
	handle->local = q;
	return 0;
}

static void detach(struct coshm__handle *handle)
{
	free(handle->local);
	handle->local = NULL;
}

static void removed(struct coshm__handle *handle)
{
	struct coshm__queue *q = handle->local;

	coshm__a32_store_seq_cst(&q->shm->removed, 1); /* [Q16] seq_cst, pairs [Q15] */
	COSHM__CRASH_POINT(QUEUE_REMOVED);
	coshm__queue_wake_all(q);
}

/* No thread of this process is inside any more, so of what it owns only leases can be left. */
static void leave(struct coshm__op *op, struct coshm__handle *handle)
{
	struct coshm__queue *q = handle->local;
	struct coshm__a32 *leased_here =
		&coshm__queue_leased_here[op->segment->index][handle->entry_index];
	uint32_t owner = coshm__id24(op->member_id);

	if (!coshm__a32_load_relaxed(leased_here))
		return;
	for (uint32_t index = 0; index < q->capacity; index++) {
		uint64_t word = coshm__record_load(&q->records[index]); /* [Q1] */

		if (coshm__record_owner(word) == owner &&
		    coshm__record_state(word) == COSHM__RECORD_LEASED)
			coshm__queue_release_lease(op, q, index, word);
	}
	coshm__a32_store_relaxed(leased_here, 0);
}

static struct coshm__counters_shm *counters(struct coshm__handle *handle)
{
	return ((struct coshm__queue *)handle->local)->counters;
}

const struct coshm__object_type coshm__queue_type = {
	.type = COSHM_OBJECT_QUEUE,
	.name = "queue",
	.layout_fingerprint = sizeof(struct coshm__queue_shm) << 32 |
			      sizeof(struct coshm__record_shm) << 16 |
			      sizeof(struct coshm__attempt_shm),
	.attach = attach,
	.detach = detach,
	.removed = removed,
	.leave = leave,
	.reap = coshm__queue_reap,
	.holdings = coshm__queue_holdings,
	.verify = coshm__queue_verify,
	.counters = counters,
	.gauge = coshm__queue_gauge,
};
