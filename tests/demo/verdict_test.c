/* SPDX-License-Identifier: MIT */
/* Every rule of the verdict is seen both ways: it passes a good run and turns red on its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "examples/demo/client/verdict.h"

static struct demo_run good_run(double seconds)
{
	struct demo_run run = {
		.seconds = seconds,
		.worker_count = 4,
		.has_ledgers = true,
		.expects_kills = true,
		.block_ns_max = 1000000000,
		.findings =
			{
				.tasks_accepted = 10,
				.tasks_executed = 10,
				.redelivered_after_death = 1,
				.kills = 5,
				.kills_holding = {1, 1, 1, 1, 1},
				.recoveries = 4,
				.has_settled = true,
				.is_drained = true,
				.evictions = 1,
			},
	};

	run.outcome.responses = 400;
	run.outcome.status[200] = 398;
	run.outcome.status[304] = 1;
	run.outcome.status[429] = 1;
	run.outcome.resets = 3;
	for (int i = 0; i < 4; i++)
		run.outcome.per_worker[i] = 100;
	return run;
}

static bool is_ok(const struct demo_run *run)
{
	struct demo_verdict verdict;

	demo_verdict_reach(run, &verdict);
	return verdict.ok;
}

static void a_good_run_is_green(void **state)
{
	struct demo_run run = good_run(60);

	(void)state;
	assert_true(is_ok(&run));
}

#define RED(change)                                                 \
	do {                                                        \
		struct demo_run run = good_run(3);                  \
		assert_true(is_ok(&run));                           \
		change;                                             \
		if (is_ok(&run))                                    \
			fail_msg("green in spite of: %s", #change); \
	} while (0)

static void each_broken_invariant_is_red_in_a_run_of_any_length(void **state)
{
	(void)state;
	RED(run.outcome.responses = 0);
	RED(run.outcome.bad_bodies = 1);
	RED(run.outcome.malformed = 1);
	RED(run.outcome.timeouts = 1);
	RED(run.outcome.longest_block_ns = run.block_ns_max + 1);
	RED(run.over_admitted = 1);
	RED(run.findings.has_settled = false);
	RED(run.findings.is_drained = false);
	RED(run.findings.tasks_lost = 1);
	RED(run.findings.unexcused_runs = 1);
	RED(run.findings.unexpected_deaths = 1);
	RED(run.findings.recoveries_unseen = 1);
	RED(run.findings.verify_error = -117);
	RED(run.outcome.early_misses = run.findings.evictions + run.findings.kills + 1);
	RED(run.expects_kills = false); /* then nobody may reset a connection */
}

/* red from a minute on, not held against a shorter run */
#define UNCOVERED(change)                                            \
	do {                                                         \
		struct demo_run run = good_run(60);                  \
		change;                                              \
		if (is_ok(&run))                                     \
			fail_msg("green in spite of: %s", #change);  \
		run.seconds = 59;                                    \
		if (!is_ok(&run))                                    \
			fail_msg("red in a short run: %s", #change); \
	} while (0)

static void what_a_minute_must_have_seen_is_red_only_from_a_minute_on(void **state)
{
	(void)state;
	UNCOVERED(run.outcome.status[304] = 0);
	UNCOVERED(run.outcome.status[429] = 0);
	UNCOVERED(run.findings.evictions = 0);
	UNCOVERED(run.findings.redelivered_after_death = 0);
	UNCOVERED(run.outcome.per_worker[2] = 39);
	for (int i = 0; i < DEMO_HOLDING_COUNT; i++)
		UNCOVERED(run.findings.kills_holding[i] = 0);
}

static void a_run_without_a_killer_needs_no_kills(void **state)
{
	struct demo_run run = good_run(60);

	(void)state;
	run.expects_kills = false;
	run.outcome.resets = 0;
	run.findings.redelivered_after_death = 0;
	memset(run.findings.kills_holding, 0, sizeof(run.findings.kills_holding));
	assert_true(is_ok(&run));
}

static void without_ledgers_the_servers_side_is_unknown_not_ok(void **state)
{
	struct demo_run run = good_run(60);
	struct demo_verdict verdict;
	bool has_unknown = false;

	(void)state;
	run.has_ledgers = false;
	run.expects_kills = false;
	run.outcome.resets = 0;
	demo_verdict_reach(&run, &verdict);
	for (size_t i = 0; i < verdict.rule_count; i++)
		has_unknown = has_unknown || verdict.rules[i].result == DEMO_RULE_UNKNOWN;
	assert_true(has_unknown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_run_is_green),
		cmocka_unit_test(each_broken_invariant_is_red_in_a_run_of_any_length),
		cmocka_unit_test(what_a_minute_must_have_seen_is_red_only_from_a_minute_on),
		cmocka_unit_test(a_run_without_a_killer_needs_no_kills),
		cmocka_unit_test(without_ledgers_the_servers_side_is_unknown_not_ok),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
