/* SPDX-License-Identifier: MIT */
/*
 * attach.h - from the words of the command line to an attached segment and an open object
 *
 * Verbs that look attach read-only and trust any owner: they treat what they see as data, and an operator who is root
 * looks at the segments of others. Verbs that act become members and leave as soon as the deed is done.
 */
#ifndef SHMCTL_ATTACH_H
#define SHMCTL_ATTACH_H

#include "args.h"

#include <coshm/coshm.h>
#include <jansson.h>

/* One attached segment and at most one open object. */
struct attached {
	struct target target;
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct coshm_limiter *limiter;
	struct coshm_queue *queue;
};

enum attach_what {
	ATTACH_SEGMENT,
	ATTACH_CACHE,
	ATTACH_LIMITER,
	ATTACH_QUEUE,
};

/* How the command attaches unless it says otherwise (COSHM_ATTACH_*). */
uint32_t attach_flags(const struct args *args);

/*
 * Attaches and opens what @target names; takes the target over, also on failure. Returns STATUS_OK, or another enum
 * status after a complaint, with nothing left open.
 */
int attach_open(struct attached *ret_attached, struct target target, uint32_t flags,
		enum attach_what what);

/* Closes and detaches. Harmless when repeated. */
void attach_close(struct attached *attached);

/*
 * The end of a verb that acts: leaves the segment, then complains about @error or, with --json, prints @document. Takes
 * the document over. Returns enum status.
 */
int attach_leave(struct attached *attached, const struct args *args, int error, json_t *document);

/* The object did not fit in (-ENOSPC): is it the segment that is full, or its file system? */
void attach_advise_room(const struct attached *attached);

/* Where the segment's file is. Static storage. */
const char *attach_path(const char *segment);

#endif
