/* SPDX-License-Identifier: MIT */
/* A member that is killed or stopped at each crash point of the limiter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <coshm/inspect.h>

#include "base/crash.h"
#include "base/hash.h"
#include "modules/limiter/limiter.h"
#include "support/procs.h"

#define SECOND UINT64_C(1000000000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)
#define KEYS   200
#define BURST  3
#define PEERS  2

struct shared {
	_Atomic int passed[KEYS]; /* tokens taken by those who lived to tell */
	_Atomic int actor_at;	  /* the key it works on */
	_Atomic int stop_peers;
	_Atomic int answer;
};

static struct shared *shared;
static struct coshm_segment *segment;
static struct coshm_limiter *limiter; /* three tokens per key, an hour each */
static struct coshm_limiter
	*relaxed; /* was 1000 a day, is 10 a second; "c" is in debt from before */
static char segment_name[TEST_SEGMENT_NAME_SIZE];
static enum coshm__crash_point point;
static int signal_sent;

/* In the parent or the child; 0, or the number of the line that failed, folded into an exit code's range. */
#define NEED(condition)                                                                           \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			return 1 + __LINE__ % 80;                                                 \
		}                                                                                 \
	} while (0)

static void make(uint64_t keys_max)
{
	const struct coshm_segment_config memory = {.size_bytes = 1 << 20};
	const struct coshm_limiter_config hourly = {
		.rate = 1, .per_ns = HOUR, .burst = BURST, .keys_max = keys_max};
	const struct coshm_limiter_config daily = {
		.rate = 1000, .per_ns = DAY, .burst = 1000, .keys_max = 100};
	const struct coshm_limiter_config quick = {.rate = 10, .burst = 20};

	shared = proc_shared_alloc(sizeof(*shared));
	test_segment_name(segment_name, "limiter-crash");
	assert_int_equal(coshm_segment_create(segment_name, &memory, 0, &segment), 0);
	assert_int_equal(coshm_limiter_create(segment, "l", &hourly, 0, &limiter), 0);
	assert_int_equal(coshm_limiter_create(segment, "r", &daily, 0, &relaxed), 0);
	assert_int_equal(coshm_limiter_try(relaxed, "c", 1, 1000, NULL), 1);
	assert_int_equal(coshm_limiter_configure(relaxed, &quick), 0);
}

static uint64_t counter(const char *object, const char *name)
{
	uint64_t value = UINT64_MAX;

	(void)!coshm_stats_value(segment, object, name, &value);
	return value;
}

static int is_sound(void)
{
	struct coshm_verify_result result = {0};

	NEED(coshm_inspect_verify(segment, NULL, NULL, NULL, &result) == 0);
	NEED(result.damage == 0);
	return 0;
}

static void unmake(void)
{
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(segment_name), 0);
}

/* --- actors ------------------------------------------------------------------------------------------------- */

static int take_one(int key)
{
	int answer = coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL);

	if (answer == 1)
		atomic_fetch_add(&shared->passed[key], 1);
	return answer;
}

static int act_try(void *arg)
{
	(void)arg;
	coshm__crash_arm(point, signal_sent, 1);
	for (int key = 0; key < KEYS; key++) {
		atomic_store(&shared->actor_at, key);
		NEED(take_one(key) >= 0);
		NEED(take_one(key) >= 0);
	}
	return 0;
}

static int act_refund(void *arg)
{
	(void)arg;
	coshm__crash_arm(point, signal_sent, 1);
	for (int key = 0; key < KEYS; key++) {
		atomic_store(&shared->actor_at, key);
		if (take_one(key) == 1) {
			NEED(coshm_limiter_refund(limiter, &key, sizeof(key), 1) == 0);
			atomic_fetch_sub(&shared->passed[key], 1);
		}
	}
	return 0;
}

/* As two inserters with different clocks would: one claim in each bucket of the key. */
static int claim_twice(int number)
{
	struct coshm__limiter_key key;
	struct coshm__limiter *local;
	struct coshm__op op;

	NEED(coshm__op_begin(&op, limiter, COSHM_OBJECT_LIMITER) == 0);
	local = coshm__limiter_of(&op);
	coshm__limiter_key_make(&key, local->buckets, local->bucket_count,
				coshm__hash_fingerprint(local->secret, &number, sizeof(number)));
	for (int b = 0; b < 2; b++)
		for (int i = 0; i < COSHM__LIMITER_SLOTS; i++) {
			uint64_t vacant = 0;

			if (coshm__a64_load_relaxed(&key.buckets[b]->key[i]) == 0 &&
			    coshm__a64_cas_seq_cst(&key.buckets[b]->tat[i], &vacant,
						   coshm__limiter_next_word(0, key.word) |
							   COSHM__LIMITER_CLAIM))
				break;
		}
	coshm__op_end(&op);
	return 0;
}

