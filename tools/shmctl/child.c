/* SPDX-License-Identifier: MIT */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const int caught_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
#define SIGNAL_COUNT (sizeof(caught_signals) / sizeof(caught_signals[0]))

static volatile sig_atomic_t last_signal;
static volatile sig_atomic_t child_pid; /* 0 while there is none to pass signals to */
static struct sigaction former_actions[SIGNAL_COUNT];

static void pass_on(int signal_number, siginfo_t *info, void *context)
{
	int saved_errno = errno;

	(void)context;
	last_signal = signal_number;
	/* SI_KERNEL: typed at the terminal, which has told the whole process group. */
	if (child_pid && info->si_code != SI_KERNEL)
		kill((pid_t)child_pid, signal_number);
	errno = saved_errno;
}

void child_catch_signals(void)
{
	struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO};

	for (size_t i = 0; i < SIGNAL_COUNT; i++) {
		sigaction(caught_signals[i], NULL, &former_actions[i]);
		/* nohup and shells' background jobs ignore some on purpose */
		if (former_actions[i].sa_handler != SIG_IGN)
			sigaction(caught_signals[i], &action, NULL);
	}
}

int child_caught_signal(void)
{
	return last_signal;
}

static void block_signals(sigset_t *ret_former)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < SIGNAL_COUNT; i++)
		sigaddset(&set, caught_signals[i]);
	sigprocmask(SIG_BLOCK, &set, ret_former);
}

int child_input(const void *input, size_t size_bytes)
{
	const char *at = input;
	int fd = memfd_create("payload", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (size_bytes) {
		ssize_t written = write(fd, at, size_bytes);

		if (written < 0 && errno != EINTR) {
			int error = -errno;

			close(fd);
			return error;
		}
		if (written > 0) {
			at += written;
			size_bytes -= (size_t)written;
		}
	}
	if (lseek(fd, 0, SEEK_SET) != 0) {
		close(fd);
		return -EIO;
	}
	return fd;
}

/* In the child. What failed goes back through @report_fd, which a successful exec closes. */
__attribute__((noreturn)) static void become(char **program, int input_fd, int report_fd,
					     pid_t parent, const sigset_t *former_mask)
{
	int error;

	if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
		_exit(1);
	for (size_t i = 0; i < SIGNAL_COUNT; i++)
		sigaction(caught_signals[i], &former_actions[i], NULL);
	sigprocmask(SIG_SETMASK, former_mask, NULL);
	if (dup2(input_fd, STDIN_FILENO) >= 0)
		execvp(program[0], program);
	error = errno;
	if (write(report_fd, &error, sizeof(error)) != (ssize_t)sizeof(error))
		_exit(126);
	_exit(127);
}

/* 0 once the program runs, or what exec said. */
static int await_exec(int report_fd)
{
	int error = 0;
	ssize_t got;

	do {
		got = read(report_fd, &error, sizeof(error));
	} while (got < 0 && errno == EINTR);
	return got == (ssize_t)sizeof(error) ? -error : 0;
}

/* Waits without reaping first, so that no signal is passed on to a pid that is not the child's any more. */
static int await_end(pid_t pid)
{
	siginfo_t info;
	int status = 0;

	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR)
		continue;
	child_pid = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return status;
}

/* @report_fds: a pipe that closes on exec. */
static int start(char **program, int input_fd, const int report_fds[2], pid_t *ret_pid)
{
	pid_t parent = getpid(), pid;
	sigset_t former_mask;
	int error = 0;

	block_signals(&former_mask);
	if (last_signal) {
		error = -EINTR;
	} else {
		pid = fork();
		if (pid == 0)
			become(program, input_fd, report_fds[1], parent, &former_mask);
		if (pid < 0) {
			error = -errno;
		} else {
			child_pid = pid;
			*ret_pid = pid;
		}
	}
	sigprocmask(SIG_SETMASK, &former_mask, NULL);
	return error;
}

int child_run(char **program, int input_fd, int *ret_wait_status)
{
	int report_fds[2], error, wait_status;
	pid_t pid = 0;

	if (pipe2(report_fds, O_CLOEXEC) != 0)
		return -errno;
	error = start(program, input_fd, report_fds, &pid);
	close(report_fds[1]);
	if (!error) {
		error = await_exec(report_fds[0]);
		wait_status = await_end(pid);
		if (!error)
			*ret_wait_status = wait_status;
	}
	close(report_fds[0]);
	return error;
}
