/* SPDX-License-Identifier: MIT */
/* tests/torture/work.h - what a process does to each kind of object, and what must be true at the end */
#ifndef TESTS_TORTURE_WORK_H
#define TESTS_TORTURE_WORK_H

#include "torture/books.h"

#include <coshm/cache.h>
#include <coshm/limiter.h>
#include <coshm/queue.h>
#include <coshm/segment.h>

#define BUFFER_BYTES (300 << 10)

struct handles {
	struct coshm_segment *segment;
	struct coshm_cache *caches[CACHES];
	struct coshm_limiter *limiter;
	struct coshm_queue *queues[QUEUES];
};

/* A thread at work. */
struct worker {
	struct handles *handles;
	uint64_t random;
	int actor;		      /* -1: reads only */
	unsigned char *buffer, *copy; /* BUFFER_BYTES each */
};

/* Opens by name what the plan has. 0, or -errno */
int handles_open(struct handles *handles, uint32_t attach_flags);

/* The life of a process, from fork or exec on: @slot and @life choose what it does. Ends the process. */
__attribute__((noreturn)) void member_live(struct handles *inherited, uint32_t slot, uint64_t life);

int cache_create(struct coshm_segment *segment);
void cache_work(struct worker *worker);
/* Pins a value and leaves it pinned. */
void cache_hold(struct worker *worker);
/* On a read-only attach. */
void cache_look(struct worker *worker);
/* Nobody works any more, and the dead are reaped. */
void cache_audit(struct worker *worker);

int limiter_create(struct coshm_segment *segment);
void limiter_work(struct worker *worker);
/* While all work: of the bins that are over. */
void limiter_check(void);
void limiter_audit(struct worker *worker);

int queue_create(struct coshm_segment *segment);
void queue_work(struct worker *worker);
/* A task that is held in the parent when it forks is not the child's. */
void queue_work_over_fork(struct worker *worker, pid_t (*fork_now)(void *context), void *context);
/* Takes a task, if there is one, and leaves it to the end of the membership: a death, or (@gives_up) a detach. */
void queue_hold(struct worker *worker, int gives_up);
void queue_audit(struct worker *worker);

/* Once in a process; now and then. */
void points_begin(void);
void points_arm(struct worker *worker);

/* Objects that come and go. */
void objects_work(struct worker *worker);
/* On a read-only attach, which keeps nothing of them. */
void objects_look(struct worker *worker, struct coshm_segment *segment);

#endif
