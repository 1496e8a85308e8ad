/* SPDX-License-Identifier: MIT */
/*
 * What the processes of the server share through the segment
 *
 * The master makes it once and forks; the workers go on with the handles that they inherited, and
 * each becomes a member of its own at its first call.
 */
#ifndef DEMO_SERVER_APP_H
#define DEMO_SERVER_APP_H

#include <stdint.h>

#include <coshm/coshm.h>

#include "../common/traffic.h"
#include "options.h"

#define DEMO_PAGES "pages"   /* cache: URL -> page or placeholder */
#define DEMO_LIMIT "clients" /* limiter: client address */
#define DEMO_QUEUE "render"  /* queue: pages to render */

struct demo_app {
	const struct demo_web_options *options;
	const struct demo_traffic *traffic;
	struct coshm_segment *segment;
	struct coshm_cache *pages;
	struct coshm_limiter *clients;
	struct coshm_queue *queue;
};

/* 0 or what coshm returned; has printed what failed */
int demo_app_create(struct demo_app *app, const struct demo_web_options *options,
		    const struct demo_traffic *traffic);

/* ends this process's membership; the segment stays */
void demo_app_leave(struct demo_app *app);

/* entries that the cache gave up for others, all causes but expiry */
int demo_app_evictions(struct demo_app *app, uint64_t *ret_count);

#endif
