/* SPDX-License-Identifier: MIT */
/*
 * queue.h P3 and P5, removal, and coshm_worker_run: who sleeps, what wakes them, how they end.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <coshm/queue.h>

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	_Atomic uint32_t got;
	_Atomic uint32_t done;
	_Atomic uint32_t inside;
	_Atomic uint32_t let_go;
	_Atomic uint64_t cpu_ns[4];
	_Atomic uint64_t slept_ns[4];
};

static struct books *books_new(const char *tag, uint64_t capacity)
{
	/* What is to be tried again stays away: no test waits for it. */
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = capacity,
		.backoff_base_ns = 3600 * SECOND,
		.backoff_max_ns = 3600 * SECOND,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));

	books->segment = segment_for_test(books->name, tag, 4 << 20);
	assert_int_equal(coshm_queue_create(books->segment, "q", &config, 0, &books->queue), 0);
	return books;
}

static void books_close(struct books *books)
{
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void wait_until(const _Atomic uint32_t *word, uint32_t value)
{
	const uint64_t start_ns = test_now_ns();

	while (atomic_load(word) < value) {
		assert_true(test_now_ns() - start_ns < PROC_DEADLINE_NS);
		test_sleep_ns(MS / 5);
	}
}

static uint64_t cpu_used_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * SECOND +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static int sleep_until_a_task(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_task task;
	const uint64_t began_ns = test_now_ns(), start_ns = cpu_used_ns();

	atomic_fetch_add(&books->inside, 1);
	PROMISE_EQUAL(coshm_queue_reserve(books->queue, COSHM_FOREVER, &task), 1);
	books->cpu_ns[member->index] = cpu_used_ns() - start_ns;
	books->slept_ns[member->index] = test_now_ns() - began_ns;
	PROMISE_EQUAL(coshm_queue_ack(books->queue, &task), 0);
	atomic_fetch_add(&books->done, 1);
	return 0;
}

static void sleeping_consumers_use_no_cpu_and_all_wake(void **state)
{
	struct books *books = books_new("queue-sleep", 16);
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 4, sleep_until_a_task, books, NULL);
	wait_until(&books->inside, 4);
	test_sleep_ns(2 * SECOND);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	crowd_join(&crowd);
	assert_int_equal(books->done, 4);
	/* Of two seconds, or more on a busy machine; one that spins or polls takes a good part. */
	for (unsigned int i = 0; i < 4; i++)
		assert_true(books->cpu_ns[i] < 50 * MS + books->slept_ns[i] / 50);
	books_close(books);
}

/*
 * Two queues, one task to and fro: each hop has to wake a sleeper.
 *
 * One that is not woken wakes up by itself after a tick, so a lost wake-up only shows in time. What that means on this
 * machine, with whatever else it does, two others show who do the same over pipes.
 */

#define HOPS 1000
#define LATE (50 * SECOND) /* half of what so many ticks take */

static int pipes[2][2];

static int hop_over_pipes(unsigned int which)
{
	char byte = 'x';

	for (unsigned int i = 0; i < HOPS; i++) {
		if (which == 0)
			PROMISE_EQUAL(write(pipes[0][1], &byte, 1), 1);
		PROMISE_EQUAL(read(pipes[!which][0], &byte, 1), 1);
		test_sleep_ns(MS / 2);
		if (which == 1)
			PROMISE_EQUAL(write(pipes[1][1], &byte, 1), 1);
	}
	return 0;
}

static int hop(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_queue *here, *there;
	struct coshm_task task;

	if (member->index >= 2)
		return hop_over_pipes(member->index - 2);
	PROMISE_EQUAL(coshm_queue_open(books->segment, member->index ? "to" : "fro", &here), 0);
	PROMISE_EQUAL(coshm_queue_open(books->segment, member->index ? "fro" : "to", &there), 0);
	for (unsigned int i = 0; i < HOPS; i++) {
		if (member->index == 0)
			PROMISE_EQUAL(coshm_queue_enqueue(there, "x", 1, NULL, NULL), 0);
		PROMISE_EQUAL(coshm_queue_reserve(here, COSHM_FOREVER, &task), 1);
		/* Long enough for the other one to fall asleep. */
		test_sleep_ns(MS / 2);
		PROMISE_EQUAL(coshm_queue_ack(here, &task), 0);
		if (member->index == 1)
			PROMISE_EQUAL(coshm_queue_enqueue(there, "x", 1, NULL, NULL), 0);
	}
	return 0;
}

