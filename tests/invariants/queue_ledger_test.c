/* SPDX-License-Identifier: MIT */
/*
 * queue.h P1, P2, P4, P6 and N3 under fire: producers and workers are killed and stopped, and a
 * ledger outside the segment knows what was enqueued, executed and acknowledged.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/queue.h>

#define PRODUCERS   3
#define WORKERS	    4
#define MEMBERS	    (PRODUCERS + WORKERS)
#define TASKS_MAX   (1 << 19)
#define CAPACITY    200
#define PAYLOAD_MAX 20000

struct task_record {
	_Atomic uint64_t id;	   /* from enqueue's return; 0 before */
	_Atomic uint32_t started;  /* enqueue was called */
	_Atomic uint32_t executed; /* deliveries that a worker wrote down */
	_Atomic uint32_t acked;	   /* acks that returned 0 */
	_Atomic uint32_t forgiven; /* leases given up, or whose holder was killed */
};

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint32_t next;
	_Atomic uint32_t in_hand[MEMBERS]; /* number + 1 of the task that a worker executes */
	struct task_record tasks[TASKS_MAX];
};

struct payload {
	uint32_t number;
	uint32_t size_bytes;
	unsigned char pattern[PAYLOAD_MAX];
};

static int produce(struct books *books, struct coshm_queue *queue, uint64_t *seed)
{
	static struct payload payload;
	const uint32_t number = atomic_fetch_add(&books->next, 1);
	const size_t size_bytes =
		8 + random_below(seed, random_below(seed, 20) ? 300 : PAYLOAD_MAX - 8);
	uint64_t id = 0;
	int rc;

	if (number >= TASKS_MAX) {
		test_sleep_ns(MS);
		return 0;
	}
	payload.number = number;
	payload.size_bytes = (uint32_t)size_bytes;
	pattern_fill(number, payload.pattern, size_bytes - 8);
	atomic_store(&books->tasks[number].started, 1);
	while ((rc = coshm_queue_enqueue(queue, &payload, size_bytes, NULL, &id)) == -EAGAIN) {
		if (crowd_is_over())
			return 0;
		test_sleep_ns(50000);
	}
	PROMISE_EQUAL(rc, 0);
	PROMISE(id != 0);
	atomic_store(&books->tasks[number].id, id);
	return 0;
}

static int execute(struct books *books, struct coshm_queue *queue, const struct coshm_task *task,
		   _Atomic uint32_t *in_hand, uint64_t *seed)
{
	static struct payload payload;
	struct task_record *record;
	size_t size_bytes = sizeof(payload);
	uint64_t id;

	PROMISE_EQUAL(coshm_queue_payload(queue, task, &payload, &size_bytes), 0);
	PROMISE_EQUAL(size_bytes, task->payload_size_bytes);
	PROMISE(size_bytes >= 8);
	PROMISE_EQUAL(payload.size_bytes, size_bytes);
	PROMISE(payload.number < TASKS_MAX);
	PROMISE(pattern_matches(payload.number, payload.pattern, size_bytes - 8));
	record = &books->tasks[payload.number];
	PROMISE_EQUAL(record->started, 1);
	id = atomic_load(&record->id);
	PROMISE(id == 0 || id == task->id);
	PROMISE(task->attempt >= 1);

	/* Not tried yet: as if it had never been delivered. */
	if (random_below(seed, 20) == 0) {
		PROMISE_EQUAL(coshm_queue_release(queue, task), 0);
		PROMISE_EQUAL(coshm_queue_ack(queue, task), -ESTALE);
		return 0;
	}
	atomic_store(in_hand, payload.number + 1);
	atomic_fetch_add(&record->executed, 1);
	PROMISE_EQUAL(record->acked, 0);
	if (random_below(seed, 8) == 0)
		test_sleep_ns(random_below(seed, 2 * MS));
	if (random_below(seed, 20) == 0) {
		atomic_fetch_add(&record->forgiven, 1);
		PROMISE_EQUAL(coshm_queue_nack(queue, task, "once more", random_below(seed, MS)),
			      0);
	} else {
		PROMISE_EQUAL(coshm_queue_ack(queue, task), 0);
		atomic_fetch_add(&record->acked, 1);
	}
	atomic_store(in_hand, 0);
	return 0;
}

