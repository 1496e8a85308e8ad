/* SPDX-License-Identifier: MIT */
/* memcached by its text protocol: an answer is waited for per operation, as a caller does that needs it. */
#include "store.h"

#include "../support/server.h"
#include "../support/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct bench_server server;
static struct bench_wire *wire;
static size_t value_bytes;

static int memcached_open(const struct store_shape *shape)
{
	char megabytes[32];
	const char *arguments[] = {"memcached", "-s", BENCH_SERVER_SOCKET, "-u",
				   "root",	"-m", megabytes,	   NULL};

	value_bytes = shape->value_bytes;
	snprintf(megabytes, sizeof(megabytes), "%llu",
		 shape->evict_at_bytes
			 ? (unsigned long long)(shape->evict_at_bytes >> 20)
			 : (unsigned long long)(shape->key_count * (value_bytes + 200) * 2 >> 20) +
				   64);
	return bench_server_start(&server, arguments);
}

static void memcached_close(void)
{
	bench_server_stop(&server);
}

static void memcached_enter(void)
{
	wire = bench_wire_open(server.socket);
	if (!wire)
		bench_fail("memcached");
}

static void memcached_leave(void)
{
	bench_wire_close(wire);
	wire = NULL;
}

static void ask_set(store_key key, const void *value, const char *options)
{
	bench_wire_print(wire, "set %.*s 0 0 %zu%s\r\n", BENCH_KEY_BYTES, key, value_bytes,
			 options);
	bench_wire_put(wire, value, value_bytes);
	bench_wire_put(wire, "\r\n", 2);
}

static void memcached_fill(const struct store_shape *shape)
{
	char key[BENCH_KEY_BYTES], value[STORE_VALUE_MAX];

	memcached_enter();
	for (uint32_t i = 0; i < shape->key_count; i++) {
		bench_make_key(key, i);
		store_value(value, value_bytes, i);
		ask_set(key, value, " noreply");
	}
	bench_wire_print(wire, "version\r\n");
	bench_wire_line(wire);
	memcached_leave();
}

/* Reads values up to END, into one place or one behind the other. */
static int read_values(char *values, size_t step_bytes)
{
	int hits = 0;

	for (;;) {
		const char *line = bench_wire_line(wire), *size;

		if (!strcmp(line, "END"))
			return hits;
		size = strrchr(line, ' ');
		if (strncmp(line, "VALUE ", 6) || !size || strtoull(size, NULL, 10) != value_bytes)
			return -1;
		memcpy(values + (size_t)hits * step_bytes, bench_wire_bytes(wire, value_bytes),
		       value_bytes);
		hits++;
	}
}

static int memcached_get(store_key key, void *value)
{
	bench_wire_print(wire, "get %.*s\r\n", BENCH_KEY_BYTES, key);
	return read_values(value, 0);
}

static int memcached_set(store_key key, const void *value)
{
	ask_set(key, value, "");
	return !strcmp(bench_wire_line(wire), "STORED");
}

/* A key asked for twice is answered twice. */
static int memcached_mget(store_key *keys, void *values)
{
	bench_wire_put(wire, "get", 3);
	for (int i = 0; i < STORE_BATCH; i++)
		bench_wire_print(wire, " %.*s", BENCH_KEY_BYTES, keys[i]);
	bench_wire_put(wire, "\r\n", 2);
	return read_values(values, value_bytes);
}

const struct store store_memcached = {
	.name = "memcached, unix socket",
	.lacks = "a daemon: gone with it; evicts per size class",
	.server = 1,
	.evicts = 1,
	.has_mget = 1,
	.open = memcached_open,
	.fill = memcached_fill,
	.close = memcached_close,
	.enter = memcached_enter,
	.leave = memcached_leave,
	.get = memcached_get,
	.set = memcached_set,
	.mget = memcached_mget,
};
