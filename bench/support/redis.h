/* SPDX-License-Identifier: MIT */
/* bench/support/redis.h - the little of Redis's protocol that the benches speak */
#ifndef BENCH_SUPPORT_REDIS_H
#define BENCH_SUPPORT_REDIS_H

#include "wire.h"

/* Starts one in a folder of its own, once; it ends with the program. NULL: the path of its socket cannot be had. */
const char *bench_redis_start(const char *const options[]);
void bench_redis_stop(void);

/* A command of count words, text without zero bytes; bench_redis_word adds one more that may be anything. */
void bench_redis_command(struct bench_wire *wire, int count, ...);
void bench_redis_header(struct bench_wire *wire, int count);
void bench_redis_word(struct bench_wire *wire, const void *bytes, size_t size_bytes);

struct bench_redis_reply {
	char type; /* one of + - : $ * */
	long long
		number; /* of ':'; size of '$' (-1: nothing); count of '*', whose parts are read one by one */
	const char *bytes; /* of + - $; valid until the next call */
};

struct bench_redis_reply bench_redis_read(struct bench_wire *wire);
/* Reads a reply with all its parts and forgets it, unless it is an error. */
void bench_redis_skip(struct bench_wire *wire);

#endif
