/* SPDX-License-Identifier: MIT */
/*
 * The ring's own code, overtaken: in front of each of its accesses, once, others do so much that positions, cycles and
 * entries go on by up to two laps. A view of the ring that is as old as that is what a process wakes up with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic.h"

static void stop_before(void);

#define coshm__a64_load_relaxed(a)	(stop_before(), coshm__a64_load_relaxed(a))
#define coshm__a64_load_acquire(a)	(stop_before(), coshm__a64_load_acquire(a))
#define coshm__a64_load_seq_cst(a)	(stop_before(), coshm__a64_load_seq_cst(a))
#define coshm__a64_store_release(a, v)	(stop_before(), coshm__a64_store_release(a, v))
#define coshm__a64_cas_release(a, e, d) (stop_before(), coshm__a64_cas_release(a, e, d))
#define coshm__a64_cas_seq_cst(a, e, d) (stop_before(), coshm__a64_cas_seq_cst(a, e, d))

#include "structs/hint_ring.c"

#define RECORDS 4
#define ENTRIES 8
#define LAPS	2

static struct coshm__hint_ring ring;

/* Hints are numbered, in the order in which others put them in. The operation's own has the last number. */
#define HINTS 64
#define MINE  (HINTS - 1)
static uint32_t next_in, next_out;
static int taken[HINTS];

/* --- whoever overtakes --------------------------------------------------------------------------------------- */

static int stops, stop_at = -1;
static void (*overtake)(void);

static void stop_before(void)
{
	void (*others)(void) = overtake;

	if (stops++ != stop_at || !others)
		return;
	overtake = NULL;
	others();
}

static int put(void)
{
	int error = coshm__hint_ring_push(&ring, next_in);

	next_in += error == 0;
	return error;
}

/* 0: there is none */
static int take(void)
{
	uint64_t position;
	uint32_t index;

	if (!coshm__hint_ring_peek(&ring, &position, &index))
		return 0;
	coshm__hint_ring_advance(&ring, position);
	assert_true(index < HINTS);
	taken[index]++;
	if (index != MINE) {
		assert_true(index >= next_out);
		next_out = index + 1;
	}
	return 1;
}

static int distance;

/* There is a hint at any time. */
static void others_go_on(void)
{
	for (int i = 0; i < distance; i++) {
		assert_int_equal(put(), 0);
		assert_int_equal(take(), 1);
	}
}

static void others_take_first(void)
{
	for (int i = 0; i < distance; i++) {
		assert_int_equal(take(), 1);
		assert_int_equal(put(), 0);
	}
}

/* --- the operations ------------------------------------------------------------------------------------------ */

static void ring_make(int hints)
{
	free(ring.shm);
	memset(&ring, 0, sizeof(ring));
	ring.shm = calloc(1, coshm__hint_ring_size_bytes(RECORDS));
	ring.entry_count = coshm__hint_ring_entry_count(RECORDS);
	assert_non_null(ring.shm);
	assert_int_equal(ring.entry_count, ENTRIES);
	coshm__hint_ring_initialise(&ring, 0);
	next_in = next_out = 0;
	memset(taken, 0, sizeof(taken));
	for (int i = 0; i < hints; i++)
		assert_int_equal(put(), 0);
}

/* Each hint of the others comes once; the one that the operation took, to them or to it. */
static void nothing_is_lost_or_doubled_but(uint32_t operations_own)
{
	stop_at = -1;
	while (take())
		;
	for (uint32_t i = 0; i < next_in; i++)
		assert_true(taken[i] == 1 || (taken[i] == 0 && i == operations_own));
	assert_true(next_in < MINE);
}

static void nothing_is_lost_or_doubled(void)
{
	nothing_is_lost_or_doubled_but(MINE);
}

/* In front of each access, by each number of steps of the others. */
static void overtaken_everywhere(int hints, void (*others)(void), void (*operation)(void))
{
	for (distance = 1; distance <= LAPS * ENTRIES; distance++) {
		int reached = 1;

		for (int at = 0; reached; at++) {
			ring_make(hints);
			stops = 0;
			stop_at = at;
			overtake = others;
			operation();
			reached = overtake == NULL;
			overtake = NULL;
			assert_true(reached || at > 0);
		}
	}
	free(ring.shm);
	ring.shm = NULL;
}

static void peek(void)
{
	uint64_t position;
	uint32_t index;

	assert_int_equal(coshm__hint_ring_peek(&ring, &position, &index), 1);
	nothing_is_lost_or_doubled();
}

static void recheck(void)
{
	assert_int_equal(coshm__hint_ring_recheck(&ring), 1);
	nothing_is_lost_or_doubled();
}

static void push(void)
{
	assert_int_equal(coshm__hint_ring_push(&ring, MINE), 0);
	nothing_is_lost_or_doubled();
	assert_int_equal(taken[MINE], 1);
}

/* An old view moves nothing that has moved on. */
static void advance(void)
{
	uint64_t position;
	uint32_t index;

	assert_int_equal(coshm__hint_ring_peek(&ring, &position, &index), 1);
	coshm__hint_ring_advance(&ring, position);
	nothing_is_lost_or_doubled_but(index);
}

/* --- tests --------------------------------------------------------------------------------------------------- */

static void ring_that_is_never_empty_is_never_called_empty(void **state)
{
	(void)state;
	overtaken_everywhere(1, others_go_on, peek);
	overtaken_everywhere(RECORDS, others_go_on, peek);
	overtaken_everywhere(2, others_take_first, peek);
}

static void nobody_falls_asleep_beside_a_hint(void **state)
{
	(void)state;
	overtaken_everywhere(1, others_go_on, recheck);
	overtaken_everywhere(2, others_take_first, recheck);
}

static void late_pusher_overwrites_nothing_and_is_not_refused(void **state)
{
	(void)state;
	overtaken_everywhere(0, others_go_on, push);
	overtaken_everywhere(2, others_take_first, push);
}

static void late_taker_moves_no_head_that_has_moved_on(void **state)
{
	(void)state;
	overtaken_everywhere(1, others_go_on, advance);
	overtaken_everywhere(RECORDS, others_take_first, advance);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_that_is_never_empty_is_never_called_empty),
		cmocka_unit_test(nobody_falls_asleep_beside_a_hint),
		cmocka_unit_test(late_pusher_overwrites_nothing_and_is_not_refused),
		cmocka_unit_test(late_taker_moves_no_head_that_has_moved_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
