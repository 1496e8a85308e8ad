/* SPDX-License-Identifier: MIT */
/*
 * segment/rlock.h - the robust process-shared mutex
 *
 * A lock whose holder may die. Who finds the holder dead takes the lock over by one CAS, repairs what it guards
 * (object_type->recover_lock) and goes on. Not pthread's: docs/adr/0003 says why, and a test keeps the reason alive.
 *
 * Words     word (see segment_shm.h), the holder's thread->lock_offset.
 * Commit    acquire: CAS low half 0 -> id. release: CAS low half id -> 0.
 * Progress  blocking, bounded by the timeout; a dead holder is noticed within 5 ms of its teardown.
 * Rules     At most COSHM__LOCKS_HELD at once per thread. Inside: no system call, no callback, no malloc, no lock of
 *           the same kind. The same thread must not acquire a lock twice.
 */
#ifndef COSHM__SEGMENT_RLOCK_H
#define COSHM__SEGMENT_RLOCK_H

#include "segment/segment.h"

/* Low half of the word of a lock whose guarded data failed its repair. */
#define COSHM__RLOCK_POISONED UINT32_MAX

/* In thread->lock_offset, beside the offset of a lock: the thread has it, and does not just wait for it. */
#define COSHM__LOCK_IS_HELD 1u

/*
 * Returns 0; -EAGAIN: not within the timeout; -ENOTRECOVERABLE: poisoned; -EUCLEAN: this thread holds
 * COSHM__LOCKS_HELD locks already, or its notes say so. timeout_ns 0 tries once, but still takes over from an owner
 * that is known dead.
 */
int coshm__rlock_acquire(struct coshm__op *op, struct coshm__rlock_shm *lock, uint64_t timeout_ns);

void coshm__rlock_release(struct coshm__op *op, struct coshm__rlock_shm *lock);

/*
 * @note is a word of thread->lock_offset. If this member holds that lock: repair what it guards and release it. For
 * locks whose thread is gone. coshm__rlock_take_over is the same for a lock that a dead member holds. Both do nothing
 * if it is not so. 0; negative: it stays held, as this process lacks what it takes to find what it guards.
 */
int coshm__rlock_abandon(struct coshm__op *op, uint64_t note);
void coshm__rlock_take_over(struct coshm__op *op, uint64_t note, uint32_t dead_id);

/* Member id of the holder, 0 if free or poisoned. */
uint32_t coshm__rlock_owner(const struct coshm__rlock_shm *lock);

#endif
