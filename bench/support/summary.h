/* SPDX-License-Identifier: MIT */
/* bench/support/summary.h - order statistics of a few numbers */
#ifndef BENCH_SUPPORT_SUMMARY_H
#define BENCH_SUPPORT_SUMMARY_H

struct bench_summary {
	double median, low, high; /* quartiles */
	double min, max;
};

/* Sorts the values. */
struct bench_summary bench_summarize(double *values, int count);

/* Of sorted values. share: 0 to 1. */
double bench_quantile(const double *sorted, int count, double share);

void bench_sort(double *values, int count);

#endif
