/* SPDX-License-Identifier: MIT */
/*
 * queue.h P6, and payloads of every kind of size: they arrive whole, and what they take is given
 * back exactly.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/queue.h>

#define MIB (1 << 20)

static struct coshm_queue *queue_new(struct coshm_segment *segment, const char *name,
				     uint64_t capacity, uint64_t payload_max_bytes,
				     uint64_t payload_pool_bytes)
{
	const struct coshm_queue_config config = {
		.struct_size_bytes = sizeof(config),
		.capacity = capacity,
		.payload_max_bytes = payload_max_bytes,
		.payload_pool_bytes = payload_pool_bytes,
		.backoff_base_ns = 1,
		.backoff_max_ns = 1,
		.max_attempts = 1000000,
	};
	struct coshm_queue *queue;

	assert_int_equal(coshm_queue_create(segment, name, &config, 0, &queue), 0);
	return queue;
}

static int pass_one(struct coshm_queue *queue, size_t size_bytes, uint64_t seed,
		    unsigned char *buffer, unsigned char *other)
{
	struct coshm_task task;
	uint64_t id;
	size_t size_seen_bytes = size_bytes;

	pattern_fill(seed, buffer, size_bytes);
	PROMISE_EQUAL(coshm_queue_enqueue(queue, size_bytes ? buffer : NULL, size_bytes, NULL, &id),
		      0);
	memset(buffer, 0xee, size_bytes);
	PROMISE_EQUAL(coshm_queue_reserve(queue, PROC_DEADLINE_NS, &task), 1);
	PROMISE_EQUAL(task.id, id);
	PROMISE_EQUAL(task.payload_size_bytes, size_bytes);
	if (size_bytes > 0) {
		size_t small_bytes = size_bytes - 1;

		memset(other, 0x11, size_bytes);
		PROMISE_EQUAL(coshm_queue_payload(queue, &task, other, &small_bytes), -ENOBUFS);
	}
	other[size_bytes] = 0x77;
	PROMISE_EQUAL(coshm_queue_payload(queue, &task, other, &size_seen_bytes), 0);
	PROMISE_EQUAL(size_seen_bytes, size_bytes);
	PROMISE(pattern_matches(seed, other, size_bytes));
	PROMISE_EQUAL(other[size_bytes], 0x77);
	PROMISE_EQUAL(coshm_queue_ack(queue, &task), 0);
	return 0;
}

static void payloads_of_all_sizes_arrive_whole(void **state)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "queue-sizes", 8 << 20);
	struct coshm_queue *queue = queue_new(segment, "q", 16, MIB, 4 * MIB);
	unsigned char *buffer = malloc(MIB + 16), *other = malloc(MIB + 16);

	(void)state;
	assert_true(buffer && other);
	for (size_t size_bytes = 0; size_bytes <= 600; size_bytes++)
		assert_int_equal(pass_one(queue, size_bytes, size_bytes, buffer, other), 0);
	for (size_t power = 512; power <= MIB; power *= 2) {
		for (size_t near = power - 70; near <= power + 70 && near <= MIB; near++) {
			/* Around each power, and around what is left of it beside a header. */
			if (near % 8 > 1 && near != power && near + 1 != power)
				continue;
			assert_int_equal(pass_one(queue, near, near, buffer, other), 0);
		}
		assert_int_equal(pass_one(queue, power / 4 * 3 - 1, power, buffer, other), 0);
	}
	assert_int_equal(coshm_queue_enqueue(queue, buffer, MIB + 1, NULL, NULL), -EMSGSIZE);
	segment_is_sound(segment);
	free(buffer);
	free(other);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static unsigned int fill(struct coshm_queue *queue, size_t size_bytes, uint64_t *ids)
{
	static unsigned char payload[MIB];
	unsigned int count = 0;
	uint64_t id;
	int rc;

	while ((rc = coshm_queue_enqueue(queue, payload, size_bytes, NULL, &id)) == 0) {
		if (ids)
			ids[count] = id;
		count++;
	}
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

static void capacity_stays_exact_over_a_thousand_laps(void **state)
{
	static const uint64_t capacities[] = {1, 2, 3, 64, 100};
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "queue-laps", 8 << 20);

	(void)state;
	for (unsigned int c = 0; c < sizeof(capacities) / sizeof(capacities[0]); c++) {
		const char object[] = {(char)('a' + (char)c), 0};
		struct coshm_queue *queue = queue_new(segment, object, capacities[c], 0, 0);
		struct coshm_queue_depth depth;

		for (unsigned int lap = 0; lap < 1000; lap++) {
			assert_int_equal(fill(queue, lap % 193, NULL), capacities[c]);
			if (lap % 100 == 0) {
				assert_int_equal(coshm_queue_depth(queue, &depth), 0);
				assert_int_equal(depth.ready, capacities[c]);
				assert_int_equal(depth.capacity, capacities[c]);
			}
			drain(queue, (unsigned int)capacities[c]);
		}
	}
	segment_is_sound(segment);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

/* Sizes mixed without an order must not leave holes that nothing fits into. */
static void payload_memory_is_given_back_exactly(void **state)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "queue-pool", 8 << 20);
	struct coshm_queue *queue = queue_new(segment, "q", 1000, MIB, 4 * MIB);
	static unsigned char payload[MIB];
	uint64_t seed = random_seed(NULL);
	const unsigned int large = fill(queue, MIB, NULL);
	const unsigned int middle = (drain(queue, large), fill(queue, 100000, NULL));

	(void)state;
	assert_in_range(large, 3, 4);
	assert_in_range(middle, 20, 42);
	drain(queue, middle);
	for (unsigned int lap = 0; lap < 100; lap++) {
		unsigned int inside = 0;

		for (unsigned int step = 0; step < 100; step++) {
			const size_t size_bytes =
				random_below(&seed, random_below(&seed, 2) ? 5000 : MIB);
			struct coshm_task task;

			if (coshm_queue_enqueue(queue, payload, size_bytes, NULL, NULL) == 0) {
				inside++;
			} else if (inside > 0) {
				assert_int_equal(
					coshm_queue_reserve(queue, PROC_DEADLINE_NS, &task), 1);
				assert_int_equal(coshm_queue_ack(queue, &task), 0);
				inside--;
			}
		}
		drain(queue, inside);
		if (lap % 10 == 0) {
			assert_int_equal(fill(queue, MIB, NULL), large);
			drain(queue, large);
			assert_int_equal(fill(queue, 100000, NULL), middle);
			drain(queue, middle);
		}
	}
	segment_is_sound(segment);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void retries_of_a_full_queue_need_no_room(void **state)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "queue-retry", 8 << 20);
	struct coshm_queue *queue = queue_new(segment, "q", 50, 2000, 0);
	struct coshm_task tasks[50], extra;
	uint64_t ids[50];
	unsigned int count;

	(void)state;
	count = fill(queue, 2000, ids);
	assert_in_range(count, 1, 50);
	for (unsigned int lap = 0; lap < 20; lap++) {
		uint64_t sum = 0;

		for (unsigned int i = 0; i < count; i++) {
			assert_int_equal(coshm_queue_reserve(queue, PROC_DEADLINE_NS, &tasks[i]),
					 1);
			sum += tasks[i].id;
		}
		for (unsigned int i = 0; i < count; i++)
			sum -= ids[i];
		assert_int_equal(sum, 0);
		assert_int_equal(coshm_queue_reserve(queue, 0, &extra), 0);
		assert_int_equal(coshm_queue_enqueue(queue, ids, 2000, NULL, NULL), -EAGAIN);
		for (unsigned int i = 0; i < count; i++) {
			assert_int_equal((lap + i) % 2 ? coshm_queue_release(queue, &tasks[i])
						       : coshm_queue_nack(queue, &tasks[i], "",
									  COSHM_FOREVER),
					 0);
			assert_int_equal(coshm_queue_enqueue(queue, ids, 2000, NULL, NULL),
					 -EAGAIN);
		}
	}
	drain(queue, count);
	segment_is_sound(segment);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

