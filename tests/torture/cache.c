/* SPDX-License-Identifier: MIT */
/*
 * Three caches side by side: s3fifo, lru with one lane and a limit, none. Each key has one writer at a time, whose versions go
 * up; a value is a function of key and version. A reader is given no version older than what any reader was given, or what
 * was done, before it asked, and none that was not begun.
 */
#include "torture/work.h"

#include <errno.h>
#include <string.h>

#define LRU_ENTRIES   400
#define VERSIONS_MAX  64 /* of one key, looked at for one answer */
#define KEY_BYTES_MAX 40000
#define MAGIC	      UINT64_C(0x746f7274757265)

static const char *const cache_names[CACHES] = {"s3fifo", "lru", "none"};

struct value_head {
	uint64_t magic_key;
	uint64_t version;
	uint64_t seed;
};

/* What a version is. */
struct version {
	int is_delete;
	uint64_t ttl_ns; /* 0: for ever */
	size_t size_bytes;
	uint64_t seed;
};

static struct version version_of(uint32_t cache, uint32_t key, uint64_t number)
{
	uint64_t random = mix(books->plan.seed ^ (uint64_t)cache << 60 ^ (uint64_t)key << 40 ^
			      number * UINT64_C(0x9e3779b97f4a7c15));
	struct version version = {.seed = random};
	const size_t head = sizeof(struct value_head);

	if (number == 0 || random_below(&random, 12) == 0) {
		version.is_delete = 1;
		return version;
	}
	if (random_below(&random, 8) == 0)
		version.ttl_ns = MS + random_below(&random, 80 * MS);
	if (books->plan.large && random_below(&random, 2)) {
		version.size_bytes = (33 << 10) + random_below(&random, 160 << 10);
		return version;
	}
	switch (random_below(&random, 32)) {
	case 0:
		version.size_bytes = head + random_below(&random, 200 << 10);
		break;
	case 1: /* about as large as pages of 16 or 32 KiB */
		version.size_bytes = (random_below(&random, 2) ? 32 << 10 : 16 << 10) - 200 +
				     random_below(&random, 400);
		break;
	case 2:
		version.size_bytes = 0;
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		version.size_bytes = head + random_below(&random, 8000);
		break;
	default:
		version.size_bytes = head + random_below(&random, 600);
	}
	return version;
}

/* 'k', number, and for some keys more, up to longer than a page. */
static size_t key_fill(uint32_t key, unsigned char *bytes)
{
	size_t size = 5;

	if (key % 8 == 3)
		size = 5 + key % 60;
	if (key % 64 == 7)
		size = 300;
	if (key % 256 == 255)
		size = KEY_BYTES_MAX;
	memset(bytes, 'x', size);
	bytes[0] = 'k';
	memcpy(bytes + 1, &key, 4);
	return size;
}

static size_t value_fill(uint32_t cache, uint32_t key, uint64_t number,
			 const struct version *version, unsigned char *bytes)
{
	const struct value_head head = {MAGIC << 32 ^ (uint64_t)cache << 24 ^ key, number,
					version->seed};

	if (version->size_bytes) {
		memcpy(bytes, &head, sizeof(head));
		pattern_fill(version->seed, bytes + sizeof(head),
			     version->size_bytes - sizeof(head));
	}
	return version->size_bytes;
}

/* The version of a value, 0 for an empty value, -1 (said): it is no value of this key. */
static int64_t value_read(uint32_t cache, uint32_t key, const unsigned char *bytes, size_t size,
			  const char *how)
{
	struct value_head head;
	struct version version;

	if (size == 0)
		return 0;
	if (size < sizeof(head)) {
		violation("cache %s key %u by %s: a value of %zu bytes", cache_names[cache], key,
			  how, size);
		return -1;
	}
	memcpy(&head, bytes, sizeof(head));
	if (head.magic_key != (MAGIC << 32 ^ (uint64_t)cache << 24 ^ key) ||
	    head.version >> 40 != 0) {
		violation("cache %s key %u by %s: not a value of this key (%llx, %llu, %zu bytes)",
			  cache_names[cache], key, how, (unsigned long long)head.magic_key,
			  (unsigned long long)head.version, size);
		return -1;
	}
	version = version_of(cache, key, head.version);
	if (version.is_delete || version.size_bytes != size || version.seed != head.seed) {
		violation("cache %s key %u by %s: version %llu with %zu bytes, not %zu",
			  cache_names[cache], key, how, (unsigned long long)head.version, size,
			  version.size_bytes);
		return -1;
	}
	if (!pattern_matches(version.seed, bytes + sizeof(head), size - sizeof(head))) {
		size_t at = sizeof(head);

		while (at < size &&
		       pattern_matches(version.seed, bytes + sizeof(head), at - sizeof(head)))
			at++;
		violation("cache %s key %u by %s: version %llu is mixed from byte %zu of %zu on",
			  cache_names[cache], key, how, (unsigned long long)head.version, at - 1,
			  size);
		return -1;
	}
	return (int64_t)head.version;
}

