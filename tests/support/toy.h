/* SPDX-License-Identifier: MIT */
/*
 * tests/support/toy.h - the smallest object that has one of everything a module may have
 *
 * Two words that agree whenever the lock is free, a claim table whose words name members, a removal flag, counters.
 * It stands where queues stand (type COSHM_OBJECT_QUEUE), and a second type where caches stand, so that the tests of
 * the layers below do not depend on any module. A program that uses it has only these two types.
 */
#ifndef TESTS_SUPPORT_TOY_H
#define TESTS_SUPPORT_TOY_H

#include "segment/member.h"
#include "segment/object.h"
#include "segment/rlock.h"
#include "segment/segment.h"
#include "stats/stats.h"
#include "structs/hazard.h"

#include <coshm/inspect.h>
#include <coshm/segment.h>
#include <coshm/stats.h>

#define TOY_CLAIMS     64
#define TOY_PAGE_COUNT 8
#define TOY_PAGE_BYTES 512

struct toy_shm {
	struct coshm__a64 magic;
	struct coshm__rlock_shm lock;	   /* guards left and right */
	struct coshm__rlock_shm lane_lock; /* guards nothing; reported as a lane's */
	struct coshm__a64 left, right;
	struct coshm__a64 inside;	/* member id of who believes to hold the lock; 0 nobody */
	struct coshm__a64 recoveries;	/* calls of recover_lock */
	struct coshm__a64 unrepairable; /* 1: recover_lock gives up */
	struct coshm__a64 removed;	/* calls of the type's removed() */
	struct coshm__a64 left_by;	/* calls of the type's leave() */
	struct coshm__a64 reap_calls;
	struct coshm__a64 reap_first_cursor; /* of the first call after it was TOY_NO_CURSOR */
	struct coshm__a64
		reap_refuses;	   /* 1: reap says "not now", 2: it waits until this is not 2 */
	struct coshm__a64 payload; /* what initialise put in */
	struct coshm__a64 claims[TOY_CLAIMS]; /* member ids */
	struct coshm__counters_shm counters;
	struct coshm__a64 slots[TOY_PAGE_COUNT];
	unsigned char pages[TOY_PAGE_COUNT][TOY_PAGE_BYTES];
};

#define TOY_NO_CURSOR UINT64_MAX

/* Process-local: 1 keeps reap waiting within its first step. */
extern _Atomic int toy_reap_hold;

extern const struct coshm__object_type toy_type;   /* COSHM_OBJECT_QUEUE, "queue" */
extern const struct coshm__object_type other_type; /* COSHM_OBJECT_CACHE, "cache" */

/* Creates (or opens, with COSHM_CREATE_OR_OPEN) one whose payload is @payload. */
int toy_create(struct coshm_segment *segment, const char *name, uint32_t flags, uint64_t payload,
	       void **ret_token);
int toy_create_sized(struct coshm_segment *segment, const char *name, uint64_t size_bytes,
		     void **ret_token);
int toy_open(struct coshm_segment *segment, const char *name, void **ret_token);
int toy_close(void *token);

/* coshm__op_begin on a toy; ret_toy is valid until coshm__op_end. */
int toy_begin(struct coshm__op *op, void *token, struct toy_shm **ret_toy);

/* For tests that look at the words without an operation. The segment must stay attached. */
struct toy_shm *toy_peek(void *token);
struct coshm__segment *toy_segment(struct coshm_segment *token);

/* One step in the critical section: left + 1, right + 1. The caller holds the lock. 0, or 1 somebody else was inside. */
int toy_step(struct coshm__op *op, struct toy_shm *toy);

/* A segment of 1 MiB (or @size_bytes) with that name; ends the program if there can be none. */
struct coshm_segment *toy_segment_create(const char *name, uint64_t size_bytes);

/* The number of damaged or pending findings, or a negative errno. Findings are printed to stderr. */
int toy_verify(struct coshm_segment *segment, uint64_t *ret_damage, uint64_t *ret_pending);

/* A counter of the segment's own; UINT64_MAX if it cannot be read. */
uint64_t toy_stat(struct coshm_segment *segment, const char *name);

/* What the library said to the log since the last heard_clear(). */
void heard_start(void);
void heard_clear(void);
const char *heard_text(void);

#endif
