/* SPDX-License-Identifier: MIT */
/*
 * Records that wander between a free and a ready ring, moved by any number of threads or processes. A record's word is
 * ticket << 8 | state. Every trip through the ready ring adds one to the record's trips.
 */
#ifndef HINT_RING_FLOW_H
#define HINT_RING_FLOW_H

#include "structs/hint_ring.h"

#include <stdlib.h>
#include <string.h>

#define FLOW_RECORDS 8

enum flow_state { FLOW_FREE, FLOW_BUILD, FLOW_READY, FLOW_LEASED };

struct flow_shared {
	struct coshm__a64 word[FLOW_RECORDS];
	uint64_t payload[FLOW_RECORDS]; /* plain: TSan sees whether the words carry it */
	struct coshm__a64 produced;
	struct coshm__a64 consumed;
	struct coshm__a64 torn;
	struct coshm__a32 stop_producing;
	struct coshm__a32 producers; /* still at work */
				     /* the rings follow, free then ready */
};

/* One per thread or process. */
struct flow {
	struct flow_shared *shared;
	struct coshm__hint_ring free, ready;
};

static inline size_t flow_size_bytes(void)
{
	return sizeof(struct flow_shared) + 128 + 2 * coshm__hint_ring_size_bytes(FLOW_RECORDS);
}

static inline void flow_bind(struct flow *flow, void *memory)
{
	unsigned char *at = memory;

	memset(flow, 0, sizeof(*flow));
	flow->shared = memory;
	at += (sizeof(struct flow_shared) + 127) / 128 * 128;
	flow->free.shm = (void *)at;
	flow->ready.shm = (void *)(at + coshm__hint_ring_size_bytes(FLOW_RECORDS));
	flow->free.entry_count = flow->ready.entry_count =
		coshm__hint_ring_entry_count(FLOW_RECORDS);
}

static inline void flow_initialise(struct flow *flow, void *zeroed)
{
	flow_bind(flow, zeroed);
	coshm__hint_ring_initialise(&flow->free, FLOW_RECORDS);
	coshm__hint_ring_initialise(&flow->ready, 0);
}

/* Claims a record in state @from; its index, or -1: there is none. *word is its word from then on. */
static inline int flow_take(struct flow *flow, struct coshm__hint_ring *ring, uint64_t from,
			    uint64_t to, uint64_t *word)
{
	uint64_t position;
	uint32_t index;

	while (coshm__hint_ring_peek(ring, &position, &index)) {
		uint64_t seen = coshm__a64_load_acquire(&flow->shared->word[index]);
		int claimed = 0;

		if ((seen & 0xff) == from) {
			*word = ((seen >> 8) + 1) << 8 | to;
			claimed = coshm__a64_cas_acq_rel(&flow->shared->word[index], &seen, *word);
			if (!claimed && (seen & 0xff) == from)
				continue;
		}
		coshm__hint_ring_advance(ring, position);
		if (claimed)
			return (int)index;
	}
	return -1;
}

static inline void flow_give(struct flow *flow, struct coshm__hint_ring *ring, int index,
			     uint64_t word, uint64_t to)
{
	coshm__a64_store_release(&flow->shared->word[index], ((word >> 8) + 1) << 8 | to);
	if (coshm__hint_ring_push(ring, (uint32_t)index))
		abort(); /* no duplicates here, so never full */
}

/* 1: one record was built; 0: none was free. */
static inline int flow_produce(struct flow *flow)
{
	uint64_t word;
	int index = flow_take(flow, &flow->free, FLOW_FREE, FLOW_BUILD, &word);

	if (index < 0)
		return 0;
	flow->shared->payload[index] = word;
	coshm__a64_fetch_add_relaxed(&flow->shared->produced, 1);
	flow_give(flow, &flow->ready, index, word, FLOW_READY);
	return 1;
}

static inline int flow_consume(struct flow *flow)
{
	uint64_t word;
	int index = flow_take(flow, &flow->ready, FLOW_READY, FLOW_LEASED, &word);

	if (index < 0)
		return 0;
	/* built two tickets ago */
	if (flow->shared->payload[index] != (((word >> 8) - 2) << 8 | FLOW_BUILD))
		coshm__a64_fetch_add_relaxed(&flow->shared->torn, 1);
	flow->shared->payload[index] = 0;
	coshm__a64_fetch_add_relaxed(&flow->shared->consumed, 1);
	flow_give(flow, &flow->free, index, word, FLOW_FREE);
	return 1;
}

static inline void flow_produce_until_stopped(struct flow *flow)
{
	while (!coshm__a32_load_relaxed(&flow->shared->stop_producing))
		flow_produce(flow);
	coshm__a32_fetch_sub_relaxed(&flow->shared->producers, 1);
}

static inline void flow_consume_until_all_is_done(struct flow *flow)
{
	for (;;) {
		if (flow_consume(flow))
			continue;
		if (coshm__a32_load_seq_cst(&flow->shared->producers) == 0 && !flow_consume(flow))
			return;
	}
}

#endif
