/* SPDX-License-Identifier: MIT */
/*
 * bench/limiter - what does one decision cost, beside what it is made of, and beside what one would take instead?
 *
 *	limiter [options of all benches]
 *
 * The limit is the whole of GCRA on one word: a clock, a CAS, no key. The mutexes guard one bucket, found by nobody. Redis
 * runs the same arithmetic as a script; its clients wait for each answer. nginx's limit_req is asked for by whole requests.
 */
#include "peers/limit_req.h"
#include "support/bench.h"
#include "support/redis.h"

#include <coshm/coshm.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	KEYS = 1000000,
	SLOTS = 1300000, /* what the limiter's table has for so many keys */
	STEP = 64,
};

struct slot {
	_Atomic uint64_t key, tat;
};

/* Shared by all workers; lines that are written lie apart. */
struct shared {
	_Atomic uint64_t word __attribute__((aligned(128)));
	pthread_mutex_t mutex __attribute__((aligned(128)));
	uint64_t guarded;
	pthread_mutex_t robust __attribute__((aligned(128)));
	uint64_t guarded_by_robust;
	struct slot slots[SLOTS] __attribute__((aligned(128)));
};

static struct shared *shared;
static struct coshm_segment *segment;
static struct coshm_limiter *generous, *strict;

/* --- what a decision is made of --- */

static void step_clock(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++)
		worker->random += bench_now_ns();
	worker->operations += STEP;
}

static void step_cas(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++) {
		uint64_t old = atomic_load_explicit(&shared->word, memory_order_relaxed);

		while (!atomic_compare_exchange_strong(&shared->word, &old, old + 2))
			;
	}
	worker->operations += STEP;
}

/* The whole of GCRA on one word: never refuses, as the generous limiter. */
static inline void gcra_take(_Atomic uint64_t *word)
{
	uint64_t now = bench_now_ns() << 8;
	uint64_t tat = atomic_load_explicit(word, memory_order_acquire), next;

	do {
		next = ((int64_t)(tat - now) > 0 ? tat : now) + 256;
	} while (!atomic_compare_exchange_strong(word, &tat, next));
}

static void step_gcra(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++)
		gcra_take(&shared->word);
	worker->operations += STEP;
}

/* A look and a clock: whoever refuses needs no more. */
static void step_look(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++)
		worker->random +=
			atomic_load_explicit(&shared->word, memory_order_acquire) > bench_now_ns();
	worker->operations += STEP;
}

static void step_slot(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++) {
		struct slot *slot = &shared->slots[bench_random_below(&worker->random, SLOTS)];
		uint64_t tat = atomic_load_explicit(&slot->tat, memory_order_acquire);

		if (atomic_load_explicit(&slot->key, memory_order_relaxed) == 0)
			while (!atomic_compare_exchange_strong(&slot->tat, &tat, tat + 2))
				;
	}
	worker->operations += STEP;
}

static void step_slot_gcra(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++) {
		struct slot *slot = &shared->slots[bench_random_below(&worker->random, SLOTS)];

		if (atomic_load_explicit(&slot->key, memory_order_relaxed) == 0)
			gcra_take(&slot->tat);
	}
	worker->operations += STEP;
}

/* --- mutexes --- */

static void step_under(pthread_mutex_t *mutex, uint64_t *guarded)
{
	for (int i = 0; i < STEP; i++) {
		uint64_t now = bench_now_ns() << 8;

		pthread_mutex_lock(mutex);
		*guarded = ((int64_t)(*guarded - now) > 0 ? *guarded : now) + 256;
		pthread_mutex_unlock(mutex);
	}
}

static void step_mutex(struct bench_worker *worker)
{
	step_under(&shared->mutex, &shared->guarded);
	worker->operations += STEP;
}

static void step_robust(struct bench_worker *worker)
{
	step_under(&shared->robust, &shared->guarded_by_robust);
	worker->operations += STEP;
}

/* --- coshm --- */

static const char client[] = "198.51.100.17";

static void end_ours(struct bench_worker *worker)
{
	(void)worker;
	bench_need(coshm_segment_detach(segment), "detach");
}

static void step_hot(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++)
		worker->wrong +=
			coshm_limiter_try(generous, client, sizeof(client) - 1, 1, NULL) != 1;
	worker->operations += STEP;
}

static void step_refused(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++)
		worker->wrong +=
			coshm_limiter_try(strict, client, sizeof(client) - 1, 1, NULL) != 0;
	worker->operations += STEP;
}

static void step_many(struct bench_worker *worker)
{
	for (int i = 0; i < STEP; i++) {
		uint64_t key[2] = {bench_random_below(&worker->random, KEYS), 0};

		worker->wrong += coshm_limiter_try(generous, key, 12, 1, NULL) != 1;
	}
	worker->operations += STEP;
}

