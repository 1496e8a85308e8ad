/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <cmocka.h>

#include "examples/demo/common/accesslog.h"
#include "examples/demo/common/names.h"
#include "examples/demo/common/traffic.h"

#define COMBINED                                                                           \
	"10.0.0.1 - - [17/May/2015:10:05:03 +0000] \"GET /a?b=%20c HTTP/1.1\" 200 203023 " \
	"\"http://example.org/\" \"Mozilla/5.0\"\n"

static void combined_line_gives_client_path_and_size(void **state)
{
	struct demo_log_line line;

	(void)state;
	assert_true(demo_log_parse(COMBINED, &line));
	assert_int_equal(line.client_size_bytes, 8);
	assert_memory_equal(line.client, "10.0.0.1", 8);
	assert_int_equal(line.path_size_bytes, 9);
	assert_memory_equal(line.path, "/a?b=%20c", 9);
	assert_int_equal(line.size_bytes, 203023);
}

static void dash_is_no_bytes_and_common_format_will_do(void **state)
{
	struct demo_log_line line;

	(void)state;
	assert_true(demo_log_parse("::1 - bob [x] \"GET / HTTP/1.0\" 304 -", &line));
	assert_int_equal(line.size_bytes, 0);
	assert_int_equal(line.path_size_bytes, 1);
	assert_true(demo_log_parse("h - - [x] \"GET /old\" 200 5", &line));
	assert_int_equal(line.path_size_bytes, 4);
}

static void lines_that_cannot_be_sent_again_are_refused(void **state)
{
	static const char *const lines[] = {
		"",
		"\n",
		"10.0.0.1",
		"10.0.0.1 - - [x]",
		"10.0.0.1 - - [x] \"GET / HTTP/1.1",
		"10.0.0.1 - - [x] \"-\" 408 -",
		"10.0.0.1 - - [x] \"\\x16\\x03\\x01\" 400 226",
		"10.0.0.1 - - [x] \"GET http://other/ HTTP/1.1\" 200 1",
		"10.0.0.1 - - [x] \"GET /a\\\"b HTTP/1.1\" 200 1",
		"10.0.0.1 - - [x] \"GET /\xc3\xa9 HTTP/1.1\" 200 1",
		"10.0.0.1 - - [x] \"OPTIONS * HTTP/1.0\" 200 1",
		"10.0.0.1 - - [x] \"GET / HTTP/1.1\" 200",
		"10.0.0.1 - - [x] \"GET / HTTP/1.1\" 200 x",
		" - - [x] \"GET / HTTP/1.1\" 200 1",
	};
	struct demo_log_line line;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (demo_log_parse(lines[i], &line))
			fail_msg("accepted: %s", lines[i]);
}

static void overlong_paths_are_refused(void **state)
{
	char text[2 * DEMO_URL_SIZE_BYTES_MAX];
	struct demo_log_line line;
	int at = snprintf(text, sizeof(text), "h - - [x] \"GET /");

	(void)state;
	memset(text + at, 'a', DEMO_URL_SIZE_BYTES_MAX);
	snprintf(text + at + DEMO_URL_SIZE_BYTES_MAX, 32, " HTTP/1.1\" 200 1");
	assert_false(demo_log_parse(text, &line));
}

static void a_page_has_the_largest_size_seen_clipped(void **state)
{
	struct demo_traffic traffic = {0};

	(void)state;
	assert_int_equal(demo_traffic_add(&traffic, "c", "/a", 0), 0);
	assert_int_equal(demo_traffic_add(&traffic, "d", "/a", 100), 0);
	assert_int_equal(demo_traffic_add(&traffic, "c", "/a", 50), 0);
	assert_int_equal(demo_traffic_add(&traffic, "c", "/b", UINT64_MAX), 0);
	assert_int_equal(traffic.url_count, 2);
	assert_int_equal(traffic.client_count, 2);
	assert_int_equal(traffic.request_count, 4);
	assert_int_equal(demo_traffic_find_url(&traffic, "/a")->size_bytes, 100);
	assert_int_equal(demo_traffic_find_url(&traffic, "/b")->size_bytes,
			 DEMO_PAGE_SIZE_BYTES_MAX);
	assert_int_equal(traffic.distinct_bytes, 100 + DEMO_PAGE_SIZE_BYTES_MAX);
	assert_null(demo_traffic_find_url(&traffic, "/c"));
	demo_traffic_close(&traffic);
}

static void a_log_is_read_and_broken_lines_are_counted(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct demo_traffic traffic;
	char path[512];
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%.400s/coshm-traffic-XXXXXX", tmp ? tmp : "/tmp");
	file = fdopen(mkstemp(path), "w");
	assert_non_null(file);
	fputs(COMBINED "broken\n" COMBINED "10.0.0.2 - - [x] \"GET /z HTTP/1.1\" 200 7", file);
	fclose(file);
	assert_int_equal(demo_traffic_load(&traffic, path), 0);
	assert_int_equal(traffic.request_count, 3);
	assert_int_equal(traffic.url_count, 2);
	assert_int_equal(traffic.skipped_line_count, 1);
	assert_int_equal(traffic.requests[2].client_index, 1);
	demo_traffic_close(&traffic);
	unlink(path);
}

static void a_log_that_is_missing_or_useless_is_an_error(void **state)
{
	struct demo_traffic traffic;

	(void)state;
	assert_int_equal(demo_traffic_load(&traffic, "/nonexistent/log"), -ENOENT);
	assert_int_equal(demo_traffic_load(&traffic, "/dev/null"), -ENODATA);
}

static void generated_traffic_is_skewed_and_the_same_each_time(void **state)
{
	struct demo_traffic a, b;
	size_t first = 0;

	(void)state;
	assert_int_equal(demo_traffic_generate(&a), 0);
	assert_int_equal(demo_traffic_generate(&b), 0);
	assert_int_equal(a.request_count, b.request_count);
	assert_memory_equal(a.requests, b.requests, a.request_count * sizeof(a.requests[0]));
	assert_int_equal(a.distinct_bytes, b.distinct_bytes);
	assert_true(a.url_count > 1000);
	for (size_t i = 0; i < a.request_count; i++)
		first += strcmp(a.urls[a.requests[i].url_index].path, "/page/0000") == 0;
	assert_true(first > 20 * a.request_count / a.url_count);
	demo_traffic_close(&a);
	demo_traffic_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(combined_line_gives_client_path_and_size),
		cmocka_unit_test(dash_is_no_bytes_and_common_format_will_do),
		cmocka_unit_test(lines_that_cannot_be_sent_again_are_refused),
		cmocka_unit_test(overlong_paths_are_refused),
		cmocka_unit_test(a_page_has_the_largest_size_seen_clipped),
		cmocka_unit_test(a_log_is_read_and_broken_lines_are_counted),
		cmocka_unit_test(a_log_that_is_missing_or_useless_is_an_error),
		cmocka_unit_test(generated_traffic_is_skewed_and_the_same_each_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
