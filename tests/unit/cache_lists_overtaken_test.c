/* SPDX-License-Identifier: MIT */
/*
 * The cache's recency lists and groups of pages, overtaken: in front of each access of their code, once, another thread
 * goes on with the very node, slot or page. Lists and groups stay whole, and what is in use stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic.h"

static void stop_before(void);

#define coshm__a64_load_relaxed(a)	(stop_before(), coshm__a64_load_relaxed(a))
#define coshm__a64_load_acquire(a)	(stop_before(), coshm__a64_load_acquire(a))
#define coshm__a64_load_seq_cst(a)	(stop_before(), coshm__a64_load_seq_cst(a))
#define coshm__a64_cas_seq_cst(a, e, d) (stop_before(), coshm__a64_cas_seq_cst(a, e, d))
#define coshm__a64_cas_acq_rel(a, e, d) (stop_before(), coshm__a64_cas_acq_rel(a, e, d))
#define coshm__a32_load_relaxed(a)	(stop_before(), coshm__a32_load_relaxed(a))

#include "modules/cache/cache.h"

#define coshm__rlock_acquire(o, l, ns) (stop_before(), coshm__rlock_acquire(o, l, ns))

#include "modules/cache/large.c"
#include "modules/cache/lru.c"

#include "support/procs.h"

#include <coshm/coshm.h>
#include <coshm/inspect.h>

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static struct coshm__cache *local;
static char name[TEST_SEGMENT_NAME_SIZE];

/* --- whoever overtakes: a thread, so that it has hazards of its own -------------------------------------------- */

static _Thread_local int is_operation;
static int stops, stop_at;
static void (*others)(void);
static int trouble;
static int blocked; /* by a lock that the operation holds: then nothing is to be checked */
static sem_t go_on, went_on;
static int is_over;

static void *overtake(void *arg)
{
	while (sem_wait(&go_on) == 0 && !is_over) {
		others();
		sem_post(&went_on);
	}
	return arg;
}

static void stop_before(void)
{
	if (!is_operation || stops++ != stop_at)
		return;
	sem_post(&go_on);
	sem_wait(&went_on);
}

static int set_bytes(uint32_t key, size_t size)
{
	static const unsigned char value[20000];

	return coshm_cache_set(cache, &key, sizeof(key), value, size, 0);
}

static int set(uint32_t key)
{
	return set_bytes(key, 5);
}

static int has(uint32_t key)
{
	return coshm_cache_exists(cache, &key, sizeof(key)) == 1;
}

static void set_or_be_blocked(uint32_t key)
{
	int error = set(key);

	blocked |= error == -EAGAIN;
	trouble += error != 0 && error != -EAGAIN;
}

static int remove_key(uint32_t key)
{
	return coshm_cache_delete(cache, &key, sizeof(key));
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	(void)level;
	fprintf(stderr, "# %s: %s\n", where, text);
}

static int is_sound(void)
{
	struct coshm_verify_result result;

	return coshm_inspect_verify(segment, NULL, print_finding, NULL, &result) == 0 &&
	       result.damage == 0;
}

