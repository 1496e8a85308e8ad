/* SPDX-License-Identifier: MIT */
/*
 * Store buffering between a reader and a reuser of a page, with the functions of structs/hazard.h.
 *
 * Each announces something, its hazard or the change of the slot, and then looks for the other. A round in which
 * both looked too early is forbidden: the reader would use a page that has been reused. The two run in lock step, on two
 * CPUs; each control weakens one side and should show such a round. How soon is up to the CPUs and to who else uses them:
 * mostly within ten thousand rounds, but where a host shares its CPUs out, not in a million. A short run then says so and
 * skips the control; a run of which the length was asked for insists.
 *
 * COSHM_LITMUS_SECONDS   how long each pattern is run, controls up to thirty times as long (0.1)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/shmfs.h"
#include "support/toy.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SECONDS_SHORT	  0.1
#define CONTROL_ROUNDS	  1000000 /* a short run's most */
#define SPINS_UNTIL_YIELD 2000

#define BALLAST	    40
#define PAGE	    UINT64_C(65536)
#define SLOT_BEFORE UINT64_C(1)
#define SLOT_AFTER  UINT64_C(2)

enum side {
	READER,
	REUSER,
	NEITHER,
};

struct pattern {
	uint32_t flags;
	enum side weak;
};

struct party {
	_Alignas(128) _Atomic uint64_t met; /* how often it has come to the meeting point */
	_Alignas(128) int saw_nothing;
	_Alignas(128) struct coshm__a64 ballast[BALLAST][16];
};

static const struct pattern *pattern;
static struct {
	struct party parties[2];
	_Alignas(128) _Atomic int stop;
} * shared;
static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static enum side me;
static uint64_t seed;

static int reader_saw_nothing(struct coshm__op *op, struct toy_shm *toy)
{
	static struct coshm__segment light;
	struct coshm__op as_light = *op;

	as_light.segment = &light;
	if (pattern->weak == READER)
		op = &as_light;
	coshm__hazard_protect(op, 0, PAGE);
	return coshm__hazard_recheck_load(op, &toy->slots[0]) == SLOT_BEFORE;
}

static int reuser_saw_nothing(struct coshm__op *op, struct toy_shm *toy)
{
	const uint64_t page = PAGE;
	uint64_t busy = 0;
	int error = 0;

	/* Changes of slots may have any order. */
	coshm__a64_store_relaxed(&toy->slots[0], SLOT_AFTER);
	coshm__compiler_barrier();
	if (pattern->weak != REUSER)
		error = coshm__hazard_barrier(op->segment);
	coshm__hazard_scan(op->segment, COSHM__HAZARD_READ, &page, 1, &busy);
	return error ? error : busy == 0;
}

static void take_back(struct coshm__op *op, struct toy_shm *toy)
{
	if (me == REUSER)
		coshm__a64_store_seq_cst(&toy->slots[0], SLOT_BEFORE);
	else
		coshm__hazard_clear(op, 0);
}

/* --- rounds ------------------------------------------------------------------------------------------------------- */

static void stay_on(int nth_cpu)
{
	cpu_set_t allowed, one;

	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nth_cpu-- == 0)
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* Waits for the other one. 0: it does not come */
static int meet(void)
{
	struct party *mine = &shared->parties[me], *other = &shared->parties[!me];
	const uint64_t count = atomic_load_explicit(&mine->met, memory_order_relaxed) + 1;
	uint64_t start_ns = 0;

	/* Nothing stronger: it would be a fence in front of what is tried. */
	atomic_store_explicit(&mine->met, count, memory_order_release);
	for (unsigned int spins = 1;
	     atomic_load_explicit(&other->met, memory_order_acquire) < count; spins++) {
		coshm__cpu_pause();
		if (spins % SPINS_UNTIL_YIELD)
			continue;
		if (!start_ns)
			start_ns = test_now_ns();
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return 0;
		sched_yield();
	}
	return 1;
}

static uint64_t random_next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/*
 * Stores to lines that the other CPU owns: what this side announces next waits behind them in the store buffer, for a
 * microsecond rather than for some nanoseconds, unless an order makes it wait for that.
 */
static void ballast_write(enum side whose)
{
	for (unsigned int i = 0; i < BALLAST; i++)
		coshm__a64_store_relaxed(&shared->parties[whose].ballast[i][0], seed);
}

/* 1: both saw nothing. 0: one did. -1: there was no round, it is over or the other one did not come */
static int run_round(struct coshm__op *op, struct toy_shm *toy)
{
	struct party *mine = &shared->parties[me], *other = &shared->parties[!me];
	int both;

	ballast_write(!me);
	if (!meet() || atomic_load_explicit(&shared->stop, memory_order_relaxed))
		return -1;
	/* Sweeps over the moments at which the two may meet. */
	for (uint64_t i = random_next() % 64 << random_next() % 5; i > 0; i--)
		coshm__compiler_barrier();
	/* The strong side of a control hurries in half of the rounds. */
	if (pattern->weak == me || random_next() & 1 << 10)
		ballast_write(me);
	mine->saw_nothing =
		me == READER ? reader_saw_nothing(op, toy) : reuser_saw_nothing(op, toy);
	if (!meet())
		return -1;
	both = mine->saw_nothing && other->saw_nothing;
	/* An error is no sight, and ends it. */
	if (mine->saw_nothing < 0 || other->saw_nothing < 0)
		return -1;
	take_back(op, toy);
	return both;
}

