/* SPDX-License-Identifier: MIT */
/*
 * modules/queue/queue_shm.h - what lies in a queue's memory
 *
 *   struct coshm__queue_shm
 *   struct coshm__counters_shm
 *   hint rings: free records, ready records, free blocks
 *   due bounds, one per COSHM__QUEUE_GROUP records
 *   block words, block links
 *   attempt logs, attempt_record_count per record
 *   records                       struct coshm__record_shm x capacity
 *   blocks                        block_size_bytes x block_count
 *
 * Offsets are not stored: they follow from the const part (coshm__queue_layout), so there is none to damage.
 *
 * The record word { ticket:32 | owner:24 | flags:4 | state:4 } is the truth about a task. Every transition adds one to the
 * ticket, so that a CAS of a process that slept fails. States and what their owner may do:
 *
 *   FREE     -     no task. Takeable from the free ring.
 *   BUILD    owner writes fields and payload; not accepted yet. Flag DUE: the due word counts.
 *   PUBLISH  any   accepted; a hint is to be pushed by the owner or by anyone. Takeable. Owner 0: the ring was full.
 *   READY    -     waits, has a hint. Takeable.
 *   LEASED   owner runs it. The owner reads; it writes nothing but the due word, which says since when.
 *   FINISH   owner writes how the attempt ended. Flag DUE: the due word counts.
 *   DELAYED  -     waits for its due time. Takeable from then on, found by the due bounds.
 *   DEAD     -     dead letter.
 *   CLEAN    owner gives the blocks back.
 *   FREEPUB  any   done; a hint is to be pushed by the owner or by anyone. Takeable. Owner 0: the ring was full.
 *
 *   FREE -> BUILD -> PUBLISH -> READY -> LEASED -> FREEPUB -> FREE            the usual life
 *           BUILD -> DELAYED -> LEASED -> CLEAN -> FREEPUB                    with a delay; with blocks
 *                               LEASED -> FINISH -> DELAYED | DEAD            nack, bury
 *                               LEASED -> PUBLISH                             release
 *                               DEAD -> PUBLISH | CLEAN | FREEPUB             redrive, drop
 *
 * I1  A record in FREE has a hint in the free ring, one in READY has one in the ready ring, at or behind the head.
 * I2  PUBLISH and FREEPUB: whoever meets one may push a hint for it. The other owned states (BUILD, LEASED, FINISH, CLEAN)
 *     are finished by anyone once the owner is dead, from shared memory alone.
 * I3  Only the living owner stores plainly to a record, and only in BUILD, LEASED (due word), FINISH and CLEAN.
 *     Everybody else changes words by CAS from a value that was seen while the record word named the dead owner.
 * I4  A DELAYED record's group bound and the top bound are not above its due time.
 * I5  A block in USED belongs to the record it names, in the life that began with the BUILD ticket it names, and
 *     stands in no other chain.
 */
#ifndef COSHM__MODULES_QUEUE_QUEUE_SHM_H
#define COSHM__MODULES_QUEUE_QUEUE_SHM_H

#include "base/atomic.h"

#include <stddef.h>

#define COSHM__QUEUE_MAGIC	     UINT64_C(0x3165756575710f0d)
#define COSHM__QUEUE_CAPACITY_MAX    65536
#define COSHM__QUEUE_INLINE_BYTES    192
#define COSHM__QUEUE_PAYLOAD_LIMIT   (UINT64_C(1) << 30)
#define COSHM__QUEUE_BLOCK_BYTES_MIN 1024
#define COSHM__QUEUE_BLOCK_BYTES_MAX 65536
#define COSHM__QUEUE_BLOCKS_MAX	     (UINT64_C(1) << 23) /* a hint ring takes no more */
#define COSHM__QUEUE_GROUP	     64			 /* records per due bound */
#define COSHM__QUEUE_ATTEMPTS_KEPT   8
#define COSHM__QUEUE_ERROR_BYTES     56

enum coshm__record_state {
	COSHM__RECORD_FREE = 0,
	COSHM__RECORD_BUILD = 1,
	COSHM__RECORD_PUBLISH = 2,
	COSHM__RECORD_READY = 3,
	COSHM__RECORD_LEASED = 4,
	COSHM__RECORD_FINISH = 5,
	COSHM__RECORD_DELAYED = 6,
	COSHM__RECORD_DEAD = 7,
	COSHM__RECORD_CLEAN = 8,
	COSHM__RECORD_FREEPUB = 9,
	COSHM__RECORD_STATE_COUNT = 10,
};

