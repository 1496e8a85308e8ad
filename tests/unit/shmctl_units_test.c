/* SPDX-License-Identifier: MIT */
/* How shmctl reads and writes numbers, and takes names apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>
#include <cmocka.h>

#include "../../tools/shmctl/nearest.h"
#include "../../tools/shmctl/target.h"
#include "../../tools/shmctl/units.h"

#include <coshm/queue.h>

#define MARK UINT64_C(0xabababababababab)

struct example {
	const char *text;
	uint64_t value;
	int error;
};

static void check_examples(int (*parse)(const char *text, uint64_t *ret_value),
			   const struct example *examples, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t value = MARK;
		int error = parse(examples[i].text, &value);

		if (error != examples[i].error || value != (error ? MARK : examples[i].value))
			fail_msg("%s: returned %d with %llu", examples[i].text, error,
				 (unsigned long long)value);
	}
}

#define CHECK_EXAMPLES(parse, examples) \
	check_examples(parse, examples, sizeof(examples) / sizeof((examples)[0]))

static void sizes_take_powers_of_1024_and_nothing_else(void **state)
{
	static const struct example examples[] = {
		{"0", 0, 0},
		{"4096", 4096, 0},
		{"1K", 1024, 0},
		{"64M", 64 << 20, 0},
		{"1.5G", UINT64_C(3) << 29, 0},
		{"0.5K", 512, 0},
		{"17179869183G", UINT64_C(17179869183) << 30, 0},
		{"18446744073709551615", UINT64_MAX, 0},
		{"18446744073709551616", 0, -ERANGE},
		{"17179869184G", 0, -ERANGE},
		{"17179869183.999999999G", (UINT64_C(17179869183) << 30) + 1073741822, 0},
		{"", 0, -EINVAL},
		{"K", 0, -EINVAL},
		{"1k", 0, -EINVAL},
		{"1KB", 0, -EINVAL},
		{"1 K", 0, -EINVAL},
		{" 1K", 0, -EINVAL},
		{"-1", 0, -EINVAL},
		{"+1", 0, -EINVAL},
		{"0x10", 0, -EINVAL},
		{"1.5", 0, -EINVAL},
		{"1.", 0, -EINVAL},
		{".5K", 0, -EINVAL},
		{"1.0000000001K", 0, -EINVAL},
		{"1e3", 0, -EINVAL},
		{"5s", 0, -EINVAL},
	};

	(void)state;
	CHECK_EXAMPLES(units_parse_size, examples);
}

static void counts_take_no_unit(void **state)
{
	static const struct example examples[] = {
		{"0", 0, 0},
		{"100000", 100000, 0},
		{"1K", 0, -EINVAL},
		{"-1", 0, -EINVAL},
		{"", 0, -EINVAL},
		{"1.5", 0, -EINVAL},
		{"99999999999999999999", 0, -ERANGE},
	};

	(void)state;
	CHECK_EXAMPLES(units_parse_count, examples);
}

static void durations_need_a_unit_unless_zero(void **state)
{
	static const struct example examples[] = {
		{"0", 0, 0},
		{"7ns", 7, 0},
		{"7us", 7000, 0},
		{"100ms", 100000000, 0},
		{"5s", UINT64_C(5000000000), 0},
		{"1.5s", UINT64_C(1500000000), 0},
		{"2m", UINT64_C(120000000000), 0},
		{"1h", UINT64_C(3600000000000), 0},
		{"5124095h", UINT64_C(5124095) * 3600000000000, 0},
		{"5124096h", 0, -ERANGE},
		{"5", 0, -EINVAL},
		{"5d", 0, -EINVAL},
		{"5S", 0, -EINVAL},
		{"5M", 0, -EINVAL},
		{"1h30m", 0, -EINVAL},
		{"s", 0, -EINVAL},
	};

	(void)state;
	CHECK_EXAMPLES(units_parse_duration, examples);
}

static void rates_are_a_count_per_second_minute_or_hour(void **state)
{
	static const char *const wrong[] = {"10",  "10/",   "10/d", "/s",    "0/s",  "1.5/s",
					    "10s", "10/ss", "-1/s", "10 /s", "10/ms"};
	uint64_t count = 0, per_ns = 0;

	(void)state;
	assert_int_equal(units_parse_rate("10/s", &count, &per_ns), 0);
	assert_int_equal(count, 10);
	assert_int_equal(per_ns, 1000000000);
	assert_int_equal(units_parse_rate("1000/m", &count, &per_ns), 0);
	assert_int_equal(count, 1000);
	assert_int_equal(per_ns, UINT64_C(60000000000));
	assert_int_equal(units_parse_rate("1/h", &count, &per_ns), 0);
	assert_int_equal(per_ns, UINT64_C(3600000000000));
	count = MARK;
	per_ns = MARK;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (units_parse_rate(wrong[i], &count, &per_ns) != -EINVAL)
			fail_msg("took %s", wrong[i]);
	assert_int_equal(units_parse_rate("99999999999999999999/s", &count, &per_ns), -ERANGE);
	assert_int_equal(count, MARK);
	assert_int_equal(per_ns, MARK);
}

static void modes_are_octal_permission_bits(void **state)
{
	static const char *const wrong[] = {
		"", "8", "0999", "1777", "07777", "u+w", "0x10", "-1",
		/* as good as none, and the library's word for its default */
		"0", "0000"};
	uint32_t mode = 0;

	(void)state;
	assert_int_equal(units_parse_mode("0660", &mode), 0);
	assert_int_equal(mode, 0660);
	assert_int_equal(units_parse_mode("600", &mode), 0);
	assert_int_equal(mode, 0600);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (units_parse_mode(wrong[i], &mode) != -EINVAL)
			fail_msg("took %s", wrong[i]);
	assert_int_equal(mode, 0600);
}

