/* SPDX-License-Identifier: MIT */
/* LMDB on the same tmpfs, without syncs: a transaction per operation, a read transaction renewed per get. */
#include "store.h"

#ifdef BENCH_HAVE_LMDB

#include <lmdb.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];
static size_t value_bytes, map_bytes;
static MDB_env *env;
static MDB_dbi database;
static MDB_txn *reader;

static void check(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "bench: LMDB: %s: %s\n", what, mdb_strerror(error));
	exit(1);
}

/* An environment does not outlive a fork: each worker opens its own. */
static void lmdb_enter(void)
{
	MDB_txn *transaction;

	check(mdb_env_create(&env), "create");
	check(mdb_env_set_mapsize(env, map_bytes), "map size");
	check(mdb_env_open(env, folder, MDB_NOSYNC | MDB_NOMETASYNC | MDB_WRITEMAP | MDB_NOTLS,
			   0600),
	      "open");
	check(mdb_txn_begin(env, NULL, 0, &transaction), "begin");
	check(mdb_dbi_open(transaction, NULL, 0, &database), "database");
	check(mdb_txn_commit(transaction), "commit");
	check(mdb_txn_begin(env, NULL, MDB_RDONLY, &reader), "begin to read");
	mdb_txn_reset(reader);
}

static void lmdb_leave(void)
{
	mdb_txn_abort(reader);
	mdb_env_close(env);
	env = NULL;
}

static int lmdb_open(const struct store_shape *shape)
{
	char file[96];

	value_bytes = shape->value_bytes;
	map_bytes = (value_bytes + 200) * 2 * (size_t)shape->key_count + (64 << 20);
	snprintf(folder, sizeof(folder), "/dev/shm/coshm-bench-lmdb-XXXXXX");
	if (!mkdtemp(folder))
		bench_fail("mkdtemp");
	bench_remove_at_exit(folder);
	snprintf(file, sizeof(file), "%s/data.mdb", folder);
	bench_remove_at_exit(file);
	snprintf(file, sizeof(file), "%s/lock.mdb", folder);
	bench_remove_at_exit(file);
	return 0;
}

static void lmdb_close(void)
{
	char file[96];

	snprintf(file, sizeof(file), "%s/data.mdb", folder);
	unlink(file);
	bench_removed(file);
	snprintf(file, sizeof(file), "%s/lock.mdb", folder);
	unlink(file);
	bench_removed(file);
	rmdir(folder);
	bench_removed(folder);
}

static int put(MDB_txn *transaction, store_key key, const void *value)
{
	MDB_val name = {.mv_size = BENCH_KEY_BYTES, .mv_data = (void *)(uintptr_t)key};
	MDB_val data = {.mv_size = value_bytes, .mv_data = (void *)(uintptr_t)value};

	return mdb_put(transaction, database, &name, &data, 0);
}

static void lmdb_fill(const struct store_shape *shape)
{
	char key[BENCH_KEY_BYTES], value[STORE_VALUE_MAX];
	MDB_txn *transaction;

	lmdb_enter();
	check(mdb_txn_begin(env, NULL, 0, &transaction), "begin");
	for (uint32_t i = 0; i < shape->key_count; i++) {
		bench_make_key(key, i);
		store_value(value, value_bytes, i);
		check(put(transaction, key, value), "put");
	}
	check(mdb_txn_commit(transaction), "commit");
	lmdb_leave();
}

static int get(store_key key, void *value)
{
	MDB_val name = {.mv_size = BENCH_KEY_BYTES, .mv_data = (void *)(uintptr_t)key}, data;
	int error = mdb_get(reader, database, &name, &data);

	if (error)
		return error == MDB_NOTFOUND ? 0 : -1;
	if (data.mv_size != value_bytes)
		return -1;
	memcpy(value, data.mv_data, value_bytes);
	bench_use(value);
	return 1;
}

static int lmdb_get(store_key key, void *value)
{
	int hit;

	if (mdb_txn_renew(reader))
		return -1;
	hit = get(key, value);
	mdb_txn_reset(reader);
	return hit;
}

static int lmdb_set(store_key key, const void *value)
{
	MDB_txn *transaction;

	return !mdb_txn_begin(env, NULL, 0, &transaction) && !put(transaction, key, value) &&
	       !mdb_txn_commit(transaction);
}

static int lmdb_mget(store_key *keys, void *values)
{
	int hits = 0;

	if (mdb_txn_renew(reader))
		return -1;
	for (size_t i = 0; i < STORE_BATCH; i++)
		hits += get(keys[i], (char *)values + i * value_bytes) == 1;
	mdb_txn_reset(reader);
	return hits;
}

const struct store store_lmdb = {
	.name = "LMDB, no sync",
	.lacks = "no eviction, no expiry; has ordered keys and transactions",
	.has_mget = 1,
	.open = lmdb_open,
	.fill = lmdb_fill,
	.close = lmdb_close,
	.enter = lmdb_enter,
	.leave = lmdb_leave,
	.get = lmdb_get,
	.set = lmdb_set,
	.mget = lmdb_mget,
};

#else
const struct store store_lmdb = {
	.name = "LMDB, no sync",
	.absent = "lmdb was not there at configure",
};
#endif
