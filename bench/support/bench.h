/* SPDX-License-Identifier: MIT */
/*
 * bench/support/bench.h - run cases side by side, again and again, and say what came out
 *
 * A program adds its cases; those of one question are compared with each other. All cases of a question run once per
 * round, one after the other, so that a machine whose speed drifts favours none; ratios are taken within a round. A
 * repetition in which a worker lost its CPU to others is redone a bounded number of times, and the quietest one counts;
 * where the rounds of a question disagree too much, a bounded number of rounds is added.
 *
 * Workers are processes, or threads of one process for subjects that cannot do more. Each is pinned to one CPU; where
 * there are more workers than CPUs they share.
 */
#ifndef BENCH_SUPPORT_BENCH_H
#define BENCH_SUPPORT_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	BENCH_WORKERS_MAX = 64,
	BENCH_ROUNDS_MAX = 99,
	BENCH_SAMPLES_MAX = 1 << 16,
};

struct bench_case;

struct bench_worker {
	const struct bench_case *of;
	int number;
	uint64_t random;     /* state of bench_random, different for each worker */
	uint64_t share;	     /* counted cases: operations to do */
	uint64_t operations; /* timed cases: added to by each step */
	uint64_t wrong;	     /* answers that must not be */
	uint64_t at;	     /* the case's own: its place in a load */
	pid_t helper;	     /* a process that works for this one alone: its CPU time counts, too */
	uint64_t aside_ns;   /* CPU time that is not the subject's: added to by each step */
};

struct bench_case {
	const char *question; /* cases of one question stand together */
	const char *subject;
	const char
		*lacks; /* what the subject does not promise and coshm does; "" or NULL: nothing */
	int procs;
	int threads;	 /* workers are threads of one process */
	int is_limit;	 /* the others of the question are compared with this one */
	int is_ours;	 /* peers are compared with this one, too */
	int uses_server; /* a process that is no worker does the work */

	/*
	 * Called by the parent before the question's first round, and after its last. prepare: -1 if the subject cannot
	 * run here; the reason is in bench_absent.
	 */
	int (*prepare)(const struct bench_case *c);
	void (*finish)(const struct bench_case *c);

	/* By the parent, around each repetition. */
	void (*set_up)(const struct bench_case *c);
	void (*tear_down)(const struct bench_case *c);

	/* Called by each worker; begin and end are not timed. */
	void (*begin)(struct bench_worker *worker);
	void (*step)(struct bench_worker *worker); /* timed: some operations */
	void (*work)(struct bench_worker *worker); /* counted: its share of total */
	void (*end)(struct bench_worker *worker);

	uint64_t total;	     /* counted cases: operations of all workers together */
	uint64_t warm_up;    /* timed cases: at most so many operations before the clock starts */
	int latency;	     /* the figure is the median of bench_sample's */
	double goal_ns;	     /* 0: none */
	double floor_mops;   /* 0: none; of all workers together */
	const void *context; /* the program's */
	int64_t number[4];   /* the program's */
};

/* Copies the case; its strings must stay. */
void bench_add(const struct bench_case *c);

/* Counted cases with latency: one measurement, from any worker. */
void bench_sample(uint64_t ns);

struct bench_program {
	const char *name;
	const char *options; /* of its own, for the usage text; NULL: none */
	/* 1 taken; 0 unknown. value is NULL at the end of the line. */
	int (*option)(const char *name, const char *value);
	int rounds;
	double seconds;		 /* per repetition of a timed case */
	void (*add_cases)(void); /* after the options were read */
	void (*close)(void);	 /* after the last case */
};

extern int bench_quick; /* --quick: a smoke test, not a measurement */
extern int
	bench_cpu_time; /* --cpu-time: CPU time instead of wall time, for a machine that others use, too */
extern char bench_absent[128];

/* A figure that is not a time. The strings must stay. */
void bench_note(const char *name, double value, const char *unit);

/* Reads options, runs all, prints. Returns the program's exit status: 1 if an answer was wrong. */
int bench_main(int argc, char **argv, const struct bench_program *program);

/* --- what cases are made of --- */

int bench_cpu_count(void);
void bench_pin(int number); /* to one of the CPUs this process may use, counted around */
uint64_t bench_now_ns(void);
uint64_t bench_cpu_ns(pid_t process); /* its CPU time so far */
/* A name for the program's segment. */
const char *bench_segment_name(void);
void bench_kill_at_exit(const pid_t *server); /* whatever it is then; 0: nothing */
void bench_remove_at_exit(const char *path);  /* file or empty folder, also after a signal */
void bench_removed(const char *path);	      /* it is gone already */
extern int bench_huge_pages; /* bench_shared and the segments ask for pages of 2 MiB */
void *bench_shared(
	size_t size_bytes); /* zeroed memory, the same for all workers; ends if there is none */
void bench_need(int result, const char *what); /* ends the process on a negative errno of coshm */
_Noreturn void bench_fail(const char *what);   /* ends it, with errno's text */

/* Whoever finds the other side not ready: lets it run if it shares our CPU, keeps off its lines if it does not. */
void bench_back_off(int procs);

static inline uint64_t bench_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * UINT64_C(2685821657736338717);
}

static inline uint64_t bench_random_below(uint64_t *state, uint64_t bound)
{
	return ((bench_random(state) >> 32) * bound) >> 32;
}

/* Makes the compiler believe that the bytes are looked at: else it leaves out a copy of which only two are. */
static inline void bench_use(const void *bytes)
{
	__asm__ __volatile__("" : : "r"(bytes) : "memory");
}

/* Makes the compiler forget what the number can be. */
#define bench_forget(number) __asm__ __volatile__("" : "+r"(number))

static inline void bench_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

#endif
