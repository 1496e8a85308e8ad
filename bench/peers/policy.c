/* SPDX-License-Identifier: MIT */
#include "policy.h"

#include "../support/bench.h"

#include <stdlib.h>
#include <string.h>

struct object {
	uint32_t size_bytes, frequency;
	uint64_t until_ms;
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

/* Puts a value in; whatever was there is out of its list. */
static void renew(const struct bench_trace *trace, size_t i, uint32_t o)
{
	const struct bench_request *request = &trace->requests[i];

	objects[o].size_bytes = request->size_bytes;
	objects[o].until_ms =
		request->ttl_ms ? (uint64_t)trace->at_ms[i] + request->ttl_ms : UINT64_MAX;
}

static int is_gone(const struct bench_trace *trace, size_t i, uint32_t o)
{
	return trace->at_ms[i] >= objects[o].until_ms;
}

size_t policy_lru(const struct bench_trace *trace, uint64_t capacity_bytes)
{
	struct list list = {0};
	size_t misses = 0;

	begin(trace);
	for (size_t i = 0; i < trace->count; i++) {
		uint32_t o = trace->requests[i].object + 1;

		int is_there = objects[o].in && !is_gone(trace, i, o);

		if (objects[o].in)
			list_remove(o);
		if (trace->requests[i].stores || !is_there)
			renew(trace, i, o);
		misses += !trace->requests[i].stores && !is_there;
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

		if (objects[o].in && !is_gone(trace, i, o)) {
			if (trace->requests[i].stores)
				renew(trace, i, o);
			else
				objects[o].frequency = 1;
			continue;
		}
		if (objects[o].in) {
			/* The hand goes on behind it. */
			hand = hand == o ? objects[o].newer : hand;
			list_remove(o);
		}
		objects[o].frequency = 0;
		misses += !trace->requests[i].stores;
		renew(trace, i, o);
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

/* What has expired comes back to where it was. */
static void s3fifo_insert(struct s3fifo *s, const struct bench_trace *trace, size_t i, uint32_t o)
{
	struct list *to = objects[o].in && objects[o].in != &s->small ? &s->main : &s->small;

	if (objects[o].in)
		list_remove(o);
	objects[o].frequency = 0;
	renew(trace, i, o);
	while (s->small.bytes + s->main.bytes > 0 &&
	       s->small.bytes + s->main.bytes + objects[o].size_bytes > s->capacity_bytes)
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

		if ((objects[o].in == &s.small || objects[o].in == &s.main) &&
		    !is_gone(trace, i, o)) {
			if (trace->requests[i].stores)
				renew(trace, i, o);
			else if (objects[o].frequency < 3)
				objects[o].frequency++;
			continue;
		}
		misses += !trace->requests[i].stores;
		s3fifo_insert(&s, trace, i, o);
	}
	return end(misses);
}
