/* SPDX-License-Identifier: MIT */
/*
 * Payloads: the first bytes in the record, the rest in a chain of blocks from the queue's pool.
 *
 * A block's word says which life of which record it belongs to; the chain is only the owner's way to find them. So a
 * member that dies with half a chain leaves nothing that a walk over the words would not find.
 */
#include "modules/queue/queue.h"

#include <errno.h>
#include <string.h>

static uint64_t block_load(const struct coshm__queue *q, uint32_t block)
{
	return coshm__a64_load_acquire(&q->block_words[block]); /* [Q4] acquire, pairs [Q5] */
}

static bool block_cas(struct coshm__queue *q, uint32_t block, uint64_t *expected, uint64_t desired)
{
	/* [Q5] acq_rel, pairs [Q4]; carries that the former user is done with the bytes */
	return coshm__a64_cas_acq_rel(&q->block_words[block], expected, desired);
}

static struct coshm__a64 *block_bytes(const struct coshm__queue *q, uint32_t block)
{
	return (struct coshm__a64 *)(void *)(q->blocks + (uint64_t)block * q->block_size_bytes);
}

/* Word by word and relaxed: somebody may look at it meanwhile, who then notices that the record's word has changed. */
static void words_store(struct coshm__a64 *to, const unsigned char *from, uint64_t size_bytes)
{
	uint64_t word;

	for (; size_bytes >= sizeof(word); size_bytes -= sizeof(word), from += sizeof(word)) {
		memcpy(&word, from, sizeof(word));
		coshm__a64_store_relaxed(to++, word);
	}
	if (size_bytes) {
		word = 0;
		memcpy(&word, from, size_bytes);
		coshm__a64_store_relaxed(to, word);
	}
}

static void words_load(unsigned char *to, const struct coshm__a64 *from, uint64_t size_bytes)
{
	uint64_t word;

	for (; size_bytes >= sizeof(word); size_bytes -= sizeof(word), to += sizeof(word)) {
		word = coshm__a64_load_relaxed(from++);
		memcpy(to, &word, sizeof(word));
	}
	if (size_bytes) {
		word = coshm__a64_load_relaxed(from);
		memcpy(to, &word, size_bytes);
	}
}

uint64_t coshm__blocks_needed(const struct coshm__queue *q, uint64_t size_bytes)
{
	if (size_bytes <= COSHM__QUEUE_INLINE_BYTES)
		return 0;
	return (size_bytes - COSHM__QUEUE_INLINE_BYTES + q->block_size_bytes - 1) /
	       q->block_size_bytes;
}

/* A block for this life of the record. 1, 0: there is none. */
static int block_take(struct coshm__queue *q, uint32_t index, uint32_t build_ticket,
		      uint32_t *ret_block)
{
	uint64_t position;
	uint32_t block;

	while (coshm__hint_ring_peek(&q->block_ring, &position, &block)) {
		uint64_t word;
		int taken = 0;

		if (block < q->block_count) {
			word = block_load(q, block);
			while (coshm__block_state(word) != COSHM__BLOCK_USED && !taken)
				taken = block_cas(
					q, block, &word,
					coshm__block_word(build_ticket, index, COSHM__BLOCK_USED));
			COSHM__CRASH_POINT(QUEUE_BLOCK_TAKEN);
		}
		coshm__hint_ring_advance(&q->block_ring, position);
		if (taken) {
			*ret_block = block;
			return 1;
		}
	}
	return 0;
}

/* FREEPUB of this very word -> FREE with a hint. Anyone may. */
static void block_push(struct coshm__queue *q, uint32_t block, uint64_t word)
{
	if (coshm__hint_ring_push(&q->block_ring, block)) {
		coshm__a32_store_seq_cst(&q->shm->unhinted, 1); /* [Q13] */
		return;
	}
	block_cas(q, block, &word, (word & ~UINT64_C(0xff)) | COSHM__BLOCK_FREE);
	COSHM__CRASH_POINT(QUEUE_BLOCK_FREE);
}

/* From USED or FREEPUB by this life of the record to FREE; else nothing. */
static void block_release(struct coshm__queue *q, uint32_t block, uint32_t index,
			  uint32_t build_ticket)
{
	uint64_t freepub = coshm__block_word(build_ticket, index, COSHM__BLOCK_FREEPUB);
	uint64_t word = coshm__block_word(build_ticket, index, COSHM__BLOCK_USED);

	if (!block_cas(q, block, &word, freepub) && word != freepub)
		return;
	COSHM__CRASH_POINT(QUEUE_BLOCK_FREEPUB);
	block_push(q, block, freepub);
}

