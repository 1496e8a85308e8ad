/* SPDX-License-Identifier: MIT */
/* Objects that come and go under a few names: whoever has one open may use it, removed or not. */
#include "torture/work.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NAMES 3

static int is_expected(int error)
{
	return error == 0 || error == -EEXIST || error == -ENOENT || error == -EAGAIN ||
	       error == -EPROTOTYPE || error == -ENOSPC;
}

static void use_cache(struct worker *worker, const char *name)
{
	struct coshm_cache *cache;
	uint64_t seed = 0;
	int error = coshm_cache_create(worker->handles->segment, name,
				       &(struct coshm_cache_config){.size_bytes = 256 << 10},
				       COSHM_CREATE_OR_OPEN, &cache);

	if (!is_expected(error))
		violation("object %s: creating a cache gives %d", name, error);
	if (error)
		return;
	for (int i = 0; i < 50; i++) {
		const uint32_t key = (uint32_t)random_below(&worker->random, 20);
		size_t size = 8 + random_below(&worker->random, 3000);

		seed = (uint64_t)key << 32 | size;
		memcpy(worker->copy, &seed, 8);
		pattern_fill(seed, worker->copy + 8, size - 8);
		error = coshm_cache_set(cache, &key, sizeof(key), worker->copy, size, 0);
		if (error && error != -EAGAIN)
			violation("object %s: set gives %d", name, error);
		size = BUFFER_BYTES;
		error = coshm_cache_get(cache, &key, sizeof(key), worker->copy, &size, NULL);
		if (error == 1)
			memcpy(&seed, worker->copy, 8);
		if (error < 0 ||
		    (error == 1 && (seed != ((uint64_t)key << 32 | size) ||
				    !pattern_matches(seed, worker->copy + 8, size - 8))))
			violation("object %s: get gives %d, a foreign value", name, error);
	}
	if (coshm_cache_close(cache))
		violation("object %s: close fails", name);
}

static void use_queue(struct worker *worker, const char *name)
{
	struct coshm_queue *queue;
	struct coshm_task task;
	uint64_t payload = UINT64_C(0x7175657565), got;
	size_t size = sizeof(got);
	int error = coshm_queue_create(worker->handles->segment, name,
				       &(struct coshm_queue_config){.capacity = 20},
				       COSHM_CREATE_OR_OPEN, &queue);

	if (!is_expected(error))
		violation("object %s: creating a queue gives %d", name, error);
	if (error)
		return;
	error = coshm_queue_enqueue(queue, &payload, sizeof(payload), NULL, NULL);
	if (error && error != -EAGAIN && error != -ESHUTDOWN)
		violation("object %s: enqueue gives %d", name, error);
	error = coshm_queue_reserve(queue, random_below(&worker->random, 2 * MS), &task);
	if (error == 1) {
		if (coshm_queue_payload(queue, &task, &got, &size) || got != payload)
			violation("object %s: a foreign payload", name);
		if (coshm_queue_ack(queue, &task))
			violation("object %s: ack fails", name);
	} else if (error && error != -ESHUTDOWN) {
		violation("object %s: reserve gives %d", name, error);
	}
	if (coshm_queue_close(queue))
		violation("object %s: close fails", name);
}

static void use_limiter(struct worker *worker, const char *name)
{
	struct coshm_limiter *limiter;
	int error = coshm_limiter_create(worker->handles->segment, name,
					 &(struct coshm_limiter_config){.rate = 1, .keys_max = 100},
					 COSHM_CREATE_OR_OPEN, &limiter);

	if (!is_expected(error))
		violation("object %s: creating a limiter gives %d", name, error);
	if (error)
		return;
	error = coshm_limiter_try(limiter, "key", 3, 1, NULL);
	if (error < 0)
		violation("object %s: try gives %d", name, error);
	if (coshm_limiter_close(limiter))
		violation("object %s: close fails", name);
}

void objects_look(struct worker *worker, struct coshm_segment *segment)
{
	struct coshm_cache *cache;
	char name[16];
	int error;

	snprintf(name, sizeof(name), "passing-%d", (int)random_below(&worker->random, NAMES));
	error = coshm_cache_open(segment, name, &cache);
	/* Removed and used anew while it was being opened: then its configuration may make no sense. */
	if (!is_expected(error) && error != -EUCLEAN)
		violation("object %s: opening it read-only gives %d", name, error);
	for (int i = 0; !error && i < 200; i++) {
		const uint32_t key = (uint32_t)random_below(&worker->random, 20);
		size_t size = BUFFER_BYTES;
		uint64_t seed = 0;
		const int hit =
			coshm_cache_peek(cache, &key, sizeof(key), worker->copy, &size, NULL);

		if (hit == 1)
			memcpy(&seed, worker->copy, 8);
		if (hit == -ESTALE)
			break;
		if ((hit < 0 && hit != -EAGAIN) ||
		    (hit == 1 && (seed != ((uint64_t)key << 32 | size) ||
				  !pattern_matches(seed, worker->copy + 8, size - 8))))
			violation("object %s: read-only peek gives %d, a foreign value", name, hit);
	}
	if (!error && coshm_cache_close(cache))
		violation("object %s: closing it read-only fails", name);
}

void objects_work(struct worker *worker)
{
	static void (*const uses[])(struct worker *, const char *) = {use_cache, use_limiter,
								      use_queue};
	const int number = (int)random_below(&worker->random, NAMES);
	char name[16];
	int error;

	snprintf(name, sizeof(name), "passing-%d", number);
	uses[random_below(&worker->random, 3)](worker, name);
	if (random_below(&worker->random, 2) == 0) {
		error = coshm_object_remove(worker->handles->segment, name);
		if (!is_expected(error))
			violation("object %s: remove gives %d", name, error);
	}
	count(EVENT_OBJECTS, 1);
}
