/* SPDX-License-Identifier: MIT */
/*
 * queue.h, how a lease ends: whose it is, when a task comes back, what its dead letter says.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <coshm/queue.h>

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	struct coshm_task task;
	struct proc_barrier *barrier;
	_Atomic uint64_t seen;
};

static const struct coshm_queue_config ordinary = {.struct_size_bytes = sizeof(ordinary),
						   .capacity = 16};

static struct books *books_new(const char *tag, const struct coshm_queue_config *config)
{
	struct books *books = proc_shared_alloc(sizeof(*books));

	books->segment = segment_for_test(books->name, tag, 4 << 20);
	assert_int_equal(coshm_queue_create(books->segment, "q", config, 0, &books->queue), 0);
	return books;
}

static void books_close(struct books *books)
{
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void enqueue_and_reserve(struct books *books, const char *payload, struct coshm_task *ret)
{
	assert_int_equal(coshm_queue_enqueue(books->queue, payload, strlen(payload), NULL, NULL),
			 0);
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, ret), 1);
}

/* Leases are of one process and of one delivery. --------------------------------------------- */

static int all_ends_are_stale(struct coshm_queue *queue, const struct coshm_task *task)
{
	char buffer[64];
	size_t size_bytes = sizeof(buffer);

	PROMISE_EQUAL(coshm_queue_ack(queue, task), -ESTALE);
	PROMISE_EQUAL(coshm_queue_nack(queue, task, "not mine", 0), -ESTALE);
	PROMISE_EQUAL(coshm_queue_release(queue, task), -ESTALE);
	PROMISE_EQUAL(coshm_queue_bury(queue, task, "not mine"), -ESTALE);
	PROMISE_EQUAL(coshm_queue_payload(queue, task, buffer, &size_bytes), -ESTALE);
	return 0;
}

static int stale_by_fork(void *arg)
{
	struct books *books = arg;

	return all_ends_are_stale(books->queue, &books->task);
}

static int stale_by_attach(void *arg)
{
	struct books *books = arg;
	struct coshm_segment *segment;
	struct coshm_queue *queue;

	PROMISE_EQUAL(coshm_segment_attach(books->name, 0, &segment), 0);
	PROMISE_EQUAL(coshm_queue_open(segment, "q", &queue), 0);
	return all_ends_are_stale(queue, &books->task);
}

static void lease_is_of_nobody_but_its_process(void **state)
{
	struct books *books = books_new("queue-stale", &ordinary);
	char buffer[8];
	size_t size_bytes = sizeof(buffer);

	(void)state;
	enqueue_and_reserve(books, "abc", &books->task);
	assert_int_equal(proc_collect(proc_spawn(stale_by_fork, books), PROC_DEADLINE_NS), 0);
	assert_int_equal(proc_collect(proc_spawn(stale_by_attach, books), PROC_DEADLINE_NS), 0);
	/* Their deaths took nothing with them. */
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	assert_int_equal(coshm_queue_payload(books->queue, &books->task, buffer, &size_bytes), 0);
	assert_int_equal(size_bytes, 3);
	assert_memory_equal(buffer, "abc", 3);
	assert_int_equal(coshm_queue_ack(books->queue, &books->task), 0);
	books_close(books);
}

