/* SPDX-License-Identifier: MIT */
#include "load.h"

#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOADS_MAX = 16 };

struct load {
	enum bench_distribution distribution;
	uint32_t key_count;
	char (*keys)[BENCH_KEY_BYTES];
};

static struct load loads[LOADS_MAX];
static int load_count;

void bench_make_key(char key[BENCH_KEY_BYTES], uint32_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "user:%010u:profile_", number);
	memcpy(key, text, BENCH_KEY_BYTES);
}

void bench_zipf(uint32_t *ranks, uint32_t count, uint32_t key_count, double exponent,
		uint64_t *random)
{
	double *sum = malloc(key_count * sizeof(*sum)), total = 0;

	if (!sum)
		bench_fail("malloc");
	for (uint32_t i = 0; i < key_count; i++) {
		total += 1 / pow(i + 1, exponent);
		sum[i] = total;
	}
	for (uint32_t i = 0; i < count; i++) {
		double u = (double)(bench_random(random) >> 11) / 9007199254740992.0 * total;
		uint32_t low = 0, high = key_count - 1;

		while (low < high) {
			uint32_t middle = (low + high) / 2;

			if (sum[middle] < u)
				low = middle + 1;
			else
				high = middle;
		}
		ranks[i] = low;
	}
	free(sum);
}

static uint32_t *permutation(uint32_t count, uint64_t *random)
{
	uint32_t *numbers = malloc(count * sizeof(*numbers));

	if (!numbers)
		bench_fail("malloc");
	for (uint32_t i = 0; i < count; i++)
		numbers[i] = i;
	for (uint32_t i = count - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(bench_random(random) % (i + 1)), t = numbers[i];

		numbers[i] = numbers[j];
		numbers[j] = t;
	}
	return numbers;
}

static void make_load(struct load *load)
{
	uint64_t random = UINT64_C(88172645463325252);
	uint32_t *ranks = malloc(BENCH_LOAD_LENGTH * sizeof(*ranks)), *numbers;

	if (!ranks)
		bench_fail("malloc");
	numbers = permutation(load->key_count, &random);
	load->keys = bench_shared((size_t)BENCH_LOAD_LENGTH * BENCH_KEY_BYTES);
	if (load->distribution == BENCH_ZIPF)
		bench_zipf(ranks, BENCH_LOAD_LENGTH, load->key_count, 0.99, &random);
	for (uint32_t i = 0; i < BENCH_LOAD_LENGTH; i++) {
		if (load->distribution == BENCH_UNIFORM)
			ranks[i] = (uint32_t)bench_random_below(&random, load->key_count);
		else if (load->distribution == BENCH_ONE_KEY)
			ranks[i] = 0;
		bench_make_key(load->keys[i], numbers[ranks[i]]);
	}
	free(numbers);
	free(ranks);
}

const char (*bench_load(enum bench_distribution distribution, uint32_t key_count))[BENCH_KEY_BYTES]
{
	struct load *load;

	for (int i = 0; i < load_count; i++)
		if (loads[i].distribution == distribution && loads[i].key_count == key_count)
			return (const char(*)[BENCH_KEY_BYTES])loads[i].keys;
	if (load_count == LOADS_MAX)
		bench_fail("too many loads");
	load = &loads[load_count++];
	load->distribution = distribution;
	load->key_count = key_count;
	make_load(load);
	return (const char(*)[BENCH_KEY_BYTES])load->keys;
}
