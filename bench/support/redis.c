/* SPDX-License-Identifier: MIT */
#include "redis.h"

#include "bench.h"
#include "server.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct bench_server server;

const char *bench_redis_start(const char *const options[])
{
	const char *arguments[32] = {"redis-server",
				     "--port",
				     "0",
				     "--unixsocket",
				     BENCH_SERVER_SOCKET,
				     "--save",
				     "",
				     "--appendonly",
				     "no",
				     "--dir",
				     BENCH_SERVER_FOLDER};
	int count = 0;

	if (server.pid)
		return server.socket;
	while (arguments[count])
		count++;
	for (int i = 0; options && options[i]; i++)
		arguments[count++] = options[i];
	return bench_server_start(&server, arguments) ? NULL : server.socket;
}

void bench_redis_stop(void)
{
	bench_server_stop(&server);
}

void bench_redis_header(struct bench_wire *wire, int count)
{
	bench_wire_print(wire, "*%d\r\n", count);
}

void bench_redis_word(struct bench_wire *wire, const void *bytes, size_t size_bytes)
{
	bench_wire_print(wire, "$%zu\r\n", size_bytes);
	bench_wire_put(wire, bytes, size_bytes);
	bench_wire_put(wire, "\r\n", 2);
}

void bench_redis_command(struct bench_wire *wire, int count, ...)
{
	va_list words;

	bench_redis_header(wire, count);
	va_start(words, count);
	for (int i = 0; i < count; i++) {
		const char *word = va_arg(words, const char *);

		bench_redis_word(wire, word, strlen(word));
	}
	va_end(words);
}

struct bench_redis_reply bench_redis_read(struct bench_wire *wire)
{
	const char *line = bench_wire_line(wire);
	struct bench_redis_reply reply = {.type = line[0], .bytes = line + 1};

	if (strchr(":$*", reply.type))
		reply.number = atoll(line + 1);
	if (reply.type == '$' && reply.number >= 0)
		reply.bytes = bench_wire_bytes(wire, (size_t)reply.number);
	return reply;
}

void bench_redis_skip(struct bench_wire *wire)
{
	struct bench_redis_reply reply = bench_redis_read(wire);

	if (reply.type == '-') {
		fprintf(stderr, "bench: Redis says: %s\n", reply.bytes);
		exit(1);
	}
	for (long long i = 0; reply.type == '*' && i < reply.number; i++)
		bench_redis_skip(wire);
}
