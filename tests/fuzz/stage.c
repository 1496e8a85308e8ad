/* SPDX-License-Identifier: MIT */
#include "fuzz/stage.h"

#include "fuzz/check.h"
#include "modules/cache/cache.h"
#include "modules/limiter/limiter.h"
#include "modules/queue/queue.h"
#include "segment/internal.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef HAS_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

#define AREAS_OF_SEGMENT 5 /* come first */
#define SIZE_BYTES	 (UINT64_C(1) << 20)
#define SIZE_MAX_BYTES	 (UINT64_C(2) << 20)

static char prefix[96];
static struct stage *stages[STAGE_CONTENTS_COUNT][2];

void stage_set_prefix(const char *text)
{
	snprintf(prefix, sizeof(prefix), "/dev/shm/%s", text);
}

static void must(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz: no stage: %s failed\n", what);
	_exit(2);
}

void stage_key(unsigned int index, char ret_key[STAGE_KEY_BYTES + 1])
{
	snprintf(ret_key, STAGE_KEY_BYTES + 1, "key-%02u", index % STAGE_KEY_COUNT);
}

/* --- contents --------------------------------------------------------------------------------------------------- */

static int has_cache(enum stage_contents contents)
{
	return contents <= STAGE_NONE;
}

static int has_limiter(enum stage_contents contents)
{
	return contents == STAGE_ALL || contents == STAGE_LIMITER;
}

static int has_queue(enum stage_contents contents)
{
	return contents == STAGE_ALL || contents == STAGE_QUEUE;
}

static uint32_t policy_of(enum stage_contents contents)
{
	return contents == STAGE_LRU	? COSHM_CACHE_LRU
	       : contents == STAGE_NONE ? COSHM_CACHE_NONE
					: COSHM_CACHE_S3FIFO;
}

/* Small ones, numbers, large ones, some that expire; more than fit, so that pages of every state are there. */
static void fill_cache(struct coshm_segment *segment, enum stage_contents contents)
{
	const struct coshm_cache_config config = {
		.size_bytes = 256 << 10, .policy = policy_of(contents), .lanes = 2};
	static const size_t sizes[] = {10, 100, 3000, 700, 0, 20000, 1500, 1};
	static unsigned char value[32768];
	struct coshm_cache *cache;
	char key[STAGE_KEY_BYTES + 1];

	memset(value, 'v', sizeof(value));
	must(coshm_cache_create(segment, STAGE_CACHE_NAME, &config, 0, &cache) == 0, "cache");
	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < STAGE_KEY_COUNT; i++) {
			size_t size_bytes = sizes[(i + round) % 8], got_bytes = 0;
			uint64_t ttl_ns = i % 5 ? 0 : 3600 * COSHM__NS_PER_S;
			int64_t number;

			stage_key(i, key);
			if (i % 9 == 3)
				(void)!coshm_cache_incr(cache, key, STAGE_KEY_BYTES, 1, 0, ttl_ns,
							&number);
			else
				(void)!coshm_cache_set(cache, key, STAGE_KEY_BYTES, value,
						       size_bytes, ttl_ns);
			(void)!coshm_cache_get(cache, key, STAGE_KEY_BYTES, NULL, &got_bytes, NULL);
		}
	}
}

static void fill_limiter(struct coshm_segment *segment)
{
	const struct coshm_limiter_config config = {.rate = 10, .burst = 5, .keys_max = 40};
	struct coshm_limiter *limiter;
	char key[STAGE_KEY_BYTES + 1];

	must(coshm_limiter_create(segment, STAGE_LIMITER_NAME, &config, 0, &limiter) == 0,
	     "limiter");
	for (unsigned int i = 0; i < 24; i++) {
		stage_key(i, key);
		must(coshm_limiter_try(limiter, key, STAGE_KEY_BYTES, i % 4, NULL) >= 0, "try");
	}
}

