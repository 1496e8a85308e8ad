/* SPDX-License-Identifier: MIT */
/*
 * A member that was attached before the actor, on the very segment, and sees what becomes of it: killed (step.c), or overtaken
 * while it stands still (step_overtake.c).
 */
#include "support/step_local.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS 60000

/* A fork child of the survivor: a member of its own, in a slot that is free, until it is told to leave. */
struct newcomer {
	pid_t pid;
	int leave_fd;
};

static int newcomer_live(struct step_world *world, int answer_fd, int leave_fd)
{
	char byte;

	if (world->row->pass ? world->row->pass(world)
			     : coshm_segment_reap(world->segment, NULL) != 0)
		return 1;
	if (write(answer_fd, "", 1) != 1)
		return 2;
	if (read(leave_fd, &byte, 1) != 0)
		return 3;
	return step_close(world) != 0;
}

static int newcomer_come(struct step_world *world, struct newcomer *newcomer)
{
	int answer[2], leave[2], came;
	char byte;

	STEP_NEED(pipe(answer) == 0 && pipe(leave) == 0);
	newcomer->pid = fork();
	STEP_NEED(newcomer->pid >= 0);
	if (newcomer->pid == 0) {
		close(answer[0]);
		close(leave[1]);
		_exit(newcomer_live(world, answer[1], leave[0]));
	}
	close(answer[1]);
	close(leave[0]);
	newcomer->leave_fd = leave[1];
	came = read(answer[0], &byte, 1) == 1;
	close(answer[0]);
	STEP_NEED(came);
	return 0;
}

static int newcomer_leave(struct newcomer *newcomer)
{
	int status = -1;

	if (!newcomer->pid)
		return 0;
	close(newcomer->leave_fd);
	STEP_NEED(waitpid(newcomer->pid, &status, 0) == newcomer->pid);
	STEP_NEED(status == 0);
	return 0;
}

/* Somebody stands still. What do readers see? BEFORE, AFTER or EITHER */
static int look_on(struct step_world *world)
{
	world->seen = STEP_EITHER;
	if (world->row->flags & STEP_BARE)
		return STEP_EITHER;
	if (step_verify(world, 0))
		return -1;
	if (world->row->read)
		world->seen = world->row->read(world);
	return world->seen;
}

/* What others do meanwhile, of which each time only some happens. */
static int work(struct step_world *world, struct newcomer *newcomer)
{
	const struct step_row *row = world->row;

	if (world->overtaken == STEP_OVERTAKEN && row->overtake(world))
		return -1;
	if (row->flags & STEP_BARE)
		return 0;
	if (row->pass && (world->overtaken == STEP_PASSED || world->round % 2) && row->pass(world))
		return -1;
	if (world->round % 3 != 1)
		STEP_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	return world->round % 4 == 2 ? newcomer_come(world, newcomer) : 0;
}

/* The actor has gone on and has returned: nothing of all this may be seen any more. */
static int judge(struct step_world *world, struct newcomer *newcomer)
{
	const struct step_row *row = world->row;
	int outcome;

	if (newcomer_leave(newcomer))
		return -1;
	if (row->flags & STEP_BARE)
		return row->resumed ? row->resumed(world) : row->check(world);
	STEP_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	if (step_verify(world, 1))
		return -1;
	outcome = row->resumed ? row->resumed(world) : row->check(world);
	if (outcome < 0)
		return -1;
	if (row->pass && row->pass(world))
		return -1;
	if (row->use && row->use(world))
		return -1;
	return step_verify(world, 1) ? -1 : outcome;
}

static int obey(struct step_world *world, enum step_order order, struct newcomer *newcomer)
{
	switch (order) {
	case STEP_ORDER_PASS:
		return world->row->pass(world);
	case STEP_ORDER_SURVIVE:
		return world->row->flags & STEP_BARE ? world->row->check(world)
						     : step_survive(world);
	case STEP_ORDER_LOOK_ON:
		return look_on(world);
	case STEP_ORDER_WORK:
		return work(world, newcomer);
	default:
		return judge(world, newcomer);
	}
}

static int survivor_body(void *arg)
{
	struct step_survivor *survivor = arg;
	struct step_world *world = &survivor->world;
	struct newcomer newcomer = {0};
	char order;
	int result;

	step_message = survivor->talk->message;
	step_leap_ns = survivor->leap_ns;
	close(survivor->orders[1]);
	close(survivor->answers[0]);
	result = world->row->prepare(world);
	do {
		survivor->talk->result = result;
		if (write(survivor->answers[1], "", 1) != 1 || result < 0 ||
		    read(survivor->orders[0], &order, 1) != 1)
			return 0;
		result = obey(world, (enum step_order)order, &newcomer);
	} while (1);
}

int step_survivor_says(struct step_survivor *survivor)
{
	struct pollfd pollfd = {.fd = survivor->answers[0], .events = POLLIN};
	int hung = poll(&pollfd, 1, ANSWER_MS) != 1;
	char byte;

	if (!hung && read(survivor->answers[0], &byte, 1) == 1)
		return survivor->talk->result;
	if (!*survivor->talk->message)
		snprintf(survivor->talk->message, sizeof(survivor->talk->message), "it %s",
			 hung ? "hung" : "crashed");
	return -1;
}

int step_survivor_start(struct step_survivor *survivor)
{
	*survivor->talk = (struct step_talk){.result = 0};
	memset(survivor->world.notes, 0, STEP_NOTES_SIZE);
	if (pipe(survivor->orders) || pipe(survivor->answers))
		exit(99);
	step_message = survivor->talk->message;
	survivor->proc = proc_spawn(survivor_body, survivor);
	close(survivor->orders[0]);
	close(survivor->answers[1]);
	return step_survivor_says(survivor) < 0 ? -1 : 0;
}

void step_survivor_order(struct step_survivor *survivor, enum step_order order)
{
	char byte = (char)order;

	if (write(survivor->orders[1], &byte, 1) != 1)
		snprintf(survivor->talk->message, sizeof(survivor->talk->message), "it is gone");
}

void step_survivor_end(struct step_survivor *survivor)
{
	close(survivor->orders[1]);
	close(survivor->answers[0]);
	proc_kill(survivor->proc);
}
