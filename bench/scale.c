/* SPDX-License-Identifier: MIT */
/*
 * bench/scale - what grows with the number of keys, the size of the segment, its objects and its members?
 *
 *	scale [--size-max MIB] [options of all benches]
 *
 * Gets of 100-byte values among 1,000 to 10,000,000 keys, beside the lean model; sets of keys that were never there, in full
 * caches of 16 MiB to 8 GiB, beside the lean log; attach and detach beside open, mmap and close of the same file; a
 * look for dead members where nobody is dead; verify. Sizes over --size-max, and what does not fit into three quarters of the
 * memory that is free, are left out. A large cache is mostly new to the worker's page table: part of such a set is page faults.
 */
#include "peers/store.h"

#include <coshm/coshm.h>

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	STEP = 64,
	VALUE_BYTES = 100,
	ITEM_BYTES = BENCH_KEY_BYTES + VALUE_BYTES,
	MEMBERS_MAX = 1000,
};

/* What a case's numbers are: of the stores' cases, and of the segment's. */
enum { STORE };
enum { MEMORY_MIB, OBJECTS, MEMBERS, KEYS };

static long size_max_mib = 8192;

static uint64_t free_mib(void)
{
	char line[128];
	unsigned long long kib = 0;
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && fgets(line, sizeof(line), file) &&
	       sscanf(line, "MemAvailable: %llu", &kib) != 1)
		;
	if (file)
		fclose(file);
	return kib >> 10;
}

static int has_memory(uint64_t mib)
{
	if (mib <= free_mib() / 4 * 3)
		return 1;
	snprintf(bench_absent, sizeof(bench_absent), "it takes %llu MiB of %llu that are free",
		 (unsigned long long)mib, (unsigned long long)free_mib());
	return 0;
}

/* --- keys and sizes: stores --- */

static const struct store *const stores[] = {&store_model, &store_log, &store_coshm};

static const struct store *store_of(const struct bench_case *c)
{
	return stores[c->number[STORE]];
}

static const struct store_shape *shape_of(const struct bench_case *c)
{
	return c->context;
}

static int prepare_store(const struct bench_case *c)
{
	const struct store_shape *shape = shape_of(c);
	uint64_t bytes = shape->evict_at_bytes ? shape->evict_at_bytes
					       : (uint64_t)shape->key_count * 2 * ITEM_BYTES;

	if (!has_memory(bytes >> 20))
		return -1;
	if (!shape->evict_at_bytes)
		bench_load(BENCH_UNIFORM, shape->key_count);
	return store_prepare(store_of(c), shape);
}

static void finish_store(const struct bench_case *c)
{
	store_close(store_of(c));
}

static void begin_store(struct bench_worker *worker)
{
	worker->random += bench_now_ns(); /* no repetition has the keys of another */
	store_of(worker->of)->enter();
}

static void end_store(struct bench_worker *worker)
{
	store_of(worker->of)->leave();
}

static void step_get(struct bench_worker *worker)
{
	const struct store *store = store_of(worker->of);
	store_key *keys = bench_load(BENCH_UNIFORM, shape_of(worker->of)->key_count) +
			  worker->at % BENCH_LOAD_LENGTH;
	char value[STORE_VALUE_MAX];

	for (int i = 0; i < STEP; i++)
		worker->wrong +=
			store->get(keys[i], value) != 1 || value[0] != value[VALUE_BYTES - 1];
	worker->at += STEP;
	worker->operations += STEP;
}

static void step_set_new(struct bench_worker *worker)
{
	const struct store *store = store_of(worker->of);
	char key[BENCH_KEY_BYTES] = "scale", value[VALUE_BYTES];

	store_value(value, sizeof(value), (uint32_t)worker->at++);
	for (int i = 0; i < STEP; i++) {
		uint64_t number = bench_random(&worker->random);

		memcpy(key + 8, &number, sizeof(number));
		worker->wrong += store->set(key, value) != 1;
	}
	worker->operations += STEP;
}

