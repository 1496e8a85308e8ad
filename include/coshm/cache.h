/* SPDX-License-Identifier: MIT */
/*
 * coshm/cache.h - a cache shared by all members of a segment
 *
 * Use when      several processes should compute, fetch or render something only once and read it often.
 * Use something else for data that must not vanish (a cache evicts), and for locks (a value is not a lease).
 *
 * Promises      P1 get never waits for a lock and makes no system call, whatever the others do, stopped ones included
 *                  (policy lru: one to wake a waiter, if it took the list's lock while somebody came to wait for it).
 *               P2 A value is read whole or not at all: never torn, mixed or freed under the reader.
 *               P3 A set that returned is seen by every member until it is replaced, deleted, expired, flushed or
 *                  evicted. Operations on one key are linearizable.
 *               P4 SIGKILL at any instruction loses at most the value being written.
 *               P5 Any item up to 1/8 of the cache can be stored; no fragmentation makes a legal set fail.
 *               P6 An expired value is never served. (Clock: some 4 ms coarse, so it may be gone 4 ms early or late.)
 *               P7 With policy none, a set that replaces a value (not a number) by one that is no larger finds room,
 *                  whoever was killed before, if the key, either value and 32 bytes fit into a page (32 KiB to 1 MiB;
 *                  in caches below 768 KiB from 8 KiB). Pages may have to be rearranged for it, up to 200 ms; then -EAGAIN,
 *                  as long as pins, or members that are stopped, keep what has to move, or the last page.
 * Not promised  N1 While a member is stopped inside a critical section, an insert of a new key, or incr, that meets
 *                  its lock answers -EAGAIN after 100 ms; get, replacing sets and delete go on (a set at 10 ms and a page
 *                  each, should members be stopped in every place where items are appended). But a set that needs a page
 *                  of a full cache with policy lru or none may answer -EAGAIN: what has to stay cannot be moved while a
 *                  member is stopped in incr, in an insert of a new key, in moving, or in appending everywhere. A
 *                  stopped member also keeps the few pages that it reads, writes, takes or has pinned.
 *               N2 The order of eviction is exact only with policy lru and one lane, and there only as far as hits
 *                  of other members do not meet at the list at the same instant (then one of them is not noted).
 *               N3 count may be off by one for each member killed in the middle of an insert or delete, and for each
 *                  insert or delete that runs at the same time as a flush.
 * After a kill  nothing to repair but the lock it held and pages it was writing; both happen in passing.
 * Memory        37.8 bytes beyond key and value for small items, index and all tables included.
 * Sources       S3-FIFO: Yang et al., SOSP 2023. Log pages: Segcache, NSDI 2021. Hazards: Michael 2004.
 * Example       examples/lru-capacity-3.c
 */
#ifndef COSHM_CACHE_H
#define COSHM_CACHE_H

#include <coshm/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What goes when the cache is full. */
enum coshm_cache_policy {
	COSHM_CACHE_S3FIFO =
		0, /* default: best hit ratio on skewed web loads, hits write almost nothing */
	COSHM_CACHE_LRU = 1,  /* least recently used; exact with lanes = 1 */
	COSHM_CACHE_NONE = 2, /* nothing: a set that does not fit is -ENOSPC */
};

struct coshm_cache_config {
	size_t struct_size_bytes;
	uint64_t size_bytes; /* memory for everything: items, index and tables; at least 256 KiB */
	uint64_t
		max_entries; /* lru only: at most this many entries (exact with lanes = 1); 0: no limit */
	uint64_t average_item_bytes; /* key + value, to size the index; default 256 */
	uint32_t policy;	     /* coshm_cache_policy */
	uint32_t lanes; /* writers that append side by side; default by CPUs and size */
	uint64_t reserved[2];
};

/* What is known of an item besides its value. */
struct coshm_cache_item {
	uint64_t value_size_bytes;
	uint64_t ttl_ns; /* time left; COSHM_FOREVER if it does not expire */
	uint64_t
		version; /* differs between any two values of one key, stays while the value does: good for an ETag */
	uint32_t number; /* 1: a number made by incr (the value is its decimal text) */
	uint32_t reserved;
};

/* A value that is read in place. Fields below the line are the library's. */
struct coshm_cache_view {
	const void *
		data; /* the whole value if part_count is 1, else NULL: use coshm_cache_view_part */
	uint64_t size_bytes; /* of the whole value */
	uint32_t part_count; /* large values lie in several parts */
	uint32_t reserved;
	struct coshm_cache_item item;
	/* --- */
	uint64_t opaque[6];
};

struct coshm_cache_request {
	const void *key;
	size_t key_size_bytes;
	void *buffer;
	size_t buffer_size_bytes;
	size_t ret_value_size_bytes;
	int ret_result; /* as coshm_cache_get */
	int reserved;
};

