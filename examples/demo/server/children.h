/* SPDX-License-Identifier: MIT */
/*
 * The master's table of its workers, on a page shared with the killer
 *
 * It is not in the segment: it belongs to the demo, and the killer must work without help from what
 * it tests. The master is the only writer.
 */
#ifndef DEMO_SERVER_CHILDREN_H
#define DEMO_SERVER_CHILDREN_H

#include <stdatomic.h>
#include <stdint.h>

#define DEMO_CHILDREN_MAX 128

enum demo_role {
	DEMO_ROLE_WEB = 1,
	DEMO_ROLE_QUEUE = 2,
};

struct demo_child {
	uint32_t role;
	uint32_t index;		 /* among those of its role */
	_Atomic uint64_t worker; /* number of this life, see ledger.h */
	/* 0 while there is none. It is cleared before the dead child is reaped, so while it is set
	 * the number names this child and no stranger. */
	_Atomic uint32_t pid;
};

struct demo_children {
	uint32_t count;
	struct demo_child list[DEMO_CHILDREN_MAX];
};

#endif
