/* SPDX-License-Identifier: MIT */
/* What coshm/cache.h promises to many processes, some of which are killed or stopped. */
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

#include "modules/cache/cache.h"
#include "support/procs.h"

#define MIB	  (UINT64_C(1) << 20)
#define SECOND_NS UINT64_C(1000000000)

enum { WORKERS = 6, ADDERS = 16, LEDGERS = 64, VALUE_MAX = 60000 };

struct shared {
	char name[TEST_SEGMENT_NAME_SIZE];
	_Atomic int stop;
	_Atomic uint64_t bad, operations, winners, unexpected;
	_Atomic int last_error;
	_Atomic int64_t started[LEDGERS], returned[LEDGERS]; /* by one incr each */
	_Atomic int step;
	struct proc_barrier *barrier;
	int large; /* also values of many pages */
	uint32_t key_count;
};

static struct shared *shared;
static struct coshm_segment *segment;
static struct coshm_cache *cache;

static void make(uint64_t size_bytes, uint32_t policy, uint32_t lanes)
{
	struct coshm_segment_config memory = {.size_bytes = size_bytes + 2 * MIB};
	struct coshm_cache_config config = {
		.size_bytes = size_bytes, .policy = policy, .lanes = lanes};
	char name[TEST_SEGMENT_NAME_SIZE];

	test_segment_name(name, "cache-mp");
	shared = proc_shared_alloc(sizeof(*shared));
	memcpy(shared->name, name, sizeof(name));
	assert_int_equal(coshm_segment_create(name, &memory, 0, &segment), 0);
	assert_int_equal(coshm_cache_create(segment, "c", &config, 0, &cache), 0);
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level > COSHM_VERIFY_NOTE)
		fprintf(stderr, "# %s %s: %s\n",
			level == COSHM_VERIFY_DAMAGE ? "damage" : "pending", where, text);
}

