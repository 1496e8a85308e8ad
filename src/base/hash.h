/* SPDX-License-Identifier: MIT */
/*
 * base/hash.h - two keyed hashes, for two dangers
 *
 * coshm__hash_place puts a key into a bucket: XXH3 with a secret seed. Who floods one bucket makes it slow, not wrong.
 * coshm__hash_fingerprint stands for a key that is not kept: SipHash-1-3, where a forged collision would make two
 * clients share one bucket of tokens.
 */
#ifndef COSHM__BASE_HASH_H
#define COSHM__BASE_HASH_H

#define XXH_INLINE_ALL
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wundef"
#include <xxhash.h>
#pragma GCC diagnostic pop

#include <stddef.h>
#include <stdint.h>

static inline uint64_t coshm__hash_place(uint64_t seed, const void *key, size_t size_bytes)
{
	return XXH3_64bits_withSeed(key, size_bytes, seed);
}

uint64_t coshm__hash_fingerprint(const uint64_t secret[2], const void *key, size_t size_bytes);

#endif
