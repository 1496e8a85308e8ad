/* SPDX-License-Identifier: MIT */
/*
 * DPDK's ring in shared memory, for messages of 64 bytes, without EAL. A message is four elements of 16 bytes, which go in
 * and out together: of the sizes of elements that it has a copy loop for, the widest.
 */
#include "channel.h"

#define LACKS \
	"no acknowledgement; a sender killed between claim and publish stops all; never sleeps"
#define LACKS_OF_DEFAULT LACKS "; whoever waits for one without a CPU keeps his own"

#ifdef BENCH_HAVE_DPDK

#include <rte_ring.h>

#include <sys/mman.h>

enum {
	ELEMENT_BYTES = 16,
	MESSAGE_BYTES = 64,
	ELEMENTS_PER_MESSAGE = MESSAGE_BYTES / ELEMENT_BYTES,
	ELEMENTS = CHANNEL_CAPACITY_MAX * ELEMENTS_PER_MESSAGE,
};

static struct rte_ring *ring;
static int workers;

static size_t ring_bytes(void)
{
	return sizeof(*ring) + (size_t)ELEMENTS * ELEMENT_BYTES;
}

static int open_with(unsigned flags)
{
	ring = bench_shared(ring_bytes());
	if (rte_ring_init(ring, "bench", ELEMENTS, flags))
		bench_fail("rte_ring_init");
	return 0;
}

static int default_open(size_t payload_bytes)
{
	(void)payload_bytes;
	return open_with(0);
}

static int rts_open(size_t payload_bytes)
{
	(void)payload_bytes;
	return open_with(RING_F_MP_RTS_ENQ | RING_F_MC_RTS_DEQ);
}

static void ring_close(void)
{
	munmap(ring, ring_bytes());
}

static void enter(int procs)
{
	workers = procs;
}

static void leave(void)
{
}

static void put(const void *payload)
{
	while (!rte_ring_enqueue_bulk_elem(ring, payload, ELEMENT_BYTES, ELEMENTS_PER_MESSAGE,
					   NULL))
		bench_back_off(workers);
}

static void get(void *payload)
{
	while (!rte_ring_dequeue_bulk_elem(ring, payload, ELEMENT_BYTES, ELEMENTS_PER_MESSAGE,
					   NULL))
		bench_back_off(workers);
	bench_use(payload);
}

const struct channel channel_rte = {
	.name = "DPDK rte_ring MP/MC",
	.lacks = LACKS_OF_DEFAULT,
	.payload_max_bytes = MESSAGE_BYTES,
	.needs_cpus = 1,
	.spins = 1,
	.slowness = 1,
	.open = default_open,
	.close = ring_close,
	.enter = enter,
	.leave = leave,
	.put = put,
	.get = get,
};

const struct channel channel_rte_rts = {
	.name = "DPDK rte_ring RTS",
	.lacks = LACKS,
	.payload_max_bytes = MESSAGE_BYTES,
	.spins = 1,
	.slowness = 1,
	.open = rts_open,
	.close = ring_close,
	.enter = enter,
	.leave = leave,
	.put = put,
	.get = get,
};

#else
const struct channel channel_rte = {
	.name = "DPDK rte_ring MP/MC",
	.lacks = LACKS_OF_DEFAULT,
	.absent = "DPDK was not there at configure (Debian: libdpdk-dev)",
};
const struct channel channel_rte_rts = {
	.name = "DPDK rte_ring RTS",
	.lacks = LACKS,
	.absent = "DPDK was not there at configure (Debian: libdpdk-dev)",
};
#endif
