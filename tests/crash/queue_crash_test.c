/* SPDX-License-Identifier: MIT */
/*
 * Every crash point of the queue and of its hint rings: a member is killed there, or stopped and resumed after others have
 * gone on for laps. Afterwards the ledger must balance (P1, P2), no invariant be broken, and all room be there.
 *
 * The ledger is kept outside of the queue, in memory that the processes share. For each task it says what has been called
 * and what has returned, so that a call that was cut off may have happened or not, and nothing else may.
 */
#include "../unit/queue_fixture.h"
#include "base/crash.h"

#include <signal.h>
#include <unistd.h>

#define TASKS	  64
#define CAPACITY  8
#define POOL	  10   /* blocks of 1 KiB */
#define LARGE	  5000 /* five of them */
#define HITS_MOST 8    /* of one point in one scenario */

struct entry {
	struct coshm__a32 enqueue_called, enqueued, ack_called, acked, drop_called, dropped;
	struct coshm__a32 bad_payload;
	struct coshm__a64 size_bytes;
};

struct ledger {
	struct entry entries[TASKS];
	struct coshm__a32 next; /* number of the next task */
	struct coshm__a64 reached[COSHM__CRASH_COUNT];
	struct coshm__a32 peer_stop, peer_rounds;
};

/* What a process knows. */
struct stage {
	struct fixture f;
	struct ledger *ledger;
	int (*body)(struct stage *stage);
	enum coshm__crash_point point;
	int signal;
	uint32_t countdown;
	int parks; /* it leaves records that wait for a sweep, dead or alive */
};

static void add(struct coshm__a32 *count)
{
	coshm__a32_fetch_add_acq_rel(count, 1);
}

static unsigned int count_of(const struct coshm__a32 *count)
{
	return coshm__a32_load_acquire(count);
}

/* --- what members do; none of this asserts, it also runs in children ----------------------------------------------- */

static void fill(unsigned char *bytes, uint32_t number, size_t size)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)(number * 31 + i * 7 + (i >> 8));
	memcpy(bytes, &number, sizeof(number));
}

/* Its number, or -1 if there was no room. */
static int do_enqueue(struct stage *s, size_t size, uint64_t delay_ns, uint32_t max_attempts)
{
	struct coshm_enqueue_options options = {.delay_ns = delay_ns, .max_attempts = max_attempts};
	uint32_t number = coshm__a32_fetch_add_acq_rel(&s->ledger->next, 1);
	struct entry *entry = &s->ledger->entries[number % TASKS];
	static unsigned char bytes[LARGE];
	int error;

	if (number >= TASKS)
		return -1;
	fill(bytes, number, size);
	coshm__a64_store_seq_cst(&entry->size_bytes, size);
	add(&entry->enqueue_called);
	error = coshm_queue_enqueue(s->f.queue, bytes, size, &options, NULL);
	if (error)
		return -1; /* an error return has changed nothing: enqueue_called without a task is legal */
	add(&entry->enqueued);
	return (int)number;
}

enum verdict { ACK, NACK, RELEASE, BURY };

static int do_work(struct stage *s, enum verdict verdict, uint64_t timeout_ns, uint64_t *ret_id)
{
	static unsigned char bytes[LARGE], expected[LARGE];
	struct coshm_task task;
	struct entry *entry;
	size_t size = sizeof(bytes);
	uint32_t number = TASKS;
	int error = 0;

	if (coshm_queue_reserve(s->f.queue, timeout_ns, &task) != 1)
		return 0;
	if (ret_id)
		*ret_id = task.id;
	if (coshm_queue_payload(s->f.queue, &task, bytes, &size) == 0 && size >= sizeof(number))
		memcpy(&number, bytes, sizeof(number));
	entry = &s->ledger->entries[number % TASKS];
	fill(expected, number, size);
	if (number >= TASKS || size != coshm__a64_load_seq_cst(&entry->size_bytes) ||
	    memcmp(bytes, expected, size))
		add(&entry->bad_payload);
	switch (verdict) {
	case ACK:
		add(&entry->ack_called);
		error = coshm_queue_ack(s->f.queue, &task);
		if (!error)
			add(&entry->acked);
		break;
	case NACK:
		error = coshm_queue_nack(s->f.queue, &task, "failed", COSHM_FOREVER);
		break;
	case RELEASE:
		error = coshm_queue_release(s->f.queue, &task);
		break;
	case BURY:
		error = coshm_queue_bury(s->f.queue, &task, "buried");
		break;
	}
	if (error)
		add(&entry->bad_payload);
	return 1;
}

