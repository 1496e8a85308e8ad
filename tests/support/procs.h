/* SPDX-License-Identifier: MIT */
/*
 * tests/support/procs.h - real processes for one test: spawn, meet, pause, kill, collect
 *
 * A child must never assert with cmocka: the assertion would longjmp into the copied test runner
 * and go on with the remaining tests, unseen.  So a child gives a number back (its exit code, or
 * words in shared memory) and the parent asserts.  What keeps a child from doing it by accident:
 *   - its stdout is /dev/null, so nothing of it gets into the TAP stream;
 *   - an assertion or skip() in it ends it with SIGABRT (collected as -SIGABRT);
 *   - exit(), or a value that is no plain exit code, ends it with PROC_MISUSED.
 * Its stderr goes to the test's log.
 *
 * Nothing here is for use by two threads at once.  A child dies with the thread that spawned it.
 */
#ifndef TESTS_SUPPORT_PROCS_H
#define TESTS_SUPPORT_PROCS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

/*
 * Long enough for a slow machine under sanitizers that has many other things to do; a test that
 * gets there has failed.  Not a measure for how long to work.  240 s, or TEST_DEADLINE_S from the
 * environment where all is slower still.
 */
#define PROC_DEADLINE_NS proc_deadline_ns()
static inline uint64_t proc_deadline_ns(void)
{
	const char *seconds = getenv("TEST_DEADLINE_S");

	return (seconds ? strtoull(seconds, NULL, 10) : 240) * UINT64_C(1000000000);
}

#define PROC_CODE_MAX 90     /* greatest exit code that a child's function may give */
#define PROC_MISUSED  99     /* the child broke the rules above; stderr says how */
#define PROC_HUNG     (-999) /* still running at the deadline; it was killed */

struct proc;
struct proc_barrier;

/*
 * proc_spawn - run @body(@arg) in a child process
 *
 * The value of @body, 0 .. PROC_CODE_MAX, is the child's exit code; 0 means all is well.  Ends
 * the whole test program if no process can be made.  The handle is good until collected.
 */
struct proc *proc_spawn(int (*body)(void *arg), void *arg);

/* The child's pid, for messages and for checks on the library's own idea of it. */
pid_t proc_pid(const struct proc *proc);

/* 1 while it runs or is stopped, 0 once it has ended; does not wait, does not collect. */
int proc_is_running(const struct proc *proc);

/*
 * proc_collect - wait for the end of a child and give up the handle
 *
 * Returns its exit code (>= 0), or -signal if a signal ended it, or PROC_HUNG.
 */
int proc_collect(struct proc *proc, uint64_t timeout_ns);

/*
 * proc_collect_all - proc_collect() on @count children under one deadline
 * @ret_results   each child's result; may be NULL
 *
 * Returns how many did not give 0; each of those is named on stderr.
 */
size_t proc_collect_all(struct proc *const procs[], size_t count, uint64_t timeout_ns,
			int ret_results[]);

/* SIGKILL, then collect: the process is gone from the kernel when this returns. */
void proc_kill(struct proc *proc);

/* SIGSTOP, and wait until all its threads stand still.  0, or -ESRCH if it has ended. */
int proc_pause(struct proc *proc);

/* SIGCONT. */
void proc_resume(struct proc *proc);

/*
 * proc_wait_stopped - wait until the child has stopped itself, as at a crash point
 *
 * Returns 1 stopped, 0 it ended instead, -ETIMEDOUT.
 */
int proc_wait_stopped(struct proc *proc, uint64_t timeout_ns);

/*
 * proc_shared_alloc - zeroed memory that children spawned later share with the parent
 *
 * Freed when the test program ends.
 */
void *proc_shared_alloc(size_t size_bytes);

/* A meeting point for @party_count processes or threads; can be used again at once. */
struct proc_barrier *proc_barrier_new(unsigned int party_count);

/* 0 when all are here, -ETIMEDOUT when one did not come (the barrier is then unusable). */
int proc_barrier_wait(struct proc_barrier *barrier, uint64_t timeout_ns);

/*
 * test_segment_name - a name that no other test, and no other run of this test, uses
 * @tag   letters, digits and '-', up to 20
 *
 * When the parent ends, by return or exit(), everything in /dev/shm whose name contains this
 * one is removed; a child's end removes nothing.
 */
#define TEST_SEGMENT_NAME_SIZE 64
void test_segment_name(char ret_name[TEST_SEGMENT_NAME_SIZE], const char *tag);

/* CLOCK_MONOTONIC. */
uint64_t test_now_ns(void);

void test_sleep_ns(uint64_t for_ns);

#endif
