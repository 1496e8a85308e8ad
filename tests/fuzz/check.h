/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/check.h - what must hold of each call, whatever is in the segment
 *
 * It returns in time, one of the values that its header names, and what it gives back can be read. The first breach
 * ends the program with abort(), as a crash would: so every breach looks the same to fuzzers and to the replay.
 */
#ifndef TESTS_FUZZ_CHECK_H
#define TESTS_FUZZ_CHECK_H

#include <stddef.h>
#include <stdint.h>

/*
 * How often all calls of one input together may sleep; targets stop when it is spent. A lock that nobody gives back takes
 * some 20 sleeps. Not in time: on a busy machine the same input would do less.
 */
#define FUZZ_SLEEPS_MAX 100

/* CPU time of one call. On a segment of 1 MiB the slowest needs a few milliseconds, a hundred times that under sanitizers. */
#define FUZZ_CPU_LIMIT_NS UINT64_C(3000000000)

/* An input begins. */
void fuzz_begin(void);
/* 1: calls have waited long enough */
int fuzz_is_patience_spent(void);

void fuzz_call_begin(void);
/* @allowed: negative errnos, ended by 0. Values from 0 to @greatest are fine, too. */
int fuzz_call_end(const char *call, int64_t result, int64_t greatest, const int *allowed);

/* FUZZ_CALL(1, (ENOBUFS, EINVAL), coshm_cache_get(...)): the value of the call */
#define FUZZ_ERRORS(...) ((const int[]){__VA_ARGS__, 0})
#define FUZZ_CALL(greatest, errors, call) \
	(fuzz_call_begin(), fuzz_call_end(#call, (call), (greatest), errors))

/* Reads every byte, so that sanitizers see where they lie. */
void fuzz_read(const void *bytes, size_t size_bytes);
/* The same for text that must end within @size_bytes. */
void fuzz_read_text(const char *text, size_t size_bytes);

/* Ends the program with that complaint unless @holds. */
void fuzz_require(int holds, const char *what);

#endif
