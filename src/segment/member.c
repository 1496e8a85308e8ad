/* SPDX-License-Identifier: MIT */
/*
 * Members: registration, liveness, leaving.
 *
 * Words     member->word (segment_shm.h), and the kernel's record of who holds byte COSHM__LOCK_BYTE_MEMBERS + slot.
 * Commit    CAS FREE -> ALIVE. Before it a dead registrant has left nothing: the kernel drops its byte.
 * Repair    none. open_objects and pins of a slot count only while its word is ALIVE or DEAD; the registrant clears
 *           them while it holds the byte and the word is still FREE, when nobody else may write them. A rescuer that
 *           enters after a dead one also takes the reserve away from it, before the word moves on and the dead one's
 *           id is nobody's any more.
 */
#include "base/crash.h"
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESCUE_TRIES 100 /* of one millisecond, behind others that rescue */

static uint64_t key_serial; /* under the process mutex; a fork child goes on counting */

static int byte_lock(int fd, int command, uint32_t slot, short type, short *ret_type)
{
	struct flock range = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)(COSHM__LOCK_BYTE_MEMBERS + slot),
		.l_len = 1,
	};

	if (fcntl(fd, command, &range))
		return -errno;
	if (ret_type)
		*ret_type = range.l_type;
	return 0;
}

/* The application may have closed our descriptor, and its number may be something else by now. */
static int is_segments_file(const struct coshm__segment *segment, int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && (uint64_t)status.st_dev == segment->device &&
	       (uint64_t)status.st_ino == segment->inode;
}

/* An open file description of its own: through the descriptor that is kept, else by name. */
static int open_again(struct coshm__segment *segment, int flags)
{
	char link[32];
	int fd = -1;

	flags |= O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	if (segment->fd >= 0 && is_segments_file(segment, segment->fd)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", segment->fd);
		fd = open(link, flags);
	}
	if (fd < 0)
		fd = open(segment->path, flags | O_NOFOLLOW);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? -errno : -ENOTCONN;
	if (!is_segments_file(segment, fd)) {
		close(fd);
		return -ENOTCONN;
	}
	return fd;
}

int coshm__segment_fd(struct coshm__segment *segment, int *ret_close)
{
	*ret_close = segment->fd < 0 || !is_segments_file(segment, segment->fd);
	return *ret_close ? open_again(segment, segment->read_only ? O_RDONLY : O_RDWR)
			  : segment->fd;
}

static int membarrier_register(const struct coshm__segment *segment)
{
	if (segment->fenced)
		return 0;
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)
		return 0;
	return coshm__fail(-ENOTSUP,
			   "membarrier(2) is not allowed in this process (%s): create %s "
			   "with COSHM_SEGMENT_FENCED (shmctl create --fenced)",
			   strerror(errno), segment->path);
}

static uint64_t next_generation(uint64_t generation)
{
	const uint64_t last = (1u << COSHM__MEMBER_GENERATION_BITS) - 1;

	/* 1 ..; never one whose low 14 bits are 0, see coshm__id24; nor the last, whose id could look poisoned in a lock */
	do
		generation = (generation + 1) & last;
	while ((generation & 0x3fff) == 0 || generation == last);
	return generation;
}

static void describe(struct coshm__segment *segment, struct coshm__member_shm *member)
{
	uint64_t command[2] = {0, 0};

	prctl(PR_GET_NAME, command, 0, 0, 0);
	coshm__a32_store_relaxed(&member->pid, (uint32_t)getpid());
	coshm__a64_store_relaxed(&member->command[0], command[0]);
	coshm__a64_store_relaxed(&member->command[1], command[1]);
	coshm__a64_store_relaxed(&member->attached_at_ns, coshm__now_ns(segment));
}

static void high_water_raise(struct coshm__segment *segment, uint32_t above)
{
	struct coshm__a32 *mark = &segment->header->member_high_water;
	/* [M6] seq_cst, pairs [M7]; before this member's first pin or open bit, also when another has raised it */
	uint32_t now = coshm__a32_load_seq_cst(mark);

	while (now < above && !coshm__a32_cas_seq_cst(mark, &now, above)) /* [M6] */
		;
}