static void fill_queue(struct coshm_segment *segment, int linear)
{
	const struct coshm_queue_config config = {
		.capacity = 16,
		.payload_max_bytes = 4000,
		.payload_pool_bytes = 24 << 10,
		.backoff_base_ns = COSHM__NS_PER_MS,
		.backoff_kind = linear ? COSHM_BACKOFF_LINEAR : COSHM_BACKOFF_EXPONENTIAL,
		.backoff_jitter_percent = 10,
		.max_attempts = 3,
		.attempt_record_count = 2,
	};
	const struct coshm_enqueue_options delayed = {.delay_ns = 3600 * COSHM__NS_PER_S};
	static const unsigned char payload[3000] = "payload";
	struct coshm_queue *queue;
	struct coshm_task task;

	must(coshm_queue_create(segment, STAGE_QUEUE_NAME, &config, 0, &queue) == 0, "queue");
	for (int i = 0; i < 10; i++)
		must(coshm_queue_enqueue(queue, payload, i % 3 ? 40 : 3000,
					 i % 4 == 3 ? &delayed : NULL, NULL) == 0,
		     "enqueue");
	must(coshm_queue_reserve(queue, 0, &task) == 1, "reserve");
	must(coshm_queue_bury(queue, &task, "hopeless") == 0, "bury");
	must(coshm_queue_reserve(queue, 0, &task) == 1, "reserve");
	must(coshm_queue_nack(queue, &task, "not now", COSHM_FOREVER) == 0, "nack");
	must(coshm_queue_reserve(queue, 0, &task) == 1, "reserve");
	must(coshm_queue_ack(queue, &task) == 0, "ack");
}

static void fill(const char *path, enum stage_contents contents, int linear)
{
	struct coshm_segment *segment;

	must(coshm_segment_attach(path, 0, &segment) == 0, "attach");
	if (has_cache(contents))
		fill_cache(segment, contents);
	if (has_limiter(contents))
		fill_limiter(segment);
	if (has_queue(contents))
		fill_queue(segment, linear);
	must(coshm_segment_detach(segment) == 0, "detach");
}

/* Inside of an operation that never ends: the locks, and a page that was being filled. */
static void hold_cache(struct coshm_segment *segment)
{
	struct coshm_cache_view view;
	struct coshm_cache *token;
	struct coshm__cache *cache;
	struct coshm__op op;
	char key[STAGE_KEY_BYTES + 1];
	int pinned = 0;

	must(coshm_cache_open(segment, STAGE_CACHE_NAME, &token) == 0, "open");
	for (unsigned int i = 0; i < STAGE_KEY_COUNT && pinned < 2; i++) {
		stage_key(i, key);
		pinned += coshm_cache_pin(token, key, STAGE_KEY_BYTES, &view) == 1;
	}
	must(coshm__op_begin(&op, token, COSHM_OBJECT_CACHE) == 0, "operation");
	cache = op.handle->local;
	must(coshm__rlock_acquire(&op, &cache->lanes[0].lock, 0) == 0, "lane");
	must(coshm__rlock_acquire(&op,
				  cache->policy == COSHM_CACHE_LRU ? &cache->lists[0].lock
								   : &cache->stripes[0].lock,
				  0) == 0,
	     "stripe");
	for (uint32_t i = 0; i < cache->page_count; i++) {
		uint64_t word = coshm__a64_load_relaxed(&cache->words[i]);
		uint32_t state = coshm__cache_page_state(word);

		if (state == COSHM__CACHE_PAGE_FREE || state == COSHM__CACHE_PAGE_SEALED) {
			coshm__a64_store_relaxed(
				&cache->words[i],
				coshm__cache_page_word(state == COSHM__CACHE_PAGE_FREE
							       ? COSHM__CACHE_PAGE_BUILD
							       : COSHM__CACHE_PAGE_EVICT,
						       coshm__id24(op.member_id), word));
			break;
		}
	}
}

