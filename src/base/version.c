/* SPDX-License-Identifier: MIT */
#include <coshm/types.h>

/* configure.ac and the header name the version; neither can read the other. */
_Static_assert(COSHM_VERSION_MAJOR == COSHM__VERSION_MAJOR &&
		       COSHM_VERSION_MINOR == COSHM__VERSION_MINOR,
	       "types.h and configure.ac name different versions");

const char *coshm_version(void)
{
	return PACKAGE_VERSION;
}

int coshm_check_version(unsigned int major, unsigned int minor)
{
	/* The least minor is 0, so a plain >= on it would be "always true" to the compiler. */
	const unsigned int have_minor = COSHM__VERSION_MINOR;

	return major == COSHM__VERSION_MAJOR && have_minor >= minor;
}
