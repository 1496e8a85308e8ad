/* SPDX-License-Identifier: MIT */
/*
 * Overtaken: the actor stands still behind an instruction of its call, others work on the very segment, and then it goes on.
 * Or somebody else, the rival, stands still in its call first; while the actor does as well, the rival goes on to its end,
 * detaches and exits; or it was killed before.
 *
 * One step by step run of a call tells its places: behind each instruction that reads or changes the segment, before and
 * behind each system call. What lies between them changes neither the segment nor what the process knows of it. Each
 * round then makes everything anew and runs to one place at full speed, by a breakpoint.
 */
#include "support/step_local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define SAME_PLACE	6      /* times; from then on only each power of two */
#define COPY_WINDOW	192    /* bytes of code */
#define COPY_GAP	64     /* bytes of the segment between two touches of a copy */
#define COPY_LONG	8      /* touches; from then on only each power of two */
#define STEPS_MAX	200000 /* looked at; what comes later is a loop */
#define STEPS_MAX_QUICK 12000

/* Rounds of a row in the quick set, and the most in the deep one. */
struct plan {
	uint64_t passed, overtaken;   /* places of the actor */
	uint64_t rivals;	      /* of those that the row has; STEP_RIVAL_TOO */
	uint64_t rival, beside_rival; /* places of the rival, and for each of them of the actor */
	uint64_t dead, beside_dead;   /* the same where the rival was killed */
};

static const struct plan quick_plan = {
	.passed = 1, .overtaken = 3, .rivals = 1, .rival = 1, .beside_rival = 2};
static const struct plan deep_plan = {.passed = 40,
				      .overtaken = 200,
				      .rivals = UINT64_MAX,
				      .rival = 4,
				      .beside_rival = 40,
				      .dead = 2,
				      .beside_dead = 20};

static struct {
	uint64_t places, rounds, missed, failures, rows;
} totals;

/* One row. */
struct overtaking {
	struct step_walk walk;
	struct step_tracee rival;
	struct step_world rival_world;
	_Atomic uint64_t *leap_ns;
	struct step_results *results;
	uint32_t round;
	uint64_t places, missed;
};

/* What one round is about. */
struct setting {
	enum step_overtaken mode;
	const struct step_rival *rival;
	const struct step_place *rival_at; /* NULL: there is none */
	const struct step_place *at;	   /* NULL: step through all of it and note the places */
	struct step_places *places;
};

/* --- places -------------------------------------------------------------------------------------------------- */

static int is_power_of_two(uint64_t n)
{
	return (n & (n - 1)) == 0;
}

struct run {
	uintptr_t pc;
	uint64_t at, touches;
};

/* Does the last touch go on with a copy, or a search? Then few of them matter. */
static int is_dull(struct run *run, const struct step_tracee *tracee)
{
	uint64_t at = tracee->touch_offset;

	if (tracee->pc - run->pc + COPY_WINDOW > 2 * COPY_WINDOW || at < run->at ||
	    at > run->at + COPY_GAP || tracee->was_syscall) {
		run->pc = tracee->pc;
		run->touches = 0;
	}
	run->at = at;
	return ++run->touches > COPY_LONG && !is_power_of_two(run->touches);
}

/* Steps to the end of the call, or to where it only repeats itself. Negative: it died */
static int find_places(struct step_tracee *tracee, struct step_places *places)
{
	uint64_t max = step_is_deep() ? STEPS_MAX : STEPS_MAX_QUICK, count;
	struct run run = {0};
	struct step_way way;
	int running = 1, is_place = 1, changes = 1;

	step_way_begin(&way);
	tracee->wants_touches = 1;
	while (tracee->steps < max && (running = step_trace_next(tracee)) > 0 &&
	       atomic_load(&tracee->talk->phase) == STEP_INSIDE) {
		/* A repeated instruction is one. */
		count = step_way_add(&way, tracee);
		if (count == 0)
			continue;
		if ((is_place || tracee->was_syscall) &&
		    (count <= SAME_PLACE || (step_is_deep() && is_power_of_two(count))))
			step_places_add(places, (struct step_place){.pc = tracee->pc,
								    .occurrence = count,
								    .step = tracee->steps - 1,
								    .changes = changes});
		is_place = tracee->touches && !is_dull(&run, tracee);
		changes = tracee->store != STEP_STORES_NOTHING;
	}
	tracee->wants_touches = 0;
	step_way_end(&way);
	return running < 0 ? -1 : 0;
}

