/* SPDX-License-Identifier: MIT */
/* bench/support/trace.h - sequences of requests for objects, recorded or made up */
#ifndef BENCH_SUPPORT_TRACE_H
#define BENCH_SUPPORT_TRACE_H

#include <stddef.h>
#include <stdint.h>

struct bench_request {
	uint32_t object; /* 0 to object_count - 1 */
	uint32_t size_bytes;
	uint32_t ttl_ms; /* of the value, if this request puts one in; 0: for ever */
	uint32_t stores; /* 1: a set, whatever is there; 0: a get, and a set if it misses */
};

struct bench_trace {
	const char *name;
	struct bench_request *requests;
	size_t count, room;
	size_t get_count;
	uint32_t *
		at_ms; /* when each request came in the last replay: what has expired for one has for all */
	uint32_t object_count;
	uint32_t size_max_bytes;
	uint64_t distinct_bytes; /* of all objects, each at the size of its first request */
};

/*
 * CSV with the columns time, size and id. A first line of names may put them in any order, with others between; an id is
 * also recognized as lbn, obj_id or object. -1: not readable, or no request in it.
 */
int bench_trace_read(struct bench_trace *trace, const char *path);

enum bench_trace_kind {
	BENCH_TRACE_ZIPF,
	BENCH_TRACE_SCAN, /* Zipf, and ever again a run through objects that nobody asks for again */
	BENCH_TRACE_LOOP,    /* all objects in turn, again and again */
	BENCH_TRACE_ONE_HIT, /* Zipf, and every other request is for an object never asked for again */
	BENCH_TRACE_SHIFT,     /* Zipf, and what is popular changes ten times */
	BENCH_TRACE_OVERWRITE, /* Zipf, and half of the requests are sets */
	BENCH_TRACE_TTL,       /* Zipf, and half of the objects expire, a quarter of them soon */
	BENCH_TRACE_KINDS,
};

void bench_trace_make(struct bench_trace *trace, enum bench_trace_kind kind, uint32_t object_count,
		      size_t count);
void bench_trace_free(struct bench_trace *trace);

#endif
