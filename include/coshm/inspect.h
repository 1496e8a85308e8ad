/* SPDX-License-Identifier: MIT */
/*
 * coshm/inspect.h - look into a segment without touching it
 *
 * Everything here works on a read-only attach, takes no lock and makes sense on a hung or dead pool. What is shown
 * may be a moment old by the time it is read; each answer is consistent in itself.
 */
#ifndef COSHM_INSPECT_H
#define COSHM_INSPECT_H

#include <coshm/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct coshm_object_info {
	char name[COSHM_NAME_SIZE_BYTES];
	uint32_t type;	/* coshm_object_type; others may come from newer versions */
	uint32_t index; /* in the directory */
	uint64_t offset_bytes;
	uint64_t size_bytes;
	uint64_t created_at_ns;
	uint32_t member_count; /* members that have it open */
	uint32_t removed;      /* 1: removed; its memory is used again once no member has it open */
};

enum coshm_member_state {
	COSHM_MEMBER_ALIVE = 1,
	COSHM_MEMBER_DEAD =
		2, /* the process is gone; what it held is being given back by whoever comes first */
};

struct coshm_member_info {
	uint32_t index;
	uint32_t state; /* coshm_member_state, found by asking the kernel now */
	uint64_t id;	/* slot and generation: tells two members with one pid apart */
	uint32_t pid;	/* as the member saw itself; for display */
	uint32_t
		thread_count; /* that use this segment; those beyond its thread_count_max are not counted */
	uint64_t attached_at_ns;
	char command[16];
	/* What it holds at this moment. */
	uint32_t locks_held;	/* of any kind */
	uint32_t lanes_held;	/* of these: lane locks of caches */
	uint32_t pages_read;	/* cache pages kept by a read in progress */
	uint32_t pages_written; /* cache pages being written */
	uint32_t pages_pinned;	/* cache pages kept by views */
	uint32_t leases_held;	/* tasks of queues */
};

enum coshm_verify_level {
	COSHM_VERIFY_NOTE = 0,	  /* normal, worth knowing */
	COSHM_VERIFY_PENDING = 1, /* left by a dead member; any survivor finishes it */
	COSHM_VERIFY_DAMAGE = 2,  /* cannot come from any run of this library, killed or not */
};

struct coshm_verify_result {
	uint64_t checked_objects;
	uint64_t pending;
	uint64_t damage;
};

/* coshm_inspect_objects - call back for each object. Returns 0; what @each returned; -EBADF */
COSHM_CHECK_RESULT int coshm_inspect_objects(struct coshm_segment *segment,
					     int (*each)(void *context,
							 const struct coshm_object_info *info),
					     void *context);

/* coshm_inspect_members - call back for each member, living or dead. Returns 0; what @each returned; -ENOMEM; -EBADF */
COSHM_CHECK_RESULT int coshm_inspect_members(struct coshm_segment *segment,
					     int (*each)(void *context,
							 const struct coshm_member_info *info),
					     void *context);

/*
 * coshm_inspect_member - one member by pid
 * Returns   1 found; 0 no member has that pid; -ENOMEM; -EBADF
 */
COSHM_CHECK_RESULT int coshm_inspect_member(struct coshm_segment *segment, uint32_t pid,
					    struct coshm_member_info *ret_info);

/*
 * coshm_inspect_verify - walk every structure and check its invariants
 * @object   one object, or NULL for all
 * @report   called for each finding, may be NULL; @where is "NAME/PART", such as "sessions/pages" for the pages of the
 *           object called sessions, or "segment/PART". It runs inside of an operation: it must be short, and must not
 *           call coshm.
 *
 * On a segment in use a finding that is not there a moment later is looked at again before it is called damage.
 * Returns   0, also with findings (see @ret_result); -ENOENT; -ENOMEM (of this process: not all was looked at); -EBADF
 */
COSHM_CHECK_RESULT int coshm_inspect_verify(struct coshm_segment *segment, const char *object,
					    void (*report)(void *context, int level,
							   const char *where, const char *text),
					    void *context, struct coshm_verify_result *ret_result);

#ifdef __cplusplus
}
#endif
#endif