static void drop(void)
{
	struct coshm_verify_result result;

	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm_inspect_verify(segment, NULL, print_finding, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(result.pending, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(shared->name), 0);
}

static unsigned int next_random(unsigned int *state)
{
	*state = *state * 1103515245 + 12345;
	return *state >> 8;
}

/* --- value = f(key, version): every byte of a hit is checked --- */

struct value {
	uint32_t key;
	uint32_t version;
	uint32_t size;
};

static unsigned char byte_at(const struct value *value, uint32_t i)
{
	return (unsigned char)((value->key * 31 + value->version * 17 + i * 7) ^ (i >> 8));
}

static size_t fill(unsigned char *buffer, uint32_t key, unsigned int *random)
{
	struct value value = {.key = key, .version = next_random(random)};
	unsigned int kind = next_random(random) % 32;

	value.size = (uint32_t)sizeof(value) +
		     next_random(random) % (kind == 0 && shared->large ? VALUE_MAX - 100 : 400);
	for (uint32_t i = sizeof(value); i < value.size; i++)
		buffer[i] = byte_at(&value, i);
	memcpy(buffer, &value, sizeof(value));
	return value.size;
}

static int is_whole(const unsigned char *buffer, size_t size, uint32_t key)
{
	struct value value;

	if (size < sizeof(value))
		return 0;
	memcpy(&value, buffer, sizeof(value));
	if (value.key != key || value.size != size)
		return 0;
	for (uint32_t i = sizeof(value); i < size; i++)
		if (buffer[i] != byte_at(&value, i))
			return 0;
	return 1;
}

static int check_view(uint32_t key)
{
	static unsigned char copy[VALUE_MAX];
	struct coshm_cache_view view;
	size_t at = 0;
	int result = coshm_cache_pin(cache, &key, sizeof(key), &view);

	if (result != 1)
		return result;
	for (uint32_t i = 0; i < view.part_count; i++) {
		const void *data;
		size_t size;

		if (coshm_cache_view_part(&view, i, &data, &size) || at + size > VALUE_MAX)
			break;
		memcpy(copy + at, data, size);
		at += size;
	}
	if (at != view.size_bytes || !is_whole(copy, at, key))
		shared->bad++;
	return coshm_cache_unpin(cache, &view) == 0 ? 1 : -EIO;
}

static int one_operation(unsigned int *random, uint32_t keys)
{
	static unsigned char buffer[VALUE_MAX];
	uint32_t key = next_random(random) % keys, kind;
	size_t size;
	int result;

	if (key > 50 && next_random(random) % 3)
		key %= 50;
	kind = next_random(random) % 16;
	switch (kind) {
	case 0:
		return coshm_cache_delete(cache, &key, sizeof(key));
	case 1:
		return coshm_cache_add(cache, &key, sizeof(key), buffer, fill(buffer, key, random),
				       0);
	case 2:
		return coshm_cache_replace(cache, &key, sizeof(key), buffer,
					   fill(buffer, key, random), 0);
	case 3:
		return check_view(key);
	case 4:
	case 5:
	case 6:
	case 7:
		return coshm_cache_set(cache, &key, sizeof(key), buffer, fill(buffer, key, random),
				       kind == 4 ? 20000000 : 0);
	default:
		size = sizeof(buffer);
		result = coshm_cache_get(cache, &key, sizeof(key), buffer, &size, NULL);
		if (result == 1 && !is_whole(buffer, size, key))
			shared->bad++;
		return result;
	}
}

static int work(void *arg)
{
	unsigned int random = (unsigned int)(uintptr_t)arg * 7919 + (unsigned int)getpid();

	while (!shared->stop) {
		int result = one_operation(&random, 5000);

		shared->operations++;
		if (result < 0 && result != -EAGAIN) {
			shared->unexpected++;
			shared->last_error = result;
		}
	}
	return 0;
}

static void kill_at_random(uint32_t policy, int large, uint64_t for_ns)
{
	struct proc *workers[WORKERS];
	uint64_t end = test_now_ns() + for_ns;
	unsigned int random = 1;
	int kills = 0;

	make(2 * MIB, policy, 2);
	shared->large = large;
	for (uintptr_t i = 0; i < WORKERS; i++)
		workers[i] = proc_spawn(work, (void *)i);
	/* On a busy machine it takes longer until enough has happened. */
	while (test_now_ns() < end || kills <= 20 || shared->operations <= 1000) {
		uintptr_t victim = next_random(&random) % WORKERS;

		test_sleep_ns(5000000 + next_random(&random) % 5000000);
		if (next_random(&random) % 4 == 0) {
			assert_int_equal(proc_pause(workers[victim]), 0);
			test_sleep_ns(20000000);
			proc_resume(workers[victim]);
			continue;
		}
		proc_kill(workers[victim]);
		workers[victim] = proc_spawn(work, (void *)(victim + (uintptr_t)++kills * 16));
	}
	shared->stop = 1;
	assert_int_equal(proc_collect_all(workers, WORKERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(shared->bad, 0);
	if (shared->unexpected)
		fprintf(stderr, "# last error %d\n", (int)shared->last_error);
	assert_int_equal(shared->unexpected, 0);
	drop();
}

static void no_hit_is_torn_while_processes_are_killed_s3fifo(void **state)
{
	(void)state;
	kill_at_random(COSHM_CACHE_S3FIFO, 0, 2 * SECOND_NS);
}

static void no_hit_is_torn_while_processes_are_killed_large_values(void **state)
{
	(void)state;
	kill_at_random(COSHM_CACHE_S3FIFO, 1, 2 * SECOND_NS);
}

static void no_hit_is_torn_while_processes_are_killed_lru(void **state)
{
	(void)state;
	kill_at_random(COSHM_CACHE_LRU, 1, 2 * SECOND_NS);
}

/* --- add --- */

static int add_all(void *arg)
{
	uint64_t won = 0;

	if (proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS))
		return 1;
	for (uint32_t key = 0; key < 2000; key++) {
		uint32_t me = (uint32_t)(uintptr_t)arg;
		int result;

		/* Who has the lock may not get to run. */
		do
			result = coshm_cache_add(cache, &key, sizeof(key), &me, sizeof(me), 0);
		while (result == -EAGAIN);
		if (result < 0)
			return 2;
		won += (uint64_t)result;
	}
	shared->winners += won;
	return 0;
}

static void exactly_one_of_sixteen_adders_wins(void **state)
{
	struct proc *adders[ADDERS];
	uint64_t count;

	(void)state;
	make(4 * MIB, COSHM_CACHE_NONE, 4);
	shared->barrier = proc_barrier_new(ADDERS);
	for (uintptr_t i = 0; i < ADDERS; i++)
		adders[i] = proc_spawn(add_all, (void *)i);
	assert_int_equal(proc_collect_all(adders, ADDERS, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(shared->winners, 2000);
	assert_int_equal(coshm_cache_count(cache, &count), 0);
	assert_int_equal(count, 2000);
	drop();
}

/* --- incr --- */

static int increment(void *arg)
{
	uintptr_t me = (uintptr_t)arg;

	for (int i = 0; i < 3000 && !shared->stop; i++) {
		int result;

		shared->started[me]++;
		do
			result = coshm_cache_incr(cache, "n", 1, 1, 0, 0, NULL);
		while (result == -EAGAIN);
		if (result)
			return 1;
		shared->returned[me]++;
	}
	return 0;
}

static int64_t returned_so_far(void)
{
	int64_t returned = 0;

	for (int i = 0; i < LEDGERS; i++)
		returned += shared->returned[i];
	return returned;
}

static int64_t number(void)
{
	int64_t value = -1;

	assert_int_equal(coshm_cache_incr(cache, "n", 1, 0, 0, 0, &value), 0);
	return value;
}

static void sixteen_processes_lose_no_increment(void **state)
{
	struct proc *procs[16];

	(void)state;
	make(MIB, COSHM_CACHE_S3FIFO, 1);
	for (uintptr_t i = 0; i < 16; i++)
		procs[i] = proc_spawn(increment, (void *)i);
	assert_int_equal(proc_collect_all(procs, 16, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(number(), 16 * 3000);
	drop();
}

static int overwrite_beside(void *arg)
{
	char value[1000] = {0};

	(void)arg;
	/* Keeps the cleaner busy, so that the number is moved under the increments. */
	for (uint32_t i = 0; !shared->stop; i++) {
		uint32_t key = i % 2 ? 0 : i % 600;

		if (coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value), 0) &&
		    !shared->stop)
			continue;
	}
	return 0;
}

static void every_increment_that_returned_is_counted_in_spite_of_kills(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct proc *procs[LEDGERS], *mover;
	int64_t started = 0, returned;

	(void)state;
	make(MIB, COSHM_CACHE_NONE, 2);
	assert_int_equal(coshm_cache_incr(cache, "n", 1, 0, 0, 0, NULL), 0);
	mover = proc_spawn(overwrite_beside, NULL);
	for (uintptr_t i = 0; i < 4; i++)
		procs[i] = proc_spawn(increment, (void *)i);
	for (uintptr_t i = 4; i < LEDGERS; i++) {
		test_sleep_ns(3000000);
		proc_kill(procs[i % 4]);
		procs[i % 4] = proc_spawn(increment, (void *)i);
	}
	while (returned_so_far() <= 100 && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	shared->stop = 1;
	assert_int_equal(proc_collect_all(procs, 4, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(proc_collect(mover, PROC_DEADLINE_NS), 0);
	for (int i = 0; i < LEDGERS; i++)
		started += shared->started[i];
	returned = returned_so_far();
	assert_in_range(number(), returned, started);
	assert_true(returned > 100);
	drop();
}

/* --- stopped members --- */

static int pin_and_stop(void *arg)
{
	struct coshm_cache_view view;

	(void)arg;
	if (coshm_cache_pin(cache, "pinned", 6, &view) != 1)
		return 1;
	raise(SIGSTOP);
	for (size_t i = 0; i < view.size_bytes; i++)
		if (((const unsigned char *)view.data)[i] != 5)
			return 2;
	return coshm_cache_unpin(cache, &view) == 0 ? 0 : 3;
}

static void reader_stopped_in_a_pin_holds_nobody_up(void **state)
{
	struct proc *reader;
	unsigned char value[1000];

	(void)state;
	make(MIB, COSHM_CACHE_S3FIFO, 1);
	memset(value, 5, sizeof(value));
	assert_int_equal(coshm_cache_set(cache, "pinned", 6, value, sizeof(value), 0), 0);
	reader = proc_spawn(pin_and_stop, NULL);
	assert_int_equal(proc_wait_stopped(reader, PROC_DEADLINE_NS), 1);
	memset(value, 6, sizeof(value));
	assert_int_equal(coshm_cache_delete(cache, "pinned", 6), 1);
	for (uint32_t i = 0; i < 20000; i++)
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), value, sizeof(value), 0), 0);
	proc_resume(reader);
	assert_int_equal(proc_collect(reader, PROC_DEADLINE_NS), 0);
	drop();
}

/* Takes a lock of the cache as an operation would, and stops with it. */
static int lock_and_stop(void *arg)
{
	uint64_t which = (uint64_t)(uintptr_t)arg;
	struct coshm__cache *local;
	struct coshm__rlock_shm *lock;
	struct coshm__op op;

	if (coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE))
		return 1;
	local = op.handle->local;
	lock = which == 0 ? &local->lanes[0].lock : &local->stripes[which - 1].lock;
	if (coshm__rlock_acquire(&op, lock, SECOND_NS))
		return 2;
	raise(SIGSTOP);
	coshm__rlock_release(&op, lock);
	coshm__op_end(&op);
	return 0;
}

static void holder_of_the_only_lane_stopped_holds_nobody_up(void **state)
{
	struct proc *holder;
	unsigned char value[1000] = {0};

	(void)state;
	make(MIB, COSHM_CACHE_S3FIFO, 1);
	holder = proc_spawn(lock_and_stop, (void *)0);
	assert_int_equal(proc_wait_stopped(holder, PROC_DEADLINE_NS), 1);
	for (uint32_t i = 0; i < 200; i++)
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), value, sizeof(value), 0), 0);
	proc_resume(holder);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
	drop();
}

