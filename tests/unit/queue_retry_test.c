/* SPDX-License-Identifier: MIT */
/* Delays, retries and dead letters, on a clock that the test sets. */
#include "queue_fixture.h"

#define START (1000 * S)

static const struct coshm_queue_config fixed = {
	.capacity = 8, .backoff_kind = COSHM_BACKOFF_FIXED, .backoff_base_ns = 5 * S};

/* Fails the only task and gives the delay until it is due. */
static uint64_t fail_once(struct fixture *f, uint64_t now_ns)
{
	struct coshm_task task;
	struct found found;

	set_now(now_ns);
	assert_int_equal(coshm_queue_reserve(f->queue, 0, &task), 1);
	assert_int_equal(coshm_queue_nack(f->queue, &task, "no", COSHM_FOREVER), 0);
	found = the_one(f, COSHM_TASK_DELAYED);
	return found.info.due_at_ns - now_ns;
}

/* The delays of the first @count failures of one task. */
static void delays_of(const struct coshm_queue_config *config, int count, uint64_t *delays)
{
	struct fixture f;
	uint64_t now_ns = START;

	fixture_open(&f, config);
	set_now(now_ns);
	put(&f, "x");
	for (int i = 0; i < count; i++) {
		delays[i] = fail_once(&f, now_ns);
		now_ns += delays[i];
	}
	fixture_close(&f);
}

static void fixed_backoff_waits_the_base_each_time(void **state)
{
	uint64_t delays[5];

	(void)state;
	delays_of(&fixed, 5, delays);
	for (int i = 0; i < 5; i++)
		assert_int_equal(delays[i], 5 * S);
}

static void a_long_base_needs_a_maximum_that_is_no_shorter(void **state)
{
	struct coshm_queue_config config = {
		.capacity = 1, .backoff_kind = COSHM_BACKOFF_FIXED, .backoff_base_ns = 7200 * S};
	uint64_t delays[2];
	struct fixture f;
	struct coshm_queue *other;

	(void)state;
	delays_of(&config, 2, delays);
	assert_int_equal(delays[0], 7200 * S);
	assert_int_equal(delays[1], 7200 * S);
	fixture_open(&f, &fixed);
	config.backoff_max_ns = 3600 * S;
	assert_int_equal(coshm_queue_create(f.segment, "other", &config, 0, &other), -EINVAL);
	fixture_close(&f);
}

static void linear_backoff_grows_by_the_base_up_to_its_cap(void **state)
{
	const struct coshm_queue_config config = {.capacity = 1,
						  .backoff_kind = COSHM_BACKOFF_LINEAR,
						  .backoff_base_ns = 3 * S,
						  .backoff_max_ns = 10 * S};
	const uint64_t expected[] = {3 * S, 6 * S, 9 * S, 10 * S, 10 * S};
	uint64_t delays[5];

	(void)state;
	delays_of(&config, 5, delays);
	assert_memory_equal(delays, expected, sizeof(expected));
}

static void exponential_backoff_doubles_up_to_its_cap_for_ever(void **state)
{
	const struct coshm_queue_config config = {.capacity = 1,
						  .backoff_base_ns = 100 * MS,
						  .backoff_max_ns = 60 * S,
						  .max_attempts = 200};
	uint64_t delays[150], expected = 100 * MS;

	(void)state;
	delays_of(&config, 150, delays);
	for (int i = 0; i < 150; i++) {
		assert_int_equal(delays[i], expected);
		expected = expected * 2 < 60 * S ? expected * 2 : 60 * S;
	}
}

static void jitter_only_shortens_by_at_most_its_share_and_spreads(void **state)
{
	const struct coshm_queue_config config = {.capacity = 1,
						  .backoff_kind = COSHM_BACKOFF_FIXED,
						  .backoff_base_ns = 100 * S,
						  .backoff_jitter_percent = 30,
						  .max_attempts = 400};
	uint64_t delays[300];
	int in_third[3] = {0};

	(void)state;
	delays_of(&config, 300, delays);
	for (int i = 0; i < 300; i++) {
		assert_in_range(delays[i], 70 * S, 100 * S);
		in_third[(delays[i] - 70 * S) / (10 * S + 1)]++;
	}
	for (int i = 0; i < 3; i++)
		assert_in_range(in_third[i], 50, 150);
}