#define COSHM__RECORD_DUE \
	1u /* flag in BUILD and FINISH: the bounds already count on the due word */

/*
 * One task. The first line is all that a task with a small payload needs beside the payload itself. Everything but word is
 * written under the rules of I3. The payload's first bytes are inline, what does not fit is in a chain of blocks.
 */
struct coshm__record_shm {
	struct coshm__a64 word;
	struct coshm__a64
		sequence; /* lives of this record, only up; with the index it makes the task's id */
	struct coshm__a64 enqueued_at_ns;
	struct coshm__a64
		attempts; /* { ticket of the last lease that was counted:32 | attempts that ended:32 } */
	struct coshm__a64
		attempts_base; /* { ticket of the BUILD or DEAD word:32 | attempts before it:32 } */
	struct coshm__a64 due; /* { ticket:16 | us:48 } DELAYED: not before; LEASED: since */
	struct coshm__a32 payload_size_bytes;
	struct coshm__a32 max_attempts;
	struct coshm__a32 build_ticket; /* of this life's BUILD word; its blocks carry it */
	struct coshm__a32 first_block;	/* block + 1; 0: none */
	struct coshm__a64 payload[COSHM__QUEUE_INLINE_BYTES / 8];
};

/* How one attempt ended. Attempt n of a task stands at n % attempt_record_count. */
struct coshm__attempt_shm {
	struct coshm__a64
		status; /* { ticket of the lease:32 | attempt:28 | coshm_attempt_outcome:4 }, last */
	struct coshm__a64 ended; /* { ticket of the lease:16 | us:48 } */
	struct coshm__a64 text[COSHM__QUEUE_ERROR_BYTES / 8];
};

/*
 * Block word { BUILD ticket:32 | record:24 | state:8 }. FREE and FREEPUB keep the last user's ticket and record: this
 * makes each value unique in time, so that a CAS of a process that slept fails.
 */
enum coshm__block_state {
	COSHM__BLOCK_FREE = 0,
	COSHM__BLOCK_USED = 1,
	COSHM__BLOCK_FREEPUB =
		2, /* a hint is to be pushed by the owner of the record that it names, or anyone */
	COSHM__BLOCK_STATE_COUNT = 3,
};

#define COSHM__EVENT_SLEEPERS 1u /* somebody sleeps, or did a moment ago */
#define COSHM__EVENT_STEP     2u

struct coshm__queue_shm {
	/* const from the creation on */
	uint64_t magic;
	uint64_t capacity;
	uint64_t payload_max_bytes;
	uint64_t block_size_bytes;
	uint64_t block_count;
	uint64_t backoff_base_ns;
	uint64_t backoff_max_ns;
	uint32_t backoff_kind;
	uint32_t backoff_jitter_percent;
	uint32_t max_attempts;
	uint32_t attempt_record_count;
	uint8_t padding0[128 - 72];

	/* read by every operation, written when somebody sleeps, or hardly ever */
	struct coshm__a32 event;   /* futex word { count:31 | sleepers:1 }: sleepers and wakers */
	struct coshm__a32 removed; /* 1: the object left the directory; its remover */
	struct coshm__a32
		unhinted; /* 1: a word in PUBLISH, FREEPUB with owner 0, or a block without a hint; anyone */
	struct coshm__a32 reserved;
	uint8_t padding1[128 - 16];

	struct coshm__a64
		due_top; /* { us:48 | version:16 } at most every group's bound: anyone, by CAS */
	uint8_t padding2[128 - 8];

	struct coshm__a64 next_sweep_at_ns; /* who moves it on by CAS sweeps */
	uint8_t padding3[128 - 8];
};

_Static_assert(sizeof(struct coshm__record_shm) == 256, "a record is four lines");
_Static_assert(offsetof(struct coshm__record_shm, payload) == 64, "its header is one");
_Static_assert(sizeof(struct coshm__attempt_shm) == 72, "attempt");
_Static_assert(sizeof(struct coshm__queue_shm) == 512, "queue");
_Static_assert(offsetof(struct coshm__queue_shm, event) == 128, "const part");

#endif
