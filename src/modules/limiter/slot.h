/* SPDX-License-Identifier: MIT */
/* limiter/slot.h - the two words of a slot: what they say, where a key's are, finding them */
#ifndef COSHM__LIMITER_SLOT_H
#define COSHM__LIMITER_SLOT_H

#include "modules/limiter/limiter_shm.h"

#define COSHM__LIMITER_LIFE_MASK UINT64_C(0xfe)
#define COSHM__LIMITER_LIFE_ONE	 UINT64_C(0x02)
#define COSHM__LIMITER_CLAIM	 UINT64_C(0x01)

/* A key of the user, hashed. */
struct coshm__limiter_key {
	uint64_t word; /* a key word with its fingerprint and nothing else */
	struct coshm__limiter_bucket_shm *buckets[2];
};

struct coshm__limiter_slot {
	struct coshm__a64 *key;
	struct coshm__a64 *tat;
};

static inline uint64_t coshm__limiter_fingerprint_of(uint64_t word)
{
	return word & ~(COSHM__LIMITER_LIFE_MASK | COSHM__LIMITER_CLAIM);
}

static inline bool coshm__limiter_is_claim(uint64_t tat)
{
	return tat & COSHM__LIMITER_CLAIM;
}

/* Same fingerprint, whatever the life? */
static inline bool coshm__limiter_same_key(uint64_t word, uint64_t other)
{
	return coshm__limiter_fingerprint_of(word ^ other) == 0;
}

/* The key word of the slot's next life. */
static inline uint64_t coshm__limiter_next_word(uint64_t word, uint64_t fingerprint)
{
	return fingerprint | ((word + COSHM__LIMITER_LIFE_ONE) & COSHM__LIMITER_LIFE_MASK);
}

/* A number below @bound out of 32 bits, in proportion. */
static inline uint64_t coshm__limiter_scale(uint64_t bits32, uint64_t bound)
{
	return (bits32 * bound) >> 32;
}

/*
 * How many buckets a key's second one is behind its first: from 1 to bucket_count - 1. Made of bits 8 to 39 of the key
 * word, while the first one is made of those above and of eight bits of the hash that the word does not keep.
 */
static inline uint64_t coshm__limiter_distance(uint64_t bucket_count, uint64_t word)
{
	return 1 + coshm__limiter_scale((word >> 8) & UINT32_MAX, bucket_count - 1);
}

static inline uint64_t coshm__limiter_second_bucket(uint64_t bucket_count, uint64_t word,
						    uint64_t first)
{
	uint64_t second = first + coshm__limiter_distance(bucket_count, word);

	return second < bucket_count ? second : second - bucket_count;
}

static inline uint64_t coshm__limiter_first_bucket(uint64_t bucket_count, uint64_t word,
						   uint64_t second)
{
	uint64_t back = coshm__limiter_distance(bucket_count, word);

	return second >= back ? second - back : second + bucket_count - back;
}

/* Also has the CPU fetch both buckets, so that all cache misses come at once, while the caller reads the clock. */
static inline void coshm__limiter_key_make(struct coshm__limiter_key *ret_key,
					   struct coshm__limiter_bucket_shm *buckets,
					   uint64_t bucket_count, uint64_t hash)
{
	uint64_t first = coshm__limiter_scale(hash >> 32, bucket_count);

	ret_key->word = coshm__likely(hash << 8) ? hash << 8 : UINT64_C(1) << 8;
	ret_key->buckets[0] = &buckets[first];
	ret_key->buckets[1] =
		&buckets[coshm__limiter_second_bucket(bucket_count, ret_key->word, first)];
	for (unsigned int b = 0; b < 2; b++) {
		__builtin_prefetch(ret_key->buckets[b]->key);
		__builtin_prefetch(ret_key->buckets[b]->tat);
	}
}

/* Could a key with this word have bucket @index as its first one? Hardly any wrong word passes. */
static inline bool coshm__limiter_may_be_first(uint64_t bucket_count, uint64_t word, uint64_t index)
{
	/* The smallest number that scales to index, and from there on the first one that ends in the word's bits. */
	uint64_t low = ((index << 32) + bucket_count - 1) / bucket_count;
	uint64_t bits32 = (low & ~UINT64_C(0xffffff)) | word >> 40;

	if (bits32 < low)
		bits32 += UINT64_C(1) << 24;
	return bits32 <= UINT32_MAX && coshm__limiter_scale(bits32, bucket_count) == index;
}

/*
 * Is the slot, whose tat was found to be @tat, open for the key? If so, that tat is the key's; but if a CAS of tat does not
 * follow, it must be loaded again to know that it was still there.
 */
static inline bool coshm__limiter_is_open(const struct coshm__limiter_slot *slot, uint64_t tat,
					  const struct coshm__limiter_key *key)
{
	/* [LM3] acquire, pairs [LM4]; comes before a second load of tat */
	return !coshm__limiter_is_claim(tat) &&
	       coshm__limiter_same_key(coshm__a64_load_acquire(slot->key), key->word);
}

/* The open slot of the key and its tat. */
static inline bool coshm__limiter_find(const struct coshm__limiter_key *key,
				       struct coshm__limiter_slot *ret_slot, uint64_t *ret_tat)
{
	for (unsigned int b = 0; b < 2; b++) {
		struct coshm__limiter_bucket_shm *bucket = key->buckets[b];

		for (unsigned int i = 0; i < COSHM__LIMITER_SLOTS; i++) {
			/* relaxed: a hint; the key word is loaded again, after tat */
			if (coshm__likely(!coshm__limiter_same_key(
				    coshm__a64_load_relaxed(&bucket->key[i]), key->word)))
				continue;
			ret_slot->key = &bucket->key[i];
			ret_slot->tat = &bucket->tat[i];
			/* [LM1] acquire, pairs [LM2]; carries the key word of the life that tat belongs to */
			*ret_tat = coshm__a64_load_acquire(ret_slot->tat);
			if (coshm__limiter_is_open(ret_slot, *ret_tat, key))
				return true;
		}
	}
	return false;
}

#endif
