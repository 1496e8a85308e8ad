/* SPDX-License-Identifier: MIT */
/* queue pop: run a program on the next task. */
#include "attach.h"
#include "child.h"
#include "errors.h"
#include "output.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A signal that comes just before the library falls asleep is noticed after this long. */
#define WAIT_SLICE_NS UINT64_C(200000000)

#define STATUS_NOT_FOUND 127 /* as in shells */
#define STATUS_NOT_RUN	 126
#define STATUS_SIGNAL	 128 /* + the signal's number */

/* Returns as coshm_queue_reserve; -EINTR once a signal was caught. */
static int reserve(struct attached *attached, uint64_t wait_ns, struct coshm_task *ret_task)
{
	uint64_t start_ns = coshm_segment_now_ns(attached->segment);

	for (;;) {
		uint64_t gone_ns = coshm_segment_now_ns(attached->segment) - start_ns;
		uint64_t left_ns = gone_ns < wait_ns ? wait_ns - gone_ns : 0;
		int got;

		if (child_caught_signal())
			return -EINTR;
		got = coshm_queue_reserve(attached->queue,
					  left_ns < WAIT_SLICE_NS ? left_ns : WAIT_SLICE_NS,
					  ret_task);
		if (got == 1 || (got < 0 && got != -EINTR) || (got == 0 && !left_ns))
			return got;
	}
}

/* The payload as an open file, or a negative errno. */
static int open_payload(struct coshm_queue *queue, const struct coshm_task *task)
{
	size_t size_bytes = task->payload_size_bytes;
	void *data = malloc(size_bytes + 1);
	int result = data ? coshm_queue_payload(queue, task, data, &size_bytes) : -ENOMEM;

	if (!result)
		result = child_input(data, size_bytes);
	free(data);
	return result;
}

/* The program never ran: that is no attempt. Returns the exit code. */
static int give_back(struct attached *attached, const struct coshm_task *task, const char *subject,
		     int error)
{
	int signal_number = child_caught_signal();
	int release_error = coshm_queue_release(attached->queue, task);

	attach_close(attached);
	if (error == -EINTR && signal_number)
		return STATUS_SIGNAL + signal_number;
	errors_say(STATUS_FAILURE, subject, strerror(-error),
		   release_error ? NULL
				 : "the task went back to the queue, not counted as an attempt");
	if (release_error)
		errors_fail(attached->target.text, release_error);
	return error == -ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_RUN;
}

static int exit_code_of(int wait_status)
{
	if (WIFSIGNALED(wait_status))
		return STATUS_SIGNAL + WTERMSIG(wait_status);
	return WEXITSTATUS(wait_status);
}

/*
 * Exit 0 is done and anything else failed, with one exception: a program that ended by the very signal that somebody
 * sent to stop us was cut short, and that is no fault of the task.
 */
static int settle(struct attached *attached, const struct coshm_task *task, int wait_status)
{
	int code = exit_code_of(wait_status);
	int signal_number = child_caught_signal();
	char text[32];

	if (!code)
		return coshm_queue_ack(attached->queue, task);
	if (signal_number && code == STATUS_SIGNAL + signal_number)
		return coshm_queue_release(attached->queue, task);
	if (WIFSIGNALED(wait_status))
		snprintf(text, sizeof(text), "signal %d", WTERMSIG(wait_status));
	else
		snprintf(text, sizeof(text), "exit %d", code);
	return coshm_queue_nack(attached->queue, task, text, COSHM_FOREVER);
}

static int work(struct attached *attached, char **program, const struct coshm_task *task)
{
	int input_fd = open_payload(attached->queue, task);
	int wait_status = 0, error;

	if (input_fd < 0)
		return give_back(attached, task, attached->target.text, input_fd);
	error = child_run(program, input_fd, &wait_status);
	close(input_fd);
	if (error)
		return give_back(attached, task, program[0], error);
	error = settle(attached, task, wait_status);
	attach_close(attached);
	if (error)
		return errors_fail(attached->target.text, error);
	return exit_code_of(wait_status);
}

static int cmd_queue_pop(const struct command *command, int argc, char **argv)
{
	uint64_t wait_ns = 0;
	const struct args_option options[] = {
		{"wait", "D", "wait this long for a task, such as 30s (default: do not wait)",
		 .for_ns = &wait_ns},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct attached attached;
	struct coshm_task task;
	int status, got;

	/* Before there is anything to leave behind. */
	child_catch_signals();
	status = attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_QUEUE);
	if (status)
		return status;
	got = reserve(&attached, wait_ns, &task);
	if (got == 1)
		return work(&attached, args.program, &task);
	attach_close(&attached);
	if (got == -EINTR)
		return STATUS_SIGNAL + child_caught_signal();
	if (got < 0)
		return errors_fail(attached.target.text, got);
	output_remark("shmctl: %s: nothing to do", attached.target.text);
	return STATUS_NO;
}

const struct command command_queue_pop = {
	.name = "queue pop",
	.operands = "SEG/OBJ",
	.summary = "Run a program on the next task",
	.help = "CMD gets the payload on its standard input (a file that it may read again) and "
		"owns standard output.\n"
		"If it exits with 0 the task is done. Else the task failed: it comes back after "
		"the queue's backoff,\n"
		"with \"exit N\" or \"signal N\" in its history. The exit code is CMD's (128 + N "
		"after signal N);\n"
		"7 if there was nothing to do; 127 if CMD was not found, and then the task goes "
		"back uncounted.\n"
		"SIGTERM, SIGINT, SIGHUP and SIGQUIT are passed on to CMD; if CMD ends by that "
		"signal the task goes back\n"
		"uncounted, too. If this command is killed, CMD gets SIGTERM and the task goes to "
		"another worker.\n",
	.examples = "  shmctl queue pop shop/mail -- sendmail -t\n"
		    "  while shmctl queue pop shop/mail --wait 1h -- ./deliver; do :; done\n",
	.flags = COMMAND_ACTS | COMMAND_PROGRAM,
	.run = cmd_queue_pop,
};
