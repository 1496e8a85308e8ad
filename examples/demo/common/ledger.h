/* SPDX-License-Identifier: MIT */
/*
 * Ledgers: what each process of the demo says that it did, outside the segment under test
 *
 * Every process appends to its own file in the run directory, one event per write(2) of 64 bytes.
 * The file is opened with O_APPEND and starts empty, so no event straddles a page of the page cache
 * and a SIGKILL leaves an event whole or absent. A reader may follow the files while they grow.
 *
 * An event is written after the act that it reports (a kill: before it). So a process killed in
 * between has done something that no ledger tells; the checks allow for exactly that.
 */
#ifndef DEMO_LEDGER_H
#define DEMO_LEDGER_H

#include <stddef.h>
#include <stdint.h>

enum demo_event_kind {
	DEMO_EVENT_CHILD_STARTED = 1, /* master. subject: worker, value[0]: role, [1]: pid */
	DEMO_EVENT_CHILD_DIED,	  /* master. subject: worker, value[0]: si_code, [1]: si_status */
	DEMO_EVENT_TASK_ACCEPTED, /* web worker. subject: task; enqueue had returned 0 */
	DEMO_EVENT_TASK_BEGUN,	  /* queue worker. subject: task; before anything is done for it */
	DEMO_EVENT_TASK_DONE,	  /* queue worker. subject: task; page set, not yet acked */
	DEMO_EVENT_KILLING,	  /* killer. subject: worker; before the signal */
	DEMO_EVENT_KILLED,	  /* killer. subject: worker, value: see below */
	DEMO_EVENT_SETTLED,	  /* master. value[0]: evictions, [1]: verify, as -errno, [2]: 1
					 if the queue ran empty */
};

/* What a victim can hold. */
enum demo_holding {
	DEMO_HOLDING_LEASE, /* of a task */
	DEMO_HOLDING_LANE,  /* the lock of a lane of the cache */
	DEMO_HOLDING_PAGE,  /* a page of the cache, being read, written or pinned */
	DEMO_HOLDING_RLOCK, /* another lock */
	DEMO_HOLDING_NOTHING,
	DEMO_HOLDING_COUNT,
};

extern const char *const demo_holding_names[DEMO_HOLDING_COUNT];

/* DEMO_EVENT_KILLED: value[0] has the bit of each kind that the victim held at the signal (none:
 * nothing); value[1] and [2] are how long after the signal the process was gone and everything it
 * had held was free, in ns (UINT64_MAX: not within the time that the killer watches) */
#define DEMO_HOLDING_BIT(kind) (UINT64_C(1) << (kind))

/* A worker is a life of a child process, numbered by the master: a pid comes back, this does not. */
struct demo_event {
	uint32_t magic;
	uint32_t kind;
	uint64_t at_ns;
	uint64_t worker; /* who writes */
	uint64_t subject;
	uint64_t value[3];
	uint64_t reserved;
};

_Static_assert(sizeof(struct demo_event) == 64, "must divide the page size");

/* The writers of a run directory that are no children of the master. */
#define DEMO_WORKER_MASTER UINT64_MAX
#define DEMO_WORKER_KILLER (UINT64_MAX - 1)

struct demo_ledger {
	int fd;
	uint64_t worker;
};

int demo_ledger_open(struct demo_ledger *ledger, const char *run_dir, uint64_t worker);
void demo_ledger_close(struct demo_ledger *ledger);

/* 0 or -errno; value may be NULL. fd -1 is a ledger that nobody wants: 0. */
int demo_ledger_append(const struct demo_ledger *ledger, enum demo_event_kind kind,
		       uint64_t subject, const uint64_t value[3]);

/* Follows all ledgers of a run directory. */
struct demo_ledger_reader {
	char *run_dir;
	struct demo_ledger_file {
		char *path;
		uint64_t offset;
	} * files;
	size_t file_count;
};

int demo_ledger_reader_open(struct demo_ledger_reader *reader, const char *run_dir);
void demo_ledger_reader_close(struct demo_ledger_reader *reader);

/*
 * Calls on_event for each event that appeared since the last call; per file in the order written,
 * between files in no order. 0, -EBADMSG for an event that is not one (torn or foreign), -errno.
 */
int demo_ledger_read(struct demo_ledger_reader *reader,
		     void (*on_event)(void *user, const struct demo_event *event), void *user);

#endif