static void do_drop(struct stage *s, int number, uint64_t id)
{
	struct entry *entry;

	if (number < 0)
		return;
	entry = &s->ledger->entries[number];
	add(&entry->drop_called);
	if (coshm_queue_drop(s->f.queue, id, NULL) == 0)
		add(&entry->dropped);
}

/* --- scenarios ------------------------------------------------------------------------------------------------------ */

/* One of everything. Others may take its tasks meanwhile: it goes on with what it finds. */
static int usual_life(struct stage *s)
{
	uint64_t id = 0;
	int number;

	do_enqueue(s, 64, 0, 0);
	do_enqueue(s, LARGE, 0, 0);
	do_enqueue(s, 100, 200 * 1000, 0);
	do_work(s, ACK, 0, NULL);
	do_work(s, ACK, 0, NULL);
	do_work(s, NACK, 2 * MS, NULL); /* sleeps until it is due */
	do_enqueue(s, 64, 0, 0);	/* and finds the mark of a sleeper */
	do_work(s, RELEASE, 0, NULL);
	do_work(s, ACK, 2 * MS, NULL);
	do_work(s, ACK, 2 * MS, NULL);
	do_enqueue(s, 64, 0, 0);
	do_work(s, BURY, 0, NULL);
	if (coshm_queue_redrive(s->f.queue, 0, NULL))
		return 1;
	do_work(s, ACK, 0, NULL);
	do_enqueue(s, 64, 0, 1);
	do_work(s, NACK, 0, NULL); /* dead after its only attempt */
	number = do_enqueue(s, LARGE, 0, 0);
	if (do_work(s, BURY, 0, &id))
		do_drop(s, number, id);
	do_enqueue(s, LARGE, 0, 0);
	do_enqueue(s, LARGE - 1000, 0, 0);
	do_enqueue(s, LARGE, 0, 0); /* no room in the pool */
	return 0;
}

/* Rings full of duplicates, as no run of this test would ever make them otherwise. */
static int full_rings(struct stage *s)
{
	struct coshm__op op;
	struct coshm__queue *q;

	if (coshm__op_begin(&op, s->f.queue, COSHM_OBJECT_QUEUE))
		return 1;
	q = op.handle->local;
	while (coshm__hint_ring_push(&q->ready, 7) == 0)
		;
	coshm__op_end(&op);
	do_enqueue(s, LARGE, 0, 0);
	do_work(s, RELEASE, 0, NULL);
	do_work(s, ACK, 0, NULL);
	if (coshm__op_begin(&op, s->f.queue, COSHM_OBJECT_QUEUE))
		return 1;
	while (coshm__hint_ring_push(&q->free, 7) == 0)
		;
	while (coshm__hint_ring_push(&q->block_ring, 7) == 0)
		;
	coshm__op_end(&op);
	do_enqueue(s, LARGE, 0, 0);
	do_work(s, ACK, 0, NULL);
	test_sleep_ns(11 * MS);
	do_enqueue(s, LARGE, 0, 0);
	do_work(s, ACK, 0, NULL);
	return 0;
}

static int reap_others(struct stage *s)
{
	return coshm_segment_reap(s->f.segment, NULL) != 0;
}

/* --- victims: members that die in each of the owned states ------------------------------------------------------------ */

static int enqueue_small(struct stage *s)
{
	do_enqueue(s, 64, 0, 0);
	return 0;
}

static int enqueue_large(struct stage *s)
{
	do_enqueue(s, 2000, 0, 0);
	return 0;
}

