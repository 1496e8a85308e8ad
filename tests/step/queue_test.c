/* SPDX-License-Identifier: MIT */
/* Each operation of a queue, killed at every instruction. No task is lost, and none comes twice but those of the dead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/step.h"

enum { CAPACITY = 16, BLOCKS = 6, INLINE = 100, IN_BLOCKS = 192 + 2 * 1024 + 77 };

#define HOUR_NS	  UINT64_C(3600000000000)
#define SECOND_NS UINT64_C(1000000000)

enum op {
	ENQUEUE,
	ENQUEUE_BLOCKS,
	ENQUEUE_DELAYED,
	ENQUEUE_ASLEEP,	   /* somebody sleeps, and is woken */
	ENQUEUE_FULL,	   /* no record */
	ENQUEUE_NO_BLOCKS, /* a record, but no block */
	RESERVE,
	RESERVE_LAST, /* its only attempt */
	RESERVE_DUE,  /* it was delayed */
	RESERVE_NONE, /* waits a little for nothing */
	WORKER,	      /* takes it, and is done with it */
	ACK,
	ACK_BLOCKS,
	NACK,
	NACK_LAST,
	BURY,
	RELEASE,
	REDRIVE,
	REDRIVE_ALL,
	DROP,
	DROP_BLOCKS,
	OP_COUNT,
};

static const char *const names[OP_COUNT] = {
	"queue_enqueue",	"queue_enqueue_blocks", "queue_enqueue_delayed",
	"queue_enqueue_asleep", "queue_enqueue_full",	"queue_enqueue_no_blocks",
	"queue_reserve",	"queue_reserve_last",	"queue_reserve_due",
	"queue_reserve_none",	"queue_worker_run",	"queue_ack",
	"queue_ack_blocks",	"queue_nack",		"queue_nack_last",
	"queue_bury",		"queue_release",	"queue_redrive",
	"queue_redrive_all",	"queue_drop",		"queue_drop_blocks",
};

static enum op op_of(const struct step_world *w)
{
	return (enum op)w->row->variant;
}

struct notes {
	uint64_t id;	  /* of "k" */
	int actor, rival; /* names of what they were given; 'u' is one that came meanwhile */
	int dropped;	  /* "k" was, by who overtook */
	int redriven;	  /* the same */
};

/* --- payloads: the first byte is the task's name ------------------------------------------------------------ */

static unsigned char payload[IN_BLOCKS];

static size_t size_of(enum op op, char name)
{
	int in_blocks = op == ENQUEUE_BLOCKS || op == ENQUEUE_NO_BLOCKS || op == ACK_BLOCKS ||
			op == DROP_BLOCKS;

	return name == 'B' || (name == 'k' && in_blocks) ? IN_BLOCKS : INLINE;
}

static void fill(char name, size_t size)
{
	for (size_t i = 0; i < size; i++)
		payload[i] = (unsigned char)(name + i * 5 + (i >> 8));
}

static int is_whole(const unsigned char *bytes, size_t size, enum op op)
{
	if (size != size_of(op, (char)bytes[0]))
		return 0;
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != (unsigned char)(bytes[0] + i * 5 + (i >> 8)))
			return 0;
	return 1;
}

static int enqueue(struct step_world *w, char name, uint64_t delay_ns, uint32_t max_attempts,
		   uint64_t *ret_id)
{
	struct coshm_enqueue_options options = {.delay_ns = delay_ns, .max_attempts = max_attempts};
	size_t size = size_of(op_of(w), name);

	fill(name, size);
	return coshm_queue_enqueue(w->queue, payload, size, &options, ret_id);
}

/* --- before: "k", "a" and "b" wait, "c" is delayed, "d" is a dead letter -------------------------------------- */

/* Nothing is ready but what the row is about. */
static int is_quiet(enum op op)
{
	return op == RESERVE_NONE || op == ENQUEUE_ASLEEP || op == WORKER;
}

static int has_k(enum op op)
{
	return op >= RESERVE && op != RESERVE_NONE;
}

static struct coshm_task leased;

