/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/stage.h - a small valid segment that inputs damage, put up anew for each of them
 *
 * Made once in a process and kept as an image. Identity and secrets are constants, so that a key has the same bucket
 * in every run; only times differ.
 */
#ifndef TESTS_FUZZ_STAGE_H
#define TESTS_FUZZ_STAGE_H

#include "fuzz/input.h"

#include <coshm/coshm.h>

enum stage_contents {
	STAGE_ALL, /* one object of each kind */
	STAGE_S3FIFO,
	STAGE_LRU,
	STAGE_NONE,
	STAGE_LIMITER,
	STAGE_QUEUE,
	STAGE_CONTENTS_COUNT,
};

#define STAGE_CACHE_NAME   "pages"
#define STAGE_LIMITER_NAME "login"
#define STAGE_QUEUE_NAME   "mail"

/* Keys that the caches have, or once had, and the limiters: number @index, its length. */
#define STAGE_KEY_COUNT 64
#define STAGE_KEY_BYTES 6
void stage_key(unsigned int index, char ret_key[STAGE_KEY_BYTES + 1]);

/* A part of the segment that an edit may choose: words in a row, or single ones. */
struct stage_area {
	uint64_t offset_bytes;
	uint64_t size_bytes;
	const uint64_t *points; /* NULL: all of it */
	uint64_t point_count;
};

#define STAGE_AREAS_MAX	 48
#define STAGE_POINTS_MAX 512

struct stage {
	enum stage_contents contents;
	int has_dead; /* a member died in it, with locks, a lease and a pin in its hands */
	char path[128];
	int fd;
	unsigned char *image;
	unsigned char *live; /* the file, mapped; only as far as the image */
	uint64_t size_bytes;
	uint64_t size_max_bytes;
	uint32_t next_id; /* the member that attaches next */
	uint32_t dead_id;
	unsigned int area_count;
	struct stage_area areas[STAGE_AREAS_MAX];
	uint64_t points[STAGE_POINTS_MAX];
	uint64_t point_count;
	/* Of the input at hand. */
	int objects_moved; /* the directory may say of objects what is not so */
	int is_cut;	   /* the file may be shorter than the image */
	unsigned char *guarded;
};

/* Files are named @prefix and a number; without it after the process. The caller removes them, or stage_remove_all. */
void stage_set_prefix(const char *prefix);

/* The stage for one input, its file as it was at first. Ends the program if there can be none. */
struct stage *stage_put_up(enum stage_contents contents, int has_dead);

/* Reads an edit and makes it. */
void stage_edit(struct stage *stage, struct fuzz_input *input);

/* Cuts the file. */
void stage_cut(struct stage *stage, uint64_t size_bytes);

/*
 * Lets nobody touch the attached segment's memory between objects and behind them, in builds with AddressSanitizer, until
 * an edit moves objects or the stage is left. @token: any handle of that segment
 *
 * With COSHM_FUZZ_SCRIBBLER in the environment a thread overwrites words of the objects from now on, also during calls:
 * then an input does not do the same twice.
 */
void stage_guard(struct stage *stage, const void *token);
void stage_unguard(struct stage *stage);

/* Detaches, whatever the segment says of pins. */
void stage_leave(struct stage *stage, struct coshm_segment *segment);

void stage_remove_all(void);

#endif
