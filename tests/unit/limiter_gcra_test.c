/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic against a token bucket as a textbook has it: a level that rises, computed exactly in 128 bits over a
 * clock that never wraps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "modules/limiter/gcra.h"

static uint64_t random_state = 20261120;

static uint64_t random_bits(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * UINT64_C(2685821657736338717);
}

static uint64_t random_below(uint64_t bound)
{
	return (uint64_t)(((unsigned __int128)random_bits() * bound) >> 64);
}

/* --- the textbook ------------------------------------------------------------------------------------------- */

typedef __int128 wide;

/* Tokens are counted in units of 1/scale; one unit per 1/numerator... the caller chooses both so that all is integer. */
struct textbook {
	wide level;    /* scaled tokens */
	wide full;     /* burst x scale */
	wide token;    /* scale */
	wide gain;     /* scaled tokens per ns */
	wide moved_ns; /* when level was true */
};

/* The ideal bucket: a token is per_ns units, rate units come per ns. */
static struct textbook textbook_ideal(uint64_t rate, uint64_t per_ns, uint64_t burst)
{
	return (struct textbook){.level = (wide)burst * per_ns,
				 .full = (wide)burst * per_ns,
				 .token = per_ns,
				 .gain = rate};
}

/* The same with the period rounded to ticks: what the limiter promises to be exactly. */
static struct textbook textbook_rounded(const struct coshm__gcra *gcra)
{
	return (struct textbook){.level = (wide)gcra->burst * gcra->period,
				 .full = (wide)gcra->burst * gcra->period,
				 .token = gcra->period,
				 .gain = COSHM__GCRA_TICKS_PER_NS};
}

static void textbook_refill(struct textbook *book, wide now_ns)
{
	book->level += (now_ns - book->moved_ns) * book->gain;
	if (book->level > book->full)
		book->level = book->full;
	book->moved_ns = now_ns;
}

static int textbook_take(struct textbook *book, wide now_ns, uint64_t cost)
{
	textbook_refill(book, now_ns);
	if (book->level < book->token * (wide)cost)
		return 0;
	book->level -= book->token * (wide)cost;
	return 1;
}

/* --- the code under test ------------------------------------------------------------------------------------ */

static int take(const struct coshm__gcra *gcra, uint64_t *tat, uint64_t now_ns, uint64_t cost,
		struct coshm_limiter_result *ret)
{
	uint64_t now = coshm__gcra_ticks(now_ns);
	uint64_t debt = coshm__gcra_debt(gcra, *tat, now), need;

	if (debt == COSHM__GCRA_STRANGE)
		debt = coshm__gcra_is_old_debt(gcra, *tat, now) ? gcra->capacity : 0;
	need = debt + cost * gcra->period;
	if (need > gcra->capacity) {
		coshm__gcra_result(gcra, false, debt, need, ret);
		return 0;
	}
	*tat = now + need;
	coshm__gcra_result(gcra, true, need, need, ret);
	return 1;
}

struct shape {
	uint64_t rate, per_ns, burst;
};

#define SECOND UINT64_C(1000000000)
#define DAY    (86400 * SECOND)
/* The clock's range in ns: ticks wrap every 2^56 ns. */
#define WRAP_NS (UINT64_C(1) << 56)

static const struct shape shapes[] = {
	{1, 30 * DAY, 1},
	{3, 30 * DAY, 20},
	{1000, DAY, 1000},
	{10, SECOND, 100},
	{3, SECOND, 7},
	{1000000, SECOND, 50},
	{123456789, SECOND, 1000},
	{1250000000, SECOND, 65536},
	{UINT64_C(10000000000), SECOND, 1000000},
	{128, 1, 4096},
	{7, 3, 5},
};

/* A gap that makes things interesting: from nothing to a year, mostly near the time of a token or of a whole bucket. */
static uint64_t random_gap_ns(const struct coshm__gcra *gcra)
{
	switch (random_below(12)) {
	case 0:
		return random_below(coshm__gcra_ns_up(gcra->capacity) * 2 + 2);
	case 1:
		return coshm__gcra_ns_up(gcra->capacity);
	case 2:
		return random_below(365 * DAY);
	case 3:
	case 4:
		return 0;
	default:
		return random_below(coshm__gcra_ns_up(gcra->period) * 2 + 2);
	}
}