static int bury_next(struct step_world *w, char name)
{
	struct coshm_task task;

	STEP_NEED(enqueue(w, name, 0, 0, NULL) == 0);
	STEP_NEED(coshm_queue_reserve(w->queue, 0, &task) == 1);
	STEP_NEED(coshm_queue_bury(w->queue, &task, "hopeless") == 0);
	if (name == 'k')
		((struct notes *)w->notes)->id = task.id;
	return 0;
}

static int prepare(struct step_world *w)
{
	struct coshm_queue_config config = {.capacity = CAPACITY,
					    .payload_max_bytes = 4096,
					    .payload_pool_bytes = BLOCKS * 1024,
					    .backoff_base_ns = 1000,
					    .backoff_kind = COSHM_BACKOFF_FIXED,
					    .max_attempts = 3};
	enum op op = op_of(w);
	int error;

	if (step_make(w, 0))
		return -1;
	STEP_NEED(coshm_queue_create(w->segment, "q", &config, 0, &w->queue) == 0);
	if (bury_next(w, 'd'))
		return -1;
	if ((op >= REDRIVE) && bury_next(w, 'k'))
		return -1;
	if (has_k(op) && op < REDRIVE)
		/* At most two attempts: one that counts twice is a dead letter. */
		STEP_NEED(enqueue(w, 'k', op == RESERVE_DUE ? 1 : 0,
				  op == RESERVE_LAST || op == NACK_LAST ? 1 : 2, NULL) == 0);
	if (!is_quiet(op))
		STEP_NEED(enqueue(w, 'a', 0, 0, NULL) == 0 && enqueue(w, 'b', 0, 0, NULL) == 0);
	STEP_NEED(enqueue(w, 'c', HOUR_NS, 0, NULL) == 0);
	if (op == ENQUEUE_NO_BLOCKS)
		STEP_NEED(enqueue(w, 'B', 0, 0, NULL) == 0 && enqueue(w, 'B', 0, 0, NULL) == 0);
	while (op == ENQUEUE_FULL) {
		error = enqueue(w, 'e', 0, 0, NULL);
		STEP_NEED(error == 0 || error == -EAGAIN);
		if (error)
			break;
	}
	/* Leaves the mark that somebody sleeps. */
	if (op == ENQUEUE_ASLEEP)
		STEP_NEED(coshm_queue_reserve(w->queue, 1000000, &leased) == 0);
	/* The clock by which the operation sees what is due is some milliseconds late. */
	if (op == RESERVE_DUE)
		test_sleep_ns(20000000);
	return 0;
}

/* --- the operation ------------------------------------------------------------------------------------------- */

static int ready(struct step_world *w)
{
	if (op_of(w) >= ACK && op_of(w) <= RELEASE)
		STEP_NEED(coshm_queue_reserve(w->queue, 0, &leased) == 1);
	fill('k', sizeof(payload));
	return 0;
}

/* 1: reserved */
static int reserve(struct step_world *w, uint64_t timeout_ns, int *ret_name)
{
	size_t size = sizeof(payload);
	int got = coshm_queue_reserve(w->queue, timeout_ns, &leased);

	if (got != 1 || !ret_name)
		return got;
	STEP_NEED(coshm_queue_payload(w->queue, &leased, payload, &size) == 0);
	STEP_NEED(is_whole(payload, size, op_of(w)));
	*ret_name = payload[0];
	return 1;
}

static int handle(void *context, const struct coshm_task *task, const void *bytes, char error[56])
{
	(void)task;
	(void)error;
	if (!is_whole(bytes, size_of(op_of(context), *(const char *)bytes), op_of(context)))
		return COSHM_WORKER_BURY;
	return COSHM_WORKER_ACK;
}