/* A lease, and tasks that were just being given back, failed, and released. */
static void hold_queue(struct coshm_segment *segment)
{
	static const uint32_t states[] = {COSHM__RECORD_LEASED, COSHM__RECORD_CLEAN,
					  COSHM__RECORD_FINISH, COSHM__RECORD_PUBLISH};
	const struct coshm__queue *q;
	struct coshm_queue *queue;
	struct coshm_task task;
	struct coshm__op op;

	must(coshm_queue_open(segment, STAGE_QUEUE_NAME, &queue) == 0, "open");
	for (unsigned int i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		must(coshm_queue_reserve(queue, 0, &task) == 1, "reserve");
		must(coshm__op_begin(&op, queue, COSHM_OBJECT_QUEUE) == 0, "operation");
		q = op.handle->local;
		if (states[i] != COSHM__RECORD_LEASED)
			coshm__record_store(&q->records[(uint32_t)task.opaque[1]],
					    coshm__record_next(task.opaque[0],
							       coshm__id24(op.member_id),
							       states[i]));
		coshm__op_end(&op);
	}
}

static void hold_limiter(struct coshm_segment *segment)
{
	struct coshm_limiter *limiter;
	struct coshm__op op;

	must(coshm_limiter_open(segment, STAGE_LIMITER_NAME, &limiter) == 0, "open");
	must(coshm__op_begin(&op, limiter, COSHM_OBJECT_LIMITER) == 0, "operation");
	/* A thread has room for two; in a segment with everything the cache has taken them. */
	(void)!coshm__rlock_acquire(&op, &coshm__limiter_of(&op)->shm->config_lock, 0);
}

static void die(const char *path, enum stage_contents contents)
{
	struct coshm_segment *segment;
	int status;
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		must(coshm_segment_attach(path, 0, &segment) == 0, "attach");
		if (has_queue(contents))
			hold_queue(segment);
		if (has_cache(contents))
			hold_cache(segment);
		if (has_limiter(contents))
			hold_limiter(segment);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid && status == 0, "the member that dies");
}

/* --- areas ------------------------------------------------------------------------------------------------------ */

static void area_add(struct stage *stage, uint64_t offset_bytes, uint64_t size_bytes)
{
	must(stage->area_count < STAGE_AREAS_MAX, "areas");
	if (size_bytes >= 8)
		stage->areas[stage->area_count++] =
			(struct stage_area){.offset_bytes = offset_bytes, .size_bytes = size_bytes};
}

static void point_add(struct stage *stage, uint64_t offset_bytes)
{
	if (stage->point_count < STAGE_POINTS_MAX)
		stage->points[stage->point_count++] = offset_bytes;
}

static void area_of_points(struct stage *stage, uint64_t first)
{
	must(stage->area_count < STAGE_AREAS_MAX, "areas");
	if (stage->point_count > first)
		stage->areas[stage->area_count++] = (struct stage_area){
			.points = stage->points + first, .point_count = stage->point_count - first};
}

