/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <event2/buffer.h>

#include "examples/demo/client/response.h"

static const char page[] = "HTTP/1.1 200 OK\r\n"
			   "RateLimit-Policy: \"default\";q=40;w=2\r\n"
			   "RateLimit: \"default\";r=39;t=1\r\n"
			   "X-RateLimit-Limit: 40\r\n"
			   "X-RateLimit-Remaining: 39\r\n"
			   "x-ratelimit-reset: 1\r\n"
			   "ETag: \"00000000000000ff\"\r\n"
			   "X-Cache: HIT\r\n"
			   "X-Age-Ms: 17\r\n"
			   "X-Worker: 3\r\n"
			   "Content-Length: 5\r\n"
			   "\r\n"
			   "hello";

static int read_text(const char *text, struct demo_response *response)
{
	struct evbuffer *input = evbuffer_new();
	int rc;

	assert_non_null(input);
	evbuffer_add(input, text, strlen(text));
	demo_response_begin(response);
	rc = demo_response_read_head(response, input);
	evbuffer_free(input);
	return rc;
}

static void a_whole_head_is_read_and_the_body_stays(void **state)
{
	struct evbuffer *input = evbuffer_new();
	struct demo_response response;

	(void)state;
	evbuffer_add(input, page, sizeof(page) - 1);
	demo_response_begin(&response);
	assert_int_equal(demo_response_read_head(&response, input), 1);
	assert_int_equal(evbuffer_get_length(input), 5);
	assert_int_equal(response.status, 200);
	assert_int_equal(response.size_bytes, 5);
	assert_true(response.has_etag);
	assert_int_equal(response.version, 0xff);
	assert_true(response.is_hit);
	assert_int_equal(response.age_ms, 17);
	assert_int_equal(response.worker_index, 3);
	assert_true(response.has_ratelimit);
	assert_false(response.is_close);
	evbuffer_free(input);
}

static void a_head_may_arrive_byte_by_byte(void **state)
{
	struct evbuffer *input = evbuffer_new();
	struct demo_response response;
	int rc = 0;

	(void)state;
	demo_response_begin(&response);
	for (size_t i = 0; i < sizeof(page) - 1 - 5; i++) {
		assert_int_equal(rc, 0);
		evbuffer_add(input, &page[i], 1);
		rc = demo_response_read_head(&response, input);
	}
	assert_int_equal(rc, 1);
	assert_int_equal(response.version, 0xff);
	assert_true(response.has_ratelimit);
	evbuffer_free(input);
}

static void not_modified_has_no_body_and_needs_no_length(void **state)
{
	struct demo_response response;

	(void)state;
	assert_int_equal(
		read_text("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", &response), 1);
	assert_int_equal(response.size_bytes, 0);
	assert_int_equal(read_text("HTTP/1.1 304 Not Modified\r\n\r\n", &response), 1);
}

static void a_missing_ratelimit_header_is_noticed(void **state)
{
	struct demo_response response;

	(void)state;
	assert_int_equal(read_text("HTTP/1.1 429 No\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
				   "RateLimit: x\r\nRateLimit-Policy: x\r\n"
				   "X-RateLimit-Limit: 1\r\nX-RateLimit-Remaining: 1\r\n\r\n",
				   &response),
			 1);
	assert_true(response.has_retry_after);
	assert_false(response.has_ratelimit);
}

static void what_is_no_response_is_refused(void **state)
{
	static const char *const texts[] = {
		"\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
	};
	struct demo_response response;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (read_text(texts[i], &response) != -EBADMSG)
			fail_msg("accepted: %s", texts[i]);
}

static void an_etag_of_another_form_is_none(void **state)
{
	struct demo_response response;

	(void)state;
	assert_int_equal(read_text("HTTP/1.1 200 OK\r\nETag: W/\"00000000000000ff\"\r\n"
				   "Content-Length: 0\r\n\r\n",
				   &response),
			 1);
	assert_false(response.has_etag);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_head_is_read_and_the_body_stays),
		cmocka_unit_test(a_head_may_arrive_byte_by_byte),
		cmocka_unit_test(not_modified_has_no_body_and_needs_no_length),
		cmocka_unit_test(a_missing_ratelimit_header_is_noticed),
		cmocka_unit_test(what_is_no_response_is_refused),
		cmocka_unit_test(an_etag_of_another_form_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
