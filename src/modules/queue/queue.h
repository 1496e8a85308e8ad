/* SPDX-License-Identifier: MIT */
/*
 * modules/queue/queue.h - the task queue, process-local side
 *
 * Files     create.c configuration and layout, type.c the object type, record.c words and their hints, blocks.c large
 *           payloads, delay.c due times, event.c sleep and wake, enqueue.c, reserve.c, finish.c ends of leases, dead.c
 *           dead letters, reap.c what the dead left, inspect.c, verify.c, worker.c. Protocol: docs/design/queue.md.
 */
#ifndef COSHM__MODULES_QUEUE_QUEUE_H
#define COSHM__MODULES_QUEUE_QUEUE_H

#include "base/crash.h"
#include "modules/queue/queue_shm.h"
#include "segment/member.h"
#include "segment/object.h"
#include "stats/stats.h"
#include "structs/hint_ring.h"

#include <coshm/queue.h>

extern const struct coshm__object_type coshm__queue_type;

/* Where the parts of a queue's memory begin, and how long it is. */
struct coshm__queue_layout {
	uint64_t counters, free_ring, ready_ring, block_ring, due_min, block_words, block_next;
	uint64_t attempts, records, blocks;
	uint64_t size_bytes;
};

/* handle->local. Const, but for what is marked. */
struct coshm__queue {
	struct coshm__queue_shm *shm;
	struct coshm__counters_shm *counters;
	struct coshm__record_shm *records;
	struct coshm__attempt_shm *attempts;
	struct coshm__a64 *due_min;
	struct coshm__a64 *block_words;
	struct coshm__a32 *block_next; /* block + 1; 0: the last */
	unsigned char *blocks;

	uint32_t capacity;
	uint32_t group_count;
	uint32_t block_count;
	uint32_t block_size_bytes;
	uint32_t attempt_record_count;
	uint32_t max_attempts;
	uint64_t payload_max_bytes;
	uint64_t backoff_base_ns;
	uint64_t backoff_max_ns;
	uint32_t backoff_kind;
	uint32_t backoff_jitter_percent;
	uint64_t spin_ns; /* before sleeping; 0 on one CPU */

	uint8_t padding0[64];
	struct coshm__hint_ring free; /* with copies of heads: any thread */
	uint8_t padding1[64];
	struct coshm__hint_ring ready;
	uint8_t padding2[64];
	struct coshm__hint_ring block_ring;
	uint8_t padding3[64];
	struct coshm__a32 turn;	     /* ready or due first: any thread */
	struct coshm__a32 due_group; /* where a due task was found last: any thread */
};

/* --- record words --------------------------------------------------------------------------------------------- */

static inline uint64_t coshm__record_word(uint32_t ticket, uint32_t owner, uint32_t state)
{
	return (uint64_t)ticket << 32 | (uint64_t)owner << 8 | state;
}

static inline uint32_t coshm__record_state(uint64_t word)
{
	return (uint32_t)word & 0xf;
}

static inline uint32_t coshm__record_flags(uint64_t word)
{
	return (uint32_t)word >> 4 & 0xf;
}

static inline uint32_t coshm__record_owner(uint64_t word)
{
	return (uint32_t)word >> 8;
}

