/* SPDX-License-Identifier: MIT */
/* The life of one process: how it came by its handles, how it works with them, how it goes. */
#include "torture/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS	     3
#define CHILDREN_MAX 2

enum style {
	STYLE_INHERITS,
	STYLE_ATTACHES,
	STYLE_THREADS,
	STYLE_FORKS,
	STYLE_FORKS_WITH_THREADS,
	STYLE_COMES_AND_GOES,
	STYLE_SHORT,
	STYLE_EXECS,
	STYLE_READS_ONLY,
	STYLES,
};

int handles_open(struct handles *handles, uint32_t attach_flags)
{
	static const char *const caches[CACHES] = {"s3fifo", "lru", "none"};
	static const char *const queues[QUEUES] = {"inline", "blocks"};
	const uint32_t objects = books->plan.objects;
	int error;

	memset(handles, 0, sizeof(*handles));
	error = coshm_segment_attach(books->plan.segment, attach_flags, &handles->segment);
	for (uint32_t i = 0; i < CACHES && !error && (objects & OBJECT_CACHE); i++)
		error = coshm_cache_open(handles->segment, caches[i], &handles->caches[i]);
	if (!error && (objects & OBJECT_LIMITER))
		error = coshm_limiter_open(handles->segment, "limiter", &handles->limiter);
	for (uint32_t i = 0; i < QUEUES && !error && (objects & OBJECT_QUEUE); i++)
		error = coshm_queue_open(handles->segment, queues[i], &handles->queues[i]);
	return error;
}

static void open_or_say(struct handles *handles, uint32_t attach_flags)
{
	const int error = handles_open(handles, attach_flags);

	if (error && !is_over())
		violation("attaching gives %d", error);
	if (error)
		_exit(0);
}

static void worker_begin(struct worker *worker, struct handles *handles, uint64_t random)
{
	*worker = (struct worker){.handles = handles, .random = random, .actor = actor_claim()};
	worker->buffer = malloc(BUFFER_BYTES);
	worker->copy = malloc(BUFFER_BYTES);
	if (!worker->buffer || !worker->copy)
		_exit(3);
}

static void worker_end(struct worker *worker)
{
	actor_release(worker->actor);
	free(worker->buffer);
	free(worker->copy);
}

static void work(struct worker *worker)
{
	const uint32_t objects = books->plan.objects;
	const uint64_t what = random_below(&worker->random, 200);

	if (what < 120 && (objects & OBJECT_CACHE))
		cache_work(worker);
	else if (what >= 120 && what < 180 && (objects & OBJECT_QUEUE))
		queue_work(worker);
	else if (what >= 180 && what < 199 && (objects & OBJECT_LIMITER))
		limiter_work(worker);
	else if (what == 199 && random_below(&worker->random, 5) == 0)
		objects_work(worker);
}

static void work_some(struct worker *worker, uint64_t steps)
{
	for (; steps > 0 && !is_over(); steps--) {
		if (steps % 64 == 0)
			points_arm(worker);
		work(worker);
	}
}

/* --- ways to go ----------------------------------------------------------------------------------------------- */

static void detach(struct handles *handles)
{
	const int error = coshm_segment_detach(handles->segment);

	if (error)
		violation("detach gives %d", error);
	count(EVENT_DETACHES, 1);
}

__attribute__((noreturn)) static void leave(struct worker *worker)
{
	if (random_below(&worker->random, 3)) {
		detach(worker->handles);
	} else {
		/* As a death, with something in its hands. */
		process_doom_self();
		if (books->plan.objects & OBJECT_CACHE)
			cache_hold(worker);
		if (books->plan.objects & OBJECT_QUEUE)
			queue_hold(worker, 0);
	}
	/* Not the actor: it comes back when the process is collected. */
	_exit(0);
}

/* --- children ------------------------------------------------------------------------------------------------- */

struct family {
	pid_t children[CHILDREN_MAX];
	uint64_t random;
};

