/* SPDX-License-Identifier: MIT */
#include "support/toy.h"
#include "base/futex.h"
#include "support/procs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOY_MAGIC UINT64_C(0x746f7974)

_Atomic int toy_reap_hold;

static struct toy_shm *toy_of(const struct coshm__handle *handle)
{
	return handle->object;
}

static int toy_attach(struct coshm__handle *handle)
{
	if (handle->size_bytes < sizeof(struct toy_shm) ||
	    coshm__a64_load_relaxed(&toy_of(handle)->magic) != TOY_MAGIC)
		return -EUCLEAN;
	handle->local = malloc(16);
	return handle->local ? 0 : -ENOMEM;
}

static void toy_detach(struct coshm__handle *handle)
{
	free(handle->local);
	handle->local = NULL;
}

static void toy_removed(struct coshm__handle *handle)
{
	coshm__a64_fetch_add_relaxed(&toy_of(handle)->removed, 1);
}

static void toy_leave(struct coshm__op *op, struct coshm__handle *handle)
{
	struct toy_shm *toy = toy_of(handle);

	for (unsigned int i = 0; i < TOY_CLAIMS; i++) {
		uint64_t mine = op->member_id;

		coshm__a64_cas_acq_rel(&toy->claims[i], &mine, 0);
	}
	coshm__a64_fetch_add_relaxed(&toy->left_by, 1);
}

static int toy_reap(struct coshm__op *op, struct coshm__handle *handle, uint32_t dead_id,
		    uint64_t *cursor, uint64_t budget)
{
	struct toy_shm *toy = toy_of(handle);

	(void)op;
	coshm__a64_fetch_add_relaxed(&toy->reap_calls, 1);
	if (coshm__a64_load_relaxed(&toy->reap_first_cursor) == TOY_NO_CURSOR)
		coshm__a64_store_relaxed(&toy->reap_first_cursor, *cursor);
	if (coshm__a64_load_relaxed(&toy->reap_refuses) == 1)
		return -EAGAIN;
	/* Small steps, so that a pass takes several calls. */
	if (budget > 8)
		budget = 8;
	for (; *cursor < TOY_CLAIMS && budget; ++*cursor, budget--) {
		uint64_t dead = dead_id;

		coshm__a64_cas_acq_rel(&toy->claims[*cursor], &dead, 0);
	}
	while (atomic_load(&toy_reap_hold))
		usleep(1000);
	return *cursor == TOY_CLAIMS;
}

static int toy_recover(struct coshm__op *op, struct coshm__handle *handle,
		       struct coshm__rlock_shm *lock)
{
	struct toy_shm *toy = toy_of(handle);

	(void)op;
	if (lock != &toy->lock)
		return 0;
	if (coshm__a64_load_relaxed(&toy->unrepairable))
		return -EUCLEAN;
	coshm__a64_store_relaxed(&toy->right, coshm__a64_load_relaxed(&toy->left));
	coshm__a64_store_relaxed(&toy->inside, 0);
	coshm__a64_fetch_add_relaxed(&toy->recoveries, 1);
	return 0;
}

static void toy_holdings(struct coshm__handle *handle, uint32_t member_id,
			 struct coshm_member_info *info)
{
	for (unsigned int i = 0; i < TOY_CLAIMS; i++)
		info->leases_held +=
			coshm__a64_load_relaxed(&toy_of(handle)->claims[i]) == member_id;
}

static int toy_lock_is_lane(struct coshm__handle *handle, uint64_t offset_bytes)
{
	(void)handle;
	return offset_bytes == offsetof(struct toy_shm, lane_lock);
}

static void toy_check(struct coshm__handle *handle, struct coshm__findings *findings)
{
	struct toy_shm *toy = toy_of(handle);
	uint32_t owner = coshm__rlock_owner(&toy->lock);

	if (owner && coshm__member_is_dead(handle->segment, owner))
		coshm__finding(findings, COSHM_VERIFY_PENDING, "queue/lock", "held by the dead");
	for (unsigned int i = 0; i < TOY_CLAIMS; i++) {
		uint64_t id = coshm__a64_load_acquire(&toy->claims[i]);

		if (id && coshm__member_is_dead(handle->segment, (uint32_t)id))
			coshm__finding(findings, COSHM_VERIFY_PENDING, "queue/claims",
				       "claim %u is of the dead", i);
	}
	/* Only where nobody works: the tests see to it. */
	if (!owner && coshm__rlock_owner(&toy->lock) == 0 &&
	    coshm__a64_load_acquire(&toy->left) != coshm__a64_load_acquire(&toy->right))
		coshm__finding(findings, COSHM_VERIFY_DAMAGE, "queue/words",
			       "left and right differ though nobody is inside");
}

static struct coshm__counters_shm *toy_counters(struct coshm__handle *handle)
{
	return &toy_of(handle)->counters;
}

static uint64_t toy_gauge(struct coshm__handle *handle, uint32_t index)
{
	return coshm__a64_load_relaxed(&toy_of(handle)->payload) + index;
}

const struct coshm__object_type toy_type = {
	.type = COSHM_OBJECT_QUEUE,
	.name = "queue",
	.layout_fingerprint = sizeof(struct toy_shm),
	.attach = toy_attach,
	.detach = toy_detach,
	.removed = toy_removed,
	.leave = toy_leave,
	.reap = toy_reap,
	.recover_lock = toy_recover,
	.holdings = toy_holdings,
	.lock_is_lane = toy_lock_is_lane,
	.verify = toy_check,
	.counters = toy_counters,
	.gauge = toy_gauge,
};