static inline uint32_t coshm__record_ticket(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

/* The word after a transition: the next ticket, no flags. */
static inline uint64_t coshm__record_next(uint64_t word, uint32_t owner, uint32_t state)
{
	return coshm__record_word(coshm__record_ticket(word) + 1, owner, state);
}

static inline uint64_t coshm__record_due_flag(uint64_t word)
{
	return word | COSHM__RECORD_DUE << 4;
}

/* The ticket of the LEASED word that FINISH came from, or of LEASED itself. */
static inline uint32_t coshm__record_lease_ticket(uint64_t word)
{
	return coshm__record_ticket(word) - (coshm__record_state(word) == COSHM__RECORD_FINISH);
}

static inline uint64_t coshm__record_load(const struct coshm__record_shm *record)
{
	return coshm__a64_load_acquire(
		&record->word); /* [Q1] acquire, pairs [Q2], [Q3]; carries the record */
}

static inline bool coshm__record_cas(struct coshm__record_shm *record, uint64_t *expected,
				     uint64_t desired)
{
	/* [Q2] acq_rel, pairs [Q1]; carries what the former owner wrote and read, and what we did */
	return coshm__a64_cas_acq_rel(&record->word, expected, desired);
}

/* For the living owner of BUILD, FINISH or CLEAN: nobody else may change the word. */
static inline void coshm__record_store(struct coshm__record_shm *record, uint64_t word)
{
	coshm__a64_store_release(&record->word, word); /* [Q3] release, pairs [Q1] */
}

/*
 * After a claim, before the first plain store: whoever copies the record without owning it (a look, a reaper) and sees
 * any of the stores also sees that the word has changed.
 */
static inline void coshm__record_writes_begin(void)
{
	coshm__release_fence(); /* pairs the acquire fence before the second look at a word */
}

static inline uint64_t coshm__task_id(uint64_t sequence, uint32_t index)
{
	return sequence << 16 | index;
}

/* --- packed times: { ticket:16 | us:48 }, and bounds { us:48 | version:16 } -------------------------------------- */

#define COSHM__TAKEABLE_READY (1u << COSHM__RECORD_READY | 1u << COSHM__RECORD_PUBLISH)
#define COSHM__TAKEABLE_FREE  (1u << COSHM__RECORD_FREE | 1u << COSHM__RECORD_FREEPUB)

#define COSHM__DUE_NONE ((UINT64_C(1) << 48) - 1) /* some nine years after boot */

static inline uint64_t coshm__stamp(uint32_t ticket, uint64_t us)
{
	return (uint64_t)ticket << 48 | (us < COSHM__DUE_NONE ? us : COSHM__DUE_NONE - 1);
}

static inline uint64_t coshm__stamp_us(uint64_t stamp)
{
	return stamp & COSHM__DUE_NONE;
}

static inline int coshm__stamp_is_of(uint64_t stamp, uint32_t ticket)
{
	return stamp >> 48 == (ticket & 0xffff);
}

static inline uint64_t coshm__bound_us(uint64_t bound)
{
	return bound >> 16;
}

/* --- time ------------------------------------------------------------------------------------------------------- */

/* Tests: what the queue takes for now; 0: the real time. */
extern struct coshm__a64 coshm__queue_test_now_ns;

static inline uint64_t coshm__queue_now_ns(const struct coshm__segment *segment)
{
	/* relaxed: set before, by the test's own thread */
	uint64_t test_now_ns = coshm__a64_load_relaxed(&coshm__queue_test_now_ns);

	return coshm__unlikely(test_now_ns) ? test_now_ns : coshm__now_ns(segment);
}

static inline uint64_t coshm__queue_now_coarse_ns(const struct coshm__segment *segment)
{
	/* relaxed: as above */
	uint64_t test_now_ns = coshm__a64_load_relaxed(&coshm__queue_test_now_ns);

	return coshm__unlikely(test_now_ns) ? test_now_ns : coshm__now_coarse_ns(segment);
}

/* --- create.c --------------------------------------------------------------------------------------------------- */

void coshm__queue_layout(const struct coshm__queue_shm *shm,
			 struct coshm__queue_layout *ret_layout);
/* [ro] Are the const fields of the header possible? */
int coshm__queue_check(const struct coshm__queue_shm *shm);

/* --- record.c --------------------------------------------------------------------------------------------------- */

static inline struct coshm__attempt_shm *coshm__queue_attempt(const struct coshm__queue *q,
							      uint32_t index, uint32_t attempt)
{
	return &q->attempts[(uint64_t)index * q->attempt_record_count +
			    attempt % q->attempt_record_count];
}

/*
 * Claims the first record behind a hint of @ring whose state is in the mask @takeable. 1, 0: there is none.
 */
int coshm__queue_claim(struct coshm__queue *q, struct coshm__hint_ring *ring, uint64_t takeable,
		       uint32_t owner, uint32_t state, uint32_t *ret_index, uint64_t *ret_word);

/* PUBLISH -> READY with a hint, and wake; FREEPUB -> FREE with a hint. Anyone may, at any time. */
void coshm__queue_publish(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			  uint64_t word);
void coshm__queue_free(struct coshm__queue *q, uint32_t index, uint64_t word);

/* Hints for everything that lacks one. Costs a walk; does it when something is known to lack one, or once a second. */
void coshm__queue_sweep(struct coshm__op *op, struct coshm__queue *q, uint64_t now_ns);

/* --- blocks.c --------------------------------------------------------------------------------------------------- */

/* In BUILD. Stores the payload; 0, or -EAGAIN: no room, and nothing is taken. */
int coshm__blocks_store(struct coshm__queue *q, uint32_t index, uint32_t build_ticket,
			const void *payload, uint64_t size_bytes);
/* [ro] Copies the payload. The caller checks the record word afterwards. 0, -EUCLEAN: the chain is broken. */
int coshm__blocks_load(const struct coshm__queue *q, uint32_t index, void *buffer,
		       uint64_t size_bytes);
/* In CLEAN: gives the record's chain back. */
void coshm__blocks_free(struct coshm__queue *q, uint32_t index);
/* For reapers: frees what belongs to this life of the record, looking at blocks from *position on. 1 done, 0 budget spent. */
int coshm__blocks_reap(struct coshm__queue *q, uint32_t index, uint32_t build_ticket,
		       uint32_t *position, uint64_t *budget);
void coshm__blocks_sweep(struct coshm__queue *q);
/* How many blocks does a payload need? */
uint64_t coshm__blocks_needed(const struct coshm__queue *q, uint64_t size_bytes);

static inline uint64_t coshm__block_word(uint32_t build_ticket, uint32_t index, uint32_t state)
{
	return (uint64_t)build_ticket << 32 | (uint64_t)index << 8 | state;
}

static inline uint32_t coshm__block_state(uint64_t word)
{
	return (uint32_t)word & 0xff;
}

static inline uint32_t coshm__block_record(uint64_t word)
{
	return (uint32_t)word >> 8;
}

/* --- delay.c ---------------------------------------------------------------------------------------------------- */

/* The delay before the next try of a task that failed @attempts times. */
uint64_t coshm__queue_backoff_ns(const struct coshm__segment *segment, const struct coshm__queue *q,
				 uint64_t id, uint32_t attempts);
uint64_t coshm__due_us(uint64_t now_ns, uint64_t delay_ns);
/* From BUILD, FINISH, or LEASED of a dead owner, with the due word set, to DELAYED. Any number of processes may. */
void coshm__queue_delay(struct coshm__op *op, struct coshm__queue *q, uint32_t index, uint64_t word,
			uint64_t now_ns);
/* Leases a task that is due. 1, 0 none. */
int coshm__queue_claim_due(struct coshm__queue *q, uint32_t owner, uint64_t now_ns,
			   uint32_t *ret_index, uint64_t *ret_word);

/* When the next delayed task is due, at the earliest; UINT64_MAX: there is none. */
static inline uint64_t coshm__queue_next_due_ns(const struct coshm__queue *q)
{
	/* [Q7] seq_cst, pairs [Q8]; carries the groups' bounds; a sleeper's half of a Dekker handshake */
	uint64_t us = coshm__bound_us(coshm__a64_load_seq_cst(&q->shm->due_top));

	return us == COSHM__DUE_NONE ? UINT64_MAX : us * 1000;
}

/* --- event.c ---------------------------------------------------------------------------------------------------- */

void coshm__queue_wake_one(struct coshm__op *op, struct coshm__queue *q);
void coshm__queue_wake_all(struct coshm__queue *q);

/* After something became takeable. */
static inline void coshm__queue_wake(struct coshm__op *op, struct coshm__queue *q)
{
	/* [Q11] seq_cst, pairs [Q12]; after the push or the bound: either this sees the sleeper or it sees the task */
	if (coshm__unlikely(coshm__a32_load_seq_cst(&q->shm->event) & COSHM__EVENT_SLEEPERS))
		coshm__queue_wake_one(op, q);
}

/* --- reserve.c -------------------------------------------------------------------------------------------------- */

/*
 * coshm_queue_reserve that also gives up, with 0, within a tick of *@stop_count becoming other than @stop_seen.
 * @stop_count may be NULL.
 */
int coshm__queue_reserve(struct coshm_queue *token, uint64_t timeout_ns,
			 const struct coshm__a32 *stop_count, uint32_t stop_seen,
			 struct coshm_task *ret_task);

/*
 * 1 once this process has leased a task of the object, whatever the handle: only then does a clean detach have to look
 * for leases to give back. By index of segment and entry.
 */
extern struct coshm__a32 coshm__queue_leased_here[COSHM__SEGMENTS_MAX][COSHM__ENTRY_COUNT];

/* --- finish.c --------------------------------------------------------------------------------------------------- */

/* From CLEAN or FREEPUB of this process on: blocks, hint, FREE. */
void coshm__queue_clean(struct coshm__queue *q, uint32_t index, uint64_t word);
/* Back to READY; 0, or -ESTALE: @word is not there any more. */
int coshm__queue_release_lease(struct coshm__op *op, struct coshm__queue *q, uint32_t index,
			       uint64_t word);

/* --- reap.c, inspect.c, verify.c: see segment/object.h ------------------------------------------------------------ */

int coshm__queue_reap(struct coshm__op *op, struct coshm__handle *handle, uint32_t dead_id,
		      uint64_t *cursor, uint64_t budget);
void coshm__queue_holdings(struct coshm__handle *handle, uint32_t member_id,
			   struct coshm_member_info *info);
uint64_t coshm__queue_gauge(struct coshm__handle *handle, uint32_t index);
void coshm__queue_verify(struct coshm__handle *handle, struct coshm__findings *findings);

#endif
