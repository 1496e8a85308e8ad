/* SPDX-License-Identifier: MIT */
/*
 * Contents of a segment that no run of the library leaves. Each of these once crashed, or took for ever, or took memory
 * from others; what fuzzing finds by itself is in tests/fuzz/corpus/.
 */
#include "modules/cache/cache.h"
#include "modules/queue/queue.h"
#include "segment/internal.h"
#include "support/procs.h"
#include "support/shmfs.h"

#include <coshm/coshm.h>
#include <coshm/inspect.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <cmocka.h>

#define MIB	    (UINT64_C(1) << 20)
#define DEADLINE_NS PROC_DEADLINE_NS

struct fixture {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
};

static int set_up(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = 2 * MIB,
						    .size_max_bytes = 64 * MIB};
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	test_segment_name(fixture->name, "damage");
	assert_int_equal(coshm_segment_create(fixture->name, &config, 0, &fixture->segment), 0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(coshm_segment_detach(fixture->segment), 0);
	assert_int_equal(coshm_segment_unlink(fixture->name), 0);
	free(fixture);
	return 0;
}

/* What a handle leads to. The object must stay open. */
static struct coshm__handle *handle_of(const void *token)
{
	return atomic_load_explicit(&coshm__handles[(uintptr_t)token % COSHM__HANDLES_MAX],
				    memory_order_relaxed);
}

static uint64_t damage_of(struct coshm_segment *segment, const char *object)
{
	struct coshm_verify_result result = {0};
	uint64_t began_ns = test_now_ns();

	assert_int_equal(coshm_inspect_verify(segment, object, NULL, NULL, &result), 0);
	assert_true(test_now_ns() - began_ns < DEADLINE_NS);
	return result.damage;
}

/* --- verification ----------------------------------------------------------------------------------------------- */

static void cache_without_a_sound_slot_is_verified_in_time(void **state)
{
	const struct coshm_cache_config config = {.size_bytes = 4 * MIB};
	struct fixture *fixture = *state;
	struct coshm_cache *token;
	struct coshm__cache *cache;

	assert_int_equal(coshm_cache_create(fixture->segment, "c", &config, 0, &token), 0);
	cache = handle_of(token)->local;
	for (uint64_t b = 0; b < cache->bucket_count; b++)
		for (unsigned int i = 0; i < COSHM__CACHE_BUCKET_SLOTS; i++)
			coshm__a64_store_relaxed(&cache->buckets[b].slot[i], UINT64_MAX);
	assert_true(damage_of(fixture->segment, "c") >=
		    cache->bucket_count * COSHM__CACHE_BUCKET_SLOTS);
}

/* Where a crash would be, in a child: in the parent its end could not be awaited. */
static int find_one_damage(void *arg)
{
	const struct fixture *fixture = arg;
	struct coshm_verify_result result = {0};

	return coshm_inspect_verify(fixture->segment, NULL, NULL, NULL, &result) ||
	       result.damage != 1;
}

static void lane_whose_open_page_is_before_the_first_is_damage(void **state)
{
	const struct coshm_cache_config config = {.size_bytes = MIB};
	struct fixture *fixture = *state;
	struct coshm_cache *token;
	struct coshm__cache *cache;

	assert_int_equal(coshm_cache_create(fixture->segment, "c", &config, 0, &token), 0);
	cache = handle_of(token)->local;
	coshm__a64_store_relaxed(&cache->lanes[0].open[0], 8);
	assert_int_equal(proc_collect(proc_spawn(find_one_damage, fixture), DEADLINE_NS), 0);
}

static void queue_without_any_hint_is_verified_in_time(void **state)
{
	const struct coshm_queue_config config = {.capacity = 60000};
	struct fixture *fixture = *state;
	struct coshm_queue *token;
	struct coshm__queue *q;

	/* 25 MiB, and other tests run beside it. */
	TEST_NEEDS(shmfs_lacks_space(128 * MIB));
	assert_int_equal(coshm_queue_create(fixture->segment, "q", &config, 0, &token), 0);
	q = handle_of(token)->local;
	for (uint64_t i = 0; i < q->free.entry_count; i++)
		coshm__a64_store_relaxed(&q->free.shm->entries[i], 0);
	assert_int_equal(damage_of(fixture->segment, "q"), config.capacity);
}

/* --- cache ------------------------------------------------------------------------------------------------------ */

