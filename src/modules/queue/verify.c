/* SPDX-License-Identifier: MIT */
/*
 * The invariants of queue_shm.h as code. Works beside members that go on: a finding about a record is only reported if
 * its word was the same before and after everything that the finding rests on.
 */
#include "modules/queue/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DAMAGE	   COSHM_VERIFY_DAMAGE
#define PENDING	   COSHM_VERIFY_PENDING
#define RING_LOOKS 3 /* before a missing hint is called damage */
#define HAS_OWNER                                                                              \
	(1u << COSHM__RECORD_BUILD | 1u << COSHM__RECORD_LEASED | 1u << COSHM__RECORD_FINISH | \
	 1u << COSHM__RECORD_CLEAN)
#define MAY_HAVE_OWNER (HAS_OWNER | 1u << COSHM__RECORD_PUBLISH | 1u << COSHM__RECORD_FREEPUB)
/* States in which fields, payload and chain are complete and do not change. */
#define IS_WHOLE                                                                                \
	(1u << COSHM__RECORD_PUBLISH | 1u << COSHM__RECORD_READY | 1u << COSHM__RECORD_LEASED | \
	 1u << COSHM__RECORD_FINISH | 1u << COSHM__RECORD_DELAYED | 1u << COSHM__RECORD_DEAD)

struct check {
	const struct coshm__queue *q;
	struct coshm__segment *segment;
	struct coshm__findings *findings;
	uint64_t *words;      /* of the records, as they were when their chains were walked */
	uint32_t *users;      /* per block: the record + 1 in whose chain it was found */
	uint64_t *before;     /* words of records or blocks, as they were before a look at a ring */
	unsigned char *hints; /* of that ring */
};

static int in(uint32_t mask, uint64_t word)
{
	return (int)(mask >> coshm__record_state(word) & 1);
}

/* Is the record's word still this, after all loads before? */
static int is_still(const struct check *c, uint32_t index, uint64_t word)
{
	coshm__acquire_fence(); /* the loads before come before this one */
	return coshm__a64_load_relaxed(&c->q->records[index].word) == word;
}

/* --- rings ------------------------------------------------------------------------------------------------------ */

/* Marks what has a hint. */
static void ring_mark(struct check *c, const struct coshm__hint_ring *ring, uint32_t record_count,
		      unsigned char *hints, const char *where)
{
	uint64_t position, end;
	uint32_t index;

	memset(hints, 0, record_count);
	if (coshm__hint_ring_positions(ring, &position, &end)) {
		if (where)
			coshm__finding(c->findings, DAMAGE, where,
				       "head and tail do not belong together");
		return;
	}
	for (; position < end; position++) {
		if (!coshm__hint_ring_at(ring, position, &index))
			continue;
		if (index < record_count)
			hints[index] = 1;
		else if (where)
			coshm__finding(c->findings, DAMAGE, where, "a hint names record %u of %u",
				       index, record_count);
	}
}

static void rest(void)
{
	const struct timespec one_ms = {.tv_nsec = (long)COSHM__NS_PER_MS};

	nanosleep(&one_ms, NULL);
}

/* Records, or blocks, and the ring that must point at those in one state. Their words lie @stride_bytes apart. */
struct hinted {
	const struct coshm__hint_ring *ring;
	const void *words;
	size_t stride_bytes;
	uint32_t count;
	uint32_t state_mask; /* of a word */
	uint32_t state;
	const char *ring_name, *where, *what, *state_name;
};

static uint64_t hinted_word(const struct hinted *hinted, uint32_t index)
{
	const unsigned char *words = hinted->words;
	const struct coshm__a64 *word = (const void *)(words + index * hinted->stride_bytes);

	return coshm__a64_load_acquire(word); /* [Q1], [Q4] */
}

static int is_hintless(const struct check *c, const struct hinted *hinted, uint32_t index)
{
	return (c->before[index] & hinted->state_mask) == hinted->state && !c->hints[index] &&
	       hinted_word(hinted, index) == c->before[index];
}

/*
 * Those without a hint? While a word does not change its hint cannot go, so one look at the ring between two looks at the
 * words is enough; more looks are for those who come later to this code.
 */
static void hints_check(struct check *c, const struct hinted *hinted)
{
	for (int look = 0; look < RING_LOOKS; look++) {
		uint32_t missing = 0;

		if (look)
			rest();
		for (uint32_t index = 0; index < hinted->count; index++)
			c->before[index] = hinted_word(hinted, index);
		ring_mark(c, hinted->ring, hinted->count, c->hints,
			  look ? NULL : hinted->ring_name);
		for (uint32_t index = 0; index < hinted->count; index++) {
			if (!is_hintless(c, hinted, index))
				continue;
			missing++;
			if (look + 1 == RING_LOOKS)
				coshm__finding(c->findings, DAMAGE, hinted->where,
					       "%s %u is %s, but nothing points at it",
					       hinted->what, index, hinted->state_name);
		}
		if (!missing)
			break;
	}
}

