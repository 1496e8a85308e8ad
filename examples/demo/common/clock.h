/* SPDX-License-Identifier: MIT */
/* One clock for every process of the demo, so that ledgers and the client compare times directly. */
#ifndef DEMO_CLOCK_H
#define DEMO_CLOCK_H

#include <stdint.h>
#include <time.h>

#define DEMO_NS_PER_MS UINT64_C(1000000)
#define DEMO_NS_PER_S  UINT64_C(1000000000)

static inline uint64_t demo_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * DEMO_NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline void demo_sleep_ns(uint64_t for_ns)
{
	struct timespec left = {
		.tv_sec = (time_t)(for_ns / DEMO_NS_PER_S),
		.tv_nsec = (long)(for_ns % DEMO_NS_PER_S),
	};

	while (nanosleep(&left, &left) != 0)
		; /* a signal must not shorten a render or a pause */
}

#endif