static void family_collect(struct family *family)
{
	for (int i = 0; i < CHILDREN_MAX; i++) {
		siginfo_t info = {.si_pid = 0};
		int was_doomed;

		if (family->children[i] <= 0 ||
		    waitid(P_PID, (id_t)family->children[i], &info, WEXITED | WNOHANG | WNOWAIT) ||
		    info.si_pid == 0)
			continue;
		was_doomed = process_collected(family->children[i]);
		if (info.si_code == CLD_EXITED ? info.si_status != 0
					       : info.si_status != SIGKILL || was_doomed != 1)
			violation("child %d ended by %d, %d", (int)family->children[i],
				  info.si_code, info.si_status);
		waitpid(family->children[i], NULL, 0);
		family->children[i] = 0;
	}
}

/* -1 not now */
static pid_t fork_child(void *context)
{
	struct family *family = context;
	pid_t pid;
	int place = 0;

	family_collect(family);
	while (place < CHILDREN_MAX && family->children[place])
		place++;
	if (place == CHILDREN_MAX)
		return -1;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		process_enter();
		memset(family->children, 0, sizeof(family->children));
		family->random = mix(family->random ^ (uint64_t)place);
	} else if (pid > 0) {
		family->children[place] = pid;
		count(EVENT_FORKS, 1);
	}
	return pid;
}

/* A child goes on with what it inherited: handles, but not the licence to write, nor its parent's threads. */
static void fork_some(struct worker *worker, struct family *family)
{
	pid_t pid;

	family->random = random_next(&worker->random);
	if ((books->plan.objects & OBJECT_QUEUE) && random_below(&worker->random, 2)) {
		const pid_t parent = getpid();

		queue_work_over_fork(worker, fork_child, family);
		pid = getpid() == parent ? 1 : 0;
	} else {
		pid = fork_child(family);
	}
	if (pid == 0) {
		worker->random = family->random;
		worker->actor = actor_claim();
		work_some(worker, 50 + random_below(&worker->random, 3000));
		leave(worker);
	}
}

/* --- styles --------------------------------------------------------------------------------------------------- */

struct thread {
	struct handles *handles;
	uint64_t random;
	int forks;
};

static void *thread_body(void *context)
{
	const struct thread *thread = context;
	struct family family = {{0}, 0};
	struct worker worker;

	worker_begin(&worker, thread->handles, thread->random);
	while (!is_over()) {
		work_some(&worker, 1 + random_below(&worker.random, 500));
		if (thread->forks && !is_over())
			fork_some(&worker, &family);
		/* Threads come and go as well. */
		if (!thread->forks && random_below(&worker.random, 20) == 0)
			break;
	}
	while (!is_over() && thread->forks)
		family_collect(&family);
	worker_end(&worker);
	return NULL;
}

