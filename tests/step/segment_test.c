/* SPDX-License-Identifier: MIT */
/* The life of segments, members and objects, killed at every instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "segment/rlock.h"
#include "segment/segment.h"
#include "support/step.h"

enum op {
	SEGMENT_CREATE,
	SEGMENT_UNLINK,
	ATTACH,
	ATTACH_RESCUE, /* all slots are taken by the dead */
	DETACH,
	CREATE,		   /* of an object */
	CREATE_AFTER_DEAD, /* the dead keep the memory */
	CREATE_DIRTY,	   /* where another one was */
	GROW,
	OPEN,
	CLOSE,
	REMOVE,
	REMOVE_OPEN, /* while the actor has it open */
	REAP,
	FORK_CHILD, /* its first call makes it a member */
	THREAD_EXIT,
	THREAD_EXIT_LOCKED, /* it was cancelled inside the directory's lock */
};

/* Only one of these fits into a segment of 1 MiB, or of 2 MiB that has grown. */
#define LARGE_BYTES  (UINT64_C(600) << 10)
#define LARGER_BYTES (UINT64_C(1200) << 10)

/* variant = type << 8 | op */
static enum op op_of(const struct step_world *w)
{
	return (enum op)(w->row->variant & 0xff);
}

static uint32_t type_of(const struct step_world *w)
{
	return w->row->variant >> 8;
}

static int is_exit(enum op op)
{
	return op == THREAD_EXIT || op == THREAD_EXIT_LOCKED;
}

struct notes {
	int removed, anew; /* of "n", by who overtook */
	int unlinked;
};

static const struct coshm_segment_config segment_config = {
	.size_bytes = 1 << 20, .member_count_max = 4, .thread_count_max = 6};

/* --- objects of any type ------------------------------------------------------------------------------------- */

static int object_create(struct step_world *w, const char *name, uint64_t size_bytes)
{
	struct coshm_cache_config cache = {.size_bytes = size_bytes, .average_item_bytes = 4000};
	struct coshm_limiter_config limiter = {.rate = 10, .keys_max = size_bytes / 24};
	struct coshm_queue_config queue = {.capacity = size_bytes / 768,
					   .payload_pool_bytes = size_bytes / 4};

	switch (type_of(w)) {
	case COSHM_OBJECT_LIMITER:
		return coshm_limiter_create(w->segment, name, &limiter, 0, &w->limiter);
	case COSHM_OBJECT_QUEUE:
		return coshm_queue_create(w->segment, name, &queue, 0, &w->queue);
	default:
		return coshm_cache_create(w->segment, name, &cache, 0, &w->cache);
	}
}

static int object_open(struct step_world *w, const char *name)
{
	switch (type_of(w)) {
	case COSHM_OBJECT_LIMITER:
		return coshm_limiter_open(w->segment, name, &w->limiter);
	case COSHM_OBJECT_QUEUE:
		return coshm_queue_open(w->segment, name, &w->queue);
	default:
		return coshm_cache_open(w->segment, name, &w->cache);
	}
}

static int object_close(struct step_world *w)
{
	switch (type_of(w)) {
	case COSHM_OBJECT_LIMITER:
		return coshm_limiter_close(w->limiter);
	case COSHM_OBJECT_QUEUE:
		return coshm_queue_close(w->queue);
	default:
		return coshm_cache_close(w->cache);
	}
}

static int object_works(struct step_world *w)
{
	char value[8];
	size_t size = sizeof(value);
	struct coshm_task task;

	switch (type_of(w)) {
	case COSHM_OBJECT_LIMITER:
		STEP_NEED(coshm_limiter_try(w->limiter, "k", 1, 1, NULL) == 1);
		return 0;
	case COSHM_OBJECT_QUEUE:
		STEP_NEED(coshm_queue_enqueue(w->queue, "task", 4, NULL, NULL) == 0);
		STEP_NEED(coshm_queue_reserve(w->queue, 0, &task) == 1);
		STEP_NEED(coshm_queue_payload(w->queue, &task, value, &size) == 0 && size == 4 &&
			  memcmp(value, "task", 4) == 0);
		STEP_NEED(coshm_queue_ack(w->queue, &task) == 0);
		return 0;
	default:
		STEP_NEED(coshm_cache_set(w->cache, "k", 1, "value", 5, 0) == 0);
		STEP_NEED(coshm_cache_get(w->cache, "k", 1, value, &size, NULL) == 1 && size == 5 &&
			  memcmp(value, "value", 5) == 0);
		return 0;
	}
}

