/* SPDX-License-Identifier: MIT */
/*
 * units.h - numbers as operators write and read them
 *
 * Sizes take K, M, G (1024). Durations take ns, us, ms, s, m, h. Rates are N/s, N/m or N/h. Fractions are fine where
 * they come out whole enough: 1.5G, 0.5s. The parse functions return 0, -EINVAL (not such a number) or -ERANGE (more
 * than 64 bits), and leave *ret untouched then.
 */
#ifndef SHMCTL_UNITS_H
#define SHMCTL_UNITS_H

#include <stdint.h>

/* Short enough to be returned by value: units_size(n).text lives as long as the expression it stands in. */
struct units_text {
	char text[64];
};

struct units_backoff {
	uint32_t kind; /* coshm_backoff_kind */
	uint64_t base_ns;
	uint64_t max_ns; /* 0: the queue's default, an hour, which base_ns is not above */
};

int units_parse_count(const char *text, uint64_t *ret_count);
int units_parse_size(const char *text, uint64_t *ret_bytes);
int units_parse_duration(const char *text, uint64_t *ret_ns);
int units_parse_rate(const char *text, uint64_t *ret_count, uint64_t *ret_per_ns);
int units_parse_mode(const char *text, uint32_t *ret_mode);
/* fixed:D, linear:D..D or exponential:D..D, the first D being the delay before the first retry. None is 0. */
int units_parse_backoff(const char *text, struct units_backoff *ret_backoff);

/* For people: rounded to what fits on a glance. Exact figures are in the JSON. */
struct units_text units_size(uint64_t bytes);
struct units_text units_duration(uint64_t ns);
struct units_text units_rate(uint64_t count, uint64_t per_ns);

#endif
