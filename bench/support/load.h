/* SPDX-License-Identifier: MIT */
/*
 * bench/support/load.h - keys in the order in which they are asked for
 *
 * A load is a long sequence of numbered keys that workers walk through; reading it in sequence keeps the key itself hot,
 * so that the figure is that of the table and not of the load.
 */
#ifndef BENCH_SUPPORT_LOAD_H
#define BENCH_SUPPORT_LOAD_H

#include <stdint.h>

enum {
	BENCH_KEY_BYTES = 24,
	BENCH_LOAD_LENGTH = 1 << 20,
};

enum bench_distribution {
	BENCH_ZIPF, /* exponent 0.99 over a random permutation of the keys */
	BENCH_UNIFORM,
	BENCH_ONE_KEY,
};

void bench_make_key(char key[BENCH_KEY_BYTES], uint32_t number);

/* Made at the first call for a pair, then kept; shared by all workers. */
const char (*bench_load(enum bench_distribution distribution, uint32_t key_count))[BENCH_KEY_BYTES];

/* Fills numbers with Zipf-distributed ranks, 0 the most frequent. */
void bench_zipf(uint32_t *ranks, uint32_t count, uint32_t key_count, double exponent,
		uint64_t *random);

#endif
