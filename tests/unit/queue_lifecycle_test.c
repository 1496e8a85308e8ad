/* SPDX-License-Identifier: MIT */
/* The life of a task without failures: P1, P6, and what each call answers. */
#include "queue_fixture.h"

#include <unistd.h>

static const struct coshm_queue_config small = {.capacity = 4};

static void task_comes_back_whole_and_is_gone_after_ack(void **state)
{
	struct fixture f;
	struct coshm_task task;
	uint64_t id;

	(void)state;
	fixture_open(&f, &small);
	id = put(&f, "hello");
	assert_depth(&f, 1, 0, 0, 0);
	assert_string_equal(get(&f, &task), "hello");
	assert_int_equal(task.id, id);
	assert_int_equal(task.payload_size_bytes, 5);
	assert_int_equal(task.attempt, 1);
	assert_int_equal(task.max_attempts, 20);
	assert_in_range(task.enqueued_at_ns, 1, coshm_segment_now_ns(f.segment));
	assert_depth(&f, 0, 0, 1, 0);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_depth(&f, 0, 0, 0, 0);
	assert_null(get(&f, &task));
	fixture_close(&f);
}

static void tasks_come_in_the_order_they_were_enqueued(void **state)
{
	struct fixture f;
	struct coshm_task task;
	char text[16];
	int put_count = 0, got_count = 0;

	(void)state;
	fixture_open(&f, &small);
	for (int fill = 1; fill <= 4; fill++) {
		for (int round = 0; round < 50; round++) {
			while (put_count - got_count < fill) {
				snprintf(text, sizeof(text), "%d", put_count++);
				put(&f, text);
			}
			snprintf(text, sizeof(text), "%d", got_count++);
			assert_string_equal(get(&f, &task), text);
			assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
		}
	}
	while (get(&f, &task))
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void reserve_on_an_empty_queue_answers_0_and_touches_nothing(void **state)
{
	struct fixture f;
	struct coshm_task task, before;

	(void)state;
	fixture_open(&f, &small);
	memset(&task, 0x5a, sizeof(task));
	before = task;
	assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 0);
	assert_int_equal(coshm_queue_reserve(f.queue, 5 * MS, &task), 0);
	assert_memory_equal(&task, &before, sizeof(task));
	fixture_close(&f);
}

static void full_queue_answers_eagain_and_one_ack_makes_room_for_one(void **state)
{
	struct fixture f;
	struct coshm_task task;
	uint64_t id = 77;

	(void)state;
	fixture_open(&f, &small);
	for (int i = 0; i < 4; i++)
		put(&f, "x");
	for (int i = 0; i < 3; i++)
		assert_int_equal(coshm_queue_enqueue(f.queue, "y", 1, NULL, &id), -EAGAIN);
	assert_int_equal(id, 77);
	assert_int_equal(stat_of(&f, "full"), 3);
	assert_depth(&f, 4, 0, 0, 0);
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(coshm_queue_enqueue(f.queue, "y", 1, NULL, NULL), -EAGAIN);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	put(&f, "z");
	assert_int_equal(coshm_queue_enqueue(f.queue, "y", 1, NULL, NULL), -EAGAIN);
	while (get(&f, &task))
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(room_of(&f), 4);
	fixture_close(&f);
}

static void ids_are_never_0_and_never_come_again(void **state)
{
	struct fixture f;
	struct coshm_task task;
	static uint64_t ids[400];

	(void)state;
	fixture_open(&f, &small);
	for (int i = 0; i < 400; i++) {
		ids[i] = put(&f, "x");
		for (int other = 0; other < i; other++)
			assert_int_not_equal(ids[i], ids[other]);
		assert_string_equal(get(&f, &task), "x");
		assert_int_equal(task.id, ids[i]);
		assert_int_equal(ids[i] >> 63, 0);
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	}
	fixture_close(&f);
}

