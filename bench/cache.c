/* SPDX-License-Identifier: MIT */
/*
 * bench/cache - what does an operation on the cache cost, beside a model that does the least that is possible, and beside
 * what one would take instead?
 *
 *	cache [--keys N] [--pages 2M] [options of all benches]
 *
 * 24-byte keys, 1,000,000 of them, values of 100 bytes (100,000 keys where values have 4 KiB), Zipf(0.99) over a random
 * permutation or uniform. Every get copies the value out and looks at both its ends. Workers are processes, one per CPU
 * while there are enough; tables that cannot be shared by processes are used by threads. Servers wait for an answer per
 * operation, and run on the same CPUs as their clients. What only another language reaches is asked for by a script in
 * long stretches, and what its loop takes is subtracted. Where values are evicted, each store has 64 MiB. With --pages 2M the
 * tables that lie in this program's memory, and the segment, are in pages of 2 MiB.
 */
#include "peers/interpreter.h"
#include "peers/store.h"

#include <coshm/coshm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 64 };

static uint32_t key_count;

static const struct store *const stores[] = {
	&store_model, &store_log,	&store_coshm, &store_rculfhash, &store_ck,
	&store_lmdb,  &store_memcached, &store_redis, &store_apcu,	&store_shared_dict,
};

enum { STORES = sizeof(stores) / sizeof(stores[0]) };

enum operations { GET, GET_AFTER, MGET, SET };

struct load {
	const char *name;
	enum bench_distribution distribution;
	enum operations operations;
	int set_percent; /* with GET */
	struct store_shape shape;
	int procs[8];
	double floor_m_per_s; /* of coshm with one process */
	double goal_ns;
};

static struct load loads[] = {
	{.name = "get, Zipf",
	 .distribution = BENCH_ZIPF,
	 .procs = {1, 2, 4, 8, 16},
	 .floor_m_per_s = 5},
	{.name = "get, uniform", .distribution = BENCH_UNIFORM, .procs = {1, 2}},
	{.name = "get, each key known by the last value, Zipf",
	 .distribution = BENCH_ZIPF,
	 .operations = GET_AFTER,
	 .procs = {1, 2}},
	{.name = "95/5 get/set, Zipf",
	 .distribution = BENCH_ZIPF,
	 .set_percent = 5,
	 .procs = {1, 2, 4, 8, 16}},
	{.name = "95/5 get/set, uniform",
	 .distribution = BENCH_UNIFORM,
	 .set_percent = 5,
	 .procs = {1, 2}},
	{.name = "50/50 get/set, Zipf",
	 .distribution = BENCH_ZIPF,
	 .set_percent = 50,
	 .procs = {1, 2, 4}},
	{.name = "mget of 16 per key, Zipf",
	 .distribution = BENCH_ZIPF,
	 .operations = MGET,
	 .procs = {1, 2}},
	{.name = "get, one hot key", .distribution = BENCH_ONE_KEY, .procs = {1, 2, 4}},
	{.name = "50/50 get/set, one hot key",
	 .distribution = BENCH_ONE_KEY,
	 .set_percent = 50,
	 .procs = {1, 2, 4}},
	{.name = "set with eviction, Zipf",
	 .distribution = BENCH_ZIPF,
	 .operations = SET,
	 .shape = {.evict_at_bytes = 64 << 20},
	 .procs = {1, 2},
	 .goal_ns = 230},
	{.name = "set with eviction, uniform",
	 .distribution = BENCH_UNIFORM,
	 .operations = SET,
	 .shape = {.evict_at_bytes = 64 << 20},
	 .procs = {1, 2, 4},
	 .floor_m_per_s = 2},
	{.name = "get of 4 KiB, Zipf",
	 .distribution = BENCH_ZIPF,
	 .shape = {.value_bytes = 4096},
	 .procs = {1, 2}},
	{.name = "95/5 get/set of 4 KiB, Zipf",
	 .distribution = BENCH_ZIPF,
	 .set_percent = 5,
	 .shape = {.value_bytes = 4096},
	 .procs = {1, 2}},
};

enum { LOADS = sizeof(loads) / sizeof(loads[0]) };

static const struct store *store_of(const struct bench_case *c)
{
	return stores[c->number[0]];
}

static const struct load *load_of(const struct bench_case *c)
{
	return c->context;
}

