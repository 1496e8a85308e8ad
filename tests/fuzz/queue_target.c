/* SPDX-License-Identifier: MIT */
/* A member uses a queue while others scribble over it. Input: which stage, then calls and edits in turn. */
#include "fuzz/check.h"
#include "fuzz/look.h"
#include "fuzz/stage.h"
#include "fuzz/targets.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define TASKS_MAX 4

struct queue_user {
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	struct coshm_task tasks[TASKS_MAX];
	unsigned int task_count;
};

static unsigned char buffer[8192];

static void enqueue(struct queue_user *user, uint8_t how, uint16_t size_bytes)
{
	const struct coshm_enqueue_options options = {
		.delay_ns = how & 1 ? UINT64_C(1000) << how % 32 : 0,
		.max_attempts = how >> 6,
	};
	uint64_t id = 0;

	if (FUZZ_CALL(0, FUZZ_ERRORS(EAGAIN, EMSGSIZE, ESHUTDOWN, LOOK_ERRORS),
		      coshm_queue_enqueue(user->queue, buffer, size_bytes, &options, &id)) == 0)
		fuzz_require(id != 0, "a task's id is not 0");
}

static void reserve(struct queue_user *user)
{
	struct coshm_task task;

	if (FUZZ_CALL(1, FUZZ_ERRORS(EINTR, ESHUTDOWN, LOOK_ERRORS),
		      coshm_queue_reserve(user->queue, 1000, &task)) == 1)
		user->tasks[user->task_count++ % TASKS_MAX] = task;
}

static void finish(struct queue_user *user, const struct coshm_task *task, uint8_t how)
{
	const int *errors = FUZZ_ERRORS(LOOK_ERRORS);

	switch (how % 4) {
	case 0:
		FUZZ_CALL(0, errors, coshm_queue_ack(user->queue, task));
		break;
	case 1:
		FUZZ_CALL(0, errors,
			  coshm_queue_nack(user->queue, task, "no", how & 4 ? 0 : COSHM_FOREVER));
		break;
	case 2:
		FUZZ_CALL(0, errors, coshm_queue_release(user->queue, task));
		break;
	case 3:
		FUZZ_CALL(0, errors, coshm_queue_bury(user->queue, task, "never"));
		break;
	}
}

static void payload(struct queue_user *user, const struct coshm_task *task, uint16_t capacity)
{
	size_t size_bytes = capacity % (sizeof(buffer) + 1);

	if (FUZZ_CALL(0, FUZZ_ERRORS(ENOBUFS, ESTALE, EUCLEAN, LOOK_ERRORS),
		      coshm_queue_payload(user->queue, task, buffer, &size_bytes)) == 0)
		fuzz_require(size_bytes <= sizeof(buffer), "a payload fits into the buffer");
}

static int handle(void *context, const struct coshm_task *task, const void *bytes, char error[56])
{
	const uint8_t *how = context;

	fuzz_read(bytes, task->payload_size_bytes);
	memset(error, 'e', 55);
	error[55] = '\0';
	return *how % 3;
}

static void work(struct queue_user *user, uint8_t how)
{
	const struct coshm_worker_options options = {.tasks_max = 1 + how % 8,
						     .flags = COSHM_WORKER_NO_SIGNALS |
							      COSHM_WORKER_UNTIL_EMPTY};

	FUZZ_CALL(INT_MAX, FUZZ_ERRORS(ESHUTDOWN, ENOMEM, LOOK_ERRORS),
		  coshm_worker_run(user->queue, handle, &how, &options));
}

static void dead_letters(struct queue_user *user, uint8_t how)
{
	uint64_t count, id = how & 2 ? how >> 2 : 0;

	if (how & 1)
		FUZZ_CALL(0, FUZZ_ERRORS(ENOENT, LOOK_ERRORS),
			  coshm_queue_redrive(user->queue, id, &count));
	else
		FUZZ_CALL(0, FUZZ_ERRORS(ENOENT, LOOK_ERRORS),
			  coshm_queue_drop(user->queue, id, &count));
}

static void call(struct queue_user *user, uint8_t what, struct fuzz_input *input)
{
	uint8_t choice = fuzz_u8(input);
	const struct coshm_task *task = &user->tasks[choice % TASKS_MAX];
	uint32_t members;

	switch (what % 11) {
	case 0:
	case 1:
		enqueue(user, choice, fuzz_u16(input) % 4200);
		break;
	case 2:
	case 3:
		reserve(user);
		break;
	case 4:
	case 5:
		finish(user, task, choice >> 2);
		break;
	case 6:
		payload(user, task, fuzz_u16(input));
		break;
	case 7:
		work(user, choice);
		break;
	case 8:
		dead_letters(user, choice);
		break;
	case 9:
		look_at_queue(user->queue, choice);
		break;
	case 10:
		if (choice & 1)
			look_at_segment(user->segment, choice >> 1);
		else
			FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS),
				  coshm_segment_reap(user->segment, &members));
		break;
	}
}

static void run(const uint8_t *bytes, size_t size_bytes)
{
	struct fuzz_input input = {.bytes = bytes, .size_bytes = size_bytes};
	struct stage *stage = stage_put_up(STAGE_QUEUE, fuzz_u8(&input) & 1);
	struct queue_user user = {.segment = NULL};

	fuzz_begin();
	fuzz_require(coshm_segment_attach(stage->path, 0, &user.segment) == 0, "it attaches");
	fuzz_require(coshm_queue_open(user.segment, STAGE_QUEUE_NAME, &user.queue) == 0,
		     "it opens");
	stage_guard(stage, user.segment);
	while (!fuzz_input_is_over(&input) && !fuzz_is_patience_spent()) {
		uint8_t step = fuzz_u8(&input);

		if (step < 80)
			stage_edit(stage, &input);
		else
			call(&user, step, &input);
	}
	FUZZ_CALL(0, FUZZ_ERRORS(EBADF), coshm_queue_close(user.queue));
	stage_leave(stage, user.segment);
}

const struct fuzz_target fuzz_queue = {.name = "queue", .run = run};
