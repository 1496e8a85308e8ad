/* SPDX-License-Identifier: MIT */
/*
 * liar - a server that keeps the contract of prefork-web, or breaks it in the way that is asked for
 *
 *   liar RUN_DIR LIE
 *
 * One process, no shared memory. The honest one must pass replay; each lie must turn it red, by the
 * rule that is meant for it. That is how we know that replay can see, before we believe its green.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "examples/demo/common/body.h"
#include "examples/demo/common/clock.h"
#include "examples/demo/common/ledger.h"
#include "examples/demo/common/names.h"
#include "examples/demo/common/serverfile.h"
#include "examples/demo/common/traffic.h"

enum {
	RATE = 50,
	BURST = 20,
	LIE_EVERY = 40, /* rare: a check that only notices constant lying would be no use */
	WORKER = 1,
	OTHER_WORKER = 2,
};

static const char *lie;
static struct demo_traffic traffic;
static struct demo_ledger master, worker, other;
static struct event_base *base;
static uint64_t *versions; /* by URL */
static uint64_t *tats;	   /* by client: when its bucket is full again */
static uint64_t request_count;
static uint64_t task_count;

static bool lies(const char *name)
{
	return strcmp(lie, name) == 0;
}

/* this time too? */
static bool lies_now(const char *name)
{
	return lies(name) && request_count % LIE_EVERY == 0;
}

/* So slow that a client comes by more often than that, however slow the machine is: else there is no burst to see. */
static uint32_t rate_per_s(void)
{
	return lies("burst") ? 1 : RATE;
}

static void append(const struct demo_ledger *ledger, enum demo_event_kind kind, uint64_t subject,
		   uint64_t value0, uint64_t value1, uint64_t value2)
{
	uint64_t value[3] = {value0, value1, value2};

	if (demo_ledger_append(ledger, kind, subject, value) != 0)
		exit(3);
}

static bool admit(size_t client)
{
	uint64_t per_ns = DEMO_NS_PER_S / rate_per_s();
	uint64_t now_ns = demo_now_ns();
	uint64_t tat = tats[client] > now_ns ? tats[client] : now_ns;
	uint64_t burst = BURST * (lies("burst") ? 2 : 1);

	if (tat + per_ns - now_ns > burst * per_ns)
		return false;
	tats[client] = tat + per_ns;
	return true;
}

static size_t client_index(const char *name)
{
	for (size_t i = 0; i < traffic.client_count; i++)
		if (name && strcmp(traffic.clients[i], name) == 0)
			return i;
	exit(4); /* a client of another traffic */
}

/* a task's life as it goes through the ledgers of a real server */
static void tell_task(void)
{
	uint64_t task = ++task_count;

	append(&worker, DEMO_EVENT_TASK_ACCEPTED, task, 0, 0, 0);
	if (lies("lose-task") && task == 3)
		return;
	append(&worker, DEMO_EVENT_TASK_BEGUN, task, 0, 0, 0);
	if (lies("run-twice") && task == 3)
		append(&other, DEMO_EVENT_TASK_BEGUN, task, 0, 0, 0);
	append(&worker, DEMO_EVENT_TASK_DONE, task, 0, 0, 0);
}

static void add_body(struct evbuffer *out, const struct demo_url *url, uint64_t version)
{
	static unsigned char bytes[DEMO_PAGE_SIZE_BYTES_MAX];
	size_t size_bytes = url->size_bytes;
	struct demo_body body;

	demo_body_begin(&body, url->path, version);
	demo_body_next(&body, bytes, size_bytes);
	if (lies_now("flip-bit") && size_bytes)
		bytes[size_bytes - 1] ^= 1;
	if (lies_now("mix-versions") && size_bytes > 64) {
		demo_body_begin(&body, url->path, version + 1);
		demo_body_next(&body, bytes, size_bytes / 2);
	}
	if (lies_now("other-url") && size_bytes) {
		demo_body_begin(&body, "/some/other/page", version);
		demo_body_next(&body, bytes, size_bytes);
	}
	if (lies_now("truncate") && size_bytes)
		size_bytes--;
	evbuffer_add(out, bytes, size_bytes);
}

static void add_header(struct evhttp_request *request, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	evhttp_add_header(evhttp_request_get_output_headers(request), name, text);
}

