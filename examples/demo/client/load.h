/* SPDX-License-Identifier: MIT */
/*
 * The load: keep-alive HTTP/1.1 connections that work through the traffic, over and over
 *
 * Each connection has one request under way at a time and takes the next line of the log when it
 * has the answer. After a number of requests it starts a new connection, as browsers and proxies
 * do; otherwise the kernel's first choice of a worker would last for the whole run.
 */
#ifndef DEMO_CLIENT_LOAD_H
#define DEMO_CLIENT_LOAD_H

#include <stdint.h>

#include "../common/traffic.h"
#include "admission.h"
#include "outcome.h"
#include "presence.h"

struct event_base;

struct demo_load_options {
	uint16_t port; /* on 127.0.0.1 */
	uint32_t connections;
	uint32_t requests_per_connection;
	uint32_t conditional_percent; /* share of requests for a page seen before that say so */
	uint64_t for_ns;
	uint64_t timeout_ns; /* a request without an answer is given up then */
};

struct demo_load {
	struct demo_load_options options;
	const struct demo_traffic *traffic;
	struct demo_outcome outcome;
	struct demo_admission admission;

	/* private */
	struct event_base *base;
	struct event *tick;
	struct demo_connection *connections;
	uint64_t *versions;		 /* by URL: the last one seen; 0 is none */
	struct demo_presence *presences; /* by URL */
	uint64_t random;
	uint64_t next_request;
	uint64_t stop_at_ns;
	uint32_t busy_count;
	int error;
};

/* admission bounds are what the server was told to enforce */
int demo_load_open(struct demo_load *load, const struct demo_traffic *traffic,
		   const struct demo_load_options *options, uint32_t rate_per_s, uint32_t burst);
void demo_load_close(struct demo_load *load);

/* for timers of the caller's own */
struct event_base *demo_load_base(struct demo_load *load);

/* runs until the time is over and the last answers are in; 0 or -errno */
int demo_load_run(struct demo_load *load);

#endif
