/* SPDX-License-Identifier: MIT */
/*
 * Finishing what the dead left. Anyone does it, any number at once, each with a cursor of its own.
 *
 * Order     record the death (member word) - locks it held - its thread slots, of whose hazards objects are told - entries
 *           it was building - each object it had open - the slot.
 * Repair    every step is a CAS that names the dead member, or is idempotent, or a hint; a reaper that dies is reaped
 *           itself, and the next one starts over. A reaper that is stopped and wakes up later finds its CASes failing.
 * Memory    of a removed object stays while the bit of the dead keeps it. Another reaper may be through first, and the bit
 *           be gone, while one stands still within a repair; so each announces itself, and no memory is used again
 *           before that.
 */
#include "base/crash.h"
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_WORDS 4096	     /* looked at between two looks at the clock */
#define TICK_NS	    COSHM__NS_PER_MS /* how long an operation that passes by is held up at most */
#define OTHERS_DID  2		     /* there was nothing left to do */

struct coshm__reap_progress {
	uint32_t dead_id;
	uint32_t entry_index; /* objects before this one are done */
	uint64_t cursor;      /* within that object */
};

void coshm__reap_progress_forget(struct coshm__segment *segment)
{
	memset(segment->reap_progress, 0,
	       segment->member_count_max * sizeof(struct coshm__reap_progress));
}

struct coshm__reap_progress *coshm__reap_progress_new(const struct coshm__segment *segment)
{
	return calloc(segment->member_count_max, sizeof(struct coshm__reap_progress));
}

static int has_open(const struct coshm__member_shm *member, uint32_t entry_index)
{
	/* [D4] acquire: the member is dead, and sets no more bits */
	return (int)(coshm__a64_load_acquire(&member->open_objects[entry_index / 64]) >>
		     (entry_index % 64)) &
	       1;
}

/* Whose hazards they are: what is left under one may be something of which nobody has kept count. */
static void tell_objects(struct coshm__segment *segment, const struct coshm__member_shm *dead,
			 const struct coshm__thread_shm *thread)
{
	uint64_t offsets[COSHM__HAZARD_READS + COSHM__HAZARD_WRITES], any = 0;
	unsigned int count = 0;

	for (unsigned int h = 0; h < COSHM__HAZARD_READS; h++)
		any |= offsets[count++] = coshm__a64_load_relaxed(&thread->read_hazard[h]);
	for (unsigned int h = 0; h < COSHM__HAZARD_WRITES; h++)
		any |= offsets[count++] = coshm__a64_load_relaxed(&thread->write_hazard[h]);
	for (uint32_t entry = 0; any && entry < COSHM__ENTRY_COUNT; entry++) {
		struct coshm__handle *view = NULL;

		if (!has_open(dead, entry) || coshm__view_find(segment, entry, &view) ||
		    !view->object_type->abandoned)
			continue;
		for (unsigned int i = 0; i < count; i++)
			view->object_type->abandoned(view, offsets[i]);
	}
}

static void reap_threads(struct coshm__op *op, const struct coshm__member_shm *dead,
			 uint32_t dead_id)
{
	struct coshm__segment *segment = op->segment;
	uint32_t high = coshm__a32_load_seq_cst(&segment->header->thread_high_water); /* [T5] */

	for (uint32_t i = 0; i < high && i < segment->thread_count_max; i++) {
		struct coshm__thread_shm *thread = &segment->threads[i];
		uint32_t owner = dead_id;

		/* [T2] acquire: the owner is dead, and stores no more */
		if (coshm__a32_load_acquire(&thread->owner) != dead_id)
			continue;
		for (unsigned int lock = 0; lock < COSHM__LOCKS_HELD; lock++) {
			uint64_t offset = coshm__a64_load_relaxed(&thread->lock_offset[lock]);

			if (offset)
				coshm__rlock_take_over(op, offset, dead_id);
		}
		COSHM__CRASH_POINT(REAP_LOCKS_FREED);
		tell_objects(segment, dead, thread);
		coshm__a32_cas_acq_rel(&thread->owner, &owner, 0); /* [T3] */
		COSHM__CRASH_POINT(REAP_THREAD_FREED);
	}
}

