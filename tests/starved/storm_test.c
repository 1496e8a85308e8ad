/* SPDX-License-Identifier: MIT */
/*
 * Storms: more lives than a member slot has generations, and more threads than there are thread slots.
 *
 * Two million lives take too long: a slot's generation is set to just before it starts over, or before its low 14 bits,
 * all that short ids keep, would be 0.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "starved/stock.h"
#include "support/shmfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMBERS	    8
#define WORKERS	    3
#define LIVES	    40
#define TASKS	    6
#define LAST	    ((1u << COSHM__MEMBER_GENERATION_BITS) - 1)
#define BEFORE_WRAP 5

static char name[TEST_SEGMENT_NAME_SIZE];
static struct stock stock;

static int fresh_name(void **state)
{
	(void)state;
	test_segment_name(name, "storm");
	return 0;
}

static int clean(void **state)
{
	(void)state;
	if (stock.segment && stock_close(&stock))
		return 1;
	return coshm_segment_unlink(name);
}

/* --- lives ---------------------------------------------------------------------------------------------------------- */

/* Who has a task, a pinned value and an open object when it dies. */
static int dies(void *arg)
{
	struct stock own;
	struct coshm_task task;
	struct coshm_cache_view view;

	(void)arg;
	NEED(stock_open(&own, name, 0) == 0);
	GIVES(0, coshm_cache_set(own.cache, "pinned", 6, "value", 5, 0));
	NEED(coshm_cache_pin(own.cache, "pinned", 6, &view) >= 0);
	GIVES(1, coshm_queue_reserve(own.queue, PROC_DEADLINE_NS, &task));
	raise(SIGKILL);
	return 1;
}

/* Comes and goes by itself, and has children that die. */
static int storms(void *arg)
{
	const unsigned int who = (unsigned int)(uintptr_t)arg;

	for (unsigned int i = 0; i < LIVES; i++) {
		struct stock own;

		NEED(stock_open(&own, name, 0) == 0);
		NEED(stock_use(&own, who) == 0);
		NEED(stock_close(&own) == 0);
		if (i % 4 == 0)
			NEED(run_in_child(dies, NULL) == -SIGKILL);
	}
	return 0;
}

/* Nobody is attached. What a slot's next member gets is the generation after @generation. */
static int generations_set(uint64_t generation, uint64_t ret_generations[MEMBERS])
{
	char path[TEST_SEGMENT_NAME_SIZE + 16];
	struct coshm__header_shm *header;
	struct coshm__member_shm *members;
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	fd = open(path, O_RDWR);
	NEED(fd >= 0);
	header = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	NEED(header != MAP_FAILED);
	members = (void *)((unsigned char *)header + header->members_offset);
	for (int i = 0; i < MEMBERS; i++) {
		uint64_t word = coshm__a64_load_acquire(&members[i].word);

		NEED((word & 3) == COSHM__MEMBER_FREE);
		if (ret_generations)
			ret_generations[i] = word >> 2;
		else
			coshm__a64_store_release(
				&members[i].word,
				coshm__member_word(generation, COSHM__MEMBER_FREE));
	}
	munmap(header, 65536);
	return 0;
}