static int call(struct step_world *w)
{
	const struct coshm_worker_options until_empty = {.flags = COSHM_WORKER_NO_SIGNALS |
								  COSHM_WORKER_UNTIL_EMPTY};
	struct notes *notes = w->notes;
	struct coshm_enqueue_options later = {.delay_ns = HOUR_NS};
	size_t size = size_of(op_of(w), 'k');
	int *name = w->overtaken ? &notes->actor : NULL, error;
	uint64_t count = 0;

	switch (op_of(w)) {
	case ENQUEUE_DELAYED:
		return coshm_queue_enqueue(w->queue, payload, size, &later, NULL);
	case RESERVE_NONE:
		return reserve(w, 1000000, name);
	case WORKER:
		return coshm_worker_run(w->queue, handle, w, &until_empty);
	case ACK:
	case ACK_BLOCKS:
		return coshm_queue_ack(w->queue, &leased);
	case NACK:
	case NACK_LAST:
		return coshm_queue_nack(w->queue, &leased, "failed", COSHM_FOREVER);
	case BURY:
		return coshm_queue_bury(w->queue, &leased, "failed");
	case RELEASE:
		return coshm_queue_release(w->queue, &leased);
	case REDRIVE:
		error = coshm_queue_redrive(w->queue, notes->id, &count);
		return error ? error : (int)count;
	case REDRIVE_ALL:
		error = coshm_queue_redrive(w->queue, 0, &count);
		return error ? error : (int)count;
	case DROP:
	case DROP_BLOCKS:
		error = coshm_queue_drop(w->queue, notes->id, &count);
		return error ? error : (int)count;
	case RESERVE:
	case RESERVE_LAST:
	case RESERVE_DUE:
		return reserve(w, 0, name);
	default:
		return coshm_queue_enqueue(w->queue, payload, size, NULL, NULL);
	}
}

static int is_reserve(enum op op)
{
	return op >= RESERVE && op <= RESERVE_NONE;
}

/* What the call gives when nobody else is there. */
static int due(enum op op)
{
	switch (op) {
	case ENQUEUE_FULL:
	case ENQUEUE_NO_BLOCKS:
		return -EAGAIN;
	case RESERVE:
	case RESERVE_LAST:
	case RESERVE_DUE:
	case WORKER:
	case REDRIVE:
	case DROP:
	case DROP_BLOCKS:
		return 1;
	case REDRIVE_ALL:
		return 2;
	default:
		return 0;
	}
}

static int act(struct step_world *w)
{
	const struct notes *notes = w->notes;
	int result = call(w);

	/* A task that came by meanwhile is welcome. */
	if (op_of(w) == RESERVE_NONE && notes->actor == 'u')
		return step_result(w, result, 1);
	/* or is done as well */
	if (op_of(w) == WORKER && w->overtaken && result > 1)
		return step_result(w, result, result);
	return step_result(w, result, due(op_of(w)));
}

/* --- what others see ----------------------------------------------------------------------------------------- */

struct sight {
	enum op op;
	int lax;	    /* others were at them as well */
	uint32_t seen[128]; /* per name */
	struct coshm_task_info k, d;
	int wrong;
};

static int see(void *context, const struct coshm_task_info *info, const void *bytes)
{
	struct sight *sight = context;
	const unsigned char *name = bytes;
	static const struct {
		char name;
		uint32_t state;
	} still[] = {{'a', COSHM_TASK_READY},
		     {'b', COSHM_TASK_READY},
		     {'c', COSHM_TASK_DELAYED},
		     {'B', COSHM_TASK_READY},
		     {'e', COSHM_TASK_READY}};

	if (info->state == COSHM_TASK_OTHER)
		return 0;
	if (!bytes || *name >= 128 || !is_whole(name, info->payload_size_bytes, sight->op)) {
		sight->wrong = 1;
		return 0;
	}
	sight->seen[*name]++;
	for (size_t i = 0; i < sizeof(still) / sizeof(still[0]); i++)
		if (!sight->lax && still[i].name == (char)*name &&
		    (info->state != still[i].state || info->attempts != 0))
			sight->wrong = 1;
	if (*name == 'k')
		sight->k = *info;
	if (*name == 'd')
		sight->d = *info;
	return 0;
}

