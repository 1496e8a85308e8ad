/* SPDX-License-Identifier: MIT */
#include "web.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/http.h>

#include "../common/clock.h"
#include "socket.h"
#include "web_internal.h"

#define WAIT_NS_MAX (100 * DEMO_NS_PER_MS)

static const struct timeval poll_every = {.tv_usec = 2000};

/* all that wait have had their answer by then */
static const struct timeval drain_for = {.tv_usec = 150000};

/* whether the request has been answered */
static bool try_elect(struct demo_web *web, struct evhttp_request *request, const char *url)
{
	switch (demo_web_elect(web, url)) {
	case DEMO_ELECTION_FULL:
		demo_web_answer_later(web, request, HTTP_SERVUNAVAIL);
		return true;
	case DEMO_ELECTION_FAILED:
		demo_web_answer_error(web, request, HTTP_INTERNAL);
		return true;
	default:
		return false;
	}
}

static void wait_for_page(struct demo_web *web, struct evhttp_request *request, const char *url)
{
	struct demo_waiting *waiting = malloc(sizeof(*waiting));

	if (!waiting) {
		demo_web_answer_error(web, request, HTTP_INTERNAL);
		return;
	}
	*waiting = (struct demo_waiting){
		.request = request,
		.url = url,
		.until_ns = demo_now_ns() + WAIT_NS_MAX,
	};
	TAILQ_INSERT_TAIL(&web->waiting, waiting, link);
	if (!evtimer_pending(web->poll, NULL))
		evtimer_add(web->poll, &poll_every);
}

static void answer_from_cache(struct demo_web *web, struct evhttp_request *request, const char *url)
{
	uint64_t now_ns = demo_now_ns(); /* before the lookup: an age must not come out too high */

	switch (demo_web_look_up(web, url, true)) {
	case DEMO_LOOKUP_PAGE:
		demo_web_answer_page(web, request, true, now_ns);
		break;
	case DEMO_LOOKUP_ABSENT:
		if (!try_elect(web, request, url))
			wait_for_page(web, request, url);
		break;
	case DEMO_LOOKUP_PENDING:
		wait_for_page(web, request, url);
		break;
	case DEMO_LOOKUP_FAILED:
		demo_web_answer_error(web, request, HTTP_INTERNAL);
		break;
	}
}

/* one look on behalf of a request that waits; whether it has been answered */
static bool look_again(struct demo_web *web, const struct demo_waiting *waiting, uint64_t now_ns)
{
	switch (demo_web_look_up(web, waiting->url, false)) {
	case DEMO_LOOKUP_PAGE:
		demo_web_answer_page(web, waiting->request, false, now_ns);
		return true;
	case DEMO_LOOKUP_FAILED:
		demo_web_answer_error(web, waiting->request, HTTP_INTERNAL);
		return true;
	case DEMO_LOOKUP_ABSENT:
		/* the elected one was killed before its enqueue, or the page was evicted at once */
		if (try_elect(web, waiting->request, waiting->url))
			return true;
		break;
	case DEMO_LOOKUP_PENDING:
		break;
	}
	if (now_ns < waiting->until_ns)
		return false;
	demo_web_answer_later(web, waiting->request, 202);
	return true;
}

static void on_poll(evutil_socket_t fd, short what, void *context)
{
	struct demo_web *web = context;
	struct demo_waiting *waiting = TAILQ_FIRST(&web->waiting);
	struct demo_waiting *next;
	uint64_t now_ns = demo_now_ns();

	(void)fd;
	(void)what;
	for (; waiting; waiting = next) {
		next = TAILQ_NEXT(waiting, link);
		if (look_again(web, waiting, now_ns)) {
			TAILQ_REMOVE(&web->waiting, waiting, link);
			free(waiting);
		}
	}
	if (!TAILQ_EMPTY(&web->waiting))
		evtimer_add(web->poll, &poll_every);
}

static const char *client_of(struct evhttp_request *request)
{
	const char *named =
		evhttp_find_header(evhttp_request_get_input_headers(request), DEMO_HEADER_CLIENT);
	ev_uint16_t port;
	char *address = NULL;

	if (named && *named)
		return named;
	evhttp_connection_get_peer(evhttp_request_get_connection(request), &address, &port);
	return address ? address : "unknown";
}

static void on_request(struct evhttp_request *request, void *context)
{
	struct demo_web *web = context;
	const char *url = evhttp_request_get_uri(request);
	const char *client = client_of(request);
	struct coshm_limiter_result result;
	int rc;

	rc = coshm_limiter_try(web->app->clients, client, strlen(client), 1, &result);
	if (rc < 0) {
		fprintf(stderr, "prefork-web: limiter: %s\n", coshm_strerror(rc));
		demo_web_answer_error(web, request, HTTP_INTERNAL);
		return;
	}
	demo_web_add_limits(web, request, &result);
	if (rc == 0)
		demo_web_answer_refused(web, request, &result);
	else if (strlen(url) >= DEMO_URL_SIZE_BYTES_MAX)
		demo_web_answer_error(web, request, 414);
	else
		answer_from_cache(web, request, url);
}

static void on_terminate(evutil_socket_t signal_number, short what, void *context)
{
	struct demo_web *web = context;

	(void)signal_number;
	(void)what;
	if (web->is_draining)
		return;
	web->is_draining = true;
	event_base_loopexit(web->base, &drain_for);
}

static int start(struct demo_web *web, uint16_t port)
{
	struct event *terminate;
	int fd = demo_socket_listen(port);

	if (fd < 0)
		return fd;
	web->base = event_base_new();
	web->http = web->base ? evhttp_new(web->base) : NULL;
	web->poll = web->base ? evtimer_new(web->base, on_poll, web) : NULL;
	terminate = web->base ? evsignal_new(web->base, SIGTERM, on_terminate, web) : NULL;
	if (!web->http || !web->poll || !terminate || event_add(terminate, NULL) != 0 ||
	    evhttp_accept_socket(web->http, fd) != 0) {
		close(fd);
		return -ENOMEM;
	}
	evhttp_set_allowed_methods(web->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
	evhttp_set_gencb(web->http, on_request, web);
	return 0;
}

int demo_web_main(struct demo_app *app, const struct demo_ledger *ledger, uint32_t worker_index,
		  uint16_t port, int ready_fd)
{
	static struct demo_web web;
	int rc;

	web.app = app;
	web.ledger = ledger;
	web.worker_index = worker_index;
	TAILQ_INIT(&web.waiting);
	rc = start(&web, port);
	if (rc < 0) {
		fprintf(stderr, "prefork-web: listening on port %u: %s\n", port, strerror(-rc));
		return 1;
	}
	if (write(ready_fd, "", 1) != 1)
		return 1;
	close(ready_fd);
	event_base_dispatch(web.base);
	demo_app_leave(app);
	return 0;
}
