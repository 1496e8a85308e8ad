/* SPDX-License-Identifier: MIT */
/* The judge of the ledgers, shown what it must find: each rule is seen broken here. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "examples/demo/client/history.h"

static struct demo_history history;
static struct demo_history_findings findings;

static int fresh(void **state)
{
	(void)state;
	history = (struct demo_history){0};
	findings = (struct demo_history_findings){0};
	return 0;
}

static int done(void **state)
{
	(void)state;
	demo_history_close(&history);
	return 0;
}

static void event(uint64_t at_ns, enum demo_event_kind kind, uint64_t worker, uint64_t subject,
		  uint64_t value0, uint64_t value1, uint64_t value2)
{
	struct demo_event one = {
		.kind = (uint32_t)kind,
		.at_ns = at_ns,
		.worker = worker,
		.subject = subject,
		.value = {value0, value1, value2},
	};

	demo_history_add(&history, &one);
}

static void started(uint64_t at_ns, uint64_t worker)
{
	event(at_ns, DEMO_EVENT_CHILD_STARTED, DEMO_WORKER_MASTER, worker, 2, 0, 0);
}

static void accepted(uint64_t at_ns, uint64_t task)
{
	event(at_ns, DEMO_EVENT_TASK_ACCEPTED, 1, task, 0, 0, 0);
}

static void begun(uint64_t at_ns, uint64_t worker, uint64_t task)
{
	event(at_ns, DEMO_EVENT_TASK_BEGUN, worker, task, 0, 0, 0);
}

static void finished(uint64_t at_ns, uint64_t worker, uint64_t task)
{
	event(at_ns, DEMO_EVENT_TASK_DONE, worker, task, 0, 0, 0);
}

static void killing(uint64_t at_ns, uint64_t worker)
{
	event(at_ns, DEMO_EVENT_KILLING, DEMO_WORKER_KILLER, worker, 0, 0, 0);
}

static void died(uint64_t at_ns, uint64_t worker, int code, int status)
{
	event(at_ns, DEMO_EVENT_CHILD_DIED, DEMO_WORKER_MASTER, worker, (uint64_t)code,
	      (uint64_t)status, 0);
}

static void killed(uint64_t at_ns, uint64_t worker, uint64_t mask, uint64_t gone, uint64_t freed)
{
	event(at_ns, DEMO_EVENT_KILLED, DEMO_WORKER_KILLER, worker, mask, gone, freed);
}

static void judge(void)
{
	assert_int_equal(demo_history_judge(&history, &findings), 0);
}

static void nothing_is_a_clean_history_that_did_not_settle(void **state)
{
	(void)state;
	judge();
	assert_int_equal(findings.tasks_lost, 0);
	assert_false(findings.has_settled);
}

static void a_task_run_once_is_neither_lost_nor_twice(void **state)
{
	(void)state;
	/* the ledgers come in no order */
	finished(40, 2, 77);
	accepted(20, 77);
	started(1, 2);
	begun(15, 2, 77);
	judge();
	assert_int_equal(findings.tasks_accepted, 1);
	assert_int_equal(findings.tasks_executed, 1);
	assert_int_equal(findings.tasks_lost, 0);
	assert_int_equal(findings.tasks_run_twice, 0);
	assert_int_equal(findings.unexcused_runs, 0);
}

static void an_accepted_task_that_never_began_is_lost(void **state)
{
	(void)state;
	accepted(10, 1);
	finished(20, 2, 2);
	judge();
	assert_int_equal(findings.tasks_lost, 1);
}

static void an_accepted_task_that_began_and_never_ended_is_lost(void **state)
{
	(void)state;
	accepted(10, 1);
	begun(11, 2, 1);
	judge();
	assert_int_equal(findings.tasks_lost, 1);
}

static void a_task_nobody_accepted_may_run(void **state)
{
	(void)state;
	begun(11, 2, 1);
	finished(12, 2, 1);
	judge();
	assert_int_equal(findings.tasks_accepted, 0);
	assert_int_equal(findings.tasks_executed, 1);
	assert_int_equal(findings.tasks_lost, 0);
}

