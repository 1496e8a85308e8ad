/* SPDX-License-Identifier: MIT */
/*
 * Attach to a damaged file and look at everything. Input: how to attach, edits before it, then edits and looks in turn;
 * whatever was not looked at is at the end.
 */
#include "fuzz/check.h"
#include "fuzz/look.h"
#include "fuzz/stage.h"
#include "fuzz/targets.h"

#include <errno.h>

struct opened {
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct coshm_limiter *limiter;
	struct coshm_queue *queue;
};

#define OPEN_ERRORS \
	FUZZ_ERRORS(ENOENT, EPROTOTYPE, EUCLEAN, ENOMEM, ESTALE, EAGAIN, EUSERS, EBADF, ENOTCONN)

static void open_objects(struct opened *opened)
{
	FUZZ_CALL(0, OPEN_ERRORS,
		  coshm_cache_open(opened->segment, STAGE_CACHE_NAME, &opened->cache));
	FUZZ_CALL(0, OPEN_ERRORS,
		  coshm_limiter_open(opened->segment, STAGE_LIMITER_NAME, &opened->limiter));
	FUZZ_CALL(0, OPEN_ERRORS,
		  coshm_queue_open(opened->segment, STAGE_QUEUE_NAME, &opened->queue));
}

static void look(const struct opened *opened, unsigned int what)
{
	unsigned int kind = what >> 2;

	switch (what & 3) {
	case 0:
		look_at_segment(opened->segment, kind);
		break;
	case 1:
		if (opened->cache)
			look_at_cache(opened->cache, kind, kind * 7);
		break;
	case 2:
		if (opened->limiter)
			look_at_limiter(opened->limiter, kind, kind / LOOK_LIMITER_KINDS);
		break;
	case 3:
		if (opened->queue)
			look_at_queue(opened->queue, kind);
		break;
	}
}

/* What members do besides: it changes the segment. */
static void act(struct opened *opened, unsigned int what)
{
	const struct coshm_queue_config queue_config = {.capacity = 4};
	const struct coshm_cache_config cache_config = {.size_bytes = 256 << 10};
	const int *errors = FUZZ_ERRORS(EEXIST, EPROTOTYPE, ENOSPC, EAGAIN, ESTALE, EUSERS, EUCLEAN,
					ENOTRECOVERABLE, ENOMEM, EBADF, ENOTCONN, ENOENT, EROFS);
	struct coshm_queue *queue = NULL;
	struct coshm_cache *cache = NULL;
	uint32_t count;

	switch (what % 4) {
	case 0:
		FUZZ_CALL(0, FUZZ_ERRORS(EROFS, LOOK_ERRORS),
			  coshm_segment_reap(opened->segment, &count));
		break;
	case 1:
		FUZZ_CALL(0, errors, coshm_object_remove(opened->segment, STAGE_QUEUE_NAME));
		break;
	case 2:
		if (FUZZ_CALL(0, errors,
			      coshm_queue_create(opened->segment, "new", &queue_config,
						 COSHM_CREATE_OR_OPEN, &queue)) == 0)
			coshm_queue_close(queue);
		break;
	case 3:
		if (FUZZ_CALL(0, errors,
			      coshm_cache_create(opened->segment, "more", &cache_config,
						 COSHM_CREATE_OR_OPEN, &cache)) == 0)
			coshm_cache_close(cache);
		break;
	}
}

static void run(const uint8_t *bytes, size_t size_bytes)
{
	struct fuzz_input input = {.bytes = bytes, .size_bytes = size_bytes};
	uint8_t how = fuzz_u8(&input), edits = fuzz_u8(&input) % 16;
	int writable = how & 1, cut = how >> 2 & 1;
	struct stage *stage = stage_put_up(STAGE_ALL, how >> 1 & 1);
	struct opened opened = {NULL, NULL, NULL, NULL};

	fuzz_begin();
	while (edits-- > 0 && !fuzz_input_is_over(&input))
		stage_edit(stage, &input);
	if (cut)
		stage_cut(stage, (uint64_t)fuzz_u16(&input) * 16);
	if (FUZZ_CALL(0,
		      FUZZ_ERRORS(ENOENT, EPROTONOSUPPORT, EUCLEAN, ESTALE, EUSERS, ENOTSUP, ENOMEM,
				  ETIMEDOUT),
		      coshm_segment_attach(stage->path, writable ? 0 : COSHM_ATTACH_READ_ONLY,
					   &opened.segment)))
		return;
	stage_guard(stage, opened.segment);
	open_objects(&opened);
	while (!fuzz_input_is_over(&input) && !fuzz_is_patience_spent()) {
		uint8_t step = fuzz_u8(&input);

		if (step < 128) {
			stage_edit(stage, &input);
		} else if (step < 224 || !writable) {
			look(&opened, step - 128u);
		} else {
			/* It puts objects where there were none. */
			stage->objects_moved = 1;
			stage_unguard(stage);
			act(&opened, step);
		}
	}
	/* But for the text for Prometheus, which takes longer than all the rest together. */
	for (unsigned int what = 0; what < 28 && !fuzz_is_patience_spent(); what++)
		look(&opened, what);
	stage_leave(stage, opened.segment);
}

const struct fuzz_target fuzz_attach = {.name = "attach", .run = run};
