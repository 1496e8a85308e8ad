/* SPDX-License-Identifier: MIT */
/*
 * The least that a shared table can do: a 64-byte bucket of tags, then an entry that is compared, copied and checked by
 * its version. No lock, no eviction, no time, and two writers of one key may mix their bytes.
 */
#include "store.h"

#include "base/hash.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

struct bucket {
	uint16_t tag[8];
	uint32_t entry[8];
	uint8_t padding[16];
};

/* 40 bytes beside the value, as in the cache: entries of exactly two lines would be fetched as one. */
struct entry {
	_Atomic uint64_t version;
	uint64_t time;
	char key[BENCH_KEY_BYTES];
	char value[];
};

static struct bucket *buckets;
static unsigned char *entries;
static uint32_t mask, entry_count;
static size_t value_bytes, entry_bytes, bucket_bytes;

static struct entry *entry_at(uint32_t number)
{
	return (struct entry *)(void *)(entries + number * entry_bytes);
}

static int model_open(const struct store_shape *shape)
{
	uint32_t count = 1;

	while (count * 4 < shape->key_count)
		count *= 2;
	mask = count - 1;
	value_bytes = shape->value_bytes;
	entry_bytes = (sizeof(struct entry) + value_bytes + 7) / 8 * 8;
	bucket_bytes = count * sizeof(*buckets);
	entry_count = 0;
	buckets = bench_shared(bucket_bytes);
	entries = bench_shared((shape->key_count + (size_t)1) * entry_bytes);
	return 0;
}

static void model_close(void)
{
	munmap(buckets, bucket_bytes);
	munmap(entries, (entry_count + (size_t)1) * entry_bytes);
}

static void model_enter(void)
{
}

static struct entry *find(store_key key, uint64_t hash)
{
	uint32_t b = (uint32_t)(hash >> 32) & mask;

	for (int probes = 0; probes < 8; probes++, b = (b + 1) & mask)
		for (int s = 0; s < 8; s++) {
			struct entry *entry;

			if (buckets[b].tag[s] != (uint16_t)hash || !buckets[b].entry[s])
				continue;
			entry = entry_at(buckets[b].entry[s]);
			if (memcmp(entry->key, key, BENCH_KEY_BYTES) == 0)
				return entry;
		}
	return NULL;
}

static struct entry *add(store_key key, uint64_t hash)
{
	uint32_t b = (uint32_t)(hash >> 32) & mask;
	int s = 0;

	for (;; b = (b + 1) & mask) {
		for (s = 0; s < 8 && buckets[b].entry[s]; s++)
			;
		if (s < 8)
			break;
	}
	buckets[b].tag[s] = (uint16_t)hash;
	buckets[b].entry[s] = ++entry_count;
	memcpy(entry_at(entry_count)->key, key, BENCH_KEY_BYTES);
	return entry_at(entry_count);
}

static int model_get(store_key key, void *value)
{
	uint64_t hash = coshm__hash_place(1, key, BENCH_KEY_BYTES), version;
	struct entry *entry = find(key, hash);

	if (!entry)
		return 0;
	do {
		version = atomic_load_explicit(&entry->version, memory_order_acquire);
		memcpy(value, entry->value, value_bytes);
		bench_use(value);
		atomic_thread_fence(memory_order_acquire);
	} while (version % 2 ||
		 atomic_load_explicit(&entry->version, memory_order_relaxed) != version);
	return 1;
}

/* As lean, and as wrong: one of two writers at the same time does nothing. */
static int model_set(store_key key, const void *value)
{
	uint64_t hash = coshm__hash_place(1, key, BENCH_KEY_BYTES), version;
	struct entry *entry = find(key, hash);

	if (!entry)
		entry = add(key, hash);
	version = atomic_load_explicit(&entry->version, memory_order_relaxed);
	if (version % 2 || !atomic_compare_exchange_strong(&entry->version, &version, version + 1))
		return 1;
	memcpy(entry->value, value, value_bytes);
	atomic_store_explicit(&entry->version, version + 2, memory_order_release);
	return 1;
}

static int model_mget(store_key *keys, void *values)
{
	int hits = 0;

	for (size_t i = 0; i < STORE_BATCH; i++)
		hits += model_get(keys[i], (char *)values + i * value_bytes);
	return hits;
}

const struct store store_model = {
	.name = "lean model (the limit)",
	.lacks = "no eviction, expiry, insert or crash safety",
	.has_mget = 1,
	.open = model_open,
	.close = model_close,
	.enter = model_enter,
	.leave = model_enter,
	.get = model_get,
	.set = model_set,
	.mget = model_mget,
};