/* --- what an answer may be ------------------------------------------------------------------------------------ */

/* Taken before the question. */
struct before {
	uint64_t lowest, done, done_at_ns, done_flush, flushes_done, at_ns;
};

static struct before look_before(uint32_t cache, uint32_t key)
{
	struct key_book *book = &books->keys[cache][key];
	struct before before = {.done = atomic_load(&book->done)};
	uint64_t seen = atomic_load(&book->seen);

	before.done_at_ns = atomic_load(&book->done_at_ns);
	before.done_flush = atomic_load(&book->done_flush);
	before.lowest = seen > before.done ? seen : before.done;
	before.flushes_done = atomic_load(&books->flushes_done[cache]);
	before.at_ns = now_coarse_ns();
	return before;
}

static void raise(_Atomic uint64_t *word, uint64_t to)
{
	uint64_t now = atomic_load(word);

	while (now < to && !atomic_compare_exchange_weak(word, &now, to))
		;
}

static void check_hit(uint32_t cache, uint32_t key, const struct before *before, int64_t number,
		      const char *how)
{
	struct key_book *book = &books->keys[cache][key];
	uint64_t highest = atomic_load(&book->begun);
	uint64_t version = (uint64_t)number;

	if (number < 0)
		return;
	if (number == 0) { /* an empty value: any version that is one */
		for (version = before->lowest; version <= highest; version++) {
			const struct version v = version_of(cache, key, version);

			if (!v.is_delete && v.size_bytes == 0)
				return;
		}
		violation("cache %s key %u by %s: empty, no version from %llu to %llu is",
			  cache_names[cache], key, how, (unsigned long long)before->lowest,
			  (unsigned long long)highest);
		return;
	}
	if (version < before->lowest || version > highest)
		violation("cache %s key %u by %s: version %llu, not %llu to %llu",
			  cache_names[cache], key, how, (unsigned long long)version,
			  (unsigned long long)before->lowest, (unsigned long long)highest);
	raise(&book->seen, version);
	/* Nobody has begun another one: then it is known when this one was done, and until when it lives. */
	if (version == highest && version == before->done) {
		const uint64_t ttl_ns = version_of(cache, key, version).ttl_ns;

		if (ttl_ns && before->at_ns > before->done_at_ns + ttl_ns + 2 * MS)
			violation(
				"cache %s key %u by %s: version %llu, %llu us after its end",
				cache_names[cache], key, how, (unsigned long long)version,
				(unsigned long long)(before->at_ns - before->done_at_ns - ttl_ns) /
					1000);
		if (before->flushes_done > before->done_flush)
			violation("cache %s key %u by %s: version %llu survived a flush",
				  cache_names[cache], key, how, (unsigned long long)version);
	}
}

/* Could the key be away at some moment since @before? */
static int may_be_absent(uint32_t cache, uint32_t key, const struct before *before)
{
	struct key_book *book = &books->keys[cache][key];
	uint64_t highest = atomic_load(&book->begun), begun_at_ns, after_ns = now_coarse_ns();

	if (cache != CACHE_STRICT || highest - before->lowest > VERSIONS_MAX)
		return 1;
	for (uint64_t number = before->lowest; number <= highest; number++) {
		const struct version version = version_of(cache, key, number);

		if (version.is_delete)
			return 1;
		if (!version.ttl_ns)
			continue;
		begun_at_ns = atomic_load(&book->begun_at_ns);
		if (number != highest || atomic_load(&book->begun) != highest ||
		    number != before->done || after_ns >= begun_at_ns + version.ttl_ns)
			return 1;
	}
	return 0;
}

