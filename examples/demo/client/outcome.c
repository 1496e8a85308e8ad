/* SPDX-License-Identifier: MIT */
#include "outcome.h"

#include <stdio.h>

#include "../common/names.h"

/* P6 of coshm/cache.h allows 4 ms; a renderer that was not scheduled between stamping the page and
 * storing it adds its own delay, so the demo only looks for pages that were served long after */
#define AGE_MS_MAX (DEMO_PAGE_TTL_MS + 1000)

void demo_outcome_complain(struct demo_outcome *outcome, const struct demo_asked *asked,
			   const char *text)
{
	if (outcome->first_complaint[0])
		return;
	snprintf(outcome->first_complaint, sizeof(outcome->first_complaint), "%s: %.150s", text,
		 asked->path);
}

static void bad_body(struct demo_outcome *outcome, const struct demo_asked *asked, const char *text)
{
	outcome->bad_bodies++;
	demo_outcome_complain(outcome, asked, text);
}

static void malformed(struct demo_outcome *outcome, const struct demo_asked *asked,
		      const char *text)
{
	outcome->malformed++;
	demo_outcome_complain(outcome, asked, text);
}

static void judge_page(struct demo_outcome *outcome, const struct demo_asked *asked,
		       const struct demo_response *response, bool body_matches)
{
	if (!response->has_etag)
		malformed(outcome, asked, "200 without an ETag");
	else if (response->size_bytes != asked->size_bytes)
		bad_body(outcome, asked, "body of another size");
	else if (!body_matches)
		bad_body(outcome, asked, "body is not the one of its URL and version");
	else if (response->is_hit && (response->age_ms < 0 || response->age_ms > AGE_MS_MAX))
		bad_body(outcome, asked, "body served after it had expired");
}

static void judge_not_modified(struct demo_outcome *outcome, const struct demo_asked *asked,
			       const struct demo_response *response)
{
	if (!asked->is_conditional)
		malformed(outcome, asked, "304 to a request without If-None-Match");
	else if (!response->has_etag || response->version != asked->if_none_match)
		bad_body(outcome, asked, "304 for a version that the client does not have");
	else if (response->age_ms > AGE_MS_MAX)
		bad_body(outcome, asked, "304 for a page that had expired");
}

static void judge(struct demo_outcome *outcome, const struct demo_asked *asked,
		  const struct demo_response *response, bool body_matches)
{
	switch (response->status) {
	case 200:
		judge_page(outcome, asked, response, body_matches);
		break;
	case 304:
		judge_not_modified(outcome, asked, response);
		break;
	case 429:
		if (!response->has_retry_after || response->retry_after_s == 0 ||
		    !response->has_ratelimit)
			malformed(outcome, asked, "429 without its headers");
		break;
	case 202:
	case 503:
		if (!response->has_retry_after)
			malformed(outcome, asked, "202 or 503 without Retry-After");
		break;
	default:
		malformed(outcome, asked, "a status that the server never sends");
	}
}

void demo_outcome_note(struct demo_outcome *outcome, const struct demo_asked *asked,
		       const struct demo_response *response, bool body_matches, uint64_t took_ns)
{
	outcome->responses++;
	if (response->status < DEMO_OUTCOME_STATUS_MAX)
		outcome->status[response->status]++;
	if (response->worker_index >= 0 && response->worker_index < DEMO_OUTCOME_WORKERS_MAX)
		outcome->per_worker[response->worker_index]++;
	if (took_ns > outcome->longest_block_ns)
		outcome->longest_block_ns = took_ns;
	if (response->status != 429)
		outcome->pages++;
	if (response->status == 304 || (response->status == 200 && response->is_hit))
		outcome->hits++;
	judge(outcome, asked, response, body_matches);
}

double demo_outcome_hit_ratio(const struct demo_outcome *outcome)
{
	return outcome->pages ? (double)outcome->hits / (double)outcome->pages : 0;
}
