/* SPDX-License-Identifier: MIT */
/*
 * segment/segment_shm.h - what lies in a segment outside of its objects
 *
 *   0          struct coshm__header_shm          4096 bytes
 *   4096       struct coshm__member_shm          x member_count_max
 *   ...        struct coshm__thread_shm          x thread_count_max: first the members' reserves, one for each slot
 *   ...        struct coshm__entry_shm           x COSHM__ENTRY_COUNT, the directory
 *   ...        objects, each at a multiple of 4096, in no order
 *
 * A change of anything in this file changes COSHM__LAYOUT_VERSION.
 *
 * I1  A member id that stands in any word belongs to a member slot that is ALIVE or DEAD with that generation, or the
 *     word is being cleaned. A slot becomes FREE only after a pass found no word with its id.
 * I2  Objects that are LIVE, BUILDING or REMOVED never overlap.
 * I3  Every published offset lies below committed_bytes; committed_bytes never shrinks.
 */
#ifndef COSHM__SEGMENT_SEGMENT_SHM_H
#define COSHM__SEGMENT_SEGMENT_SHM_H

#include "base/atomic.h"

#include <coshm/types.h>

#define COSHM__MAGIC	      UINT64_C(0x316d68736f63f00d) /* little-endian bytes: 0d f0 "coshm1" */
#define COSHM__LAYOUT_VERSION 2
#define COSHM__ENTRY_COUNT    256
#define COSHM__PAGE_BYTES     4096
#define COSHM__MEMBERS_LIMIT  1024
#define COSHM__THREADS_LIMIT  8192
#define COSHM__PIN_COUNT      64
#define COSHM__HAZARD_READS   4
#define COSHM__HAZARD_WRITES  2
#define COSHM__LOCKS_HELD     2

/*
 * A lock that survives its holder: see rlock.h. low half: member id << 1 | waiters, or COSHM__RLOCK_POISONED; high
 * half: how often it was acquired, kept through unlock, so that no CAS can mistake a later hold for an earlier one.
 */
struct coshm__rlock_shm {
	struct coshm__a64 word;
};

enum coshm__segment_state {
	COSHM__SEGMENT_BUILDING = 1,
	COSHM__SEGMENT_READY = 2,
	COSHM__SEGMENT_REMOVED = 3,
};

struct coshm__header_shm {
	/* const after READY, written by the creator under the file's init lock */
	uint64_t magic;
	uint32_t layout_version;
	uint32_t page_bytes;
	uint64_t layout_fingerprint;
	struct coshm__a32 state;       /* coshm__segment_state: creator, unlinker */
	uint32_t flags;		       /* coshm_segment_flags */
	uint64_t feature_incompatible; /* a reader that does not know a bit must not attach */
	uint64_t feature_read_only;    /* ... may attach read-only */
	uint64_t feature_compatible;   /* ... may ignore it */
	uint8_t uuid[16];
	uint8_t boot_id[16];
	uint64_t place_seed;		/* secret of coshm__hash_place */
	uint64_t fingerprint_secret[2]; /* secret of coshm__hash_fingerprint */
	uint64_t size_max_bytes;
	uint64_t created_at_ns;
	uint64_t created_realtime_ns;
	uint32_t creator_pid;
	uint32_t member_count_max; /* one more than was asked for, see coshm__rescue_slot */
	uint32_t thread_count_max; /* member_count_max reserves, and what was asked for */
	uint32_t entry_count;
	uint64_t members_offset;
	uint64_t threads_offset;
	uint64_t entries_offset;
	uint64_t objects_offset;
	uint8_t padding0[256 - 184];

	/* written in operation, each group on lines of its own */
	struct coshm__rlock_shm directory_lock;
	struct coshm__a64 committed_bytes; /* under directory_lock */
	struct coshm__a64
		touched_bytes; /* under directory_lock: memory from here on was never used, so it is zero */
	uint8_t padding1[128 - 24];

	struct coshm__a32
		thread_high_water; /* slots at and above it were never claimed: claimers, only up; covers the reserves */
	struct coshm__a32 member_high_water;
	uint8_t padding2[128 - 8];

	struct coshm__a64 next_reap_at_ns; /* who moves it on by CAS looks for the dead */
	struct coshm__a64 deaths;	   /* members found dead, ever */
	struct coshm__a64 reaped;	   /* of these, cleaned up completely */
	struct coshm__a64 lock_steals;	   /* locks taken over from dead members */
	struct coshm__a64 attaches;
	struct coshm__a64 detaches;
	uint8_t padding3[128 - 48];

