/* SPDX-License-Identifier: MIT */
/*
 * tests/support/step.h - kill an operation at every instruction
 *
 * One process, the actor, makes one call of the library, one instruction at a time, under ptrace. After each
 * instruction that changed the segment the harness looks at two copies of it: one as it is (a reader beside a stopped or
 * dying writer), and one that others have recovered (the actor is dead there: nobody holds its lock on the copy). Then it
 * steps recoveries the same way, and really kills an actor, with a survivor that is attached all the while. Last it stops an
 * actor, lets others overtake it, and lets it go on.
 *
 * A test is a table of rows, one operation each, and calls step_run. docs/design/stepping.md tells how to write one.
 *
 * STEP_DEEP=1          check every state, not a sample; many more recoveries and kills
 * STEP_ROWS=TEXT       only rows whose names contain it
 * STEP_JOURNAL=FILE    leave out rows that FILE names, and add each one that is done: a long run can be resumed
 * STEP_SHARE=I/N       only each N-th test, from the I-th on: processes share a long run and its journal
 * STEP_CPU=N           run on the N-th CPU there is, counted around
 * STEP_KEEP=DIR        keep the image of each segment that fails there
 */
#ifndef TESTS_SUPPORT_STEP_H
#define TESTS_SUPPORT_STEP_H

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include <stddef.h>
#include <stdint.h>

/* What became of the operation, as others see it. */
enum step_outcome {
	STEP_BEFORE = 0, /* it did not happen */
	STEP_AFTER = 1,	 /* it happened */
	STEP_EITHER = 2, /* cannot be told, and need not */
};

enum step_objects { STEP_CACHE = 1, STEP_LIMITER = 2, STEP_QUEUE = 4 }; /* "c", "l", "q" */

enum step_row_flags {
	/* There may be no segment: nothing is attached for the row. check is called on each copy and does it all. */
	STEP_BARE = 1,
	/* The actor attaches in its operation, not before it. */
	STEP_UNATTACHED = 2,
	/* Also when the operation has returned, nobody can tell by looking. */
	STEP_UNSEEN = 4,
	/* Also run as a negative control: see step_run. */
	STEP_CONTROL = 8,
	/* What one began and left may be done by another: he is stepped, too. His result does not matter. */
	STEP_AGAIN = 16,
	/* Much like another row: left out of the quick set. */
	STEP_DEEP_ONLY = 32,
	/* The actor inherits what is open from a parent, who then closes it: its call is the first one of a fork child. */
	STEP_FORKED = 64,
	/* The actor keeps something after its call, a lease or an open object: the checks need it dead. */
	STEP_KEEPS = 128,
	/* Overtaken in the quick set as well. */
	STEP_OVERTAKE_TOO = 256,
	/* The same, beside a rival as well. */
	STEP_RIVAL_TOO = 512,
};

/* Who works while somebody stands still. */
enum step_overtaken {
	STEP_ALONE = 0,
	STEP_PASSED = 1,    /* pass, a reaper */
	STEP_OVERTAKEN = 2, /* overtake, too */
	STEP_RIVALLED =
		3, /* a rival, who stood still in its own call, has gone on to its end and exited */
	STEP_BEREAVED = 4, /* a rival was killed in its call before the actor began */
};

/* What the functions of a row work on. Each process has its own. */
struct step_world {
	const struct step_row *row;
	char name[96]; /* the segment's, or a copy's */
	struct coshm_segment *segment;
	struct coshm_cache *cache; /* NULL where the row has none, and while it is not open */
	struct coshm_limiter *limiter;
	struct coshm_queue *queue;
	void *notes; /* STEP_NOTES_SIZE bytes shared by all processes of the row: zero before prepare */
	uint32_t round;	    /* counts the checks: what is dear may be done in some of them only */
	uint32_t overtaken; /* step_overtaken */
	const struct step_rival *rival; /* NULL: none */
	int seen; /* for resumed: a step_outcome, what read said when the actor stood still */
	struct step_results *results; /* NULL while nobody is overtaken */
	int is_rival;		      /* this process is */
};

