/* SPDX-License-Identifier: MIT */
/* Linked to a test program by lab.sh: only tests whose name matches COSHM_TEST_FILTER run (*, ?). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

__attribute__((constructor)) static void filter(void)
{
	const char *pattern = getenv("COSHM_TEST_FILTER");

	if (pattern)
		cmocka_set_test_filter(pattern);
}
