/* SPDX-License-Identifier: MIT */
/* Processes against a ledger outside of the queue: nothing is lost, and nothing is done twice without a death. */
#include "../unit/queue_fixture.h"

#include <unistd.h>

#define TASKS	100000
#define WORKERS 5
#define LARGE	4000

struct ledger {
	struct coshm__a32 next;
	struct coshm__a32 stop;
	struct coshm__a32 wrong;
	struct {
		struct coshm__a32 accepted, started, acked, ack_called, again, crashed;
	} task[TASKS];
	struct {
		struct coshm__a32 current; /* task + 1 that it works on */
	} worker[WORKERS];
};

struct job {
	struct fixture *f;
	struct ledger *ledger;
	uint32_t worker;
	uint32_t seed;
};

static void add(struct coshm__a32 *count)
{
	coshm__a32_fetch_add_acq_rel(count, 1);
}

static uint32_t count_of(const struct coshm__a32 *count)
{
	return coshm__a32_load_acquire(count);
}

static uint32_t random_of(struct job *job)
{
	job->seed = job->seed * 1664525 + 1013904223;
	return job->seed >> 8;
}

static size_t size_of(uint32_t number)
{
	return number % 9 ? 8 + number % 180 : 193 + number * 31 % (LARGE - 193);
}

/* 0; 1 all have been enqueued; 2 there is no room */
static int produce_one(struct job *job)
{
	unsigned char bytes[LARGE];
	uint32_t number = coshm__a32_fetch_add_acq_rel(&job->ledger->next, 1);
	struct coshm_enqueue_options soon = {.delay_ns = number % 17 ? 0 : 300 * 1000};
	int error;

	if (number >= TASKS)
		return 1;
	memset(bytes, (int)(number & 0xff), sizeof(bytes));
	memcpy(bytes, &number, sizeof(number));
	error = coshm_queue_enqueue(job->f->queue, bytes, size_of(number), &soon, NULL);
	if (error == 0)
		add(&job->ledger->task[number].accepted);
	else if (error != -EAGAIN)
		add(&job->ledger->wrong);
	return error ? 2 : 0;
}

/* 1 had one, 0 there was none */
static int consume_one(struct job *job, uint64_t timeout_ns, uint32_t chance_of_failure)
{
	struct ledger *ledger = job->ledger;
	unsigned char bytes[LARGE];
	size_t size = sizeof(bytes);
	struct coshm_task task;
	uint32_t number = TASKS;
	int error = 0, found = coshm_queue_reserve(job->f->queue, timeout_ns, &task);

	if (found != 1) {
		if (found < 0)
			add(&ledger->wrong);
		return 0;
	}
	if (coshm_queue_payload(job->f->queue, &task, bytes, &size) == 0)
		memcpy(&number, bytes, sizeof(number));
	if (number >= TASKS || size != size_of(number) || bytes[size - 1] != (number & 0xff)) {
		add(&ledger->wrong);
		return 1;
	}
	coshm__a32_store_seq_cst(&ledger->worker[job->worker].current, number + 1);
	add(&ledger->task[number].started);
	if (chance_of_failure && random_of(job) % chance_of_failure == 0) {
		add(&ledger->task[number].again);
		error = random_of(job) % 2 ? coshm_queue_nack(job->f->queue, &task, "again", 1000)
					   : coshm_queue_release(job->f->queue, &task);
	} else {
		add(&ledger->task[number].ack_called);
		error = coshm_queue_ack(job->f->queue, &task);
		if (!error)
			add(&ledger->task[number].acked);
	}
	coshm__a32_store_seq_cst(&ledger->worker[job->worker].current, 0);
	if (error)
		add(&ledger->wrong);
	return 1;
}

static const struct coshm_queue_config config = {
	.capacity = 256,
	.payload_max_bytes = LARGE,
	.payload_pool_bytes = 1 << 18,
	.backoff_kind = COSHM_BACKOFF_FIXED,
	.backoff_base_ns = 100 * 1000,
	.max_attempts = UINT32_MAX,
};

static void finish(struct fixture *f, struct ledger *ledger, uint64_t *ret_accepted)
{
	struct job job = {.f = f, .ledger = ledger, .worker = 0};
	struct coshm_queue_depth depth;
	uint64_t accepted = 0, twice = 0;

	assert_int_equal(coshm_segment_reap(f->segment, NULL), 0);
	assert_verified(f->segment);
	for (int tries = 0;; tries++) {
		while (consume_one(&job, 0, 0))
			;
		depth = depth_of(f);
		if (depth.ready + depth.delayed == 0)
			break;
		assert_in_range(tries, 0, 20000);
		test_sleep_ns(100 * 1000);
	}
	assert_depth(f, 0, 0, 0, 0);
	assert_int_equal(count_of(&ledger->wrong), 0);
	for (uint32_t i = 0; i < TASKS; i++) {
		uint32_t started = count_of(&ledger->task[i].started);
		uint32_t crashed = count_of(&ledger->task[i].crashed);

		accepted += count_of(&ledger->task[i].accepted);
		twice += started > 1;
		if (count_of(&ledger->task[i].accepted))
			assert_int_not_equal(started, 0); /* P1 */
		assert_in_range(count_of(&ledger->task[i].acked), 0, 1);
		if (count_of(&ledger->task[i].accepted) && !crashed)
			assert_int_equal(count_of(&ledger->task[i].acked), 1);
		/* P2: each further start needs a nack, a release or a death */
		assert_in_range(started, 0, 1 + count_of(&ledger->task[i].again) + crashed);
	}
	fprintf(stderr, "# %llu accepted, %llu started more than once\n",
		(unsigned long long)accepted, (unsigned long long)twice);
	assert_int_equal(room_of(f), config.capacity);
	*ret_accepted = accepted;
}