/* Without the directory's lock: who holds it takes FREE entries only, and the creator stores no more. */
static void reap_entries(struct coshm__segment *segment, uint32_t dead_id)
{
	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT; i++) {
		struct coshm__a64 *entry = &segment->entries[i].word;
		uint64_t word = coshm__a64_load_acquire(entry); /* [D2] */

		if (coshm__entry_state_of(word) != COSHM__ENTRY_BUILDING ||
		    coshm__entry_owner_of(word) != dead_id)
			continue;
		/* [D1] */
		coshm__a64_cas_acq_rel(
			entry, &word,
			coshm__entry_word(coshm__entry_generation_of(word), 0, COSHM__ENTRY_FREE));
		COSHM__CRASH_POINT(REAP_ENTRY_FREED);
	}
}

/* 1 done; 0 there is more of it; negative: this object cannot be reaped by this process */
static int reap_object(struct coshm__op *op, struct coshm__reap_progress *progress)
{
	struct coshm__segment *segment = op->segment;
	struct coshm__handle *view = NULL;
	/* The dead member's bit keeps the memory. */
	int error = coshm__view_find(segment, progress->entry_index, &view);

	if (coshm__is_out_of_reach(error))
		return error;
	/* No object, one that is so damaged that nobody can open it, or one in which nothing is held. */
	if (error || !view->object_type->reap)
		return 1;
	return view->object_type->reap(op, view, progress->dead_id, &progress->cursor, CHUNK_WORDS);
}

/*
 * From here on the memory of what the dead had open stays until the reaper has stepped back, even if others finish before.
 * 0: they have finished already, and the memory may be somebody else's: what looks like a name of the dead there is payload.
 */
static int step_forward(struct coshm__op *op, const struct coshm__member_shm *dead, uint64_t word,
			uint32_t dead_id)
{
	struct coshm__member_shm *mine =
		&op->segment->members[COSHM__MEMBER_SLOT_OF(op->member_id)];

	/* [M8] seq_cst, pairs [M9]; before the look at the word */
	coshm__a64_store_seq_cst(&mine->reaps, dead_id);
	COSHM__CRASH_POINT(REAP_ANNOUNCED);
	/* [M8] */
	return coshm__a64_load_seq_cst(&dead->word) == word;
}

static void step_back(struct coshm__op *op)
{
	/* [M10] release, pairs [M9]; carries all that was repaired */
	coshm__a64_store_release(&op->segment->members[COSHM__MEMBER_SLOT_OF(op->member_id)].reaps,
				 0);
}

int coshm__somebody_reaps(const struct coshm__segment *segment)
{
	/* [M7] */
	uint32_t high = coshm__a32_load_seq_cst(&segment->header->member_high_water);

	for (uint32_t i = 0; i < high && i < segment->member_count_max; i++) {
		const struct coshm__member_shm *member = &segment->members[i];

		/* [M9] seq_cst, pairs [M8], [M10]; behind the looks at the bits of the dead */
		if (coshm__a64_load_seq_cst(&member->reaps) &&
		    /* [M9] */
		    (coshm__a64_load_seq_cst(&member->word) & 3) == COSHM__MEMBER_ALIVE)
			return 1;
	}
	return 0;
}

