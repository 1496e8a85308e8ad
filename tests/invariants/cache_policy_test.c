/* SPDX-License-Identifier: MIT */
/*
 * cache.h P5, P7, N2 and the policies: what fits, what goes, and that nothing goes without need.
 */
#include "invariants/crowd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <coshm/cache.h>

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	_Atomic uint64_t stored;
};

static struct books *books_new(const char *tag, uint64_t size_bytes,
			       const struct coshm_cache_config *config)
{
	struct books *books = proc_shared_alloc(sizeof(*books));

	books->segment = segment_for_test(books->name, tag, size_bytes + (1 << 20));
	assert_int_equal(coshm_cache_create(books->segment, "c", config, 0, &books->cache), 0);
	return books;
}

static void books_close(struct books *books)
{
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int set_number(struct coshm_cache *cache, uint32_t key, size_t size_bytes)
{
	static unsigned char value[1 << 20];

	pattern_fill(key, value, size_bytes);
	return coshm_cache_set(cache, &key, sizeof(key), value, size_bytes, 0);
}

static int has(struct coshm_cache *cache, uint32_t key)
{
	return coshm_cache_exists(cache, &key, sizeof(key));
}

/* Any item up to 1/8, at any time. ----------------------------------------------------------- */

static void items_of_every_size_up_to_an_eighth_fit(uint32_t policy, uint64_t cache_bytes)
{
	const struct coshm_cache_config config = {
		.struct_size_bytes = sizeof(config), .size_bytes = cache_bytes, .policy = policy};
	struct books *books = books_new("cache-eighth", cache_bytes, &config);
	static unsigned char value[1 << 20], seen[1 << 20];
	struct coshm_cache_config actual;
	uint64_t seed = random_seed(NULL);
	const uint64_t start_ns = test_now_ns();
	size_t item_max_bytes;

	memset(&actual, 0, sizeof(actual));
	actual.struct_size_bytes = sizeof(actual);
	assert_int_equal(coshm_cache_config(books->cache, &actual), 0);
	assert_true(actual.size_bytes <= cache_bytes && actual.lanes >= 1);
	/* Key and value. */
	item_max_bytes = actual.size_bytes / 8;
	assert_true(item_max_bytes <= sizeof(value));
	for (uint32_t i = 0; i < 20000 && test_now_ns() - start_ns < test_run_ns() / 4; i++) {
		/* Phases of small, of middle and of huge ones, and all mixed: each leaves holes
		 * that do not suit the next. */
		static const uint32_t parts[] = {1, 400, 40, 3, 1};
		const size_t limit = item_max_bytes / parts[i / 500 % 5];
		const size_t size_bytes = random_below(&seed, 10)
						  ? random_below(&seed, limit - sizeof(i) + 1)
						  : limit - sizeof(i);
		size_t seen_bytes = sizeof(seen);
		const uint32_t key = (uint32_t)random_below(&seed, 3000);

		pattern_fill(i, value, size_bytes);
		assert_int_equal(
			coshm_cache_set(books->cache, &key, sizeof(key), value, size_bytes, 0), 0);
		/* Just stored, and nobody else is there. */
		assert_int_equal(
			coshm_cache_get(books->cache, &key, sizeof(key), seen, &seen_bytes, NULL),
			1);
		assert_int_equal(seen_bytes, size_bytes);
		assert_true(pattern_matches(i, seen, size_bytes));
		if (i % 3 == 0)
			assert_in_range(coshm_cache_delete(books->cache, &i, sizeof(i)), 0, 1);
	}
	/* Too large is told, and changes nothing. */
	assert_int_equal(set_number(books->cache, 7, 10), 0);
	assert_int_equal(set_number(books->cache, 7, item_max_bytes + 1), -E2BIG);
	assert_int_equal(has(books->cache, 7), 1);
	books_close(books);
}

static void items_up_to_an_eighth_always_fit(void **state)
{
	(void)state;
	items_of_every_size_up_to_an_eighth_fit(COSHM_CACHE_S3FIFO, 256 << 10);
	items_of_every_size_up_to_an_eighth_fit(COSHM_CACHE_S3FIFO, 1 << 20);
	items_of_every_size_up_to_an_eighth_fit(COSHM_CACHE_S3FIFO, 5000001);
	items_of_every_size_up_to_an_eighth_fit(COSHM_CACHE_LRU, 256 << 10);
	items_of_every_size_up_to_an_eighth_fit(COSHM_CACHE_LRU, 3 << 20);
}

static int store_huge_ones(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	static unsigned char value[128 << 10];
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(coshm_cache_open(books->segment, "c", &cache), 0);
	while (!crowd_is_over()) {
		const uint32_t key = (uint32_t)random_below(&seed, 20);
		const size_t size_bytes =
			random_below(&seed, 3) ? sizeof(value) - sizeof(key)
					       : random_below(&seed, sizeof(value) - sizeof(key));

		const int rc = coshm_cache_set(cache, &key, sizeof(key), value, size_bytes, 0);

		/* Where many wait for few CPUs a lock can be busy for 100 ms. */
		PROMISE(rc == 0 || rc == -EAGAIN);
		books->stored += rc == 0;
	}
	return 0;
}

/* Each key is of one process, which replaces it by what is no larger, and never finds the cache full. */
#define REPLACERS  3
#define PAGE_LEAST (32 << 10)

/* -EAGAIN is no answer: on a busy machine the call's patience may end before its work does. */
static int set_patiently(struct books *books, uint32_t key, const void *value, size_t size)
{
	int rc;

	do
		rc = coshm_cache_set(books->cache, &key, sizeof(key), value, size, 0);
	while (rc == -EAGAIN);
	return rc;
}

static void full_cache_without_eviction_replaces_by_what_is_no_larger(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 2 << 20,
						  .lanes = 2,
						  .policy = COSHM_CACHE_NONE};
	static unsigned char value[PAGE_LEAST], seen[PAGE_LEAST];
	static size_t sizes[20000];
	struct books *books = books_new("cache-full", 2 << 20, &config);
	uint64_t seed = random_seed(NULL);
	uint32_t count = 0;
	int rc = 0;

	(void)state;
	/* To the brim: what does not fit is tried in ever smaller pieces. */
	for (size_t most = 31000; most > 16; most = rc ? most / 2 : most) {
		sizes[count] = random_below(&seed, random_below(&seed, 10) ? most / 10 + 1 : most);
		pattern_fill(0, value, sizes[count]);
		rc = set_patiently(books, count, value, sizes[count]);
		assert_true(rc == 0 || rc == -ENOSPC);
		count += rc == 0;
		assert_true(count < sizeof(sizes) / sizeof(sizes[0]));
	}
	for (uint32_t lap = 0; lap < 50 * count; lap++) {
		const uint32_t key = (uint32_t)random_below(&seed, count);
		size_t seen_bytes = sizeof(seen);

		if (random_below(&seed, 100) == 0 && sizes[key])
			sizes[key]--;
		pattern_fill(lap, value, sizes[key]);
		assert_int_equal(set_patiently(books, key, value, sizes[key]), 0);
		assert_int_equal(
			coshm_cache_get(books->cache, &key, sizeof(key), seen, &seen_bytes, NULL),
			1);
		assert_int_equal(seen_bytes, sizes[key]);
		assert_true(pattern_matches(lap, seen, seen_bytes));
	}
	books_close(books);
}

