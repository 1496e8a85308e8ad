/* SPDX-License-Identifier: MIT */
/* A page is missed early only where a client could know that it was there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "examples/demo/client/presence.h"
#include "examples/demo/common/clock.h"
#include "examples/demo/common/names.h"

#define MS DEMO_NS_PER_MS
#define T0 (1000 * MS)

static bool note(struct demo_presence *presence, int status, int64_t hit_age_ms, uint64_t sent_ns,
		 uint64_t received_ns)
{
	const struct demo_response response = {
		.status = status, .is_hit = hit_age_ms >= 0, .age_ms = hit_age_ms};

	return demo_presence_note(presence, &response, sent_ns, received_ns);
}

#define MISS (-1) /* says no age */

static void miss_of_a_page_that_lives_is_early(void **state)
{
	static const int absent[] = {200, 304, 202, 503};

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct demo_presence presence = {0};

		assert_false(
			note(&presence, absent[i], MISS, T0, T0 + 10 * MS)); /* the first one */
		assert_false(note(&presence, 200, 20, T0 + 20 * MS, T0 + 21 * MS));
		assert_true(note(&presence, absent[i], MISS, T0 + 30 * MS, T0 + 40 * MS));
		assert_false(note(&presence, 304, 5, T0 + 45 * MS, T0 + 46 * MS));
	}
}

static void miss_of_a_page_that_has_expired_is_not(void **state)
{
	struct demo_presence presence = {0};

	(void)state;
	note(&presence, 200, DEMO_PAGE_TTL_MS - 1000, T0, T0 + 1 * MS);
	assert_false(note(&presence, 200, MISS, T0 + 500 * MS, T0 + 1001 * MS));
	note(&presence, 200, DEMO_PAGE_TTL_MS + 1000, T0 + 2000 * MS, T0 + 2001 * MS);
	assert_false(note(&presence, 200, MISS, T0 + 2002 * MS, T0 + 2003 * MS));
}

/* Both were sent before either was answered: one eviction, if any. */
static void two_requests_that_wait_for_one_page_miss_it_once(void **state)
{
	struct demo_presence presence = {0};

	(void)state;
	note(&presence, 200, 0, T0, T0 + 1 * MS);
	assert_true(note(&presence, 202, MISS, T0 + 2 * MS, T0 + 30 * MS));
	assert_false(note(&presence, 200, MISS, T0 + 3 * MS, T0 + 31 * MS));
	assert_false(note(&presence, 200, MISS, T0 + 32 * MS, T0 + 33 * MS));
}

static void responses_without_a_look_at_the_cache_say_nothing(void **state)
{
	struct demo_presence presence = {0};

	(void)state;
	note(&presence, 200, 0, T0, T0 + 1 * MS);
	assert_false(note(&presence, 429, MISS, T0 + 2 * MS, T0 + 3 * MS));
	assert_true(note(&presence, 200, MISS, T0 + 2 * MS, T0 + 4 * MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(miss_of_a_page_that_lives_is_early),
		cmocka_unit_test(miss_of_a_page_that_has_expired_is_not),
		cmocka_unit_test(two_requests_that_wait_for_one_page_miss_it_once),
		cmocka_unit_test(responses_without_a_look_at_the_cache_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
