/* SPDX-License-Identifier: MIT */
#include "base/crash.h"

const struct coshm__crash_row coshm__crash_rows[COSHM__CRASH_COUNT] = {
#define COSHM__CRASH_ROW(name, state, repair) {#name, state, repair},
#include "base/crash_points.def"
#undef COSHM__CRASH_ROW
};

#ifdef COSHM__CRASH_POINTS
#include "base/atomic.h"

#include <signal.h>

/* Kept apart from what is under test: relaxed, so that arming orders nothing for it. */
static struct coshm__a64 reached[COSHM__CRASH_COUNT];
static struct coshm__a64 armed_at[COSHM__CRASH_COUNT];
static int armed_signal[COSHM__CRASH_COUNT];

void coshm__crash_arm(enum coshm__crash_point point, int signal, uint32_t countdown)
{
	armed_signal[point] = signal;
	coshm__a64_store_relaxed(&armed_at[point],
				 coshm__a64_load_relaxed(&reached[point]) + countdown);
}

void coshm__crash_reached(enum coshm__crash_point point)
{
	uint64_t count = coshm__a64_fetch_add_relaxed(&reached[point], 1) + 1;

	/* raise: aimed at this thread, which so takes it before the next instruction of the caller */
	if (count == coshm__a64_load_relaxed(&armed_at[point]))
		raise(armed_signal[point]);
}

uint64_t coshm__crash_reach_count(enum coshm__crash_point point)
{
	return coshm__a64_load_relaxed(&reached[point]);
}
#endif