/* What step_result was told. */
struct step_results {
	int actor, rival;
	int actor_lives; /* its process is still there, as idle as can be */
};

#define STEP_NOTES_SIZE 4096

/*
 * One operation. All functions return 0 (or what is said here), or what STEP_NEED makes them return. objects are open
 * whenever a function is called, except in prepare, which makes the segment by step_make, and in rows that are BARE.
 */
struct step_row {
	const char *name;
	uint32_t objects;
	uint32_t flags;
	uint32_t variant; /* for the row's own functions */
	/* In a process that then detaches, or, beside a real kill, stays as the survivor. */
	int (*prepare)(struct step_world *world);
	/* In the actor, before it is stepped. May be NULL. */
	int (*ready)(struct step_world *world);
	/* The one call. */
	int (*act)(struct step_world *world);
	/* On a read-only attach to the copy as it is: is what readers were promised so? Returns a step_outcome. May be NULL. */
	int (*read)(struct step_world *world);
	/*
	 * What others do while nobody has reaped yet, on keys and tasks of their own. It meets locks that the dead hold. It may
	 * be called before or after check, more than once. May be NULL.
	 */
	int (*pass)(struct step_world *world);
	/* After a reap that left nothing pending. Returns a step_outcome. */
	int (*check)(struct step_world *world);
	/* At last: is everything still usable? May do what it likes to the copy. May be NULL. */
	int (*use)(struct step_world *world);
	/*
	 * What others do to the very key, task or name while the actor stands still in its call; so much that slots, pages,
	 * records and generations are used again. It meets locks that the actor holds. May be NULL.
	 */
	int (*overtake)(struct step_world *world);
	/* Ends with one without a name. May be NULL. */
	const struct step_rival *rivals;
	/*
	 * Whoever was overtaken has gone on and returned: was that right, and is everything as it is to be? Returns a
	 * step_outcome like check, which is called in its place if there is none.
	 */
	int (*resumed)(struct step_world *world);
};

/* Somebody else's call, which is stopped, too. Afterwards this process detaches and exits. */
struct step_rival {
	const char *name;
	int (*act)(struct step_world *world);
	int attaches; /* in its act, not before */
};

#define STEP_NEED(condition)                                         \
	do {                                                         \
		if (!(condition)) {                                  \
			step_not_so(__FILE__, __LINE__, #condition); \
			return -1;                                   \
		}                                                    \
	} while (0)

/* Notes what a call gave back. 0; negative if that was not due, unless others were in between: then resumed judges it. */
int step_result(struct step_world *world, int result, int due);

/* A call of pass, overtake or a rival gave 0, or it waited for somebody who stands still, and gave up: 1. */
int step_went(const struct step_world *world, int result);

/* Notes what is wrong, for the report. */
void step_not_so(const char *file, int line, const char *text);

/* Makes the world's segment: 1 MiB, for few members. */
int step_make(struct step_world *world, uint64_t size_max_bytes);

/* Attaches and opens the row's objects. @attach_flags  COSHM_ATTACH_* */
int step_open(struct step_world *world, uint32_t attach_flags);
int step_close(struct step_world *world);

/* No damage; and with @pending_too nothing that waits for a reaper. */
int step_verify(struct step_world *world, int pending_too);

/*
 * Runs each row as a test of its own, and gives cmocka's number of failures.
 *
 * A row that is a CONTROL is run once more, as if one of its stores after the other came late: behind some of the stores
 * that follow it in the program. No CPU does that; a library whose stores are in a wrong order does. Each row's checks must
 * notice some of these.
 */
int step_run(const char *group, const struct step_row *rows, size_t count);

/* NULL, or why nothing can be stepped here. */
const char *step_lacks(void);

#endif
