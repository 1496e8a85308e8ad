/* SPDX-License-Identifier: MIT */
/*
 * The verdict: every rule that the run must keep, each with what was found
 *
 * Two kinds of rules. Invariants hold in every run, however short. Coverage says that the run was
 * worth believing: something was evicted, refused, redelivered, and victims died holding each kind
 * of thing. A short run cannot promise that, so coverage counts from DEMO_COVERAGE_FROM_S on.
 *
 * Responses, bodies, admissions, waits and tasks are judged from outside of the segment: by what came
 * back, and by ledgers that are ordinary files. Four things only the library can tell of itself, and
 * the server asks it: the number of evictions (coshm_stats_each), what a victim held and when it was
 * free (coshm_inspect_member), and whether the segment is sound (coshm_inspect_verify). The first is
 * held against what the client saw: pages that went before their time are evictions.
 */
#ifndef DEMO_CLIENT_VERDICT_H
#define DEMO_CLIENT_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "history.h"
#include "outcome.h"

#define DEMO_COVERAGE_FROM_S 60

struct demo_run {
	double seconds;
	uint32_t worker_count;
	bool has_ledgers; /* else the server's side of the story is unknown */
	bool expects_kills;
	uint64_t block_ns_max;
	uint64_t over_admitted;
	struct demo_outcome outcome;
	struct demo_history_findings findings;
};

enum demo_rule_result {
	DEMO_RULE_OK,
	DEMO_RULE_BROKEN,
	DEMO_RULE_NOT_COVERED, /* a coverage rule in a run too short to hold it against */
	DEMO_RULE_UNKNOWN,     /* needs ledgers, or kills */
};

struct demo_rule {
	const char *name;
	enum demo_rule_result result;
	char found[96];
};

#define DEMO_RULES_MAX 32

struct demo_verdict {
	struct demo_rule rules[DEMO_RULES_MAX];
	size_t rule_count;
	bool ok;
};

void demo_verdict_reach(const struct demo_run *run, struct demo_verdict *ret_verdict);

#endif