static void one_life_against_textbook(const struct shape *shape, uint64_t start_ns)
{
	struct coshm__gcra gcra = {0};
	struct textbook rounded, ideal;
	uint64_t tat = coshm__gcra_ticks(start_ns) - 2 * random_below(1000), ideal_taken = 0;
	wide now_ns = start_ns;

	assert_int_equal(coshm__gcra_make(shape->rate, shape->per_ns, shape->burst, &gcra), 0);
	rounded = textbook_rounded(&gcra);
	ideal = textbook_ideal(shape->rate, shape->per_ns, shape->burst);
	rounded.moved_ns = ideal.moved_ns = now_ns;
	for (int i = 0; i < 2000; i++) {
		struct coshm_limiter_result result;
		uint64_t cost = random_below(4) ? 1 : random_below(shape->burst) + 1;
		int allowed, expected;
		wide missing;

		now_ns += random_gap_ns(&gcra);
		allowed = take(&gcra, &tat, (uint64_t)now_ns, cost, &result);
		expected = textbook_take(&rounded, now_ns, cost);
		assert_int_equal(allowed, expected);
		assert_int_equal(tat % 2, 0);
		assert_int_equal(result.limit, shape->burst);
		assert_int_equal(result.remaining, (uint64_t)(rounded.level / rounded.token));
		assert_int_equal(result.reset_after_ns,
				 (uint64_t)((rounded.full - rounded.level + rounded.gain - 1) /
					    rounded.gain));
		missing = allowed ? 0 : rounded.token * (wide)cost - rounded.level;
		assert_int_equal(result.retry_after_ns,
				 (uint64_t)((missing + rounded.gain - 1) / rounded.gain));
		/* What ours admits, the ideal bucket would have admitted, too: never fast. */
		textbook_refill(&ideal, now_ns);
		if (allowed) {
			assert_true(ideal.level >= ideal.token * (wide)cost);
			ideal.level -= ideal.token * (wide)cost;
			ideal_taken += cost;
		}
	}
	assert_true(ideal_taken > 0);
}

/* P1, P5 */
static void decisions_equal_an_exact_bucket_and_never_exceed_the_ideal_one(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int life = 0; life < 20; life++)
			one_life_against_textbook(&shapes[i], random_below(WRAP_NS));
}

static void decisions_stay_exact_while_the_clock_wraps(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int life = 0; life < 20; life++)
			one_life_against_textbook(&shapes[i], WRAP_NS - random_below(400 * DAY));
}

/* P1: slow by at most one part in the period */
static void a_saturated_bucket_gives_at_most_one_part_in_the_period_less_than_the_rate(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct shape *shape = &shapes[i];
		struct coshm__gcra gcra = {0};
		wide ideal, ours;

		assert_int_equal(coshm__gcra_make(shape->rate, shape->per_ns, shape->burst, &gcra),
				 0);
		/* period >= exact period > period - 2, in ticks */
		ours = (wide)gcra.period * shape->rate;
		ideal = (wide)shape->per_ns * COSHM__GCRA_TICKS_PER_NS;
		assert_true(ours >= ideal);
		assert_true(ours - 2 * (wide)shape->rate < ideal);
		if (shape->per_ns * (COSHM__GCRA_TICKS_PER_NS / 2) % shape->rate == 0)
			assert_true(ours == ideal);
	}
}

static void a_retry_at_retry_after_passes_and_one_ns_earlier_does_not(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct shape *shape = &shapes[i];
		struct coshm_limiter_result result;
		struct coshm__gcra gcra = {0};
		uint64_t now_ns = WRAP_NS - DAY, tat = coshm__gcra_ticks(now_ns), copy;

		assert_int_equal(coshm__gcra_make(shape->rate, shape->per_ns, shape->burst, &gcra),
				 0);
		for (int round = 0; round < 50; round++) {
			uint64_t cost = random_below(shape->burst) + 1;

			while (take(&gcra, &tat, now_ns, cost, &result))
				;
			copy = tat;
			assert_int_equal(take(&gcra, &copy, now_ns + result.retry_after_ns - 1,
					      cost, &(struct coshm_limiter_result){0}),
					 0);
			now_ns += result.retry_after_ns;
			assert_int_equal(take(&gcra, &tat, now_ns, cost, &result), 1);
		}
	}
}

