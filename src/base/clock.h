/* SPDX-License-Identifier: MIT */
/* base/clock.h - the kernel's clocks, in nanoseconds of this process's time namespace */
#ifndef COSHM__BASE_CLOCK_H
#define COSHM__BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define COSHM__NS_PER_S	 UINT64_C(1000000000)
#define COSHM__NS_PER_MS UINT64_C(1000000)

static inline uint64_t coshm__clock_read(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * COSHM__NS_PER_S + (uint64_t)now.tv_nsec;
}

/*
 * What to subtract from CLOCK_MONOTONIC to get the initial time namespace's, read from /proc/self/timens_offsets;
 * 0 where there are no time namespaces, or no /proc. Returns 0; -EMFILE, -ENFILE, -ENOMEM: nobody knows, and a guess
 * would make this member's clock wrong for good
 */
int coshm__clock_namespace_offset_ns(int64_t *ret_offset_ns);

#endif
