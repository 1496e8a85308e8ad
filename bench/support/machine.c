/* SPDX-License-Identifier: MIT */
/* What cases are made of: CPUs, clock, shared memory. */
#include "bench.h"

#include <coshm/coshm.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int cpus[CPU_SETSIZE], cpu_count;

void bench_fail(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

void bench_need(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "bench: %s: %s\n", what, coshm_strerror(result));
	exit(1);
}

int bench_cpu_count(void)
{
	cpu_set_t set;

	if (cpu_count)
		return cpu_count;
	if (sched_getaffinity(0, sizeof(set), &set))
		bench_fail("sched_getaffinity");
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET((size_t)i, &set))
			cpus[cpu_count++] = i;
	return cpu_count;
}

void bench_pin(int number)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpus[number % bench_cpu_count()], &set);
	sched_setaffinity(0, sizeof(set), &set);
}

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_cpu_ns(pid_t process)
{
	struct timespec used;
	clockid_t clock;

	if (clock_getcpuclockid(process, &clock) || clock_gettime(clock, &used))
		bench_fail("CPU time of a helper");
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define HUGE_BYTES ((size_t)2 << 20)

int bench_huge_pages;

void *bench_shared(size_t size_bytes)
{
	/* Room to align in; it stays mapped. */
	size_t room_bytes = bench_huge_pages ? HUGE_BYTES : 0;
	unsigned char *memory = mmap(NULL, size_bytes + room_bytes, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		bench_fail("mmap");
	if (bench_huge_pages && size_bytes >= HUGE_BYTES) {
		/* Pages are aligned by their place in the mapping, so that must be aligned, too. */
		memory =
			mmap(memory + -(uintptr_t)memory % HUGE_BYTES, size_bytes,
			     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		if (memory == MAP_FAILED)
			bench_fail("mmap");
		memset(memory, 0, size_bytes); /* pages are made of pages */
		madvise(memory, size_bytes, MADV_COLLAPSE);
	}
	return memory;
}

void bench_back_off(int procs)
{
	if (procs > bench_cpu_count())
		sched_yield();
	else
		for (int i = 0; i < 64; i++)
			bench_pause();
}
