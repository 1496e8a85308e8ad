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
	uint64_t steps; /* instructions executed inside */
	uintptr_t pc;	/* of the last one */
	enum step_store store;
	uint64_t store_offset; /* in the file */
	uint32_t repetitions;
	struct step_mapping mappings[STEP_MAPPINGS_MAX];
	unsigned int mapping_count;
};

/* Spawns it and waits until it is about to call inside. 0, or negative with a message in talk. */
int step_trace_begin(struct step_tracee *tracee);

/* One instruction. 1; 0 inside has returned; negative: it died. */
int step_trace_next(struct step_tracee *tracee);

/* SIGKILL, wherever it is. */
void step_trace_kill(struct step_tracee *tracee);

/* --- step_check.c: who looks at the copies ------------------------------------------------------------------- */

/* Where STEP_NEED writes to, in this process. */
extern char *step_message;

/* In this process nothing sleeps: verify waits a little before it believes a finding. */
extern int step_never_sleep;

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

#endif
