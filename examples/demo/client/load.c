/* SPDX-License-Identifier: MIT */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "../common/body.h"
#include "../common/clock.h"
#include "../common/names.h"
#include "../common/random.h"

static const struct timeval reconnect_after = {.tv_usec = 2000};
static const struct timeval tick_every = {.tv_usec = 50000};

struct demo_connection {
	struct demo_load *load;
	struct bufferevent *stream;
	struct event *again; /* connect once more, a moment after a failure */
	uint32_t request_count;
	bool is_busy; /* a request is under way */
	uint32_t url_index;
	uint32_t client_index;
	uint64_t sent_ns;
	struct demo_asked asked;
	struct demo_response response;
	struct demo_body body;
	uint64_t body_size_bytes; /* received so far */
	bool body_matches;
};

static void start(struct demo_connection *connection);

static bool is_over(const struct demo_load *load)
{
	return load->error || demo_now_ns() >= load->stop_at_ns;
}

static void end_if_idle(struct demo_load *load)
{
	if (is_over(load) && load->busy_count == 0)
		event_base_loopbreak(load->base);
}

static void become_idle(struct demo_connection *connection)
{
	connection->is_busy = false;
	connection->load->busy_count--;
}

static void disconnect(struct demo_connection *connection)
{
	if (connection->stream)
		bufferevent_free(connection->stream);
	connection->stream = NULL;
	connection->request_count = 0;
	if (connection->is_busy)
		become_idle(connection);
}

static void prepare(struct demo_connection *connection)
{
	struct demo_load *load = connection->load;
	const struct demo_traffic *traffic = load->traffic;
	const struct demo_request *request =
		&traffic->requests[load->next_request++ % traffic->request_count];
	const struct demo_url *url = &traffic->urls[request->url_index];
	uint64_t version = load->versions[request->url_index];

	connection->url_index = request->url_index;
	connection->client_index = request->client_index;
	connection->asked = (struct demo_asked){
		.path = url->path,
		.size_bytes = url->size_bytes,
		.is_conditional = version != 0 && demo_random_below(&load->random, 100) <
							  load->options.conditional_percent,
		.if_none_match = version,
	};
	connection->body_size_bytes = 0;
	connection->body_matches = true;
	demo_response_begin(&connection->response);
}

static void send_request(struct demo_connection *connection)
{
	struct demo_load *load = connection->load;
	struct evbuffer *output = bufferevent_get_output(connection->stream);

	prepare(connection);
	evbuffer_add_printf(output, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s: %s\r\n",
			    connection->asked.path, load->options.port, DEMO_HEADER_CLIENT,
			    load->traffic->clients[connection->client_index]);
	if (connection->asked.is_conditional)
		evbuffer_add_printf(output, "If-None-Match: \"%016" PRIx64 "\"\r\n",
				    connection->asked.if_none_match);
	connection->request_count++;
	connection->is_busy = true;
	load->busy_count++;
	connection->sent_ns = demo_now_ns();
	/* the last bytes of the request go after the clock was read: no worker acts before it */
	evbuffer_add(output, "\r\n", 2);
}

/* whatever the answer was, the next request goes out on this connection or a fresh one */
static void go_on(struct demo_connection *connection, bool keep)
{
	struct demo_load *load = connection->load;

	if (is_over(load)) {
		disconnect(connection);
		end_if_idle(load);
	} else if (keep && connection->request_count < load->options.requests_per_connection) {
		send_request(connection);
	} else {
		disconnect(connection);
		start(connection);
	}
}

static void finish(struct demo_connection *connection)
{
	struct demo_load *load = connection->load;
	const struct demo_response *response = &connection->response;
	uint64_t now_ns = demo_now_ns();

	become_idle(connection);
	demo_outcome_note(&load->outcome, &connection->asked, response, connection->body_matches,
			  now_ns - connection->sent_ns);
	load->outcome.early_misses += demo_presence_note(&load->presences[connection->url_index],
							 response, connection->sent_ns, now_ns);
	if (response->status == 200 && response->has_etag)
		load->versions[connection->url_index] = response->version;
	if (response->status != 429) {
		int rc = demo_admission_note(&load->admission, connection->client_index,
					     connection->sent_ns, now_ns);

		if (rc < 0)
			load->error = rc;
	}
	go_on(connection, !response->is_close);
}

/* whether the body is complete */
static bool read_body(struct demo_connection *connection, struct evbuffer *input)
{
	const struct demo_response *response = &connection->response;
	unsigned char bytes[16384];
	bool is_page = response->status == 200 && response->has_etag;

	while (connection->body_size_bytes < response->size_bytes) {
		uint64_t left = response->size_bytes - connection->body_size_bytes;
		int n = evbuffer_remove(input, bytes, left < sizeof(bytes) ? left : sizeof(bytes));

		if (n <= 0)
			return false;
		if (is_page && !demo_body_matches(&connection->body, bytes, (size_t)n))
			connection->body_matches = false;
		connection->body_size_bytes += (uint64_t)n;
	}
	return true;
}

