/* SPDX-License-Identifier: MIT */
#include "crash/support/walker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PEERS	    2
#define PEER_ROUNDS 20
#define LOCK_NS	    UINT64_C(20000000)

void crash_arm(const struct crash_world *world)
{
	coshm__crash_arm(world->point, world->signal, 1);
}

int crash_make_a_dead_member(struct crash_world *world)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return 1;
	if (pid == 0) {
		struct coshm__op op;
		struct toy_shm *toy;

		if (toy_begin(&op, world->toy, &toy))
			_exit(1);
		coshm__a64_store_relaxed(&toy->claims[op.member_id % TOY_CLAIMS], op.member_id);
		coshm__pin_set(&op, 4096);
		if (coshm__rlock_acquire(&op, &toy->lock, LOCK_NS) == 0) {
			coshm__a64_store_relaxed(&toy->inside, op.member_id);
			coshm__a64_store_relaxed(&toy->left,
						 coshm__a64_load_relaxed(&toy->left) + 1);
		}
		kill(getpid(), SIGKILL);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* 0 if it is one of what a peer may meet while a member is stopped, or while all make and remove the same things. */
static int peer_minds(int error)
{
	return error != 0 && error != -EAGAIN && error != -ENOENT && error != -ESTALE &&
	       error != -EEXIST;
}

static int peer_round(struct crash_world *world)
{
	struct coshm__op op;
	struct toy_shm *toy;
	void *token;
	int error, wrong = 0;

	CRASH_NEED(toy_begin(&op, world->peers_toy, &toy) == 0);
	error = coshm__rlock_acquire(&op, &toy->lock, LOCK_NS);
	if (error == 0) {
		wrong = toy_step(&op, toy);
		coshm__rlock_release(&op, &toy->lock);
	}
	coshm__tick(&op, coshm__now_ns(op.segment));
	coshm__op_end(&op);
	CRASH_NEED(!wrong);
	CRASH_NEED(!peer_minds(error));
	error = toy_create(world->segment, "shared", COSHM_CREATE_OR_OPEN, 1, &token);
	CRASH_NEED(!peer_minds(error));
	if (error == 0)
		CRASH_NEED(toy_close(token) == 0);
	CRASH_NEED(!peer_minds(coshm_object_remove(world->segment, "shared")));
	return 0;
}

static int peer_round_without_segment(struct crash_world *world)
{
	struct coshm_segment *segment;
	struct coshm_segment_info info;
	int error = coshm_segment_attach(world->name, 0, &segment);

	CRASH_NEED(!peer_minds(error) || error == -ETIMEDOUT);
	if (error == 0) {
		CRASH_NEED(coshm_segment_info(segment, &info) == 0);
		CRASH_NEED(coshm_segment_detach(segment) == 0);
	}
	return 0;
}

static int peer(void *arg)
{
	struct crash_world *world = arg;

	while (!atomic_load(world->stop_peers)) {
		int line = world->segment ? peer_round(world) : peer_round_without_segment(world);

		if (line)
			return line;
		atomic_fetch_add(world->peer_rounds, 1);
	}
	return 0;
}

struct acting {
	const struct crash_plan *plan;
	struct crash_world *world;
};

static int act(void *arg)
{
	struct acting *acting = arg;

	return acting->plan->act(acting->world);
}

struct sum {
	uint64_t threads;
};

static int add_member(void *context, const struct coshm_member_info *info)
{
	((struct sum *)context)->threads += info->thread_count;
	return 0;
}

/* Everybody but the parent is gone. */
static int nothing_is_left(struct coshm_segment *segment)
{
	uint64_t damage, pending;
	struct sum sum = {0};

	CRASH_NEED(coshm_segment_reap(segment, NULL) == 0);
	CRASH_NEED(toy_verify(segment, &damage, &pending) == 0);
	CRASH_NEED(damage == 0);
	CRASH_NEED(pending == 0);
	CRASH_NEED(coshm_inspect_members(segment, add_member, &sum) == 0);
	CRASH_NEED(toy_stat(segment, "members") == 1);
	/* Each slot in use belongs to a member that is there. */
	CRASH_NEED(toy_stat(segment, "threads") == sum.threads);
	/* Who was killed between doing and counting leaves one uncounted. */
	CRASH_NEED(toy_stat(segment, "deaths") - toy_stat(segment, "reaped") + 1 <= 2);
	return 0;
}

static int words_agree(void *token)
{
	struct toy_shm *toy = toy_peek(token);
	struct coshm__op op;

	CRASH_NEED(toy != NULL);
	CRASH_NEED(toy_begin(&op, token, &toy) == 0);
	CRASH_NEED(coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS) == 0);
	CRASH_NEED(toy_step(&op, toy) == 0);
	coshm__rlock_release(&op, &toy->lock);
	coshm__op_end(&op);
	for (unsigned int i = 0; i < TOY_CLAIMS; i++)
		CRASH_NEED(coshm__a64_load_relaxed(&toy->claims[i]) == 0);
	return 0;
}