/* N1, and what goes on nevertheless */
static void holder_of_a_stripe_stopped_holds_up_inserts_of_its_keys_alone(void **state)
{
	struct proc *holder;
	struct coshm__cache *local;
	struct coshm__op op;
	uint32_t key, other, present, value = 1;
	uint64_t home;
	size_t size = sizeof(value);

	(void)state;
	make(MIB, COSHM_CACHE_S3FIFO, 1);
	assert_int_equal(coshm__op_begin(&op, cache, COSHM_OBJECT_CACHE), 0);
	local = op.handle->local;
#define STRIPE(k)                                                                    \
	(home = coshm__cache_home(local, coshm__cache_hash(local, &(k), sizeof(k))), \
	 home % local->stripe_count)
	for (key = 0; STRIPE(key) != 3; key++)
		;
	for (present = key + 1; STRIPE(present) != 3; present++)
		;
	for (other = 0; STRIPE(other) == 3; other++)
		;
	coshm__op_end(&op);
	assert_int_equal(coshm_cache_set(cache, &present, sizeof(present), &value, size, 0), 0);
	holder = proc_spawn(lock_and_stop, (void *)(3 + 1));
	assert_int_equal(proc_wait_stopped(holder, PROC_DEADLINE_NS), 1);
	assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &value, size, 0), -EAGAIN);
	assert_int_equal(coshm_cache_incr(cache, &key, sizeof(key), 1, 0, 0, NULL), -EAGAIN);
	assert_int_equal(coshm_cache_set(cache, &other, sizeof(other), &value, size, 0), 0);
	assert_int_equal(coshm_cache_set(cache, &present, sizeof(present), &value, size, 0), 0);
	assert_int_equal(coshm_cache_get(cache, &present, sizeof(present), &value, &size, NULL), 1);
	assert_int_equal(coshm_cache_delete(cache, &present, sizeof(present)), 1);
	proc_resume(holder);
	assert_int_equal(proc_collect(holder, PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_cache_set(cache, &key, sizeof(key), &value, sizeof(value), 0), 0);
	drop();
}

