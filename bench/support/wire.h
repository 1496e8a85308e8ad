/* SPDX-License-Identifier: MIT */
/* bench/support/wire.h - a connection to a server on a Unix socket, with a buffer in each direction */
#ifndef BENCH_SUPPORT_WIRE_H
#define BENCH_SUPPORT_WIRE_H

#include <stddef.h>

enum { BENCH_WIRE_BYTES = 1 << 18 };

struct bench_wire {
	int fd;
	size_t out_size;
	size_t in_at, in_end;
	char out[BENCH_WIRE_BYTES];
	char in[BENCH_WIRE_BYTES];
};

/* NULL: nobody listens there. */
struct bench_wire *bench_wire_open(const char *path);
/* The other end: a socket, and who connects to it, within a minute. NULL: nobody does. */
int bench_wire_listen(const char *path);
struct bench_wire *bench_wire_accept(int listener);
void bench_wire_close(struct bench_wire *wire);

/* Collects; what is collected goes out when an answer is wanted. Errors end the process: a bench has no plan B. */
void bench_wire_put(struct bench_wire *wire, const void *bytes, size_t size_bytes);
void bench_wire_print(struct bench_wire *wire, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* A line without its end, valid until the next call. */
const char *bench_wire_line(struct bench_wire *wire);
/* So many bytes and the line end behind them; valid until the next call. */
const char *bench_wire_bytes(struct bench_wire *wire, size_t size_bytes);

#endif
