/* SPDX-License-Identifier: MIT */
/* verify: each way to break an invariant is found, work in progress is not called damage; and recovery by hand. */
#include "queue_fixture.h"

static const struct coshm_queue_config blocks = {
	.capacity = 8, .payload_max_bytes = 5000, .payload_pool_bytes = 10240};

static char large[5000];

struct opened {
	struct fixture f;
	struct coshm__op op;
	struct coshm__queue *q;
	struct coshm_task task;
};

/* ready, leased (with blocks), delayed, dead, and four free. */
static void open_with_one_of_each(struct opened *o)
{
	struct coshm_enqueue_options later = {.delay_ns = 3600 * S};
	struct coshm_task dead;

	fixture_open(&o->f, &blocks);
	put(&o->f, "dead");
	assert_string_equal(get(&o->f, &dead), "dead");
	assert_int_equal(coshm_queue_bury(o->f.queue, &dead, "x"), 0);
	assert_int_equal(coshm_queue_enqueue(o->f.queue, large, sizeof(large), NULL, NULL), 0);
	assert_int_equal(coshm_queue_reserve(o->f.queue, 0, &o->task), 1);
	assert_int_equal(coshm_queue_enqueue(o->f.queue, "d", 1, &later, NULL), 0);
	put(&o->f, "ready");
	assert_verified(o->f.segment);
	assert_int_equal(coshm__op_begin(&o->op, o->f.queue, COSHM_OBJECT_QUEUE), 0);
	o->q = o->op.handle->local;
}

static void close_quietly(struct opened *o)
{
	coshm__op_end(&o->op);
	assert_int_equal(coshm_segment_detach(o->f.segment), 0);
	assert_int_equal(coshm_segment_unlink(o->f.name), 0);
}

static struct coshm_verify_result verify(struct opened *o)
{
	struct coshm_verify_result result = {0};

	assert_int_equal(coshm_inspect_verify(o->f.segment, "q", NULL, NULL, &result), 0);
	return result;
}

static uint32_t index_of(struct opened *o, uint32_t state)
{
	for (uint32_t i = 0; i < o->q->capacity; i++)
		if (coshm__record_state(coshm__a64_load_relaxed(&o->q->records[i].word)) == state)
			return i;
	fail();
	return 0;
}

static struct coshm__record_shm *record_of(struct opened *o, uint32_t state)
{
	return &o->q->records[index_of(o, state)];
}

static void set_word(struct opened *o, uint32_t from, uint32_t owner, uint32_t state)
{
	struct coshm__record_shm *record = record_of(o, from);

	coshm__a64_store_relaxed(&record->word, coshm__record_word(1000, owner, state));
}

static void break_owner_of_ready(struct opened *o)
{
	set_word(o, COSHM__RECORD_READY, 77, COSHM__RECORD_READY);
}

static void break_state(struct opened *o)
{
	set_word(o, COSHM__RECORD_READY, 0, 13);
}

static void break_flags(struct opened *o)
{
	struct coshm__record_shm *record = record_of(o, COSHM__RECORD_READY);

	coshm__a64_store_relaxed(&record->word, coshm__a64_load_relaxed(&record->word) | 2 << 4);
}

static void break_owner_of_leased(struct opened *o)
{
	set_word(o, COSHM__RECORD_LEASED, 0, COSHM__RECORD_LEASED);
}

static void break_ready_without_hint(struct opened *o)
{
	set_word(o, COSHM__RECORD_DEAD, 0, COSHM__RECORD_READY);
}

static void break_free_without_hint(struct opened *o)
{
	set_word(o, COSHM__RECORD_DEAD, 0, COSHM__RECORD_FREE);
}

static void break_hint(struct opened *o)
{
	assert_int_equal(coshm__hint_ring_push(&o->q->ready, 8), 0);
}

static void break_ring(struct opened *o)
{
	coshm__a64_store_relaxed(&o->q->ready.shm->head, UINT64_MAX / 2);
}

static void break_chain_short(struct opened *o)
{
	struct coshm__record_shm *record = record_of(o, COSHM__RECORD_LEASED);

	coshm__a32_store_relaxed(
		&o->q->block_next[coshm__a32_load_relaxed(&record->first_block) - 1], 0);
}

static void break_chain_outside(struct opened *o)
{
	coshm__a32_store_relaxed(&record_of(o, COSHM__RECORD_LEASED)->first_block, 11);
}

