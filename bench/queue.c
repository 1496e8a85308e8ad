/* SPDX-License-Identifier: MIT */
/*
 * bench/queue - what does it cost to bring a task from one process to another, beside a ring without safety, and beside
 * what one would take instead?
 *
 *	queue [--tasks N] [options of all benches]
 *
 * coshm's task is enqueue + reserve + payload + ack. "1P/1C" is one producing and one consuming process, each on a CPU of
 * its own where there are enough. Throughput is wall time of all processes together per task; "cpu" is the busiest
 * process's CPU time per task, which is what it would be if nobody else used the machine. A hand-off is the time from
 * before put to after get, one message at a time: 5 us after the one before while the receiver spins, 1 ms after it so
 * that it sleeps. The queue has no batches, so no peer's batches are compared.
 */
#include "peers/channel.h"
#include "peers/channel_coshm.h"

#include <coshm/coshm.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t tasks;
static _Atomic uint64_t *received; /* hand-off: shared by both sides */

static const struct channel *const channels[] = {
	&channel_ticket,  &channel_bell,    &channel_coshm,	 &channel_coshm_large,
	&channel_ck_mpmc, &channel_ck_spsc, &channel_rte,	 &channel_rte_rts,
	&channel_pipe,	  &channel_mq,	    &channel_redis_list, &channel_redis_stream,
};

enum { CHANNELS = sizeof(channels) / sizeof(channels[0]) };

enum way {
	BOTH,	  /* one process puts and gets, turn by turn */
	APART,	  /* each process does one of them */
	SPINNING, /* hand-off */
	SLEEPING,
	LOOP, /* coshm_worker_run takes */
};

/* What a case's numbers are. */
enum { CHANNEL, WAY, PRODUCERS, PAYLOAD };

static const struct channel *channel_of(const struct bench_case *c)
{
	return channels[c->number[CHANNEL]];
}

static int prepare(const struct bench_case *c)
{
	const struct channel *channel = channel_of(c);

	if (channel->absent) {
		snprintf(bench_absent, sizeof(bench_absent), "%s", channel->absent);
		return -1;
	}
	if (channel->needs_cpus && c->procs > bench_cpu_count()) {
		snprintf(bench_absent, sizeof(bench_absent),
			 "takes minutes where processes share a CPU");
		return -1;
	}
	if (channel->open((size_t)c->number[PAYLOAD]))
		return -1;
	channel->close();
	return 0;
}

static void set_up(const struct bench_case *c)
{
	if (channel_of(c)->open((size_t)c->number[PAYLOAD]))
		bench_fail(bench_absent);
	atomic_store(received, 0);
}

static void tear_down(const struct bench_case *c)
{
	channel_of(c)->close();
}

/* Where there are too few CPUs, a producer and a consumer on each. */
static void begin(struct bench_worker *worker)
{
	int producers = (int)worker->of->number[PRODUCERS];

	if (worker->of->procs > bench_cpu_count() && worker->number >= producers)
		bench_pin(worker->number - producers + 1);
	channel_of(worker->of)->enter(worker->of->procs);
}

static void end(struct bench_worker *worker)
{
	channel_of(worker->of)->leave();
}

static int puts_some(const struct bench_worker *worker)
{
	return worker->number < worker->of->number[PRODUCERS];
}

/* Aligned as DPDK's ring wants its elements. */
static unsigned char payload[CHANNEL_PAYLOAD_MAX] __attribute__((aligned(16)));

static void work_both(struct bench_worker *worker)
{
	const struct channel *channel = channel_of(worker->of);

	for (uint64_t i = 0; i < worker->share; i++) {
		channel->put(payload);
		channel->get(payload);
	}
}

/* The share is a part of puts and gets together. */
static void work_apart(struct bench_worker *worker)
{
	const struct channel *channel = channel_of(worker->of);

	for (uint64_t i = 0; i < 2 * worker->share; i++)
		if (puts_some(worker))
			channel->put(payload);
		else
			channel->get(payload);
}

static int handle(void *context, const struct coshm_task *task, const void *bytes, char error[56])
{
	(void)context;
	(void)task;
	(void)bytes;
	(void)error;
	return COSHM_WORKER_ACK;
}

static void work_loop(struct bench_worker *worker)
{
	const struct coshm_worker_options options = {.tasks_max = 2 * worker->share};

	if (puts_some(worker))
		work_apart(worker);
	else
		bench_need(coshm_worker_run(channel_coshm_queue(), handle, NULL, &options),
			   "worker");
}

static void wait_ns(uint64_t gap_ns)
{
	const struct timespec gap = {.tv_nsec = (long)gap_ns};
	uint64_t end_ns = bench_now_ns() + gap_ns;

	if (gap_ns > 100000)
		nanosleep(&gap, NULL);
	else
		while (bench_now_ns() < end_ns)
			bench_pause();
}