static int prepare(const struct bench_case *c)
{
	bench_load(load_of(c)->distribution, load_of(c)->shape.key_count);
	return store_prepare(store_of(c), &load_of(c)->shape);
}

static const char *operation_of(const struct bench_worker *worker)
{
	return load_of(worker->of)->operations == SET ? "set" : "get";
}

static void begin(struct bench_worker *worker)
{
	const struct store *store = store_of(worker->of);
	uint32_t far_apart = BENCH_LOAD_LENGTH / 8 * 3 / STEP * STEP;

	worker->at = (uint64_t)worker->number * far_apart + worker->of->number[1];
	if (store->interpreter)
		interpreter_begin(store->interpreter, operation_of(worker), worker);
	else
		store->enter();
}

static void end(struct bench_worker *worker)
{
	const struct store *store = store_of(worker->of);

	if (store->interpreter)
		interpreter_end(store->interpreter);
	else
		store->leave();
}

static int get_is_right(const struct store *store, store_key key, size_t value_bytes, int may_miss)
{
	char value[STORE_VALUE_MAX];
	int hit = store->get(key, value);

	return hit == 1 ? value[0] == value[value_bytes - 1] : hit == 0 && may_miss;
}

static void step_mixed(const struct store *store, const struct load *load,
		       struct bench_worker *worker, store_key *keys)
{
	char value[STORE_VALUE_MAX];
	unsigned int sets = 0;

	for (unsigned int i = 0; i < STEP; i++) {
		sets += (unsigned int)load->set_percent;
		if (sets >= 100) {
			sets -= 100;
			store_value(value, load->shape.value_bytes, i);
			worker->wrong += store->set(keys[i], value) != 1;
		} else {
			worker->wrong += !get_is_right(store, keys[i], load->shape.value_bytes, 0);
		}
	}
}

/*
 * In a loop over keys that are known the CPU works on several gets at once. Where work hangs on the value it cannot, and
 * neither can it here: which key is next is known only when the last value is there.
 */
static void step_after(const struct store *store, const struct load *load,
		       struct bench_worker *worker, store_key *keys)
{
	char value[STORE_VALUE_MAX] = {0};
	unsigned int last = 0;

	for (unsigned int i = 0; i < STEP; i++) {
		worker->wrong += store->get(keys[i + (last >> 8)], value) != 1;
		last = (unsigned char)value[load->shape.value_bytes - 1];
		bench_forget(last);
	}
}

static void step_mget(const struct store *store, const struct load *load,
		      struct bench_worker *worker, store_key *keys)
{
	char values[STORE_BATCH][STORE_VALUE_MAX];
	size_t value_bytes = load->shape.value_bytes;
	const char *first = values[0];

	for (unsigned int i = 0; i < STEP; i += STORE_BATCH) {
		worker->wrong += store->mget(keys + i, values) != STORE_BATCH;
		for (size_t k = 0; k < STORE_BATCH; k++)
			worker->wrong +=
				first[k * value_bytes] != first[k * value_bytes + value_bytes - 1];
	}
}

static void step_set(const struct store *store, const struct load *load,
		     struct bench_worker *worker, store_key *keys)
{
	char value[STORE_VALUE_MAX];

	store_value(value, load->shape.value_bytes, (uint32_t)worker->at);
	for (unsigned int i = 0; i < STEP; i++)
		worker->wrong += store->set(keys[i], value) != 1;
}

static void step_by_script(struct bench_worker *worker)
{
	interpreter_step(store_of(worker->of)->interpreter, operation_of(worker), worker);
}

static void step(struct bench_worker *worker)
{
	const struct store *store = store_of(worker->of);
	const struct load *load = load_of(worker->of);
	store_key *keys = bench_load(load->distribution, load->shape.key_count) +
			  worker->at % BENCH_LOAD_LENGTH;

	if (store->resume)
		store->resume();
	switch (load->operations) {
	case GET:
		step_mixed(store, load, worker, keys);
		break;
	case GET_AFTER:
		step_after(store, load, worker, keys);
		break;
	case MGET:
		step_mget(store, load, worker, keys);
		break;
	case SET:
		step_set(store, load, worker, keys);
		break;
	}
	if (store->pause)
		store->pause();
	worker->at += STEP;
	worker->operations += STEP;
}

/* --- which cases there are --- */

