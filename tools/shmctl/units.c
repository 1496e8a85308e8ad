/* SPDX-License-Identifier: MIT */
#include "units.h"

#include <coshm/queue.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS (1000 * NS_PER_US)
#define NS_PER_S  (1000 * NS_PER_MS)
#define NS_PER_M  (60 * NS_PER_S)
#define NS_PER_H  (60 * NS_PER_M)
#define NS_PER_D  (24 * NS_PER_H)

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit counts[] = {{"", 1}, {NULL, 0}};

static const struct unit sizes[] = {
	{"", 1},   {"K", UINT64_C(1) << 10}, {"M", UINT64_C(1) << 20}, {"G", UINT64_C(1) << 30},
	{NULL, 0},
};

static const struct unit durations[] = {
	{"ns", 1},	 {"us", NS_PER_US}, {"ms", NS_PER_MS}, {"s", NS_PER_S},
	{"m", NS_PER_M}, {"h", NS_PER_H},   {NULL, 0},
};

static const struct unit spans[] = {{"s", NS_PER_S}, {"m", NS_PER_M}, {"h", NS_PER_H}, {NULL, 0}};

static const struct unit *find_unit(const struct unit *units, const char *suffix)
{
	for (; units->suffix; units++)
		if (!strcmp(units->suffix, suffix))
			return units;
	return NULL;
}

/* strtoull would take blanks, signs and a wrapped -1. */
static int take_digits(const char **text, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *at = *text;

	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return -ERANGE;
	if (at == *text)
		return -EINVAL;
	*text = at;
	*ret_value = value;
	return 0;
}

/* The digits after a point, as parts of 10^9; more than nine would be made-up precision. */
static int take_fraction(const char **text, uint64_t *ret_billionths)
{
	uint64_t value, scale = 1000000000;
	const char *start = *text;
	int error = take_digits(text, &value);

	if (error || *text - start > 9)
		return -EINVAL;
	for (ptrdiff_t i = 0; i < *text - start; i++)
		scale /= 10;
	*ret_billionths = value * scale;
	return 0;
}

