/* SPDX-License-Identifier: MIT */
/*
 * Page hazards under fire: readers follow slots into pages, writers replace slots and reuse pages as soon as the protocol
 * of structs/hazard.h lets them, members are killed all the while. A page's words all say which write they are from; a
 * reader that sees words of two writes, or of another write than its slot names, has read freed memory.
 *
 * Negative controls run the same torture with one step of the protocol left out and must see such reads: without them a
 * green run would prove nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/shmfs.h"
#include "support/toy.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGES	TOY_PAGE_COUNT
#define SLOTS	2
#define WORDS	(TOY_PAGE_BYTES / 8)
#define READERS 2

/* However slow the machine is, it goes on to the next thing then. */
#define RUN_NS UINT64_C(30000000000)

/* What is left out, for the negative controls. */
enum fault {
	NO_FAULT,
	NO_SCAN,    /* the reuser does not look for hazards */
	NO_RECHECK, /* the reader does not load the slot again */
	NO_HAZARD,  /* the reader does not announce itself */
};

struct shared {
	_Atomic int stop;
	_Atomic uint64_t reads;
	_Atomic uint64_t bad_reads;
	_Atomic uint64_t writes;
	_Atomic uint64_t kept; /* pages that a scan found in use */
	enum fault fault;
	int slow; /* readers linger, so that a fault shows soon */
};

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static struct shared *shared;

/* slot = sequence << 8 | page + 1. The sequence is what the page's words say. */
static uint64_t slot_make(uint64_t sequence, unsigned int page)
{
	return sequence << 8 | (page + 1);
}

static struct coshm__a64 *page_words(struct toy_shm *toy, unsigned int page)
{
	return (struct coshm__a64 *)(void *)toy->pages[page];
}

static uint64_t page_offset(const struct coshm__op *op, struct toy_shm *toy, unsigned int page)
{
	return coshm__offset_of(op->segment, toy->pages[page]);
}

static void linger(unsigned int *seed)
{
	*seed = *seed * 1103515245 + 12345;
	if (shared->slow && (*seed >> 16) % 4 == 0)
		sched_yield();
}

static void read_once(struct coshm__op *op, struct toy_shm *toy, unsigned int *seed)
{
	const struct coshm__a64 *slot = &toy->slots[(*seed >> 16) % SLOTS];
	uint64_t seen = coshm__a64_load_acquire(slot), sequence;
	unsigned int page = (unsigned int)(seen & 0xff) - 1;
	int bad = 0;

	if (!seen)
		return;
	linger(seed);
	if (shared->fault != NO_HAZARD)
		coshm__hazard_protect(op, 0, page_offset(op, toy, page));
	if (shared->fault != NO_RECHECK && coshm__hazard_recheck_load(op, slot) != seen) {
		coshm__hazard_clear(op, 0);
		return;
	}
	sequence = coshm__a64_load_relaxed(&page_words(toy, page)[0]);
	linger(seed);
	for (int i = 1; i < WORDS; i++)
		bad |= coshm__a64_load_relaxed(&page_words(toy, page)[i]) != sequence;
	bad |= sequence != seen >> 8;
	coshm__hazard_clear(op, 0);
	atomic_fetch_add_explicit(&shared->reads, 1, memory_order_relaxed);
	if (bad)
		atomic_fetch_add(&shared->bad_reads, 1);
}

static int reader(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg * 7919;

	while (!atomic_load(&shared->stop)) {
		struct coshm__op op;
		struct toy_shm *toy;

		if (toy_begin(&op, token, &toy))
			return 1;
		for (int i = 0; i < 100; i++)
			read_once(&op, toy, &seed);
		coshm__tick(&op, coshm__now_ns(op.segment));
		coshm__op_end(&op);
	}
	return 0;
}