static void parts_of_a_damaged_large_value_stay_inside_the_cache(void **state)
{
	const struct coshm_cache_config config = {.size_bytes = MIB};
	struct fixture *fixture = *state;
	static const char value[100000];
	struct coshm_cache *token;
	struct coshm_cache_view view;
	struct coshm__cache *cache;
	struct coshm__cache_large_shm *large;
	const unsigned char *end;
	unsigned char *item;
	uint32_t damaged;

	assert_int_equal(coshm_cache_create(fixture->segment, "c", &config, 0, &token), 0);
	cache = handle_of(token)->local;
	end = cache->log + (uint64_t)cache->page_count * cache->page_bytes;
	assert_int_equal(coshm_cache_set(token, "large", 5, value, sizeof(value), 0), 0);
	assert_int_equal(coshm_cache_pin(token, "large", 5, &view), 1);
	/* The description of the value, as if its item stood at the end of the last page. */
	item = cache->log + (uint64_t)cache->page_count * cache->page_bytes - 64;
	large = (void *)item;
	view.opaque[5] = (uintptr_t)large;
	for (damaged = 0; damaged <= cache->page_count; damaged++) {
		memcpy(&large->page_count, &damaged, sizeof(damaged));
		for (uint32_t part = 0; part < view.part_count; part++) {
			const void *data;
			size_t size_bytes;

			if (coshm_cache_view_part(&view, part, &data, &size_bytes) == 0)
				assert_true((const unsigned char *)data + size_bytes <= end);
		}
	}
	assert_int_equal(coshm_cache_unpin(token, &view), 0);
}

static int fill_a_cache_whose_list_is_a_circle(void *arg)
{
	const struct fixture *fixture = arg;
	static const char value[2000];
	struct coshm_cache *token;
	struct coshm__cache *cache;
	struct coshm__cache_list_shm *list;

	if (coshm_cache_open(fixture->segment, "c", &token))
		return 1;
	cache = handle_of(token)->local;
	list = &cache->lists[0];
	for (uint32_t i = 0, refused = 0; i < 2000 && refused < 3; i++) {
		uint32_t node = coshm__a32_load_relaxed(&list->oldest);

		/* The oldest one is also the next newer one, and nothing stands in a slot. */
		if (node < cache->node_count) {
			coshm__a32_store_relaxed(&cache->nodes[node].newer, node);
			coshm__a32_store_relaxed(&cache->nodes[node].older, node);
			coshm__a32_store_relaxed(&cache->nodes[node].slot, UINT32_MAX);
		}
		refused += coshm_cache_set(token, &i, sizeof(i), value, sizeof(value), 0) < 0;
	}
	return 0;
}

static void recency_list_in_a_circle_ends(void **state)
{
	const struct coshm_cache_config config = {
		.size_bytes = MIB, .policy = COSHM_CACHE_LRU, .lanes = 1};
	struct fixture *fixture = *state;
	struct coshm_cache *token;

	assert_int_equal(coshm_cache_create(fixture->segment, "c", &config, 0, &token), 0);
	assert_int_equal(
		proc_collect(proc_spawn(fill_a_cache_whose_list_is_a_circle, fixture), DEADLINE_NS),
		0);
}

static void page_that_ends_between_words_is_not_filled_up(void **state)
{
	const struct coshm_cache_config config = {.size_bytes = MIB};
	struct fixture *fixture = *state;
	struct coshm_cache *token;
	struct coshm__cache *cache;
	int64_t number = 0;

	assert_int_equal(coshm_cache_create(fixture->segment, "c", &config, 0, &token), 0);
	cache = handle_of(token)->local;
	assert_int_equal(coshm_cache_incr(token, "a", 1, 1, 0, 0, &number), 0);
	for (uint32_t lane = 0; lane < cache->lane_total; lane++)
		for (unsigned int c = 0; c < 2; c++) {
			struct coshm__a64 *open = &cache->lanes[lane].open[c];

			if (coshm__a64_load_relaxed(open))
				coshm__a64_fetch_add_relaxed(open, 3);
		}
	assert_int_equal(coshm_cache_incr(token, "b", 1, 5, 0, 0, &number), 0);
	assert_int_equal(number, 5);
	assert_int_equal(coshm_cache_incr(token, "b", 1, 5, 0, 0, &number), 0);
	assert_int_equal(number, 10);
}

/* --- queue ------------------------------------------------------------------------------------------------------ */

static int handled;

static int handle(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	(void)context;
	(void)task;
	(void)payload;
	(void)error;
	handled++;
	return COSHM_WORKER_ACK;
}