static int enqueue_later(struct stage *s)
{
	do_enqueue(s, 64, 100 * 1000, 0);
	return 0;
}

static int work_nack(struct stage *s)
{
	do_work(s, NACK, 0, NULL);
	return 0;
}

static int work_ack(struct stage *s)
{
	do_work(s, ACK, 0, NULL);
	return 0;
}

struct victim {
	int (*prepare)(struct stage *s); /* in the parent */
	int (*body)(struct stage *s);
	enum coshm__crash_point point;
	uint32_t countdown;
};

static int prepare_last_attempt(struct stage *s)
{
	do_enqueue(s, 64, 0, 1);
	return 0;
}

static const struct victim victims[] = {
	{enqueue_large, work_nack, COSHM__CRASH_QUEUE_LEASE_STAMPED, 1},
	{prepare_last_attempt, work_nack, COSHM__CRASH_QUEUE_LEASE_STAMPED, 1},
	{enqueue_small, work_nack, COSHM__CRASH_QUEUE_FAILURE_WRITTEN, 1},
	{enqueue_large, work_ack, COSHM__CRASH_QUEUE_ACKED, 1},
	{NULL, enqueue_large, COSHM__CRASH_QUEUE_BLOCK_TAKEN, 2},
	{NULL, enqueue_later, COSHM__CRASH_QUEUE_DELAY_GROUP, 1},
	{NULL, enqueue_small, COSHM__CRASH_QUEUE_PUBLISHED, 1},
};

/* --- running a scenario -------------------------------------------------------------------------------------------------- */

static int run_body(void *arg)
{
	struct stage *s = arg;
	int error;

	/* The handles are inherited; the first call makes this process a member of its own. */
	if (coshm_segment_now_ns(s->f.segment) == 0)
		return 2;
	if (s->signal)
		coshm__crash_arm(s->point, s->signal, s->countdown);
	error = s->body(s);
	for (int point = 0; point < COSHM__CRASH_COUNT; point++)
		coshm__a64_store_seq_cst(&s->ledger->reached[point],
					 coshm__crash_reach_count((enum coshm__crash_point)point));
	if (!error)
		error = coshm_segment_detach(s->f.segment) ? 3 : 0;
	return error;
}

static struct coshm__a64 *next_reap_at_ns(struct stage *s)
{
	struct coshm__op op;
	struct coshm__a64 *word;

	assert_int_equal(coshm__op_begin(&op, s->f.queue, COSHM_OBJECT_QUEUE), 0);
	word = &op.segment->header->next_reap_at_ns;
	coshm__op_end(&op);
	return word;
}

static void stage_open(struct stage *s)
{
	const struct coshm_queue_config config = {.capacity = CAPACITY,
						  .payload_max_bytes = LARGE,
						  .payload_pool_bytes = POOL * 1024,
						  .backoff_kind = COSHM_BACKOFF_FIXED,
						  .backoff_base_ns = 50 * 1000};

	fixture_open(&s->f, &config);
	memset(s->ledger, 0, sizeof(*s->ledger));
}

/* Members that died with something, and nobody who has noticed: for them the time stands still. */
static void stage_victims(struct stage *s)
{
	uint64_t now_ns = test_now_ns();

	set_now(now_ns);
	coshm__a64_store_seq_cst(next_reap_at_ns(s), now_ns + COSHM__REAP_INTERVAL_NS);
	for (size_t i = 0; i < sizeof(victims) / sizeof(victims[0]); i++) {
		struct stage victim = *s;

		if (victims[i].prepare)
			assert_int_equal(victims[i].prepare(s), 0);
		victim.body = victims[i].body;
		victim.point = victims[i].point;
		victim.countdown = victims[i].countdown;
		victim.signal = SIGKILL;
		assert_int_equal(proc_collect(proc_spawn(run_body, &victim), PROC_DEADLINE_NS),
				 -SIGKILL);
	}
	set_now(0);
	assert_int_equal(depth_of(&s->f).leased, 3);
}