static uint64_t size_of(const struct step_world *w)
{
	return op_of(w) == GROW ? LARGER_BYTES : LARGE_BYTES;
}

/* --- before -------------------------------------------------------------------------------------------------- */

/* Two members that die with what they hold. */
static int leave_dead(struct step_world *w)
{
	for (int i = 0; i < 2; i++) {
		pid_t pid = fork();
		int status;

		STEP_NEED(pid >= 0);
		if (pid == 0) {
			struct coshm_cache_view view;
			struct coshm_task task;

			if (coshm_queue_reserve(w->queue, 0, &task) != 1 ||
			    coshm_cache_pin(w->cache, "k", 1, &view) != 1)
				_exit(1);
			_exit(0);
		}
		STEP_NEED(waitpid(pid, &status, 0) == pid && status == 0);
	}
	return 0;
}

/* As many as there is room for. */
static int fill_with_dead(struct step_world *w)
{
	if (step_close(w))
		return -1;
	for (uint32_t i = 0; i < segment_config.member_count_max; i++) {
		pid_t pid = fork();
		int status;

		STEP_NEED(pid >= 0);
		if (pid == 0)
			_exit(coshm_segment_attach(w->name, 0, &w->segment) != 0);
		STEP_NEED(waitpid(pid, &status, 0) == pid && status == 0);
	}
	return 0;
}

static int prepare_two(struct step_world *w)
{
	struct coshm_queue_config queue = {
		.capacity = 8, .backoff_base_ns = 1000, .backoff_kind = COSHM_BACKOFF_FIXED};
	struct coshm_cache_config cache = {.size_bytes = 256 << 10};

	STEP_NEED(coshm_queue_create(w->segment, "q", &queue, 0, &w->queue) == 0);
	STEP_NEED(coshm_cache_create(w->segment, "c", &cache, 0, &w->cache) == 0);
	STEP_NEED(coshm_cache_set(w->cache, "k", 1, "value", 5, 0) == 0);
	for (int i = 0; i < 2; i++)
		STEP_NEED(coshm_queue_enqueue(w->queue, "task", 4, NULL, NULL) == 0);
	return 0;
}

/* The only place for another one is what a dead member has open, though it was removed. */
static int leave_removed(struct step_world *w)
{
	pid_t pid;
	int status;

	STEP_NEED(object_create(w, "before", LARGE_BYTES) == 0);
	pid = fork();
	STEP_NEED(pid >= 0);
	if (pid == 0)
		_exit(object_works(w) != 0);
	STEP_NEED(waitpid(pid, &status, 0) == pid && status == 0);
	STEP_NEED(object_close(w) == 0);
	STEP_NEED(coshm_object_remove(w->segment, "before") == 0);
	return 0;
}

static int prepare(struct step_world *w)
{
	enum op op = op_of(w);
	int error;

	if (op == SEGMENT_CREATE) {
		error = coshm_segment_unlink(w->name);
		STEP_NEED(error == 0 || error == -ENOENT);
		return 0;
	}
	if (step_make(w, op == GROW ? 2 << 20 : 0))
		return -1;
	if (op == REAP)
		return prepare_two(w) ? -1 : leave_dead(w);
	if (op == FORK_CHILD)
		return prepare_two(w);
	if (op == CREATE_AFTER_DEAD)
		return leave_removed(w);
	if (op == ATTACH_RESCUE)
		return fill_with_dead(w);
	if (op == CREATE_DIRTY) {
		STEP_NEED(object_create(w, "before", LARGE_BYTES) == 0);
		if (object_works(w))
			return -1;
		STEP_NEED(object_close(w) == 0);
		STEP_NEED(coshm_object_remove(w->segment, "before") == 0);
	}
	if (op == OPEN || op == CLOSE || op == REMOVE || op == REMOVE_OPEN || op == ATTACH ||
	    op == DETACH || op == SEGMENT_UNLINK) {
		STEP_NEED(object_create(w, "n", LARGE_BYTES) == 0);
		if (object_works(w))
			return -1;
		/* A survivor must not have it open: its memory is to come back. */
		STEP_NEED(object_close(w) == 0);
	}
	return 0;
}

/* --- the operation ------------------------------------------------------------------------------------------- */

