/* SPDX-License-Identifier: MIT */
/*
 * segment/segment.h - process-local side of an attached segment, and how every operation starts and ends
 *
 * The registry of handles. Public handles are tokens, not pointers: an index and a generation that are looked up in a
 * table under liburcu's read lock. So a closed handle answers -EBADF instead of touching freed memory, and closing
 * waits (synchronize_rcu in the closing thread) until no other thread is inside an operation on it. Nothing here
 * ever starts a thread.
 *
 * An operation:
 *	struct coshm__op op;
 *	int error = coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE);
 *	if (error)
 *		return error;
 *	... op.handle->local is the module's, op.thread the thread's slot in shm, op.member_id names this process
 *	coshm__op_end(&op);
 * Nothing between the two may sleep for long or call back into the application: end the operation, sleep, begin again
 * (the handle may be gone then). Operations of one thread do not nest: with all thread slots taken the inner one would
 * wait for the outer one's.
 */
#ifndef COSHM__SEGMENT_SEGMENT_H
#define COSHM__SEGMENT_SEGMENT_H

#include "base/atomic.h"
#include "base/clock.h"
#include "segment/segment_shm.h"

#include <coshm/segment.h>
#include <pthread.h>
#include <stddef.h>

/*
 * Inline read_lock and read_unlock, 1.4 ns a pair instead of 15.7 ns through the shared library. The LGPL allows inline
 * functions of up to ten lines from its headers anywhere, and MIT is compatible with it. Sanitizers do not know its memory
 * and its orders, so there it stays outside of what they see.
 */
#ifndef COSHM__URCU_NOT_INLINE
#define _LGPL_SOURCE
#endif
#include <urcu-bp.h>

#define COSHM__SEGMENTS_MAX 32	 /* attached by one process at once */
#define COSHM__HANDLES_MAX  4096 /* open in one process at once */
#define COSHM__TYPE_SEGMENT \
	0 /* type of a handle on the segment itself; others: enum coshm_object_type */

/* How long a public call waits for any one lock. */
#define COSHM__LOCK_TIMEOUT_NS (100 * COSHM__NS_PER_MS)
/* While anyone works, somebody looks for dead members this often. */
#define COSHM__REAP_INTERVAL_NS (5 * COSHM__NS_PER_MS)
/* Sleepers wake up this often to do it when nobody works. */
#define COSHM__SLEEP_TICK_NS (50 * COSHM__NS_PER_MS)

struct coshm__object_type;

/* An attached segment. One per process and file, shared by all handles on it. */
struct coshm__segment {
	unsigned char *base; /* the mapping; size_max_bytes long */
	struct coshm__header_shm *header;
	struct coshm__member_shm *members;
	struct coshm__thread_shm *threads;
	struct coshm__entry_shm *entries;
	uint64_t size_max_bytes;
	struct coshm__a64 usable_bytes; /* known to be there; see coshm__segment_at */
	/* read from the header once, at attach; bounds of all loops */
	uint64_t objects_offset;
	uint32_t member_count_max;
	uint32_t thread_count_max;
	uint32_t index;	       /* in the process's table of segments */
	uint32_t handle_count; /* handles of type segment; under the process mutex */
	int fd;		       /* O_CLOEXEC; -1 once lost */
	int read_only;
	int fenced;		 /* hazards need full fences */
	int huge;		 /* pages of 2 MiB are asked for */
	int64_t clock_offset_ns; /* subtract from CLOCK_MONOTONIC */
	uint64_t device, inode;
	void *life_mapping; /* holds the member's byte lock for as long as this mm lives; NULL in a fork child */
	struct coshm__handle
		*views[COSHM__ENTRY_COUNT]; /* see coshm__view_get; under the process mutex */
	char path[256];
	struct coshm__handle *retired_views;
	struct coshm__reap_progress
		*reap_progress; /* one per member slot; under the process's reap mutex */
};

/* What a token stands for. Freed after synchronize_rcu. */
struct coshm__handle {
	uintptr_t token;
	uint32_t type;
	uint32_t entry_index;
	uint64_t
		entry_word; /* of the directory entry when it was opened: LIVE and its generation */
	struct coshm__segment *segment;
	const struct coshm__object_type *object_type;
	uintptr_t segment_token; /* the segment handle it was opened through */
	void *object;		 /* the object's memory, size_bytes long, inside the mapping */
	uint64_t size_bytes;
	void *local; /* the module's process-local data, made by object_type->attach */
	struct coshm__handle *
		local_next; /* list of views that are no longer in use, or of handles that are being closed */
	struct coshm__a32 stale; /* 1 in a fork child whose object was removed meanwhile */
};

