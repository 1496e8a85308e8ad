/* SPDX-License-Identifier: MIT */
/*
 * An entry for a key that has none, without a lock and without owners.
 *
 * Claim     CAS of a slot's tat to the key word that is to come, + 1. It takes the slot from the key that had it, if that
 *           has not been charged since its tat was seen.
 * Settle    CAS of the key word, to what the claim says. By anyone.
 * Look      at all 16 slots of the key, once more. Other claims for the key are withdrawn, all but the one in the lowest
 *           position; if there is an open entry, all.
 * Open      CAS of tat to the time that the first charge leaves. By anyone who has looked after the claim was there.
 *
 * Why never two open entries of a key (I2): take the two claims that they came from. One was placed later. Who opened
 * that one looked after it was placed, so met the other one: open, and withdrew his own; or as a claim, and of two claims
 * one was withdrawn, by a CAS that makes opening it fail. Placing and looking are seq_cst for that.
 *
 * Death     at any point leaves a claim at most. The next who inserts this key finishes it; the next who needs a slot
 *           takes it. Nobody has to know whether its maker lives: replacing the claim of somebody who does only makes
 *           him start again.
 * Progress  lock-free. Each process takes the claims of others at most twice per call, then evicts instead; of claims for
 *           one key the lowest is never withdrawn by the others.
 */
#include "base/crash.h"
#include "modules/limiter/limiter.h"

#define POSITIONS	 (2 * COSHM__LIMITER_SLOTS)
#define ROUNDS		 64
#define HOME_COMFORTABLE 5 /* slots in use up to which a bucket is not worth leaving */
#define TAKES_MAX	 2
#define VACATED		 UINT64_C(0x100)

/*
 * Who decides for a moment up to this long ago finds all debts of that moment: an entry is forgotten only when its debt
 * ended earlier than that, unless there is no other room.
 */
#define MARGIN COSHM__GCRA_SECOND

struct seen {
	uint64_t tat;
	uint64_t word;
};

struct survey {
	struct seen slots[POSITIONS];
	int open;  /* position of an open entry of the key, or -1 */
	int claim; /* lowest position of a claim for the key, or -1 */
};

/* A claim for the key that was there before the next survey began. */
struct hold {
	int position; /* -1: none */
	uint64_t claim;
	bool is_own;
	bool is_quiet; /* the slot shows that it forgot no debt that reached beyond the caller's moment */
};

static struct coshm__limiter_slot slot_at(const struct coshm__limiter_key *key, int position)
{
	struct coshm__limiter_bucket_shm *bucket = key->buckets[position / COSHM__LIMITER_SLOTS];
	int i = position % COSHM__LIMITER_SLOTS;

	return (struct coshm__limiter_slot){.key = &bucket->key[i], .tat = &bucket->tat[i]};
}

/* --- one slot ----------------------------------------------------------------------------------------------- */

/*
 * Makes the key word what the claim says, if it is still in the life before. Returns the key word.
 * The claim is looked for after the word was loaded: while it is there, nobody makes it a third word, and once it is
 * gone, the word has a life in which the CAS fails.
 */
static uint64_t settle(const struct coshm__limiter_slot *slot, uint64_t claim)
{
	uint64_t wanted = claim & ~COSHM__LIMITER_CLAIM;
	/* acquire, as [LM3]: comes before the load of tat */
	uint64_t word = coshm__a64_load_acquire(slot->key);

	if ((coshm__limiter_next_word(word, 0) ^ wanted) & COSHM__LIMITER_LIFE_MASK)
		return word;
	/* relaxed: an old value makes the CAS fail */
	if (coshm__a64_load_relaxed(slot->tat) != claim)
		return word;
	/* [LM4] release, pairs [LM3]; comes before [LM2] */
	if (!coshm__a64_cas_acq_rel(slot->key, &word, wanted))
		return word;
	COSHM__CRASH_POINT(LIMITER_SETTLED);
	return wanted;
}

/* Claims the slot for a fingerprint, 0 for none. Returns the claim, 0 if the slot has changed. */
static uint64_t claim_for(const struct coshm__limiter_slot *slot, struct seen seen,
			  uint64_t fingerprint)
{
	uint64_t claim;

	if (coshm__limiter_is_claim(seen.tat))
		seen.word = settle(slot, seen.tat);
	claim = coshm__limiter_next_word(seen.word, fingerprint) | COSHM__LIMITER_CLAIM;
	/* [LM5] seq_cst, pairs [LM6]: of two who claim for one key at least one sees the other */
	if (!coshm__a64_cas_seq_cst(slot->tat, &seen.tat, claim))
		return 0;
	COSHM__CRASH_POINT(LIMITER_CLAIMED);
	return claim;
}