static void check_miss(uint32_t cache, uint32_t key, const struct before *before, const char *how)
{
	if (!may_be_absent(cache, key, before))
		violation("cache %s key %u by %s: lost, versions %llu to %llu", cache_names[cache],
			  key, how, (unsigned long long)before->lowest,
			  (unsigned long long)atomic_load(&books->keys[cache][key].begun));
}

/* --- writing -------------------------------------------------------------------------------------------------- */

/* 1 stored or deleted, 0 not, negative */
static int store(struct worker *worker, struct coshm_cache *cache, uint32_t key,
		 const struct version *now, const struct version *before, int before_is_certain,
		 size_t size_bytes)
{
	static _Thread_local unsigned char name[KEY_BYTES_MAX];
	const size_t name_bytes = key_fill(key, name);
	int error;

	if (now->is_delete) {
		error = coshm_cache_delete(cache, name, name_bytes);
		if (before_is_certain && !before->is_delete && !before->ttl_ns && error == 0)
			violation("cache none key %u: nothing to delete", key);
		return error < 0 ? error : 1;
	}
	if (before_is_certain && before->is_delete && random_below(&worker->random, 2)) {
		error = coshm_cache_add(cache, name, name_bytes, worker->buffer, size_bytes,
					now->ttl_ns);
		if (error == 0)
			violation("cache none key %u: add finds a value that was deleted", key);
		return error;
	}
	if (before_is_certain && !before->is_delete && !before->ttl_ns &&
	    random_below(&worker->random, 2)) {
		error = coshm_cache_replace(cache, name, name_bytes, worker->buffer, size_bytes,
					    now->ttl_ns);
		if (error == 0)
			violation("cache none key %u: replace finds nothing", key);
		return error;
	}
	error = coshm_cache_set(cache, name, name_bytes, worker->buffer, size_bytes, now->ttl_ns);
	return error ? error : 1;
}

static void write_one(struct worker *worker, uint32_t cache)
{
	const uint32_t key = (uint32_t)worker->actor * ACTOR_KEYS +
			     (uint32_t)random_below(&worker->random, ACTOR_KEYS);
	struct key_book *book = &books->keys[cache][key];
	const uint64_t last = atomic_load(&book->done), begun = atomic_load(&book->begun);
	const struct version before = version_of(cache, key, last);
	const uint64_t number = begun + 1;
	const struct version version = version_of(cache, key, number);
	size_t size_bytes = 0;
	int result;

	if (!version.is_delete)
		size_bytes = value_fill(cache, key, number, &version, worker->buffer);
	atomic_store(&book->begun, number);
	atomic_store(&book->begun_at_ns, now_coarse_ns());
	for (int tries = 0;; tries++) {
		result = store(worker, worker->handles->caches[cache], key, &version, &before,
			       cache == CACHE_STRICT && last == begun && tries == 0, size_bytes);
		if (result >= 0 || tries == 3 || is_over())
			break;
		if (version.is_delete) {
			violation("cache %s key %u: delete gives %d", cache_names[cache], key,
				  result);
			return;
		}
		count(EVENT_SETS_REFUSED, 1);
		if (result != -EAGAIN && (result != -ENOSPC || cache != CACHE_STRICT)) {
			violation("cache %s key %u: writing gives %d", cache_names[cache], key,
				  result);
			return;
		}
	}
	/* Refused: nothing was changed, but the number is used up: as if it had been killed in the middle. */
	if (result <= 0)
		return;
	atomic_store(&book->done_at_ns, now_coarse_ns());
	atomic_store(&book->done_flush, atomic_load(&books->flushes_begun[cache]));
	atomic_store(&book->done, number);
	count(version.is_delete ? EVENT_DELETES : EVENT_SETS, 1);
}

static void add_one(struct worker *worker)
{
	const uint32_t number = (uint32_t)random_below(&worker->random, NUMBERS);
	struct actor_book *actor = &books->actors[worker->actor];
	const char key[2] = {'n', (char)number};
	const uint64_t seen = atomic_load(&books->number_seen[number]);
	int64_t value = 0;
	int error;

	atomic_fetch_add(&actor->numbers_begun[number], 1);
	error = coshm_cache_incr(worker->handles->caches[CACHE_STRICT], key, 2, 1, 0, 0, &value);
	if (error) {
		atomic_fetch_sub(&actor->numbers_begun[number], 1);
		if (error != -EAGAIN && error != -ENOSPC)
			violation("number %u: incr gives %d", number, error);
		return;
	}
	atomic_fetch_add(&actor->numbers_done[number], 1);
	if ((uint64_t)value <= seen)
		violation("number %u: incr gives %lld after %llu", number, (long long)value,
			  (unsigned long long)seen);
	raise(&books->number_seen[number], (uint64_t)value);
	count(EVENT_INCREMENTS, 1);
}

