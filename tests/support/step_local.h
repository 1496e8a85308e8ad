/* SPDX-License-Identifier: MIT */
/* What the parts of the stepping harness know of each other. */
#ifndef TESTS_SUPPORT_STEP_LOCAL_H
#define TESTS_SUPPORT_STEP_LOCAL_H

#include "support/procs.h"
#include "support/step.h"

#include <stdatomic.h>

#define STEP_SEGMENT_MAX (UINT64_C(4) << 20)
#define STEP_PAGE	 4096

/* --- step_image.c: a segment's bytes at one moment, files that hold them ------------------------------------- */

struct step_file {
	char path[128];
	int fd; /* -1: not open */
	int writable;
	uint64_t inode;
	unsigned char *map; /* STEP_SEGMENT_MAX bytes, more than the file has */
};

struct step_image {
	unsigned char *bytes; /* STEP_SEGMENT_MAX */
	uint64_t *page_hash;
	uint64_t size; /* of the file */
	int exists;
	uint64_t hash;
	/* Where the last update found a difference, and what had been there: for stores that come late. */
	uint64_t changed_from, changed_bytes;
	unsigned char changed_was[STEP_PAGE];
};

void step_file_open(struct step_file *file, const char *name, int writable);
void step_file_close(struct step_file *file);

struct step_image *step_image_new(void);
void step_image_free(struct step_image *image);

/* Brings the image up to the file, which may be another one by now, or none. 1: something has changed. */
int step_image_update(struct step_image *image, struct step_file *file);

/* The same after one store of up to 64 bytes. */
int step_image_update_at(struct step_image *image, struct step_file *file, uint64_t offset);

/* Makes the file what the image is. */
void step_image_write(const struct step_image *image, struct step_file *file);

/* Hashes of where the second one is another, and of which words are filled or emptied there; and of what they had been. */
struct step_difference {
	uint64_t where, what;
};

struct step_difference step_image_difference(const struct step_image *before,
					     const struct step_image *after);

/* A set of 64-bit words. */
struct step_set {
	uint64_t *words;
	size_t size, count;
};

/* 1: it was not there. */
int step_set_add(struct step_set *set, uint64_t word);
void step_set_free(struct step_set *set);

/* --- step_trace.c: one process, one instruction at a time ---------------------------------------------------- */

enum step_phase {
	STEP_STARTING,
	STEP_READY,
	STEP_INSIDE,
	STEP_LEAVING, /* the call has returned; what follows is not looked at */
	STEP_DONE,
	STEP_FAILED,
	STEP_UNTRACEABLE
};

struct step_talk {
	_Atomic int phase; /* step_phase */
	int result;	   /* of what was stepped */
	char message[512];
};

#define STEP_MAPPINGS_MAX 8

struct step_mapping {
	uintptr_t from, to;
	uint64_t offset;
};

/* What the last instruction may have stored to the file. */
enum step_store { STEP_STORES_NOTHING, STEP_STORES_THERE, STEP_STORES_ANYWHERE };

struct step_tracee {
	struct proc *proc;
	const char *path; /* of the file whose stores are of interest */
	struct step_talk *talk;
	int (*before)(struct step_world *world);
	int (*inside)(struct step_world *world);
	struct step_world *world;
	_Atomic uint64_t *leap_ns; /* becomes step_leap_ns there */
	uint64_t steps;		   /* instructions executed inside */
	uintptr_t pc;		   /* of the last one */
	enum step_store store;
	uint64_t store_offset; /* in the file */
	int wants_touches;     /* is the next one to be filled in? */
	int touches; /* the last one may have read or changed the file, or was a system call */
	uint64_t touch_offset; /* in the file */
	int was_syscall;       /* it was one */
	uint32_t repetitions;
	struct step_mapping mappings[STEP_MAPPINGS_MAX];
	unsigned int mapping_count;
};

/* Spawns it and waits until it is about to call inside. 0, or negative with a message in talk. */
int step_trace_begin(struct step_tracee *tracee);

/* One instruction. 1; 0 inside has returned; negative: it died. */
int step_trace_next(struct step_tracee *tracee);

/*
 * At full speed until it is about to execute the instruction at @pc for the @occurrence-th time since inside was called
 * or, where it stands is counted as well, since the last call of this. 1; 0 inside has returned; negative: it died, or hung
 */
int step_trace_run_to(struct step_tracee *tracee, uintptr_t pc, uint64_t occurrence);

/* What it is about to execute. */
uintptr_t step_trace_counter(const struct step_tracee *tracee);

/* At full speed until inside has returned. 0; negative: it died, or hung */
int step_trace_go_on(struct step_tracee *tracee);

/* In a tracee: where its phase is noted. */
extern struct step_talk *step_own_talk;

/* SIGKILL, wherever it is. */
void step_trace_kill(struct step_tracee *tracee);

/* --- step_places.c: where a call may stand still, or die, and how to come there once more at full speed ------- */

struct step_place {
	uintptr_t
		pc; /* about to be executed for the occurrence-th time; 0: the call has returned */
	uint64_t occurrence;
	uint64_t further; /* single steps from there */
	uint64_t step;	  /* instructions before it, for people */
	uintptr_t at;	  /* about to be executed there; 0: the call has returned */
	int happened;	  /* a recovery from there has shown what the call does */
	int changes;	  /* the instruction before it may have changed the segment */
	int seen;	  /* by readers there */
};

struct step_places {
	struct step_place *list;
	size_t count, size;
};

void step_places_add(struct step_places *places, struct step_place place);
void step_places_free(struct step_places *places);

/* How often each instruction was executed, and the cheapest way to the next one. */
struct step_way {
	struct step_visited *visited;
	struct step_place anchor;
	uint64_t cost; /* from the anchor on, in steps */
	uintptr_t last;
};