static int act_withdraw(void *arg)
{
	(void)arg;
	coshm__crash_arm(point, signal_sent, 1);
	for (int key = 0; key < KEYS; key++) {
		atomic_store(&shared->actor_at, key);
		NEED(claim_twice(key) == 0);
		NEED(take_one(key) >= 0);
	}
	return 0;
}

static int act_clamp(void *arg)
{
	(void)arg;
	coshm__crash_arm(point, signal_sent, 1);
	NEED(coshm_limiter_try(relaxed, "c", 1, 1, NULL) >= 0);
	return 0;
}

static int act_configure(void *arg)
{
	const struct coshm_limiter_config next = {.rate = 7, .per_ns = HOUR, .burst = 70};

	(void)arg;
	coshm__crash_arm(point, signal_sent, 1);
	NEED(coshm_limiter_configure(relaxed, &next) == 0);
	return 0;
}

/* --- what the others find ----------------------------------------------------------------------------------- */

/* All keys can be used, the one where it happened included. */
static int others_go_on(void)
{
	NEED(is_sound() == 0);
	for (int key = 0; key < KEYS; key++)
		NEED(take_one(key) >= 0);
	NEED(counter("l", "fail_open") == 0);
	return is_sound();
}

static int others_are_let_in_soon(void)
{
	struct coshm_limiter_result result = {0};

	NEED(coshm_limiter_try(relaxed, "c", 1, 1, &result) >= 0);
	NEED(result.retry_after_ns <= SECOND / 10);
	NEED(coshm_limiter_wait(relaxed, "c", 1, 1, 10 * SECOND, NULL) == 1);
	return is_sound();
}

static int others_decide_by_one_configuration(void)
{
	const struct coshm_limiter_config next = {.rate = 9, .per_ns = HOUR, .burst = 90};
	struct coshm_limiter_config config = {0};
	struct coshm_limiter_result result = {0};
	uint64_t rate = point == COSHM__CRASH_LIMITER_CONFIG_PUBLISHED ? 7 : 10;

	NEED(coshm_limiter_config(relaxed, &config) == 0);
	NEED(config.rate == rate);
	NEED(coshm_limiter_try(relaxed, "new", 3, 1, &result) == 1);
	NEED(result.limit == (rate == 7 ? 70 : 20));
	if (signal_sent == SIGSTOP) {
		NEED(coshm_limiter_configure(relaxed, &next) == -EAGAIN);
		return is_sound();
	}
	NEED(coshm_limiter_configure(relaxed, &next) == 0);
	NEED(coshm_limiter_config(relaxed, &config) == 0);
	NEED(config.rate == 9 && config.burst == 90);
	return is_sound();
}

static int the_last_configurer_wins(void)
{
	struct coshm_limiter_config config = {0};

	NEED(coshm_limiter_config(relaxed, &config) == 0);
	NEED(config.rate == (signal_sent == SIGSTOP ? 7 : 9));
	return 0;
}

/* When all is over: each key has given its burst, no more; the killed may have taken one token without telling. */
static int each_key_gives_its_burst(void)
{
	for (int key = 0; key < KEYS; key++) {
		int lost = signal_sent == SIGKILL && key == atomic_load(&shared->actor_at);
		int total;

		while (take_one(key) == 1)
			;
		total = atomic_load(&shared->passed[key]);
		/* A refund that was made and not told shows as a token more. */
		if (total > BURST + (lost && point == COSHM__CRASH_LIMITER_GIVEN_BACK) ||
		    total < BURST - lost) {
			fprintf(stderr, "# key %d gave %d tokens\n", key, total);
			return 1;
		}
	}
	NEED(counter("l", "evicted_live") == 0);
	NEED(counter("l", "fail_open") == 0);
	return 0;
}

/* --- the walk ----------------------------------------------------------------------------------------------- */

struct plan {
	enum coshm__crash_point point;
	int (*act)(void *arg);
	int (*others)(void);
	int (*finally)(void);
	int no_peers; /* they would get there first */
};

#define PLAN(row, ...)                                           \
	{                                                        \
		.point = COSHM__CRASH_LIMITER_##row, __VA_ARGS__ \
	}