/* Under the lock: finds a page that no slot names and that nobody is in, fills it, publishes it. */
static void write_once(struct coshm__op *op, struct toy_shm *toy, unsigned int *seed)
{
	const uint64_t sequence = coshm__a64_load_relaxed(&toy->left) + 1;
	uint64_t offsets[PAGES], busy = 0, named = 0;
	unsigned int page = 0;

	coshm__a64_store_relaxed(&toy->left, sequence);
	coshm__a64_store_relaxed(&toy->right, sequence);
	for (unsigned int i = 0; i < SLOTS; i++)
		named |= UINT64_C(1) << ((coshm__a64_load_relaxed(&toy->slots[i]) & 0xff));
	if (shared->fault != NO_SCAN) {
		for (unsigned int i = 0; i < PAGES; i++)
			offsets[i] = page_offset(op, toy, i);
		if (coshm__hazard_barrier(op->segment))
			return;
		coshm__hazard_scan(op->segment,
				   COSHM__HAZARD_READ | COSHM__HAZARD_WRITE | COSHM__HAZARD_PIN,
				   offsets, PAGES, &busy);
	}
	/* The page that was published last of all free ones is the most dangerous, so begin there. */
	*seed = *seed * 1103515245 + 12345;
	page = (*seed >> 16) % PAGES;
	for (unsigned int i = 0; i < PAGES; i++, page = (page + 1) % PAGES) {
		if (busy >> page & 1)
			atomic_fetch_add_explicit(&shared->kept, 1, memory_order_relaxed);
		else if (!(named >> (page + 1) & 1))
			break;
	}
	if ((busy >> page & 1) || (named >> (page + 1) & 1))
		return;
	for (int i = 0; i < WORDS; i++)
		coshm__a64_store_relaxed(&page_words(toy, page)[i], sequence);
	coshm__a64_store_seq_cst(&toy->slots[sequence % SLOTS], slot_make(sequence, page));
	atomic_fetch_add_explicit(&shared->writes, 1, memory_order_relaxed);
}

static int writer(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg * 104729;

	while (!atomic_load(&shared->stop)) {
		struct coshm__op op;
		struct toy_shm *toy;

		if (toy_begin(&op, token, &toy))
			return 1;
		if (coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS) == 0) {
			for (int i = 0; i < 20; i++)
				write_once(&op, toy, &seed);
			coshm__rlock_release(&op, &toy->lock);
		}
		coshm__tick(&op, coshm__now_ns(op.segment));
		coshm__op_end(&op);
	}
	return 0;
}

static void start(uint32_t flags)
{
	const struct coshm_segment_config config = {
		.size_bytes = 1 << 20, .member_count_max = 16, .flags = flags};

	test_segment_name(name, "hazard");
	shared = proc_shared_alloc(sizeof(*shared));
	assert_int_equal(coshm_segment_create(name, &config, 0, &segment), 0);
	assert_int_equal(toy_create(segment, "toy", 0, 0, &token), 0);
	assert_true(TOY_PAGE_BYTES % 8 == 0);
}

static void finish(void)
{
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

/* Until there were so many reads and writes, or, with a fault, until it showed. Returns the number of bad reads. */
static uint64_t torture(uint32_t flags, enum fault fault, int kills)
{
	struct proc *procs[READERS + 2];
	const uint64_t start_ns = test_now_ns();
	unsigned int seed = 11;
	uint64_t bad;

	start(flags);
	shared->fault = fault;
	shared->slow = 1;
	for (uintptr_t i = 0; i < READERS + 2; i++)
		procs[i] = proc_spawn(i < READERS ? reader : writer, (void *)(i + 1));
	while (test_now_ns() - start_ns <
	       (fault == NO_FAULT && shared->kept > 0 ? RUN_NS : PROC_DEADLINE_NS)) {
		test_sleep_ns(1000000);
		if (fault == NO_FAULT && !kills && atomic_load(&shared->reads) > 200000 &&
		    atomic_load(&shared->writes) > 20000)
			break;
		if (fault != NO_FAULT && atomic_load(&shared->bad_reads))
			break;
		if (kills > 0) {
			uintptr_t victim =
				(seed = seed * 1103515245 + 12345) >> 16 & (READERS + 2 - 1);

			test_sleep_ns((seed >> 8) % 2000000);
			proc_kill(procs[victim]);
			procs[victim] = proc_spawn(victim < READERS ? reader : writer,
						   (void *)(victim + 1));
			kills--;
		}
	}
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(procs, READERS + 2, PROC_DEADLINE_NS, NULL), 0);
	bad = atomic_load(&shared->bad_reads);
	print_message("# reads %llu, bad %llu, writes %llu, pages kept %llu\n",
		      (unsigned long long)shared->reads, (unsigned long long)bad,
		      (unsigned long long)shared->writes, (unsigned long long)shared->kept);
	assert_true(atomic_load(&shared->writes) > 0);
	assert_true(fault != NO_FAULT || atomic_load(&shared->kept) > 0);
	finish();
	return bad;
}

