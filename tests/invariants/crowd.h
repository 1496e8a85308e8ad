/* SPDX-License-Identifier: MIT */
/*
 * tests/invariants/crowd.h - many members at work while some are killed, stopped and replaced
 *
 * The tests in this folder know the public headers only.  Each lets a crowd of processes do what
 * the headers allow, keeps its own books in memory outside the segment, and compares.
 *
 * A test that works against time takes COSHM_TEST_SECONDS (default 2) seconds of it.
 * COSHM_TEST_SEED repeats the choices of a run, though not its interleaving.
 */
#ifndef TESTS_INVARIANTS_CROWD_H
#define TESTS_INVARIANTS_CROWD_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdatomic.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/segment.h>
#include <coshm/types.h>

#include "support/procs.h"

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

#define CROWD_MAX 32

/* What a member's body gets. */
struct member {
	void *books;	       /* of the test; shared by all */
	unsigned int index;    /* 0 .. count - 1 */
	unsigned int lifetime; /* 0, and one more after each kill */
};

struct crowd {
	struct member members[CROWD_MAX];
	struct proc *procs[CROWD_MAX];
	unsigned int count;
	unsigned int kills;
	unsigned int stops;
	int (*body)(void *member);
	/* Told after a kill and before the successor starts; may be NULL. */
	void (*died)(void *books, unsigned int index);
};

enum crowd_torments {
	CROWD_KILL = 1, /* SIGKILL, then a successor with the same index */
	CROWD_STOP = 2, /* SIGSTOP for up to 20 ms, others go on */
};

void crowd_start(struct crowd *crowd, unsigned int count, int (*body)(void *member), void *books,
		 void (*died)(void *books, unsigned int index));

/* Torment members first .. first + count - 1 for some time, or until a member fails. */
void crowd_torment(struct crowd *crowd, unsigned int first, unsigned int count, int torments,
		   uint64_t for_ns);

/* SIGKILL for one, then a successor. */
void crowd_kill(struct crowd *crowd, unsigned int index);

/* Bodies poll this; it becomes 1 at crowd_finish, and when any member failed. */
int crowd_is_over(void);

/* Tell the bodies to end, collect them, and fail the test if any of them did. Parent only. */
void crowd_finish(struct crowd *crowd);

/* As crowd_finish without telling them: they end by themselves. */
void crowd_join(struct crowd *crowd);
void crowd_join_within(struct crowd *crowd, uint64_t timeout_ns);

/* Waits until it is so, as long as a machine may need that hardly lets anybody run; or until the crowd is over. */
#define CROWD_UNTIL(condition)                                                                  \
	for (const uint64_t began_ns_ = test_now_ns();                                          \
	     !(condition) && !crowd_is_over() && test_now_ns() - began_ns_ < PROC_DEADLINE_NS;) \
	test_sleep_ns(MS)

/*
 * In a body: a promise that does not hold ends the body; the parent's test fails even if the
 * member is killed before it can return.
 */
#define PROMISE(condition)                                                           \
	do {                                                                         \
		if (!(condition))                                                    \
			return promise_broken(__FILE__, __LINE__, #condition, 0, 0); \
	} while (0)
#define PROMISE_EQUAL(a, b)                                                              \
	do {                                                                             \
		const long long a_ = (long long)(a), b_ = (long long)(b);                \
		if (a_ != b_)                                                            \
			return promise_broken(__FILE__, __LINE__, #a " == " #b, a_, b_); \
	} while (0)
int promise_broken(const char *file, int line, const char *what, long long a, long long b);

uint64_t test_run_ns(void);

/* Different numbers for each (index, lifetime) and run. */
uint64_t random_seed(const struct member *member);
uint64_t random_next(uint64_t *state);
static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

/* Bytes that are a function of (seed, position): two mixed values never pass the check. */
void pattern_fill(uint64_t seed, void *bytes, size_t size_bytes);
int pattern_matches(uint64_t seed, const void *bytes, size_t size_bytes);

/* A segment of its own for one test; parent only. The one before, if any, is unlinked. */
struct coshm_segment *segment_for_test(char ret_name[TEST_SEGMENT_NAME_SIZE], const char *tag,
				       uint64_t size_bytes);

/*
 * Half of the members use what they inherited by fork, the other half attach by name.
 * Returns as coshm_segment_attach.
 */
int segment_for_member(const struct member *member, const char *name,
		       struct coshm_segment *inherited, struct coshm_segment **ret_segment);

/* After the crowd has gone: nothing damaged, and nothing left to do once the dead are reaped. */
void segment_is_sound(struct coshm_segment *segment);

/*
 * From here on every system call but the clock's ends this process with the code below and a
 * word on stderr; it must end by _exit().  Where a sanitizer is at work: 0, and nothing is
 * forbidden.
 */
enum system_calls {
	SYSTEM_CALLS_NONE = 0,
	/* The look at who is alive that members take in passing, now and then. */
	SYSTEM_CALLS_OF_A_LOOK = 1,
};
#define SYSTEM_CALL_MADE 80
int forbid_system_calls(enum system_calls but);

#endif