/* --- Redis --- */

static const char script[] =
	"local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] "
	"local tat = tonumber(redis.call('GET', KEYS[1]) or '0') if tat < now then tat = now end "
	"local later = tat + ARGV[1] if later - now > tonumber(ARGV[2]) then return 0 end "
	"redis.call('SET', KEYS[1], string.format('%d', later), 'PX', 3600000) return 1";

static const char *redis_path;
static char script_hash[48];
static struct bench_wire *wire;

static long long ask_redis(const char *key, const char *us_per_token, const char *burst_us)
{
	struct bench_redis_reply reply;

	bench_redis_command(wire, 6, "EVALSHA", script_hash, "1", key, us_per_token, burst_us);
	reply = bench_redis_read(wire);
	return reply.type == ':' ? reply.number : -1;
}

static void begin_redis(struct bench_worker *worker)
{
	(void)worker;
	wire = bench_wire_open(redis_path);
	if (!wire)
		bench_fail("Redis");
}

static void end_redis(struct bench_worker *worker)
{
	(void)worker;
	bench_wire_close(wire);
}

static int prepare_redis(const struct bench_case *c)
{
	(void)c;
	if (script_hash[0])
		return 0;
	redis_path = bench_redis_start(NULL);
	if (!redis_path)
		return -1;
	begin_redis(NULL);
	bench_redis_command(wire, 3, "SCRIPT", "LOAD", script);
	snprintf(script_hash, sizeof(script_hash), "%.40s", bench_redis_read(wire).bytes);
	if (ask_redis("strict", "3600000000", "3600000000") != 1)
		bench_fail("Redis: the script");
	end_redis(NULL);
	return 0;
}

static void step_redis_hot(struct bench_worker *worker)
{
	worker->wrong += ask_redis(client, "0", "1000000") != 1;
	worker->operations++;
}

static void step_redis_refused(struct bench_worker *worker)
{
	worker->wrong += ask_redis("strict", "3600000000", "3600000000") != 0;
	worker->operations++;
}

static void step_redis_many(struct bench_worker *worker)
{
	char key[32];

	snprintf(key, sizeof(key), "client:%06llu",
		 (unsigned long long)bench_random_below(&worker->random, KEYS));
	worker->wrong += ask_redis(key, "1", "1000000") != 1;
	worker->operations++;
}

/* --- cases --- */

#define ONE_BUCKET "one bucket, which nobody has to find"
#define NO_KEYS	   ONE_BUCKET "; no counters"

enum question { HOT, REFUSED, MANY };

static const char *const question_names[] = {
	[HOT] = "one hot key",
	[REFUSED] = "one hot key, refused",
	[MANY] = "1M keys, uniform",
};

static const struct bench_case subjects[] = {
	{.number = {HOT},
	 .subject = "clock_gettime",
	 .step = step_clock,
	 .lacks = "all but the time"},
	{.number = {HOT},
	 .subject = "CAS on one word",
	 .step = step_cas,
	 .lacks = "no time, no key"},
	{.number = {HOT},
	 .subject = "clock + GCRA + CAS (the limit)",
	 .step = step_gcra,
	 .is_limit = 1,
	 .lacks = NO_KEYS},
	{.number = {HOT},
	 .subject = "coshm",
	 .step = step_hot,
	 .end = end_ours,
	 .is_ours = 1,
	 .floor_mops = 10,
	 .goal_ns = 40},
	{.number = {HOT},
	 .subject = "pshared mutex + clock + GCRA",
	 .step = step_mutex,
	 .lacks = "hangs for ever when its holder is killed; " ONE_BUCKET},
	{.number = {HOT},
	 .subject = "robust mutex + clock + GCRA",
	 .step = step_robust,
	 .lacks = "hangs across PID namespaces; " ONE_BUCKET},
	{.number = {HOT},
	 .subject = "Redis script, unix socket",
	 .prepare = prepare_redis,
	 .begin = begin_redis,
	 .step = step_redis_hot,
	 .end = end_redis,
	 .uses_server = 1,
	 .lacks = "a daemon: gone with it"},
	{.number = {HOT},
	 .subject = "nginx request, limit_req",
	 .prepare = limit_req_prepare,
	 .begin = limit_req_begin,
	 .step = limit_req_step_hot,
	 .end = limit_req_end,
	 .uses_server = 1,
	 .lacks = "a whole request; nginx only, tokens by the millisecond"},
	{.number = {HOT},
	 .subject = "nginx request, no limit",
	 .prepare = limit_req_prepare,
	 .begin = limit_req_begin,
	 .step = limit_req_step_free,
	 .end = limit_req_end,
	 .uses_server = 1,
	 .lacks = "nothing is limited"},

	{.number = {REFUSED},
	 .subject = "clock + look at one word (the limit)",
	 .step = step_look,
	 .is_limit = 1,
	 .lacks = NO_KEYS},
	{.number = {REFUSED},
	 .subject = "coshm",
	 .step = step_refused,
	 .end = end_ours,
	 .is_ours = 1},
	{.number = {REFUSED},
	 .subject = "Redis script, unix socket",
	 .prepare = prepare_redis,
	 .begin = begin_redis,
	 .step = step_redis_refused,
	 .end = end_redis,
	 .uses_server = 1,
	 .lacks = "a daemon: gone with it"},
	{.number = {REFUSED},
	 .subject = "nginx request, limit_req",
	 .prepare = limit_req_prepare,
	 .begin = limit_req_begin,
	 .step = limit_req_step_refused,
	 .end = limit_req_end,
	 .uses_server = 1,
	 .lacks = "a whole request; nginx only, tokens by the millisecond"},

	{.number = {MANY},
	 .subject = "random 16-byte slot, CAS (the limit)",
	 .step = step_slot,
	 .is_limit = 1,
	 .lacks = "no time, no key, no counters"},
	{.number = {MANY},
	 .subject = "random slot, clock + GCRA + CAS",
	 .step = step_slot_gcra,
	 .lacks = "no key, no counters"},
	{.number = {MANY}, .subject = "coshm", .step = step_many, .end = end_ours, .is_ours = 1},
	{.number = {MANY},
	 .subject = "Redis script, unix socket",
	 .prepare = prepare_redis,
	 .begin = begin_redis,
	 .step = step_redis_many,
	 .end = end_redis,
	 .uses_server = 1,
	 .lacks = "a daemon: gone with it; keys appear as they are asked for"},
	{.number = {MANY},
	 .subject = "nginx request, limit_req",
	 .prepare = limit_req_prepare,
	 .begin = limit_req_begin,
	 .step = limit_req_step_many,
	 .end = limit_req_end,
	 .uses_server = 1,
	 .lacks = "a whole request; nginx only, tokens by the millisecond; keys appear as they are "
		  "asked for"},
};

