/* SPDX-License-Identifier: MIT */
/* The run as text for people and as JSON for programs; both from the same structs. */
#ifndef DEMO_CLIENT_REPORT_H
#define DEMO_CLIENT_REPORT_H

#include <stdio.h>

#include "verdict.h"

void demo_report_table(FILE *out, const struct demo_run *run, const struct demo_verdict *verdict);

/* one object, the keys as listed in replay --help; 0, -ENOMEM or -EIO */
int demo_report_json(FILE *out, const struct demo_run *run, const struct demo_verdict *verdict);

/* One line per second while the run lasts; call it with the totals so far. */
struct demo_live {
	uint64_t second;
	uint64_t responses;
	uint64_t pages;
	uint64_t hits;
};

void demo_live_header(FILE *out, bool has_ledgers);
void demo_live_line(struct demo_live *live, FILE *out, const struct demo_outcome *outcome,
		    const struct demo_history *history, bool has_ledgers);

#endif
