/* SPDX-License-Identifier: MIT */
/*
 * P7 of coshm/cache.h in spite of deaths: in a cache of policy none with one free page and nothing dead anywhere, a member
 * that replaces values is killed, or stopped and resumed, at each row that it comes by, many times in one segment. None of
 * that uses anything up: the others replace every value each time, and whatever is there is whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "base/crash.h"
#include "modules/cache/cache.h"
#include "support/procs.h"

enum { KEYS = 20, NUMBERS = 6, LARGEST = 25000, TIMES = 12 };

/*
 * Of keys in turn: two values to a page of 32 KiB, behind them too little room for another one; numbers lie beside some of
 * them, so that what is moved is of both kinds.
 */
static const size_t usual_bytes[2] = {17000, 12000}, unlike_bytes[2] = {5000, LARGEST};
static const size_t *bytes_of = usual_bytes;
static uint64_t numbers_ttl_ns;

static struct coshm_segment *segment;
static struct coshm_cache *cache;
static char base_name[TEST_SEGMENT_NAME_SIZE], segment_name[TEST_SEGMENT_NAME_SIZE + 16];

struct plan {
	enum coshm__crash_point point;
	int signal;
	uint32_t countdown;
	uint32_t from; /* key */
};

static size_t size_of(uint32_t key)
{
	return bytes_of[key % 2];
}

static int store(uint32_t key, unsigned char with)
{
	static unsigned char value[LARGEST];

	memset(value, with, size_of(key));
	memcpy(value, &key, sizeof(key));
	return coshm_cache_set(cache, &key, sizeof(key), value, size_of(key), 0);
}

/* Every value, whoever stored it. */
static int all_are_whole(void)
{
	static unsigned char value[LARGEST];

	for (uint32_t key = 0; key < KEYS; key++) {
		size_t size = sizeof(value);

		if (coshm_cache_get(cache, &key, sizeof(key), value, &size, NULL) != 1 ||
		    size != size_of(key) || memcmp(value, &key, sizeof(key)) != 0)
			return 0;
		for (size_t i = sizeof(key); i < size; i++)
			if (value[i] != value[size - 1])
				return 0;
	}
	for (uint32_t i = 0; i < NUMBERS; i++) {
		size_t size = sizeof(value);

		/* A digit: no lock is asked for, which somebody stopped may hold. */
		if (coshm_cache_get(cache, &i, 3, value, &size, NULL) != 1 || size != 1 ||
		    value[0] != '0' + i)
			return 0;
	}
	return 1;
}

enum { PAGES_MAX = 64 };

static uint32_t held[PAGES_MAX];
static uint64_t held_words[PAGES_MAX];
static int held_count;

static int seal_pages(void)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	coshm__cache_seal_all(&op, op.handle->local, COSHM__CACHE_MAIN);
	coshm__op_end(&op);
	return 0;
}

/* All free pages but @keep are taken, by this process as long as it lives. */
static int take_pages(uint32_t keep)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	while (held_count < PAGES_MAX &&
	       coshm__cache_page_take(op.handle->local, 0, keep, COSHM__CACHE_PAGE_BUILD,
				      coshm__id24(op.member_id), &held[held_count],
				      &held_words[held_count]) == 0)
		held_count++;
	coshm__op_end(&op);
	return 0;
}

static int give_pages(int count)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	while (count-- > 0 && held_count-- > 0)
		coshm__cache_page_change(op.handle->local, held[held_count],
					 &held_words[held_count], COSHM__CACHE_PAGE_LIMBO, 0);
	coshm__cache_page_settle(&op, op.handle->local);
	coshm__op_end(&op);
	return 0;
}

