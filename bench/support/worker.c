/* SPDX-License-Identifier: MIT */
/* One repetition of one case: start the workers, let them go at once, collect. */
#include "run.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Before glibc 2.35 without a name. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

struct outcome {
	uint64_t begin_ns, end_ns, cpu_ns, operations, wrong;
	long switches;
} __attribute__((aligned(128)));

/* Lines that are written lie apart. */
struct meeting {
	_Atomic uint32_t ready __attribute__((aligned(128)));
	_Atomic uint32_t go __attribute__((aligned(128)));
	uint64_t go_ns;
	_Atomic uint32_t sample_count __attribute__((aligned(128)));
	struct outcome outcomes[BENCH_WORKERS_MAX];
	double samples[BENCH_SAMPLES_MAX] __attribute__((aligned(128)));
};

struct task {
	const struct bench_case *c;
	int number;
	double seconds;
};

static struct meeting *meeting;

void bench_sample(uint64_t ns)
{
	meeting->samples[atomic_fetch_add(&meeting->sample_count, 1) % BENCH_SAMPLES_MAX] =
		(double)ns;
}

int bench_shares_cpus(const struct bench_case *c)
{
	return c->procs > bench_cpu_count() || c->uses_server;
}

static uint64_t cpu_now_ns(const struct bench_worker *worker)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec +
	       (worker->helper ? bench_cpu_ns(worker->helper) : 0);
}

/* Workers that share a CPU wait for each other's, too. */
static uint64_t aside_on_the_clock_ns(const struct bench_worker *worker)
{
	int procs = worker->of->procs, cpus = bench_cpu_count();

	return procs > cpus ? worker->aside_ns * (uint64_t)procs / (uint64_t)cpus
			    : worker->aside_ns;
}

static long switches_now(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

/*
 * A worker is a new process, whose page table has nothing yet of what is shared: unlike one that has worked for a while, and
 * unlike a thread. Where the kernel cannot do it at once (before Linux 5.14) the warm-up has to.
 */
static void map_what_is_shared(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], access[8];
	unsigned long start, end;

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %7s", &start, &end, access) == 3 && access[3] == 's' &&
		    access[0] == 'r')
			madvise((void *)start, end - start,
				access[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	if (maps)
		fclose(maps);
}

/* Of the caches; slow subjects get less of it. */
static void warm_up(struct bench_worker *worker, uint64_t for_ns)
{
	uint64_t until_ns = bench_now_ns() + for_ns;

	while (worker->operations < worker->of->warm_up && bench_now_ns() < until_ns)
		worker->of->step(worker);
	worker->operations = 0;
	worker->aside_ns = 0;
}

static void work(const struct task *task)
{
	const struct bench_case *c = task->c;
	uint64_t for_ns = (uint64_t)(task->seconds * 1e9), cpu_ns, now_ns;
	struct outcome *outcome = &meeting->outcomes[task->number];
	struct bench_worker worker = {
		.of = c,
		.number = task->number,
		.random = UINT64_C(88172645463325252) + (uint64_t)task->number * 7919,
	};

	bench_pin(task->number);
	if (c->begin)
		c->begin(&worker);
	if (!c->threads)
		map_what_is_shared();
	if (c->step)
		warm_up(&worker, 500000000);
	atomic_fetch_add(&meeting->ready, 1);
	while (!atomic_load_explicit(&meeting->go, memory_order_acquire))
		sched_yield();
	outcome->switches = switches_now();
	cpu_ns = cpu_now_ns(&worker);
	outcome->begin_ns = bench_now_ns();
	if (c->work) {
		worker.share = c->total / (uint64_t)c->procs;
		c->work(&worker);
		now_ns = bench_now_ns();
	} else {
		do {
			c->step(&worker);
			now_ns = bench_now_ns();
		} while (now_ns - outcome->begin_ns < for_ns);
	}
	outcome->end_ns = now_ns - aside_on_the_clock_ns(&worker);
	outcome->cpu_ns = cpu_now_ns(&worker) - cpu_ns - worker.aside_ns;
	outcome->switches = switches_now() - outcome->switches;
	outcome->operations = worker.operations;
	outcome->wrong = worker.wrong;
	if (c->end)
		c->end(&worker);
}

static void *work_as_thread(void *task)
{
	work(task);
	return NULL;
}

static void let_go(int procs)
{
	const struct timespec moment = {.tv_nsec = 100000};

	while (atomic_load(&meeting->ready) < (uint32_t)procs)
		nanosleep(&moment, NULL);
	meeting->go_ns = bench_now_ns();
	atomic_store_explicit(&meeting->go, 1, memory_order_release);
}

static void run_threads(struct task *tasks, int count)
{
	pthread_t threads[BENCH_WORKERS_MAX];

	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, work_as_thread, &tasks[i]))
			bench_fail("pthread_create");
	let_go(count);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static _Noreturn void worker_failed(const struct bench_case *c)
{
	fprintf(stderr, "bench: a worker of '%s' failed in '%s'\n", c->subject, c->question);
	exit(1);
}

