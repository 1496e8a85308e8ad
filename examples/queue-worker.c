/* SPDX-License-Identifier: MIT */
/*
 * The textbook's task queue: submit, retry with backoff, drop after too many attempts, shut down gracefully.
 *
 *	cc queue-worker.c $(pkg-config --cflags --libs coshm) && ./a.out
 *
 * The worker is another process, told to stop by SIGTERM: it finishes what it is at and returns.
 */
#include <coshm/coshm.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, coshm_strerror(result));
		exit(1);
	}
}

static void pause_ms(long ms)
{
	const struct timespec span = {.tv_nsec = ms * 1000000};

	nanosleep(&span, NULL);
}

static void submit(struct coshm_queue *queue, const char *job)
{
	check(coshm_queue_enqueue(queue, job, strlen(job), NULL, NULL), "enqueue");
	printf("submitted  %s\n", job);
}

/* What the worker does with each task: one is fine, one fails at first, one for ever. */
static int handle(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	int size = (int)task->payload_size_bytes;

	(void)context;
	if (strncmp(payload, "flaky", 5) == 0 && task->attempt < 2) {
		printf("worker     %.*s, attempt %u: failed, comes back\n", size,
		       (const char *)payload, task->attempt);
		snprintf(error, 56, "the mail server was busy");
		return COSHM_WORKER_RETRY;
	}
	if (strncmp(payload, "broken", 6) == 0) {
		printf("worker     %.*s, attempt %u of %u: failed\n", size, (const char *)payload,
		       task->attempt, task->max_attempts);
		snprintf(error, 56, "no such address");
		return COSHM_WORKER_RETRY;
	}
	printf("worker     %.*s, attempt %u: done\n", size, (const char *)payload, task->attempt);
	return COSHM_WORKER_ACK;
}

static int print_dead(void *context, const struct coshm_task_info *info, const void *payload)
{
	(void)context;
	printf("dead       %.*s after %u attempts, the last: %s\n", (int)info->payload_size_bytes,
	       (const char *)payload, info->attempts,
	       info->attempt_record_count
		       ? info->attempt_records[info->attempt_record_count - 1].error
		       : "?");
	return 0;
}

/* Until nothing but dead letters is left. */
static void wait_until_handled(struct coshm_queue *queue)
{
	struct coshm_queue_depth depth;

	do {
		pause_ms(5);
		check(coshm_queue_depth(queue, &depth), "depth");
	} while (depth.ready + depth.delayed + depth.leased > 0);
}

int main(void)
{
	struct coshm_segment_config memory = {.size_bytes = 4 << 20};
	struct coshm_queue_config config = {
		.capacity = 100,
		.max_attempts = 3,
		.backoff_base_ns = 20 * MS, /* then 40 ms: a real one would take seconds */
	};
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	char name[64];
	int status;
	pid_t worker;

	snprintf(name, sizeof(name), "queue-worker-%d", (int)getpid());
	check(coshm_segment_create(name, &memory, 0, &segment), "create a segment");
	check(coshm_queue_create(segment, "mail", &config, 0, &queue), "create a queue");
	setvbuf(stdout, NULL, _IOLBF, 0);
	submit(queue, "welcome");
	submit(queue, "flaky newsletter");
	submit(queue, "broken address");
	worker = fork();
	if (worker == 0) {
		int handled = coshm_worker_run(queue, handle, NULL, NULL);

		printf("worker     told to stop, %d deliveries handled\n", handled);
		exit(handled < 0);
	}
	wait_until_handled(queue);
	kill(worker, SIGTERM);
	waitpid(worker, &status, 0);
	check(coshm_queue_each(queue, 1u << COSHM_TASK_DEAD, COSHM_QUEUE_EACH_PAYLOAD, print_dead,
			       NULL),
	      "list the dead letters");
	check(coshm_segment_detach(segment), "detach");
	check(coshm_segment_unlink(name), "unlink");
	return status != 0;
}