static int make_empty(void)
{
	const struct coshm_segment_config memory = {.size_bytes = 3 << 20, .member_count_max = 16};
	const struct coshm_cache_config config = {
		.size_bytes = 1 << 20, .lanes = 1, .policy = COSHM_CACHE_NONE};
	static unsigned int count;

	if (count == 0)
		test_segment_name(base_name, "last-page");
	snprintf(segment_name, sizeof(segment_name), "%s-%u", base_name, count++);
	if (coshm_segment_create(segment_name, &memory, 0, &segment) ||
	    coshm_cache_create(segment, "c", &config, 0, &cache))
		return 1;
	held_count = 0;
	return 0;
}

static int make(uint32_t free_pages)
{
	if (make_empty())
		return 1;
	for (uint32_t key = 0; key < KEYS; key++)
		if (store(key, 1) || (key < NUMBERS && coshm_cache_incr(cache, &key, 3, 0, key,
									numbers_ttl_ns, NULL)))
			return 2;
	return seal_pages() || take_pages(free_pages);
}

static int drop(void)
{
	return coshm_segment_detach(segment) || coshm_segment_unlink(segment_name);
}

static int act(void *arg)
{
	const struct plan *plan = arg;

	coshm__crash_arm(plan->point, plan->signal, plan->countdown);
	for (uint32_t i = 0; i < 2 * KEYS; i++) {
		int error = store((plan->from + i * 7) % KEYS, (unsigned char)(i + 2));

		if (error) {
			fprintf(stderr, "# set: %s\n", strerror(-error));
			return 1;
		}
	}
	return 0;
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	if (level >= *(int *)context)
		fprintf(stderr, "# %s: %s\n", where, text);
}

static int is_sound(int least)
{
	struct coshm_verify_result result;

	if (coshm_inspect_verify(segment, NULL, print_finding, &least, &result))
		return 0;
	return result.damage == 0 && (least > COSHM_VERIFY_PENDING || result.pending == 0);
}

/* Each value once. @refusals: so many may be -EAGAIN, each after a fifth of a second; then no more are tried. */
static const char *replace_all(uint32_t time, int refusals)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		int error = store((time + i * 3) % KEYS, (unsigned char)(time + i));

		if (error == -EAGAIN && refusals > 0) {
			if (--refusals == 0)
				break;
		} else if (error) {
			fprintf(stderr, "# set: %s\n", strerror(-error));
			return "a value cannot be replaced";
		}
	}
	return all_are_whole() ? NULL : "a value is not whole";
}

static const char *kill_once(const struct plan *plan, int *ret_reached)
{
	struct proc *child = proc_spawn(act, (void *)plan);
	int result = proc_collect(child, PROC_DEADLINE_NS);

	*ret_reached = result == -SIGKILL;
	if (result > 0 || result == PROC_HUNG)
		return "the actor is wrong";
	if (!is_sound(COSHM_VERIFY_DAMAGE))
		return "damage after the death";
	return replace_all(plan->from, 0);
}

static const char *stop_once(const struct plan *plan, int *ret_reached)
{
	struct proc *child = proc_spawn(act, (void *)plan);
	const char *wrong = NULL;

	*ret_reached = proc_wait_stopped(child, PROC_DEADLINE_NS) == 1;
	if (*ret_reached) {
		if (!is_sound(COSHM_VERIFY_DAMAGE))
			wrong = "damage while it is stopped";
		else
			wrong = replace_all(plan->from, 2);
		proc_resume(child);
	}
	if (proc_collect(child, PROC_DEADLINE_NS) && !wrong)
		wrong = "the actor is wrong";
	return wrong ? wrong : replace_all(plan->from + 1, 0);
}

/* NULL, or what went wrong. */
static const char *run(struct plan *plan, int *ret_reached)
{
	const char *wrong = NULL;
	int times = plan->signal == SIGKILL ? TIMES : 1;

	if (make(1))
		return "cannot make the cache";
	*ret_reached = 1;
	for (int i = 0; i < times && *ret_reached && !wrong; i++) {
		plan->from = (uint32_t)i * 3 % KEYS;
		wrong = plan->signal == SIGKILL ? kill_once(plan, ret_reached)
						: stop_once(plan, ret_reached);
	}
	if (coshm_segment_reap(segment, NULL) && !wrong)
		wrong = "reap failed";
	if (!wrong && !is_sound(COSHM_VERIFY_PENDING))
		wrong = "something is left";
	if (!wrong)
		wrong = replace_all(2, 0);
	if (drop() && !wrong)
		wrong = "cannot detach";
	return wrong;
}