static void lease_that_ended_is_stale_for_ever(void **state)
{
	struct books *books = books_new("queue-ended", &ordinary);
	struct coshm_task old[4], task;

	(void)state;
	enqueue_and_reserve(books, "ack", &old[0]);
	assert_int_equal(coshm_queue_ack(books->queue, &old[0]), 0);
	assert_int_equal(all_ends_are_stale(books->queue, &old[0]), 0);
	enqueue_and_reserve(books, "release", &old[1]);
	assert_int_equal(coshm_queue_release(books->queue, &old[1]), 0);
	assert_int_equal(all_ends_are_stale(books->queue, &old[1]), 0);
	/* The same task again, in the same record: still another lease. */
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	assert_int_equal(task.id, old[1].id);
	assert_int_equal(all_ends_are_stale(books->queue, &old[1]), 0);
	assert_int_equal(coshm_queue_nack(books->queue, &task, "later", 0), 0);
	old[2] = task;
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	assert_int_equal(all_ends_are_stale(books->queue, &old[2]), 0);
	assert_int_equal(coshm_queue_bury(books->queue, &task, "no"), 0);
	old[3] = task;
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(all_ends_are_stale(books->queue, &old[i]), 0);
	/* Records are used again and again; an old lease never fits. */
	for (unsigned int lap = 0; lap < 20000; lap++) {
		enqueue_and_reserve(books, "again", &task);
		if (lap % 1000 == 0) {
			for (unsigned int i = 0; i < 4; i++)
				assert_int_equal(all_ends_are_stale(books->queue, &old[i]), 0);
		}
		assert_int_equal(coshm_queue_ack(books->queue, &task), 0);
	}
	books_close(books);
}

static void release_is_not_an_attempt(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config), .capacity = 4, .max_attempts = 2};
	struct books *books = books_new("queue-release", &config);
	struct coshm_task task;

	(void)state;
	enqueue_and_reserve(books, "x", &task);
	for (unsigned int lap = 0; lap < 50; lap++) {
		assert_int_equal(task.attempt, 1);
		assert_int_equal(task.max_attempts, 2);
		assert_int_equal(coshm_queue_release(books->queue, &task), 0);
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	}
	assert_int_equal(coshm_queue_nack(books->queue, &task, "first", 0), 0);
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	assert_int_equal(task.attempt, 2);
	assert_int_equal(coshm_queue_ack(books->queue, &task), 0);
	books_close(books);
}

/* A due time may be kept in coarser units than a nanosecond, rounded up. */
#define ROUNDING_NS MS

/* When a task comes back. -------------------------------------------------------------------- */

struct seen {
	struct coshm_task_info info;
	unsigned int count;
};

static int note(void *context, const struct coshm_task_info *info, const void *payload)
{
	struct seen *seen = context;

	(void)payload;
	seen->info = *info;
	seen->count++;
	return 0;
}

static struct coshm_task_info only_task(struct coshm_queue *queue, uint32_t state)
{
	struct seen seen;

	memset(&seen, 0, sizeof(seen));
	assert_int_equal(coshm_queue_each(queue, 0, 0, note, &seen), 0);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.info.state, state);
	seen.count = 0;
	assert_int_equal(coshm_queue_each(queue, 1u << state, 0, note, &seen), 0);
	assert_int_equal(seen.count, 1);
	return seen.info;
}

static void backoff_is(uint32_t kind, uint32_t jitter_percent, const uint64_t *delays_ns,
		       unsigned int count)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_kind = kind,
		.backoff_base_ns = 2 * MS,
		.backoff_max_ns = 9 * MS,
		.backoff_jitter_percent = jitter_percent,
	};
	struct books *books = books_new("queue-backoff", &config);
	struct coshm_task task;

	enqueue_and_reserve(books, "x", &task);
	for (unsigned int i = 0; i < count; i++) {
		const uint64_t before_ns = coshm_segment_now_ns(books->segment);
		uint64_t after_ns, least_ns;
		struct coshm_task_info info;
		struct seen seen;

		assert_int_equal(task.attempt, i + 1);
		assert_int_equal(coshm_queue_nack(books->queue, &task, "x", COSHM_FOREVER), 0);
		after_ns = coshm_segment_now_ns(books->segment);
		/* By now it may be due. */
		memset(&seen, 0, sizeof(seen));
		assert_int_equal(coshm_queue_each(books->queue, 0, 0, note, &seen), 0);
		assert_int_equal(seen.count, 1);
		info = seen.info;
		/* Jitter may take from it or add to it. */
		least_ns = delays_ns[i] - delays_ns[i] * jitter_percent / 100;
		assert_true(info.due_at_ns >= before_ns + least_ns);
		assert_true(info.due_at_ns <= after_ns + delays_ns[i] +
						      delays_ns[i] * jitter_percent / 100 +
						      ROUNDING_NS);
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_true(coshm_segment_now_ns(books->segment) >= info.due_at_ns);
	}
	assert_int_equal(coshm_queue_ack(books->queue, &task), 0);
	books_close(books);
}

