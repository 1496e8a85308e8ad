/* SPDX-License-Identifier: MIT */
/*
 * limiter/limiter_shm.h - what a limiter is in the segment
 *
 *   struct coshm__limiter_shm           header, configuration, counters
 *   struct coshm__limiter_bucket_shm    x bucket_count
 *
 * A slot is a pair of words: key[i] and tat[i] of a bucket.
 *
 *   key   fingerprint:56 | life:7 | 0         fingerprint 0: none
 *   tat   even: a time in ticks (see gcra.h)  odd: a claim, the key word that is to come, + 1
 *
 * The tat word alone says what the slot is:
 *
 *   vacant    tat even, key has no fingerprint
 *   open      tat even, key has one: the bucket of tokens of that key, full again at tat
 *   claimed   tat odd, key word not yet the claimed one
 *   settled   tat odd, key word the claimed one
 *
 *   even    -> claim     by an inserter: CAS tat. Takes the slot from its key; fails if that was charged meanwhile
 *   claimed -> settled   by anyone: CAS key
 *   settled -> even      by whoever inserts the key and has seen that it has no other entry: CAS tat
 *   settled -> claim     by anyone who needs the slot or withdraws the claim: CAS tat, life + 1
 *   time    -> time      by deciders: CAS tat
 *
 * I1  The key word changes only while tat is odd, to that claim, and before tat is anything else. So life goes up by one
 *     with every claim, and a CAS of the key word that comes late fails.
 * I2  At most one slot is open for a key; it is in one of the key's two buckets.
 * I3  The times of a slot grow from one life to the next, if no live debt was evicted: a CAS of tat that was prepared in
 *     an earlier life fails.
 * I4  tat lies at most capacity_ever ahead of the clock.
 * I5  configs[version % COUNT] is complete and was never changed since version was published.
 */
#ifndef COSHM__LIMITER_LIMITER_SHM_H
#define COSHM__LIMITER_LIMITER_SHM_H

#include "segment/segment_shm.h"
#include "stats/stats.h"

#define COSHM__LIMITER_SLOTS	    8 /* per bucket */
#define COSHM__LIMITER_CONFIG_COUNT 8

/* Key words, then tats: a scan for a key touches one line, which no decision writes. */
struct coshm__limiter_bucket_shm {
	struct coshm__a64 key[COSHM__LIMITER_SLOTS];
	struct coshm__a64 tat[COSHM__LIMITER_SLOTS];
};

/* Written under config_lock, while it is not yet, or not for seven versions, the one in force. */
struct coshm__limiter_config_shm {
	struct coshm__a64 rate;
	struct coshm__a64 per_ns;
	struct coshm__a64 burst;
	struct coshm__a64 period; /* this and the next two: as in struct coshm__gcra */
	struct coshm__a64 capacity;
	struct coshm__a64 capacity_ever;
	struct coshm__a64 reserved[2];
};

struct coshm__limiter_shm {
	/* const, by the creator */
	uint64_t bucket_count;
	uint64_t keys_max;
	uint8_t padding0[128 - 16];

	/* read by every decision, written by configure */
	struct coshm__a64 config_version;
	uint8_t padding1[64 - 8];
	struct coshm__limiter_config_shm configs[COSHM__LIMITER_CONFIG_COUNT];

	struct coshm__rlock_shm config_lock; /* configurers only */
	uint8_t padding2[64 - 8];

	struct coshm__counters_shm counters;
	struct coshm__limiter_bucket_shm buckets[];
};

_Static_assert(sizeof(struct coshm__limiter_bucket_shm) == 128, "bucket: two adjacent lines");
_Static_assert(sizeof(struct coshm__limiter_config_shm) == 64, "config: one line");
_Static_assert(offsetof(struct coshm__limiter_shm, config_version) == 128, "header lines");
_Static_assert(offsetof(struct coshm__limiter_shm, configs) == 192, "header lines");
_Static_assert(offsetof(struct coshm__limiter_shm, config_lock) == 704, "header lines");
_Static_assert(offsetof(struct coshm__limiter_shm, counters) == 768, "header lines");
_Static_assert(sizeof(struct coshm__limiter_shm) % 128 == 0, "buckets start on a line");

#endif