static void refuse(struct evhttp_request *request)
{
	static const char *const names[] = {
		"RateLimit",	     "RateLimit-Policy",
		"X-RateLimit-Limit", "X-RateLimit-Remaining",
		"X-RateLimit-Reset",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (i > 0 || !lies("headers"))
			add_header(request, names[i], 1);
	add_header(request, "Retry-After", 1);
	evhttp_send_reply(request, 429, "Too Many Requests", NULL);
}

static void answer_page(struct evhttp_request *request, const struct demo_url *url)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	const char *asked =
		evhttp_find_header(evhttp_request_get_input_headers(request), "If-None-Match");
	uint64_t *version = &versions[url - traffic.urls];
	bool is_hit = *version != 0 && !lies_now("forget");
	char etag[24];

	if (!is_hit) {
		*version = demo_now_ns();
		tell_task();
	}
	snprintf(etag, sizeof(etag), "\"%016" PRIx64 "\"", *version);
	if (lies_now("wrong-304")) {
		asked = etag;
		etag[1] = 'f';
	}
	evhttp_add_header(headers, "ETag", etag);
	evhttp_add_header(headers, DEMO_HEADER_CACHE, is_hit ? "HIT" : "MISS");
	add_header(request, DEMO_HEADER_AGE_MS, lies_now("expired") ? 60000 : 0);
	if (asked && (strcmp(asked, etag) == 0 || lies_now("wrong-304"))) {
		evhttp_send_reply(request, 304, "Not Modified", NULL);
		return;
	}
	add_body(evhttp_request_get_output_buffer(request), url, *version);
	evhttp_send_reply(request, 200, "OK", NULL);
}

static void on_request(struct evhttp_request *request, void *context)
{
	const char *client =
		evhttp_find_header(evhttp_request_get_input_headers(request), DEMO_HEADER_CLIENT);
	const struct demo_url *url =
		demo_traffic_find_url(&traffic, evhttp_request_get_uri(request));

	(void)context;
	request_count++;
	add_header(request, DEMO_HEADER_WORKER, request_count % 4);
	if (lies("hang") && request_count == 100)
		return;
	if (lies_now("error"))
		evhttp_send_reply(request, 500, "Internal Server Error", NULL);
	else if (!admit(client_index(client)))
		refuse(request);
	else if (!url)
		exit(5);
	else
		answer_page(request, url);
}

static void on_settle(evutil_socket_t number, short what, void *context)
{
	(void)number;
	(void)what;
	(void)context;
	if (lies("crash"))
		append(&master, DEMO_EVENT_CHILD_DIED, WORKER, CLD_KILLED, SIGSEGV, 0);
	if (!lies("silence"))
		append(&master, DEMO_EVENT_SETTLED, 0, 1, lies("damage") ? (uint64_t)-117 : 0,
		       !lies("leftover"));
}

static void on_terminate(evutil_socket_t number, short what, void *context)
{
	(void)number;
	(void)what;
	(void)context;
	event_base_loopbreak(base);
}

static uint16_t serve(void)
{
	struct evhttp *http = evhttp_new(base);
	struct evhttp_bound_socket *bound =
		http ? evhttp_bind_socket_with_handle(http, "127.0.0.1", 0) : NULL;
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);

	if (!bound ||
	    getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&address, &size) != 0)
		exit(3);
	evhttp_set_gencb(http, on_request, NULL);
	event_add(evsignal_new(base, SIGUSR1, on_settle, NULL), NULL);
	event_add(evsignal_new(base, SIGTERM, on_terminate, NULL), NULL);
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int main(int argc, char **argv)
{
	struct demo_server server = {
		.pid = (uint32_t)getpid(),
		.web_workers = 4,
		.burst = BURST,
		.segment = "none",
	};

	if (argc != 3)
		return 2;
	lie = argv[2];
	server.rate_per_s = rate_per_s();
	base = event_base_new();
	if (!base || demo_traffic_generate(&traffic) != 0 ||
	    demo_ledger_open(&master, argv[1], DEMO_WORKER_MASTER) != 0 ||
	    demo_ledger_open(&worker, argv[1], WORKER) != 0 ||
	    demo_ledger_open(&other, argv[1], OTHER_WORKER) != 0)
		return 3;
	versions = calloc(traffic.url_count, sizeof(*versions));
	tats = calloc(traffic.client_count, sizeof(*tats));
	append(&master, DEMO_EVENT_CHILD_STARTED, WORKER, 2, 0, 0);
	append(&master, DEMO_EVENT_CHILD_STARTED, OTHER_WORKER, 2, 0, 0);
	server.port = serve();
	if (!versions || !tats || demo_server_write(&server, argv[1]) != 0)
		return 3;
	event_base_dispatch(base);
	return 0;
}
