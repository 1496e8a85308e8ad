/* SPDX-License-Identifier: MIT */
/* A creator or an unlinker that is killed or stopped anywhere. */
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

static const struct coshm_segment_config config = {.size_bytes = 1 << 20, .member_count_max = 16};

static int attach_and_leave(const char *name, unsigned int members)
{
	struct coshm_segment *segment;
	uint64_t damage, pending;

	CRASH_NEED(coshm_segment_attach(name, 0, &segment) == 0);
	CRASH_NEED(coshm_segment_reap(segment, NULL) == 0);
	CRASH_NEED(toy_verify(segment, &damage, &pending) == 0);
	CRASH_NEED(damage == 0 && pending == 0);
	CRASH_NEED(toy_stat(segment, "members") == members);
	CRASH_NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static int create_and_leave(const char *name, uint32_t flags, int *ret_error)
{
	struct coshm_segment *segment;

	*ret_error = coshm_segment_create(name, &config, flags, &segment);
	if (*ret_error == 0)
		CRASH_NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static int act_create(struct crash_world *world)
{
	int error;

	crash_arm(world);
	CRASH_NEED(create_and_leave(world->name, COSHM_CREATE_OR_OPEN, &error) == 0);
	CRASH_NEED(error == 0);
	return 0;
}

/* Somebody else creates while the first one stands still, and is not kept waiting for longer than that. */
static int creates_too(void *arg)
{
	struct crash_world *world = arg;
	int error;

	/* The one who resumes the first one may be late itself. */
	do
		CRASH_NEED(create_and_leave(world->name, COSHM_CREATE_OR_OPEN, &error) == 0);
	while (error == -ETIMEDOUT);
	CRASH_NEED(error == 0);
	return 0;
}

static struct proc *second;

static int others_after_half_a_creation(struct crash_world *world)
{
	struct coshm_segment *segment = NULL;
	int error;

	if (world->signal == SIGSTOP) {
		second = proc_spawn(creates_too, world);
		test_sleep_ns(50000000);
		return 0;
	}
	error = coshm_segment_attach(world->name, 0, &segment);
	CRASH_NEED(error == -ENOENT);
	CRASH_NEED(segment == NULL);
	CRASH_NEED(create_and_leave(world->name, 0, &error) == 0);
	CRASH_NEED(error == 0);
	return 0;
}

static int others_after_a_creation(struct crash_world *world)
{
	int error;

	/* A stopped creator is a member. */
	CRASH_NEED(attach_and_leave(world->name, world->signal == SIGSTOP ? 2 : 1) == 0 ||
		   world->busy);
	if (world->signal == SIGKILL) {
		CRASH_NEED(create_and_leave(world->name, 0, &error) == 0);
		CRASH_NEED(error == -EEXIST);
	}
	return 0;
}

static int prepare_one(struct crash_world *world)
{
	int error;

	CRASH_NEED(create_and_leave(world->name, 0, &error) == 0);
	CRASH_NEED(error == 0);
	return 0;
}

static int act_unlink(struct crash_world *world)
{
	crash_arm(world);
	CRASH_NEED(coshm_segment_unlink(world->name) == 0);
	return 0;
}

static int others_after_half_an_unlink(struct crash_world *world)
{
	struct coshm_segment *segment = NULL;
	int error;

	error = coshm_segment_attach(world->name, 0, &segment);
	CRASH_NEED(error == -ESTALE);
	if (world->signal == SIGSTOP) {
		second = proc_spawn(creates_too, world);
		test_sleep_ns(50000000);
		return 0;
	}
	CRASH_NEED(create_and_leave(world->name, 0, &error) == 0);
	CRASH_NEED(error == 0);
	return 0;
}

static int there_is_one(struct crash_world *world)
{
	if (second) {
		int result = proc_collect(second, PROC_DEADLINE_NS);

		second = NULL;
		CRASH_NEED(result == 0);
	}
	return attach_and_leave(world->name, 1);
}

#define CREATION(row, check)                                                          \
	{                                                                             \
		.point = COSHM__CRASH_##row, .without_segment = 1, .act = act_create, \
		.others = check, .finally = there_is_one                              \
	}

static const struct crash_plan plans[] = {
	CREATION(SEGMENT_EMPTY, others_after_half_a_creation),
	CREATION(SEGMENT_MAGIC, others_after_half_a_creation),
	CREATION(SEGMENT_ALLOCATED, others_after_half_a_creation),
	CREATION(SEGMENT_WRITTEN, others_after_half_a_creation),
	CREATION(SEGMENT_JOINED, others_after_half_a_creation),
	CREATION(SEGMENT_READY, others_after_a_creation),
	{.point = COSHM__CRASH_SEGMENT_REMOVED,
	 .without_segment = 1,
	 .prepare = prepare_one,
	 .act = act_unlink,
	 .others = others_after_half_an_unlink,
	 .finally = there_is_one},
};

static void every_row_has_a_plan(void **state)
{
	(void)state;
	assert_int_equal(crash_rows_without_plan("SEGMENT_", plans, PLANS), 0);
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

	return cmocka_run_group_tests_name("crash: segment", tests, NULL, NULL);
}
