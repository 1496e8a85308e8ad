/* SPDX-License-Identifier: MIT */
/* Configuration, layout, and the first contents of a queue. */
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>
#include <string.h>

#define DELAY_MAX_NS \
	(UINT64_C(1) << 57) /* four years: due times fit into 48 bits of microseconds */

#define HOUR_NS (3600 * COSHM__NS_PER_S)

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

static uint64_t place(uint64_t *end, uint64_t size_bytes)
{
	uint64_t offset = (*end + 255) / 256 * 256;

	*end = offset + size_bytes;
	return offset;
}

void coshm__queue_layout(const struct coshm__queue_shm *shm, struct coshm__queue_layout *ret_layout)
{
	uint64_t end = sizeof(struct coshm__queue_shm);
	uint64_t n = shm->capacity, blocks = shm->block_count;

	ret_layout->counters = place(&end, sizeof(struct coshm__counters_shm));
	ret_layout->free_ring = place(&end, coshm__hint_ring_size_bytes(n));
	ret_layout->ready_ring = place(&end, coshm__hint_ring_size_bytes(n));
	ret_layout->block_ring = place(&end, coshm__hint_ring_size_bytes(blocks));
	ret_layout->due_min = place(&end, divide_up(n, COSHM__QUEUE_GROUP) * sizeof(uint64_t));
	ret_layout->block_words = place(&end, blocks * sizeof(uint64_t));
	ret_layout->block_next = place(&end, blocks * sizeof(uint32_t));
	ret_layout->attempts =
		place(&end, n * shm->attempt_record_count * sizeof(struct coshm__attempt_shm));
	ret_layout->records = place(&end, n * sizeof(struct coshm__record_shm));
	ret_layout->blocks = place(&end, blocks * shm->block_size_bytes);
	ret_layout->size_bytes = end;
}

int coshm__queue_check(const struct coshm__queue_shm *shm)
{
	return shm->magic == COSHM__QUEUE_MAGIC && shm->capacity >= 1 &&
	       shm->capacity <= COSHM__QUEUE_CAPACITY_MAX &&
	       shm->payload_max_bytes <= COSHM__QUEUE_PAYLOAD_LIMIT &&
	       shm->block_size_bytes >= COSHM__QUEUE_BLOCK_BYTES_MIN &&
	       shm->block_size_bytes <= COSHM__QUEUE_BLOCK_BYTES_MAX &&
	       shm->block_size_bytes % 8 == 0 && shm->block_count <= COSHM__QUEUE_BLOCKS_MAX &&
	       shm->payload_max_bytes <=
		       COSHM__QUEUE_INLINE_BYTES + shm->block_count * shm->block_size_bytes &&
	       shm->backoff_kind <= COSHM_BACKOFF_FIXED && shm->backoff_jitter_percent <= 100 &&
	       shm->max_attempts >= 1 && shm->attempt_record_count >= 1 &&
	       shm->attempt_record_count <= COSHM__QUEUE_ATTEMPTS_KEPT;
}

