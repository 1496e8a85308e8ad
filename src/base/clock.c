/* SPDX-License-Identifier: MIT */
#include "base/clock.h"
#include "base/procfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int coshm__clock_namespace_offset_ns(int64_t *ret_offset_ns)
{
	char text[256];
	const char *line;
	long long seconds, nanoseconds;
	int length = coshm__procfs_read("/proc/self/timens_offsets", text, sizeof(text));

	if (length < 0 && length != -ENOENT)
		return length;
	*ret_offset_ns = 0;
	line = length > 0 ? strstr(text, "monotonic") : NULL;
	if (line && sscanf(line, "monotonic %lld %lld", &seconds, &nanoseconds) == 2)
		*ret_offset_ns = (int64_t)seconds * (int64_t)COSHM__NS_PER_S + (int64_t)nanoseconds;
	return 0;
}
