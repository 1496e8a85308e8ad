/* SPDX-License-Identifier: MIT */
#include "app.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../common/clock.h"
#include "../common/names.h"
#include "page.h"

static void say(void *context, int level, const char *message)
{
	(void)context;
	if (level == COSHM_LOG_ERROR)
		fprintf(stderr, "prefork-web: %s\n", message);
}

static int report(const char *what, int rc)
{
	if (rc < 0)
		fprintf(stderr, "prefork-web: %s: %s\n", what, coshm_strerror(rc));
	return rc;
}

/* The largest page must fit, and an item may take an eighth of the cache. */
static uint64_t cache_size_bytes_min(const struct demo_traffic *traffic)
{
	uint64_t largest = DEMO_PAGE_SIZE_BYTES_DEFAULT;
	uint64_t least;

	for (size_t i = 0; i < traffic->url_count; i++)
		if (traffic->urls[i].size_bytes > largest)
			largest = traffic->urls[i].size_bytes;
	least = 8 * (sizeof(struct demo_page) + DEMO_URL_SIZE_BYTES_MAX + largest) * 5 / 4;
	return least > 256 << 10 ? least : 256 << 10;
}

static uint64_t cache_size_bytes(const struct demo_app *app)
{
	uint64_t least = cache_size_bytes_min(app->traffic);
	uint64_t quarter = app->traffic->distinct_bytes / 4;

	if (app->options->cache_size_bytes)
		return app->options->cache_size_bytes;
	return quarter > least ? quarter : least;
}

static int create_objects(struct demo_app *app)
{
	const struct demo_web_options *options = app->options;
	const struct coshm_cache_config pages = {
		.struct_size_bytes = sizeof(pages),
		.size_bytes = cache_size_bytes(app),
		.average_item_bytes = app->traffic->distinct_bytes / app->traffic->url_count + 64,
		.policy = COSHM_CACHE_S3FIFO,
	};
	const struct coshm_limiter_config clients = {
		.struct_size_bytes = sizeof(clients),
		.rate = options->rate_per_s,
		.per_ns = DEMO_NS_PER_S,
		.burst = options->burst,
		/* visitors beside the log's clients must not push those out */
		.keys_max = app->traffic->client_count * 2 + 1024,
	};
	const struct coshm_queue_config queue = {
		.struct_size_bytes = sizeof(queue),
		.capacity = options->queue_capacity,
		.payload_max_bytes = sizeof(struct demo_render_task),
		/* a page is not the cause when its renderer is killed: at once, and again and again */
		.backoff_kind = COSHM_BACKOFF_FIXED,
		.backoff_base_ns = 1 * DEMO_NS_PER_MS,
		.backoff_max_ns = 1 * DEMO_NS_PER_MS,
		.max_attempts = 1000,
	};
	int rc;

	rc = report("cache", coshm_cache_create(app->segment, DEMO_PAGES, &pages, 0, &app->pages));
	if (rc == 0)
		rc = report("limiter", coshm_limiter_create(app->segment, DEMO_LIMIT, &clients, 0,
							    &app->clients));
	if (rc == 0)
		rc = report("queue",
			    coshm_queue_create(app->segment, DEMO_QUEUE, &queue, 0, &app->queue));
	return rc;
}

int demo_app_create(struct demo_app *app, const struct demo_web_options *options,
		    const struct demo_traffic *traffic)
{
	struct coshm_segment_config segment = {.struct_size_bytes = sizeof(segment)};
	int rc;

	*app = (struct demo_app){.options = options, .traffic = traffic};
	coshm_set_log(say, NULL, COSHM_LOG_ERROR);
	if (cache_size_bytes(app) < cache_size_bytes_min(traffic)) {
		fprintf(stderr, "prefork-web: --cache-size: the largest page needs %" PRIu64 "\n",
			cache_size_bytes_min(traffic));
		return -EINVAL;
	}
	segment.size_bytes = cache_size_bytes(app) + (8ull << 20);
	segment.size_max_bytes = segment.size_bytes + (64ull << 20);
	rc = report("segment", coshm_segment_create(options->segment, &segment, 0, &app->segment));
	if (rc < 0)
		return rc;
	rc = create_objects(app);
	if (rc < 0) {
		demo_app_leave(app);
		report("removing the segment", coshm_segment_unlink(options->segment));
	}
	return rc;
}

void demo_app_leave(struct demo_app *app)
{
	report("leaving the segment", coshm_segment_detach(app->segment));
	app->segment = NULL;
}

/* one counter per cause: those that made room for others, not those whose time was over */
static int add_evictions(void *context, const struct coshm_stat *stat)
{
	uint64_t *sum = context;

	if (strncmp(stat->name, "evicted_", 8) == 0 && strcmp(stat->name, "evicted_expired") != 0 &&
	    strcmp(stat->name, "evicted_flushed") != 0)
		*sum += stat->value;
	return 0;
}

int demo_app_evictions(struct demo_app *app, uint64_t *ret_count)
{
	uint64_t sum = 0;
	int rc = coshm_stats_each(app->segment, DEMO_PAGES, add_evictions, &sum);

	if (rc == 0)
		*ret_count = sum;
	return rc;
}