/* Everything that the caller left open gets its default; what cannot be is refused. */
static int config_complete(struct coshm_queue_config *config)
{
	if (config->capacity < 1 || config->capacity > COSHM__QUEUE_CAPACITY_MAX)
		return coshm__fail(-EINVAL, "queue: capacity is 1 to %d tasks",
				   COSHM__QUEUE_CAPACITY_MAX);
	if (!config->payload_max_bytes)
		config->payload_max_bytes = COSHM__QUEUE_INLINE_BYTES;
	if (config->payload_max_bytes > COSHM__QUEUE_PAYLOAD_LIMIT)
		return coshm__fail(-EINVAL, "queue: payload_max_bytes is at most 1 GiB");
	if (config->backoff_kind > COSHM_BACKOFF_FIXED)
		return coshm__fail(-EINVAL, "queue: backoff_kind %u is unknown",
				   config->backoff_kind);
	if (config->backoff_jitter_percent > 100)
		return coshm__fail(-EINVAL, "queue: backoff_jitter_percent is 0 to 100");
	if (!config->backoff_base_ns)
		config->backoff_base_ns = COSHM__NS_PER_S;
	if (!config->backoff_max_ns)
		config->backoff_max_ns =
			config->backoff_base_ns > HOUR_NS ? config->backoff_base_ns : HOUR_NS;
	if (config->backoff_max_ns > DELAY_MAX_NS)
		config->backoff_max_ns = DELAY_MAX_NS;
	if (config->backoff_base_ns > config->backoff_max_ns)
		return coshm__fail(-EINVAL,
				   "queue: backoff_base_ns is %llu, above backoff_max_ns, %llu",
				   (unsigned long long)config->backoff_base_ns,
				   (unsigned long long)config->backoff_max_ns);
	if (!config->max_attempts)
		config->max_attempts = 20;
	if (!config->attempt_record_count)
		config->attempt_record_count = COSHM__QUEUE_ATTEMPTS_KEPT;
	if (config->attempt_record_count > COSHM__QUEUE_ATTEMPTS_KEPT)
		return coshm__fail(-EINVAL, "queue: attempt_record_count is 1 to %d",
				   COSHM__QUEUE_ATTEMPTS_KEPT);
	return 0;
}

/* The pool: as many blocks as asked for, or so many that all tasks may be of the largest size, within reason. */
static int blocks_choose(const struct coshm_queue_config *config, uint64_t segment_bytes,
			 struct coshm__queue_shm *shm)
{
	uint64_t size = config->payload_max_bytes / 16, per_task, pool = config->payload_pool_bytes;

	if (size < COSHM__QUEUE_BLOCK_BYTES_MIN)
		size = COSHM__QUEUE_BLOCK_BYTES_MIN;
	if (size > COSHM__QUEUE_BLOCK_BYTES_MAX)
		size = COSHM__QUEUE_BLOCK_BYTES_MAX;
	size = divide_up(size, 64) * 64;
	shm->block_size_bytes = size;
	shm->block_count = 0;
	if (config->payload_max_bytes <= COSHM__QUEUE_INLINE_BYTES)
		return 0;
	per_task = divide_up(config->payload_max_bytes - COSHM__QUEUE_INLINE_BYTES, size);
	if (pool) {
		shm->block_count = pool / size;
	} else {
		shm->block_count = per_task * config->capacity;
		if (shm->block_count > segment_bytes / 4 / size)
			shm->block_count = segment_bytes / 4 / size;
	}
	if (shm->block_count > COSHM__QUEUE_BLOCKS_MAX)
		shm->block_count = COSHM__QUEUE_BLOCKS_MAX;
	if (shm->block_count >= per_task)
		return 0;
	return coshm__fail(pool ? -EINVAL : -EDQUOT,
			   "the payload pool holds %llu bytes, not even one payload of %llu: %s",
			   (unsigned long long)(shm->block_count * size),
			   (unsigned long long)config->payload_max_bytes,
			   pool ? "set payload_pool_bytes higher" : "the segment is too small");
}

static int initialise(struct coshm__handle *handle, const void *context)
{
	const struct coshm__queue_shm *shm = context;
	struct coshm__queue_layout layout;
	struct coshm__hint_ring ring = {0};
	unsigned char *base = handle->object;
	struct coshm__a64 *due_min;

	coshm__queue_layout(shm, &layout);
	/* Plain and relaxed: nobody else sees the memory before the directory's entry is published. */
	memcpy(handle->object, shm, sizeof(*shm));
	ring.entry_count = coshm__hint_ring_entry_count(shm->capacity);
	ring.shm = (void *)(base + layout.free_ring);
	coshm__hint_ring_initialise(&ring, shm->capacity);
	ring.shm = (void *)(base + layout.ready_ring);
	coshm__hint_ring_initialise(&ring, 0);
	ring.entry_count = coshm__hint_ring_entry_count(shm->block_count);
	ring.shm = (void *)(base + layout.block_ring);
	coshm__hint_ring_initialise(&ring, shm->block_count);
	due_min = (void *)(base + layout.due_min);
	for (uint64_t i = 0; i < divide_up(shm->capacity, COSHM__QUEUE_GROUP); i++)
		coshm__a64_store_relaxed(&due_min[i], COSHM__DUE_NONE << 16);
	return 0;
}

