/* SPDX-License-Identifier: MIT */
/*
 * bench/peers/policy.h - what textbook policies would miss
 *
 * Item by item and exact: one list, no lanes, no overhead per item; only values count. What they do not promise is all the
 * rest of a cache.
 */
#ifndef BENCH_PEERS_POLICY_H
#define BENCH_PEERS_POLICY_H

#include "../support/trace.h"

/* How many gets miss with so much room. A set of what is there is a use for LRU only, as in coshm. */
size_t policy_lru(const struct bench_trace *trace, uint64_t capacity_bytes);
size_t policy_sieve(const struct bench_trace *trace, uint64_t capacity_bytes);
size_t policy_s3fifo(const struct bench_trace *trace, uint64_t capacity_bytes);

#endif
