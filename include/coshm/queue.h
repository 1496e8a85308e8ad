/* SPDX-License-Identifier: MIT */
/*
 * coshm/queue.h - a task queue shared by all members of a segment
 *
 * Use when      some processes hand work to others on the same host and no task may be lost when a worker dies.
 * Use something else to carry streams of bytes (a pipe), to broadcast (every task goes to one worker), or for tasks
 *               that must survive a reboot.
 *
 * Promises      P1 A task whose enqueue returned is delivered at least once; it is gone only after ack, or in the dead
 *                  letters, where it stays until redriven or dropped.
 *               P2 A task is delivered again only if its lease was given up: nack, release, or the death of its
 *                  holder. There is no timeout after which a slow worker's task is given to another one.
 *               P3 The death of a worker is noticed within 10 ms of the kernel's teardown of it while anyone works
 *                  and gets a CPU (99 of 100), 100 ms when all sleep, and its tasks are ready again at once. Only a
 *                  task whose worker died in the delivery before as well waits for the backoff: it may be what
 *                  kills them.
 *               P4 enqueue, reserve and ack are lock-free; a stopped or killed member never blocks the others.
 *               P5 Nothing is a system call unless somebody sleeps; sleeping consumers use no CPU.
 *               P6 A full queue answers -EAGAIN at once. Retries never fail for want of room.
 * Not promised  N1 Exactly once: a worker killed between doing the work and ack leads to a second delivery.
 *               N2 Strict order: tasks start in about the order they were enqueued; retries come later.
 *               N3 An enqueue killed before it returned may or may not have happened.
 * Progress      enqueue, reserve, ack, nack, release: lock-free.
 * Source        rings: NCQ of Nikolaev, DISC 2019, used as hints; the task's own state word is the truth.
 * Example       examples/queue-worker.c
 */
#ifndef COSHM_QUEUE_H
#define COSHM_QUEUE_H

#include <coshm/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum coshm_backoff_kind {
	COSHM_BACKOFF_EXPONENTIAL = 0, /* default: base, 2 base, 4 base ... */
	COSHM_BACKOFF_LINEAR = 1,      /* base, 2 base, 3 base ... */
	COSHM_BACKOFF_FIXED = 2,       /* base each time */
};

struct coshm_queue_config {
	size_t struct_size_bytes;
	uint64_t capacity;	    /* tasks in any state, dead letters included; at most 65536 */
	uint64_t payload_max_bytes; /* largest payload; default 192, at most 1 GiB */
	uint64_t
		payload_pool_bytes; /* memory for payloads that do not fit inline; default capacity x
				      * payload_max_bytes, capped at 1/4 of the segment */
	uint64_t backoff_base_ns;   /* delay after the first failed attempt; default 1 s */
	uint64_t backoff_max_ns;    /* no retry waits longer; default 1 h, or the base if longer */
	uint32_t backoff_kind;	    /* coshm_backoff_kind */
	uint32_t
		backoff_jitter_percent; /* 0 to 100: up to this share of the delay is random; default 0 */
	uint32_t max_attempts;		/* deliveries before a task is dead; default 20 */
	uint32_t
		attempt_record_count; /* failures remembered per task, 72 bytes each; default and most 8 */
};

enum coshm_task_state {
	COSHM_TASK_READY = 1,	/* waits for a worker; also a delayed task whose time has come */
	COSHM_TASK_DELAYED = 2, /* waits for its time */
	COSHM_TASK_LEASED = 3,	/* with a worker */
	COSHM_TASK_DEAD = 4,	/* dead letter */
	COSHM_TASK_OTHER = 5,	/* being built or cleaned up */
};

struct coshm_enqueue_options {
	size_t struct_size_bytes;
	uint64_t delay_ns;     /* not before this long from now */
	uint32_t max_attempts; /* 0: the queue's */
	uint32_t reserved;
};

/* A lease on a task. Fields below the line are the library's. */
struct coshm_task {
	uint64_t id;
	uint64_t payload_size_bytes;
	uint64_t enqueued_at_ns; /* segment clock */
	uint32_t attempt;	 /* 1 for the first delivery */
	uint32_t max_attempts;
	/* --- */
	uint64_t opaque[4];
};

/*
 * Life: create, open, close.
 * Returns   as coshm_cache_create
 */
