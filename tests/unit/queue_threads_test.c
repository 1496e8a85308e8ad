/* SPDX-License-Identifier: MIT */
/* Threads of one process on one queue: for ThreadSanitizer, and for what must hold among threads anyway. */
#include "queue_fixture.h"

#include <pthread.h>

#define TASKS 4000
#define LARGE 3000

struct shared {
	struct fixture f;
	struct coshm__a32 next; /* number of the next task to enqueue */
	struct coshm__a32 done;
	struct coshm__a32 started[TASKS];
	struct coshm__a32 acked[TASKS];
	struct coshm__a32 again[TASKS]; /* nacked or released */
	struct coshm__a32 wrong;
	/* Plain memory: ThreadSanitizer sees whether the queue carries it from one holder of a task to the next. */
	uint32_t touched[TASKS];
};

static size_t size_of(uint32_t number)
{
	return number % 5 ? 4 + number % 150 : 200 + number * 7919 % (LARGE - 200);
}

static void wrong(struct shared *s)
{
	coshm__a32_fetch_add_relaxed(&s->wrong, 1);
}

static void *produce(void *arg)
{
	struct shared *s = arg;
	unsigned char bytes[LARGE];
	uint32_t number;

	while ((number = coshm__a32_fetch_add_relaxed(&s->next, 1)) < TASKS) {
		struct coshm_enqueue_options soon = {.delay_ns = number % 7 ? 0 : 100 * 1000};
		int error;

		memset(bytes, (int)number & 0xff, sizeof(bytes));
		memcpy(bytes, &number, sizeof(number));
		s->touched[number] = number;
		while ((error = coshm_queue_enqueue(s->f.queue, bytes, size_of(number), &soon,
						    NULL)) == -EAGAIN)
			test_sleep_ns(20 * 1000);
		if (error)
			wrong(s);
	}
	return NULL;
}

static void work(struct shared *s, const struct coshm_task *task, uint32_t round)
{
	unsigned char bytes[LARGE];
	size_t size = sizeof(bytes);
	uint32_t number = TASKS;
	int error;

	if (coshm_queue_payload(s->f.queue, task, bytes, &size) == 0)
		memcpy(&number, bytes, sizeof(number));
	if (number >= TASKS || size != size_of(number)) {
		wrong(s);
		return;
	}
	for (size_t i = sizeof(number); i < size; i++)
		if (bytes[i] != (number & 0xff)) {
			wrong(s);
			break;
		}
	coshm__a32_fetch_add_relaxed(&s->started[number], 1);
	if (s->touched[number]++ != number + coshm__a32_load_relaxed(&s->started[number]) - 1)
		wrong(s);
	if (round % 11 == 0) {
		coshm__a32_fetch_add_relaxed(&s->again[number], 1);
		error = coshm_queue_nack(s->f.queue, task, "again", 50 * 1000);
	} else if (round % 13 == 0) {
		coshm__a32_fetch_add_relaxed(&s->again[number], 1);
		error = coshm_queue_release(s->f.queue, task);
	} else {
		error = coshm_queue_ack(s->f.queue, task);
		coshm__a32_fetch_add_relaxed(&s->acked[number], 1);
		coshm__a32_fetch_add_relaxed(&s->done, 1);
	}
	if (error)
		wrong(s);
}

static void *consume(void *arg)
{
	struct shared *s = arg;
	struct coshm_task task;

	for (uint32_t round = 1; coshm__a32_load_relaxed(&s->done) < TASKS; round++) {
		int found = coshm_queue_reserve(s->f.queue, 2 * MS, &task);

		if (found == 1)
			work(s, &task, round);
		else if (found < 0)
			wrong(s);
	}
	return NULL;
}

static int look(void *context, const struct coshm_task_info *info, const void *payload)
{
	struct shared *s = context;
	uint32_t number;

	if (info->state == COSHM_TASK_OTHER)
		return 0;
	if (!payload || info->payload_size_bytes < sizeof(number) || info->id == 0) {
		wrong(s);
		return 0;
	}
	memcpy(&number, payload, sizeof(number));
	/* a copy is of one task, or it is not shown */
	if (number >= TASKS || info->payload_size_bytes != size_of(number) ||
	    ((const unsigned char *)payload)[info->payload_size_bytes - 1] !=
		    (info->payload_size_bytes > 4 ? (number & 0xff) : number >> 24))
		wrong(s);
	return 0;
}

static void *watch(void *arg)
{
	struct shared *s = arg;

	while (coshm__a32_load_relaxed(&s->done) < TASKS) {
		struct coshm_verify_result result = {0};

		if (coshm_queue_each(s->f.queue, 0, COSHM_QUEUE_EACH_PAYLOAD, look, s) ||
		    coshm_inspect_verify(s->f.segment, "q", print_finding, NULL, &result) ||
		    result.damage || result.pending)
			wrong(s);
		test_sleep_ns(500 * 1000);
	}
	return NULL;
}

static void every_task_is_done_once_among_threads_while_others_look(void **state)
{
	const struct coshm_queue_config config = {.capacity = 100,
						  .payload_max_bytes = LARGE,
						  .payload_pool_bytes = 100 * 1024,
						  .max_attempts = UINT32_MAX};
	static struct shared s;
	pthread_t threads[5];
	void *(*const bodies[])(void *) = {produce, produce, consume, consume, watch};

	(void)state;
	fixture_open(&s.f, &config);
	for (int i = 0; i < 5; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], &s), 0);
	for (int i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(coshm__a32_load_relaxed(&s.wrong), 0);
	for (uint32_t i = 0; i < TASKS; i++) {
		assert_int_equal(coshm__a32_load_relaxed(&s.acked[i]), 1);
		assert_int_equal(coshm__a32_load_relaxed(&s.started[i]),
				 1 + coshm__a32_load_relaxed(&s.again[i]));
	}
	assert_depth(&s.f, 0, 0, 0, 0);
	assert_int_equal(room_of(&s.f), 100);
	assert_int_equal(stat_of(&s.f, "enqueued"), TASKS + 100);
	assert_int_equal(stat_of(&s.f, "acked"), TASKS + 100);
	fixture_close(&s.f);
}

struct racer {
	struct fixture *f;
	const struct coshm_task *task;
	int result;
};

static void *race_to_ack(void *arg)
{
	struct racer *racer = arg;

	racer->result = coshm_queue_ack(racer->f->queue, racer->task);
	return NULL;
}

static void one_of_two_threads_that_ack_the_same_lease_gets_estale(void **state)
{
	const struct coshm_queue_config config = {.capacity = 2};
	struct fixture f;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &config);
	for (int round = 0; round < 200; round++) {
		struct racer racers[2] = {{&f, &task, 1}, {&f, &task, 1}};
		pthread_t threads[2];

		put(&f, "x");
		assert_string_equal(get(&f, &task), "x");
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, race_to_ack, &racers[i]),
					 0);
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(racers[0].result + racers[1].result, -ESTALE);
	}
	assert_int_equal(room_of(&f), 2);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_task_is_done_once_among_threads_while_others_look),
		cmocka_unit_test(one_of_two_threads_that_ack_the_same_lease_gets_estale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
