/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "examples/demo/client/outcome.h"
#include "examples/demo/common/names.h"

static const struct demo_asked asked = {.path = "/a", .size_bytes = 100};
static const struct demo_asked asked_again = {
	.path = "/a",
	.size_bytes = 100,
	.is_conditional = true,
	.if_none_match = 7,
};

static struct demo_response response(int status)
{
	return (struct demo_response){
		.status = status,
		.has_length = true,
		.has_etag = true,
		.version = 7,
		.is_hit = true,
		.age_ms = 10,
		.size_bytes = 100,
		.worker_index = 1,
		.has_retry_after = true,
		.retry_after_s = 1,
		.has_ratelimit = true,
	};
}

static struct demo_outcome after(const struct demo_asked *what, struct demo_response one,
				 bool body_matches)
{
	struct demo_outcome outcome = {0};

	demo_outcome_note(&outcome, what, &one, body_matches, 5);
	return outcome;
}

static void good_responses_raise_no_complaint(void **state)
{
	static const int statuses[] = {200, 202, 429, 503};
	struct demo_outcome outcome;

	(void)state;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		outcome = after(&asked, response(statuses[i]), true);
		assert_int_equal(outcome.bad_bodies + outcome.malformed, 0);
		assert_int_equal(outcome.status[statuses[i]], 1);
		assert_int_equal(outcome.per_worker[1], 1);
		assert_int_equal(outcome.pages, statuses[i] != 429);
	}
	outcome = after(&asked_again, response(304), true);
	assert_int_equal(outcome.bad_bodies + outcome.malformed, 0);
	assert_int_equal(outcome.hits, 1);
}

#define BAD_BODY(what, status, change, matches)                          \
	do {                                                             \
		struct demo_response one = response(status);             \
		change;                                                  \
		struct demo_outcome outcome = after(what, one, matches); \
		assert_int_equal(outcome.bad_bodies, 1);                 \
		assert_true(outcome.first_complaint[0] != '\0');         \
	} while (0)

static void wrong_bodies_are_counted(void **state)
{
	(void)state;
	BAD_BODY(&asked, 200, (void)0, false);
	BAD_BODY(&asked, 200, one.size_bytes = 99, true);
	BAD_BODY(&asked, 200, one.size_bytes = 101, true);
	BAD_BODY(&asked, 200, one.age_ms = DEMO_PAGE_TTL_MS + 1001, true);
	BAD_BODY(&asked, 200, one.age_ms = -1, true);
	BAD_BODY(&asked_again, 304, one.version = 8, true);
	BAD_BODY(&asked_again, 304, one.has_etag = false, true);
	BAD_BODY(&asked_again, 304, one.age_ms = DEMO_PAGE_TTL_MS + 1001, true);
}

#define MALFORMED(what, status, change)                                \
	do {                                                           \
		struct demo_response one = response(status);           \
		change;                                                \
		assert_int_equal(after(what, one, true).malformed, 1); \
	} while (0)

static void broken_contracts_are_counted(void **state)
{
	(void)state;
	MALFORMED(&asked, 200, one.has_etag = false);
	MALFORMED(&asked, 304, (void)0);
	MALFORMED(&asked, 429, one.has_retry_after = false);
	MALFORMED(&asked, 429, one.retry_after_s = 0);
	MALFORMED(&asked, 429, one.has_ratelimit = false);
	MALFORMED(&asked, 202, one.has_retry_after = false);
	MALFORMED(&asked, 503, one.has_retry_after = false);
	MALFORMED(&asked, 500, (void)0);
	MALFORMED(&asked, 404, (void)0);
}

static void hit_ratio_is_over_those_who_needed_a_page(void **state)
{
	struct demo_outcome outcome = {0};
	struct demo_response one = response(200);

	(void)state;
	assert_float_equal(demo_outcome_hit_ratio(&outcome), 0, 0);
	demo_outcome_note(&outcome, &asked, &one, true, 1);
	one.is_hit = false;
	demo_outcome_note(&outcome, &asked, &one, true, 9);
	one.status = 429;
	demo_outcome_note(&outcome, &asked, &one, true, 2);
	assert_float_equal(demo_outcome_hit_ratio(&outcome), 0.5, 1e-9);
	assert_int_equal(outcome.longest_block_ns, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_responses_raise_no_complaint),
		cmocka_unit_test(wrong_bodies_are_counted),
		cmocka_unit_test(broken_contracts_are_counted),
		cmocka_unit_test(hit_ratio_is_over_those_who_needed_a_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
