/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "../common/clock.h"
#include "web_internal.h"

__attribute__((format(printf, 3, 4))) static void
add_header(struct evhttp_request *request, const char *name, const char *format, ...)
{
	char value[128];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(value, sizeof(value), format, arguments);
	va_end(arguments);
	evhttp_add_header(evhttp_request_get_output_headers(request), name, value);
}

static void send_answer(struct demo_web *web, struct evhttp_request *request, int status,
			const char *reason, struct evbuffer *body)
{
	add_header(request, DEMO_HEADER_WORKER, "%" PRIu32, web->worker_index);
	if (web->is_draining)
		add_header(request, "Connection", "close");
	/* evhttp gives a 304 no body; the others need their length on a kept connection */
	evhttp_send_reply(request, status, reason, body);
}

/* whole seconds, rounded up: a client that waits this long is not too early */
static uint64_t seconds_up(uint64_t for_ns)
{
	return (for_ns + DEMO_NS_PER_S - 1) / DEMO_NS_PER_S;
}

void demo_web_add_limits(struct demo_web *web, struct evhttp_request *request,
			 const struct coshm_limiter_result *result)
{
	uint64_t reset_s = seconds_up(result->reset_after_ns);
	uint64_t window_s =
		seconds_up(result->limit * DEMO_NS_PER_S / web->app->options->rate_per_s);

	add_header(request, "RateLimit-Policy", "\"default\";q=%" PRIu64 ";w=%" PRIu64,
		   result->limit, window_s);
	add_header(request, "RateLimit", "\"default\";r=%" PRIu64 ";t=%" PRIu64, result->remaining,
		   reset_s);
	add_header(request, "X-RateLimit-Limit", "%" PRIu64, result->limit);
	add_header(request, "X-RateLimit-Remaining", "%" PRIu64, result->remaining);
	add_header(request, "X-RateLimit-Reset", "%" PRIu64, reset_s);
}

void demo_web_answer_refused(struct demo_web *web, struct evhttp_request *request,
			     const struct coshm_limiter_result *result)
{
	uint64_t retry_s = seconds_up(result->retry_after_ns);

	add_header(request, "Retry-After", "%" PRIu64, retry_s ? retry_s : 1);
	send_answer(web, request, 429, "Too Many Requests", NULL);
}

void demo_web_answer_later(struct demo_web *web, struct evhttp_request *request, int status)
{
	add_header(request, "Retry-After", "1");
	send_answer(web, request, status, status == 202 ? "Accepted" : "Service Unavailable", NULL);
}

void demo_web_answer_error(struct demo_web *web, struct evhttp_request *request, int status)
{
	send_answer(web, request, status, status == 414 ? "URI Too Long" : "Internal Server Error",
		    NULL);
}

void demo_web_answer_page(struct demo_web *web, struct evhttp_request *request, bool is_hit,
			  uint64_t looked_up_at_ns)
{
	struct evbuffer *body = evhttp_request_get_output_buffer(request);
	const char *asked =
		evhttp_find_header(evhttp_request_get_input_headers(request), "If-None-Match");
	struct demo_page head;
	char etag[24];

	memcpy(&head, web->page, sizeof(head));
	snprintf(etag, sizeof(etag), "\"%016" PRIx64 "\"", head.version);
	add_header(request, "ETag", "%s", etag);
	add_header(request, DEMO_HEADER_CACHE, "%s", is_hit ? "HIT" : "MISS");
	if (is_hit && looked_up_at_ns >= head.rendered_at_ns)
		add_header(request, DEMO_HEADER_AGE_MS, "%" PRIu64,
			   (looked_up_at_ns - head.rendered_at_ns) / DEMO_NS_PER_MS);
	else if (is_hit)
		add_header(request, DEMO_HEADER_AGE_MS, "0");
	if (asked && strcmp(asked, etag) == 0) {
		send_answer(web, request, HTTP_NOTMODIFIED, "Not Modified", NULL);
		return;
	}
	evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
			  "application/octet-stream");
	if (evbuffer_add(body, web->page + sizeof(head), web->body_size_bytes) != 0) {
		demo_web_answer_error(web, request, HTTP_INTERNAL);
		return;
	}
	send_answer(web, request, HTTP_OK, "OK", NULL);
}
