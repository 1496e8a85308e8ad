/* SPDX-License-Identifier: MIT */
/*
 * The queue's own code, overtaken: in front of each of its accesses, once, others go on with the very task, up to another
 * life of its record. A call that wakes up then changes nothing of what they did, and gives out nothing of theirs.
 *
 * Who died is an owner that no member is, so that nobody else begins to reap it.
 */
#include "base/atomic.h"
#include "base/log.h"
#include "segment/member.h"
#include "segment/object.h"
#include "stats/stats.h"
#include "structs/hint_ring.h"

static void stop_before(void);

#define coshm__a64_load_relaxed(a)	(stop_before(), coshm__a64_load_relaxed(a))
#define coshm__a64_load_acquire(a)	(stop_before(), coshm__a64_load_acquire(a))
#define coshm__a64_store_relaxed(a, v)	(stop_before(), coshm__a64_store_relaxed(a, v))
#define coshm__a64_cas_relaxed(a, e, d) (stop_before(), coshm__a64_cas_relaxed(a, e, d))
#define coshm__a64_cas_acq_rel(a, e, d) (stop_before(), coshm__a64_cas_acq_rel(a, e, d))
#define coshm__a64_cas_seq_cst(a, e, d) (stop_before(), coshm__a64_cas_seq_cst(a, e, d))
#define coshm__a32_load_relaxed(a)	(stop_before(), coshm__a32_load_relaxed(a))
#define coshm__a32_store_relaxed(a, v)	(stop_before(), coshm__a32_store_relaxed(a, v))
#define coshm__a32_cas_relaxed(a, e, d) (stop_before(), coshm__a32_cas_relaxed(a, e, d))

#include "modules/queue/blocks.c"
#include "modules/queue/dead.c"
#include "modules/queue/delay.c"
#include "modules/queue/event.c"
#include "modules/queue/finish.c"
#include "modules/queue/reap.c"

#include "unit/queue_fixture.h"

enum { PAYLOAD = 3000, BLOCKS_MAX = 64 };

/* A member id that nobody has. */
#define STRANGER (1000u << COSHM__MEMBER_GENERATION_BITS | 77)

static const uint64_t start_ns = 1000 * S, plenty = 1 << 20;

static struct fixture f;
static struct coshm__op op;
static struct coshm__queue *q;

/* --- payloads: each has a length and bytes of its own ------------------------------------------------------------ */

static unsigned char payload[PAYLOAD];

static size_t size_of(int number)
{
	return (size_t)(PAYLOAD - 700 * (number % 3));
}

static int put_number(int number)
{
	memset(payload, number, sizeof(payload));
	return coshm_queue_enqueue(f.queue, payload, size_of(number), NULL, NULL);
}

static int is_number(const unsigned char *bytes, size_t size, int number)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != number)
			return 0;
	return size == size_of(number);
}

/* --- whoever overtakes ------------------------------------------------------------------------------------------- */

/* What others can do, one after the other; no assertion, as they do it in the middle of a call. */
static struct coshm_task task;
static int number; /* of the last payload */
static int trouble;

static void take(void)
{
	trouble += coshm_queue_reserve(f.queue, 0, &task) != 1;
}

static void ack(void)
{
	trouble += coshm_queue_ack(f.queue, &task) != 0;
}

static void fail_it(void)
{
	trouble += coshm_queue_nack(f.queue, &task, "no", 3600 * S) != 0;
}

static void bury_it(void)
{
	trouble += coshm_queue_bury(f.queue, &task, "no") != 0;
}

static void release(void)
{
	trouble += coshm_queue_release(f.queue, &task) != 0;
}

static void put_next(void)
{
	trouble += put_number(++number) != 0;
}

static void reap_all_of_it(void)
{
	uint64_t cursor = 0;

	trouble += coshm__queue_reap(&op, op.handle, STRANGER, &cursor, plenty) != 1;
}

static uint64_t letter; /* id of the dead letter */

static void redrive_it(void)
{
	trouble += coshm_queue_redrive(f.queue, letter, NULL) != 0;
}

typedef void (*const deed)(void);
enum { DEEDS_MAX = 8 };

