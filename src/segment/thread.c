/* SPDX-License-Identifier: MIT */
/*
 * Thread slots, and the slow ways into an operation.
 *
 * Words     thread->owner: CAS 0 -> id by a claimer, id -> 0 by the owner or by a reaper of a dead owner.
 * Commit    that CAS. What a former owner left in the slot (hazards, lock offsets) counts as the new owner's for the
 *           few instructions until it clears them: a page is kept a little longer, a lock that names another owner is
 *           skipped. So nobody but an owner ever stores to a slot, and a late reaper cannot harm the next owner.
 * Reserves  The slot with a member's own index goes with its membership, so that any number of its threads can work, by
 *           turns, when others have all the slots. The rest are claimed by threads.
 */
#include "base/crash.h"
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;

static void slot_give_back(struct coshm__thread_shm *thread)
{
	/* [T3] release, pairs [T1], [T2]; all that this thread did under its hazards is before it */
	coshm__a32_store_release(&thread->owner, 0);
}

/*
 * A thread that dies inside a critical section (cancelled, or by a longjmp out of a signal handler) repairs it here.
 * 0; negative: its slot stays its own, so that the next look for slots, or the reaper of this process, does it.
 */
static int locks_give_back(struct coshm__segment *segment, struct coshm__thread_shm *thread,
			   uint32_t member_id)
{
	int error = 0;

	for (unsigned int i = 0; i < COSHM__LOCKS_HELD; i++) {
		uint64_t offset = coshm__a64_load_relaxed(&thread->lock_offset[i]);
		struct coshm__op op = {
			.segment = segment, .thread = thread, .member_id = member_id};

		if (offset && !error)
			error = coshm__rlock_abandon(&op, offset);
	}
	return error;
}

void coshm__thread_exits(void *unused)
{
	(void)unused;
	for (unsigned int i = 0; i < COSHM__SEGMENTS_MAX; i++) {
		struct coshm__thread_local *mine = &coshm__thread_locals[i];
		struct coshm__segment *segment;
		uint64_t key;

		if (!mine->key)
			continue;
		coshm__rcu_read_lock();
		/* [G5] acquire, pairs [G4]; carries the segment's fields */
		segment = atomic_load_explicit(&coshm__segments[i], memory_order_acquire);
		key = coshm__a64_load_relaxed(&coshm__process->key[i]);
		if (segment && key == mine->key) {
			if (locks_give_back(segment, mine->thread, (uint32_t)key) == 0)
				slot_give_back(mine->thread);
		}
		mine->key = 0;
		coshm__rcu_read_unlock();
	}
}

static void key_once_body(void)
{
	/* Without a key, slots of exited threads come back when the process leaves. */
	pthread_key_create(&exit_key, coshm__thread_exits);
}

static void high_water_raise(struct coshm__a32 *mark, uint32_t above)
{
	/* [T4] seq_cst, pairs [T5]; also when another has raised it: a scan that misses the mark comes before this
	 * thread's first hazard, and so before its re-read of the slot */
	uint32_t now = coshm__a32_load_seq_cst(mark);

	while (now < above && !coshm__a32_cas_seq_cst(mark, &now, above)) /* [T4] */
		;
}

static struct coshm__thread_shm *slot_take(struct coshm__segment *segment, uint32_t index,
					   uint32_t member_id)
{
	struct coshm__thread_shm *thread = &segment->threads[index];
	uint32_t nobody = 0;

	if (coshm__a32_load_relaxed(&thread->owner) != 0)
		return NULL;
	/* First: reapers of a claimant that dies right after its CAS look no further than the mark. */
	high_water_raise(&segment->header->thread_high_water, index + 1);
	/* [T1] seq_cst, pairs [T3], [T2]; before this thread's hazards */
	if (!coshm__a32_cas_seq_cst(&thread->owner, &nobody, member_id))
		return NULL;
	COSHM__CRASH_POINT(THREAD_CLAIMED);
	for (unsigned int i = 0; i < COSHM__HAZARD_READS; i++)
		coshm__a64_store_relaxed(&thread->read_hazard[i], 0);
	for (unsigned int i = 0; i < COSHM__HAZARD_WRITES; i++)
		coshm__a64_store_relaxed(&thread->write_hazard[i], 0);
	for (unsigned int i = 0; i < COSHM__LOCKS_HELD; i++)
		coshm__a64_store_relaxed(&thread->lock_offset[i], 0);
	coshm__a32_store_relaxed(&thread->tid, (uint32_t)syscall(SYS_gettid));
	COSHM__CRASH_POINT(THREAD_READY);
	return thread;
}