static void retries_wait_for_the_configured_backoff(void **state)
{
	static const uint64_t exponential[] = {2 * MS, 4 * MS, 8 * MS, 9 * MS, 9 * MS};
	static const uint64_t linear[] = {2 * MS, 4 * MS, 6 * MS, 8 * MS, 9 * MS};
	static const uint64_t fixed[] = {2 * MS, 2 * MS, 2 * MS, 2 * MS, 2 * MS};

	(void)state;
	backoff_is(COSHM_BACKOFF_EXPONENTIAL, 0, exponential, 5);
	backoff_is(COSHM_BACKOFF_LINEAR, 0, linear, 5);
	backoff_is(COSHM_BACKOFF_FIXED, 0, fixed, 5);
	backoff_is(COSHM_BACKOFF_EXPONENTIAL, 50, exponential, 5);
}

/* The exponent of a task that is tried very often must not overflow into a short delay. */
static void backoff_of_many_attempts_stays_at_its_cap(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_base_ns = 1000,
		.backoff_max_ns = 2 * MS,
		.max_attempts = 200,
	};
	struct books *books = books_new("queue-many", &config);
	struct coshm_task task;

	(void)state;
	enqueue_and_reserve(books, "x", &task);
	for (unsigned int i = 1; i < 200; i++) {
		uint64_t before_ns, after_ns;
		struct coshm_task_info info;

		before_ns = coshm_segment_now_ns(books->segment);
		assert_int_equal(coshm_queue_nack(books->queue, &task, "x", COSHM_FOREVER), 0);
		after_ns = coshm_segment_now_ns(books->segment);
		{
			struct seen seen;

			memset(&seen, 0, sizeof(seen));
			assert_int_equal(coshm_queue_each(books->queue, 0, 0, note, &seen), 0);
			info = seen.info;
		}
		if (i > 12)
			assert_true(info.due_at_ns >= before_ns + 2 * MS);
		assert_true(info.due_at_ns <= after_ns + 2 * MS + ROUNDING_NS);
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(task.attempt, i + 1);
	}
	assert_int_equal(coshm_queue_nack(books->queue, &task, "x", COSHM_FOREVER), 0);
	(void)only_task(books->queue, COSHM_TASK_DEAD);
	books_close(books);
}

/* Many delays at once, given in no order: none early, all in time's order. */
static void delayed_tasks_come_in_order_of_time_and_never_early(void **state)
{
	const struct coshm_queue_config config = {.struct_size_bytes = sizeof(config),
						  .capacity = 300};
	struct books *books = books_new("queue-delay", &config);
	uint64_t seed = random_seed(NULL);
	uint64_t due_ns[300][2];
	uint64_t ids[300];

	(void)state;
	for (unsigned int i = 0; i < 300; i++) {
		const struct coshm_enqueue_options options = {
			.struct_size_bytes = sizeof(options),
			.delay_ns = random_below(&seed, 200) * MS + 1,
		};

		due_ns[i][0] = coshm_segment_now_ns(books->segment) + options.delay_ns;
		assert_int_equal(
			coshm_queue_enqueue(books->queue, &i, sizeof(i), &options, &ids[i]), 0);
		due_ns[i][1] = coshm_segment_now_ns(books->segment) + options.delay_ns;
	}
	for (unsigned int i = 0; i < 300; i++) {
		struct coshm_task task;
		unsigned int number;
		size_t size_bytes = sizeof(number);

		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(coshm_queue_payload(books->queue, &task, &number, &size_bytes), 0);
		assert_true(number < 300);
		assert_int_equal(task.id, ids[number]);
		assert_true(coshm_segment_now_ns(books->segment) >= due_ns[number][0]);
		assert_int_equal(coshm_queue_ack(books->queue, &task), 0);
		ids[number] = 0;
	}
	books_close(books);
}

