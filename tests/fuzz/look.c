/* SPDX-License-Identifier: MIT */
#include "fuzz/look.h"

#include "fuzz/check.h"
#include "fuzz/stage.h"

#include <coshm/inspect.h>
#include <coshm/stats.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int each_object(void *context, const struct coshm_object_info *info)
{
	(void)context;
	fuzz_read_text(info->name, sizeof(info->name));
	return 0;
}

static int each_member(void *context, const struct coshm_member_info *info)
{
	(void)context;
	fuzz_read_text(info->command, sizeof(info->command));
	fuzz_require(info->state == COSHM_MEMBER_ALIVE || info->state == COSHM_MEMBER_DEAD,
		     "a member is alive or dead");
	return 0;
}

static int each_stat(void *context, const struct coshm_stat *stat)
{
	(void)context;
	fuzz_read_text(stat->object, COSHM_NAME_SIZE_BYTES);
	fuzz_read_text(stat->name, 256);
	return 0;
}

static void report(void *context, int level, const char *where, const char *text)
{
	(void)context;
	fuzz_require(level >= COSHM_VERIFY_NOTE && level <= COSHM_VERIFY_DAMAGE,
		     "levels are three");
	fuzz_read_text(where, 256);
	fuzz_read_text(text, 256);
}

static void stats_as_text(struct coshm_segment *segment,
			  int (*print)(struct coshm_segment *segment, const char *object,
				       char *buffer, size_t capacity_bytes, size_t *ret_size_bytes))
{
	static char buffer[65536];
	size_t size_bytes = 0;

	if (FUZZ_CALL(0, FUZZ_ERRORS(ENOBUFS, ENOENT, ENOMEM, LOOK_ERRORS),
		      print(segment, NULL, buffer, sizeof(buffer), &size_bytes)) == 0) {
		fuzz_require(size_bytes < sizeof(buffer), "the text fits");
		fuzz_require(buffer[size_bytes] == '\0', "the text ends where it says");
	}
}

void look_at_segment(struct coshm_segment *segment, unsigned int what)
{
	struct coshm_segment_info info;
	struct coshm_member_info member;
	struct coshm_verify_result result;
	uint64_t value;

	switch (what % LOOK_SEGMENT_KINDS) {
	case 0:
		if (FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_segment_info(segment, &info)) == 0)
			fuzz_read_text(info.path, sizeof(info.path));
		break;
	case 1:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS),
			  coshm_inspect_objects(segment, each_object, NULL));
		break;
	case 2:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS),
			  coshm_inspect_members(segment, each_member, NULL));
		break;
	case 3:
		FUZZ_CALL(1, FUZZ_ERRORS(LOOK_ERRORS), coshm_inspect_member(segment, 1, &member));
		break;
	case 4:
		FUZZ_CALL(0, FUZZ_ERRORS(ENOENT, LOOK_ERRORS),
			  coshm_inspect_verify(segment, NULL, report, NULL, &result));
		break;
	case 5:
		FUZZ_CALL(0, FUZZ_ERRORS(ENOENT, LOOK_ERRORS),
			  coshm_stats_each(segment, NULL, each_stat, NULL));
		FUZZ_CALL(0, FUZZ_ERRORS(ENOENT, LOOK_ERRORS),
			  coshm_stats_value(segment, STAGE_CACHE_NAME, "hits", &value));
		break;
	case 6:
		stats_as_text(segment, coshm_stats_json);
		break;
	case 7:
		stats_as_text(segment, coshm_stats_prometheus);
		break;
	}
}

static int each_item(void *context, const void *key, size_t key_size_bytes, const void *value,
		     const struct coshm_cache_item *item)
{
	const uint32_t *flags = context;

	fuzz_read(key, key_size_bytes);
	fuzz_require((value != NULL) == (*flags == COSHM_CACHE_SCAN_VALUES),
		     "there is a value if it was asked for");
	if (value)
		fuzz_read(value, item->value_size_bytes);
	return 0;
}

