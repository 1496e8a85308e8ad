/* SPDX-License-Identifier: MIT */
/*
 * bench/peers/channel.h - what carries messages from one process to another, seen the same by all loads of bench/queue
 *
 * One file per channel. A message is one payload of the size that it was opened with; put waits while there is no room,
 * get until there is a message, and a channel that has acknowledgements gives them in get.
 */
#ifndef BENCH_PEERS_CHANNEL_H
#define BENCH_PEERS_CHANNEL_H

#include "../support/bench.h"

enum { CHANNEL_CAPACITY_MAX = 1024, CHANNEL_PAYLOAD_MAX = 65536 };

/* How many messages there is room for: 1024, but not more than 4 MiB of them. */
static inline uint64_t channel_capacity(size_t payload_bytes)
{
	uint64_t fitting = (4 << 20) / payload_bytes;

	return fitting < CHANNEL_CAPACITY_MAX ? fitting : CHANNEL_CAPACITY_MAX;
}

struct channel {
	const char *name;
	const char *lacks;
	const char *absent; /* why it is not built in; then the rest is NULL */
	size_t payload_max_bytes;
	int one_each;	   /* at most one sender and one receiver */
	int needs_cpus;	   /* who waits for one without a CPU keeps his own: one for each process */
	int spins, sleeps; /* what get can do while it waits; coshm does the one, then the other */
	int server;
	int slowness; /* messages per run are divided by it */

	int (*open)(size_t payload_bytes); /* -1: bench_absent says why */
	void (*close)(void);
	void (*enter)(int procs); /* by each worker */
	void (*leave)(void);
	void (*put)(const void *payload);
	void (*get)(void *payload);
};

extern const struct channel channel_bell, channel_ck_mpmc, channel_ck_spsc, channel_coshm,
	channel_coshm_large, channel_mq, channel_pipe, channel_redis_list, channel_redis_stream,
	channel_rte, channel_rte_rts, channel_ticket;

#endif