void step_way_begin(struct step_way *way);
void step_way_end(struct step_way *way);
/* The tracee has executed its instruction at pc. Returns how often that was; the repetitions of one are one. */
uint64_t step_way_add(struct step_way *way, const struct step_tracee *tracee);
/* Where the tracee was before that instruction. */
struct step_place step_way_place(const struct step_way *way, const struct step_tracee *tracee);

/* A tracee that is about to begin. 1; 0 it is elsewhere, or has returned too early; negative: it died, or hung */
int step_trace_run_to_place(struct step_tracee *tracee, const struct step_place *place);

/* --- step_time.c --------------------------------------------------------------------------------------------- */

/* In this process nothing sleeps: verify waits a little before it believes a finding. */
extern int step_never_sleep;

/* Not NULL: shared by all processes of a row, how far their clock is ahead of the kernel's. Who sleeps moves it on. */
extern _Atomic uint64_t *step_leap_ns;

/* --- step_check.c: who looks at the copies ------------------------------------------------------------------- */

/* Where STEP_NEED writes to, in this process. */
extern char *step_message;

struct step_checker;

struct step_answer {
	int failed;
	int raw;     /* step_outcome on the copy as it is */
	int outcome; /* on the recovered one */
	char message[512];
};

struct step_checker *step_checker_new(const struct step_row *row, void *notes);
/* Looks at the file of that name. @raw_too: also as it is, before anybody recovers it. */
void step_checker_ask(struct step_checker *checker, const char *name, int raw_too,
		      struct step_answer *ret_answer);
void step_checker_free(struct step_checker *checker);

/* What a member that is attached and has everything open does after somebody's death. Returns a step_outcome. */
int step_survive(struct step_world *world);

/* --- step_survivor.c ----------------------------------------------------------------------------------------- */

enum step_order {
	STEP_ORDER_PASS,
	STEP_ORDER_SURVIVE, /* step_survive */
	STEP_ORDER_LOOK_ON, /* at a segment where somebody stands still */
	STEP_ORDER_WORK,    /* beside him */
	STEP_ORDER_JUDGE,   /* he has gone on and returned */
};

struct step_survivor {
	struct step_world world;
	struct step_talk *talk;
	_Atomic uint64_t *leap_ns; /* becomes step_leap_ns there */
	struct proc *proc;
	int orders[2], answers[2];
};

/* Prepares the row, given world, talk and leap_ns. 0, or negative with a message in its talk */
int step_survivor_start(struct step_survivor *survivor);
void step_survivor_order(struct step_survivor *survivor, enum step_order order);
/* The answer to the last order; negative if there is none, or something is wrong. */
int step_survivor_says(struct step_survivor *survivor);
void step_survivor_end(struct step_survivor *survivor);

/* --- step.c: the walk over a row ------------------------------------------------------------------------------ */

/* How much of a row is done. */
struct step_bounds {
	uint64_t
		looks; /* at states of the actor, until each second must do, then each fourth ... */
	uint64_t copies_each;	 /* of the states of a copy, one in this many is looked at */
	int recoveries;		 /* all that differ are stepped; 0: one, in some rows */
	uint64_t recovery_looks; /* at states of each, until ... */
	uint64_t
		similar_looks; /* of each that changes the same words as another, and found something else there */
	uint64_t kills; /* places of them: states that were looked at, and behind system calls */
	uint32_t kills_each; /* at each place */
};

/* Fewer and fewer of a sequence whose length is not known. */
struct step_thinning {
	uint64_t each, index, taken;
};

struct step_totals {
	uint64_t instructions, states, copy_states, looks, recoveries, stepped, kills, missed,
		failures;
	struct step_set pairs; /* state and instruction, outside of copies */
};

/* A walk over one row. */
struct step_walk {
	const struct step_row *row;
	const struct step_bounds *bounds;
	struct step_totals sum;
	void *notes;
	struct step_checker *checker;
	struct step_file live, copy, second;
	struct step_image *image, *second_image;
	struct step_world world;
	struct step_tracee actor;
	struct step_thinning looks;
	struct step_set deeds, kinds_of_deeds; /* of recoveries */
	struct step_places places;	       /* to kill an actor at */
	uint64_t steps;
	int happened; /* a recovery has said so */
	int seen;     /* by readers, where they looked last */
};

void step_walk_begin(struct step_walk *walk, const struct step_row *row,
		     const struct step_bounds *bounds);
void step_walk_end(struct step_walk *walk);
/* The actor, up to its call. 0, or negative with a message in its talk */
int step_actor_start(struct step_walk *walk);
/* @image: kept for STEP_KEEP, may be NULL */
void step_report(struct step_walk *walk, const char *stage, const struct step_tracee *tracee,
		 const struct step_image *image, const char *message);
/* Enough has failed. */
int step_gives_up(const struct step_walk *walk);
/* Is the environment variable set, and not to 0? */
int step_asked(const char *name);
int step_is_deep(void);
/* Where the code is, as addr2line wants it. */
void step_describe_code(uintptr_t pc, char *text, size_t size);
/* Skips the test @name if it is not to be run now. */
void step_skip_unless_wanted(const char *name);
/* Is the test in the journal? With @add it is afterwards. */
int step_journal(const char *name, int add);

/* --- step_overtake.c ------------------------------------------------------------------------------------------ */

/* A cmocka test of the row that is its initial state: stops the actor, lets others overtake it, and lets it go on. */
void step_overtaken_test(void **state);
void step_overtaken_name(char *name, size_t size, const struct step_row *row);
void step_overtaken_print_totals(void);

#endif
