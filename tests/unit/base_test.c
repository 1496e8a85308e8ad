/* SPDX-License-Identifier: MIT */
/* base/: hashes, the log, errors, futexes, versioned structs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/tags.h"
#include "segment/segment.h"
#include "support/procs.h"

#include <errno.h>
#include <string.h>

/* What other implementations of SipHash-1-3 give: key 00 .. 0f, inputs of 0, 1, 2 ... bytes 00 01 02 ... */
static void siphash_gives_the_published_vectors(void **state)
{
	const uint64_t secret[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
	const struct {
		size_t size;
		uint64_t hash;
	} vectors[] = {
		{0, UINT64_C(0xabac0158050fc4dc)},  {1, UINT64_C(0xc9f49bf37d57ca93)},
		{2, UINT64_C(0x82cb9b024dc7d44d)},  {3, UINT64_C(0x8bf80ab8e7ddf7fb)},
		{4, UINT64_C(0xcf75576088d38328)},  {5, UINT64_C(0xdef9d52f49533b67)},
		{6, UINT64_C(0xc50d2b50c59f22a7)},  {7, UINT64_C(0xd3927d989bb11140)},
		{8, UINT64_C(0x369095118d299a8e)},  {13, UINT64_C(0x306f760c1229ffa7)},
		{15, UINT64_C(0xd320d86d2a519956)}, {23, UINT64_C(0x525a0e7fdae6c123)},
	};
	unsigned char input[24];

	(void)state;
	for (unsigned char i = 0; i < sizeof(input); i++)
		input[i] = i;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
		assert_true(coshm__hash_fingerprint(secret, input, vectors[i].size) ==
			    vectors[i].hash);
}

static void hashes_depend_on_their_secret(void **state)
{
	const uint64_t one[2] = {1, 2}, other[2] = {1, 3};

	(void)state;
	assert_true(coshm__hash_place(1, "key", 3) != coshm__hash_place(2, "key", 3));
	assert_true(coshm__hash_place(1, "key", 3) == coshm__hash_place(1, "key", 3));
	assert_true(coshm__hash_fingerprint(one, "key", 3) !=
		    coshm__hash_fingerprint(other, "key", 3));
}

/* Tags with the upper bit, all bits, none: what comes in the way of signed comparisons and of saturation. */
static void tags_are_found_whatever_their_bits_and_what_lies_below_them(void **state)
{
	static const uint16_t tags[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff, 0x1234};
	_Alignas(64) struct coshm__a64 line[8];

	(void)state;
	for (unsigned int t = 0; t < 8; t++)
		for (uint32_t where = 0; where < 256; where++) {
			for (unsigned int i = 0; i < 8; i++) {
				uint64_t tag = where >> i & 1 ? tags[t] : tags[(t + 1 + i % 7) % 8];
				uint64_t below = i % 2 ? UINT64_C(0xffffffffffff) : where;

				coshm__a64_store_relaxed(&line[i], tag << 48 | below);
			}
			assert_int_equal(coshm__tags_match(line, tags[t]), where);
		}
}

struct heard {
	int count, level;
	char text[600];
};

static void hear(void *context, int level, const char *message)
{
	struct heard *heard = context;

	heard->count++;
	heard->level = level;
	strncpy(heard->text, message, sizeof(heard->text) - 1);
	errno = 99; /* callbacks do */
}

static void log_is_silent_without_a_callback_and_keeps_to_its_level(void **state)
{
	struct heard heard = {0};
	char large[4096];

	(void)state;
	assert_int_equal(coshm__fail(-EINVAL, "nobody %d", 1), -EINVAL);
	coshm_set_log(hear, &heard, COSHM_LOG_WARNING);
	errno = 7;
	assert_int_equal(coshm__fail(-EINVAL, "number %d", 5), -EINVAL);
	assert_int_equal(errno, 7);
	assert_int_equal(heard.count, 1);
	assert_int_equal(heard.level, COSHM_LOG_ERROR);
	assert_string_equal(heard.text, "number 5");
	coshm__log(COSHM_LOG_INFO, "quiet");
	assert_int_equal(heard.count, 1);
	coshm__log(COSHM_LOG_WARNING, "loud");
	assert_int_equal(heard.count, 2);
	memset(large, 'x', sizeof(large));
	large[sizeof(large) - 1] = '\0';
	coshm__log(COSHM_LOG_ERROR, "%s", large); /* is cut, not overrun */
	assert_int_equal(heard.count, 3);
	assert_true(strlen(heard.text) < 600);
	coshm_set_log(NULL, NULL, COSHM_LOG_INFO);
	coshm__log(COSHM_LOG_ERROR, "nobody");
	assert_int_equal(heard.count, 3);
}

static void strerror_has_a_sentence_for_each_sign_and_any_number(void **state)
{
	(void)state;
	assert_string_equal(coshm_strerror(-ENOSPC), coshm_strerror(ENOSPC));
	assert_non_null(strstr(coshm_strerror(-EPROTONOSUPPORT), "layout"));
	for (int error = -200; error <= 200; error++) {
		assert_non_null(coshm_strerror(error));
		assert_true(strlen(coshm_strerror(error)) > 1);
	}
	assert_non_null(coshm_strerror(INT32_MIN + 1));
}

static void futex_wait_tells_why_it_returned(void **state)
{
	static struct coshm__a32 word;
	uint64_t start_ns = test_now_ns();

	(void)state;
	coshm__a32_store_relaxed(&word, 5);
	errno = 7;
	assert_int_equal(coshm__futex_wait(&word, 4, COSHM__NS_PER_S), -EAGAIN);
	assert_int_equal(coshm__futex_wait(&word, 5, 2 * COSHM__NS_PER_MS), -ETIMEDOUT);
	assert_true(test_now_ns() - start_ns >= 2 * COSHM__NS_PER_MS);
	assert_int_equal(coshm__futex_wake(&word, 1), 0);
	assert_int_equal(errno, 7);
}

struct old_struct {
	size_t struct_size_bytes;
	uint64_t first;
};

struct new_struct {
	size_t struct_size_bytes;
	uint64_t first, second;
};

static void structs_of_older_and_newer_callers_are_understood(void **state)
{
	struct old_struct old = {.first = 1}, filled = {.struct_size_bytes = sizeof(filled)};
	struct new_struct ours, result = {.first = 8, .second = 9};
	struct {
		struct new_struct known;
		uint64_t third;
	} newer = {.known = {.struct_size_bytes = sizeof(newer), .first = 1, .second = 2}};

	(void)state;
	memset(&ours, 0xff, sizeof(ours));
	assert_int_equal(coshm__read_struct(&ours, sizeof(ours), sizeof(old), &old), 0);
	assert_int_equal(ours.first, 1);
	assert_int_equal(ours.second, 0);
	assert_int_equal(coshm__read_struct(&ours, sizeof(ours), sizeof(old), &newer), 0);
	assert_int_equal(ours.second, 2);
	newer.third = 1;
	memset(&ours, 0, sizeof(ours));
	assert_int_equal(coshm__read_struct(&ours, sizeof(ours), sizeof(old), &newer), -EINVAL);
	assert_int_equal(ours.first, 0);
	old.struct_size_bytes = 1;
	assert_int_equal(coshm__read_struct(&ours, sizeof(ours), sizeof(old), &old), -EINVAL);
	assert_int_equal(coshm__write_struct(&filled, sizeof(filled), &result, sizeof(result)), 0);
	assert_int_equal(filled.first, 8);
	assert_int_equal(filled.struct_size_bytes, sizeof(filled));
	newer.third = 77;
	assert_int_equal(coshm__write_struct(&newer, sizeof(filled), &result, sizeof(result)), 0);
	assert_int_equal(newer.known.second, 9);
	assert_int_equal(newer.third, 77);
	assert_int_equal(newer.known.struct_size_bytes, sizeof(newer));
}

static void clock_offset_is_what_the_namespace_says(void **state)
{
	int64_t first = 1, second = 2;

	(void)state;
	/* In the initial namespace, and mostly elsewhere, 0. It must at least not change. */
	assert_int_equal(coshm__clock_namespace_offset_ns(&first), 0);
	assert_int_equal(coshm__clock_namespace_offset_ns(&second), 0);
	assert_true(first == second);
	assert_true(coshm__clock_read(CLOCK_MONOTONIC) <= test_now_ns());
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_gives_the_published_vectors),
		cmocka_unit_test(tags_are_found_whatever_their_bits_and_what_lies_below_them),
		cmocka_unit_test(hashes_depend_on_their_secret),
		cmocka_unit_test(log_is_silent_without_a_callback_and_keeps_to_its_level),
		cmocka_unit_test(strerror_has_a_sentence_for_each_sign_and_any_number),
		cmocka_unit_test(futex_wait_tells_why_it_returned),
		cmocka_unit_test(structs_of_older_and_newer_callers_are_understood),
		cmocka_unit_test(clock_offset_is_what_the_namespace_says),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
