/* SPDX-License-Identifier: MIT */
/*
 * Whoever is told -EINVAL, -E2BIG or -EMSGSIZE hears which argument it was: in the log callback, by the name that the
 * header gives it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/procs.h"

static char name[TEST_SEGMENT_NAME_SIZE];
static char detail[512];
static struct coshm_segment *segment;
static struct coshm_cache *cache;
static struct coshm_limiter *limiter;
static struct coshm_queue *queue;

static void hear(void *context, int level, const char *message)
{
	(void)context;
	if (level == COSHM_LOG_ERROR)
		snprintf(detail, sizeof(detail), "%s", message);
}

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "details");
	coshm_set_log(hear, NULL, COSHM_LOG_ERROR);
	return coshm_segment_create(name, &(struct coshm_segment_config){.size_bytes = 16 << 20}, 0,
				    &segment) ||
	       coshm_cache_create(segment, "c", &(struct coshm_cache_config){.size_bytes = 1 << 20},
				  0, &cache) ||
	       coshm_limiter_create(segment, "l", &(struct coshm_limiter_config){.rate = 1}, 0,
				    &limiter) ||
	       coshm_queue_create(segment, "q", &(struct coshm_queue_config){.capacity = 4}, 0,
				  &queue);
}

static int end(void **state)
{
	(void)state;
	coshm_set_log(NULL, NULL, 0);
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

/* The call was refused, and the detail has the word. */
static void refused_for(int result, const char *word, int line)
{
	if (result != -EINVAL && result != -E2BIG && result != -EMSGSIZE)
		fail_msg("line %d: returned %d", line, result);
	if (!strstr(detail, word))
		fail_msg("line %d: \"%s\" does not say %s", line, detail, word);
	detail[0] = '\0';
}

#define REFUSED_FOR(word, call) refused_for(call, word, __LINE__)

static int create_cache(struct coshm_cache_config config)
{
	struct coshm_cache *other;

	return coshm_cache_create(segment, "other", &config, 0, &other);
}

static int each_item(void *context, const void *key, size_t key_size_bytes, const void *value,
		     const struct coshm_cache_item *item)
{
	(void)context, (void)key, (void)key_size_bytes, (void)value, (void)item;
	return 0;
}

