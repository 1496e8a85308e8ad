/* SPDX-License-Identifier: MIT */
/*
 * segment/object.h - named, typed objects: what a module has to offer, and their life cycle
 *
 * The directory is an array of entries. An object exists from the one store that makes its entry LIVE. Memory has
 * unlink semantics: a member's bit in open_objects keeps it. There is no allocator: space is the gaps between entries.
 */
#ifndef COSHM__SEGMENT_OBJECT_H
#define COSHM__SEGMENT_OBJECT_H

#include "segment/segment.h"

#include <coshm/inspect.h>
#include <errno.h>

/* Collects the findings of a verify. */
struct coshm__findings {
	void (*report)(void *context, int level, const char *where, const char *text);
	void *context;
	const char *object_name;	    /* whose findings they are; NULL: the segment's own */
	const struct coshm__handle *object; /* its view, while its own tables are looked at */
	struct coshm_verify_result result;
	int error; /* why something could not be looked at, such as -ENOMEM */
};

/* @where is "TYPE/PART", such as "cache/pages"; who listens gets the object's name for the type: "sessions/pages". */
void coshm__finding(struct coshm__findings *findings, int level, const char *where,
		    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* coshm_segment_info from inside of an operation. */
void coshm__segment_describe(const struct coshm__segment *segment,
			     struct coshm_segment_info *ret_info);

struct coshm__counters_shm;

/* One kind of object. Functions marked [ro] also run on a read-only attach and must not write to the segment. */
struct coshm__object_type {
	uint32_t type; /* enum coshm_object_type */
	const char *name;
	uint64_t layout_fingerprint; /* over the sizes of its _shm structs */

	/* [ro] Check the object's header against handle->size_bytes and make handle->local. 0, -EUCLEAN, -ENOMEM */
	int (*attach)(struct coshm__handle *handle);
	/* [ro] Free handle->local. */
	void (*detach)(struct coshm__handle *handle);
	/* The object was removed from the directory, whose lock is held: wake its sleepers. Short. May be NULL. */
	void (*removed)(struct coshm__handle *handle);
	/* This member closes its last handle: give back what the process still holds. May be NULL. */
	void (*leave)(struct coshm__op *op, struct coshm__handle *handle);
	/*
	 * A dead member had announced that it reads or writes at this offset of the segment. A hint, perhaps given twice,
	 * before the object is reaped. May be NULL.
	 */
	void (*abandoned)(struct coshm__handle *handle, uint64_t offset_bytes);
	/*
	 * Finish what a dead member left in this object. *cursor is 0 at first and the function's own from then on.
	 * At most about @budget words are looked at. 1: a whole pass is done and no word names the member any more;
	 * 0: call again; negative: not possible now. Any number of processes may do it at once. May be NULL.
	 */
	int (*reap)(struct coshm__op *op, struct coshm__handle *handle, uint32_t dead_id,
		    uint64_t *cursor, uint64_t budget);
	/*
	 * The caller took this lock over from a dead holder: bring what it guards to a consistent state. Idempotent,
	 * since the caller may die in it. 0, or negative: the lock becomes poisoned. NULL: nothing to repair.
	 */
	int (*recover_lock)(struct coshm__op *op, struct coshm__handle *handle,
			    struct coshm__rlock_shm *lock);
	/*
	 * [ro] Add to the counts of @info what words of the object say that the member holds. Its locks (see lock_is_lane),
	 * hazards and pins are counted already.
	 */
	void (*holdings)(struct coshm__handle *handle, uint32_t member_id,
			 struct coshm_member_info *info);
	/* [ro] Is the lock at this offset of the object a lane's? May be NULL. */
	int (*lock_is_lane)(struct coshm__handle *handle, uint64_t offset_bytes);
	/* [ro] Check every invariant; see coshm_inspect_verify. */
	void (*verify)(struct coshm__handle *handle, struct coshm__findings *findings);
	/* [ro] The object's counters, and the value of gauge number @index (a row of stats/counters.def). */
	struct coshm__counters_shm *(*counters)(struct coshm__handle *handle);
	uint64_t (*gauge)(struct coshm__handle *handle, uint32_t index);
};

/* All types of this build, ended by NULL; defined above this layer, in modules/object_types.c. */
extern const struct coshm__object_type *const coshm__object_types[];

/* NULL if this build does not know the type. */
const struct coshm__object_type *coshm__object_type_find(uint32_t type);

/*
 * Create an object of @size_bytes (rounded up to pages), call @initialise on its zeroed memory, publish it and open it.
 * With COSHM_CREATE_OR_OPEN an existing one of the type is opened instead.
 * @initialise  returns 0 or a negative errno, which undoes the creation; must not block. @handle->local is not set yet.
 */
int coshm__object_create(struct coshm_segment *segment, const char *name,
			 const struct coshm__object_type *type, uint64_t size_bytes, uint32_t flags,
			 int (*initialise)(struct coshm__handle *handle, const void *context),
			 const void *context, void **ret_token);

/* Works on a read-only attach, too. */
int coshm__object_open(struct coshm_segment *segment, const char *name,
		       const struct coshm__object_type *type, void **ret_token);

/* Closes a handle of @type; waits for other threads that are inside. 0, -EBADF. NULL is done. */
int coshm__object_close(void *token, uint32_t type);

/*
 * [ro] Does the memory still belong to the handle's object, removed or not? No open bit of a read-only attach keeps it. To
 * be asked after what was read there, as in every look without a lock: the loads are done before this one. 1 or 0
 */
int coshm__object_is_there(const struct coshm__handle *handle);

/* At the end of an operation that looks: on a read-only attach what it saw may be another object's. */
static inline int coshm__look_is_stale(const struct coshm__op *op)
{
	return !op->thread && !coshm__object_is_there(op->handle);
}

/*
 * A process-local handle on any object, for reaping, recovery, statistics and verification, without opening it: the
 * caller must know that the memory stays (a dead member's open bit, or [ro] care). NULL if there is no such object, its
 * type is unknown or its header damaged, or if it is out of reach: use coshm__view_find where that makes a
 * difference. Valid until the operation ends.
 */
struct coshm__handle *coshm__view_get(struct coshm__segment *segment, uint32_t entry_index);

/*
 * The same, with the reason: 0; -ENOENT no object; -EUCLEAN damaged or unknown, nobody can open it; what
 * coshm__is_out_of_reach of.
 */
int coshm__view_find(struct coshm__segment *segment, uint32_t entry_index,
		     struct coshm__handle **ret_view);

/* Is it this process that cannot, now, for want of memory or of a descriptor? Then it says nothing about the object. */
static inline int coshm__is_out_of_reach(int error)
{
	return error && error != -ENOENT && error != -EUCLEAN;
}

#endif
