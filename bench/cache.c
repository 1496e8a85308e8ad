/* SPDX-License-Identifier: MIT */
/*
 * bench/cache - what does an operation on the cache cost, beside a model that does the least that is possible?
 *
 *	cache [--rounds N] [--seconds S] [--keys N] [--only TEXT] [--cpu-time] [--json]
 *
 * 24-byte keys, 100-byte values, 1,000,000 keys, Zipf(0.99) over a random permutation. The trace is read in sequence, so
 * the key itself is hot. The model has a 64-byte bucket of tags and an entry that is compared, copied and checked by its
 * version: no lock, no eviction, no time, private memory. Cases run one after the other in each round, so that the
 * drift of the machine hits all of them; the ratio is taken within a round. Workers are processes, one per CPU. With
 * --cpu-time the workers' own CPU time counts: on a machine that others use, too. --only leaves out the cases whose
 * name does not contain TEXT, but for those that others are compared with.
 */
#include <coshm/coshm.h>

#include "base/hash.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	KEY = 24,
	VALUE = 100,
	TRACE = 1 << 20,
	ROUNDS_MAX = 100,
	BATCH = 16,
	WORKERS_MAX = 2,
};

static uint32_t key_count = 1000000;
static char (*trace)[KEY]; /* Zipf */
static char (*uniform)[KEY];
static struct coshm_segment *segment;
static struct coshm_cache *big, *tight;
static _Atomic uint64_t *wrong;

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(clock_used, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * UINT64_C(2685821657736338717);
}

static void need(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, coshm_strerror(result));
	exit(1);
}

static void *shared_alloc(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		need(-1, "mmap");
	return memory;
}

static void make_key(char key[KEY], uint32_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "user:%010u:profile_", number);
	memcpy(key, text, KEY);
}

static void make_traces(void)
{
	uint32_t *permutation = malloc(key_count * sizeof(*permutation));
	double *sum = malloc(key_count * sizeof(*sum)), total = 0;
	uint64_t random = 88172645463325252;

	trace = shared_alloc((size_t)TRACE * KEY);
	uniform = shared_alloc((size_t)TRACE * KEY);
	for (uint32_t i = 0; i < key_count; i++) {
		permutation[i] = i;
		total += 1 / pow(i + 1, 0.99);
		sum[i] = total;
	}
	for (uint32_t i = key_count - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(next_random(&random) % (i + 1)), t = permutation[i];

		permutation[i] = permutation[j];
		permutation[j] = t;
	}
	for (uint32_t i = 0; i < TRACE; i++) {
		double u = (double)(next_random(&random) >> 11) / 9007199254740992.0 * total;
		uint32_t low = 0, high = key_count - 1;

		while (low < high) {
			uint32_t middle = (low + high) / 2;

			if (sum[middle] < u)
				low = middle + 1;
			else
				high = middle;
		}
		make_key(trace[i], permutation[low]);
		make_key(uniform[i], (uint32_t)(next_random(&random) % key_count));
	}
	free(permutation);
	free(sum);
}

/*
 * Makes the compiler believe that the bytes are looked at: else it leaves out a copy of which only two are, and the
 * model is no model.
 */
static inline void use(const void *bytes)
{
	__asm__ __volatile__("" : : "r"(bytes) : "memory");
}

/* --- the model --- */

struct model_bucket {
	uint16_t tag[8];
	uint32_t entry[8];
	uint8_t padding[16];
};

/* 144 bytes, as in the cache: entries of exactly two lines would be fetched as one. */
struct model_entry {
	_Atomic uint64_t version;
	uint64_t time;
	char key[KEY];
	char value[VALUE];
	uint32_t padding;
};

static struct model_bucket *model_buckets;
static struct model_entry *model_entries;
static uint32_t model_mask;

static void make_model(void)
{
	uint32_t buckets = 1;

	while (buckets * 4 < key_count)
		buckets *= 2;
	model_mask = buckets - 1;
	model_buckets = shared_alloc(buckets * sizeof(*model_buckets));
	model_entries = shared_alloc((key_count + 1) * sizeof(*model_entries));
	for (uint32_t i = 0; i < key_count; i++) {
		struct model_entry *entry = &model_entries[i + 1];
		uint64_t hash;
		uint32_t b;

		make_key(entry->key, i);
		memset(entry->value, (int)i, VALUE);
		hash = coshm__hash_place(1, entry->key, KEY);
		for (b = (uint32_t)(hash >> 32) & model_mask;; b = (b + 1) & model_mask) {
			int s = 0;

			while (s < 8 && model_buckets[b].entry[s])
				s++;
			if (s == 8)
				continue;
			model_buckets[b].tag[s] = (uint16_t)hash;
			model_buckets[b].entry[s] = i + 1;
			break;
		}
	}
}

