/* SPDX-License-Identifier: MIT */
/*
 * bench/recovery - how long after SIGKILL has another process what the dead one held, beside the kernel alone?
 *
 *	recovery [--rss-max MIB] [options of all benches]
 *
 * A victim touches so much memory of its own, takes a lease on a task, and is killed; the time ends when the observer has
 * the task. "One works": the observer asks again and again. "All sleep": it sleeps until there is a task. The other members
 * sleep on an empty queue. The limit is a file lock held by a mapping, which is what the kernel gives back when it has torn
 * the process down; a robust mutex it gives back before that.
 */
#include "support/bench.h"

#include <coshm/coshm.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a case's numbers are. */
enum { MECHANISM, RSS_MIB, MEMBERS, SLEEPS };

/* Beside the idle ones: the parent, the observer, the victim. */
enum { MEMBERS_MIN = 3 };

struct mechanism {
	const char *name, *lacks;
	int is_limit, has_members;
	void (*open)(void);
	void (*close)(void);
	void (*offer)(void);	  /* observer, before there is a victim */
	void (*take)(void);	  /* victim */
	int (*again)(int sleeps); /* observer, after the kill: 1 has it, 0 not yet */
	void (*done)(void);	  /* observer */
};

struct shared {
	_Atomic uint32_t taken;
	pthread_mutex_t robust;
};

static struct shared *shared;
static pid_t idle[256];
static int idle_count;
static int rss_max_mib = 2048;

/* --- coshm --- */

static struct coshm_segment *segment;
static struct coshm_queue *queue, *empty;
static struct coshm_task task;
static uint64_t wrong;

static void our_open(void)
{
	const struct coshm_segment_config memory = {.size_bytes = 8 << 20};
	const struct coshm_queue_config config = {.capacity = 64};

	bench_need(coshm_segment_create(bench_segment_name(), &memory, 0, &segment), "segment");
	bench_need(coshm_queue_create(segment, "queue", &config, 0, &queue), "queue");
	bench_need(coshm_queue_create(segment, "empty", &config, 0, &empty), "queue");
}

static void our_close(void)
{
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
}

static void our_offer(void)
{
	bench_need(coshm_queue_enqueue(queue, "", 0, NULL, NULL), "enqueue");
}

static void our_take(void)
{
	bench_need(coshm_queue_reserve(queue, COSHM_FOREVER, &task), "reserve");
}

static int our_again(int sleeps)
{
	int got = coshm_queue_reserve(queue, sleeps ? COSHM_FOREVER : 0, &task);

	bench_need(got, "reserve");
	return got;
}

static void our_done(void)
{
	wrong += task.attempt != 2;
	bench_need(coshm_queue_ack(queue, &task), "ack");
}

/* --- a file lock: only what the kernel does --- */

static int lock_fd;

static int lock_file(int fd, int how, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};

	return fcntl(fd, how, &lock);
}

static int lock_file_open(void)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/%s", bench_segment_name());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 4096))
		bench_fail(path);
	return fd;
}

static void lock_open(void)
{
	lock_fd = lock_file_open();
}

static void lock_close(void)
{
	char path[128];

	snprintf(path, sizeof(path), "/dev/shm/%s", bench_segment_name());
	close(lock_fd);
	unlink(path);
}

static void nothing(void)
{
}

/* The mapping keeps the lock, not the descriptor. */
static void lock_take(void)
{
	int fd = lock_file_open();

	if (lock_file(fd, F_OFD_SETLK, F_WRLCK) ||
	    mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
		bench_fail("a file lock");
	close(fd);
}

static int lock_again(int sleeps)
{
	return lock_file(lock_fd, sleeps ? F_OFD_SETLKW : F_OFD_SETLK, F_WRLCK) == 0;
}

static void lock_done(void)
{
	lock_file(lock_fd, F_OFD_SETLK, F_UNLCK);
}

/* --- a robust mutex --- */

static void robust_open(void)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&shared->robust, &attributes);
}

static void robust_take(void)
{
	if (pthread_mutex_lock(&shared->robust))
		bench_fail("a robust mutex");
}

static int robust_again(int sleeps)
{
	int error = sleeps ? pthread_mutex_lock(&shared->robust)
			   : pthread_mutex_trylock(&shared->robust);

	return error == EOWNERDEAD;
}

static void robust_done(void)
{
	pthread_mutex_consistent(&shared->robust);
	pthread_mutex_unlock(&shared->robust);
}

static const struct mechanism mechanisms[] = {
	{.name = "file lock of a mapping (the limit)",
	 .lacks = "repairs nothing",
	 .is_limit = 1,
	 .open = lock_open,
	 .close = lock_close,
	 .offer = nothing,
	 .take = lock_take,
	 .again = lock_again,
	 .done = lock_done},
	{.name = "coshm, a task's lease",
	 .lacks = "",
	 .has_members = 1,
	 .open = our_open,
	 .close = our_close,
	 .offer = our_offer,
	 .take = our_take,
	 .again = our_again,
	 .done = our_done},
	{.name = "robust mutex",
	 .lacks = "what it guards is left as it was; hangs across PID namespaces",
	 .open = robust_open,
	 .close = nothing,
	 .offer = nothing,
	 .take = robust_take,
	 .again = robust_again,
	 .done = robust_done},
};

