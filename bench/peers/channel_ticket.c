/* SPDX-License-Identifier: MIT */
/*
 * A lean ring for many senders and receivers: the ticket of a fetch_add names the slot and its turn. Who dies in the middle
 * stops all others for ever.
 */
#include "channel.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

struct slot {
	_Atomic uint64_t turn;
	unsigned char payload[];
};

struct ring {
	_Atomic uint64_t head __attribute__((aligned(128)));
	_Atomic uint64_t tail __attribute__((aligned(128)));
	unsigned char slots[] __attribute__((aligned(128)));
};

static struct ring *ring;
static size_t payload_bytes, slot_bytes;
static uint64_t capacity;
static int workers;

static size_t ring_bytes(void)
{
	return sizeof(*ring) + capacity * slot_bytes;
}

static int ticket_open(size_t size_bytes)
{
	payload_bytes = size_bytes;
	capacity = channel_capacity(size_bytes);
	slot_bytes = (sizeof(struct slot) + size_bytes + 127) / 128 * 128;
	ring = bench_shared(ring_bytes());
	return 0;
}

static void ticket_close(void)
{
	munmap(ring, ring_bytes());
}

static void ticket_enter(int procs)
{
	workers = procs;
}

static void ticket_leave(void)
{
}

static struct slot *slot_of(uint64_t ticket)
{
	return (struct slot *)(void *)(ring->slots + ticket % capacity * slot_bytes);
}

static struct slot *wait_for_turn(uint64_t ticket, uint64_t turn)
{
	struct slot *slot = slot_of(ticket);

	while (atomic_load_explicit(&slot->turn, memory_order_acquire) != turn)
		bench_back_off(workers);
	return slot;
}

static void ticket_put(const void *payload)
{
	uint64_t ticket = atomic_fetch_add(&ring->head, 1), turn = ticket / capacity * 2;
	struct slot *slot = wait_for_turn(ticket, turn);

	memcpy(slot->payload, payload, payload_bytes);
	atomic_store_explicit(&slot->turn, turn + 1, memory_order_release);
}

static void ticket_get(void *payload)
{
	uint64_t ticket = atomic_fetch_add(&ring->tail, 1), turn = ticket / capacity * 2;
	struct slot *slot = wait_for_turn(ticket, turn + 1);

	memcpy(payload, slot->payload, payload_bytes);
	bench_use(payload);
	atomic_store_explicit(&slot->turn, turn + 2, memory_order_release);
}

const struct channel channel_ticket = {
	.name = "ticket ring (the limit)",
	.lacks = "no acknowledgement; a death in the middle stops all",
	.payload_max_bytes = CHANNEL_PAYLOAD_MAX,
	.spins = 1,
	.slowness = 1,
	.open = ticket_open,
	.close = ticket_close,
	.enter = ticket_enter,
	.leave = ticket_leave,
	.put = ticket_put,
	.get = ticket_get,
};