static void delay_of_nack_overrides_the_backoff(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_base_ns = 3600 * SECOND,
		.backoff_max_ns = 3600 * SECOND,
	};
	struct books *books = books_new("queue-nack", &config);
	struct coshm_task_info info;
	struct coshm_task task;

	(void)state;
	enqueue_and_reserve(books, "x", &task);
	assert_int_equal(coshm_queue_nack(books->queue, &task, NULL, 0), 0);
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	assert_int_equal(coshm_queue_nack(books->queue, &task, "", 5 * MS), 0);
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	assert_int_equal(coshm_queue_nack(books->queue, &task, "x", COSHM_FOREVER), 0);
	assert_int_equal(coshm_queue_reserve(books->queue, 20 * MS, &task), 0);
	info = only_task(books->queue, COSHM_TASK_DELAYED);
	assert_int_equal(info.attempts, 3);
	assert_true(info.due_at_ns > coshm_segment_now_ns(books->segment) + 3000 * SECOND);
	books_close(books);
}

/* Dead letters. ------------------------------------------------------------------------------ */

static int reserve_and_die(void *arg)
{
	struct books *books = arg;
	struct coshm_task task;

	PROMISE_EQUAL(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	return raise(SIGKILL);
}

static void dead_letter_keeps_each_error_and_comes_back_whole(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_base_ns = 1,
		.backoff_max_ns = 1,
		.max_attempts = 5,
	};
	static const char long_error[] =
		"an error text that is a good deal longer than the fifty-five bytes that are kept";
	struct books *books = books_new("queue-dead", &config);
	char payload[1000], seen[1000];
	size_t size_bytes = sizeof(seen);
	struct coshm_task task;
	struct coshm_task_info info;
	uint64_t id, count = 77;

	(void)state;
	pattern_fill(1, payload, 192);
	assert_int_equal(coshm_queue_enqueue(books->queue, payload, 192, NULL, &id), 0);
	for (unsigned int i = 1; i <= 5; i++) {
		char error[16];

		if (i == 3) {
			assert_int_equal(
				proc_collect(proc_spawn(reserve_and_die, books), PROC_DEADLINE_NS),
				-SIGKILL);
			continue;
		}
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(task.id, id);
		assert_int_equal(task.attempt, i);
		assert_int_equal(task.max_attempts, 5);
		snprintf(error, sizeof(error), "error %u", i);
		assert_int_equal(coshm_queue_nack(books->queue, &task, i == 4 ? long_error : error,
						  COSHM_FOREVER),
				 0);
	}
	assert_int_equal(coshm_queue_reserve(books->queue, 20 * MS, &task), 0);

	info = only_task(books->queue, COSHM_TASK_DEAD);
	assert_int_equal(info.id, id);
	assert_int_equal(info.attempts, 5);
	assert_int_equal(info.attempt_record_count, 5);
	for (unsigned int i = 0; i < 5; i++) {
		const struct coshm_task_attempt *record = &info.attempt_records[i];

		assert_int_equal(record->attempt, i + 1);
		assert_int_equal(record->outcome,
				 i == 2 ? COSHM_ATTEMPT_CRASHED : COSHM_ATTEMPT_FAILED);
		assert_true(i == 0 ||
			    record->ended_at_ns >= info.attempt_records[i - 1].ended_at_ns);
	}
	assert_string_equal(info.attempt_records[0].error, "error 1");
	assert_string_equal(info.attempt_records[1].error, "error 2");
	assert_int_equal(strlen(info.attempt_records[3].error), 55);
	assert_memory_equal(info.attempt_records[3].error, long_error, 55);
	assert_string_equal(info.attempt_records[4].error, "error 5");

	/* Redriven: attempts from zero, history kept, payload whole. */
	assert_int_equal(coshm_queue_redrive(books->queue, id + 1, NULL), -ENOENT);
	assert_int_equal(coshm_queue_redrive(books->queue, id, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	assert_int_equal(task.id, id);
	assert_int_equal(task.attempt, 1);
	assert_int_equal(coshm_queue_payload(books->queue, &task, seen, &size_bytes), 0);
	assert_int_equal(size_bytes, 192);
	assert_true(pattern_matches(1, seen, 192));
	assert_int_equal(coshm_queue_bury(books->queue, &task, "hopeless"), 0);
	info = only_task(books->queue, COSHM_TASK_DEAD);
	assert_int_equal(info.attempt_record_count, 6);
	assert_string_equal(info.attempt_records[0].error, "error 1");
	assert_string_equal(info.attempt_records[5].error, "hopeless");

	assert_int_equal(coshm_queue_drop(books->queue, id + 1, NULL), -ENOENT);
	assert_int_equal(coshm_queue_drop(books->queue, id, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(coshm_queue_drop(books->queue, id, NULL), -ENOENT);
	assert_int_equal(coshm_queue_redrive(books->queue, id, NULL), -ENOENT);
	books_close(books);
}

static void only_the_last_eight_errors_are_kept_oldest_first(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_base_ns = 1,
		.backoff_max_ns = 1,
		.max_attempts = 13,
	};
	struct books *books = books_new("queue-eight", &config);
	struct coshm_task_info info;
	struct coshm_task task;

	(void)state;
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	for (unsigned int i = 1; i <= 13; i++) {
		char error[16];

		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		snprintf(error, sizeof(error), "error %u", i);
		assert_int_equal(coshm_queue_nack(books->queue, &task, error, COSHM_FOREVER), 0);
	}
	info = only_task(books->queue, COSHM_TASK_DEAD);
	assert_int_equal(info.attempts, 13);
	assert_int_equal(info.attempt_record_count, 8);
	for (unsigned int i = 0; i < 8; i++) {
		char error[16];

		snprintf(error, sizeof(error), "error %u", i + 6);
		assert_int_equal(info.attempt_records[i].attempt, i + 6);
		assert_string_equal(info.attempt_records[i].error, error);
	}
	books_close(books);
}

static void dead_letters_take_room_until_redriven_or_dropped(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config), .capacity = 10, .max_attempts = 1};
	struct books *books = books_new("queue-room", &config);
	struct coshm_queue_depth depth;
	struct coshm_task task;
	uint64_t count = 0;

	(void)state;
	for (unsigned int i = 0; i < 10; i++) {
		enqueue_and_reserve(books, "x", &task);
		assert_int_equal(coshm_queue_nack(books->queue, &task, "x", COSHM_FOREVER), 0);
	}
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), -EAGAIN);
	assert_int_equal(coshm_queue_depth(books->queue, &depth), 0);
	assert_int_equal(depth.dead, 10);
	assert_int_equal(depth.ready + depth.delayed + depth.leased, 0);
	assert_int_equal(coshm_queue_redrive(books->queue, 0, &count), 0);
	assert_int_equal(count, 10);
	for (unsigned int i = 0; i < 10; i++) {
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(i < 5 ? coshm_queue_ack(books->queue, &task)
				       : coshm_queue_bury(books->queue, &task, "x"),
				 0);
	}
	assert_int_equal(coshm_queue_drop(books->queue, 0, &count), 0);
	assert_int_equal(count, 5);
	for (unsigned int i = 0; i < 10; i++)
		assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), -EAGAIN);
	books_close(books);
}

