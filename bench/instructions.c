/* SPDX-License-Identifier: MIT */
/*
 * bench/instructions - operations for scripts/instructions to count the instructions of, and for scripts/cache-lines the
 * lines of memory
 *
 *	instructions              names of the operations
 *	instructions NAME COUNT   does one of them so often
 *	instructions --lines      does each a few times, and then another thread does it on other keys; says where the
 *	                          segment lies, and to which two addresses it writes before and after each operation
 *
 * One process, public functions only: it can be linked with the library of another commit. What comes before the
 * operations is the same for any COUNT, so that the difference between two counts is that of the operations alone.
 */
#include <coshm/coshm.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYS = 4096, KEY_BYTES = 24, VALUE_BYTES = 100, BATCH = 16 };

static struct coshm_segment *segment;
static struct coshm_cache *cache, *small_cache;
static struct coshm_limiter *generous, *strict;
static struct coshm_queue *queue;
static char keys[KEYS][KEY_BYTES], value[VALUE_BYTES];

static void need(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "instructions: %s: %s\n", what, coshm_strerror(result));
	exit(1);
}

static void make_key(char key[KEY_BYTES], unsigned long number)
{
	char text[64];

	snprintf(text, sizeof(text), "user:%010lu:profile_", number);
	memcpy(key, text, KEY_BYTES);
}

static const char *key_at(unsigned long i)
{
	return keys[i * 1597 % KEYS];
}

static void set_up(void)
{
	const struct coshm_segment_config memory = {.size_bytes = 16 << 20};
	const struct coshm_cache_config roomy = {.size_bytes = 4 << 20,
						 .average_item_bytes = KEY_BYTES + VALUE_BYTES};
	const struct coshm_cache_config tight = {.size_bytes = 1 << 20,
						 .average_item_bytes = KEY_BYTES + VALUE_BYTES};
	const struct coshm_limiter_config fast = {
		.rate = 1000000000, .burst = 2000000000000, .keys_max = 1000};
	const struct coshm_limiter_config slow = {
		.rate = 1, .per_ns = UINT64_C(3600000000000), .keys_max = 100};
	const struct coshm_queue_config tasks = {.capacity = 1024};
	char name[64];

	snprintf(name, sizeof(name), "coshm-instructions-%d", (int)getpid());
	need(coshm_segment_create(name, &memory, 0, &segment), "segment");
	need(coshm_cache_create(segment, "cache", &roomy, 0, &cache), "cache");
	need(coshm_cache_create(segment, "small", &tight, 0, &small_cache), "cache");
	need(coshm_limiter_create(segment, "generous", &fast, 0, &generous), "limiter");
	need(coshm_limiter_create(segment, "strict", &slow, 0, &strict), "limiter");
	need(coshm_limiter_try(strict, "client", 6, 1, NULL), "try");
	need(coshm_queue_create(segment, "queue", &tasks, 0, &queue), "queue");
	for (unsigned long i = 0; i < KEYS; i++) {
		make_key(keys[i], i);
		need(coshm_cache_set(cache, keys[i], KEY_BYTES, value, VALUE_BYTES, 0), "set");
	}
	for (unsigned long i = 0; i < 2 * KEYS; i++) {
		char key[KEY_BYTES];

		make_key(key, i);
		need(coshm_cache_set(small_cache, key, KEY_BYTES, value, VALUE_BYTES, 0), "set");
	}
	need(coshm_segment_unlink(name), "unlink");
}

static void cache_get(unsigned long i)
{
	char copy[VALUE_BYTES];
	size_t size_bytes = sizeof(copy);

	need(coshm_cache_get(cache, key_at(i), KEY_BYTES, copy, &size_bytes, NULL) - 1, "get");
}

static void cache_get_miss(unsigned long i)
{
	char copy[VALUE_BYTES];
	size_t size_bytes = sizeof(copy);

	need(-coshm_cache_get(cache, key_at(i), KEY_BYTES - 1, copy, &size_bytes, NULL), "miss");
}

/* One key: every 16th call gets all 16. */
static void cache_mget(unsigned long i)
{
	static struct coshm_cache_request requests[BATCH];
	static char copies[BATCH][VALUE_BYTES];

	requests[i % BATCH] = (struct coshm_cache_request){.key = key_at(i),
							   .key_size_bytes = KEY_BYTES,
							   .buffer = copies[i % BATCH],
							   .buffer_size_bytes = VALUE_BYTES};
	if (i % BATCH == BATCH - 1)
		need(coshm_cache_mget(cache, requests, BATCH) - BATCH, "mget");
}

