/* SPDX-License-Identifier: MIT */
/*
 * tests/crash/support/walker.h - walks over the rows of src/base/crash_points.def
 *
 * Each row is run four times: the actor is killed right there, or stopped there and resumed after the others went on;
 * and the others are idle, or two of them work on the same segment all the time. Each run fails if
 *   - the row was not reached;
 *   - @others or @finally gives a line number;
 *   - an inspection finds damage, or after a reap still finds something pending;
 *   - a thread slot, a member slot or a lock is left with somebody who is gone.
 * A section of the table with a row that no plan covers fails, too.
 */
#ifndef TESTS_CRASH_SUPPORT_WALKER_H
#define TESTS_CRASH_SUPPORT_WALKER_H

#include "base/crash.h"
#include "support/procs.h"
#include "support/toy.h"

#include <stdatomic.h>

struct crash_world {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment
		*segment; /* the parent's; children inherit it. NULL with without_segment */
	void *toy;	  /* "toy", what the actor works on */
	void *peers_toy;  /* "peers", what the busy others work on */
	enum coshm__crash_point point;
	int signal; /* SIGKILL or SIGSTOP */
	int busy;
	_Atomic int *stop_peers;
	_Atomic unsigned int *peer_rounds;
};

struct crash_plan {
	enum coshm__crash_point point;
	int without_segment; /* the segment itself is what is being made */
	/* In the parent, before anybody else runs. 0, or the number of the line that failed; so do the other three. */
	int (*prepare)(struct crash_world *world);
	/* In the child: what leads to the point. Calls crash_arm() when it is ready. */
	int (*act)(struct crash_world *world);
	/* In the parent: the actor is dead, or stopped. What the others can do now. May be NULL. */
	int (*others)(struct crash_world *world);
	/* In the parent: the actor is dead, or has gone on to its end. May be NULL. */
	int (*finally)(struct crash_world *world);
};

/* Arms the world's point with its signal, for the next time. */
void crash_arm(const struct crash_world *world);

/* For 0 of act, others and finally: fails with the line's number, folded into an exit code's range. */
#define CRASH_NEED(condition)                                                                     \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			return 1 + __LINE__ % 80;                                                 \
		}                                                                                 \
	} while (0)

/*
 * In the actor: makes a member that died holding the toy's lock (if it was free), a claim and a pin, with the guarded
 * words in disorder.
 */
int crash_make_a_dead_member(struct crash_world *world);

/* Called in the parent. Returns how many runs failed; each is named on stderr. */
unsigned int crash_walk(const struct crash_plan *plans, size_t count);

/* How many rows whose names begin with @prefix have no plan; each is named on stderr. */
unsigned int crash_rows_without_plan(const char *prefix, const struct crash_plan *plans,
				     size_t count);

#endif
