/* SPDX-License-Identifier: MIT */
/* A member that is killed or stopped while it pins or unpins a page. */
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

#define PAGE 8192

static int act_pin(struct crash_world *world)
{
	struct coshm__op op;
	int pin;

	CRASH_NEED(coshm__op_begin(&op, world->segment, COSHM__TYPE_SEGMENT) == 0);
	crash_arm(world);
	pin = coshm__pin_set(&op, PAGE);
	CRASH_NEED(pin >= 0);
	CRASH_NEED(coshm__pin_clear(&op, (uint32_t)pin, PAGE) == 0);
	coshm__op_end(&op);
	CRASH_NEED(coshm_segment_detach(world->segment) == 0);
	return 0;
}

static int is_kept(struct crash_world *world, int *ret_kept)
{
	const uint64_t page = PAGE;
	uint64_t busy = 0;

	CRASH_NEED(coshm__hazard_barrier(toy_segment(world->segment)) == 0);
	coshm__hazard_scan(toy_segment(world->segment), COSHM__HAZARD_PIN, &page, 1, &busy);
	*ret_kept = busy == 1;
	return 0;
}

/* The dead pin nothing, once they are known to be dead. The stopped one's pin holds. */
static int others_meet_a_pin(struct crash_world *world)
{
	int kept;

	CRASH_NEED(is_kept(world, &kept) == 0);
	if (world->signal == SIGSTOP) {
		CRASH_NEED(kept);
		CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
		CRASH_NEED(is_kept(world, &kept) == 0);
		CRASH_NEED(kept);
		return 0;
	}
	CRASH_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	CRASH_NEED(is_kept(world, &kept) == 0);
	CRASH_NEED(!kept);
	return 0;
}

static int others_meet_none(struct crash_world *world)
{
	int kept;

	CRASH_NEED(is_kept(world, &kept) == 0);
	CRASH_NEED(!kept);
	return 0;
}

static const struct crash_plan plans[] = {
	{.point = COSHM__CRASH_PIN_SET,
	 .act = act_pin,
	 .others = others_meet_a_pin,
	 .finally = others_meet_none},
	{.point = COSHM__CRASH_PIN_CLEARED,
	 .act = act_pin,
	 .others = others_meet_none,
	 .finally = others_meet_none},
};

static void every_row_has_a_plan(void **state)
{
	(void)state;
	assert_int_equal(crash_rows_without_plan("PIN_", plans, PLANS), 0);
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

	return cmocka_run_group_tests_name("crash: pins", tests, NULL, NULL);
}
