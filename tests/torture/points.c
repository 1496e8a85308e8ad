/* SPDX-License-Identifier: MIT */
/*
 * With live crash points (configure --enable-crash-points) processes also die and pause exactly there: chance alone rarely
 * meets the few instructions between two stores.
 */
#include "torture/work.h"

#ifdef COSHM__CRASH_POINTS
#include "base/crash.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void die(int number)
{
	(void)number;
	process_doom_self();
	count(EVENT_DEATHS_AT_POINTS, 1);
	kill(getpid(), SIGKILL);
}

/* Of this thread; the watcher does not know of it, so nobody has to wake it up. */
static void pause_here(int number)
{
	static _Atomic uint64_t random;
	uint64_t word =
		atomic_fetch_add(&random, UINT64_C(0x9e3779b97f4a7c15)) + (uint64_t)getpid();
	const int saved_errno = errno;

	(void)number;
	count(EVENT_PAUSES_AT_POINTS, 1);
	sleep_ns(MS << mix(word) % 9);
	errno = saved_errno;
}

void points_begin(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = die;
	sigaction(SIGUSR1, &action, NULL);
	action.sa_handler = pause_here;
	sigaction(SIGUSR2, &action, NULL);
}

void points_arm(struct worker *worker)
{
	const uint64_t what = random_below(&worker->random, 100);
	const enum coshm__crash_point point =
		(enum coshm__crash_point)random_below(&worker->random, COSHM__CRASH_COUNT);

	if (books->plan.no_kill || is_over())
		return;
	if (what < 2)
		coshm__crash_arm(point, SIGUSR1, 1 + (uint32_t)random_below(&worker->random, 20));
	else if (what < 50)
		coshm__crash_arm(point, SIGUSR2, 1 + (uint32_t)random_below(&worker->random, 20));
}
#else
void points_begin(void)
{
}

void points_arm(struct worker *worker)
{
	(void)worker;
}
#endif
