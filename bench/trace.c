/* SPDX-License-Identifier: MIT */
/*
 * bench/trace - how often does the cache miss, how often would the textbook, and how much does the cache copy for it?
 *
 *	trace [--quick] [--json] [--trace FILE]... [SIZE]...
 *
 * Replays made-up traces, and each FILE: CSV with the columns time, size and id (support/trace.h says what else is read).
 * A request is a get, a miss is followed by a set; in one of those made up half are sets. Each SIZE (bytes; K, M, G) is
 * the memory of the cache, all its tables included; the simulated policies get as many bytes for values alone. Without a
 * SIZE it is 5, 10 and 25 % of the bytes of all objects, each counted once.
 */
#include "peers/policy.h"
#include "support/bench.h"

#include <coshm/coshm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES_MAX = 16, FILES_MAX = 16, CAPACITY_MIN = 1 << 20 };

static const char *files[FILES_MAX];
static uint64_t sizes[SIZES_MAX];
static int file_count, size_count, json, lines_printed, above_lru;

enum subject { OUR_S3FIFO, ITEM_S3FIFO, ITEM_SIEVE, OUR_LRU, ITEM_LRU, SUBJECTS };

static const char *const subject_names[SUBJECTS] = {
	"coshm s3fifo", "item S3-FIFO", "item SIEVE", "coshm lru", "item LRU",
};

struct result {
	double miss_percent[SUBJECTS];
	double copied[SUBJECTS]; /* bytes per byte inserted; of ours */
};

static double percent(const struct bench_trace *trace, size_t misses)
{
	return 100 * (double)misses / (double)trace->get_count;
}

static void replay(struct bench_trace *trace, uint64_t capacity_bytes, uint32_t policy,
		   struct result *result, enum subject subject)
{
	const struct coshm_segment_config memory = {.size_bytes = capacity_bytes + (4 << 20)};
	const struct coshm_cache_config config = {
		.size_bytes = capacity_bytes,
		.policy = policy,
		.lanes = 1,
		.average_item_bytes =
			sizeof(uint32_t) + trace->distinct_bytes / trace->object_count,
	};
	unsigned char *written = calloc(1, trace->size_max_bytes);
	unsigned char *read = malloc(trace->size_max_bytes);
	uint64_t misses = 0, inserted_bytes = 0, relocated_bytes, begin_ns;
	struct coshm_segment *segment;
	struct coshm_cache *cache;

	if (!written || !read)
		bench_fail("malloc");
	bench_need(coshm_segment_create(bench_segment_name(), &memory, 0, &segment), "segment");
	bench_need(coshm_cache_create(segment, "trace", &config, 0, &cache), "cache");
	begin_ns = coshm_segment_now_ns(segment);
	for (size_t i = 0; i < trace->count; i++) {
		const struct bench_request *r = &trace->requests[i];
		size_t size_bytes = trace->size_max_bytes;
		int hit = 0;

		trace->at_ms[i] = (uint32_t)((coshm_segment_now_ns(segment) - begin_ns) / 1000000);
		if (!r->stores) {
			hit = coshm_cache_get(cache, &r->object, sizeof(r->object), read,
					      &size_bytes, NULL);
			bench_need(hit, "get");
			misses += !hit;
		}
		if (hit)
			continue;
		inserted_bytes += sizeof(r->object) + r->size_bytes;
		bench_need(coshm_cache_set(cache, &r->object, sizeof(r->object), written,
					   r->size_bytes, r->ttl_ms * UINT64_C(1000000)),
			   "set");
	}
	bench_need(coshm_stats_value(segment, "trace", "relocated", &relocated_bytes), "stats");
	bench_need(coshm_segment_detach(segment), "detach");
	bench_need(coshm_segment_unlink(bench_segment_name()), "unlink");
	free(written);
	free(read);
	result->miss_percent[subject] = percent(trace, misses);
	result->copied[subject] = (double)relocated_bytes / (double)inserted_bytes;
}

static struct result run(struct bench_trace *trace, uint64_t capacity_bytes)
{
	struct result r;

	/* The simulated ones see what has expired by the clock of the replay in front of them. */
	replay(trace, capacity_bytes, COSHM_CACHE_S3FIFO, &r, OUR_S3FIFO);
	r.miss_percent[ITEM_S3FIFO] = percent(trace, policy_s3fifo(trace, capacity_bytes));
	r.miss_percent[ITEM_SIEVE] = percent(trace, policy_sieve(trace, capacity_bytes));
	replay(trace, capacity_bytes, COSHM_CACHE_LRU, &r, OUR_LRU);
	r.miss_percent[ITEM_LRU] = percent(trace, policy_lru(trace, capacity_bytes));
	return r;
}

