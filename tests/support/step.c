/* SPDX-License-Identifier: MIT */
/*
 * The walk over a row.
 *
 *   1. Step the actor and look at each state of the segment, or at a sample.
 *   2. From some of these states on, step who comes next, and look at each state that he makes.
 *   3. For some instructions, kill a real actor there, beside a survivor that is attached, and may be waiting.
 *
 * Stores that follow each other closely, in the code and in memory, are a copy of a payload: its states differ in bytes that nobody may
 * read yet. They are counted apart, and looked at here and there.
 */
#include "support/step_local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>
#include <cmocka.h>

#define COPY_WINDOW  192 /* bytes of code */
#define COPY_GAP     64	 /* bytes between two of its stores */
#define COPY_RUN     8	 /* so many make a copy */
#define FAILURES_MAX 5	 /* of one row; one cause has many states */
#define CONTROLS     30	 /* stores held back, in the quick set */
#define WAIT_NS	     UINT64_C(1500000)
#define PATIENCE_NS  UINT64_C(50000000) /* half of what a call waits for a lock */
#define NEVER	     UINT64_MAX

static const struct step_bounds quick_bounds = {.looks = 60,
						.copies_each = 64,
						.recoveries = 0,
						.recovery_looks = 30,
						.kills = 1,
						.kills_each = 1};
static const struct step_bounds deep_bounds = {.looks = NEVER,
					       .copies_each = 16,
					       .recoveries = 1,
					       .recovery_looks = 500,
					       .similar_looks = 20,
					       .kills = NEVER,
					       .kills_each = 2};

static int is_taken(struct step_thinning *thinning, uint64_t bound)
{
	thinning->each += !thinning->each;
	if (thinning->index++ % thinning->each)
		return 0;
	if (++thinning->taken % bound == 0)
		thinning->each *= 2;
	return 1;
}

static struct step_totals totals;
static char segment_name[TEST_SEGMENT_NAME_SIZE];

static void name_of(char *name, size_t size, const char *which)
{
	snprintf(name, size, "%s%s", segment_name, which);
}

/* --- is it a copy? ------------------------------------------------------------------------------------------- */

/* Stores that follow each other in the code and in memory, none to where one of them was before. */
struct run {
	uintptr_t pc;
	uint64_t to; /* where the last one ended */
	uint64_t stores;
};

static int is_copy(struct run *run, uintptr_t pc, const struct step_image *image)
{
	uint64_t at = image->changed_from, end = at + image->changed_bytes;

	if (at == end || pc - run->pc + COPY_WINDOW > 2 * COPY_WINDOW || at < run->to ||
	    at > run->to + COPY_GAP) {
		run->pc = pc;
		run->stores = 0;
	}
	run->to = end;
	return ++run->stores > COPY_RUN;
}

/* As addr2line wants it. */
void step_describe_code(uintptr_t pc, char *text, size_t size)
{
	const char *slash;
	Dl_info info;

	*text = '\0';
	if (!pc || !dladdr((void *)pc, &info))
		return;
	slash = strrchr(info.dli_fname, '/');
	snprintf(text, size, " (%s 0x%llx)", slash ? slash + 1 : info.dli_fname,
		 (unsigned long long)(pc - (uintptr_t)info.dli_fbase));
}

void step_report(struct step_walk *walk, const char *stage, const struct step_tracee *tracee,
		 const struct step_image *image, const char *message)
{
	const char *keep = getenv("STEP_KEEP");
	char path[256], code[128];
	FILE *out;

	walk->sum.failures++;
	step_describe_code(tracee->pc, code, sizeof(code));
	fprintf(stderr, "# FAILED %s: %s, behind instruction %llu%s: %s\n", walk->row->name, stage,
		(unsigned long long)tracee->steps, code, message);
	if (!keep || !image)
		return;
	snprintf(path, sizeof(path), "%s/%s-%llu-%llu", keep, walk->row->name,
		 (unsigned long long)tracee->steps, (unsigned long long)walk->sum.failures);
	out = fopen(path, "w");
	if (out && fwrite(image->bytes, 1, image->size, out) != image->size)
		fprintf(stderr, "# cannot write %s\n", path);
	if (out)
		fclose(out);
}

int step_gives_up(const struct step_walk *walk)
{
	return walk->sum.failures >= FAILURES_MAX;
}

