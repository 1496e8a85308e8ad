/* SPDX-License-Identifier: MIT */
/*
 * child.h - run one program with given bytes as its stdin, and pass signals on to it
 *
 * SIGTERM, SIGINT, SIGHUP and SIGQUIT do not end this process any more once child_catch_signals was called: they are
 * remembered, and passed on while a child runs. (A terminal sends its own to the child already; that one is not
 * doubled.) If this process is killed, the child gets SIGTERM: what it works on will be given to somebody else.
 */
#ifndef SHMCTL_CHILD_H
#define SHMCTL_CHILD_H

#include <stddef.h>
#include <sys/types.h>

void child_catch_signals(void);

/* The last signal that was caught, 0 if none was. */
int child_caught_signal(void);

/*
 * An unnamed open file with these bytes, read from the start, or a negative errno. Not a pipe: nobody has to feed it
 * while the program runs, and a program that does not read its input costs nobody a SIGPIPE.
 */
int child_input(const void *input, size_t size_bytes);

/*
 * Runs the program with @input_fd as its stdin. Returns 0 and the status as waitpid gives it, or a negative errno if it
 * could not be started: -ENOENT if it was not found; -EINTR if a signal was caught before.
 */
int child_run(char **program, int input_fd, int *ret_wait_status);

#endif
