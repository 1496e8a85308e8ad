/* SPDX-License-Identifier: MIT */
/* Deterministic randomness: both programs must build the same traffic from the same seed. */
#ifndef DEMO_RANDOM_H
#define DEMO_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* splitmix64: also the seeding step of the body stream, where each input bit must reach all bits */
static inline uint64_t demo_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static inline uint64_t demo_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return demo_mix(*state);
}

/* in [0, bound); the bias of the modulo is far below what the demo can notice */
static inline uint64_t demo_random_below(uint64_t *state, uint64_t bound)
{
	return demo_random(state) % bound;
}

/* in (0, 1) */
static inline double demo_random_unit(uint64_t *state)
{
	return ((double)(demo_random(state) >> 11) + 0.5) / 9007199254740992.0;
}

/* FNV-1a: short keys, no adversary, no library */
static inline uint64_t demo_hash(const void *bytes, size_t size_bytes)
{
	const unsigned char *p = bytes;
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < size_bytes; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

#endif
