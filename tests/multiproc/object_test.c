/* SPDX-License-Identifier: MIT */
/* The directory under many processes at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "support/procs.h"
#include "support/toy.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CREATORS 16
#define RUN_NS	 UINT64_C(30000000000)

struct shared {
	struct proc_barrier *barrier;
	_Atomic unsigned int created, existed, wrong, rounds;
	_Atomic int stop;
};

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static struct shared *shared;

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "objects");
	shared = proc_shared_alloc(sizeof(*shared));
	segment = toy_segment_create(name, 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

static int create_one(void *arg)
{
	void *token;
	int error;

	if (coshm_segment_reap(segment, NULL) ||
	    proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS))
		return 1;
	/* -EAGAIN: who has the lock, or builds, does not get to run. */
	do
		error = toy_create(segment, arg ? arg : "one", 0, (uint64_t)getpid(), &token);
	while (error == -EAGAIN);
	if (error == 0)
		atomic_fetch_add(&shared->created, 1);
	else if (error == -EEXIST)
		atomic_fetch_add(&shared->existed, 1);
	else
		return 2;
	if (toy_open(segment, arg ? arg : "one", &token))
		return 3;
	return coshm_segment_detach(segment) ? 4 : 0;
}

static void one_name_is_created_exactly_once_by_16_processes(void **state)
{
	char each[16];

	(void)state;
	for (int round = 0; round < 20; round++) {
		struct proc *creators[CREATORS];

		snprintf(each, sizeof(each), "r%d", round);
		atomic_store(&shared->created, 0);
		atomic_store(&shared->existed, 0);
		shared->barrier = proc_barrier_new(CREATORS);
		for (int i = 0; i < CREATORS; i++)
			creators[i] = proc_spawn(create_one, each);
		assert_int_equal(proc_collect_all(creators, CREATORS, PROC_DEADLINE_NS, NULL), 0);
		assert_int_equal(atomic_load(&shared->created), 1);
		assert_int_equal(atomic_load(&shared->existed), CREATORS - 1);
	}
}

static int create_segment(void *arg)
{
	const struct coshm_segment_config config = {.size_bytes = 1 << 20};
	struct coshm_segment *own;
	int error;

	if (proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS))
		return 1;
	do
		error = coshm_segment_create(arg, &config, 0, &own);
	while (error == -ETIMEDOUT);
	if (error == 0)
		atomic_fetch_add(&shared->created, 1);
	else if (error == -EEXIST)
		atomic_fetch_add(&shared->existed, 1);
	else
		return 2;
	while (error == -EEXIST || error == -ETIMEDOUT)
		error = coshm_segment_attach(arg, 0, &own);
	if (error)
		return 3;
	if (coshm_segment_reap(own, NULL))
		return 4;
	return coshm_segment_detach(own) ? 5 : 0;
}

static void one_segment_is_created_exactly_once_by_16_processes(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		char each[TEST_SEGMENT_NAME_SIZE];
		struct proc *creators[CREATORS];

		test_segment_name(each, "segments");
		atomic_store(&shared->created, 0);
		atomic_store(&shared->existed, 0);
		shared->barrier = proc_barrier_new(CREATORS);
		for (int i = 0; i < CREATORS; i++)
			creators[i] = proc_spawn(create_segment, each);
		assert_int_equal(proc_collect_all(creators, CREATORS, PROC_DEADLINE_NS, NULL), 0);
		assert_int_equal(atomic_load(&shared->created), 1);
		assert_int_equal(atomic_load(&shared->existed), CREATORS - 1);
		assert_int_equal(coshm_segment_unlink(each), 0);
	}
}

/* Creates, writes its mark, looks whether the mark stays while the object is open, removed or not. */
static int churn(void *arg)
{
	const uint64_t mark = (uint64_t)(uintptr_t)arg << 32;

	for (uint64_t i = 1; !atomic_load(&shared->stop); i++) {
		static const char *const names[] = {"a", "b", "c", "d"};
		const char *one = names[i % 4];
		struct toy_shm *toy;
		void *token;
		int error = toy_create(segment, one, COSHM_CREATE_OR_OPEN, mark | i, &token);
		uint64_t payload;

		if (error == -EAGAIN || error == -ENOENT || error == -EDQUOT)
			continue; /* removed between its creation and its opening; or all names are busy */
		if (error)
			return 1;
		toy = toy_peek(token);
		if (!toy)
			return 2;
		payload = coshm__a64_load_relaxed(&toy->payload);
		error = i % 3 == 0 ? coshm_object_remove(segment, one) : 0;
		if (error && error != -ENOENT && error != -EAGAIN)
			return 3;
		for (int j = 0; j < 20; j++)
			if (coshm__a64_load_relaxed(&toy->payload) != payload)
				return 4; /* the memory went to somebody else while it was open */
		if (toy_close(token))
			return 5;
		atomic_fetch_add(&shared->rounds, 1);
	}
	return 0;
}

static int verify_until_stopped(void *arg)
{
	struct coshm_segment *own;

	(void)arg;
	if (coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &own))
		return 1;
	while (!atomic_load(&shared->stop)) {
		struct coshm_verify_result result;

		if (coshm_inspect_verify(own, NULL, NULL, NULL, &result))
			return 2;
		if (result.damage)
			return 3;
	}
	return 0;
}