/* Did the last instruction change the segment? */
static int has_changed(struct step_image *image, struct step_file *file,
		       const struct step_tracee *tracee)
{
	switch (tracee->store) {
	case STEP_STORES_ANYWHERE:
		return step_image_update(image, file);
	case STEP_STORES_THERE:
		return step_image_update_at(image, file, tracee->store_offset);
	default:
		return 0;
	}
}

static void add_pair(const struct step_image *image, const struct step_tracee *tracee)
{
	step_set_add(&totals.pairs,
		     image->hash ^ (uint64_t)tracee->pc * UINT64_C(0x9e3779b97f4a7c15));
}

/* --- processes of a row -------------------------------------------------------------------------------------- */

static int actor_before(struct step_world *world)
{
	const struct step_row *row = world->row;

	if (!(row->flags & (STEP_BARE | STEP_UNATTACHED | STEP_FORKED)) && step_open(world, 0))
		return -1;
	return row->ready ? row->ready(world) : 0;
}

static int actor_inside(struct step_world *world)
{
	return world->row->act(world);
}

struct preparing {
	struct step_world world;
	struct step_talk *talk;
};

static int prepare_body(void *arg)
{
	struct preparing *preparing = arg;

	step_message = preparing->talk->message;
	if (preparing->world.row->prepare(&preparing->world))
		return 1;
	return preparing->world.segment && step_close(&preparing->world) ? 1 : 0;
}

static int prepare(struct step_walk *walk)
{
	struct preparing preparing = {walk->world, walk->actor.talk};

	*preparing.talk = (struct step_talk){.result = 0};
	memset(walk->notes, 0, STEP_NOTES_SIZE);
	if (proc_collect(proc_spawn(prepare_body, &preparing), PROC_DEADLINE_NS) == 0)
		return 0;
	step_report(walk, "preparation", &walk->actor, NULL, preparing.talk->message);
	return -1;
}

/* Up to its call. 0, or negative */
int step_actor_start(struct step_walk *walk)
{
	int error = 0;

	if (walk->row->flags & STEP_FORKED) {
		step_message = walk->actor.talk->message;
		if (step_open(&walk->world, 0))
			return -1;
	}
	error = step_trace_begin(&walk->actor);
	if (walk->row->flags & STEP_FORKED && step_close(&walk->world))
		return -1;
	return error;
}

static int begin(struct step_walk *walk)
{
	if (prepare(walk))
		return -1;
	if (step_actor_start(walk)) {
		step_report(walk, "the actor before its call", &walk->actor, NULL,
			    walk->actor.talk->message);
		return -1;
	}
	step_image_update(walk->image, &walk->live);
	return 0;
}

/* --- 1 and 2: looking at copies ------------------------------------------------------------------------------ */

static void look(struct step_walk *walk, const char *stage, const struct step_tracee *tracee,
		 const struct step_image *image, int least, int *ret_raw, int *ret_outcome)
{
	struct step_answer answer;
	char name[96];

	name_of(name, sizeof(name), "-copy");
	step_image_write(image, &walk->copy);
	step_checker_ask(walk->checker, name, 1, &answer);
	walk->sum.looks++;
	*ret_raw = answer.raw;
	*ret_outcome = answer.outcome;
	if (answer.failed) {
		*ret_raw = *ret_outcome = STEP_EITHER;
		step_report(walk, stage, tracee, image, answer.message);
	} else if (answer.outcome == STEP_BEFORE && (least || answer.raw == STEP_AFTER)) {
		step_report(walk, stage, tracee, image,
			    answer.raw == STEP_AFTER
				    ? "undone by the recovery though a reader saw it"
				    : "undone though it had happened");
	}
}

static int reap(struct step_world *world)
{
	STEP_NEED(coshm_segment_reap(world->segment, NULL) == 0);
	return 0;
}

static int pass(struct step_world *world)
{
	return world->row->pass(world);
}

static int open_to_reap(struct step_world *world)
{
	return step_open(world, 0);
}

/* Who comes next: a reaper, somebody in passing, or one who does the same as the dead. */
enum successor { REAPER, PASSER_BY, ACTOR_AGAIN, SUCCESSORS };

static int is_possible(const struct step_row *row, enum successor successor)
{
	switch (successor) {
	case REAPER:
		return !(row->flags & STEP_BARE);
	case PASSER_BY:
		return row->pass && !(row->flags & STEP_BARE);
	default:
		return (row->flags & (STEP_BARE | STEP_AGAIN)) != 0;
	}
}