void coshm__blocks_free(struct coshm__queue *q, uint32_t index)
{
	struct coshm__record_shm *record = &q->records[index];
	uint32_t build_ticket = coshm__a32_load_relaxed(&record->build_ticket);
	uint32_t next = coshm__a32_load_relaxed(&record->first_block);

	/* Bounded also if the chain is damaged. */
	for (uint32_t n = 0; n < q->block_count && next; n++) {
		uint32_t block = next - 1;

		if (block >= q->block_count)
			return;
		next = coshm__a32_load_relaxed(&q->block_next[block]);
		block_release(q, block, index, build_ticket);
	}
}

static int chain_build(struct coshm__queue *q, uint32_t index, uint32_t build_ticket,
		       const unsigned char *from, uint64_t size_bytes)
{
	struct coshm__a32 *link = &q->records[index].first_block;
	uint32_t block;

	while (size_bytes) {
		uint64_t part = size_bytes < q->block_size_bytes ? size_bytes : q->block_size_bytes;

		if (!block_take(q, index, build_ticket, &block)) {
			coshm__a32_store_relaxed(link, 0);
			return -EAGAIN;
		}
		coshm__record_writes_begin();
		words_store(block_bytes(q, block), from, part);
		coshm__a32_store_relaxed(link, block + 1);
		link = &q->block_next[block];
		coshm__a32_store_relaxed(link, 0);
		from += part;
		size_bytes -= part;
	}
	return 0;
}

int coshm__blocks_store(struct coshm__queue *q, uint32_t index, uint32_t build_ticket,
			const void *payload, uint64_t size_bytes)
{
	struct coshm__record_shm *record = &q->records[index];
	const unsigned char *from = payload;
	uint64_t part =
		size_bytes < COSHM__QUEUE_INLINE_BYTES ? size_bytes : COSHM__QUEUE_INLINE_BYTES;
	int error;

	/* relaxed: published by the record's word */
	coshm__a32_store_relaxed(&record->build_ticket, build_ticket);
	coshm__a32_store_relaxed(&record->first_block, 0);
	words_store(record->payload, from, part);
	if (coshm__likely(size_bytes == part))
		return 0;
	/* A look before anything is taken: the length is never less than what is there. */
	if (coshm__hint_ring_length(&q->block_ring) < coshm__blocks_needed(q, size_bytes))
		return -EAGAIN;
	error = chain_build(q, index, build_ticket, from + part, size_bytes - part);
	if (error)
		coshm__blocks_free(q, index);
	return error;
}

int coshm__blocks_load(const struct coshm__queue *q, uint32_t index, void *buffer,
		       uint64_t size_bytes)
{
	const struct coshm__record_shm *record = &q->records[index];
	uint32_t next = coshm__a32_load_relaxed(&record->first_block);
	unsigned char *to = buffer;
	uint64_t part =
		size_bytes < COSHM__QUEUE_INLINE_BYTES ? size_bytes : COSHM__QUEUE_INLINE_BYTES;

	words_load(to, record->payload, part);
	while (coshm__unlikely(size_bytes -= part)) {
		to += part;
		if (next == 0 || next > q->block_count)
			return -EUCLEAN;
		part = size_bytes < q->block_size_bytes ? size_bytes : q->block_size_bytes;
		words_load(to, block_bytes(q, next - 1), part);
		next = coshm__a32_load_relaxed(&q->block_next[next - 1]);
	}
	return 0;
}

int coshm__blocks_reap(struct coshm__queue *q, uint32_t index, uint32_t build_ticket,
		       uint32_t *position, uint64_t *budget)
{
	for (; *position < q->block_count; (*position)++) {
		uint64_t word;

		if (*budget == 0)
			return 0;
		(*budget)--;
		word = block_load(q, *position);
		if (word >> 32 == build_ticket && coshm__block_record(word) == index &&
		    coshm__block_state(word) != COSHM__BLOCK_FREE)
			block_release(q, *position, index, build_ticket);
	}
	return 1;
}

void coshm__blocks_sweep(struct coshm__queue *q)
{
	for (uint32_t block = 0; block < q->block_count; block++) {
		uint64_t word = block_load(q, block);

		if (coshm__block_state(word) == COSHM__BLOCK_FREEPUB)
			block_push(q, block, word);
	}
}