static void break_chain_loop(struct opened *o)
{
	struct coshm__record_shm *record = record_of(o, COSHM__RECORD_LEASED);
	uint32_t first = coshm__a32_load_relaxed(&record->first_block);

	coshm__a32_store_relaxed(&o->q->block_next[first - 1], first);
}

static void break_block_of_another(struct opened *o)
{
	struct coshm__record_shm *record = record_of(o, COSHM__RECORD_LEASED);

	coshm__a64_store_relaxed(
		&o->q->block_words[coshm__a32_load_relaxed(&record->first_block) - 1],
		coshm__block_word(5, 0, COSHM__BLOCK_USED));
}

static void break_block_leaked(struct opened *o)
{
	for (uint32_t i = 0; i < o->q->block_count; i++)
		if (coshm__block_state(coshm__a64_load_relaxed(&o->q->block_words[i])) ==
		    COSHM__BLOCK_FREE) {
			coshm__a64_store_relaxed(&o->q->block_words[i],
						 coshm__block_word(5, 0, COSHM__BLOCK_USED));
			return;
		}
	fail();
}

/* USED by the right life of a record that has it not in its chain */
static void break_block_not_in_chain(struct opened *o)
{
	uint32_t index = index_of(o, COSHM__RECORD_LEASED);
	uint32_t ticket = coshm__a32_load_relaxed(&o->q->records[index].build_ticket);

	for (uint32_t i = 0; i < o->q->block_count; i++)
		if (coshm__block_state(coshm__a64_load_relaxed(&o->q->block_words[i])) ==
		    COSHM__BLOCK_FREE) {
			coshm__a64_store_relaxed(
				&o->q->block_words[i],
				coshm__block_word(ticket, index, COSHM__BLOCK_USED));
			return;
		}
	fail();
}

static void break_block_state(struct opened *o)
{
	coshm__a64_store_relaxed(&o->q->block_words[9], 7);
}

static void break_block_without_hint(struct opened *o)
{
	struct coshm__record_shm *record = record_of(o, COSHM__RECORD_LEASED);
	uint32_t first = coshm__a32_load_relaxed(&record->first_block);

	/* also breaks the chain; what is asked for is only that it is found */
	coshm__a64_store_relaxed(&o->q->block_words[first - 1],
				 coshm__block_word(5, 0, COSHM__BLOCK_FREE));
}

static void break_group_bound(struct opened *o)
{
	coshm__a64_store_relaxed(&o->q->due_min[0], COSHM__DUE_NONE << 16);
}

static void break_top_bound(struct opened *o)
{
	coshm__a64_store_relaxed(&o->q->shm->due_top, COSHM__DUE_NONE << 16);
}

static void break_size(struct opened *o)
{
	coshm__a32_store_relaxed(&record_of(o, COSHM__RECORD_READY)->payload_size_bytes, 5001);
}

static void break_id(struct opened *o)
{
	coshm__a64_store_relaxed(&record_of(o, COSHM__RECORD_READY)->sequence, 0);
}

static void break_attempts(struct opened *o)
{
	coshm__a32_store_relaxed(&record_of(o, COSHM__RECORD_READY)->max_attempts, 0);
}

static void every_broken_invariant_is_damage(void **state)
{
	void (*const breaks[])(struct opened * o) = {
		break_owner_of_ready,
		break_state,
		break_flags,
		break_owner_of_leased,
		break_ready_without_hint,
		break_free_without_hint,
		break_hint,
		break_ring,
		break_chain_short,
		break_chain_outside,
		break_chain_loop,
		break_block_of_another,
		break_block_leaked,
		break_block_not_in_chain,
		break_block_state,
		break_block_without_hint,
		break_group_bound,
		break_top_bound,
		break_size,
		break_id,
		break_attempts,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
		struct opened o;

		open_with_one_of_each(&o);
		breaks[i](&o);
		if (verify(&o).damage == 0)
			print_error("break %zu was not found\n", i);
		assert_true(verify(&o).damage > 0);
		close_quietly(&o);
	}
}

/* An id that no member has is as good as dead. */
#define NOBODY ((3u << 14) | 9)

static void what_the_dead_left_is_pending(void **state)
{
	static const uint32_t states[] = {COSHM__RECORD_BUILD,	COSHM__RECORD_PUBLISH,
					  COSHM__RECORD_LEASED, COSHM__RECORD_FINISH,
					  COSHM__RECORD_CLEAN,	COSHM__RECORD_FREEPUB};

	(void)state;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct opened o;
		struct coshm_verify_result result;

		open_with_one_of_each(&o);
		set_word(&o, COSHM__RECORD_READY, NOBODY, states[i]);
		result = verify(&o);
		assert_int_equal(result.damage, 0);
		assert_int_equal(result.pending, 1);
		close_quietly(&o);
	}
}

