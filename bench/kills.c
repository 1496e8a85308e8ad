/* SPDX-License-Identifier: MIT */
/*
 * bench/kills - what does an operation take while others are being killed?
 *
 *	kills [--every MS] [options of all benches]
 *
 * One process on a CPU of its own does one kind of operation and takes the time of every so-manieth; another one, on the next
 * CPU, does all kinds, on the same objects. Once nobody dies, once the other one is killed every 20 ms in the middle of
 * whatever it does, and replaced. Both figures have two reads of the clock in them, some 50 ns. What a killed one held
 * is free when the kernel has torn it down and somebody has noticed: the longest times tell whether one waited for that.
 */
#include "support/bench.h"
#include "support/load.h"

#include <coshm/coshm.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 50000, VALUE_BYTES = 100, UNTIMED = 32 };

/* What a case's numbers are. */
enum { OPERATION, KILLS };

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static struct coshm_limiter *limiter;
static struct coshm_queue *queue;
static pid_t killer;
static long every_ms = 20;
static uint64_t random_state;

static void open_all(void)
{
	const struct coshm_segment_config memory = {.size_bytes = 24 << 20};
	const struct coshm_cache_config values = {.size_bytes = 8 << 20};
	const struct coshm_limiter_config tokens = {
		.rate = 1000000000, .burst = UINT64_C(1) << 40, .keys_max = KEYS};
	const struct coshm_queue_config tasks = {.capacity = 4096};

	bench_need(coshm_segment_create(bench_segment_name(), &memory, 0, &segment), "segment");
	bench_need(coshm_cache_create(segment, "cache", &values, 0, &cache), "cache");
	bench_need(coshm_limiter_create(segment, "limiter", &tokens, 0, &limiter), "limiter");
	bench_need(coshm_queue_create(segment, "queue", &tasks, 0, &queue), "queue");
}

/* --- operations: 1 right, 0 wrong --- */

static void random_key(char key[BENCH_KEY_BYTES])
{
	bench_make_key(key, (uint32_t)bench_random_below(&random_state, KEYS));
}

static int do_get(void)
{
	char key[BENCH_KEY_BYTES], value[VALUE_BYTES];
	size_t size_bytes = sizeof(value);
	int got;

	random_key(key);
	got = coshm_cache_get(cache, key, sizeof(key), value, &size_bytes, NULL);
	return got == 0 || (got == 1 && value[0] == value[VALUE_BYTES - 1]);
}

static int do_set(void)
{
	char key[BENCH_KEY_BYTES], value[VALUE_BYTES];

	random_key(key);
	memset(value, key[BENCH_KEY_BYTES - 1], sizeof(value));
	return coshm_cache_set(cache, key, sizeof(key), value, sizeof(value), 0) == 0;
}

static int do_try(void)
{
	char key[BENCH_KEY_BYTES];

	random_key(key);
	return coshm_limiter_try(limiter, key, sizeof(key), 1, NULL) == 1;
}

/* Somebody else may have taken the task, or left one. */
static int do_task(void)
{
	struct coshm_task task;
	int error = coshm_queue_enqueue(queue, "", 0, NULL, NULL), got;

	if (error)
		return 0;
	got = coshm_queue_reserve(queue, 0, &task);
	return got == 0 || (got == 1 && coshm_queue_ack(queue, &task) == 0);
}

static const struct {
	const char *name;
	int (*once)(void);
} operations[] = {
	{"get", do_get},
	{"set with eviction", do_set},
	{"limiter, random key", do_try},
	{"enqueue, reserve, ack", do_task},
};

enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };

/* --- the other one, and who kills it --- */

static pid_t child_of(pid_t parent)
{
	pid_t child = fork();

	if (child < 0)
		bench_fail("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return child;
}

static _Noreturn void be_the_other(uint64_t seed)
{
	bench_pin(1);
	random_state = seed;
	for (;;)
		for (int o = 0; o < OPERATIONS; o++)
			operations[o].once();
}

static _Noreturn void be_the_killer(int kills)
{
	const struct timespec pause = {.tv_sec = every_ms / 1000,
				       .tv_nsec = every_ms % 1000 * 1000000};

	bench_pin(1);
	for (uint64_t seed = 1;; seed++) {
		pid_t other = child_of(getpid());

		if (other == 0)
			be_the_other(seed);
		do
			nanosleep(&pause, NULL);
		while (!kills);
		kill(other, SIGKILL);
		waitpid(other, NULL, 0);
	}
}

static void set_up(const struct bench_case *c)
{
	open_all();
	random_state = 4711;
	for (uint32_t i = 0; i < 2 * KEYS; i++)
		do_set();
	killer = child_of(getpid());
	if (killer == 0)
		be_the_killer((int)c->number[KILLS]);
}

static void tear_down(const struct bench_case *c)
{
	struct coshm_verify_result found = {0};

	(void)c;
	kill(killer, SIGKILL);
	waitpid(killer, NULL, 0);
	bench_need(coshm_segment_reap(segment, NULL), "reap");
	bench_need(coshm_inspect_verify(segment, NULL, NULL, NULL, &found), "verify");
	if (found.damage) {
		fprintf(stderr, "kills: %llu pieces of damage\n", (unsigned long long)found.damage);
		exit(1);
	}
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
}

static void work(struct bench_worker *worker)
{
	int (*once)(void) = operations[worker->of->number[OPERATION]].once;

	random_state = worker->random;
	for (uint64_t i = 0; i < worker->share; i++) {
		uint64_t began_ns = bench_now_ns();
		int right = once();

		bench_sample(bench_now_ns() - began_ns);
		worker->wrong += !right;
		for (int n = 0; n < UNTIMED; n++)
			worker->wrong += !once();
	}
}

static void end(struct bench_worker *worker)
{
	(void)worker;
	bench_need(coshm_segment_detach(segment), "detach");
}

static void add_cases(void)
{
	for (int o = 0; o < OPERATIONS; o++)
		for (int kills = 0; kills < 2; kills++) {
			const struct bench_case c = {
				.question = operations[o].name,
				.subject = kills ? "the other one is killed" : "nobody dies",
				.procs = 1,
				.is_limit = !kills,
				.is_ours = kills,
				.latency = 1,
				.set_up = set_up,
				.tear_down = tear_down,
				.work = work,
				.end = end,
				.total = bench_quick ? 500 : BENCH_SAMPLES_MAX,
				.number = {o, kills},
			};

			bench_add(&c);
		}
}

static int option(const char *name, const char *value)
{
	if (strcmp(name, "--every") != 0 || !value)
		return 0;
	every_ms = atol(value);
	return every_ms > 0;
}

int main(int argc, char **argv)
{
	const struct bench_program program = {
		.name = "kills",
		.options = "[--every MS]",
		.option = option,
		.rounds = 5,
		.seconds = 0.1,
		.add_cases = add_cases,
	};

	return bench_main(argc, argv, &program);
}
