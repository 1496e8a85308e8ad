/* SPDX-License-Identifier: MIT */
/* A segment with one queue, made and removed around each test of a queue. */
#ifndef QUEUE_FIXTURE_H
#define QUEUE_FIXTURE_H

#include "modules/queue/queue.h"
#include "support/procs.h"

#include <coshm/coshm.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

struct fixture {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	struct coshm_queue *queue;
};

static inline void fixture_open(struct fixture *f, const struct coshm_queue_config *config)
{
	struct coshm_segment_config segment_config = {.size_bytes = 16 << 20};
	static char name[TEST_SEGMENT_NAME_SIZE];

	/* One name is enough: each test removes its segment before the next makes its own. */
	if (!*name)
		test_segment_name(name, "queue");
	else if (coshm_segment_unlink(name) == 0)
		fprintf(stderr, "the test before this one did not clean up\n");
	memset(f, 0, sizeof(*f));
	memcpy(f->name, name, sizeof(name));
	assert_int_equal(coshm_segment_create(f->name, &segment_config, 0, &f->segment), 0);
	assert_int_equal(coshm_queue_create(f->segment, "q", config, 0, &f->queue), 0);
}

/* What each test ends with: no invariant is broken, and nobody's work is left. */
static inline void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	fprintf(stderr, "verify: level %d, %s: %s\n", level, where, text);
}

static inline void assert_verified(struct coshm_segment *segment)
{
	struct coshm_verify_result result = {0};

	assert_int_equal(coshm_inspect_verify(segment, NULL, print_finding, NULL, &result), 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(result.pending, 0);
}

static inline void fixture_close(struct fixture *f)
{
	coshm__a64_store_relaxed(&coshm__queue_test_now_ns, 0);
	/* Children that end without a detach are deaths. */
	assert_int_equal(coshm_segment_reap(f->segment, NULL), 0);
	assert_verified(f->segment);
	assert_int_equal(coshm_queue_close(f->queue), 0);
	assert_int_equal(coshm_segment_detach(f->segment), 0);
	assert_int_equal(coshm_segment_unlink(f->name), 0);
}

static inline void set_now(uint64_t now_ns)
{
	coshm__a64_store_relaxed(&coshm__queue_test_now_ns, now_ns);
}

static inline uint64_t put(struct fixture *f, const char *text)
{
	uint64_t id = 0;

	assert_int_equal(coshm_queue_enqueue(f->queue, text, strlen(text), NULL, &id), 0);
	assert_int_not_equal(id, 0);
	return id;
}

/* The payload of the next task as text, or NULL if there is none. */
static inline const char *get(struct fixture *f, struct coshm_task *task)
{
	static char text[256];
	size_t size = sizeof(text) - 1;
	int found = coshm_queue_reserve(f->queue, 0, task);

	assert_in_range(found, 0, 1);
	if (!found)
		return NULL;
	assert_int_equal(coshm_queue_payload(f->queue, task, text, &size), 0);
	text[size] = '\0';
	return text;
}

static inline struct coshm_queue_depth depth_of(struct fixture *f)
{
	struct coshm_queue_depth depth;

	assert_int_equal(coshm_queue_depth(f->queue, &depth), 0);
	return depth;
}

static inline void assert_depth(struct fixture *f, uint64_t ready, uint64_t delayed,
				uint64_t leased, uint64_t dead)
{
	struct coshm_queue_depth depth = depth_of(f);

	assert_int_equal(depth.ready, ready);
	assert_int_equal(depth.delayed, delayed);
	assert_int_equal(depth.leased, leased);
	assert_int_equal(depth.dead, dead);
}

static inline uint64_t stat_of(struct fixture *f, const char *name)
{
	uint64_t value = 0;

	assert_int_equal(coshm_stats_value(f->segment, "q", name, &value), 0);
	return value;
}

/* How many tasks fit right now? Takes them out again. */
static inline uint64_t room_of(struct fixture *f)
{
	struct coshm_task task;
	uint64_t count = 0;

	while (coshm_queue_enqueue(f->queue, "room", 4, NULL, NULL) == 0)
		count++;
	for (uint64_t i = 0; i < count; i++) {
		assert_int_equal(coshm_queue_reserve(f->queue, 0, &task), 1);
		assert_int_equal(coshm_queue_ack(f->queue, &task), 0);
	}
	return count;
}

struct found {
	struct coshm_task_info info;
	char payload[256];
	int count;
};

static inline int find_one(void *context, const struct coshm_task_info *info, const void *payload)
{
	struct found *found = context;

	found->info = *info;
	found->count++;
	if (payload && info->payload_size_bytes < sizeof(found->payload)) {
		memcpy(found->payload, payload, info->payload_size_bytes);
		found->payload[info->payload_size_bytes] = '\0';
	}
	return 0;
}

/* The only task in that state. */
static inline struct found the_one(struct fixture *f, enum coshm_task_state state)
{
	struct found found = {0};

	assert_int_equal(
		coshm_queue_each(f->queue, 1u << state, COSHM_QUEUE_EACH_PAYLOAD, find_one, &found),
		0);
	assert_int_equal(found.count, 1);
	return found;
}

#endif
