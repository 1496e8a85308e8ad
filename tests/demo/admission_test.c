/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "examples/demo/client/admission.h"
#include "examples/demo/common/clock.h"

enum { RATE = 10, BURST = 5 };

#define MS(n) ((uint64_t)(n)*DEMO_NS_PER_MS)

static struct demo_admission admission;

static int open_admission(void **state)
{
	(void)state;
	return demo_admission_open(&admission, 3, RATE, BURST);
}

static int close_admission(void **state)
{
	(void)state;
	demo_admission_close(&admission);
	return 0;
}

static void note(size_t client, uint64_t sent_ms, uint64_t received_ms)
{
	assert_int_equal(demo_admission_note(&admission, client, MS(sent_ms), MS(received_ms)), 0);
}

static void burst_and_then_the_rate_is_within_the_rule(void **state)
{
	(void)state;
	for (int i = 0; i < BURST; i++)
		note(0, 1000, 1000);
	for (uint64_t i = 1; i <= 100; i++)
		note(0, 1000 + 100 * i, 1000 + 100 * i);
	assert_int_equal(demo_admission_over_count(&admission), 0);
}

static void one_more_than_the_burst_is_over(void **state)
{
	(void)state;
	for (int i = 0; i < BURST + 1; i++)
		note(1, 1000, 1000);
	assert_int_equal(demo_admission_over_count(&admission), 1);
}

static void one_more_than_the_rate_allows_is_over(void **state)
{
	(void)state;
	for (int i = 0; i < BURST; i++)
		note(0, 1000, 1000);
	for (uint64_t i = 1; i <= 100; i++)
		note(0, 1000 + 99 * i, 1000 + 99 * i);
	assert_int_equal(demo_admission_over_count(&admission), 1);
}

/* a limiter that forgets its state: over in a window, not over the whole run */
static void a_second_burst_after_a_long_pause_counts_from_its_own_start(void **state)
{
	(void)state;
	note(0, 0, 0);
	for (int i = 0; i < BURST; i++)
		note(0, 60000, 60000);
	assert_int_equal(demo_admission_over_count(&admission), 0);
	note(0, 60000, 60001);
	assert_int_equal(demo_admission_over_count(&admission), 1);
}

/* admitted at any time between sending and receiving: slowness must never look like cheating */
static void late_answers_do_not_accuse(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < BURST + 20; i++)
		note(0, 100 * i, 2500);
	assert_int_equal(demo_admission_over_count(&admission), 0);
}

static void clients_are_judged_one_by_one(void **state)
{
	(void)state;
	for (int i = 0; i < BURST; i++) {
		note(0, 1000, 1000);
		note(1, 1000, 1000);
		note(2, 1000, 1000);
	}
	assert_int_equal(demo_admission_over_count(&admission), 0);
	note(2, 1000, 1000);
	note(0, 1000, 1000);
	note(0, 1000, 1000);
	assert_int_equal(demo_admission_over_count(&admission), 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_admission, close_admission)
	const struct CMUnitTest tests[] = {
		TEST(burst_and_then_the_rate_is_within_the_rule),
		TEST(one_more_than_the_burst_is_over),
		TEST(one_more_than_the_rate_allows_is_over),
		TEST(a_second_burst_after_a_long_pause_counts_from_its_own_start),
		TEST(late_answers_do_not_accuse),
		TEST(clients_are_judged_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
