/* SPDX-License-Identifier: MIT */
/* A member uses a cache while others scribble over it. Input: which cache, then calls and edits in turn. */
#include "fuzz/check.h"
#include "fuzz/look.h"
#include "fuzz/stage.h"
#include "fuzz/targets.h"

#include <errno.h>
#include <string.h>

#define VIEWS_MAX 4

struct cache_user {
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	struct coshm_cache_view views[VIEWS_MAX];
	unsigned int view_count;
	char key[STAGE_KEY_BYTES + 1];
};

static unsigned char buffer[65536];

#define SET_ERRORS FUZZ_ERRORS(E2BIG, ENOSPC, EAGAIN, ENOMEM, EUCLEAN, ENOTRECOVERABLE, LOOK_ERRORS)

static void set(struct cache_user *user, uint8_t how, uint16_t size_bytes)
{
	uint64_t ttl_ns = how & 4 ? UINT64_C(1000000) << how % 16 : 0;

	switch (how % 3) {
	case 0:
		FUZZ_CALL(0, SET_ERRORS,
			  coshm_cache_set(user->cache, user->key, STAGE_KEY_BYTES, buffer,
					  size_bytes, ttl_ns));
		break;
	case 1:
		FUZZ_CALL(1, SET_ERRORS,
			  coshm_cache_add(user->cache, user->key, STAGE_KEY_BYTES, buffer,
					  size_bytes, ttl_ns));
		break;
	case 2:
		FUZZ_CALL(1, SET_ERRORS,
			  coshm_cache_replace(user->cache, user->key, STAGE_KEY_BYTES, buffer,
					      size_bytes, ttl_ns));
		break;
	}
}

static void get(struct cache_user *user, uint16_t capacity_bytes)
{
	struct coshm_cache_item item;
	size_t size_bytes = capacity_bytes;

	if (FUZZ_CALL(1, FUZZ_ERRORS(ENOBUFS, EUCLEAN, LOOK_ERRORS),
		      coshm_cache_get(user->cache, user->key, STAGE_KEY_BYTES, buffer, &size_bytes,
				      &item)) == 1) {
		fuzz_require(size_bytes <= capacity_bytes, "a hit fits into the buffer");
		fuzz_require(size_bytes == item.value_size_bytes, "a value has one size");
	}
}

static void mget(struct cache_user *user, uint8_t first)
{
	struct coshm_cache_request requests[8] = {{.key = NULL}};
	char keys[8][STAGE_KEY_BYTES + 1];

	for (unsigned int i = 0; i < 8; i++) {
		stage_key(first + i, keys[i]);
		requests[i].key = keys[i];
		requests[i].key_size_bytes = STAGE_KEY_BYTES;
		requests[i].buffer = buffer + i * 8192;
		requests[i].buffer_size_bytes = 8192;
	}
	FUZZ_CALL(8, FUZZ_ERRORS(LOOK_ERRORS), coshm_cache_mget(user->cache, requests, 8));
	for (unsigned int i = 0; i < 8; i++)
		fuzz_require(requests[i].ret_result != 1 ||
				     requests[i].ret_value_size_bytes <= 8192,
			     "a hit fits into its buffer");
}

static void view_read(const struct coshm_cache_view *view)
{
	const void *data;
	size_t size_bytes;

	for (uint32_t part = 0; part < view->part_count && part < 64; part++)
		if (FUZZ_CALL(0, FUZZ_ERRORS(EINVAL, EUCLEAN),
			      coshm_cache_view_part(view, part, &data, &size_bytes)) == 0)
			fuzz_read(data, size_bytes);
	if (view->data)
		fuzz_read(view->data, view->size_bytes);
}

static void pin(struct cache_user *user)
{
	struct coshm_cache_view *view = &user->views[user->view_count];

	if (user->view_count == VIEWS_MAX)
		return;
	if (FUZZ_CALL(1, FUZZ_ERRORS(EAGAIN, EBADMSG, EUCLEAN, LOOK_ERRORS),
		      coshm_cache_pin(user->cache, user->key, STAGE_KEY_BYTES, view)) == 1) {
		user->view_count++;
		view_read(view);
	}
}

static void unpin(struct cache_user *user)
{
	if (user->view_count == 0)
		return;
	view_read(&user->views[--user->view_count]);
	FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS),
		  coshm_cache_unpin(user->cache, &user->views[user->view_count]));
}

static void call(struct cache_user *user, uint8_t what, struct fuzz_input *input)
{
	uint8_t choice = fuzz_u8(input);
	uint32_t members;
	int64_t number;

	stage_key(choice, user->key);
	switch (what % 12) {
	case 0:
	case 1:
		set(user, choice >> 2, fuzz_u16(input));
		break;
	case 2:
		get(user, fuzz_u16(input));
		break;
	case 3:
		FUZZ_CALL(1, FUZZ_ERRORS(LOOK_ERRORS),
			  coshm_cache_delete(user->cache, user->key, STAGE_KEY_BYTES));
		break;
	case 4:
		FUZZ_CALL(0,
			  FUZZ_ERRORS(EBADMSG, EAGAIN, ENOSPC, E2BIG, ENOMEM, EUCLEAN,
				      ENOTRECOVERABLE, LOOK_ERRORS),
			  coshm_cache_incr(user->cache, user->key, STAGE_KEY_BYTES, choice, 1, 0,
					   &number));
		break;
	case 5:
		pin(user);
		break;
	case 6:
		unpin(user);
		break;
	case 7:
		mget(user, choice);
		break;
	case 8:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_cache_flush(user->cache));
		break;
	case 9:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_segment_reap(user->segment, &members));
		break;
	case 10:
		look_at_cache(user->cache, choice, choice);
		break;
	case 11:
		look_at_segment(user->segment, choice);
		break;
	}
}

static void run(const uint8_t *bytes, size_t size_bytes)
{
	struct fuzz_input input = {.bytes = bytes, .size_bytes = size_bytes};
	uint8_t how = fuzz_u8(&input);
	struct stage *stage = stage_put_up(STAGE_S3FIFO + how % 3, how >> 2 & 1);
	struct cache_user user = {.segment = NULL};

	fuzz_begin();
	memset(buffer, 'n', sizeof(buffer));
	fuzz_require(coshm_segment_attach(stage->path, 0, &user.segment) == 0, "it attaches");
	fuzz_require(coshm_cache_open(user.segment, STAGE_CACHE_NAME, &user.cache) == 0,
		     "it opens");
	stage_guard(stage, user.segment);
	while (!fuzz_input_is_over(&input) && !fuzz_is_patience_spent()) {
		uint8_t step = fuzz_u8(&input);

		if (step < 80)
			stage_edit(stage, &input);
		else
			call(&user, step, &input);
	}
	while (user.view_count)
		unpin(&user);
	FUZZ_CALL(0, FUZZ_ERRORS(EBADF), coshm_cache_close(user.cache));
	stage_leave(stage, user.segment);
}

const struct fuzz_target fuzz_cache = {.name = "cache", .run = run};
