/* SPDX-License-Identifier: MIT */
/*
 * Death at each point: before the CAS that acquires, nothing has happened (lock_offset names a lock of another owner or
 * of none, and is skipped). After it, until the CAS that releases, whoever finds the owner dead takes over. Between the
 * release and the wake-up of a sleeper, the sleeper wakes by itself within 5 ms.
 */
#include "segment/rlock.h"
#include "base/crash.h"
#include "base/futex.h"
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>

#define WAITERS	       1u
#define SLEEP_FIRST_NS (2 * COSHM__NS_PER_MS)
#define SLEEP_NEXT_NS  (5 * COSHM__NS_PER_MS)
#define SPINS	       100

static uint32_t low_half(uint64_t word)
{
	return (uint32_t)word;
}

static uint64_t next_hold(uint64_t word, uint32_t low)
{
	return ((word >> 32) + 1) << 32 | low;
}

/* The half that sleepers watch. */
static struct coshm__a32 *futex_of(struct coshm__rlock_shm *lock)
{
	return (struct coshm__a32 *)(void *)&lock->word;
}

static struct coshm__rlock_shm *lock_of_note(struct coshm__segment *segment, uint64_t note)
{
	return coshm__segment_at(segment, note & ~(uint64_t)COSHM__LOCK_IS_HELD,
				 sizeof(struct coshm__rlock_shm));
}

/* Does the note name a lock that this member holds? */
static int note_is_true(struct coshm__op *op, uint64_t note)
{
	struct coshm__rlock_shm *lock = lock_of_note(op->segment, note);

	return lock && (note & COSHM__LOCK_IS_HELD) && coshm__rlock_owner(lock) == op->member_id;
}

/* Where the lock is noted, NULL: this thread holds COSHM__LOCKS_HELD already. */
static struct coshm__a64 *offset_note(struct coshm__op *op, struct coshm__rlock_shm *lock)
{
	/* A note that is not true, in the slot of a thread that waits for nothing, is damage. */
	for (unsigned int i = 0; i < 2 * COSHM__LOCKS_HELD; i++) {
		struct coshm__a64 *place = &op->thread->lock_offset[i % COSHM__LOCKS_HELD];
		uint64_t note = coshm__a64_load_relaxed(place);

		if (note && (i < COSHM__LOCKS_HELD || note_is_true(op, note)))
			continue;
		/* relaxed: it is read by this thread, or by others after its death */
		coshm__a64_store_relaxed(place, coshm__offset_of(op->segment, lock));
		coshm__compiler_barrier();
		COSHM__CRASH_POINT(RLOCK_NOTED);
		return place;
	}
	return NULL;
}

static void offset_forget(struct coshm__op *op, struct coshm__rlock_shm *lock)
{
	uint64_t offset = coshm__offset_of(op->segment, lock);

	coshm__compiler_barrier();
	for (unsigned int i = 0; i < COSHM__LOCKS_HELD; i++)
		if (coshm__a64_load_relaxed(&op->thread->lock_offset[i]) ==
		    (offset | COSHM__LOCK_IS_HELD))
			coshm__a64_store_relaxed(&op->thread->lock_offset[i], 0);
}

/* The object that a lock lies in; none for the directory's own lock. 0, -EUCLEAN no usable object is there, or out of reach */
static int guarded_object(struct coshm__op *op, uint64_t offset, struct coshm__handle **ret_handle)
{
	struct coshm__segment *segment = op->segment;

	if (offset < segment->objects_offset) {
		*ret_handle = NULL;
		return 0;
	}

	if (op->handle && op->handle->object) {
		uint64_t start = coshm__offset_of(segment, op->handle->object);

		if (offset >= start && offset - start < op->handle->size_bytes) {
			*ret_handle = op->handle;
			return 0;
		}
	}
	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT; i++) {
		struct coshm__entry_shm *entry = &segment->entries[i];
		/* [D2] */
		uint64_t state = coshm__entry_state_of(coshm__a64_load_acquire(&entry->word));
		uint64_t start = coshm__a64_load_relaxed(&entry->offset_bytes);

		if ((state == COSHM__ENTRY_LIVE || state == COSHM__ENTRY_REMOVED) &&
		    offset >= start && offset - start < coshm__a64_load_relaxed(&entry->size_bytes))
			return coshm__view_find(segment, i, ret_handle);
	}
	return -EUCLEAN;
}