/* Four times an eighth at once. Those killed at it must not keep what they had taken. */
static void huge_items_fit_from_many_processes(void **state)
{
	const struct coshm_cache_config config = {
		.struct_size_bytes = sizeof(config), .size_bytes = 1 << 20, .lanes = 2};
	struct books *books = books_new("cache-huge", 1 << 20, &config);
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 4, store_huge_ones, books, NULL);
	crowd_torment(&crowd, 0, 4, CROWD_KILL, test_run_ns());
	CROWD_UNTIL(books->stored > 100);
	crowd_finish(&crowd);
	assert_true(books->stored > 100);
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	for (uint32_t key = 0; key < 32; key++)
		assert_int_equal(set_number(books->cache, key, (128 << 10) - sizeof(key)), 0);
	books_close(books);
}

static void nothing_goes_while_there_is_room(void **state)
{
	static const uint32_t policies[] = {COSHM_CACHE_S3FIFO, COSHM_CACHE_LRU, COSHM_CACHE_NONE};
	const uint64_t size_bytes = 8 << 20;

	(void)state;
	for (unsigned int p = 0; p < 3; p++) {
		const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
							  .size_bytes = size_bytes,
							  .average_item_bytes = 256,
							  .policy = policies[p]};
		struct books *books = books_new("cache-room", size_bytes, &config);
		const uint32_t count = (uint32_t)(size_bytes / 2 / 256);
		uint64_t counted;

		/* Half of it, and each replaced three times: old versions are no entries. */
		for (unsigned int lap = 0; lap < 4; lap++) {
			for (uint32_t key = 0; key < count; key++)
				assert_int_equal(set_number(books->cache, key, 250 - lap), 0);
		}
		for (uint32_t key = 0; key < count; key++)
			assert_int_equal(has(books->cache, key), 1);
		assert_int_equal(coshm_cache_count(books->cache, &counted), 0);
		assert_int_equal(counted, count);
		books_close(books);
	}
}