static void run_churn(int kills)
{
	const uint64_t start_ns = test_now_ns();
	struct proc *workers[4], *verifier;
	unsigned int seed = 3;
	uint64_t damage, pending;
	void *token;

	for (uintptr_t i = 0; i < 4; i++)
		workers[i] = proc_spawn(churn, (void *)(i + 1));
	verifier = kills ? NULL : proc_spawn(verify_until_stopped, NULL);
	for (int i = 0; i < kills; i++) {
		uintptr_t victim = (seed = seed * 1103515245 + 12345) >> 16 & 3;

		test_sleep_ns((seed >> 8) % 2000000);
		proc_kill(workers[victim]);
		workers[victim] = proc_spawn(churn, (void *)(victim + 1));
	}
	while (atomic_load(&shared->rounds) < 4000 && test_now_ns() - start_ns < RUN_NS)
		test_sleep_ns(1000000);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(workers, 4, PROC_DEADLINE_NS, NULL), 0);
	if (verifier)
		assert_int_equal(proc_collect(verifier, PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_create(segment, "last", 0, 1, &token), 0); /* tidies */
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT; i++)
		assert_true(coshm__object_open_count(toy_segment(segment), i) <= 1);
}

static void memory_that_somebody_has_open_is_never_reused(void **state)
{
	(void)state;
	run_churn(0);
}

static void neither_while_members_are_killed(void **state)
{
	(void)state;
	run_churn(300);
}

/* --- an entry that comes alive while its creator is judged ------------------------------------------------------ */

static uint64_t live_word;

/* As if it were killed while it builds. */
static int build_and_die(void *arg)
{
	struct coshm__a64 *word = &toy_segment(segment)->entries[0].word;
	struct coshm__op op;
	void *token;

	(void)arg;
	if (toy_create(segment, "alive", 0, 7, &token) ||
	    coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE))
		return 1;
	coshm__a64_store_release(
		word, coshm__entry_word(coshm__entry_generation_of(coshm__a64_load_relaxed(word)),
					op.member_id, COSHM__ENTRY_BUILDING));
	raise(SIGKILL);
	return 2;
}

/*
 * Called where the death has been seen, by who read the entry before that. As far as anybody can tell, its creator has
 * finished it in between, and died then.
 */
static void finish_it(void *context, int level, const char *text)
{
	(void)context;
	(void)level;
	(void)text;
	coshm__a64_store_release(&toy_segment(segment)->entries[0].word, live_word);
}

static void entry_that_came_alive_while_its_creator_was_judged_stays(void **state)
{
	struct coshm__a64 *word = &toy_segment(segment)->entries[0].word;
	void *token, *alive;

	(void)state;
	assert_int_equal(proc_collect(proc_spawn(build_and_die, NULL), PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(coshm__entry_state_of(word->value), COSHM__ENTRY_BUILDING);
	live_word =
		coshm__entry_word(coshm__entry_generation_of(word->value), 0, COSHM__ENTRY_LIVE);
	coshm_set_log(finish_it, NULL, COSHM_LOG_WARNING);
	assert_int_equal(toy_create(segment, "next", 0, 8, &token), 0); /* tidies */
	coshm_set_log(NULL, NULL, 0);
	assert_int_equal(word->value, live_word);
	assert_int_equal(toy_open(segment, "alive", &alive), 0);
	assert_int_equal(toy_peek(alive)->payload.value, 7);
}

/* --- a reaper that stands still --------------------------------------------------------------------------------- */

#define MOST_BYTES (UINT64_C(600) << 10) /* of 1 MiB: no other one fits beside it */

static int open_and_die(void *arg)
{
	void *token;

	(void)arg;
	if (toy_open(segment, "most", &token))
		return 1;
	raise(SIGKILL);
	return 2;
}

static int wait_for_step(int step)
{
	const uint64_t start_ns = test_now_ns();

	while (atomic_load(&shared->stop) < step) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return -ETIMEDOUT;
		test_sleep_ns(1000000);
	}
	return 0;
}

/* Needs the memory of what was removed: while the reaper is at it, and when it is not any more. */
static int create_twice(void *arg)
{
	void *token;
	int error;

	(void)arg;
	if (wait_for_step(1))
		return 1;
	error = toy_create_sized(segment, "next", MOST_BYTES, &token);
	atomic_store(&shared->stop, 2);
	if (error != -EAGAIN)
		return 2;
	if (wait_for_step(3))
		return 3;
	return toy_create_sized(segment, "next", MOST_BYTES, &token) ? 4 : 0;
}

/* Called by the reaper, with the dead member gone from all tables, but before it has returned from its repairs. */
static void stand_still(void *context, int level, const char *text)
{
	(void)context;
	(void)level;
	if (!strstr(text, "cleaned up"))
		return;
	atomic_store(&shared->stop, 1);
	wait_for_step(2);
}

static void memory_is_not_reused_before_each_reaper_is_through(void **state)
{
	struct proc *creator = proc_spawn(create_twice, NULL);
	void *token;

	(void)state;
	assert_int_equal(toy_create_sized(segment, "most", MOST_BYTES, &token), 0);
	assert_int_equal(proc_collect(proc_spawn(open_and_die, NULL), PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(coshm_object_remove(segment, "most"), 0);
	assert_int_equal(toy_close(token), 0);
	coshm_set_log(stand_still, NULL, COSHM_LOG_WARNING);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	coshm_set_log(NULL, NULL, 0);
	assert_int_equal(atomic_load(&shared->stop), 2);
	atomic_store(&shared->stop, 3);
	assert_int_equal(proc_collect(creator, PROC_DEADLINE_NS), 0);
}

#define OBJECT_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		OBJECT_TEST(one_name_is_created_exactly_once_by_16_processes),
		OBJECT_TEST(one_segment_is_created_exactly_once_by_16_processes),
		OBJECT_TEST(entry_that_came_alive_while_its_creator_was_judged_stays),
		OBJECT_TEST(memory_is_not_reused_before_each_reaper_is_through),
		OBJECT_TEST(memory_that_somebody_has_open_is_never_reused),
		OBJECT_TEST(neither_while_members_are_killed),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("objects", tests, NULL, NULL);
}