static int undisturbed(struct crash_world *world)
{
	uint64_t damage, pending;

	if (!world->segment)
		return 0;
	CRASH_NEED(toy_verify(world->segment, &damage, &pending) == 0);
	CRASH_NEED(damage == 0 || world->busy); /* what is in motion may look odd */
	return 0;
}

static int run_actor(const struct crash_plan *plan, struct crash_world *world)
{
	struct acting acting = {.plan = plan, .world = world};
	struct proc *child = proc_spawn(act, &acting);
	int result;

	if (world->signal == SIGKILL) {
		result = proc_collect(child, PROC_DEADLINE_NS);
		if (result != -SIGKILL)
			fprintf(stderr, "# the row was not reached, the actor gave %d\n", result);
		CRASH_NEED(result == -SIGKILL);
	} else if (proc_wait_stopped(child, PROC_DEADLINE_NS) != 1) {
		fprintf(stderr, "# the row was not reached, the actor gave %d\n",
			proc_collect(child, 0));
		return 1;
	}
	result = undisturbed(world);
	if (!result && plan->others)
		result = plan->others(world);
	if (world->signal == SIGKILL)
		return result;
	if (result) {
		proc_kill(child);
		return result;
	}
	proc_resume(child);
	result = proc_collect(child, PROC_DEADLINE_NS);
	if (result)
		fprintf(stderr, "# the resumed actor gave %d\n", result);
	return result < 0 ? 90 : result;
}

static int run_with_peers(const struct crash_plan *plan, struct crash_world *world)
{
	struct proc *peers[PEERS];
	const uint64_t start_ns = test_now_ns();
	int line;

	for (int i = 0; i < PEERS && world->busy; i++)
		peers[i] = proc_spawn(peer, world);
	while (world->busy && atomic_load(world->peer_rounds) < PEER_ROUNDS &&
	       test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	line = run_actor(plan, world);
	atomic_store(world->stop_peers, 1);
	if (world->busy && proc_collect_all(peers, PEERS, PROC_DEADLINE_NS, NULL) && !line)
		line = 1;
	if (!line && world->segment)
		line = nothing_is_left(world->segment);
	if (!line && world->segment)
		line = words_agree(world->toy);
	if (!line && world->segment)
		line = words_agree(world->peers_toy);
	if (!line && plan->finally)
		line = plan->finally(world);
	return line;
}

static int run(const struct crash_plan *plan, int signal, int busy)
{
	struct crash_world world = {.point = plan->point, .signal = signal, .busy = busy};
	int line = 0;

	world.stop_peers = proc_shared_alloc(4096);
	world.peer_rounds = (_Atomic unsigned int *)(world.stop_peers + 16);
	test_segment_name(world.name, "crash");
	if (!plan->without_segment) {
		const struct coshm_segment_config config = {
			.size_bytes = 1 << 20, .size_max_bytes = 8 << 20, .member_count_max = 16};

		CRASH_NEED(coshm_segment_create(world.name, &config, 0, &world.segment) == 0);
		CRASH_NEED(toy_create(world.segment, "toy", 0, 1, &world.toy) == 0);
		CRASH_NEED(toy_create(world.segment, "peers", 0, 1, &world.peers_toy) == 0);
	}
	if (plan->prepare)
		line = plan->prepare(&world);
	if (!line)
		line = run_with_peers(plan, &world);
	if (world.segment)
		coshm_segment_detach(world.segment);
	(void)!coshm_segment_unlink(world.name);
	return line;
}

unsigned int crash_walk(const struct crash_plan *plans, size_t count)
{
	unsigned int failed = 0;

	for (size_t i = 0; i < count; i++) {
		for (int how = 0; how < 4; how++) {
			const int signal = how & 1 ? SIGSTOP : SIGKILL, busy = how >> 1;

			if (run(&plans[i], signal, busy) == 0)
				continue;
			fprintf(stderr, "# FAILED: %s, %s, others %s\n",
				coshm__crash_rows[plans[i].point].name,
				signal == SIGKILL ? "killed" : "stopped and resumed",
				busy ? "busy" : "idle");
			failed++;
		}
	}
	return failed;
}

unsigned int crash_rows_without_plan(const char *prefix, const struct crash_plan *plans,
				     size_t count)
{
	unsigned int missing = 0;

	for (unsigned int row = 0; row < COSHM__CRASH_COUNT; row++) {
		size_t i = 0;

		if (strncmp(coshm__crash_rows[row].name, prefix, strlen(prefix)) != 0)
			continue;
		while (i < count && (unsigned int)plans[i].point != row)
			i++;
		if (i < count)
			continue;
		fprintf(stderr, "# row %s has no plan\n", coshm__crash_rows[row].name);
		missing++;
	}
	return missing;
}
