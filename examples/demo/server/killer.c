/* SPDX-License-Identifier: MIT */
#include "killer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <coshm/coshm.h>

#include "../common/clock.h"
#include "../common/ledger.h"
#include "../common/random.h"
#include "grip.h"

/* how long one hunt for a kind of holding may take before whoever is there dies instead */
#define HUNT_NS_MAX (250 * DEMO_NS_PER_MS)

/* how long a worker may run towards a place; queue workers come by every 5 to 50 ms */
#define RUN_NS_MAX (60 * DEMO_NS_PER_MS)

/* how long it may be moved on by single steps; a function that holds what we look for does so after
 * some 1000 instructions, which is a few ms where ptrace is fast */
#define STEP_NS_MAX (150 * DEMO_NS_PER_MS)

/* a look costs as much as several steps, and a holding lasts for more instructions than these */
#define STEPS_PER_LOOK 8

/* the promise is 10 ms; what takes longer than this is reported as not recovered */
#define WATCH_NS_MAX (2 * DEMO_NS_PER_S)
#define WATCH_NS     (DEMO_NS_PER_MS / 10)

struct killer {
	const struct demo_children *children;
	struct coshm_segment *segment;
	struct demo_ledger ledger;
	uint64_t random;
	uint64_t killed[DEMO_HOLDING_COUNT]; /* by kind, as hunted for */
	bool has_said_luck;
};

/* Where in the program a kind of thing is held for a moment. */
struct place {
	enum demo_holding kind;
	enum demo_role role;
	uintptr_t function; /* 0: held for milliseconds, or never; just look */
};

static const struct place places[] = {
	{DEMO_HOLDING_LEASE, DEMO_ROLE_QUEUE, 0},
	{DEMO_HOLDING_LANE, DEMO_ROLE_QUEUE, (uintptr_t)coshm_cache_set},
	{DEMO_HOLDING_LANE, DEMO_ROLE_WEB, (uintptr_t)coshm_cache_add},
	{DEMO_HOLDING_PAGE, DEMO_ROLE_QUEUE, (uintptr_t)coshm_cache_set},
	{DEMO_HOLDING_PAGE, DEMO_ROLE_WEB, (uintptr_t)coshm_cache_get},
	{DEMO_HOLDING_RLOCK, DEMO_ROLE_WEB, (uintptr_t)coshm_cache_add},
	{DEMO_HOLDING_NOTHING, DEMO_ROLE_WEB, 0},
	{DEMO_HOLDING_NOTHING, DEMO_ROLE_QUEUE, 0},
};

#define PLACE_COUNT (sizeof(places) / sizeof(places[0]))

/* What the segment shows of the process: who it is as a member, and what it holds. */
struct sight {
	uint64_t member_id; /* 0: no member (yet) */
	uint64_t mask;
};

static uint64_t mask_of(const struct coshm_member_info *info)
{
	uint64_t mask = 0;

	if (info->leases_held)
		mask |= DEMO_HOLDING_BIT(DEMO_HOLDING_LEASE);
	if (info->lanes_held)
		mask |= DEMO_HOLDING_BIT(DEMO_HOLDING_LANE);
	if (info->pages_read || info->pages_written || info->pages_pinned)
		mask |= DEMO_HOLDING_BIT(DEMO_HOLDING_PAGE);
	if (info->locks_held > info->lanes_held)
		mask |= DEMO_HOLDING_BIT(DEMO_HOLDING_RLOCK);
	return mask;
}

static struct sight look_at(const struct killer *killer, pid_t pid)
{
	struct coshm_member_info info;

	if (coshm_inspect_member(killer->segment, (uint32_t)pid, &info) != 1)
		return (struct sight){0};
	return (struct sight){info.id, mask_of(&info)};
}

static bool has_kind(const struct sight *sight, enum demo_holding kind)
{
	return kind == DEMO_HOLDING_NOTHING ? sight->mask == 0
					    : (sight->mask & DEMO_HOLDING_BIT(kind)) != 0;
}