/* Only those that others can tell from the one before. */
static void keep_changes(struct step_places *places)
{
	size_t kept = 0;

	for (size_t i = 0; i < places->count; i++)
		if (places->list[i].changes)
			places->list[kept++] = places->list[i];
	places->count = kept;
}

/* Those that it has only because the rival is where it is; if there are none, all. */
static void keep_new(struct step_places *places, const struct step_places *alone)
{
	size_t kept = 0;

	for (size_t i = 0; i < places->count; i++) {
		int known = 0;

		for (size_t j = 0; j < alone->count && !known; j++)
			known = alone->list[j].pc == places->list[i].pc;
		if (!known)
			places->list[kept++] = places->list[i];
	}
	if (kept)
		places->count = kept;
}

/* --- one round ----------------------------------------------------------------------------------------------- */

static void report(struct overtaking *o, const struct setting *s, const char *stage,
		   const char *message)
{
	static const char *const modes[] = {"alone", "passed", "overtaken", "rivalled", "bereaved"};
	struct step_tracee where = {.pc = s->at ? s->at->pc : 0, .steps = s->at ? s->at->step : 0};
	char text[256], code[128] = "";

	snprintf(text, sizeof(text), "%s in round %u: %s%s%s", modes[s->mode], o->round, stage,
		 s->rival ? ", by " : "", s->rival ? s->rival->name : "");
	if (s->rival_at) {
		step_describe_code(s->rival_at->pc, code, sizeof(code));
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 " which stood behind %llu%s", (unsigned long long)s->rival_at->step, code);
	}
	step_report(&o->walk, text, &where, NULL, message);
}

static int rival_before(struct step_world *world)
{
	return world->row->flags & STEP_BARE || world->rival->attaches ? 0 : step_open(world, 0);
}

static int rival_inside(struct step_world *world)
{
	int result = world->rival->act(world);

	atomic_store(&step_own_talk->phase, STEP_LEAVING);
	return result || (world->segment && step_close(world)) ? -1 : 0;
}

static int rival_start(struct overtaking *o, const struct setting *s)
{
	o->rival_world = o->walk.world;
	o->rival_world.rival = s->rival;
	o->rival_world.is_rival = 1;
	o->rival_world.overtaken = s->mode;
	if (step_trace_begin(&o->rival) == 0)
		return 0;
	report(o, s, "the rival before its call", o->rival.talk->message);
	return -1;
}

/* It goes on to its end and exits, or is killed where it stands. */
static int rival_end(struct overtaking *o, const struct setting *s)
{
	int error = 0;

	if (!o->rival.proc)
		return 0;
	if (s->mode == STEP_RIVALLED)
		error = step_trace_go_on(&o->rival) < 0 || o->rival.talk->result;
	step_trace_kill(&o->rival);
	if (error)
		report(o, s, "the rival", o->rival.talk->message);
	return error ? -1 : 0;
}

static int rival_places(struct overtaking *o, const struct step_rival *rival,
			struct step_places *places)
{
	struct step_survivor survivor = {
		.world = o->walk.world, .talk = o->walk.actor.talk + 1, .leap_ns = o->leap_ns};
	struct setting s = {.mode = STEP_RIVALLED, .rival = rival};
	int error = step_survivor_start(&survivor);

	if (error)
		report(o, &s, "preparation", survivor.talk->message);
	else
		error = rival_start(o, &s);
	if (!error)
		error = find_places(&o->rival, places) || rival_end(o, &s);
	keep_changes(places);
	if (error)
		step_trace_kill(&o->rival);
	step_survivor_end(&survivor);
	return error;
}

static int ask(struct overtaking *o, const struct setting *s, struct step_survivor *survivor,
	       enum step_order order, const char *stage)
{
	int result;

	step_survivor_order(survivor, order);
	result = step_survivor_says(survivor);
	if (result < 0)
		report(o, s, stage, survivor->talk->message);
	return result;
}

