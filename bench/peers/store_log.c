/* SPDX-License-Identifier: MIT */
/*
 * The least that a set with eviction can do: a bucket of tags, the value behind the last one in a log, and for each block
 * of the log that comes round again its entries out of the index. No lock, no time, no policy: the oldest goes. Two
 * writers of one key may leave it in two slots, and who is slower than a whole round of the log writes into another one's block.
 */
#include "store.h"

#include "base/hash.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 8, BLOCK_BYTES = 32 << 10, GROUP = 16 };

/* tag << 48 | place in the log in units of 8 bytes; 0: free */
struct bucket {
	_Atomic uint64_t slot[SLOTS];
};

struct entry {
	char key[BENCH_KEY_BYTES];
	char value[];
};

struct shared {
	_Atomic uint64_t blocks_taken;
};

static struct shared *shared;
static struct bucket *buckets;
static unsigned char *entries; /* the first is never used: place 0 is none */
static uint64_t bucket_count, block_count;
static size_t value_bytes, entry_bytes;

/* The worker's block. */
static uint64_t at, end;

static uint64_t hash_of(const char *key)
{
	return coshm__hash_place(1, key, BENCH_KEY_BYTES);
}

static struct bucket *bucket_of(uint64_t hash)
{
	return &buckets[(hash >> 32) * bucket_count >> 32];
}

static uint64_t word_of(uint64_t hash, uint64_t place)
{
	return hash << 48 | place / 8;
}

static struct entry *entry_of(uint64_t word)
{
	return (struct entry *)(void *)(entries + (word & (UINT64_MAX >> 16)) * 8);
}

static void forget(uint64_t hash, uint64_t place)
{
	struct bucket *bucket = bucket_of(hash);
	uint64_t word = word_of(hash, place);

	for (int s = 0; s < SLOTS; s++) {
		uint64_t expected = word;

		if (atomic_load_explicit(&bucket->slot[s], memory_order_relaxed) == word &&
		    atomic_compare_exchange_strong(&bucket->slot[s], &expected, 0))
			break;
	}
}

/* The next block, and its entries out of the index. Buckets are fetched for many at once, as in coshm. */
static void take_block(void)
{
	uint64_t number = atomic_fetch_add(&shared->blocks_taken, 1), hashes[GROUP];

	at = (1 + number % block_count) * BLOCK_BYTES;
	end = at + BLOCK_BYTES;
	if (number < block_count)
		return;
	for (uint64_t group = at; group + entry_bytes <= end; group += GROUP * entry_bytes) {
		int count = 0;

		for (uint64_t p = group; count < GROUP && p + entry_bytes <= end;
		     p += entry_bytes) {
			hashes[count] = hash_of(entry_of(p / 8)->key);
			__builtin_prefetch(bucket_of(hashes[count++]), 1);
		}
		for (int i = 0; i < count; i++)
			forget(hashes[i], group + (uint64_t)i * entry_bytes);
	}
}

/* The key's slot, else a free one, else the first. */
static _Atomic uint64_t *slot_for(store_key key, uint64_t hash)
{
	struct bucket *bucket = bucket_of(hash);
	_Atomic uint64_t *best = NULL;

	for (int s = 0; s < SLOTS; s++) {
		uint64_t word = atomic_load_explicit(&bucket->slot[s], memory_order_acquire);

		if (word == 0)
			best = best ? best : &bucket->slot[s];
		else if ((word ^ hash << 48) >> 48 == 0 &&
			 memcmp(entry_of(word)->key, key, BENCH_KEY_BYTES) == 0)
			return &bucket->slot[s];
	}
	return best ? best : &bucket->slot[0];
}

static int log_set(store_key key, const void *value)
{
	uint64_t hash = hash_of(key), word;
	struct entry *entry;
	_Atomic uint64_t *slot;

	if (at + entry_bytes > end)
		take_block();
	entry = entry_of(at / 8);
	memcpy(entry->key, key, BENCH_KEY_BYTES);
	memcpy(entry->value, value, value_bytes);
	slot = slot_for(key, hash);
	word = atomic_load_explicit(slot, memory_order_relaxed);
	if (atomic_compare_exchange_strong(slot, &word, word_of(hash, at)))
		at += entry_bytes;
	return 1;
}

static int log_open(const struct store_shape *shape)
{
	value_bytes = shape->value_bytes;
	entry_bytes = (sizeof(struct entry) + value_bytes + 7) / 8 * 8;
	block_count = shape->evict_at_bytes / BLOCK_BYTES;
	bucket_count = shape->evict_at_bytes / entry_bytes / 5;
	shared = bench_shared(sizeof(*shared));
	buckets = bench_shared(bucket_count * sizeof(*buckets));
	entries = bench_shared((block_count + 1) * BLOCK_BYTES);
	return 0;
}

static void log_close(void)
{
	munmap(shared, sizeof(*shared));
	munmap(buckets, bucket_count * sizeof(*buckets));
	munmap(entries, (block_count + 1) * BLOCK_BYTES);
}

static void log_enter(void)
{
	at = end = 0;
}

static void log_leave(void)
{
}

const struct store store_log = {
	.name = "lean log (the limit)",
	.lacks = "no get, expiry or policy, no safety of any kind",
	.evicts = 1,
	.only_sets = 1,
	.open = log_open,
	.close = log_close,
	.enter = log_enter,
	.leave = log_leave,
	.set = log_set,
};
