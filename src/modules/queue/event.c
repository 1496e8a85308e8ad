/* SPDX-License-Identifier: MIT */
/*
 * The event word: sleeping consumers, and waking them.
 *
 * Sleeper   steps the word and sets its low bit, looks once more for a task, then waits in the kernel for that very value.
 * Waker     after a push: the bit is set? steps the word and wakes one. If the kernel found nobody, the bit goes, but only
 *           from exactly the value it left: whoever came in between has stepped it.
 * Death     of a sleeper: the next wake-up finds nobody and clears the bit. Of one that was woken and took nothing:
 *           who takes the next task and sees more wakes one more, and all wake up after a tick.
 */
#include "base/futex.h"
#include "modules/queue/queue.h"

#include <limits.h>

static int step_and_wake(struct coshm__queue *q, int count)
{
	struct coshm__a32 *event = &q->shm->event;
	/* relaxed: the kernel orders the value against its own list of waiters */
	uint32_t value = coshm__a32_fetch_add_relaxed(event, COSHM__EVENT_STEP) + COSHM__EVENT_STEP;
	int woken;

	COSHM__CRASH_POINT(QUEUE_EVENT_STEPPED);
	woken = coshm__futex_wake(event, count);
	if (woken == 0)
		coshm__a32_cas_relaxed(event, &value, value & ~COSHM__EVENT_SLEEPERS);
	return woken;
}

void coshm__queue_wake_one(struct coshm__op *op, struct coshm__queue *q)
{
	coshm__count(op, q->counters, COSHM__STAT_QUEUE_wakeups, 1);
	step_and_wake(q, 1);
}

void coshm__queue_wake_all(struct coshm__queue *q)
{
	step_and_wake(q, INT_MAX);
}
