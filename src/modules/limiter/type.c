/* SPDX-License-Identifier: MIT */
/*
 * A limiter as an object of a segment: attaching, counting, verifying.
 *
 * There is nothing to reap and no lock to recover: no word names a member, and config_lock guards a record that counts
 * only once it is complete.
 */
#include "modules/limiter/limiter.h"

#include <stdlib.h>

static int attach(struct coshm__handle *handle)
{
	const struct coshm__limiter_shm *shm = handle->object;
	struct coshm__limiter *limiter;
	struct coshm__gcra gcra;
	uint64_t bucket_count;

	if (handle->size_bytes < sizeof(*shm))
		return -EUCLEAN;
	bucket_count = shm->bucket_count;
	if (bucket_count < 2 || bucket_count > UINT32_MAX ||
	    bucket_count > (handle->size_bytes - sizeof(*shm)) /
				   sizeof(struct coshm__limiter_bucket_shm) ||
	    coshm__limiter_config_load(shm, &gcra))
		return -EUCLEAN;
	limiter = malloc(sizeof(*limiter));
	if (!limiter)
		return -ENOMEM;
	limiter->shm = handle->object;
	limiter->buckets = limiter->shm->buckets;
	limiter->bucket_count = bucket_count;
	limiter->secret[0] = handle->segment->header->fingerprint_secret[0];
	limiter->secret[1] = handle->segment->header->fingerprint_secret[1];
	handle->local = limiter;
	return 0;
}

static void detach(struct coshm__handle *handle)
{
	free(handle->local);
	handle->local = NULL;
}

static void holdings(struct coshm__handle *handle, uint32_t member_id,
		     struct coshm_member_info *info)
{
	(void)handle;
	(void)member_id;
	(void)info;
}

static struct coshm__counters_shm *counters(struct coshm__handle *handle)
{
	struct coshm__limiter *limiter = handle->local;

	return &limiter->shm->counters;
}

static uint64_t keys_with_debt(const struct coshm__limiter *limiter,
			       const struct coshm__segment *segment)
{
	uint64_t now = coshm__gcra_ticks(coshm__now_ns(segment)), count = 0;
	struct coshm__gcra gcra;

	if (coshm__limiter_config_load(limiter->shm, &gcra))
		return 0;
	for (uint64_t b = 0; b < limiter->bucket_count; b++)
		for (unsigned int i = 0; i < COSHM__LIMITER_SLOTS; i++) {
			/* relaxed, both: a number for people */
			uint64_t tat = coshm__a64_load_relaxed(&limiter->buckets[b].tat[i]);
			uint64_t word = coshm__a64_load_relaxed(&limiter->buckets[b].key[i]);

			count += !coshm__limiter_is_claim(tat) &&
				 coshm__limiter_fingerprint_of(word) && (int64_t)(tat - now) > 0 &&
				 coshm__gcra_is_old_debt(&gcra, tat, now);
		}
	return count;
}

static uint64_t gauge(struct coshm__handle *handle, uint32_t index)
{
	return index == COSHM__STAT_LIMITER_keys ? keys_with_debt(handle->local, handle->segment)
						 : 0;
}

/* --- verify ------------------------------------------------------------------------------------------------- */

struct place {
	uint64_t bucket;
	unsigned int i;
	uint64_t tat;
	uint64_t word;
};

static struct place place_read(const struct coshm__limiter *limiter, uint64_t bucket,
			       unsigned int i)
{
	struct coshm__limiter_bucket_shm *b = &limiter->buckets[bucket];
	struct place place = {.bucket = bucket, .i = i};

	/* A pair that was there at one moment, unless the slot never stands still. */
	for (int tries = 0; tries < 16; tries++) {
		place.tat = coshm__a64_load_acquire(&b->tat[i]);  /* [LM1] */
		place.word = coshm__a64_load_acquire(&b->key[i]); /* [LM3] */
		/* [LM1] */
		if (coshm__a64_load_acquire(&b->tat[i]) == place.tat)
			break;
	}
	return place;
}

static bool is_open(const struct place *place)
{
	return !coshm__limiter_is_claim(place->tat) && coshm__limiter_fingerprint_of(place->word);
}

/* Same life, and still open. */
static bool stayed_open(const struct coshm__limiter *limiter, const struct place *place)
{
	struct place again = place_read(limiter, place->bucket, place->i);

	return is_open(&again) && again.word == place->word;
}

static void report(struct coshm__findings *findings, int level, const struct place *place,
		   const char *text)
{
	coshm__finding(findings, level, "limiter/slots",
		       "bucket %llu slot %u: %s (key word %016llx, tat word %016llx)",
		       (unsigned long long)place->bucket, place->i, text,
		       (unsigned long long)place->word, (unsigned long long)place->tat);
}