static int successor_begin(struct step_walk *walk, enum successor successor,
			   struct step_world *world, struct step_tracee *tracee)
{
	*world = walk->world;
	name_of(world->name, sizeof(world->name), "-second");
	*tracee = (struct step_tracee){
		.talk = walk->actor.talk + 1,
		.world = world,
		.path = walk->second.path,
		.before = successor == ACTOR_AGAIN ? actor_before : open_to_reap,
		.inside = successor == ACTOR_AGAIN ? actor_inside
			  : successor == PASSER_BY ? pass
						   : reap,
	};
	step_image_write(walk->image, &walk->second);
	if (step_trace_begin(tracee)) {
		step_report(walk, "a recovery before it began", &walk->actor, walk->image,
			    tracee->talk->message);
		return -1;
	}
	step_image_update(walk->second_image, &walk->second);
	return 0;
}

/* How the states of a recovery are looked at. */
struct looking {
	struct step_thinning looks;
	uint64_t looks_max, copies;
	struct run run;
	int least; /* what the dead did has happened */
};

/* The successor may die as well. Looks at the state that he has made, if it is to be looked at. */
static void look_at_successor(struct step_walk *walk, const struct step_tracee *tracee,
			      struct looking *how)
{
	int raw, outcome, copy = is_copy(&how->run, tracee->pc, walk->second_image);

	if (copy ? how->copies++ % walk->bounds->copies_each == 0
		 : is_taken(&how->looks, how->looks_max))
		look(walk, "killed again in the recovery", tracee, walk->second_image, how->least,
		     &raw, &outcome);
	walk->sum.copy_states += (uint64_t)copy;
	walk->sum.states += !copy;
}

static void judge_successor(struct step_walk *walk, enum successor successor,
			    const struct step_tracee *tracee)
{
	if (tracee->talk->result && !step_gives_up(walk) &&
	    !(successor == ACTOR_AGAIN && walk->row->flags & STEP_AGAIN))
		step_report(walk, "a recovery", tracee, walk->second_image, tracee->talk->message);
}

/* One of the actor's deaths: steps what the next one does about it. */
static void recover(struct step_walk *walk, enum successor successor, struct looking how)
{
	struct step_tracee tracee;
	struct step_world world;
	int running;

	if (successor_begin(walk, successor, &world, &tracee)) {
		step_trace_kill(&tracee);
		return;
	}
	while (!step_gives_up(walk) && (running = step_trace_next(&tracee)) != 0) {
		if (running < 0) {
			step_report(walk, "a recovery", &tracee, walk->second_image,
				    tracee.talk->message);
			break;
		}
		walk->sum.instructions++;
		if (has_changed(walk->second_image, &walk->second, &tracee))
			look_at_successor(walk, &tracee, &how);
		if (how.run.stores <= COPY_RUN)
			add_pair(walk->second_image, &tracee);
	}
	judge_successor(walk, successor, &tracee);
	step_trace_kill(&tracee);
}

/* What a recovery at full speed changes. */
static struct step_difference deeds(struct step_walk *walk, enum successor successor)
{
	struct step_difference difference = {0};
	struct step_tracee tracee;
	struct step_world world;

	if (successor_begin(walk, successor, &world, &tracee) == 0) {
		if (step_trace_go_on(&tracee) < 0)
			step_report(walk, "a recovery", &tracee, walk->image, tracee.talk->message);
		step_image_update(walk->second_image, &walk->second);
		judge_successor(walk, successor, &tracee);
		difference = step_image_difference(walk->image, walk->second_image);
	}
	step_trace_kill(&tracee);
	return difference;
}

/* How many states of this recovery are to be looked at? 0: one before did the same. */
static uint64_t looks_worth(struct step_walk *walk, enum successor successor, int least)
{
	struct step_difference difference = deeds(walk, successor);
	uint64_t who = (uint64_t)successor << 1 | (uint64_t)(least != 0);

	if (!step_set_add(&walk->deeds, difference.what + who))
		return 0;
	return step_set_add(&walk->kinds_of_deeds, difference.where + who)
		       ? walk->bounds->recovery_looks
		       : walk->bounds->similar_looks;
}