/* All but "k" is as it was. */
static int look(struct step_world *w, struct sight *sight)
{
	enum op op = op_of(w);

	*sight = (struct sight){.op = op, .lax = w->overtaken >= STEP_OVERTAKEN};
	STEP_NEED(coshm_queue_each(w->queue, 0, COSHM_QUEUE_EACH_PAYLOAD, see, sight) == 0);
	STEP_NEED(!sight->wrong);
	if (sight->lax) {
		for (int name = 'a'; name <= 'd'; name++)
			STEP_NEED(sight->seen[name] <= 1);
		STEP_NEED(sight->seen['c'] == 1 && sight->seen['k'] <= 1);
		return 0;
	}
	STEP_NEED(sight->seen['c'] == 1 && sight->seen['d'] == 1 && sight->seen['k'] <= 1);
	if (!is_quiet(op))
		STEP_NEED(sight->seen['a'] == 1 && sight->seen['b'] == 1);
	STEP_NEED(sight->seen['B'] == (op == ENQUEUE_NO_BLOCKS ? 2 : 0));
	STEP_NEED(op != ENQUEUE_FULL || sight->seen['e'] == CAPACITY - 4);
	if (op != REDRIVE_ALL)
		STEP_NEED(sight->d.state == COSHM_TASK_DEAD && sight->d.attempt_record_count == 1 &&
			  !strcmp(sight->d.attempt_records[0].error, "hopeless"));
	return 0;
}

/* The last failure on record: CRASHED, FAILED with its text, or none (0). */
static int last_outcome(const struct coshm_task_info *k, uint32_t *ret_outcome)
{
	const struct coshm_task_attempt *last = &k->attempt_records[k->attempt_record_count - 1];

	*ret_outcome = 0;
	if (k->attempt_record_count == 0)
		return 0;
	*ret_outcome = last->outcome;
	STEP_NEED(last->outcome != COSHM_ATTEMPT_FAILED || !strcmp(last->error, "failed") ||
		  !strcmp(last->error, "hopeless"));
	return 0;
}

/* Nothing is leased any more: after a reap. */
static int outcome_of_lease(struct step_world *w, const struct coshm_task_info *k)
{
	enum op op = op_of(w);
	uint32_t outcome, last = op == RESERVE_LAST || op == NACK_LAST;

	if (last_outcome(k, &outcome))
		return -1;
	STEP_NEED(k->state != COSHM_TASK_LEASED);
	switch (op) {
	case RELEASE:
		if (k->attempts == 0) {
			STEP_NEED(k->state == COSHM_TASK_READY && k->attempt_record_count == 0);
			return STEP_AFTER;
		}
		break;
	case RESERVE:
	case RESERVE_LAST:
	case RESERVE_DUE:
	case WORKER:
		if (k->attempts == 0) {
			STEP_NEED(k->state == COSHM_TASK_READY && k->attempt_record_count == 0);
			return STEP_BEFORE;
		}
		STEP_NEED(outcome == COSHM_ATTEMPT_CRASHED);
		break;
	default:
		break;
	}
	STEP_NEED(k->attempts == 1 && k->attempt_record_count == 1);
	if (op == BURY && k->state == COSHM_TASK_DEAD) {
		STEP_NEED(outcome == COSHM_ATTEMPT_FAILED);
		return STEP_AFTER;
	}
	/* A first death waits for nothing, a failure for the backoff, which is over in no time here. */
	STEP_NEED(last ? k->state == COSHM_TASK_DEAD
		       : k->state == COSHM_TASK_READY || (k->state == COSHM_TASK_DELAYED &&
							  outcome == COSHM_ATTEMPT_FAILED));
	if (op == ACK || op == ACK_BLOCKS || op == RELEASE)
		STEP_NEED(outcome == COSHM_ATTEMPT_CRASHED);
	if (op == NACK || op == NACK_LAST)
		return outcome == COSHM_ATTEMPT_FAILED ? STEP_AFTER : STEP_BEFORE;
	return op >= RESERVE && op <= RESERVE_DUE ? STEP_AFTER : STEP_BEFORE;
}

