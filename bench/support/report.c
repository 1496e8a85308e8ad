/* SPDX-License-Identifier: MIT */
/* Results as a table for people, and as JSON for scripts/bench. */
#include "run.h"

#include <coshm/coshm.h>

#include <stdio.h>
#include <string.h>

struct figures {
	struct bench_summary ns, cpu_ns, mops, p99_ns, p999_ns, to_limit, to_ours;
	int has_limit, has_ours;
};

static const struct bench_row *find(const struct bench_results *results,
				    const struct bench_row *like, int limit)
{
	for (int i = 0; i < results->row_count; i++) {
		const struct bench_row *row = &results->rows[i];

		if (!row->left_out && !strcmp(row->c.question, like->c.question) &&
		    (limit ? row->c.is_limit : row->c.is_ours))
			return row;
	}
	return NULL;
}

static struct bench_summary ratio(const struct bench_row *row, const struct bench_row *to)
{
	double values[BENCH_ROUNDS_MAX];

	for (int r = 0; r < row->round_count; r++)
		values[r] = row->rounds[r].ns / to->rounds[r].ns;
	return bench_summarize(values, row->round_count);
}

static struct figures figures_of(const struct bench_results *results, const struct bench_row *row)
{
	const struct bench_row *limit = find(results, row, 1), *ours = find(results, row, 0);
	double values[5][BENCH_ROUNDS_MAX];
	struct figures f = {.has_limit = limit && limit != row,
			    .has_ours = ours && ours != row && !row->c.is_limit};

	for (int r = 0; r < row->round_count; r++) {
		values[0][r] = row->rounds[r].ns;
		values[1][r] = row->rounds[r].cpu_ns;
		values[2][r] = row->rounds[r].mops;
		values[3][r] = row->rounds[r].p99_ns;
		values[4][r] = row->rounds[r].p999_ns;
	}
	f.ns = bench_summarize(values[0], row->round_count);
	f.cpu_ns = bench_summarize(values[1], row->round_count);
	f.mops = bench_summarize(values[2], row->round_count);
	f.p99_ns = bench_summarize(values[3], row->round_count);
	f.p999_ns = bench_summarize(values[4], row->round_count);
	if (f.has_limit)
		f.to_limit = ratio(row, limit);
	if (f.has_ours)
		f.to_ours = ratio(row, ours);
	return f;
}

static const char *lacks_of(const struct bench_row *row)
{
	return row->c.lacks ? row->c.lacks : "";
}

/* --- table --- */

static void print_ratio(int has, double value)
{
	if (has)
		printf(" %8.2f", value);
	else
		printf(" %8s", "");
}

static void print_row(const struct bench_results *results, const struct bench_row *row)
{
	struct figures f = figures_of(results, row);
	char range[32];

	if (row->absent[0]) {
		printf("  %-34s %5d  skipped: %s\n", row->c.subject, row->c.procs, row->absent);
		return;
	}
	snprintf(range, sizeof(range), "%.1f-%.1f", f.ns.low, f.ns.high);
	printf("  %-34s %5d %10.1f %19s", row->c.subject, row->c.procs, f.ns.median, range);
	if (row->c.latency)
		printf(" p99 %.0f, p99.9 %-8.0f", f.p99_ns.median, f.p999_ns.median);
	else
		printf(" %10.1f %10.3f", f.cpu_ns.median, f.mops.median);
	print_ratio(f.has_limit, f.to_limit.median);
	print_ratio(f.has_ours, f.to_ours.median);
	printf("  %s\n", lacks_of(row));
}

static void print_floor(const struct bench_results *results, const struct bench_row *row)
{
	struct figures f = figures_of(results, row);

	if (row->c.floor_mops > 0)
		printf("floor  %s: %.2f M/s of %.2f: %s\n", row->c.question, f.mops.median,
		       row->c.floor_mops,
		       f.mops.median >= row->c.floor_mops ? "reached" : "MISSED");
	if (row->c.goal_ns > 0)
		printf("goal   %s: %.0f ns of %.0f\n", row->c.question, f.ns.median,
		       row->c.goal_ns);
}