/* Makes the slot of a claim vacant, unless the claim is gone. */
static void withdraw(const struct coshm__limiter_slot *slot, uint64_t claim)
{
	uint64_t nobody = claim_for(slot, (struct seen){.tat = claim}, 0);

	if (!nobody || settle(slot, nobody) != (nobody & ~COSHM__LIMITER_CLAIM))
		return;
	/* release, as [LM2]. The time means nothing, but differs from life to life, and from memory never used. */
	if (coshm__a64_cas_acq_rel(slot->tat, &nobody,
				   VACATED | (nobody & COSHM__LIMITER_LIFE_MASK)))
		COSHM__CRASH_POINT(LIMITER_VACATED);
}

/* --- all slots of the key ----------------------------------------------------------------------------------- */

static void look(const struct coshm__limiter_key *key, struct survey *ret)
{
	ret->open = -1;
	ret->claim = -1;
	for (int i = POSITIONS - 1; i >= 0; i--) {
		struct coshm__limiter_slot slot = slot_at(key, i);
		struct seen *seen = &ret->slots[i];

		/* [LM6] seq_cst, pairs [LM5] */
		seen->tat = coshm__a64_load_seq_cst(slot.tat);
		/* acquire, as [LM3] */
		seen->word = coshm__a64_load_acquire(slot.key);
		if (coshm__limiter_is_claim(seen->tat)) {
			if (coshm__limiter_same_key(seen->tat, key->word))
				ret->claim = i;
		} else if (coshm__limiter_same_key(seen->word, key->word)) {
			ret->open = i;
		}
	}
}

/* Withdraws the claims for the key but the one at @keep. How many? */
static int withdraw_others(const struct coshm__limiter_key *key, const struct survey *survey,
			   int keep)
{
	int count = 0;

	for (int i = 0; i < POSITIONS; i++) {
		const struct seen *seen = &survey->slots[i];
		struct coshm__limiter_slot slot = slot_at(key, i);

		if (i == keep || !coshm__limiter_is_claim(seen->tat) ||
		    !coshm__limiter_same_key(seen->tat, key->word))
			continue;
		withdraw(&slot, seen->tat);
		count++;
	}
	return count;
}

/* --- which slot to take ------------------------------------------------------------------------------------- */

enum rank {
	VACANT,
	PAST,	/* open, without debt for longer than the margin */
	RECENT, /* open, without debt */
	LEFT, /* claimed for another key, by somebody who died, is stopped or is at it right now */
	LIVE, /* open, with debt */
	UNFIT,
};

struct choice {
	int position;
	enum rank rank;
	uint64_t regret; /* among equal ranks, the least is taken */
};

/* More than a year ago, though it looks like the future? For sure only with a clock that is read after tat was. */
static bool is_ancient(const struct coshm__segment *segment, uint64_t tat,
		       const struct coshm__gcra *gcra, uint64_t now)
{
	if (coshm__likely(coshm__gcra_is_old_debt(gcra, tat, now)))
		return false;
	now = coshm__gcra_ticks(coshm__now_ns(segment));
	return (int64_t)(tat - now) > 0 && !coshm__gcra_is_old_debt(gcra, tat, now);
}

static struct choice judge(const struct coshm__segment *segment, const struct seen *seen,
			   const struct coshm__gcra *gcra, uint64_t now)
{
	int64_t ahead = (int64_t)(seen->tat - now);
	struct choice choice = {.rank = VACANT};

	if (coshm__limiter_is_claim(seen->tat)) {
		choice.rank = coshm__limiter_fingerprint_of(seen->tat) ? LEFT : VACANT;
	} else if (coshm__limiter_fingerprint_of(seen->word) == 0) {
		choice.rank = VACANT;
	} else if (ahead < -(int64_t)MARGIN) {
		choice.rank = PAST;
	} else if (ahead < 0) {
		choice.rank = RECENT;
		choice.regret = UINT64_MAX - (uint64_t)-ahead;
	} else if (is_ancient(segment, seen->tat, gcra, now)) {
		choice.rank = PAST;
	} else {
		choice.rank = LIVE;
		choice.regret = (uint64_t)ahead;
	}
	return choice;
}

static bool is_better(const struct choice *a, const struct choice *b)
{
	return a->rank < b->rank || (a->rank == b->rank && a->regret < b->regret);
}

/* All who insert one key choose alike, and so mostly meet at one slot. */
static struct choice choose(const struct coshm__segment *segment, const struct survey *survey,
			    const struct coshm__gcra *gcra, uint64_t now, int takes)
{
	struct choice best[2] = {{.rank = UNFIT}, {.rank = UNFIT}};
	int in_use[2] = {0, 0};

	for (int i = 0; i < POSITIONS; i++) {
		int b = i / COSHM__LIMITER_SLOTS;
		struct choice choice = judge(segment, &survey->slots[i], gcra, now);

		choice.position = i;
		in_use[b] += choice.rank > PAST;
		if (choice.rank == LEFT && takes >= TAKES_MAX)
			continue;
		if (is_better(&choice, &best[b]))
			best[b] = choice;
	}
	if (best[0].rank <= PAST && (in_use[0] < HOME_COMFORTABLE || in_use[0] <= in_use[1]))
		return best[0];
	if (best[1].rank <= PAST)
		return best[1];
	return is_better(&best[1], &best[0]) ? best[1] : best[0];
}