static int parse(const char *text, const struct unit *units, uint64_t *ret_value)
{
	const struct unit *unit;
	uint64_t whole, value, fraction, billionths = 0;
	int error = take_digits(&text, &whole);

	if (error)
		return error;
	if (*text == '.') {
		text++;
		error = take_fraction(&text, &billionths);
		if (error)
			return error;
	}
	unit = find_unit(units, text);
	if (!unit || (billionths && unit->factor == 1))
		return -EINVAL;
	fraction = (uint64_t)((unsigned __int128)billionths * unit->factor / 1000000000);
	if (__builtin_mul_overflow(whole, unit->factor, &value) ||
	    __builtin_add_overflow(value, fraction, &value))
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int units_parse_count(const char *text, uint64_t *ret_count)
{
	return parse(text, counts, ret_count);
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse(text, sizes, ret_bytes);
}

int units_parse_duration(const char *text, uint64_t *ret_ns)
{
	/* Nothing needs no unit. */
	if (!strcmp(text, "0")) {
		*ret_ns = 0;
		return 0;
	}
	return parse(text, durations, ret_ns);
}

int units_parse_rate(const char *text, uint64_t *ret_count, uint64_t *ret_per_ns)
{
	const struct unit *span;
	uint64_t count;
	int error = take_digits(&text, &count);

	if (error)
		return error;
	span = *text == '/' ? find_unit(spans, text + 1) : NULL;
	if (!span || !count)
		return -EINVAL;
	*ret_count = count;
	*ret_per_ns = span->factor;
	return 0;
}

int units_parse_mode(const char *text, uint32_t *ret_mode)
{
	uint32_t mode = 0;
	size_t length = strlen(text);

	if (!length || length > 4 || strspn(text, "01234567") != length)
		return -EINVAL;
	for (; *text; text++)
		mode = mode << 3 | (uint32_t)(*text - '0');
	if (mode == 0 || mode > 0777)
		return -EINVAL;
	*ret_mode = mode;
	return 0;
}

static const struct {
	const char *name;
	uint32_t kind;
	int has_max;
} backoffs[] = {
	{"fixed:", COSHM_BACKOFF_FIXED, 0},
	{"linear:", COSHM_BACKOFF_LINEAR, 1},
	{"exponential:", COSHM_BACKOFF_EXPONENTIAL, 1},
};

/* 0 is how the library is asked for its default: it would not be what was said. */
static int parse_delay(const char *text, uint64_t *ret_ns)
{
	uint64_t ns;
	int error = units_parse_duration(text, &ns);

	if (error || !ns)
		return error ? error : -EINVAL;
	*ret_ns = ns;
	return 0;
}

static int parse_span(const char *text, int has_max, struct units_backoff *backoff)
{
	const char *dots = strstr(text, "..");
	char base[32];
	int error;

	if (!dots) {
		error = parse_delay(text, &backoff->base_ns);
		backoff->max_ns = has_max ? 0 : backoff->base_ns;
		/* The library would cut the first delay to the default of the longest. */
		if (!error && has_max && backoff->base_ns > NS_PER_H)
			error = -EINVAL;
		return error;
	}
	if (!has_max || dots - text >= (ptrdiff_t)sizeof(base))
		return -EINVAL;
	memcpy(base, text, (size_t)(dots - text));
	base[dots - text] = '\0';
	error = parse_delay(base, &backoff->base_ns);
	if (!error)
		error = parse_delay(dots + 2, &backoff->max_ns);
	if (!error && backoff->max_ns < backoff->base_ns)
		error = -EINVAL;
	return error;
}

int units_parse_backoff(const char *text, struct units_backoff *ret_backoff)
{
	for (size_t i = 0; i < sizeof(backoffs) / sizeof(backoffs[0]); i++) {
		size_t length = strlen(backoffs[i].name);
		struct units_backoff backoff = {.kind = backoffs[i].kind};
		int error;

		if (strncmp(text, backoffs[i].name, length) != 0)
			continue;
		error = parse_span(text + length, backoffs[i].has_max, &backoff);
		if (!error)
			*ret_backoff = backoff;
		return error;
	}
	return -EINVAL;
}

/* value / unit with one decimal where that says something, without floating point (whose comma follows the locale). */
static void print_scaled(struct units_text *out, uint64_t value, uint64_t unit, const char *suffix)
{
	uint64_t whole = value / unit;
	uint64_t tenths = (value % unit * 10 + unit / 2) / unit;

	if (whole >= 100) {
		whole += tenths >= 5;
		tenths = 0;
	} else if (tenths == 10) {
		whole++;
		tenths = 0;
	}
	if (tenths)
		snprintf(out->text, sizeof(out->text), "%" PRIu64 ".%" PRIu64 "%s", whole, tenths,
			 suffix);
	else
		snprintf(out->text, sizeof(out->text), "%" PRIu64 "%s", whole, suffix);
}

struct units_text units_size(uint64_t bytes)
{
	static const char *const suffixes[] = {"", "K", "M", "G", "T", "P", "E"};
	struct units_text out;
	unsigned int step = 0;

	while (step < 6 && bytes >> (10 * step) >= 1024)
		step++;
	/* 1023.7K would round to 1024K */
	if (step && step < 6 && bytes >> (10 * step) == 1023 && (bytes >> (10 * step - 1) & 1))
		step++;
	print_scaled(&out, bytes, UINT64_C(1) << (10 * step), suffixes[step]);
	return out;
}

static void print_pair(struct units_text *out, uint64_t high, const char *high_unit, uint64_t low,
		       const char *low_unit)
{
	snprintf(out->text, sizeof(out->text), "%" PRIu64 "%s%02" PRIu64 "%s", high, high_unit, low,
		 low_unit);
}

struct units_text units_duration(uint64_t ns)
{
	struct units_text out;

	if (ns < NS_PER_US)
		print_scaled(&out, ns, 1, ns ? "ns" : "s");
	else if (ns < NS_PER_MS)
		print_scaled(&out, ns, NS_PER_US, "us");
	else if (ns < NS_PER_S)
		print_scaled(&out, ns, NS_PER_MS, "ms");
	else if (ns < NS_PER_M)
		print_scaled(&out, ns, NS_PER_S, "s");
	else if (ns < NS_PER_H)
		print_pair(&out, ns / NS_PER_M, "m", ns % NS_PER_M / NS_PER_S, "s");
	else if (ns < NS_PER_D)
		print_pair(&out, ns / NS_PER_H, "h", ns % NS_PER_H / NS_PER_M, "m");
	else
		print_pair(&out, ns / NS_PER_D, "d", ns % NS_PER_D / NS_PER_H, "h");
	return out;
}

struct units_text units_rate(uint64_t count, uint64_t per_ns)
{
	struct units_text out;

	for (const struct unit *span = spans; span->suffix; span++)
		if (span->factor == per_ns) {
			snprintf(out.text, sizeof(out.text), "%" PRIu64 "/%s", count, span->suffix);
			return out;
		}
	snprintf(out.text, sizeof(out.text), "%" PRIu64 "/%.31s", count,
		 units_duration(per_ns).text);
	return out;
}
