/* SPDX-License-Identifier: MIT */
/* The parts of a web worker: request path (web.c), page lookup (lookup.c), answers (answer.c). */
#ifndef DEMO_SERVER_WEB_INTERNAL_H
#define DEMO_SERVER_WEB_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "../common/ledger.h"
#include "app.h"
#include "page.h"

struct event;
struct event_base;
struct evhttp;
struct evhttp_request;

/* A request that waits for its page while the event loop goes on with others. */
struct demo_waiting {
	TAILQ_ENTRY(demo_waiting) link;
	struct evhttp_request *request;
	const char *url; /* the request's own */
	uint64_t until_ns;
};

TAILQ_HEAD(demo_waiting_list, demo_waiting);

struct demo_web {
	struct demo_app *app;
	const struct demo_ledger *ledger;
	uint32_t worker_index;
	bool is_draining;
	struct event_base *base;
	struct evhttp *http;
	struct event *poll; /* pending only while somebody waits */
	struct demo_waiting_list waiting;
	/* one page, copied out of the cache: a worker answers one request at a time */
	unsigned char page[sizeof(struct demo_page) + DEMO_PAGE_SIZE_BYTES_MAX];
	uint64_t body_size_bytes;
};

enum demo_lookup {
	DEMO_LOOKUP_PAGE,    /* in web->page */
	DEMO_LOOKUP_PENDING, /* somebody is having it rendered */
	DEMO_LOOKUP_ABSENT,
	DEMO_LOOKUP_FAILED,
};

/* counted by the cache's statistics only if is_first: a request is one lookup, however long */
enum demo_lookup demo_web_look_up(struct demo_web *web, const char *url, bool is_first);

enum demo_election {
	DEMO_ELECTION_WON,  /* and the task is in the queue */
	DEMO_ELECTION_LOST, /* another request has it rendered */
	DEMO_ELECTION_FULL, /* won, but the queue is full */
	DEMO_ELECTION_FAILED,
};

/* lets exactly one of all requests for an absent page enqueue its rendering */
enum demo_election demo_web_elect(struct demo_web *web, const char *url);

/* Answers. Each consumes the request. */
void demo_web_answer_page(struct demo_web *web, struct evhttp_request *request, bool is_hit,
			  uint64_t looked_up_at_ns);
void demo_web_answer_later(struct demo_web *web, struct evhttp_request *request, int status);
void demo_web_answer_refused(struct demo_web *web, struct evhttp_request *request,
			     const struct coshm_limiter_result *result);
void demo_web_answer_error(struct demo_web *web, struct evhttp_request *request, int status);

/* the headers that tell a client where it stands, on every answer */
void demo_web_add_limits(struct demo_web *web, struct evhttp_request *request,
			 const struct coshm_limiter_result *result);

#endif