static void lease_ends_once_and_only_the_lease_that_was_given(void **state)
{
	struct fixture f;
	struct coshm_queue *other;
	struct coshm_task task, again, nothing = {0}, theirs;
	char text[8];
	size_t size = sizeof(text);

	(void)state;
	fixture_open(&f, &small);
	assert_int_equal(coshm_queue_create(f.segment, "other", &small, 0, &other), 0);
	put(&f, "x");
	assert_int_equal(coshm_queue_enqueue(other, "x", 1, NULL, NULL), 0);
	assert_int_equal(coshm_queue_reserve(other, 0, &theirs), 1);
	assert_string_equal(get(&f, &task), "x");
	again = task;

	assert_int_equal(coshm_queue_ack(f.queue, &nothing), -ESTALE);
	assert_int_equal(coshm_queue_ack(f.queue, &theirs), -ESTALE);
	assert_int_equal(coshm_queue_nack(f.queue, &theirs, "", 0), -ESTALE);
	assert_int_equal(coshm_queue_payload(f.queue, &theirs, text, &size), -ESTALE);
	assert_int_equal(coshm_queue_ack(other, &task), -ESTALE);

	assert_int_equal(coshm_queue_release(f.queue, &task), 0);
	assert_int_equal(coshm_queue_ack(f.queue, &task), -ESTALE);
	assert_string_equal(get(&f, &task), "x"); /* the same task, a new lease */
	assert_int_equal(coshm_queue_ack(f.queue, &again), -ESTALE);
	assert_int_equal(coshm_queue_bury(f.queue, &again, ""), -ESTALE);
	assert_int_equal(coshm_queue_release(f.queue, &again), -ESTALE);
	assert_int_equal(coshm_queue_payload(f.queue, &again, text, &size), -ESTALE);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(coshm_queue_ack(f.queue, &task), -ESTALE);

	assert_int_equal(coshm_queue_ack(other, &theirs), 0);
	assert_int_equal(coshm_queue_close(other), 0);
	fixture_close(&f);
}

