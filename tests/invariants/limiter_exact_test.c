/* SPDX-License-Identifier: MIT */
/*
 * limiter.h P1 and P5 decision by decision: random histories at chosen moments (try_at), against
 * a token bucket in exact integers, and against the limiter's own answers on twin keys.
 */
#include "invariants/crowd.h"

#include <unistd.h>

#include <coshm/limiter.h>

#define HISTORIES 300
#define STEPS	  60
#define TWINS	  6

/* Tokens x per_ns, so that each nanosecond adds exactly rate. */
struct bucket {
	uint64_t rate, per_ns, burst;
	unsigned __int128 level;
	uint64_t at_ns;
};

static void bucket_advance(struct bucket *bucket, uint64_t now_ns)
{
	const unsigned __int128 full = (unsigned __int128)bucket->burst * bucket->per_ns;

	bucket->level += (unsigned __int128)bucket->rate * (now_ns - bucket->at_ns);
	if (bucket->level > full)
		bucket->level = full;
	bucket->at_ns = now_ns;
}

/* When the level will be that of @tokens, rounded up. */
static uint64_t bucket_until(const struct bucket *bucket, uint64_t tokens)
{
	const unsigned __int128 wanted = (unsigned __int128)tokens * bucket->per_ns;

	if (bucket->level >= wanted)
		return 0;
	return (uint64_t)((wanted - bucket->level + bucket->rate - 1) / bucket->rate);
}

static int bucket_try(struct bucket *bucket, uint64_t cost)
{
	const unsigned __int128 wanted = (unsigned __int128)cost * bucket->per_ns;

	if (bucket->level < wanted)
		return 0;
	bucket->level -= wanted;
	return 1;
}

static struct coshm_limiter *limiter_new(struct coshm_segment *segment, uint32_t number,
					 uint64_t rate, uint64_t per_ns, uint64_t burst)
{
	const struct coshm_limiter_config config = {
		.struct_size_bytes = sizeof(config),
		.rate = rate,
		.per_ns = per_ns,
		.burst = burst,
		.keys_max = 20000, /* so many that none is forgotten */
	};
	const char name[] = {'l', (char)('a' + (char)number), 0};
	struct coshm_limiter *limiter;

	assert_int_equal(coshm_limiter_create(segment, name, &config, 0, &limiter), 0);
	return limiter;
}

/*
 * A history is told to the limiter as if it had happened just now: callers whose clock is staler
 * than a second may be answered for the present.  A test that was itself held up gives up its
 * history.
 */
#define HISTORY_NS (400 * MS)
#define STALE_NS   (900 * MS)

static int is_too_stale(struct coshm_segment *segment, uint64_t at_ns)
{
	return coshm_segment_now_ns(segment) - at_ns > STALE_NS;
}

static uint64_t random_step_ns(uint64_t *seed, uint64_t period_ns, uint64_t burst)
{
	switch (random_below(seed, 4)) {
	case 0:
		return 0;
	case 1:
		return random_below(seed, 3 * period_ns + 2);
	case 2:
		return period_ns;
	default:
		return random_below(seed, period_ns * (burst + 1) / 4 + 2);
	}
}