static void death_at_any_row_uses_up_nothing(void **state)
{
	static const uint32_t countdowns[] = {1, 2, 3, 11};
	unsigned int failed = 0, missed = 0, rows = 0;

	(void)state;
	for (int row = 0; row < COSHM__CRASH_COUNT; row++) {
		const char *name = coshm__crash_rows[row].name;
		int reached = 1, reached_ever = 0;

		if (strncmp(name, "cache_", 6) != 0)
			continue;
		for (uint32_t how = 0; how < 2 * 4 && reached; how++) {
			struct plan plan = {.point = (enum coshm__crash_point)row,
					    .signal = how % 2 ? SIGSTOP : SIGKILL,
					    .countdown = countdowns[how / 2]};
			const char *wrong = run(&plan, &reached);

			reached_ever |= reached;
			if (!wrong)
				continue;
			fprintf(stderr, "# FAILED: %s, %s, %u. time: %s\n", name,
				plan.signal == SIGKILL ? "killed" : "stopped", plan.countdown,
				wrong);
			failed++;
		}
		rows += (unsigned int)reached_ever;
		if (!reached_ever && strncmp(name, "cache_target_", 13) == 0) {
			fprintf(stderr, "# not reached: %s\n", name);
			missed++;
		}
	}
	assert_int_equal(missed, 0);
	assert_int_equal(failed, 0);
	assert_true(rows >= 15);
}

/* --- the last two pages, taken by two at once ---------------------------------------------------------------- */

static int stop_and_be_killed(void *arg)
{
	(void)arg;
	coshm__crash_arm(COSHM__CRASH_cache_page_chosen, SIGSTOP, 1);
	coshm__crash_arm(COSHM__CRASH_cache_written, SIGKILL, 1);
	return store(0, 9);
}

static void last_page_is_put_back_by_who_counted_before_others(void **state)
{
	struct proc *late;

	(void)state;
	assert_int_equal(make(2), 0);
	late = proc_spawn(stop_and_be_killed, NULL);
	assert_int_equal(proc_wait_stopped(late, PROC_DEADLINE_NS), 1);
	assert_int_equal(seal_pages(), 0);
	assert_int_equal(take_pages(1), 0);
	proc_resume(late);
	assert_int_equal(proc_collect(late, PROC_DEADLINE_NS), -SIGKILL);
	assert_null(replace_all(1, 0));
	assert_true(is_sound(COSHM_VERIFY_DAMAGE));
	assert_int_equal(drop(), 0);
}

/* --- what was seen before the page was owned ----------------------------------------------------------------- */

enum { REFUSED = 11 };

static int be_killed_when_placed(void *arg)
{
	const uint32_t *key = arg;

	coshm__crash_arm(COSHM__CRASH_cache_target_placed, SIGKILL, 1);
	return store(*key, 8);
}

struct stop {
	enum coshm__crash_point at, then_at;
	int then_signal;
	uint32_t key;
};

static int set_and_stop(void *arg)
{
	const struct stop *stop = arg;
	int error;

	coshm__crash_arm(stop->at, SIGSTOP, 1);
	if (stop->then_signal)
		coshm__crash_arm(stop->then_at, stop->then_signal, 1);
	error = store(stop->key, 9);
	return error == -EAGAIN ? REFUSED : error != 0;
}

/* Holds the number's stripe, so that it cannot be moved. */
static int add_and_stop(void *arg)
{
	const uint32_t *key = arg;

	coshm__crash_arm(COSHM__CRASH_cache_number_added, SIGSTOP, 1);
	return coshm_cache_incr(cache, key, 3, 0, 0, 0, NULL) != 0;
}