/* one of the living workers of the role, each as likely as the others; NULL if there is none */
static const struct demo_child *choose_child(struct killer *killer, enum demo_role role)
{
	const struct demo_child *chosen = NULL;
	uint64_t count = 0;

	for (uint32_t i = 0; i < killer->children->count; i++) {
		const struct demo_child *child = &killer->children->list[i];

		if (child->role == (uint32_t)role && atomic_load(&child->pid) != 0 &&
		    demo_random_below(&killer->random, ++count) == 0)
			chosen = child;
	}
	return chosen;
}

/* one instruction after the other, until it holds that kind at the nth instruction in a row */
static bool step_to(struct killer *killer, struct demo_grip *grip, enum demo_holding kind,
		    struct sight *sight)
{
	uint64_t until_ns = demo_now_ns() + STEP_NS_MAX;
	uint64_t wanted = demo_random_below(&killer->random, 16) + 1;
	uint64_t seen = 0;

	for (int i = 0; demo_now_ns() < until_ns; i++) {
		if (seen > 0 || i % STEPS_PER_LOOK == 0) {
			*sight = look_at(killer, grip->pid);
			seen = has_kind(sight, kind) ? seen + 1 : 0;
			if (seen == 0 && demo_grip_has_left(grip))
				return false; /* it needed none this time: a miss, a full queue */
		}
		if (seen == wanted)
			return true;
		if (demo_grip_step(grip) < 0)
			return false;
	}
	return false;
}

static bool reaches(struct killer *killer, struct demo_grip *grip, const struct place *place,
		    struct sight *sight)
{
	if (place->function && demo_grip_can_step(grip))
		return demo_grip_run_to(grip, place->function, RUN_NS_MAX) == 0 &&
		       step_to(killer, grip, place->kind, sight);
	if (place->function && !killer->has_said_luck) {
		fputs("prefork-web: ptrace is not allowed or not known here: whether a victim "
		      "holds "
		      "a lock is left to luck\n",
		      stderr);
		killer->has_said_luck = true;
	}
	*sight = look_at(killer, grip->pid);
	return has_kind(sight, place->kind);
}

/* What happened to the victim and its things, after the signal. */
static void watch(struct killer *killer, struct demo_grip *grip, uint64_t worker,
		  const struct sight *sight)
{
	uint64_t begun_ns = demo_now_ns();
	uint64_t value[3] = {sight->mask, UINT64_MAX, sight->mask ? UINT64_MAX : 0};
	uint64_t for_ns = 0;

	demo_grip_kill(grip);
	while (for_ns < WATCH_NS_MAX && (value[1] == UINT64_MAX || value[2] == UINT64_MAX)) {
		struct sight now;

		demo_sleep_ns(WATCH_NS);
		now = look_at(killer, grip->pid);
		for_ns = demo_now_ns() - begun_ns;
		if (value[2] == UINT64_MAX && (now.member_id != sight->member_id || !now.mask))
			value[2] = for_ns;
		if (value[1] == UINT64_MAX && demo_grip_is_gone(grip))
			value[1] = for_ns;
	}
	(void)!demo_ledger_append(&killer->ledger, DEMO_EVENT_KILLED, worker, value);
}

/* one try: takes hold of a worker, and kills it if it holds the kind or if anything will do */
static bool try_place(struct killer *killer, const struct place *place, bool anything)
{
	const struct demo_child *child = choose_child(killer, place->role);
	uint64_t worker = child ? atomic_load(&child->worker) : 0;
	uint32_t pid = child ? atomic_load(&child->pid) : 0;
	struct demo_grip grip;
	struct sight sight;

	if (pid == 0 || demo_grip_take(&grip, (pid_t)pid) < 0)
		return false;
	/* still the one of the table? then it cannot be reaped, nor its number go to a stranger */
	if (atomic_load(&child->pid) != pid || atomic_load(&child->worker) != worker ||
	    !(reaches(killer, &grip, place, &sight) || anything)) {
		demo_grip_let_go(&grip);
		return false;
	}
	sight = look_at(killer, grip.pid);
	if (demo_ledger_append(&killer->ledger, DEMO_EVENT_KILLING, worker, NULL) < 0) {
		demo_grip_let_go(&grip); /* a death that no ledger tells would look like a crash */
		return false;
	}
	watch(killer, &grip, worker, &sight);
	return true;
}

