/* SPDX-License-Identifier: MIT */
/* segment/internal.h - what the files of this folder tell each other, and nobody else */
#ifndef COSHM__SEGMENT_INTERNAL_H
#define COSHM__SEGMENT_INTERNAL_H

#include "segment/member.h"
#include "segment/object.h"
#include "segment/rlock.h"
#include "segment/segment.h"

/* Byte ranges of the file that carry locks; far behind any content. */
#define COSHM__LOCK_BYTE_INIT	 (INT64_C(1) << 40)
#define COSHM__LOCK_BYTE_MEMBERS ((INT64_C(1) << 40) + 1)

/* process.c - one per process: the wiped page, fork handlers, the registry of handles */
extern struct coshm__segment *_Atomic coshm__segments[COSHM__SEGMENTS_MAX];

int coshm__process_initialise(void);
void coshm__process_lock(void);
void coshm__process_unlock(void);
/*
 * Under the process mutex. Who creates something reserves a place for its handle first, so that a full table is found out
 * before anything has changed; and gives the place back right before coshm__handle_publish. 0, -EMFILE
 */
int coshm__handle_reserve(void);
void coshm__handle_unreserve(void);
/* Under the process mutex. Puts a filled handle into the table and gives it a token. 0, -EMFILE */
int coshm__handle_publish(struct coshm__handle *handle);
/* Under the process mutex. Takes it out again; free it only after coshm__handles_quiesce(). NULL: no such handle. */
struct coshm__handle *coshm__handle_retire(uintptr_t token, uint32_t type);
/* Waits until no thread of this process is in an operation that began before. Not under the process mutex. */
void coshm__handles_quiesce(void);

/* file.c - finding, opening and judging the file */
int coshm__path_of(const char *name, char path[256]);
int coshm__file_open(const char *path, int open_flags, uint32_t attach_flags, int *ret_fd);
int coshm__file_judge_owner(int fd, const char *path, uint32_t attach_flags);
int coshm__file_lock_init(int fd, const char *path, uint64_t timeout_ns);
/* A file longer than RLIMIT_FSIZE: the kernel would answer with SIGXFSZ, which ends the process. 0, -EFBIG */
int coshm__file_limit_check(uint64_t end_bytes);
int coshm__file_write(int fd, const void *bytes, size_t size, uint64_t offset);
int coshm__file_allocate(int fd, uint64_t from_bytes, uint64_t to_bytes);
/* Says what to do; returns @error, and -ENOSPC for whatever means that the file system gives no more. */
int coshm__file_no_space(const char *path, uint64_t wanted_bytes, int error);
/* 0; -ENOENT, and zeros: /proc is not mounted; -EMFILE, -ENFILE, -ENOMEM: nobody knows */
int coshm__boot_id(uint8_t ret_boot_id[16]);

/*
 * huge.c
 *
 * mmap of the file, at an address where pages of 2 MiB are possible if there is room for that; MAP_FAILED and errno.
 */
void *coshm__map_aligned(uint64_t size_bytes, int protection, int fd);
/* In a segment that was made with COSHM_SEGMENT_HUGE_PAGES: asks for them, for this part of it. Takes 0.1 to 1 ms per page. */
void coshm__huge_pages(const struct coshm__segment *segment, uint64_t offset_bytes,
		       uint64_t size_bytes);

/* layout.c - sizes and offsets of the fixed part, and what must agree among members */
uint64_t coshm__layout_fingerprint(void);
void coshm__layout_fill(struct coshm__header_shm *header, uint32_t member_count_max,
			uint32_t thread_count_max);
/* Does the header describe this very layout? 0, -EPROTONOSUPPORT, -EUCLEAN, -ESTALE; -EINPROGRESS: being created;
 * -EMFILE, -ENFILE, -ENOMEM: cannot tell */
int coshm__layout_check(const struct coshm__header_shm *header, const char *path);

/*
 * member.c
 *
 * The last member slot is the rescuer's: when the dead have all the others, a newcomer enters by it, reaps, and moves to
 * a slot that has become free.
 */
static inline uint32_t coshm__rescue_slot(const struct coshm__segment *segment)
{
	return segment->member_count_max - 1;
}