/* The actor stands at its place. Returns the outcome, or negative when that is reported. */
static int overtake(struct overtaking *o, const struct setting *s, struct step_survivor *survivor)
{
	struct step_tracee *actor = &o->walk.actor;

	if (s->at) {
		if (ask(o, s, survivor, STEP_ORDER_LOOK_ON, "where it stands") < 0 ||
		    rival_end(o, s) ||
		    ask(o, s, survivor, STEP_ORDER_WORK, "who works beside it") < 0)
			return -1;
	}
	if (step_trace_go_on(actor) || actor->talk->result) {
		report(o, s, "the actor", actor->talk->message);
		return -1;
	}
	if (!s->at && rival_end(o, s))
		return -1;
	if (o->walk.row->flags & STEP_KEEPS || o->round % 2)
		step_trace_kill(actor);
	o->results->actor_lives = actor->proc != NULL;
	return ask(o, s, survivor, STEP_ORDER_JUDGE, "when it had returned");
}

/* Everything up to where the actor begins. */
static int set_up(struct overtaking *o, const struct setting *s, struct step_survivor *survivor)
{
	*o->results = (struct step_results){0};
	unlink(o->walk.live.path);
	if (step_survivor_start(survivor)) {
		report(o, s, "preparation", survivor->talk->message);
		return -1;
	}
	if (step_actor_start(&o->walk)) {
		report(o, s, "the actor before its call", o->walk.actor.talk->message);
		return -1;
	}
	if (!s->rival)
		return 0;
	if (rival_start(o, s))
		return -1;
	if (step_trace_run_to(&o->rival, s->rival_at->pc, s->rival_at->occurrence) < 0) {
		report(o, s, "the rival", o->rival.talk->message);
		return -1;
	}
	if (s->mode == STEP_BEREAVED)
		step_trace_kill(&o->rival);
	return 0;
}

static void run_round(struct overtaking *o, const struct setting *s)
{
	struct step_tracee *actor = &o->walk.actor;
	struct step_survivor survivor = {.talk = actor->talk + 1, .leap_ns = o->leap_ns};
	int reached = 1, outcome = -1;

	/* The first sighting of a row is not overtaken: what it must give back is known. */
	o->walk.world.overtaken = s->at || s->rival ? s->mode : STEP_PASSED;
	o->walk.world.rival = s->rival;
	o->walk.world.round = o->round;
	survivor.world = o->walk.world;
	if (set_up(o, s, &survivor) == 0) {
		if (s->at)
			reached = step_trace_run_to(actor, s->at->pc, s->at->occurrence);
		else
			reached = find_places(actor, s->places) ? -1 : 1;
		o->missed += reached == 0;
		if (reached < 0)
			report(o, s, "the actor", actor->talk->message);
		else
			outcome = overtake(o, s, &survivor);
	}
	if (outcome == STEP_BEFORE && !(o->walk.row->flags & STEP_UNSEEN) &&
	    s->mode <= STEP_OVERTAKEN)
		report(o, s, "when it had returned", "it has not happened");
	step_trace_kill(&o->rival);
	step_trace_kill(actor);
	step_survivor_end(&survivor);
	o->round++;
}

/* --- a row --------------------------------------------------------------------------------------------------- */

/* Some of the places, evenly; of few, others in each row. */
static void visit_places(struct overtaking *o, struct setting *s, const struct step_places *places,
			 uint64_t most)
{
	uint64_t count = places->count < most ? places->count : most;
	uint64_t first = places->count * (o->walk.row->variant * 7 % 16) / 16;

	o->places += count;
	for (uint64_t i = 0; i < count && !step_gives_up(&o->walk); i++) {
		size_t which = count < places->count
				       ? (places->count * i + first) / count % places->count
				       : i;

		s->at = &places->list[which];
		run_round(o, s);
	}
	s->at = NULL;
}

