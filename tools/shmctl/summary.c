/* SPDX-License-Identifier: MIT */
#include "summary.h"

#include "output.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const policies[] = {
	[COSHM_CACHE_S3FIFO] = "s3fifo",
	[COSHM_CACHE_LRU] = "lru",
	[COSHM_CACHE_NONE] = "none",
};

const char *summary_policy_name(uint32_t policy)
{
	return policy < OUTPUT_COUNT(policies) ? policies[policy] : "unknown";
}

int summary_policy_parse(const char *name, uint32_t *ret_policy)
{
	for (uint32_t i = 0; i < OUTPUT_COUNT(policies); i++)
		if (!strcmp(policies[i], name)) {
			*ret_policy = i;
			return 0;
		}
	return -EINVAL;
}

static int read_cache(struct coshm_segment *segment, const char *name, struct summary *summary)
{
	struct coshm_cache *cache;
	int error = coshm_cache_open(segment, name, &cache);

	if (error)
		return error;
	summary->cache.struct_size_bytes = sizeof(summary->cache);
	error = coshm_cache_config(cache, &summary->cache);
	if (!error)
		error = coshm_cache_count(cache, &summary->items);
	if (!error)
		error = coshm_stats_value(segment, name, "hits", &summary->hits);
	if (!error)
		error = coshm_stats_value(segment, name, "misses", &summary->misses);
	coshm_cache_close(cache);
	return error;
}

static int read_limiter(struct coshm_segment *segment, const char *name, struct summary *summary)
{
	struct coshm_limiter *limiter;
	int error = coshm_limiter_open(segment, name, &limiter);

	if (error)
		return error;
	summary->limiter.struct_size_bytes = sizeof(summary->limiter);
	error = coshm_limiter_config(limiter, &summary->limiter);
	coshm_limiter_close(limiter);
	return error;
}

static int read_queue(struct coshm_segment *segment, const char *name, struct summary *summary)
{
	struct coshm_queue *queue;
	int error = coshm_queue_open(segment, name, &queue);

	if (error)
		return error;
	summary->queue.struct_size_bytes = sizeof(summary->queue);
	error = coshm_queue_config(queue, &summary->queue);
	if (!error)
		error = coshm_queue_depth(queue, &summary->depth);
	coshm_queue_close(queue);
	return error;
}

struct summary summary_of(struct coshm_segment *segment, const struct coshm_object_info *info)
{
	struct summary summary = {.type = 0};
	int error = -EINVAL;

	if (info->removed)
		return summary;
	if (info->type == COSHM_OBJECT_CACHE)
		error = read_cache(segment, info->name, &summary);
	else if (info->type == COSHM_OBJECT_LIMITER)
		error = read_limiter(segment, info->name, &summary);
	else if (info->type == COSHM_OBJECT_QUEUE)
		error = read_queue(segment, info->name, &summary);
	summary.type = error ? 0 : info->type;
	return summary;
}

static void cache_text(const struct summary *summary, struct summary_text *out)
{
	uint64_t gets = summary->hits + summary->misses;
	int length = snprintf(out->text, sizeof(out->text), "%s, %" PRIu64 " items",
			      summary_policy_name(summary->cache.policy), summary->items);

	if (gets)
		snprintf(out->text + length, sizeof(out->text) - (size_t)length,
			 ", %" PRIu64 "%% of %" PRIu64 " gets hit",
			 (summary->hits * 100 + gets / 2) / gets, gets);
}

struct summary_text summary_text(const struct summary *summary)
{
	struct summary_text out = {""};
	const struct coshm_limiter_config *limiter = &summary->limiter;
	const struct coshm_queue_depth *depth = &summary->depth;

	switch (summary->type) {
	case COSHM_OBJECT_CACHE:
		cache_text(summary, &out);
		break;
	case COSHM_OBJECT_LIMITER:
		snprintf(out.text, sizeof(out.text), "%s, burst %" PRIu64 ", for %" PRIu64 " keys",
			 units_rate(limiter->rate, limiter->per_ns).text, limiter->burst,
			 limiter->keys_max);
		break;
	case COSHM_OBJECT_QUEUE:
		snprintf(out.text, sizeof(out.text),
			 "%" PRIu64 " ready, %" PRIu64 " delayed, %" PRIu64 " leased, %" PRIu64
			 " dead of %" PRIu64,
			 depth->ready, depth->delayed, depth->leased, depth->dead, depth->capacity);
		break;
	default:
		break;
	}
	return out;
}

const char *summary_backoff_name(uint32_t kind)
{
	static const char *const kinds[] = {
		[COSHM_BACKOFF_EXPONENTIAL] = "exponential",
		[COSHM_BACKOFF_LINEAR] = "linear",
		[COSHM_BACKOFF_FIXED] = "fixed",
	};

	return kind < OUTPUT_COUNT(kinds) ? kinds[kind] : "unknown";
}

static json_t *backoff_json(const struct coshm_queue_config *config)
{
	return json_pack("{s:s, s:o, s:o, s:i}", "kind", summary_backoff_name(config->backoff_kind),
			 "base_ns", output_json_number(config->backoff_base_ns), "max_ns",
			 output_json_number(config->backoff_max_ns), "jitter_percent",
			 (int)config->backoff_jitter_percent);
}

json_t *summary_json(const struct summary *summary)
{
	const struct coshm_limiter_config *limiter = &summary->limiter;
	const struct coshm_queue_depth *depth = &summary->depth;

	switch (summary->type) {
	case COSHM_OBJECT_CACHE:
		return json_pack("{s:s, s:o, s:o, s:i, s:o, s:o, s:o}", "policy",
				 summary_policy_name(summary->cache.policy), "size_bytes",
				 output_json_number(summary->cache.size_bytes), "max_entries",
				 output_json_number(summary->cache.max_entries), "lanes",
				 (int)summary->cache.lanes, "items",
				 output_json_number(summary->items), "hits",
				 output_json_number(summary->hits), "misses",
				 output_json_number(summary->misses));
	case COSHM_OBJECT_LIMITER:
		return json_pack("{s:o, s:o, s:o, s:o}", "rate", output_json_number(limiter->rate),
				 "per_ns", output_json_number(limiter->per_ns), "burst",
				 output_json_number(limiter->burst), "keys_max",
				 output_json_number(limiter->keys_max));
	case COSHM_OBJECT_QUEUE:
		return json_pack(
			"{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:o}", "ready",
			output_json_number(depth->ready), "delayed",
			output_json_number(depth->delayed), "leased",
			output_json_number(depth->leased), "dead", output_json_number(depth->dead),
			"capacity", output_json_number(depth->capacity), "payload_max_bytes",
			output_json_number(summary->queue.payload_max_bytes), "payload_pool_bytes",
			output_json_number(summary->queue.payload_pool_bytes), "max_attempts",
			(int)summary->queue.max_attempts, "backoff", backoff_json(&summary->queue));
	default:
		return json_object();
	}
}