static const deed *deeds; /* ends with NULL */
static int stops, stop_at = -1, was_stopped;
static uint64_t only_at; /* no stop once the record's word is another one; 0: at any time */

/* Of what others must find as they left it. */
struct image {
	struct coshm__record_shm record;
	struct coshm__attempt_shm attempts[COSHM__QUEUE_ATTEMPTS_KEPT];
	uint64_t block_words[BLOCKS_MAX];
	uint32_t block_next[BLOCKS_MAX];
};

static void take_image(struct image *image)
{
	memset(image, 0, sizeof(*image));
	memcpy(&image->record, q->records, sizeof(image->record));
	memcpy(image->attempts, q->attempts, q->attempt_record_count * sizeof(image->attempts[0]));
	memcpy(image->block_words, q->block_words, q->block_count * sizeof(uint64_t));
	memcpy(image->block_next, q->block_next, q->block_count * sizeof(uint32_t));
}

static struct image left;

static void stop_before(void)
{
	if (stop_at < 0 || stops++ != stop_at)
		return;
	stop_at = -1;
	if (only_at && memcmp(&q->records[0].word, &only_at, sizeof(only_at)) != 0)
		return;
	was_stopped = 1;
	for (int i = 0; deeds[i]; i++)
		deeds[i]();
	take_image(&left);
}

/* --- the frame of each test -------------------------------------------------------------------------------------- */

static void open_queue(const struct coshm_queue_config *config)
{
	fixture_open(&f, config);
	assert_int_equal(coshm__op_begin(&op, f.queue, COSHM_OBJECT_QUEUE), 0);
	q = op.handle->local;
	coshm__op_end(&op);
	assert_true(q->block_count <= BLOCKS_MAX && q->capacity <= 8);
}

static void prepare(void)
{
	const struct coshm_queue_config config = {.capacity = 1,
						  .payload_max_bytes = PAYLOAD,
						  .payload_pool_bytes = 8192,
						  .max_attempts = 3,
						  .backoff_base_ns = 10 * S,
						  .backoff_max_ns = 10 * S};

	open_queue(&config);
	set_now(start_ns);
	number = 1;
	trouble = 0;
	assert_int_equal(put_number(1), 0);
}

static void clear(void)
{
	const int error = coshm_queue_ack(f.queue, &task);

	assert_true(error == 0 || error == -ESTALE);
	only_at = 0;
	set_now(start_ns + 7200 * S);
	while (coshm_queue_reserve(f.queue, 0, &task) == 1)
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
	assert_int_equal(coshm_queue_drop(f.queue, 0, NULL), 0);
	assert_depth(&f, 0, 0, 0, 0);
	fixture_close(&f);
}

/*
 * @set_up     makes the state that @operation begins with
 * @others     what is done meanwhile, one of the lists
 * @check      what holds at the end, overtaken or not; may be NULL
 */
static void overtaken_everywhere(void (*set_up)(void), void (*operation)(void),
				 const deed others[][DEEDS_MAX], size_t count, void (*check)(void))
{
	for (size_t i = 0; i < count; i++)
		for (int at = 0;; at++) {
			struct image now;

			prepare();
			set_up();
			assert_int_equal(trouble, 0);
			deeds = others[i];
			stops = was_stopped = 0;
			stop_at = at;
			operation();
			stop_at = -1;
			assert_int_equal(trouble, 0);
			if (was_stopped) {
				take_image(&now);
				if (memcmp(&now, &left, sizeof(now)) != 0)
					fail_msg("others %zu, stop %d: not as they left it", i, at);
			}
			if (check)
				check();
			clear();
			if (!was_stopped)
				break;
		}
}

#define OVERTAKEN(set_up, operation, others, check) \
	overtaken_everywhere(set_up, operation, others, sizeof(others) / sizeof((others)[0]), check)

/* --- a payload whose lease ends ---------------------------------------------------------------------------------- */

static void is_taken(void)
{
	take();
}

static void read_payload(void)
{
	const struct coshm_task mine = task;
	unsigned char bytes[PAYLOAD];
	size_t size = sizeof(bytes);
	int error = coshm_queue_payload(f.queue, &mine, bytes, &size);

	if (error != -ESTALE) {
		assert_int_equal(error, 0);
		assert_true(is_number(bytes, size, 1));
	}
}

