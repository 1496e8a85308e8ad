/* SPDX-License-Identifier: MIT */
/* Concurrency Kit's hash table: readers need no lock, writers take a spin lock. */
#include "store.h"

#ifdef BENCH_HAVE_CK

#include <ck_ht.h>
#include <ck_spinlock.h>

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A replaced node is used again after so many others: long enough in practice, no proof (which flatters it). */
enum { DELAY = 1 << 16 };

struct node {
	char key[BENCH_KEY_BYTES];
	char value[];
};

static ck_ht_t table;
static ck_spinlock_fas_t lock = CK_SPINLOCK_FAS_INITIALIZER;
static unsigned char *nodes;
static size_t node_bytes, node_count, nodes_used, value_bytes;
static struct node *delayed[DELAY];
static size_t delayed_at;

static void *ck_allocate(size_t size_bytes)
{
	return malloc(size_bytes);
}

static void ck_release(void *memory, size_t size_bytes, bool deferred)
{
	(void)size_bytes;
	(void)deferred;
	free(memory);
}

static struct ck_malloc allocator = {.malloc = ck_allocate, .free = ck_release};

static void hash_of(ck_ht_hash_t *hash, const void *key, size_t size_bytes, uint64_t seed)
{
	hash->value = coshm__hash_place(seed, key, size_bytes);
}

/* Shared memory, so that forking for the other subjects leaves no copy-on-write behind. */
static int ck_open(const struct store_shape *shape)
{
	value_bytes = shape->value_bytes;
	node_bytes = (sizeof(struct node) + value_bytes + 15) / 16 * 16;
	node_count = shape->key_count + (size_t)DELAY + 1;
	nodes = bench_shared(node_count * node_bytes);
	nodes_used = delayed_at = 0;
	memset(delayed, 0, sizeof(delayed));
	if (!ck_ht_init(&table, CK_HT_MODE_BYTESTRING, hash_of, &allocator, 1 << 21, 1))
		bench_fail("ck_ht_init");
	return 0;
}

static void ck_close(void)
{
	ck_ht_destroy(&table);
	munmap(nodes, node_count * node_bytes);
}

static void ck_enter(void)
{
}

static int ck_get(store_key key, void *value)
{
	ck_ht_entry_t entry;
	ck_ht_hash_t hash;

	ck_ht_hash(&hash, &table, key, BENCH_KEY_BYTES);
	ck_ht_entry_key_set(&entry, key, BENCH_KEY_BYTES);
	if (!ck_ht_get_spmc(&table, hash, &entry))
		return 0;
	memcpy(value, ((const struct node *)ck_ht_entry_value(&entry))->value, value_bytes);
	bench_use(value);
	return 1;
}

static struct node *take(void)
{
	struct node *node = delayed[delayed_at % DELAY];

	if (node) {
		delayed[delayed_at % DELAY] = NULL;
		return node;
	}
	if (nodes_used == node_count)
		bench_fail("ck_ht: out of nodes");
	return (struct node *)(void *)(nodes + nodes_used++ * node_bytes);
}

static int ck_set(store_key key, const void *value)
{
	ck_ht_entry_t entry;
	ck_ht_hash_t hash;
	struct node *node;
	int stored;

	ck_ht_hash(&hash, &table, key, BENCH_KEY_BYTES);
	ck_spinlock_fas_lock(&lock);
	node = take();
	memcpy(node->key, key, BENCH_KEY_BYTES);
	memcpy(node->value, value, value_bytes);
	ck_ht_entry_set(&entry, hash, node->key, BENCH_KEY_BYTES, node);
	stored = ck_ht_set_spmc(&table, hash, &entry);
	if (stored && !ck_ht_entry_empty(&entry))
		delayed[delayed_at++ % DELAY] = ck_ht_entry_value(&entry);
	ck_spinlock_fas_unlock(&lock);
	return stored;
}

const struct store store_ck = {
	.name = "ck_ht, spin lock to write",
	.lacks = "one process only, no eviction, no expiry; replaced values are reused unguarded",
	.threads = 1,
	.open = ck_open,
	.close = ck_close,
	.enter = ck_enter,
	.leave = ck_enter,
	.get = ck_get,
	.set = ck_set,
};

#else
const struct store store_ck = {
	.name = "ck_ht, spin lock to write",
	.absent = "ck was not there at configure",
};
#endif
