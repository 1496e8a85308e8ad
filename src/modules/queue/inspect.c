/* SPDX-License-Identifier: MIT */
/* Looking at tasks without touching them: copies that are only shown if the record's word did not change meanwhile. */
#include "base/log.h"
#include "modules/queue/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COPY_TRIES 8

static uint32_t public_state(uint64_t word)
{
	switch (coshm__record_state(word)) {
	case COSHM__RECORD_PUBLISH:
	case COSHM__RECORD_READY:
		return COSHM_TASK_READY;
	case COSHM__RECORD_DELAYED:
		return COSHM_TASK_DELAYED;
	case COSHM__RECORD_LEASED:
	case COSHM__RECORD_FINISH:
		return COSHM_TASK_LEASED;
	case COSHM__RECORD_DEAD:
		return COSHM_TASK_DEAD;
	case COSHM__RECORD_BUILD:
	case COSHM__RECORD_CLEAN:
		return COSHM_TASK_OTHER;
	default:
		return 0;
	}
}

/* A task whose time has come waits for a worker, no longer for its time. */
static uint32_t state_at(const struct coshm__record_shm *record, uint64_t word, uint64_t now_us)
{
	uint32_t state = public_state(word);

	/* relaxed: who needs it to be of this life looks at the word again */
	if (state == COSHM_TASK_DELAYED &&
	    coshm__stamp_us(coshm__a64_load_relaxed(&record->due)) <= now_us)
		return COSHM_TASK_READY;
	return state;
}

static uint32_t pid_of(const struct coshm__segment *segment, uint32_t id24)
{
	uint32_t slot = id24 >> 14;
	uint64_t word;

	if (id24 == 0 || slot >= segment->member_count_max)
		return 0;
	/* relaxed: for display */
	word = coshm__a64_load_relaxed(&segment->members[slot].word);
	if ((word >> 2 & 0x3fff) != (id24 & 0x3fff))
		return 0;
	return coshm__a32_load_relaxed(&segment->members[slot].pid);
}

static void attempt_copy(const struct coshm__queue *q, uint32_t index, uint32_t n,
			 struct coshm_task_info *info)
{
	const struct coshm__attempt_shm *attempt = coshm__queue_attempt(q, index, n);
	struct coshm_task_attempt *to = &info->attempt_records[info->attempt_record_count];
	uint64_t status = coshm__a64_load_relaxed(&attempt->status);
	uint64_t text[COSHM__QUEUE_ERROR_BYTES / 8] = {0};

	if ((status >> 4 & 0xfffffff) != (n & 0xfffffff))
		return;
	to->attempt = n;
	to->outcome = status & 0xf;
	to->ended_at_ns = coshm__stamp_us(coshm__a64_load_relaxed(&attempt->ended)) * 1000;
	/* Of a worker that died while it wrote one, the text may be half there. */
	for (unsigned int i = 0; to->outcome == COSHM_ATTEMPT_FAILED && i < sizeof(text) / 8; i++)
		text[i] = coshm__a64_load_relaxed(&attempt->text[i]);
	memcpy(to->error, text, sizeof(to->error));
	to->error[sizeof(to->error) - 1] = '\0';
	info->attempt_record_count++;
}

static void attempts_copy(const struct coshm__queue *q, uint32_t index, uint64_t word,
			  struct coshm_task_info *info)
{
	const struct coshm__record_shm *record = &q->records[index];
	uint64_t attempts = coshm__a64_load_relaxed(&record->attempts);
	uint32_t ended = (uint32_t)attempts;
	uint32_t base = (uint32_t)coshm__a64_load_relaxed(&record->attempts_base);
	int running = info->state == COSHM_TASK_LEASED &&
		      attempts >> 32 != coshm__record_lease_ticket(word);
	uint32_t kept = q->attempt_record_count;

	if (running && kept == COSHM__QUEUE_ATTEMPTS_KEPT)
		kept--;
	info->attempts = ended - base + (uint32_t)running;
	for (uint32_t n = ended > kept ? ended - kept + 1 : 1; n <= ended && n; n++)
		attempt_copy(q, index, n, info);
	if (running)
		info->attempt_records[info->attempt_record_count++] = (struct coshm_task_attempt){
			.attempt = ended + 1, .outcome = COSHM_ATTEMPT_RUNNING};
}

static void info_copy(const struct coshm__segment *segment, const struct coshm__queue *q,
		      uint32_t index, uint64_t word, uint32_t state, struct coshm_task_info *info)
{
	const struct coshm__record_shm *record = &q->records[index];
	uint64_t due = coshm__a64_load_relaxed(&record->due);

	memset(info, 0, sizeof(*info));
	info->state = state;
	info->holder_pid = pid_of(segment, coshm__record_owner(word));
	if (info->state == COSHM_TASK_OTHER)
		return;
	info->id = coshm__task_id(coshm__a64_load_relaxed(&record->sequence), index);
	info->payload_size_bytes = coshm__a32_load_relaxed(&record->payload_size_bytes);
	info->enqueued_at_ns = coshm__a64_load_relaxed(&record->enqueued_at_ns);
	info->max_attempts = coshm__a32_load_relaxed(&record->max_attempts);
	if (coshm__record_state(word) == COSHM__RECORD_DELAYED)
		info->due_at_ns = coshm__stamp_us(due) * 1000;
	if (info->state == COSHM_TASK_LEASED &&
	    coshm__stamp_is_of(due, coshm__record_lease_ticket(word) - 1))
		info->leased_at_ns = coshm__stamp_us(due) * 1000;
	if (info->state != COSHM_TASK_LEASED)
		info->holder_pid = 0;
	attempts_copy(q, index, word, info);
}

