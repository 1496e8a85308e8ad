/* SPDX-License-Identifier: MIT */
/* coshm_worker_run: verdicts, limits, and how it is told to stop. */
#include "../unit/queue_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static const struct coshm_queue_config config = {.capacity = 64,
						 .payload_max_bytes = 5000,
						 .backoff_kind = COSHM_BACKOFF_FIXED,
						 .backoff_base_ns = 1000 * 1000,
						 .max_attempts = 3};

struct job {
	struct fixture f;
	struct coshm__a32 *handled;
	struct coshm__a32 *go_on;
	struct coshm__a32 *running;
	int verdict;
};

static int count_and_judge(void *context, const struct coshm_task *task, const void *payload,
			   char error[56])
{
	struct job *job = context;

	if (strlen(payload) != task->payload_size_bytes)
		return 99;
	coshm__a32_fetch_add_acq_rel(job->handled, 1);
	snprintf(error, 56, "no %s", (const char *)payload);
	return job->verdict;
}

static void open_job(struct job *job)
{
	memset(job, 0, sizeof(*job));
	fixture_open(&job->f, &config);
	job->handled = proc_shared_alloc(3 * sizeof(*job->handled));
	job->go_on = job->handled + 1;
	job->running = job->handled + 2;
}

static const struct coshm_worker_options until_empty = {.flags = COSHM_WORKER_UNTIL_EMPTY};

static void acked_tasks_are_gone_and_the_run_ends_when_none_is_ready(void **state)
{
	struct job job;

	(void)state;
	open_job(&job);
	for (int i = 0; i < 10; i++)
		put(&job.f, "x");
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &until_empty), 10);
	assert_int_equal(coshm__a32_load_relaxed(job.handled), 10);
	assert_depth(&job.f, 0, 0, 0, 0);
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &until_empty), 0);
	fixture_close(&job.f);
}

static void run_ends_after_as_many_tasks_as_asked_for(void **state)
{
	const struct coshm_worker_options three = {.tasks_max = 3};
	struct job job;

	(void)state;
	open_job(&job);
	for (int i = 0; i < 5; i++)
		put(&job.f, "x");
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &three), 3);
	assert_depth(&job.f, 2, 0, 0, 0);
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &until_empty), 2);
	fixture_close(&job.f);
}

static void retried_until_its_last_attempt_then_dead_with_the_handlers_words(void **state)
{
	const struct coshm_worker_options three = {.tasks_max = 3};
	struct job job;
	struct found dead;

	(void)state;
	open_job(&job);
	job.verdict = COSHM_WORKER_RETRY;
	put(&job.f, "luck");
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &three), 3);
	dead = the_one(&job.f, COSHM_TASK_DEAD);
	assert_int_equal(dead.info.attempts, 3);
	assert_int_equal(dead.info.attempt_record_count, 3);
	assert_string_equal(dead.info.attempt_records[2].error, "no luck");

	job.verdict = COSHM_WORKER_BURY;
	assert_int_equal(coshm_queue_redrive(job.f.queue, 0, NULL), 0);
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &until_empty), 1);
	assert_depth(&job.f, 0, 0, 0, 1);
	assert_int_equal(coshm_queue_drop(job.f.queue, 0, NULL), 0);
	fixture_close(&job.f);
}

static int end_it_oneself(void *context, const struct coshm_task *task, const void *payload,
			  char error[56])
{
	struct job *job = context;

	(void)payload;
	(void)error;
	return coshm_queue_ack(job->f.queue, task) ? COSHM_WORKER_BURY : COSHM_WORKER_RETRY;
}

static void handler_may_end_the_lease_itself(void **state)
{
	struct job job;

	(void)state;
	open_job(&job);
	put(&job.f, "x");
	assert_int_equal(coshm_worker_run(job.f.queue, end_it_oneself, &job, &until_empty), 1);
	assert_depth(&job.f, 0, 0, 0, 0);
	fixture_close(&job.f);
}

static void large_payloads_reach_the_handler_with_a_zero_byte_behind(void **state)
{
	static char large[5001];
	struct job job;

	(void)state;
	open_job(&job);
	memset(large, 'a', 5000);
	put(&job.f, "small");
	put(&job.f, large);
	put(&job.f, "");
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &until_empty), 3);
	assert_depth(&job.f, 0, 0, 0, 0);
	fixture_close(&job.f);
}