static int reader(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	me = READER;
	seed = 88172645463325252u;
	stay_on(1);
	if (toy_begin(&op, token, &toy))
		return 1;
	while (run_round(&op, toy) >= 0)
		;
	coshm__op_end(&op);
	return atomic_load(&shared->stop) ? 0 : 2;
}

/* 0: nobody asked. */
static double seconds_asked(void)
{
	const char *text = getenv("COSHM_LITMUS_SECONDS");

	return text ? atof(text) : 0;
}

/* How often neither saw the other: until the time is over or, weakened, until it shows. */
static uint64_t rounds_run(struct coshm__op *op, struct toy_shm *toy, uint64_t *ret_rounds)
{
	const int is_control = pattern->weak != NEITHER;
	const double seconds = seconds_asked() > 0 ? seconds_asked() : SECONDS_SHORT;
	const uint64_t start_ns = test_now_ns();
	const uint64_t limit_ns = (uint64_t)(seconds * (is_control ? 30 : 1) * 1e9);
	uint64_t rounds = 0, forbidden = 0;
	int both = 0;

	while (rounds % 256 != 0 || test_now_ns() - start_ns < limit_ns) {
		if (is_control && (forbidden || (!seconds_asked() && rounds >= CONTROL_ROUNDS)))
			break;
		both = run_round(op, toy);
		if (both < 0)
			break;
		forbidden += (uint64_t)both;
		rounds++;
	}
	if (both >= 0) {
		atomic_store(&shared->stop, 1);
		meet();
	}
	*ret_rounds = rounds;
	return forbidden;
}

static uint64_t run(const struct pattern *what, uint64_t *ret_rounds)
{
	const struct coshm_segment_config config = {.size_bytes = 1 << 20,
						    .member_count_max = 8,
						    .thread_count_max = 16,
						    .flags = what->flags};
	struct coshm__op op;
	struct toy_shm *toy;
	struct proc *child;
	cpu_set_t allowed;
	uint64_t forbidden;

	if (!(what->flags & COSHM_SEGMENT_FENCED))
		TEST_NEEDS(shmfs_lacks_membarrier());
	pattern = what;
	test_segment_name(name, "litmus");
	shared = proc_shared_alloc(sizeof(*shared));
	assert_int_equal(coshm_segment_create(name, &config, 0, &segment), 0);
	assert_int_equal(toy_create(segment, "toy", 0, 0, &token), 0);
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	coshm__a64_store_seq_cst(&toy->slots[0], SLOT_BEFORE);
	child = proc_spawn(reader, NULL);
	me = REUSER;
	seed = 88172645463325253u;
	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	stay_on(0);
	forbidden = rounds_run(&op, toy, ret_rounds);
	sched_setaffinity(0, sizeof(allowed), &allowed);
	coshm__op_end(&op);
	assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
	print_message("# %llu rounds, %llu forbidden\n", (unsigned long long)*ret_rounds,
		      (unsigned long long)forbidden);
	return forbidden;
}

static void one_sees_the_other(void **state)
{
	uint64_t rounds;

	assert_int_equal(run(*state, &rounds), 0);
	assert_true(rounds > 0);
}

static void control_shows_it(void **state)
{
	cpu_set_t allowed;
	uint64_t rounds;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) || CPU_COUNT(&allowed) < 2)
		TEST_NEEDS("needs two CPUs");
	if (run(*state, &rounds) > 0)
		return;
	if (seconds_asked() > 0)
		fail_msg("nothing was tried");
	TEST_NEEDS("needs two CPUs at the same moment, and luck: COSHM_LITMUS_SECONDS=60 insists");
}

static const struct pattern membarrier = {0, NEITHER}, fences = {COSHM_SEGMENT_FENCED, NEITHER},
			    no_membarrier = {0, REUSER},
			    no_reuser_fence = {COSHM_SEGMENT_FENCED, REUSER},
			    no_reader_fence = {COSHM_SEGMENT_FENCED, READER};

#define TEST(test, pattern)                                         \
	{                                                           \
		.name = #test "_with_" #pattern, .test_func = test, \
		.initial_state = (void *)(uintptr_t)&pattern        \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_sees_the_other, membarrier),	 TEST(one_sees_the_other, fences),
		TEST(control_shows_it, no_membarrier),	 TEST(control_shows_it, no_reuser_fence),
		TEST(control_shows_it, no_reader_fence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