/* As any call does; and the directory's lock. */
static int take_slot(struct step_world *w)
{
	struct coshm__op op;
	int error = 0;

	STEP_NEED(coshm__op_begin(&op, w->segment, COSHM__TYPE_SEGMENT) == 0);
	if (op_of(w) == THREAD_EXIT_LOCKED)
		error = coshm__rlock_acquire(&op, &op.segment->header->directory_lock, 0);
	coshm__op_end(&op);
	STEP_NEED(error == 0);
	return 0;
}

static int ready(struct step_world *w)
{
	enum op op = op_of(w);

	if (op == CLOSE || op == REMOVE_OPEN || op == DETACH)
		STEP_NEED(object_open(w, "n") == 0);
	return is_exit(op) ? take_slot(w) : 0;
}

static int call(struct step_world *w)
{
	uint32_t reaped = 0;
	int error;

	switch (op_of(w)) {
	case SEGMENT_CREATE:
		return coshm_segment_create(w->name, &segment_config, COSHM_CREATE_OR_OPEN,
					    &w->segment);
	case SEGMENT_UNLINK:
		error = coshm_segment_unlink(w->name);
		/* a second one, after the first was killed */
		return error == -ENOENT ? 0 : error;
	case ATTACH:
	case ATTACH_RESCUE:
		return coshm_segment_attach(w->name, 0, &w->segment);
	case DETACH:
		return coshm_segment_detach(w->segment);
	case OPEN:
		return object_open(w, "n");
	case CLOSE:
		return object_close(w);
	case REMOVE:
	case REMOVE_OPEN:
		return coshm_object_remove(w->segment, "n");
	case FORK_CHILD:
		return coshm_cache_set(w->cache, "k", 1, "other", 5, 0);
	case REAP:
		error = coshm_segment_reap(w->segment, &reaped);
		/* whoever came by may have reaped one before */
		return error == 0 && reaped > 2 ? -ERANGE : error;
	case THREAD_EXIT:
	case THREAD_EXIT_LOCKED:
		coshm__thread_exits(NULL);
		return 0;
	default:
		return object_create(w, "n", size_of(w));
	}
}

static int act(struct step_world *w)
{
	return step_result(w, call(w), 0);
}

/* --- what others see ----------------------------------------------------------------------------------------- */

static int is_there(struct step_world *w, int *ret_there)
{
	int error = object_open(w, "n");

	STEP_NEED(error == 0 || error == -ENOENT);
	*ret_there = error == 0;
	if (error == 0)
		STEP_NEED(object_close(w) == 0);
	return 0;
}

static int look_at_k(struct step_world *w)
{
	char value[8];
	size_t size = sizeof(value);

	STEP_NEED(coshm_cache_peek(w->cache, "k", 1, value, &size, NULL) == 1 && size == 5);
	if (memcmp(value, "other", 5) == 0)
		return STEP_AFTER;
	STEP_NEED(memcmp(value, "value", 5) == 0);
	return STEP_BEFORE;
}

static int read_raw(struct step_world *w)
{
	int there;

	if (op_of(w) == REAP || is_exit(op_of(w)))
		return STEP_EITHER;
	if (op_of(w) == FORK_CHILD)
		return look_at_k(w);
	if (is_there(w, &there))
		return -1;
	switch (op_of(w)) {
	case CREATE:
	case CREATE_AFTER_DEAD:
	case CREATE_DIRTY:
	case GROW:
		return there ? STEP_AFTER : STEP_BEFORE;
	case REMOVE:
	case REMOVE_OPEN:
		return there ? STEP_BEFORE : STEP_AFTER;
	default:
		STEP_NEED(there || w->overtaken >= STEP_RIVALLED);
		return STEP_EITHER;
	}
}

/* No slot of a dead member is left, nor one of its threads. */
static int check_slots(struct step_world *w)
{
	struct coshm_segment_info info;
	struct coshm__op op;
	uint32_t strangers = 0, lives;

	STEP_NEED(coshm_segment_info(w->segment, &info) == 0);
	lives = w->results && w->results->actor_lives && op_of(w) != DETACH;
	STEP_NEED(info.member_count == 1 + lives);
	STEP_NEED(coshm__op_begin(&op, w->segment, COSHM__TYPE_SEGMENT) == 0);
	for (uint32_t i = 0; i < op.segment->thread_count_max; i++) {
		uint32_t owner = coshm__a32_load_relaxed(&op.segment->threads[i].owner);

		strangers += owner != 0 && owner != op.member_id;
	}
	coshm__op_end(&op);
	/* Who lives has its reserve, even without a thread. */
	STEP_NEED(strangers == 0 || (lives && (strangers == 1 || !is_exit(op_of(w)))));
	return 0;
}

