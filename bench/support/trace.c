/* SPDX-License-Identifier: MIT */
#include "trace.h"

#include "bench.h"
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add(struct bench_trace *trace, struct bench_request request)
{
	if (trace->count == trace->room) {
		trace->room = trace->room ? 2 * trace->room : 4096;
		trace->requests = realloc(trace->requests, trace->room * sizeof(*trace->requests));
		if (!trace->requests)
			bench_fail("realloc");
	}
	trace->requests[trace->count++] = request;
	trace->get_count += !request.stores;
	if (request.size_bytes > trace->size_max_bytes)
		trace->size_max_bytes = request.size_bytes;
}

static void measure(struct bench_trace *trace)
{
	unsigned char *seen = calloc(trace->object_count, 1);

	if (!seen)
		bench_fail("calloc");
	for (size_t i = 0; i < trace->count; i++) {
		const struct bench_request *r = &trace->requests[i];

		if (!seen[r->object])
			trace->distinct_bytes += r->size_bytes;
		seen[r->object] = 1;
	}
	free(seen);
	trace->at_ms = calloc(trace->count, sizeof(*trace->at_ms));
	if (!trace->at_ms)
		bench_fail("calloc");
}

void bench_trace_free(struct bench_trace *trace)
{
	free(trace->requests);
	free(trace->at_ms);
	trace->requests = NULL;
	trace->at_ms = NULL;
}

/* --- recorded --- */

/* Ids of any kind become numbers in the order of their first request. */
struct numbers {
	uint64_t *id; /* + 1; 0 is free */
	uint32_t *number;
	size_t room, used;
};

static uint32_t *place_of(const struct numbers *numbers, uint64_t id)
{
	size_t at = (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (numbers->room - 1);

	while (numbers->id[at] && numbers->id[at] != id + 1)
		at = (at + 1) & (numbers->room - 1);
	numbers->id[at] = id + 1;
	return &numbers->number[at];
}

static void enlarge(struct numbers *numbers)
{
	struct numbers old = *numbers;

	numbers->room = old.room ? 2 * old.room : 1 << 16;
	numbers->id = calloc(numbers->room, sizeof(*numbers->id));
	numbers->number = calloc(numbers->room, sizeof(*numbers->number));
	if (!numbers->id || !numbers->number)
		bench_fail("calloc");
	for (size_t i = 0; i < old.room; i++)
		if (old.id[i])
			*place_of(numbers, old.id[i] - 1) = old.number[i];
	free(old.id);
	free(old.number);
}

static uint32_t number_of(struct numbers *numbers, uint64_t id)
{
	uint32_t *number;

	if (2 * numbers->used >= numbers->room)
		enlarge(numbers);
	number = place_of(numbers, id);
	if (!*number)
		*number = (uint32_t)++numbers->used;
	return *number - 1;
}

struct columns {
	int size, id;
};

static int is_one_of(const char *word, const char *const names[])
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(word, names[i]))
			return 1;
	return 0;
}

/* 0: the line holds no names. */
static int read_heading(char *line, struct columns *columns)
{
	const char *const sizes[] = {"size", "obj_size", NULL};
	const char *const ids[] = {"id", "lbn", "obj_id", "object", NULL};
	struct columns found = {-1, -1};
	char *rest = line, *word;

	for (int i = 0; (word = strsep(&rest, ",\r\n")); i++) {
		if (is_one_of(word, sizes))
			found.size = i;
		else if (is_one_of(word, ids))
			found.id = i;
	}
	if (found.size < 0 || found.id < 0)
		return 0;
	*columns = found;
	return 1;
}

/* Ids that are no numbers count by their bytes. */
static uint64_t id_of(const char *word)
{
	char *end;
	uint64_t id = strtoull(word, &end, 10);

	if (end != word && !*end)
		return id;
	for (id = UINT64_C(1469598103934665603); *word; word++)
		id = (id ^ (unsigned char)*word) * UINT64_C(1099511628211);
	return id;
}

static void read_request(struct bench_trace *trace, struct numbers *numbers, char *line,
			 struct columns columns)
{
	char *rest = line, *word, *size = NULL, *id = NULL;
	unsigned long bytes;

