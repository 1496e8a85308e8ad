/* SPDX-License-Identifier: MIT */
/*
 * base/crash.h - places where a test may kill or stop the process
 *
 * COSHM__CRASH_POINT(name) stands behind each store that another process can see. Each name is a row of
 * crash_points.def with the state left behind and its repair. In normal builds it is nothing.
 */
#ifndef COSHM__BASE_CRASH_H
#define COSHM__BASE_CRASH_H

#include <stdint.h>

enum coshm__crash_point {
#define COSHM__CRASH_ROW(name, state, repair) COSHM__CRASH_##name,
#include "base/crash_points.def"
#undef COSHM__CRASH_ROW
	COSHM__CRASH_COUNT
};

struct coshm__crash_row {
	const char *name;
	const char *state;
	const char *repair;
};

extern const struct coshm__crash_row coshm__crash_rows[COSHM__CRASH_COUNT];

#ifdef COSHM__CRASH_POINTS
/* Send @signal (SIGKILL, SIGSTOP) to this process at the @countdown-th time (1 is the first) that @point is reached. */
void coshm__crash_arm(enum coshm__crash_point point, int signal, uint32_t countdown);
void coshm__crash_reached(enum coshm__crash_point point);
/* How often this process has reached @point. */
uint64_t coshm__crash_reach_count(enum coshm__crash_point point);
#define COSHM__CRASH_POINT(name) coshm__crash_reached(COSHM__CRASH_##name)
#else
#define COSHM__CRASH_POINT(name) ((void)0)
#endif

#endif