static int see_crashed(void *context, const struct coshm_task_info *info, const void *payload)
{
	(void)payload;
	*(uint32_t *)context += info->attempts == 1 && info->attempt_record_count == 1 &&
				info->attempt_records[0].outcome == COSHM_ATTEMPT_CRASHED &&
				info->state == COSHM_TASK_READY;
	return 0;
}

/* Each attempt of the dead counts once, however many reapers began with it; and the task comes again. */
static int check_reaped(struct step_world *w)
{
	uint32_t crashed = 0;
	struct coshm_task task;

	STEP_NEED(coshm_queue_each(w->queue, 0, 0, see_crashed, &crashed) == 0);
	STEP_NEED(crashed == 2);
	for (int i = 0; i < 2; i++) {
		STEP_NEED(coshm_queue_reserve(w->queue, COSHM__NS_PER_S, &task) == 1);
		STEP_NEED(task.attempt == 2);
		STEP_NEED(coshm_queue_ack(w->queue, &task) == 0);
	}
	STEP_NEED(coshm_queue_reserve(w->queue, 0, &task) == 0);
	STEP_NEED(coshm_object_remove(w->segment, "q") == 0);
	return 0;
}

static int check(struct step_world *w)
{
	if (check_slots(w))
		return -1;
	if (op_of(w) == REAP)
		return check_reaped(w) ? -1 : STEP_EITHER;
	return read_raw(w);
}

/* Takes and gives the directory's lock, unless the segment has been removed under us. */
static int pass(struct step_world *w)
{
	struct coshm_limiter_config config = {.rate = 10, .keys_max = 100};
	struct coshm_limiter *other;
	struct coshm_segment_info info;
	int error = coshm_limiter_create(w->segment, "pass", &config, COSHM_CREATE_OR_OPEN, &other);

	if (error == -ESTALE) {
		STEP_NEED(coshm_segment_info(w->segment, &info) == 0 && info.removed);
		return 0;
	}
	STEP_NEED(step_went(w, error));
	if (error)
		return 0;
	STEP_NEED(coshm_limiter_try(other, "k", 1, 1, NULL) >= 0);
	STEP_NEED(coshm_limiter_close(other) == 0);
	error = coshm_object_remove(w->segment, "pass");
	STEP_NEED(step_went(w, error) || error == -ENOENT);
	return 0;
}

/* The name and the memory come back: only one of these objects fits. */
static int use(struct step_world *w)
{
	int error;

	if (op_of(w) == FORK_CHILD)
		STEP_NEED(coshm_object_remove(w->segment, "q") == 0);
	if (op_of(w) == REAP || op_of(w) == FORK_CHILD)
		return 0;
	if (object_open(w, "n") == 0) {
		if (object_works(w))
			return -1;
		STEP_NEED(object_close(w) == 0);
	}
	error = coshm_object_remove(w->segment, "n");
	STEP_NEED(error == 0 || error == -ENOENT);
	STEP_NEED(object_create(w, "other", size_of(w)) == 0);
	if (object_works(w))
		return -1;
	STEP_NEED(object_close(w) == 0);
	STEP_NEED(coshm_object_remove(w->segment, "other") == 0);
	STEP_NEED(object_create(w, "n", size_of(w)) == 0);
	return object_works(w);
}

/* Of rows without an attached segment. */
static int check_bare(struct step_world *w)
{
	int outcome, error = coshm_segment_attach(w->name, 0, &w->segment);

	STEP_NEED(error == 0 || error == -ENOENT || error == -ESTALE);
	STEP_NEED(error == 0 || op_of(w) != ATTACH_RESCUE);
	outcome = (error == 0) == (op_of(w) == SEGMENT_CREATE) ? STEP_AFTER : STEP_BEFORE;
	if (error)
		STEP_NEED(coshm_segment_create(w->name, &segment_config, COSHM_CREATE_OR_OPEN,
					       &w->segment) == 0);
	STEP_NEED(coshm_segment_reap(w->segment, NULL) == 0);
	if (step_verify(w, 1) || check_slots(w) || pass(w))
		return -1;
	if (op_of(w) == SEGMENT_UNLINK && outcome == STEP_BEFORE && w->overtaken < STEP_OVERTAKEN) {
		STEP_NEED(object_open(w, "n") == 0);
		if (object_works(w))
			return -1;
	}
	if (step_close(w))
		return -1;
	STEP_NEED(coshm_segment_unlink(w->name) == 0);
	STEP_NEED(coshm_segment_attach(w->name, 0, &w->segment) == -ENOENT);
	return op_of(w) == ATTACH_RESCUE ? STEP_EITHER : outcome;
}