/* --- records ---------------------------------------------------------------------------------------------------- */

/* What is wrong with the chain? NULL: nothing. Marks its blocks as used. */
static const char *chain_check(struct check *c, uint32_t index)
{
	const struct coshm__queue *q = c->q;
	const struct coshm__record_shm *record = &q->records[index];
	uint64_t size_bytes = coshm__a32_load_relaxed(&record->payload_size_bytes);
	uint64_t needed = coshm__blocks_needed(q, size_bytes);
	uint64_t used = coshm__block_word(coshm__a32_load_relaxed(&record->build_ticket), index,
					  COSHM__BLOCK_USED);
	uint32_t next = coshm__a32_load_relaxed(&record->first_block);

	if (size_bytes > q->payload_max_bytes)
		return "payload longer than allowed";
	for (; needed; needed--) {
		if (next == 0 || next > q->block_count)
			return "its chain of blocks is broken";
		/* relaxed: judged by the record's word, which comes after */
		if (coshm__a64_load_relaxed(&q->block_words[next - 1]) != used)
			return "a block of its chain is not its own";
		if (c->users[next - 1] == index + 1)
			return "its chain of blocks has a loop";
		c->users[next - 1] = index + 1;
		next = coshm__a32_load_relaxed(&q->block_next[next - 1]);
	}
	return next ? "its chain of blocks is too long" : NULL;
}

static void whole_check(struct check *c, uint32_t index, uint64_t word)
{
	const struct coshm__record_shm *record = &c->q->records[index];
	const char *text = chain_check(c, index);

	if (!text && coshm__a64_load_relaxed(&record->sequence) == 0)
		text = "it has no id";
	if (!text && coshm__a32_load_relaxed(&record->max_attempts) == 0)
		text = "it allows no attempt";
	if (text && is_still(c, index, word))
		coshm__finding(c->findings, DAMAGE, "queue/records", "record %u: %s", index, text);
}

static void due_check(struct check *c, uint32_t index, uint64_t word)
{
	uint64_t us = coshm__stamp_us(coshm__a64_load_relaxed(&c->q->records[index].due));
	uint64_t group = coshm__a64_load_relaxed(&c->q->due_min[index / COSHM__QUEUE_GROUP]);
	uint64_t top = coshm__a64_load_relaxed(&c->q->shm->due_top);

	if ((coshm__bound_us(group) > us || coshm__bound_us(top) > us) && is_still(c, index, word))
		coshm__finding(c->findings, DAMAGE, "queue/due",
			       "record %u is due before what its bounds say", index);
}

/* What its owner was doing. */
static const char *state_text(uint32_t state)
{
	switch (state) {
	case COSHM__RECORD_BUILD:
		return "a task was being enqueued";
	case COSHM__RECORD_PUBLISH:
		return "a task was about to become ready";
	case COSHM__RECORD_LEASED:
		return "its worker had the task";
	case COSHM__RECORD_FINISH:
		return "its worker was saying how the task ended";
	case COSHM__RECORD_CLEAN:
		return "a task was being deleted";
	case COSHM__RECORD_FREEPUB:
		return "a place was about to become free";
	default:
		return "unknown";
	}
}

static void owner_check(struct check *c, uint32_t index, uint64_t word)
{
	uint32_t owner = coshm__record_owner(word);

	if (owner == 0) {
		coshm__finding(c->findings, PENDING, "queue/rings",
			       "record %u waits for a hint: the ring was full", index);
		return;
	}
	if (coshm__member_is_dead24(c->segment, owner) && is_still(c, index, word))
		coshm__finding(c->findings, PENDING, "queue/records",
			       "record %u belongs to a dead member: %s", index,
			       state_text(coshm__record_state(word)));
}