static const struct plan plans[] = {
	PLAN(CLOCK_READ, act_try, others_go_on, each_key_gives_its_burst),
	PLAN(TAT_LOADED, act_try, others_go_on, each_key_gives_its_burst),
	PLAN(CHARGED, act_try, others_go_on, each_key_gives_its_burst),
	PLAN(CLAMPED, act_clamp, others_are_let_in_soon, each_key_gives_its_burst),
	PLAN(GIVEN_BACK, act_refund, others_go_on, each_key_gives_its_burst),
	PLAN(CLAIMED, act_try, others_go_on, each_key_gives_its_burst),
	PLAN(SETTLED, act_try, others_go_on, each_key_gives_its_burst),
	PLAN(OPENED, act_try, others_go_on, each_key_gives_its_burst),
	PLAN(VACATED, act_withdraw, others_go_on, each_key_gives_its_burst, .no_peers = 1),
	PLAN(CONFIG_FIELD, act_configure, others_decide_by_one_configuration,
	     the_last_configurer_wins),
	PLAN(CONFIG_PUBLISHED, act_configure, others_decide_by_one_configuration,
	     the_last_configurer_wins),
};

#define PLANS (sizeof(plans) / sizeof(plans[0]))

/* Takes one token of each key at the same time as the actor, and looks at it until there is another one. */
static int peer(void *arg)
{
	int last = -1;

	(void)arg;
	while (!atomic_load(&shared->stop_peers)) {
		int key = atomic_load(&shared->actor_at);

		if (key != last)
			NEED(take_one(key) >= 0);
		else
			NEED(coshm_limiter_try(limiter, &key, sizeof(key), 0, NULL) == 1);
		last = key;
	}
	return 0;
}

static int act_and_look(const struct plan *plan)
{
	struct proc *actor = proc_spawn(plan->act, NULL);
	int result;

	if (signal_sent == SIGKILL) {
		NEED(proc_collect(actor, PROC_DEADLINE_NS) == -SIGKILL);
		return plan->others();
	}
	NEED(proc_wait_stopped(actor, PROC_DEADLINE_NS) == 1);
	result = plan->others();
	proc_resume(actor);
	NEED(proc_collect(actor, PROC_DEADLINE_NS) == 0);
	return result;
}

static int run(const struct plan *plan, int busy)
{
	struct proc *peers[PEERS];
	int line;

	for (int i = 0; i < PEERS && busy; i++)
		peers[i] = proc_spawn(peer, NULL);
	line = act_and_look(plan);
	atomic_store(&shared->stop_peers, 1);
	if (busy)
		NEED(proc_collect_all(peers, PEERS, PROC_DEADLINE_NS, NULL) == 0);
	NEED(coshm_segment_reap(segment, NULL) == 0);
	NEED(line == 0);
	NEED(plan->finally() == 0);
	return is_sound();
}

static void nobody_trips_over_a_death_or_a_stop_at_any_row(void **state)
{
	int failed = 0;

	(void)state;
	for (size_t i = 0; i < PLANS; i++)
		for (int how = 0; how < (plans[i].no_peers ? 2 : 4); how++) {
			point = plans[i].point;
			signal_sent = how & 1 ? SIGSTOP : SIGKILL;
			make(1000);
			if (run(&plans[i], how >> 1)) {
				fprintf(stderr, "# FAILED: %s, %s, others %s\n",
					coshm__crash_rows[point].name,
					how & 1 ? "stopped and resumed" : "killed",
					how >> 1 ? "busy" : "idle");
				failed++;
			}
			unmake();
		}
	assert_int_equal(failed, 0);
}

static void every_row_has_a_plan(void **state)
{
	(void)state;
	for (int row = 0; row < COSHM__CRASH_COUNT; row++) {
		size_t i = 0;

		if (strncmp(coshm__crash_rows[row].name, "LIMITER_", 8) != 0)
			continue;
		while (i < PLANS && (int)plans[i].point != row)
			i++;
		if (i == PLANS)
			fail_msg("row %s has no plan", coshm__crash_rows[row].name);
	}
}

/* --- stops that are looked at more closely ------------------------------------------------------------------ */

static int act_one_try(void *arg)
{
	(void)arg;
	coshm__crash_arm(point, SIGSTOP, 1);
	atomic_store(&shared->answer, coshm_limiter_try(relaxed, "k", 1, 1, NULL));
	return 0;
}

/*
 * P6. The bucket takes 0.2 s to fill. A process stops behind its look at the clock for so long that a bucket which has
 * just been emptied looks like nonsense to it. It must not fill that up.
 */
