/* SPDX-License-Identifier: MIT */
#include "report.h"

#include <errno.h>
#include <inttypes.h>

#include <jansson.h>

static void print_line(FILE *out, const char *name, const char *found)
{
	fprintf(out, "  %-38s %s\n", name, found);
}

static void print_status(FILE *out, const struct demo_outcome *outcome)
{
	fprintf(out, "  %-38s ", "by status");
	for (int code = 0; code < DEMO_OUTCOME_STATUS_MAX; code++)
		if (outcome->status[code])
			fprintf(out, "%d: %" PRIu64 "  ", code, outcome->status[code]);
	fputc('\n', out);
}

static void print_workers(FILE *out, const struct demo_run *run)
{
	fprintf(out, "  %-38s ", "by web worker");
	for (uint32_t i = 0; i < run->worker_count; i++)
		fprintf(out, "%" PRIu64 "  ", run->outcome.per_worker[i]);
	fputc('\n', out);
}

static void print_figures(FILE *out, const struct demo_run *run)
{
	const struct demo_history_findings *found = &run->findings;
	char text[128];

	snprintf(text, sizeof(text), "%" PRIu64 " in %.1f s, %.1f %% hits, %" PRIu64 " resets",
		 run->outcome.responses, run->seconds,
		 100.0 * demo_outcome_hit_ratio(&run->outcome), run->outcome.resets);
	print_line(out, "responses", text);
	print_status(out, &run->outcome);
	print_workers(out, run);
	if (!run->has_ledgers)
		return;
	snprintf(text, sizeof(text),
		 "%" PRIu64 " accepted, %" PRIu64 " executed, %" PRIu64 " twice",
		 found->tasks_accepted, found->tasks_executed, found->tasks_run_twice);
	print_line(out, "tasks", text);
	snprintf(text, sizeof(text), "%" PRIu64, found->kills);
	print_line(out, "kills", text);
	if (found->recoveries == 0)
		return;
	snprintf(text, sizeof(text), "p50 %.2f ms, p99 %.2f ms, max %.2f ms",
		 found->recovery_ms_p50, found->recovery_ms_p99, found->recovery_ms_max);
	print_line(out, "SIGKILL until all it held is free", text);
	snprintf(text, sizeof(text), "p50 %.2f ms, max %.2f ms", found->teardown_ms_p50,
		 found->teardown_ms_max);
	print_line(out, "  of this, until the kernel ended it", text);
}

void demo_report_table(FILE *out, const struct demo_run *run, const struct demo_verdict *verdict)
{
	static const char *const results[] = {
		[DEMO_RULE_OK] = "ok",
		[DEMO_RULE_BROKEN] = "BROKEN",
		[DEMO_RULE_NOT_COVERED] = "short",
		[DEMO_RULE_UNKNOWN] = "-",
	};

	fputc('\n', out);
	print_figures(out, run);
	fputc('\n', out);
	for (size_t i = 0; i < verdict->rule_count; i++)
		fprintf(out, "  %-38s %-7s %s\n", verdict->rules[i].name,
			results[verdict->rules[i].result], verdict->rules[i].found);
	if (run->outcome.first_complaint[0])
		fprintf(out, "\n  first complaint: %s\n", run->outcome.first_complaint);
	fprintf(out, "\n%s\n",
		verdict->ok ? "every invariant held" : "NOT OK: see the lines marked BROKEN");
}

static void set(json_t *object, const char *key, json_t *value)
{
	/* steals the value, also on failure; a missing key is noticed by run_json()'s caller */
	json_object_set_new(object, key, value);
}

static void set_count(json_t *object, const char *key, uint64_t count)
{
	set(object, key, json_integer((json_int_t)count));
}

/* what only ledgers can tell is null without them: 0 would be a claim */
static void set_told(json_t *object, const struct demo_run *run, const char *key, uint64_t count)
{
	if (run->has_ledgers)
		set_count(object, key, count);
	else
		set(object, key, json_null());
}