static void verify_claim(const struct coshm__limiter *limiter, const struct place *place,
			 struct coshm__findings *findings)
{
	uint64_t wanted = place->tat & ~COSHM__LIMITER_CLAIM;
	struct place again = place_read(limiter, place->bucket, place->i);

	if (again.tat != place->tat)
		return;
	if (again.word != wanted &&
	    (coshm__limiter_next_word(again.word, 0) ^ wanted) & COSHM__LIMITER_LIFE_MASK)
		report(findings, COSHM_VERIFY_DAMAGE, &again,
		       "a claim that does not follow the life of the key word");
	else
		/* Nobody has to finish it: the slot is as good as vacant. */
		report(findings, COSHM_VERIFY_NOTE, &again,
		       "claimed for a key whose insertion is under way or was left");
}

/* Reports each pair once: from the one that comes first. */
static void verify_unique(const struct coshm__limiter *limiter, const struct place *place,
			  uint64_t bucket, struct coshm__findings *findings)
{
	for (unsigned int i = 0; i < COSHM__LIMITER_SLOTS; i++) {
		struct place other = place_read(limiter, bucket, i);

		if (bucket < place->bucket || (bucket == place->bucket && i <= place->i) ||
		    !is_open(&other) || !coshm__limiter_same_key(other.word, place->word))
			continue;
		/* Was the first one still open when the second one was read? */
		if (stayed_open(limiter, place))
			report(findings, COSHM_VERIFY_DAMAGE, &other,
			       "a second entry of a key that has one");
	}
}

static void verify_open(const struct coshm__limiter *limiter, const struct place *place,
			struct coshm__findings *findings)
{
	uint64_t count = limiter->bucket_count;
	uint64_t first = coshm__limiter_first_bucket(count, place->word, place->bucket);
	uint64_t second = coshm__limiter_second_bucket(count, place->word, place->bucket);
	bool here = coshm__limiter_may_be_first(count, place->word, place->bucket);
	bool there = coshm__limiter_may_be_first(count, place->word, first);

	if (!here && !there) {
		if (stayed_open(limiter, place))
			report(findings, COSHM_VERIFY_DAMAGE, place,
			       "a key that does not belong into this bucket");
		return;
	}
	verify_unique(limiter, place, place->bucket, findings);
	if (here)
		verify_unique(limiter, place, second, findings);
	if (there && !(here && first == second))
		verify_unique(limiter, place, first, findings);
}

static void verify_slot(const struct coshm__limiter *limiter, const struct coshm__segment *segment,
			const struct coshm__gcra *gcra, const struct place *place,
			struct coshm__findings *findings)
{
	uint64_t now;

	if (coshm__limiter_is_claim(place->word)) {
		report(findings, COSHM_VERIFY_DAMAGE, place, "the key word is odd");
		return;
	}
	if (coshm__limiter_is_claim(place->tat)) {
		verify_claim(limiter, place, findings);
		return;
	}
	if (!coshm__limiter_fingerprint_of(place->word))
		return;
	verify_open(limiter, place, findings);
	now = coshm__gcra_ticks(coshm__now_ns(segment));
	if ((int64_t)(place->tat - now) > 0 && !coshm__gcra_is_old_debt(gcra, place->tat, now))
		report(findings, COSHM_VERIFY_NOTE, place,
		       "idle for over a year, charged with a time in the future, or damaged: "
		       "counts as full");
}

static void verify(struct coshm__handle *handle, struct coshm__findings *findings)
{
	const struct coshm__limiter *limiter = handle->local;
	struct coshm__gcra gcra;

	if (coshm__limiter_config_load(limiter->shm, &gcra) ||
	    gcra.capacity != gcra.burst * gcra.period || gcra.capacity_ever < gcra.capacity) {
		coshm__finding(
			findings, COSHM_VERIFY_DAMAGE, "limiter/config",
			"version %llu of the configuration is not a possible one",
			(unsigned long long)coshm__a64_load_relaxed(&limiter->shm->config_version));
		return;
	}
	for (uint64_t b = 0; b < limiter->bucket_count; b++)
		for (unsigned int i = 0; i < COSHM__LIMITER_SLOTS; i++) {
			struct place place = place_read(limiter, b, i);

			verify_slot(limiter, handle->segment, &gcra, &place, findings);
		}
}

const struct coshm__object_type coshm__limiter_type = {
	.type = COSHM_OBJECT_LIMITER,
	.name = "limiter",
	.layout_fingerprint = sizeof(struct coshm__limiter_shm) ^
			      sizeof(struct coshm__limiter_bucket_shm) << 16 ^
			      COSHM__GCRA_TICKS_PER_NS << 32 ^ UINT64_C(2) << 48,
	.attach = attach,
	.detach = detach,
	.holdings = holdings,
	.verify = verify,
	.counters = counters,
	.gauge = gauge,
};