/* Of all recoveries, those that do what none before has done are stepped; in the quick set, the first one. */
static void recover_all(struct step_walk *walk, int least)
{
	for (int s = REAPER; s < SUCCESSORS && !step_gives_up(walk); s++) {
		enum successor successor = (enum successor)s;
		uint64_t looks;

		if (!is_possible(walk->row, successor))
			continue;
		walk->sum.recoveries++;
		looks = walk->bounds->recoveries ? looks_worth(walk, successor, least)
						 : walk->bounds->recovery_looks;
		if (looks == 0)
			continue;
		walk->sum.stepped++;
		recover(walk, successor, (struct looking){.looks_max = looks, .least = least});
		if (!walk->bounds->recoveries)
			break;
	}
}

/* The quick set steps one recovery in some rows, at another state in each. */
static int recovers_here(struct step_walk *walk)
{
	if (walk->bounds->recoveries)
		return 1;
	return walk->looks.index == walk->row->variant * 5 % 40;
}

/* 1: it was looked at */
static int state_is_new(struct step_walk *walk)
{
	int raw, outcome, recovers = recovers_here(walk);

	if (!is_taken(&walk->looks, walk->bounds->looks) && !recovers)
		return 0;
	look(walk, "killed", &walk->actor, walk->image, walk->happened, &raw, &outcome);
	walk->seen = raw;
	if (outcome == STEP_AFTER)
		walk->happened = 1;
	if (recovers && !step_gives_up(walk))
		recover_all(walk, walk->happened);
	return 1;
}

/* Looks at the actor's state, if it is to be looked at. 1: an actor is to be killed here, too */
static int look_at_actor(struct step_walk *walk, struct run *run, uint64_t *copies)
{
	int raw, outcome, copy, looked = 0;

	if (has_changed(walk->image, &walk->live, &walk->actor)) {
		copy = is_copy(run, walk->actor.pc, walk->image);
		if (!copy) {
			looked = state_is_new(walk);
		} else if ((*copies)++ % walk->bounds->copies_each == 0) {
			look(walk, "killed in a copy", &walk->actor, walk->image, walk->happened,
			     &raw, &outcome);
			looked = 1;
		}
		walk->sum.states += !copy;
		walk->sum.copy_states += (uint64_t)copy;
	}
	if (run->stores <= COPY_RUN)
		add_pair(walk->image, &walk->actor);
	/* A system call may change what the kernel knows of it, and nothing in the segment. */
	return looked || walk->actor.was_syscall;
}

/* Looks at all states of the actor, or at a sample, and notes where to kill one. */
static int step_through(struct step_walk *walk, struct step_way *way)
{
	struct step_place place;
	int running, is_place = 1;
	struct run run = {0};
	uint64_t copies = 0;

	while (!step_gives_up(walk) && (running = step_trace_next(&walk->actor)) != 0) {
		if (running < 0) {
			step_report(walk, "the actor", &walk->actor, NULL,
				    walk->actor.talk->message);
			return -1;
		}
		step_way_add(way, &walk->actor);
		place = step_way_place(way, &walk->actor);
		place.happened = walk->happened;
		place.seen = walk->seen;
		if (is_place)
			step_places_add(&walk->places, place);
		is_place = look_at_actor(walk, &run, &copies);
	}
	step_places_add(
		&walk->places,
		(struct step_place){.step = walk->actor.steps, .happened = 1, .seen = walk->seen});
	return step_gives_up(walk) ? -1 : 0;
}

static int step_actor(struct step_walk *walk)
{
	struct step_way way;
	int raw, outcome, error;

	if (begin(walk))
		return -1;
	look(walk, "killed before it began", &walk->actor, walk->image, 0, &raw, &outcome);
	walk->seen = raw;
	if (outcome == STEP_AFTER)
		step_report(walk, "before it began", &walk->actor, NULL, "it has happened");
	step_way_begin(&way);
	error = step_through(walk, &way);
	step_way_end(&way);
	if (error)
		return -1;
	if (step_image_update(walk->image, &walk->live))
		step_report(walk, "the harness", &walk->actor, NULL, "it missed a store");
	if (walk->actor.talk->result)
		step_report(walk, "the actor", &walk->actor, NULL, walk->actor.talk->message);
	look(walk, "killed when it had returned", &walk->actor, walk->image, walk->happened, &raw,
	     &outcome);
	if (outcome == STEP_BEFORE && !(walk->row->flags & STEP_UNSEEN))
		step_report(walk, "when it had returned", &walk->actor, walk->image,
			    "it has not happened");
	walk->steps = walk->actor.steps;
	walk->sum.instructions += walk->actor.steps;
	step_trace_kill(&walk->actor);
	return 0;
}