/* A private copy of one task. */
struct look {
	struct coshm_task_info info;
	unsigned char *payload;
	uint64_t capacity_bytes;
	int with_payload;
	int has_payload;
};

static int payload_copy(const struct coshm__queue *q, uint32_t index, struct look *look)
{
	uint64_t size_bytes = look->info.payload_size_bytes;

	look->has_payload = 0;
	if (!look->with_payload || look->info.state == COSHM_TASK_OTHER ||
	    size_bytes > q->payload_max_bytes)
		return 0;
	if (!look->payload || size_bytes > look->capacity_bytes) {
		free(look->payload);
		look->capacity_bytes = size_bytes;
		look->payload = malloc(size_bytes + 1);
		if (!look->payload)
			return -ENOMEM;
	}
	look->has_payload = coshm__blocks_load(q, index, look->payload, size_bytes) == 0;
	look->payload[size_bytes] = '\0';
	return 0;
}

/* 1 copied; 0 no task of a wanted state, or one that is on the move; -ENOMEM */
static int look_at(const struct coshm__segment *segment, const struct coshm__queue *q,
		   uint32_t index, uint32_t state_mask, struct look *look)
{
	const struct coshm__record_shm *record = &q->records[index];
	uint64_t now_us = coshm__queue_now_ns(segment) / 1000;

	for (int tries = 0; tries < COPY_TRIES; tries++) {
		uint64_t word = coshm__record_load(record); /* [Q1] */
		uint32_t state = state_at(record, word, now_us);
		int error;

		if (!state || (state_mask && !(state_mask >> state & 1)))
			return 0;
		info_copy(segment, q, index, word, state, &look->info);
		error = payload_copy(q, index, look);
		if (error)
			return error;
		/* The copies before the second look. */
		coshm__acquire_fence();
		if (coshm__a64_load_relaxed(&record->word) == word)
			return 1;
	}
	return 0;
}

int coshm_queue_each(struct coshm_queue *queue, uint32_t state_mask, uint32_t flags,
		     int (*each)(void *context, const struct coshm_task_info *info,
				 const void *payload),
		     void *context)
{
	struct look look = {.with_payload = (flags & COSHM_QUEUE_EACH_PAYLOAD) != 0};
	struct coshm__op op;
	uint32_t index = 0;
	int result = each ? 0 : coshm__fail(-EINVAL, "queue: each is NULL");

	/* The callback runs outside of the operation: it may use the queue, or close it. */
	while (!result) {
		const struct coshm__queue *q;
		int found = 0;

		result = coshm__op_begin_look(&op, queue, COSHM_OBJECT_QUEUE);
		if (result)
			break;
		q = op.handle->local;
		while (!found && index < q->capacity)
			found = look_at(op.segment, q, index++, state_mask, &look);
		if (coshm__look_is_stale(&op))
			found = -ESTALE;
		coshm__op_end(&op);
		if (found == 0)
			break;
		result = found < 0 ? found
				   : each(context, &look.info,
					  look.has_payload ? look.payload : NULL);
	}
	free(look.payload);
	return result;
}

static void count_states(const struct coshm__segment *segment, const struct coshm__queue *q,
			 uint64_t ret_counts[COSHM_TASK_OTHER + 1])
{
	uint64_t now_us = coshm__queue_now_ns(segment) / 1000;

	memset(ret_counts, 0, (COSHM_TASK_OTHER + 1) * sizeof(*ret_counts));
	/* relaxed: each is right for its own moment */
	for (uint32_t index = 0; index < q->capacity; index++) {
		const struct coshm__record_shm *record = &q->records[index];

		ret_counts[state_at(record, coshm__a64_load_relaxed(&record->word), now_us)]++;
	}
}

int coshm_queue_depth(struct coshm_queue *queue, struct coshm_queue_depth *ret_depth)
{
	uint64_t counts[COSHM_TASK_OTHER + 1];
	struct coshm__op op;
	const struct coshm__queue *q;
	int error = ret_depth ? coshm__op_begin_look(&op, queue, COSHM_OBJECT_QUEUE)
			      : coshm__fail(-EINVAL, "queue: ret_depth is NULL");

	if (error)
		return error;
	q = op.handle->local;
	count_states(op.segment, q, counts);
	if (coshm__look_is_stale(&op))
		error = -ESTALE;
	else
		*ret_depth = (struct coshm_queue_depth){
			.ready = counts[COSHM_TASK_READY],
			.delayed = counts[COSHM_TASK_DELAYED],
			.leased = counts[COSHM_TASK_LEASED],
			.dead = counts[COSHM_TASK_DEAD],
			.capacity = q->capacity,
		};
	coshm__op_end(&op);
	return error;
}

uint64_t coshm__queue_gauge(struct coshm__handle *handle, uint32_t index)
{
	uint64_t counts[COSHM_TASK_OTHER + 1];

	count_states(handle->segment, handle->local, counts);
	switch (index) {
	case COSHM__STAT_QUEUE_ready:
		return counts[COSHM_TASK_READY];
	case COSHM__STAT_QUEUE_delayed:
		return counts[COSHM_TASK_DELAYED];
	case COSHM__STAT_QUEUE_leased:
		return counts[COSHM_TASK_LEASED];
	case COSHM__STAT_QUEUE_dead:
		return counts[COSHM_TASK_DEAD];
	}
	return 0;
}

void coshm__queue_holdings(struct coshm__handle *handle, uint32_t member_id,
			   struct coshm_member_info *info)
{
	const struct coshm__queue *q = handle->local;
	uint32_t owner = coshm__id24(member_id);

	for (uint32_t index = 0; index < q->capacity; index++) {
		uint64_t word = coshm__a64_load_relaxed(&q->records[index].word);

		info->leases_held += coshm__record_owner(word) == owner &&
				     public_state(word) == COSHM_TASK_LEASED;
	}
}