static int model_get(const char *key, char *value)
{
	uint64_t hash = coshm__hash_place(1, key, KEY);
	uint32_t b = (uint32_t)(hash >> 32) & model_mask;

	for (int probes = 0; probes < 8; probes++, b = (b + 1) & model_mask) {
		for (int s = 0; s < 8; s++) {
			struct model_entry *entry;
			uint64_t version;

			if (model_buckets[b].tag[s] != (uint16_t)hash || !model_buckets[b].entry[s])
				continue;
			entry = &model_entries[model_buckets[b].entry[s]];
			version = atomic_load_explicit(&entry->version, memory_order_acquire);
			if (memcmp(entry->key, key, KEY) != 0)
				continue;
			memcpy(value, entry->value, VALUE);
			use(value);
			atomic_thread_fence(memory_order_acquire);
			if (atomic_load_explicit(&entry->version, memory_order_relaxed) == version)
				return 1;
		}
	}
	return 0;
}

/* --- cases: 1024 operations from one place of the trace --- */

enum { STEP = 1024 };

static int get_one(const char *key, char value[VALUE])
{
	size_t size = VALUE;

	return coshm_cache_get(big, key, KEY, value, &size, NULL) == 1 && size == VALUE &&
	       value[0] == value[VALUE - 1];
}

static uint64_t run_model(uint32_t at)
{
	char value[VALUE];
	uint64_t bad = 0;

	for (uint32_t i = 0; i < STEP; i++)
		bad += !model_get(trace[at + i], value) || value[0] != value[VALUE - 1];
	return bad;
}

static uint64_t run_get(uint32_t at)
{
	char value[VALUE];
	uint64_t bad = 0;

	for (uint32_t i = 0; i < STEP; i++)
		bad += !get_one(trace[at + i], value);
	return bad;
}

static uint64_t run_mget(uint32_t at)
{
	struct coshm_cache_request requests[BATCH];
	char values[BATCH][VALUE];
	uint64_t bad = 0;

	for (uint32_t i = 0; i < STEP; i += BATCH) {
		for (uint32_t k = 0; k < BATCH; k++)
			requests[k] = (struct coshm_cache_request){.key = trace[at + i + k],
								   .key_size_bytes = KEY,
								   .buffer = values[k],
								   .buffer_size_bytes = VALUE};
		bad += coshm_cache_mget(big, requests, BATCH) != BATCH;
		for (uint32_t k = 0; k < BATCH; k++)
			bad += values[k][0] != values[k][VALUE - 1];
	}
	return bad;
}

static uint64_t run_95_5(uint32_t at)
{
	char value[VALUE];
	uint64_t bad = 0;

	for (uint32_t i = 0; i < STEP; i++) {
		if (i % 20 == 7) {
			memset(value, (int)i, VALUE);
			bad += coshm_cache_set(big, trace[at + i], KEY, value, VALUE, 0) != 0;
		} else {
			bad += !get_one(trace[at + i], value);
		}
	}
	return bad;
}

static uint64_t run_set(uint32_t at)
{
	char value[VALUE];
	uint64_t bad = 0;

	memset(value, (int)at, VALUE);
	for (uint32_t i = 0; i < STEP; i++)
		bad += coshm_cache_set(tight, uniform[at + i], KEY, value, VALUE, 0) != 0;
	return bad;
}

static uint64_t run_set_zipf(uint32_t at)
{
	char value[VALUE];
	uint64_t bad = 0;

	memset(value, (int)at, VALUE);
	for (uint32_t i = 0; i < STEP; i++)
		bad += coshm_cache_set(tight, trace[at + i], KEY, value, VALUE, 0) != 0;
	return bad;
}

struct bench_case {
	const char *name;
	uint64_t (*run)(uint32_t at);
	int workers;
	int model;	      /* index of the case it is compared with */
	double floor_m_per_s; /* by each process; 0: none */
	double ns[ROUNDS_MAX];
	int left_out;
};