/* --- 3: real deaths ------------------------------------------------------------------------------------------ */

/* How an actor is to die. */
struct death {
	struct step_place place;
	uint32_t round;
	int waits; /* the survivor already waits for what the actor holds */
	int is_elsewhere;
};

/* The actor is where it is to die. 1; 0: the machine was too slow for the survivor's patience */
static int kill_beside(struct step_walk *walk, struct step_survivor *survivor, struct death *death)
{
	uint64_t start_ns;
	int seen, slow, result = 0;

	step_survivor_order(survivor, STEP_ORDER_LOOK_ON);
	seen = step_survivor_says(survivor);
	if (seen < 0) {
		step_report(walk, "looked at before it is killed", &walk->actor, NULL,
			    survivor->talk->message);
		step_trace_kill(&walk->actor);
		return 1;
	}
	/* The same instruction on another way. */
	death->is_elsewhere |= seen != death->place.seen;
	start_ns = test_now_ns();
	if (death->waits) {
		step_survivor_order(survivor, STEP_ORDER_PASS);
		test_sleep_ns(WAIT_NS);
	}
	step_trace_kill(&walk->actor);
	slow = test_now_ns() - start_ns > PATIENCE_NS;
	if (death->waits)
		result = step_survivor_says(survivor);
	if (result < 0 && slow)
		return 0;
	if (result >= 0) {
		step_survivor_order(survivor, STEP_ORDER_SURVIVE);
		result = step_survivor_says(survivor);
	}
	walk->sum.kills++;
	walk->sum.missed += (uint64_t)death->is_elsewhere;
	if (result < 0)
		step_report(walk, "killed beside a survivor", &walk->actor, NULL,
			    survivor->talk->message);
	else if (result == STEP_BEFORE && !(walk->row->flags & STEP_UNSEEN) &&
		 (seen == STEP_AFTER || (death->place.happened && !death->is_elsewhere)))
		step_report(walk, "killed for real", &walk->actor, NULL,
			    "undone though it had happened");
	return 1;
}

/* The actor goes to its place and dies there. 1; 0: it is to be done again */
static int go_and_die(struct step_walk *walk, struct death *death, struct step_survivor *survivor)
{
	int reached = step_trace_run_to_place(&walk->actor, &death->place);

	if (reached == 0 && death->place.occurrence) {
		/* Its way was another one. So as many instructions of that. */
		death->place.occurrence = 0;
		death->place.further = death->place.step;
		step_trace_kill(&walk->actor);
		return 0;
	}
	if (reached < 0)
		step_report(walk, "the actor", &walk->actor, NULL, walk->actor.talk->message);
	death->is_elsewhere = reached == 0;
	return kill_beside(walk, survivor, death);
}

static int kill_one(struct step_walk *walk, struct death *death)
{
	struct step_survivor survivor = {.world = walk->world, .talk = walk->actor.talk + 1};
	int done = 1;

	survivor.world.round = death->round;
	if (step_survivor_start(&survivor)) {
		step_report(walk, "preparation by the survivor", &walk->actor, NULL,
			    survivor.talk->message);
	} else if (step_actor_start(walk)) {
		step_report(walk, "the actor before its call", &walk->actor, NULL,
			    walk->actor.talk->message);
		step_trace_kill(&walk->actor);
	} else {
		done = go_and_die(walk, death, &survivor);
	}
	step_survivor_end(&survivor);
	return done;
}

/* At all places, or evenly over them; of few kills, at another place in each row. */
static void kill_actors(struct step_walk *walk)
{
	uint64_t count = walk->places.count, first = count * (walk->row->variant * 7 % 16) / 16;
	uint64_t places = walk->bounds->kills < count ? walk->bounds->kills : count;
	uint32_t each = walk->row->pass ? walk->bounds->kills_each : 1, round = walk->row->variant;

	for (uint64_t i = 0; i < places * each && !step_gives_up(walk); i++, round++) {
		uint64_t which = places < count ? (count * (i / each) + first) / places : i / each;
		struct death death = {.place = walk->places.list[which], .round = round / each};
		int done = 0;

		death.waits = walk->row->pass && round % 2 == 0;
		for (int tries = 0; tries < 10 && !done; tries++)
			done = kill_one(walk, &death);
		if (!done)
			step_report(walk, "killed for real", &walk->actor, NULL,
				    "this machine is too slow");
	}
	/* Another way is one with a member more, or an earlier hour. Most take the same. */
	if (walk->sum.missed > walk->sum.kills / 2 + 2)
		step_report(walk, "killed for real", &walk->actor, NULL, "mostly elsewhere");
}