/* The lock is ours, its last holder died in it. @error: what guarded_object said */
static int repair(struct coshm__op *op, struct coshm__rlock_shm *lock, struct coshm__handle *handle,
		  int error)
{
	uint64_t word;

	coshm__a64_fetch_add_relaxed(&op->segment->header->lock_steals, 1);
	if (!error && handle && handle->object_type->recover_lock)
		error = handle->object_type->recover_lock(op, handle, lock);
	if (!error)
		return 0;
	word = coshm__a64_load_relaxed(&lock->word);
	/* [L2] */
	coshm__a64_store_release(&lock->word, next_hold(word, COSHM__RLOCK_POISONED));
	coshm__futex_wake(futex_of(lock), INT32_MAX);
	coshm__log(COSHM_LOG_ERROR, "%s: an object failed its repair after a crash",
		   op->segment->path);
	return -ENOTRECOVERABLE;
}

/*
 * @word is held by a dead member. One of all takers wins. Keeps WAITERS: others may sleep. What it guards is found
 * before it is taken: who cannot, for want of memory or of a descriptor, leaves it to others.
 * 0, -EAGAIN, -ENOTRECOVERABLE; 1 lost the race
 */
static int steal(struct coshm__op *op, struct coshm__rlock_shm *lock, uint64_t word)
{
	struct coshm__handle *handle = NULL;
	int error = guarded_object(op, coshm__offset_of(op->segment, lock), &handle);

	if (coshm__is_out_of_reach(error))
		return -EAGAIN;
	/* [L1] as below; all stores of the dead are visible: its death was learned from the kernel */
	if (!coshm__a64_cas_acq_rel(&lock->word, &word,
				    next_hold(word, op->member_id << 1 | WAITERS)))
		return 1;
	COSHM__CRASH_POINT(RLOCK_STOLEN);
	return repair(op, lock, handle, error);
}

static int acquire_slow(struct coshm__op *op, struct coshm__rlock_shm *lock, uint64_t timeout_ns)
{
	uint64_t deadline_ns = 0, sleep_ns = SLEEP_FIRST_NS, now_ns, word;
	uint32_t mine = op->member_id << 1, low;
	int stolen;

	for (unsigned int spins = 0;;) {
		/*
		 * [L3] acquire, pairs [L1]; carries the holder's member word: it was ALIVE before the holder could
		 * acquire, and must not be seen older than that below
		 */
		word = coshm__a64_load_acquire(&lock->word);
		low = low_half(word);
		if (low == COSHM__RLOCK_POISONED)
			return -ENOTRECOVERABLE;
		if (low >> 1 == 0) {
			if (coshm__a64_cas_acq_rel(&lock->word, &word, next_hold(word, mine)))
				return 0; /* [L1] */
			continue;
		}
		if (++spins < SPINS && timeout_ns) {
			coshm__cpu_pause();
			continue;
		}
		/* The kernel is asked only by those who have slept already; a recorded death costs one load. */
		if (low >> 1 != op->member_id &&
		    (coshm__member_is_known_dead(op->segment, low >> 1) ||
		     (deadline_ns && coshm__member_is_dead(op->segment, low >> 1)))) {
			stolen = steal(op, lock, word);
			if (stolen == 1)
				continue;
			return stolen;
		}
		if (timeout_ns == 0)
			return -EAGAIN;
		now_ns = coshm__now_ns(op->segment);
		if (!deadline_ns)
			deadline_ns =
				timeout_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
		if (now_ns >= deadline_ns)
			return -EAGAIN;
		if (!(low & WAITERS) && !coshm__a64_cas_relaxed(&lock->word, &word, word | WAITERS))
			continue;
		if (sleep_ns > deadline_ns - now_ns)
			sleep_ns = deadline_ns - now_ns;
		coshm__futex_wait(futex_of(lock), low | WAITERS, sleep_ns);
		/* Others may sleep, too, and the release took the mark away: who has slept sets it when it acquires. */
		mine |= WAITERS;
		sleep_ns = SLEEP_NEXT_NS;
	}
}

