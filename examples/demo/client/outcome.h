/* SPDX-License-Identifier: MIT */
/* What the client saw in a run, counted; each response is judged here. */
#ifndef DEMO_CLIENT_OUTCOME_H
#define DEMO_CLIENT_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "response.h"

#define DEMO_OUTCOME_WORKERS_MAX 64
#define DEMO_OUTCOME_STATUS_MAX	 600

struct demo_outcome {
	uint64_t responses;
	uint64_t status[DEMO_OUTCOME_STATUS_MAX];
	uint64_t per_worker[DEMO_OUTCOME_WORKERS_MAX];
	uint64_t pages; /* responses to those the limiter let through */
	uint64_t hits;
	uint64_t early_misses; /* of pages that must have been there, had they not been evicted */
	uint64_t resets;       /* connections that ended under a request or could not be made */
	uint64_t timeouts;     /* requests that were given up */
	uint64_t bad_bodies;
	uint64_t malformed; /* responses that break the contract otherwise */
	uint64_t longest_block_ns;
	char first_complaint[256];
};

/* What was asked, as far as the answer depends on it. */
struct demo_asked {
	const char *path;
	uint32_t size_bytes; /* of the page */
	bool is_conditional;
	uint64_t if_none_match; /* version */
};

/*
 * Judges and counts one complete response. body_matches is what demo_body_matches() said about a
 * 200's body against the version in its ETag.
 */
void demo_outcome_note(struct demo_outcome *outcome, const struct demo_asked *asked,
		       const struct demo_response *response, bool body_matches, uint64_t took_ns);

/* remembers the first one as text, for the report */
void demo_outcome_complain(struct demo_outcome *outcome, const struct demo_asked *asked,
			   const char *text);

/* hits among the responses that needed a page; 0 if there was none */
double demo_outcome_hit_ratio(const struct demo_outcome *outcome);

#endif
