/* SPDX-License-Identifier: MIT */
/*
 * bench/limiter - what one decision costs, beside what it is made of
 *
 *   bench/limiter [--json] [--rounds N] [--ms N]
 *
 * All cases run once per round, one after the other, so that a machine whose speed drifts favours none; the table has
 * the median of the rounds, their range, the median of the ratio to the case's limit, taken within each round, and what
 * is wanted: the floor that a machine of today must reach, and the goal. Below it, each floor with what was reached.
 */
#include <coshm/coshm.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEYS	   1000000
#define SLOTS	   1300000 /* what the limiter's table has for so many keys */
#define ROUNDS_MAX 99
#define PROCS_MAX  2
#define BATCH	   256

struct slot {
	_Atomic uint64_t key, tat;
};

/* Shared by all workers; lines that are written lie apart. */
struct shared {
	_Atomic uint64_t word __attribute__((aligned(128)));
	pthread_mutex_t mutex __attribute__((aligned(128)));
	uint64_t guarded;
	_Atomic uint32_t ready __attribute__((aligned(128)));
	_Atomic uint32_t go;
	double ns_per_op[PROCS_MAX];
	struct slot slots[SLOTS] __attribute__((aligned(128)));
};

static struct shared *shared;
static struct coshm_limiter *generous, *strict;

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * UINT64_C(2685821657736338717);
}

static uint64_t random_below(uint64_t *state, uint64_t bound)
{
	return ((random_next(state) >> 32) * bound) >> 32;
}

/* --- what is measured: BATCH operations each ---------------------------------------------------------------- */

static void run_clock(uint64_t *random)
{
	for (int i = 0; i < BATCH; i++)
		*random += clock_ns();
}

static void run_cas(uint64_t *random)
{
	(void)random;
	for (int i = 0; i < BATCH; i++) {
		uint64_t old = atomic_load_explicit(&shared->word, memory_order_relaxed);

		while (!atomic_compare_exchange_strong(&shared->word, &old, old + 2))
			;
	}
}

/* The whole of GCRA on one word: never refuses, as the generous limiter. */
static inline void gcra_take(_Atomic uint64_t *word)
{
	uint64_t now = clock_ns() << 8;
	uint64_t tat = atomic_load_explicit(word, memory_order_acquire);
	uint64_t next;

	do {
		next = ((int64_t)(tat - now) > 0 ? tat : now) + 256;
	} while (!atomic_compare_exchange_strong(word, &tat, next));
}

static void run_gcra(uint64_t *random)
{
	(void)random;
	for (int i = 0; i < BATCH; i++)
		gcra_take(&shared->word);
}

static void run_mutex(uint64_t *random)
{
	(void)random;
	for (int i = 0; i < BATCH; i++) {
		uint64_t now = clock_ns() << 8;

		pthread_mutex_lock(&shared->mutex);
		shared->guarded =
			((int64_t)(shared->guarded - now) > 0 ? shared->guarded : now) + 256;
		pthread_mutex_unlock(&shared->mutex);
	}
}

/* No clock, no hash: just the two words of a slot, found by chance. */
static void run_slot(uint64_t *random)
{
	for (int i = 0; i < BATCH; i++) {
		struct slot *slot = &shared->slots[random_below(random, SLOTS)];
		uint64_t tat = atomic_load_explicit(&slot->tat, memory_order_acquire);

		if (atomic_load_explicit(&slot->key, memory_order_relaxed) == 0)
			while (!atomic_compare_exchange_strong(&slot->tat, &tat, tat + 2))
				;
	}
}

static void run_slot_gcra(uint64_t *random)
{
	for (int i = 0; i < BATCH; i++) {
		struct slot *slot = &shared->slots[random_below(random, SLOTS)];

		if (atomic_load_explicit(&slot->key, memory_order_relaxed) == 0)
			gcra_take(&slot->tat);
	}
}

static void take(struct coshm_limiter *limiter, const void *key, size_t size_bytes, int expected)
{
	if (coshm_limiter_try(limiter, key, size_bytes, 1, NULL) != expected) {
		fprintf(stderr, "bench: a decision came out wrong\n");
		_exit(1);
	}
}

static const char client[] = "198.51.100.17";

static void run_hot(uint64_t *random)
{
	(void)random;
	for (int i = 0; i < BATCH; i++)
		take(generous, client, sizeof(client) - 1, 1);
}

static void run_refuse(uint64_t *random)
{
	(void)random;
	for (int i = 0; i < BATCH; i++)
		take(strict, client, sizeof(client) - 1, 0);
}