static void print_table(const struct bench_results *results)
{
	const char *question = "";

	printf("%d CPUs; ns%s and their quartiles; ratios of time: to the limit, to coshm%s\n",
	       bench_cpu_count(), bench_cpu_time ? " of CPU time" : "",
	       bench_quick ? "; a smoke test, no measurement" : "");
	for (int i = 0; i < results->row_count; i++) {
		const struct bench_row *row = &results->rows[i];

		if (row->left_out && !row->absent[0])
			continue;
		if (strcmp(question, row->c.question) != 0)
			printf("\n%-36s %5s %10s %19s %10s %10s %8s %8s\n", row->c.question,
			       "procs", "ns", "quartiles", "cpu ns", "M/s", "x limit", "x coshm");
		question = row->c.question;
		print_row(results, row);
	}
	printf("\n");
	for (int i = 0; i < results->row_count; i++)
		if (!results->rows[i].left_out)
			print_floor(results, &results->rows[i]);
	for (int i = 0; i < results->note_count; i++)
		printf("%s: %.1f %s\n", results->notes[i].name, results->notes[i].value,
		       results->notes[i].unit);
	if (results->wrong)
		printf("WRONG answers: %llu\n", (unsigned long long)results->wrong);
}

/* --- JSON --- */

static void json_summary(const char *name, const struct bench_summary *s)
{
	printf(", \"%s\": {\"median\": %.3f, \"low\": %.3f, \"high\": %.3f, \"min\": %.3f, "
	       "\"max\": %.3f}",
	       name, s->median, s->low, s->high, s->min, s->max);
}

static void json_row(const struct bench_results *results, const struct bench_row *row)
{
	struct figures f = figures_of(results, row);

	printf("{\"question\": \"%s\", \"subject\": \"%s\", \"procs\": %d", row->c.question,
	       row->c.subject, row->c.procs);
	if (row->absent[0]) {
		printf(", \"skipped\": \"%s\"}", row->absent);
		return;
	}
	printf(", \"rounds\": %d, \"redone\": %d, \"lacks\": \"%s\"", row->round_count, row->redone,
	       lacks_of(row));
	json_summary("ns", &f.ns);
	if (row->c.latency) {
		json_summary("p99_ns", &f.p99_ns);
		json_summary("p999_ns", &f.p999_ns);
	} else {
		json_summary("cpu_ns", &f.cpu_ns);
		json_summary("mops", &f.mops);
	}
	if (f.has_limit)
		json_summary("to_limit", &f.to_limit);
	if (f.has_ours)
		json_summary("to_coshm", &f.to_ours);
	if (row->c.floor_mops > 0)
		printf(", \"floor_mops\": %.3f", row->c.floor_mops);
	if (row->c.goal_ns > 0)
		printf(", \"goal_ns\": %.1f", row->c.goal_ns);
	printf("}");
}

static void print_json(const struct bench_results *results)
{
	const char *between = "\n  ";

	printf("{\"program\": \"%s\", \"version\": \"%s\", \"cpus\": %d, \"quick\": %s, \"cases\": "
	       "[",
	       results->program, coshm_version(), bench_cpu_count(),
	       bench_quick ? "true" : "false");
	for (int i = 0; i < results->row_count; i++) {
		if (results->rows[i].left_out && !results->rows[i].absent[0])
			continue;
		printf("%s", between);
		json_row(results, &results->rows[i]);
		between = ",\n  ";
	}
	printf("\n], \"notes\": {");
	for (int i = 0; i < results->note_count; i++)
		printf("%s\"%s\": %.3f", i ? ", " : "", results->notes[i].name,
		       results->notes[i].value);
	printf("}, \"wrong\": %llu}\n", (unsigned long long)results->wrong);
}

void bench_report(const struct bench_results *results, int json)
{
	if (json)
		print_json(results);
	else
		print_table(results);
}