static void process_with_a_clock_from_before_its_stop_fills_no_bucket(void **state)
{
	const struct coshm_limiter_config config = {.rate = 100, .burst = 20};
	struct proc *actor;
	uint64_t start_ns, most;
	int passed = 0;

	(void)state;
	make(100);
	point = COSHM__CRASH_LIMITER_CLOCK_READ;
	assert_int_equal(coshm_limiter_configure(relaxed, &config), 0);
	assert_int_equal(coshm_limiter_try(relaxed, "k", 1, 1, NULL), 1);
	actor = proc_spawn(act_one_try, NULL);
	assert_int_equal(proc_wait_stopped(actor, PROC_DEADLINE_NS), 1);
	test_sleep_ns(SECOND * 3 / 2);
	start_ns = coshm_segment_now_ns(segment);
	for (int i = 0; i < 30; i++)
		passed += coshm_limiter_try(relaxed, "k", 1, 1, NULL) == 1;
	proc_resume(actor);
	assert_int_equal(proc_collect(actor, PROC_DEADLINE_NS), 0);
	for (int i = 0; i < 30; i++)
		passed += coshm_limiter_try(relaxed, "k", 1, 1, NULL) == 1;
	passed += shared->answer == 1;
	most = 20 + (coshm_segment_now_ns(segment) - start_ns) * 100 / SECOND;
	assert_in_range(passed, 20, most);
	unmake();
}

/* A process stops between its load of tat and its CAS, and meanwhile the slot goes to another key. */
static void process_that_stops_before_its_cas_charges_no_other_key(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1000, .burst = 1, .keys_max = 1};
	const struct coshm_limiter_config slow = {.rate = 1, .per_ns = HOUR, .burst = 3};
	struct coshm_limiter_result result;
	struct proc *actor;
	struct coshm_limiter *small;
	int sum = 0;

	(void)state;
	make(100);
	point = COSHM__CRASH_LIMITER_TAT_LOADED;
	assert_int_equal(coshm_limiter_create(segment, "small", &config, 0, &small), 0);
	assert_int_equal(coshm_limiter_close(relaxed), 0);
	relaxed = small;
	assert_int_equal(coshm_limiter_try(small, "k", 1, 1, NULL), 1);
	test_sleep_ns(SECOND / 10);
	actor = proc_spawn(act_one_try, NULL);
	assert_int_equal(proc_wait_stopped(actor, PROC_DEADLINE_NS), 1);
	/* 16 keys with debt in 16 slots: the slot of "k" is one of theirs now. */
	assert_int_equal(coshm_limiter_configure(small, &slow), 0);
	test_sleep_ns(SECOND / 10);
	for (int key = 0; key < 16; key++)
		assert_int_equal(coshm_limiter_try(small, &key, sizeof(key), 2, NULL), 1);
	assert_int_equal(counter("small", "evicted_live"), 0);
	proc_resume(actor);
	assert_int_equal(proc_collect(actor, PROC_DEADLINE_NS), 0);
	/* It had decided by the old configuration or decides by the new one; "k" has room again either way. */
	assert_int_equal(shared->answer, 1);
	assert_int_equal(counter("small", "evicted_live"), 1);
	for (int key = 0; key < 16; key++) {
		assert_true(coshm_limiter_peek(small, &key, sizeof(key), &result) >= 0);
		sum += (int)result.remaining;
	}
	/* One token left for each, three for the one that was evicted for "k". */
	assert_int_equal(sum, 15 * 1 + 3);
	assert_int_equal(is_sound(), 0);
	unmake();
}

/* --- claims of the dead ------------------------------------------------------------------------------------- */

static int act_claim_and_die(void *arg)
{
	int key = (int)(intptr_t)arg;

	coshm__crash_arm(COSHM__CRASH_LIMITER_CLAIMED, SIGKILL, 1);
	(void)!coshm_limiter_try(limiter, &key, sizeof(key), 1, NULL);
	return 0;
}

/* In a table of 16 slots, 40 processes die with a claim; then 16 keys still find room. */
static void slots_claimed_by_the_dead_are_not_lost(void **state)
{
	(void)state;
	make(1);
	for (int i = 0; i < 40; i++) {
		struct proc *actor = proc_spawn(act_claim_and_die, (void *)(intptr_t)(i + 1000));

		assert_int_equal(proc_collect(actor, PROC_DEADLINE_NS), -SIGKILL);
	}
	for (int key = 0; key < 16; key++)
		assert_int_equal(take_one(key), 1);
	assert_int_equal(counter("l", "evicted_live"), 0);
	assert_int_equal(counter("l", "fail_open"), 0);
	assert_true(counter("l", "adopted") > 0);
	assert_int_equal(counter("l", "keys"), 16);
	assert_int_equal(is_sound(), 0);
	unmake();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_has_a_plan),
		cmocka_unit_test(nobody_trips_over_a_death_or_a_stop_at_any_row),
		cmocka_unit_test(process_with_a_clock_from_before_its_stop_fills_no_bucket),
		cmocka_unit_test(process_that_stops_before_its_cas_charges_no_other_key),
		cmocka_unit_test(slots_claimed_by_the_dead_are_not_lost),
	};

	return cmocka_run_group_tests_name("crash: limiter", tests, NULL, NULL);
}
