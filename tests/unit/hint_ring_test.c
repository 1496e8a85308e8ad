/* SPDX-License-Identifier: MIT */
#include "structs/hint_ring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RECORDS 4 /* 8 entries */

static void make_ring(struct coshm__hint_ring *ring, uint64_t full_count)
{
	memset(ring, 0, sizeof(*ring));
	ring->shm = calloc(1, coshm__hint_ring_size_bytes(RECORDS));
	ring->entry_count = coshm__hint_ring_entry_count(RECORDS);
	assert_non_null(ring->shm);
	coshm__hint_ring_initialise(ring, full_count);
}

/* The next hint, or -1. */
static int take(struct coshm__hint_ring *ring)
{
	uint64_t position;
	uint32_t index;

	if (!coshm__hint_ring_peek(ring, &position, &index))
		return -1;
	coshm__hint_ring_advance(ring, position);
	return (int)index;
}

static void entry_count_is_the_power_of_two_from_twice_the_records(void **state)
{
	(void)state;
	assert_int_equal(coshm__hint_ring_entry_count(1), 2);
	assert_int_equal(coshm__hint_ring_entry_count(2), 4);
	assert_int_equal(coshm__hint_ring_entry_count(3), 8);
	assert_int_equal(coshm__hint_ring_entry_count(65536), 131072);
	assert_int_equal(coshm__hint_ring_size_bytes(2), 256 + 4 * 8);
}

static void empty_ring_has_nothing_to_peek_at(void **state)
{
	struct coshm__hint_ring ring;
	uint64_t position = 77;
	uint32_t index = 78;

	(void)state;
	make_ring(&ring, 0);
	assert_int_equal(coshm__hint_ring_peek(&ring, &position, &index), 0);
	assert_int_equal(position, 77);
	assert_int_equal(index, 78);
	assert_int_equal(coshm__hint_ring_length(&ring), 0);
	free(ring.shm);
}

static void full_ring_gives_all_indices_in_order(void **state)
{
	struct coshm__hint_ring ring;

	(void)state;
	make_ring(&ring, RECORDS);
	assert_int_equal(coshm__hint_ring_length(&ring), RECORDS);
	for (int i = 0; i < RECORDS; i++)
		assert_int_equal(take(&ring), i);
	assert_int_equal(take(&ring), -1);
	free(ring.shm);
}

static void order_is_kept_over_many_laps_at_every_fill(void **state)
{
	(void)state;
	for (int fill = 1; fill <= 8; fill++) {
		struct coshm__hint_ring ring;
		int pushed = 0, taken = 0;

		make_ring(&ring, 0);
		while (taken < 1000) {
			while (pushed - taken < fill) {
				assert_int_equal(
					coshm__hint_ring_push(&ring, (uint32_t)pushed % 1000), 0);
				pushed++;
			}
			assert_int_equal(take(&ring), taken % 1000);
			taken++;
		}
		free(ring.shm);
	}
}

static void full_ring_refuses_and_is_unchanged(void **state)
{
	struct coshm__hint_ring ring;
	struct coshm__hint_ring_shm *before;
	uint64_t first, end;
	uint32_t index = 0;
	size_t size_bytes = coshm__hint_ring_size_bytes(RECORDS);

	(void)state;
	make_ring(&ring, 0);
	before = malloc(size_bytes);
	assert_non_null(before);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(coshm__hint_ring_push(&ring, i), 0);
	memcpy(before, ring.shm, size_bytes);
	assert_int_equal(coshm__hint_ring_positions(&ring, &first, &end), 0);
	for (uint32_t i = 0; first < end; first++)
		if (coshm__hint_ring_at(&ring, first, &index))
			assert_int_equal(index, i++); /* the first and the last one, too */
	assert_int_equal(index, 7);
	assert_int_equal(coshm__hint_ring_push(&ring, 8), -EAGAIN);
	assert_memory_equal(before, ring.shm, size_bytes);
	assert_int_equal(coshm__hint_ring_length(&ring), 8);

	assert_int_equal(take(&ring), 0);
	assert_int_equal(coshm__hint_ring_push(&ring, 8), 0);
	for (int i = 1; i <= 8; i++)
		assert_int_equal(take(&ring), i);
	free(before);
	free(ring.shm);
}

static void peek_takes_nothing_and_a_late_advance_moves_nothing(void **state)
{
	struct coshm__hint_ring ring;
	uint64_t position, again;
	uint32_t index;

	(void)state;
	make_ring(&ring, 2);
	assert_int_equal(coshm__hint_ring_peek(&ring, &position, &index), 1);
	assert_int_equal(coshm__hint_ring_peek(&ring, &again, &index), 1);
	assert_int_equal(position, again);
	assert_int_equal(index, 0);
	coshm__hint_ring_advance(&ring, position);
	coshm__hint_ring_advance(&ring, position);
	assert_int_equal(take(&ring), 1);
	free(ring.shm);
}