static void add_store_cases(const char *question, const struct store_shape *shape)
{
	struct store_shape *kept = malloc(sizeof(*kept));
	const char *name = strdup(question);

	if (!kept || !name)
		bench_fail("malloc");
	*kept = *shape;
	for (int s = 0; s < (int)(sizeof(stores) / sizeof(stores[0])); s++) {
		const struct bench_case c = {
			.question = name,
			.subject = stores[s]->name,
			.lacks = stores[s]->lacks,
			.procs = 1,
			.is_limit = stores[s] != &store_coshm,
			.is_ours = stores[s] == &store_coshm,
			.prepare = prepare_store,
			.finish = finish_store,
			.begin = begin_store,
			.step = shape->evict_at_bytes ? step_set_new : step_get,
			.end = end_store,
			.warm_up = BENCH_LOAD_LENGTH / 2,
			.context = kept,
			.number = {s},
		};

		if (stores[s]->only_sets && !shape->evict_at_bytes)
			continue;
		if (stores[s] == &store_model && shape->evict_at_bytes)
			continue;
		bench_add(&c);
	}
}

static void add_keys(void)
{
	const uint32_t keys[] = {1000, 10000, 100000, 1000000, 10000000};
	char question[96];

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct store_shape shape = {.key_count = keys[i], .value_bytes = VALUE_BYTES};

		if (bench_quick && keys[i] > 100000)
			break;
		snprintf(question, sizeof(question), "get, uniform, %u keys", keys[i]);
		add_store_cases(question, &shape);
	}
}

static void add_sizes(void)
{
	const long sizes_mib[] = {16, 128, 1024, 8192};
	char question[96];

	for (size_t i = 0; i < sizeof(sizes_mib) / sizeof(sizes_mib[0]); i++) {
		const struct store_shape shape = {
			.key_count = (uint32_t)((sizes_mib[i] << 20) / ITEM_BYTES),
			.value_bytes = VALUE_BYTES,
			.evict_at_bytes = (uint64_t)sizes_mib[i] << 20,
		};

		if (sizes_mib[i] > (bench_quick ? 16 : size_max_mib))
			break;
		snprintf(question, sizeof(question), "set of a new key, cache of %ld MiB",
			 sizes_mib[i]);
		add_store_cases(question, &shape);
	}
}

/* --- objects and members: the segment --- */

static struct coshm_segment *segment;
static _Atomic int *ready;
static pid_t members[MEMBERS_MAX];
static int member_count;
static char path[128];

static void be_member(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_need(coshm_segment_reap(segment, NULL), "reap");
	atomic_fetch_add(ready, 1);
	for (;;)
		pause();
}

static void fill_cache(uint32_t key_count)
{
	const struct coshm_cache_config config = {
		.size_bytes = (uint64_t)key_count * ITEM_BYTES * 2 + (1 << 20),
		.average_item_bytes = ITEM_BYTES,
	};
	char key[BENCH_KEY_BYTES], value[VALUE_BYTES] = {0};
	struct coshm_cache *cache;

	bench_need(coshm_cache_create(segment, "cache", &config, 0, &cache), "cache");
	for (uint32_t i = 0; i < key_count; i++) {
		bench_make_key(key, i);
		bench_need(coshm_cache_set(cache, key, sizeof(key), value, sizeof(value), 0),
			   "set");
	}
}

static void set_up_segment(const struct bench_case *c)
{
	const struct coshm_segment_config memory = {
		.size_bytes = (uint64_t)c->number[MEMORY_MIB] << 20,
		.member_count_max = MEMBERS_MAX + 8,
	};
	const struct coshm_limiter_config tokens = {.rate = 1, .keys_max = 100};

	snprintf(path, sizeof(path), "/dev/shm/%s", bench_segment_name());
	bench_need(coshm_segment_create(bench_segment_name(), &memory, 0, &segment), "segment");
	for (int64_t i = 0; i < c->number[OBJECTS]; i++) {
		struct coshm_limiter *limiter;
		char name[32];

		snprintf(name, sizeof(name), "limiter-%d", (int)i);
		bench_need(coshm_limiter_create(segment, name, &tokens, 0, &limiter), "limiter");
	}
	if (c->number[KEYS])
		fill_cache((uint32_t)c->number[KEYS]);
	atomic_store(ready, 0);
	for (member_count = 0; member_count < c->number[MEMBERS]; member_count++) {
		members[member_count] = fork();
		if (members[member_count] < 0)
			bench_fail("fork");
		if (members[member_count] == 0)
			be_member();
	}
	while (atomic_load(ready) < member_count)
		bench_back_off(2);
}

static void tear_down_segment(const struct bench_case *c)
{
	(void)c;
	for (int i = 0; i < member_count; i++)
		kill(members[i], SIGKILL);
	for (int i = 0; i < member_count; i++)
		waitpid(members[i], NULL, 0);
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
}

