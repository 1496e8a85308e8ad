/* SPDX-License-Identifier: MIT */
/* input.h - a value or payload: from the command line, or from stdin */
#ifndef SHMCTL_INPUT_H
#define SHMCTL_INPUT_H

#include <stddef.h>
#include <stdint.h>

/*
 * What an operand stands for: itself, or with "-" all of stdin, of which at most @size_bytes_max + 1 bytes are kept so
 * that the library can refuse what is too large. free() it. Returns 0 or a negative errno.
 */
int input_operand(const char *operand, uint64_t size_bytes_max, void **ret_data,
		  size_t *ret_size_bytes);

#endif
