/* SPDX-License-Identifier: MIT */
/*
 * bench/queue - what a task costs, beside what the machine allows and what a ring without safety costs
 *
 *   bench/queue [--json] [--rounds N] [--tasks N]
 *
 * A task is enqueue + reserve + ack with a payload of 64 bytes. "1P/1C" is one producing and one consuming process, each
 * on a CPU of its own where there are enough. The ticket ring is a lean MPMC ring of the same payload in which a process
 * that dies in the middle stops all others for ever; it has no acknowledgement. All cases run once per round, one after
 * the other, so that a machine whose speed drifts favours none; the table has the median of the rounds and their range.
 * Throughput is wall time of all processes per task; "cpu" is the busiest process's CPU time per task, which is what it
 * would be if nobody else used the machine. Below the table, each floor with what was reached.
 */
#include <coshm/coshm.h>

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 99
#define PROCS_MAX  4
#define SLOTS	   1024
#define SAMPLES	   4096
#define PAYLOAD	   64

struct slot {
	_Atomic uint64_t turn;
	unsigned char payload[PAYLOAD];
} __attribute__((aligned(128)));

/* Shared by all processes; lines that are written lie apart. */
struct shared {
	_Atomic uint64_t word __attribute__((aligned(128)));
	_Atomic uint64_t head __attribute__((aligned(128)));
	_Atomic uint64_t tail __attribute__((aligned(128)));
	_Atomic uint32_t ready __attribute__((aligned(128)));
	_Atomic uint32_t go;
	_Atomic uint32_t bell __attribute__((aligned(128)));
	_Atomic uint64_t rung_at_ns;
	uint64_t begin_ns, end_ns[PROCS_MAX];
	double cpu_ns[PROCS_MAX];
	double samples[SAMPLES];
	uint32_t sample_count;
	struct slot slots[SLOTS] __attribute__((aligned(128)));
};

static struct shared *shared;
static struct coshm_queue *queue, *large;
static uint64_t tasks = 200000;
static int cpus[PROCS_MAX], cpu_count;

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "bench: %s: %s\n", what, coshm_strerror(result));
		exit(1);
	}
}