static struct bench_case cases[] = {
	{.name = "model get", .run = run_model, .workers = 1, .model = 0},
	{.name = "model get", .run = run_model, .workers = 2, .model = 1},
	{.name = "get", .run = run_get, .workers = 1, .model = 0, .floor_m_per_s = 5},
	{.name = "get", .run = run_get, .workers = 2, .model = 1},
	{.name = "mget of 16, per key", .run = run_mget, .workers = 1, .model = 2},
	{.name = "95/5 get/set", .run = run_95_5, .workers = 1, .model = 2},
	{.name = "95/5 get/set", .run = run_95_5, .workers = 2, .model = 3},
	{.name = "set with eviction, Zipf", .run = run_set_zipf, .workers = 1, .model = 2},
	{.name = "set with eviction, uniform",
	 .run = run_set,
	 .workers = 1,
	 .model = 2,
	 .floor_m_per_s = 2},
	{.name = "set with eviction, uniform", .run = run_set, .workers = 2, .model = 3},
};

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

struct worker_result {
	_Atomic int ready;
	double ns;
	uint64_t bad;
};

static void worker(const struct bench_case *c, int index, double seconds,
		   struct worker_result *results)
{
	uint32_t at = (uint32_t)index * (TRACE / 2 / STEP) * STEP + (uint32_t)getpid() % 64 * STEP;
	uint64_t operations = 0, bad = 0;
	double start, end;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(index, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	/* Becomes a member, and faults in what a new process has not mapped yet. */
	for (uint32_t i = 0; i < TRACE / 2; i += STEP)
		c->run((at + i) % TRACE);
	results[0].ready++;
	while (results[0].ready < c->workers)
		;
	start = now_s();
	do {
		at = (at + STEP) % TRACE;
		bad += c->run(at);
		operations += STEP;
		end = now_s();
	} while (end - start < seconds);
	results[index].ns = (end - start) / (double)operations * 1e9;
	results[index].bad = bad;
	_exit(0);
}

static double measure(const struct bench_case *c, double seconds)
{
	static struct worker_result *results;
	double ns = 0;

	if (!results)
		results = shared_alloc(4096);
	memset(results, 0, sizeof(*results) * WORKERS_MAX);
	for (int i = 0; i < c->workers; i++)
		if (fork() == 0)
			worker(c, i, seconds, results);
	for (int i = 0; i < c->workers; i++)
		wait(NULL);
	/* They have not said goodbye: what they held would make it harder for those that come next. */
	need(coshm_segment_reap(segment, NULL), "reap");
	for (int i = 0; i < c->workers; i++) {
		ns += results[i].ns / c->workers;
		*wrong += results[i].bad;
	}
	return ns;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *values, int count, double *ret_min, double *ret_max)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, (size_t)count * sizeof(*values));
	qsort(sorted, (size_t)count, sizeof(*sorted), compare);
	*ret_min = sorted[0];
	*ret_max = sorted[count - 1];
	return sorted[count / 2];
}

static void select_cases(const char *only)
{
	for (int i = 0; i < CASES; i++)
		cases[i].left_out = 1;
	for (int i = 0; i < CASES; i++) {
		if (only && !strstr(cases[i].name, only))
			continue;
		/* what it is compared with, and what that is compared with */
		for (int model = i; cases[model].left_out; model = cases[model].model)
			cases[model].left_out = 0;
	}
}

/* Fills a cache until it evicts: what one more item of 124 bytes takes, everything included. */
static double overhead_bytes(void)
{
	struct coshm_cache_config config = {.size_bytes = 64 << 20,
					    .average_item_bytes = KEY + VALUE};
	struct coshm_cache *cache;
	char key[KEY], value[VALUE] = {0};
	uint64_t count;

	need(coshm_cache_create(segment, "density", &config, 0, &cache), "create");
	for (uint32_t i = 0; i < 2000000; i++) {
		make_key(key, i);
		need(coshm_cache_set(cache, key, KEY, value, VALUE, 0), "set");
	}
	need(coshm_cache_count(cache, &count), "count");
	need(coshm_cache_close(cache), "close");
	need(coshm_object_remove(segment, "density"), "remove");
	return (double)config.size_bytes / (double)count - KEY - VALUE;
}

static void fill(void)
{
	char key[KEY], value[VALUE];

	for (uint32_t i = 0; i < key_count; i++) {
		make_key(key, i);
		memset(value, (int)i, VALUE);
		need(coshm_cache_set(big, key, KEY, value, VALUE, 0), "set");
		need(coshm_cache_set(tight, key, KEY, value, VALUE, 0), "set");
	}
}

