/* SPDX-License-Identifier: MIT */
#include "structs/hint_ring.h"
#include "base/crash.h"

#include <errno.h>

#define INDEX_MASK ((UINT64_C(1) << COSHM__HINT_INDEX_BITS) - 1)
#define CYCLE_MASK ((UINT64_C(1) << COSHM__HINT_CYCLE_BITS) - 1)

/*
 * Positions count up for ever; position p lives in entry p % count, and its cycle p / count tells whose turn the entry
 * is. The first lap is cycle 1, so that zeroed memory is one behind.
 */
static inline uint64_t cycle_of_position(const struct coshm__hint_ring *ring, uint64_t position)
{
	return position >> __builtin_ctzll(ring->entry_count) & CYCLE_MASK;
}

static inline struct coshm__a64 *entry_at(const struct coshm__hint_ring *ring, uint64_t position)
{
	return &ring->shm->entries[position & (ring->entry_count - 1)];
}

static inline uint64_t cycle_of_entry(uint64_t entry)
{
	return entry >> COSHM__HINT_INDEX_BITS;
}

static inline int is_one_behind(uint64_t entry, uint64_t cycle)
{
	return ((cycle_of_entry(entry) + 1) & CYCLE_MASK) == cycle;
}

uint64_t coshm__hint_ring_entry_count(uint64_t record_count)
{
	uint64_t count = 2;

	while (count < 2 * record_count)
		count *= 2;
	return count;
}

uint64_t coshm__hint_ring_size_bytes(uint64_t record_count)
{
	return sizeof(struct coshm__hint_ring_shm) +
	       coshm__hint_ring_entry_count(record_count) * sizeof(struct coshm__a64);
}

void coshm__hint_ring_initialise(struct coshm__hint_ring *ring, uint64_t full_count)
{
	/* relaxed: nobody else has the memory yet */
	for (uint64_t i = 0; i < full_count; i++)
		coshm__a64_store_relaxed(&ring->shm->entries[i],
					 UINT64_C(1) << COSHM__HINT_INDEX_BITS | i);
	coshm__a64_store_relaxed(&ring->shm->head, ring->entry_count);
	coshm__a64_store_relaxed(&ring->shm->tail, ring->entry_count + full_count);
	coshm__a64_store_relaxed(&ring->head_copy, ring->entry_count);
}

/* Is there no room for a push at @tail? Asks the takers' line only when the copy does not answer it. */
static int is_full(struct coshm__hint_ring *ring, uint64_t tail)
{
	/* [R8] acquire, pairs [R9]; a taker that meets our entry must find the head where the copy says it was */
	uint64_t head = coshm__a64_load_acquire(&ring->head_copy);

	/* signed: head may be one ahead of a tail that nobody has moved yet */
	if (coshm__likely((int64_t)(tail - head) < (int64_t)ring->entry_count))
		return 0;
	/* relaxed: any value that head ever had is low enough; head > tail - count stays true once it is */
	head = coshm__a64_load_relaxed(&ring->shm->head);
	coshm__a64_store_release(&ring->head_copy, head); /* [R9] release, pairs [R8] */
	return (int64_t)(tail - head) >= (int64_t)ring->entry_count;
}

/* The entry at @position is in: the next push goes behind it. */
static inline void move_tail(struct coshm__hint_ring *ring, uint64_t position)
{
	/* [R4] release, pairs [R3]; carries that the entries below the new tail are in */
	coshm__a64_cas_release(&ring->shm->tail, &position, position + 1);
}

int coshm__hint_ring_push(struct coshm__hint_ring *ring, uint32_t index)
{
	for (;;) {
		/* [R3] acquire, pairs [R4]; so the entry below is at most one lap old, unless the tail is */
		uint64_t tail = coshm__a64_load_acquire(&ring->shm->tail);
		uint64_t cycle = cycle_of_position(ring, tail);
		struct coshm__a64 *entry = entry_at(ring, tail);
		uint64_t seen;

		COSHM__CRASH_POINT(HINT_PUSH_AIMED);
		/* [R5] acquire, pairs [R1]; a helper's [R4] then announces what it has seen */
		seen = coshm__a64_load_acquire(entry);
		if (cycle_of_entry(seen) == cycle) {
			move_tail(ring, tail);
			continue;
		}
		if (coshm__unlikely(!is_one_behind(seen, cycle))) {
			/* We slept and the tail has gone on. If it has not, the entry is damaged. */
			if (coshm__a64_load_acquire(&ring->shm->tail) == tail) /* [R3] */
				return -EAGAIN;
			continue;
		}
		if (coshm__unlikely(is_full(ring, tail)))
			return -EAGAIN;
		/*
		 * The expected value is exactly one cycle behind, and no entry ever has the same cycle twice: a pusher
		 * that slept here for a lap cannot overwrite a newer hint.
		 * [R1] seq_cst, pairs [R2], [R5] and [R10]; carries the record's word, which became takeable before the push
		 */
		if (coshm__a64_cas_seq_cst(
			    entry, &seen, cycle << COSHM__HINT_INDEX_BITS | (index & INDEX_MASK))) {
			COSHM__CRASH_POINT(HINT_PUSHED);
			move_tail(ring, tail);
			COSHM__CRASH_POINT(HINT_TAIL_MOVED);
			return 0;
		}
	}
}