static void flushed_items_go_before_new_ones(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 1 << 20};
	struct books *books = books_new("cache-flushed", 1 << 20, &config);

	(void)state;
	for (unsigned int lap = 0; lap < 20; lap++) {
		assert_int_equal(coshm_cache_flush(books->cache), 0);
		/* Far less than there is room for. */
		for (uint32_t key = 0; key < 50; key++)
			assert_int_equal(set_number(books->cache, key, 6000), 0);
		for (uint32_t key = 0; key < 50; key++)
			assert_int_equal(has(books->cache, key), 1);
		/* And now more than that. */
		for (uint32_t key = 1000; key < 1200; key++)
			assert_int_equal(set_number(books->cache, key, 6000), 0);
	}
	books_close(books);
}

/* none. -------------------------------------------------------------------------------------- */

static void policy_none_keeps_all_it_took_and_gives_back_all_it_freed(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 1 << 20,
						  .policy = COSHM_CACHE_NONE};
	struct books *books = books_new("cache-none", 1 << 20, &config);
	static unsigned char seen[1 << 16];
	uint32_t first_count = 0;

	(void)state;
	for (unsigned int lap = 0; lap < 40; lap++) {
		const size_t size_bytes = lap % 2 ? 300 + lap : 3000;
		uint64_t counted;
		uint32_t count = 0;
		int rc;

		while ((rc = set_number(books->cache, count, size_bytes)) == 0)
			count++;
		assert_int_equal(rc, -ENOSPC);
		assert_int_equal(has(books->cache, count), 0);
		if (lap == 0)
			first_count = count;
		/* Laps of one size hold about the same: nothing leaks. */
		if (lap % 2 == 0)
			assert_true(count + first_count / 10 >= first_count);
		assert_true(count * size_bytes >= (1 << 20) / 4);
		assert_int_equal(coshm_cache_count(books->cache, &counted), 0);
		assert_int_equal(counted, count);
		/* A set that does not fit leaves the old value. */
		(void)!set_number(books->cache, 1, 60000);
		for (uint32_t key = 0; key < count; key++) {
			size_t seen_bytes = sizeof(seen);

			assert_int_equal(coshm_cache_get(books->cache, &key, sizeof(key), seen,
							 &seen_bytes, NULL),
					 1);
			assert_true(pattern_matches(key, seen, seen_bytes));
			assert_true(seen_bytes == size_bytes || key == 1);
		}
		for (uint32_t key = 0; key < count; key++)
			assert_int_equal(coshm_cache_delete(books->cache, &key, sizeof(key)), 1);
		assert_int_equal(coshm_cache_count(books->cache, &counted), 0);
		assert_int_equal(counted, 0);
	}
	books_close(books);
}

/* lru. --------------------------------------------------------------------------------------- */