/* The state that a pusher leaves which dies between its two stores: HINT_PUSHED. */
static void hint_behind_a_tail_that_never_moved_is_taken_and_pushed_behind(void **state)
{
	(void)state;
	for (int take_first = 0; take_first < 2; take_first++) {
		struct coshm__hint_ring ring;
		uint64_t first, end;
		uint32_t index;

		make_ring(&ring, 0);
		assert_int_equal(coshm__hint_ring_push(&ring, 5), 0);
		coshm__a64_store_relaxed(&ring.shm->tail, ring.entry_count);

		assert_int_equal(coshm__hint_ring_positions(&ring, &first, &end), 0);
		assert_int_equal(coshm__hint_ring_at(&ring, first, &index), 1);
		assert_int_equal(index, 5);

		if (take_first) /* the head gets ahead of the tail by one */
			assert_int_equal(take(&ring), 5);
		assert_int_equal(coshm__hint_ring_length(&ring), 0);
		assert_int_equal(coshm__hint_ring_positions(&ring, &first, &end), 0);
		for (uint32_t i = 6; i < 13; i++)
			assert_int_equal(coshm__hint_ring_push(&ring, i), 0);
		if (!take_first)
			assert_int_equal(coshm__hint_ring_push(&ring, 13), -EAGAIN);
		for (int i = take_first ? 6 : 5; i < 13; i++)
			assert_int_equal(take(&ring), i);
		assert_int_equal(take(&ring), -1);
		free(ring.shm);
	}
}

static void copy_of_the_head_that_is_a_lap_old_is_refreshed_when_the_ring_looks_full(void **state)
{
	struct coshm__hint_ring ring, other;

	(void)state;
	make_ring(&ring, 0);
	other = ring;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(coshm__hint_ring_push(&ring, 1), 0);
		assert_int_equal(take(&other), 1);
	}
	/* and one that was never set */
	coshm__a64_store_relaxed(&other.head_copy, 0);
	assert_int_equal(coshm__hint_ring_push(&other, 2), 0);
	assert_int_equal(take(&ring), 2);
	free(ring.shm);
}

static void damaged_entries_end_every_call(void **state)
{
	static const uint64_t bad[] = {0, 2, 5, 0xffffffffff};
	struct coshm__hint_ring ring;
	uint64_t position, first, end;
	uint32_t index;

	(void)state;
	for (size_t b = 0; b < sizeof(bad) / sizeof(bad[0]); b++) {
		make_ring(&ring, 0);
		for (int lap = 0; lap < 3 * 8;
		     lap++) { /* the next cycle is 4, behind it must be 3 */
			assert_int_equal(coshm__hint_ring_push(&ring, 1), 0);
			assert_int_equal(take(&ring), 1);
		}
		for (int i = 0; i < 8; i++)
			coshm__a64_store_relaxed(&ring.shm->entries[i],
						 bad[b] << COSHM__HINT_INDEX_BITS);
		assert_int_equal(coshm__hint_ring_push(&ring, 1), -EAGAIN);
		assert_int_equal(coshm__hint_ring_peek(&ring, &position, &index), 0);
		assert_int_equal(coshm__hint_ring_recheck(&ring), 0);
		free(ring.shm);
	}
	make_ring(&ring, 0);
	coshm__a64_store_relaxed(&ring.shm->head, UINT64_MAX - 3);
	assert_int_equal(coshm__hint_ring_positions(&ring, &first, &end), -EUCLEAN);
	coshm__a64_store_relaxed(&ring.shm->tail, 0);
	assert_int_equal(coshm__hint_ring_positions(&ring, &first, &end), -EUCLEAN);
	free(ring.shm);
}

static void recheck_sees_hints_and_their_absence_in_every_lap(void **state)
{
	struct coshm__hint_ring ring;

	(void)state;
	make_ring(&ring, 0);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(coshm__hint_ring_recheck(&ring), 0);
		assert_int_equal(coshm__hint_ring_push(&ring, 1), 0);
		assert_int_equal(coshm__hint_ring_recheck(&ring), 1);
		assert_int_equal(take(&ring), 1);
	}
	free(ring.shm);
}

static void index_uses_all_of_its_24_bits(void **state)
{
	struct coshm__hint_ring ring;

	(void)state;
	make_ring(&ring, 0);
	assert_int_equal(coshm__hint_ring_push(&ring, (1u << 24) - 1), 0);
	assert_int_equal(coshm__hint_ring_push(&ring, 3), 0);
	assert_int_equal(take(&ring), (1 << 24) - 1);
	assert_int_equal(take(&ring), 3);
	free(ring.shm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entry_count_is_the_power_of_two_from_twice_the_records),
		cmocka_unit_test(empty_ring_has_nothing_to_peek_at),
		cmocka_unit_test(full_ring_gives_all_indices_in_order),
		cmocka_unit_test(order_is_kept_over_many_laps_at_every_fill),
		cmocka_unit_test(full_ring_refuses_and_is_unchanged),
		cmocka_unit_test(peek_takes_nothing_and_a_late_advance_moves_nothing),
		cmocka_unit_test(hint_behind_a_tail_that_never_moved_is_taken_and_pushed_behind),
		cmocka_unit_test(
			copy_of_the_head_that_is_a_lap_old_is_refreshed_when_the_ring_looks_full),
		cmocka_unit_test(damaged_entries_end_every_call),
		cmocka_unit_test(recheck_sees_hints_and_their_absence_in_every_lap),
		cmocka_unit_test(index_uses_all_of_its_24_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
