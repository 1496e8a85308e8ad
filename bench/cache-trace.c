/* SPDX-License-Identifier: MIT */
/*
 * bench/cache-trace - how often does the cache miss on a recorded trace, and how often would the textbook?
 *
 *	cache-trace --trace FILE [--json] SIZE...
 *
 * FILE is CSV with a heading and the columns version,time,op,size,lbn; a line is a read of the object lbn of size bytes,
 * a miss is followed by a set. Each SIZE (bytes; K, M, G) is given to a cache with policy s3fifo and to one with policy
 * lru, all their tables included, and to item by item simulations of S3-FIFO (threshold 1) and LRU that have no overhead.
 */
#include <coshm/coshm.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct request {
	uint64_t object;
	uint32_t size;
};

static struct request *requests;
static size_t request_count;
static uint32_t size_max;
static uint64_t size_sum;

static void need(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, coshm_strerror(result));
	exit(1);
}

static int read_trace(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[256];
	size_t room = 0;

	if (!file || !fgets(line, sizeof(line), file))
		return -1;
	while (fgets(line, sizeof(line), file)) {
		unsigned long long object;
		unsigned int size;

		if (sscanf(line, "%*[^,],%*[^,],%*[^,],%u,%llu", &size, &object) != 2)
			continue;
		if (request_count == room) {
			room = room ? 2 * room : 4096;
			requests = realloc(requests, room * sizeof(*requests));
			if (!requests)
				return -1;
		}
		requests[request_count++] = (struct request){object, size};
		size_sum += size;
		if (size > size_max)
			size_max = size;
	}
	fclose(file);
	return request_count > 0 ? 0 : -1;
}

/* --- the textbook: one table of objects, lists by index --- */

enum where { NOWHERE, SMALL, MAIN, GHOST };

struct object {
	uint64_t id;
	uint32_t size, frequency;
	uint32_t newer, older;
	enum where where;
};

static struct object *objects; /* 0 is none */
static uint32_t object_mask;

struct list {
	uint32_t newest, oldest;
	uint64_t bytes;
};

static void list_add(struct list *list, uint32_t o, enum where where)
{
	objects[o].where = where;
	objects[o].newer = 0;
	objects[o].older = list->newest;
	if (list->newest)
		objects[list->newest].newer = o;
	else
		list->oldest = o;
	list->newest = o;
	list->bytes += objects[o].size;
}

static void list_remove(struct list *list, uint32_t o)
{
	if (objects[o].newer)
		objects[objects[o].newer].older = objects[o].older;
	else
		list->newest = objects[o].older;
	if (objects[o].older)
		objects[objects[o].older].newer = objects[o].newer;
	else
		list->oldest = objects[o].newer;
	list->bytes -= objects[o].size;
	objects[o].where = NOWHERE;
}

static void objects_clear(void)
{
	free(objects);
	object_mask = 1;
	while (object_mask < 2 * request_count)
		object_mask *= 2;
	objects = calloc(object_mask + 1, sizeof(*objects));
	object_mask--;
	if (!objects)
		need(-1, "calloc");
}

static uint32_t object_of(const struct request *request)
{
	uint32_t at =
		(uint32_t)(request->object * UINT64_C(0x9e3779b97f4a7c15) >> 20) & object_mask;

	for (;; at = (at + 1) & object_mask) {
		if (at == 0)
			continue;
		if (objects[at].size == 0) {
			objects[at].id = request->object;
			objects[at].size = request->size;
		}
		if (objects[at].id == request->object)
			return at;
	}
}

static size_t simulate_lru(uint64_t capacity)
{
	struct list list = {0, 0, 0};
	size_t misses = 0;

	objects_clear();
	for (size_t i = 0; i < request_count; i++) {
		uint32_t o = object_of(&requests[i]);

		if (objects[o].where == MAIN) {
			list_remove(&list, o);
		} else {
			objects[o].size = requests[i].size;
			misses++;
		}
		list_add(&list, o, MAIN);
		while (list.bytes > capacity)
			list_remove(&list, list.oldest);
	}
	return misses;
}

static void s3fifo_evict_main(struct list *main_list)
{
	while (main_list->oldest) {
		uint32_t o = main_list->oldest;

		list_remove(main_list, o);
		if (objects[o].frequency == 0)
			return;
		objects[o].frequency--;
		list_add(main_list, o, MAIN);
	}
}