/*
 * The byte is ours. From FREE; or, for the rescue slot, from a holder that died: a rescuer holds nothing but locks,
 * which are recognised as dead by their generation, and the rescue thread slot.
 */
static int slot_enter(struct coshm__segment *segment, uint32_t slot, int take_from_dead,
		      uint32_t *ret_id)
{
	struct coshm__member_shm *member = &segment->members[slot];
	uint64_t word = coshm__a64_load_acquire(&member->word); /* [M2] */
	uint64_t alive = coshm__member_word(next_generation(word >> 2), COSHM__MEMBER_ALIVE);

	if ((word & 3) != COSHM__MEMBER_FREE && !take_from_dead)
		return -EAGAIN;
	coshm__a64_store_relaxed(&member->reaps, 0);
	for (unsigned int i = 0; i < COSHM__ENTRY_COUNT / 64; i++)
		coshm__a64_store_relaxed(&member->open_objects[i], 0);
	for (unsigned int i = 0; i < COSHM__PIN_COUNT; i++)
		coshm__a64_store_relaxed(&member->pins[i], 0);
	coshm__thread_reserve_clear(segment, slot);
	describe(segment, member);
	high_water_raise(segment, slot + 1);
	COSHM__CRASH_POINT(MEMBER_PREPARED);
	/* [M1] seq_cst, pairs [M2]; carries the cleared mark, bitmap and pins */
	if (!coshm__a64_cas_seq_cst(&member->word, &word, alive))
		return -EAGAIN;
	COSHM__CRASH_POINT(MEMBER_ALIVE);
	*ret_id = coshm__member_id(slot, alive);
	return 0;
}

/* Finds a slot and leaves its byte locked through fd. 0, -EUSERS, -ENOLCK */
static int slot_find(struct coshm__segment *segment, int fd, int rescue, uint32_t *ret_id)
{
	uint32_t first = rescue ? coshm__rescue_slot(segment) : 0;
	uint32_t end = rescue ? segment->member_count_max : coshm__rescue_slot(segment);

	for (uint32_t slot = first; slot < end; slot++) {
		/* relaxed: checked again under the byte lock */
		uint64_t word = coshm__a64_load_relaxed(&segment->members[slot].word);
		int error;

		if ((word & 3) != COSHM__MEMBER_FREE && !rescue)
			continue;
		error = byte_lock(fd, F_OFD_SETLK, slot, F_WRLCK, NULL);
		/* Not that somebody has it: then no other byte can be had either. */
		if (error == -ENOLCK)
			return error;
		if (error)
			continue;
		if (slot_enter(segment, slot, rescue, ret_id) == 0)
			return 0;
		byte_lock(fd, F_OFD_SETLK, slot, F_UNLCK, NULL);
	}
	return -EUSERS;
}

/* ALIVE -> FREE. Should the word say anything else, the slot is not ours any more, and stays as it is. */
static void slot_leave(struct coshm__segment *segment, uint32_t id)
{
	uint64_t generation = COSHM__MEMBER_GENERATION_OF(id);
	uint64_t alive = coshm__member_word(generation, COSHM__MEMBER_ALIVE);

	/* [M3] release, pairs [M2]; everything this member did is before it */
	coshm__a64_cas_release(&segment->members[COSHM__MEMBER_SLOT_OF(id)].word, &alive,
			       coshm__member_word(generation, COSHM__MEMBER_FREE));
	COSHM__CRASH_POINT(MEMBER_LEFT);
}

