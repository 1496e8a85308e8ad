/* SPDX-License-Identifier: MIT */
#include "policy.h"

#include "../support/bench.h"

#include <stdlib.h>
#include <string.h>

struct object {
	uint32_t size_bytes, frequency;
	uint32_t newer, older; /* places in objects; 0 is none */
	struct list *in;
};

struct list {
	uint32_t newest, oldest;
	uint64_t bytes;
};

static struct object *objects; /* object + 1 */

static void list_add(struct list *list, uint32_t o)
{
	objects[o].in = list;
	objects[o].newer = 0;
	objects[o].older = list->newest;
	if (list->newest)
		objects[list->newest].newer = o;
	else
		list->oldest = o;
	list->newest = o;
	list->bytes += objects[o].size_bytes;
}

static void list_remove(uint32_t o)
{
	struct list *list = objects[o].in;

	if (objects[o].newer)
		objects[objects[o].newer].older = objects[o].older;
	else
		list->newest = objects[o].older;
	if (objects[o].older)
		objects[objects[o].older].newer = objects[o].newer;
	else
		list->oldest = objects[o].newer;
	list->bytes -= objects[o].size_bytes;
	objects[o].in = NULL;
}

static void begin(const struct bench_trace *trace)
{
	objects = calloc(trace->object_count + (size_t)1, sizeof(*objects));
	if (!objects)
		bench_fail("calloc");
}

static size_t end(size_t misses)
{
	free(objects);
	return misses;
}

size_t policy_lru(const struct bench_trace *trace, uint64_t capacity_bytes)
{
	struct list list = {0};
	size_t misses = 0;

	begin(trace);
	for (size_t i = 0; i < trace->count; i++) {
		uint32_t o = trace->requests[i].object + 1;

		if (objects[o].in) {
			list_remove(o);
		} else {
			objects[o].size_bytes = trace->requests[i].size_bytes;
			misses++;
		}
		while (list.oldest && list.bytes + objects[o].size_bytes > capacity_bytes)
			list_remove(list.oldest);
		list_add(&list, o);
	}
	return end(misses);
}

/* The hand goes from old to new and spares what was asked for since it came by. */
static void sieve_evict(struct list *list, uint32_t *hand)
{
	uint32_t o = *hand ? *hand : list->oldest;

	while (objects[o].frequency) {
		objects[o].frequency = 0;
		o = objects[o].newer ? objects[o].newer : list->oldest;
	}
	*hand = objects[o].newer;
	list_remove(o);
}

size_t policy_sieve(const struct bench_trace *trace, uint64_t capacity_bytes)
{
	struct list list = {0};
	uint32_t hand = 0;
	size_t misses = 0;

	begin(trace);
	for (size_t i = 0; i < trace->count; i++) {
		uint32_t o = trace->requests[i].object + 1;

		if (objects[o].in) {
			objects[o].frequency = 1;
			continue;
		}
		misses++;
		objects[o].size_bytes = trace->requests[i].size_bytes;
		while (list.oldest && list.bytes + objects[o].size_bytes > capacity_bytes)
			sieve_evict(&list, &hand);
		list_add(&list, o);
	}
	return end(misses);
}

struct s3fifo {
	struct list small, main, ghost;
	uint64_t capacity_bytes;
};

static void s3fifo_evict_main(struct s3fifo *s)
{
	for (;;) {
		uint32_t o = s->main.oldest;

		list_remove(o);
		if (objects[o].frequency == 0)
			return;
		objects[o].frequency--;
		list_add(&s->main, o);
	}
}

/* One hit is enough to stay, as in coshm. */
static void s3fifo_evict_small(struct s3fifo *s)
{
	while (s->small.oldest) {
		uint32_t o = s->small.oldest;

		list_remove(o);
		if (objects[o].frequency == 0) {
			list_add(&s->ghost, o);
			break;
		}
		objects[o].frequency = 0;
		list_add(&s->main, o);
	}
	while (s->ghost.bytes > s->capacity_bytes / 10 * 9)
		list_remove(s->ghost.oldest);
}

static void s3fifo_insert(struct s3fifo *s, uint32_t o, uint32_t size_bytes)
{
	struct list *to = &s->small;

	if (objects[o].in) {
		list_remove(o);
		to = &s->main;
	}
	objects[o].frequency = 0;
	objects[o].size_bytes = size_bytes;
	while (s->small.bytes + s->main.bytes > 0 &&
	       s->small.bytes + s->main.bytes + size_bytes > s->capacity_bytes)
		if (s->small.bytes > s->capacity_bytes / 10 || !s->main.oldest)
			s3fifo_evict_small(s);
		else
			s3fifo_evict_main(s);
	list_add(to, o);
}

size_t policy_s3fifo(const struct bench_trace *trace, uint64_t capacity_bytes)
{
	struct s3fifo s = {.capacity_bytes = capacity_bytes};
	size_t misses = 0;

	begin(trace);
	for (size_t i = 0; i < trace->count; i++) {
		uint32_t o = trace->requests[i].object + 1;

		if (objects[o].in == &s.small || objects[o].in == &s.main) {
			if (objects[o].frequency < 3)
				objects[o].frequency++;
			continue;
		}
		misses++;
		s3fifo_insert(&s, o, trace->requests[i].size_bytes);
	}
	return end(misses);
}