static void flush_one(struct worker *worker, uint32_t cache)
{
	const uint64_t number = atomic_fetch_add(&books->flushes_begun[cache], 1) + 1;

	if (coshm_cache_flush(worker->handles->caches[cache]))
		violation("cache %s: flush fails", cache_names[cache]);
	raise(&books->flushes_done[cache], number);
	count(EVENT_FLUSHES, 1);
}

/* Mostly one that somebody writes: the first licences are those in use. */
static uint32_t key_choose(struct worker *worker)
{
	return (uint32_t)random_below(&worker->random,
				      random_below(&worker->random, 8) ? KEYS / 4 : KEYS);
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static void read_one(struct worker *worker, uint32_t cache, int is_read_only)
{
	static _Thread_local unsigned char name[KEY_BYTES_MAX];
	struct coshm_cache *handle = worker->handles->caches[cache];
	const uint32_t key = key_choose(worker);
	const size_t name_bytes = key_fill(key, name);
	const struct before before = look_before(cache, key);
	size_t size_bytes = BUFFER_BYTES;
	struct coshm_cache_item item;
	int result;

	switch (is_read_only ? 1 : random_below(&worker->random, 4)) {
	case 0:
		result = coshm_cache_exists(handle, name, name_bytes);
		if (result == 0)
			check_miss(cache, key, &before, "exists");
		else if (result != 1)
			violation("cache %s: exists gives %d", cache_names[cache], result);
		return;
	case 1:
		result = coshm_cache_peek(handle, name, name_bytes, worker->copy, &size_bytes,
					  &item);
		break;
	case 2: {
		struct coshm_cache_request request = {.key = name,
						      .key_size_bytes = name_bytes,
						      .buffer = worker->copy,
						      .buffer_size_bytes = size_bytes};

		(void)!coshm_cache_mget(handle, &request, 1);
		result = request.ret_result;
		size_bytes = request.ret_value_size_bytes;
		break;
	}
	default:
		result = coshm_cache_get(handle, name, name_bytes, worker->copy, &size_bytes, NULL);
	}
	if (result == 0) {
		check_miss(cache, key, &before, is_read_only ? "read-only peek" : "get");
		count(EVENT_MISSES, 1);
	} else if (result == 1) {
		const char *how = is_read_only ? "read-only peek" : "get";

		check_hit(cache, key, &before,
			  value_read(cache, key, worker->copy, size_bytes, how), how);
		count(is_read_only ? EVENT_PEEKS_READ_ONLY : EVENT_HITS, 1);
		count(EVENT_LARGE_HITS, size_bytes > 33 << 10);
	} else if (!is_read_only || result != -EAGAIN) {
		violation("cache %s key %u: get gives %d", cache_names[cache], key, result);
	}
}

/* The bytes of a view, together in worker->copy. */
static size_t view_copy(struct worker *worker, const struct coshm_cache_view *view)
{
	size_t size = 0;

	for (uint32_t i = 0; i < view->part_count; i++) {
		const void *part;
		size_t part_bytes;

		if (coshm_cache_view_part(view, i, &part, &part_bytes) ||
		    part_bytes > BUFFER_BYTES - size) {
			violation("a view without its part %u", i);
			return 0;
		}
		memcpy(worker->copy + size, part, part_bytes);
		size += part_bytes;
	}
	return size;
}

static void pin_one(struct worker *worker, uint32_t cache)
{
	static _Thread_local unsigned char name[KEY_BYTES_MAX];
	struct coshm_cache *handle = worker->handles->caches[cache];
	const uint32_t key = key_choose(worker);
	const size_t name_bytes = key_fill(key, name);
	const struct before before = look_before(cache, key);
	struct coshm_cache_view view;
	int64_t first, again;
	int result = coshm_cache_pin(handle, name, name_bytes, &view);

	if (result == 0)
		check_miss(cache, key, &before, "pin");
	else if (result != 1 && result != -EAGAIN)
		violation("cache %s: pin gives %d", cache_names[cache], result);
	if (result != 1)
		return;
	first = value_read(cache, key, worker->copy, view_copy(worker, &view), "pin");
	check_hit(cache, key, &before, first, "pin");
	sleep_ns(random_below(&worker->random, 3 * MS));
	again = value_read(cache, key, worker->copy, view_copy(worker, &view), "pin, later");
	if (first != again)
		violation("cache %s key %u: a pinned value changed", cache_names[cache], key);
	result = coshm_cache_unpin(handle, &view);
	if (result)
		violation("cache %s: unpin gives %d", cache_names[cache], result);
	count(EVENT_PINS, 1);
}

void cache_hold(struct worker *worker)
{
	unsigned char name[5];
	struct coshm_cache_view view;
	const uint32_t cache = (uint32_t)random_below(&worker->random, CACHES);
	const size_t name_bytes =
		key_fill((uint32_t)random_below(&worker->random, KEYS / 8) * 8, name);

	(void)!coshm_cache_pin(worker->handles->caches[cache], name, name_bytes, &view);
}

struct walk {
	uint32_t cache;
	const char *how;
	struct before before[KEYS];
	unsigned char met[KEYS];
	uint64_t items;
};

static int walk_each(void *context, const void *name, size_t name_bytes, const void *value,
		     const struct coshm_cache_item *item)
{
	static _Thread_local unsigned char expected[KEY_BYTES_MAX];
	struct walk *walk = context;
	uint32_t key;

	walk->items++;
	if (name_bytes == 2 && *(const char *)name == 'n')
		return 0;
	if (name_bytes >= 5)
		memcpy(&key, (const char *)name + 1, 4);
	if (name_bytes < 5 || key >= KEYS || key_fill(key, expected) != name_bytes ||
	    memcmp(expected, name, name_bytes) != 0) {
		violation("cache %s by %s: a key that nobody has", cache_names[walk->cache],
			  walk->how);
		return 1;
	}
	walk->met[key] = 1;
	check_hit(walk->cache, key, &walk->before[key],
		  value_read(walk->cache, key, value, item->value_size_bytes, walk->how),
		  walk->how);
	return is_over();
}

static void walk_all(struct worker *worker, uint32_t cache, int is_read_only)
{
	static _Thread_local struct walk walk;
	uint64_t cursor = 0;
	int error;

	walk.cache = cache;
	walk.how = is_read_only ? "read-only scan" : "scan";
	walk.items = 0;
	memset(walk.met, 0, sizeof(walk.met));
	for (uint32_t key = 0; key < KEYS; key++)
		walk.before[key] = look_before(cache, key);
	do {
		error = coshm_cache_scan(worker->handles->caches[cache], &cursor,
					 1 + random_below(&worker->random, 200),
					 COSHM_CACHE_SCAN_VALUES, walk_each, &walk);
	} while (!error && cursor);
	if (error && !is_over())
		violation("cache %s: scan gives %d", cache_names[cache], error);
	if (error)
		return;
	for (uint32_t key = 0; key < KEYS; key++)
		if (!walk.met[key])
			check_miss(cache, key, &walk.before[key], walk.how);
	count(is_read_only ? EVENT_SCANNED_READ_ONLY : EVENT_SCANNED, walk.items);
}

static void count_entries(struct worker *worker)
{
	uint64_t entries = 0;
	int error = coshm_cache_count(worker->handles->caches[1], &entries);

	/* Each kill may leave it one too high (N3), and so may a flush that meets others. */
	if (error || entries > LRU_ENTRIES + 1000)
		violation("cache lru: count gives %d, %llu entries", error,
			  (unsigned long long)entries);
}

void cache_work(struct worker *worker)
{
	const uint32_t cache = (uint32_t)random_below(&worker->random, CACHES);
	const uint64_t what = random_below(&worker->random, 1000);

	if (what < 400) {
		if (worker->actor >= 0)
			write_one(worker, cache);
	} else if (what < 800) {
		read_one(worker, cache, 0);
	} else if (what < 830) {
		pin_one(worker, cache);
	} else if (what < 990) {
		if (worker->actor >= 0)
			add_one(worker);
	} else if (what < 994) {
		count_entries(worker);
	} else if (what < 998) {
		walk_all(worker, cache, 0);
	} else if (cache != CACHE_STRICT && random_below(&worker->random, 20) == 0) {
		flush_one(worker, cache);
	}
}

void cache_look(struct worker *worker)
{
	const uint32_t cache = (uint32_t)random_below(&worker->random, CACHES);

	if (random_below(&worker->random, 500) == 0)
		walk_all(worker, cache, 1);
	else
		read_one(worker, cache, 1);
}

/* --- the beginning and the end -------------------------------------------------------------------------------- */

int cache_create(struct coshm_segment *segment)
{
	const struct coshm_cache_config configs[CACHES] = {
		{.size_bytes = 3 << 20},
		{.size_bytes = 3 << 20,
		 .policy = COSHM_CACHE_LRU,
		 .lanes = 1,
		 .max_entries = LRU_ENTRIES},
		{.size_bytes = 10 << 20, .policy = COSHM_CACHE_NONE},
	};
	int error = 0;

	for (uint32_t i = 0; i < CACHES && !error; i++) {
		struct coshm_cache *cache;

		error = coshm_cache_create(segment, cache_names[i], &configs[i], 0, &cache);
		if (!error)
			error = coshm_cache_close(cache);
	}
	return error;
}

/* How many large values fit? Then they go again. */
static uint32_t cache_fill(struct worker *worker, struct coshm_cache *cache)
{
	uint32_t fitted = 0;

	memset(worker->buffer, 'f', 100 << 10);
	while (coshm_cache_set(cache, &fitted, sizeof(fitted), worker->buffer, 100 << 10, 0) == 0)
		fitted++;
	for (uint32_t i = 0; i < fitted; i++)
		if (coshm_cache_delete(cache, &i, sizeof(i)) != 1)
			violation("cache none: a value is gone at the end");
	return fitted;
}

void cache_audit(struct worker *worker)
{
	static struct walk walk;
	struct coshm_cache *strict = worker->handles->caches[CACHE_STRICT], *fresh;
	uint64_t cursor = 0;
	uint32_t first, second, wanted;

	for (uint32_t cache = 0; cache < CACHES; cache++) {
		walk_all(worker, cache, 0);
		for (int i = 0; i < 2 * KEYS; i++)
			read_one(worker, cache, 0);
	}
	for (uint32_t i = 0; i < NUMBERS; i++) {
		const char key[2] = {'n', (char)i};
		uint64_t begun = 0, done = 0;
		int64_t value = 0;

		for (int actor = 0; actor < ACTORS; actor++) {
			begun += atomic_load(&books->actors[actor].numbers_begun[i]);
			done += atomic_load(&books->actors[actor].numbers_done[i]);
		}
		if (begun == 0)
			continue;
		if (coshm_cache_incr(strict, key, 2, 0, 0, 0, &value))
			violation("number %u: incr by 0 fails", i);
		if ((uint64_t)value < done || (uint64_t)value > begun)
			violation("number %u is %lld, not %llu to %llu", i, (long long)value,
				  (unsigned long long)done, (unsigned long long)begun);
		if (coshm_cache_delete(strict, key, 2) != 1 && done)
			violation("number %u cannot be deleted", i);
	}
	walk.cache = 1;
	walk.how = "scan";
	walk.items = 0;
	if (coshm_cache_scan(worker->handles->caches[1], &cursor, 0, COSHM_CACHE_SCAN_VALUES,
			     walk_each, &walk) ||
	    walk.items > LRU_ENTRIES)
		violation("cache lru: %llu entries", (unsigned long long)walk.items);

	/* No page is lost: as much fits as into one that nobody has used. */
	for (uint32_t key = 0; key < KEYS; key++) {
		static unsigned char name[KEY_BYTES_MAX];
		const size_t name_bytes = key_fill(key, name);

		if (coshm_cache_delete(strict, name, name_bytes) < 0)
			violation("cache none key %u cannot be deleted", key);
	}
	first = cache_fill(worker, strict);
	second = cache_fill(worker, strict);
	if (coshm_cache_create(worker->handles->segment, "fresh",
			       &(struct coshm_cache_config){.size_bytes = 10 << 20,
							    .policy = COSHM_CACHE_NONE},
			       0, &fresh)) {
		violation("no room for a cache at the end");
		return;
	}
	wanted = cache_fill(worker, fresh);
	if (first + 1 < wanted || second + 1 < wanted)
		violation("cache none: %u, then %u values fit, not %u", first, second, wanted);
	if (coshm_cache_close(fresh) || coshm_object_remove(worker->handles->segment, "fresh"))
		violation("a cache cannot be removed");
}