static struct coshm__thread_shm *slot_find(struct coshm__segment *segment, uint32_t member_id)
{
	for (uint32_t i = segment->member_count_max; i < segment->thread_count_max; i++) {
		struct coshm__thread_shm *thread = slot_take(segment, i, member_id);

		if (thread)
			return thread;
	}
	return NULL;
}

/* Threads made without pthreads exit without a word. Under the threads mutex, so that no claim is half done. */
static void sweep_own_exited(struct coshm__segment *segment, uint32_t member_id)
{
	int saved_errno = errno;

	for (uint32_t i = segment->member_count_max; i < segment->thread_count_max; i++) {
		struct coshm__thread_shm *thread = &segment->threads[i];
		uint32_t tid = coshm__a32_load_relaxed(&thread->tid);

		if (coshm__a32_load_relaxed(&thread->owner) != member_id || tid == 0)
			continue;
		/* Then asked once more: the thread may have given it back before it ended, and another member has it. */
		if (syscall(SYS_tgkill, getpid(), tid, 0) && errno == ESRCH &&
		    coshm__a32_load_relaxed(&thread->owner) == member_id &&
		    locks_give_back(segment, thread, member_id) == 0)
			slot_give_back(thread);
	}
	errno = saved_errno;
}

struct coshm__thread_shm *coshm__thread_claim(struct coshm__segment *segment, uint32_t member_id)
{
	struct coshm__thread_shm *thread;

	pthread_mutex_lock(&coshm__process->threads);
	thread = slot_find(segment, member_id);
	if (!thread) {
		sweep_own_exited(segment, member_id);
		thread = slot_find(segment, member_id);
	}
	pthread_mutex_unlock(&coshm__process->threads);
	return thread;
}

void coshm__thread_reserve_clear(struct coshm__segment *segment, uint32_t slot)
{
	struct coshm__a32 *owner = &segment->threads[slot].owner;
	uint32_t former = coshm__a32_load_relaxed(owner);

	if (former)
		coshm__a32_cas_acq_rel(owner, &former, 0); /* [T3] */
}

struct coshm__thread_shm *coshm__thread_claim_reserve(struct coshm__segment *segment,
						      uint32_t member_id)
{
	return slot_take(segment, COSHM__MEMBER_SLOT_OF(member_id), member_id);
}

uint32_t coshm__thread_count(const struct coshm__segment *segment, uint32_t member_id)
{
	uint32_t count = 0;

	for (uint32_t i = segment->member_count_max; i < segment->thread_count_max; i++) {
		/* [T2] acquire: a count */
		uint32_t owner = coshm__a32_load_acquire(&segment->threads[i].owner);

		count += owner != 0 && (member_id == 0 || owner == member_id);
	}
	return count;
}

int coshm__member_ensure(struct coshm__segment *segment)
{
	int error;

	if (coshm__a64_load_relaxed(&coshm__process->key[segment->index]))
		return 0;
	segment->life_mapping = NULL; /* the parent's; not mapped here */
	coshm__reap_progress_forget(segment);
	error = coshm__member_register(segment);
	if (!error)
		coshm__objects_inherit(segment);
	return error;
}

/*
 * Makes this process a member if it is not: a fork child at its first operation. Not inside a read section: the mutex
 * may be held by a thread that forks, which waits for liburcu, which may be waiting for readers.
 */