int coshm__rlock_acquire(struct coshm__op *op, struct coshm__rlock_shm *lock, uint64_t timeout_ns)
{
	uint64_t word = coshm__a64_load_relaxed(&lock->word);
	struct coshm__a64 *note = offset_note(op, lock);
	int error = 0;

	if (coshm__unlikely(!note))
		return -EUCLEAN; /* no code of ours takes that many */
	/* [L1] acq_rel, pairs [L2], [L3]; takes what the lock guards, carries that this member is alive */
	if (coshm__unlikely(low_half(word) != 0 ||
			    !coshm__a64_cas_acq_rel(&lock->word, &word,
						    next_hold(word, op->member_id << 1))))
		error = acquire_slow(op, lock, timeout_ns);
	if (coshm__unlikely(error)) {
		coshm__a64_store_relaxed(note, 0);
		return error;
	}
	coshm__a64_store_relaxed(note, coshm__offset_of(op->segment, lock) | COSHM__LOCK_IS_HELD);
	coshm__compiler_barrier();
	COSHM__CRASH_POINT(RLOCK_ACQUIRED);
	return 0;
}

void coshm__rlock_release(struct coshm__op *op, struct coshm__rlock_shm *lock)
{
	uint64_t word = coshm__a64_load_relaxed(&lock->word);

	for (;;) {
		if (low_half(word) >> 1 != op->member_id ||
		    low_half(word) == COSHM__RLOCK_POISONED) {
			/* Only after a false death, which the kernel's word rules out, or a poisoned repair. */
			coshm__log(COSHM_LOG_ERROR, "%s: a lock changed hands while it was held",
				   op->segment->path);
			break;
		}
		/* [L2] release, pairs [L1]; carries what the lock guards; the count stays */
		if (coshm__a64_cas_release(&lock->word, &word, word >> 32 << 32)) {
			COSHM__CRASH_POINT(RLOCK_RELEASED);
			if (low_half(word) & WAITERS)
				coshm__futex_wake(futex_of(lock), 1);
			break;
		}
	}
	offset_forget(op, lock);
}

int coshm__rlock_abandon(struct coshm__op *op, uint64_t note)
{
	struct coshm__rlock_shm *lock = lock_of_note(op->segment, note);
	struct coshm__handle *handle = NULL;
	int error;

	/* A note without the mark: the thread was waiting, and another thread of this process may be the holder. */
	if (!lock || !(note & COSHM__LOCK_IS_HELD) || coshm__rlock_owner(lock) != op->member_id)
		return 0;
	error = guarded_object(op, coshm__offset_of(op->segment, lock), &handle);
	if (coshm__is_out_of_reach(error))
		return error;
	if (repair(op, lock, handle, error) == 0)
		coshm__rlock_release(op, lock);
	return 0;
}

void coshm__rlock_take_over(struct coshm__op *op, uint64_t note, uint32_t dead_id)
{
	struct coshm__rlock_shm *lock = lock_of_note(op->segment, note);

	if (!lock || coshm__rlock_owner(lock) != dead_id)
		return;
	/* Somebody may be faster: then this is one uncontended pass, or a short wait that gives up. */
	if (coshm__rlock_acquire(op, lock, 0) == 0)
		coshm__rlock_release(op, lock);
}

uint32_t coshm__rlock_owner(const struct coshm__rlock_shm *lock)
{
	uint32_t low = low_half(coshm__a64_load_acquire(&lock->word)); /* [L3] */

	return low == COSHM__RLOCK_POISONED ? 0 : low >> 1;
}