static int outcome_of(struct step_world *w, const struct sight *sight)
{
	const struct coshm_task_info *k = &sight->k;

	switch (op_of(w)) {
	case ENQUEUE:
	case ENQUEUE_BLOCKS:
	case ENQUEUE_DELAYED:
		if (!sight->seen['k'])
			return STEP_BEFORE;
		STEP_NEED(k->attempts == 0 && k->max_attempts == 3);
		STEP_NEED(k->state ==
			  (op_of(w) == ENQUEUE_DELAYED ? COSHM_TASK_DELAYED : COSHM_TASK_READY));
		return STEP_AFTER;
	case ENQUEUE_ASLEEP:
		if (!sight->seen['k'])
			return STEP_BEFORE;
		/* The one who was woken may have died as well; another one may have released it. */
		STEP_NEED(k->state == COSHM_TASK_READY ||
			  (k->state == COSHM_TASK_DELAYED && k->attempts));
		STEP_NEED(k->attempts <= 1 && k->attempt_record_count == k->attempts);
		STEP_NEED(k->attempts == 0 ||
			  k->attempt_records[0].outcome == COSHM_ATTEMPT_CRASHED);
		return STEP_AFTER;
	case ENQUEUE_FULL:
	case ENQUEUE_NO_BLOCKS:
	case RESERVE_NONE:
		STEP_NEED(!sight->seen['k']);
		return STEP_EITHER;
	case WORKER:
	case ACK:
	case ACK_BLOCKS:
		return sight->seen['k'] ? outcome_of_lease(w, k) : STEP_AFTER;
	case REDRIVE:
	case REDRIVE_ALL:
		STEP_NEED(sight->seen['k'] && k->attempt_record_count == 1);
		if (k->state == COSHM_TASK_DEAD)
			return STEP_BEFORE;
		STEP_NEED(k->state == COSHM_TASK_READY && k->attempts == 0);
		/* In whatever order; when it has returned, both. */
		return op_of(w) == REDRIVE || sight->d.state == COSHM_TASK_READY ? STEP_AFTER
										 : STEP_BEFORE;
	case DROP:
	case DROP_BLOCKS:
		if (!sight->seen['k'])
			return STEP_AFTER;
		STEP_NEED(k->state == COSHM_TASK_DEAD && k->attempts == 1);
		return STEP_BEFORE;
	default:
		STEP_NEED(sight->seen['k']);
		return outcome_of_lease(w, k);
	}
}

/* While nobody has reaped: a lease is a lease. */
static int read_raw(struct step_world *w)
{
	struct sight sight;
	enum op op = op_of(w);
	uint32_t outcome;

	if (look(w, &sight))
		return -1;
	/* A rival may be at any of them. */
	if (w->overtaken >= STEP_RIVALLED)
		return STEP_EITHER;
	if (sight.seen['k'] && sight.k.state == COSHM_TASK_LEASED) {
		STEP_NEED((has_k(op) && op < REDRIVE) || op == ENQUEUE_ASLEEP);
		STEP_NEED(sight.k.attempts == 1);
		if (last_outcome(&sight.k, &outcome))
			return -1;
		return op <= RESERVE_DUE ? STEP_AFTER : STEP_BEFORE;
	}
	return outcome_of(w, &sight);
}

static int check(struct step_world *w)
{
	struct sight sight;

	return look(w, &sight) ? -1 : outcome_of(w, &sight);
}

/* Who waits for a task gets it, if it is there at the end: nobody sleeps beside one. */
static int pass_asleep(struct step_world *w)
{
	int got = coshm_queue_reserve(w->queue, 20000000, &leased);
	struct coshm_queue_depth depth;

	if (got == 1) {
		STEP_NEED(coshm_queue_release(w->queue, &leased) == 0);
		return 0;
	}
	STEP_NEED(got == 0 && coshm_queue_depth(w->queue, &depth) == 0);
	/* Who stands still may have its hint still to give; until it has, or is swept, nobody finds the task. */
	STEP_NEED(depth.ready == 0 || w->overtaken);
	return 0;
}

/* Tasks of others go in meanwhile. */
static int pass(struct step_world *w)
{
	int error;

	if (op_of(w) == ENQUEUE_ASLEEP)
		return pass_asleep(w);
	error = enqueue(w, 'u', 0, 0, NULL);
	STEP_NEED(error == 0 || (error == -EAGAIN && op_of(w) == ENQUEUE_FULL));
	return 0;
}

/* Takes all that is there to be taken; each name as often as it was seen. */
static int drain(struct step_world *w, const uint32_t expected[128])
{
	uint32_t got[128] = {0}, left = 0;
	struct coshm_task task;

	for (int i = 0; i < 128; i++)
		left += expected[i];
	for (; left > 0; left--) {
		size_t size = sizeof(payload);

		STEP_NEED(coshm_queue_reserve(w->queue, SECOND_NS, &task) == 1);
		STEP_NEED(coshm_queue_payload(w->queue, &task, payload, &size) == 0);
		STEP_NEED(is_whole(payload, size, op_of(w)));
		STEP_NEED(++got[payload[0]] <= expected[payload[0]]);
		STEP_NEED(coshm_queue_ack(w->queue, &task) == 0);
		STEP_NEED(coshm_queue_ack(w->queue, &task) == -ESTALE);
	}
	STEP_NEED(coshm_queue_reserve(w->queue, 0, &task) == 0);
	return 0;
}

