/* SPDX-License-Identifier: MIT */
/*
 * Holding a process still, so that what the segment shows of it stays true until it is killed
 *
 * Done with ptrace(2): a traced process stops between two instructions, can be moved on one by one,
 * and a breakpoint takes it to where things are held for a hundred nanoseconds at a time. Where
 * ptrace is forbidden, SIGSTOP stops it as well, but where it stands then is left to luck.
 */
#ifndef DEMO_SERVER_GRIP_H
#define DEMO_SERVER_GRIP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct demo_grip {
	pid_t pid;
	bool is_traced;
	uint64_t stack;	   /* where it stood on the stack when demo_grip_run_to() had succeeded */
	int signal_number; /* arrived while it was held: delivered when it moves on */
};

/* 0 and the process is stopped; -EPERM, -ESRCH, -ETIMEDOUT and it is as before */
int demo_grip_take(struct demo_grip *grip, pid_t pid);

/* lets it run on as if nothing had happened */
void demo_grip_let_go(struct demo_grip *grip);

/* whether demo_grip_run_to() and demo_grip_step() work on this process and machine */
bool demo_grip_can_step(const struct demo_grip *grip);

/*
 * Lets it run until it is about to execute the function at this address of the common program; 0
 * and it stands there, -ETIMEDOUT and it stands somewhere else, -ESRCH: it has ended.
 */
int demo_grip_run_to(struct demo_grip *grip, uintptr_t function, uint64_t within_ns);

/* one instruction; waits for a system call that takes long. 0, -ESRCH */
int demo_grip_step(struct demo_grip *grip);

/* whether it has left the function that demo_grip_run_to() took it to */
bool demo_grip_has_left(const struct demo_grip *grip);

/* SIGKILL; does not wait for the end */
void demo_grip_kill(struct demo_grip *grip);

/* whether the process that was killed is gone, as far as its kernel is concerned */
bool demo_grip_is_gone(struct demo_grip *grip);

#endif
