/* SPDX-License-Identifier: MIT */
/* A member that is killed or stopped around a robust lock. */
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

static int step(struct crash_world *world)
{
	struct coshm__op op;
	struct toy_shm *toy;
	int wrong;

	CRASH_NEED(toy_begin(&op, world->toy, &toy) == 0);
	CRASH_NEED(coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS) == 0);
	wrong = toy_step(&op, toy);
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	return wrong;
}

static int act_step(struct crash_world *world)
{
	CRASH_NEED(step(world) == 0);
	crash_arm(world);
	return step(world);
}

static int act_steal(struct crash_world *world)
{
	CRASH_NEED(step(world) == 0);
	crash_arm(world);
	for (int tries = 0; tries < 1000; tries++) {
		uint64_t before = coshm__crash_reach_count(world->point);

		CRASH_NEED(crash_make_a_dead_member(world) == 0);
		CRASH_NEED(step(world) == 0);
		if (coshm__crash_reach_count(world->point) != before)
			return 0;
	}
	return 1;
}

static int others_find_it_free(struct crash_world *world)
{
	return step(world);
}

static int others_find_it_held(struct crash_world *world)
{
	struct toy_shm *toy = toy_peek(world->toy);
	struct coshm__op op;
	int error;

	if (world->signal == SIGKILL) {
		uint64_t recoveries = coshm__a64_load_relaxed(&toy->recoveries);

		CRASH_NEED(step(world) == 0);
		/* A busy peer may have been faster: by its reaping. */
		CRASH_NEED(world->busy ||
			   coshm__a64_load_relaxed(&toy->recoveries) == recoveries + 1);
		return 0;
	}
	CRASH_NEED(toy_begin(&op, world->toy, &toy) == 0);
	error = coshm__rlock_acquire(&op, &toy->lock, COSHM__LOCK_TIMEOUT_NS);
	coshm__op_end(&op);
	CRASH_NEED(error == -EAGAIN);
	return 0;
}

#define PLAN(row, action, check)                                            \
	{                                                                   \
		.point = COSHM__CRASH_##row, .act = action, .others = check \
	}

static const struct crash_plan plans[] = {
	PLAN(RLOCK_NOTED, act_step, others_find_it_free),
	PLAN(RLOCK_ACQUIRED, act_step, others_find_it_held),
	PLAN(RLOCK_STOLEN, act_steal, others_find_it_held),
	PLAN(RLOCK_RELEASED, act_step, others_find_it_free),
};

static void every_row_has_a_plan(void **state)
{
	(void)state;
	assert_int_equal(crash_rows_without_plan("RLOCK_", plans, PLANS), 0);
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

	return cmocka_run_group_tests_name("crash: rlock", tests, NULL, NULL);
}