const struct coshm__object_type other_type = {
	.type = COSHM_OBJECT_CACHE,
	.name = "cache",
	.layout_fingerprint = 1,
	.attach = toy_attach,
	.detach = toy_detach,
};

const struct coshm__object_type *const coshm__object_types[] = {&toy_type, &other_type, NULL};

static int toy_initialise(struct coshm__handle *handle, const void *context)
{
	struct toy_shm *toy = toy_of(handle);
	const unsigned char *bytes = handle->object;

	/* The memory is promised to be zero, also where another object was before. */
	for (uint64_t i = 0; i < handle->size_bytes; i++)
		if (bytes[i])
			return -EUCLEAN;
	coshm__a64_store_relaxed(&toy->payload, *(const uint64_t *)context);
	coshm__a64_store_relaxed(&toy->magic, TOY_MAGIC);
	memset((unsigned char *)handle->object + sizeof(*toy), 0xa5,
	       handle->size_bytes - sizeof(*toy));
	return 0;
}

int toy_create(struct coshm_segment *segment, const char *name, uint32_t flags, uint64_t payload,
	       void **ret_token)
{
	return coshm__object_create(segment, name, &toy_type, sizeof(struct toy_shm), flags,
				    toy_initialise, &payload, ret_token);
}

int toy_create_sized(struct coshm_segment *segment, const char *name, uint64_t size_bytes,
		     void **ret_token)
{
	const uint64_t payload = 0;

	return coshm__object_create(segment, name, &toy_type, size_bytes, 0, toy_initialise,
				    &payload, ret_token);
}

int toy_open(struct coshm_segment *segment, const char *name, void **ret_token)
{
	return coshm__object_open(segment, name, &toy_type, ret_token);
}

int toy_close(void *token)
{
	return coshm__object_close(token, COSHM_OBJECT_QUEUE);
}

int toy_begin(struct coshm__op *op, void *token, struct toy_shm **ret_toy)
{
	int error = coshm__op_begin(op, token, COSHM_OBJECT_QUEUE);

	if (!error)
		*ret_toy = op->handle->object;
	return error;
}

struct toy_shm *toy_peek(void *token)
{
	struct coshm__op op;
	struct toy_shm *toy;

	if (coshm__op_begin_look(&op, token, COSHM_OBJECT_QUEUE))
		return NULL;
	toy = op.handle->object;
	coshm__op_end(&op);
	return toy;
}

struct coshm__segment *toy_segment(struct coshm_segment *token)
{
	struct coshm__op op;

	if (coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT))
		return NULL;
	coshm__op_end(&op);
	return op.segment;
}

int toy_step(struct coshm__op *op, struct toy_shm *toy)
{
	int wrong = coshm__a64_load_relaxed(&toy->inside) != 0 ||
		    coshm__a64_load_relaxed(&toy->left) != coshm__a64_load_relaxed(&toy->right);

	coshm__a64_store_relaxed(&toy->inside, op->member_id);
	coshm__a64_store_relaxed(&toy->left, coshm__a64_load_relaxed(&toy->left) + 1);
	for (int i = 0; i < 50; i++)
		coshm__cpu_pause();
	coshm__a64_store_relaxed(&toy->right, coshm__a64_load_relaxed(&toy->right) + 1);
	wrong |= coshm__a64_load_relaxed(&toy->inside) != op->member_id;
	coshm__a64_store_relaxed(&toy->inside, 0);
	return wrong;
}

struct coshm_segment *toy_segment_create(const char *name, uint64_t size_bytes)
{
	struct coshm_segment_config config = {.size_bytes = size_bytes ? size_bytes : 1 << 20,
					      .member_count_max = 64};
	struct coshm_segment *segment = NULL;
	int error = coshm_segment_create(name, &config, 0, &segment);

	if (error) {
		fprintf(stderr, "test support: create %s: %s\n", name, coshm_strerror(error));
		exit(99);
	}
	return segment;
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level != COSHM_VERIFY_NOTE)
		fprintf(stderr, "# verify: %s: %s: %s\n",
			level == COSHM_VERIFY_DAMAGE ? "DAMAGE" : "pending", where, text);
}

int toy_verify(struct coshm_segment *segment, uint64_t *ret_damage, uint64_t *ret_pending)
{
	struct coshm_verify_result result = {0};
	int error = coshm_inspect_verify(segment, NULL, print_finding, NULL, &result);

	*ret_damage = result.damage;
	*ret_pending = result.pending;
	return error;
}

uint64_t toy_stat(struct coshm_segment *segment, const char *name)
{
	uint64_t value;

	return coshm_stats_value(segment, NULL, name, &value) ? UINT64_MAX : value;
}

static char heard[16384];

static void hear(void *context, int level, const char *message)
{
	size_t used = strlen(heard);

	(void)context;
	(void)level;
	snprintf(heard + used, sizeof(heard) - used, "%s\n", message);
}

void heard_start(void)
{
	heard_clear();
	coshm_set_log(hear, NULL, COSHM_LOG_INFO);
}

void heard_clear(void)
{
	heard[0] = '\0';
}

const char *heard_text(void)
{
	return heard;
}
