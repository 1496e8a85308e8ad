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

static bool note(struct demo_presence *presence, bool is_hit, int64_t age_ms, uint64_t sent_ns,
		 uint64_t received_ns)
{
	const struct demo_response response = {.status = 200, .is_hit = is_hit, .age_ms = age_ms};

	return demo_presence_note(presence, &response, sent_ns, received_ns);
}

static void miss_of_a_page_that_lives_is_early(void **state)
{
	struct demo_presence presence = {0};

	(void)state;
	assert_false(note(&presence, false, 0, T0, T0 + 10 * MS)); /* the first one */
	assert_false(note(&presence, true, 20, T0 + 20 * MS, T0 + 21 * MS));
	assert_true(note(&presence, false, 0, T0 + 30 * MS, T0 + 40 * MS));
	assert_false(note(&presence, true, 5, T0 + 45 * MS, T0 + 46 * MS));
}

static void miss_of_a_page_that_has_expired_is_not(void **state)
{
	struct demo_presence presence = {0};

	(void)state;
	note(&presence, false, DEMO_PAGE_TTL_MS - 1000, T0, T0 + 1 * MS);
	assert_false(note(&presence, false, 0, T0 + 500 * MS, T0 + 1001 * MS));
	note(&presence, false, DEMO_PAGE_TTL_MS + 1000, T0 + 2000 * MS, T0 + 2001 * MS);
	assert_false(note(&presence, false, 0, T0 + 2002 * MS, T0 + 2003 * MS));
}

/* Both were sent before either was answered: one eviction, if any. */
static void two_requests_that_wait_for_one_page_miss_it_once(void **state)
{
	struct demo_presence presence = {0};

	(void)state;
	note(&presence, true, 0, T0, T0 + 1 * MS);
	assert_true(note(&presence, false, 0, T0 + 2 * MS, T0 + 30 * MS));
	assert_false(note(&presence, false, 0, T0 + 3 * MS, T0 + 31 * MS));
}

static void responses_without_a_page_say_nothing(void **state)
{
	const struct demo_response refused = {.status = 429, .age_ms = -1};
	struct demo_presence presence = {0};

	(void)state;
	note(&presence, true, 0, T0, T0 + 1 * MS);
	assert_false(demo_presence_note(&presence, &refused, T0 + 2 * MS, T0 + 3 * MS));
	assert_true(note(&presence, false, 0, T0 + 2 * MS, T0 + 4 * MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(miss_of_a_page_that_lives_is_early),
		cmocka_unit_test(miss_of_a_page_that_has_expired_is_not),
		cmocka_unit_test(two_requests_that_wait_for_one_page_miss_it_once),
		cmocka_unit_test(responses_without_a_page_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