COSHM_CHECK_RESULT int coshm_queue_create(struct coshm_segment *segment, const char *name,
					  const struct coshm_queue_config *config, uint32_t flags,
					  struct coshm_queue **ret_queue);
COSHM_CHECK_RESULT int coshm_queue_open(struct coshm_segment *segment, const char *name,
					struct coshm_queue **ret_queue);
int coshm_queue_close(struct coshm_queue *queue);
COSHM_CHECK_RESULT int coshm_queue_config(struct coshm_queue *queue,
					  struct coshm_queue_config *ret_config);

/*
 * coshm_queue_enqueue - append one task
 * @payload   copied; may be NULL if payload_size_bytes is 0
 * @options   NULL: none
 * @ret_id    may be NULL; never 0; not reused while the queue lives (63 bits)
 *
 * Safety    MT MP FORK KILL       Progress  lock-free
 * Cost      one copy, no lock; with reserve, payload and ack 15 of the segment's lines, 5 of which other tasks share
 * Returns   0; -EAGAIN: full (no free task, or no room for the payload); -EMSGSIZE; -ESHUTDOWN: removed; -EINVAL;
 *           -EROFS
 */
COSHM_CHECK_RESULT int coshm_queue_enqueue(struct coshm_queue *queue, const void *payload,
					   size_t payload_size_bytes,
					   const struct coshm_enqueue_options *options,
					   uint64_t *ret_id);

/*
 * coshm_queue_reserve - take the next task
 * @timeout_ns  0: do not wait; COSHM_FOREVER: until there is one
 *
 * Spins for about the cost of a wake-up, then sleeps. The attempt counts from here on.
 * Returns   1 got one; 0 none within the timeout; -EINTR: a signal handler ran while asleep; -ESHUTDOWN: the queue
 *           was removed and holds nothing more; -EINVAL; -EROFS
 */
COSHM_CHECK_RESULT int coshm_queue_reserve(struct coshm_queue *queue, uint64_t timeout_ns,
					   struct coshm_task *ret_task);

/*
 * coshm_queue_payload - copy a leased task's payload
 * @size_bytes  in: capacity; out: size
 * Returns   0; -ENOBUFS; -ESTALE: the lease is not yours any more; -EUCLEAN: the payload is damaged; -EINVAL
 */
COSHM_CHECK_RESULT int coshm_queue_payload(struct coshm_queue *queue, const struct coshm_task *task,
					   void *buffer, size_t *size_bytes);

/*
 * How a lease ends.
 * ack       done: the task is gone.
 * nack      failed: the text (at most 55 bytes are kept) joins the task's attempts; it comes back after the backoff,
 *           or is dead after its last attempt. @delay_ns: COSHM_FOREVER takes the queue's backoff.
 * release   not tried: it goes back at once and this delivery is not counted as an attempt.
 * bury      hopeless: dead at once, whatever attempts are left.
 *
 * Safety    MT MP KILL; a lease may be ended by another thread of the same process, not by a forked child
 * Returns   0; -ESTALE: not leased to this process any more; -EINVAL: task is NULL, or a delay of over four years
 */
COSHM_CHECK_RESULT int coshm_queue_ack(struct coshm_queue *queue, const struct coshm_task *task);
COSHM_CHECK_RESULT int coshm_queue_nack(struct coshm_queue *queue, const struct coshm_task *task,
					const char *error, uint64_t delay_ns);
COSHM_CHECK_RESULT int coshm_queue_release(struct coshm_queue *queue,
					   const struct coshm_task *task);
COSHM_CHECK_RESULT int coshm_queue_bury(struct coshm_queue *queue, const struct coshm_task *task,
					const char *error);

enum coshm_attempt_outcome {
	COSHM_ATTEMPT_RUNNING = 1,
	COSHM_ATTEMPT_FAILED = 2,  /* nack or bury */
	COSHM_ATTEMPT_CRASHED = 3, /* its worker died */
};

struct coshm_task_attempt {
	uint32_t attempt; /* 1 is the first */
	uint32_t outcome; /* coshm_attempt_outcome */
	uint64_t ended_at_ns;
	char error[56];
};