static void run_many(uint64_t *random)
{
	for (int i = 0; i < BATCH; i++) {
		uint64_t key[2] = {random_below(random, KEYS), 0};

		take(generous, key, 12, 1);
	}
}

struct bench {
	const char *name;
	void (*run)(uint64_t *random);
	int procs;
	int limit;		       /* index of what to compare with, -1: none */
	double floor_m_per_s, goal_ns; /* 0: none */
	double ns[ROUNDS_MAX];
	double ratio[ROUNDS_MAX];
};

static struct bench benches[] = {
	{.name = "clock_gettime", .run = run_clock, .procs = 1, .limit = -1},
	{.name = "CAS loop, one word", .run = run_cas, .procs = 1, .limit = -1},
	{.name = "CAS loop, one word", .run = run_cas, .procs = 2, .limit = -1},
	{.name = "clock + GCRA + CAS, one word", .run = run_gcra, .procs = 1, .limit = -1},
	{.name = "clock + GCRA + CAS, one word", .run = run_gcra, .procs = 2, .limit = -1},
	{.name = "pshared mutex + clock + GCRA", .run = run_mutex, .procs = 1, .limit = 3},
	{.name = "pshared mutex + clock + GCRA", .run = run_mutex, .procs = 2, .limit = 4},
	{.name = "random 16-byte slot, load + CAS", .run = run_slot, .procs = 1, .limit = -1},
	{.name = "random slot, clock + GCRA + CAS", .run = run_slot_gcra, .procs = 1, .limit = -1},
	{.name = "limiter, hot key",
	 .run = run_hot,
	 .procs = 1,
	 .limit = 3,
	 .floor_m_per_s = 10,
	 .goal_ns = 40},
	{.name = "limiter, hot key", .run = run_hot, .procs = 2, .limit = 4, .floor_m_per_s = 10},
	{.name = "limiter, hot key, refused", .run = run_refuse, .procs = 1, .limit = 0},
	{.name = "limiter, hot key, refused", .run = run_refuse, .procs = 2, .limit = 0},
	{.name = "limiter, 1M keys, uniform", .run = run_many, .procs = 1, .limit = 7},
	{.name = "limiter, 1M keys, uniform", .run = run_many, .procs = 2, .limit = 7},
};

#define BENCHES (sizeof(benches) / sizeof(benches[0]))

/* --- running ------------------------------------------------------------------------------------------------ */

static void work(const struct bench *bench, int number, uint64_t for_ns)
{
	uint64_t random = UINT64_C(88172645463325252) + (uint64_t)number * 7919, count = 0, start,
		 now;

	bench->run(&random);
	atomic_fetch_add(&shared->ready, 1);
	while (!atomic_load(&shared->go))
		;
	start = clock_ns();
	do {
		for (int i = 0; i < 16; i++)
			bench->run(&random);
		count += 16 * BATCH;
		now = clock_ns();
	} while (now - start < for_ns);
	shared->ns_per_op[number] = (double)(now - start) / (double)count;
}

static double measure(const struct bench *bench, uint64_t for_ns)
{
	double sum = 0;

	atomic_store(&shared->ready, 0);
	atomic_store(&shared->go, 0);
	for (int i = 0; i < bench->procs; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			work(bench, i, for_ns);
			_exit(0);
		}
		if (pid < 0) {
			perror("bench: fork");
			exit(1);
		}
	}
	while (atomic_load(&shared->ready) < (uint32_t)bench->procs)
		usleep(100);
	atomic_store(&shared->go, 1);
	for (int i = 0; i < bench->procs; i++) {
		int status;

		if (wait(&status) < 0 || status != 0)
			exit(1);
	}
	for (int i = 0; i < bench->procs; i++)
		sum += shared->ns_per_op[i];
	return sum / bench->procs;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "bench: %s: %s\n", what, coshm_strerror(result));
		exit(1);
	}
}

static void prepare(struct coshm_segment **ret_segment, char *name)
{
	const struct coshm_segment_config size = {.size_bytes = 64 << 20};
	/* So fast that no key is ever refused, and so deep that every key stays in the table. */
	const struct coshm_limiter_config fast = {
		.rate = 1000000000, .burst = 2000000000000, .keys_max = KEYS};
	const struct coshm_limiter_config slow = {
		.rate = 1, .per_ns = UINT64_C(3600000000000), .keys_max = 100};
	pthread_mutexattr_t attributes;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED) {
		perror("bench: mmap");
		exit(1);
	}
	memset(shared, 0, sizeof(*shared));
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&shared->mutex, &attributes);
	snprintf(name, 64, "bench-limiter-%d", (int)getpid());
	check(coshm_segment_create(name, &size, 0, ret_segment), "segment");
	check(coshm_limiter_create(*ret_segment, "generous", &fast, 0, &generous), "limiter");
	check(coshm_limiter_create(*ret_segment, "strict", &slow, 0, &strict), "limiter");
	take(strict, client, sizeof(client) - 1, 1);
	for (uint64_t i = 0; i < KEYS; i++) {
		uint64_t key[2] = {i, 0};

		if (coshm_limiter_try(generous, key, 12, 1000000000000, NULL) != 1)
			exit(1);
	}
}