static int work(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_queue_open(segment, "tasks", &queue), 0);
	while (!crowd_is_over()) {
		struct coshm_task task;
		int rc;

		if (member->index < PRODUCERS) {
			if (produce(books, queue, &seed))
				return 1;
			continue;
		}
		rc = coshm_queue_reserve(queue, 20 * MS, &task);
		PROMISE(rc == 0 || rc == 1);
		if (rc == 1 && execute(books, queue, &task, &books->in_hand[member->index], &seed))
			return 1;
	}
	return 0;
}

static void member_died(void *arg, unsigned int index)
{
	struct books *books = arg;
	const uint32_t in_hand = atomic_exchange(&books->in_hand[index], 0);

	/* The redelivery may have been quicker than this line: compared at the end only. */
	if (in_hand)
		atomic_fetch_add(&books->tasks[in_hand - 1].forgiven, 1);
}

static void queue_is_drained(struct books *books, struct coshm_queue *queue)
{
	const uint64_t start_ns = test_now_ns();
	uint64_t seed = random_seed(NULL);
	_Atomic uint32_t in_hand = 0;
	struct coshm_queue_depth depth;

	for (;;) {
		struct coshm_task task;
		const int rc = coshm_queue_reserve(queue, 50 * MS, &task);

		assert_in_range(rc, 0, 1);
		if (rc == 1)
			assert_int_equal(execute(books, queue, &task, &in_hand, &seed), 0);
		assert_int_equal(coshm_queue_depth(queue, &depth), 0);
		if (rc == 0 && depth.ready + depth.delayed + depth.leased == 0)
			break;
		assert_true(test_now_ns() - start_ns < PROC_DEADLINE_NS);
	}
	assert_int_equal(depth.dead, 0);
	assert_int_equal(depth.capacity, CAPACITY);
}