static void a_second_run_without_a_death_is_unexcused(void **state)
{
	(void)state;
	started(1, 2);
	started(1, 3);
	accepted(10, 1);
	begun(11, 2, 1);
	begun(12, 3, 1);
	finished(20, 2, 1);
	finished(21, 3, 1);
	judge();
	assert_int_equal(findings.tasks_run_twice, 1);
	assert_int_equal(findings.unexcused_runs, 1);
	assert_int_equal(findings.redelivered_after_death, 0);
}

static void a_second_run_after_the_kill_of_the_first_is_excused(void **state)
{
	(void)state;
	started(1, 2);
	started(1, 3);
	accepted(10, 1);
	begun(11, 2, 1);
	killing(12, 2);
	begun(13, 3, 1);
	died(14, 2, CLD_KILLED, SIGKILL);
	finished(20, 3, 1);
	judge();
	assert_int_equal(findings.tasks_run_twice, 1);
	assert_int_equal(findings.unexcused_runs, 0);
	assert_int_equal(findings.redelivered_after_death, 1);
	assert_int_equal(findings.tasks_lost, 0);
	assert_int_equal(findings.unexpected_deaths, 0);
}

static void a_second_run_before_the_kill_of_the_first_is_unexcused(void **state)
{
	(void)state;
	started(1, 2);
	started(1, 3);
	begun(11, 2, 1);
	begun(12, 3, 1);
	killing(13, 2);
	died(14, 2, CLD_KILLED, SIGKILL);
	judge();
	assert_int_equal(findings.unexcused_runs, 1);
}

static void the_kill_of_another_worker_is_no_excuse(void **state)
{
	(void)state;
	started(1, 2);
	started(1, 3);
	started(1, 4);
	begun(11, 2, 1);
	killing(12, 4);
	died(13, 4, CLD_KILLED, SIGKILL);
	begun(14, 3, 1);
	judge();
	assert_int_equal(findings.unexcused_runs, 1);
}

static void a_third_run_needs_an_excuse_of_its_own(void **state)
{
	(void)state;
	for (uint64_t worker = 2; worker <= 4; worker++)
		started(1, worker);
	begun(11, 2, 1);
	killing(12, 2);
	died(13, 2, CLD_KILLED, SIGKILL);
	begun(14, 3, 1);
	begun(15, 4, 1);
	judge();
	assert_int_equal(findings.tasks_run_twice, 1);
	assert_int_equal(findings.redelivered_after_death, 1);
	assert_int_equal(findings.unexcused_runs, 1);
}

static void a_death_that_the_killer_did_not_cause_is_unexpected(void **state)
{
	(void)state;
	started(1, 2);
	died(9, 2, CLD_KILLED, SIGSEGV);
	started(1, 3);
	died(9, 3, CLD_EXITED, 1);
	started(1, 4);
	died(9, 4, CLD_KILLED, SIGKILL); /* the OOM killer, say */
	started(1, 5);
	died(9, 5, CLD_EXITED, 0);
	judge();
	assert_int_equal(findings.unexpected_deaths, 3);
}

static void holdings_are_counted_by_kind(void **state)
{
	(void)state;
	killed(1, 1, DEMO_HOLDING_BIT(DEMO_HOLDING_LEASE), 100, 200);
	killed(2, 2,
	       DEMO_HOLDING_BIT(DEMO_HOLDING_LEASE) | DEMO_HOLDING_BIT(DEMO_HOLDING_LANE) |
		       DEMO_HOLDING_BIT(DEMO_HOLDING_PAGE),
	       100, 300);
	killed(3, 3, DEMO_HOLDING_BIT(DEMO_HOLDING_RLOCK), 100, 400);
	killed(4, 4, 0, 100, 0);
	judge();
	assert_int_equal(findings.kills, 4);
	assert_int_equal(findings.kills_holding[DEMO_HOLDING_LEASE], 2);
	assert_int_equal(findings.kills_holding[DEMO_HOLDING_LANE], 1);
	assert_int_equal(findings.kills_holding[DEMO_HOLDING_PAGE], 1);
	assert_int_equal(findings.kills_holding[DEMO_HOLDING_RLOCK], 1);
	assert_int_equal(findings.kills_holding[DEMO_HOLDING_NOTHING], 1);
	assert_int_equal(findings.recoveries, 3);
	assert_int_equal(findings.recoveries_unseen, 0);
}