/* Never two on the way: else a receiver that lost its CPU would make all behind wait, and the figure be theirs. */
static void work_hand_off(struct bench_worker *worker)
{
	const struct channel *channel = channel_of(worker->of);
	uint64_t gap_ns = worker->of->number[WAY] == SLEEPING ? 1000000 : 5000, sent_ns;

	for (uint64_t i = 0; i < 2 * worker->share; i++) {
		if (puts_some(worker)) {
			while (atomic_load(received) < i)
				bench_back_off(worker->of->procs);
			wait_ns(gap_ns);
			sent_ns = bench_now_ns();
			memcpy(payload, &sent_ns, sizeof(sent_ns));
			channel->put(payload);
		} else {
			channel->get(payload);
			memcpy(&sent_ns, payload, sizeof(sent_ns));
			bench_sample(bench_now_ns() - sent_ns);
			atomic_fetch_add(received, 1);
		}
	}
}

/* --- which cases there are --- */

struct question {
	const char *name;
	enum way way;
	int producers, consumers;
	size_t payload_bytes;
	double goal_ns, floor_mops; /* of coshm */
};

static const struct question questions[] = {
	{"put and get in one process, 64 bytes", BOTH, 1, 0, 64, 0, 0},
	{"1P/1C, 64 bytes", APART, 1, 1, 64, 110, 1},
	{"2P/2C, 64 bytes", APART, 2, 2, 64, 200, 0},
	{"4P/4C, 64 bytes", APART, 4, 4, 64, 0, 0},
	{"8P/8C, 64 bytes", APART, 8, 8, 64, 0, 0},
	{"1P/1C, 256 bytes", APART, 1, 1, 256, 0, 0},
	{"1P/1C, 1 KiB", APART, 1, 1, 1024, 0, 0},
	{"1P/1C, 4 KiB", APART, 1, 1, 4096, 0, 0},
	{"1P/1C, 64 KiB", APART, 1, 1, 65536, 0, 0},
	{"hand-off, the receiver spins", SPINNING, 1, 1, 64, 400, 0},
	{"hand-off, the receiver sleeps", SLEEPING, 1, 1, 64, 0, 0},
};

static int takes_part(const struct channel *channel, const struct question *q)
{
	if (channel->absent)
		return q->payload_bytes == 64;
	if (q->payload_bytes > channel->payload_max_bytes)
		return 0;
	if (channel->one_each && q->producers + q->consumers > 2)
		return 0;
	if (channel == &channel_bell)
		return q->way == SLEEPING;
	if (q->way == SLEEPING)
		return channel->sleeps;
	if (q->way == SPINNING)
		return channel->spins && channel != &channel_coshm_large;
	return !channel->server || q->producers <= 2;
}

static uint64_t total_of(const struct channel *channel, const struct question *q, int procs)
{
	uint64_t total = tasks / (uint64_t)(channel->slowness ? channel->slowness : 1);

	if (q->way == SPINNING)
		total = bench_quick ? 500 : 20000;
	else if (q->way == SLEEPING)
		total = bench_quick ? 50 : 1000;
	else if (q->payload_bytes > 4096)
		total /= 10;
	return (total / (uint64_t)procs + 1) / 2 * 2 * (uint64_t)procs;
}

static void add_case(const struct question *q, int number)
{
	const struct channel *channel = channels[number];
	struct bench_case c = {
		.question = q->name,
		.subject = channel->name,
		.lacks = channel->lacks,
		.procs = q->producers + q->consumers,
		.is_limit =
			q->way == SLEEPING ? channel == &channel_bell : channel == &channel_ticket,
		.is_ours = channel == &channel_coshm,
		.uses_server = channel->server,
		.latency = q->way == SPINNING || q->way == SLEEPING,
		.prepare = prepare,
		.set_up = set_up,
		.tear_down = tear_down,
		.begin = begin,
		.work = q->way == BOTH ? work_both : work_apart,
		.end = end,
		.number = {number, q->way, q->producers, (int64_t)q->payload_bytes},
	};

	if (c.latency)
		c.work = work_hand_off;
	c.total = total_of(channel, q, c.procs);
	if (c.is_ours) {
		c.goal_ns = q->goal_ns;
		c.floor_mops = q->floor_mops;
	}
	bench_add(&c);
	if (c.is_ours && q->floor_mops > 0) {
		c.subject = "coshm, coshm_worker_run";
		c.is_ours = 0;
		c.work = work_loop;
		c.goal_ns = 0;
		c.floor_mops = 0.01;
		bench_add(&c);
	}
}

static void add_cases(void)
{
	received = bench_shared(sizeof(*received));
	if (!tasks)
		tasks = bench_quick ? 2000 : 200000;
	for (size_t q = 0; q < sizeof(questions) / sizeof(questions[0]); q++)
		for (int i = 0; i < CHANNELS; i++)
			if (takes_part(channels[i], &questions[q]))
				add_case(&questions[q], i);
}

static int option(const char *name, const char *value)
{
	if (strcmp(name, "--tasks") != 0 || !value)
		return 0;
	tasks = (uint64_t)atoll(value);
	return tasks >= 1000;
}

int main(int argc, char **argv)
{
	const struct bench_program program = {
		.name = "queue",
		.options = "[--tasks N]",
		.option = option,
		.rounds = 5,
		.seconds = 0.1,
		.add_cases = add_cases,
	};

	return bench_main(argc, argv, &program);
}
