/* SPDX-License-Identifier: MIT */
/*
 * base/atomic.h - the only way to words that other threads or processes write
 *
 * A field of type coshm__a64 or coshm__a32 cannot be read or written by accident: the wrapper struct does not
 * convert. Every access names its order; the caller's comment names the partner and what travels along.
 */
#ifndef COSHM__BASE_ATOMIC_H
#define COSHM__BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct coshm__a64 {
	_Atomic uint64_t value;
};

struct coshm__a32 {
	_Atomic uint32_t value;
};

_Static_assert(sizeof(struct coshm__a64) == 8 && _Alignof(struct coshm__a64) == 8, "a64 is a word");
_Static_assert(sizeof(struct coshm__a32) == 4 && _Alignof(struct coshm__a32) == 4, "a32 is a word");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
	       "a lock inside an atomic would be local to the process");

#define COSHM__ATOMIC_LOAD(bits, order)                                                            \
	static inline uint##bits##_t coshm__a##bits##_load_##order(const struct coshm__a##bits *a) \
	{                                                                                          \
		return atomic_load_explicit(&a->value, memory_order_##order);                      \
	}
#define COSHM__ATOMIC_STORE(bits, order)                                            \
	static inline void coshm__a##bits##_store_##order(struct coshm__a##bits *a, \
							  uint##bits##_t value)     \
	{                                                                           \
		atomic_store_explicit(&a->value, value, memory_order_##order);      \
	}
/* Strong: false means that *expected was not there, and now holds what is. */
#define COSHM__ATOMIC_CAS(bits, order, failure)                                              \
	static inline bool coshm__a##bits##_cas_##order(                                     \
		struct coshm__a##bits *a, uint##bits##_t *expected, uint##bits##_t desired)  \
	{                                                                                    \
		return atomic_compare_exchange_strong_explicit(&a->value, expected, desired, \
							       memory_order_##order,         \
							       memory_order_##failure);      \
	}
#define COSHM__ATOMIC_RMW(bits, name, order)                                                     \
	static inline uint##bits##_t coshm__a##bits##_##name##_##order(struct coshm__a##bits *a, \
								       uint##bits##_t value)     \
	{                                                                                        \
		return atomic_##name##_explicit(&a->value, value, memory_order_##order);         \
	}
#define COSHM__ATOMIC_ALL(bits)                     \
	COSHM__ATOMIC_LOAD(bits, relaxed)           \
	COSHM__ATOMIC_LOAD(bits, acquire)           \
	COSHM__ATOMIC_LOAD(bits, seq_cst)           \
	COSHM__ATOMIC_STORE(bits, relaxed)          \
	COSHM__ATOMIC_STORE(bits, release)          \
	COSHM__ATOMIC_STORE(bits, seq_cst)          \
	COSHM__ATOMIC_CAS(bits, relaxed, relaxed)   \
	COSHM__ATOMIC_CAS(bits, acquire, acquire)   \
	COSHM__ATOMIC_CAS(bits, release, relaxed)   \
	COSHM__ATOMIC_CAS(bits, acq_rel, acquire)   \
	COSHM__ATOMIC_CAS(bits, seq_cst, seq_cst)   \
	COSHM__ATOMIC_RMW(bits, fetch_add, relaxed) \
	COSHM__ATOMIC_RMW(bits, fetch_add, acq_rel) \
	COSHM__ATOMIC_RMW(bits, fetch_sub, relaxed) \
	COSHM__ATOMIC_RMW(bits, fetch_or, seq_cst)  \
	COSHM__ATOMIC_RMW(bits, fetch_and, seq_cst) \
	COSHM__ATOMIC_RMW(bits, exchange, seq_cst)

COSHM__ATOMIC_ALL(64)
COSHM__ATOMIC_ALL(32)

/* Keeps the compiler, not the CPU, from moving accesses across: the light half of an asymmetric barrier, and enough
 * between an owner's own stores that only matter to those who come after its death. */
static inline void coshm__compiler_barrier(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* Full fence. Use an operation with an order instead wherever there is one: ThreadSanitizer does not know fences. */
static inline void coshm__full_fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

/* Orders relaxed copies before a version word that is read again after them. */
static inline void coshm__acquire_fence(void)
{
	atomic_thread_fence(memory_order_acquire);
}

static inline void coshm__release_fence(void)
{
	atomic_thread_fence(memory_order_release);
}

static inline void coshm__cpu_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

#define coshm__likely(x)   __builtin_expect(!!(x), 1)
#define coshm__unlikely(x) __builtin_expect(!!(x), 0)

#endif