/* One running operation; lives on the stack. */
struct coshm__op {
	struct coshm__segment *segment;
	struct coshm__handle *handle;
	struct coshm__thread_shm *thread; /* NULL on a read-only attach */
	uint32_t member_id;		  /* 0 on a read-only attach */
	uint32_t
		shares_slot; /* this thread found no slot and uses the member's reserve, under a process-local mutex */
};

/*
 * What a thread knows of its slot in each segment. key 0 means nothing; it fits only the membership it was made for,
 * because no key comes twice in a process.
 */
struct coshm__thread_local {
	uint64_t key;
	struct coshm__thread_shm *thread;
};

/*
 * Written at attach and at first use in a fork child; in a page that the kernel wipes in every child, by fork or raw
 * clone. So a child sees key 0, and an unlocked mutex.
 */
struct coshm__process {
	pthread_mutex_t mutex; /* life cycle: attach, open, close, registration */
	pthread_mutex_t views; /* coshm__view_get */
	pthread_mutex_t reap;  /* one thread of a process reaps at a time */
	pthread_mutex_t
		threads; /* claims of thread slots, and sweeps over those of exited threads */
	pthread_mutex_t reserve[COSHM__SEGMENTS_MAX]; /* users of the member's reserve slot */
	struct coshm__thread_shm *reserve_thread[COSHM__SEGMENTS_MAX];
	/* Of this process's membership: serial << 32 | member id, 0 not registered. The serial tells it from one of
	 * another segment that had the same index and the same id. */
	struct coshm__a64 key[COSHM__SEGMENTS_MAX];
	uint32_t handles_reserved; /* places in the table of handles; under the mutex */
	uint32_t
		urcu_works; /* 0 in a raw-clone child: liburcu still lists the parent's threads there */
};

extern struct coshm__process *coshm__process;
extern struct coshm__handle *_Atomic coshm__handles[COSHM__HANDLES_MAX];
extern _Thread_local struct coshm__thread_local coshm__thread_locals[COSHM__SEGMENTS_MAX]
	__attribute__((tls_model("initial-exec")));

void coshm__op_end_shared(struct coshm__op *op);

/* gcc says it by a macro, clang by a feature. */
#if defined(__SANITIZE_THREAD__)
#define COSHM__THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COSHM__THREAD_SANITIZER 1
#endif
#endif

static inline void coshm__rcu_read_lock(void)
{
	urcu_bp_read_lock();
}

static inline void coshm__rcu_read_unlock(void)
{
#if defined(COSHM__THREAD_SANITIZER)
	void __tsan_release(void *);
	__tsan_release(
		&coshm__handles); /* pairs with __tsan_acquire after synchronize_rcu: TSan cannot see liburcu */
#endif
	urcu_bp_read_unlock();
}

/* Returns 0; -EBADF; -EROFS; -ESTALE; -EUSERS; -ENOTCONN. On failure nothing is held. */
int coshm__op_begin_any(struct coshm__op *op, const void *token, uint32_t type, int writes);

/* For operations that write anything to the segment, hazards included. */
static inline int coshm__op_begin(struct coshm__op *op, const void *token, uint32_t type)
{
	struct coshm__handle *handle;
	struct coshm__thread_local *mine;
	uint64_t key;

	coshm__rcu_read_lock();
	/* [G1] acquire, pairs [G2]; carries the handle's fields */
	handle = atomic_load_explicit(&coshm__handles[(uintptr_t)token % COSHM__HANDLES_MAX],
				      memory_order_acquire);
	if (coshm__likely(handle && handle->token == (uintptr_t)token && handle->type == type)) {
		op->segment = handle->segment;
		op->handle = handle;
		mine = &coshm__thread_locals[op->segment->index];
		/* relaxed: written by this process before the handle could be used */
		key = coshm__a64_load_relaxed(&coshm__process->key[op->segment->index]);
		if (coshm__likely(mine->key == key && key != 0 &&
				  !coshm__a32_load_relaxed(&handle->stale))) {
			op->thread = mine->thread;
			op->member_id = (uint32_t)key;
			op->shares_slot = 0;
			return 0;
		}
	}
	coshm__rcu_read_unlock();
	return coshm__op_begin_any(op, token, type, 1);
}

