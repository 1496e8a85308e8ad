/* SPDX-License-Identifier: MIT */
#include <inttypes.h>

#include "report.h"

enum { LINES_PER_HEADER = 20 };

void demo_live_header(FILE *out, bool has_ledgers)
{
	fprintf(out, "%5s %7s %5s %7s %6s %6s %6s %6s", "t", "req/s", "hit%", "200", "304", "202",
		"429", "503");
	if (has_ledgers)
		fprintf(out, " %13s %6s %9s", "tasks in/out", "killed", "repaired");
	fprintf(out, " %8s %4s\n", "blocked", "bad");
}

void demo_live_line(struct demo_live *live, FILE *out, const struct demo_outcome *outcome,
		    const struct demo_history *history, bool has_ledgers)
{
	uint64_t pages = outcome->pages - live->pages;
	uint64_t hits = outcome->hits - live->hits;
	char tasks[32];

	if (live->second % LINES_PER_HEADER == 0)
		demo_live_header(out, has_ledgers);
	fprintf(out,
		"%4" PRIu64 "s %7" PRIu64 " %5.1f %7" PRIu64 " %6" PRIu64 " %6" PRIu64 " %6" PRIu64
		" %6" PRIu64,
		live->second + 1, outcome->responses - live->responses,
		pages ? 100.0 * (double)hits / (double)pages : 0.0, outcome->status[200],
		outcome->status[304], outcome->status[202], outcome->status[429],
		outcome->status[503]);
	if (has_ledgers) {
		snprintf(tasks, sizeof(tasks), "%" PRIu64 "/%" PRIu64, history->accepted_count,
			 history->done_count);
		fprintf(out, " %13s %6" PRIu64 " %6.1f ms", tasks, history->kill_count,
			(double)history->recovery_ns_max / 1e6);
	}
	fprintf(out, " %5.0f ms %4" PRIu64 "\n", (double)outcome->longest_block_ns / 1e6,
		outcome->bad_bodies + outcome->malformed);
	fflush(out);
	live->second++;
	live->responses = outcome->responses;
	live->pages = outcome->pages;
	live->hits = outcome->hits;
}