static struct proc *spawn_stopped(int (*body)(void *), void *arg)
{
	struct proc *proc = proc_spawn(body, arg);

	assert_int_equal(proc_wait_stopped(proc, PROC_DEADLINE_NS), 1);
	return proc;
}

static void value_that_moved_away_meanwhile_gives_no_place(void **state)
{
	static struct stop stop = {.at = COSHM__CRASH_cache_target_wanted};
	static uint32_t number = 0;
	struct proc *adder, *late;

	(void)state;
	bytes_of = unlike_bytes;
	assert_int_equal(make(1), 0);
	adder = spawn_stopped(add_and_stop, &number);
	late = spawn_stopped(set_and_stop, &stop);
	/* The value goes to the last page; its page stays, for the number. */
	assert_int_equal(store(0, 3), 0);
	proc_resume(late);
	assert_int_equal(proc_collect(late, PROC_DEADLINE_NS), REFUSED);
	proc_resume(adder);
	assert_int_equal(proc_collect(adder, PROC_DEADLINE_NS), 0);
	assert_null(replace_all(1, 0));
	assert_true(is_sound(COSHM_VERIFY_PENDING));
	assert_int_equal(drop(), 0);
	bytes_of = usual_bytes;
}

static void page_that_was_used_again_meanwhile_gives_no_place(void **state)
{
	static struct stop stop = {COSHM__CRASH_cache_target_wanted, COSHM__CRASH_cache_replaced,
				   SIGKILL, 0};

	(void)state;
	bytes_of = unlike_bytes;
	for (uint32_t rounds = 1; rounds <= 4; rounds++) {
		struct proc *late;

		assert_int_equal(make(1), 0);
		late = spawn_stopped(set_and_stop, &stop);
		for (uint32_t i = 0; i < rounds; i++)
			assert_null(replace_all(0, 0));
		assert_int_equal(seal_pages(), 0);
		assert_int_equal(take_pages(1), 0);
		proc_resume(late);
		assert_int_equal(proc_collect(late, PROC_DEADLINE_NS), -SIGKILL);
		assert_true(all_are_whole());
		assert_null(replace_all(3, 0));
		assert_true(is_sound(COSHM_VERIFY_DAMAGE));
		assert_int_equal(drop(), 0);
	}
	bytes_of = usual_bytes;
}

/* Its copy was on its way when the mover was killed. */
static void value_that_goes_while_its_page_is_taken_gives_no_place(void **state)
{
	static struct stop stop = {COSHM__CRASH_cache_target_wanted,
				   COSHM__CRASH_cache_target_source_owned, SIGSTOP, 0};
	static const uint32_t key = 0;
	struct proc *late;

	(void)state;
	bytes_of = unlike_bytes;
	assert_int_equal(make(1), 0);
	late = spawn_stopped(set_and_stop, &stop);
	assert_int_equal(
		proc_collect(proc_spawn(be_killed_when_placed, (void *)&key), PROC_DEADLINE_NS),
		-SIGKILL);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	proc_resume(late);
	assert_int_equal(proc_wait_stopped(late, PROC_DEADLINE_NS), 1);
	assert_int_equal(coshm_cache_delete(cache, &key, sizeof(key)), 1);
	proc_resume(late);
	assert_in_range(proc_collect(late, PROC_DEADLINE_NS), 0, REFUSED);
	for (uint32_t other = 1; other < KEYS; other++)
		assert_int_equal(store(other, 4), 0);
	assert_true(is_sound(COSHM_VERIFY_PENDING));
	assert_int_equal(drop(), 0);
	bytes_of = usual_bytes;
}

static int be_killed_when_described(void *arg)
{
	const uint32_t *key = arg;

	coshm__crash_arm(COSHM__CRASH_cache_target_described, SIGKILL, 1);
	return store(*key, 9);
}

