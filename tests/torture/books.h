/* SPDX-License-Identifier: MIT */
/*
 * tests/torture/books.h - what the processes of a soak say that they do, outside of the segment
 *
 * One file, mapped by all. Each word is written before an act ("begun") or after it ("done"), so what a SIGKILL in between
 * leaves is an act that may or may not have happened, and the checks allow for exactly that.
 *
 * A process has an entry here (struct process_book) from its first line to its collection; words that name a process name the
 * entry and its serial. An actor is one thread's licence to write: the keys of an actor have no other writer. A licence
 * comes back when its thread gives it back, or when its process was collected, never while a dying thread may still run.
 */
#ifndef TESTS_TORTURE_BOOKS_H
#define TESTS_TORTURE_BOOKS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

#define PROCESSES    256
#define ACTORS	     80
#define CACHES	     3
#define CACHE_STRICT 2 /* policy none: nothing may be missing */
#define ACTOR_KEYS   8
#define KEYS	     (ACTORS * ACTOR_KEYS)
#define NUMBERS	     64
#define LIMITER_KEYS 8
#define BINS	     128 /* of BIN_NS, a ring */
#define BIN_NS	     (250 * MS)
#define BIN_BITS     24
#define QUEUES	     2
#define TASKS	     65536

enum objects { OBJECT_CACHE = 1, OBJECT_LIMITER = 2, OBJECT_QUEUE = 4, OBJECT_ALL = 7 };

/* What a kill may find in its victim's hands. */
enum holding {
	HOLD_LOCK,
	HOLD_LANE,
	HOLD_PAGE_READ,
	HOLD_PAGE_WRITTEN,
	HOLD_PIN,
	HOLD_LEASE,
	HOLD_NOTHING,
	HOLDINGS,
};

/* serial << 1 | doomed. Doomed: it will not act again as far as coshm can tell: killed, or about to exec or exit. */
struct process_book {
	_Atomic int pid; /* 0: free */
	_Atomic uint32_t word;
	_Atomic uint32_t reads_only; /* it has no member slot */
};

/* Words of an actor are written by who has it. */
struct actor_book {
	_Atomic uint32_t owner; /* reference of its process, 0: free */
	_Atomic uint64_t numbers_begun[NUMBERS], numbers_done[NUMBERS];
};

/* Versions are counted per key; what a version is (a value, of which size, for how long, or a delete) follows from its number. */
struct key_book {
	_Atomic uint64_t begun;
	_Atomic uint64_t begun_at_ns; /* coarse clock; after begun */
	_Atomic uint64_t done_at_ns;  /* coarse clock; before done */
	_Atomic uint64_t done_flush;  /* flushes begun when it was done; before done */
	_Atomic uint64_t done;
	_Atomic uint64_t seen; /* the highest that any reader was given */
};

struct limiter_book {
	_Atomic uint64_t admitted, refunds_begun, first_ns, last_ns;
	/* Which of all bins this is << BIN_BITS | admitted. One word: who begins it anew may be stopped, or killed. */
	_Atomic uint64_t bins[BINS];
};

/*
 * A task: state:4 << 60 | generation:28 << 32 | process:32. Payloads carry index and generation, so a task that comes
 * back after its end names a generation that is over.
 */
enum task_state {
	TASK_FREE,
	TASK_ENQUEUING, /* by the process */
	TASK_ENQUEUED,
	TASK_LEASED,	/* to the process */
	TASK_GIVING_UP, /* nack, release, bury, or a process that ends: may be delivered again */
	TASK_ACKING,	/* by the process */
	TASK_DROPPING,
};

struct task_book {
	_Atomic uint64_t word;
	_Atomic uint64_t due_at_ns;
	_Atomic uint64_t deliveries;
};

/* Events, by all processes together. */
enum event {
	EVENT_SETS,
	EVENT_SETS_REFUSED,
	EVENT_DELETES,
	EVENT_HITS,
	EVENT_MISSES,
	EVENT_LARGE_HITS,
	EVENT_SCANNED,
	EVENT_PEEKS_READ_ONLY,
	EVENT_SCANNED_READ_ONLY,
	EVENT_PINS,
	EVENT_INCREMENTS,
	EVENT_FLUSHES,
	EVENT_ADMITTED,
	EVENT_REFUSED,
	EVENT_ENQUEUED,
	EVENT_QUEUE_FULL,
	EVENT_DELIVERED,
	EVENT_DELIVERED_AGAIN,
	EVENT_ACKED,
	EVENT_GIVEN_UP,
	EVENT_DROPPED,
	EVENT_OBJECTS,
	EVENT_LIVES,
	EVENT_FORKS,
	EVENT_EXECS,
	EVENT_DETACHES,
	EVENT_DEATHS_AT_POINTS,
	EVENT_PAUSES_AT_POINTS,
	EVENTS,
};

extern const char *const event_names[EVENTS];

struct plan {
	uint64_t seed;
	uint64_t run_ns;
	uint32_t processes;
	uint32_t objects;
	uint32_t no_kill;
	uint32_t large; /* half of the values have many pages, and more processes only read */
	char segment[64];
	char folder[128];
	uint64_t started_at_ns, hard_end_ns; /* whatever happens, every process ends by then */
};

struct books {
	struct plan plan;
	_Atomic uint32_t over;
	_Atomic uint64_t violations;
	_Atomic uint64_t events[EVENTS];
	struct process_book processes[PROCESSES];
	struct actor_book actors[ACTORS];
	struct key_book keys[CACHES][KEYS];
	_Atomic uint64_t flushes_begun[CACHES],
		flushes_done[CACHES]; /* done: highest number that is */
	_Atomic uint64_t number_seen[NUMBERS];
	struct limiter_book limits[LIMITER_KEYS];
	struct task_book tasks[QUEUES][TASKS];
	_Atomic uint32_t gardener; /* reference of the process that redrives and drops */
};

extern struct books *books;

/* Maps the file in @folder; creates it if @plan is given. 0 or -errno */
int books_open(const char *folder, const struct plan *plan);

/* Says what is wrong and ends the soak. Any process. */
__attribute__((format(printf, 1, 2))) void violation(const char *format, ...);

static inline void count(enum event event, uint64_t add)
{
	atomic_fetch_add_explicit(&books->events[event], add, memory_order_relaxed);
}

int is_over(void);

/* --- processes and actors ------------------------------------------------------------------------------------- */

/* Of this process; process_enter() after each fork and exec. */
uint32_t process_self(void);
void process_enter(void);
/* This process is about to end or exec without giving anything back. */
void process_doom_self(void);
/* Before SIGKILL. */
void process_doom(pid_t pid);
/* After its death, before its pid can be used again. 1 it was doomed, 0 it was not, -1 it has no entry */
int process_collected(pid_t pid);
/* May coshm take @reference for dead? */
int process_is_gone(uint32_t reference);

/* -1: all taken, so only read */
int actor_claim(void);
void actor_release(int actor);

/* --- time and chance ------------------------------------------------------------------------------------------ */

uint64_t now_ns(void);
uint64_t now_coarse_ns(void);
void sleep_ns(uint64_t for_ns);
uint64_t mix(uint64_t word);
uint64_t random_next(uint64_t *word);
static inline uint64_t random_below(uint64_t *word, uint64_t limit)
{
	return random_next(word) % limit;
}

/* Bytes that only @seed has. */
void pattern_fill(uint64_t seed, void *bytes, size_t size_bytes);
int pattern_matches(uint64_t seed, const void *bytes, size_t size_bytes);

#endif
