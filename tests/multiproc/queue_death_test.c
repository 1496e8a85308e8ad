/* SPDX-License-Identifier: MIT */
/* When a task comes back after the death of its worker, on a clock that the test sets. */
#include "../unit/queue_fixture.h"

#include <signal.h>

#define START (1000 * S)

static const struct coshm_queue_config slow = {.capacity = 8, .backoff_base_ns = 60 * S};

static int take_and_die(void *arg)
{
	struct fixture *f = arg;
	struct coshm_task task;

	if (coshm_queue_reserve(f->queue, 0, &task) != 1)
		return 1;
	raise(SIGKILL);
	return 2;
}

static void die_with_the_task(struct fixture *f)
{
	assert_int_equal(proc_collect(proc_spawn(take_and_die, f), PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(coshm_segment_reap(f->segment, NULL), 0);
}

static void nack_at_once(struct fixture *f)
{
	struct coshm_task task;

	assert_int_equal(coshm_queue_reserve(f->queue, 0, &task), 1);
	assert_int_equal(coshm_queue_nack(f->queue, &task, "no", 0), 0);
}

static void ack(struct fixture *f, uint32_t attempt)
{
	struct coshm_task task;

	assert_int_equal(coshm_queue_reserve(f->queue, 0, &task), 1);
	assert_int_equal(task.attempt, attempt);
	assert_int_equal(coshm_queue_ack(f->queue, &task), 0);
}

static void assert_waits_until(struct fixture *f, uint64_t at_ns)
{
	struct coshm_task task;

	assert_depth(f, 0, 1, 0, 0);
	assert_int_equal(the_one(f, COSHM_TASK_DELAYED).info.due_at_ns, at_ns);
	set_now(at_ns - 1000);
	assert_null(get(f, &task));
	set_now(at_ns);
	assert_depth(f, 1, 0, 0, 0);
}

static void task_of_a_killed_worker_is_ready_at_once(void **state)
{
	struct fixture f;
	struct found found;

	(void)state;
	fixture_open(&f, &slow);
	set_now(START);
	put(&f, "x");
	die_with_the_task(&f);
	assert_depth(&f, 1, 0, 0, 0);
	found = the_one(&f, COSHM_TASK_READY);
	assert_int_equal(found.info.due_at_ns, START);
	assert_int_equal(found.info.attempts, 1);
	assert_int_equal(found.info.attempt_records[0].outcome, COSHM_ATTEMPT_CRASHED);
	ack(&f, 2);
	fixture_close(&f);
}

static void task_whose_workers_die_one_after_the_other_waits_for_its_backoff(void **state)
{
	struct fixture f;

	(void)state;
	fixture_open(&f, &slow);
	set_now(START);
	put(&f, "x");
	die_with_the_task(&f);
	die_with_the_task(&f);
	assert_waits_until(&f, START + 120 * S);
	die_with_the_task(&f);
	assert_waits_until(&f, START + 120 * S + 240 * S);
	ack(&f, 4);
	fixture_close(&f);
}

/* The only record of one attempt is enough to know what the one before was. */
static void death_after_a_failure_that_was_told_is_the_first_again(void **state)
{
	for (uint32_t kept = 1; kept <= 8; kept += 7) {
		struct coshm_queue_config config = slow;
		struct fixture f;

		(void)state;
		config.attempt_record_count = kept;
		fixture_open(&f, &config);
		set_now(START);
		put(&f, "x");
		die_with_the_task(&f);
		nack_at_once(&f);
		die_with_the_task(&f);
		assert_depth(&f, 1, 0, 0, 0);
		die_with_the_task(&f);
		assert_waits_until(&f, START + 480 * S);
		ack(&f, 5);
		fixture_close(&f);
	}
}

static void first_death_after_a_redrive_is_the_first(void **state)
{
	struct coshm_queue_config config = slow;
	struct fixture f;

	(void)state;
	config.max_attempts = 2;
	fixture_open(&f, &config);
	set_now(START);
	put(&f, "x");
	die_with_the_task(&f);
	die_with_the_task(&f);
	assert_depth(&f, 0, 0, 0, 1);
	assert_int_equal(coshm_queue_redrive(f.queue, 0, NULL), 0);
	die_with_the_task(&f);
	assert_depth(&f, 1, 0, 0, 0);
	ack(&f, 2);
	fixture_close(&f);
}

static void next_task_in_the_record_is_not_blamed_for_the_one_before(void **state)
{
	struct coshm_queue_config config = slow;
	struct fixture f;

	(void)state;
	config.capacity = 1;
	fixture_open(&f, &config);
	set_now(START);
	put(&f, "x");
	die_with_the_task(&f);
	ack(&f, 2);
	put(&f, "y");
	die_with_the_task(&f);
	assert_depth(&f, 1, 0, 0, 0);
	ack(&f, 2);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(task_of_a_killed_worker_is_ready_at_once),
		cmocka_unit_test(task_whose_workers_die_one_after_the_other_waits_for_its_backoff),
		cmocka_unit_test(death_after_a_failure_that_was_told_is_the_first_again),
		cmocka_unit_test(first_death_after_a_redrive_is_the_first),
		cmocka_unit_test(next_task_in_the_record_is_not_blamed_for_the_one_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
