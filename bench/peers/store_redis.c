/* SPDX-License-Identifier: MIT */
/* Redis: an answer is waited for per operation, as a caller does that needs it. */
#include "store.h"

#include "../support/redis.h"

#include <stdio.h>
#include <string.h>

enum { PIPELINE = 64 };

static const char *path;
static struct bench_wire *wire;
static size_t value_bytes;

static int redis_open(const struct store_shape *shape)
{
	char bytes[32];
	const char *options[] = {"--maxmemory", bytes, "--maxmemory-policy", "allkeys-lru", NULL};

	value_bytes = shape->value_bytes;
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)shape->evict_at_bytes);
	path = bench_redis_start(options);
	return path ? 0 : -1;
}

static void redis_close(void)
{
	bench_redis_stop();
}

static void redis_enter(void)
{
	wire = bench_wire_open(path);
	if (!wire)
		bench_fail("Redis");
}

static void redis_leave(void)
{
	bench_wire_close(wire);
	wire = NULL;
}

static void ask_set(store_key key, const void *value)
{
	bench_redis_header(wire, 3);
	bench_redis_word(wire, "SET", 3);
	bench_redis_word(wire, key, BENCH_KEY_BYTES);
	bench_redis_word(wire, value, value_bytes);
}

static void redis_fill(const struct store_shape *shape)
{
	char key[BENCH_KEY_BYTES], value[STORE_VALUE_MAX];
	uint32_t asked = 0;

	redis_enter();
	for (uint32_t i = 0; i < shape->key_count; i++) {
		bench_make_key(key, i);
		store_value(value, value_bytes, i);
		ask_set(key, value);
		if (++asked == PIPELINE || i + 1 == shape->key_count)
			for (; asked > 0; asked--)
				bench_redis_skip(wire);
	}
	redis_leave();
}

static int read_value(void *value)
{
	struct bench_redis_reply reply = bench_redis_read(wire);

	if (reply.type != '$' || reply.number < 0)
		return reply.type == '$' ? 0 : -1;
	if ((size_t)reply.number != value_bytes)
		return -1;
	memcpy(value, reply.bytes, value_bytes);
	return 1;
}

static int redis_get(store_key key, void *value)
{
	bench_redis_header(wire, 2);
	bench_redis_word(wire, "GET", 3);
	bench_redis_word(wire, key, BENCH_KEY_BYTES);
	return read_value(value);
}

static int redis_set(store_key key, const void *value)
{
	ask_set(key, value);
	return bench_redis_read(wire).type == '+';
}

static int redis_mget(store_key *keys, void *values)
{
	int hits = 0;

	bench_redis_header(wire, 1 + STORE_BATCH);
	bench_redis_word(wire, "MGET", 4);
	for (int i = 0; i < STORE_BATCH; i++)
		bench_redis_word(wire, keys[i], BENCH_KEY_BYTES);
	if (bench_redis_read(wire).number != STORE_BATCH)
		return -1;
	for (size_t i = 0; i < STORE_BATCH; i++)
		hits += read_value((char *)values + i * value_bytes) == 1;
	return hits;
}

const struct store store_redis = {
	.name = "Redis, unix socket",
	.lacks = "a daemon: gone with it; evicts by sampling",
	.server = 1,
	.evicts = 1,
	.has_mget = 1,
	.open = redis_open,
	.fill = redis_fill,
	.close = redis_close,
	.enter = redis_enter,
	.leave = redis_leave,
	.get = redis_get,
	.set = redis_set,
	.mget = redis_mget,
};
