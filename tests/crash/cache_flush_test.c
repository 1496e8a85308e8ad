/* SPDX-License-Identifier: MIT */
/*
 * P3 of the cache, where a flush comes in between: what an operation returned holds for some order of it, the flush and
 * the operations of others. Each time a writer is stopped in the middle, the flush is made, and the writer goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <coshm/coshm.h>

#include "base/crash.h"
#include "support/procs.h"

#include <signal.h>
#include <string.h>

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static char segment_name[TEST_SEGMENT_NAME_SIZE];

static int set_up(void **state)
{
	const struct coshm_segment_config memory = {.size_bytes = 2 << 20};
	const struct coshm_cache_config config = {.size_bytes = 1 << 20};

	(void)state;
	test_segment_name(segment_name, "cache-flush");
	return coshm_segment_create(segment_name, &memory, 0, &segment) ||
	       coshm_cache_create(segment, "c", &config, 0, &cache);
}

static int tear_down(void **state)
{
	(void)state;
	return coshm_segment_detach(segment) || coshm_segment_unlink(segment_name);
}

/* 1 hit, and it is @text; 0 miss; else something else */
static int finds(const char *text)
{
	char value[32];
	size_t size = sizeof(value);
	int result = coshm_cache_get(cache, "k", 1, value, &size, NULL);

	if (result != 1)
		return result;
	return size == strlen(text) && memcmp(value, text, size) == 0 ? 1 : 2;
}

static struct proc *stopped(int (*action)(void *))
{
	struct proc *child = proc_spawn(action, NULL);

	assert_int_equal(proc_wait_stopped(child, PROC_DEADLINE_NS), 1);
	return child;
}

static int result_of(struct proc *child)
{
	proc_resume(child);
	return proc_collect(child, PROC_DEADLINE_NS);
}

/* Its place in the log is ready, the stripe is not locked yet: the third lock, after the stripe's and the lane's. */
static int add_one(void *unused)
{
	int64_t value = 0;

	(void)unused;
	/* A member first, with a thread slot. */
	if (coshm_cache_exists(cache, "k", 1) != 0)
		return 100;
	coshm__crash_arm(COSHM__CRASH_RLOCK_NOTED, SIGSTOP, 3);
	return coshm_cache_incr(cache, "k", 1, 1, 0, 0, &value) ? 101 : (int)value;
}

static void incr_that_counts_from_the_flush_on_is_found_after_it(void **state)
{
	struct proc *child = stopped(add_one);
	int64_t value;

	(void)state;
	assert_int_equal(coshm_cache_incr(cache, "k", 1, 1, 0, 0, &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(coshm_cache_flush(cache), 0);
	/* Not 2, so it comes behind the flush. */
	assert_int_equal(result_of(child), 1);
	assert_int_equal(finds("1"), 1);
}

static void incr_of_a_key_that_is_gone_altogether_is_found_after_the_flush(void **state)
{
	struct proc *child = stopped(add_one);
	int64_t value;

	(void)state;
	assert_int_equal(coshm_cache_incr(cache, "k", 1, 1, 0, 0, &value), 0);
	assert_int_equal(coshm_cache_flush(cache), 0);
	/* Forgotten already, but it had a slot until now. */
	assert_int_equal(coshm_cache_delete(cache, "k", 1), 0);
	assert_int_equal(result_of(child), 1);
	assert_int_equal(finds("1"), 1);
}

static int replace(void *unused)
{
	(void)unused;
	coshm__crash_arm(COSHM__CRASH_cache_judged, SIGSTOP, 1);
	return coshm_cache_replace(cache, "k", 1, "new", 3, 0);
}

static void what_replaced_a_value_is_flushed_with_it(void **state)
{
	struct proc *child;

	(void)state;
	assert_int_equal(coshm_cache_set(cache, "k", 1, "old", 3, 0), 0);
	child = stopped(replace);
	assert_int_equal(coshm_cache_flush(cache), 0);
	/* It found a value to replace, so it came before the flush. */
	assert_int_equal(result_of(child), 1);
	assert_int_equal(finds("new"), 0);
}

static int set(void *unused)
{
	(void)unused;
	coshm__crash_arm(COSHM__CRASH_cache_judged, SIGSTOP, 1);
	return coshm_cache_set(cache, "k", 1, "new", 3, 0);
}

static void set_over_a_value_from_behind_the_flush_stays(void **state)
{
	struct proc *child;

	(void)state;
	assert_int_equal(coshm_cache_set(cache, "k", 1, "old", 3, 0), 0);
	child = stopped(set);
	assert_int_equal(coshm_cache_flush(cache), 0);
	assert_int_equal(coshm_cache_set(cache, "k", 1, "newer", 5, 0), 0);
	assert_int_equal(result_of(child), 0);
	/* Whichever came last: nothing was flushed since. */
	assert_true(finds("new") == 1 || finds("newer") == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			incr_that_counts_from_the_flush_on_is_found_after_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			incr_of_a_key_that_is_gone_altogether_is_found_after_the_flush, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(what_replaced_a_value_is_flushed_with_it, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(set_over_a_value_from_behind_the_flush_stays,
						set_up, tear_down),
	};

	return cmocka_run_group_tests_name("crash: flush", tests, NULL, NULL);
}
