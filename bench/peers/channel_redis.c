/* SPDX-License-Identifier: MIT */
/* Redis as a queue: a list, and a stream with a group of consumers. Answers are waited for. */
#include "channel.h"

#include "../support/redis.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *path;
static struct bench_wire *wire;
static size_t payload_bytes;
static char consumer[32];

static void enter(int procs)
{
	(void)procs;
	snprintf(consumer, sizeof(consumer), "%d", (int)getpid());
	wire = bench_wire_open(path);
	if (!wire)
		bench_fail("Redis");
}

static void leave(void)
{
	bench_wire_close(wire);
	wire = NULL;
}

static int redis_open(size_t size_bytes)
{
	payload_bytes = size_bytes;
	path = bench_redis_start(NULL);
	if (!path)
		return -1;
	enter(0);
	bench_redis_command(wire, 1, "FLUSHALL");
	bench_redis_skip(wire);
	bench_redis_command(wire, 6, "XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM");
	bench_redis_skip(wire);
	leave();
	return 0;
}

static void redis_close(void)
{
	bench_redis_stop();
}

static void take(void *payload, const struct bench_redis_reply *reply)
{
	if (reply->type != '$' || (size_t)reply->number != payload_bytes)
		bench_fail("Redis: another answer than expected");
	memcpy(payload, reply->bytes, payload_bytes);
}

static void list_put(const void *payload)
{
	bench_redis_header(wire, 3);
	bench_redis_word(wire, "LPUSH", 5);
	bench_redis_word(wire, "list", 4);
	bench_redis_word(wire, payload, payload_bytes);
	bench_redis_skip(wire);
}

static void list_get(void *payload)
{
	struct bench_redis_reply reply;

	bench_redis_command(wire, 3, "BRPOP", "list", "0");
	bench_redis_read(wire); /* of two parts: */
	bench_redis_read(wire); /* the list's name */
	reply = bench_redis_read(wire);
	take(payload, &reply);
}

const struct channel channel_redis_list = {
	.name = "Redis list, unix socket",
	.lacks = "no acknowledgement; a daemon: gone with it",
	.payload_max_bytes = CHANNEL_PAYLOAD_MAX,
	.sleeps = 1,
	.server = 1,
	.slowness = 100,
	.open = redis_open,
	.close = redis_close,
	.enter = enter,
	.leave = leave,
	.put = list_put,
	.get = list_get,
};

static void stream_put(const void *payload)
{
	bench_redis_header(wire, 5);
	bench_redis_word(wire, "XADD", 4);
	bench_redis_word(wire, "stream", 6);
	bench_redis_word(wire, "*", 1);
	bench_redis_word(wire, "p", 1);
	bench_redis_word(wire, payload, payload_bytes);
	bench_redis_skip(wire);
}

/* [[stream, [[id, [field, value]]]]] */
static void stream_get(void *payload)
{
	struct bench_redis_reply reply;
	char id[64];

	bench_redis_command(wire, 11, "XREADGROUP", "GROUP", "group", consumer, "COUNT", "1",
			    "BLOCK", "0", "STREAMS", "stream", ">");
	bench_redis_read(wire);
	bench_redis_read(wire);
	bench_redis_read(wire);
	bench_redis_read(wire);
	bench_redis_read(wire);
	reply = bench_redis_read(wire);
	snprintf(id, sizeof(id), "%.*s", (int)reply.number, reply.bytes);
	bench_redis_read(wire);
	bench_redis_read(wire);
	reply = bench_redis_read(wire);
	take(payload, &reply);
	bench_redis_command(wire, 4, "XACK", "stream", "group", id);
	bench_redis_skip(wire);
}

const struct channel channel_redis_stream = {
	.name = "Redis stream, unix socket",
	.lacks = "a dead worker's tasks come back by a timeout; a daemon: gone with it",
	.payload_max_bytes = CHANNEL_PAYLOAD_MAX,
	.sleeps = 1,
	.server = 1,
	.slowness = 100,
	.open = redis_open,
	.close = redis_close,
	.enter = enter,
	.leave = leave,
	.put = stream_put,
	.get = stream_get,
};