static void length_of_another_item_is_not_taken_for_one_on_its_way(void **state)
{
	static uint32_t number = 0, beside = 1;
	struct proc *adder;

	(void)state;
	bytes_of = unlike_bytes;
	numbers_ttl_ns = 1000000000;
	assert_int_equal(make(1), 0);
	numbers_ttl_ns = 0;
	adder = spawn_stopped(add_and_stop, &number);
	assert_int_equal(store(0, 3), 0);
	proc_resume(adder);
	assert_int_equal(proc_collect(adder, PROC_DEADLINE_NS), 0);
	/* The number is on its way, and will not come: whoever goes on drops it. */
	while (coshm_cache_exists(cache, &number, 3) == 1)
		test_sleep_ns(10000000);
	assert_int_equal(
		proc_collect(proc_spawn(be_killed_when_described, &beside), PROC_DEADLINE_NS),
		-SIGKILL);
	for (uint32_t key = 0; key < KEYS; key++)
		assert_int_equal(store(key, 4), 0);
	assert_true(is_sound(COSHM_VERIFY_DAMAGE));
	assert_int_equal(drop(), 0);
	bytes_of = usual_bytes;
}

/* --- before anybody has cleaned up after the dead ------------------------------------------------------------- */

static int write_and_stop(void *arg)
{
	coshm__crash_arm(COSHM__CRASH_cache_written, SIGSTOP, 1);
	return store((uint32_t)(uintptr_t)arg, 5) != 0;
}

/* So that no operation does it in passing for the next few milliseconds. */
static int put_off_reaping(void)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	coshm__a64_store_relaxed(&op.segment->header->next_reap_at_ns,
				 coshm__now_coarse_ns(op.segment) + COSHM__REAP_INTERVAL_NS);
	coshm__op_end(&op);
	return 0;
}

static void cache_is_not_full_of_what_the_dead_left_a_moment_ago(void **state)
{
	enum { WRITERS = 6, SPARE = 3 /* kept back from inserts, with one lane */ };
	struct proc *writers[WRITERS];

	(void)state;
	assert_int_equal(make(WRITERS + SPARE), 0);
	for (uintptr_t i = 0; i < WRITERS; i++)
		writers[i] = spawn_stopped(write_and_stop, (void *)(KEYS + 2 * i));
	assert_int_not_equal(store(KEYS + 2 * WRITERS, 6), 0);
	for (int i = 0; i < WRITERS; i++)
		proc_kill(writers[i]);
	assert_int_equal(put_off_reaping(), 0);
	assert_int_equal(store(KEYS + 2 * WRITERS, 6), 0);
	assert_true(all_are_whole());
	assert_true(is_sound(COSHM_VERIFY_DAMAGE));
	assert_int_equal(drop(), 0);
}

/* --- bytes that no count would tell of ------------------------------------------------------------------------ */

enum { SMALL_ITEMS = 128, SMALL_BYTES = 232 /* so many fill a page */ };

static int store_bytes(uint32_t key, size_t size)
{
	static const unsigned char value[LARGEST];

	return coshm_cache_set(cache, &key, sizeof(key), value, size, 0);
}

/* Moves small items out of the first page for it, to what is left of the other one, until it is killed. */
static int replace_and_be_killed(void *arg)
{
	(void)arg;
	coshm__crash_arm(COSHM__CRASH_cache_moved, SIGKILL, 55);
	return store_bytes(0, 17000) != 0;
}

static void what_the_dead_moved_away_is_room_again(void **state)
{
	const uint32_t first = 1;

	(void)state;
	assert_int_equal(make_empty(), 0);
	for (uint32_t key = 1; key <= SMALL_ITEMS; key++)
		assert_int_equal(store_bytes(key, SMALL_BYTES), 0);
	assert_int_equal(store_bytes(0, 17000), 0);
	assert_int_equal(coshm_cache_delete(cache, &first, sizeof(first)), 1);
	assert_int_equal(take_pages(1), 0);
	assert_int_equal(proc_collect(proc_spawn(replace_and_be_killed, NULL), PROC_DEADLINE_NS),
			 -SIGKILL);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	/* As many as are kept back from inserts. */
	assert_int_equal(give_pages(2), 0);
	assert_int_equal(store_bytes(SMALL_ITEMS + 1, 12000), 0);
	assert_true(is_sound(COSHM_VERIFY_PENDING));
	assert_int_equal(drop(), 0);
}