static void on_protocol_error(struct demo_connection *connection)
{
	struct demo_outcome *outcome = &connection->load->outcome;

	outcome->malformed++;
	demo_outcome_complain(outcome, &connection->asked, "not an HTTP/1.1 response");
	disconnect(connection);
	go_on(connection, false);
}

static void on_read(struct bufferevent *stream, void *context)
{
	struct demo_connection *connection = context;
	struct demo_response *response = &connection->response;
	struct evbuffer *input = bufferevent_get_input(stream);

	if (!connection->is_busy) {
		on_protocol_error(connection); /* bytes that nobody asked for */
		return;
	}
	if (!response->has_head) {
		int rc = demo_response_read_head(response, input);

		if (rc < 0)
			on_protocol_error(connection);
		if (rc <= 0)
			return;
		demo_body_begin(&connection->body, connection->asked.path, response->version);
	}
	if (read_body(connection, input))
		finish(connection);
}

static void on_event(struct bufferevent *stream, short what, void *context)
{
	struct demo_connection *connection = context;
	struct demo_load *load = connection->load;

	(void)stream;
	if (what & BEV_EVENT_CONNECTED) {
		go_on(connection, true);
		return;
	}
	load->outcome.resets++;
	disconnect(connection);
	if (is_over(load))
		end_if_idle(load);
	else
		event_add(connection->again, &reconnect_after);
}

static void start(struct demo_connection *connection)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(connection->load->options.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	connection->stream =
		bufferevent_socket_new(connection->load->base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (!connection->stream) {
		connection->load->error = -ENOMEM;
		return;
	}
	bufferevent_setcb(connection->stream, on_read, NULL, on_event, connection);
	bufferevent_enable(connection->stream, EV_READ | EV_WRITE);
	if (bufferevent_socket_connect(connection->stream, (struct sockaddr *)&address,
				       sizeof(address)) == 0) {
		int one = 1;

		setsockopt(bufferevent_getfd(connection->stream), IPPROTO_TCP, TCP_NODELAY, &one,
			   sizeof(one));
	}
}

static void on_again(evutil_socket_t fd, short what, void *context)
{
	struct demo_connection *connection = context;

	(void)fd;
	(void)what;
	if (!connection->stream)
		go_on(connection, false);
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
	struct demo_load *load = context;
	uint64_t now_ns = demo_now_ns();

	(void)fd;
	(void)what;
	for (uint32_t i = 0; i < load->options.connections; i++) {
		struct demo_connection *connection = &load->connections[i];

		if (!connection->is_busy || now_ns - connection->sent_ns < load->options.timeout_ns)
			continue;
		load->outcome.timeouts++;
		load->outcome.longest_block_ns = now_ns - connection->sent_ns;
		demo_outcome_complain(&load->outcome, &connection->asked, "no answer");
		disconnect(connection);
		go_on(connection, false);
	}
	end_if_idle(load);
}

static int open_connections(struct demo_load *load)
{
	load->connections = calloc(load->options.connections, sizeof(*load->connections));
	if (!load->connections)
		return -ENOMEM;
	for (uint32_t i = 0; i < load->options.connections; i++) {
		struct demo_connection *connection = &load->connections[i];

		connection->load = load;
		connection->again = evtimer_new(load->base, on_again, connection);
		if (!connection->again)
			return -ENOMEM;
	}
	return 0;
}

int demo_load_open(struct demo_load *load, const struct demo_traffic *traffic,
		   const struct demo_load_options *options, uint32_t rate_per_s, uint32_t burst)
{
	int rc;

	*load = (struct demo_load){
		.options = *options,
		.traffic = traffic,
		.base = event_base_new(),
		.versions = calloc(traffic->url_count, sizeof(*load->versions)),
		.presences = calloc(traffic->url_count, sizeof(*load->presences)),
		.random = 1,
	};
	rc = load->base && load->versions && load->presences ? 0 : -ENOMEM;
	if (rc == 0)
		rc = demo_admission_open(&load->admission, traffic->client_count, rate_per_s,
					 burst);
	if (rc == 0)
		rc = open_connections(load);
	if (rc == 0) {
		load->tick = event_new(load->base, -1, EV_PERSIST, on_tick, load);
		rc = load->tick && event_add(load->tick, &tick_every) == 0 ? 0 : -ENOMEM;
	}
	if (rc < 0)
		demo_load_close(load);
	return rc;
}

void demo_load_close(struct demo_load *load)
{
	for (uint32_t i = 0; load->connections && i < load->options.connections; i++) {
		disconnect(&load->connections[i]);
		if (load->connections[i].again)
			event_free(load->connections[i].again);
	}
	if (load->tick)
		event_free(load->tick);
	if (load->base)
		event_base_free(load->base);
	demo_admission_close(&load->admission);
	free(load->connections);
	free(load->versions);
	free(load->presences);
	*load = (struct demo_load){0};
}

struct event_base *demo_load_base(struct demo_load *load)
{
	return load->base;
}

int demo_load_run(struct demo_load *load)
{
	load->stop_at_ns = demo_now_ns() + load->options.for_ns;
	for (uint32_t i = 0; i < load->options.connections; i++)
		start(&load->connections[i]);
	if (event_base_dispatch(load->base) < 0)
		return -EIO;
	return load->error;
}
