/* SPDX-License-Identifier: MIT */
#include "fuzz/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static int has_begun;
static long sleeps_before;
static uint64_t call_began_cpu_ns;

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static long sleeps(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

void fuzz_begin(void)
{
	has_begun = 1;
	sleeps_before = sleeps();
}

int fuzz_is_patience_spent(void)
{
	return sleeps() - sleeps_before > FUZZ_SLEEPS_MAX;
}

/*
 * In the place of the C library's. Verification looks again and again, with pauses in which a living segment would
 * change; nobody changes this one.
 */
int nanosleep(const struct timespec *for_this, struct timespec *ret_left)
{
	const struct timespec moment = {.tv_nsec = 1000};
	int error = clock_nanosleep(CLOCK_MONOTONIC, 0, has_begun ? &moment : for_this, ret_left);

	errno = error ? error : errno;
	return error ? -1 : 0;
}

void fuzz_call_begin(void)
{
	call_began_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

int fuzz_call_end(const char *call, int64_t result, int64_t greatest, const int *allowed)
{
	uint64_t used_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - call_began_cpu_ns;

	if (used_ns > FUZZ_CPU_LIMIT_NS) {
		fprintf(stderr, "fuzz: %s took %llu ms of CPU time\n", call,
			(unsigned long long)(used_ns / 1000000));
		abort();
	}
	if (result >= 0 && result <= greatest)
		return (int)result;
	for (; *allowed; allowed++)
		if (result == -*allowed)
			return (int)result;
	fprintf(stderr, "fuzz: %s returned %lld (%s)\n", call, (long long)result,
		result < 0 && result > -4096 ? strerror((int)-result) : "?");
	abort();
}

void fuzz_read(const void *bytes, size_t size_bytes)
{
	static volatile unsigned char sink;
	const unsigned char *at = bytes;
	unsigned char sum = 0;

	for (size_t i = 0; i < size_bytes; i++)
		sum ^= at[i];
	sink = sum;
	(void)sink;
}

void fuzz_read_text(const char *text, size_t size_bytes)
{
	fuzz_require(memchr(text, '\0', size_bytes) != NULL, "a text has an end");
}

void fuzz_require(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz: it does not hold that %s\n", what);
	abort();
}