static void impossible_arguments_are_einval(void **state)
{
	const struct coshm_worker_options bad = {.flags = 64};
	struct job job;

	(void)state;
	open_job(&job);
	assert_int_equal(coshm_worker_run(job.f.queue, NULL, &job, NULL), -EINVAL);
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &bad), -EINVAL);
	assert_int_equal(coshm_worker_run(NULL, count_and_judge, &job, NULL), -EBADF);
	fixture_close(&job.f);
}

/* --- stopping ---------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t own_handler_ran;

static void own_handler(int signal)
{
	(void)signal;
	own_handler_ran = 1;
}

/* Says that it runs, then works until it may go on. */
static int slow(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	struct job *job = context;

	(void)task;
	(void)payload;
	(void)error;
	coshm__a32_store_seq_cst(job->running, 1);
	while (!coshm__a32_load_acquire(job->go_on))
		test_sleep_ns(MS);
	coshm__a32_fetch_add_acq_rel(job->handled, 1);
	return COSHM_WORKER_ACK;
}

static int worker_with_own_handler(void *arg)
{
	struct job *job = arg;
	struct sigaction action = {.sa_handler = own_handler}, after;
	int handled;

	sigaction(SIGTERM, &action, NULL);
	coshm__a32_store_seq_cst(job->running, 2);
	handled = coshm_worker_run(job->f.queue, slow, job, NULL);
	sigaction(SIGTERM, NULL, &after);
	if (after.sa_handler != own_handler || own_handler_ran)
		return 50;
	raise(SIGTERM);
	if (!own_handler_ran)
		return 51;
	return handled < 0 ? 52 : handled;
}

static void wait_until(struct coshm__a32 *word, uint32_t value)
{
	for (int tries = 0; coshm__a32_load_acquire(word) != value; tries++) {
		assert_in_range(tries, 0, 60000);
		test_sleep_ns(MS);
	}
}

static void sigterm_finishes_the_task_at_hand_takes_no_other_and_restores_handlers(void **state)
{
	struct job job;
	struct proc *proc;

	(void)state;
	open_job(&job);
	put(&job.f, "a");
	put(&job.f, "b");
	proc = proc_spawn(worker_with_own_handler, &job);
	wait_until(job.running, 1);
	kill(proc_pid(proc), SIGTERM);
	test_sleep_ns(20 * MS);
	assert_int_equal(proc_is_running(proc), 1);
	coshm__a32_store_seq_cst(job.go_on, 1);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 1);
	assert_depth(&job.f, 1, 0, 0, 0);
	fixture_close(&job.f);
}

static void sigterm_ends_a_worker_that_sleeps(void **state)
{
	struct job job;
	struct proc *proc;
	int tries;

	(void)state;
	open_job(&job);
	proc = proc_spawn(worker_with_own_handler, &job);
	for (tries = 0; stat_of(&job.f, "sleeps") == 0; tries++) {
		assert_in_range(tries, 0, 60000);
		test_sleep_ns(MS);
	}
	kill(proc_pid(proc), SIGTERM);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	fixture_close(&job.f);
}

static int worker_until_signal(void *arg)
{
	struct job *job = arg;

	coshm__a32_store_seq_cst(job->running, 2);
	return coshm_worker_run(job->f.queue, count_and_judge, job, NULL) < 0;
}

/* Whenever it comes, also between the last look at the flag and the sleep. Before the run began it kills: that is no drain. */
static void sigint_at_any_moment_ends_the_run(void **state)
{
	(void)state;
	for (int round = 0; round < 60; round++) {
		struct job job;
		struct proc *proc;
		int result;

		open_job(&job);
		if (round % 2)
			put(&job.f, "x");
		proc = proc_spawn(worker_until_signal, &job);
		wait_until(job.running, 2);
		test_sleep_ns((uint64_t)round * 20 * 1000);
		kill(proc_pid(proc), SIGINT);
		result = proc_collect(proc, PROC_DEADLINE_NS);
		assert_true(result == 0 || result == -SIGINT);
		assert_int_equal(coshm_segment_reap(job.f.segment, NULL), 0);
		fixture_close(&job.f);
	}
}