static double m_per_s(const struct bench *bench, int rounds)
{
	return bench->procs * 1e3 / bench->ns[rounds / 2];
}

static void show_floors(int rounds)
{
	for (size_t i = 0; i < BENCHES; i++) {
		const struct bench *bench = &benches[i];
		double reached = m_per_s(bench, rounds);

		if (bench->floor_m_per_s > 0)
			printf("floor  %s, %d process%s: %.1f M/s of %.0f: %s\n", bench->name,
			       bench->procs, bench->procs == 1 ? "" : "es", reached,
			       bench->floor_m_per_s,
			       reached >= bench->floor_m_per_s ? "reached" : "MISSED");
	}
}

static void show_table(int rounds)
{
	printf("%-34s %5s %9s %17s %9s %8s %8s\n", "", "procs", "ns", "range", "M/s", "x limit",
	       "goal ns");
	for (size_t i = 0; i < BENCHES; i++) {
		struct bench *bench = &benches[i];
		double median = bench->ns[rounds / 2];

		printf("%-34s %5d %9.1f %8.1f-%8.1f %9.2f", bench->name, bench->procs, median,
		       bench->ns[0], bench->ns[rounds - 1], m_per_s(bench, rounds));
		if (bench->limit >= 0)
			printf(" %8.2f", bench->ratio[rounds / 2]);
		if (bench->goal_ns > 0)
			printf(" %8.0f", bench->goal_ns);
		printf("\n");
	}
	show_floors(rounds);
}

static void show_json(int rounds)
{
	printf("{\"rounds\": %d, \"cases\": [", rounds);
	for (size_t i = 0; i < BENCHES; i++) {
		struct bench *bench = &benches[i];

		printf("%s\n  {\"name\": \"%s\", \"procs\": %d, \"ns_median\": %.2f, \"ns_min\": "
		       "%.2f, "
		       "\"ns_max\": %.2f",
		       i ? "," : "", bench->name, bench->procs, bench->ns[rounds / 2], bench->ns[0],
		       bench->ns[rounds - 1]);
		if (bench->limit >= 0)
			printf(", \"limit\": \"%s\", \"limit_ratio_median\": %.3f",
			       benches[bench->limit].name, bench->ratio[rounds / 2]);
		if (bench->floor_m_per_s > 0)
			printf(", \"floor_m_per_s\": %.1f", bench->floor_m_per_s);
		if (bench->goal_ns > 0)
			printf(", \"goal_ns\": %.1f", bench->goal_ns);
		printf("}");
	}
	printf("\n]}\n");
}

int main(int argc, char **argv)
{
	int rounds = 9, json = 0;
	uint64_t for_ns = 50000000;
	struct coshm_segment *segment;
	char name[64];

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = 1;
		else if (!strcmp(argv[i], "--rounds") && i + 1 < argc)
			rounds = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--ms") && i + 1 < argc)
			for_ns = (uint64_t)atoi(argv[++i]) * 1000000;
		else
			rounds = 0;
	}
	if (rounds < 1 || rounds > ROUNDS_MAX || for_ns == 0) {
		fprintf(stderr, "usage: limiter [--json] [--rounds N] [--ms N]\n");
		return 2;
	}
	prepare(&segment, name);
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < BENCHES; i++) {
			benches[i].ns[round] = measure(&benches[i], for_ns);
			if (benches[i].limit >= 0)
				benches[i].ratio[round] =
					benches[i].ns[round] / benches[benches[i].limit].ns[round];
		}
	for (size_t i = 0; i < BENCHES; i++) {
		qsort(benches[i].ns, (size_t)rounds, sizeof(double), by_value);
		qsort(benches[i].ratio, (size_t)rounds, sizeof(double), by_value);
	}
	if (json)
		show_json(rounds);
	else
		show_table(rounds);
	check(coshm_segment_detach(segment), "detach");
	check(coshm_segment_unlink(name), "unlink");
	return 0;
}