/* Takes a member slot with its reserve: the rescuer's, or any other. 0, -EUSERS all taken, other errors */
static int register_once(struct coshm__segment *segment, int rescue, uint32_t *ret_id)
{
	struct coshm__thread_shm *reserve;
	int error, fd = open_again(segment, O_RDWR);
	void *life;

	if (fd < 0)
		return coshm__fail(fd, "%s: cannot be opened again to become a member",
				   segment->path);
	life = mmap(NULL, COSHM__PAGE_BYTES, PROT_NONE, MAP_SHARED, fd, 0);
	if (life == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	/* Without it a child would keep the byte locked after its parent's death. */
	if (madvise(life, COSHM__PAGE_BYTES, MADV_DONTFORK)) {
		error = -ENOTSUP;
		goto fail;
	}
	error = slot_find(segment, fd, rescue, ret_id);
	if (error)
		goto fail;
	reserve = coshm__thread_claim_reserve(segment, *ret_id);
	if (!reserve) {
		slot_leave(segment, *ret_id);
		error = coshm__fail(-EUCLEAN, "%s: a thread slot is damaged", segment->path);
		goto fail;
	}
	coshm__process->reserve_thread[segment->index] = reserve;
	segment->life_mapping = life;
	/* relaxed: other threads find the segment by [G2], or are this one */
	coshm__a64_store_relaxed(&coshm__process->key[segment->index],
				 ++key_serial << 32 | *ret_id);
	close(fd);
	return 0;
fail:
	munmap(life, COSHM__PAGE_BYTES);
	close(fd);
	return error;
}

/* All slots are taken. Clean up after the dead as the rescuer. 0, -EUSERS: somebody else does it right now */
static int rescue(struct coshm__segment *segment)
{
	struct coshm__op op;
	uint32_t id;
	int error = register_once(segment, 1, &id);

	if (error)
		return error;
	error = coshm__op_begin_internal(&op, segment);
	if (!error) {
		coshm__reap_all(&op, UINT64_MAX, NULL);
		coshm__op_end(&op);
	}
	coshm__member_leave(segment);
	return error;
}

int coshm__member_register(struct coshm__segment *segment)
{
	const struct timespec pause = {.tv_nsec = (long)COSHM__NS_PER_MS};
	int rescued = 0, error = membarrier_register(segment);
	uint32_t id;

	if (!error)
		error = coshm__clock_namespace_offset_ns(&segment->clock_offset_ns);
	if (error)
		return error;
	for (int tries = 0; tries < RESCUE_TRIES; tries++) {
		error = register_once(segment, 0, &id);
		if (error != -EUSERS || rescued)
			break;
		error = rescue(segment);
		rescued = error == 0;
		if (error == -EUSERS)
			nanosleep(&pause, NULL);
		else if (error)
			break;
	}
	if (error == -EUSERS)
		return coshm__fail(error,
				   "%s: all %u members are attached: detach one, or create it with "
				   "a larger member_count_max",
				   segment->path, segment->member_count_max - 1);
	if (!error)
		coshm__a64_fetch_add_relaxed(&segment->header->attaches, 1);
	return error;
}

void coshm__member_leave(struct coshm__segment *segment)
{
	uint32_t id = (uint32_t)coshm__a64_load_relaxed(&coshm__process->key[segment->index]);
	uint32_t high = coshm__a32_load_relaxed(&segment->header->thread_high_water);

	if (!id)
		return;
	for (uint32_t i = 0; i < high && i < segment->thread_count_max; i++)
		if (coshm__a32_load_relaxed(&segment->threads[i].owner) == id)
			coshm__a32_store_release(&segment->threads[i].owner, 0); /* [T3] */
	coshm__a64_store_relaxed(&coshm__process->key[segment->index], 0);
	if (!coshm__member_is_rescuer(segment, id))
		coshm__a64_fetch_add_relaxed(&segment->header->detaches, 1);
	slot_leave(segment, id);
	if (segment->life_mapping)
		munmap(segment->life_mapping, COSHM__PAGE_BYTES);
	segment->life_mapping = NULL;
}

/* 1 the byte is not locked, 0 it is, or it cannot be told */
static int byte_is_free(struct coshm__segment *segment, uint32_t slot)
{
	int saved_errno = errno, close_it, fd = coshm__segment_fd(segment, &close_it), is_free = 0;
	short type = F_WRLCK;

	/*
	 * A read lock is not a member's: anyone who may read the file can place one. Before a death is believed, the
	 * descriptor is looked at again: another thread may have closed it since.
	 */
	if (fd >= 0 && byte_lock(fd, F_OFD_GETLK, slot, F_WRLCK, &type) == 0)
		is_free = type != F_WRLCK && is_segments_file(segment, fd);
	if (close_it && fd >= 0)
		close(fd);
	errno = saved_errno;
	return is_free;
}

void coshm__member_mend(struct coshm__segment *segment, uint32_t slot, uint64_t word)
{
	const uint64_t last = (1u << COSHM__MEMBER_GENERATION_BITS) - 1;

	/* [M5] as for a slot that was cleaned: nothing names an id that nobody ever had */
	if (byte_is_free(segment, slot) &&
	    coshm__a64_cas_acq_rel(&segment->members[slot].word, &word,
				   coshm__member_word(word >> 2 & last, COSHM__MEMBER_FREE)))
		coshm__log(COSHM_LOG_WARNING, "%s: member slot %u was damaged", segment->path,
			   slot);
}

static int word_is_dead(struct coshm__segment *segment, uint32_t slot, uint64_t word)
{
	struct coshm__header_shm *header = segment->header;

	if ((word & 3) != COSHM__MEMBER_ALIVE)
		return 1;
	if ((uint32_t)coshm__a64_load_relaxed(&coshm__process->key[segment->index]) ==
		    coshm__member_id(slot, word) &&
	    segment->life_mapping)
		return 0;
	if (!byte_is_free(segment, slot))
		return 0;
	if (segment->read_only)
		/* [M2] */
		return coshm__a64_load_acquire(&segment->members[slot].word) == word;
	/* [M4] acq_rel, pairs [M2]: the fact is recorded once. If it fails, somebody recorded it or the slot moved on. */
	if (coshm__a64_cas_acq_rel(&segment->members[slot].word, &word,
				   coshm__member_word(word >> 2, COSHM__MEMBER_DEAD))) {
		COSHM__CRASH_POINT(MEMBER_DEAD);
		coshm__a64_fetch_add_relaxed(&header->deaths, 1);
		coshm__log(COSHM_LOG_WARNING, "%s: member %u (pid %u) has died", segment->path,
			   slot, coshm__a32_load_relaxed(&segment->members[slot].pid));
	}
	return 1;
}

int coshm__member_is_known_dead(struct coshm__segment *segment, uint32_t member_id)
{
	uint32_t slot = COSHM__MEMBER_SLOT_OF(member_id);

	return slot >= segment->member_count_max ||
	       coshm__a64_load_acquire(&segment->members[slot].word) != /* [M2] */
		       coshm__member_word(COSHM__MEMBER_GENERATION_OF(member_id),
					  COSHM__MEMBER_ALIVE);
}

int coshm__member_is_dead(struct coshm__segment *segment, uint32_t member_id)
{
	uint32_t slot = COSHM__MEMBER_SLOT_OF(member_id);
	uint64_t word;

	if (slot >= segment->member_count_max)
		return 1;
	word = coshm__a64_load_acquire(
		&segment->members[slot].word); /* [M2] pairs [M1], [M3], [M4], [M5] */
	if ((word >> 2) != COSHM__MEMBER_GENERATION_OF(member_id))
		return 1;
	return word_is_dead(segment, slot, word);
}

int coshm__member_is_dead24(struct coshm__segment *segment, uint32_t id24)
{
	uint32_t slot = id24 >> 14;
	uint64_t word;

	if (slot >= segment->member_count_max)
		return 1;
	word = coshm__a64_load_acquire(&segment->members[slot].word); /* [M2] */
	if (((word >> 2) & 0x3fff) != (id24 & 0x3fff))
		return 1;
	return word_is_dead(segment, slot, word);
}