static void payload_is_not_of_another_task(void **state)
{
	static const deed others[][DEEDS_MAX] = {
		{ack, put_next},
		{ack, put_next, take},
		{ack, put_next, take, ack, put_next, take},
		{release, take},
	};

	(void)state;
	OVERTAKEN(is_taken, read_payload, others, NULL);
}

/* --- reaping: anybody else may have reaped it, and gone on ------------------------------------------------------- */

static void give_to_stranger(uint32_t state)
{
	uint64_t word = task.opaque[0];

	if (state != COSHM__RECORD_LEASED)
		word = coshm__record_next(word, 0, state);
	coshm__record_store(q->records,
			    coshm__record_word(coshm__record_ticket(word), coshm__id24(STRANGER),
					       coshm__record_state(word)));
}

static void stranger_leased(void)
{
	take();
	give_to_stranger(COSHM__RECORD_LEASED);
}

/* Told, but not counted yet. */
static void stranger_failed(void)
{
	uint64_t word, attempts = coshm__a64_load_relaxed(&q->records[0].attempts);

	take();
	word = coshm__record_next(task.opaque[0], 0, COSHM__RECORD_FINISH);
	failure_log(q, 0, word, "told", start_ns);
	coshm__a64_store_relaxed(&q->records[0].attempts, attempts);
	give_to_stranger(COSHM__RECORD_FINISH);
}

static void stranger_acked(void)
{
	take();
	give_to_stranger(COSHM__RECORD_CLEAN);
}

/* The second attempt, as if the first one had failed: what makes the next failure wait. */
static void stranger_leased_again(void)
{
	take();
	trouble += coshm_queue_nack(f.queue, &task, "first", 0) != 0;
	stranger_leased();
}

static void later(void)
{
	set_now(start_ns + 60 * S);
}

static const deed reaped_and_gone_on[][DEEDS_MAX] = {
	{reap_all_of_it},
	{reap_all_of_it, later, take},
	{reap_all_of_it, later, take, fail_it},
	{reap_all_of_it, later, take, bury_it},
	{reap_all_of_it, later, take, release},
	{reap_all_of_it, later, take, ack, put_next},
	{reap_all_of_it, later, take, ack, put_next, take},
	{reap_all_of_it, later, take, ack, put_next, take, fail_it},
};

static void crashed_once(void)
{
	assert_int_equal(stat_of(&f, "crashed"), 1);
}

static void late_reaper_of_a_lease_changes_nothing(void **state)
{
	(void)state;
	OVERTAKEN(stranger_leased, reap_all_of_it, reaped_and_gone_on, crashed_once);
}

static void late_reaper_of_a_failure_changes_nothing(void **state)
{
	(void)state;
	OVERTAKEN(stranger_failed, reap_all_of_it, reaped_and_gone_on, crashed_once);
}

static void late_reaper_of_blocks_changes_nothing(void **state)
{
	static const deed others[][DEEDS_MAX] = {
		{reap_all_of_it},
		{reap_all_of_it, put_next},
		{reap_all_of_it, put_next, take},
		{reap_all_of_it, put_next, take, ack, put_next},
	};

	(void)state;
	OVERTAKEN(stranger_acked, reap_all_of_it, others, NULL);
}

/* --- reaping: another reaper died on its way --------------------------------------------------------------------- */

static struct snapshot seen;

static void log_only(void)
{
	trouble += !snapshot_take(q, 0, coshm__record_load(q->records), &seen);
	crash_log(&op, q, 0, &seen, start_ns);
}

static void log_and_due(void)
{
	uint64_t due;

	log_only();
	due = seen.due;
	coshm__a64_cas_relaxed(&q->records[0].due, &due,
			       coshm__stamp(seen.lease, coshm__due_us(start_ns, 10 * S)));
}

