/* SPDX-License-Identifier: MIT */
/*
 * tests/starved/stock.h - a segment with one object of each kind, for tests in which the machine gives nothing
 *
 * Functions give back 0 or a line number, never assert: they also run in children.
 */
#ifndef TESTS_STARVED_STOCK_H
#define TESTS_STARVED_STOCK_H

#include <coshm/coshm.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "support/procs.h"

#define MIB (UINT64_C(1) << 20)

struct stock {
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct coshm_limiter *limiter;
	struct coshm_queue *queue;
};

/* Create what is missing, attach and open. */
int stock_open(struct stock *stock, const char *name, uint32_t segment_flags);

/* The same with slots for that many; 0: the default. */
int stock_open_for(struct stock *stock, const char *name, uint32_t segment_flags,
		   uint32_t member_count_max, uint32_t thread_count_max);

/* Detach, which closes all. */
int stock_close(struct stock *stock);

/* A little of everything; leaves tasks, keys and debts as it found them, but for the keys that are named by @who. */
int stock_use(struct stock *stock, unsigned int who);

/* What an error return must not have changed. */
struct stock_picture {
	uint64_t size_bytes, used_bytes;
	uint64_t file_size_bytes, file_blocks;
	uint32_t member_count, object_count, removed;
	uint64_t entries;
	struct coshm_queue_depth depth;
};
int stock_picture(struct stock *stock, struct stock_picture *ret_picture);

/* Damaged, or pending if @pending_allowed is 0: a line number. Findings go to stderr. */
int stock_verify(struct coshm_segment *segment, int pending_allowed);

/* Descriptors that are open, and mappings whose file's name holds @name. -1 without /proc */
int stock_descriptors(void);
int stock_mappings(const char *name);

/* What the library said to the log since the last hear_start(). */
void hear_start(void);
const char *hear_text(void);

/* Runs @body in a child that proc_spawn makes; its result. Here, as a program without procs.c uses the rest. */
static inline int run_in_child(int (*body)(void *arg), void *arg)
{
	return proc_collect(proc_spawn(body, arg), PROC_DEADLINE_NS);
}

/* For functions as above. */
#define NEED(condition)                                                                           \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			return 1 + __LINE__ % 80;                                                 \
		}                                                                                 \
	} while (0)

/* The same for a call that is to give @wanted: says what it gave. */
#define GIVES(wanted, call)                                                                      \
	do {                                                                                     \
		int given_ = (call);                                                             \
		if (given_ != (wanted)) {                                                        \
			fprintf(stderr, "# %s:%d: %s gave %d (%s)\n", __FILE__, __LINE__, #call, \
				given_, coshm_strerror(given_));                                 \
			return 1 + __LINE__ % 80;                                                \
		}                                                                                \
	} while (0)

/* Bounded waits behind a lock whose holder gets no CPU end in -EAGAIN: the same again, for a minute. */
#define GIVES_AT_LAST(wanted, call)                                      \
	do {                                                             \
		const struct timespec pause_ = {.tv_nsec = 1000000};     \
		int last_ = (call);                                      \
		for (int i_ = 0; last_ == -EAGAIN && i_ < 60000; i_++) { \
			nanosleep(&pause_, NULL);                        \
			last_ = (call);                                  \
		}                                                        \
		GIVES(wanted, last_);                                    \
	} while (0)

#endif