static void no_wake_up_is_lost(void **state)
{
	const struct coshm_queue_config config = {.struct_size_bytes = sizeof(config),
						  .capacity = 4};
	struct books *books = books_new("queue-hop", 16);
	const uint64_t start_ns = test_now_ns();
	struct coshm_queue *to, *fro;
	struct crowd crowd;

	(void)state;
	assert_int_equal(coshm_queue_create(books->segment, "to", &config, 0, &to), 0);
	assert_int_equal(coshm_queue_create(books->segment, "fro", &config, 0, &fro), 0);
	assert_int_equal(pipe(pipes[0]) | pipe(pipes[1]), 0);
	crowd_start(&crowd, 4, hop, books, NULL);
	assert_int_equal(proc_collect_all(crowd.procs + 2, 2, 2 * PROC_DEADLINE_NS, NULL), 0);
	crowd.count = 2;
	crowd_join_within(&crowd, LATE + (test_now_ns() - start_ns));
	for (unsigned int i = 0; i < 4; i++)
		close(pipes[i / 2][i % 2]);
	books_close(books);
}

static int drain_many(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	uint64_t seed = random_seed(member);
	struct coshm_task task;

	while (books->done < 2000) {
		const int rc = coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task);

		PROMISE_EQUAL(rc, 1);
		PROMISE_EQUAL(coshm_queue_ack(books->queue, &task), 0);
		atomic_fetch_add(&books->done, 1);
		if (random_below(&seed, 4) == 0)
			test_sleep_ns(random_below(&seed, MS / 4));
	}
	return 0;
}

static void tasks_in_bursts_reach_all_sleepers(void **state)
{
	struct books *books = books_new("queue-burst", 64);
	uint64_t seed = random_seed(NULL);
	struct crowd crowd;
	uint32_t sent = 0;

	(void)state;
	crowd_start(&crowd, 4, drain_many, books, NULL);
	while (sent < 2000) {
		unsigned int burst = (unsigned int)random_below(&seed, 40) + 1;

		for (; burst > 0 && sent < 2000; burst--, sent++)
			assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
		wait_until(&books->done, sent);
	}
	/* The last ones wait for a task each. */
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	crowd_join(&crowd);
	books_close(books);
}

/* Death of a holder, with nobody at work. ---------------------------------------------------- */