/* --- without deaths ----------------------------------------------------------------------------------------------- */

static int producer(void *arg)
{
	struct job *job = arg;
	int result;

	while ((result = produce_one(job)) != 1)
		if (result == 2)
			test_sleep_ns(50 * 1000);
	return 0;
}

static int consumer(void *arg)
{
	struct job *job = arg;

	while (!count_of(&job->ledger->stop))
		consume_one(job, 5 * MS, 50);
	return 0;
}

static void each_task_of_two_producers_is_done_once_by_three_consumers(void **state)
{
	struct ledger *ledger = proc_shared_alloc(sizeof(*ledger));
	struct fixture f;
	struct proc *procs[WORKERS];
	uint64_t accepted;

	(void)state;
	fixture_open(&f, &config);
	for (uint32_t i = 0; i < WORKERS; i++) {
		struct job job = {.f = &f, .ledger = ledger, .worker = i, .seed = i + 1};

		procs[i] = proc_spawn(i < 2 ? producer : consumer, &job);
	}
	assert_int_equal(proc_collect_all(procs, 2, PROC_DEADLINE_NS, NULL), 0);
	coshm__a32_store_seq_cst(&ledger->stop, 1);
	assert_int_equal(proc_collect_all(procs + 2, 3, PROC_DEADLINE_NS, NULL), 0);
	finish(&f, ledger, &accepted);
	/* At least the first ones, before the queue was full: who empties it may not get to run. */
	assert_true(accepted >= config.capacity);
	fixture_close(&f);
}

/* --- with deaths and stops ------------------------------------------------------------------------------------------ */

static int jack_of_all_trades(void *arg)
{
	struct job *job = arg;

	while (!count_of(&job->ledger->stop)) {
		/* Tasks cost a little, so that victims hold some, and the table of tasks lasts. */
		for (uint32_t i = random_of(job) % 3; i; i--)
			if (produce_one(job))
				break;
		for (uint32_t i = random_of(job) % 4; i; i--)
			consume_one(job, 0, 10);
		test_sleep_ns(20 * 1000 + random_of(job) % 100000);
	}
	return 0;
}

static struct proc *start(struct fixture *f, struct ledger *ledger, uint32_t worker, uint32_t seed)
{
	struct job job = {.f = f, .ledger = ledger, .worker = worker, .seed = seed};

	coshm__a32_store_seq_cst(&ledger->worker[worker].current, 0);
	return proc_spawn(jack_of_all_trades, &job);
}

static uint64_t accepted_so_far(const struct ledger *ledger)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < TASKS; i++)
		count += count_of(&ledger->task[i].accepted);
	return count;
}

static void storm(uint32_t kills, int stops)
{
	const uint64_t start_ns = test_now_ns();
	struct ledger *ledger = proc_shared_alloc(sizeof(*ledger));
	struct fixture f;
	struct proc *procs[WORKERS];
	struct job dice = {.seed = 12345};
	uint64_t accepted;

	fixture_open(&f, &config);
	for (uint32_t i = 0; i < WORKERS; i++)
		procs[i] = start(&f, ledger, i, i * 77 + 1);
	for (uint32_t n = 0; n < kills; n++) {
		uint32_t victim = random_of(&dice) % WORKERS, current;
		uint32_t other = (victim + 1) % WORKERS;

		test_sleep_ns(1 * MS + random_of(&dice) % (5 * MS));
		if (stops)
			assert_int_equal(proc_pause(procs[other]), 0);
		proc_kill(procs[victim]);
		current = count_of(&ledger->worker[victim].current);
		if (current)
			add(&ledger->task[current - 1].crashed);
		if (stops) {
			test_sleep_ns(3 * MS);
			proc_resume(procs[other]);
		}
		procs[victim] = start(&f, ledger, victim, n * 131 + 7);
	}
	while (accepted_so_far(ledger) <= kills && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(5 * MS);
	coshm__a32_store_seq_cst(&ledger->stop, 1);
	assert_int_equal(proc_collect_all(procs, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	finish(&f, ledger, &accepted);
	assert_true(accepted > kills);
	fixture_close(&f);
}

static void every_accepted_task_is_done_while_workers_are_killed(void **state)
{
	(void)state;
	storm(300, 0);
}

static void every_accepted_task_is_done_while_workers_are_killed_and_stopped(void **state)
{
	(void)state;
	storm(150, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_task_of_two_producers_is_done_once_by_three_consumers),
		cmocka_unit_test(every_accepted_task_is_done_while_workers_are_killed),
		cmocka_unit_test(every_accepted_task_is_done_while_workers_are_killed_and_stopped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