/* --- overtaken ----------------------------------------------------------------------------------------------- */

/* Others come and go: the slot has one generation after the other. */
static int come_and_go(struct step_world *w)
{
	for (int i = 0; i < 3; i++) {
		pid_t pid = fork();
		int status;

		STEP_NEED(pid >= 0);
		if (pid == 0)
			_exit(pass(w) || step_close(w));
		STEP_NEED(waitpid(pid, &status, 0) == pid && status == 0);
	}
	return 0;
}

static int remove_n(struct step_world *w)
{
	struct notes *notes = w->notes;
	int error = coshm_object_remove(w->segment, "n");

	STEP_NEED(step_went(w, error) || error == -ENOENT);
	notes->removed |= error == 0;
	if (error == 0)
		notes->anew = 0;
	return 0;
}

/* It may not fit: then the one before is still open, or being made. */
static int create_n(struct step_world *w)
{
	struct notes *notes = w->notes;
	int error = object_create(w, "n", size_of(w));

	STEP_NEED(step_went(w, error) || error == -EEXIST || error == -EDQUOT);
	if (error)
		return 0;
	notes->anew = 1;
	return object_works(w) || object_close(w) ? -1 : 0;
}

static int overtake(struct step_world *w)
{
	enum op op = op_of(w);

	if (op == REAP)
		STEP_NEED(coshm_segment_reap(w->segment, NULL) == 0);
	if (come_and_go(w))
		return -1;
	if (op == FORK_CHILD) {
		STEP_NEED(coshm_cache_delete(w->cache, "k", 1) == 1);
		STEP_NEED(coshm_cache_set(w->cache, "k", 1, "value", 5, 0) == 0);
	}
	if (op == REAP || op == FORK_CHILD || op == ATTACH || op == DETACH || is_exit(op))
		return 0;
	for (int i = 0; i < 2; i++)
		if (remove_n(w) || create_n(w))
			return -1;
	/* What is created is not to be in its way; what is looked for is, every other time. */
	return op == OPEN || op == REMOVE || op == REMOVE_OPEN ? (w->round % 2 ? remove_n(w) : 0)
							       : remove_n(w);
}

/* Of rows without an attached segment. */
static int overtake_bare(struct step_world *w)
{
	struct step_world other = *w;
	struct notes *notes = w->notes;
	int error;

	other.segment = NULL;
	for (uint32_t i = 0; i < 1 + w->round % 4; i++) {
		error = coshm_segment_create(w->name, &segment_config, COSHM_CREATE_OR_OPEN,
					     &other.segment);
		STEP_NEED(error == 0 || error == -EAGAIN || error == -EUSERS || error == -ESTALE ||
			  error == -ENOENT || error == -ETIMEDOUT);
		if (error == 0 && (pass(&other) || step_close(&other)))
			return -1;
		/* the last one stays every other time */
		if (op_of(w) == ATTACH_RESCUE || (w->round % 2 && i == w->round % 4))
			continue;
		error = coshm_segment_unlink(w->name);
		STEP_NEED(error == 0 || error == -ENOENT || error == -ETIMEDOUT ||
			  error == -EAGAIN);
		notes->unlinked |= error == 0;
	}
	return 0;
}

static int rival_create_other(struct step_world *w)
{
	struct coshm_limiter_config config = {.rate = 10, .keys_max = 100};
	int error = coshm_limiter_create(w->segment, "m", &config, 0, &w->limiter);

	STEP_NEED(step_went(w, error));
	/* A child that leaves at once, as who made it for others does. */
	if (error == 0)
		STEP_NEED(coshm_limiter_try(w->limiter, "k", 1, 1, NULL) == 1 &&
			  coshm_limiter_close(w->limiter) == 0);
	return step_result(w, error, 0);
}

