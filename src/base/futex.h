/* SPDX-License-Identifier: MIT */
/*
 * base/futex.h - sleep until a 32-bit word in shared memory changes
 *
 * Shared futexes, keyed by the memory itself, so that any process that maps the segment can wake any other.
 * errno is left as it was.
 */
#ifndef COSHM__BASE_FUTEX_H
#define COSHM__BASE_FUTEX_H

#include "base/atomic.h"

/* Returns 0 woken (maybe spuriously), -EAGAIN the word is not @expected, -ETIMEDOUT, -EINTR. */
int coshm__futex_wait(struct coshm__a32 *word, uint32_t expected, uint64_t timeout_ns);

/* Returns how many were woken. */
int coshm__futex_wake(struct coshm__a32 *word, int count);

#endif