/* A task that kills each of its workers ends in the dead letters as well. */
static void task_that_kills_its_workers_is_dead_after_its_last_attempt(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_base_ns = 1,
		.backoff_max_ns = 1,
		.max_attempts = 3,
	};
	struct books *books = books_new("queue-poison", &config);
	struct coshm_task_info info;
	struct coshm_task task;

	(void)state;
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(proc_collect(proc_spawn(reserve_and_die, books), PROC_DEADLINE_NS),
				 -SIGKILL);
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	assert_int_equal(coshm_queue_reserve(books->queue, 20 * MS, &task), 0);
	info = only_task(books->queue, COSHM_TASK_DEAD);
	assert_int_equal(info.attempts, 3);
	assert_int_equal(info.attempt_record_count, 3);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(info.attempt_records[i].outcome, COSHM_ATTEMPT_CRASHED);
	books_close(books);
}

/* Read-only eyes see whole tasks while others work. ------------------------------------------ */

static int churn(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_queue *queue;
	uint64_t seed = random_seed(member);
	unsigned char payload[1000];

	PROMISE_EQUAL(coshm_queue_open(books->segment, "q", &queue), 0);
	while (!crowd_is_over()) {
		const uint64_t size_bytes = random_below(&seed, sizeof(payload) - 8) + 8;
		const uint64_t number = random_next(&seed) << 16 | size_bytes;
		struct coshm_task task;
		int rc;

		memcpy(payload, &number, 8);
		pattern_fill(number, payload + 8, size_bytes - 8);
		rc = coshm_queue_enqueue(queue, payload, size_bytes, NULL, NULL);
		PROMISE(rc == 0 || rc == -EAGAIN);
		if (random_below(&seed, 3) && coshm_queue_reserve(queue, 0, &task) == 1)
			PROMISE_EQUAL(coshm_queue_ack(queue, &task), 0);
	}
	return 0;
}

