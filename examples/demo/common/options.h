/* SPDX-License-Identifier: MIT */
/* Reading numbers and durations from a command line, the same way in both programs. */
#ifndef DEMO_OPTIONS_H
#define DEMO_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* decimal, the whole text, in [least, most] */
bool demo_option_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number);

/* as demo_option_number, with K, M or G */
bool demo_option_size(const char *text, uint64_t least, uint64_t most, uint64_t *ret_bytes);

#endif
