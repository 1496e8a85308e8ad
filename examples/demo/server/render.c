/* SPDX-License-Identifier: MIT */
#include "render.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../common/body.h"
#include "../common/clock.h"
#include "page.h"

/* a page of no bytes takes the least time, one of DEMO_PAGE_SIZE_BYTES_MAX the most */
#define RENDER_NS_LEAST (5 * DEMO_NS_PER_MS)
#define RENDER_NS_MOST	(50 * DEMO_NS_PER_MS)

/* coshm_cache_set answers -EAGAIN after 100 ms behind a stopped process; nobody is stopped for long */
#define SET_TRIES 20

struct renderer {
	struct demo_app *app;
	const struct demo_ledger *ledger;
	unsigned char page[sizeof(struct demo_page) + DEMO_PAGE_SIZE_BYTES_MAX];
};

static uint64_t render_time_ns(uint32_t size_bytes)
{
	return RENDER_NS_LEAST +
	       (RENDER_NS_MOST - RENDER_NS_LEAST) * size_bytes / DEMO_PAGE_SIZE_BYTES_MAX;
}

static void make_page(struct renderer *renderer, const struct demo_render_task *task,
		      const char *url)
{
	struct demo_page head = {.version = task->version};
	struct demo_body body;

	demo_body_begin(&body, url, task->version);
	demo_body_next(&body, renderer->page + sizeof(head), task->size_bytes);
	demo_sleep_ns(render_time_ns(task->size_bytes));
	head.rendered_at_ns = demo_now_ns();
	memcpy(renderer->page, &head, sizeof(head));
}

static int store_page(struct renderer *renderer, const struct demo_render_task *task,
		      const char *url)
{
	int rc = -EAGAIN;

	for (int i = 0; rc == -EAGAIN && i < SET_TRIES; i++)
		rc = coshm_cache_set(renderer->app->pages, url, task->url_size_bytes,
				     renderer->page, sizeof(struct demo_page) + task->size_bytes,
				     DEMO_PAGE_TTL_MS * DEMO_NS_PER_MS);
	return rc;
}

static int render(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	struct renderer *renderer = context;
	struct demo_render_task what = {0};
	int rc;

	if (task->payload_size_bytes < offsetof(struct demo_render_task, url) ||
	    task->payload_size_bytes > sizeof(what)) {
		snprintf(error, 56, "not a rendering task");
		return COSHM_WORKER_BURY;
	}
	memcpy(&what, payload, task->payload_size_bytes);
	/* the payload was written by another process: its sizes are input */
	if (what.url_size_bytes >= sizeof(what.url) || what.size_bytes > DEMO_PAGE_SIZE_BYTES_MAX) {
		snprintf(error, 56, "sizes out of range");
		return COSHM_WORKER_BURY;
	}
	what.url[what.url_size_bytes] = '\0';

	if (demo_ledger_append(renderer->ledger, DEMO_EVENT_TASK_BEGUN, task->id, NULL) < 0)
		return COSHM_WORKER_RETRY;
	make_page(renderer, &what, what.url);
	rc = store_page(renderer, &what, what.url);
	if (rc == 0)
		rc = demo_ledger_append(renderer->ledger, DEMO_EVENT_TASK_DONE, task->id, NULL);
	if (rc < 0) {
		snprintf(error, 56, "%s", coshm_strerror(rc));
		fprintf(stderr, "prefork-web: rendering %s: %s\n", what.url, coshm_strerror(rc));
		return rc == -EAGAIN ? COSHM_WORKER_RETRY : COSHM_WORKER_BURY;
	}
	return COSHM_WORKER_ACK;
}

int demo_render_main(struct demo_app *app, const struct demo_ledger *ledger)
{
	static struct renderer renderer;
	int rc;

	renderer.app = app;
	renderer.ledger = ledger;
	rc = coshm_worker_run(app->queue, render, &renderer, NULL);
	if (rc < 0)
		fprintf(stderr, "prefork-web: queue worker: %s\n", coshm_strerror(rc));
	demo_app_leave(app);
	return rc < 0;
}