/* --- what comes out --- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void print_json(const struct bench_trace *trace, uint64_t capacity_bytes,
		       const struct result *r)
{
	printf("%s  {\"question\": \"%s\", \"requests\": %zu, \"distinct_bytes\": %llu, "
	       "\"bytes\": %llu, \"miss_percent\": {",
	       lines_printed ? ",\n" : "", base_name(trace->name), trace->count,
	       (unsigned long long)trace->distinct_bytes, (unsigned long long)capacity_bytes);
	for (int s = 0; s < SUBJECTS; s++)
		printf("%s\"%s\": %.2f", s ? ", " : "", subject_names[s], r->miss_percent[s]);
	printf("}, \"copied_per_inserted\": {\"%s\": %.3f, \"%s\": %.3f}}",
	       subject_names[OUR_S3FIFO], r->copied[OUR_S3FIFO], subject_names[OUR_LRU],
	       r->copied[OUR_LRU]);
}

static void print_table(uint64_t capacity_bytes, const struct result *r)
{
	printf("%14.1f", (double)capacity_bytes / (1 << 20));
	for (int s = 0; s < SUBJECTS; s++)
		printf(" %13.2f", r->miss_percent[s]);
	printf(" %14.3f %11.3f\n", r->copied[OUR_S3FIFO], r->copied[OUR_LRU]);
}

static void print_heading(const struct bench_trace *trace)
{
	printf("\n%s: %zu requests for %u objects of %.1f MiB\n%14s", base_name(trace->name),
	       trace->count, trace->object_count, (double)trace->distinct_bytes / (1 << 20), "MiB");
	for (int s = 0; s < SUBJECTS; s++)
		printf(" %13s", subject_names[s]);
	printf(" %14s %11s\n", "s3fifo copied", "lru copied");
}

static void run_trace(struct bench_trace *trace)
{
	const uint64_t shares[] = {20, 10, 4};
	int count = size_count ? size_count : 3;

	if (!json)
		print_heading(trace);
	for (int i = 0; i < count; i++) {
		uint64_t capacity = size_count ? sizes[i] : trace->distinct_bytes / shares[i];
		struct result r;

		capacity = (capacity < CAPACITY_MIN ? CAPACITY_MIN : capacity) / 4096 * 4096;
		r = run(trace, capacity);
		above_lru += r.miss_percent[OUR_S3FIFO] > r.miss_percent[ITEM_LRU];
		if (json)
			print_json(trace, capacity, &r);
		else
			print_table(capacity, &r);
		lines_printed++;
		fflush(stdout);
	}
}

/* --- options --- */

static uint64_t parse_size(const char *text)
{
	char *end;
	uint64_t size = strtoull(text, &end, 10);
	const char *unit = *end ? strchr("KMG", *end) : NULL;

	if (unit) {
		size <<= 10 * (unit - "KMG" + 1);
		end++;
	}
	return *end ? 0 : size;
}

static int read_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = 1;
		else if (!strcmp(argv[i], "--quick"))
			bench_quick = 1;
		else if (!strcmp(argv[i], "--trace") && i + 1 < argc && file_count < FILES_MAX)
			files[file_count++] = argv[++i];
		else if (parse_size(argv[i]) >= CAPACITY_MIN && size_count < SIZES_MAX)
			sizes[size_count++] = parse_size(argv[i]);
		else
			return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct bench_trace trace;

	if (read_options(argc, argv)) {
		fprintf(stderr, "usage: trace [--quick] [--json] [--trace FILE]... [SIZE]...\n");
		return 2;
	}
	printf(json ? "{\"program\": \"trace\", \"quick\": %s, \"cases\": [\n"
		    : "misses in percent of the requests; bytes copied per byte inserted%.0s\n",
	       bench_quick ? "true" : "false");
	for (int kind = 0; kind < BENCH_TRACE_KINDS; kind++) {
		bench_trace_make(&trace, (enum bench_trace_kind)kind, bench_quick ? 10000 : 100000,
				 bench_quick ? 100000 : 1000000);
		run_trace(&trace);
		bench_trace_free(&trace);
	}
	for (int i = 0; i < file_count; i++) {
		if (bench_trace_read(&trace, files[i])) {
			fprintf(stderr, "trace: no trace can be read from %s\n", files[i]);
			return 1;
		}
		run_trace(&trace);
		bench_trace_free(&trace);
	}
	printf(json ? "\n], \"above_lru\": %d}\n" : "\ncoshm s3fifo above item LRU: %d times\n",
	       above_lru);
	return 0;
}