enum { MECHANISMS = sizeof(mechanisms) / sizeof(mechanisms[0]) };

static const struct mechanism *mechanism_of(const struct bench_case *c)
{
	return &mechanisms[c->number[MECHANISM]];
}

/* --- the others --- */

static pid_t fork_child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		bench_fail("fork");
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void wait_for_taken(uint32_t count)
{
	while (atomic_load(&shared->taken) < count)
		sched_yield();
	atomic_store(&shared->taken, 0);
}

static void set_up(const struct bench_case *c)
{
	mechanism_of(c)->open();
	idle_count = mechanism_of(c)->has_members ? (int)c->number[MEMBERS] - MEMBERS_MIN : 0;
	for (int i = 0; i < idle_count; i++) {
		struct coshm_task none;

		idle[i] = fork_child();
		if (idle[i])
			continue;
		bench_need(coshm_queue_reserve(empty, 0, &none), "reserve");
		atomic_fetch_add(&shared->taken, 1);
		bench_need(coshm_queue_reserve(empty, COSHM_FOREVER, &none), "reserve");
		_exit(1);
	}
	wait_for_taken((uint32_t)idle_count);
}

static void tear_down(const struct bench_case *c)
{
	for (int i = 0; i < idle_count; i++)
		kill(idle[i], SIGKILL);
	for (int i = 0; i < idle_count; i++)
		waitpid(idle[i], NULL, 0);
	mechanism_of(c)->close();
}

static _Noreturn void be_victim(const struct bench_case *c)
{
	size_t bytes = (size_t)c->number[RSS_MIB] << 20;
	void *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		bench_fail("mmap");
	bench_pin(1);
	memset(memory, 1, bytes);
	mechanism_of(c)->take();
	atomic_fetch_add(&shared->taken, 1);
	for (;;)
		pause();
}

static void work(struct bench_worker *worker)
{
	const struct mechanism *m = mechanism_of(worker->of);
	int sleeps = (int)worker->of->number[SLEEPS];

	for (uint64_t i = 0; i < worker->share; i++) {
		uint64_t killed_at_ns;
		pid_t victim;

		m->offer();
		victim = fork_child();
		if (victim == 0)
			be_victim(worker->of);
		wait_for_taken(1);
		killed_at_ns = bench_now_ns();
		kill(victim, SIGKILL);
		while (!m->again(sleeps))
			;
		bench_sample(bench_now_ns() - killed_at_ns);
		m->done();
		waitpid(victim, NULL, 0);
	}
	worker->wrong = wrong;
}

static void end(struct bench_worker *worker)
{
	if (mechanism_of(worker->of)->has_members)
		bench_need(coshm_segment_detach(segment), "detach");
}

/* --- which cases there are --- */

static void add_question(int rss_mib, int members, int sleeps)
{
	char question[96];
	const char *name;

	snprintf(question, sizeof(question), "%s, %d MiB, %d members",
		 sleeps ? "all sleep" : "one works", rss_mib, members);
	name = strdup(question);
	for (int m = 0; m < MECHANISMS; m++) {
		const struct bench_case c = {
			.question = name,
			.subject = mechanisms[m].name,
			.lacks = mechanisms[m].lacks,
			.procs = 1,
			.is_limit = mechanisms[m].is_limit,
			.is_ours = mechanisms[m].has_members,
			.latency = 1,
			.set_up = set_up,
			.tear_down = tear_down,
			.work = work,
			.end = end,
			.total = bench_quick ? 3 : 20,
			.goal_ns = mechanisms[m].has_members ? (sleeps ? 1e8 : 1e7) : 0,
			.number = {m, rss_mib, members, sleeps},
		};

		bench_add(&c);
	}
}

static void add_cases(void)
{
	const int rss_mib[] = {4, 64, 512, 2048}, members[] = {16, 128};

	shared = bench_shared(sizeof(*shared));
	for (int sleeps = 0; sleeps < 2; sleeps++) {
		for (size_t i = 0; i < sizeof(rss_mib) / sizeof(rss_mib[0]); i++)
			if (rss_mib[i] <= (bench_quick ? 64 : rss_max_mib))
				add_question(rss_mib[i], MEMBERS_MIN, sleeps);
		for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
			add_question(rss_mib[0], members[i], sleeps);
	}
}

static int option(const char *name, const char *value)
{
	if (strcmp(name, "--rss-max") != 0 || !value)
		return 0;
	rss_max_mib = atoi(value);
	return rss_max_mib > 0;
}

int main(int argc, char **argv)
{
	const struct bench_program program = {
		.name = "recovery",
		.options = "[--rss-max MIB]",
		.option = option,
		.rounds = 5,
		.seconds = 0.1,
		.add_cases = add_cases,
	};

	return bench_main(argc, argv, &program);
}