struct coshm_task_info {
	uint64_t id;
	uint64_t payload_size_bytes;
	uint64_t enqueued_at_ns;
	uint64_t due_at_ns;    /* tasks that wait, or waited, for their time; else 0 */
	uint64_t leased_at_ns; /* leased tasks: since when */
	uint32_t state;	       /* coshm_task_state */
	uint32_t attempts;
	uint32_t max_attempts;
	uint32_t holder_pid;	       /* leased tasks; for display */
	uint32_t attempt_record_count; /* the last 8 attempts that failed, oldest first */
	uint32_t reserved;
	struct coshm_task_attempt attempt_records[8];
};

/*
 * coshm_queue_each - walk over the tasks in the queue, in no particular order
 * @state_mask  1 << state of each coshm_task_state that is wanted; 0: all
 * @each        gets private copies, no lock held; payload is NULL if COSHM_QUEUE_EACH_PAYLOAD is not in flags, for
 *              COSHM_TASK_OTHER, and where the payload is damaged
 * Works on a read-only attach. Returns 0; what @each returned; -ENOMEM; -EBADF
 */
enum coshm_queue_each_flags { COSHM_QUEUE_EACH_PAYLOAD = 1 };
COSHM_CHECK_RESULT int coshm_queue_each(
	struct coshm_queue *queue, uint32_t state_mask, uint32_t flags,
	int (*each)(void *context, const struct coshm_task_info *info, const void *payload),
	void *context);

/*
 * coshm_queue_redrive - make dead letters ready again, attempts counted from zero, history kept
 * coshm_queue_drop - delete dead letters
 * @id         one task; 0: all that are dead now
 * @ret_count  how many; may be NULL
 * Returns   0; -ENOENT: no dead letter with that id; -EROFS
 */
COSHM_CHECK_RESULT int coshm_queue_redrive(struct coshm_queue *queue, uint64_t id,
					   uint64_t *ret_count);
COSHM_CHECK_RESULT int coshm_queue_drop(struct coshm_queue *queue, uint64_t id,
					uint64_t *ret_count);

struct coshm_queue_depth {
	uint64_t ready;
	uint64_t delayed;
	uint64_t leased;
	uint64_t dead;
	uint64_t capacity;
};

/* coshm_queue_depth - tasks by state, counted by a walk over all records (some 10 ns each). */
COSHM_CHECK_RESULT int coshm_queue_depth(struct coshm_queue *queue,
					 struct coshm_queue_depth *ret_depth);

/* What a handler's return makes of its task. */
enum coshm_worker_verdict {
	COSHM_WORKER_ACK = 0,
	COSHM_WORKER_RETRY = 1, /* nack with the queue's backoff */
	COSHM_WORKER_BURY = 2,
};

struct coshm_worker_options {
	size_t struct_size_bytes;
	uint64_t tasks_max; /* return after this many; 0: no limit */
	uint32_t flags;	    /* COSHM_WORKER_* */
	uint32_t reserved;
};

enum coshm_worker_flags {
	COSHM_WORKER_NO_SIGNALS = 1, /* leave SIGTERM and SIGINT alone; stop by coshm_worker_stop */
	COSHM_WORKER_UNTIL_EMPTY = 2, /* return when nothing is ready */
};

/*
 * coshm_worker_run - take tasks and hand them to a function until told to stop
 * @handler   gets the task and a private copy of its payload; returns a coshm_worker_verdict. Write an error text
 *            (NUL-terminated, 55 bytes at most are kept) into @error for RETRY and BURY.
 *
 * SIGTERM and SIGINT mean drain: the task at hand is finished, no other is taken, the function returns. The previous
 * handlers are restored at return. Fatal signals and _exit in the handler count as a crash of this attempt. A task
 * whose payload is damaged is buried.
 * Safety    MT (use COSHM_WORKER_NO_SIGNALS in all but one thread) MP KILL
 * Returns   number of tasks handled, capped at INT_MAX; -ESHUTDOWN; -ENOMEM; -EINVAL; -EROFS
 */
COSHM_CHECK_RESULT int coshm_worker_run(struct coshm_queue *queue,
					int (*handler)(void *context, const struct coshm_task *task,
						       const void *payload, char error[56]),
					void *context, const struct coshm_worker_options *options);

/*
 * coshm_worker_stop - make every coshm_worker_run of this process that has begun drain and return
 *
 * One that sleeps returns within 50 ms. Runs that begin later are not concerned.
 * Safety    MT AS
 */
void coshm_worker_stop(void);

#ifdef __cplusplus
}
#endif
#endif
