/* SPDX-License-Identifier: MIT */
/* The worker loop: reserve, run, say how it ended; until told to stop. */
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Goes up with each request to stop; a run ends when it is not what it was at its start. */
static struct coshm__a32 stop_count;

void coshm_worker_stop(void)
{
	/* relaxed: it carries nothing; lock-free, so a signal handler may do it */
	coshm__a32_fetch_add_relaxed(&stop_count, 1);
}

static void on_signal(int signal)
{
	(void)signal;
	coshm_worker_stop();
}

struct handlers {
	struct sigaction terminate, interrupt;
};

static void handlers_install(struct handlers *former)
{
	struct sigaction action = {.sa_handler = on_signal};

	/* No SA_RESTART: what the handler's own code waits for should end as well. */
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, &former->terminate);
	sigaction(SIGINT, &action, &former->interrupt);
}

static void handlers_restore(const struct handlers *former)
{
	sigaction(SIGTERM, &former->terminate, NULL);
	sigaction(SIGINT, &former->interrupt, NULL);
}

/* The buffer for payloads, as long as the longest so far. */
struct buffer {
	unsigned char *bytes;
	size_t capacity_bytes;
};

static int payload_read(struct coshm_queue *queue, const struct coshm_task *task,
			struct buffer *buffer)
{
	size_t size_bytes = (size_t)task->payload_size_bytes;
	int error;

	if (!buffer->bytes || size_bytes > buffer->capacity_bytes) {
		free(buffer->bytes);
		buffer->capacity_bytes = size_bytes;
		buffer->bytes = malloc(size_bytes + 1);
		if (!buffer->bytes)
			return -ENOMEM;
	}
	error = coshm_queue_payload(queue, task, buffer->bytes, &size_bytes);
	if (!error)
		buffer->bytes[size_bytes] = '\0';
	return error;
}

struct worker {
	struct coshm_queue *queue;
	int (*handler)(void *context, const struct coshm_task *task, const void *payload,
		       char error[56]);
	void *context;
	struct buffer buffer;
};

/* 0, or why the task could not be handed over; it has been given back then. */
static int task_run(struct worker *worker, const struct coshm_task *task)
{
	char text[COSHM__QUEUE_ERROR_BYTES] = {0};
	int error = payload_read(worker->queue, task, &worker->buffer);

	/* Nobody could run it, and given back it would stop one worker after the other. */
	if (error == -EUCLEAN) {
		error = coshm_queue_bury(worker->queue, task, "coshm: the payload is damaged");
		return error == -ESTALE ? 0 : error;
	}
	if (error) {
		int given_back = coshm_queue_release(worker->queue, task);

		return given_back && given_back != -ESTALE ? given_back : error;
	}
	/* -ESTALE from any of these: the handler has ended the lease itself. */
	switch (worker->handler(worker->context, task, worker->buffer.bytes, text)) {
	case COSHM_WORKER_ACK:
		error = coshm_queue_ack(worker->queue, task);
		break;
	case COSHM_WORKER_BURY:
		error = coshm_queue_bury(worker->queue, task, text);
		break;
	default:
		error = coshm_queue_nack(worker->queue, task, text, COSHM_FOREVER);
		break;
	}
	return error == -ESTALE ? 0 : error;
}

static int loop(struct worker *worker, const struct coshm_worker_options *options,
		uint32_t stop_seen)
{
	uint64_t timeout_ns = options->flags & COSHM_WORKER_UNTIL_EMPTY ? 0 : COSHM_FOREVER;
	uint64_t handled = 0;
	int result;

	while (coshm__a32_load_relaxed(&stop_count) == stop_seen &&
	       (!options->tasks_max || handled < options->tasks_max)) {
		struct coshm_task task;

		/* Looks at the count again right before it sleeps, and wakes up every tick: a signal in between is
		 * slept through for one tick at most. */
		result = coshm__queue_reserve(worker->queue, timeout_ns, &stop_count, stop_seen,
					      &task);
		if (result == -EINTR)
			continue;
		if (result == 1) {
			result = task_run(worker, &task);
			handled++;
		} else if (result == 0) {
			break; /* nothing ready, or told to stop */
		}
		if (result < 0)
			return result;
	}
	return handled < INT_MAX ? (int)handled : INT_MAX;
}

int coshm_worker_run(struct coshm_queue *queue,
		     int (*handler)(void *context, const struct coshm_task *task,
				    const void *payload, char error[56]),
		     void *context, const struct coshm_worker_options *callers)
{
	struct worker worker = {.queue = queue, .handler = handler, .context = context};
	struct coshm_worker_options options = {0};
	struct handlers former;
	uint32_t stop_seen = coshm__a32_load_relaxed(&stop_count);
	int result = handler ? 0 : coshm__fail(-EINVAL, "queue: handler is NULL");

	if (!result && callers)
		result = coshm__read_struct(&options, sizeof(options), sizeof(options), callers);
	if (!result &&
	    (options.flags & ~(uint32_t)(COSHM_WORKER_NO_SIGNALS | COSHM_WORKER_UNTIL_EMPTY)))
		result = coshm__fail(-EINVAL, "queue: flags %x are unknown", options.flags);
	if (result)
		return result;
	if (!(options.flags & COSHM_WORKER_NO_SIGNALS))
		handlers_install(&former);
	result = loop(&worker, &options, stop_seen);
	if (!(options.flags & COSHM_WORKER_NO_SIGNALS))
		handlers_restore(&former);
	free(worker.buffer.bytes);
	return result;
}
