/* SPDX-License-Identifier: MIT */
/* enqueue; reserve, payload, ack. */
#include "channel.h"

#include "channel_coshm.h"

#include <coshm/coshm.h>

#include <errno.h>

static struct coshm_segment *segment;
static struct coshm_queue *queue;
static size_t payload_bytes;
static int workers;

struct coshm_queue *channel_coshm_queue(void)
{
	return queue;
}

static int open_with(size_t size_bytes, uint64_t capacity)
{
	const struct coshm_queue_config config = {
		.capacity = capacity,
		.payload_max_bytes = size_bytes,
		.payload_pool_bytes = size_bytes > 192 ? capacity * size_bytes * 2 : 0,
		.attempt_record_count = capacity > CHANNEL_CAPACITY_MAX ? 1 : 0,
	};
	const struct coshm_segment_config memory = {
		.size_bytes = capacity * 1400 + (8 << 20) + 5 * config.payload_pool_bytes / 4};

	payload_bytes = size_bytes;
	bench_need(coshm_segment_create(bench_segment_name(), &memory, 0, &segment), "segment");
	bench_need(coshm_queue_create(segment, "queue", &config, 0, &queue), "queue");
	return 0;
}

static int our_open(size_t size_bytes)
{
	return open_with(size_bytes, channel_capacity(size_bytes));
}

static int our_open_large(size_t size_bytes)
{
	return open_with(size_bytes, 65536);
}

static void our_close(void)
{
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
}

static void our_enter(int procs)
{
	workers = procs;
}

/* An orderly end: the next case has no dead to clean up after. */
static void our_leave(void)
{
	bench_need(coshm_segment_detach(segment), "detach");
}

static void our_put(const void *payload)
{
	int error;

	while ((error = coshm_queue_enqueue(queue, payload, payload_bytes, NULL, NULL)) == -EAGAIN)
		bench_back_off(workers);
	bench_need(error, "enqueue");
}

static void our_get(void *payload)
{
	struct coshm_task task;
	size_t size_bytes = payload_bytes;

	bench_need(coshm_queue_reserve(queue, COSHM_FOREVER, &task), "reserve");
	bench_need(coshm_queue_payload(queue, &task, payload, &size_bytes), "payload");
	bench_need(coshm_queue_ack(queue, &task), "ack");
}

const struct channel channel_coshm = {
	.name = "coshm",
	.lacks = "",
	.payload_max_bytes = CHANNEL_PAYLOAD_MAX,
	.spins = 1,
	.sleeps = 1,
	.slowness = 1,
	.open = our_open,
	.close = our_close,
	.enter = our_enter,
	.leave = our_leave,
	.put = our_put,
	.get = our_get,
};

const struct channel channel_coshm_large = {
	.name = "coshm, room for 65536 tasks",
	.lacks = "",
	.payload_max_bytes = 64,
	.spins = 1,
	.slowness = 1,
	.open = our_open_large,
	.close = our_close,
	.enter = our_enter,
	.leave = our_leave,
	.put = our_put,
	.get = our_get,
};
