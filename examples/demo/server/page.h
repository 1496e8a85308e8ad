/* SPDX-License-Identifier: MIT */
/* The bytes that the server's processes pass to each other: cache values and task payloads. */
#ifndef DEMO_SERVER_PAGE_H
#define DEMO_SERVER_PAGE_H

#include <stdint.h>

#include "../common/names.h"

/* A rendered page in the cache: this head, then the body. */
struct demo_page {
	uint64_t version;
	uint64_t rendered_at_ns;
};

/*
 * Stands in the cache for a page that somebody is having rendered. Its size tells it from a page.
 * It expires soon: should the elected worker be killed before its enqueue, the next request finds
 * a miss again and is elected.
 */
#define DEMO_PLACEHOLDER	    "."
#define DEMO_PLACEHOLDER_SIZE_BYTES 1u
#define DEMO_PLACEHOLDER_TTL_MS	    500u

struct demo_render_task {
	uint64_t version;
	uint32_t size_bytes;
	uint32_t url_size_bytes;
	char url[DEMO_URL_SIZE_BYTES_MAX]; /* only as much of it as is used is enqueued */
};

_Static_assert(sizeof(struct demo_page) > DEMO_PLACEHOLDER_SIZE_BYTES, "told apart by size");

#endif
