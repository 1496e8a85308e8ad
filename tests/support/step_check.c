/* SPDX-License-Identifier: MIT */
/*
 * Who looks at copies: a process of its own, so that a crash or an endless loop in there is a finding, not the end of the
 * test. It stays for a whole row, and attaches anew for each copy.
 */
#include "support/step_local.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MS 60000

static char message_of_nobody[512];
char *step_message = message_of_nobody;

void step_not_so(const char *file, int line, const char *text)
{
	const char *slash = strrchr(file, '/');

	/* What comes first is the cause. */
	if (!*step_message)
		snprintf(step_message, 512, "%s:%d: not so: %s", slash ? slash + 1 : file, line,
			 text);
}

int step_result(struct step_world *world, int result, int due)
{
	if (world->results && world->is_rival)
		world->results->rival = result;
	else if (world->results)
		world->results->actor = result;
	if (result == due || world->overtaken >= STEP_OVERTAKEN)
		return 0;
	if (!*step_message)
		snprintf(step_message, 512, "the call gave %d, not %d", result, due);
	return -1;
}

int step_went(const struct step_world *world, int result)
{
	return result == 0 || (result == -EAGAIN && world->overtaken);
}

int step_make(struct step_world *world, uint64_t size_max_bytes)
{
	struct coshm_segment_config config = {
		.size_bytes = 1 << 20,
		.size_max_bytes = size_max_bytes,
		.member_count_max = 4,
		.thread_count_max = 6,
		.flags = step_asked("STEP_FENCED") ? COSHM_SEGMENT_FENCED : 0};
	int error = coshm_segment_unlink(world->name);

	STEP_NEED(error == 0 || error == -ENOENT);
	STEP_NEED(coshm_segment_create(world->name, &config, 0, &world->segment) == 0);
	return 0;
}

int step_open(struct step_world *world, uint32_t attach_flags)
{
	uint32_t objects = world->row->objects;

	STEP_NEED(coshm_segment_attach(world->name, attach_flags, &world->segment) == 0);
	if (objects & STEP_CACHE)
		STEP_NEED(coshm_cache_open(world->segment, "c", &world->cache) == 0);
	if (objects & STEP_LIMITER)
		STEP_NEED(coshm_limiter_open(world->segment, "l", &world->limiter) == 0);
	if (objects & STEP_QUEUE)
		STEP_NEED(coshm_queue_open(world->segment, "q", &world->queue) == 0);
	return 0;
}

int step_close(struct step_world *world)
{
	int error = coshm_segment_detach(world->segment);

	world->segment = NULL;
	world->cache = NULL;
	world->limiter = NULL;
	world->queue = NULL;
	STEP_NEED(error == 0);
	return 0;
}

static void note_finding(void *context, int level, const char *where, const char *text)
{
	if (level >= *(int *)context && !*step_message)
		snprintf(step_message, 512, "verify: level %d, %s: %s", level, where, text);
}

int step_verify(struct step_world *world, int pending_too)
{
	int least = pending_too ? COSHM_VERIFY_PENDING : COSHM_VERIFY_DAMAGE;
	struct coshm_verify_result result;

	STEP_NEED(coshm_inspect_verify(world->segment, NULL, note_finding, &least, &result) == 0);
	STEP_NEED(result.damage == 0);
	STEP_NEED(!pending_too || result.pending == 0);
	return 0;
}

int step_survive(struct step_world *world)
{
	const struct step_row *row = world->row;
	int outcome;

	/* Half of the time whoever meets what the dead left repairs it in passing, before a reaper does. */
	if (row->pass && world->round % 2 && row->pass(world))
		return -1;
	STEP_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	if (step_verify(world, 1))
		return -1;
	outcome = row->check(world);
	if (outcome < 0)
		return -1;
	if (row->pass && row->pass(world))
		return -1;
	if (row->use && row->use(world))
		return -1;
	if (step_verify(world, 1))
		return -1;
	return outcome;
}