static void record_check(struct check *c, uint32_t index)
{
	uint64_t word = coshm__record_load(&c->q->records[index]); /* [Q1] */
	uint32_t state = coshm__record_state(word), flags = coshm__record_flags(word);

	c->words[index] = word;
	if (state >= COSHM__RECORD_STATE_COUNT || (flags & ~COSHM__RECORD_DUE) ||
	    (flags && state != COSHM__RECORD_BUILD && state != COSHM__RECORD_FINISH) ||
	    (in(HAS_OWNER, word) && !coshm__record_owner(word)) ||
	    (!in(MAY_HAVE_OWNER, word) && coshm__record_owner(word))) {
		coshm__finding(c->findings, DAMAGE, "queue/records",
			       "record %u has the impossible word %llx", index,
			       (unsigned long long)word);
		return;
	}
	if (in(MAY_HAVE_OWNER, word))
		owner_check(c, index, word);
	if (in(IS_WHOLE, word))
		whole_check(c, index, word);
	if (state == COSHM__RECORD_DELAYED)
		due_check(c, index, word);
}

/* --- blocks ----------------------------------------------------------------------------------------------------- */

/* In USED or FREEPUB: does the record that it names still live the life that it names? */
static void block_user_check(struct check *c, uint32_t block, uint64_t word)
{
	uint32_t index = coshm__block_record(word), ticket = (uint32_t)(word >> 32);
	const struct coshm__record_shm *record = &c->q->records[index];
	uint64_t now = coshm__record_load(record); /* [Q1] */
	int same_life = coshm__record_state(now) == COSHM__RECORD_BUILD
				? coshm__record_ticket(now) == ticket
				: coshm__a32_load_relaxed(&record->build_ticket) == ticket;
	int in_use = same_life && in(IS_WHOLE | HAS_OWNER, now);
	int listed = c->users[block] == index + 1;

	if (coshm__block_state(word) == COSHM__BLOCK_FREEPUB) {
		if (!in_use)
			coshm__finding(c->findings, PENDING, "queue/blocks",
				       "block %u waits for a hint", block);
		return;
	}
	/* Being built or cleaned: not all need to be in the chain. Changed since the walk over the chains: not judged. */
	if (in_use && (!in(IS_WHOLE, now) || listed || now != c->words[index]))
		return;
	if (is_still(c, index, now) && coshm__a64_load_relaxed(&c->q->block_words[block]) == word)
		coshm__finding(c->findings, DAMAGE, "queue/blocks",
			       "block %u is kept for record %u, which does not use it", block,
			       index);
}

static void block_check(struct check *c, uint32_t block)
{
	const struct coshm__queue *q = c->q;
	uint64_t word = coshm__a64_load_acquire(&q->block_words[block]); /* [Q4] */
	uint32_t state = coshm__block_state(word);

	if (state >= COSHM__BLOCK_STATE_COUNT || coshm__block_record(word) >= q->capacity)
		coshm__finding(c->findings, DAMAGE, "queue/blocks",
			       "block %u has the impossible word %llx", block,
			       (unsigned long long)word);
	else if (state != COSHM__BLOCK_FREE)
		block_user_check(c, block, word);
}

void coshm__queue_verify(struct coshm__handle *handle, struct coshm__findings *findings)
{
	const struct coshm__queue *q = handle->local;
	struct check c = {.q = q, .segment = handle->segment, .findings = findings};
	size_t n = q->capacity, blocks = q->block_count, most = n > blocks ? n : blocks;
	unsigned char *memory = calloc(1, n * 8 + most * 8 + blocks * 4 + most);
	struct hinted hinted = {
		.words = &q->records[0].word,
		.stride_bytes = sizeof(q->records[0]),
		.count = q->capacity,
		.state_mask = 0xf,
		.where = "queue/rings",
		.what = "record",
	};

	if (!memory) {
		findings->error = -ENOMEM;
		return;
	}
	c.words = (void *)memory;
	c.before = (void *)(memory + n * 8);
	c.users = (void *)(memory + n * 8 + most * 8);
	c.hints = memory + n * 8 + most * 8 + blocks * 4;
	for (uint32_t index = 0; index < n; index++)
		record_check(&c, index);
	hinted.ring = &q->free;
	hinted.ring_name = "queue/free ring";
	hinted.state = COSHM__RECORD_FREE;
	hinted.state_name = "free";
	hints_check(&c, &hinted);
	hinted.ring = &q->ready;
	hinted.ring_name = "queue/ready ring";
	hinted.state = COSHM__RECORD_READY;
	hinted.state_name = "ready";
	hints_check(&c, &hinted);
	for (uint32_t block = 0; block < blocks; block++)
		block_check(&c, block);
	if (blocks)
		hints_check(&c, &(struct hinted){
					.ring = &q->block_ring,
					.words = q->block_words,
					.stride_bytes = sizeof(q->block_words[0]),
					.count = q->block_count,
					.state_mask = 0xff,
					.state = COSHM__BLOCK_FREE,
					.ring_name = "queue/block ring",
					.where = "queue/blocks",
					.what = "block",
					.state_name = "free",
				});
	free(memory);
}
