/* SPDX-License-Identifier: MIT */
/* Payloads of all sizes, inline and in blocks; a pool that runs out takes nothing along. */
#include "queue_fixture.h"

#define LARGEST (1 << 20)

static unsigned char written[LARGEST], read_back[LARGEST + 8];

static void fill(size_t size, unsigned int seed)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < size; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		written[i] = (unsigned char)x;
	}
}

static void assert_comes_back(struct fixture *f, size_t size, unsigned int seed)
{
	struct coshm_task task;
	size_t size_back = size;

	assert_int_equal(coshm_queue_reserve(f->queue, 0, &task), 1);
	assert_int_equal(task.payload_size_bytes, size);
	fill(size, seed);
	memset(read_back, 0xee, size + 8);
	assert_int_equal(coshm_queue_payload(f->queue, &task, read_back, &size_back), 0);
	assert_int_equal(size_back, size);
	assert_memory_equal(read_back, written, size);
	for (int i = 0; i < 8; i++)
		assert_int_equal(read_back[size + (size_t)i], 0xee);
	assert_int_equal(coshm_queue_ack(f->queue, &task), 0);
}

static void every_size_class_from_nothing_to_1_mib_comes_back_whole(void **state)
{
	static const size_t maxima[] = {1, 192, 193, 5000, 100000, LARGEST};
	static const size_t sizes[] = {0,	1,	     7,	     8,	    9,	   63,	   64,
				       191,	192,	     193,    200,   1000,  1215,   1216,
				       1217,	2240,	     2241,   4096,  5000,  8191,   8192,
				       65535,	65536,	     65537,  65728, 65729, 100000, 131264,
				       1000000, LARGEST - 1, LARGEST};

	(void)state;
	for (size_t m = 0; m < sizeof(maxima) / sizeof(maxima[0]); m++) {
		struct fixture f;
		struct coshm_queue_config config = {.capacity = 3, .payload_max_bytes = maxima[m]};

		fixture_open(&f, &config);
		for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
			unsigned int seed = (unsigned int)(s * 7 + m);

			if (sizes[s] > maxima[m]) {
				assert_int_equal(
					coshm_queue_enqueue(f.queue, written, sizes[s], NULL, NULL),
					-EMSGSIZE);
				continue;
			}
			/* from every alignment */
			fill(sizes[s], seed);
			memcpy(read_back + seed % 8, written, sizes[s]);
			assert_int_equal(coshm_queue_enqueue(f.queue, read_back + seed % 8,
							     sizes[s], NULL, NULL),
					 0);
			assert_comes_back(&f, sizes[s], seed);
		}
		fixture_close(&f);
	}
}

static void payloads_of_many_tasks_do_not_mix(void **state)
{
	struct fixture f;
	struct coshm_queue_config config = {
		.capacity = 16, .payload_max_bytes = 20000, .payload_pool_bytes = 1 << 20};
	unsigned int first = 0, next = 0;

	(void)state;
	fixture_open(&f, &config);
	for (int round = 0; round < 200; round++) {
		while (next - first < 16) {
			size_t size = next * 2654435761u % 20001;

			fill(size, next);
			if (coshm_queue_enqueue(f.queue, written, size, NULL, NULL))
				break;
			next++;
		}
		for (int n = 0; n < 1 + round % 5; n++, first++)
			assert_comes_back(&f, first * 2654435761u % 20001, first);
	}
	for (; first < next; first++)
		assert_comes_back(&f, first * 2654435761u % 20001, first);
	fixture_close(&f);
}

static uint64_t free_blocks(struct fixture *f)
{
	struct coshm__op op;
	struct coshm__queue *q;
	uint64_t count = 0;

	assert_int_equal(coshm__op_begin(&op, f->queue, COSHM_OBJECT_QUEUE), 0);
	q = op.handle->local;
	for (uint32_t i = 0; i < q->block_count; i++)
		count += coshm__block_state(coshm__a64_load_relaxed(&q->block_words[i])) ==
			 COSHM__BLOCK_FREE;
	coshm__op_end(&op);
	return count;
}