static int hold(void *arg)
{
	struct books *books = arg;
	struct coshm_task task;

	PROMISE_EQUAL(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
	atomic_fetch_add(&books->inside, 1);
	test_sleep_ns(2 * PROC_DEADLINE_NS);
	return 0;
}

static int sleep_then_take(void *arg)
{
	struct books *books = arg;
	struct coshm_task task;

	PROMISE_EQUAL(coshm_queue_reserve(books->queue, COSHM_FOREVER, &task), 1);
	atomic_store(&books->got, task.attempt);
	PROMISE_EQUAL(coshm_queue_ack(books->queue, &task), 0);
	return 0;
}

static void sleeper_gets_the_task_of_a_killed_holder_and_not_of_a_stopped_one(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 4,
		.backoff_base_ns = 1,
		.backoff_max_ns = 1,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct proc *holder, *sleeper;

	(void)state;
	books->segment = segment_for_test(books->name, "queue-heir", 4 << 20);
	assert_int_equal(coshm_queue_create(books->segment, "q", &config, 0, &books->queue), 0);
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	holder = proc_spawn(hold, books);
	wait_until(&books->inside, 1);
	sleeper = proc_spawn(sleep_then_take, books);
	assert_int_equal(proc_pause(holder), 0);
	test_sleep_ns(SECOND);
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	assert_int_equal(books->got, 0);
	assert_int_equal(proc_is_running(sleeper), 1);
	proc_kill(holder);
	/* Nobody but the sleeper is there to notice. */
	assert_int_equal(proc_collect(sleeper, PROC_DEADLINE_NS), 0);
	assert_int_equal(books->got, 2);
	books_close(books);
}

/* Time-outs, signals, removal. --------------------------------------------------------------- */

static void reserve_ends_at_its_timeout_and_not_before(void **state)
{
	struct books *books = books_new("queue-timeout", 4);
	static const uint64_t timeouts_ns[] = {0, 1, 1000, MS, 150 * MS, 250 * MS};
	struct coshm_task task;

	(void)state;
	for (unsigned int i = 0; i < 6; i++) {
		const uint64_t start_ns = test_now_ns();

		assert_int_equal(coshm_queue_reserve(books->queue, timeouts_ns[i], &task), 0);
		assert_true(test_now_ns() - start_ns >= timeouts_ns[i]);
	}
	books_close(books);
}

static void on_signal(int number)
{
	(void)number;
}

static int sleep_until_a_signal(void *arg)
{
	struct books *books = arg;
	const struct sigaction action = {.sa_handler = on_signal};
	struct coshm_task task;

	sigaction(SIGUSR1, &action, NULL);
	atomic_fetch_add(&books->inside, 1);
	PROMISE_EQUAL(coshm_queue_reserve(books->queue, COSHM_FOREVER, &task), -EINTR);
	return 0;
}

static void signal_handler_ends_the_sleep(void **state)
{
	struct books *books = books_new("queue-signal", 4);
	struct proc *proc = proc_spawn(sleep_until_a_signal, books);
	const uint64_t start_ns = test_now_ns();

	(void)state;
	wait_until(&books->inside, 1);
	/* Again and again: the first may come before it sleeps. */
	while (proc_is_running(proc) && test_now_ns() - start_ns < PROC_DEADLINE_NS) {
		kill(proc_pid(proc), SIGUSR1);
		test_sleep_ns(20 * MS);
	}
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	books_close(books);
}

static int sleep_until_removed(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_queue_depth depth;
	struct coshm_task task;
	int rc;

	/* A handle that a child has not used before the removal is stale. */
	PROMISE_EQUAL(coshm_queue_depth(books->queue, &depth), 0);
	atomic_fetch_add(&books->inside, 1);
	while ((rc = coshm_queue_reserve(books->queue, COSHM_FOREVER, &task)) == 1) {
		atomic_fetch_add(&books->done, 1);
		PROMISE_EQUAL(coshm_queue_ack(books->queue, &task), 0);
	}
	PROMISE_EQUAL(rc, -ESHUTDOWN);
	PROMISE_EQUAL(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), -ESHUTDOWN);
	return 0;
}

static void removed_queue_wakes_its_sleepers(void **state)
{
	const struct coshm_queue_config config = {.struct_size_bytes = sizeof(config),
						  .capacity = 4};
	struct books *books = books_new("queue-remove", 16);
	struct coshm_queue *again;
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 4, sleep_until_removed, books, NULL);
	wait_until(&books->inside, 4);
	test_sleep_ns(50 * MS);
	assert_int_equal(coshm_object_remove(books->segment, "q"), 0);
	crowd_join(&crowd);
	/* The name is free, and the new queue is another one. */
	assert_int_equal(coshm_queue_create(books->segment, "q", &config, 0, &again), 0);
	assert_int_equal(coshm_queue_enqueue(again, "x", 1, NULL, NULL), 0);
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), -ESHUTDOWN);
	books_close(books);
}

static void removed_queue_gives_out_what_it_holds_first(void **state)
{
	struct books *books = books_new("queue-last", 16);
	struct coshm_task task;

	(void)state;
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	assert_int_equal(coshm_object_remove(books->segment, "q"), 0);
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), -ESHUTDOWN);
	for (unsigned int i = 0; i < 5; i++) {
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(coshm_queue_ack(books->queue, &task), 0);
	}
	assert_int_equal(coshm_queue_reserve(books->queue, COSHM_FOREVER, &task), -ESHUTDOWN);
	books_close(books);
}

/* No system calls. --------------------------------------------------------------------------- */

