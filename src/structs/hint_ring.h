/* SPDX-License-Identifier: MIT */
/*
 * structs/hint_ring.h - a lock-free MPMC ring of indices that may lie
 *
 * The ring says "record i may be takeable"; the record's own word is the truth. A hint may be stale or doubled, never
 * missing for a takeable record. Taking claims the RECORD first and moves the head afterwards, so no death between any two
 * instructions loses a record or blocks the ring (rings that move the head first lose what they had taken).
 *
 * Words     head, tail: positions, CAS by anyone, only up. entry: cycle << 24 | index, CAS by pushers.
 * Push      first make the record takeable, by a release store or CAS; then push. Commit: CAS of the entry whose cycle
 *           is exactly one behind. Then anybody may move the tail.
 * Take      for (;;) { peek -> position, index; 0: empty. Bounds-check the index, claim the record by its own CAS;
 *           CAS lost: look at its word again, and try again while it is takeable. advance(position) once the claim
 *           worked, or the word was seen not to be takeable; done if it worked. }
 * Capacity  twice the number of records, so that it is full only with duplicates that crashes left.
 * Damage    entries that cannot be are full to a pusher and empty to a taker; nothing loops for ever on them.
 * Progress  lock-free, by helping. Source: NCQ, Nikolaev, DISC 2019; the claim-first order is ours.
 */
#ifndef COSHM__STRUCTS_HINT_RING_H
#define COSHM__STRUCTS_HINT_RING_H

#include "base/atomic.h"

#include <stddef.h>

#define COSHM__HINT_INDEX_BITS 24
#define COSHM__HINT_CYCLE_BITS 40

struct coshm__hint_ring_shm {
	struct coshm__a64 head;
	uint8_t padding0[128 - 8];
	struct coshm__a64 tail;
	uint8_t padding1[128 - 8];
	struct coshm__a64 entries[]; /* as many as coshm__hint_ring.entry_count */
};

_Static_assert(offsetof(struct coshm__hint_ring_shm, tail) == 128, "head and tail share no line");
_Static_assert(offsetof(struct coshm__hint_ring_shm, entries) == 256, "entries");
_Static_assert(sizeof(struct coshm__hint_ring_shm) == 256, "hint ring");

/*
 * Process-local: the size is fixed and validated at attach, never read from the segment again. Set shm and
 * entry_count, leave the rest zero.
 */
struct coshm__hint_ring {
	struct coshm__hint_ring_shm *shm;
	uint64_t entry_count; /* power of two */
	/* At most the true head: pushers read this one instead of pulling the takers' line over for every push. Any
	 * thread of this process writes it, about once in a lap. */
	struct coshm__a64 head_copy;
};

/* For @record_count records (1 to 2^23): entries (a power of two >= 2 x records) and bytes. */
uint64_t coshm__hint_ring_entry_count(uint64_t record_count);
uint64_t coshm__hint_ring_size_bytes(uint64_t record_count);

/* Zeroed memory -> empty ring, or ring that holds 0 .. full_count - 1. Before anyone else sees it. */
void coshm__hint_ring_initialise(struct coshm__hint_ring *ring, uint64_t full_count);

/* 0, or -EAGAIN: full of duplicates. */
int coshm__hint_ring_push(struct coshm__hint_ring *ring, uint32_t index);

/* 1: the hint at the head and its position; 0: empty. */
int coshm__hint_ring_peek(struct coshm__hint_ring *ring, uint64_t *ret_position,
			  uint32_t *ret_index);

/*
 * 1 if there is, or was a moment ago, a hint. For who is about to sleep: announce the sleep by a seq_cst operation, then
 * ask. A pusher whose hint this misses finds the announcement with a seq_cst load after its push.
 */
int coshm__hint_ring_recheck(struct coshm__hint_ring *ring);

/* Moves the head past @position unless somebody has. */
void coshm__hint_ring_advance(struct coshm__hint_ring *ring, uint64_t position);

/* About how many hints there are; stale ones count. */
uint64_t coshm__hint_ring_length(const struct coshm__hint_ring *ring);

/*
 * For verification, on a ring that may be in use. positions: from the head to behind the last entry (0, or -EUCLEAN:
 * head and tail cannot belong together). at: the index that stands at @position, 1; 0: none, or not any more.
 */
int coshm__hint_ring_positions(const struct coshm__hint_ring *ring, uint64_t *ret_first,
			       uint64_t *ret_end);
int coshm__hint_ring_at(const struct coshm__hint_ring *ring, uint64_t position,
			uint32_t *ret_index);

#endif