/* Records and blocks: all are there again, and no more than that. */
static int check_room(struct step_world *w, uint32_t used)
{
	uint32_t expected[128] = {0};

	for (; expected['B'] < BLOCKS / 3; expected['B']++)
		STEP_NEED(enqueue(w, 'B', 0, 0, NULL) == 0);
	STEP_NEED(enqueue(w, 'B', 0, 0, NULL) == -EAGAIN);
	for (; used + expected['B'] + expected['u'] < CAPACITY; expected['u']++)
		STEP_NEED(enqueue(w, 'u', 0, 0, NULL) == 0);
	STEP_NEED(enqueue(w, 'u', 0, 0, NULL) == -EAGAIN);
	return drain(w, expected);
}

static int use(struct step_world *w)
{
	uint32_t expected[128], dead;
	struct sight sight;
	uint64_t count = 0;
	int later;

	if (look(w, &sight))
		return -1;
	memcpy(expected, sight.seen, sizeof(expected));
	later = sight.seen['k'] && sight.k.state == COSHM_TASK_DELAYED &&
		op_of(w) == ENQUEUE_DELAYED;
	dead = (sight.seen['k'] && sight.k.state == COSHM_TASK_DEAD) +
	       (sight.seen['d'] && sight.d.state == COSHM_TASK_DEAD);
	expected['c'] = 0;
	expected['k'] = sight.seen['k'] && sight.k.state != COSHM_TASK_DEAD && !later;
	expected['d'] = sight.seen['d'] && sight.d.state != COSHM_TASK_DEAD;
	if (drain(w, expected))
		return -1;
	memset(expected, 0, sizeof(expected));
	expected['k'] = sight.seen['k'] && sight.k.state == COSHM_TASK_DEAD;
	expected['d'] = sight.seen['d'] && sight.d.state == COSHM_TASK_DEAD;
	STEP_NEED(coshm_queue_redrive(w->queue, 0, &count) == 0 && count == dead);
	if (drain(w, expected))
		return -1;
	return check_room(w, 1 + (uint32_t)later);
}

/* --- overtaken ----------------------------------------------------------------------------------------------- */

enum { LAPS = 70 }; /* twice around each ring, and more */

/*
 * Around the rings: new tasks come and are done, the others are taken and given back, so that records and blocks change hands,
 * and each word has gone on by some generations.
 */
static int lap(struct step_world *w)
{
	int blocks =
		op_of(w) == ENQUEUE_BLOCKS || op_of(w) == ACK_BLOCKS || op_of(w) == DROP_BLOCKS;
	int outstanding = 0, name = 0, error, got;

	for (int i = 0; i < LAPS || outstanding; i++) {
		STEP_NEED(i < 3 * LAPS);
		error = i < LAPS && op_of(w) != ENQUEUE_FULL
				? enqueue(w, blocks && i % 2 ? 'B' : 'u', 0, 0, NULL)
				: -EAGAIN;
		STEP_NEED(error == 0 || error == -EAGAIN);
		outstanding += error == 0;
		got = reserve(w, 0, &name);
		STEP_NEED(got == 0 || got == 1);
		if (got == 0)
			continue;
		if (name != 'u' && name != 'B') {
			STEP_NEED(coshm_queue_release(w->queue, &leased) == 0);
		} else if (op_of(w) == ENQUEUE_NO_BLOCKS && name == 'B') {
			STEP_NEED(coshm_queue_release(w->queue, &leased) == 0);
		} else {
			STEP_NEED(coshm_queue_ack(w->queue, &leased) == 0);
			outstanding--;
		}
	}
	return 0;
}