static int compare_ids(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void ledger_balances(const struct books *books)
{
	const uint32_t count = books->next < TASKS_MAX ? books->next : TASKS_MAX;
	uint64_t *ids = calloc(count + 1, sizeof(*ids));
	uint32_t returned = 0, executed = 0;

	assert_non_null(ids);
	for (uint32_t i = 0; i < count; i++) {
		const struct task_record *record = &books->tasks[i];

		if (record->id) {
			ids[returned++] = record->id;
			if (record->executed == 0)
				fail_msg("task %u is lost", i);
		}
		if (record->executed > 1 + record->forgiven)
			fail_msg("task %u ran %u times, %u forgiven", i, record->executed,
				 record->forgiven);
		assert_true(record->acked <= 1);
		/* Nobody can have acknowledged it unseen but one who was killed right then. */
		assert_true(record->acked == 1 || record->executed == 0 || record->forgiven > 0);
		executed += record->executed > 0;
	}
	assert_true(executed > CAPACITY);
	qsort(ids, returned, sizeof(*ids), compare_ids);
	for (uint32_t i = 1; i < returned; i++)
		assert_true(ids[i] != ids[i - 1]);
	free(ids);
}

/* How many tasks of one size fit. */
static unsigned int fill(struct coshm_queue *queue, size_t size_bytes)
{
	static unsigned char payload[PAYLOAD_MAX];
	unsigned int count = 0;
	int rc;

	while ((rc = coshm_queue_enqueue(queue, payload, size_bytes, NULL, NULL)) == 0)
		count++;
	assert_int_equal(rc, -EAGAIN);
	return count;
}

static void drain(struct coshm_queue *queue, unsigned int count)
{
	struct coshm_task task;

	for (unsigned int i = 0; i < count; i++) {
		assert_int_equal(coshm_queue_reserve(queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(coshm_queue_ack(queue, &task), 0);
	}
	assert_int_equal(coshm_queue_reserve(queue, 0, &task), 0);
}

static void ledger_holds(int torments)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = CAPACITY,
		.payload_max_bytes = PAYLOAD_MAX,
		.payload_pool_bytes = 1 << 20,
		.max_attempts = 1000000,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_queue *queue, *fresh;
	unsigned int large;
	struct crowd crowd;

	books->segment = segment_for_test(books->name, "queue-ledger", 8 << 20);
	assert_int_equal(coshm_queue_create(books->segment, "tasks", &config, 0, &queue), 0);
	crowd_start(&crowd, MEMBERS, work, books, member_died);
	if (torments)
		crowd_torment(&crowd, 0, MEMBERS, torments, test_run_ns());
	else
		test_sleep_ns(test_run_ns() / 2);
	/* Some more, should they hardly have come to run: each victim may have been at one task. */
	CROWD_UNTIL(books->next > CAPACITY + MEMBERS + crowd.kills);
	crowd_finish(&crowd);
	queue_is_drained(books, queue);
	ledger_balances(books);

	/* Nothing leaked: as much fits as in a queue that was never used. */
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	assert_int_equal(coshm_queue_create(books->segment, "fresh", &config, 0, &fresh), 0);
	assert_int_equal(fill(queue, 100), CAPACITY);
	drain(queue, CAPACITY);
	large = fill(queue, PAYLOAD_MAX);
	assert_int_equal(large, fill(fresh, PAYLOAD_MAX));
	assert_true(large >= config.payload_pool_bytes / PAYLOAD_MAX / 2);
	drain(queue, large);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void each_task_is_executed_once_when_nobody_dies(void **state)
{
	(void)state;
	ledger_holds(0);
}

static void stopped_workers_keep_their_tasks(void **state)
{
	(void)state;
	ledger_holds(CROWD_STOP);
}

static void no_task_is_lost_and_only_the_dead_s_run_twice(void **state)
{
	(void)state;
	ledger_holds(CROWD_KILL | CROWD_STOP);
}

/* Members that stand still anywhere, for ever, block nobody. ---------------------------------- */

#define CYCLERS	   6
#define STILL	   3
#define CYCLES	   2000
#define STILL_LAPS 20

struct cycles {
	struct coshm_segment *segment;
	_Atomic uint64_t done[CYCLERS];
};

static int cycle(void *arg)
{
	const struct member *member = arg;
	struct cycles *cycles = member->books;
	struct coshm_queue *queue;

	PROMISE_EQUAL(coshm_queue_open(cycles->segment, "tasks", &queue), 0);
	while (!crowd_is_over()) {
		struct coshm_task task;
		int rc = coshm_queue_enqueue(queue, "x", 1, NULL, NULL);

		/* The stopped ones may hold a few; room for all is there. */
		PROMISE_EQUAL(rc, 0);
		rc = coshm_queue_reserve(queue, 0, &task);
		PROMISE(rc == 0 || rc == 1);
		if (rc == 1)
			PROMISE_EQUAL(coshm_queue_ack(queue, &task), 0);
		atomic_fetch_add(&cycles->done[member->index], 1);
	}
	return 0;
}

static void members_stopped_anywhere_block_nobody(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 1000,
	};
	struct cycles *cycles = proc_shared_alloc(sizeof(*cycles));
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_queue *queue;
	struct crowd crowd;

	(void)state;
	cycles->segment = segment_for_test(name, "queue-still", 8 << 20);
	assert_int_equal(coshm_queue_create(cycles->segment, "tasks", &config, 0, &queue), 0);
	crowd_start(&crowd, CYCLERS, cycle, cycles, NULL);
	for (unsigned int lap = 0; lap < STILL_LAPS && !crowd_is_over(); lap++) {
		uint64_t before[CYCLERS];
		const uint64_t start_ns = test_now_ns();

		for (unsigned int i = 0; i < STILL; i++)
			assert_int_equal(proc_pause(crowd.procs[i]), 0);
		for (unsigned int i = STILL; i < CYCLERS; i++)
			before[i] = cycles->done[i];
		for (unsigned int i = STILL; i < CYCLERS; i++) {
			while (cycles->done[i] < before[i] + CYCLES && !crowd_is_over()) {
				assert_true(test_now_ns() - start_ns < PROC_DEADLINE_NS);
				test_sleep_ns(MS / 2);
			}
		}
		for (unsigned int i = 0; i < STILL; i++)
			proc_resume(crowd.procs[i]);
		test_sleep_ns(MS * (lap % 5));
	}
	crowd_finish(&crowd);
	segment_is_sound(cycles->segment);
	assert_int_equal(coshm_segment_detach(cycles->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_task_is_executed_once_when_nobody_dies),
		cmocka_unit_test(stopped_workers_keep_their_tasks),
		cmocka_unit_test(no_task_is_lost_and_only_the_dead_s_run_twice),
		cmocka_unit_test(members_stopped_anywhere_block_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
