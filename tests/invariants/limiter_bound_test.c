/* SPDX-License-Identifier: MIT */
/*
 * limiter.h P1, P2, P4, P6, measured from outside: what many processes were given is logged with
 * the time before and after each call, and each window between two such moments is checked.
 * A call that was given a moment of its own (try_at) counts at that moment.
 */
#include "invariants/crowd.h"

#include <stdlib.h>
#include <unistd.h>

#include <coshm/limiter.h>

#define MEMBERS	     8
#define KEYS	     3
#define RATE	     2000
#define BURST	     2000
#define COST_MAX     3
#define LOG_MAX	     (64 * 1024)
#define STALE_NS_MAX (300 * MS)

struct admission {
	uint64_t before_ns;
	uint64_t after_ns;
	uint32_t key;
	uint32_t cost;
};

struct member_log {
	/* What this member is asking for; if it dies now, it may have got it. Key + 1, or 0. */
	_Atomic uint32_t asking_key;
	_Atomic uint32_t asking_cost;
	_Atomic uint32_t count;
	struct admission admissions[LOG_MAX];
};

struct books {
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;
	_Atomic uint64_t lost[KEYS]; /* at most what killed members took without telling */
	_Atomic uint64_t refusals;
	struct member_log logs[MEMBERS + 1]; /* the last one is the parent's */
};

static int ask(struct books *books, struct coshm_segment *segment, struct coshm_limiter *limiter,
	       struct member_log *log, uint32_t key, uint32_t cost, uint64_t stale_ns)
{
	struct coshm_limiter_result result;
	uint64_t before_ns, after_ns;
	int rc;

	atomic_store(&log->asking_cost, cost);
	atomic_store(&log->asking_key, key + 1);
	before_ns = coshm_segment_now_ns(segment);
	if (stale_ns)
		rc = coshm_limiter_try_at(limiter, &key, sizeof(key), cost, before_ns - stale_ns,
					  &result);
	else
		rc = coshm_limiter_try(limiter, &key, sizeof(key), cost, &result);
	after_ns = coshm_segment_now_ns(segment);
	if (rc == 1) {
		const uint32_t count = atomic_load(&log->count);

		if (count == LOG_MAX)
			return -1;
		/* A decision counts at the moment that the caller's clock showed. */
		log->admissions[count] =
			(struct admission){before_ns - stale_ns,
					   stale_ns ? before_ns - stale_ns : after_ns, key, cost};
		atomic_store(&log->count, count + 1);
	} else if (rc == 0) {
		atomic_fetch_add_explicit(&books->refusals, 1, memory_order_relaxed);
	}
	atomic_store(&log->asking_key, 0);
	return rc;
}

static int hammer(void *arg)
{
	const struct member *member = arg;
	struct books *books = member->books;
	struct member_log *log = &books->logs[member->index];
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	uint64_t seed = random_seed(member);

	PROMISE_EQUAL(segment_for_member(member, books->name, books->segment, &segment), 0);
	PROMISE_EQUAL(coshm_limiter_open(segment, "api", &limiter), 0);
	while (!crowd_is_over()) {
		const uint32_t key = (uint32_t)random_below(&seed, KEYS);
		const uint32_t cost = (uint32_t)random_below(&seed, COST_MAX) + 1;
		const uint64_t stale_ns =
			random_below(&seed, 4) ? 0 : random_below(&seed, STALE_NS_MAX) + 1;
		const int rc = ask(books, segment, limiter, log, key, cost, stale_ns);

		PROMISE(rc == 0 || rc == 1);
		if (random_below(&seed, 16) == 0) {
			struct coshm_limiter_result result;
			const int looked = coshm_limiter_peek(limiter, &key, sizeof(key), &result);

			PROMISE(looked == 0 || looked == 1);
			PROMISE(result.remaining <= BURST);
			PROMISE_EQUAL(looked, result.remaining > 0);
			PROMISE_EQUAL(result.limit, BURST);
		}
	}
	return 0;
}

static void member_died(void *arg, unsigned int index)
{
	struct books *books = arg;
	struct member_log *log = &books->logs[index];
	const uint32_t key = atomic_load(&log->asking_key);

	if (key)
		books->lost[key - 1] += atomic_load(&log->asking_cost);
	atomic_store(&log->asking_key, 0);
}

static int compare_after(const void *a, const void *b)
{
	const struct admission *x = a, *y = b;

	return x->after_ns < y->after_ns ? -1 : x->after_ns > y->after_ns;
}

static size_t admissions_of(const struct books *books, uint32_t key, struct admission *to)
{
	size_t count = 0;

	for (unsigned int m = 0; m <= MEMBERS; m++) {
		const struct member_log *log = &books->logs[m];

		for (uint32_t i = 0; i < log->count; i++) {
			if (log->admissions[i].key == key)
				to[count++] = log->admissions[i];
		}
	}
	qsort(to, count, sizeof(*to), compare_after);
	return count;
}

/*
 * For each moment at which a call began: what was asked for and answered since then.  All of it
 * was decided between that moment and the latest answer counted.
 */