void look_at_cache(struct coshm_cache *cache, unsigned int what, unsigned int key_index)
{
	static unsigned char buffer[65536];
	struct coshm_cache_config config = {.struct_size_bytes = sizeof(config)};
	struct coshm_cache_item item;
	size_t size_bytes = key_index & 1 ? sizeof(buffer) : key_index;
	char key[STAGE_KEY_BYTES + 1];
	uint64_t cursor = what / LOOK_CACHE_KINDS % 2 ? key_index : 0, count;
	uint32_t flags = 0;

	stage_key(key_index, key);
	switch (what % LOOK_CACHE_KINDS) {
	case 0:
		FUZZ_CALL(
			1, FUZZ_ERRORS(ENOBUFS, EUCLEAN, EAGAIN, ENOMEM, LOOK_ERRORS),
			coshm_cache_peek(cache, key, STAGE_KEY_BYTES, buffer, &size_bytes, &item));
		break;
	case 1:
		FUZZ_CALL(1, FUZZ_ERRORS(EAGAIN, ENOMEM, LOOK_ERRORS),
			  coshm_cache_exists(cache, key, STAGE_KEY_BYTES));
		break;
	case 2:
		flags = COSHM_CACHE_SCAN_VALUES;
		/* fall through */
	case 3:
		FUZZ_CALL(0, FUZZ_ERRORS(EAGAIN, ENOMEM, LOOK_ERRORS),
			  coshm_cache_scan(cache, &cursor, 0, flags, each_item, &flags));
		break;
	case 4:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_cache_count(cache, &count));
		break;
	case 5:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_cache_config(cache, &config));
		break;
	}
}

void look_at_limiter(struct coshm_limiter *limiter, unsigned int what, unsigned int key_index)
{
	struct coshm_limiter_config config = {.struct_size_bytes = sizeof(config)};
	struct coshm_limiter_result result;
	char key[STAGE_KEY_BYTES + 1];

	stage_key(key_index, key);
	switch (what % LOOK_LIMITER_KINDS) {
	case 0:
		FUZZ_CALL(1, FUZZ_ERRORS(EUCLEAN, LOOK_ERRORS),
			  coshm_limiter_peek(limiter, key, STAGE_KEY_BYTES, &result));
		break;
	case 1:
		FUZZ_CALL(0, FUZZ_ERRORS(EUCLEAN, LOOK_ERRORS),
			  coshm_limiter_config(limiter, &config));
		break;
	}
}

static int each_task(void *context, const struct coshm_task_info *info, const void *payload)
{
	const uint32_t *flags = context;

	fuzz_require(!payload || *flags == COSHM_QUEUE_EACH_PAYLOAD,
		     "there is a payload only if it was asked for");
	if (payload)
		fuzz_read(payload, info->payload_size_bytes);
	fuzz_require(info->state >= COSHM_TASK_READY && info->state <= COSHM_TASK_OTHER,
		     "a task has a state");
	fuzz_require(info->attempt_record_count <= 8, "records of attempts fit");
	for (uint32_t i = 0; i < info->attempt_record_count; i++)
		fuzz_read_text(info->attempt_records[i].error,
			       sizeof(info->attempt_records[i].error));
	return 0;
}

void look_at_queue(struct coshm_queue *queue, unsigned int what)
{
	struct coshm_queue_config config = {.struct_size_bytes = sizeof(config)};
	struct coshm_queue_depth depth;
	uint32_t flags = 0;

	switch (what % LOOK_QUEUE_KINDS) {
	case 0:
		flags = COSHM_QUEUE_EACH_PAYLOAD;
		/* fall through */
	case 1:
		FUZZ_CALL(0, FUZZ_ERRORS(ENOMEM, LOOK_ERRORS),
			  coshm_queue_each(queue, 0, flags, each_task, &flags));
		break;
	case 2:
		if (FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_queue_depth(queue, &depth)) == 0)
			fuzz_require(depth.ready + depth.delayed + depth.leased + depth.dead <=
					     depth.capacity,
				     "no more tasks than the queue has room for");
		break;
	case 3:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_queue_config(queue, &config));
		break;
	}
}