static void storm_over(uint64_t generation)
{
	struct proc *procs[WORKERS];
	struct coshm_queue_depth depth;

	assert_int_equal(stock_open_for(&stock, name, 0, MEMBERS, 0), 0);
	for (int i = 0; i < TASKS; i++)
		assert_int_equal(coshm_queue_enqueue(stock.queue, "tttt", 4, NULL, NULL), 0);
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(generations_set(generation, NULL), 0);
	for (unsigned int i = 0; i < WORKERS; i++)
		procs[i] = proc_spawn(storms, (void *)(uintptr_t)(i + 1));
	assert_int_equal(proc_collect_all(procs, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(stock_open(&stock, name, 0), 0);
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(coshm_queue_depth(stock.queue, &depth), 0);
	assert_int_equal(depth.leased, 0);
	assert_int_equal(depth.ready + depth.delayed, TASKS);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
}

static void generations_that_start_over_confuse_nobody(void **state)
{
	uint64_t after[MEMBERS];

	(void)state;
	storm_over(LAST - BEFORE_WRAP);
	assert_int_equal(generations_set(0, after), 0);
	/* The first free slot is taken: it saw most of the lives. */
	assert_in_range(after[0], 1, LIVES * WORKERS * 2);
}

static void short_ids_that_start_over_confuse_nobody(void **state)
{
	const uint64_t low = 0x3fff;
	uint64_t after[MEMBERS];

	(void)state;
	storm_over(7 * (low + 1) + low - BEFORE_WRAP);
	assert_int_equal(generations_set(0, after), 0);
	assert_in_range(after[0], 8 * (low + 1) + 1, 8 * (low + 1) + LIVES * WORKERS * 2);
}

/* --- threads -------------------------------------------------------------------------------------------------------- */

#define SLOTS	2
#define THREADS 6
#define TURNS	100

struct crowd {
	struct stock stock;
	_Atomic unsigned int next, wrong, worked, sleeping, stop;
};

static void *takes_turns(void *arg)
{
	struct crowd *crowd = arg;
	unsigned int who = (unsigned int)getpid() + (atomic_fetch_add(&crowd->next, 1) << 24);

	while (!atomic_load(&crowd->stop)) {
		if (stock_use(&crowd->stock, who))
			atomic_fetch_add(&crowd->wrong, 1);
		else
			atomic_fetch_add(&crowd->worked, 1);
	}
	return NULL;
}

/* Without a slot: the others have them all. */
static void *sleeps(void *arg)
{
	struct crowd *crowd = arg;
	struct coshm_queue *idle;
	struct coshm_task task;

	if (coshm_queue_open(crowd->stock.segment, "idle", &idle)) {
		atomic_fetch_add(&crowd->wrong, 1);
		return NULL;
	}
	atomic_store(&crowd->sleeping, 1);
	if (coshm_queue_reserve(idle, COSHM_FOREVER, &task) != 1 || coshm_queue_ack(idle, &task) ||
	    coshm_queue_close(idle))
		atomic_fetch_add(&crowd->wrong, 1);
	return NULL;
}

static int comes_to(const _Atomic unsigned int *count, unsigned int wanted)
{
	const uint64_t start_ns = test_now_ns();

	while (atomic_load(count) < wanted && test_now_ns() - start_ns < PROC_DEADLINE_NS / 2)
		test_sleep_ns(200000);
	return atomic_load(count) >= wanted;
}

static int has_many_threads(void *arg)
{
	pthread_t threads[THREADS], sleeper;
	struct crowd crowd = {0};
	struct coshm_queue *idle;

	(void)arg;
	NEED(stock_open(&crowd.stock, name, 0) == 0);
	GIVES(0, coshm_queue_open(crowd.stock.segment, "idle", &idle));
	for (int i = 0; i < THREADS; i++)
		NEED(pthread_create(&threads[i], NULL, takes_turns, &crowd) == 0);
	NEED(comes_to(&crowd.worked, TURNS));
	NEED(pthread_create(&sleeper, NULL, sleeps, &crowd) == 0);
	NEED(comes_to(&crowd.sleeping, 1));
	/* Those that share the reserve with the sleeper, too. */
	NEED(comes_to(&crowd.worked, atomic_load(&crowd.worked) + TURNS));
	atomic_store(&crowd.stop, 1);
	for (int i = 0; i < THREADS; i++)
		NEED(pthread_join(threads[i], NULL) == 0);
	GIVES(0, coshm_queue_enqueue(idle, "wake", 4, NULL, NULL));
	NEED(pthread_join(sleeper, NULL) == 0);
	NEED(atomic_load(&crowd.wrong) == 0);
	return stock_close(&crowd.stock);
}

static void threads_without_a_slot_do_all_the_others_do(void **state)
{
	const struct coshm_queue_config config = {.capacity = 8};
	struct coshm_segment_info info;
	struct coshm_queue *idle;

	(void)state;
	assert_int_equal(stock_open_for(&stock, name, 0, SLOTS, SLOTS), 0);
	assert_int_equal(coshm_queue_create(stock.segment, "idle", &config, 0, &idle), 0);
	/* The test has one of the slots. */
	assert_int_equal(stock_use(&stock, 1), 0);
	assert_int_equal(run_in_child(has_many_threads, NULL), 0);
	/* The child has not detached what it inherited. */
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(coshm_segment_info(stock.segment, &info), 0);
	assert_int_equal(info.thread_high_water, SLOTS);
	assert_int_equal(info.member_count, 1);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
}

#define STORM_TEST(test) cmocka_unit_test_setup_teardown(test, fresh_name, clean)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		STORM_TEST(generations_that_start_over_confuse_nobody),
		STORM_TEST(short_ids_that_start_over_confuse_nobody),
		STORM_TEST(threads_without_a_slot_do_all_the_others_do),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("storm", tests, NULL, NULL);
}
