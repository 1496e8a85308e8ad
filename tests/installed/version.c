/* SPDX-License-Identifier: MIT */
/* The least that a user's program can do: the header and the library are of one version. */
#include <stdio.h>
#include <coshm/types.h>

int main(void)
{
	printf("%s\n", coshm_version());
	return coshm_check_version(0, 1) == 1 ? 0 : 1;
}