/* One year and a bit is the longest idle time that shows as the past; up to the wrap it shows as a strange future. */
static void a_bucket_idle_for_up_to_two_years_is_full(void **state)
{
	const uint64_t idle_ns[] = {DAY, 365 * DAY, 420 * DAY, 600 * DAY};

	(void)state;
	for (unsigned int i = 0; i < sizeof(idle_ns) / sizeof(idle_ns[0]); i++) {
		struct coshm_limiter_result result;
		struct coshm__gcra gcra = {0};
		uint64_t now_ns = WRAP_NS - 100 * DAY, tat = coshm__gcra_ticks(now_ns);

		assert_int_equal(coshm__gcra_make(10, SECOND, 100, &gcra), 0);
		while (take(&gcra, &tat, now_ns, 1, &result))
			;
		now_ns += idle_ns[i];
		assert_int_equal(take(&gcra, &tat, now_ns, 100, &result), 1);
		assert_int_equal(take(&gcra, &tat, now_ns, 1, &result), 0);
	}
}

static void a_debt_from_a_larger_bucket_is_told_from_an_ancient_time(void **state)
{
	struct coshm__gcra gcra = {0}, larger = {0};
	uint64_t now = coshm__gcra_ticks(5 * DAY);

	(void)state;
	assert_int_equal(coshm__gcra_make(10, SECOND, 20, &gcra), 0);
	assert_int_equal(coshm__gcra_make(1000, DAY, 1000, &larger), 0);
	gcra.capacity_ever = larger.capacity;
	assert_int_equal(coshm__gcra_debt(&gcra, now + gcra.capacity, now), gcra.capacity);
	assert_int_equal(coshm__gcra_debt(&gcra, now + gcra.capacity + COSHM__GCRA_SLACK, now),
			 gcra.capacity + COSHM__GCRA_SLACK);
	assert_true(coshm__gcra_debt(&gcra, now + gcra.capacity + COSHM__GCRA_SLACK + 2, now) ==
		    COSHM__GCRA_STRANGE);
	assert_true(coshm__gcra_is_old_debt(&gcra, now + larger.capacity, now));
	assert_false(
		coshm__gcra_is_old_debt(&gcra, now + larger.capacity + 2 * COSHM__GCRA_SLACK, now));
}

static void buckets_beyond_the_clock_and_rates_beyond_the_tick_are_refused(void **state)
{
	const struct shape good[] = {
		{1, 208 * DAY, 1},
		{1, 1, UINT64_C(18014398509481983)},
		{128, 1, 1},
		{UINT64_C(128) << 56, UINT64_C(1) << 56, 1},
		{UINT64_MAX, UINT64_MAX, 1},
	};
	const struct shape bad[] = {
		{1, 209 * DAY, 1},
		{1, DAY, 209},
		{1, UINT64_MAX, 1},
		{UINT64_MAX, UINT64_MAX, UINT64_MAX},
		{1, 1, UINT64_MAX},
		{1, 1, UINT64_C(1) << 54},
		{129, 1, 1},
		{UINT64_MAX, 1, 1},
		{UINT64_MAX, 1, UINT64_MAX},
	};
	struct coshm__gcra gcra = {.burst = 42};

	(void)state;
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(coshm__gcra_make(bad[i].rate, bad[i].per_ns, bad[i].burst, &gcra),
				 -EINVAL);
		assert_int_equal(gcra.burst, 42);
	}
	for (unsigned int i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(
			coshm__gcra_make(good[i].rate, good[i].per_ns, good[i].burst, &gcra), 0);
		assert_true(gcra.period >= 2 && gcra.period % 2 == 0);
		assert_true(gcra.capacity < COSHM__GCRA_CAPACITY_LIMIT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decisions_equal_an_exact_bucket_and_never_exceed_the_ideal_one),
		cmocka_unit_test(decisions_stay_exact_while_the_clock_wraps),
		cmocka_unit_test(
			a_saturated_bucket_gives_at_most_one_part_in_the_period_less_than_the_rate),
		cmocka_unit_test(a_retry_at_retry_after_passes_and_one_ns_earlier_does_not),
		cmocka_unit_test(a_bucket_idle_for_up_to_two_years_is_full),
		cmocka_unit_test(a_debt_from_a_larger_bucket_is_told_from_an_ancient_time),
		cmocka_unit_test(buckets_beyond_the_clock_and_rates_beyond_the_tick_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