static void textbook_capacity_three_evicts_two(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 1 << 20,
						  .policy = COSHM_CACHE_LRU,
						  .max_entries = 3,
						  .lanes = 1};
	struct books *books = books_new("cache-three", 1 << 20, &config);
	const uint32_t one = 1;
	char buffer[16];
	size_t size_bytes = sizeof(buffer);

	(void)state;
	for (uint32_t key = 1; key <= 3; key++)
		assert_int_equal(set_number(books->cache, key, 8), 0);
	assert_int_equal(
		coshm_cache_get(books->cache, &one, sizeof(one), buffer, &size_bytes, NULL), 1);
	assert_int_equal(set_number(books->cache, 4, 8), 0);
	assert_int_equal(has(books->cache, 1), 1);
	assert_int_equal(has(books->cache, 2), 0);
	assert_int_equal(has(books->cache, 3), 1);
	assert_int_equal(has(books->cache, 4), 1);
	books_close(books);
}

#define MODEL_KEYS    40
#define MODEL_ENTRIES 16
#define MODEL_MEMBERS 4

/* The keys by their last use, latest first. */
struct model {
	uint32_t keys[MODEL_KEYS];
	uint32_t count;
};

static int model_take(struct model *model, uint32_t key)
{
	for (uint32_t i = 0; i < model->count; i++) {
		if (model->keys[i] == key) {
			memmove(&model->keys[i], &model->keys[i + 1],
				(model->count - i - 1) * sizeof(key));
			model->count--;
			return 1;
		}
	}
	return 0;
}

static void model_use(struct model *model, uint32_t key)
{
	(void)model_take(model, key);
	memmove(&model->keys[1], &model->keys[0], model->count * sizeof(key));
	model->keys[0] = key;
	if (model->count < MODEL_ENTRIES)
		model->count++;
}

static int model_has(const struct model *model, uint32_t key)
{
	for (uint32_t i = 0; i < model->count; i++) {
		if (model->keys[i] == key)
			return 1;
	}
	return 0;
}

struct model_books {
	struct coshm_segment *segment;
	char name[TEST_SEGMENT_NAME_SIZE];
	_Atomic uint32_t turn;
	struct model model;
	uint64_t seed;
};

static int model_step(struct model_books *books, struct coshm_cache *cache)
{
	struct model *model = &books->model;
	const uint32_t key = (uint32_t)random_below(&books->seed, MODEL_KEYS);
	const int had = model_has(model, key);
	char value[600];
	size_t size_bytes = sizeof(value);
	struct coshm_cache_view view;

	memset(value, (int)key, sizeof(value));
	switch (random_below(&books->seed, 8)) {
	case 0:
	case 1:
		PROMISE_EQUAL(coshm_cache_get(cache, &key, sizeof(key), value, &size_bytes, NULL),
			      had);
		if (had)
			model_use(model, key);
		break;
	case 2:
		PROMISE_EQUAL(coshm_cache_peek(cache, &key, sizeof(key), value, &size_bytes, NULL),
			      had);
		break;
	case 3:
		PROMISE_EQUAL(coshm_cache_replace(cache, &key, sizeof(key), value,
						  random_below(&books->seed, 600), 0),
			      had);
		if (had)
			model_use(model, key);
		break;
	case 4:
		PROMISE_EQUAL(coshm_cache_delete(cache, &key, sizeof(key)), had);
		(void)model_take(model, key);
		break;
	case 5:
		PROMISE_EQUAL(coshm_cache_pin(cache, &key, sizeof(key), &view), had);
		if (had) {
			model_use(model, key);
			PROMISE_EQUAL(coshm_cache_unpin(cache, &view), 0);
		}
		break;
	default:
		PROMISE_EQUAL(coshm_cache_set(cache, &key, sizeof(key), value,
					      random_below(&books->seed, 600), 0),
			      0);
		model_use(model, key);
	}
	for (uint32_t other = 0; other < MODEL_KEYS; other++)
		PROMISE_EQUAL(coshm_cache_exists(cache, &other, sizeof(other)),
			      model_has(model, other));
	return 0;
}

