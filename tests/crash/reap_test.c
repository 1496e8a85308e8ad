/* SPDX-License-Identifier: MIT */
/* A reaper that is killed or stopped. */
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
#include <sys/wait.h>
#include <unistd.h>

#define PLANS (sizeof(plans) / sizeof(plans[0]))

static int act_reap(struct crash_world *world)
{
	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	crash_arm(world);
	for (int tries = 0; tries < 1000; tries++) {
		uint64_t before = coshm__crash_reach_count(world->point);

		CRASH_NEED(crash_make_a_dead_member(world) == 0);
		CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
		if (coshm__crash_reach_count(world->point) != before)
			return 0;
	}
	return 1;
}

/* In passing, as every operation does. */
static int act_tick(struct crash_world *world)
{
	const uint64_t start_ns = test_now_ns();
	struct coshm__op op;

	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	CRASH_NEED(crash_make_a_dead_member(world) == 0);
	crash_arm(world);
	while (coshm__crash_reach_count(world->point) == 0) {
		CRASH_NEED(test_now_ns() - start_ns < PROC_DEADLINE_NS);
		CRASH_NEED(coshm__op_begin(&op, world->segment, COSHM__TYPE_SEGMENT) == 0);
		coshm__tick(&op, coshm__now_ns(op.segment));
		coshm__op_end(&op);
	}
	return 0;
}

/* Unless the directory is busy. */
static int die_building(struct crash_world *world)
{
	pid_t pid = fork();

	if (pid == 0) {
		void *token;

		coshm__crash_arm(COSHM__CRASH_DIRECTORY_INITIALISED, SIGKILL, 1);
		(void)!toy_create(world->segment, "half", 0, 1, &token);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return pid < 0;
}

static int act_reap_a_builder(struct crash_world *world)
{
	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	crash_arm(world);
	for (int tries = 0; tries < 1000; tries++) {
		uint64_t before = coshm__crash_reach_count(world->point);

		CRASH_NEED(die_building(world) == 0);
		CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
		if (coshm__crash_reach_count(world->point) != before)
			return 0;
	}
	return 1;
}

/* A reaper that does not go on keeps nobody from finishing its work. */
static int others(struct crash_world *world)
{
	struct toy_shm *toy = toy_peek(world->toy);

	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	if (!world->busy)
		for (unsigned int i = 0; i < TOY_CLAIMS; i++)
			CRASH_NEED(coshm__a64_load_relaxed(&toy->claims[i]) == 0);
	return 0;
}

#define PLAN(row, action)                                                    \
	{                                                                    \
		.point = COSHM__CRASH_##row, .act = action, .others = others \
	}

static const struct crash_plan plans[] = {
	PLAN(REAP_ELECTED, act_tick),
	PLAN(REAP_ANNOUNCED, act_reap),
	PLAN(REAP_LOCKS_FREED, act_reap),
	PLAN(REAP_THREAD_FREED, act_reap),
	PLAN(REAP_ENTRY_FREED, act_reap_a_builder),
	PLAN(REAP_MEMBER_FREED, act_reap),
};

static void every_row_has_a_plan(void **state)
{
	(void)state;
	assert_int_equal(crash_rows_without_plan("REAP_", plans, PLANS), 0);
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

	return cmocka_run_group_tests_name("crash: reap", tests, NULL, NULL);
}