	for (int i = 0; (word = strsep(&rest, ",\r\n")); i++) {
		size = i == columns.size ? word : size;
		id = i == columns.id ? word : id;
	}
	bytes = size ? strtoul(size, NULL, 10) : 0;
	if (id && bytes > 0 && bytes <= 1 << 28)
		add(trace, (struct bench_request){.object = number_of(numbers, id_of(id)),
						  .size_bytes = (uint32_t)bytes});
}

int bench_trace_read(struct bench_trace *trace, const char *path)
{
	struct columns columns = {1, 2};
	struct numbers numbers = {0};
	char line[1024], first[1024];
	FILE *file = fopen(path, "r");

	*trace = (struct bench_trace){.name = path};
	if (!file || !fgets(line, sizeof(line), file)) {
		if (file)
			fclose(file);
		return -1;
	}
	memcpy(first, line, sizeof(first));
	if (!read_heading(line, &columns))
		read_request(trace, &numbers, first, columns);
	while (fgets(line, sizeof(line), file))
		read_request(trace, &numbers, line, columns);
	fclose(file);
	free(numbers.id);
	free(numbers.number);
	trace->object_count = (uint32_t)numbers.used;
	measure(trace);
	return trace->count > 0 ? 0 : -1;
}

/* --- made up --- */

/* 64 bytes to 16 KiB, each doubling as likely as the other. */
static uint32_t size_of(uint32_t object)
{
	uint64_t mixed = (object + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15) >> 16;
	uint32_t low = 64u << mixed % 8;

	return low + (uint32_t)(mixed >> 8) % low;
}

/* Some tens of thousands of requests, and twenty times as many. */
enum { TTL_SHORT_MS = 50, TTL_LONG_MS = 1000 };

static uint32_t ttl_of(uint32_t object)
{
	return object % 2 == 0 ? 0 : object % 8 == 1 ? TTL_SHORT_MS : TTL_LONG_MS;
}

static void add_made(struct bench_trace *trace, uint32_t object)
{
	add(trace, (struct bench_request){.object = object, .size_bytes = size_of(object)});
}

/* Zipf, in the way of this kind. @part is how much of the trace has gone by, in tenths. */
static void add_rank(struct bench_trace *trace, enum bench_trace_kind kind, uint32_t rank,
		     uint32_t object_count, size_t part)
{
	struct bench_request request = {.object = rank};

	if (kind == BENCH_TRACE_SHIFT)
		request.object = (uint32_t)((rank + part * (object_count / 10)) % object_count);
	request.size_bytes = size_of(request.object);
	request.stores = kind == BENCH_TRACE_OVERWRITE && trace->count % 2 == 1;
	request.ttl_ms = kind == BENCH_TRACE_TTL ? ttl_of(request.object) : 0;
	add(trace, request);
}

void bench_trace_make(struct bench_trace *trace, enum bench_trace_kind kind, uint32_t object_count,
		      size_t count)
{
	static const char *const names[] = {
		[BENCH_TRACE_ZIPF] = "Zipf 0.99",
		[BENCH_TRACE_SCAN] = "Zipf 0.99 and scans",
		[BENCH_TRACE_LOOP] = "a loop",
		[BENCH_TRACE_ONE_HIT] = "Zipf 0.99, half one-hit",
		[BENCH_TRACE_SHIFT] = "Zipf 0.99, shifting",
		[BENCH_TRACE_OVERWRITE] = "Zipf 0.99, half sets",
		[BENCH_TRACE_TTL] = "Zipf 0.99, half expire",
	};
	uint64_t random = UINT64_C(88172645463325252);
	uint32_t *ranks = malloc(count * sizeof(*ranks)), next = object_count;
	size_t scan_every = count / 10, scan_length = object_count / 5;

	if (!ranks)
		bench_fail("malloc");
	*trace = (struct bench_trace){.name = names[kind]};
	bench_zipf(ranks, (uint32_t)count, object_count, 0.99, &random);
	for (size_t i = 0; trace->count < count; i++) {
		if (kind == BENCH_TRACE_LOOP)
			add_made(trace, (uint32_t)(i % object_count));
		else
			add_rank(trace, kind, ranks[i], object_count, trace->count * 10 / count);
		if (kind == BENCH_TRACE_ONE_HIT)
			add_made(trace, next++);
		if (kind == BENCH_TRACE_SCAN && i % scan_every == scan_every - 1)
			for (size_t k = 0; k < scan_length; k++)
				add_made(trace, next++);
	}
	free(ranks);
	trace->object_count = next;
	measure(trace);
}
