/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/types.h>

static void version_starts_with_the_parts_that_check_version_accepts(void **state)
{
	unsigned int major, minor;

	(void)state;
	assert_int_equal(sscanf(coshm_version(), "%u.%u.", &major, &minor), 2);
	assert_int_equal(coshm_check_version(major, minor), 1);
}

static void newer_minor_and_other_major_are_refused(void **state)
{
	unsigned int major, minor;

	(void)state;
	assert_int_equal(sscanf(coshm_version(), "%u.%u.", &major, &minor), 2);
	assert_int_equal(coshm_check_version(major, minor + 1), 0);
	assert_int_equal(coshm_check_version(major + 1, minor), 0);
	assert_int_equal(coshm_check_version(major + 1, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version_starts_with_the_parts_that_check_version_accepts),
		cmocka_unit_test(newer_minor_and_other_major_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