static void exact_rates_give_the_exact_bucket(void **state)
{
	static const struct {
		uint64_t rate, per_ns, burst;
	} configs[] = {
		{1000, SECOND, 10},	   {1, 1000, 1},	{50, SECOND, 3}, {125, SECOND, 125},
		{1000000, SECOND, 100000}, {4, SECOND / 10, 7},
	};
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "limiter-exact", 8 << 20);
	uint64_t seed = random_seed(NULL);
	unsigned int compared = 0;

	(void)state;
	for (uint32_t c = 0; c < sizeof(configs) / sizeof(configs[0]); c++) {
		struct bucket bucket = {configs[c].rate, configs[c].per_ns, configs[c].burst, 0, 0};
		struct coshm_limiter *limiter =
			limiter_new(segment, c, bucket.rate, bucket.per_ns, bucket.burst);
		const uint64_t period_ns = bucket.per_ns / bucket.rate;

		for (uint32_t key = 0; key < HISTORIES; key++) {
			const uint64_t end_ns = coshm_segment_now_ns(segment);

			bucket.at_ns = end_ns - HISTORY_NS;
			bucket.level = (unsigned __int128)bucket.burst * bucket.per_ns;
			for (unsigned int step = 0; step < STEPS; step++) {
				const uint64_t cost =
					random_below(&seed,
						     random_below(&seed, 3) ? 3 : bucket.burst) +
					1;
				const uint64_t next_ns =
					bucket.at_ns +
					random_step_ns(&seed, period_ns, bucket.burst);
				struct coshm_limiter_result result;
				int rc, expected;

				if (cost > bucket.burst)
					continue;
				if (next_ns > end_ns)
					break;
				bucket_advance(&bucket, next_ns);
				expected = bucket_try(&bucket, cost);
				rc = coshm_limiter_try_at(limiter, &key, sizeof(key), cost,
							  bucket.at_ns, &result);
				if (is_too_stale(segment, bucket.at_ns))
					break;
				compared++;
				assert_int_equal(rc, expected);
				assert_int_equal(result.limit, bucket.burst);
				assert_int_equal(result.remaining,
						 (uint64_t)(bucket.level / bucket.per_ns));
				assert_int_equal(result.retry_after_ns,
						 expected ? 0 : bucket_until(&bucket, cost));
				assert_int_equal(result.reset_after_ns,
						 bucket_until(&bucket, bucket.burst));
			}
		}
	}
	assert_true(compared > 10 * HISTORIES);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

/* With a period that is not a whole number of 1/256 ns: never more than the bucket, hardly less. */
static void other_rates_never_give_more_than_the_bucket(void **state)
{
	static const struct {
		uint64_t rate, per_ns, burst;
	} configs[] = {
		{3, SECOND, 5},	       {7, SECOND, 100},	  {999, SECOND, 10},
		{300007, SECOND, 999}, {123456789, SECOND, 1000}, {77, 61 * SECOND, 6},
	};
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "limiter-round", 8 << 20);
	uint64_t seed = random_seed(NULL);

	(void)state;
	for (uint32_t c = 0; c < sizeof(configs) / sizeof(configs[0]); c++) {
		struct bucket bucket = {configs[c].rate, configs[c].per_ns, configs[c].burst, 0, 0};
		struct coshm_limiter *limiter =
			limiter_new(segment, c, bucket.rate, bucket.per_ns, bucket.burst);
		const uint64_t period_ns = bucket.per_ns / bucket.rate;
		uint64_t allowed = 0, possible = 0;

		for (uint32_t key = 0; key < 100; key++) {
			const uint64_t end_ns = coshm_segment_now_ns(segment);

			bucket.at_ns = end_ns - HISTORY_NS;
			bucket.level = (unsigned __int128)bucket.burst * bucket.per_ns;
			for (unsigned int step = 0; step < 20 * STEPS; step++) {
				const uint64_t next_ns =
					bucket.at_ns + random_below(&seed, period_ns + 2);
				int rc;

				if (next_ns > end_ns)
					break;
				bucket_advance(&bucket, next_ns);
				rc = coshm_limiter_try_at(limiter, &key, sizeof(key), 1,
							  bucket.at_ns, NULL);
				if (is_too_stale(segment, bucket.at_ns))
					break;
				possible += bucket.level >= bucket.per_ns;
				allowed += (uint64_t)rc;
				/* What it allows, the bucket must have. */
				if (rc == 1)
					assert_int_equal(bucket_try(&bucket, 1), 1);
			}
		}
		/* At the very edge it may be a step late. */
		assert_true(allowed > 0);
		assert_true(allowed + allowed / 100 + 100 >= possible);
	}
	assert_int_equal(coshm_segment_detach(segment), 0);
}

struct twins {
	struct coshm_limiter *limiter;
	uint32_t keys[TWINS];
};