static void no_window_holds_too_much(const struct admission *sorted, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const uint64_t start_ns = sorted[i].before_ns;
		uint64_t tokens = 0;

		for (size_t j = 0; j < count; j++) {
			if (sorted[j].before_ns < start_ns)
				continue;
			tokens += sorted[j].cost;
			if (tokens * SECOND >
			    BURST * SECOND + RATE * (sorted[j].after_ns - start_ns))
				fail_msg("%llu tokens in %llu ns", (unsigned long long)tokens,
					 (unsigned long long)(sorted[j].after_ns - start_ns));
		}
	}
}

/*
 * The key was refused at refused_ns, so all that came in since its first admission was given to
 * somebody: logged, or taken by one who was killed.  Only if the bucket was never full meanwhile.
 */
static void nothing_was_withheld(const struct books *books, uint32_t key,
				 const struct admission *sorted, size_t count, uint64_t refused_ns)
{
	uint64_t tokens = books->lost[key];

	for (size_t i = 0; i < count; i++) {
		if (i > 0 && sorted[i].before_ns > sorted[i - 1].after_ns + SECOND / 4)
			return;
		tokens += sorted[i].cost;
	}
	tokens += 2; /* less than one is left, and the rounding of P1 */
	/* The very first came from stale clocks, and the bucket was full again by then. */
	if (tokens * SECOND + RATE * 2 * STALE_NS_MAX <
	    BURST * SECOND + RATE * (refused_ns - sorted[0].after_ns))
		fail_msg("key %u: only %llu tokens in %llu ns", key, (unsigned long long)tokens,
			 (unsigned long long)(refused_ns - sorted[0].after_ns));
}

static void bound_holds(int torments)
{
	struct books *books = proc_shared_alloc(sizeof(*books));
	const struct coshm_limiter_config config = {
		.struct_size_bytes = sizeof(config),
		.rate = RATE,
		.burst = BURST,
		.keys_max = 1000,
	};
	struct admission *sorted = malloc((MEMBERS + 1) * LOG_MAX * sizeof(*sorted));
	struct coshm_limiter *limiter;
	struct crowd crowd;

	assert_non_null(sorted);
	books->segment = segment_for_test(books->name, "limiter-bound", 4 << 20);
	assert_int_equal(coshm_limiter_create(books->segment, "api", &config, 0, &limiter), 0);

	crowd_start(&crowd, MEMBERS, hammer, books, member_died);
	if (torments)
		crowd_torment(&crowd, 0, MEMBERS, torments, test_run_ns());
	else
		test_sleep_ns(test_run_ns());
	CROWD_UNTIL(books->refusals > 0);
	crowd_finish(&crowd);
	assert_true(books->refusals > 0);
	assert_true(!torments || crowd.kills + crowd.stops > 0);

	for (uint32_t key = 0; key < KEYS; key++) {
		uint64_t refused_ns;
		size_t count;

		do
			refused_ns = coshm_segment_now_ns(books->segment);
		while (ask(books, books->segment, limiter, &books->logs[MEMBERS], key, 1, 0) == 1);
		count = admissions_of(books, key, sorted);
		assert_true(count > 0);
		no_window_holds_too_much(sorted, count);
		nothing_was_withheld(books, key, sorted, count, refused_ns);
	}
	segment_is_sound(books->segment);
	free(sorted);
	assert_int_equal(coshm_segment_detach(books->segment), 0);
}

static void no_window_gets_more_than_burst_and_rate_from_eight_processes(void **state)
{
	(void)state;
	bound_holds(0);
}

static void no_window_gets_more_while_members_are_killed_and_stopped(void **state)
{
	(void)state;
	bound_holds(CROWD_KILL | CROWD_STOP);
}

/* Clocks that stand still: everybody but the last asks at a moment long before. ------------- */

#define STALE_BURST 100

static void caller_with_a_stale_clock_gets_no_more(void **state)
{
	const struct coshm_limiter_config config = {
		.struct_size_bytes = sizeof(config),
		.rate = 1,
		.burst = STALE_BURST,
		.keys_max = 1000,
	};
	char name[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = segment_for_test(name, "limiter-stale", 4 << 20);
	struct coshm_limiter *limiter;
	const uint64_t now_ns = coshm_segment_now_ns(segment);
	/* The first try at the latest moment, so that the others' clocks go back. */
	const uint64_t moments_ns[] = {now_ns, now_ns - 7 * SECOND, now_ns - 50 * SECOND,
				       now_ns - SECOND / 2, now_ns};
	unsigned int admitted = 0;

	(void)state;
	assert_int_equal(coshm_limiter_create(segment, "api", &config, 0, &limiter), 0);
	for (unsigned int i = 0; i < 10 * STALE_BURST; i++) {
		const int rc = coshm_limiter_try_at(limiter, "k", 1, 1, moments_ns[i % 5], NULL);

		assert_in_range(rc, 0, 1);
		admitted += (unsigned int)rc;
	}
	assert_int_equal(admitted, STALE_BURST);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_window_gets_more_than_burst_and_rate_from_eight_processes),
		cmocka_unit_test(no_window_gets_more_while_members_are_killed_and_stopped),
		cmocka_unit_test(caller_with_a_stale_clock_gets_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