static void exhausted_pool_is_eagain_and_takes_nothing_along(void **state)
{
	struct fixture f;
	/* 10 blocks of 1 KiB */
	struct coshm_queue_config config = {
		.capacity = 8, .payload_max_bytes = 5000, .payload_pool_bytes = 10240};
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &config);
	fill(5000, 1);
	assert_int_equal(free_blocks(&f), 10);
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 5000, NULL, NULL), 0); /* 5 */
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 3000, NULL, NULL), 0); /* 3 */
	assert_int_equal(free_blocks(&f), 2);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(coshm_queue_enqueue(f.queue, written, 5000, NULL, NULL), -EAGAIN);
		assert_int_equal(coshm_queue_enqueue(f.queue, written, 2500, NULL, NULL), -EAGAIN);
	}
	assert_int_equal(free_blocks(&f), 2);
	assert_int_equal(stat_of(&f, "full"), 60);
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 2000, NULL, NULL), 0); /* 2 */
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 192, NULL, NULL), 0);  /* none */
	assert_depth(&f, 4, 0, 0, 0);
	assert_verified(f.segment);
	while (coshm_queue_reserve(f.queue, 0, &task) == 1)
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(free_blocks(&f), 10);
	fixture_close(&f);
}

/* The look at the ring's length comes first; a pool that others empty meanwhile is met in the middle of the chain. */
static void pool_that_runs_out_in_the_middle_gives_back_what_was_taken(void **state)
{
	struct fixture f;
	struct coshm_queue_config config = {
		.capacity = 8, .payload_max_bytes = 5000, .payload_pool_bytes = 10240};
	struct coshm__op op;
	struct coshm__queue *q;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &config);
	fill(5000, 1);
	assert_int_equal(coshm__op_begin(&op, f.queue, COSHM_OBJECT_QUEUE), 0);
	q = op.handle->local;
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 5000, NULL, NULL), 0);
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 3000, NULL, NULL), 0);
	/* Duplicates, as deaths leave them: the length says 4, but only 2 blocks are free. */
	assert_int_equal(coshm__hint_ring_push(&q->block_ring, 0), 0);
	assert_int_equal(coshm__hint_ring_push(&q->block_ring, 1), 0);
	assert_int_equal(coshm__hint_ring_length(&q->block_ring), 4);
	assert_int_equal(coshm_queue_enqueue(f.queue, written, 4000, NULL, NULL), -EAGAIN);
	coshm__op_end(&op);
	assert_int_equal(free_blocks(&f), 2);
	assert_verified(f.segment);
	while (coshm_queue_reserve(f.queue, 0, &task) == 1)
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(free_blocks(&f), 10);
	assert_int_equal(room_of(&f), 8);
	fixture_close(&f);
}

static void dropped_dead_letters_give_their_blocks_back(void **state)
{
	struct fixture f;
	struct coshm_queue_config config = {
		.capacity = 8, .payload_max_bytes = 5000, .payload_pool_bytes = 10240};
	struct coshm_task task;
	uint64_t count = 0;

	(void)state;
	fixture_open(&f, &config);
	for (int i = 0; i < 2; i++) {
		fill(5000, 1);
		assert_int_equal(coshm_queue_enqueue(f.queue, written, 5000, NULL, NULL), 0);
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
		assert_int_equal(coshm_queue_bury(f.queue, &task, "no"), 0);
	}
	assert_int_equal(free_blocks(&f), 0);
	assert_int_equal(coshm_queue_drop(f.queue, 0, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(free_blocks(&f), 10);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_class_from_nothing_to_1_mib_comes_back_whole),
		cmocka_unit_test(payloads_of_many_tasks_do_not_mix),
		cmocka_unit_test(exhausted_pool_is_eagain_and_takes_nothing_along),
		cmocka_unit_test(pool_that_runs_out_in_the_middle_gives_back_what_was_taken),
		cmocka_unit_test(dropped_dead_letters_give_their_blocks_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