static void worker_buries_a_task_that_it_cannot_read_and_goes_on(void **state)
{
	const struct coshm_queue_config config = {.capacity = 4};
	const struct coshm_worker_options options = {.flags = COSHM_WORKER_UNTIL_EMPTY |
							      COSHM_WORKER_NO_SIGNALS};
	struct fixture *fixture = *state;
	struct coshm_queue_depth depth;
	struct coshm_queue *token;
	struct coshm__queue *q;
	struct coshm_task task;

	assert_int_equal(coshm_queue_create(fixture->segment, "q", &config, 0, &token), 0);
	q = handle_of(token)->local;
	for (int i = 0; i < 3; i++)
		assert_int_equal(coshm_queue_enqueue(token, "x", 1, NULL, NULL), 0);
	coshm__a32_store_relaxed(&q->records[0].payload_size_bytes, UINT32_MAX);
	/* Nobody is told to allocate it. */
	assert_int_equal(coshm_queue_reserve(token, 0, &task), 1);
	assert_true(task.payload_size_bytes <= 192);
	assert_int_equal(coshm_queue_release(token, &task), 0);
	handled = 0;
	assert_int_equal(coshm_worker_run(token, handle, NULL, &options), 3);
	assert_int_equal(handled, 2);
	assert_int_equal(coshm_queue_depth(token, &depth), 0);
	assert_int_equal(depth.dead, 1);
	assert_int_equal(depth.ready, 0);
}

static int fail_for_the_zeroth_time(void *arg)
{
	const struct fixture *fixture = arg;
	struct coshm_queue *token;
	struct coshm_task task;

	if (coshm_queue_open(fixture->segment, "q", &token) ||
	    coshm_queue_reserve(token, 0, &task) != 1)
		return 1;
	/* One more from before than there were. */
	coshm__a64_store_relaxed(
		&((struct coshm__queue *)handle_of(token)->local)->records[0].attempts_base, 1);
	return coshm_queue_nack(token, &task, "x", COSHM_FOREVER) ? 2 : 0;
}

static void attempts_that_do_not_add_up_delay_by_the_longest_backoff(void **state)
{
	const struct coshm_queue_config config = {.capacity = 4,
						  .backoff_kind = COSHM_BACKOFF_LINEAR};
	struct fixture *fixture = *state;
	struct coshm_queue_depth depth;
	struct coshm_queue *token;

	assert_int_equal(coshm_queue_create(fixture->segment, "q", &config, 0, &token), 0);
	assert_int_equal(coshm_queue_enqueue(token, "x", 1, NULL, NULL), 0);
	assert_int_equal(proc_collect(proc_spawn(fail_for_the_zeroth_time, fixture), DEADLINE_NS),
			 0);
	assert_int_equal(coshm_queue_depth(token, &depth), 0);
	assert_int_equal(depth.delayed, 1);
}

/* --- segment ---------------------------------------------------------------------------------------------------- */

static int create_behind_the_end_of_the_file(void *arg)
{
	const struct coshm_queue_config config = {.capacity = 60000};
	const struct fixture *fixture = arg;
	struct coshm_queue *token;

	return coshm_queue_create(fixture->segment, "q", &config, 0, &token) == -EUCLEAN ? 0 : 1;
}

static void memory_that_the_header_invents_is_not_used(void **state)
{
	struct fixture *fixture = *state;
	struct coshm__header_shm *header = handle_of(fixture->segment)->segment->header;

	coshm__a64_store_relaxed(&header->committed_bytes, 64 * MIB);
	assert_int_equal(
		proc_collect(proc_spawn(create_behind_the_end_of_the_file, fixture), DEADLINE_NS),
		0);
}

static int grow_without_room(void *arg)
{
	const struct rlimit limit = {.rlim_cur = 4 * MIB, .rlim_max = 4 * MIB};
	const struct coshm_queue_config config = {.capacity = 20000};
	const struct fixture *fixture = arg;
	struct coshm_queue *token;

	if (setrlimit(RLIMIT_FSIZE, &limit))
		return 1;
	return coshm_queue_create(fixture->segment, "q", &config, 0, &token) == -EFBIG ? 0 : 2;
}

static void growth_that_fails_takes_no_memory_that_is_in_use(void **state)
{
	struct fixture *fixture = *state;
	struct coshm__segment *segment = handle_of(fixture->segment)->segment;
	struct stat status;

	coshm__a64_store_relaxed(&segment->header->committed_bytes, segment->objects_offset);
	assert_int_equal(proc_collect(proc_spawn(grow_without_room, fixture), DEADLINE_NS), 0);
	assert_int_equal(fstat(segment->fd, &status), 0);
	assert_int_equal(status.st_size, 2 * MIB);
}

