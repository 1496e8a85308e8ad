/* SPDX-License-Identifier: MIT */
#include "verdict.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* what a worker's fair share may shrink to; see the rule below */
#define SHARE_PERCENT_MIN 10.0

static struct demo_rule *add_rule(struct demo_verdict *verdict, const char *name)
{
	struct demo_rule *rule = &verdict->rules[verdict->rule_count++];

	rule->name = name;
	return rule;
}

__attribute__((format(printf, 4, 5))) static void
invariant(struct demo_verdict *verdict, const char *name, bool holds, const char *format, ...)
{
	struct demo_rule *rule = add_rule(verdict, name);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(rule->found, sizeof(rule->found), format, arguments);
	va_end(arguments);
	rule->result = holds ? DEMO_RULE_OK : DEMO_RULE_BROKEN;
	if (!holds)
		verdict->ok = false;
}

static void coverage(struct demo_verdict *verdict, const struct demo_run *run, const char *name,
		     uint64_t count)
{
	struct demo_rule *rule = add_rule(verdict, name);
	bool is_long = run->seconds >= DEMO_COVERAGE_FROM_S;

	snprintf(rule->found, sizeof(rule->found), "%" PRIu64, count);
	rule->result = count > 0 ? DEMO_RULE_OK
		       : is_long ? DEMO_RULE_BROKEN
				 : DEMO_RULE_NOT_COVERED;
	if (rule->result == DEMO_RULE_BROKEN)
		verdict->ok = false;
}

static void unknown(struct demo_verdict *verdict, const char *name, const char *why)
{
	struct demo_rule *rule = add_rule(verdict, name);

	snprintf(rule->found, sizeof(rule->found), "%s", why);
	rule->result = DEMO_RULE_UNKNOWN;
}

static void judge_client_side(const struct demo_run *run, struct demo_verdict *verdict)
{
	const struct demo_outcome *outcome = &run->outcome;

	invariant(verdict, "the server answered", outcome->responses > 0, "%" PRIu64 " responses",
		  outcome->responses);
	invariant(verdict, "every body is right", outcome->bad_bodies == 0,
		  "%" PRIu64 " bad of %" PRIu64, outcome->bad_bodies, outcome->status[200]);
	invariant(verdict, "no response breaks the contract", outcome->malformed == 0,
		  "%" PRIu64 " malformed", outcome->malformed);
	invariant(verdict, "no client got more than B + r*T", run->over_admitted == 0,
		  "%" PRIu64 " clients over", run->over_admitted);
	invariant(verdict, "no request was blocked",
		  outcome->timeouts == 0 && outcome->longest_block_ns <= run->block_ns_max,
		  "longest %.0f ms (bound %.0f ms), %" PRIu64 " given up",
		  (double)outcome->longest_block_ns / 1e6, (double)run->block_ns_max / 1e6,
		  outcome->timeouts);
	if (!run->expects_kills)
		invariant(verdict, "no connection was reset", outcome->resets == 0,
			  "%" PRIu64 " resets", outcome->resets);
}

static void judge_share(const struct demo_run *run, struct demo_verdict *verdict)
{
	double least = 100.0;
	bool is_long = run->seconds >= DEMO_COVERAGE_FROM_S;
	struct demo_rule *rule;

	for (uint32_t i = 0; i < run->worker_count && run->outcome.responses; i++) {
		double share =
			100.0 * (double)run->outcome.per_worker[i] / (double)run->outcome.responses;

		least = share < least ? share : least;
	}
	rule = add_rule(verdict, "every worker served 10 % or more");
	snprintf(rule->found, sizeof(rule->found), "least %.1f %%", least);
	rule->result = least >= SHARE_PERCENT_MIN ? DEMO_RULE_OK
		       : is_long		  ? DEMO_RULE_BROKEN
						  : DEMO_RULE_NOT_COVERED;
	if (rule->result == DEMO_RULE_BROKEN)
		verdict->ok = false;
}

static void judge_ledgers(const struct demo_run *run, struct demo_verdict *verdict)
{
	const struct demo_history_findings *found = &run->findings;

	if (!run->has_ledgers) {
		unknown(verdict, "tasks, deaths and the segment", "no --ledger-dir");
		return;
	}
	invariant(verdict, "the queue ran empty", found->has_settled && found->is_drained, "%s",
		  !found->has_settled ? "the server did not report"
		  : found->is_drained ? "yes"
				      : "tasks are left");
	invariant(verdict, "no accepted task was lost", found->tasks_lost == 0,
		  "%" PRIu64 " lost of %" PRIu64, found->tasks_lost, found->tasks_accepted);
	invariant(verdict, "no task ran again without a death", found->unexcused_runs == 0,
		  "%" PRIu64 " unexcused, %" PRIu64 " after a kill", found->unexcused_runs,
		  found->redelivered_after_death);
	invariant(verdict, "no process died by itself", found->unexpected_deaths == 0,
		  "%" PRIu64 " unexpected deaths", found->unexpected_deaths);
	invariant(verdict, "what victims held became free", found->recoveries_unseen == 0,
		  "%" PRIu64 " of %" PRIu64 " did not", found->recoveries_unseen,
		  found->recoveries);
	invariant(verdict, "the segment is sound", found->has_settled && found->verify_error == 0,
		  "verify: %s",
		  !found->has_settled	     ? "not run"
		  : found->verify_error == 0 ? "ok"
					     : "damage");
}

/* The cache's own count against what was seen. A victim may take its last evictions uncounted with it. */
static void judge_evictions(const struct demo_run *run, struct demo_verdict *verdict)
{
	const struct demo_history_findings *found = &run->findings;

	invariant(verdict, "pages went early by eviction alone",
		  run->outcome.early_misses <= found->evictions + found->kills,
		  "%" PRIu64 " seen to go early, %" PRIu64 " evicted", run->outcome.early_misses,
		  found->evictions);
	coverage(verdict, run, "the cache had to evict", found->evictions);
}

static void judge_kill_coverage(const struct demo_run *run, struct demo_verdict *verdict)
{
	static const char *const names[DEMO_HOLDING_COUNT] = {
		[DEMO_HOLDING_LEASE] = "victims died holding a lease",
		[DEMO_HOLDING_LANE] = "victims died holding a lane",
		[DEMO_HOLDING_PAGE] = "victims died holding a page",
		[DEMO_HOLDING_RLOCK] = "victims died holding an rlock",
		[DEMO_HOLDING_NOTHING] = "victims died holding nothing",
	};

	coverage(verdict, run, "tasks were redelivered after a death",
		 run->findings.redelivered_after_death);
	for (size_t i = 0; i < DEMO_HOLDING_COUNT; i++)
		coverage(verdict, run, names[i], run->findings.kills_holding[i]);
}

void demo_verdict_reach(const struct demo_run *run, struct demo_verdict *ret_verdict)
{
	*ret_verdict = (struct demo_verdict){.ok = true};
	judge_client_side(run, ret_verdict);
	judge_ledgers(run, ret_verdict);
	judge_share(run, ret_verdict);
	coverage(ret_verdict, run, "pages were not modified (304)", run->outcome.status[304]);
	coverage(ret_verdict, run, "clients were refused (429)", run->outcome.status[429]);
	if (run->has_ledgers)
		judge_evictions(run, ret_verdict);
	if (run->has_ledgers && run->expects_kills)
		judge_kill_coverage(run, ret_verdict);
}