static void recovery_percentiles_leave_out_those_who_held_nothing(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 100; i++)
		killed(i, i, DEMO_HOLDING_BIT(DEMO_HOLDING_LEASE), 500000, i * 1000000);
	killed(200, 200, 0, 900000000, 0);
	judge();
	assert_float_equal(findings.recovery_ms_p50, 50.0, 1e-9);
	assert_float_equal(findings.recovery_ms_p99, 99.0, 1e-9);
	assert_float_equal(findings.recovery_ms_max, 100.0, 1e-9);
	assert_float_equal(findings.teardown_ms_max, 900.0, 1e-9);
}

static void what_never_became_free_is_seen(void **state)
{
	(void)state;
	killed(1, 1, DEMO_HOLDING_BIT(DEMO_HOLDING_LANE), 100, UINT64_MAX);
	judge();
	assert_int_equal(findings.recoveries_unseen, 1);
}

static void the_report_at_the_end_is_taken_over(void **state)
{
	(void)state;
	event(9, DEMO_EVENT_SETTLED, DEMO_WORKER_MASTER, 0, 123, (uint64_t)-117, 0);
	judge();
	assert_true(findings.has_settled);
	assert_false(findings.is_drained);
	assert_int_equal(findings.evictions, 123);
	assert_int_equal(findings.verify_error, -117);
}

static void a_second_replay_judges_only_what_came_after_the_first(void **state)
{
	(void)state;
	started(1, 2);
	accepted(2, 1);
	died(3, 2, CLD_KILLED, SIGSEGV);
	killed(4, 2, DEMO_HOLDING_BIT(DEMO_HOLDING_LANE), 100, UINT64_MAX);
	demo_history_forget_settled(&history);
	assert_int_equal(history.event_count, 4);
	event(9, DEMO_EVENT_SETTLED, DEMO_WORKER_MASTER, 0, 1, 0, 1);
	died(10, 2, CLD_KILLED, SIGKILL);
	demo_history_forget_settled(&history);
	started(11, 3);
	died(12, 3, CLD_KILLED, SIGSEGV);
	judge();
	assert_int_equal(findings.tasks_lost, 0);
	assert_int_equal(findings.kills, 0);
	assert_int_equal(findings.unexpected_deaths, 1);
	assert_false(findings.has_settled);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)
	const struct CMUnitTest tests[] = {
		TEST(nothing_is_a_clean_history_that_did_not_settle),
		TEST(a_task_run_once_is_neither_lost_nor_twice),
		TEST(an_accepted_task_that_never_began_is_lost),
		TEST(an_accepted_task_that_began_and_never_ended_is_lost),
		TEST(a_task_nobody_accepted_may_run),
		TEST(a_second_run_without_a_death_is_unexcused),
		TEST(a_second_run_after_the_kill_of_the_first_is_excused),
		TEST(a_second_run_before_the_kill_of_the_first_is_unexcused),
		TEST(the_kill_of_another_worker_is_no_excuse),
		TEST(a_third_run_needs_an_excuse_of_its_own),
		TEST(a_death_that_the_killer_did_not_cause_is_unexpected),
		TEST(holdings_are_counted_by_kind),
		TEST(recovery_percentiles_leave_out_those_who_held_nothing),
		TEST(what_never_became_free_is_seen),
		TEST(the_report_at_the_end_is_taken_over),
		TEST(a_second_replay_judges_only_what_came_after_the_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