/* Does the segment's size matter for the default of the pool? It is asked once. */
static int segment_size(struct coshm_segment *segment, uint64_t *ret_size_bytes)
{
	struct coshm__op op;
	int error = coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT);

	if (error)
		return error;
	*ret_size_bytes = op.segment->size_max_bytes;
	coshm__op_end(&op);
	return 0;
}

int coshm_queue_create(struct coshm_segment *segment, const char *name,
		       const struct coshm_queue_config *config, uint32_t flags,
		       struct coshm_queue **ret_queue)
{
	struct coshm__queue_shm shm = {.magic = COSHM__QUEUE_MAGIC};
	struct coshm_queue_config c;
	struct coshm__queue_layout layout;
	uint64_t segment_bytes = 0;
	void *token;
	int error = config ? coshm__read_struct(&c, sizeof(c), sizeof(c), config)
			   : coshm__fail(-EINVAL, "queue: config is NULL");

	if (!error && !ret_queue)
		error = coshm__fail(-EINVAL, "queue: ret_queue is NULL");
	if (!error && (flags & ~(uint32_t)COSHM_CREATE_OR_OPEN))
		error = coshm__fail(-EINVAL, "queue: flags %x are unknown", flags);
	if (!error)
		error = segment_size(segment, &segment_bytes);
	if (!error)
		error = config_complete(&c);
	if (!error)
		error = blocks_choose(&c, segment_bytes, &shm);
	if (error)
		return error;
	shm.capacity = c.capacity;
	shm.payload_max_bytes = c.payload_max_bytes;
	shm.backoff_base_ns = c.backoff_base_ns;
	shm.backoff_max_ns = c.backoff_max_ns;
	shm.backoff_kind = c.backoff_kind;
	shm.backoff_jitter_percent = c.backoff_jitter_percent;
	shm.max_attempts = c.max_attempts;
	shm.attempt_record_count = c.attempt_record_count;
	coshm__a64_store_relaxed(&shm.due_top, COSHM__DUE_NONE << 16);
	coshm__queue_layout(&shm, &layout);
	error = coshm__object_create(segment, name, &coshm__queue_type, layout.size_bytes, flags,
				     initialise, &shm, &token);
	if (!error)
		*ret_queue = token;
	return error;
}

int coshm_queue_open(struct coshm_segment *segment, const char *name,
		     struct coshm_queue **ret_queue)
{
	void *token;
	int error = ret_queue ? coshm__object_open(segment, name, &coshm__queue_type, &token)
			      : coshm__fail(-EINVAL, "queue: ret_queue is NULL");

	if (!error)
		*ret_queue = token;
	return error;
}

int coshm_queue_close(struct coshm_queue *queue)
{
	return coshm__object_close(queue, COSHM_OBJECT_QUEUE);
}

int coshm_queue_config(struct coshm_queue *queue, struct coshm_queue_config *ret_config)
{
	struct coshm_queue_config config = {0};
	struct coshm__op op;
	const struct coshm__queue *q;
	int error = ret_config ? coshm__op_begin_look(&op, queue, COSHM_OBJECT_QUEUE)
			       : coshm__fail(-EINVAL, "queue: ret_config is NULL");

	if (error)
		return error;
	q = op.handle->local;
	config.capacity = q->capacity;
	config.payload_max_bytes = q->payload_max_bytes;
	config.payload_pool_bytes = (uint64_t)q->block_count * q->block_size_bytes;
	config.backoff_base_ns = q->backoff_base_ns;
	config.backoff_max_ns = q->backoff_max_ns;
	config.backoff_kind = q->backoff_kind;
	config.backoff_jitter_percent = q->backoff_jitter_percent;
	config.max_attempts = q->max_attempts;
	config.attempt_record_count = q->attempt_record_count;
	coshm__op_end(&op);
	return coshm__write_struct(ret_config, sizeof(config), &config, sizeof(config));
}