/* --- policy none --- */

enum { ROOMS = 3, ROOM_BYTES = 700 };

/* P7 with others at the same time: each replaces its own keys, by values that are no larger. */
static int replace_own(void *arg)
{
	static unsigned char value[ROOM_BYTES];
	uint32_t worker = (uint32_t)(uintptr_t)arg, random = worker;

	while (!shared->stop) {
		uint32_t key;

		random = random * 1103515245 + 12345;
		key = (random >> 8) % shared->key_count / ROOMS * ROOMS + worker;
		if (key >= shared->key_count)
			continue;
		/* -EAGAIN: all pages are being worked on, for longer than the call waits. */
		if (coshm_cache_set(cache, &key, sizeof(key), value, sizeof(value) - key * 7 % 50,
				    0) == -ENOSPC)
			return 1;
	}
	return 0;
}

static void full_cache_that_evicts_nothing_takes_replacements_from_several_processes(void **state)
{
	static unsigned char value[ROOM_BYTES];
	struct proc *procs[ROOMS];
	uint32_t count = 0;

	(void)state;
	make(2 * MIB, COSHM_CACHE_NONE, 2);
	while (coshm_cache_set(cache, &count, sizeof(count), value, sizeof(value), 0) == 0)
		count++;
	shared->key_count = count;
	for (uintptr_t i = 0; i < ROOMS; i++)
		procs[i] = proc_spawn(replace_own, (void *)i);
	test_sleep_ns(2 * SECOND_NS);
	shared->stop = 1;
	assert_int_equal(proc_collect_all(procs, ROOMS, PROC_DEADLINE_NS, NULL), 0);
	for (uint32_t key = 0; key < count; key++)
		assert_int_equal(coshm_cache_exists(cache, &key, sizeof(key)), 1);
	drop();
}