int coshm__hint_ring_peek(struct coshm__hint_ring *ring, uint64_t *ret_position,
			  uint32_t *ret_index)
{
	for (;;) {
		/* [R6] acquire, pairs [R7]; so the entry below is at most one lap old, unless the head is */
		uint64_t head = coshm__a64_load_acquire(&ring->shm->head);
		uint64_t cycle = cycle_of_position(ring, head);
		/* [R2] acquire, pairs [R1]; the record's word is at least as new as when the hint was pushed. Without
		 * it a taker could see the word from before, call the hint stale and drop it. */
		uint64_t entry = coshm__a64_load_acquire(entry_at(ring, head));

		if (coshm__likely(cycle_of_entry(entry) == cycle)) {
			*ret_position = head;
			*ret_index = (uint32_t)(entry & INDEX_MASK);
			return 1;
		}
		if (coshm__likely(is_one_behind(entry, cycle)))
			return 0;
		/* We slept and the head has gone on. If it has not, the entry is damaged. */
		if (coshm__a64_load_acquire(&ring->shm->head) == head) /* [R6] */
			return 0;
	}
}

int coshm__hint_ring_recheck(struct coshm__hint_ring *ring)
{
	/* [R6] acquire: an older head only shows an older hint */
	uint64_t head = coshm__a64_load_acquire(&ring->shm->head);
	/* [R10] seq_cst, pairs [R1]; the sleeper's half of a Dekker handshake, see the header */
	uint64_t entry = coshm__a64_load_seq_cst(entry_at(ring, head));

	if (is_one_behind(entry, cycle_of_position(ring, head)))
		return 0;
	/* Neither there nor missing: the head has gone on, or the entry is damaged. */
	return cycle_of_entry(entry) == cycle_of_position(ring, head) ||
	       coshm__a64_load_acquire(&ring->shm->head) != head; /* [R6] */
}

void coshm__hint_ring_advance(struct coshm__hint_ring *ring, uint64_t position)
{
	/* [R7] release, pairs [R6]; carries that the entries up to here were in */
	if (coshm__a64_cas_release(&ring->shm->head, &position, position + 1))
		COSHM__CRASH_POINT(HINT_HEAD_MOVED);
}

uint64_t coshm__hint_ring_length(const struct coshm__hint_ring *ring)
{
	/* relaxed: a moment's picture; head first, so that it rather shows too many than none */
	uint64_t head = coshm__a64_load_relaxed(&ring->shm->head);
	int64_t length = (int64_t)(coshm__a64_load_relaxed(&ring->shm->tail) - head);

	if (length <= 0)
		return 0;
	return (uint64_t)length < ring->entry_count ? (uint64_t)length : ring->entry_count;
}

int coshm__hint_ring_positions(const struct coshm__hint_ring *ring, uint64_t *ret_first,
			       uint64_t *ret_end)
{
	/* [R6], [R3] acquire. Head first: a later tail can be more than a lap ahead of an earlier head. */
	uint64_t head = coshm__a64_load_acquire(&ring->shm->head);
	uint64_t tail = coshm__a64_load_acquire(&ring->shm->tail);

	if (head < ring->entry_count || tail < ring->entry_count || tail > INT64_MAX ||
	    head > tail + 1)
		return -EUCLEAN;
	/* The entry at the tail may be in already. */
	tail++;
	/* A head that is older than the tail is followed by positions that are gone: harmless, within reason. */
	if (tail - head > 2 * ring->entry_count)
		head = tail - ring->entry_count;
	*ret_first = head;
	*ret_end = tail;
	return 0;
}

int coshm__hint_ring_at(const struct coshm__hint_ring *ring, uint64_t position, uint32_t *ret_index)
{
	uint64_t entry = coshm__a64_load_acquire(entry_at(ring, position)); /* [R2] */

	if (cycle_of_entry(entry) != cycle_of_position(ring, position))
		return 0;
	*ret_index = (uint32_t)(entry & INDEX_MASK);
	return 1;
}