static void areas_of_cache(struct stage *stage, uint64_t object)
{
	const struct coshm__cache_shm *shm = (const void *)(stage->image + object);
	const struct coshm_cache_config config = {
		.size_bytes = shm->size_bytes,
		.average_item_bytes = shm->average_item_bytes,
		.policy = shm->policy,
		.lanes = shm->lane_count,
	};
	struct coshm__cache cache;
	const unsigned char *base = stage->image;
	uint64_t first = stage->point_count;

	must(coshm__cache_layout(&cache, &config, stage->image + object) == 0, "layout");
	area_add(stage, object, sizeof(*shm));
	area_add(stage, object + cache.lanes_offset, cache.lane_total * sizeof(*cache.lanes));
	area_add(stage, object + cache.stripes_offset, cache.stripe_count * sizeof(*cache.stripes));
	if (cache.policy == COSHM_CACHE_LRU) {
		area_add(stage, object + cache.lists_offset,
			 cache.lane_count * sizeof(*cache.lists));
		area_add(stage, (uint64_t)((unsigned char *)cache.nodes - base),
			 cache.node_count * sizeof(*cache.nodes));
	}
	area_add(stage, (uint64_t)((unsigned char *)cache.words - base),
		 cache.page_count * sizeof(*cache.words));
	area_add(stage, (uint64_t)((unsigned char *)cache.pages - base),
		 cache.page_count * sizeof(*cache.pages));
	area_add(stage, (uint64_t)((unsigned char *)cache.buckets - base),
		 cache.bucket_count * sizeof(*cache.buckets));
	for (uint64_t i = 0; i < cache.bucket_count * COSHM__CACHE_BUCKET_SLOTS; i++) {
		struct coshm__a64 *slot = &cache.buckets[i / COSHM__CACHE_BUCKET_SLOTS]
						   .slot[i % COSHM__CACHE_BUCKET_SLOTS];

		if (coshm__a64_load_relaxed(slot))
			point_add(stage, (uint64_t)((unsigned char *)slot - base));
	}
	area_of_points(stage, first);
	first = stage->point_count;
	for (uint64_t i = 0; i < first; i++) {
		uint64_t word;
		unsigned char *item;

		memcpy(&word, base + stage->points[i], sizeof(word));
		if (coshm__cache_slot_page(word) >= cache.page_count)
			continue;
		item = coshm__cache_page(&cache, coshm__cache_slot_page(word)) +
		       coshm__cache_slot_offset(word);
		point_add(stage, (uint64_t)(item - base));
		point_add(stage, (uint64_t)(item - base) + 8);
		if (coshm__cache_item_flags(*(uint64_t *)(void *)item) & COSHM__CACHE_ITEM_LARGE)
			for (unsigned int at = 16; at <= 48; at += 8)
				point_add(stage, (uint64_t)(item - base) + at);
	}
	area_of_points(stage, first);
}

static void areas_of_queue(struct stage *stage, uint64_t object)
{
	const struct coshm__queue_shm *shm = (const void *)(stage->image + object);
	struct coshm__queue_layout layout;

	coshm__queue_layout(shm, &layout);
	area_add(stage, object, sizeof(*shm));
	area_add(stage, object + layout.free_ring, layout.ready_ring - layout.free_ring);
	area_add(stage, object + layout.ready_ring, layout.block_ring - layout.ready_ring);
	area_add(stage, object + layout.block_ring, layout.due_min - layout.block_ring);
	area_add(stage, object + layout.due_min, 8);
	area_add(stage, object + layout.block_words, layout.attempts - layout.block_words);
	area_add(stage, object + layout.attempts, layout.records - layout.attempts);
	area_add(stage, object + layout.records, layout.blocks - layout.records);
	/* Twice: the record is what everything turns on. */
	area_add(stage, object + layout.records, layout.blocks - layout.records);
}

static void areas_of_limiter(struct stage *stage, uint64_t object)
{
	const struct coshm__limiter_shm *shm = (const void *)(stage->image + object);

	area_add(stage, object, 128 + 64);
	area_add(stage, object + offsetof(struct coshm__limiter_shm, configs),
		 sizeof(shm->configs) + sizeof(shm->config_lock));
	area_add(stage, object + offsetof(struct coshm__limiter_shm, buckets),
		 shm->bucket_count * sizeof(shm->buckets[0]));
}

static void areas_find(struct stage *stage)
{
	const struct coshm__header_shm *header = (const void *)stage->image;
	const struct coshm__entry_shm *entries =
		(const void *)(stage->image + header->entries_offset);

	area_add(stage, 0, 256);
	area_add(stage, 256, 384);
	area_add(stage, header->members_offset,
		 header->member_count_max * sizeof(struct coshm__member_shm));
	area_add(stage, header->threads_offset,
		 header->thread_count_max * sizeof(struct coshm__thread_shm));
	area_add(stage, header->entries_offset, 4 * sizeof(*entries));
	for (unsigned int i = 0; i < COSHM__ENTRY_COUNT; i++) {
		uint64_t offset = coshm__a64_load_relaxed(&entries[i].offset_bytes);

		if (coshm__entry_state_of(coshm__a64_load_relaxed(&entries[i].word)) !=
		    COSHM__ENTRY_LIVE)
			continue;
		switch (coshm__a64_load_relaxed(&entries[i].type)) {
		case COSHM_OBJECT_CACHE:
			areas_of_cache(stage, offset);
			break;
		case COSHM_OBJECT_LIMITER:
			areas_of_limiter(stage, offset);
			break;
		case COSHM_OBJECT_QUEUE:
			areas_of_queue(stage, offset);
			break;
		}
	}
}