static void reap_from_there(void (*set_up)(void), void (*former)(void), uint32_t outcome)
{
	struct found found = {0};

	prepare();
	set_up();
	former();
	set_now(start_ns + 5 * S);
	reap_all_of_it();
	assert_int_equal(trouble, 0);
	assert_int_equal(coshm_queue_each(f.queue,
					  1u << COSHM_TASK_READY | 1u << COSHM_TASK_DELAYED, 0,
					  find_one, &found),
			 0);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.info.attempt_records[found.info.attempt_record_count - 1].outcome,
			 outcome);
	assert_int_equal(found.info.attempts, found.info.attempt_record_count);
	if (former == log_and_due)
		assert_int_equal(found.info.due_at_ns, start_ns + 10 * S);
	crashed_once();
	clear();
}

static void reaper_goes_on_where_another_one_died(void **state)
{
	(void)state;
	reap_from_there(stranger_leased_again, log_only, COSHM_ATTEMPT_CRASHED);
	reap_from_there(stranger_leased_again, log_and_due, COSHM_ATTEMPT_CRASHED);
	reap_from_there(stranger_failed, log_only, COSHM_ATTEMPT_FAILED);
	reap_from_there(stranger_failed, log_and_due, COSHM_ATTEMPT_FAILED);
}

/* --- dead letters ------------------------------------------------------------------------------------------------ */

static void letter_is_dead(void)
{
	take();
	bury_it();
	letter = task.id;
	memcpy(&only_at, &q->records[0].word, sizeof(only_at));
}

static void redrive_late(void)
{
	int error = coshm_queue_redrive(f.queue, letter, NULL);

	assert_int_equal(error, was_stopped ? -ENOENT : 0);
}

static void drop_late(void)
{
	int error = coshm_queue_drop(f.queue, letter, NULL);

	assert_int_equal(error, was_stopped ? -ENOENT : 0);
}

static const deed redriven_and_gone_on[][DEEDS_MAX] = {
	{redrive_it, take},
	{redrive_it, take, fail_it},
	{redrive_it, take, ack, put_next},
	{redrive_it, take, ack, put_next, take},
	{redrive_it, take, ack, put_next, take, fail_it},
	{redrive_it, take, ack, put_next, take, bury_it},
};

static void late_redrive_changes_nothing(void **state)
{
	(void)state;
	OVERTAKEN(letter_is_dead, redrive_late, redriven_and_gone_on, NULL);
}

static void late_drop_changes_nothing(void **state)
{
	(void)state;
	OVERTAKEN(letter_is_dead, drop_late, redriven_and_gone_on, NULL);
}

/* --- blocks ------------------------------------------------------------------------------------------------------ */

/* Two tasks that want the same block: the one that comes later takes another one. */
static void payloads_do_not_share_blocks(void **state)
{
	static const deed others[] = {put_next, NULL};

	(void)state;
	for (int at = 0, done = 0; !done; at++) {
		const struct coshm_queue_config config = {
			.capacity = 2, .payload_max_bytes = PAYLOAD, .payload_pool_bytes = 8192};
		unsigned char bytes[PAYLOAD];

		open_queue(&config);
		number = 1;
		trouble = 0;
		deeds = others;
		stops = was_stopped = 0;
		memset(payload, 1, sizeof(payload));
		{
			unsigned char mine[PAYLOAD];

			memset(mine, 1, sizeof(mine));
			stop_at = at;
			assert_int_equal(coshm_queue_enqueue(f.queue, mine, size_of(1), NULL, NULL),
					 0);
			stop_at = -1;
		}
		done = !was_stopped;
		assert_int_equal(trouble, 0);
		for (int i = 0; i < 1 + was_stopped; i++) {
			size_t size = sizeof(bytes);

			assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
			assert_int_equal(coshm_queue_payload(f.queue, &task, bytes, &size), 0);
			assert_true(is_number(bytes, size, bytes[0]));
			assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
		}
		fixture_close(&f);
	}
}

/* --- hints ------------------------------------------------------------------------------------------------------- */

/* A hint is a guess: pushed twice, or by a sweep, or by who was stopped, it names a task that somebody has. */
static void hint_for_a_task_that_is_leased_gives_nothing(void **state)
{
	const struct coshm_queue_config config = {.capacity = 2};
	struct coshm_task mine, none;

	(void)state;
	open_queue(&config);
	put(&f, "task");
	assert_int_equal(coshm_queue_reserve(f.queue, 0, &mine), 1);
	assert_int_equal(coshm__hint_ring_push(&q->ready, (uint32_t)mine.opaque[1]), 0);
	assert_int_equal(coshm_queue_reserve(f.queue, 0, &none), 0);
	assert_int_equal(coshm_queue_ack(f.queue, &mine), 0);
	fixture_close(&f);
}