static int make(const struct coshm_cache_config *config)
{
	const struct coshm_segment_config memory = {.size_bytes = 4 << 20};
	struct coshm__op op;

	if (coshm_segment_create(name, &memory, 0, &segment) ||
	    coshm_cache_create(segment, "c", config, 0, &cache) ||
	    coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	local = op.handle->local;
	coshm__op_end(&op);
	return 0;
}

static void drop(void)
{
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

static void overtaken_everywhere(const struct coshm_cache_config *config, void (*set_up)(void),
				 void (*operation)(void), void (*check)(void))
{
	pthread_t thread;
	uint64_t count;
	int was_stopped = 1;

	is_over = 0;
	assert_int_equal(pthread_create(&thread, NULL, overtake, NULL), 0);
	for (int at = 0; was_stopped; at++) {
		assert_int_equal(make(config), 0);
		trouble = blocked = 0;
		set_up();
		stops = 0;
		stop_at = at;
		is_operation = 1;
		operation();
		is_operation = 0;
		was_stopped = stops > at;
		assert_int_equal(trouble, 0);
		if (was_stopped && !blocked)
			check();
		assert_true(is_sound());
		/* A broken list shows when it is used. */
		for (uint32_t key = 1000; key < 1100; key++)
			assert_int_equal(set(key), 0);
		assert_true(is_sound());
		assert_int_equal(coshm_cache_count(cache, &count), 0);
		if (config->max_entries)
			assert_true(count <= config->max_entries);
		drop();
	}
	is_over = 1;
	sem_post(&go_on);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* --- recency lists ----------------------------------------------------------------------------------------------- */

static const struct coshm_cache_config one_list = {
	.size_bytes = 1 << 20, .policy = COSHM_CACHE_LRU, .lanes = 1, .max_entries = 4};

static void nothing_to_check(void)
{
}

static void four_keys(void)
{
	for (uint32_t key = 0; key < 4; key++)
		trouble += set(key) != 0;
}

static void touch_second(void)
{
	static unsigned char value[8];
	const uint32_t key = 1;
	size_t size = sizeof(value);

	trouble += coshm_cache_get(cache, &key, sizeof(key), value, &size, NULL) < 0;
}

static void delete_second(void)
{
	trouble += remove_key(1) < 0;
}

static void delete_second_and_set_others(void)
{
	delete_second();
	set_or_be_blocked(4);
	set_or_be_blocked(5);
}

static void others_are_there(void)
{
	assert_true(has(4));
	assert_true(has(5));
}

static void touch_does_not_move_a_node_of_another_item(void **state)
{
	(void)state;
	others = delete_second;
	overtaken_everywhere(&one_list, four_keys, touch_second, nothing_to_check);
	others = delete_second_and_set_others;
	overtaken_everywhere(&one_list, four_keys, touch_second, others_are_there);
}

static void delete_first(void)
{
	trouble += remove_key(0) < 0;
}

/* Enough for each node to be another one's. */
static void set_many_others(void)
{
	for (uint32_t key = 6; key < 6 + 2 * local->list_nodes && !blocked; key++)
		set_or_be_blocked(key);
	set_or_be_blocked(4);
	set_or_be_blocked(5);
}

static void deleting_does_not_give_away_a_node_of_another_item(void **state)
{
	(void)state;
	others = set_many_others;
	overtaken_everywhere(&one_list, four_keys, delete_first, others_are_there);
}

/* Of one home bucket, but of different lists. */
static uint32_t oldest, of_other_list, further[64], further_count;

static uint64_t hash_of(uint32_t key)
{
	return coshm__cache_hash(local, &key, sizeof(key));
}

static void full_list(void)
{
	uint64_t hash;

	oldest = 0;
	hash = hash_of(oldest);
	for (of_other_list = 1;
	     coshm__cache_home(local, hash_of(of_other_list)) != coshm__cache_home(local, hash) ||
	     coshm__cache_list(local, hash_of(of_other_list)) == coshm__cache_list(local, hash);
	     of_other_list++)
		;
	further_count = 0;
	for (uint32_t key = of_other_list + 1; further_count < 64; key++)
		if (coshm__cache_list(local, hash_of(key)) == coshm__cache_list(local, hash) &&
		    coshm__cache_home(local, hash_of(key)) != coshm__cache_home(local, hash))
			further[further_count++] = key;
	trouble += set(oldest) != 0;
	for (uint32_t i = 0; i + 1 < local->list_nodes && i < 63; i++)
		trouble += set(further[i]) != 0;
}

static void set_one_more(void)
{
	trouble += set(further[63]) != 0;
}

static void put_another_one_in_its_slot(void)
{
	trouble += remove_key(oldest) < 0;
	set_or_be_blocked(of_other_list);
}

static void other_one_is_there(void)
{
	assert_true(has(of_other_list));
}

static void item_of_another_node_is_not_pushed_out(void **state)
{
	static const struct coshm_cache_config two_lists = {
		.size_bytes = 1 << 20, .policy = COSHM_CACHE_LRU, .lanes = 2, .max_entries = 16};

	(void)state;
	others = put_another_one_in_its_slot;
	overtaken_everywhere(&two_lists, full_list, set_one_more, other_one_is_there);
}

/* --- groups of pages: large values --------------------------------------------------------------------------------- */

enum { LARGE = 100000 };

static const struct coshm_cache_config some_pages = {
	.size_bytes = 1 << 20, .policy = COSHM_CACHE_NONE, .lanes = 1};
static struct coshm__cache_group group;
static uint32_t leader;

static int set_large(void)
{
	static unsigned char value[LARGE];

	memset(value, 7, sizeof(value));
	return coshm_cache_set(cache, "large", 5, value, sizeof(value), 0);
}

static int large_is_whole(void)
{
	static unsigned char value[LARGE];
	size_t size = sizeof(value);

	if (coshm_cache_get(cache, "large", 5, value, &size, NULL) != 1 || size != sizeof(value))
		return 0;
	for (size_t i = 0; i < size; i++)
		if (value[i] != 7)
			return 0;
	return 1;
}

/* A group that is about to be published. */
static void take_group(struct coshm__op *op)
{
	assert_int_equal(coshm__cache_group_take(op, local, LARGE, 0, &group), 0);
	assert_int_equal(coshm__cache_group_adopt(op, local, &group, COSHM__CACHE_SMALL), 0);
	leader = group.pages[0];
}

static void group_whose_builder_lives_stays(void **state)
{
	struct coshm__op op;

	(void)state;
	assert_int_equal(make(&some_pages), 0);
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	take_group(&op);
	assert_int_equal(coshm__cache_group_check(&op, local, leader), 1);
	for (uint32_t i = 0; i < group.page_count; i++)
		assert_int_equal(coshm__cache_page_load(local, group.pages[i]), group.words[i]);
	coshm__cache_group_undo(&op, local, &group);
	coshm__op_end(&op);
	assert_true(is_sound());
	drop();
}

/* Nothing names it, and nobody will say so: garbage. */
static void leave_group(void)
{
	struct coshm__op op;

	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	take_group(&op);
	coshm__cache_group_published(local, &group);
	coshm__cache_group_free(&group);
	coshm__op_end(&op);
}

static void check_group(void)
{
	struct coshm__op op;

	trouble += coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE) != 0;
	coshm__cache_group_check(&op, local, leader);
	coshm__op_end(&op);
}

static void retire_group_and_set_large(void)
{
	struct coshm__op op;

	trouble += coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE) != 0;
	coshm__cache_group_check(&op, local, leader);
	while (coshm__cache_page_settle(&op, local) > 0)
		;
	coshm__op_end(&op);
	trouble += set_large() != 0;
}

/* Whatever is free is written to first. */
static void large_is_there(void)
{
	uint32_t key = 2000;

	while (set_bytes(key, 20000) == 0)
		key++;
	while (key-- > 2000)
		assert_int_equal(remove_key(key), 1);
	assert_true(large_is_whole());
}

static void group_in_the_place_of_garbage_stays(void **state)
{
	(void)state;
	others = retire_group_and_set_large;
	overtaken_everywhere(&some_pages, leave_group, check_group, large_is_there);
}

static int set_up_all(void **state)
{
	(void)state;
	test_segment_name(name, "cache-lists");
	return sem_init(&go_on, 0, 0) || sem_init(&went_on, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(touch_does_not_move_a_node_of_another_item),
		cmocka_unit_test(deleting_does_not_give_away_a_node_of_another_item),
		cmocka_unit_test(item_of_another_node_is_not_pushed_out),
		cmocka_unit_test(group_whose_builder_lives_stays),
		cmocka_unit_test(group_in_the_place_of_garbage_stays),
	};

	return cmocka_run_group_tests_name("cache lists, overtaken", tests, set_up_all, NULL);
}