/* --- putting it up ---------------------------------------------------------------------------------------------- */

static void secrets_fix(int fd)
{
	struct coshm__header_shm header;

	must(pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header), "read");
	memset(header.uuid, 1, sizeof(header.uuid));
	header.place_seed = 2;
	header.fingerprint_secret[0] = 3;
	header.fingerprint_secret[1] = 4;
	must(pwrite(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header), "write");
}

static void members_note(struct stage *stage)
{
	const struct coshm__header_shm *header = (const void *)stage->image;
	const struct coshm__member_shm *members =
		(const void *)(stage->image + header->members_offset);

	for (uint32_t slot = header->member_count_max; slot-- > 0;) {
		uint64_t word = coshm__a64_load_relaxed(&members[slot].word);

		if ((word & 3) == COSHM__MEMBER_FREE)
			stage->next_id = coshm__member_id(slot, word + 4);
		else
			stage->dead_id = coshm__member_id(slot, word);
	}
}

static struct stage *stage_new(enum stage_contents contents, int has_dead)
{
	const struct coshm_segment_config config = {
		.size_bytes = SIZE_BYTES,
		.size_max_bytes = SIZE_MAX_BYTES,
		.member_count_max = 3,
		.thread_count_max = 6,
	};
	struct stage *stage = calloc(1, sizeof(*stage));
	struct coshm_segment *segment;

	must(stage != NULL, "calloc");
	if (!*prefix)
		snprintf(prefix, sizeof(prefix), "/dev/shm/coshm-fuzz-%d", (int)getpid());
	snprintf(stage->path, sizeof(stage->path), "%s-%d-%d", prefix, (int)contents, has_dead);
	unlink(stage->path);
	stage->contents = contents;
	stage->has_dead = has_dead;
	stage->size_bytes = SIZE_BYTES;
	stage->size_max_bytes = SIZE_MAX_BYTES;
	must(coshm_segment_create(stage->path, &config, 0, &segment) == 0, "segment");
	must(coshm_segment_detach(segment) == 0, "detach");
	stage->fd = open(stage->path, O_RDWR | O_CLOEXEC);
	must(stage->fd >= 0, "open");
	secrets_fix(stage->fd);
	fill(stage->path, contents, has_dead);
	if (has_dead)
		die(stage->path, contents);
	stage->image = malloc(SIZE_BYTES);
	must(stage->image && pread(stage->fd, stage->image, SIZE_BYTES, 0) == (ssize_t)SIZE_BYTES,
	     "read");
	stage->live = mmap(NULL, SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, stage->fd, 0);
	must(stage->live != MAP_FAILED, "mmap");
	members_note(stage);
	areas_find(stage);
	return stage;
}

struct stage *stage_put_up(enum stage_contents contents, int has_dead)
{
	struct stage **place = &stages[contents][has_dead], *stage = *place;

	if (!stage) {
		if (!*prefix)
			atexit(stage_remove_all);
		stage = *place = stage_new(contents, has_dead);
	}
	stage->objects_moved = 0;
	stage->is_cut = 0;
	must(ftruncate(stage->fd, SIZE_BYTES) == 0, "ftruncate");
	must(pwrite(stage->fd, stage->image, SIZE_BYTES, 0) == (ssize_t)SIZE_BYTES, "write");
	return stage;
}

void stage_remove_all(void)
{
	for (unsigned int i = 0; i < STAGE_CONTENTS_COUNT; i++)
		for (unsigned int dead = 0; dead < 2; dead++)
			if (stages[i][dead])
				unlink(stages[i][dead]->path);
}