/*
 * Life: create, open, close. Creating is KILL-safe: a half-made cache is invisible and its space is reused.
 * Returns   0; -EEXIST; -ENOENT; -EPROTOTYPE (the name is another type); -EINVAL; -ENAMETOOLONG; -EDQUOT (segment
 *           full: larger size_max_bytes); -ENOSPC (tmpfs full); -EFBIG (the segment would have to grow over RLIMIT_FSIZE); -EAGAIN
 *           (directory busy for 100 ms, or no room before somebody is done who cleans up behind the dead, and may be
 *           stopped in it); -EROFS; -ESTALE (segment removed); -EMFILE (too many handles, or no descriptor to grow
 *           by); -ENOMEM (of this process; the segment may keep what it grew by); -EUSERS; -EUCLEAN,
 *           -ENOTRECOVERABLE (damage)
 */
COSHM_CHECK_RESULT int coshm_cache_create(struct coshm_segment *segment, const char *name,
					  const struct coshm_cache_config *config, uint32_t flags,
					  struct coshm_cache **ret_cache);
COSHM_CHECK_RESULT int coshm_cache_open(struct coshm_segment *segment, const char *name,
					struct coshm_cache **ret_cache);
int coshm_cache_close(struct coshm_cache *cache);
/* The configuration in force, defaults filled in. */
COSHM_CHECK_RESULT int coshm_cache_config(struct coshm_cache *cache,
					  struct coshm_cache_config *ret_config);

/*
 * coshm_cache_get - copy a value out
 * @buffer           may be NULL if capacity is 0
 * @value_size_bytes in: capacity of buffer; out (hit or -ENOBUFS): size of the value
 * @ret_item         may be NULL
 *
 * Counts a hit or miss and tells the policy. Keys are 1 to 65535 bytes.
 * Safety    MT MP FORK KILL       Progress  lock-free; retries only if the very item is replaced meanwhile
 * Cost      two cache misses and one copy. 8 of the segment's lines for 24 + 100 bytes; those that it writes are the
 *           thread's own, but for the bucket's at the first three hits of a value
 * Returns   1 hit; 0 miss; -ENOBUFS: too small, nothing was copied; -EINVAL; -EUCLEAN; -EROFS (use peek)
 */
COSHM_CHECK_RESULT int coshm_cache_get(struct coshm_cache *cache, const void *key,
				       size_t key_size_bytes, void *buffer,
				       size_t *value_size_bytes, struct coshm_cache_item *ret_item);

/*
 * coshm_cache_peek - as get, but neither counted nor told to the policy; works on a read-only attach
 *
 * Returns   as get; on a read-only attach also -EAGAIN (the item changed eight times while it was copied) and -ENOMEM,
 *           which exists may return there, too
 */
COSHM_CHECK_RESULT int coshm_cache_peek(struct coshm_cache *cache, const void *key,
					size_t key_size_bytes, void *buffer,
					size_t *value_size_bytes,
					struct coshm_cache_item *ret_item);

/*
 * coshm_cache_pin - read a value in place; coshm_cache_unpin - end that
 *
 * The bytes stay until unpin even if the item is replaced, deleted or evicted meanwhile. Keep it short: a pin keeps
 * its page (8 KiB to 1 MiB) from being reused. 64 pins per process; a value of several parts takes two. A view may be
 * unpinned by another thread; in a forked child it is not the child's: unpin answers -ESTALE there. Do not hand the
 * bytes to asynchronous I/O that may outlive the process's death. Bytes are not aligned.
 * Safety    MT MP KILL (a dead member's pins are void)
 * Returns   pin: 1 hit; 0 miss; -EAGAIN all pins in use; -EBADMSG: a number, which changes in place (use get); -EUCLEAN;
 *           -EINVAL.
 *           unpin: 0; -ESTALE.  view_part: 0; -EINVAL no such part; -EUCLEAN
 */
COSHM_CHECK_RESULT int coshm_cache_pin(struct coshm_cache *cache, const void *key,
				       size_t key_size_bytes, struct coshm_cache_view *ret_view);
int coshm_cache_unpin(struct coshm_cache *cache, struct coshm_cache_view *view);
COSHM_CHECK_RESULT int coshm_cache_view_part(const struct coshm_cache_view *view, uint32_t index,
					     const void **ret_data, size_t *ret_size_bytes);

/*
 * coshm_cache_mget - many gets whose memory accesses overlap
 *
 * Each request gets its own result. Much cheaper than single gets when the keys are not in the CPU's caches.
 * Returns   number of hits; -EINVAL
 */
COSHM_CHECK_RESULT int coshm_cache_mget(struct coshm_cache *cache,
					struct coshm_cache_request *requests, size_t count);