static void light_readers_never_see_a_reused_page(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_membarrier());
	assert_int_equal(torture(0, NO_FAULT, 0), 0);
}

static void fenced_readers_never_see_a_reused_page(void **state)
{
	(void)state;
	assert_int_equal(torture(COSHM_SEGMENT_FENCED, NO_FAULT, 0), 0);
}

static void neither_while_members_are_killed(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_membarrier());
	assert_int_equal(torture(0, NO_FAULT, 300), 0);
	assert_int_equal(torture(COSHM_SEGMENT_FENCED, NO_FAULT, 300), 0);
}

static void control_without_scan_is_red(void **state)
{
	(void)state;
	assert_true(torture(COSHM_SEGMENT_FENCED, NO_SCAN, 0) > 0);
}

static void control_without_recheck_is_red(void **state)
{
	(void)state;
	assert_true(torture(COSHM_SEGMENT_FENCED, NO_RECHECK, 0) > 0);
}

static void control_without_hazard_is_red(void **state)
{
	(void)state;
	assert_true(torture(COSHM_SEGMENT_FENCED, NO_HAZARD, 0) > 0);
}

/* --- what a scan sees ------------------------------------------------------------------------------------------- */

static void scan_sees_each_kind_at_its_page_only(void **state)
{
	struct coshm__op op;
	uint64_t pages[64], busy;
	int pin;

	(void)state;
	start(0);
	for (int i = 0; i < 64; i++)
		pages[i] = (uint64_t)(i + 1) * 4096;
	assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
	for (unsigned int i = 0; i < COSHM__HAZARD_READS; i++)
		coshm__hazard_protect(&op, i, pages[i * 2]);
	for (unsigned int i = 0; i < COSHM__HAZARD_WRITES; i++)
		coshm__hazard_write(&op, i, pages[20 + i]);
	pin = coshm__pin_set(&op, pages[63]);
	assert_true(pin >= 0);
	coshm__hazard_scan(op.segment, COSHM__HAZARD_READ, pages, 64, &busy);
	assert_int_equal(busy, 0x55);
	coshm__hazard_scan(op.segment, COSHM__HAZARD_WRITE, pages, 64, &busy);
	assert_int_equal(busy, UINT64_C(3) << 20);
	coshm__hazard_scan(op.segment, COSHM__HAZARD_PIN, pages, 64, &busy);
	assert_true(busy == UINT64_C(1) << 63);
	coshm__hazard_scan(op.segment, 7, pages, 64, &busy);
	assert_true(busy == (0x55 | UINT64_C(3) << 20 | UINT64_C(1) << 63));
	coshm__hazard_scan(op.segment, 7, pages + 1, 1, &busy);
	assert_int_equal(busy, 0);
	coshm__hazard_scan(op.segment, 7, pages, 0, &busy);
	assert_int_equal(busy, 0);
	for (unsigned int i = 0; i < COSHM__HAZARD_READS; i++)
		coshm__hazard_clear(&op, i);
	for (unsigned int i = 0; i < COSHM__HAZARD_WRITES; i++)
		coshm__hazard_write_clear(&op, i);
	assert_int_equal(coshm__pin_clear(&op, (uint32_t)pin, pages[63]), 0);
	coshm__hazard_scan(op.segment, 7, pages, 64, &busy);
	assert_int_equal(busy, 0);
	coshm__op_end(&op);
	finish();
}