/* --- edits ------------------------------------------------------------------------------------------------------ */

/* Values that code is likely to trip over, and those that mean something here. */
static uint64_t telling_value(const struct stage *stage, uint8_t choice)
{
	const uint64_t values[] = {
		0,
		1,
		UINT64_MAX,
		UINT64_MAX >> 1,
		UINT64_C(1) << 63,
		UINT32_MAX,
		INT32_MAX,
		UINT64_C(1) << 32,
		(uint64_t)stage->next_id << 1,
		(uint64_t)stage->next_id << 1 | 1,
		(uint64_t)stage->dead_id << 1,
		stage->next_id,
		stage->dead_id,
		coshm__id24(stage->next_id),
		(uint64_t)coshm__id24(stage->next_id) << 8 | 4,
		(uint64_t)coshm__id24(stage->next_id) << 36 | UINT64_C(3) << 60,
		stage->size_bytes,
		stage->size_max_bytes,
		UINT64_C(1) << 46,
		coshm__clock_read(CLOCK_MONOTONIC),
		coshm__clock_read(CLOCK_MONOTONIC) + COSHM__NS_PER_S,
		coshm__clock_read(CLOCK_MONOTONIC) * 128,
		2,
		COSHM__PAGE_BYTES,
	};

	return values[choice % (sizeof(values) / sizeof(values[0]))];
}

static uint64_t place_choose(struct stage *stage, struct fuzz_input *input)
{
	const struct stage_area *area = &stage->areas[fuzz_u8(input) % stage->area_count];
	uint64_t at = fuzz_u16(input);

	/* What stands in the directory, or who has what open, decides what lies where. */
	stage->objects_moved |= area - stage->areas < AREAS_OF_SEGMENT;
	return area->points ? area->points[at % area->point_count]
			    : area->offset_bytes + at % (area->size_bytes / 8) * 8;
}

void stage_edit(struct stage *stage, struct fuzz_input *input)
{
	uint8_t kind = fuzz_u8(input);
	uint64_t at = place_choose(stage, input), was, word;
	uint32_t half;

	if (stage->objects_moved)
		stage_unguard(stage);
	if (stage->is_cut)
		return;
	memcpy(&was, stage->live + at, sizeof(was));
	switch (kind % 8) {
	case 0:
		word = telling_value(stage, fuzz_u8(input));
		break;
	case 1:
		word = (uint64_t)(int64_t)(int32_t)fuzz_u32(input);
		break;
	case 2:
		word = was + (uint64_t)(int64_t)(int8_t)fuzz_u8(input);
		break;
	case 3:
		word = was ^ UINT64_C(1) << fuzz_u8(input) % 64;
		break;
	case 4:
		memcpy(&word, stage->live + place_choose(stage, input), sizeof(word));
		break;
	case 5:
		/* one half: low, or high */
		half = fuzz_u32(input);
		word = kind & 8 ? (was & UINT32_MAX) | (uint64_t)half << 32
				: (was >> 32 << 32) | half;
		break;
	case 6:
		word = (was & ~(UINT64_C(0xff) << kind / 8 % 8 * 8)) | (uint64_t)fuzz_u8(input)
									       << kind / 8 % 8 * 8;
		break;
	default:
		word = (uint64_t)fuzz_u32(input) | (uint64_t)fuzz_u32(input) << 32;
		break;
	}
	memcpy(stage->live + at, &word, sizeof(word));
}

/* --- during calls ----------------------------------------------------------------------------------------------- */

static pthread_t scribbler;
static atomic_int is_scribbling;