/*
 * coshm_cache_set, _add, _replace - store a value
 * @ttl_ns    time to live; 0 or COSHM_FOREVER: does not expire
 *
 * set stores always; add only if the key is absent (exactly one of several concurrent adders wins); replace only if
 * it is present.
 * Safety    MT MP FORK KILL       Progress  lock-free to replace; else blocking, bounded by 100 ms (N1)
 * Ordering  the value is published by one atomic store: who sees the item sees all of it
 * Kill      before that store nothing has happened; from it on the value is there
 * Cost      one copy; 18 of the segment's lines, 2 of which others write who replace other values; when a page is full, that
 *           of moving what survives in another one (30 us to 0.7 ms, by page size)
 * Returns   set: 0.  add, replace: 1 stored, 0 not.  -E2BIG: larger than 1/8 of the cache; -ENOSPC (policy none);
 *           -EAGAIN: a lock was busy, or all pages were pinned or in use, for 100 ms (policy none: P7); -ENOMEM
 *           (of this process, values of several pages); -EUCLEAN, -ENOTRECOVERABLE (damage); -EINVAL; -EROFS
 */
COSHM_CHECK_RESULT int coshm_cache_set(struct coshm_cache *cache, const void *key,
				       size_t key_size_bytes, const void *value,
				       size_t value_size_bytes, uint64_t ttl_ns);
COSHM_CHECK_RESULT int coshm_cache_add(struct coshm_cache *cache, const void *key,
				       size_t key_size_bytes, const void *value,
				       size_t value_size_bytes, uint64_t ttl_ns);
COSHM_CHECK_RESULT int coshm_cache_replace(struct coshm_cache *cache, const void *key,
					   size_t key_size_bytes, const void *value,
					   size_t value_size_bytes, uint64_t ttl_ns);

/* coshm_cache_delete - Returns 1 deleted, 0 was not there. Lock-free (lru: waits up to 5 ms for a list's lock), KILL. */
COSHM_CHECK_RESULT int coshm_cache_delete(struct coshm_cache *cache, const void *key,
					  size_t key_size_bytes);

/* coshm_cache_exists - Returns 1 or 0; neither counted nor told to the policy. */
COSHM_CHECK_RESULT int coshm_cache_exists(struct coshm_cache *cache, const void *key,
					  size_t key_size_bytes);

/*
 * coshm_cache_incr - add to a number, creating it if it is absent
 * @delta     may be negative; the number is a 64-bit signed integer that wraps
 * @initial   value before the addition if the key is absent
 * @ttl_ns    for a number that is created; an existing one keeps its own
 *
 * get returns a number as decimal text.
 * Safety    MT MP FORK KILL: an incr that returned is counted; one that was killed is counted or not, never half
 * Returns   0; -EBADMSG: the key holds a value, not a number; -EAGAIN (N1); -ENOSPC: no room in the index near the
 *           key; -E2BIG: also a key that does not fit into a page (P7) with the number; as set
 */
COSHM_CHECK_RESULT int coshm_cache_incr(struct coshm_cache *cache, const void *key,
					size_t key_size_bytes, int64_t delta, int64_t initial,
					uint64_t ttl_ns, int64_t *ret_value);

/* coshm_cache_count - entries in the cache, O(1) (N3). Expired ones count until they are reclaimed, flushed ones do not. */
COSHM_CHECK_RESULT int coshm_cache_count(struct coshm_cache *cache, uint64_t *ret_count);

/*
 * coshm_cache_flush - forget everything, O(1): one store
 *
 * Values set from now on are kept; their memory comes back as it is needed.
 * Safety    MT MP FORK KILL
 */
COSHM_CHECK_RESULT int coshm_cache_flush(struct coshm_cache *cache);

/*
 * coshm_cache_scan - walk over the items
 * @cursor    0 to start; 0 again at the end
 * @each      called with private copies, no lock held; may use the cache; value is NULL when @flags lacks
 *            COSHM_CACHE_SCAN_VALUES. Returning non-zero stops and is returned.
 * @budget    about how many index buckets to look at in this call; 0: all
 *
 * An item that is there during the whole walk is seen at least once; one that moves may be seen twice.
 * Works on a read-only attach.
 * Returns   0; what @each returned; -ENOMEM; -EINVAL; -EBADF; -EAGAIN (on a read-only attach: an item changed thousands of
 *           times while it was copied; the cursor stands before it)
 */
enum coshm_cache_scan_flags { COSHM_CACHE_SCAN_VALUES = 1 };
COSHM_CHECK_RESULT int
coshm_cache_scan(struct coshm_cache *cache, uint64_t *cursor, uint64_t budget, uint32_t flags,
		 int (*each)(void *context, const void *key, size_t key_size_bytes,
			     const void *value, const struct coshm_cache_item *item),
		 void *context);

#ifdef __cplusplus
}
#endif
#endif
