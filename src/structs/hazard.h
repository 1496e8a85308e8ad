/* SPDX-License-Identifier: MIT */
/*
 * structs/hazard.h - reads that are RCU-protected page by page, across processes
 *
 * A page is published by words (slots) that name it. Before a page's memory is used anew, every word that names it
 * has been changed, and then a grace period has passed: nobody who could have seen those words is still inside the page.
 *
 * Reader   w = slot; protect(page of w); slot again == w in its location bits? then the page cannot be reused until
 *          unprotect. Otherwise retry.
 * Reuser   change all slots; coshm__hazard_barrier(); scan: a page that no hazard names is free for use.
 * Why      (asymmetric Dekker) The reader stores its hazard and then loads the slot; the reuser stores the slot and then
 *          loads the hazards. With a full barrier on both sides at least one sees the other. The reader's is only a
 *          compiler barrier: membarrier(GLOBAL_EXPEDITED) runs a full one on every CPU that runs a member. In a FENCED
 *          segment the reader's accesses are sequentially consistent and the reuser's barrier is a fence. Either way
 *          the reuser's barrier is not optional, and its changes of slots may have any order.
 * Death    hazards of a dead member count until its thread slots are reaped: a page is kept a little longer. What is
 *          left in a free slot means nothing; its next owner clears it.
 * Stopped  a stopped reader keeps at most its 4 read and 2 write pages.
 *
 * Pages are named by their byte offset in the segment, so hazards of different caches do not mix; 0 is none.
 */
#ifndef COSHM__STRUCTS_HAZARD_H
#define COSHM__STRUCTS_HAZARD_H

#include "segment/segment.h"

/*
 * Announce that this thread will touch the page; the caller must load the slot again afterwards with
 * coshm__hazard_recheck_load.
 */
static inline void coshm__hazard_protect(struct coshm__op *op, unsigned int i, uint64_t page_offset)
{
	struct coshm__a64 *hazard = &op->thread->read_hazard[i];

	if (coshm__unlikely(op->segment->fenced)) {
		/* [H1] seq_cst, pairs [H4] and the reuser's seq_cst change of the slot */
		coshm__a64_store_seq_cst(hazard, page_offset);
	} else {
		/* relaxed: the reuser's membarrier makes it visible before the load that follows */
		coshm__a64_store_relaxed(hazard, page_offset);
		coshm__compiler_barrier();
	}
}

/* The second load of the slot: acquire carries the item's bytes, seq_cst orders it behind [H1] in a FENCED segment. */
static inline uint64_t coshm__hazard_recheck_load(const struct coshm__op *op,
						  const struct coshm__a64 *slot)
{
	if (coshm__unlikely(op->segment->fenced))
		return coshm__a64_load_seq_cst(slot); /* [H2] seq_cst, with [H1] */
	return coshm__a64_load_acquire(
		slot); /* [H2] acquire, pairs the publishing CAS; carries the item */
}

static inline void coshm__hazard_clear(struct coshm__op *op, unsigned int i)
{
	/* [H3] release, pairs [H4]; all reads of the page are before it */
	coshm__a64_store_release(&op->thread->read_hazard[i], 0);
}

/*
 * For writers: the page is being written from here on. Only with the lock held that whoever declares the page complete
 * takes later: that lock carries it to the scan.
 */
static inline void coshm__hazard_write(struct coshm__op *op, unsigned int i, uint64_t page_offset)
{
	coshm__a64_store_relaxed(&op->thread->write_hazard[i], page_offset);
}

static inline void coshm__hazard_write_clear(struct coshm__op *op, unsigned int i)
{
	coshm__a64_store_release(&op->thread->write_hazard[i], 0); /* [H6] release, pairs [H4] */
}

/*
 * The heavy side: after it, every reader whose hazard a scan does not see will see the slots as changed before it.
 * 0, or -EAGAIN: the kernel could not do it now; free nothing.
 */
int coshm__hazard_barrier(struct coshm__segment *segment);

enum coshm__hazard_kinds {
	COSHM__HAZARD_READ = 1,
	COSHM__HAZARD_WRITE = 2,
	COSHM__HAZARD_PIN = 4,
};

/*
 * Which of @count pages (ascending offsets) does any thread or member keep? Sets bit i of @ret_busy for pages[i].
 * count <= 64. A scan visits all thread slots up to the high-water
 * mark and all members' pins.
 */
void coshm__hazard_scan(struct coshm__segment *segment, uint32_t kinds, const uint64_t *pages,
			uint32_t count, uint64_t *ret_busy);

/*
 * Long-lived pins of a member (views). pin: the index, or -EAGAIN when all 64 are taken; the caller must load the slot
 * again afterwards, as with protect. unpin: 0, or -ESTALE if the pin is not there any more.
 */
int coshm__pin_set(struct coshm__op *op, uint64_t page_offset);
int coshm__pin_clear(struct coshm__op *op, uint32_t pin, uint64_t page_offset);

#endif
