/* SPDX-License-Identifier: MIT */
/* Concurrency Kit's ring in shared memory, for messages of 64 bytes. */
#include "channel.h"

#define LACKS "no acknowledgement; a death in the middle stops all; never sleeps"

#ifdef BENCH_HAVE_CK

#include <ck_ring.h>

#include <string.h>
#include <sys/mman.h>

struct message {
	unsigned char bytes[64];
};

CK_RING_PROTOTYPE(message, message)

struct shared {
	struct ck_ring ring;
	struct message messages[CHANNEL_CAPACITY_MAX * 2] __attribute__((aligned(128)));
};

static struct shared *shared;
static int workers;

static int ck_open(size_t payload_bytes)
{
	(void)payload_bytes;
	shared = bench_shared(sizeof(*shared));
	ck_ring_init(&shared->ring, CHANNEL_CAPACITY_MAX);
	return 0;
}

static void ck_close(void)
{
	munmap(shared, sizeof(*shared));
}

static void ck_enter(int procs)
{
	workers = procs;
}

static void ck_leave(void)
{
}

static void mpmc_put(const void *payload)
{
	struct message message;

	memcpy(&message, payload, sizeof(message));
	while (!CK_RING_ENQUEUE_MPMC(message, &shared->ring, shared->messages, &message))
		bench_back_off(workers);
}

static void mpmc_get(void *payload)
{
	while (!CK_RING_DEQUEUE_MPMC(message, &shared->ring, shared->messages,
				     (struct message *)payload))
		bench_back_off(workers);
	bench_use(payload);
}

static void spsc_put(const void *payload)
{
	struct message message;

	memcpy(&message, payload, sizeof(message));
	while (!CK_RING_ENQUEUE_SPSC(message, &shared->ring, shared->messages, &message))
		bench_back_off(workers);
}

static void spsc_get(void *payload)
{
	while (!CK_RING_DEQUEUE_SPSC(message, &shared->ring, shared->messages,
				     (struct message *)payload))
		bench_back_off(workers);
	bench_use(payload);
}

const struct channel channel_ck_mpmc = {
	.name = "ck_ring MPMC",
	.lacks = LACKS,
	.payload_max_bytes = sizeof(struct message),
	.needs_cpus = 1,
	.spins = 1,
	.slowness = 1,
	.open = ck_open,
	.close = ck_close,
	.enter = ck_enter,
	.leave = ck_leave,
	.put = mpmc_put,
	.get = mpmc_get,
};

const struct channel channel_ck_spsc = {
	.name = "ck_ring SPSC",
	.lacks = "one sender, one receiver; " LACKS,
	.payload_max_bytes = sizeof(struct message),
	.one_each = 1,
	.spins = 1,
	.slowness = 1,
	.open = ck_open,
	.close = ck_close,
	.enter = ck_enter,
	.leave = ck_leave,
	.put = spsc_put,
	.get = spsc_get,
};

#else
const struct channel channel_ck_mpmc = {
	.name = "ck_ring MPMC",
	.lacks = LACKS,
	.absent = "ck was not there at configure",
};
const struct channel channel_ck_spsc = {
	.name = "ck_ring SPSC",
	.lacks = LACKS,
	.absent = "ck was not there at configure",
};
#endif