static void caches_name_the_argument(void **state)
{
	struct coshm_cache_config good = {.size_bytes = 1 << 20};
	struct coshm_cache *other;
	struct coshm_cache_view view = {.part_count = 0};
	static char huge[(128 << 10)];
	char value[8];
	uint64_t cursor = 0;
	const void *data;
	size_t size = sizeof(value);

	(void)state;
	REFUSED_FOR("size_bytes", create_cache((struct coshm_cache_config){.size_bytes = 1024}));
	REFUSED_FOR("size_bytes",
		    create_cache((struct coshm_cache_config){.size_bytes = UINT64_MAX}));
	REFUSED_FOR("policy",
		    create_cache((struct coshm_cache_config){.size_bytes = 1 << 20, .policy = 9}));
	REFUSED_FOR("lanes", create_cache((struct coshm_cache_config){.size_bytes = 1 << 20,
								      .lanes = 1000000}));
	REFUSED_FOR("max_entries", create_cache((struct coshm_cache_config){.size_bytes = 1 << 20,
									    .max_entries = 5}));
	REFUSED_FOR("max_entries",
		    create_cache((struct coshm_cache_config){.size_bytes = 1 << 20,
							     .policy = COSHM_CACHE_LRU,
							     .max_entries = UINT64_MAX}));
	/* Its tables alone would be larger. */
	REFUSED_FOR("max_entries",
		    create_cache((struct coshm_cache_config){.size_bytes = 1 << 20,
							     .policy = COSHM_CACHE_LRU,
							     .max_entries = 1 << 20}));
	REFUSED_FOR("average_item_bytes",
		    create_cache((struct coshm_cache_config){.size_bytes = 1 << 20,
							     .average_item_bytes = UINT64_MAX}));
	REFUSED_FOR("reserved", create_cache((struct coshm_cache_config){.size_bytes = 1 << 20,
									 .reserved = {0, 1}}));
	REFUSED_FOR("config", coshm_cache_create(segment, "other", NULL, 0, &other));
	REFUSED_FOR("ret_cache", coshm_cache_create(segment, "other", &good, 0, NULL));
	REFUSED_FOR("flags", coshm_cache_create(segment, "other", &good, 64, &other));
	REFUSED_FOR("ret_cache", coshm_cache_open(segment, "c", NULL));
	REFUSED_FOR("ret_config", coshm_cache_config(cache, NULL));
	REFUSED_FOR("key", coshm_cache_pin(cache, "", 0, &view));
	REFUSED_FOR("key", coshm_cache_get(cache, "", 0, value, &size, NULL));
	REFUSED_FOR("key", coshm_cache_get(cache, NULL, 1, value, &size, NULL));
	REFUSED_FOR("buffer", coshm_cache_get(cache, "k", 1, NULL, &size, NULL));
	REFUSED_FOR("value_size_bytes", coshm_cache_get(cache, "k", 1, value, NULL, NULL));
	REFUSED_FOR("key", coshm_cache_peek(cache, "", 0, value, &size, NULL));
	REFUSED_FOR("key", coshm_cache_exists(cache, "k", 65536));
	REFUSED_FOR("requests", coshm_cache_mget(cache, NULL, 1));
	REFUSED_FOR("key", coshm_cache_mget(cache, &(struct coshm_cache_request){.key = "k"}, 1));
	REFUSED_FOR("buffer",
		    coshm_cache_mget(cache,
				     &(struct coshm_cache_request){.key = "k",
								   .key_size_bytes = 1,
								   .buffer_size_bytes = 1},
				     1));
	REFUSED_FOR("ret_count", coshm_cache_count(cache, NULL));
	REFUSED_FOR("key", coshm_cache_set(cache, "", 0, "v", 1, 0));
	REFUSED_FOR("value", coshm_cache_set(cache, "k", 1, NULL, 1, 0));
	REFUSED_FOR("131073", coshm_cache_set(cache, "k", 1, huge, sizeof(huge), 0));
	REFUSED_FOR("key", coshm_cache_delete(cache, "", 0));
	REFUSED_FOR("key", coshm_cache_incr(cache, "", 0, 1, 0, 0, NULL));
	REFUSED_FOR("32784", coshm_cache_incr(cache, huge, 32776, 1, 0, 0, NULL));
	REFUSED_FOR("ret_view", coshm_cache_pin(cache, "k", 1, NULL));
	REFUSED_FOR("view", coshm_cache_unpin(cache, NULL));
	REFUSED_FOR("ret_data", coshm_cache_view_part(&view, 0, NULL, &size));
	REFUSED_FOR("index", coshm_cache_view_part(&view, 0, &data, &size));
	REFUSED_FOR("cursor", coshm_cache_scan(cache, NULL, 1, 0, each_item, NULL));
	REFUSED_FOR("each", coshm_cache_scan(cache, &cursor, 1, 0, NULL, NULL));
	REFUSED_FOR("flags", coshm_cache_scan(cache, &cursor, 1, 64, each_item, NULL));
}

static int create_limiter(struct coshm_limiter_config config)
{
	struct coshm_limiter *other;

	return coshm_limiter_create(segment, "other", &config, 0, &other);
}

static void limiters_name_the_argument(void **state)
{
	struct coshm_limiter_config good = {.rate = 1};
	struct coshm_limiter *other;

	(void)state;
	REFUSED_FOR("rate", create_limiter((struct coshm_limiter_config){.burst = 1}));
	REFUSED_FOR("reserved",
		    create_limiter((struct coshm_limiter_config){.rate = 1, .reserved = {1}}));
	REFUSED_FOR("keys_max", create_limiter((struct coshm_limiter_config){
					.rate = 1, .keys_max = UINT64_MAX}));
	REFUSED_FOR("burst",
		    create_limiter((struct coshm_limiter_config){.rate = 1, .burst = UINT64_MAX}));
	REFUSED_FOR("config", coshm_limiter_create(segment, "other", NULL, 0, &other));
	REFUSED_FOR("ret_limiter", coshm_limiter_create(segment, "other", &good, 0, NULL));
	REFUSED_FOR("flags", coshm_limiter_create(segment, "other", &good, 64, &other));
	REFUSED_FOR("ret_limiter", coshm_limiter_open(segment, "l", NULL));
	REFUSED_FOR("ret_config", coshm_limiter_config(limiter, NULL));
	REFUSED_FOR("config", coshm_limiter_configure(limiter, NULL));
	good.keys_max = 3;
	REFUSED_FOR("keys_max", coshm_limiter_configure(limiter, &good));
	REFUSED_FOR("cost is 7", coshm_limiter_try(limiter, "k", 1, 7, NULL));
	REFUSED_FOR("key", coshm_limiter_try(limiter, NULL, 1, 1, NULL));
	REFUSED_FOR("key", coshm_limiter_try_at(limiter, NULL, 1, 1, 1, NULL));
	REFUSED_FOR("key", coshm_limiter_peek(limiter, NULL, 1, NULL));
	REFUSED_FOR("key", coshm_limiter_wait(limiter, NULL, 1, 1, 0, NULL));
	REFUSED_FOR("key", coshm_limiter_refund(limiter, NULL, 1, 1));
	REFUSED_FOR("key", coshm_limiter_reset(limiter, NULL, 1));
}