/* --- read-only --- */

static int peek_all(void *arg)
{
	static unsigned char buffer[VALUE_MAX];
	const uint64_t start_ns = test_now_ns();
	struct coshm_segment *read_only;
	uint64_t hits = 0;

	(void)arg;
	if (coshm_segment_attach(shared->name, COSHM_ATTACH_READ_ONLY, &read_only) ||
	    coshm_cache_open(read_only, "c", &cache))
		return 1;
	for (uint32_t i = 0;
	     !shared->stop || (hits <= 100 && test_now_ns() - start_ns < PROC_DEADLINE_NS); i++) {
		uint32_t key = i % 50;
		size_t size = sizeof(buffer);
		int result = coshm_cache_peek(cache, &key, sizeof(key), buffer, &size, NULL);

		if (result < 0 && result != -EAGAIN)
			return 2;
		if (result == 1) {
			hits++;
			shared->bad += (uint64_t)!is_whole(buffer, size, key);
		}
	}
	return hits > 100 ? 0 : 3;
}

static void read_only_peek_is_whole_while_others_write(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct proc *procs[4];

	(void)state;
	make(MIB, COSHM_CACHE_S3FIFO, 2);
	shared->large = 1;
	procs[0] = proc_spawn(work, (void *)1);
	procs[1] = proc_spawn(work, (void *)2);
	procs[2] = proc_spawn(peek_all, NULL);
	procs[3] = proc_spawn(peek_all, NULL);
	test_sleep_ns(SECOND_NS);
	while (shared->operations <= 1000 && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	shared->stop = 1;
	assert_int_equal(proc_collect_all(procs, 4, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(shared->bad, 0);
	drop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_hit_is_torn_while_processes_are_killed_s3fifo),
		cmocka_unit_test(no_hit_is_torn_while_processes_are_killed_large_values),
		cmocka_unit_test(no_hit_is_torn_while_processes_are_killed_lru),
		cmocka_unit_test(exactly_one_of_sixteen_adders_wins),
		cmocka_unit_test(sixteen_processes_lose_no_increment),
		cmocka_unit_test(every_increment_that_returned_is_counted_in_spite_of_kills),
		cmocka_unit_test(reader_stopped_in_a_pin_holds_nobody_up),
		cmocka_unit_test(holder_of_the_only_lane_stopped_holds_nobody_up),
		cmocka_unit_test(holder_of_a_stripe_stopped_holds_up_inserts_of_its_keys_alone),
		cmocka_unit_test(
			full_cache_that_evicts_nothing_takes_replacements_from_several_processes),
		cmocka_unit_test(read_only_peek_is_whole_while_others_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