static void live_with_threads(struct handles *handles, uint64_t random, int forks)
{
	struct thread thread[THREADS];
	pthread_t threads[THREADS];

	while (!is_over()) {
		for (int i = 0; i < THREADS; i++) {
			thread[i] = (struct thread){handles, random_next(&random), forks && i == 0};
			if (pthread_create(&threads[i], NULL, thread_body, &thread[i]))
				_exit(3);
		}
		for (int i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
	}
	detach(handles);
	_exit(0);
}

static void live_reading_only(uint64_t random)
{
	struct handles handles;
	struct worker worker = {.handles = &handles, .random = random, .actor = -1};

	atomic_store(&books->processes[process_self() >> 24].reads_only, 1);
	worker.buffer = malloc(BUFFER_BYTES);
	worker.copy = malloc(BUFFER_BYTES);
	if (!worker.buffer || !worker.copy)
		_exit(3);
	while (!is_over()) {
		open_or_say(&handles, COSHM_ATTACH_READ_ONLY);
		for (int i = 0; i < 5000 && !is_over(); i++) {
			struct coshm_queue_depth depth;

			if (books->plan.objects & OBJECT_CACHE)
				cache_look(&worker);
			if (i % 50 == 0)
				objects_look(&worker, handles.segment);
			if ((books->plan.objects & OBJECT_QUEUE) && i % 500 == 0 &&
			    coshm_queue_depth(handles.queues[i % QUEUES], &depth))
				violation("read-only: no depth");
		}
		detach(&handles);
	}
	_exit(0);
}

static void live_by_exec(struct worker *worker, uint32_t slot, uint64_t life)
{
	char slot_text[16], life_text[24];

	process_doom_self();
	if (books->plan.objects & OBJECT_CACHE)
		cache_hold(worker);
	if (books->plan.objects & OBJECT_QUEUE)
		queue_hold(worker, 0);
	snprintf(slot_text, sizeof(slot_text), "%u", slot);
	snprintf(life_text, sizeof(life_text), "%llu", (unsigned long long)life);
	count(EVENT_EXECS, 1);
	execl("/proc/self/exe", "torture", "--member", books->plan.folder, slot_text, life_text,
	      (char *)NULL);
	_exit(3);
}

/* malloc works in a child that a threaded process forked: glibc sees to that, AddressSanitizer's (gcc 12) does not. */
#if defined(__SANITIZE_ADDRESS__)
#define MALLOC_SURVIVES_FORK 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MALLOC_SURVIVES_FORK 0
#endif
#endif
#ifndef MALLOC_SURVIVES_FORK
#define MALLOC_SURVIVES_FORK 1
#endif

static enum style style_of(uint64_t random, uint32_t slot)
{
	enum style style;

	/* There is always one that only reads; and one that does not, so that the dead are reaped. */
	if (slot == 1 || (slot > 1 && books->plan.large && slot <= books->plan.processes / 4))
		return STYLE_READS_ONLY;
	do
		style = (enum style)random_below(&random, STYLES);
	while (slot == 0 && style == STYLE_READS_ONLY);
	return style == STYLE_FORKS_WITH_THREADS && !MALLOC_SURVIVES_FORK ? STYLE_FORKS : style;
}

void member_live(struct handles *inherited, uint32_t slot, uint64_t life)
{
	uint64_t random = mix(books->plan.seed ^ (uint64_t)slot << 48 ^ life);
	const enum style style = style_of(random, slot);
	struct handles own;
	struct family family = {{0}, 0};
	struct worker worker;
	int is_executed = inherited == NULL;

	/* Whatever happens to the program that watches, nobody stays behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	process_enter();
	points_begin();
	count(EVENT_LIVES, 1);
	if (style == STYLE_READS_ONLY)
		live_reading_only(random);
	if (is_executed || style == STYLE_ATTACHES || style == STYLE_COMES_AND_GOES) {
		open_or_say(&own, 0);
		inherited = &own;
	}
	if (style == STYLE_THREADS || style == STYLE_FORKS_WITH_THREADS)
		live_with_threads(inherited, random, style == STYLE_FORKS_WITH_THREADS);
	worker_begin(&worker, inherited, random);
	if (style == STYLE_SHORT) {
		work_some(&worker, 1 + random_below(&worker.random, 500));
		leave(&worker);
	}
	if (style == STYLE_EXECS && !is_executed) {
		work_some(&worker, random_below(&worker.random, 500));
		live_by_exec(&worker, slot, life);
	}
	while (!is_over()) {
		work_some(&worker, 1 + random_below(&worker.random, 1000));
		if (style == STYLE_FORKS)
			fork_some(&worker, &family);
		if (style == STYLE_COMES_AND_GOES && !is_over()) {
			if ((books->plan.objects & OBJECT_QUEUE) && random_below(&worker.random, 2))
				queue_hold(&worker, 1);
			detach(inherited);
			open_or_say(&own, 0);
		}
	}
	leave(&worker);
}