/* Another dead letter where "k" was; it goes before anybody looks. */
static int bury_others(struct step_world *w, uint64_t ids[4])
{
	for (int i = 0; i < 4; i++) {
		struct coshm_task task;

		STEP_NEED(enqueue(w, 'u', 0, 0, NULL) == 0);
		do {
			size_t size = sizeof(payload);

			STEP_NEED(coshm_queue_reserve(w->queue, 0, &task) == 1);
			STEP_NEED(coshm_queue_payload(w->queue, &task, payload, &size) == 0);
			if (payload[0] != 'u')
				STEP_NEED(coshm_queue_release(w->queue, &task) == 0);
		} while (payload[0] != 'u');
		STEP_NEED(coshm_queue_bury(w->queue, &task, "not this one") == 0);
		ids[i] = task.id;
	}
	return 0;
}

static uint64_t buried[4];

static int overtake(struct step_world *w)
{
	struct notes *notes = w->notes;
	enum op op = op_of(w);
	int error;

	if (op >= REDRIVE && w->round % 2) {
		error = coshm_queue_drop(w->queue, notes->id, NULL);
		STEP_NEED(error == 0 || error == -ENOENT);
		notes->dropped = error == 0;
		return lap(w) ? -1 : bury_others(w, buried);
	}
	if (op >= REDRIVE) {
		error = coshm_queue_redrive(w->queue, notes->id, NULL);
		STEP_NEED(error == 0 || error == -ENOENT);
		notes->redriven = error == 0;
	}
	/* The same task once more, in another life: who looked at the first one must not get it for that. */
	if (op == RESERVE && w->seen == STEP_BEFORE) {
		int name = 0;

		while (name != 'k') {
			STEP_NEED(reserve(w, 0, &name) == 1);
			if (name != 'k')
				STEP_NEED(coshm_queue_release(w->queue, &leased) == 0);
		}
		STEP_NEED(coshm_queue_ack(w->queue, &leased) == 0);
		STEP_NEED(enqueue(w, 'k', 0, 2, NULL) == 0);
	}
	return lap(w);
}

static int rival_reserve(struct step_world *w)
{
	struct notes *notes = w->notes;
	int got = reserve(w, 0, &notes->rival);

	STEP_NEED(got == 0 || got == 1);
	return step_result(w, got, 1);
}

/* Takes one, and is done with it. */
static int rival_ack(struct step_world *w)
{
	struct notes *notes = w->notes;
	int got = reserve(w, 0, &notes->rival);

	STEP_NEED(got == 0 || got == 1);
	if (got)
		STEP_NEED(coshm_queue_ack(w->queue, &leased) == 0);
	return step_result(w, got, 1);
}

static int rival_nack(struct step_world *w)
{
	struct notes *notes = w->notes;
	int got = reserve(w, 0, &notes->rival);

	STEP_NEED(got == 0 || got == 1);
	if (got)
		STEP_NEED(coshm_queue_nack(w->queue, &leased, "failed", 0) == 0);
	return step_result(w, got, 1);
}

static int rival_enqueue(struct step_world *w)
{
	int error = enqueue(w, 'u', 0, 0, NULL);

	STEP_NEED(error == 0 || error == -EAGAIN);
	return step_result(w, error, 0);
}

static int rival_reap(struct step_world *w)
{
	return step_result(w, coshm_segment_reap(w->segment, NULL), 0);
}

static const struct step_rival rivals[] = {
	{"reserve", rival_reserve, 0}, {"ack", rival_ack, 0},	{"nack", rival_nack, 0},
	{"enqueue", rival_enqueue, 0}, {"reap", rival_reap, 0}, {NULL, NULL, 0}};

static int is_beside(const struct step_world *w, int (*act_of_rival)(struct step_world *w))
{
	return w->overtaken >= STEP_RIVALLED && w->rival->act == act_of_rival;
}

