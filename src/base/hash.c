/* SPDX-License-Identifier: MIT */
/* SipHash-1-3 after the paper by Aumasson and Bernstein (2012); why 1 and 3: docs/adr/0007-siphash-1-3.md */
#include "base/hash.h"

#include <string.h>

struct siphash {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotate_left(uint64_t x, unsigned int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static inline void rounds(struct siphash *s, int count)
{
#pragma GCC unroll 3
	for (int i = 0; i < count; i++) {
		s->v0 += s->v1;
		s->v2 += s->v3;
		s->v1 = rotate_left(s->v1, 13) ^ s->v0;
		s->v3 = rotate_left(s->v3, 16) ^ s->v2;
		s->v0 = rotate_left(s->v0, 32);
		s->v2 += s->v1;
		s->v0 += s->v3;
		s->v1 = rotate_left(s->v1, 17) ^ s->v2;
		s->v3 = rotate_left(s->v3, 21) ^ s->v0;
		s->v2 = rotate_left(s->v2, 32);
	}
}

/* @size_bytes < 8 bytes as a little-endian number, without a loop or a byte too far. */
static inline uint64_t load_rest(const unsigned char *bytes, size_t size_bytes)
{
	uint32_t low, high;

	if (size_bytes >= 4) {
		memcpy(&low, bytes, 4);
		memcpy(&high, bytes + size_bytes - 4, 4);
		return low | (uint64_t)high << (8 * (size_bytes - 4));
	}
	if (size_bytes == 0)
		return 0;
	return bytes[0] | (uint64_t)bytes[size_bytes / 2] << (8 * (size_bytes / 2)) |
	       (uint64_t)bytes[size_bytes - 1] << (8 * (size_bytes - 1));
}

uint64_t coshm__hash_fingerprint(const uint64_t secret[2], const void *key, size_t size_bytes)
{
	const unsigned char *bytes = key;
	uint64_t last = (uint64_t)size_bytes << 56;
	struct siphash s = {
		.v0 = secret[0] ^ UINT64_C(0x736f6d6570736575),
		.v1 = secret[1] ^ UINT64_C(0x646f72616e646f6d),
		.v2 = secret[0] ^ UINT64_C(0x6c7967656e657261),
		.v3 = secret[1] ^ UINT64_C(0x7465646279746573),
	};
	size_t rest = size_bytes % 8;
	uint64_t word;

	for (size_t i = 0; i + 8 <= size_bytes; i += 8) {
		memcpy(&word, bytes + i, 8);
		s.v3 ^= word;
		rounds(&s, 1);
		s.v0 ^= word;
	}
	last |= load_rest(bytes + size_bytes - rest, rest);
	s.v3 ^= last;
	rounds(&s, 1);
	s.v0 ^= last;
	s.v2 ^= 0xff;
	rounds(&s, 3);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