static void delayed_task_comes_at_its_time_and_not_a_microsecond_before(void **state)
{
	struct fixture f;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &fixed);
	set_now(START);
	put(&f, "x");
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(coshm_queue_nack(f.queue, &task, "no", 1234567 * 1000), 0);
	assert_depth(&f, 0, 1, 0, 0);
	set_now(START + 1234566 * 1000);
	assert_null(get(&f, &task));
	set_now(START + 1234567 * 1000);
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(task.attempt, 2);
	assert_int_equal(coshm_queue_nack(f.queue, &task, "no", 0), 0);
	assert_string_equal(get(&f, &task), "x"); /* no delay is no delay */
	assert_int_equal(task.attempt, 3);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void enqueue_with_a_delay_waits_for_it(void **state)
{
	struct coshm_enqueue_options later = {.delay_ns = 10 * S, .max_attempts = 7};
	struct fixture f;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &fixed);
	set_now(START);
	assert_int_equal(coshm_queue_enqueue(f.queue, "later", 5, &later, NULL), 0);
	put(&f, "now");
	assert_depth(&f, 1, 1, 0, 0);
	assert_int_equal(the_one(&f, COSHM_TASK_DELAYED).info.due_at_ns, START + 10 * S);
	assert_string_equal(get(&f, &task), "now");
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	set_now(START + 10 * S - 1000);
	assert_null(get(&f, &task));
	set_now(START + 10 * S);
	assert_string_equal(get(&f, &task), "later");
	assert_int_equal(task.attempt, 1);
	assert_int_equal(task.max_attempts, 7);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

/* More than one group of due bounds, due in an order of their own. */
static void each_of_many_delayed_tasks_comes_exactly_when_it_is_due(void **state)
{
	const struct coshm_queue_config config = {.capacity = 300};
	struct fixture f;
	struct coshm_task task;
	int due_count[100] = {0};

	(void)state;
	fixture_open(&f, &config);
	set_now(START);
	for (int i = 0; i < 300; i++) {
		int due = i * 37 % 100;
		struct coshm_enqueue_options later = {.delay_ns = (uint64_t)(due + 1) * S};

		due_count[due]++;
		assert_int_equal(coshm_queue_enqueue(f.queue, &due, sizeof(due), &later, NULL), 0);
	}
	assert_verified(f.segment);
	for (int due = 0; due < 100; due++) {
		set_now(START + (uint64_t)(due + 1) * S - 1000);
		assert_null(get(&f, &task));
		set_now(START + (uint64_t)(due + 1) * S);
		for (; due_count[due]; due_count[due]--) {
			int payload;
			size_t size = sizeof(payload);

			assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
			assert_int_equal(coshm_queue_payload(f.queue, &task, &payload, &size), 0);
			assert_int_equal(payload, due);
			assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
		}
		assert_null(get(&f, &task));
		assert_verified(f.segment);
	}
	fixture_close(&f);
}

static void retries_and_new_tasks_take_turns_when_both_wait(void **state)
{
	const struct coshm_queue_config config = {.capacity = 64};
	struct coshm_enqueue_options later = {.delay_ns = S};
	struct fixture f;
	struct coshm_task task;
	int retries = 0;

	(void)state;
	fixture_open(&f, &config);
	set_now(START);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(coshm_queue_enqueue(f.queue, "r", 1, &later, NULL), 0);
		put(&f, "n");
	}
	set_now(START + 2 * S);
	for (int i = 0; i < 20; i++) {
		retries += strcmp(get(&f, &task), "r") == 0;
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	}
	assert_int_equal(retries, 10);
	while (get(&f, &task))
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void task_is_dead_after_its_last_attempt_with_the_error_of_each(void **state)
{
	struct coshm_queue_config config = fixed;
	struct fixture f;
	struct coshm_task task;
	struct found dead;
	uint64_t now_ns = START, id;
	char text[80];

	(void)state;
	config.max_attempts = 3;
	fixture_open(&f, &config);
	set_now(now_ns);
	id = put(&f, "poison");
	for (int i = 1; i <= 3; i++, now_ns += 5 * S) {
		set_now(now_ns);
		assert_string_equal(get(&f, &task), "poison");
		assert_int_equal(task.attempt, i);
		snprintf(text, sizeof(text), "error %d %s", i,
			 i == 2 ? "that is much longer than what is kept of an error's text" : "");
		assert_int_equal(coshm_queue_nack(f.queue, &task, text, COSHM_FOREVER), 0);
	}
	assert_depth(&f, 0, 0, 0, 1);
	set_now(now_ns + 1000 * S);
	assert_null(get(&f, &task));
	dead = the_one(&f, COSHM_TASK_DEAD);
	assert_string_equal(dead.payload, "poison");
	assert_int_equal(dead.info.id, id);
	assert_int_equal(dead.info.attempts, 3);
	assert_int_equal(dead.info.max_attempts, 3);
	assert_int_equal(dead.info.attempt_record_count, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(dead.info.attempt_records[i].attempt, i + 1);
		assert_int_equal(dead.info.attempt_records[i].outcome, COSHM_ATTEMPT_FAILED);
		assert_int_equal(dead.info.attempt_records[i].ended_at_ns, START + i * 5 * S);
	}
	assert_string_equal(dead.info.attempt_records[0].error, "error 1 ");
	assert_int_equal(strlen(dead.info.attempt_records[1].error), 55);
	assert_memory_equal(dead.info.attempt_records[1].error, "error 2 that is much longer", 27);
	assert_int_equal(stat_of(&f, "failed"), 3);
	assert_int_equal(stat_of(&f, "buried"), 1);
	assert_int_equal(stat_of(&f, "dead"), 1);
	assert_int_equal(coshm_queue_drop(f.queue, id, NULL), 0);
	fixture_close(&f);
}