static int protect_and_stay(void *arg)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT))
		return 1;
	coshm__hazard_protect(&op, 0, 4096);
	atomic_store((_Atomic int *)arg, 1);
	for (;;)
		pause();
}

static void stopped_reader_keeps_its_page_and_a_dead_one_does_not(void **state)
{
	const uint64_t pages[2] = {4096, 8192};
	_Atomic int *ready = proc_shared_alloc(4096);
	struct proc *child;
	uint64_t busy;

	(void)state;
	start(0);
	child = proc_spawn(protect_and_stay, (void *)ready);
	while (!atomic_load(ready))
		test_sleep_ns(200000);
	assert_int_equal(proc_pause(child), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm__hazard_barrier(toy_segment(segment)), 0);
	coshm__hazard_scan(toy_segment(segment), COSHM__HAZARD_READ, pages, 2, &busy);
	assert_int_equal(busy, 1);
	proc_kill(child);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	coshm__hazard_scan(toy_segment(segment), COSHM__HAZARD_READ, pages, 2, &busy);
	assert_int_equal(busy, 0);
	finish();
}

static int keep_and_die(void *arg)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT))
		return 1;
	for (int i = 0; i < COSHM__PIN_COUNT; i++)
		if (coshm__pin_set(&op, 4096) != i)
			return 2;
	coshm__hazard_protect(&op, 0, 4096);
	(void)arg;
	kill(getpid(), SIGKILL);
	return 3;
}

static int keeps_nothing(void *arg)
{
	const uint64_t page = 4096;
	struct coshm__op op;
	uint64_t busy;

	(void)arg;
	if (coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT)) /* joins, in slots of the dead */
		return 1;
	coshm__hazard_scan(op.segment, COSHM__HAZARD_READ | COSHM__HAZARD_PIN, &page, 1, &busy);
	coshm__op_end(&op);
	if (busy)
		return 2;
	return coshm_segment_detach(segment) ? 3 : 0;
}

static void next_member_in_a_slot_inherits_no_pin_and_no_hazard(void **state)
{
	(void)state;
	start(0);
	for (int i = 0; i < 20; i++) { /* more often than there are slots */
		assert_int_equal(proc_collect(proc_spawn(keep_and_die, NULL), PROC_DEADLINE_NS),
				 -SIGKILL);
		assert_int_equal(coshm_segment_reap(segment, NULL), 0);
		assert_int_equal(proc_collect(proc_spawn(keeps_nothing, NULL), PROC_DEADLINE_NS),
				 0);
	}
	finish();
}

static void pins_and_hazards_of_the_dead_keep_nothing(void **state)
{
	const uint64_t page = 4096;
	uint64_t busy = 1;

	(void)state;
	start(0);
	assert_int_equal(proc_collect(proc_spawn(keep_and_die, NULL), PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	/* Nobody has taken its slots since. */
	coshm__hazard_scan(toy_segment(segment), COSHM__HAZARD_READ | COSHM__HAZARD_PIN, &page, 1,
			   &busy);
	assert_int_equal(busy, 0);
	finish();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scan_sees_each_kind_at_its_page_only),
		cmocka_unit_test(stopped_reader_keeps_its_page_and_a_dead_one_does_not),
		cmocka_unit_test(next_member_in_a_slot_inherits_no_pin_and_no_hazard),
		cmocka_unit_test(pins_and_hazards_of_the_dead_keep_nothing),
		cmocka_unit_test(light_readers_never_see_a_reused_page),
		cmocka_unit_test(fenced_readers_never_see_a_reused_page),
		cmocka_unit_test(neither_while_members_are_killed),
		cmocka_unit_test(control_without_scan_is_red),
		cmocka_unit_test(control_without_recheck_is_red),
		cmocka_unit_test(control_without_hazard_is_red),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("hazard", tests, NULL, NULL);
}
