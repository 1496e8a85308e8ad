/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <stdlib.h>

static bool parse(const char *text, bool with_unit, uint64_t *ret_number)
{
	unsigned int shift = 0;
	unsigned long long number;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (with_unit && *end) {
		shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
		end += shift != 0;
	}
	if (*end || number > UINT64_MAX >> shift)
		return false;
	*ret_number = number << shift;
	return true;
}

static bool parse_within(const char *text, bool with_unit, uint64_t least, uint64_t most,
			 uint64_t *ret_number)
{
	uint64_t number;

	if (!parse(text, with_unit, &number) || number < least || number > most)
		return false;
	*ret_number = number;
	return true;
}

bool demo_option_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number)
{
	return parse_within(text, false, least, most, ret_number);
}

bool demo_option_size(const char *text, uint64_t least, uint64_t most, uint64_t *ret_bytes)
{
	return parse_within(text, true, least, most, ret_bytes);
}