static int twin_try(const struct twins *twins, unsigned int twin, uint64_t cost, uint64_t now_ns,
		    struct coshm_limiter_result *ret_result)
{
	return coshm_limiter_try_at(twins->limiter, &twins->keys[twin], sizeof(uint32_t), cost,
				    now_ns, ret_result);
}

static void one_history(struct coshm_segment *segment, struct twins *twins, uint64_t burst,
			uint64_t span_ns, uint64_t *seed, unsigned int ret_seen[2])
{
	struct coshm_limiter_result first, others[TWINS];
	const uint64_t start_ns = coshm_segment_now_ns(segment) - 4 * span_ns - MS;
	uint64_t now_ns = start_ns, cost = 1;
	int full[2], retry[2] = {0, 1}, rest[2] = {0, 1};
	int results[TWINS];

	for (unsigned int step = 0; step < 10; step++) {
		cost = random_below(seed, burst) + 1;
		now_ns += random_below(seed, span_ns / 20 + 1);
		for (unsigned int i = 0; i < TWINS; i++)
			results[i] = twin_try(twins, i, cost, now_ns, &others[i]);
		for (unsigned int i = 1; i < TWINS; i++) {
			if (is_too_stale(segment, start_ns))
				return;
			assert_int_equal(results[i], results[0]);
			assert_memory_equal(&others[i], &others[0], sizeof(others[0]));
		}
	}
	first = others[0];
	/* What remains can be taken now, one more cannot. */
	if (first.remaining < burst)
		rest[0] = twin_try(twins, 0, first.remaining + 1, now_ns, NULL);
	if (first.remaining > 0)
		rest[1] = twin_try(twins, 0, first.remaining, now_ns, NULL);
	/* Full at reset_after, not a nanosecond before. */
	full[0] = twin_try(twins, 1, burst, now_ns + first.reset_after_ns - 1, NULL);
	full[1] = twin_try(twins, 2, burst, now_ns + first.reset_after_ns, NULL);
	if (results[0] == 0) {
		retry[0] = twin_try(twins, 3, cost, now_ns + first.retry_after_ns - 1, NULL);
		retry[1] = twin_try(twins, 4, cost, now_ns + first.retry_after_ns, NULL);
	}
	if (is_too_stale(segment, start_ns))
		return;
	assert_true(first.reset_after_ns > 0);
	assert_int_equal(first.retry_after_ns > 0, results[0] == 0);
	assert_int_equal(rest[0], 0);
	assert_int_equal(rest[1], 1);
	assert_int_equal(full[0], 0);
	assert_int_equal(full[1], 1);
	assert_int_equal(retry[0], 0);
	assert_int_equal(retry[1], 1);
	ret_seen[results[0]]++;
}

/*
 * Keys with one history are put to different questions: what was said about the future must be
 * what happens, to the nanosecond, whatever the rate.
 */
static void answers_about_the_future_come_true(void **state)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "limiter-twins", 16 << 20);
	uint64_t seed = random_seed(NULL);
	unsigned int seen[2] = {0, 0};
	uint32_t next_key = 0;

	(void)state;
	for (uint32_t c = 0; c < 20; c++) {
		const uint64_t burst = random_below(&seed, 40) + 1;
		/* Between a microsecond and a millisecond per token. */
		const uint64_t rate = random_below(&seed, 1000) + 1;
		const uint64_t per_ns =
			rate * (random_below(&seed, MS - 1000) + 1000) + random_below(&seed, rate);
		struct twins twins = {
			.limiter = limiter_new(segment, c, rate, per_ns, burst),
		};

		for (unsigned int history = 0; history < 40; history++) {
			for (unsigned int i = 0; i < TWINS; i++)
				twins.keys[i] = next_key++;
			one_history(segment, &twins, burst, (per_ns / rate + 1) * (burst + 2),
				    &seed, seen);
		}
	}
	assert_true(seen[0] > 100 && seen[1] > 100);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_rates_give_the_exact_bucket),
		cmocka_unit_test(other_rates_never_give_more_than_the_bucket),
		cmocka_unit_test(answers_about_the_future_come_true),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