static size_t simulate_s3fifo(uint64_t capacity)
{
	struct list small = {0, 0, 0}, main_list = {0, 0, 0}, ghost = {0, 0, 0};
	size_t misses = 0;

	objects_clear();
	for (size_t i = 0; i < request_count; i++) {
		uint32_t o = object_of(&requests[i]);

		if (objects[o].where == SMALL || objects[o].where == MAIN) {
			if (objects[o].frequency < 3)
				objects[o].frequency++;
			continue;
		}
		misses++;
		objects[o].frequency = 0;
		if (objects[o].where == GHOST) {
			list_remove(&ghost, o);
			objects[o].size = requests[i].size;
			list_add(&main_list, o, MAIN);
		} else {
			objects[o].size = requests[i].size;
			list_add(&small, o, SMALL);
		}
		while (small.bytes + main_list.bytes > capacity) {
			if (small.bytes <= capacity / 10 || !small.oldest) {
				s3fifo_evict_main(&main_list);
				continue;
			}
			o = small.oldest;
			list_remove(&small, o);
			if (objects[o].frequency > 0) {
				objects[o].frequency = 0;
				list_add(&main_list, o, MAIN);
				continue;
			}
			list_add(&ghost, o, GHOST);
			while (ghost.bytes > capacity / 10 * 9)
				list_remove(&ghost, ghost.oldest);
		}
	}
	return misses;
}

/* --- the cache --- */

struct replay {
	size_t misses;
	uint64_t relocated, dropped;
};

static struct replay replay(uint64_t capacity, uint32_t policy)
{
	struct coshm_segment_config memory = {.size_bytes = capacity + (4 << 20)};
	struct coshm_cache_config config = {.size_bytes = capacity,
					    .policy = policy,
					    .lanes = 1,
					    .average_item_bytes = size_sum / request_count};
	unsigned char *value = calloc(1, size_max), *read = malloc(size_max);
	struct replay result = {0, 0, 0};
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	char name[48];

	snprintf(name, sizeof(name), "coshm-bench-trace-%d", (int)getpid());
	need(coshm_segment_create(name, &memory, 0, &segment), "create segment");
	need(coshm_cache_create(segment, "c", &config, 0, &cache), "create");
	for (size_t i = 0; i < request_count; i++) {
		const struct request *r = &requests[i];
		size_t size = size_max;
		int hit = coshm_cache_get(cache, &r->object, sizeof(r->object), read, &size, NULL);

		need(hit, "get");
		if (hit)
			continue;
		result.misses++;
		need(coshm_cache_set(cache, &r->object, sizeof(r->object), value, r->size, 0),
		     "set");
	}
	need(coshm_stats_value(segment, "c", "relocated", &result.relocated), "stats");
	need(coshm_stats_value(segment, "c", "evicted_index", &result.dropped), "stats");
	need(coshm_segment_detach(segment), "detach");
	need(coshm_segment_unlink(name), "unlink");
	free(value);
	free(read);
	return result;
}

static uint64_t parse_size(const char *text)
{
	char *end;
	uint64_t size = strtoull(text, &end, 10);

	switch (*end) {
	case 'G':
		size *= 1024;
		/* fall through */
	case 'M':
		size *= 1024;
		/* fall through */
	case 'K':
		size *= 1024;
		end++;
		break;
	default:
		break;
	}
	return *end ? 0 : size;
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	int json = 0, sizes = 0, usage = 0, above = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = 1;
		else if (strcmp(argv[i], "--trace") == 0 && i + 1 < argc)
			path = argv[++i];
		else if (parse_size(argv[i]) >= 1 << 20)
			argv[1 + sizes++] = argv[i];
		else
			usage = 1;
	}
	if (usage || !path || !sizes) {
		fprintf(stderr, "usage: cache-trace --trace FILE [--json] SIZE...\n");
		return 2;
	}
	if (read_trace(path)) {
		fprintf(stderr, "%s: cannot read a trace from it\n", path);
		return 1;
	}
	printf(json ? "{\"requests\": %zu, \"sizes\": [" : "%zu requests; misses in percent\n\n",
	       request_count);
	if (!json)
		printf("%10s %14s %14s %14s %14s %12s\n", "bytes", "s3fifo", "item s3fifo", "lru",
		       "item lru", "copied/set");
	for (int i = 0; i < sizes; i++) {
		uint64_t capacity = parse_size(argv[1 + i]);
		double all = (double)request_count / 100;
		struct replay s3 = replay(capacity, COSHM_CACHE_S3FIFO);
		struct replay lru = replay(capacity, COSHM_CACHE_LRU);
		double item_s3 = (double)simulate_s3fifo(capacity) / all;
		double item_lru = (double)simulate_lru(capacity) / all;
		double ours = (double)s3.misses / all, copied;

		copied = (double)s3.relocated /
			 ((double)s3.misses * (double)size_sum / (double)request_count);
		above |= ours > (double)lru.misses / all;
		printf(json ? "%s{\"bytes\": %llu, \"s3fifo\": %.2f, \"item_s3fifo\": %.2f, "
			      "\"lru\": %.2f, "
			      "\"item_lru\": %.2f, \"copied_per_set\": %.2f}"
			    : "%s%10llu %14.2f %14.2f %14.2f %14.2f %12.2f\n",
		       json && i ? ", " : "", (unsigned long long)capacity, ours, item_s3,
		       (double)lru.misses / all, item_lru, copied);
	}
	printf(json ? "], \"never_above_lru\": %s}\n" : "\nnever above lru: %s\n",
	       above ? "false" : "true");
	return above;
}