struct step_checker {
	struct proc *proc;
	const struct step_row *row;
	void *notes;
	int orders[2], answers[2];
	uint32_t round;
	struct {
		char name[96];
		int raw_too;
		uint32_t round;
		struct step_answer answer;
	} * shared;
};

static int look_raw(struct step_checker *checker, struct step_world *world)
{
	int outcome = STEP_EITHER;

	if (step_open(world, COSHM_ATTACH_READ_ONLY) || step_verify(world, 0))
		return -1;
	if (checker->row->read)
		outcome = checker->row->read(world);
	if (outcome < 0 || step_close(world))
		return -1;
	return outcome;
}

static int look_recovered(struct step_checker *checker, struct step_world *world)
{
	int outcome;

	if (checker->row->flags & STEP_BARE)
		return checker->row->check(world);
	if (step_open(world, 0))
		return -1;
	outcome = step_survive(world);
	if (outcome < 0 || step_close(world))
		return -1;
	return outcome;
}

static void answer(struct step_checker *checker)
{
	struct step_answer *a = &checker->shared->answer;
	struct step_world world = {.row = checker->row, .notes = checker->notes};

	world.round = checker->shared->round;
	snprintf(world.name, sizeof(world.name), "%s", checker->shared->name);
	*a = (struct step_answer){.raw = STEP_EITHER};
	step_message = a->message;
	if (checker->shared->raw_too && !(checker->row->flags & STEP_BARE)) {
		a->raw = look_raw(checker, &world);
		a->failed = a->raw < 0;
	}
	if (!a->failed) {
		a->outcome = look_recovered(checker, &world);
		a->failed = a->outcome < 0;
	}
	/* Whatever is open is of a copy that comes no more; the process is given up after a failure. */
}

static int checker_body(void *arg)
{
	struct step_checker *checker = arg;
	char byte;

	step_never_sleep = 1;
	close(checker->orders[1]);
	close(checker->answers[0]);
	while (read(checker->orders[0], &byte, 1) == 1) {
		answer(checker);
		if (write(checker->answers[1], &byte, 1) != 1)
			return 1;
	}
	return 0;
}

static void checker_start(struct step_checker *checker)
{
	if (pipe(checker->orders) || pipe(checker->answers)) {
		perror("step: pipe");
		exit(99);
	}
	checker->proc = proc_spawn(checker_body, checker);
	close(checker->orders[0]);
	close(checker->answers[1]);
}

static void checker_stop(struct step_checker *checker)
{
	if (!checker->proc)
		return;
	close(checker->orders[1]);
	close(checker->answers[0]);
	proc_kill(checker->proc);
	checker->proc = NULL;
}

struct step_checker *step_checker_new(const struct step_row *row, void *notes)
{
	struct step_checker *checker = calloc(1, sizeof(*checker));

	if (!checker)
		exit(99);
	checker->row = row;
	checker->notes = notes;
	checker->shared = proc_shared_alloc(sizeof(*checker->shared));
	return checker;
}

void step_checker_ask(struct step_checker *checker, const char *name, int raw_too,
		      struct step_answer *ret_answer)
{
	struct pollfd pollfd;
	char byte = 0;

	if (!checker->proc)
		checker_start(checker);
	snprintf(checker->shared->name, sizeof(checker->shared->name), "%s", name);
	checker->shared->raw_too = raw_too;
	checker->shared->round = checker->round++;
	pollfd = (struct pollfd){.fd = checker->answers[0], .events = POLLIN};
	if (write(checker->orders[1], &byte, 1) == 1 && poll(&pollfd, 1, ANSWER_MS) == 1 &&
	    read(checker->answers[0], &byte, 1) == 1) {
		*ret_answer = checker->shared->answer;
	} else {
		*ret_answer = (struct step_answer){.failed = 1};
		snprintf(ret_answer->message, sizeof(ret_answer->message),
			 "who looked at it %s; before that: %.400s",
			 proc_is_running(checker->proc) ? "hung" : "crashed",
			 checker->shared->answer.message);
	}
	if (ret_answer->failed)
		checker_stop(checker);
}

void step_checker_free(struct step_checker *checker)
{
	checker_stop(checker);
	free(checker);
}