/* Not where it says what lies where: that would allow anything. */
static void *scribble(void *arg)
{
	struct stage *stage = arg;
	uint64_t random = (uint64_t)getpid() << 32 | clock();

	while (atomic_load(&is_scribbling)) {
		uint8_t bytes[16];
		struct fuzz_input input = {.bytes = bytes, .size_bytes = sizeof(bytes)};

		for (unsigned int i = 0; i < sizeof(bytes); i++) {
			random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
			bytes[i] = (uint8_t)(random >> 56);
		}
		bytes[0] &= bytes[0] % 8 == 4 ? 3 : 255;
		bytes[1] = (uint8_t)(AREAS_OF_SEGMENT +
				     bytes[1] % (stage->area_count - AREAS_OF_SEGMENT));
		stage_edit(stage, &input);
		if (random % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static void scribbler_start(struct stage *stage)
{
	const char *wanted = getenv("COSHM_FUZZ_SCRIBBLER");

	if (!wanted || stage->is_cut)
		return;
	atomic_store(&is_scribbling, 1);
	must(pthread_create(&scribbler, NULL, scribble, stage) == 0, "pthread_create");
}

static void scribbler_stop(void)
{
	if (atomic_exchange(&is_scribbling, 0))
		pthread_join(scribbler, NULL);
}

void stage_cut(struct stage *stage, uint64_t size_bytes)
{
	must(ftruncate(stage->fd, (off_t)size_bytes) == 0, "ftruncate");
	stage->is_cut = size_bytes < stage->size_bytes;
}

/* --- attached --------------------------------------------------------------------------------------------------- */

static void guard_range(unsigned char *base, uint64_t from, uint64_t to)
{
#ifdef HAS_ADDRESS_SANITIZER
	if (from < to)
		ASAN_POISON_MEMORY_REGION(base + from, to - from);
#else
	(void)base;
	(void)from;
	(void)to;
#endif
}

void stage_guard(struct stage *stage, const void *token)
{
	const struct coshm__handle *handle = atomic_load_explicit(
		&coshm__handles[(uintptr_t)token % COSHM__HANDLES_MAX], memory_order_relaxed);
	const struct coshm__header_shm *header = (const void *)stage->image;
	const struct coshm__entry_shm *entries =
		(const void *)(stage->image + header->entries_offset);
	uint64_t from = header->objects_offset, next, end = 0;

	scribbler_start(stage);
	if (stage->objects_moved)
		return;
	stage->guarded = handle->segment->base;
	while (from < stage->size_max_bytes) {
		next = stage->size_max_bytes;
		for (unsigned int i = 0; i < COSHM__ENTRY_COUNT; i++) {
			uint64_t offset = coshm__a64_load_relaxed(&entries[i].offset_bytes);

			if (coshm__entry_state_of(coshm__a64_load_relaxed(&entries[i].word)) ==
				    COSHM__ENTRY_LIVE &&
			    offset >= from && offset < next) {
				next = offset;
				end = offset + coshm__a64_load_relaxed(&entries[i].size_bytes);
			}
		}
		guard_range(stage->guarded, from, next);
		if (next == stage->size_max_bytes)
			break;
		from = end;
	}
}

void stage_unguard(struct stage *stage)
{
#ifdef HAS_ADDRESS_SANITIZER
	if (stage->guarded)
		ASAN_UNPOISON_MEMORY_REGION(stage->guarded, stage->size_max_bytes);
#endif
	stage->guarded = NULL;
}

void stage_leave(struct stage *stage, struct coshm_segment *segment)
{
	const struct coshm__header_shm *header = (const void *)stage->image;
	struct coshm__member_shm *members =
		(struct coshm__member_shm *)(void *)(stage->live + header->members_offset);

	scribbler_stop();
	stage_unguard(stage);
	/* A file that was cut has lost its memory: what is left of the segment must be there again to be left. */
	if (stage->is_cut)
		must(ftruncate(stage->fd, (off_t)stage->size_bytes) == 0, "ftruncate");
	for (uint32_t slot = 0; slot < header->member_count_max; slot++)
		for (unsigned int i = 0; i < COSHM__PIN_COUNT; i++)
			coshm__a64_store_relaxed(&members[slot].pins[i], 0);
	FUZZ_CALL(0, FUZZ_ERRORS(0), coshm_segment_detach(segment));
}
