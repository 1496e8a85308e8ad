/* SPDX-License-Identifier: MIT */
/*
 * The cache's own reading code, overtaken: in front of each of its loads and hazards, once, another thread replaces the very
 * value, once, a few times, or until every page has another life. The key is there all the while, so it is found, and what
 * is read is one of its values, whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic.h"

static void stop_before(void);

#define coshm__a64_load_relaxed(a)	(stop_before(), coshm__a64_load_relaxed(a))
#define coshm__a64_load_acquire(a)	(stop_before(), coshm__a64_load_acquire(a))
#define coshm__a64_load_seq_cst(a)	(stop_before(), coshm__a64_load_seq_cst(a))
#define coshm__a64_store_relaxed(a, v)	(stop_before(), coshm__a64_store_relaxed(a, v))
#define coshm__a64_store_release(a, v)	(stop_before(), coshm__a64_store_release(a, v))
#define coshm__a64_store_seq_cst(a, v)	(stop_before(), coshm__a64_store_seq_cst(a, v))
#define coshm__a64_cas_seq_cst(a, e, d) (stop_before(), coshm__a64_cas_seq_cst(a, e, d))

#include "modules/cache/copy.c"
#include "modules/cache/get.c"
#include "modules/cache/index.c"

#include "support/procs.h"

#include <coshm/coshm.h>

enum { VALUE_MAX = 30000 };

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static char name[TEST_SEGMENT_NAME_SIZE];

/* --- values: each version has a length and bytes of its own ---------------------------------------------------- */

static int is_large;
static uint32_t last_version;

static size_t size_of(uint32_t version)
{
	return is_large ? 17000 + version % 7 * 300 : 300 + version % 7 * 40;
}

static int replace(void)
{
	static unsigned char value[VALUE_MAX];
	const uint32_t version = ++last_version;

	memcpy(value, &version, sizeof(version));
	for (size_t i = sizeof(version); i < size_of(version); i++)
		value[i] = (unsigned char)(version * 7 + i);
	return coshm_cache_set(cache, "k", 1, value, size_of(version), 0);
}

static int is_whole(const unsigned char *value, size_t size)
{
	uint32_t version;

	memcpy(&version, value, sizeof(version));
	if (version > last_version || size != size_of(version))
		return 0;
	for (size_t i = sizeof(version); i < size; i++)
		if (value[i] != (unsigned char)(version * 7 + i))
			return 0;
	return 1;
}

/* --- whoever overtakes: a thread, so that it has hazards of its own -------------------------------------------- */

static _Thread_local int is_operation;
static int stops, stop_at = -1;
static int times; /* that the value is replaced; 0: the thread ends */
static int failures;
static sem_t go_on, went_on;

static void *others(void *arg)
{
	while (sem_wait(&go_on) == 0 && times) {
		for (int i = 0; i < times; i++)
			failures += replace() != 0;
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

/* --- operations ------------------------------------------------------------------------------------------------ */

static void by_get(void)
{
	static unsigned char value[VALUE_MAX];
	size_t size = sizeof(value);

	assert_int_equal(coshm_cache_get(cache, "k", 1, value, &size, NULL), 1);
	assert_true(is_whole(value, size));
}

static void by_get_with_its_version(void)
{
	static unsigned char value[VALUE_MAX];
	struct coshm_cache_item item;
	size_t size = sizeof(value);

	assert_int_equal(coshm_cache_get(cache, "k", 1, value, &size, &item), 1);
	assert_true(is_whole(value, size));
	assert_int_equal(item.value_size_bytes, size);
}

static void by_exists(void)
{
	assert_int_equal(coshm_cache_exists(cache, "k", 1), 1);
}

/* As members read that may not write: a copy, checked afterwards. */
static void by_copy(void)
{
	struct coshm__cache_copy copy;
	struct coshm__cache *local;
	struct coshm__op op;
	int found;

	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
	coshm__op_end(&op);
	found = coshm__cache_copy_find(local, coshm__cache_hash(local, "k", 1), "k", 1, 1, &copy);
	if (found == -EAGAIN)
		return;
	assert_int_equal(found, 1);
	assert_true(is_whole(copy.value, copy.value_bytes));
	free(copy.key);
}

static void overtaken_everywhere(void (*operation)(void))
{
	static const int all_times[] = {1, 2, 3, 7, 40, 41, 700};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, others, NULL), 0);
	for (is_large = 0; is_large < 2; is_large++) {
		assert_int_equal(replace(), 0);
		for (size_t t = 0; t < sizeof(all_times) / sizeof(all_times[0]); t++) {
			times = is_large && all_times[t] > 41 ? 43 : all_times[t];
			/* Behind the first few hundred there are only words of the value. */
			for (int at = 0;; at += at < 300 ? 1 : 97) {
				stops = 0;
				stop_at = at;
				is_operation = 1;
				operation();
				is_operation = 0;
				if (stops <= at)
					break;
			}
		}
	}
	times = 0;
	sem_post(&go_on);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(failures, 0);
}

static void get_overtaken_at_any_load_finds_a_whole_value(void **state)
{
	(void)state;
	overtaken_everywhere(by_get);
}

static void get_with_its_version_overtaken_finds_a_whole_value(void **state)
{
	(void)state;
	overtaken_everywhere(by_get_with_its_version);
}

static void exists_overtaken_finds_the_key(void **state)
{
	(void)state;
	overtaken_everywhere(by_exists);
}

static void copy_overtaken_is_of_a_whole_value(void **state)
{
	(void)state;
	overtaken_everywhere(by_copy);
}

/* Nothing is evicted, so the key is there all the while; few pages, so they come round soon. */
static int set_up(void **state)
{
	const struct coshm_segment_config memory = {.size_bytes = 4 << 20};
	const struct coshm_cache_config config = {.size_bytes = 256 << 10,
						  .policy = COSHM_CACHE_NONE,
						  .average_item_bytes = 1000,
						  .lanes = 1};

	(void)state;
	test_segment_name(name, "cache-overtaken");
	return coshm_segment_create(name, &memory, 0, &segment) ||
	       coshm_cache_create(segment, "c", &config, 0, &cache) || sem_init(&go_on, 0, 0) ||
	       sem_init(&went_on, 0, 0);
}

static int tear_down(void **state)
{
	(void)state;
	return coshm_segment_detach(segment) || coshm_segment_unlink(name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(get_overtaken_at_any_load_finds_a_whole_value),
		cmocka_unit_test(get_with_its_version_overtaken_finds_a_whole_value),
		cmocka_unit_test(exists_overtaken_finds_the_key),
		cmocka_unit_test(copy_overtaken_is_of_a_whole_value),
	};

	return cmocka_run_group_tests_name("cache, overtaken", tests, set_up, tear_down);
}