/* --- rows ---------------------------------------------------------------------------------------------------- */

void step_walk_begin(struct step_walk *walk, const struct step_row *row,
		     const struct step_bounds *bounds)
{
	char name[96];

	if (!*segment_name)
		test_segment_name(segment_name, "step");
	*walk = (struct step_walk){.row = row, .bounds = bounds};
	walk->notes = proc_shared_alloc(STEP_NOTES_SIZE);
	walk->world = (struct step_world){.row = row, .notes = walk->notes};
	name_of(walk->world.name, sizeof(walk->world.name), "-live");
	step_file_open(&walk->live, walk->world.name, 0);
	name_of(name, sizeof(name), "-copy");
	step_file_open(&walk->copy, name, 1);
	name_of(name, sizeof(name), "-second");
	step_file_open(&walk->second, name, 1);
	walk->image = step_image_new();
	walk->second_image = step_image_new();
	walk->checker = step_checker_new(row, walk->notes);
	walk->actor = (struct step_tracee){.talk = proc_shared_alloc(3 * sizeof(struct step_talk)),
					   .before = actor_before,
					   .inside = actor_inside,
					   .path = walk->live.path,
					   .world = &walk->world};
}

void step_walk_end(struct step_walk *walk)
{
	struct step_image nothing = {.exists = 0};

	step_trace_kill(&walk->actor);
	step_checker_free(walk->checker);
	step_image_write(&nothing, &walk->copy);
	step_image_write(&nothing, &walk->second);
	step_file_close(&walk->live);
	unlink(walk->live.path);
	step_image_free(walk->image);
	step_image_free(walk->second_image);
	step_places_free(&walk->places);
	step_set_free(&walk->deeds);
	step_set_free(&walk->kinds_of_deeds);
}

/* STEP_SHARE. All tests are one share. */
static void share(unsigned int *ret_which, unsigned int *ret_of)
{
	const char *asked = getenv("STEP_SHARE");

	if (asked && sscanf(asked, "%u/%u", ret_which, ret_of) == 2 && *ret_which >= 1 &&
	    *ret_which <= *ret_of)
		return;
	if (asked) {
		fprintf(stderr, "STEP_SHARE is not I/N, from 1/N to N/N\n");
		exit(99);
	}
	*ret_which = *ret_of = 1;
}

/*
 * The tracer and all that it forks from now on. Each step is two switches: on one CPU they cost a fifth. Who runs several
 * shares at once says where, STEP_CPU.
 */
static void stay_on_a_cpu(void)
{
	const char *asked = getenv("STEP_CPU");
	unsigned int which = asked ? (unsigned int)atoi(asked) : (unsigned int)sched_getcpu();
	cpu_set_t cpus, one;
	int cpu = -1;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) == 0)
		return;
	which %= (unsigned int)CPU_COUNT(&cpus);
	for (unsigned int seen = 0; seen <= which; seen += CPU_ISSET(cpu, &cpus))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
}

int step_asked(const char *name)
{
	const char *value = getenv(name);

	return value && *value && strcmp(value, "0") != 0;
}

int step_is_deep(void)
{
	return step_asked("STEP_DEEP");
}

static const char *group_name;

int step_journal(const char *name, int add)
{
	const char *path = getenv("STEP_JOURNAL");
	char line[256], wanted[256];
	FILE *file = path ? fopen(path, "a+") : NULL;
	int found = 0;

	if (!file)
		return 0;
	snprintf(wanted, sizeof(wanted), "%s: %s\n", group_name, name);
	rewind(file);
	while (!found && fgets(line, sizeof(line), file))
		found = strcmp(line, wanted) == 0;
	if (!found && add)
		fputs(wanted, file);
	fclose(file);
	return found;
}

void step_skip_unless_wanted(const char *name)
{
	const char *wanted = getenv("STEP_ROWS"), *lacks = step_lacks();

	if (!lacks && wanted && !strstr(name, wanted))
		lacks = "not one of STEP_ROWS";
	if (!lacks && step_journal(name, 0))
		lacks = "done before, as STEP_JOURNAL says";
	if (lacks) {
		print_message("# skip: %s\n", lacks);
		skip();
	}
}