/* Works everything off that there is, dead letters too. */
static void drain(struct stage *s)
{
	struct coshm_queue_depth depth;

	for (int tries = 0; tries < 20000; tries++) {
		while (do_work(s, ACK, 0, NULL))
			;
		depth = depth_of(&s->f);
		if (depth.dead)
			assert_int_equal(coshm_queue_redrive(s->f.queue, 0, NULL), 0);
		else if (depth.ready + depth.delayed == 0)
			return;
		else
			test_sleep_ns(50 * 1000);
	}
	fail_msg("tasks are left that nobody gets");
}

static void assert_ledger_balances(struct stage *s)
{
	for (uint32_t i = 0; i < TASKS; i++) {
		struct entry *e = &s->ledger->entries[i];
		unsigned int done = count_of(&e->acked) + count_of(&e->dropped);
		unsigned int cut_off = count_of(&e->ack_called) - count_of(&e->acked) +
				       count_of(&e->drop_called) - count_of(&e->dropped);

		assert_int_equal(count_of(&e->bad_payload), 0);
		assert_in_range(done, 0, 1); /* P2: nothing that is done comes again */
		if (count_of(&e->enqueued) && !cut_off)
			assert_int_equal(done, 1); /* P1 */
		if (!count_of(&e->enqueue_called))
			assert_int_equal(done, 0);
	}
}

/* Two of the largest payloads take all blocks. How many fit? */
static int large_room(struct stage *s)
{
	static const unsigned char bytes[LARGE];
	struct coshm_task task;
	int count = 0;

	while (coshm_queue_enqueue(s->f.queue, bytes, LARGE, NULL, NULL) == 0)
		count++;
	for (int i = 0; i < count; i++) {
		assert_int_equal(coshm_queue_reserve(s->f.queue, 0, &task), 1);
		assert_int_equal(coshm_queue_ack(s->f.queue, &task), 0);
	}
	return count;
}

static void assert_all_room_is_there(struct stage *s)
{
	int tries = 0;

	/* What waits for a hint gets it by a sweep when there is no room otherwise, one in 10 ms. */
	do {
		if (s->parks)
			test_sleep_ns(11 * MS);
		if (room_of(&s->f) == CAPACITY && large_room(s) == 2)
			return;
	} while (s->parks && tries++ < 100);
	fail_msg("%s", "a record or a block is lost");
}

static void stage_close(struct stage *s)
{
	assert_int_equal(coshm_segment_reap(s->f.segment, NULL), 0);
	if (!s->parks)
		assert_verified(s->f.segment);
	drain(s);
	assert_ledger_balances(s);
	assert_all_room_is_there(s);
	fixture_close(&s->f);
}

