/* SPDX-License-Identifier: MIT */
/* Record words and their hints: claiming, publishing, freeing, and the sweep for hints that are missing. */
#include "modules/queue/queue.h"

#define SWEEP_INTERVAL_NS	(1000 * COSHM__NS_PER_MS)
#define SWEEP_INTERVAL_LEAST_NS (10 * COSHM__NS_PER_MS)

struct coshm__a64 coshm__queue_test_now_ns;

int coshm__queue_claim(struct coshm__queue *q, struct coshm__hint_ring *ring, uint64_t takeable,
		       uint32_t owner, uint32_t state, uint32_t *ret_index, uint64_t *ret_word)
{
	uint64_t position;
	uint32_t index;

	while (coshm__hint_ring_peek(ring, &position, &index)) {
		struct coshm__record_shm *record = &q->records[index];
		uint64_t next, word = 0;

		if (coshm__likely(index < q->capacity)) {
			word = coshm__record_load(record);
			/* A lost CAS may only mean that the owner went from PUBLISH to READY. */
			while (takeable >> coshm__record_state(word) & 1) {
				next = coshm__record_next(word, owner, state);
				if (!coshm__record_cas(record, &word, next))
					continue;
				COSHM__CRASH_POINT(QUEUE_CLAIMED);
				coshm__hint_ring_advance(ring, position);
				*ret_index = index;
				*ret_word = next;
				return 1;
			}
		}
		coshm__hint_ring_advance(ring, position);
	}
	return 0;
}

/* The ring is full of duplicates: leave the state without an owner for a sweep. */
static void park(struct coshm__queue *q, uint32_t index, uint64_t word)
{
	if (coshm__record_owner(word) != 0)
		coshm__record_cas(&q->records[index], &word,
				  coshm__record_next(word, 0, coshm__record_state(word)));
	COSHM__CRASH_POINT(QUEUE_PARKED);
	coshm__a32_store_seq_cst(&q->shm->unhinted, 1); /* [Q13] seq_cst, pairs [Q14] */
}

void coshm__queue_publish(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			  uint64_t word)
{
	if (coshm__likely(coshm__hint_ring_push(&q->ready, index) == 0)) {
		/* Lost if somebody has taken the task already, or helped. */
		coshm__record_cas(&q->records[index], &word,
				  coshm__record_next(word, 0, COSHM__RECORD_READY));
		COSHM__CRASH_POINT(QUEUE_READY);
	} else {
		park(q, index, word);
	}
	coshm__queue_wake(op, q);
}

void coshm__queue_free(struct coshm__queue *q, uint32_t index, uint64_t word)
{
	if (coshm__likely(coshm__hint_ring_push(&q->free, index) == 0)) {
		coshm__record_cas(&q->records[index], &word,
				  coshm__record_next(word, 0, COSHM__RECORD_FREE));
		COSHM__CRASH_POINT(QUEUE_FREE);
	} else {
		park(q, index, word);
	}
}

/*
 * PUBLISH and FREEPUB without an owner get their hints here, and so do those of members that are stopped in the middle
 * of the step. Of one that is only slow it makes a duplicate, which is legal.
 */
void coshm__queue_sweep(struct coshm__op *op, struct coshm__queue *q, uint64_t now_ns)
{
	/* relaxed: they only say when to look; what is found is judged by its own word */
	uint64_t next_ns = coshm__a64_load_relaxed(&q->shm->next_sweep_at_ns);
	uint64_t left_ns = next_ns - now_ns;

	/* A time farther ahead than anyone sets it, from a damaged word, is due as well. */
	if (now_ns < next_ns && left_ns <= SWEEP_INTERVAL_NS &&
	    (!coshm__a32_load_relaxed(&q->shm->unhinted) ||
	     left_ns > SWEEP_INTERVAL_NS - SWEEP_INTERVAL_LEAST_NS))
		return;
	if (!coshm__a64_cas_relaxed(&q->shm->next_sweep_at_ns, &next_ns,
				    now_ns + SWEEP_INTERVAL_NS))
		return;
	COSHM__CRASH_POINT(QUEUE_SWEEPING);
	/* [Q14] seq_cst, pairs [Q13]; what is parked after this sets it again */
	coshm__a32_exchange_seq_cst(&q->shm->unhinted, 0);
	for (uint32_t index = 0; index < q->capacity; index++) {
		uint64_t word = coshm__record_load(&q->records[index]);

		if (coshm__record_state(word) == COSHM__RECORD_PUBLISH)
			coshm__queue_publish(op, q, index, word);
		else if (coshm__record_state(word) == COSHM__RECORD_FREEPUB)
			coshm__queue_free(q, index, word);
	}
	coshm__blocks_sweep(q);
}