static void row_test(void **state)
{
	const struct step_row *row = *state;
	uint64_t start_ns = test_now_ns();
	struct step_walk walk;

	step_skip_unless_wanted(row->name);
	step_walk_begin(&walk, row, step_is_deep() ? &deep_bounds : &quick_bounds);
	if (step_actor(&walk) == 0)
		kill_actors(&walk);
	step_walk_end(&walk);
	print_message("# %s: %llu instructions, %llu states and %llu of copies, looked at %llu; "
		      "%llu recoveries, the %llu different ones stepped; %llu kills, %llu of them "
		      "elsewhere; %llu ms\n",
		      row->name, (unsigned long long)walk.steps,
		      (unsigned long long)walk.sum.states, (unsigned long long)walk.sum.copy_states,
		      (unsigned long long)walk.sum.looks, (unsigned long long)walk.sum.recoveries,
		      (unsigned long long)walk.sum.stepped, (unsigned long long)walk.sum.kills,
		      (unsigned long long)walk.sum.missed,
		      (unsigned long long)((test_now_ns() - start_ns) / 1000000));
	fflush(stdout);
	totals.instructions += walk.sum.instructions;
	totals.states += walk.sum.states;
	totals.copy_states += walk.sum.copy_states;
	totals.looks += walk.sum.looks;
	totals.recoveries += walk.sum.recoveries;
	totals.stepped += walk.sum.stepped;
	totals.kills += walk.sum.kills;
	totals.missed += walk.sum.missed;
	totals.failures += walk.sum.failures;
	if (walk.sum.failures == 0)
		step_journal(row->name, 1);
	assert_int_equal(walk.sum.failures, 0);
}

/* --- negative control ---------------------------------------------------------------------------------------- */

static int is_noticed(struct step_walk *walk)
{
	struct step_answer answer;
	char name[96];

	name_of(name, sizeof(name), "-copy");
	step_image_write(walk->image, &walk->copy);
	step_checker_ask(walk->checker, name, 1, &answer);
	return answer.failed ||
	       (answer.outcome == STEP_BEFORE && (answer.raw == STEP_AFTER || walk->happened));
}

/* The actor once more, with the change number @late held back behind the @delay next ones. 1 noticed; 0; negative */
static int notices_delay(struct step_walk *walk, uint64_t late, unsigned int delay)
{
	uint64_t changes = 0, from = 0, bytes = 0;
	unsigned char now[STEP_PAGE];
	int noticed = 0, running = 1;

	if (begin(walk))
		return -1;
	walk->happened = 0;
	while (!noticed && changes < late + delay &&
	       (running = step_trace_next(&walk->actor)) > 0) {
		if (!has_changed(walk->image, &walk->live, &walk->actor))
			continue;
		changes++;
		if (changes == late) {
			from = walk->image->changed_from;
			bytes = walk->image->changed_bytes;
			if (bytes == 0)
				break;
			memcpy(now, walk->image->changed_was, bytes);
		}
		if (changes < late)
			continue;
		/* As if the store were still on its way. */
		for (uint64_t i = 0; i < bytes; i++) {
			unsigned char there = walk->image->bytes[from + i];

			walk->image->bytes[from + i] = now[i];
			now[i] = there;
		}
		noticed = is_noticed(walk);
		for (uint64_t i = 0; i < bytes; i++) {
			unsigned char there = walk->image->bytes[from + i];

			walk->image->bytes[from + i] = now[i];
			now[i] = there;
		}
	}
	step_trace_kill(&walk->actor);
	return running < 0 ? -1 : noticed;
}

/* Of how many changes, and how many of them were noticed when they came late. 0, or -1 */
static int count_noticed(struct step_walk *walk, uint64_t *ret_changes, uint64_t *ret_noticed)
{
	int running, result = 0;
	uint64_t each;

	*ret_changes = *ret_noticed = 0;
	if (begin(walk))
		return -1;
	while ((running = step_trace_next(&walk->actor)) > 0)
		*ret_changes += (uint64_t)has_changed(walk->image, &walk->live, &walk->actor);
	step_trace_kill(&walk->actor);
	each = step_is_deep() ? 1 : *ret_changes / CONTROLS + 1;
	for (uint64_t late = 1; late <= *ret_changes && running == 0 && result >= 0; late += each) {
		result = notices_delay(walk, late, step_is_deep() ? 40 : 8);
		*ret_noticed += result > 0;
	}
	return running < 0 || result < 0 ? -1 : 0;
}

