/* SPDX-License-Identifier: MIT */
/* tests/fuzz/look.h - every call that only looks, on handles that may be read-only */
#ifndef TESTS_FUZZ_LOOK_H
#define TESTS_FUZZ_LOOK_H

#include <coshm/coshm.h>

/* Errors that any call on a handle may return. */
#define LOOK_ERRORS EBADF, ESTALE, EUSERS, ENOTCONN

void look_at_segment(struct coshm_segment *segment, unsigned int what);
#define LOOK_SEGMENT_KINDS 8

void look_at_cache(struct coshm_cache *cache, unsigned int what, unsigned int key_index);
#define LOOK_CACHE_KINDS 6

void look_at_limiter(struct coshm_limiter *limiter, unsigned int what, unsigned int key_index);
#define LOOK_LIMITER_KINDS 2

void look_at_queue(struct coshm_queue *queue, unsigned int what);
#define LOOK_QUEUE_KINDS 4

#endif
