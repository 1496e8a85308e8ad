/* SPDX-License-Identifier: MIT */
/* Reads one HTTP/1.1 response out of a connection's input buffer, as far as it has arrived. */
#ifndef DEMO_CLIENT_RESPONSE_H
#define DEMO_CLIENT_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

struct evbuffer;

struct demo_response {
	int status; /* 0 until the status line is complete */
	bool has_head;
	bool has_length;
	bool has_etag; /* a strong one of our form: sixteen hex digits */
	bool is_hit;
	bool is_close;
	int worker_index; /* -1: not said */
	int64_t age_ms;	  /* -1: not said */
	uint64_t version; /* from the ETag */
	uint64_t size_bytes;
	uint64_t retry_after_s;
	bool has_retry_after;
	bool has_ratelimit; /* RateLimit, RateLimit-Policy and the X-RateLimit- triplet, all five */
	uint32_t ratelimit_fields;
};

void demo_response_begin(struct demo_response *response);

/*
 * Consumes the head from the buffer. 1 when it is complete (the body starts at the front of the
 * buffer), 0 when more bytes must come, -EBADMSG for what is no HTTP/1.1 response of known length.
 */
int demo_response_read_head(struct demo_response *response, struct evbuffer *input);

#endif