static inline int coshm__member_is_rescuer(const struct coshm__segment *segment, uint32_t member_id)
{
	return COSHM__MEMBER_SLOT_OF(member_id) == coshm__rescue_slot(segment);
}

/*
 * A descriptor of the segment's file, negative if it is out of reach: the one that is kept, or a new one, then
 * *ret_close is 1, if the application has closed that.
 */
int coshm__segment_fd(struct coshm__segment *segment, int *ret_close);
int coshm__member_register(struct coshm__segment *segment);
/* Under the process mutex: registers a fork child that is no member yet. */
int coshm__member_ensure(struct coshm__segment *segment);
/* A word that no member leaves: its slot becomes free, unless somebody has its byte. */
void coshm__member_mend(struct coshm__segment *segment, uint32_t slot, uint64_t word);
void coshm__member_leave(struct coshm__segment *segment);

/* thread.c */
/* The destructor of a thread that has worked on segments. */
void coshm__thread_exits(void *unused);
struct coshm__thread_shm *coshm__thread_claim(struct coshm__segment *segment, uint32_t member_id);
/* The reserve of a member slot, whose byte the caller holds: away from a former member, to a new one. NULL: damaged */
void coshm__thread_reserve_clear(struct coshm__segment *segment, uint32_t slot);
struct coshm__thread_shm *coshm__thread_claim_reserve(struct coshm__segment *segment,
						      uint32_t member_id);
/* An operation without a handle, for the segment's own work. Ends with coshm__op_end. */
int coshm__op_begin_internal(struct coshm__op *op, struct coshm__segment *segment);

/* object.c */
/* How many members, other than the dead and gone, have the entry open? */
uint32_t coshm__object_open_count(const struct coshm__segment *segment, uint32_t entry_index);
/* In a fork child, under the process mutex: open for the new member what the process has handles on. */
void coshm__objects_inherit(struct coshm__segment *segment);
/* Closes every object handle that was opened through this segment handle. */
void coshm__objects_close_of(struct coshm__segment *segment, uintptr_t segment_token);
void coshm__views_free(struct coshm__segment *segment);

/* reap.c */
struct coshm__reap_progress *coshm__reap_progress_new(const struct coshm__segment *segment);
/* In a fork child: what its parent has reaped so far counts for nothing, it may have been in the middle. */
void coshm__reap_progress_forget(struct coshm__segment *segment);
/* Is a living member in the middle of cleaning up? Asked behind the open bits: then what these let go is not free yet. */
int coshm__somebody_reaps(const struct coshm__segment *segment);
/*
 * Finish what dead members left. 1 all done; 0 more to do; -EBUSY: a thread is at it, for which UINT64_MAX waits; otherwise
 * negative: there is an object that this process cannot reach.
 */
int coshm__reap_all(struct coshm__op *op, uint64_t timeout_ns, uint32_t *ret_reaped);

static inline uint64_t coshm__member_word(uint64_t generation, uint64_t state)
{
	return generation << 2 | state;
}

/* Its id is one of the slot's own, and none that stands for nobody. */
static inline int coshm__member_word_is_sound(uint64_t word)
{
	return (word & 3) != 3 && word >> 2 < (1u << COSHM__MEMBER_GENERATION_BITS) &&
	       ((word & 3) == COSHM__MEMBER_FREE || (word >> 2 & 0x3fff) != 0);
}

static inline uint32_t coshm__member_id(uint32_t slot, uint64_t word)
{
	return slot << COSHM__MEMBER_GENERATION_BITS | (uint32_t)(word >> 2);
}

static inline uint64_t coshm__entry_word(uint64_t generation, uint64_t owner, uint64_t state)
{
	return generation << 34 | owner << 3 | state;
}

static inline uint64_t coshm__entry_state_of(uint64_t word)
{
	return word & 7;
}

static inline uint32_t coshm__entry_owner_of(uint64_t word)
{
	return (uint32_t)(word >> 3) & 0x7fffffff;
}

static inline uint64_t coshm__entry_generation_of(uint64_t word)
{
	return word >> 34;
}

#endif
