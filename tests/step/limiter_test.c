/* SPDX-License-Identifier: MIT */
/* Each operation of a limiter, killed at every instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "support/step.h"

/* Tokens come once a day: what is left of a bucket is exact for the length of a test. */
#define DAY_NS UINT64_C(86400000000000)

/* Of the smallest table: each key may lie in any slot. */
enum { BURST = 10, SLOTS = 16 };

struct notes {
	uint32_t taken; /* of "k", by who overtook */
	int other;	/* "m" got its five */
};

enum op {
	TRY,	     /* of a key that is there */
	TRY_NEW,     /* of one that is not */
	TRY_REUSE,   /* takes the slot of a key without debt */
	TRY_EVICT,   /* takes the slot of the key with the least debt */
	TRY_REFUSED, /* changes nothing */
	TRY_CLAMPED, /* of a debt that is larger than the bucket is now */
	WAIT,
	REFUND,
	RESET,
	CONFIGURE,
	OP_COUNT,
};

struct plan {
	const char *name;
	uint32_t k_before, k_after; /* tokens left */
	uint32_t others;
};

static const struct plan plans[OP_COUNT] = {
	[TRY] = {"limiter_try", 8, 5, 3},
	[TRY_NEW] = {"limiter_try_new", 10, 7, 3},
	[TRY_REUSE] = {"limiter_try_reuse", 10, 7, SLOTS},
	[TRY_EVICT] = {"limiter_try_evict", 10, 7, SLOTS},
	[TRY_REFUSED] = {"limiter_try_refused", 2, 2, 3},
	[TRY_CLAMPED] = {"limiter_try_clamped", 0, 0, 3},
	[WAIT] = {"limiter_wait", 8, 5, 3},
	[REFUND] = {"limiter_refund", 4, 7, 3},
	[RESET] = {"limiter_reset", 4, 10, 3},
	[CONFIGURE] = {"limiter_configure", 8, 8, 3},
};

static const struct coshm_limiter_config before = {
	.rate = 1, .per_ns = DAY_NS, .burst = BURST, .keys_max = 1};
static const struct coshm_limiter_config after = {.rate = 3, .per_ns = 3 * DAY_NS, .burst = 12};
/* A tenth of the time per token. */
static const struct coshm_limiter_config smaller = {.rate = 10, .per_ns = DAY_NS, .burst = BURST};

static enum op op_of(const struct step_world *w)
{
	return (enum op)w->row->variant;
}

static const struct plan *plan_of(const struct step_world *w)
{
	return &plans[op_of(w)];
}

/* What is taken from others[i] before. The first has the least debt. */
static uint64_t debt_of(const struct step_world *w, uint32_t i)
{
	if (op_of(w) == TRY_REUSE && i == 0)
		return 0;
	return i == 0 ? 1 : 2 + i % 5;
}

static int take(struct step_world *w, const char *key, uint64_t cost)
{
	if (cost)
		STEP_NEED(coshm_limiter_try(w->limiter, key, strlen(key), cost, NULL) == 1);
	return 0;
}

static int prepare(struct step_world *w)
{
	const struct plan *plan = plan_of(w);

	if (step_make(w, 0))
		return -1;
	STEP_NEED(coshm_limiter_create(w->segment, "l", &before, 0, &w->limiter) == 0);
	for (uint32_t i = 0; i < plan->others; i++) {
		char key[16];

		snprintf(key, sizeof(key), "o%u", i);
		if (take(w, key, i == 0 ? 1 : debt_of(w, i)))
			return -1;
	}
	if (op_of(w) == TRY_REUSE)
		STEP_NEED(coshm_limiter_reset(w->limiter, "o0", 2) == 0);
	if (take(w, "k", BURST - plan->k_before))
		return -1;
	if (op_of(w) == TRY_CLAMPED)
		STEP_NEED(coshm_limiter_configure(w->limiter, &smaller) == 0);
	return 0;
}

static int call(struct step_world *w)
{
	switch (op_of(w)) {
	case WAIT:
		return coshm_limiter_wait(w->limiter, "k", 1, 3, 1000000, NULL);
	case REFUND:
		return coshm_limiter_refund(w->limiter, "k", 1, 3);
	case RESET:
		return coshm_limiter_reset(w->limiter, "k", 1);
	case CONFIGURE:
		return coshm_limiter_configure(w->limiter, &after);
	default:
		return coshm_limiter_try(w->limiter, "k", 1, 3, NULL);
	}
}

static int act(struct step_world *w)
{
	enum op op = op_of(w);
	int refused = op == TRY_REFUSED || op == TRY_CLAMPED || op == REFUND || op == RESET ||
		      op == CONFIGURE;

	return step_result(w, call(w), !refused);
}

/* *ret_left: whole tokens. */
static int look(struct step_world *w, const char *key, uint64_t *ret_left)
{
	struct coshm_limiter_result result;
	int passes = coshm_limiter_peek(w->limiter, key, strlen(key), &result);

	STEP_NEED(passes == (result.remaining > 0));
	*ret_left = result.remaining;
	return 0;
}

