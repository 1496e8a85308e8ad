/* SPDX-License-Identifier: MIT */
/*
 * coshm/types.h - words that every other header uses
 *
 * Returns       0 done; 1 yes and 0 no where the function asks a question (get: hit, try: allowed, add: added);
 *               a negative errno where it could not tell or do. coshm never sets errno, and an error return has
 *               changed nothing. coshm_strerror() turns a return into a sentence that names the fix.
 * Time          uint64_t nanoseconds. Spans end in _for_ns, _after_ns, timeout_ns or ttl_ns; points in time end in
 *               _at_ns and are on the segment's clock (coshm_segment_now_ns): CLOCK_MONOTONIC of the initial time
 *               namespace, the same for all members on the host.
 * Sizes         bytes, size_t in memory, uint64_t where they are stored.
 * Handles       opaque and process-local. A handle that was closed stays harmless: every function answers -EBADF.
 *               NULL is -EBADF as well, except that every close function takes NULL as done.
 * Structs       Every struct that a caller fills starts with struct_size_bytes. Set it to sizeof the struct, or leave
 *               it 0 for the layout of version 0.1: that is how a program keeps working with a newer library.
 * Safety words  MT: threads of one process at once. MP: processes at once. FORK: works in a child without a re-attach.
 *               AS: may be called in a signal handler. KILL: SIGKILL at any instruction leaves a segment which the
 *               other members use on and repair. A word that is missing is not promised.
 */
#ifndef COSHM_TYPES_H
#define COSHM_TYPES_H

#include <stddef.h>
#include <stdint.h>

#if UINTPTR_MAX < UINT64_MAX
#error "coshm is for 64-bit programs only: a segment is mapped at its full size, and its words are 64 bits wide"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define COSHM_CHECK_RESULT __attribute__((warn_unused_result))
#else
#define COSHM_CHECK_RESULT
#endif

#define COSHM_VERSION_MAJOR 0
#define COSHM_VERSION_MINOR 1

/* A timeout that never ends. Waits wake up by themselves from time to time; this one just goes on. */
#define COSHM_FOREVER UINT64_MAX

/* An object's name: letters, digits, '.', '_', '-'; ends with a zero byte within this many bytes. Of segments: segment.h */
#define COSHM_NAME_SIZE_BYTES 48

struct coshm_segment; /* one attached segment */
struct coshm_cache;   /* one open cache */
struct coshm_limiter; /* one open rate limiter */
struct coshm_queue;   /* one open task queue */

/* Flags of the create functions. */
enum coshm_create_flags {
	/* Open what has that name already, and create only what is missing. An existing object keeps its own
	 * configuration. Without it an existing name is -EEXIST. */
	COSHM_CREATE_OR_OPEN = 1,
};

/* The kinds of objects in a segment. Values are part of the segment's layout. */
enum coshm_object_type {
	COSHM_OBJECT_CACHE = 1,
	COSHM_OBJECT_LIMITER = 2,
	COSHM_OBJECT_QUEUE = 3,
};

/*
 * coshm_version - the running library's version as text, "0.1.0"
 * coshm_check_version - is the running library compatible with the given one?
 *
 * Safety    MT MP AS FORK
 * Returns   coshm_check_version: 1 yes, 0 no
 */
const char *coshm_version(void);
int coshm_check_version(unsigned int major, unsigned int minor);

/*
 * coshm_strerror - what a return of this library means and what to do about it
 * @error    any return of a coshm function (the sign does not matter)
 *
 * A constant sentence, never NULL, for instance for -EPROTONOSUPPORT: "the segment has another layout: ...".
 * The details of one failure (which file, how many bytes) go to the log callback.
 * Safety    MT MP AS FORK
 */
const char *coshm_strerror(int error);

enum coshm_log_level {
	COSHM_LOG_ERROR = 0,   /* a call failed; the text names the fix */
	COSHM_LOG_WARNING = 1, /* somebody died or something was repaired */
	COSHM_LOG_INFO = 2,    /* life cycle: created, attached, grown */
};

/*
 * coshm_set_log - hear the details of failures and repairs
 * @log      called in the thread whose call has something to say, maybe while it holds locks, of this process or of the
 *           segment: it must be short, must return, and must neither call coshm nor fork, which would wait for ever.
 *           NULL (the start) is silence: the library itself never prints.
 * @context  passed through
 * @level    the highest coshm_log_level to hear
 *
 * Process-wide. Call it before the first attach: it is not meant to change while other threads use coshm.
 */
void coshm_set_log(void (*log)(void *context, int level, const char *message), void *context,
		   int level);

#ifdef __cplusplus
}
#endif
#endif