	uint8_t reserved[4096 - 640];
};

enum coshm__member_word_state {
	COSHM__MEMBER_FREE = 0,
	COSHM__MEMBER_ALIVE = 1,
	COSHM__MEMBER_DEAD = 2,
};

/*
 * One attached process. word = generation << 2 | state:
 *   FREE(g) -> ALIVE(g+1)   by a registrant that holds the slot's byte lock
 *   ALIVE(g) -> FREE(g)     by the member itself, after it has given everything back
 *   ALIVE(g) -> DEAD(g)     by anyone who found the byte unlocked
 *   DEAD(g) -> FREE(g)      by anyone who made a full pass after DEAD and left no word with the id
 * The id of a member is slot << 21 | generation (31 bits, never 0).
 */
struct coshm__member_shm {
	struct coshm__a64 word;
	struct coshm__a32 pid; /* this and the next three: the member, for display */
	struct coshm__a32 reserved0;
	struct coshm__a64 attached_at_ns;
	struct coshm__a64 command[2];
	/* Id of the dead member that this one is cleaning up after, 0 none: the member; void unless ALIVE. See reap.c */
	struct coshm__a64 reaps;
	struct coshm__a64 reserved1[2];
	struct coshm__a64 open_objects[COSHM__ENTRY_COUNT / 64]; /* the member; void while FREE */
	struct coshm__a64 reserved2[4];
	struct coshm__a64 pins
		[COSHM__PIN_COUNT]; /* 0 or the pinned page's offset: the member; void unless ALIVE */
};

#define COSHM__MEMBER_GENERATION_BITS 21

/*
 * One thread of one member; or, at the member's own index, its reserve, on which threads without a slot take turns.
 * Everything but owner is written by the owner alone; in a free slot it means nothing.
 * The first line is for the hot path.
 */
struct coshm__thread_shm {
	/* Hazards: offset in the segment of a cache page, 0 for none. See structs/hazard.h. */
	struct coshm__a64 read_hazard[COSHM__HAZARD_READS];
	struct coshm__a64 write_hazard[COSHM__HAZARD_WRITES];
	struct coshm__a64 reserved0[2];

	struct coshm__a32
		owner; /* member id, 0 free: CAS by claimers and reapers, the owner stores 0 */
	struct coshm__a32 tid; /* as seen by the owner */
	struct coshm__a64 lock_offset
		[COSHM__LOCKS_HELD]; /* set before the lock's CAS, bit 0 after it, cleared after unlock */
	struct coshm__a64 reserved1[5];
};

enum coshm__entry_state {
	COSHM__ENTRY_FREE = 0,
	COSHM__ENTRY_BUILDING = 1, /* owner: the creator; dead creator: a gap */
	COSHM__ENTRY_LIVE = 2,
	COSHM__ENTRY_REMOVED = 3, /* memory is kept while any member has it open */
};

/*
 * One object. word = generation << 34 | owner id << 3 | state. The generation goes up when the entry is taken for a new
 * object. All else is written under directory_lock before BUILDING and const from then on.
 */
struct coshm__entry_shm {
	struct coshm__a64 word;
	struct coshm__a64 type; /* coshm_object_type */
	struct coshm__a64 offset_bytes;
	struct coshm__a64 size_bytes;
	struct coshm__a64 created_at_ns;
	struct coshm__a64 name[COSHM_NAME_SIZE_BYTES / 8];
	struct coshm__a64 reserved[5];
};

_Static_assert(sizeof(struct coshm__header_shm) == 4096, "header");
_Static_assert(offsetof(struct coshm__header_shm, directory_lock) == 256, "header lines");
_Static_assert(offsetof(struct coshm__header_shm, next_reap_at_ns) == 512, "header lines");
_Static_assert(sizeof(struct coshm__member_shm) == 640, "member");
_Static_assert(sizeof(struct coshm__thread_shm) == 128, "thread");
_Static_assert(offsetof(struct coshm__thread_shm, owner) == 64, "hot line");
_Static_assert(sizeof(struct coshm__entry_shm) == 128, "entry");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "futex halves assume little-endian");
_Static_assert(sizeof(void *) == 8, "coshm needs a 64-bit build");

#endif