/* Producers die anywhere in an enqueue; what they had taken comes back. ---------------------- */

struct books {
	struct coshm_segment *segment;
	char name[TEST_SEGMENT_NAME_SIZE];
};

static int produce_and_consume(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	static unsigned char payload[100000];
	struct coshm_segment *segment;
	struct coshm_queue *queue;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_queue_open(segment, "q", &queue), 0);
	while (!crowd_is_over()) {
		const uint64_t number = random_next(&seed);
		size_t size_bytes = random_below(&seed, sizeof(payload) - 8) + 8;
		struct coshm_task task;
		uint64_t seen;
		int rc;

		memcpy(payload, &number, 8);
		pattern_fill(number, payload + 8, size_bytes - 8);
		rc = coshm_queue_enqueue(queue, payload, size_bytes, NULL, NULL);
		PROMISE(rc == 0 || rc == -EAGAIN);
		rc = coshm_queue_reserve(queue, 0, &task);
		PROMISE(rc == 0 || rc == 1);
		if (rc == 0)
			continue;
		size_bytes = sizeof(payload);
		PROMISE_EQUAL(coshm_queue_payload(queue, &task, payload, &size_bytes), 0);
		memcpy(&seen, payload, 8);
		PROMISE(pattern_matches(seen, payload + 8, size_bytes - 8));
		PROMISE_EQUAL(random_below(&seed, 2) ? coshm_queue_ack(queue, &task)
						     : coshm_queue_bury(queue, &task, "no"),
			      0);
		PROMISE_EQUAL(coshm_queue_drop(queue, 0, NULL), 0);
	}
	return 0;
}

static void killed_producers_and_consumers_leak_nothing(void **state)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_queue *queue;
	struct coshm_queue_depth depth;
	struct coshm_task task;
	struct crowd crowd;
	unsigned int large, small;

	(void)state;
	books->segment = segment_for_test(books->name, "queue-leak", 6 << 20);
	queue = queue_new(books->segment, "q", 64, 100000, 2 * MIB);
	large = fill(queue, 100000, NULL);
	drain(queue, large);
	crowd_start(&crowd, 6, produce_and_consume, books, NULL);
	crowd_torment(&crowd, 0, 6, CROWD_KILL, test_run_ns());
	crowd_finish(&crowd);
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	do {
		while (coshm_queue_reserve(queue, 50 * MS, &task) == 1)
			assert_int_equal(coshm_queue_ack(queue, &task), 0);
		assert_int_equal(coshm_queue_drop(queue, 0, NULL), 0);
		assert_int_equal(coshm_queue_depth(queue, &depth), 0);
	} while (depth.ready + depth.delayed + depth.leased + depth.dead > 0);
	assert_int_equal(fill(queue, 100000, NULL), large);
	drain(queue, large);
	small = fill(queue, 10, NULL);
	assert_int_equal(small, 64);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(payloads_of_all_sizes_arrive_whole),
		cmocka_unit_test(capacity_stays_exact_over_a_thousand_laps),
		cmocka_unit_test(payload_memory_is_given_back_exactly),
		cmocka_unit_test(retries_of_a_full_queue_need_no_room),
		cmocka_unit_test(killed_producers_and_consumers_leak_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