static int work_without_system_calls(void *arg)
{
	struct books *books = arg;
	static unsigned char payload[192];
	struct coshm_task task;

	/* The first calls make this process a member. */
	if (coshm_queue_enqueue(books->queue, payload, 1, NULL, NULL) ||
	    coshm_queue_reserve(books->queue, 0, &task) != 1 ||
	    coshm_queue_ack(books->queue, &task) || forbid_system_calls(SYSTEM_CALLS_OF_A_LOOK))
		return 1;
	for (unsigned int i = 0; i < 20000; i++) {
		if (coshm_queue_enqueue(books->queue, payload, i % 193, NULL, NULL) ||
		    coshm_queue_enqueue(books->queue, payload, 0, NULL, NULL) ||
		    coshm_queue_reserve(books->queue, 0, &task) != 1 ||
		    coshm_queue_release(books->queue, &task))
			_exit(2);
		for (unsigned int j = 0; j < 2; j++) {
			if (coshm_queue_reserve(books->queue, COSHM_FOREVER, &task) != 1 ||
			    coshm_queue_ack(books->queue, &task))
				_exit(3);
		}
		if (coshm_queue_reserve(books->queue, 0, &task) != 0)
			_exit(4);
	}
	_exit(0);
}

static void nothing_is_a_system_call_while_nobody_sleeps(void **state)
{
	struct books *books = books_new("queue-sys", 64);

	(void)state;
	assert_int_equal(
		proc_collect(proc_spawn(work_without_system_calls, books), PROC_DEADLINE_NS), 0);
	books_close(books);
}

/* coshm_worker_run. -------------------------------------------------------------------------- */

static int handle_slowly(void *context, const struct coshm_task *task, const void *payload,
			 char error[56])
{
	struct books *books = context;

	(void)task;
	(void)payload;
	(void)error;
	atomic_fetch_add(&books->inside, 1);
	while (!books->let_go)
		test_sleep_ns(MS);
	atomic_fetch_add(&books->done, 1);
	return COSHM_WORKER_ACK;
}

static _Atomic int own_handler_ran;

static void own_handler(int number)
{
	(void)number;
	own_handler_ran = 1;
}

static int run_until_sigterm(void *arg)
{
	struct books *books = arg;
	const struct sigaction action = {.sa_handler = own_handler};

	sigaction(SIGTERM, &action, NULL);
	PROMISE_EQUAL(coshm_worker_run(books->queue, handle_slowly, books, NULL), 1);
	PROMISE_EQUAL(own_handler_ran, 0);
	raise(SIGTERM);
	PROMISE_EQUAL(own_handler_ran, 1);
	return 0;
}

static void sigterm_finishes_the_task_at_hand_and_takes_no_other(void **state)
{
	struct books *books = books_new("queue-drain", 16);
	struct coshm_queue_depth depth;
	struct proc *proc;

	(void)state;
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	proc = proc_spawn(run_until_sigterm, books);
	wait_until(&books->inside, 1);
	kill(proc_pid(proc), SIGTERM);
	test_sleep_ns(50 * MS);
	assert_int_equal(proc_is_running(proc), 1);
	atomic_store(&books->let_go, 1);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	assert_int_equal(books->done, 1);
	assert_int_equal(coshm_queue_depth(books->queue, &depth), 0);
	assert_int_equal(depth.ready, 2);
	assert_int_equal(depth.leased, 0);
	books_close(books);
}

static int run_idle(void *arg)
{
	struct books *books = arg;

	PROMISE_EQUAL(coshm_worker_run(books->queue, handle_slowly, books, NULL), 1);
	return 0;
}

static void sigterm_ends_a_worker_that_sleeps(void **state)
{
	struct books *books = books_new("queue-idle", 16);
	struct proc *proc = proc_spawn(run_idle, books);

	(void)state;
	/* Once it has had a task, the run has begun. */
	books->let_go = 1;
	assert_int_equal(coshm_queue_enqueue(books->queue, "x", 1, NULL, NULL), 0);
	wait_until(&books->done, 1);
	test_sleep_ns(200 * MS);
	kill(proc_pid(proc), SIGTERM);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	books_close(books);
}

/* Payload is the verdict, or 'e' for _exit, 's' for a crash, 't' for stop. */
static int obey(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	struct books *books = context;
	const char what = *(const char *)payload;

	atomic_fetch_add(&books->got, 1);
	if (what == 'e' && task->attempt == 1)
		_exit(0);
	if (what == 's' && task->attempt == 1)
		raise(SIGSEGV);
	if (what == 't')
		coshm_worker_stop();
	if (what == 'r' || what == 'b')
		memcpy(error, "asked for", 10);
	return what == 'r'   ? COSHM_WORKER_RETRY
	       : what == 'b' ? COSHM_WORKER_BURY
			     : COSHM_WORKER_ACK;
}