static int look_at(void *context, const struct coshm_task_info *info, const void *payload)
{
	struct books *books = context;
	uint64_t number;

	PROMISE(info->id != 0);
	PROMISE(info->payload_size_bytes >= 8 && info->payload_size_bytes <= 1000);
	PROMISE(payload != NULL);
	memcpy(&number, payload, 8);
	PROMISE_EQUAL(number & 0xffff, info->payload_size_bytes);
	PROMISE(pattern_matches(number, (const unsigned char *)payload + 8,
				info->payload_size_bytes - 8));
	books->seen++;
	return 0;
}

static int churn_or_look(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	struct coshm_task task;

	if (member->index > 0)
		return churn(arg);
	PROMISE_EQUAL(coshm_segment_attach(books->name, COSHM_ATTACH_READ_ONLY, &segment), 0);
	PROMISE_EQUAL(coshm_queue_open(segment, "q", &queue), 0);
	while (!crowd_is_over()) {
		struct coshm_queue_depth depth;

		PROMISE_EQUAL(coshm_queue_each(queue, 1u << COSHM_TASK_READY,
					       COSHM_QUEUE_EACH_PAYLOAD, look_at, books),
			      0);
		PROMISE_EQUAL(coshm_queue_depth(queue, &depth), 0);
		PROMISE(depth.ready + depth.leased + depth.delayed + depth.dead <= 2 * 100);
	}
	PROMISE_EQUAL(coshm_queue_enqueue(queue, "x", 1, NULL, NULL), -EROFS);
	PROMISE_EQUAL(coshm_queue_reserve(queue, 0, &task), -EROFS);
	return 0;
}

static void read_only_walk_sees_whole_tasks_under_churn(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config), .capacity = 100, .payload_max_bytes = 1000};
	struct books *books = books_new("queue-look", &config);
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 4, churn_or_look, books, NULL);
	crowd_torment(&crowd, 1, 3, CROWD_KILL | CROWD_STOP, test_run_ns() / 2);
	CROWD_UNTIL(books->seen > 0);
	crowd_finish(&crowd);
	assert_true(books->seen > 0);
	books_close(books);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lease_is_of_nobody_but_its_process),
		cmocka_unit_test(lease_that_ended_is_stale_for_ever),
		cmocka_unit_test(release_is_not_an_attempt),
		cmocka_unit_test(retries_wait_for_the_configured_backoff),
		cmocka_unit_test(backoff_of_many_attempts_stays_at_its_cap),
		cmocka_unit_test(delayed_tasks_come_in_order_of_time_and_never_early),
		cmocka_unit_test(delay_of_nack_overrides_the_backoff),
		cmocka_unit_test(dead_letter_keeps_each_error_and_comes_back_whole),
		cmocka_unit_test(only_the_last_eight_errors_are_kept_oldest_first),
		cmocka_unit_test(dead_letters_take_room_until_redriven_or_dropped),
		cmocka_unit_test(task_that_kills_its_workers_is_dead_after_its_last_attempt),
		cmocka_unit_test(read_only_walk_sees_whole_tasks_under_churn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