static void what_a_living_member_is_in_the_middle_of_is_nothing(void **state)
{
	static const uint32_t states[] = {COSHM__RECORD_BUILD,	COSHM__RECORD_PUBLISH,
					  COSHM__RECORD_LEASED, COSHM__RECORD_FINISH,
					  COSHM__RECORD_CLEAN,	COSHM__RECORD_FREEPUB};

	(void)state;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct opened o;
		struct coshm_verify_result result;

		open_with_one_of_each(&o);
		set_word(&o, COSHM__RECORD_READY, coshm__id24(o.op.member_id), states[i]);
		result = verify(&o);
		assert_int_equal(result.damage, 0);
		assert_int_equal(result.pending, 0);
		close_quietly(&o);
	}
}

/* PUBLISH and FREEPUB without an owner: the rings were full of duplicates. */
static void records_that_were_parked_come_back_by_the_sweep(void **state)
{
	struct fixture f;
	struct coshm__op op;
	struct coshm__queue *q;
	struct coshm_task task;
	const struct coshm_queue_config config = {.capacity = 2};

	(void)state;
	fixture_open(&f, &config);
	assert_int_equal(coshm__op_begin(&op, f.queue, COSHM_OBJECT_QUEUE), 0);
	q = op.handle->local;

	/* Both rings full of stale duplicates: the push of the task, and of the freed record, finds no room. */
	while (coshm__hint_ring_push(&q->ready, 1) == 0)
		;
	put(&f, "parked");
	assert_int_equal(coshm__record_state(coshm__a64_load_relaxed(&q->records[0].word)),
			 COSHM__RECORD_PUBLISH);
	assert_int_equal(coshm__record_owner(coshm__a64_load_relaxed(&q->records[0].word)), 0);
	assert_depth(&f, 1, 0, 0, 0);
	assert_string_equal(get(&f, &task), "parked");

	while (coshm__hint_ring_push(&q->free, 1) == 0)
		;
	assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(coshm__record_state(coshm__a64_load_relaxed(&q->records[0].word)),
			 COSHM__RECORD_FREEPUB);
	test_sleep_ns(20 * MS); /* two sweeps are at least 10 ms apart */
	put(&f, "a");
	put(&f, "b");
	assert_int_equal(coshm_queue_enqueue(f.queue, "c", 1, NULL, NULL), -EAGAIN);
	while (get(&f, &task))
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	coshm__op_end(&op);
	test_sleep_ns(20 * MS);
	assert_int_equal(room_of(&f), 2);
	fixture_close(&f);
}

/* Ring full of hints of one free block: freeing blocks parks them, and they come back. */
static void blocks_that_were_parked_come_back_by_the_sweep(void **state)
{
	struct fixture f;
	struct coshm__op op;
	struct coshm__queue *q;
	struct coshm_task task;

	(void)state;
	fixture_open(&f, &blocks);
	assert_int_equal(coshm__op_begin(&op, f.queue, COSHM_OBJECT_QUEUE), 0);
	q = op.handle->local;
	for (int i = 0; i < 2; i++)
		assert_int_equal(coshm_queue_enqueue(f.queue, large, sizeof(large), NULL, NULL), 0);
	while (coshm__hint_ring_push(&q->block_ring, 1) == 0)
		;
	while (coshm_queue_reserve(f.queue, 0, &task) == 1)
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	coshm__op_end(&op);
	for (int tries = 0; tries < 500; tries++) {
		int fit = 0;

		test_sleep_ns(11 * MS);
		while (fit < 2 &&
		       coshm_queue_enqueue(f.queue, large, sizeof(large), NULL, NULL) == 0)
			fit++;
		for (int i = 0; i < fit; i++) {
			assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
			assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
		}
		if (fit == 2) {
			fixture_close(&f);
			return;
		}
	}
	fail_msg("the parked blocks did not come back");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_broken_invariant_is_damage),
		cmocka_unit_test(what_the_dead_left_is_pending),
		cmocka_unit_test(what_a_living_member_is_in_the_middle_of_is_nothing),
		cmocka_unit_test(records_that_were_parked_come_back_by_the_sweep),
		cmocka_unit_test(blocks_that_were_parked_come_back_by_the_sweep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
