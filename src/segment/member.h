/* SPDX-License-Identifier: MIT */
/*
 * segment/member.h - who is attached, who is dead
 *
 * Liveness is one OFD byte-range write lock per member, held by a PROT_NONE mapping of an open file description that
 * nothing else uses: it ends with the process's memory, is not inherited by fork or clone, and reads the same from
 * every PID namespace. Only registrants ever take the byte; everybody else only asks (F_OFD_GETLK).
 */
#ifndef COSHM__SEGMENT_MEMBER_H
#define COSHM__SEGMENT_MEMBER_H

#include "segment/segment.h"

#define COSHM__MEMBER_SLOT_OF(id)	((id) >> COSHM__MEMBER_GENERATION_BITS)
#define COSHM__MEMBER_GENERATION_OF(id) ((id) & ((1u << COSHM__MEMBER_GENERATION_BITS) - 1))

/*
 * Is the process with this member id gone? 1 yes (recorded once and for ever in the member word), 0 no, or it cannot
 * be told right now. An id that no member has or had, or whose slot has moved on, is dead.
 * The word that the id was read from must have been written with release and read with acquire: otherwise the member's
 * slot may still look as before its registration, and a living member dead.
 * Cost: one load if the word tells, else one system call (0.2 us).
 */
int coshm__member_is_dead(struct coshm__segment *segment, uint32_t member_id);

/* Only what is recorded: 1 somebody found it dead or the slot has moved on. One load, never a system call. */
int coshm__member_is_known_dead(struct coshm__segment *segment, uint32_t member_id);

/* As coshm__member_is_dead for words that keep only the low 24 bits of an id: slot 10, generation 14. See coshm__id24. */
int coshm__member_is_dead24(struct coshm__segment *segment, uint32_t id24);

/* Threads that have a slot of their own; of one member, or of all if @member_id is 0. */
uint32_t coshm__thread_count(const struct coshm__segment *segment, uint32_t member_id);

/*
 * The short form of a member id for packed words that also carry a ticket or a page generation: slot << 14 | low 14
 * bits of the generation. Never 0, because generations whose low 14 bits are 0 are skipped.
 */
static inline uint32_t coshm__id24(uint32_t member_id)
{
	return COSHM__MEMBER_SLOT_OF(member_id) << 14 |
	       (COSHM__MEMBER_GENERATION_OF(member_id) & 0x3fff);
}

#endif