static json_t *status_json(const struct demo_outcome *outcome)
{
	json_t *status = json_object();
	char code_text[12];

	for (int code = 0; code < DEMO_OUTCOME_STATUS_MAX; code++)
		if (outcome->status[code]) {
			snprintf(code_text, sizeof(code_text), "%d", code);
			set_count(status, code_text, outcome->status[code]);
		}
	return status;
}

static json_t *holding_json(const struct demo_run *run)
{
	json_t *holding = json_object();

	for (int i = 0; i < DEMO_HOLDING_COUNT; i++)
		set_told(holding, run, demo_holding_names[i], run->findings.kills_holding[i]);
	return holding;
}

/* in ms, to the microsecond; null if nothing was measured */
static json_t *ms_json(bool is_known, double ms)
{
	return is_known ? json_real((double)(int64_t)(ms * 1000.0 + 0.5) / 1000.0) : json_null();
}

static json_t *recovery_json(const struct demo_history_findings *found)
{
	bool is_known = found->recoveries > found->recoveries_unseen;
	json_t *recovery = json_object();

	set(recovery, "p50", ms_json(is_known, found->recovery_ms_p50));
	set(recovery, "p99", ms_json(is_known, found->recovery_ms_p99));
	set(recovery, "max", ms_json(is_known, found->recovery_ms_max));
	return recovery;
}

static json_t *workers_json(const struct demo_run *run)
{
	json_t *workers = json_array();

	for (uint32_t i = 0; i < run->worker_count; i++)
		json_array_append_new(workers,
				      json_integer((json_int_t)run->outcome.per_worker[i]));
	return workers;
}

static json_t *verify_json(const struct demo_run *run)
{
	if (!run->has_ledgers || !run->findings.has_settled)
		return json_null();
	return json_string(run->findings.verify_error == 0 ? "ok" : "damage");
}

enum { KEY_COUNT = 20 };

static json_t *run_json(const struct demo_run *run, const struct demo_verdict *verdict)
{
	const struct demo_outcome *outcome = &run->outcome;
	const struct demo_history_findings *found = &run->findings;
	json_t *object = json_object();

	set(object, "seconds", json_real((double)(int64_t)(run->seconds * 10.0 + 0.5) / 10.0));
	set_count(object, "requests", outcome->responses);
	set(object, "status", status_json(outcome));
	set_count(object, "resets", outcome->resets);
	set(object, "hit_ratio", json_real(demo_outcome_hit_ratio(outcome)));
	set_told(object, run, "evictions", found->evictions);
	set_count(object, "bad_bodies", outcome->bad_bodies);
	set_count(object, "over_admitted", run->over_admitted);
	set_told(object, run, "tasks_accepted", found->tasks_accepted);
	set_told(object, run, "tasks_executed", found->tasks_executed);
	set_told(object, run, "tasks_lost", found->tasks_lost);
	set_told(object, run, "tasks_run_twice", found->tasks_run_twice);
	set_told(object, run, "redelivered_after_death", found->redelivered_after_death);
	set_told(object, run, "kills", found->kills);
	set(object, "kills_holding", holding_json(run));
	set(object, "recovery_ms", recovery_json(found));
	set(object, "longest_block_ms", ms_json(true, (double)outcome->longest_block_ns / 1e6));
	set(object, "requests_per_worker", workers_json(run));
	set(object, "verify", verify_json(run));
	set(object, "ok", json_boolean(verdict->ok));
	return object;
}

int demo_report_json(FILE *out, const struct demo_run *run, const struct demo_verdict *verdict)
{
	json_t *object = run_json(run, verdict);
	int rc = 0;

	if (!object || json_object_size(object) != KEY_COUNT)
		rc = -ENOMEM;
	else if (json_dumpf(object, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) < 0 ||
		 fputc('\n', out) == EOF || fflush(out) == EOF)
		rc = -EIO;
	json_decref(object);
	return rc;
}
