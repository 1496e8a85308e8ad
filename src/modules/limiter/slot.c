/* SPDX-License-Identifier: MIT */
/* The two places where a key's entry can be. */
#include "modules/limiter/slot.h"

static inline uint64_t scale(uint64_t bits32, uint64_t bound)
{
	return (bits32 * bound) >> 32;
}

/* From 1 to bucket_count - 1, out of bits 8 to 39 of the word; the first bucket is made of those above. */
static inline uint64_t distance(uint64_t bucket_count, uint64_t word)
{
	return 1 + scale((word >> 8) & UINT32_MAX, bucket_count - 1);
}

uint64_t coshm__limiter_second_bucket(uint64_t bucket_count, uint64_t word, uint64_t first)
{
	uint64_t second = first + distance(bucket_count, word);

	return second < bucket_count ? second : second - bucket_count;
}

uint64_t coshm__limiter_first_bucket(uint64_t bucket_count, uint64_t word, uint64_t second)
{
	uint64_t back = distance(bucket_count, word);

	return second >= back ? second - back : second + bucket_count - back;
}

bool coshm__limiter_may_be_first(uint64_t bucket_count, uint64_t word, uint64_t index)
{
	/* The smallest number that scales to index, and from there on the first one that ends in the word's bits. */
	uint64_t low = ((index << 32) + bucket_count - 1) / bucket_count;
	uint64_t bits32 = (low & ~UINT64_C(0xffffff)) | word >> 40;

	if (bits32 < low)
		bits32 += UINT64_C(1) << 24;
	return bits32 <= UINT32_MAX && scale(bits32, bucket_count) == index;
}

struct coshm__limiter_key coshm__limiter_key_make(struct coshm__limiter_bucket_shm *buckets,
						  uint64_t bucket_count, uint64_t hash)
{
	uint64_t first = scale(hash >> 32, bucket_count);
	struct coshm__limiter_key key = {.word = hash << 8};

	if (coshm__unlikely(!key.word))
		key.word = UINT64_C(1) << 8;
	key.buckets[0] = &buckets[first];
	key.buckets[1] = &buckets[coshm__limiter_second_bucket(bucket_count, key.word, first)];
	for (unsigned int b = 0; b < 2; b++) {
		__builtin_prefetch(key.buckets[b]->key);
		__builtin_prefetch(key.buckets[b]->tat);
	}
	return key;
}