static void cache_replace(unsigned long i)
{
	need(coshm_cache_set(cache, key_at(i), KEY_BYTES, value, VALUE_BYTES, 0), "set");
}

static void cache_set_evict(unsigned long i)
{
	char key[KEY_BYTES];

	memcpy(key, key_at(i), KEY_BYTES);
	memcpy(key + 5, &i, sizeof(i));
	need(coshm_cache_set(small_cache, key, KEY_BYTES, value, VALUE_BYTES, 0), "set");
}

static void limiter_allowed(unsigned long i)
{
	(void)i;
	need(coshm_limiter_try(generous, "client", 6, 1, NULL) - 1, "try");
}

static void limiter_refused(unsigned long i)
{
	(void)i;
	need(-coshm_limiter_try(strict, "client", 6, 1, NULL), "try");
}

static void queue_task(unsigned long i)
{
	struct coshm_task task;
	char copy[64] = {0};
	size_t size_bytes = sizeof(copy);

	(void)i;
	need(coshm_queue_enqueue(queue, copy, sizeof(copy), NULL, NULL), "enqueue");
	need(coshm_queue_reserve(queue, 0, &task) - 1, "reserve");
	need(coshm_queue_payload(queue, &task, copy, &size_bytes), "payload");
	need(coshm_queue_ack(queue, &task), "ack");
}

static const struct {
	const char *name;
	void (*once)(unsigned long i);
} operations[] = {
	{"cache_get", cache_get},
	{"cache_get_miss", cache_get_miss},
	{"cache_mget_per_key", cache_mget},
	{"cache_replace", cache_replace},
	{"cache_set_evict", cache_set_evict},
	{"limiter_allowed", limiter_allowed},
	{"limiter_refused", limiter_refused},
	{"queue_task", queue_task},
};

enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };

/* --- lines -------------------------------------------------------------------------------------------------- */

enum { LINES_WARM_UP = 64, LINES_COUNT = 256, LINES_THREADS = 2 };

static struct {
	/* Apart, so that a store says which of them it was. */
	volatile int before;
	char padding[60];
	volatile int after;
} marks;

static void print_segment(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to, longest = 0, start = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "coshm-instructions-") &&
		    sscanf(line, "%lx-%lx", &from, &to) == 2 && to - from > longest) {
			longest = to - from;
			start = from;
		}
	if (maps)
		fclose(maps);
	printf("segment %lx %lx\nmarks %lx %lx\ncounts %d %d\n", start, start + longest,
	       (unsigned long)&marks.before, (unsigned long)&marks.after, LINES_THREADS,
	       LINES_COUNT);
	fflush(stdout);
}

static void *do_each(void *thread)
{
	unsigned long first = *(const unsigned long *)thread * (LINES_WARM_UP + LINES_COUNT);

	for (int o = 0; o < OPERATIONS; o++) {
		for (unsigned long i = 0; i < LINES_WARM_UP; i++)
			operations[o].once(first + i);
		for (unsigned long i = LINES_WARM_UP; i < LINES_WARM_UP + LINES_COUNT; i++) {
			marks.before = 1;
			operations[o].once(first + i);
			marks.after = 1;
		}
	}
	return NULL;
}

/* Both threads are there all the time, so that neither gets the slot of the other. */
static void lines(void)
{
	unsigned long numbers[LINES_THREADS];
	pthread_t thread;

	set_up();
	print_segment();
	for (unsigned long t = 0; t < LINES_THREADS; t++) {
		numbers[t] = t;
		if (t == 0)
			do_each(&numbers[t]);
		else if (pthread_create(&thread, NULL, do_each, &numbers[t]) == 0)
			pthread_join(thread, NULL);
	}
}

int main(int argc, char **argv)
{
	unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;

	if (argc == 1) {
		for (int o = 0; o < OPERATIONS; o++)
			puts(operations[o].name);
		return 0;
	}
	for (int o = 0; o < OPERATIONS && argc == 3; o++) {
		if (strcmp(argv[1], operations[o].name) != 0)
			continue;
		set_up();
		for (unsigned long i = 0; i < count; i++)
			operations[o].once(i);
		need(coshm_segment_detach(segment), "detach");
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "--lines") == 0) {
		lines();
		need(coshm_segment_detach(segment), "detach");
		return 0;
	}
	fprintf(stderr, "usage: instructions [NAME COUNT | --lines]\n");
	return 2;
}