static enum demo_holding rarest_kind(struct killer *killer)
{
	uint64_t rarest = demo_random_below(&killer->random, DEMO_HOLDING_COUNT);

	for (uint64_t kind = 0; kind < DEMO_HOLDING_COUNT; kind++)
		if (killer->killed[kind] < killer->killed[rarest])
			rarest = kind;
	return (enum demo_holding)rarest;
}

static const struct place *choose_place(struct killer *killer, enum demo_holding kind)
{
	const struct place *chosen = NULL;
	uint64_t count = 0;

	for (size_t i = 0; i < PLACE_COUNT; i++)
		if (places[i].kind == kind && demo_random_below(&killer->random, ++count) == 0)
			chosen = &places[i];
	return chosen; /* never NULL: there is a place of each kind */
}

static void kill_one(struct killer *killer)
{
	uint64_t until_ns = demo_now_ns() + HUNT_NS_MAX;
	enum demo_holding kind = rarest_kind(killer);

	/* counted as hunted, also if nothing was found: one kind that never comes by must not keep
	 * the others from their turn */
	killer->killed[kind]++;
	do {
		if (try_place(killer, choose_place(killer, kind), false))
			return;
	} while (demo_now_ns() < until_ns);
	try_place(killer, &places[demo_random_below(&killer->random, PLACE_COUNT)], true);
}

static void kill_until_told(struct killer *killer, uint32_t every_ms)
{
	uint64_t every_ns = every_ms * DEMO_NS_PER_MS;
	uint64_t next_ns = demo_now_ns() + every_ns;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	for (;;) {
		uint64_t now_ns = demo_now_ns();
		uint64_t for_ns = next_ns > now_ns ? next_ns - now_ns : 0;
		struct timespec span = {
			.tv_sec = (time_t)(for_ns / DEMO_NS_PER_S),
			.tv_nsec = (long)(for_ns % DEMO_NS_PER_S),
		};

		if (sigtimedwait(&set, NULL, &span) == SIGTERM)
			return;
		if (demo_now_ns() < next_ns)
			continue;
		kill_one(killer);
		/* no burst to make up for a hunt that took long */
		next_ns = demo_now_ns() > next_ns + every_ns ? demo_now_ns() : next_ns + every_ns;
	}
}

int demo_killer_main(const struct demo_web_options *options, const struct demo_children *children,
		     int go_fd)
{
	static struct killer killer;
	sigset_t set;
	char byte;
	int rc = 0;

	/* only between two kills may it be stopped: a victim must not be left with a breakpoint */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_NAME, "prefork:killer");
	if (read(go_fd, &byte, 1) != 1)
		return 0; /* the server did not start */
	killer.children = children;
	killer.random = demo_now_ns();
	killer.ledger.fd = -1;
	if (options->run_dir)
		rc = demo_ledger_open(&killer.ledger, options->run_dir, DEMO_WORKER_KILLER);
	if (rc == 0)
		rc = coshm_segment_attach(options->segment, COSHM_ATTACH_READ_ONLY,
					  &killer.segment);
	if (rc < 0) {
		fprintf(stderr, "prefork-web: killer: %s\n", coshm_strerror(rc));
		return 1;
	}
	kill_until_told(&killer, options->kill_every_ms);
	coshm_segment_detach(killer.segment);
	return 0;
}