static void only_the_last_failures_are_remembered_as_many_as_configured(void **state)
{
	for (uint32_t kept = 1; kept <= 8; kept++) {
		struct coshm_queue_config config = fixed;
		struct fixture f;
		struct coshm_task task;
		struct found found;
		char text[16];

		(void)state;
		config.attempt_record_count = kept;
		fixture_open(&f, &config);
		set_now(START);
		put(&f, "x");
		put(&f, "neighbour");
		for (int i = 1; i <= 13; i++) {
			assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
			if (task.payload_size_bytes != 1) {
				assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
				assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
			}
			snprintf(text, sizeof(text), "e%d", i);
			assert_int_equal(coshm_queue_nack(f.queue, &task, text, 0), 0);
		}
		found = the_one(&f, COSHM_TASK_READY);
		assert_int_equal(found.info.attempts, 13);
		assert_int_equal(found.info.attempt_record_count, kept);
		for (uint32_t i = 0; i < kept; i++) {
			snprintf(text, sizeof(text), "e%u", 13 - kept + 1 + i);
			assert_int_equal(found.info.attempt_records[i].attempt, 13 - kept + 1 + i);
			assert_string_equal(found.info.attempt_records[i].error, text);
		}
		/* the attempt that runs is the last line */
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
		found = the_one(&f, COSHM_TASK_LEASED);
		assert_int_equal(found.info.attempts, 14);
		assert_int_equal(found.info.leased_at_ns, START);
		assert_int_equal(found.info.attempt_record_count, kept < 8 ? kept + 1 : 8);
		assert_int_equal(
			found.info.attempt_records[found.info.attempt_record_count - 1].outcome,
			COSHM_ATTEMPT_RUNNING);
		assert_int_equal(
			found.info.attempt_records[found.info.attempt_record_count - 1].attempt,
			14);
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
		fixture_close(&f);
	}
}

static void next_task_in_the_same_record_inherits_no_history(void **state)
{
	struct coshm_queue_config config = fixed;
	struct fixture f;
	struct coshm_task task;
	struct found found;

	(void)state;
	config.capacity = 1;
	fixture_open(&f, &config);
	put(&f, "first");
	assert_string_equal(get(&f, &task), "first");
	assert_int_equal(coshm_queue_nack(f.queue, &task, "old", 0), 0);
	assert_string_equal(get(&f, &task), "first");
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	put(&f, "second");
	found = the_one(&f, COSHM_TASK_READY);
	assert_int_equal(found.info.attempts, 0);
	assert_int_equal(found.info.attempt_record_count, 0);
	assert_string_equal(get(&f, &task), "second");
	assert_int_equal(task.attempt, 1);
	assert_int_equal(coshm_queue_bury(f.queue, &task, "new"), 0);
	found = the_one(&f, COSHM_TASK_DEAD);
	assert_int_equal(found.info.attempt_record_count, 1);
	assert_string_equal(found.info.attempt_records[0].error, "new");
	assert_int_equal(coshm_queue_drop(f.queue, 0, NULL), 0);
	fixture_close(&f);
}