static inline void pause_a_little(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

/* Whoever finds the other side not ready: let it run if it shares our CPU, keep off its lines if it does not. */
static void back_off(int procs)
{
	if (procs > cpu_count)
		sched_yield();
	else
		for (int i = 0; i < 64; i++)
			pause_a_little();
}

/* --- what is measured -------------------------------------------------------------------------------------------- */

struct bench;

struct part {
	const struct bench *bench;
	int number; /* of the process; producers come first */
	uint64_t count;
};

static void add_line(const struct part *part)
{
	for (uint64_t i = 0; i < part->count; i++)
		atomic_fetch_add_explicit(&shared->word, 1, memory_order_relaxed);
}

static void ticket_put(const unsigned char *payload, int procs)
{
	uint64_t ticket = atomic_fetch_add(&shared->head, 1);
	struct slot *slot = &shared->slots[ticket % SLOTS];

	while (atomic_load_explicit(&slot->turn, memory_order_acquire) != ticket / SLOTS * 2)
		back_off(procs);
	memcpy(slot->payload, payload, PAYLOAD);
	atomic_store_explicit(&slot->turn, ticket / SLOTS * 2 + 1, memory_order_release);
}

static void ticket_get(unsigned char *payload, int procs)
{
	uint64_t ticket = atomic_fetch_add(&shared->tail, 1);
	struct slot *slot = &shared->slots[ticket % SLOTS];

	while (atomic_load_explicit(&slot->turn, memory_order_acquire) != ticket / SLOTS * 2 + 1)
		back_off(procs);
	memcpy(payload, slot->payload, PAYLOAD);
	atomic_store_explicit(&slot->turn, ticket / SLOTS * 2 + 2, memory_order_release);
}

static void put(struct coshm_queue *to, const unsigned char *payload, int procs)
{
	int error;

	while ((error = coshm_queue_enqueue(to, payload, PAYLOAD, NULL, NULL)) == -EAGAIN)
		back_off(procs);
	check(error, "enqueue");
}

static void get(struct coshm_queue *from)
{
	struct coshm_task task;

	check(coshm_queue_reserve(from, COSHM_FOREVER, &task), "reserve");
	check(coshm_queue_ack(from, &task), "ack");
}

struct bench {
	const char *name;
	int producers, consumers; /* 0/0: one process does both, turn by turn */
	void (*run)(const struct part *part);
	double goal_ns;	      /* 0: none */
	double floor_m_per_s; /* 0: none */
	int latency;	      /* the figure is the median of samples */
	double ns[ROUNDS_MAX], cpu_ns[ROUNDS_MAX], p99_ns[ROUNDS_MAX];
};

static int procs_of(const struct bench *bench)
{
	return bench->producers + bench->consumers ? bench->producers + bench->consumers : 1;
}

static void run_ticket(const struct part *part)
{
	const struct bench *bench = part->bench;
	unsigned char payload[PAYLOAD] = {1};

	for (uint64_t i = 0; i < part->count; i++) {
		if (part->number < bench->producers || !bench->producers)
			ticket_put(payload, procs_of(bench));
		if (part->number >= bench->producers)
			ticket_get(payload, procs_of(bench));
	}
}

static void run_on(struct coshm_queue *q, const struct part *part)
{
	const struct bench *bench = part->bench;
	unsigned char payload[PAYLOAD] = {1};

	for (uint64_t i = 0; i < part->count; i++) {
		if (part->number < bench->producers || !bench->producers)
			put(q, payload, procs_of(bench));
		if (part->number >= bench->producers)
			get(q);
	}
}

static void run_queue(const struct part *part)
{
	run_on(queue, part);
}

static void run_large(const struct part *part)
{
	run_on(large, part);
}

static int handle(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	(void)context;
	(void)task;
	(void)payload;
	(void)error;
	return COSHM_WORKER_ACK;
}

static void run_worker(const struct part *part)
{
	const struct coshm_worker_options options = {.tasks_max = part->count};
	unsigned char payload[PAYLOAD] = {1};

	if (part->number == 0)
		for (uint64_t i = 0; i < part->count; i++)
			put(queue, payload, 2);
	else
		check(coshm_worker_run(queue, handle, NULL, &options), "worker");
}

static void sample(uint64_t since_ns)
{
	shared->samples[shared->sample_count++ % SAMPLES] =
		(double)(clock_ns(CLOCK_MONOTONIC) - since_ns);
}

/* One task at a time; its payload says when it was enqueued. */
static void hand_off(const struct part *part, uint64_t gap_ns)
{
	const struct timespec gap = {.tv_nsec = (long)gap_ns};
	struct coshm_task task;
	size_t size = sizeof(uint64_t);
	uint64_t now_ns, end_ns;

	for (uint64_t i = 0; i < part->count; i++) {
		if (part->number == 0) {
			if (gap_ns > 100000)
				nanosleep(&gap, NULL);
			else
				for (end_ns = clock_ns(CLOCK_MONOTONIC) + gap_ns;
				     clock_ns(CLOCK_MONOTONIC) < end_ns;)
					pause_a_little();
			now_ns = clock_ns(CLOCK_MONOTONIC);
			check(coshm_queue_enqueue(queue, &now_ns, sizeof(now_ns), NULL, NULL),
			      "enqueue");
		} else {
			check(coshm_queue_reserve(queue, COSHM_FOREVER, &task), "reserve");
			check(coshm_queue_payload(queue, &task, &now_ns, &size), "payload");
			sample(now_ns);
			check(coshm_queue_ack(queue, &task), "ack");
		}
	}
}

static void run_hand_off_spinning(const struct part *part)
{
	hand_off(part, 5000);
}

static void run_hand_off_sleeping(const struct part *part)
{
	hand_off(part, 1000000);
}

/* The least that a wake-up costs: a store and a futex. */
static void run_futex(const struct part *part)
{
	const struct timespec gap = {.tv_nsec = 1000000};

	for (uint32_t i = 0; i < part->count; i++) {
		if (part->number == 0) {
			nanosleep(&gap, NULL);
			atomic_store(&shared->rung_at_ns, clock_ns(CLOCK_MONOTONIC));
			atomic_store(&shared->bell, i + 1);
			syscall(SYS_futex, &shared->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
		} else {
			while (atomic_load(&shared->bell) <= i)
				syscall(SYS_futex, &shared->bell, FUTEX_WAIT, i, NULL, NULL, 0);
			sample(atomic_load(&shared->rung_at_ns));
		}
	}
}

static struct bench benches[] = {
	{.name = "fetch_add on one line", .run = add_line},
	{.name = "fetch_add on one line, 2 processes",
	 .producers = 1,
	 .consumers = 1,
	 .run = add_line},
	{.name = "ticket ring", .run = run_ticket},
	{.name = "ticket ring 1P/1C", .producers = 1, .consumers = 1, .run = run_ticket},
	{.name = "ticket ring 2P/2C", .producers = 2, .consumers = 2, .run = run_ticket},
	{.name = "queue", .run = run_queue},
	{.name = "queue 1P/1C",
	 .producers = 1,
	 .consumers = 1,
	 .run = run_queue,
	 .goal_ns = 110,
	 .floor_m_per_s = 1},
	{.name = "queue 2P/2C", .producers = 2, .consumers = 2, .run = run_queue, .goal_ns = 200},
	{.name = "queue of 65536 tasks 1P/1C", .producers = 1, .consumers = 1, .run = run_large},
	{.name = "coshm_worker_run, one worker",
	 .producers = 1,
	 .consumers = 1,
	 .run = run_worker,
	 .floor_m_per_s = 0.01},
	{.name = "hand-off, spinning consumer",
	 .producers = 1,
	 .consumers = 1,
	 .run = run_hand_off_spinning,
	 .latency = 1,
	 .goal_ns = 400},
	{.name = "hand-off, sleeping consumer",
	 .producers = 1,
	 .consumers = 1,
	 .run = run_hand_off_sleeping,
	 .latency = 1},
	{.name = "futex alone, sleeping",
	 .producers = 1,
	 .consumers = 1,
	 .run = run_futex,
	 .latency = 1},
};

#define BENCHES (sizeof(benches) / sizeof(benches[0]))

/* --- running ------------------------------------------------------------------------------------------------------- */

static void pin(int number)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpus[number % cpu_count], &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void work(const struct bench *bench, int number, uint64_t count)
{
	struct part part = {.bench = bench, .number = number, .count = count};
	uint64_t cpu_ns;

	/* 2P/2C on two CPUs: a producer and a consumer on each */
	pin(bench->producers == 2 && number >= 2 ? number + 1 : number);
	atomic_fetch_add(&shared->ready, 1);
	while (!atomic_load(&shared->go))
		sched_yield();
	cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	bench->run(&part);
	shared->end_ns[number] = clock_ns(CLOCK_MONOTONIC);
	shared->cpu_ns[number] = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(struct bench *bench, int round)
{
	int procs = procs_of(bench);
	uint64_t total = bench->latency ? 400 : tasks, end_ns = 0;
	int sides = bench->producers ? bench->producers : 1;
	double cpu_ns = 0;

	memset(shared, 0, sizeof(*shared));
	for (int i = 0; i < procs; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			work(bench, i, total / (uint64_t)sides);
			/* an orderly end, so that the next case has no dead to clean up after */
			check(coshm_queue_close(queue), "close");
			check(coshm_queue_close(large), "close");
			_exit(0);
		}
		if (pid < 0) {
			perror("bench: fork");
			exit(1);
		}
	}
	while (atomic_load(&shared->ready) < (uint32_t)procs)
		usleep(100);
	shared->begin_ns = clock_ns(CLOCK_MONOTONIC);
	atomic_store(&shared->go, 1);
	for (int i = 0; i < procs; i++) {
		int status;

		if (wait(&status) < 0 || status != 0)
			exit(1);
	}
	for (int i = 0; i < procs; i++) {
		end_ns = shared->end_ns[i] > end_ns ? shared->end_ns[i] : end_ns;
		cpu_ns = shared->cpu_ns[i] > cpu_ns ? shared->cpu_ns[i] : cpu_ns;
	}
	if (bench->run == add_line)
		total *= (uint64_t)procs;
	bench->ns[round] = (double)(end_ns - shared->begin_ns) / (double)total;
	bench->cpu_ns[round] = cpu_ns / (double)total * (procs > cpu_count ? sides : 1);
	if (bench->latency) {
		qsort(shared->samples, shared->sample_count, sizeof(double), by_value);
		bench->ns[round] = shared->samples[shared->sample_count / 2];
		bench->p99_ns[round] = shared->samples[shared->sample_count * 99 / 100];
	}
}

static void show_table(int rounds)
{
	printf("%d CPUs\n%-36s %9s %19s %9s %9s %8s\n", cpu_count, "", "ns/task", "range", "cpu ns",
	       "M tasks/s", "goal ns");
	for (size_t i = 0; i < BENCHES; i++) {
		struct bench *b = &benches[i];
		double median = b->ns[rounds / 2];

		printf("%-36s %9.1f %9.1f-%9.1f", b->name, median, b->ns[0], b->ns[rounds - 1]);
		if (b->latency)
			printf(" p99 %15.0f", b->p99_ns[rounds / 2]);
		else
			printf(" %9.1f %9.2f", b->cpu_ns[rounds / 2], 1e3 / median);
		if (b->goal_ns > 0)
			printf(" %8.0f", b->goal_ns);
		printf("\n");
	}
	for (size_t i = 0; i < BENCHES; i++) {
		struct bench *b = &benches[i];
		double reached = 1e3 / b->ns[rounds / 2];

		if (b->floor_m_per_s > 0)
			printf("floor  %s: %.2f M tasks/s of %.2f: %s\n", b->name, reached,
			       b->floor_m_per_s,
			       reached >= b->floor_m_per_s ? "reached" : "MISSED");
	}
}

static void show_json(int rounds)
{
	printf("{\"cpus\": %d, \"rounds\": %d, \"cases\": [", cpu_count, rounds);
	for (size_t i = 0; i < BENCHES; i++) {
		struct bench *b = &benches[i];

		printf("%s\n  {\"name\": \"%s\", \"producers\": %d, \"consumers\": %d, "
		       "\"ns_median\": %.1f, \"ns_min\": %.1f, \"ns_max\": %.1f",
		       i ? "," : "", b->name, b->producers, b->consumers, b->ns[rounds / 2],
		       b->ns[0], b->ns[rounds - 1]);
		if (b->latency)
			printf(", \"ns_p99\": %.1f", b->p99_ns[rounds / 2]);
		else
			printf(", \"cpu_ns_median\": %.1f", b->cpu_ns[rounds / 2]);
		if (b->goal_ns > 0)
			printf(", \"goal_ns\": %.0f", b->goal_ns);
		if (b->floor_m_per_s > 0)
			printf(", \"floor_m_per_s\": %.2f", b->floor_m_per_s);
		printf("}");
	}
	printf("\n]}\n");
}

static void prepare(struct coshm_segment **ret_segment, char *name)
{
	const struct coshm_segment_config size = {.size_bytes = 96 << 20};
	const struct coshm_queue_config usual = {.capacity = SLOTS},
					most = {.capacity = 65536, .attempt_record_count = 1};
	cpu_set_t set;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED || sched_getaffinity(0, sizeof(set), &set)) {
		perror("bench");
		exit(1);
	}
	for (int i = 0; i < CPU_SETSIZE && cpu_count < PROCS_MAX; i++)
		if (CPU_ISSET((size_t)i, &set))
			cpus[cpu_count++] = i;
	snprintf(name, 64, "bench-queue-%d", (int)getpid());
	check(coshm_segment_create(name, &size, 0, ret_segment), "segment");
	check(coshm_queue_create(*ret_segment, "queue", &usual, 0, &queue), "queue");
	check(coshm_queue_create(*ret_segment, "large", &most, 0, &large), "queue");
}

int main(int argc, char **argv)
{
	int rounds = 5, json = 0;
	struct coshm_segment *segment;
	char name[64];

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = 1;
		else if (!strcmp(argv[i], "--rounds") && i + 1 < argc)
			rounds = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--tasks") && i + 1 < argc)
			tasks = (uint64_t)atoi(argv[++i]);
		else
			rounds = 0;
	}
	if (rounds < 1 || rounds > ROUNDS_MAX || tasks < 4) {
		fprintf(stderr, "usage: queue [--json] [--rounds N] [--tasks N]\n");
		return 2;
	}
	tasks = tasks / 2 * 2;
	prepare(&segment, name);
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < BENCHES; i++)
			measure(&benches[i], round);
	for (size_t i = 0; i < BENCHES; i++) {
		qsort(benches[i].ns, (size_t)rounds, sizeof(double), by_value);
		qsort(benches[i].cpu_ns, (size_t)rounds, sizeof(double), by_value);
		qsort(benches[i].p99_ns, (size_t)rounds, sizeof(double), by_value);
	}
	if (json)
		show_json(rounds);
	else
		show_table(rounds);
	check(coshm_segment_detach(segment), "detach");
	check(coshm_segment_unlink(name), "unlink");
	return 0;
}
