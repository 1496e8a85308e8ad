/* SPDX-License-Identifier: MIT */
#include "summary.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void bench_sort(double *values, int count)
{
	qsort(values, (size_t)count, sizeof(*values), by_value);
}

double bench_quantile(const double *sorted, int count, double share)
{
	double at = share * (count - 1);
	int below = (int)at;

	if (count < 1)
		return 0;
	if (below + 1 >= count)
		return sorted[count - 1];
	return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

struct bench_summary bench_summarize(double *values, int count)
{
	bench_sort(values, count);
	return (struct bench_summary){
		.median = bench_quantile(values, count, 0.5),
		.low = bench_quantile(values, count, 0.25),
		.high = bench_quantile(values, count, 0.75),
		.min = bench_quantile(values, count, 0),
		.max = bench_quantile(values, count, 1),
	};
}
