/* SPDX-License-Identifier: MIT */
/*
 * What the ledgers tell, and whether it adds up
 *
 * Lost      accepted, and not done although the queue ran empty.
 * Run twice begun more than once. Each further run needs an excuse: the worker of the run before
 *           was sent SIGKILL before the further run began. Without one it is an unexcused run.
 */
#ifndef DEMO_CLIENT_HISTORY_H
#define DEMO_CLIENT_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/ledger.h"

struct demo_history {
	struct demo_event *events;
	size_t event_count;
	int error; /* the first one, -errno */

	/* running totals, for the live line */
	uint64_t accepted_count;
	uint64_t done_count;
	uint64_t kill_count;
	uint64_t recovery_ns_max;
	bool has_settled;
};

struct demo_history_findings {
	uint64_t tasks_accepted;
	uint64_t tasks_executed; /* distinct tasks that were done at least once */
	uint64_t tasks_lost;
	uint64_t tasks_run_twice;
	uint64_t unexcused_runs;
	uint64_t redelivered_after_death; /* further runs with an excuse */

	uint64_t kills;
	uint64_t kills_holding[DEMO_HOLDING_COUNT];
	uint64_t recoveries;	    /* kills of a victim that held something */
	uint64_t recoveries_unseen; /* not free again while the killer watched */
	double recovery_ms_p50;
	double recovery_ms_p99;
	double recovery_ms_max;
	double teardown_ms_p50; /* the kernel's part of it */
	double teardown_ms_max;
	uint64_t unexpected_deaths;

	bool has_settled;
	bool is_drained;
	uint64_t evictions;
	int verify_error; /* 0: ok */
};

/* as the callback of demo_ledger_read(); user is the history */
void demo_history_add(void *user, const struct demo_event *event);

/*
 * Forgets what happened before a report (SETTLED) that is there already: an earlier replay has
 * judged it, and what a visitor did since is no fault of the server. Who is alive is kept.
 */
void demo_history_forget_settled(struct demo_history *history);

/* 0 or -ENOMEM; sorts the events */
int demo_history_judge(struct demo_history *history, struct demo_history_findings *ret_findings);

void demo_history_close(struct demo_history *history);

#endif
