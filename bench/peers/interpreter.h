/* SPDX-License-Identifier: MIT */
/*
 * bench/peers/interpreter.h - a store that only another language reaches: a script loops over the keys, and is asked for
 * a long stretch of them at a time
 *
 * What the loop takes without the store is measured by each worker before it starts, in CPU time, and subtracted: the
 * figure is the store's, not the language's.
 */
#ifndef BENCH_PEERS_INTERPRETER_H
#define BENCH_PEERS_INTERPRETER_H

#include "store.h"

#include "../support/server.h"
#include "../support/wire.h"

enum { INTERPRETER_PROCS = 4 };

/* In the server's folder until it has started. */
enum interpreter_file { INTERPRETER_KEYS, INTERPRETER_CONF, INTERPRETER_PID, INTERPRETER_FILES };

struct interpreter {
	const char *note;  /* what its loop's time is reported as */
	const char *needs; /* Debian's packages */
	struct bench_server server;
	char files[INTERPRETER_FILES][96];
	double *loop_ns; /* per get, as it was measured last; shared by all workers */

	/* The worker's. */
	struct bench_wire *wire;
	uint64_t aside_ns;
};

/* Names its files and writes the load's keys, one behind the other. */
void interpreter_prepare(struct interpreter *interpreter, const struct store_shape *shape);
/* As bench_server_start_caller. Behind it the files are gone: they are read before the first process connects. */
int interpreter_start(struct interpreter *interpreter, const char *const arguments[]);
void interpreter_fill(struct interpreter *interpreter, const struct store_shape *shape);
void interpreter_stop(struct interpreter *interpreter);

/* operation: "get" or "set". */
void interpreter_begin(struct interpreter *interpreter, const char *operation,
		       struct bench_worker *worker);
void interpreter_step(struct interpreter *interpreter, const char *operation,
		      struct bench_worker *worker);
void interpreter_end(struct interpreter *interpreter);

void interpreter_report(const struct interpreter *interpreter);

#endif