/* As a whole the old one or the new one: outcome. */
static int look_at_config(struct step_world *w)
{
	const struct coshm_limiter_config *expected = op_of(w) == TRY_CLAMPED ? &smaller : &before;
	struct coshm_limiter_config config = {0};
	int outcome = STEP_BEFORE;

	STEP_NEED(coshm_limiter_config(w->limiter, &config) == 0);
	if (op_of(w) == CONFIGURE && config.rate == after.rate) {
		expected = &after;
		outcome = STEP_AFTER;
	}
	STEP_NEED(config.rate == expected->rate && config.per_ns == expected->per_ns &&
		  config.burst == expected->burst);
	return outcome;
}

static int look_at_others(struct step_world *w, uint64_t burst)
{
	for (uint32_t i = 0; i < plan_of(w)->others; i++) {
		uint64_t left, due = burst - debt_of(w, i);
		char key[16];

		snprintf(key, sizeof(key), "o%u", i);
		if (look(w, key, &left))
			return -1;
		if (op_of(w) == TRY_CLAMPED) /* in days of the old token */
			continue;
		/* The least indebted may be forgotten for a new one. */
		STEP_NEED(left == due || (op_of(w) == TRY_EVICT && i == 0 && left == burst));
	}
	return 0;
}

/* Also the check: nothing of a limiter waits for a repair. */
static int check(struct step_world *w)
{
	const struct plan *plan = plan_of(w);
	int outcome;
	uint64_t left, more;

	/* A rival may have been at them; when both have returned, resumed counts. */
	if (w->overtaken >= STEP_RIVALLED)
		return STEP_EITHER;
	outcome = look_at_config(w);
	if (outcome < 0)
		return -1;
	more = outcome == STEP_AFTER ? after.burst - BURST : 0;
	if (look(w, "k", &left) || look_at_others(w, BURST + more))
		return -1;
	STEP_NEED(left == plan->k_before + more || left == plan->k_after + more);
	if (op_of(w) == CONFIGURE)
		return outcome;
	if (plan->k_before == plan->k_after)
		return STEP_EITHER;
	return left == plan->k_after ? STEP_AFTER : STEP_BEFORE;
}

/* No lock is in the way of any key; of the configuration there is one. */
static int pass(struct step_world *w)
{
	struct coshm_limiter_config config = {0};

	if (op_of(w) == CONFIGURE) {
		STEP_NEED(coshm_limiter_config(w->limiter, &config) == 0);
		/* The same again takes the lock that the dead may hold. */
		config.keys_max = 0;
		if (w->round % 4 == 1)
			STEP_NEED(step_went(w, coshm_limiter_configure(w->limiter, &config)));
		return 0;
	}
	STEP_NEED(coshm_limiter_try(w->limiter, "k", 1, 0, NULL) == 1);
	return 0;
}

/* The key has what it has, and not a token more; the table takes new ones. */
static int use(struct step_world *w)
{
	struct coshm_limiter_config config = {0};
	uint64_t left;

	STEP_NEED(coshm_limiter_config(w->limiter, &config) == 0);
	if (look(w, "k", &left))
		return -1;
	for (; left > 0; left--)
		STEP_NEED(coshm_limiter_try(w->limiter, "k", 1, 1, NULL) == 1);
	STEP_NEED(coshm_limiter_try(w->limiter, "k", 1, 1, NULL) == 0);
	STEP_NEED(coshm_limiter_refund(w->limiter, "k", 1, 1) == 0);
	STEP_NEED(coshm_limiter_reset(w->limiter, "k", 1) == 0);
	for (int i = 0; i < SLOTS + 4; i++) {
		char key[16];

		snprintf(key, sizeof(key), "n%d", i);
		STEP_NEED(coshm_limiter_try(w->limiter, key, strlen(key), config.burst, NULL) == 1);
	}
	STEP_NEED(coshm_limiter_configure(w->limiter, &before) == 0);
	return 0;
}

/* --- overtaken ----------------------------------------------------------------------------------------------- */

/* One token of "k", and, every other time, a key whose slot may be the one that the actor is about to take. */
static int overtake(struct step_world *w)
{
	struct notes *notes = w->notes;
	int other = op_of(w) != CONFIGURE && op_of(w) != TRY_CLAMPED && w->round % 2 == 0, got;

	/* In a full table "m" would drive out "k", if that had but one token less. */
	if (!other || plan_of(w)->others < SLOTS) {
		got = coshm_limiter_try(w->limiter, "k", 1, 1, NULL);
		STEP_NEED(got == 0 || got == 1);
		notes->taken += (uint32_t)got;
	}
	if (op_of(w) == CONFIGURE) {
		int error = coshm_limiter_configure(w->limiter, &before);

		STEP_NEED(step_went(w, error));
		return 0;
	}
	if (!other)
		return 0;
	STEP_NEED(coshm_limiter_try(w->limiter, "m", 1, 5, NULL) == 1);
	notes->other = 1;
	return 0;
}

