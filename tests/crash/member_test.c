/* SPDX-License-Identifier: MIT */
/* A member that is killed or stopped while it joins, leaves, or finds others dead. */
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

static int use(struct crash_world *world)
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

static int act_join(struct crash_world *world)
{
	crash_arm(world);
	return use(world);
}

static int act_leave(struct crash_world *world)
{
	CRASH_NEED(use(world) == 0);
	crash_arm(world);
	CRASH_NEED(coshm_segment_detach(world->segment) == 0);
	return 0;
}

/* Peers may find the dead first: until it is this one's turn. */
static int act_find(struct crash_world *world)
{
	CRASH_NEED(use(world) == 0);
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

static int others(struct crash_world *world)
{
	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	return use(world);
}

#define PLAN(row, action)                                                    \
	{                                                                    \
		.point = COSHM__CRASH_##row, .act = action, .others = others \
	}

static const struct crash_plan plans[] = {
	PLAN(MEMBER_PREPARED, act_join), PLAN(MEMBER_ALIVE, act_join),
	PLAN(MEMBER_LEFT, act_leave),	 PLAN(MEMBER_DEAD, act_find),
	PLAN(THREAD_CLAIMED, act_join),	 PLAN(THREAD_READY, act_join),
};

static void every_row_has_a_plan(void **state)
{
	(void)state;
	assert_int_equal(crash_rows_without_plan("MEMBER_", plans, PLANS), 0);
	assert_int_equal(crash_rows_without_plan("THREAD_", plans, PLANS), 0);
}

static void nobody_trips_over_a_death_or_a_stop_at_any_row(void **state)
{
	(void)state;
	assert_int_equal(crash_walk(plans, PLANS), 0);
}

/* --- rescuers, one after the other ---------------------------------------------------------------------------- */

struct death {
	const char *name;
	enum coshm__crash_point point; /* COSHM__CRASH_COUNT: after it has attached */
};

static int attach_and_die(void *arg)
{
	const struct death *death = arg;
	struct coshm_segment *segment;

	if (death->point != COSHM__CRASH_COUNT)
		coshm__crash_arm(death->point, SIGKILL, 1);
	if (coshm_segment_attach(death->name, 0, &segment))
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

static int die(const char *name, enum coshm__crash_point point)
{
	struct death death = {.name = name, .point = point};

	return proc_collect(proc_spawn(attach_and_die, &death), PROC_DEADLINE_NS);
}

/* The first one dies with its reserve, the second one after it took the slot over, before it has the reserve. */
static void reserve_of_a_dead_rescuer_is_not_left_behind(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = 1 << 20, .member_count_max = 2};
	struct coshm_segment *segment;
	struct coshm__segment *inner;
	char name[TEST_SEGMENT_NAME_SIZE];
	uint64_t damage, pending;
	uint32_t slot;

	(void)state;
	test_segment_name(name, "rescuers");
	assert_int_equal(coshm_segment_create(name, &config, 0, &segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(die(name, COSHM__CRASH_COUNT), -SIGKILL);
	assert_int_equal(die(name, COSHM__CRASH_COUNT), -SIGKILL);
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment), 0);
	inner = toy_segment(segment);
	slot = coshm__rescue_slot(inner);
	assert_int_equal(die(name, COSHM__CRASH_THREAD_READY), -SIGKILL);
	assert_int_equal(inner->threads[slot].owner.value,
			 coshm__member_id(slot, inner->members[slot].word.value));
	assert_int_equal(die(name, COSHM__CRASH_MEMBER_ALIVE), -SIGKILL);
	assert_int_equal(inner->threads[slot].owner.value, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_has_a_plan),
		cmocka_unit_test(nobody_trips_over_a_death_or_a_stop_at_any_row),
		cmocka_unit_test(reserve_of_a_dead_rescuer_is_not_left_behind),
	};

	return cmocka_run_group_tests_name("crash: member", tests, NULL, NULL);
}