/* 1 the slot is free again; 0 more to do; negative: left to somebody who can */
static int reap_member(struct coshm__op *op, uint32_t slot, uint64_t word, uint64_t deadline_ns)
{
	struct coshm__segment *segment = op->segment;
	struct coshm__member_shm *member = &segment->members[slot];
	struct coshm__reap_progress *progress = &segment->reap_progress[slot];
	uint32_t dead_id = coshm__member_id(slot, word);
	int state;

	if (progress->dead_id != dead_id) {
		reap_threads(op, member, dead_id);
		reap_entries(segment, dead_id);
		*progress = (struct coshm__reap_progress){.dead_id = dead_id};
	}
	while (progress->entry_index < COSHM__ENTRY_COUNT) {
		if (has_open(member, progress->entry_index)) {
			if (coshm__now_ns(segment) > deadline_ns)
				return 0;
			state = reap_object(op, progress);
			if (state < 0)
				return state;
			if (state == 0)
				continue;
		}
		progress->entry_index++;
		progress->cursor = 0;
	}
	progress->dead_id = 0;
	/* [M5] acq_rel, pairs [M2]; no word names the id any more. If it fails, somebody else was through first. */
	if (coshm__a64_cas_acq_rel(&member->word, &word,
				   coshm__member_word(word >> 2, COSHM__MEMBER_FREE))) {
		COSHM__CRASH_POINT(REAP_MEMBER_FREED);
		coshm__a64_fetch_add_relaxed(&segment->header->reaped, 1);
		coshm__log(COSHM_LOG_WARNING, "%s: cleaned up after dead member %u", segment->path,
			   slot);
	}
	return 1;
}

int coshm__reap_all(struct coshm__op *op, uint64_t timeout_ns, uint32_t *ret_reaped)
{
	struct coshm__segment *segment = op->segment;
	/* [M7] acquire: whom it misses, the next reaping finds */
	uint32_t reaped = 0, high = coshm__a32_load_acquire(&segment->header->member_high_water);
	uint64_t deadline_ns = UINT64_MAX;
	int done = 1, unreachable = 0, state;

	/* Who passes by does not wait for a thread that is at it; who wants it all done does. */
	if (timeout_ns != UINT64_MAX) {
		deadline_ns = coshm__now_ns(segment) + timeout_ns;
		if (pthread_mutex_trylock(&coshm__process->reap))
			return -EBUSY;
	} else {
		pthread_mutex_lock(&coshm__process->reap);
	}
	for (uint32_t slot = 0; slot < high && slot < segment->member_count_max; slot++) {
		uint64_t word = coshm__a64_load_acquire(&segment->members[slot].word); /* [M2] */

		if (!coshm__member_word_is_sound(word)) {
			coshm__member_mend(segment, slot, word);
			continue;
		}
		if ((word & 3) == COSHM__MEMBER_ALIVE &&
		    coshm__member_is_dead(segment, coshm__member_id(slot, word)))
			word = coshm__a64_load_acquire(&segment->members[slot].word); /* [M2] */
		if ((word & 3) != COSHM__MEMBER_DEAD)
			continue;
		state = step_forward(op, &segment->members[slot], word,
				     coshm__member_id(slot, word))
				? reap_member(op, slot, word, deadline_ns)
				: OTHERS_DID;
		step_back(op);
		reaped += state == 1;
		done &= state != 0;
		if (state < 0)
			unreachable = state;
	}
	pthread_mutex_unlock(&coshm__process->reap);
	if (ret_reaped)
		*ret_reaped = reaped;
	return !done ? 0 : unreachable ? unreachable : 1;
}

void coshm__reap_tick(struct coshm__op *op, uint64_t now_ns)
{
	struct coshm__a64 *next = &op->segment->header->next_reap_at_ns;
	uint64_t expected = coshm__a64_load_relaxed(next);

	if (!op->thread || !coshm__reap_is_due(expected, now_ns))
		return;
	/* relaxed: it elects one, and orders nothing. A reaper that dies right here costs one interval. */
	if (!coshm__a64_cas_relaxed(next, &expected, now_ns + COSHM__REAP_INTERVAL_NS))
		return;
	COSHM__CRASH_POINT(REAP_ELECTED);
	if (coshm__reap_all(op, TICK_NS, NULL) == 0)
		coshm__a64_store_relaxed(next, now_ns); /* the next operation goes on */
}

int coshm__reap_now(struct coshm__op *op)
{
	return op->thread && coshm__reap_all(op, TICK_NS, NULL) == 1;
}

int coshm_segment_reap(struct coshm_segment *token, uint32_t *ret_members)
{
	struct coshm__op op;
	uint32_t reaped = 0;
	int error = coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT);

	if (error)
		return error;
	coshm__reap_all(&op, UINT64_MAX, &reaped);
	coshm__op_end(&op);
	if (ret_members)
		*ret_members = reaped;
	return 0;
}