static int rival_create_same(struct step_world *w)
{
	int error = object_create(w, "n", size_of(w));

	STEP_NEED(step_went(w, error) || error == -EEXIST || error == -EDQUOT);
	return step_result(w, error, 0);
}

static int rival_remove(struct step_world *w)
{
	int error = coshm_object_remove(w->segment, "n");

	STEP_NEED(step_went(w, error) || error == -ENOENT);
	return step_result(w, error, 0);
}

static int rival_open(struct step_world *w)
{
	int error = object_open(w, "n");

	STEP_NEED(error == 0 || error == -ENOENT);
	return step_result(w, error, 0);
}

static int rival_reap(struct step_world *w)
{
	return step_result(w, coshm_segment_reap(w->segment, NULL), 0);
}

static int rival_attach(struct step_world *w)
{
	int error = coshm_segment_attach(w->name, 0, &w->segment);

	STEP_NEED(error == 0 || error == -ENOENT || error == -ESTALE || error == -EUSERS ||
		  error == -ETIMEDOUT);
	return step_result(w, error, 0);
}

static int rival_create_segment(struct step_world *w)
{
	int error = coshm_segment_create(w->name, &segment_config, 0, &w->segment);

	STEP_NEED(error == 0 || error == -EEXIST || error == -EAGAIN || error == -ETIMEDOUT);
	return step_result(w, error, 0);
}

static int rival_unlink(struct step_world *w)
{
	int error = coshm_segment_unlink(w->name);

	STEP_NEED(error == 0 || error == -ENOENT || error == -EAGAIN || error == -ETIMEDOUT ||
		  error == -EUCLEAN);
	return step_result(w, error, 0);
}

static const struct step_rival create_rivals[] = {{"create other", rival_create_other, 0},
						  {"create same", rival_create_same, 0},
						  {"remove", rival_remove, 0},
						  {"reap", rival_reap, 0},
						  {NULL, NULL, 0}};
static const struct step_rival open_rivals[] = {{"remove", rival_remove, 0},
						{"create same", rival_create_same, 0},
						{"open", rival_open, 0},
						{NULL, NULL, 0}};
static const struct step_rival reap_rivals[] = {{"create other", rival_create_other, 0},
						{"reap", rival_reap, 0},
						{"attach", rival_attach, 1},
						{NULL, NULL, 0}};
static const struct step_rival bare_rivals[] = {{"create same", rival_create_segment, 0},
						{"attach", rival_attach, 1},
						{"unlink", rival_unlink, 0},
						{NULL, NULL, 0}};

static const struct step_rival *rivals_of(uint32_t op)
{
	switch (op) {
	case SEGMENT_CREATE:
	case SEGMENT_UNLINK:
		return bare_rivals;
	case CREATE:
	case CREATE_AFTER_DEAD:
	case CREATE_DIRTY:
	case REMOVE:
	case REMOVE_OPEN:
		return create_rivals;
	case OPEN:
	case CLOSE:
		return open_rivals;
	case REAP:
	case ATTACH:
	case THREAD_EXIT:
	case THREAD_EXIT_LOCKED:
		return reap_rivals;
	default:
		return NULL;
	}
}

/* What a rival made, and was told so, is there; nobody else knows of it. */
static int check_other(struct step_world *w)
{
	int error = coshm_limiter_open(w->segment, "m", &w->limiter);

	STEP_NEED(error == 0 || error == -ENOENT);
	STEP_NEED(error == 0 || w->overtaken != STEP_RIVALLED || w->results->rival != 0);
	if (error)
		return 0;
	STEP_NEED(coshm_limiter_try(w->limiter, "k", 1, 1, NULL) == 1);
	STEP_NEED(coshm_limiter_close(w->limiter) == 0);
	STEP_NEED(coshm_object_remove(w->segment, "m") == 0);
	return 0;
}

static int is_rivalled_by(const struct step_world *w, int (*act_of_rival)(struct step_world *w))
{
	return w->overtaken >= STEP_RIVALLED && w->rival->act == act_of_rival;
}