static void print(int rounds, double overhead, int json)
{
	printf(json ? "{\"rounds\": %d, \"keys\": %u, \"cases\": ["
		    : "%d rounds, %u keys of 24 bytes, values of 100 bytes\n\n",
	       rounds, key_count);
	if (!json)
		printf("%-28s %5s %8s %17s %10s %6s\n", "case", "procs", "ns", "min - max",
		       "Mops/s", "ratio");
	for (int i = 0; i < CASES; i++) {
		double ratios[ROUNDS_MAX], low, high, rlow, rhigh, ns, ratio;

		if (cases[i].left_out)
			continue;
		for (int r = 0; r < rounds; r++)
			ratios[r] = cases[i].ns[r] / cases[cases[i].model].ns[r];
		ns = median(cases[i].ns, rounds, &low, &high);
		ratio = median(ratios, rounds, &rlow, &rhigh);
		printf(json ? "%s{\"case\": \"%s\", \"procs\": %d, \"ns\": %.1f, \"min\": %.1f, "
			      "\"max\": "
			      "%.1f, \"mops\": %.2f, \"ratio\": %.3f, \"to\": \"%s\""
			    : "%s%-28s %5d %8.1f %8.1f - %6.1f %10.2f %6.2f x %s\n",
		       json && i ? ", " : "", cases[i].name, cases[i].workers, ns, low, high,
		       cases[i].workers * 1e3 / ns, ratio, cases[cases[i].model].name);
		if (json && cases[i].floor_m_per_s > 0)
			printf(", \"floor_m_per_s\": %.1f", cases[i].floor_m_per_s);
		if (json)
			printf("}");
	}
	printf(json ? "], \"overhead_bytes\": %.1f, \"wrong\": %llu}\n"
		    : "\nbytes per item beyond key and value: %.1f\nwrong: %llu\n",
	       overhead, (unsigned long long)*wrong);
}

static void show_floors(int rounds)
{
	for (int i = 0; i < CASES; i++) {
		double low, high, reached;

		if (cases[i].left_out || cases[i].floor_m_per_s <= 0)
			continue;
		reached = 1e3 / median(cases[i].ns, rounds, &low, &high);
		printf("floor  %s: %.1f M/s per process of %.0f: %s\n", cases[i].name, reached,
		       cases[i].floor_m_per_s,
		       reached >= cases[i].floor_m_per_s ? "reached" : "MISSED");
	}
}

int main(int argc, char **argv)
{
	struct coshm_segment_config memory = {.size_bytes = UINT64_C(400) << 20,
					      .size_max_bytes = UINT64_C(800) << 20};
	struct coshm_cache_config config = {.size_bytes = UINT64_C(168) << 20,
					    .average_item_bytes = KEY + VALUE};
	int rounds = 5, json = 0;
	double seconds = 0.3, overhead;
	const char *only = NULL;
	char name[48];

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = 1;
		else if (strcmp(argv[i], "--cpu-time") == 0)
			clock_used = CLOCK_PROCESS_CPUTIME_ID;
		else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
			rounds = atoi(argv[++i]);
		else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = atof(argv[++i]);
		else if (strcmp(argv[i], "--keys") == 0 && i + 1 < argc)
			key_count = (uint32_t)atoi(argv[++i]);
		else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
			only = argv[++i];
		else
			rounds = 0;
	}
	if (rounds < 1 || rounds > ROUNDS_MAX || seconds <= 0 || key_count < 1000) {
		fprintf(stderr, "usage: cache [--rounds N] [--seconds S] [--keys N] [--only TEXT] "
				"[--cpu-time] [--json]\n");
		return 2;
	}
	select_cases(only);
	wrong = shared_alloc(4096);
	snprintf(name, sizeof(name), "coshm-bench-cache-%d", (int)getpid());
	need(coshm_segment_create(name, &memory, 0, &segment), "create segment");
	need(coshm_cache_create(segment, "big", &config, 0, &big), "create");
	config.size_bytes = UINT64_C(64) << 20;
	need(coshm_cache_create(segment, "tight", &config, 0, &tight), "create");
	make_traces();
	make_model();
	fill();
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < CASES; i++)
			if (!cases[i].left_out)
				cases[i].ns[r] = measure(&cases[i], seconds);
	overhead = overhead_bytes();
	print(rounds, overhead, json);
	if (!json)
		show_floors(rounds);
	need(coshm_segment_detach(segment), "detach");
	need(coshm_segment_unlink(name), "unlink");
	return *wrong != 0;
}