/* --- due bounds -------------------------------------------------------------------------------------------------- */

static void nack_until_1200(void)
{
	trouble += coshm_queue_nack(f.queue, &task, "no", 50 * S) != 0;
}

/* Delayed behind a scan that has passed it, while a bound is there that is lower anyway. */
static void task_that_is_delayed_behind_a_scan_is_found(void **state)
{
	static const deed others[] = {nack_until_1200, NULL};

	(void)state;
	for (int at = 0, done = 0; !done; at++) {
		const struct coshm_enqueue_options in_100_s = {
			.struct_size_bytes = sizeof(in_100_s), .delay_ns = 100 * S};
		const struct coshm_queue_config config = {.capacity = 8};
		struct coshm_task first, none;

		open_queue(&config);
		set_now(1000 * S);
		trouble = 0;
		put(&f, "task");
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
		assert_int_equal(coshm_queue_enqueue(f.queue, "low", 3, &in_100_s, NULL), 0);
		set_now(1110 * S);
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &first), 1);
		assert_int_equal(coshm_queue_ack(f.queue, &first), 0);
		set_now(1150 * S);
		deeds = others;
		stops = was_stopped = 0;
		stop_at = at;
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &none), 0);
		stop_at = -1;
		done = !was_stopped;
		if (done)
			nack_until_1200();
		assert_int_equal(trouble, 0);
		set_now(1210 * S);
		assert_int_equal(coshm_queue_reserve(f.queue, 0, &task), 1);
		assert_int_equal(coshm_queue_ack(f.queue, &task), 0);
		fixture_close(&f);
	}
}

/* --- sleepers ---------------------------------------------------------------------------------------------------- */

static uint32_t mark;

static void fall_asleep(void)
{
	mark = (coshm__a32_load_relaxed(&q->shm->event) + COSHM__EVENT_STEP) |
	       COSHM__EVENT_SLEEPERS;
	coshm__a32_store_relaxed(&q->shm->event, mark);
}

/* Found nobody; before that is noted, somebody falls asleep: the next wake-up is his. */
static void sleeper_that_comes_while_nobody_is_found_is_not_forgotten(void **state)
{
	static const deed others[] = {fall_asleep, NULL};
	const struct coshm_queue_config config = {.capacity = 1};

	(void)state;
	open_queue(&config);
	assert_int_equal(coshm__op_begin(&op, f.queue, COSHM_OBJECT_QUEUE), 0);
	deeds = others;
	/* Only what comes behind the kernel's answer is a stop. */
	fall_asleep();
	stops = was_stopped = 0;
	stop_at = 0;
	coshm__queue_wake_one(&op, q);
	stop_at = -1;
	assert_true(was_stopped);
	assert_int_equal(coshm__a32_load_relaxed(&q->shm->event), mark);
	coshm__queue_wake_one(&op, q);
	assert_int_equal(coshm__a32_load_relaxed(&q->shm->event) & COSHM__EVENT_SLEEPERS, 0);
	coshm__op_end(&op);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(payload_is_not_of_another_task),
		cmocka_unit_test(late_reaper_of_a_lease_changes_nothing),
		cmocka_unit_test(late_reaper_of_a_failure_changes_nothing),
		cmocka_unit_test(late_reaper_of_blocks_changes_nothing),
		cmocka_unit_test(reaper_goes_on_where_another_one_died),
		cmocka_unit_test(late_redrive_changes_nothing),
		cmocka_unit_test(late_drop_changes_nothing),
		cmocka_unit_test(payloads_do_not_share_blocks),
		cmocka_unit_test(hint_for_a_task_that_is_leased_gives_nothing),
		cmocka_unit_test(task_that_is_delayed_behind_a_scan_is_found),
		cmocka_unit_test(sleeper_that_comes_while_nobody_is_found_is_not_forgotten),
	};

	return cmocka_run_group_tests_name("queue, overtaken", tests, NULL, NULL);
}