static int member_of(const void *token, uint32_t type)
{
	struct coshm__handle *handle;
	int error = -EBADF;

	coshm__process_lock();
	handle = atomic_load_explicit(&coshm__handles[(uintptr_t)token % COSHM__HANDLES_MAX],
				      memory_order_relaxed);
	if (handle && handle->token == (uintptr_t)token && handle->type == type)
		error = coshm__member_ensure(handle->segment);
	coshm__process_unlock();
	return error;
}

/*
 * -EAGAIN: the process is no member, or is the rescuer. That is for the thread that rescues alone: the membership ends
 * under whoever else works by it. It has the mutex that member_of waits for.
 */
static int begin_as_member(struct coshm__op *op, int rescues)
{
	struct coshm__segment *segment = op->segment;
	struct coshm__thread_local *mine = &coshm__thread_locals[segment->index];
	uint64_t key = coshm__a64_load_relaxed(&coshm__process->key[segment->index]);
	int is_rescuer;

	if (!key)
		return -EAGAIN;
	op->member_id = (uint32_t)key;
	op->shares_slot = 0;
	if (mine->key == key) {
		op->thread = mine->thread;
		return 0;
	}
	is_rescuer = coshm__member_is_rescuer(segment, op->member_id);
	if (is_rescuer && !rescues)
		return -EAGAIN;
	pthread_once(&key_once, key_once_body);
	op->thread = is_rescuer ? NULL : coshm__thread_claim(segment, op->member_id);
	if (op->thread) {
		mine->thread = op->thread;
		mine->key = key;
		pthread_setspecific(exit_key, &coshm__process);
		return 0;
	}
	/*
	 * No slot is free in the whole segment: threads of this process take turns on its reserve. A rescuer has
	 * only that one, so that it leaves nothing else behind when it dies.
	 */
	pthread_mutex_lock(&coshm__process->reserve[segment->index]);
	op->thread = coshm__process->reserve_thread[segment->index];
	op->shares_slot = 1;
	return 0;
}

void coshm__op_end_shared(struct coshm__op *op)
{
	pthread_mutex_unlock(&coshm__process->reserve[op->segment->index]);
}

/* A read-only attach keeps no memory: once it was given to another object, there is nothing to look at. */
static int look_is_over(const struct coshm__handle *handle)
{
	return handle->type != COSHM__TYPE_SEGMENT && !coshm__object_is_there(handle);
}

static int begin_once(struct coshm__op *op, const void *token, uint32_t type, int writes)
{
	struct coshm__handle *handle;
	int error = -EBADF;

	coshm__rcu_read_lock();
	/* [G3] acquire, pairs [G2]; carries the handle's fields */
	handle = atomic_load_explicit(&coshm__handles[(uintptr_t)token % COSHM__HANDLES_MAX],
				      memory_order_acquire);
	if (handle && handle->token == (uintptr_t)token && handle->type == type) {
		*op = (struct coshm__op){.segment = handle->segment, .handle = handle};
		if (op->segment->read_only)
			error = writes ? -EROFS : look_is_over(handle) ? -ESTALE : 0;
		else
			error = begin_as_member(op, 0);
	}
	if (error)
		coshm__rcu_read_unlock();
	return error;
}

int coshm__op_begin_any(struct coshm__op *op, const void *token, uint32_t type, int writes)
{
	int saved_errno = errno, error = begin_once(op, token, type, writes);

	if (error == -EAGAIN) {
		error = member_of(token, type);
		if (!error)
			error = begin_once(op, token, type, writes);
	}
	if (!error && coshm__a32_load_relaxed(&op->handle->stale)) {
		coshm__op_end(op);
		error = coshm__fail(-ESTALE,
				    "the object was removed before this forked child used it");
	}
	errno = saved_errno;
	return error;
}

int coshm__op_begin_internal(struct coshm__op *op, struct coshm__segment *segment)
{
	int error;

	coshm__rcu_read_lock();
	*op = (struct coshm__op){.segment = segment};
	error = segment->read_only ? -EROFS : begin_as_member(op, 1);
	if (error)
		coshm__rcu_read_unlock();
	return error;
}
