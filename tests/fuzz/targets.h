/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/targets.h - what inputs are tried on
 *
 * Each takes bytes, damages a valid segment as they say (stage.h), calls the library, and ends the program if the library
 * breaks its word (check.h). The same functions serve the fuzzers (fuzzer.c) and "make check" (replay_test.c).
 */
#ifndef TESTS_FUZZ_TARGETS_H
#define TESTS_FUZZ_TARGETS_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_target {
	const char *name; /* also of its folder in corpus/ */
	void (*run)(const uint8_t *bytes, size_t size_bytes);
};

/* Attach, then look at everything; in between, the segment changes. */
extern const struct fuzz_target fuzz_attach;
/* One object each in the hands of a member while others scribble over the segment. */
extern const struct fuzz_target fuzz_cache, fuzz_limiter, fuzz_queue;

#define FUZZ_TARGET_COUNT 4
extern const struct fuzz_target *const fuzz_targets[FUZZ_TARGET_COUNT];

#endif
