/* SPDX-License-Identifier: MIT */
/*
 * A few keys that all want more than they may have. What was admitted is added up over all time, and in bins of BIN_NS:
 * a try that began and ended within a bin was decided there, so a bin has at most burst + rate x BIN_NS of them.
 */
#include "torture/work.h"

#include <errno.h>

#define RATE	   400 /* per second */
#define BURST	   100
#define REFUNDABLE 6 /* keys from here on also get tokens back: only their sum is compared */

static uint64_t most(uint64_t for_ns)
{
	return BURST + RATE * for_ns / SECOND + 1;
}

int limiter_create(struct coshm_segment *segment)
{
	struct coshm_limiter *limiter;
	int error = coshm_limiter_create(
		segment, "limiter",
		&(struct coshm_limiter_config){.rate = RATE, .burst = BURST, .keys_max = 1000}, 0,
		&limiter);

	return error ? error : coshm_limiter_close(limiter);
}

static void bin_add(struct limiter_book *book, uint64_t before_ns, uint64_t after_ns, uint64_t cost)
{
	const uint64_t number = before_ns / BIN_NS;
	_Atomic uint64_t *bin = &book->bins[number % BINS];
	uint64_t there = atomic_load(bin), next;

	if (after_ns / BIN_NS != number)
		return;
	do {
		/* Who was stopped for longer than the ring lasts adds nothing. */
		if (there >> BIN_BITS > number)
			return;
		/* Who comes first begins it anew. */
		next = there >> BIN_BITS == number ? there : number << BIN_BITS;
	} while (!atomic_compare_exchange_weak(bin, &there, next + cost));
}

/* All that is admitted was decided between the earliest and the latest of these. */
static void limit_to_span(struct limiter_book *book, uint64_t before_ns, uint64_t after_ns)
{
	uint64_t first = atomic_load(&book->first_ns), last = atomic_load(&book->last_ns);

	while ((first == 0 || before_ns < first) &&
	       !atomic_compare_exchange_weak(&book->first_ns, &first, before_ns))
		;
	while (after_ns > last && !atomic_compare_exchange_weak(&book->last_ns, &last, after_ns))
		;
}

void limiter_work(struct worker *worker)
{
	const uint32_t key = (uint32_t)random_below(&worker->random, LIMITER_KEYS);
	struct limiter_book *book = &books->limits[key];
	struct coshm_limiter *limiter = worker->handles->limiter;
	const uint64_t cost = 1 + random_below(&worker->random, 5), before_ns = now_ns();
	struct coshm_limiter_result result;
	int error;

	if (random_below(&worker->random, 20) == 0) {
		/* Keys without debt push each other out of the table. */
		const uint64_t other = random_below(&worker->random, 100000);

		error = coshm_limiter_try(limiter, &other, sizeof(other), 1, NULL);
		if (error < 0)
			violation("limiter: try gives %d", error);
		return;
	}
	if (random_below(&worker->random, 50) == 0)
		error = coshm_limiter_wait(limiter, &key, sizeof(key), cost, 2 * MS, &result);
	else
		error = coshm_limiter_try(limiter, &key, sizeof(key), cost, &result);
	if (error < 0) {
		violation("limiter key %u: try gives %d", key, error);
		return;
	}
	if (result.limit != BURST || result.remaining > BURST ||
	    (error == 0) != (result.retry_after_ns != 0))
		violation("limiter key %u: %d, limit %llu, remaining %llu, retry after %llu", key,
			  error, (unsigned long long)result.limit,
			  (unsigned long long)result.remaining,
			  (unsigned long long)result.retry_after_ns);
	count(error ? EVENT_ADMITTED : EVENT_REFUSED, 1);
	if (error == 0)
		return;
	limit_to_span(book, before_ns, now_ns());
	if (key < REFUNDABLE)
		bin_add(book, before_ns, now_ns(), cost);
	atomic_fetch_add(&book->admitted, cost);
	if (key >= REFUNDABLE && random_below(&worker->random, 4) == 0) {
		atomic_fetch_add(&book->refunds_begun, cost);
		if (coshm_limiter_refund(limiter, &key, sizeof(key), cost))
			violation("limiter key %u: refund fails", key);
	}
}

void limiter_check(void)
{
	for (uint32_t key = 0; key < REFUNDABLE; key++) {
		for (uint32_t i = 0; i < BINS; i++) {
			const uint64_t admitted = atomic_load(&books->limits[key].bins[i]) &
						  ((UINT64_C(1) << BIN_BITS) - 1);

			if (admitted > most(BIN_NS))
				violation("limiter key %u: %llu tokens within %llu ms", key,
					  (unsigned long long)admitted,
					  (unsigned long long)(BIN_NS / MS));
		}
	}
}

void limiter_audit(struct worker *worker)
{
	limiter_check();
	for (uint32_t key = 0; key < LIMITER_KEYS; key++) {
		const uint64_t admitted = atomic_load(&books->limits[key].admitted);
		const uint64_t refunded = atomic_load(&books->limits[key].refunds_begun);
		const uint64_t for_ns = atomic_load(&books->limits[key].last_ns) -
					atomic_load(&books->limits[key].first_ns);

		if (admitted > most(for_ns) + refunded)
			violation("limiter key %u: %llu tokens, %llu given back, in %.3f s", key,
				  (unsigned long long)admitted, (unsigned long long)refunded,
				  (double)for_ns / 1e9);
		if (coshm_limiter_reset(worker->handles->limiter, &key, sizeof(key)) ||
		    coshm_limiter_try(worker->handles->limiter, &key, sizeof(key), BURST, NULL) !=
			    1)
			violation("limiter key %u: a bucket is not full at the end", key);
	}
}
