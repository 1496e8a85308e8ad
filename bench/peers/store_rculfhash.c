/* SPDX-License-Identifier: MIT */
/* liburcu's hash table under its cheapest readers (qsbr): what one process with threads would take. */
#include "store.h"

#ifdef BENCH_HAVE_URCU_CDS

#include <urcu-qsbr.h>

#include <urcu/rculfhash.h>

#include "base/hash.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	RETIRED_MAX = 4096, /* nodes that wait for one grace period */
	WORKERS_SPARE = 64, /* each may hold that many twice over */
};

struct node {
	struct cds_lfht_node link;
	struct node *next;
	char key[BENCH_KEY_BYTES];
	char value[];
};

static struct cds_lfht *table;
static unsigned char *nodes;
static size_t node_bytes, node_count, value_bytes;
static _Atomic size_t nodes_used;

static __thread struct node *free_nodes, *retired;
static __thread int retired_count;

/* Nodes held by a thread that ends go to the next one. */
static pthread_mutex_t left_lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *left;

/* Shared memory, so that forking for the other subjects leaves no copy-on-write behind. */
static int urcu_open(const struct store_shape *shape)
{
	value_bytes = shape->value_bytes;
	node_bytes = (sizeof(struct node) + value_bytes + 15) / 16 * 16;
	node_count = shape->key_count + (size_t)WORKERS_SPARE * 2 * RETIRED_MAX;
	nodes = bench_shared(node_count * node_bytes);
	nodes_used = 0;
	rcu_register_thread();
	table = cds_lfht_new(1 << 20, 1 << 20, 1 << 20, 0, NULL);
	if (!table)
		bench_fail("cds_lfht_new");
	rcu_unregister_thread();
	return 0;
}

static void urcu_close(void)
{
	/* What is in it lies in memory that goes as a whole; the table's own memory is lost until the end. */
	munmap(nodes, node_count * node_bytes);
	table = NULL;
	left = NULL;
}

static void urcu_enter(void)
{
	rcu_register_thread();
	rcu_thread_offline();
}

static struct node *take(void)
{
	struct node *node = free_nodes;

	if (!node) {
		size_t index = atomic_fetch_add(&nodes_used, 1);

		if (index >= node_count)
			bench_fail("rculfhash: out of nodes");
		return (struct node *)(void *)(nodes + index * node_bytes);
	}
	free_nodes = node->next;
	return node;
}

static void recycle(void)
{
	synchronize_rcu();
	while (retired) {
		struct node *node = retired;

		retired = node->next;
		node->next = free_nodes;
		free_nodes = node;
	}
	retired_count = 0;
}

static void urcu_leave(void)
{
	recycle();
	rcu_thread_online();
	rcu_unregister_thread();
	pthread_mutex_lock(&left_lock);
	while (free_nodes) {
		struct node *node = free_nodes;

		free_nodes = node->next;
		node->next = left;
		left = node;
	}
	pthread_mutex_unlock(&left_lock);
}

static void adopt(void)
{
	pthread_mutex_lock(&left_lock);
	for (int i = 0; i < 2 * RETIRED_MAX && left; i++) {
		struct node *node = left;

		left = node->next;
		node->next = free_nodes;
		free_nodes = node;
	}
	pthread_mutex_unlock(&left_lock);
}

static int same_key(struct cds_lfht_node *link, const void *key)
{
	return !memcmp(caa_container_of(link, struct node, link)->key, key, BENCH_KEY_BYTES);
}

/* Whoever waits for the others to be ready must not be waited for by a grace period. */
static void urcu_resume(void)
{
	rcu_thread_online();
}

static void urcu_pause(void)
{
	rcu_thread_offline();
}

static int urcu_get(store_key key, void *value)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *link;

	rcu_read_lock();
	cds_lfht_lookup(table, coshm__hash_place(1, key, BENCH_KEY_BYTES), same_key, key, &iter);
	link = cds_lfht_iter_get_node(&iter);
	if (link) {
		memcpy(value, caa_container_of(link, struct node, link)->value, value_bytes);
		bench_use(value);
	}
	rcu_read_unlock();
	return link != NULL;
}

static int urcu_set(store_key key, const void *value)
{
	struct cds_lfht_node *replaced;
	struct node *node;

	if (!free_nodes && left)
		adopt();
	node = take();
	cds_lfht_node_init(&node->link);
	memcpy(node->key, key, BENCH_KEY_BYTES);
	memcpy(node->value, value, value_bytes);
	rcu_read_lock();
	replaced = cds_lfht_add_replace(table, coshm__hash_place(1, key, BENCH_KEY_BYTES), same_key,
					key, &node->link);
	rcu_read_unlock();
	if (replaced) {
		node = caa_container_of(replaced, struct node, link);
		node->next = retired;
		retired = node;
		retired_count++;
	}
	if (retired_count == RETIRED_MAX)
		recycle();
	return 1;
}

const struct store store_rculfhash = {
	.name = "rculfhash, qsbr",
	.lacks = "one process only, no eviction, no expiry",
	.threads = 1,
	.open = urcu_open,
	.close = urcu_close,
	.enter = urcu_enter,
	.leave = urcu_leave,
	.resume = urcu_resume,
	.pause = urcu_pause,
	.get = urcu_get,
	.set = urcu_set,
};

#else
const struct store store_rculfhash = {
	.name = "rculfhash, qsbr",
	.absent = "liburcu-cds was not there at configure",
};
#endif