/* Is a task of that name to be there? 0 no, 1 yes, 2 it may have gone with a rival that died */
static int is_due(const struct step_world *w, int name)
{
	const struct notes *notes = w->notes;
	enum op op = op_of(w);
	int there = (name == 'd' || name == 'c') ? 1 : name == 'k' ? has_k(op) : !is_quiet(op);

	/* A rival that has it may give it back when the worker has gone. */
	if (name == 'k' && op == WORKER)
		return w->overtaken >= STEP_RIVALLED ? 2 : 0;
	if (name == 'k' && (op == ACK || op == ACK_BLOCKS))
		there = 0;
	/* Who overtook may have redriven it first. */
	if (name == 'k' && (op == DROP || op == DROP_BLOCKS))
		there = notes->redriven;
	if (name == 'k' && op <= ENQUEUE_ASLEEP)
		there = 1;
	/* A rival may have made room. */
	if (name == 'k' && (op == ENQUEUE_FULL || op == ENQUEUE_NO_BLOCKS))
		return w->results->actor == 0;
	if (name == 'k' && op >= REDRIVE && notes->dropped)
		there = 0;
	if (there && is_beside(w, rival_ack)) {
		if (w->overtaken == STEP_BEREAVED)
			return 2;
		if (w->results->rival == 1 && notes->rival == name)
			return 0;
	}
	return there;
}

static int resumed(struct step_world *w)
{
	const struct notes *notes = w->notes;
	int result = w->results->actor, outcome;
	enum op op = op_of(w);
	struct sight sight;

	for (int i = 0; i < 4; i++) {
		if (!buried[i])
			continue;
		/* Nobody has asked for these but who asked for all. */
		STEP_NEED(coshm_queue_drop(w->queue, buried[i], NULL) == 0 || op == REDRIVE_ALL);
		buried[i] = 0;
	}
	if (w->overtaken == STEP_PASSED)
		return check(w);
	if (look(w, &sight))
		return -1;
	for (const char *name = "abcdk"; *name; name++) {
		int there = is_due(w, *name);

		STEP_NEED(there == 2 || (int)sight.seen[(int)*name] == there);
	}
	/* A task that is done is not given to another one as well. */
	if (is_reserve(op) && is_beside(w, rival_ack) && w->overtaken == STEP_RIVALLED &&
	    result == 1 && w->results->rival == 1)
		STEP_NEED(notes->actor != notes->rival || notes->actor == 'u');
	if (is_reserve(op)) {
		STEP_NEED(result == (op != RESERVE_NONE) || (result == 1 && notes->actor == 'u') ||
			  (op == RESERVE_NONE && w->overtaken >= STEP_RIVALLED));
	} else if (op == WORKER) {
		STEP_NEED(result >= 1 || (result == 0 && w->overtaken >= STEP_RIVALLED));
	} else if (op < REDRIVE) {
		STEP_NEED(result == due(op) || (op == ENQUEUE_FULL && is_beside(w, rival_ack)));
	} else if (op != REDRIVE_ALL) {
		STEP_NEED(result == 1 ||
			  (result == -ENOENT && notes->dropped && w->seen == STEP_BEFORE) ||
			  (result == -ENOENT && notes->redriven));
		STEP_NEED(!notes->redriven || result == -ENOENT);
	}
	if (w->overtaken != STEP_OVERTAKEN || is_reserve(op) || op >= REDRIVE)
		return STEP_EITHER;
	outcome = outcome_of(w, &sight);
	return outcome;
}

int main(void)
{
	static struct step_row rows[OP_COUNT];

	for (uint32_t op = 0; op < OP_COUNT; op++) {
		int control = op == ENQUEUE || op == NACK;
		int never = op == ENQUEUE_FULL || op == ENQUEUE_NO_BLOCKS || op == RESERVE_NONE;
		int is_short = op == ENQUEUE || op == RESERVE || op == ACK || op == NACK;

		rows[op] = (struct step_row){.name = names[op],
					     .objects = STEP_QUEUE,
					     .flags = (never ? STEP_UNSEEN : 0u) |
						      (is_reserve((enum op)op) ? STEP_KEEPS : 0u) |
						      (control ? STEP_CONTROL : 0u) |
						      (is_short ? STEP_OVERTAKE_TOO : 0u) |
						      (op == RESERVE ? STEP_RIVAL_TOO : 0u) |
						      (op >= REDRIVE ? STEP_AGAIN : 0u),
					     .variant = op,
					     .prepare = prepare,
					     .ready = ready,
					     .act = act,
					     .read = read_raw,
					     .pass = pass,
					     .check = check,
					     .use = use,
					     .overtake = overtake,
					     .rivals = rivals,
					     .resumed = resumed};
	}
	return step_run("step: queue", rows, OP_COUNT);
}