static char number_key[20000];

static int add_to_number_and_stop(void *arg)
{
	(void)arg;
	coshm__crash_arm(COSHM__CRASH_cache_number_added, SIGSTOP, 1);
	return coshm_cache_incr(cache, number_key, sizeof(number_key), 1, 0, 0, NULL) != 0;
}

static void place_that_nothing_came_to_is_room_again(void **state)
{
	struct proc *adder;

	(void)state;
	assert_int_equal(make_empty(), 0);
	assert_int_equal(store_bytes(1, 12000), 0);
	assert_int_equal(coshm_cache_incr(cache, number_key, sizeof(number_key), 1, 0, 0, NULL), 0);
	assert_int_equal(take_pages(1), 0);
	adder = spawn_stopped(add_to_number_and_stop, NULL);
	/* The value goes to the last page. The number would be next, and cannot be moved. */
	assert_int_equal(store_bytes(1, 12000), 0);
	proc_resume(adder);
	assert_int_equal(proc_collect(adder, PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_cache_delete(cache, number_key, sizeof(number_key)), 1);
	assert_int_equal(give_pages(2), 0);
	assert_int_equal(store_bytes(2, 18000), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_true(is_sound(COSHM_VERIFY_PENDING));
	assert_int_equal(drop(), 0);
}

/* --- several at once, killed at random ----------------------------------------------------------------------- */

static int replace_own(void *arg)
{
	const uint32_t me = (uint32_t)(uintptr_t)arg;

	for (uint32_t i = 0;; i++) {
		int error = store((i * 6 + me) % KEYS, (unsigned char)i);

		if (error) {
			fprintf(stderr, "# set: %s\n", strerror(-error));
			return 1;
		}
	}
}

static void deaths_of_several_at_once_use_up_nothing(void **state)
{
	enum { PROCS = 2, KILLS = 150 };
	struct proc *procs[PROCS];
	unsigned int seed = 7, wrong = 0;

	(void)state;
	assert_int_equal(make(1), 0);
	for (uintptr_t i = 0; i < PROCS; i++)
		procs[i] = proc_spawn(replace_own, (void *)i);
	for (int i = 0; i < KILLS; i++) {
		uintptr_t who = (uintptr_t)i % PROCS;

		seed = seed * 1103515245 + 12345;
		test_sleep_ns(200000 + (seed >> 8) % 3000000);
		wrong += !proc_is_running(procs[who]);
		proc_kill(procs[who]);
		procs[who] = proc_spawn(replace_own, (void *)who);
	}
	for (int i = 0; i < PROCS; i++)
		proc_kill(procs[i]);
	assert_int_equal(wrong, 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_null(replace_all(1, 0));
	assert_true(is_sound(COSHM_VERIFY_PENDING));
	assert_int_equal(drop(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(death_at_any_row_uses_up_nothing),
		cmocka_unit_test(last_page_is_put_back_by_who_counted_before_others),
		cmocka_unit_test(value_that_moved_away_meanwhile_gives_no_place),
		cmocka_unit_test(page_that_was_used_again_meanwhile_gives_no_place),
		cmocka_unit_test(value_that_goes_while_its_page_is_taken_gives_no_place),
		cmocka_unit_test(length_of_another_item_is_not_taken_for_one_on_its_way),
		cmocka_unit_test(cache_is_not_full_of_what_the_dead_left_a_moment_ago),
		cmocka_unit_test(what_the_dead_moved_away_is_room_again),
		cmocka_unit_test(place_that_nothing_came_to_is_room_again),
		cmocka_unit_test(deaths_of_several_at_once_use_up_nothing),
	};

	return cmocka_run_group_tests_name("crash: last page", tests, NULL, NULL);
}