static void control_name(char *name, size_t size, const struct step_row *row)
{
	snprintf(name, size, "%s_with_stores_that_come_late", row->name);
}

static void control_test(void **state)
{
	const struct step_row *row = *state;
	uint64_t changes, noticed;
	struct step_walk walk;
	char name[96];
	int error;

	control_name(name, sizeof(name), row);
	step_skip_unless_wanted(name);
	step_walk_begin(&walk, row, &quick_bounds);
	error = count_noticed(&walk, &changes, &noticed);
	step_walk_end(&walk);
	print_message("# %s: of %llu stores, %llu were noticed when they came late\n", row->name,
		      (unsigned long long)changes, (unsigned long long)noticed);
	if (error == 0 && noticed > 0)
		step_journal(name, 1);
	assert_int_equal(error, 0);
	assert_true(noticed > 0);
}

static int print_totals(void **state)
{
	(void)state;
	print_message(
		"# in all: %llu pairs of state and instruction outside of copies; %llu "
		"instructions, %llu states and %llu of copies, %llu looked at, %llu recoveries, "
		"the %llu different ones stepped, %llu kills, %llu of them elsewhere; "
		"corrupt: %llu\n",
		(unsigned long long)totals.pairs.count, (unsigned long long)totals.instructions,
		(unsigned long long)totals.states, (unsigned long long)totals.copy_states,
		(unsigned long long)totals.looks, (unsigned long long)totals.recoveries,
		(unsigned long long)totals.stepped, (unsigned long long)totals.kills,
		(unsigned long long)totals.missed, (unsigned long long)totals.failures);
	step_set_free(&totals.pairs);
	step_overtaken_print_totals();
	return 0;
}

struct tests {
	struct CMUnitTest *list;
	size_t count;
	unsigned int next, which,
		of; /* of all that are offered, the which-th and each of-th behind it */
};

static void add_test(struct tests *tests, const char *name, CMUnitTestFunction body,
		     const struct step_row *row)
{
	if (++tests->next % tests->of == tests->which % tests->of)
		tests->list[tests->count++] = (struct CMUnitTest){
			.name = name, .test_func = body, .initial_state = (void *)row};
}

int step_run(const char *group, const struct step_row *rows, size_t count)
{
	struct tests tests = {.list = calloc(3 * count, sizeof(*tests.list))};
	char(*names)[96] = calloc(2 * count, sizeof(*names));
	int failed;

	if (!tests.list || !names)
		exit(99);
	group_name = group;
	signal(SIGPIPE, SIG_IGN);
	share(&tests.which, &tests.of);
	stay_on_a_cpu();
	for (size_t i = 0; i < count; i++)
		if (step_is_deep() || !(rows[i].flags & STEP_DEEP_ONLY))
			add_test(&tests, rows[i].name, row_test, &rows[i]);
	for (size_t i = 0; i < count; i++) {
		if (!(rows[i].flags & STEP_CONTROL) ||
		    (rows[i].flags & STEP_DEEP_ONLY && !step_is_deep()))
			continue;
		control_name(names[i], sizeof(names[i]), &rows[i]);
		add_test(&tests, names[i], control_test, &rows[i]);
	}
	for (size_t i = 0; i < count; i++) {
		if (!(rows[i].flags & STEP_OVERTAKE_TOO) && !step_is_deep())
			continue;
		step_overtaken_name(names[count + i], sizeof(names[0]), &rows[i]);
		add_test(&tests, names[count + i], step_overtaken_test, &rows[i]);
	}
	failed = _cmocka_run_group_tests(group, tests.list, tests.count, NULL, print_totals);
	free(tests.list);
	free(names);
	return failed;
}

static int try_tracing(struct step_world *world)
{
	(void)world;
	return 0;
}

const char *step_lacks(void)
{
	static int asked;
	static const char *lacks;
	struct step_tracee tracee = {.inside = try_tracing};

	if (asked)
		return lacks;
	asked = 1;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STEP_SANITIZED 1
#endif
#endif
#if !defined(__x86_64__)
	return lacks = "stepping breaks load-linked/store-conditional pairs on this architecture";
#elif defined(STEP_SANITIZED)
	return lacks = "most instructions of a sanitizer's build are the sanitizer's";
#endif
	tracee.talk = proc_shared_alloc(sizeof(*tracee.talk));
	if (step_trace_begin(&tracee))
		lacks = "ptrace is not permitted here";
	if (tracee.proc)
		step_trace_kill(&tracee);
	return lacks;
}
