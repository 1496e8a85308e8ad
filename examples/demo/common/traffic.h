/* SPDX-License-Identifier: MIT */
/*
 * The traffic: an ordered list of requests over distinct URLs and distinct clients
 *
 * Both programs build it, from the same log or from the same generator: the client to send it, the
 * server to know how large the page of each URL is.
 */
#ifndef DEMO_TRAFFIC_H
#define DEMO_TRAFFIC_H

#include <stddef.h>
#include <stdint.h>

struct demo_url {
	char *path;
	uint32_t size_bytes;
};

struct demo_request {
	uint32_t url_index;
	uint32_t client_index;
};

struct demo_traffic {
	struct demo_url *urls;
	size_t url_count;
	char **clients;
	size_t client_count;
	struct demo_request *requests;
	size_t request_count;
	size_t skipped_line_count;
	uint64_t distinct_bytes;

	/* path -> index + 1, open addressing; private */
	uint32_t *url_slots;
	uint32_t *client_slots;
	size_t slot_count;
};

/* 0, or -errno of reading the file, -ENODATA for a file without one usable line, -ENOMEM */
int demo_traffic_load(struct demo_traffic *traffic, const char *log_path);

/* Zipf over URLs and over clients, log-normal sizes; the same on every call */
int demo_traffic_generate(struct demo_traffic *traffic);

/* log_path, or the generator if it is NULL */
int demo_traffic_open(struct demo_traffic *traffic, const char *log_path);

void demo_traffic_close(struct demo_traffic *traffic);

/* NULL for an URL that the traffic does not have */
const struct demo_url *demo_traffic_find_url(const struct demo_traffic *traffic, const char *path);

/* for the generator and for tests */
int demo_traffic_add(struct demo_traffic *traffic, const char *client, const char *path,
		     uint64_t size_bytes);

#endif