static int create_queue(struct coshm_queue_config config)
{
	struct coshm_queue *other;

	return coshm_queue_create(segment, "other", &config, 0, &other);
}

static int handle(void *context, const struct coshm_task *task, const void *payload, char error[56])
{
	(void)context, (void)task, (void)payload, (void)error;
	return COSHM_WORKER_ACK;
}

static void queues_name_the_argument(void **state)
{
	struct coshm_queue_config good = {.capacity = 1};
	struct coshm_enqueue_options late = {.delay_ns = UINT64_MAX};
	struct coshm_worker_options odd = {.flags = 64};
	struct coshm_task task = {.id = 0};
	struct coshm_queue *other;
	size_t size = 0;

	(void)state;
	REFUSED_FOR("capacity", create_queue((struct coshm_queue_config){.capacity = 0}));
	REFUSED_FOR("capacity", create_queue((struct coshm_queue_config){.capacity = 65537}));
	REFUSED_FOR("payload_max_bytes", create_queue((struct coshm_queue_config){
						 .capacity = 1, .payload_max_bytes = UINT64_MAX}));
	REFUSED_FOR("payload_pool_bytes",
		    create_queue((struct coshm_queue_config){
			    .capacity = 1, .payload_max_bytes = 4096, .payload_pool_bytes = 1}));
	REFUSED_FOR("backoff_kind",
		    create_queue((struct coshm_queue_config){.capacity = 1, .backoff_kind = 9}));
	REFUSED_FOR("backoff_jitter_percent",
		    create_queue((struct coshm_queue_config){.capacity = 1,
							     .backoff_jitter_percent = 101}));
	REFUSED_FOR("attempt_record_count", create_queue((struct coshm_queue_config){
						    .capacity = 1, .attempt_record_count = 9}));
	REFUSED_FOR("config", coshm_queue_create(segment, "other", NULL, 0, &other));
	REFUSED_FOR("ret_queue", coshm_queue_create(segment, "other", &good, 0, NULL));
	REFUSED_FOR("flags", coshm_queue_create(segment, "other", &good, 64, &other));
	REFUSED_FOR("ret_queue", coshm_queue_open(segment, "q", NULL));
	REFUSED_FOR("ret_config", coshm_queue_config(queue, NULL));
	REFUSED_FOR("payload", coshm_queue_enqueue(queue, NULL, 1, NULL, NULL));
	REFUSED_FOR("payload of 16777216", coshm_queue_enqueue(queue, detail, 1 << 24, NULL, NULL));
	REFUSED_FOR("delay_ns", coshm_queue_enqueue(queue, "", 0, &late, NULL));
	REFUSED_FOR("ret_task", coshm_queue_reserve(queue, 0, NULL));
	REFUSED_FOR("task", coshm_queue_payload(queue, NULL, NULL, &size));
	REFUSED_FOR("size_bytes", coshm_queue_payload(queue, &task, NULL, NULL));
	REFUSED_FOR("task", coshm_queue_ack(queue, NULL));
	REFUSED_FOR("task", coshm_queue_release(queue, NULL));
	REFUSED_FOR("task", coshm_queue_nack(queue, NULL, NULL, 0));
	REFUSED_FOR("task", coshm_queue_bury(queue, NULL, NULL));
	REFUSED_FOR("delay_ns", coshm_queue_nack(queue, &task, NULL, COSHM_FOREVER - 1));
	REFUSED_FOR("each", coshm_queue_each(queue, 0, 0, NULL, NULL));
	REFUSED_FOR("ret_depth", coshm_queue_depth(queue, NULL));
	REFUSED_FOR("handler", coshm_worker_run(queue, NULL, NULL, NULL));
	REFUSED_FOR("flags", coshm_worker_run(queue, handle, NULL, &odd));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caches_name_the_argument),
		cmocka_unit_test(limiters_name_the_argument),
		cmocka_unit_test(queues_name_the_argument),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
