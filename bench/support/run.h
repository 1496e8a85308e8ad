/* SPDX-License-Identifier: MIT */
/* bench/support/run.h - what was measured, between those who run cases and those who report them */
#ifndef BENCH_SUPPORT_RUN_H
#define BENCH_SUPPORT_RUN_H

#include "bench.h"
#include "summary.h"

/* One repetition of one case. */
struct bench_measured {
	double ns; /* per operation: of each worker for timed cases, of all together for counted ones */
	double cpu_ns; /* CPU time of the busiest worker per operation that the figure counts */
	double mops;   /* operations of all workers, millions per second */
	double p99_ns, p999_ns;
	uint64_t wrong;
	int switches; /* how often workers lost their CPU to others, at most by one worker */
};

struct bench_row {
	struct bench_case c;
	int left_out; /* by --only, or absent */
	char absent[128];
	int redone;
	struct bench_measured rounds[BENCH_ROUNDS_MAX];
	int round_count;
};

struct bench_note {
	const char *name, *unit;
	double value;
};

struct bench_results {
	const char *program;
	struct bench_row *rows;
	int row_count;
	struct bench_note notes[16];
	int note_count;
	uint64_t wrong;
};

/* One repetition. */
struct bench_measured bench_measure(const struct bench_case *c, double seconds);

/* Other workers than its own may run on the CPUs of this case: being switched off is no noise. */
int bench_shares_cpus(const struct bench_case *c);

void bench_report(const struct bench_results *results, int json);

#endif