/* "n" was not there before. */
static int resumed_create(struct step_world *w, int there)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor, rival = w->results->rival;
	int is_told = w->overtaken == STEP_RIVALLED; /* a rival that was killed was told nothing */

	if (w->overtaken == STEP_OVERTAKEN) {
		/* It may be gone before its creator has opened it. */
		STEP_NEED(result == 0 || (result == -ENOENT && notes->removed));
		STEP_NEED(there == (result == 0 && !(w->seen == STEP_AFTER && notes->removed)));
		return 0;
	}
	if (is_rivalled_by(w, rival_create_same)) {
		/* One of them makes it. Who dies right behind that leaves it. */
		STEP_NEED(result == 0 || result == -EEXIST || result == -EAGAIN ||
			  result == -EDQUOT);
		STEP_NEED(!is_told || (result != 0) + (rival != 0) >= 1);
		STEP_NEED(there == (result == 0 || (is_told && rival == 0)) || !is_told);
		STEP_NEED(there || result == -EAGAIN || result == -EDQUOT);
		return 0;
	}
	if (is_rivalled_by(w, rival_remove)) {
		STEP_NEED(result == 0 || result == -EAGAIN || result == -ENOENT);
		STEP_NEED(there == (result == 0 && !(is_told && rival == 0)) || !is_told);
		return 0;
	}
	STEP_NEED(result == 0 || result == -EAGAIN);
	STEP_NEED(there == (result == 0));
	return 0;
}

/* "n" was there before. */
static int resumed_remove(struct step_world *w, int there)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor, rival = w->results->rival;

	STEP_NEED(result == 0 || result == -ENOENT || result == -EAGAIN);
	if (w->overtaken == STEP_OVERTAKEN) {
		STEP_NEED(result != -EAGAIN);
		STEP_NEED(there == (notes->anew && w->seen == STEP_AFTER));
		STEP_NEED((result == 0) ==
			  (w->seen == STEP_AFTER || notes->anew || !notes->removed));
		return 0;
	}
	if (is_rivalled_by(w, rival_remove) && w->overtaken == STEP_RIVALLED)
		STEP_NEED((result == 0) + (rival == 0) <= 1);
	if (is_rivalled_by(w, rival_create_same) && w->overtaken == STEP_RIVALLED)
		STEP_NEED(result == 0 ? there == (rival == 0) : there);
	else if (!is_rivalled_by(w, rival_create_same))
		STEP_NEED(result == -EAGAIN || !there);
	return 0;
}

static int resumed_open(struct step_world *w, int there)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor, rival = w->results->rival;
	int may_go = notes->removed || is_rivalled_by(w, rival_remove);

	STEP_NEED(result == 0 || (op_of(w) == OPEN && result == -ENOENT && may_go));
	if (w->overtaken == STEP_OVERTAKEN)
		STEP_NEED(there == (notes->anew || !notes->removed));
	else if (w->overtaken == STEP_RIVALLED)
		STEP_NEED(there == !(is_rivalled_by(w, rival_remove) && rival == 0));
	return 0;
}

static int resumed(struct step_world *w)
{
	int there;

	if (w->overtaken == STEP_PASSED)
		return check(w);
	if (check_slots(w) || (is_rivalled_by(w, rival_create_other) && check_other(w)))
		return -1;
	switch (op_of(w)) {
	case REAP:
		STEP_NEED(w->results->actor == 0);
		return check_reaped(w) ? -1 : STEP_EITHER;
	case ATTACH:
	case DETACH:
	case THREAD_EXIT:
	case THREAD_EXIT_LOCKED:
		STEP_NEED(w->results->actor == 0);
		return STEP_EITHER;
	case FORK_CHILD:
		STEP_NEED(w->results->actor == 0);
		STEP_NEED(look_at_k(w) == (w->seen == STEP_AFTER ? STEP_BEFORE : STEP_AFTER));
		return STEP_EITHER;
	case OPEN:
	case CLOSE:
		return is_there(w, &there) || resumed_open(w, there) ? -1 : STEP_EITHER;
	case REMOVE:
	case REMOVE_OPEN:
		return is_there(w, &there) || resumed_remove(w, there) ? -1 : STEP_EITHER;
	default:
		return is_there(w, &there) || resumed_create(w, there) ? -1 : STEP_EITHER;
	}
}

static int resumed_bare(struct step_world *w)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor;
	int may_go = notes->unlinked || is_rivalled_by(w, rival_unlink);

	if (op_of(w) == SEGMENT_CREATE)
		STEP_NEED(result == 0 || result == -EAGAIN || result == -ETIMEDOUT ||
			  (may_go && (result == -ENOENT || result == -ESTALE)));
	else
		STEP_NEED(result == 0 || result == -EAGAIN || result == -ETIMEDOUT);
	return check_bare(w) < 0 ? -1 : STEP_EITHER;
}