/* The same name, entry, record and number of transitions: only the queue is another one. */
static void lease_of_a_removed_queue_is_none_in_its_successor(void **state)
{
	struct fixture f;
	struct coshm_task former, task;

	(void)state;
	fixture_open(&f, &small);
	put(&f, "former");
	assert_string_equal(get(&f, &former), "former");
	assert_int_equal(coshm_object_remove(f.segment, "q"), 0);
	assert_int_equal(coshm_queue_close(f.queue), 0);
	assert_int_equal(coshm_queue_create(f.segment, "q", &small, 0, &f.queue), 0);
	put(&f, "task");
	assert_string_equal(get(&f, &task), "task");
	assert_int_equal(task.opaque[0], former.opaque[0]);
	assert_int_equal(task.opaque[1], former.opaque[1]);
	assert_int_equal(coshm_queue_ack(f.queue, &former), -ESTALE);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void released_task_is_back_at_once_and_the_attempt_is_not_counted(void **state)
{
	struct fixture f;
	struct coshm_queue_config config = small;
	struct coshm_task task;

	(void)state;
	config.max_attempts = 1;
	fixture_open(&f, &config);
	put(&f, "x");
	for (int i = 0; i < 5; i++) {
		assert_string_equal(get(&f, &task), "x");
		assert_int_equal(task.attempt, 1);
		assert_int_equal(coshm_queue_release(f.queue, &task), 0);
		assert_depth(&f, 1, 0, 0, 0);
	}
	assert_int_equal(stat_of(&f, "released"), 5);
	assert_int_equal(the_one(&f, COSHM_TASK_READY).info.attempts, 0);
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void closing_the_last_handle_gives_the_leases_back_uncounted(void **state)
{
	struct fixture f;
	struct coshm_queue *second;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &small);
	assert_int_equal(coshm_queue_open(f.segment, "q", &second), 0);
	put(&f, "a");
	put(&f, "b");
	assert_string_equal(get(&f, &task), "a");
	/* leased through one handle, closed through the other */
	assert_int_equal(coshm_queue_close(f.queue), 0);
	f.queue = second;
	assert_depth(&f, 1, 0, 1, 0);
	assert_int_equal(coshm_queue_close(second), 0);
	assert_int_equal(coshm_queue_open(f.segment, "q", &f.queue), 0);
	assert_depth(&f, 2, 0, 0, 0);
	assert_string_equal(get(&f, &task), "b");
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_string_equal(get(&f, &task), "a");
	assert_int_equal(task.attempt, 1);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void payload_needs_a_buffer_that_is_large_enough_and_says_which(void **state)
{
	struct fixture f;
	struct coshm_task task;
	char text[16];
	size_t size = 4;

	(void)state;
	fixture_open(&f, &small);
	put(&f, "hello");
	assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
	assert_int_equal(coshm_queue_payload(f.queue, &task, text, &size), -ENOBUFS);
	assert_int_equal(size, 5);
	assert_int_equal(coshm_queue_payload(f.queue, &task, text, &size), 0);
	assert_memory_equal(text, "hello", 5);
	size = sizeof(text);
	assert_int_equal(coshm_queue_payload(f.queue, &task, text, &size), 0);
	assert_int_equal(size, 5);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void config_gets_its_defaults_and_is_the_same_for_all(void **state)
{
	struct fixture f;
	struct coshm_queue *again;
	struct coshm_queue_config config = {0}, other = {.capacity = 9, .max_attempts = 3};

	(void)state;
	fixture_open(&f, &small);
	assert_int_equal(coshm_queue_create(f.segment, "q", &other, 0, &again), -EEXIST);
	assert_int_equal(coshm_queue_create(f.segment, "q", &other, COSHM_CREATE_OR_OPEN, &again),
			 0);
	assert_int_equal(coshm_queue_config(again, &config), 0);
	assert_int_equal(config.capacity, 4);
	assert_int_equal(config.payload_max_bytes, 192);
	assert_int_equal(config.payload_pool_bytes, 0);
	assert_int_equal(config.backoff_base_ns, S);
	assert_int_equal(config.backoff_max_ns, 3600 * S);
	assert_int_equal(config.backoff_kind, COSHM_BACKOFF_EXPONENTIAL);
	assert_int_equal(config.backoff_jitter_percent, 0);
	assert_int_equal(config.max_attempts, 20);
	assert_int_equal(config.attempt_record_count, 8);
	assert_int_equal(coshm_queue_close(again), 0);
	fixture_close(&f);
}

static void impossible_arguments_are_refused_and_change_nothing(void **state)
{
	const struct coshm_queue_config bad[] = {
		{.capacity = 0},
		{.capacity = 65537},
		{.capacity = 4, .payload_max_bytes = (UINT64_C(1) << 30) + 1},
		{.capacity = 4, .backoff_kind = 3},
		{.capacity = 4, .backoff_jitter_percent = 101},
		{.capacity = 4, .attempt_record_count = 9},
		{.capacity = 4, .payload_max_bytes = 100000, .payload_pool_bytes = 4096},
	};
	struct coshm_enqueue_options far = {.delay_ns = UINT64_MAX / 2};
	struct fixture f;
	struct coshm_queue *queue = (void *)&f;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &small);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(coshm_queue_create(f.segment, "bad", &bad[i], 0, &queue), -EINVAL);
		assert_ptr_equal(queue, &f);
	}
	assert_int_equal(coshm_queue_open(f.segment, "bad", &queue), -ENOENT);
	assert_int_equal(coshm_queue_enqueue(f.queue, "x", 193, NULL, NULL), -EMSGSIZE);
	assert_int_equal(coshm_queue_enqueue(f.queue, NULL, 1, NULL, NULL), -EINVAL);
	assert_int_equal(coshm_queue_enqueue(f.queue, "x", 1, &far, NULL), -EINVAL);
	assert_int_equal(coshm_queue_reserve(f.queue, 0, NULL), -EINVAL);
	assert_depth(&f, 0, 0, 0, 0);
	put(&f, "x");
	assert_string_equal(get(&f, &task), "x");
	assert_int_equal(coshm_queue_nack(f.queue, &task, "", UINT64_MAX / 2), -EINVAL);
	assert_depth(&f, 0, 0, 1, 0);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void closed_handle_is_ebadf_everywhere(void **state)
{
	struct fixture f;
	struct coshm_queue *closed;
	struct coshm_task task = {0};
	struct coshm_queue_depth depth;
	struct found found;

	(void)state;
	fixture_open(&f, &small);
	assert_int_equal(coshm_queue_open(f.segment, "q", &closed), 0);
	assert_int_equal(coshm_queue_close(closed), 0);
	assert_int_equal(coshm_queue_close(closed), -EBADF);
	assert_int_equal(coshm_queue_close(NULL), 0);
	assert_int_equal(coshm_queue_enqueue(closed, "x", 1, NULL, NULL), -EBADF);
	assert_int_equal(coshm_queue_reserve(closed, 0, &task), -EBADF);
	assert_int_equal(coshm_queue_ack(closed, &task), -EBADF);
	assert_int_equal(coshm_queue_nack(closed, &task, "", 0), -EBADF);
	assert_int_equal(coshm_queue_release(closed, &task), -EBADF);
	assert_int_equal(coshm_queue_bury(closed, &task, ""), -EBADF);
	assert_int_equal(coshm_queue_depth(closed, &depth), -EBADF);
	assert_int_equal(coshm_queue_each(closed, 0, 0, find_one, &found), -EBADF);
	assert_int_equal(coshm_queue_redrive(closed, 0, NULL), -EBADF);
	assert_int_equal(coshm_queue_drop(closed, 0, NULL), -EBADF);
	fixture_close(&f);
}

static void read_only_attach_looks_and_cannot_touch(void **state)
{
	struct fixture f, ro;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &small);
	put(&f, "seen");
	put(&f, "leased");
	assert_string_equal(get(&f, &task), "seen");
	ro = f;
	assert_int_equal(coshm_segment_attach(f.name, COSHM_ATTACH_READ_ONLY, &ro.segment), 0);
	assert_int_equal(coshm_queue_open(ro.segment, "q", &ro.queue), 0);
	assert_depth(&ro, 1, 0, 1, 0);
	assert_string_equal(the_one(&ro, COSHM_TASK_READY).payload, "leased");
	assert_int_equal(the_one(&ro, COSHM_TASK_LEASED).info.holder_pid, getpid());
	assert_int_equal(stat_of(&ro, "enqueued"), 2);
	assert_verified(ro.segment);
	assert_int_equal(coshm_queue_enqueue(ro.queue, "x", 1, NULL, NULL), -EROFS);
	assert_int_equal(coshm_queue_reserve(ro.queue, 0, &task), -EROFS);
	assert_int_equal(coshm_queue_redrive(ro.queue, 0, NULL), -EROFS);
	assert_int_equal(coshm_queue_close(ro.queue), 0);
	assert_int_equal(coshm_segment_detach(ro.segment), 0);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_string_equal(get(&f, &task), "leased");
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	fixture_close(&f);
}

static void removed_queue_is_emptied_by_its_workers_and_then_says_so(void **state)
{
	struct fixture f;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &small);
	put(&f, "a");
	put(&f, "b");
	assert_int_equal(coshm_object_remove(f.segment, "q"), 0);
	assert_int_equal(coshm_queue_enqueue(f.queue, "x", 1, NULL, NULL), -ESHUTDOWN);
	assert_string_equal(get(&f, &task), "a");
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_string_equal(get(&f, &task), "b");
	assert_int_equal(coshm_queue_nack(f.queue, &task, "later", 20 * MS), 0);
	assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 0); /* it still holds something */
	assert_int_equal(coshm_queue_reserve(f.queue, COSHM_FOREVER, &task), 1);
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), -ESHUTDOWN);
	assert_int_equal(coshm_queue_reserve(f.queue, COSHM_FOREVER, &task), -ESHUTDOWN);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(task_comes_back_whole_and_is_gone_after_ack),
		cmocka_unit_test(tasks_come_in_the_order_they_were_enqueued),
		cmocka_unit_test(reserve_on_an_empty_queue_answers_0_and_touches_nothing),
		cmocka_unit_test(full_queue_answers_eagain_and_one_ack_makes_room_for_one),
		cmocka_unit_test(ids_are_never_0_and_never_come_again),
		cmocka_unit_test(lease_ends_once_and_only_the_lease_that_was_given),
		cmocka_unit_test(lease_of_a_removed_queue_is_none_in_its_successor),
		cmocka_unit_test(released_task_is_back_at_once_and_the_attempt_is_not_counted),
		cmocka_unit_test(closing_the_last_handle_gives_the_leases_back_uncounted),
		cmocka_unit_test(payload_needs_a_buffer_that_is_large_enough_and_says_which),
		cmocka_unit_test(config_gets_its_defaults_and_is_the_same_for_all),
		cmocka_unit_test(impossible_arguments_are_refused_and_change_nothing),
		cmocka_unit_test(closed_handle_is_ebadf_everywhere),
		cmocka_unit_test(read_only_attach_looks_and_cannot_touch),
		cmocka_unit_test(removed_queue_is_emptied_by_its_workers_and_then_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