static void run_processes(const struct task *tasks, int count)
{
	pid_t pids[BENCH_WORKERS_MAX];

	for (int i = 0; i < count; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			bench_fail("fork");
		if (pids[i] == 0) {
			work(&tasks[i]);
			_exit(0);
		}
	}
	/* A worker that cannot begin ends: then nobody is let go, and the others are not waited for for ever. */
	while (atomic_load(&meeting->ready) < (uint32_t)count) {
		int status;

		for (int i = 0; i < count; i++)
			if (waitpid(pids[i], &status, WNOHANG) > 0)
				worker_failed(tasks[0].c);
		sched_yield();
	}
	let_go(count);
	for (int i = 0; i < count; i++) {
		int status;

		if (waitpid(pids[i], &status, 0) < 0 || status != 0) {
			fprintf(stderr, "bench: a worker of '%s' failed\n", tasks[0].c->subject);
			exit(1);
		}
	}
}

/* Of all together; ns is what an operation took each worker on the way to that. */
static void count_timed(const struct bench_case *c, struct bench_measured *m)
{
	uint64_t begin_ns = UINT64_MAX, end_ns = 0, operations = 0;

	for (int i = 0; i < c->procs; i++) {
		const struct outcome *o = &meeting->outcomes[i];
		double cpu_ns = (double)o->cpu_ns / (double)(o->operations ? o->operations : 1);

		begin_ns = o->begin_ns < begin_ns ? o->begin_ns : begin_ns;
		end_ns = o->end_ns > end_ns ? o->end_ns : end_ns;
		operations += o->operations;
		m->cpu_ns = cpu_ns > m->cpu_ns ? cpu_ns : m->cpu_ns;
	}
	m->mops = (double)operations / (double)(end_ns - begin_ns) * 1e3;
	m->ns = c->procs * 1e3 / m->mops;
}

static void count_counted(const struct bench_case *c, struct bench_measured *m)
{
	uint64_t end_ns = 0;
	double total = (double)c->total;

	for (int i = 0; i < c->procs; i++) {
		const struct outcome *o = &meeting->outcomes[i];

		end_ns = o->end_ns > end_ns ? o->end_ns : end_ns;
		if ((double)o->cpu_ns / total > m->cpu_ns)
			m->cpu_ns = (double)o->cpu_ns / total;
	}
	m->ns = (double)(end_ns - meeting->go_ns) / total;
	m->mops = 1e3 / m->ns;
}

static void count_samples(struct bench_measured *m)
{
	uint32_t taken = atomic_load(&meeting->sample_count);
	int count = taken < BENCH_SAMPLES_MAX ? (int)taken : BENCH_SAMPLES_MAX;

	bench_sort(meeting->samples, count);
	m->ns = bench_quantile(meeting->samples, count, 0.5);
	m->p99_ns = bench_quantile(meeting->samples, count, 0.99);
	m->p999_ns = bench_quantile(meeting->samples, count, 0.999);
}

struct bench_measured bench_measure(const struct bench_case *c, double seconds)
{
	struct task tasks[BENCH_WORKERS_MAX];
	struct bench_measured m = {0};

	if (!meeting)
		meeting = bench_shared(sizeof(*meeting));
	memset(meeting->outcomes, 0, sizeof(meeting->outcomes));
	atomic_store(&meeting->ready, 0);
	atomic_store(&meeting->go, 0);
	atomic_store(&meeting->sample_count, 0);
	for (int i = 0; i < c->procs; i++)
		tasks[i] = (struct task){.c = c, .number = i, .seconds = seconds};
	if (c->threads)
		run_threads(tasks, c->procs);
	else
		run_processes(tasks, c->procs);
	if (c->work)
		count_counted(c, &m);
	else
		count_timed(c, &m);
	if (c->latency)
		count_samples(&m);
	else if (bench_cpu_time && !c->uses_server)
		m.ns = m.cpu_ns;
	for (int i = 0; i < c->procs; i++) {
		m.wrong += meeting->outcomes[i].wrong;
		if (meeting->outcomes[i].switches > m.switches)
			m.switches = (int)meeting->outcomes[i].switches;
	}
	return m;
}
