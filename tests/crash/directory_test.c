/* SPDX-License-Identifier: MIT */
/* A member that is killed or stopped while it creates, opens, closes or removes an object. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "crash/support/walker.h"
#include "segment/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PLANS (sizeof(plans) / sizeof(plans[0]))

/*
 * -EAGAIN is no answer but while the lock is held by who is stopped: busy peers have it all the time, and may not get to
 * run with it for longer than a call waits.
 */
static int is_late(int error, uint64_t start_ns)
{
	return error == -EAGAIN && test_now_ns() - start_ns < PROC_DEADLINE_NS;
}

static int create(struct coshm_segment *segment, const char *name, uint32_t flags, uint64_t payload,
		  void **ret_token)
{
	const uint64_t start_ns = test_now_ns();
	int error;

	do
		error = toy_create(segment, name, flags, payload, ret_token);
	while (is_late(error, start_ns));
	return error;
}

static int create_sized(struct coshm_segment *segment, const char *name, uint64_t size_bytes,
			void **ret_token)
{
	const uint64_t start_ns = test_now_ns();
	int error;

	do
		error = toy_create_sized(segment, name, size_bytes, ret_token);
	while (is_late(error, start_ns));
	return error;
}

static int remove_one(struct coshm_segment *segment, const char *name)
{
	const uint64_t start_ns = test_now_ns();
	int error;

	do
		error = coshm_object_remove(segment, name);
	while (is_late(error, start_ns));
	return error;
}

static int act_create(struct crash_world *world)
{
	void *token;

	/* This process is a member already. */
	CRASH_NEED(toy_open(world->segment, "toy", &token) == 0);
	CRASH_NEED(toy_close(token) == 0);
	crash_arm(world);
	CRASH_NEED(create(world->segment, "x", COSHM_CREATE_OR_OPEN, 5, &token) == 0);
	CRASH_NEED(toy_peek(token)->payload.value == 5);
	CRASH_NEED(toy_close(token) == 0);
	return 0;
}

/* A busy peer may tidy what was left for this process, which then leaves something again. */
static int act_tidy(struct crash_world *world)
{
	const uint64_t before = coshm__crash_reach_count(world->point);
	void *token;

	crash_arm(world);
	do {
		CRASH_NEED(create(world->segment, "gone", 0, 1, &token) == 0);
		CRASH_NEED(toy_close(token) == 0);
		CRASH_NEED(remove_one(world->segment, "gone") == 0);
	} while (coshm__crash_reach_count(world->point) == before);
	return 0;
}

static int act_grow(struct crash_world *world)
{
	void *token;

	crash_arm(world);
	CRASH_NEED(create_sized(world->segment, "x", 2 << 20, &token) == 0);
	CRASH_NEED(toy_close(token) == 0);
	return 0;
}

static int act_remove(struct crash_world *world)
{
	void *token;

	CRASH_NEED(create(world->segment, "x", 0, 5, &token) == 0);
	crash_arm(world);
	CRASH_NEED(remove_one(world->segment, "x") == 0);
	CRASH_NEED(toy_peek(token)->payload.value == 5);
	CRASH_NEED(toy_peek(token)->removed.value == 1);
	CRASH_NEED(toy_close(token) == 0);
	return 0;
}

/* Remove has released the lock, but has not told the object's sleepers yet. */
static int act_remove_and_release(struct crash_world *world)
{
	void *token;

	CRASH_NEED(create(world->segment, "x", 0, 5, &token) == 0);
	CRASH_NEED(toy_close(token) == 0);
	crash_arm(world);
	CRASH_NEED(remove_one(world->segment, "x") == 0);
	return 0;
}

static int x_can_be_made_and_removed(struct crash_world *world)
{
	void *token;

	CRASH_NEED(create(world->segment, "x", COSHM_CREATE_OR_OPEN, 5, &token) == 0);
	CRASH_NEED(toy_peek(token)->magic.value != 0);
	CRASH_NEED(toy_close(token) == 0);
	CRASH_NEED(remove_one(world->segment, "x") == 0);
	CRASH_NEED(toy_open(world->segment, "x", &token) == -ENOENT);
	CRASH_NEED(create_sized(world->segment, "x", 3 << 20, &token) == 0);
	CRASH_NEED(toy_close(token) == 0);
	CRASH_NEED(remove_one(world->segment, "x") == 0);
	return 0;
}

static int what_is_there_can_be_opened(struct crash_world *world)
{
	void *token;

	CRASH_NEED(toy_open(world->segment, "toy", &token) == 0);
	CRASH_NEED(toy_close(token) == 0);
	return 0;
}

/* Before anybody creates anything. Busy peers are building all the time. */
static int reaping_leaves_nothing(struct crash_world *world)
{
	struct coshm_segment_info info;
	uint64_t damage, pending;

	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	if (world->busy)
		return 0;
	CRASH_NEED(toy_verify(world->segment, &damage, &pending) == 0);
	CRASH_NEED(damage == 0 && pending == 0);
	CRASH_NEED(coshm_segment_info(world->segment, &info) == 0);
	CRASH_NEED(info.object_count == 2);
	return 0;
}