static int run_until_empty(void *arg)
{
	struct books *books = arg;
	const struct coshm_worker_options options = {
		.struct_size_bytes = sizeof(options),
		.flags = COSHM_WORKER_UNTIL_EMPTY | COSHM_WORKER_NO_SIGNALS,
	};

	return coshm_worker_run(books->queue, obey, books, &options);
}

static void worker_does_what_the_verdict_says(void **state)
{
	struct books *books = books_new("queue-verdict", 16);
	const struct coshm_worker_options two = {
		.struct_size_bytes = sizeof(two), .tasks_max = 2, .flags = COSHM_WORKER_NO_SIGNALS};
	struct coshm_queue_depth depth;

	(void)state;
	for (const char *what = "aarb"; *what; what++)
		assert_int_equal(coshm_queue_enqueue(books->queue, what, 1, NULL, NULL), 0);
	assert_int_equal(coshm_worker_run(books->queue, obey, books, &two), 2);
	assert_int_equal(proc_collect(proc_spawn(run_until_empty, books), PROC_DEADLINE_NS), 2);
	assert_int_equal(coshm_queue_depth(books->queue, &depth), 0);
	assert_int_equal(depth.dead, 1);
	assert_int_equal(depth.delayed + depth.ready, 1);
	assert_int_equal(depth.leased, 0);

	assert_int_equal(coshm_queue_enqueue(books->queue, "t", 1, NULL, NULL), 0);
	assert_int_equal(coshm_queue_enqueue(books->queue, "a", 1, NULL, NULL), 0);
	assert_int_equal(coshm_worker_run(books->queue, obey, books, NULL), 1);
	books_close(books);
}

static void exit_and_crash_in_a_handler_are_crashed_attempts(void **state)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = 16,
		.backoff_base_ns = 1,
		.backoff_max_ns = 1,
	};
	struct books *books = proc_shared_alloc(sizeof(*books));
	const char *whats[] = {"e", "s"};

	(void)state;
	books->segment = segment_for_test(books->name, "queue-crash", 4 << 20);
	assert_int_equal(coshm_queue_create(books->segment, "q", &config, 0, &books->queue), 0);
	for (unsigned int i = 0; i < 2; i++) {
		struct coshm_task task;
		int result;

		assert_int_equal(coshm_queue_enqueue(books->queue, whats[i], 1, NULL, NULL), 0);
		result = proc_collect(proc_spawn(run_until_empty, books), PROC_DEADLINE_NS);
		assert_int_equal(result, i == 0 ? 0 : -SIGSEGV);
		assert_int_equal(coshm_queue_reserve(books->queue, PROC_DEADLINE_NS, &task), 1);
		assert_int_equal(task.attempt, 2);
		assert_int_equal(coshm_queue_ack(books->queue, &task), 0);
	}
	books_close(books);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sleeping_consumers_use_no_cpu_and_all_wake),
		cmocka_unit_test(no_wake_up_is_lost),
		cmocka_unit_test(tasks_in_bursts_reach_all_sleepers),
		cmocka_unit_test(sleeper_gets_the_task_of_a_killed_holder_and_not_of_a_stopped_one),
		cmocka_unit_test(reserve_ends_at_its_timeout_and_not_before),
		cmocka_unit_test(signal_handler_ends_the_sleep),
		cmocka_unit_test(removed_queue_wakes_its_sleepers),
		cmocka_unit_test(removed_queue_gives_out_what_it_holds_first),
		cmocka_unit_test(nothing_is_a_system_call_while_nobody_sleeps),
		cmocka_unit_test(sigterm_finishes_the_task_at_hand_and_takes_no_other),
		cmocka_unit_test(sigterm_ends_a_worker_that_sleeps),
		cmocka_unit_test(worker_does_what_the_verdict_says),
		cmocka_unit_test(exit_and_crash_in_a_handler_are_crashed_attempts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