/* --- rows ---------------------------------------------------------------------------------------------------- */

#define CACHE	COSHM_OBJECT_CACHE
#define LIMITER COSHM_OBJECT_LIMITER
#define QUEUE	COSHM_OBJECT_QUEUE

static const struct {
	const char *name;
	uint32_t op, type, flags;
} table[] = {
	{"segment_create", SEGMENT_CREATE, CACHE, STEP_BARE},
	{"segment_unlink", SEGMENT_UNLINK, CACHE, STEP_BARE},
	{"segment_attach", ATTACH, CACHE, STEP_UNATTACHED | STEP_UNSEEN | STEP_OVERTAKE_TOO},
	{"segment_attach_rescue", ATTACH_RESCUE, CACHE, STEP_BARE},
	{"segment_detach", DETACH, CACHE, STEP_UNSEEN},
	{"object_create_cache", CREATE, CACHE, STEP_DEEP_ONLY},
	{"object_create_limiter", CREATE, LIMITER, STEP_OVERTAKE_TOO | STEP_RIVAL_TOO},
	{"object_create_queue", CREATE, QUEUE, 0},
	{"object_create_after_dead", CREATE_AFTER_DEAD, LIMITER, 0},
	{"object_create_dirty_cache", CREATE_DIRTY, CACHE, STEP_DEEP_ONLY},
	{"object_create_dirty_queue", CREATE_DIRTY, QUEUE, 0},
	{"object_grow", GROW, CACHE, 0},
	{"object_open_cache", OPEN, CACHE, STEP_UNSEEN | STEP_OVERTAKE_TOO},
	{"object_open_queue", OPEN, QUEUE, STEP_UNSEEN | STEP_DEEP_ONLY},
	{"object_close_cache", CLOSE, CACHE, STEP_UNSEEN},
	{"object_close_queue", CLOSE, QUEUE, STEP_UNSEEN | STEP_DEEP_ONLY},
	{"object_remove", REMOVE, LIMITER, STEP_OVERTAKE_TOO},
	{"object_remove_open_queue", REMOVE_OPEN, QUEUE, 0},
	{"object_remove_open_cache", REMOVE_OPEN, CACHE, STEP_DEEP_ONLY},
	{"segment_reap", REAP, CACHE, STEP_UNSEEN | STEP_OVERTAKE_TOO},
	{"fork_child_first_call", FORK_CHILD, CACHE, STEP_FORKED},
	{"thread_exit", THREAD_EXIT, CACHE, STEP_UNSEEN},
	{"thread_exit_locked", THREAD_EXIT_LOCKED, CACHE, STEP_UNSEEN | STEP_OVERTAKE_TOO},
};

/* Another actor needs nothing that the first one may have taken away. */
static int may_follow(uint32_t op)
{
	return op == ATTACH || op == DETACH || op == CREATE || op == CREATE_AFTER_DEAD ||
	       op == CREATE_DIRTY || op == GROW || op == OPEN || op == CLOSE || op == REMOVE;
}

/* It is attached, or has an object open. */
static int keeps(enum op op)
{
	return op != CLOSE && op != REMOVE && op != DETACH && op != REAP && !is_exit(op);
}

#define ROWS (sizeof(table) / sizeof(table[0]))

int main(void)
{
	static struct step_row rows[ROWS];

	for (size_t i = 0; i < ROWS; i++) {
		int bare = (table[i].flags & STEP_BARE) != 0;

		rows[i] = (struct step_row){
			.name = table[i].name,
			.objects = table[i].op == REAP || table[i].op == FORK_CHILD
					   ? STEP_CACHE | STEP_QUEUE
					   : 0,
			.flags = table[i].flags | (may_follow(table[i].op) ? STEP_AGAIN : 0u) |
				 (keeps((enum op)table[i].op) ? STEP_KEEPS : 0u),
			.variant = table[i].type << 8 | table[i].op,
			.prepare = prepare,
			.ready = ready,
			.act = act,
			.read = read_raw,
			.overtake = bare ? overtake_bare : overtake,
			.rivals = rivals_of(table[i].op),
			.resumed = bare ? resumed_bare : resumed,
			.pass = bare ? NULL : pass,
			.check = bare ? check_bare : check,
			.use = use};
	}
	return step_run("step: segment", rows, ROWS);
}