/*
 * For operations that only look. On a read-only attach op->thread is NULL and op->member_id 0: the module takes its
 * validated-copy path.
 */
static inline int coshm__op_begin_look(struct coshm__op *op, const void *token, uint32_t type)
{
	return coshm__op_begin_any(op, token, type, 0);
}

static inline void coshm__op_end(struct coshm__op *op)
{
	if (coshm__unlikely(op->shares_slot))
		coshm__op_end_shared(op);
	coshm__rcu_read_unlock();
}

/* Which thread of the segment: small numbers are in use first, none twice at a time. Of a reserve: a very large one. */
static inline uint32_t coshm__thread_number(const struct coshm__op *op)
{
	return (uint32_t)(op->thread - op->segment->threads) - op->segment->member_count_max;
}

static inline uint64_t coshm__now_ns(const struct coshm__segment *segment)
{
	return coshm__clock_read(CLOCK_MONOTONIC) - (uint64_t)segment->clock_offset_ns;
}

/* The same clock, up to one tick (1 to 4 ms) behind, at a quarter of the cost. */
static inline uint64_t coshm__now_coarse_ns(const struct coshm__segment *segment)
{
	return coshm__clock_read(CLOCK_MONOTONIC_COARSE) - (uint64_t)segment->clock_offset_ns;
}

/* Looks for dead members and finishes their work. Out of line; see reap.h. */
void coshm__reap_tick(struct coshm__op *op, uint64_t now_ns);

/* A time farther ahead than anyone sets it, from a damaged word or a wrong clock, is due as well. */
static inline int coshm__reap_is_due(uint64_t next_at_ns, uint64_t now_ns)
{
	return next_at_ns - now_ns - 1 >= 2 * COSHM__REAP_INTERVAL_NS;
}

/*
 * Every operation that changes something and has read the clock calls this; cache reads do not: nothing that they need
 * is ever held, and they promise to make no system call. One load of a read-mostly word; every 5 ms one of all callers
 * gets the work, up to 1 ms of it. Call it where the operation holds no lock and no hazard.
 */
static inline void coshm__tick(struct coshm__op *op, uint64_t now_ns)
{
	/* relaxed: a stale value is early or late by one call */
	if (coshm__unlikely(coshm__reap_is_due(
		    coshm__a64_load_relaxed(&op->segment->header->next_reap_at_ns), now_ns)))
		coshm__reap_tick(op, now_ns);
}

/* For who is about to refuse what the dead may still keep; up to 1 ms. 1: no dead member keeps anything; 0: not known. */
int coshm__reap_now(struct coshm__op *op);

/*
 * The only way from an offset to memory. NULL if [offset, offset + size) is not inside the committed part, beyond the
 * end of the file, or not aligned to 8. Two loads; a system call after the segment has grown.
 */
void *coshm__segment_at(struct coshm__segment *segment, uint64_t offset_bytes, uint64_t size_bytes);

/* The same, with the reason. 0; -EUCLEAN not there; -EMFILE, -ENFILE, -ENOTCONN ...: the file cannot be asked now. */
int coshm__segment_has(struct coshm__segment *segment, uint64_t offset_bytes, uint64_t size_bytes);

/* The same inside one object. */
static inline void *coshm__object_at(const struct coshm__handle *handle, uint64_t offset_bytes,
				     uint64_t size_bytes)
{
	if (offset_bytes % 8 != 0 || offset_bytes > handle->size_bytes ||
	    size_bytes > handle->size_bytes - offset_bytes)
		return NULL;
	return (unsigned char *)handle->object + offset_bytes;
}

/* Offset in the segment of a pointer into its mapping. */
static inline uint64_t coshm__offset_of(const struct coshm__segment *segment, const void *pointer)
{
	return (uint64_t)((const unsigned char *)pointer - segment->base);
}

/*
 * Copies a caller's struct of any version into a zeroed one of ours. The first field of both is struct_size_bytes; 0
 * stands for @first_size_bytes, the struct as of version 0.1. Returns 0, or -EINVAL if a newer caller has set a field
 * that this library does not know.
 */
int coshm__read_struct(void *copy, size_t copy_size_bytes, size_t first_size_bytes,
		       const void *callers);

/* The other way: fills a caller's struct, as much of it as the caller's version has. */
int coshm__write_struct(void *callers, size_t first_size_bytes, const void *ours,
			size_t our_size_bytes);

#endif