static int prepare_segment(const struct bench_case *c)
{
	return has_memory((uint64_t)c->number[MEMORY_MIB]) ? 0 : -1;
}

/* Members that were forked have the segment already: then attach is one more handle on it. */
static void leave_segment(struct bench_worker *worker)
{
	(void)worker;
	bench_need(coshm_segment_detach(segment), "detach");
}

static void step_map(struct bench_worker *worker)
{
	size_t bytes = (size_t)worker->of->number[MEMORY_MIB] << 20;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	worker->wrong += map == MAP_FAILED || munmap(map, bytes) || close(fd);
	worker->operations++;
}

static void step_attach(struct bench_worker *worker)
{
	struct coshm_segment *mine;

	bench_need(coshm_segment_attach(bench_segment_name(), 0, &mine), "attach");
	bench_need(coshm_segment_detach(mine), "detach");
	worker->operations++;
}

static void step_reap(struct bench_worker *worker)
{
	bench_need(coshm_segment_reap(segment, NULL), "reap");
	worker->operations++;
}

static void step_verify(struct bench_worker *worker)
{
	struct coshm_verify_result found = {0};

	bench_need(coshm_inspect_verify(segment, NULL, NULL, NULL, &found), "verify");
	worker->wrong += found.damage;
	worker->operations++;
}

static void add_segment_case(const char *question, const struct bench_case *like)
{
	struct bench_case c = *like;

	c.question = strdup(question);
	c.procs = 1;
	c.prepare = prepare_segment;
	c.set_up = set_up_segment;
	c.tear_down = tear_down_segment;
	bench_add(&c);
}

static void add_attach(int64_t mib, int64_t objects, int64_t others)
{
	struct bench_case c = {
		.subject = "open, mmap, close (the limit)",
		.lacks = "neither checked nor a member",
		.is_limit = 1,
		.begin = leave_segment,
		.step = step_map,
		.number = {mib, objects, others},
	};
	char question[96];

	snprintf(question, sizeof(question), "attach and detach, %d MiB, %d objects, %d members",
		 (int)mib, (int)objects, (int)others);
	add_segment_case(question, &c);
	c.subject = "coshm";
	c.lacks = "";
	c.is_limit = 0;
	c.is_ours = 1;
	c.step = step_attach;
	add_segment_case(question, &c);
}

static void add_reap(int64_t others)
{
	const struct bench_case c = {
		.subject = "coshm",
		.is_ours = 1,
		.step = step_reap,
		.end = leave_segment,
		.number = {16, 1, others},
	};
	char question[96];

	snprintf(question, sizeof(question), "reap, nobody is dead, %d members", (int)others);
	add_segment_case(question, &c);
}

static void add_verify(int64_t objects, int64_t keys)
{
	const struct bench_case c = {
		.subject = "coshm",
		.is_ours = 1,
		.step = step_verify,
		.end = leave_segment,
		.number = {16 + keys * 3 * ITEM_BYTES / (1 << 20), objects, 0, keys},
	};
	char question[96];

	snprintf(question, sizeof(question), "verify, %d limiters and a cache of %d keys",
		 (int)objects, (int)keys);
	add_segment_case(question, &c);
}

static void add_cases(void)
{
	int many = bench_quick ? 20 : MEMBERS_MAX;

	ready = bench_shared(sizeof(*ready));
	add_keys();
	add_sizes();
	for (long mib = 16; mib <= (bench_quick ? 16 : size_max_mib); mib *= 8)
		add_attach(mib, 1, 0);
	add_attach(16, 60, 0);
	add_attach(16, 1, many);
	add_reap(0);
	add_reap(16);
	add_reap(many);
	add_verify(1, 1000);
	add_verify(60, 1000);
	add_verify(1, 100000);
}

static int option(const char *name, const char *value)
{
	if (strcmp(name, "--size-max") != 0 || !value)
		return 0;
	size_max_mib = atol(value);
	return size_max_mib > 0;
}

int main(int argc, char **argv)
{
	const struct bench_program program = {
		.name = "scale",
		.options = "[--size-max MIB]",
		.option = option,
		.rounds = 5,
		.seconds = 0.1,
		.add_cases = add_cases,
	};

	return bench_main(argc, argv, &program);
}