/* One after the other: what one member used counts for all. */
static int model_in_turn(void *arg)
{
	const struct member *member = arg;
	struct model_books *books = member->books;
	struct coshm_segment *segment;
	struct coshm_cache *cache;

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_cache_open(segment, "c", &cache), 0);
	while (!crowd_is_over()) {
		if (atomic_load(&books->turn) % MODEL_MEMBERS != member->index) {
			test_sleep_ns(20000);
			continue;
		}
		for (unsigned int i = 0; i < 20; i++) {
			if (model_step(books, cache))
				return 1;
		}
		atomic_fetch_add(&books->turn, 1);
	}
	return 0;
}

static void lru_with_one_lane_is_the_exact_model_across_processes(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 1 << 20,
						  .policy = COSHM_CACHE_LRU,
						  .max_entries = MODEL_ENTRIES,
						  .lanes = 1};
	struct model_books *books = proc_shared_alloc(sizeof(*books));
	struct coshm_cache *cache;
	struct crowd crowd;

	(void)state;
	books->segment = segment_for_test(books->name, "cache-model", 2 << 20);
	books->seed = random_seed(NULL);
	assert_int_equal(coshm_cache_create(books->segment, "c", &config, 0, &cache), 0);
	for (unsigned int i = 0; i < 20000; i++)
		assert_int_equal(model_step(books, cache), 0);
	crowd_start(&crowd, MODEL_MEMBERS, model_in_turn, books, NULL);
	test_sleep_ns(test_run_ns() / 2);
	CROWD_UNTIL(books->turn > MODEL_MEMBERS);
	crowd_finish(&crowd);
	assert_true(books->turn > MODEL_MEMBERS);
	segment_is_sound(books->segment);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static int crowd_the_few(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct coshm_cache *cache;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(coshm_cache_open(books->segment, "c", &cache), 0);
	while (!crowd_is_over()) {
		const int rc = set_number(cache, (uint32_t)random_below(&seed, 100), 20);

		PROMISE(rc == 0 || rc == -EAGAIN);
		books->stored += rc == 0;
	}
	return 0;
}

static void max_entries_holds_under_kills(void **state)
{
	const struct coshm_cache_config config = {.struct_size_bytes = sizeof(config),
						  .size_bytes = 1 << 20,
						  .policy = COSHM_CACHE_LRU,
						  .max_entries = 10,
						  .lanes = 1};
	struct books *books = books_new("cache-ten", 1 << 20, &config);
	uint32_t there = 0;
	struct crowd crowd;

	(void)state;
	crowd_start(&crowd, 4, crowd_the_few, books, NULL);
	crowd_torment(&crowd, 0, 4, CROWD_KILL, test_run_ns() / 2);
	CROWD_UNTIL(books->stored > 100);
	crowd_finish(&crowd);
	assert_true(books->stored > 100);
	assert_int_equal(coshm_segment_reap(books->segment, NULL), 0);
	/* What the dead left is put right by the next insert at the latest. */
	for (uint32_t key = 1000; key < 1020; key++)
		assert_int_equal(set_number(books->cache, key, 20), 0);
	for (uint32_t key = 0; key < 1020; key++)
		there += (uint32_t)has(books->cache, key);
	assert_int_equal(there, 10);
	for (uint32_t key = 1010; key < 1020; key++)
		assert_int_equal(has(books->cache, key), 1);
	books_close(books);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(items_up_to_an_eighth_always_fit),
		cmocka_unit_test(huge_items_fit_from_many_processes),
		cmocka_unit_test(full_cache_without_eviction_replaces_by_what_is_no_larger),
		cmocka_unit_test(nothing_goes_while_there_is_room),
		cmocka_unit_test(flushed_items_go_before_new_ones),
		cmocka_unit_test(policy_none_keeps_all_it_took_and_gives_back_all_it_freed),
		cmocka_unit_test(textbook_capacity_three_evicts_two),
		cmocka_unit_test(lru_with_one_lane_is_the_exact_model_across_processes),
		cmocka_unit_test(max_entries_holds_under_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
