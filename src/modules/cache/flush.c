/* SPDX-License-Identifier: MIT */
/*
 * modules/cache/flush.c - forgetting everything by one store
 *
 * Items carry the low 24 bits of the epoch that they were made in; a flush raises the epoch. An item that survived 2^24
 * flushes in the log would come back: so at the latest every 2^22 flushes somebody empties the slots of all that is
 * forgotten, before the epoch goes on.
 */
#include "modules/cache/cache.h"

#include "base/crash.h"

#define SWEEP_EVERY  (UINT64_C(1) << 22)
#define EPOCH_MASK   UINT64_C(0xffffff)
#define ENTRIES_MASK ((UINT64_C(1) << 40) - 1)

static void sweep_slot(struct coshm__op *op, struct coshm__cache *cache, uint64_t epoch,
		       struct coshm__a64 *slot)
{
	struct coshm__cache_kept kept;

	for (int tries = 0; tries < 1000 && coshm__cache_keep_slot(op, cache, slot, &kept);
	     tries++) {
		uint64_t word1;

		memcpy(&word1, kept.item + 8, 8);
		if (((word1 ^ epoch) & 0xffffff) == 0 ||
		    coshm__cache_push_out_kept(op, cache, slot, &kept,
					       COSHM__STAT_CACHE_evicted_flushed))
			break;
	}
	coshm__hazard_clear(op, 2);
}

void coshm__cache_sweep_epoch(struct coshm__op *op, struct coshm__cache *cache, uint64_t epoch)
{
	for (uint64_t b = 0; b < cache->bucket_count; b++)
		for (uint32_t i = 0; i < COSHM__CACHE_BUCKET_SLOTS; i++)
			if (coshm__a64_load_relaxed(&cache->buckets[b].slot[i]))
				sweep_slot(op, cache, epoch, &cache->buckets[b].slot[i]);
}

/*
 * Entries are counted for their epoch, so that a flush is one store for the count, too. A stripe is epoch:24 << 40 |
 * entries of that epoch:40, which may be negative: what one stripe counted may leave by another.
 */
static int entries_next(uint64_t seen, uint64_t epoch, uint64_t add, uint64_t *ret_next)
{
	uint64_t age = (epoch - (seen >> 40)) & EPOCH_MASK;

	*ret_next = (epoch & EPOCH_MASK) << 40 | ((age == 0 ? seen + add : add) & ENTRIES_MASK);
	return age <= EPOCH_MASK / 2; /* else of an epoch before a flush */
}

static void entries_add_shared(struct coshm__a64 *word, uint64_t epoch, uint64_t add)
{
	uint64_t seen = coshm__a64_load_relaxed(word), next;

	/* relaxed: a number that orders nothing */
	while (entries_next(seen, epoch, add, &next) && !coshm__a64_cas_relaxed(word, &seen, next))
		;
}

void coshm__cache_entries_add(struct coshm__op *op, struct coshm__cache *cache, uint64_t word1,
			      uint64_t add)
{
	uint32_t stripe = coshm__stat_stripe(op);
	struct coshm__a64 *word = &cache->counters->value[stripe][COSHM__STAT_CACHE_entries];
	uint64_t next;

	if (coshm__unlikely(stripe >= COSHM__STAT_STRIPES_OWN))
		entries_add_shared(word, word1, add);
	/* relaxed: as above, and this thread is the only writer but for a flush that makes an old stripe young, which is
	 * what this does */
	else if (entries_next(coshm__a64_load_relaxed(word), word1, add, &next))
		coshm__a64_store_relaxed(word, next);
}

uint64_t coshm__cache_entries(const struct coshm__cache *cache)
{
	uint64_t epoch = coshm__a64_load_relaxed(&cache->shm->epoch) & EPOCH_MASK, sum = 0;

	for (uint32_t i = 0; i < COSHM__STAT_STRIPES; i++) {
		uint64_t word = coshm__a64_load_relaxed(
			&cache->counters->value[i][COSHM__STAT_CACHE_entries]);

		if (word >> 40 == epoch)
			sum += word;
	}
	sum &= ENTRIES_MASK;
	return sum > ENTRIES_MASK / 2 ? 0 : sum;
}

int coshm_cache_flush(struct coshm_cache *token)
{
	struct coshm__cache *cache;
	struct coshm__op op;
	uint64_t epoch;
	int error = coshm__op_begin(&op, token, COSHM_OBJECT_CACHE);

	if (error)
		return error;
	cache = op.handle->local;
	coshm__tick(&op, coshm__now_coarse_ns(op.segment));
	epoch = coshm__a64_load_relaxed(&cache->shm->epoch);
	do {
		uint64_t swept = coshm__a64_load_relaxed(&cache->shm->epoch_swept);

		if (epoch - swept >= SWEEP_EVERY) {
			coshm__cache_sweep_epoch(&op, cache, epoch);
			for (uint32_t i = 0; i < COSHM__STAT_STRIPES; i++)
				entries_add_shared(
					&cache->counters->value[i][COSHM__STAT_CACHE_entries],
					epoch, 0);
			/* Only up, and only to an epoch that was swept for. Killed before it: done again. relaxed: the
			 * slots were emptied by seq_cst CAS before, the epoch goes on by one after it. */
			while (swept < epoch &&
			       !coshm__a64_cas_relaxed(&cache->shm->epoch_swept, &swept, epoch))
				;
			COSHM__CRASH_POINT(cache_epoch_swept);
		}
		/* [C14] seq_cst: a get that begins when this has returned loads the new epoch behind its slot */
	} while (!coshm__a64_cas_seq_cst(&cache->shm->epoch, &epoch, epoch + 1));
	COSHM__CRASH_POINT(cache_flushed);
	/* relaxed: pages sealed before it hold only what is forgotten, so they go first. A hint: late or lost, it costs hits */
	coshm__a64_store_relaxed(&cache->shm->flush_seal,
				 coshm__a64_load_relaxed(&cache->shm->seal_sequence));
	coshm__count(&op, cache->counters, COSHM__STAT_CACHE_flushes, 1);
	coshm__op_end(&op);
	return 0;
}