static pthread_barrier_t all_run;

static int meet_the_others_first(void *context, const struct coshm_task *task, const void *payload,
				 char error[56])
{
	static _Thread_local int met;

	if (!met)
		pthread_barrier_wait(&all_run);
	met = 1;
	return count_and_judge(context, task, payload, error);
}

static void *run_without_signals(void *arg)
{
	const struct coshm_worker_options options = {.flags = COSHM_WORKER_NO_SIGNALS};
	struct job *job = arg;

	return (void *)(intptr_t)coshm_worker_run(job->f.queue, meet_the_others_first, job,
						  &options);
}

static void worker_stop_ends_all_runs_of_the_process_and_leaves_signals_alone(void **state)
{
	struct sigaction before, during;
	struct job job;
	pthread_t threads[3];
	intptr_t handled = 0;

	(void)state;
	open_job(&job);
	sigaction(SIGTERM, NULL, &before);
	pthread_barrier_init(&all_run, NULL, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_without_signals, &job), 0);
	for (int i = 0; i < 30; i++)
		put(&job.f, "x");
	wait_until(job.handled, 30);
	sigaction(SIGTERM, NULL, &during);
	assert_ptr_equal(during.sa_handler, before.sa_handler);
	coshm_worker_stop();
	for (int i = 0; i < 3; i++) {
		void *result;

		pthread_join(threads[i], &result);
		assert_true((intptr_t)result >= 0);
		handled += (intptr_t)result;
	}
	assert_int_equal(handled, 30);
	/* a later run is not stopped by it */
	put(&job.f, "x");
	assert_int_equal(coshm_worker_run(job.f.queue, count_and_judge, &job, &until_empty), 1);
	fixture_close(&job.f);
}

static int crash(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	(void)context;
	(void)payload;
	(void)error;
	if (task->attempt == 1)
		raise(SIGSEGV);
	_exit(0);
}

static int worker_that_crashes(void *arg)
{
	struct job *job = arg;

	return coshm_worker_run(job->f.queue, crash, job, NULL);
}

static void fatal_signal_and_exit_in_the_handler_count_as_crashed_attempts(void **state)
{
	struct job job;
	struct found found = {0};

	(void)state;
	open_job(&job);
	put(&job.f, "x");
	assert_int_equal(proc_collect(proc_spawn(worker_that_crashes, &job), PROC_DEADLINE_NS),
			 -SIGSEGV);
	assert_int_equal(coshm_segment_reap(job.f.segment, NULL), 0);
	assert_int_equal(proc_collect(proc_spawn(worker_that_crashes, &job), PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_segment_reap(job.f.segment, NULL), 0);
	assert_int_equal(
		coshm_queue_each(job.f.queue, 0, COSHM_QUEUE_EACH_PAYLOAD, find_one, &found), 0);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.info.attempts, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(found.info.attempt_records[i].outcome, COSHM_ATTEMPT_CRASHED);
		assert_string_equal(found.info.attempt_records[i].error, "");
		assert_int_not_equal(found.info.attempt_records[i].ended_at_ns, 0);
	}
	fixture_close(&job.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acked_tasks_are_gone_and_the_run_ends_when_none_is_ready),
		cmocka_unit_test(run_ends_after_as_many_tasks_as_asked_for),
		cmocka_unit_test(retried_until_its_last_attempt_then_dead_with_the_handlers_words),
		cmocka_unit_test(handler_may_end_the_lease_itself),
		cmocka_unit_test(large_payloads_reach_the_handler_with_a_zero_byte_behind),
		cmocka_unit_test(impossible_arguments_are_einval),
		cmocka_unit_test(
			sigterm_finishes_the_task_at_hand_takes_no_other_and_restores_handlers),
		cmocka_unit_test(sigterm_ends_a_worker_that_sleeps),
		cmocka_unit_test(sigint_at_any_moment_ends_the_run),
		cmocka_unit_test(worker_stop_ends_all_runs_of_the_process_and_leaves_signals_alone),
		cmocka_unit_test(fatal_signal_and_exit_in_the_handler_count_as_crashed_attempts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