/* While a member stands still, everybody else gets all but what it holds. */
static void go_on_for_laps(struct stage *s)
{
	struct coshm_verify_result result = {0};

	for (int lap = 0; lap < 6; lap++) {
		int before = (int)coshm__a32_load_acquire(&s->ledger->next);
		int number = do_enqueue(s, lap % 2 ? 64 : 2000, 0, 0);

		/* At most the record that it builds or frees, and its blocks, are out of reach. */
		while (do_work(s, ACK, 0, NULL))
			;
		if (number < 0 && before < TASKS)
			number = do_enqueue(s, 64, 0, 0);
		if (before < TASKS - 1)
			assert_true(number >= 0);
	}
	while (do_work(s, ACK, 0, NULL))
		;
	assert_int_equal(coshm_inspect_verify(s->f.segment, NULL, print_finding, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
}

static int busy_peer(struct stage *s)
{
	while (!count_of(&s->ledger->peer_stop)) {
		struct coshm_task task;

		/* room for everybody else's tasks; its own have no number */
		do_work(s, ACK, 0, NULL);
		if (coshm_queue_reserve(s->f.queue, 0, &task) == 1 &&
		    coshm_queue_release(s->f.queue, &task))
			return 1;
		add(&s->ledger->peer_rounds);
	}
	return 0;
}

static void run_once(struct stage *s, int with_victims, int with_peer)
{
	struct stage peer;
	struct proc *proc, *peer_proc = NULL;
	int result;

	stage_open(s);
	if (with_victims)
		stage_victims(s);
	if (with_peer) {
		peer = *s;
		peer.body = busy_peer;
		peer.signal = 0;
		peer_proc = proc_spawn(run_body, &peer);
	}
	proc = proc_spawn(run_body, s);
	if (s->signal == SIGSTOP) {
		result = proc_wait_stopped(proc, PROC_DEADLINE_NS);
		if (result == 1) {
			if (with_victims)
				assert_int_equal(coshm_segment_reap(s->f.segment, NULL), 0);
			go_on_for_laps(s);
			proc_resume(proc);
		}
		/* With peers it may not get to that point again and end by itself. */
		assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	} else {
		result = proc_collect(proc, PROC_DEADLINE_NS);
		assert_true(result == -SIGKILL || result == 0);
	}
	if (with_peer) {
		add(&s->ledger->peer_stop);
		assert_int_equal(proc_collect(peer_proc, PROC_DEADLINE_NS), 0);
	}
	stage_close(s);
}

/* How often does the scenario reach each point when nothing happens to it? */
static void dry_run(struct stage *s, int with_victims, uint64_t reached[COSHM__CRASH_COUNT])
{
	s->signal = 0;
	stage_open(s);
	if (with_victims)
		stage_victims(s);
	assert_int_equal(proc_collect(proc_spawn(run_body, s), PROC_DEADLINE_NS), 0);
	for (int point = 0; point < COSHM__CRASH_COUNT; point++)
		reached[point] = coshm__a64_load_seq_cst(&s->ledger->reached[point]);
	stage_close(s);
}

static int is_ours(int point)
{
	const char *name = coshm__crash_rows[point].name;

	return (strncmp(name, "QUEUE_", 6) == 0 || strncmp(name, "HINT_", 5) == 0) &&
	       strcmp(name, "QUEUE_REMOVED") != 0;
}

static uint64_t covered[COSHM__CRASH_COUNT];

static void walk(int (*body)(struct stage *s), int with_victims, int signal, int with_peer)
{
	uint64_t reached[COSHM__CRASH_COUNT];
	struct stage s = {.ledger = proc_shared_alloc(sizeof(struct ledger)),
			  .body = body,
			  .parks = body == full_rings};

	dry_run(&s, with_victims, reached);
	for (int point = 0; point < COSHM__CRASH_COUNT; point++) {
		if (!is_ours(point))
			continue;
		covered[point] += reached[point];
		for (uint32_t hit = 1; hit <= reached[point] && hit <= HITS_MOST; hit++) {
			s.point = (enum coshm__crash_point)point;
			s.countdown = hit;
			s.signal = signal;
			fprintf(stderr, "# %s, %u. time, signal %d%s\n",
				coshm__crash_rows[point].name, hit, signal,
				with_peer ? ", busy peer" : "");
			run_once(&s, with_victims, with_peer);
			if (with_peer)
				break;
		}
	}
}

static void usual_life_killed_anywhere_loses_nothing(void **state)
{
	(void)state;
	walk(usual_life, 0, SIGKILL, 0);
}

static void usual_life_stopped_anywhere_blocks_nobody_and_wakes_up_harmless(void **state)
{
	(void)state;
	walk(usual_life, 0, SIGSTOP, 0);
}

static void usual_life_killed_beside_a_busy_peer_loses_nothing(void **state)
{
	(void)state;
	walk(usual_life, 0, SIGKILL, 1);
}

static void reaper_killed_anywhere_is_followed_by_the_next(void **state)
{
	(void)state;
	walk(reap_others, 1, SIGKILL, 0);
}

static void reaper_stopped_anywhere_wakes_up_harmless_when_others_have_done_its_work(void **state)
{
	(void)state;
	walk(reap_others, 1, SIGSTOP, 0);
}

static void full_rings_and_a_death_lose_nothing(void **state)
{
	(void)state;
	walk(full_rings, 0, SIGKILL, 0);
	walk(full_rings, 0, SIGSTOP, 0);
}

static void every_row_of_the_table_was_walked_over(void **state)
{
	(void)state;
	for (int point = 0; point < COSHM__CRASH_COUNT; point++)
		if (is_ours(point) && !covered[point])
			fail_msg("%s was never reached", coshm__crash_rows[point].name);
}

static int remove_queue(struct stage *s)
{
	return coshm_object_remove(s->f.segment, "q") != 0;
}

static void sleepers_notice_a_removal_whose_remover_died(void **state)
{
	struct stage s = {.ledger = proc_shared_alloc(sizeof(struct ledger)),
			  .body = remove_queue,
			  .point = COSHM__CRASH_QUEUE_REMOVED,
			  .signal = SIGKILL,
			  .countdown = 1};
	struct coshm_task task;

	(void)state;
	stage_open(&s);
	assert_int_equal(proc_collect(proc_spawn(run_body, &s), PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(coshm_queue_reserve(s.f.queue, COSHM_FOREVER, &task), -ESHUTDOWN);
	assert_int_equal(coshm_segment_reap(s.f.segment, NULL), 0);
	fixture_close(&s.f);
}

struct nacker {
	struct fixture f;
	enum coshm__crash_point point;
};

static int nack_and_die(void *arg)
{
	struct nacker *nacker = arg;
	struct coshm_task task;

	coshm__crash_arm(nacker->point, SIGKILL, 1);
	if (coshm_queue_reserve(nacker->f.queue, 0, &task) != 1)
		return 1;
	return coshm_queue_nack(nacker->f.queue, &task, "no", COSHM_FOREVER) ? 2 : 3;
}

/* A nack that got as far as the log is a failure, which waits; one that did not is a death, which does not. */
static void death_in_a_nack_waits_for_the_backoff_once_the_failure_is_logged(void **state)
{
	static const struct coshm_queue_config config = {.capacity = 4, .backoff_base_ns = 60 * S};
	static const struct {
		enum coshm__crash_point point;
		uint64_t ready, delayed;
	} cases[] = {
		{COSHM__CRASH_QUEUE_FINISHING, 1, 0},
		{COSHM__CRASH_QUEUE_FAILURE_WRITTEN, 1, 0},
		{COSHM__CRASH_QUEUE_FAILURE_LOGGED, 0, 1},
		{COSHM__CRASH_QUEUE_FAILURE_COUNTED, 0, 1},
		{COSHM__CRASH_QUEUE_DUE_SET, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nacker nacker = {.point = cases[i].point};

		fixture_open(&nacker.f, &config);
		set_now(1000 * S);
		put(&nacker.f, "x");
		assert_int_equal(proc_collect(proc_spawn(nack_and_die, &nacker), PROC_DEADLINE_NS),
				 -SIGKILL);
		assert_int_equal(coshm_segment_reap(nacker.f.segment, NULL), 0);
		assert_depth(&nacker.f, cases[i].ready, cases[i].delayed, 0, 0);
		if (cases[i].delayed)
			assert_int_equal(the_one(&nacker.f, COSHM_TASK_DELAYED).info.due_at_ns,
					 1060 * S);
		fixture_close(&nacker.f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(usual_life_killed_anywhere_loses_nothing),
		cmocka_unit_test(usual_life_stopped_anywhere_blocks_nobody_and_wakes_up_harmless),
		cmocka_unit_test(usual_life_killed_beside_a_busy_peer_loses_nothing),
		cmocka_unit_test(reaper_killed_anywhere_is_followed_by_the_next),
		cmocka_unit_test(
			reaper_stopped_anywhere_wakes_up_harmless_when_others_have_done_its_work),
		cmocka_unit_test(full_rings_and_a_death_lose_nothing),
		cmocka_unit_test(every_row_of_the_table_was_walked_over),
		cmocka_unit_test(sleepers_notice_a_removal_whose_remover_died),
		cmocka_unit_test(death_in_a_nack_waits_for_the_backoff_once_the_failure_is_logged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