/* --- stale callers ------------------------------------------------------------------------------------------ */

/*
 * The times of a slot only grow from life to life. One that lies before now, or none ever, proves that no debt was
 * forgotten there that reached beyond now.
 */
static bool is_quiet(const struct seen *seen, uint64_t now)
{
	if (coshm__limiter_is_claim(seen->tat))
		return false;
	if (coshm__limiter_fingerprint_of(seen->word) == 0)
		return seen->word == 0 && seen->tat == 0;
	return (int64_t)(seen->tat - now) <= 0;
}

/*
 * A new entry starts without debt. A caller whose moment is old may have had some then which has been forgotten since: he
 * decides for the present. Once the claim is there nobody else can open an entry for the key, and so none can be forgotten
 * after this look at the clock.
 */
static uint64_t moment_of(const struct coshm__segment *segment, const struct survey *survey,
			  const struct hold *hold, uint64_t now)
{
	bool quiet = hold->is_quiet;
	uint64_t present;

	for (int i = 0; i < POSITIONS && quiet; i++)
		quiet = i == hold->position || is_quiet(&survey->slots[i], now);
	if (quiet)
		return now;
	present = coshm__gcra_ticks(coshm__now_ns(segment));
	return (int64_t)(present - now) > (int64_t)MARGIN ? present : now;
}

/* --- inserting ---------------------------------------------------------------------------------------------- */

static struct hold claim_a_slot(struct coshm__op *op, const struct coshm__limiter_key *key,
				const struct survey *survey, const struct coshm__gcra *gcra,
				uint64_t now, int *takes)
{
	struct choice choice = choose(op->segment, survey, gcra, now, *takes);
	struct coshm__limiter_slot slot = slot_at(key, choice.position);
	const struct seen *seen = &survey->slots[choice.position];
	struct hold hold = {.position = -1};

	if (choice.rank == UNFIT)
		return hold;
	*takes += choice.rank == LEFT;
	hold.claim = claim_for(&slot, *seen, key->word);
	if (!hold.claim)
		return hold;
	hold.position = choice.position;
	hold.is_own = true;
	hold.is_quiet = is_quiet(seen, now);
	if (choice.rank == LIVE)
		coshm__limiter_count(op, COSHM__STAT_LIMITER_evicted_live);
	else if (choice.rank == LEFT)
		coshm__limiter_count(op, COSHM__STAT_LIMITER_adopted);
	return hold;
}

/* Opens what is held. The survey must be from after it was there, and must have shown no other entry or claim. */
static bool open_held(struct coshm__op *op, const struct coshm__limiter_key *key,
		      const struct survey *survey, struct hold *hold, uint64_t charge,
		      uint64_t *now)
{
	struct coshm__limiter_slot slot = slot_at(key, hold->position);
	uint64_t claim = hold->claim, moment = moment_of(op->segment, survey, hold, *now);

	if (settle(&slot, claim) != (claim & ~COSHM__LIMITER_CLAIM)) {
		/* No run of this code leaves that: a life that does not fit. Start a new one. */
		hold->claim = claim_for(&slot, (struct seen){.tat = claim}, key->word);
		return false;
	}
	/* [LM2] release, pairs [LM1]; carries the key word. The commit point: the key exists and is charged. */
	if (!coshm__a64_cas_acq_rel(slot.tat, &claim, moment + charge))
		return false;
	COSHM__CRASH_POINT(LIMITER_OPENED);
	*now = moment;
	coshm__limiter_count(op, COSHM__STAT_LIMITER_inserted);
	if (!hold->is_own)
		coshm__limiter_count(op, COSHM__STAT_LIMITER_adopted);
	return true;
}

enum coshm__limiter_outcome coshm__limiter_insert(struct coshm__op *op,
						  const struct coshm__limiter_key *key,
						  const struct coshm__gcra *gcra, uint64_t charge,
						  uint64_t *now)
{
	struct hold hold = {.position = -1};
	int takes = 0;

	for (int round = 0; round < ROUNDS; round++) {
		struct survey survey;
		uint64_t claim;

		look(key, &survey);
		if (survey.open >= 0) {
			withdraw_others(key, &survey, -1);
			return COSHM__LIMITER_AGAIN;
		}
		if (survey.claim < 0) {
			hold = claim_a_slot(op, key, &survey, gcra, *now, &takes);
			continue;
		}
		claim = survey.slots[survey.claim].tat;
		if (withdraw_others(key, &survey, survey.claim) == 0 &&
		    hold.position == survey.claim && hold.claim == claim) {
			if (open_held(op, key, &survey, &hold, charge, now))
				return COSHM__LIMITER_ALLOWED;
		} else if (hold.position != survey.claim || hold.claim != claim) {
			/* Somebody else's: it was there before the next survey. */
			hold = (struct hold){.position = survey.claim, .claim = claim};
		}
	}
	return COSHM__LIMITER_AGAIN;
}
