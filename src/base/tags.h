/* SPDX-License-Identifier: MIT */
/*
 * base/tags.h - one cache line of words, searched at once
 *
 * A hash table whose bucket is a line of eight words with a tag in the top 16 bits of each. A loop that stops at the first
 * match ends at another place each time, which the CPU cannot foresee: it throws away the work on the lookups that
 * follow, whose lines it could have fetched meanwhile. Comparing all eight takes fewer instructions, and no jump.
 */
#ifndef COSHM__BASE_TAGS_H
#define COSHM__BASE_TAGS_H

#include "base/atomic.h"

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if !__has_feature(thread_sanitizer)
#define COSHM__TAGS_SSE2 1
#endif
#else
#define COSHM__TAGS_SSE2 1
#endif
#endif

#ifdef COSHM__TAGS_SSE2
#include <emmintrin.h>
#endif

/*
 * Bit i: word i of the line, which is aligned to 64 bytes, has the tag. Each word is read once, whole, in no order: who
 * wants what a word says loads it by itself.
 */
static inline uint32_t coshm__tags_match(const struct coshm__a64 *line, uint16_t tag)
{
#ifdef COSHM__TAGS_SSE2
	/* Not atomic by the letter of C; on x86-64 each aligned half of such a load is. */
	const __m128 *words = (const __m128 *)(const void *)line;
	/* The upper halves of four words each, then their upper 16 bits, extended by the sign so that packing keeps them. */
	__m128i low = _mm_castps_si128(_mm_shuffle_ps(words[0], words[1], _MM_SHUFFLE(3, 1, 3, 1)));
	__m128i high =
		_mm_castps_si128(_mm_shuffle_ps(words[2], words[3], _MM_SHUFFLE(3, 1, 3, 1)));
	__m128i tags = _mm_packs_epi32(_mm_srai_epi32(low, 16), _mm_srai_epi32(high, 16));
	__m128i equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16((short)tag));

	return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()));
#else
	uint32_t match = 0;

	for (uint32_t i = 0; i < 8; i++)
		/* relaxed: see above */
		match |= (uint32_t)(coshm__a64_load_relaxed(&line[i]) >> 48 == tag) << i;
	return match;
#endif
}

#endif
