/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../common/clock.h"
#include "web_internal.h"

enum demo_lookup demo_web_look_up(struct demo_web *web, const char *url, bool is_first)
{
	size_t url_size_bytes = strlen(url);
	size_t size_bytes = sizeof(web->page);
	int rc;

	if (is_first)
		rc = coshm_cache_get(web->app->pages, url, url_size_bytes, web->page, &size_bytes,
				     NULL);
	else
		rc = coshm_cache_peek(web->app->pages, url, url_size_bytes, web->page, &size_bytes,
				      NULL);
	if (rc == 0)
		return DEMO_LOOKUP_ABSENT;
	if (rc == 1 && size_bytes == DEMO_PLACEHOLDER_SIZE_BYTES)
		return DEMO_LOOKUP_PENDING;
	if (rc < 0 || size_bytes < sizeof(struct demo_page)) {
		fprintf(stderr, "prefork-web: cache: %s: %s\n", url,
			rc < 0 ? coshm_strerror(rc) : "not a page");
		return DEMO_LOOKUP_FAILED;
	}
	web->body_size_bytes = size_bytes - sizeof(struct demo_page);
	return DEMO_LOOKUP_PAGE;
}

static int enqueue(struct demo_web *web, const char *url)
{
	const struct demo_url *known = demo_traffic_find_url(web->app->traffic, url);
	struct demo_render_task task = {
		.version = demo_now_ns(), /* no two elections for one URL are in one nanosecond */
		.size_bytes = known ? known->size_bytes : DEMO_PAGE_SIZE_BYTES_DEFAULT,
		.url_size_bytes = (uint32_t)strlen(url),
	};
	uint64_t id;
	int rc;

	memcpy(task.url, url, task.url_size_bytes);
	rc = coshm_queue_enqueue(web->app->queue, &task,
				 offsetof(struct demo_render_task, url) + task.url_size_bytes, NULL,
				 &id);
	if (rc == 0)
		rc = demo_ledger_append(web->ledger, DEMO_EVENT_TASK_ACCEPTED, id, NULL);
	return rc;
}

enum demo_election demo_web_elect(struct demo_web *web, const char *url)
{
	size_t url_size_bytes = strlen(url);
	int rc = coshm_cache_add(web->app->pages, url, url_size_bytes, DEMO_PLACEHOLDER,
				 DEMO_PLACEHOLDER_SIZE_BYTES,
				 DEMO_PLACEHOLDER_TTL_MS * DEMO_NS_PER_MS);

	/* -EAGAIN: a process that was stopped holds the lock. As good as lost: we look again soon. */
	if (rc == 0 || rc == -EAGAIN)
		return DEMO_ELECTION_LOST;
	if (rc == 1)
		rc = enqueue(web, url);
	if (rc == 0)
		return DEMO_ELECTION_WON;
	if (rc == -EAGAIN) {
		/* it would only keep others waiting; if it is gone already, all the better */
		rc = coshm_cache_delete(web->app->pages, url, url_size_bytes);
		return rc < 0 ? DEMO_ELECTION_FAILED : DEMO_ELECTION_FULL;
	}
	fprintf(stderr, "prefork-web: having %s rendered: %s\n", url, coshm_strerror(rc));
	return DEMO_ELECTION_FAILED;
}
