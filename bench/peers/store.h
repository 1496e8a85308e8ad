/* SPDX-License-Identifier: MIT */
/*
 * bench/peers/store.h - what keeps values under keys, seen the same by all loads of bench/cache
 *
 * One file per store. Each copies the value out: what a caller may keep is what a cache is asked for.
 */
#ifndef BENCH_PEERS_STORE_H
#define BENCH_PEERS_STORE_H

#include "../support/bench.h"
#include "../support/load.h"

enum { STORE_VALUE_MAX = 4096, STORE_BATCH = 16 };

struct store_shape {
	uint32_t key_count; /* all of them are put in */
	size_t value_bytes;
	uint64_t evict_at_bytes; /* 0: everything fits */
};

typedef const char store_key[BENCH_KEY_BYTES];

struct interpreter;

struct store {
	const char *name;
	const char *lacks;
	const char *absent; /* why it is not built in; then the rest is NULL */
	int threads;	    /* cannot be shared by processes */
	int evicts;
	int only_sets;
	int server;
	int has_mget;
	struct interpreter *interpreter; /* instead of all but open, fill and close */

	int (*open)(const struct store_shape *shape);  /* empty; -1: bench_absent says why */
	void (*fill)(const struct store_shape *shape); /* NULL: by set */
	void (*close)(void);

	/* By each worker, and by whoever fills. */
	void (*enter)(void);
	void (*leave)(void);
	/* Around some 64 operations; may be NULL. */
	void (*resume)(void);
	void (*pause)(void);
	/* 1 hit, 0 miss, anything else is wrong. */
	int (*get)(store_key key, void *value);
	int (*set)(store_key key, const void *value); /* 1 stored */
	int (*mget)(store_key *keys,
		    void *values); /* STORE_BATCH of them, values one behind the other; hits */
};

/* Open and full, in this shape. */
int store_prepare(const struct store *store, const struct store_shape *shape);
void store_close(const struct store *store);

/* What all stores fill values with, so that a mixed one is seen: the first and the last byte are the same. */
void store_value(char *value, size_t size_bytes, uint32_t number);

extern const struct store store_model, store_log, store_coshm, store_rculfhash, store_ck,
	store_lmdb, store_memcached, store_redis, store_apcu, store_shared_dict;

#endif
