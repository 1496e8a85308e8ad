/* SPDX-License-Identifier: MIT */
#include "../multiproc/hint_ring_flow.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <cmocka.h>

static void *produce(void *flow)
{
	flow_produce_until_stopped(flow);
	return NULL;
}

static void *consume(void *flow)
{
	flow_consume_until_all_is_done(flow);
	return NULL;
}

/* Under ThreadSanitizer the payloads show that words and hints carry what they say they do. */
static void every_record_comes_through_whole_with_two_producers_and_two_consumers(void **state)
{
	const struct timespec for_a_while = {.tv_nsec = 300 * 1000 * 1000};
	void *memory = aligned_alloc(128, (flow_size_bytes() + 127) / 128 * 128);
	struct flow flow; /* one for all: the copies of the heads are shared, too */
	pthread_t threads[4];
	uint64_t word;
	int free_count = 0;

	(void)state;
	assert_non_null(memory);
	memset(memory, 0, flow_size_bytes());
	flow_initialise(&flow, memory);
	coshm__a32_store_relaxed(&flow.shared->producers, 2);
	for (int i = 0; i < 4; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, i % 2 ? consume : produce, &flow), 0);
	/* At least so many, however seldom they come to run. */
	do
		nanosleep(&for_a_while, NULL);
	while (coshm__a64_load_relaxed(&flow.shared->produced) <= FLOW_RECORDS);
	coshm__a32_store_relaxed(&flow.shared->stop_producing, 1);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);

	assert_true(coshm__a64_load_relaxed(&flow.shared->produced) > FLOW_RECORDS);
	assert_int_equal(coshm__a64_load_relaxed(&flow.shared->torn), 0);
	assert_int_equal(coshm__a64_load_relaxed(&flow.shared->consumed),
			 coshm__a64_load_relaxed(&flow.shared->produced));
	while (flow_take(&flow, &flow.free, FLOW_FREE, FLOW_BUILD, &word) >= 0)
		free_count++;
	assert_int_equal(free_count, FLOW_RECORDS);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			every_record_comes_through_whole_with_two_producers_and_two_consumers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