/* The stopped one holds the directory's lock. */
static int others_under_the_lock(struct crash_world *world)
{
	void *token;

	CRASH_NEED(what_is_there_can_be_opened(world) == 0);
	if (world->signal == SIGKILL) {
		CRASH_NEED(reaping_leaves_nothing(world) == 0);
		return x_can_be_made_and_removed(world);
	}
	CRASH_NEED(toy_create(world->segment, "y", 0, 1, &token) == -EAGAIN);
	CRASH_NEED(coshm_object_remove(world->segment, "peers") == -EAGAIN);
	return 0;
}

/* The stopped one has an entry BUILDING, without the lock. */
static int others_while_building(struct crash_world *world)
{
	void *token;

	CRASH_NEED(what_is_there_can_be_opened(world) == 0);
	if (world->signal == SIGKILL) {
		CRASH_NEED(reaping_leaves_nothing(world) == 0);
		return x_can_be_made_and_removed(world);
	}
	CRASH_NEED(toy_open(world->segment, "x", &token) == -ENOENT);
	CRASH_NEED(toy_create(world->segment, "x", 0, 1, &token) == -EAGAIN);
	CRASH_NEED(remove_one(world->segment, "x") == -ENOENT);
	CRASH_NEED(create(world->segment, "y", 0, 1, &token) == 0);
	CRASH_NEED(toy_close(token) == 0);
	return 0;
}

static int others_when_it_is_there(struct crash_world *world)
{
	void *token;

	CRASH_NEED(toy_open(world->segment, "x", &token) == 0);
	CRASH_NEED(toy_peek(token)->payload.value == 5);
	CRASH_NEED(toy_close(token) == 0);
	if (world->signal == SIGKILL)
		return x_can_be_made_and_removed(world);
	return 0;
}

static int others_after_removal(struct crash_world *world)
{
	void *token;

	CRASH_NEED(toy_open(world->segment, "x", &token) == -ENOENT);
	if (world->signal == SIGKILL)
		CRASH_NEED(remove_one(world->segment, "x") == -ENOENT);
	else
		CRASH_NEED(coshm_object_remove(world->segment, "x") == -EAGAIN);
	return 0;
}

static void *reborn;

/* The entry and the memory of the removed one go to a new one, which must not hear of the old one's end. */
static int others_reuse_the_entry(struct crash_world *world)
{
	CRASH_NEED(create(world->segment, "reborn", 0, 6, &reborn) == 0);
	return 0;
}

static int reborn_is_not_removed(struct crash_world *world)
{
	(void)world;
	CRASH_NEED(toy_peek(reborn)->payload.value == 6);
	CRASH_NEED(toy_peek(reborn)->removed.value == 0);
	CRASH_NEED(toy_close(reborn) == 0);
	return 0;
}

#define PLAN(row, action, check)                                             \
	{                                                                    \
		.point = COSHM__CRASH_##row, .act = action, .others = check, \
		.finally = x_can_be_made_and_removed                         \
	}

static const struct crash_plan plans[] = {
	PLAN(DIRECTORY_TIDIED, act_tidy, others_under_the_lock),
	PLAN(DIRECTORY_GROWN, act_grow, others_under_the_lock),
	PLAN(DIRECTORY_COMMITTED, act_grow, others_under_the_lock),
	PLAN(DIRECTORY_TOUCHED, act_create, others_under_the_lock),
	PLAN(DIRECTORY_BUILDING, act_create, others_under_the_lock),
	PLAN(DIRECTORY_INITIALISED, act_create, others_while_building),
	PLAN(DIRECTORY_LIVE, act_create, others_when_it_is_there),
	PLAN(DIRECTORY_OPEN_BIT, act_create, others_when_it_is_there),
	PLAN(DIRECTORY_CLOSED_BIT, act_create, others_when_it_is_there),
	PLAN(DIRECTORY_REMOVED, act_remove, others_after_removal),
	{.point = COSHM__CRASH_RLOCK_RELEASED,
	 .act = act_remove_and_release,
	 .others = others_reuse_the_entry,
	 .finally = reborn_is_not_removed},
};

static void every_row_has_a_plan(void **state)
{
	(void)state;
	assert_int_equal(crash_rows_without_plan("DIRECTORY_", plans, PLANS), 0);
}

static void nobody_trips_over_a_death_or_a_stop_at_any_row(void **state)
{
	(void)state;
	assert_int_equal(crash_walk(plans, PLANS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_has_a_plan),
		cmocka_unit_test(nobody_trips_over_a_death_or_a_stop_at_any_row),
	};

	return cmocka_run_group_tests_name("crash: directory", tests, NULL, NULL);
}