/* For some places of the rival: finds the actor's places beside it, which are others each time, and goes through some. */
static void beside_rival(struct overtaking *o, const struct step_rival *rival,
			 enum step_overtaken mode, const struct step_places *rival_places,
			 const struct step_places *alone, uint64_t most, uint64_t most_of_actor)
{
	uint64_t count = rival_places->count < most ? rival_places->count : most;
	uint64_t eighth = 2 * (o->walk.row->variant % 4) + 1;
	uint64_t first = rival_places->count * eighth / 8;

	for (uint64_t i = 0; i < count && !step_gives_up(&o->walk); i++) {
		struct step_places places = {0};
		struct setting s = {.mode = mode, .rival = rival, .places = &places};
		size_t which = (rival_places->count * i + first) / count % rival_places->count;

		s.rival_at = &rival_places->list[which];
		run_round(o, &s);
		if (!step_is_deep())
			keep_new(&places, alone);
		visit_places(o, &s, &places, most_of_actor);
		step_places_free(&places);
	}
}

static void rivals(struct overtaking *o, const struct step_places *alone, const struct plan *plan)
{
	const struct step_rival *rival = o->walk.row->rivals;

	for (uint64_t i = 0; rival && rival->name && i < plan->rivals; rival++, i++) {
		struct step_places places = {0};

		if (step_gives_up(&o->walk))
			break;
		if (rival_places(o, rival, &places) == 0 && places.count) {
			beside_rival(o, rival, STEP_RIVALLED, &places, alone, plan->rival,
				     plan->beside_rival);
			beside_rival(o, rival, STEP_BEREAVED, &places, alone, plan->dead,
				     plan->beside_dead);
		}
		step_places_free(&places);
	}
}

static void overtaking_begin(struct overtaking *o, const struct step_row *row)
{
	static const struct step_bounds none = {.looks = 1};

	*o = (struct overtaking){.round = row->variant};
	step_walk_begin(&o->walk, row, &none);
	o->leap_ns = proc_shared_alloc(sizeof(*o->leap_ns));
	o->results = proc_shared_alloc(sizeof(*o->results));
	o->walk.world.results = o->results;
	o->walk.actor.leap_ns = o->leap_ns;
	o->rival = (struct step_tracee){.talk = o->walk.actor.talk + 2,
					.before = rival_before,
					.inside = rival_inside,
					.path = o->walk.live.path,
					.world = &o->rival_world,
					.leap_ns = o->leap_ns};
}

void step_overtaken_name(char *name, size_t size, const struct step_row *row)
{
	snprintf(name, size, "%s_overtaken", row->name);
}

void step_overtaken_test(void **state)
{
	const struct step_row *row = *state;
	const struct plan *plan = step_is_deep() ? &deep_plan : &quick_plan;
	struct step_places places = {0};
	struct setting s = {.mode = STEP_PASSED, .places = &places};
	uint64_t start_ns = test_now_ns();
	uint32_t rounds;
	struct overtaking o;
	char name[96];

	step_overtaken_name(name, sizeof(name), row);
	step_skip_unless_wanted(name);
	overtaking_begin(&o, row);
	run_round(&o, &s);
	if (!(row->flags & STEP_BARE))
		visit_places(&o, &s, &places, plan->passed);
	s.mode = STEP_OVERTAKEN;
	if (row->overtake)
		visit_places(&o, &s, &places, plan->overtaken);
	if (step_is_deep() || row->flags & STEP_RIVAL_TOO)
		rivals(&o, &places, plan);
	step_walk_end(&o.walk);
	rounds = o.round - row->variant;
	print_message(
		"# %s: %llu places, went on from %llu, %u rounds, %llu not reached; %llu ms\n",
		row->name, (unsigned long long)places.count, (unsigned long long)o.places, rounds,
		(unsigned long long)o.missed,
		(unsigned long long)((test_now_ns() - start_ns) / 1000000));
	fflush(stdout);
	step_places_free(&places);
	totals.rows++;
	totals.places += o.places;
	totals.rounds += rounds;
	totals.missed += o.missed;
	totals.failures += o.walk.sum.failures;
	if (o.walk.sum.failures == 0)
		step_journal(name, 1);
	assert_int_equal(o.walk.sum.failures, 0);
}

void step_overtaken_print_totals(void)
{
	print_message("# overtaken: %llu rows, stood still %llu times, %llu rounds, %llu not "
		      "reached; wrong: %llu\n",
		      (unsigned long long)totals.rows, (unsigned long long)totals.places,
		      (unsigned long long)totals.rounds, (unsigned long long)totals.missed,
		      (unsigned long long)totals.failures);
}