static void nothing_is_created_beside_an_object_whose_place_is_damaged(void **state)
{
	const struct coshm_queue_config config = {.capacity = 4};
	struct fixture *fixture = *state;
	struct coshm__segment *segment = handle_of(fixture->segment)->segment;
	struct coshm__a64 *size = &segment->entries[0].size_bytes;
	struct coshm_queue *token;

	assert_int_equal(coshm_queue_create(fixture->segment, "q", &config, 0, &token), 0);
	/* It ends before it begins, and seems to be in nobody's way. */
	coshm__a64_store_relaxed(size, UINT64_MAX - COSHM__PAGE_BYTES + 1);
	assert_int_equal(coshm_queue_create(fixture->segment, "r", &config, 0, &token), -EUCLEAN);
	/* Until it is gone. */
	assert_int_equal(coshm_object_remove(fixture->segment, "q"), 0);
	assert_int_equal(coshm_segment_detach(fixture->segment), 0);
	assert_int_equal(coshm_segment_attach(fixture->name, 0, &fixture->segment), 0);
	assert_int_equal(coshm_queue_create(fixture->segment, "r", &config, 0, &token), 0);
}

static void notes_of_locks_that_are_not_true_are_nothing(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1};
	struct fixture *fixture = *state;
	struct coshm_limiter *token;
	struct coshm__op op;

	assert_int_equal(coshm_limiter_create(fixture->segment, "l", &config, 0, &token), 0);
	assert_int_equal(coshm__op_begin(&op, fixture->segment, COSHM__TYPE_SEGMENT), 0);
	coshm__a64_store_relaxed(&op.thread->lock_offset[0], 257);
	coshm__a64_store_relaxed(&op.thread->lock_offset[1], UINT64_MAX);
	coshm__op_end(&op);
	assert_int_equal(coshm_limiter_configure(token, &config), 0);
}

static int reap(void *arg)
{
	const struct fixture *fixture = arg;

	return coshm_segment_reap(fixture->segment, NULL) ? 1 : 0;
}

static void member_that_nobody_can_be_is_not_reaped(void **state)
{
	const struct coshm_queue_config config = {.capacity = 4};
	struct fixture *fixture = *state;
	struct coshm__segment *segment = handle_of(fixture->segment)->segment;
	struct coshm__a64 *own = &segment->members[0].word, *other = &segment->members[7].word;
	uint64_t word = coshm__a64_load_relaxed(own);
	struct coshm_queue *token;

	assert_int_equal(coshm_queue_create(fixture->segment, "q", &config, 0, &token), 0);
	/* Id 0: every record without an owner would be its. */
	coshm__a64_store_relaxed(own, COSHM__MEMBER_DEAD);
	coshm__a64_store_relaxed(other, UINT64_MAX);
	coshm__a32_store_relaxed(&segment->header->member_high_water, 8);
	assert_int_equal(proc_collect(proc_spawn(reap, fixture), DEADLINE_NS), 0);
	/* Whose byte is locked lives; the other slot is free for the next. */
	assert_int_equal(coshm__a64_load_relaxed(own), COSHM__MEMBER_DEAD);
	assert_int_equal(coshm__a64_load_relaxed(other) & 3, COSHM__MEMBER_FREE);
	coshm__a64_store_relaxed(own, word);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(cache_without_a_sound_slot_is_verified_in_time),
		TEST(lane_whose_open_page_is_before_the_first_is_damage),
		TEST(queue_without_any_hint_is_verified_in_time),
		TEST(parts_of_a_damaged_large_value_stay_inside_the_cache),
		TEST(recency_list_in_a_circle_ends),
		TEST(page_that_ends_between_words_is_not_filled_up),
		TEST(worker_buries_a_task_that_it_cannot_read_and_goes_on),
		TEST(attempts_that_do_not_add_up_delay_by_the_longest_backoff),
		TEST(memory_that_the_header_invents_is_not_used),
		TEST(growth_that_fails_takes_no_memory_that_is_in_use),
		TEST(nothing_is_created_beside_an_object_whose_place_is_damaged),
		TEST(notes_of_locks_that_are_not_true_are_nothing),
		TEST(member_that_nobody_can_be_is_not_reaped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