enum { SUBJECTS = sizeof(subjects) / sizeof(subjects[0]) };

static void init_mutex(pthread_mutex_t *mutex, int robust)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	if (robust)
		pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);
}

static void make_shared(void)
{
	const struct coshm_segment_config size = {.size_bytes = 64 << 20};
	/* So fast that no key is ever refused, and so deep that every key stays in the table. */
	const struct coshm_limiter_config fast = {
		.rate = 1000000000, .burst = 2000000000000, .keys_max = KEYS};
	const struct coshm_limiter_config slow = {
		.rate = 1, .per_ns = UINT64_C(3600000000000), .keys_max = 100};

	shared = bench_shared(sizeof(*shared));
	memset(shared, 0, sizeof(*shared));
	init_mutex(&shared->mutex, 0);
	init_mutex(&shared->robust, 1);
	bench_need(coshm_segment_create(bench_segment_name(), &size, 0, &segment), "segment");
	bench_need(coshm_limiter_create(segment, "generous", &fast, 0, &generous), "limiter");
	bench_need(coshm_limiter_create(segment, "strict", &slow, 0, &strict), "limiter");
	bench_need(coshm_limiter_try(strict, client, sizeof(client) - 1, 1, NULL), "try");
	for (uint64_t i = 0; i < KEYS; i++) {
		uint64_t key[2] = {i, 0};

		bench_need(coshm_limiter_try(generous, key, 12, 1000000000000, NULL), "try");
	}
}

static void add_question(enum question question, int procs)
{
	char text[96];
	const char *name;

	snprintf(text, sizeof(text), "%s, %d proc%s", question_names[question], procs,
		 procs == 1 ? "" : "s");
	name = strdup(text);
	for (int s = 0; s < SUBJECTS; s++) {
		struct bench_case c = subjects[s];

		if (c.number[0] != (int64_t)question || (c.uses_server && procs > 4))
			continue;
		c.question = name;
		c.procs = procs;
		c.warm_up = question == MANY ? 500000 : 10000;
		if (procs > 2)
			c.floor_mops = 0;
		if (procs > 1)
			c.goal_ns = 0;
		bench_add(&c);
	}
}

static void add_cases(void)
{
	const int procs[] = {1, 2, 4, 8, 16};

	make_shared();
	for (int q = HOT; q <= MANY; q++)
		for (size_t p = 0; p < sizeof(procs) / sizeof(procs[0]); p++)
			add_question((enum question)q, procs[p]);
}

static void close_all(void)
{
	bench_redis_stop();
	limit_req_stop();
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
}

int main(int argc, char **argv)
{
	const struct bench_program program = {
		.name = "limiter",
		.rounds = 9,
		.seconds = 0.1,
		.add_cases = add_cases,
		.close = close_all,
	};

	return bench_main(argc, argv, &program);
}