static void backoffs_name_a_kind_and_its_delays(void **state)
{
	static const char *const wrong[] = {
		"",
		"fixed",
		"fixed:",
		"fixed:1s..2s",
		"linear:..1s",
		"linear:1s..",
		"linear:2s..1s",
		"exponential:1s.2s",
		"square:1s",
		"fixed:1",
		"Fixed:1s",
		"exponential:1s..5m..1h",
		/* 0 is the library's word for its default */
		"fixed:0",
		"fixed:0s",
		"linear:0..1s",
		"exponential:0",
		"exponential:1s..0",
		/* more than the longest delay, which is the default of an hour */
		"linear:61m",
	};
	struct units_backoff backoff;

	(void)state;
	assert_int_equal(units_parse_backoff("fixed:250ms", &backoff), 0);
	assert_int_equal(backoff.kind, COSHM_BACKOFF_FIXED);
	assert_int_equal(backoff.base_ns, 250000000);
	assert_int_equal(units_parse_backoff("linear:1s..30s", &backoff), 0);
	assert_int_equal(backoff.kind, COSHM_BACKOFF_LINEAR);
	assert_int_equal(backoff.base_ns, UINT64_C(1000000000));
	assert_int_equal(backoff.max_ns, UINT64_C(30000000000));
	assert_int_equal(units_parse_backoff("exponential:1.5s..5m", &backoff), 0);
	assert_int_equal(backoff.kind, COSHM_BACKOFF_EXPONENTIAL);
	assert_int_equal(backoff.base_ns, UINT64_C(1500000000));
	assert_int_equal(backoff.max_ns, UINT64_C(300000000000));
	assert_int_equal(units_parse_backoff("linear:1h", &backoff), 0);
	assert_int_equal(backoff.max_ns, 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (units_parse_backoff(wrong[i], &backoff) != -EINVAL)
			fail_msg("took %s", wrong[i]);
}

static void sizes_are_written_with_at_most_one_decimal(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} examples[] = {
		{0, "0"},
		{1, "1"},
		{1023, "1023"},
		{1024, "1K"},
		{1536, "1.5K"},
		{324 << 10, "324K"},
		{(99 << 10) + 1023, "100K"},
		{(1 << 20) - 1, "1M"},
		{64 << 20, "64M"},
		{(64 << 20) + 1, "64M"},
		{UINT64_C(3) << 29, "1.5G"},
		{UINT64_C(1) << 40, "1T"},
		{UINT64_MAX, "16E"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++)
		assert_string_equal(units_size(examples[i].bytes).text, examples[i].text);
}

static void durations_are_written_in_the_unit_that_fits(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} examples[] = {
		{0, "0s"},
		{999, "999ns"},
		{1000, "1us"},
		{1500, "1.5us"},
		{4200000, "4.2ms"},
		{UINT64_C(4200000000), "4.2s"},
		{UINT64_C(60000000000), "1m00s"},
		{UINT64_C(192000000000), "3m12s"},
		{UINT64_C(3600000000000), "1h00m"},
		{UINT64_C(7500000000000), "2h05m"},
		{UINT64_C(86400000000000), "1d00h"},
		{UINT64_MAX, "213503d23h"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++)
		assert_string_equal(units_duration(examples[i].ns).text, examples[i].text);
}

static void rates_are_written_as_they_are_read(void **state)
{
	(void)state;
	assert_string_equal(units_rate(10, UINT64_C(1000000000)).text, "10/s");
	assert_string_equal(units_rate(1, UINT64_C(3600000000000)).text, "1/h");
	assert_string_equal(units_rate(7, 250000000).text, "7/250ms");
}

static void names_and_paths_come_apart_where_the_object_begins(void **state)
{
	static const struct {
		const char *text;
		const char *segment; /* NULL: refused */
		const char *object;
	} examples[] = {
		{"shop", "shop", NULL},
		{"shop/pages", "shop", "pages"},
		{"/dev/shm/shop", "/dev/shm/shop", NULL},
		{"/dev/shm/shop:pages", "/dev/shm/shop", "pages"},
		{"./shop:pages", "./shop", "pages"},
		{"../a/shop", "../a/shop", NULL},
		{"/srv:1/shop", "/srv:1/shop", NULL},
		{"/srv:1/shop:pages", "/srv:1/shop", "pages"},
		{"/run/a:b:pages", "/run/a:b", "pages"},
		{"shop:pages", "shop:pages", NULL},
		{"", NULL, NULL},
		{"shop/", NULL, NULL},
		{"shop/a/b", NULL, NULL},
		{"/run/shop:", NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
		struct target target;
		int error = target_parse(examples[i].text, &target);

		if (!examples[i].segment) {
			assert_int_equal(error, -EINVAL);
			continue;
		}
		assert_int_equal(error, 0);
		assert_string_equal(target.segment, examples[i].segment);
		if (examples[i].object)
			assert_string_equal(target.object, examples[i].object);
		else
			assert_null(target.object);
		target_free(&target);
	}
}

static void a_typing_mistake_finds_its_word_and_nonsense_finds_none(void **state)
{
	static const char *const words[] = {"cache", "limit", "queue", "ls", "rm", "verify", NULL};

	(void)state;
	assert_string_equal(nearest_word("cahce", words), "cache");
	assert_string_equal(nearest_word("cach", words), "cache");
	assert_string_equal(nearest_word("lst", words), "ls");
	assert_string_equal(nearest_word("verfiy", words), "verify");
	assert_string_equal(nearest_word("limits", words), "limit");
	assert_null(nearest_word("frobnicate", words));
	assert_null(nearest_word("xx", words));
	assert_null(nearest_word("", words));
	assert_null(nearest_word("a-word-that-is-much-too-long-to-be-compared", words));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_take_powers_of_1024_and_nothing_else),
		cmocka_unit_test(counts_take_no_unit),
		cmocka_unit_test(durations_need_a_unit_unless_zero),
		cmocka_unit_test(rates_are_a_count_per_second_minute_or_hour),
		cmocka_unit_test(modes_are_octal_permission_bits),
		cmocka_unit_test(backoffs_name_a_kind_and_its_delays),
		cmocka_unit_test(sizes_are_written_with_at_most_one_decimal),
		cmocka_unit_test(durations_are_written_in_the_unit_that_fits),
		cmocka_unit_test(rates_are_written_as_they_are_read),
		cmocka_unit_test(names_and_paths_come_apart_where_the_object_begins),
		cmocka_unit_test(a_typing_mistake_finds_its_word_and_nonsense_finds_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