static int takes_part(const struct store *store, const struct load *load, int procs)
{
	if (load->shape.evict_at_bytes && !store->evicts)
		return 0;
	if (store->only_sets && load->operations != SET)
		return 0;
	if (load->operations == MGET && !store->has_mget && !store->absent)
		return 0;
	/* A server is waited for in any case. */
	if (load->operations == GET_AFTER && store->server)
		return 0;
	if (store->interpreter)
		return load->distribution == BENCH_ZIPF && !load->set_percent &&
		       load->operations != MGET && load->operations != GET_AFTER &&
		       procs <= INTERPRETER_PROCS;
	/* A server's answer does not get faster: with many clients it is one figure for all. */
	return !store->server || procs <= 4;
}

static const char *question_of(const struct load *load, int procs)
{
	char text[96];

	snprintf(text, sizeof(text), "%s, %d proc%s", load->name, procs, procs == 1 ? "" : "s");
	return strdup(text);
}

static void add_case(const struct load *load, const char *question, int procs, int number)
{
	const struct store *store = stores[number];
	struct bench_case c = {
		.question = question,
		.subject = store->name,
		.lacks = store->lacks,
		.procs = procs,
		.threads = store->threads,
		.is_limit = store == &store_model || store == &store_log,
		.is_ours = store == &store_coshm,
		.uses_server = store->server,
		.prepare = prepare,
		.begin = begin,
		.step = store->interpreter ? step_by_script : step,
		.end = end,
		.warm_up = BENCH_LOAD_LENGTH / 2,
		.context = load,
		.number = {number, (int64_t)(procs * 17 % 64) * STEP},
	};

	if (c.is_ours && procs == 1) {
		c.floor_mops = load->floor_m_per_s;
		c.goal_ns = load->goal_ns;
	}
	bench_add(&c);
}

static void add_cases(void)
{
	if (!key_count)
		key_count = bench_quick ? 20000 : 1000000;
	for (int l = 0; l < LOADS; l++) {
		struct load *load = &loads[l];

		if (!load->shape.value_bytes)
			load->shape.value_bytes = 100;
		load->shape.key_count = load->shape.value_bytes > 1000 ? key_count / 10 : key_count;
		for (int p = 0; load->procs[p]; p++) {
			const char *question = question_of(load, load->procs[p]);

			for (int s = 0; s < STORES; s++)
				if (takes_part(stores[s], load, load->procs[p]))
					add_case(load, question, load->procs[p], s);
		}
	}
}

/* Fills a cache until it evicts: what one more item of 124 bytes takes, everything included. */
static void close_all(void)
{
	struct coshm_segment_config memory = {.size_bytes = 80 << 20};
	struct coshm_cache_config config = {.size_bytes = 64 << 20, .average_item_bytes = 124};
	char key[BENCH_KEY_BYTES], value[100] = {0}, name[64];
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	uint64_t count;

	snprintf(name, sizeof(name), "%.50s-density", bench_segment_name());
	bench_need(coshm_segment_create(name, &memory, 0, &segment), "segment");
	bench_need(coshm_cache_create(segment, "density", &config, 0, &cache), "create");
	for (uint32_t i = 0; i < (bench_quick ? 700000u : 2000000u); i++) {
		bench_make_key(key, i);
		bench_need(coshm_cache_set(cache, key, BENCH_KEY_BYTES, value, sizeof(value), 0),
			   "set");
	}
	bench_need(coshm_cache_count(cache, &count), "count");
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(name), "unlink");
	bench_note("bytes per item beyond key and value",
		   (double)config.size_bytes / (double)count - 124, "bytes");
	for (int s = 0; s < STORES; s++) {
		store_close(stores[s]);
		if (stores[s]->interpreter)
			interpreter_report(stores[s]->interpreter);
	}
}

static int option(const char *name, const char *value)
{
	if (strcmp(name, "--pages") == 0 && value && strcmp(value, "2M") == 0)
		return bench_huge_pages = 1;
	if (strcmp(name, "--keys") != 0 || !value)
		return 0;
	key_count = (uint32_t)atoi(value);
	return key_count >= 10000;
}

int main(int argc, char **argv)
{
	const struct bench_program program = {
		.name = "cache",
		.options = "[--keys N] [--pages 2M]",
		.option = option,
		.rounds = 5,
		.seconds = 0.3,
		.add_cases = add_cases,
		.close = close_all,
	};

	return bench_main(argc, argv, &program);
}
