/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/input.h - an input, read from front to back
 *
 * Behind its end there are zeros, so that every input means something and a shorter one does less.
 */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_input {
	const uint8_t *bytes;
	size_t size_bytes;
	size_t used;
};

static inline int fuzz_input_is_over(const struct fuzz_input *input)
{
	return input->used >= input->size_bytes;
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
	return fuzz_input_is_over(input) ? 0 : input->bytes[input->used++];
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
	uint16_t low = fuzz_u8(input);

	return (uint16_t)(low | fuzz_u8(input) << 8);
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
	uint32_t low = fuzz_u16(input);

	return low | (uint32_t)fuzz_u16(input) << 16;
}

#endif
