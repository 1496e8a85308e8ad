/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "examples/demo/common/body.h"
#include "examples/demo/common/names.h"

enum { SIZE = DEMO_PAGE_SIZE_BYTES_MAX };

static unsigned char *body_new(const char *url, uint64_t version)
{
	unsigned char *bytes = malloc(SIZE);
	struct demo_body body;

	assert_non_null(bytes);
	demo_body_begin(&body, url, version);
	demo_body_next(&body, bytes, SIZE);
	return bytes;
}

static int matches(const char *url, uint64_t version, const unsigned char *bytes, size_t size)
{
	struct demo_body body;

	demo_body_begin(&body, url, version);
	return demo_body_matches(&body, bytes, size);
}

static void body_matches_itself_however_it_arrives(void **state)
{
	unsigned char *bytes = body_new("/a", 7);
	const size_t steps[] = {1, 3, 8, 4095, 4096, 4097, SIZE};

	(void)state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct demo_body body;
		size_t at = 0;

		demo_body_begin(&body, "/a", 7);
		while (at < SIZE) {
			size_t n = SIZE - at < steps[i] ? SIZE - at : steps[i];

			assert_true(demo_body_matches(&body, bytes + at, n));
			at += n;
		}
	}
	free(bytes);
}

static void every_front_part_is_a_body(void **state)
{
	unsigned char *bytes = body_new("/a", 7);

	(void)state;
	for (size_t size = 0; size < 100; size++)
		assert_true(matches("/a", 7, bytes, size));
	free(bytes);
}

static void a_flipped_bit_is_seen_at_any_place(void **state)
{
	unsigned char *bytes = body_new("/a", 7);

	(void)state;
	for (size_t at = 0; at < SIZE; at += at < 64 ? 1 : 4093) {
		bytes[at] ^= 0x10;
		assert_false(matches("/a", 7, bytes, SIZE));
		bytes[at] ^= 0x10;
	}
	assert_true(matches("/a", 7, bytes, SIZE));
	free(bytes);
}

static void a_mix_of_two_versions_is_seen(void **state)
{
	unsigned char *old = body_new("/a", 7);
	unsigned char *new = body_new("/a", 8);

	(void)state;
	for (size_t at = 1; at < SIZE; at = at * 3 + 1) {
		unsigned char *mixed = body_new("/a", 8);

		memcpy(mixed, old, at);
		assert_false(matches("/a", 8, mixed, SIZE));
		assert_false(matches("/a", 7, mixed, SIZE));
		free(mixed);
	}
	free(old);
	free(new);
}

static void another_url_or_version_is_seen_from_the_first_bytes(void **state)
{
	unsigned char *bytes = body_new("/a", 7);

	(void)state;
	assert_false(matches("/a", 8, bytes, 16));
	assert_false(matches("/b", 7, bytes, 16));
	free(bytes);
}

static void a_shifted_body_is_seen(void **state)
{
	unsigned char *bytes = body_new("/a", 7);

	(void)state;
	memmove(bytes + 4096, bytes + 4096 + 8, SIZE - 4096 - 8);
	assert_false(matches("/a", 7, bytes, SIZE - 8));
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(body_matches_itself_however_it_arrives),
		cmocka_unit_test(every_front_part_is_a_body),
		cmocka_unit_test(a_flipped_bit_is_seen_at_any_place),
		cmocka_unit_test(a_mix_of_two_versions_is_seen),
		cmocka_unit_test(another_url_or_version_is_seen_from_the_first_bytes),
		cmocka_unit_test(a_shifted_body_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