static void buried_task_is_dead_at_once_and_redriven_counts_from_zero_with_its_history(void **state)
{
	struct coshm_queue_config config = fixed;
	struct fixture f;
	struct coshm_task task;
	struct found found;
	uint64_t id, count = 0;

	(void)state;
	config.max_attempts = 2;
	fixture_open(&f, &config);
	set_now(START);
	id = put(&f, "x");
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(coshm_queue_bury(f.queue, &task, "hopeless"), 0);
	assert_depth(&f, 0, 0, 0, 1);

	assert_int_equal(coshm_queue_redrive(f.queue, id, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(stat_of(&f, "redriven"), 1);
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(task.id, id);
	assert_int_equal(task.attempt, 1);
	assert_int_equal(coshm_queue_nack(f.queue, &task, "again", 0), 0);
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(task.attempt, 2);
	assert_int_equal(coshm_queue_nack(f.queue, &task, "and again", 0), 0);
	found = the_one(&f, COSHM_TASK_DEAD);
	assert_int_equal(found.info.attempts, 2);
	assert_int_equal(found.info.attempt_record_count, 3);
	assert_string_equal(found.info.attempt_records[0].error, "hopeless");
	assert_string_equal(found.info.attempt_records[2].error, "and again");
	assert_int_equal(coshm_queue_drop(f.queue, id, &count), 0);
	assert_int_equal(count, 1);
	assert_depth(&f, 0, 0, 0, 0);
	fixture_close(&f);
}

static void redrive_and_drop_take_one_all_or_say_enoent(void **state)
{
	struct fixture f;
	struct coshm_task task;
	uint64_t ids[6], count = 99, ready;

	(void)state;
	fixture_open(&f, &fixed);
	for (int i = 0; i < 6; i++)
		ids[i] = put(&f, "x");
	for (int i = 0; i < 5; i++) {
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
		assert_int_equal(coshm_queue_bury(f.queue, &task, NULL), 0);
	}
	ready = ids[5];
	assert_int_equal(coshm_queue_drop(f.queue, ready, &count), -ENOENT);
	assert_int_equal(coshm_queue_redrive(f.queue, ready, &count), -ENOENT);
	assert_int_equal(coshm_queue_redrive(f.queue, ids[0] + (1 << 16), &count), -ENOENT);
	assert_int_equal(coshm_queue_redrive(f.queue, UINT64_MAX, &count), -ENOENT);
	assert_int_equal(count, 99);
	assert_int_equal(coshm_queue_redrive(f.queue, ids[1], &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(coshm_queue_drop(f.queue, ids[2], NULL), 0);
	assert_int_equal(coshm_queue_drop(f.queue, ids[2], NULL), -ENOENT);
	assert_depth(&f, 2, 0, 0, 3);
	assert_int_equal(coshm_queue_redrive(f.queue, 0, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(coshm_queue_drop(f.queue, 0, &count), 0);
	assert_int_equal(count, 0);
	assert_depth(&f, 5, 0, 0, 0);
	while (get(&f, &task))
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(room_of(&f), 8);
	fixture_close(&f);
}

static void retries_never_fail_for_want_of_room(void **state)
{
	struct fixture f;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &fixed);
	set_now(START);
	for (int i = 0; i < 8; i++)
		put(&f, "x");
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 8; i++) {
			assert_int_equal(coshm_queue_enqueue(f.queue, "y", 1, NULL, NULL), -EAGAIN);
			assert_string_equal(get(&f, &task), "x");
			assert_int_equal(coshm_queue_nack(f.queue, &task, "no", COSHM_FOREVER), 0);
		}
		assert_depth(&f, 0, 8, 0, 0);
		set_now(START + (uint64_t)(round + 1) * 5 * S);
	}
	while (get(&f, &task))
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fixed_backoff_waits_the_base_each_time),
		cmocka_unit_test(a_long_base_needs_a_maximum_that_is_no_shorter),
		cmocka_unit_test(linear_backoff_grows_by_the_base_up_to_its_cap),
		cmocka_unit_test(exponential_backoff_doubles_up_to_its_cap_for_ever),
		cmocka_unit_test(jitter_only_shortens_by_at_most_its_share_and_spreads),
		cmocka_unit_test(delayed_task_comes_at_its_time_and_not_a_microsecond_before),
		cmocka_unit_test(enqueue_with_a_delay_waits_for_it),
		cmocka_unit_test(each_of_many_delayed_tasks_comes_exactly_when_it_is_due),
		cmocka_unit_test(retries_and_new_tasks_take_turns_when_both_wait),
		cmocka_unit_test(task_is_dead_after_its_last_attempt_with_the_error_of_each),
		cmocka_unit_test(only_the_last_failures_are_remembered_as_many_as_configured),
		cmocka_unit_test(next_task_in_the_same_record_inherits_no_history),
		cmocka_unit_test(
			buried_task_is_dead_at_once_and_redriven_counts_from_zero_with_its_history),
		cmocka_unit_test(redrive_and_drop_take_one_all_or_say_enoent),
		cmocka_unit_test(retries_never_fail_for_want_of_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
