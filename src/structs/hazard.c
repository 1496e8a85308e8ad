/* SPDX-License-Identifier: MIT */
#include "structs/hazard.h"
#include "base/crash.h"
#include "segment/member.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

int coshm__hazard_barrier(struct coshm__segment *segment)
{
	int saved_errno = errno, result = 0;

	if (segment->fenced) {
		/*
		 * A fence, not an operation: it stands between the caller's changes of slots, of whatever order, and
		 * the loads [H4]. The readers' [H1] and [H2] are seq_cst operations.
		 */
		coshm__full_fence();
		return 0;
	}
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0))
		result = -EAGAIN;
	errno = saved_errno;
	return result;
}

static void mark(const uint64_t *pages, uint32_t count, uint64_t hazard, uint64_t *busy)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (pages[middle] < hazard)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < count && pages[low] == hazard)
		*busy |= UINT64_C(1) << low;
}

static void scan_slots(struct coshm__segment *segment, uint32_t first, uint32_t end, uint32_t kinds,
		       const uint64_t *pages, uint32_t count, uint64_t *busy)
{
	for (uint32_t i = first; i < end; i++) {
		const struct coshm__thread_shm *thread = &segment->threads[i];

		/* [T2] seq_cst, pairs [T1], [T3]; what a free slot holds is a former owner's */
		if (coshm__a32_load_seq_cst(&thread->owner) == 0)
			continue;
		/* [H4] seq_cst (plain loads on x86), pairs [H1], [H3], [H6], [P1], [P2] */
		for (unsigned int h = 0; h < COSHM__HAZARD_READS && (kinds & COSHM__HAZARD_READ);
		     h++)
			mark(pages, count, coshm__a64_load_seq_cst(&thread->read_hazard[h]), busy);
		for (unsigned int h = 0; h < COSHM__HAZARD_WRITES && (kinds & COSHM__HAZARD_WRITE);
		     h++)
			/* [H4] */
			mark(pages, count, coshm__a64_load_seq_cst(&thread->write_hazard[h]), busy);
	}
}

static uint32_t lower_of(uint32_t one, uint32_t other)
{
	return one < other ? one : other;
}

/* Reserves of members that there never were, and slots that were never claimed, are left out. */
static void scan_threads(struct coshm__segment *segment, uint32_t kinds, const uint64_t *pages,
			 uint32_t count, uint64_t *busy)
{
	/* [M7] */
	uint32_t members = coshm__a32_load_seq_cst(&segment->header->member_high_water);
	/* [T5] seq_cst, pairs [T4] */
	uint32_t threads = coshm__a32_load_seq_cst(&segment->header->thread_high_water);

	scan_slots(segment, 0, lower_of(members, segment->member_count_max), kinds, pages, count,
		   busy);
	scan_slots(segment, segment->member_count_max, lower_of(threads, segment->thread_count_max),
		   kinds, pages, count, busy);
}

static void scan_pins(struct coshm__segment *segment, const uint64_t *pages, uint32_t count,
		      uint64_t *busy)
{
	/* [M7] */
	uint32_t high = coshm__a32_load_seq_cst(&segment->header->member_high_water);

	for (uint32_t i = 0; i < high && i < segment->member_count_max; i++) {
		const struct coshm__member_shm *member = &segment->members[i];

		/* Pins of the dead are void. [H4] as above */
		if ((coshm__a64_load_seq_cst(&member->word) & 3) != COSHM__MEMBER_ALIVE)
			continue;
		for (unsigned int pin = 0; pin < COSHM__PIN_COUNT; pin++)
			/* [H4] */
			mark(pages, count, coshm__a64_load_seq_cst(&member->pins[pin]), busy);
	}
}

void coshm__hazard_scan(struct coshm__segment *segment, uint32_t kinds, const uint64_t *pages,
			uint32_t count, uint64_t *ret_busy)
{
	uint64_t busy = 0;

	if (kinds & (COSHM__HAZARD_READ | COSHM__HAZARD_WRITE))
		scan_threads(segment, kinds, pages, count, &busy);
	if (kinds & COSHM__HAZARD_PIN)
		scan_pins(segment, pages, count, &busy);
	*ret_busy = busy;
}

int coshm__pin_set(struct coshm__op *op, uint64_t page_offset)
{
	struct coshm__member_shm *member =
		&op->segment->members[COSHM__MEMBER_SLOT_OF(op->member_id)];

	for (int pin = 0; pin < COSHM__PIN_COUNT; pin++) {
		uint64_t nothing = 0;

		if (coshm__a64_load_relaxed(&member->pins[pin]) != 0)
			continue;
		/* [P1] seq_cst, pairs [H4]; the slot is loaded again after it */
		if (coshm__a64_cas_seq_cst(&member->pins[pin], &nothing, page_offset)) {
			COSHM__CRASH_POINT(PIN_SET);
			return pin;
		}
	}
	return -EAGAIN;
}

int coshm__pin_clear(struct coshm__op *op, uint32_t pin, uint64_t page_offset)
{
	struct coshm__member_shm *member =
		&op->segment->members[COSHM__MEMBER_SLOT_OF(op->member_id)];

	/* [P2] release, pairs [H4]; all reads of the view are before it */
	if (pin >= COSHM__PIN_COUNT || !coshm__a64_cas_release(&member->pins[pin], &page_offset, 0))
		return -ESTALE;
	COSHM__CRASH_POINT(PIN_CLEARED);
	return 0;
}