static int rival_try(struct step_world *w)
{
	int got = coshm_limiter_try(w->limiter, "k", 1, 1, NULL);

	STEP_NEED(got == 0 || got == 1);
	return step_result(w, got, 1);
}

static int rival_try_other(struct step_world *w)
{
	STEP_NEED(coshm_limiter_try(w->limiter, "m", 1, 5, NULL) == 1);
	return step_result(w, 1, 1);
}

static int rival_configure(struct step_world *w)
{
	int error = coshm_limiter_configure(w->limiter, &before);

	STEP_NEED(step_went(w, error));
	return step_result(w, error, 0);
}

static const struct step_rival rivals[] = {
	{"try", rival_try, 0}, {"try other", rival_try_other, 0}, {NULL, NULL, 0}};
static const struct step_rival configure_rivals[] = {
	{"configure", rival_configure, 0}, {"try", rival_try, 0}, {NULL, NULL, 0}};

/* Tokens that are left of "k" when @taken were by others. -1: it depends */
static int64_t left_of_k(const struct step_world *w, int64_t burst, int64_t taken)
{
	int result = w->results->actor;

	switch (op_of(w)) {
	case TRY_CLAMPED:
		return 0;
	case REFUND:
		return plan_of(w)->k_after - taken;
	case RESET:
		return w->overtaken == STEP_OVERTAKEN && w->seen == STEP_AFTER ? burst - taken : -1;
	case CONFIGURE:
		return burst - (BURST - plan_of(w)->k_before) - taken;
	default:
		return plan_of(w)->k_before - taken - (result == 1 ? 3 : 0);
	}
}

/* No token is spent twice, and none is lost. */
static int check_k(struct step_world *w, int64_t burst)
{
	const struct notes *notes = w->notes;
	int64_t taken = notes->taken, due, dead = 0;
	uint64_t left;

	if (w->overtaken >= STEP_RIVALLED && w->rival->act == rival_try) {
		taken = w->results->rival == 1;
		dead = w->overtaken == STEP_BEREAVED;
	}
	due = left_of_k(w, burst, taken);
	if (look(w, "k", &left))
		return -1;
	if (due < 0)
		STEP_NEED((int64_t)left <= burst && (int64_t)left >= burst - taken - dead);
	else
		STEP_NEED((int64_t)left <= due && (int64_t)left >= due - dead);
	return 0;
}

static int resumed(struct step_world *w)
{
	const struct notes *notes = w->notes;
	struct coshm_limiter_config config = {0};
	int result = w->results->actor;
	enum op op = op_of(w);
	uint32_t forgotten = 0;
	uint64_t left;

	if (w->overtaken == STEP_PASSED)
		return check(w);
	STEP_NEED(coshm_limiter_config(w->limiter, &config) == 0);
	STEP_NEED(config.burst == BURST || (op == CONFIGURE && config.burst == after.burst));
	if (op == CONFIGURE)
		STEP_NEED(result == 0 || result == -EAGAIN);
	else if (op == REFUND || op == RESET || op == TRY_REFUSED || op == TRY_CLAMPED)
		STEP_NEED(result == 0);
	else
		STEP_NEED(result == 1);
	if (check_k(w, (int64_t)config.burst))
		return -1;
	if (notes->other) {
		STEP_NEED(look(w, "m", &left) == 0 && left == BURST - 5);
	}
	for (uint32_t i = 0; i < plan_of(w)->others && op != TRY_CLAMPED; i++) {
		char key[16];

		snprintf(key, sizeof(key), "o%u", i);
		if (look(w, key, &left))
			return -1;
		/* Those with the least debt may be forgotten, one for each new key. */
		forgotten += left != config.burst - debt_of(w, i);
		STEP_NEED(left == config.burst - debt_of(w, i) || left == config.burst);
	}
	STEP_NEED(forgotten <= (plan_of(w)->others == SLOTS ? 2 : 0));
	return STEP_EITHER;
}

int main(void)
{
	static struct step_row rows[OP_COUNT];

	for (uint32_t op = 0; op < OP_COUNT; op++) {
		int again = op == CONFIGURE || op == RESET || op == TRY_REFUSED;
		int control = op == TRY_EVICT || op == CONFIGURE;
		int never = plans[op].k_before == plans[op].k_after && op != CONFIGURE;

		rows[op] = (struct step_row){.name = plans[op].name,
					     .objects = STEP_LIMITER,
					     .flags = (never ? STEP_UNSEEN : 0u) |
						      (control ? STEP_CONTROL : 0u) |
						      (op == TRY_EVICT ? STEP_OVERTAKE_TOO : 0u) |
						      (again ? STEP_AGAIN : 0u),
					     .variant = op,
					     .prepare = prepare,
					     .act = act,
					     .read = check,
					     .pass = pass,
					     .check = check,
					     .use = use,
					     .overtake = overtake,
					     .rivals = op == CONFIGURE ? configure_rivals : rivals,
					     .resumed = resumed};
	}
	return step_run("step: limiter", rows, OP_COUNT);
}
