/* SPDX-License-Identifier: MIT */
/*
 * The body of a page: bytes that follow from (URL, version, size) alone
 *
 * The renderer makes them in a queue worker, the client checks every byte it receives, and they
 * share nothing but this function. So a body that is torn, mixed from two versions, cut, shifted,
 * or another URL's cannot pass, wherever it was damaged in between.
 *
 * Layout: version (8 bytes, little-endian), hash of the URL (8), then an xorshift stream seeded by
 * both. A body shorter than 16 bytes is the front part of that.
 */
#ifndef DEMO_BODY_H
#define DEMO_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A position in one body; small enough to keep per connection and to check as bytes arrive. */
struct demo_body {
	uint64_t version;
	uint64_t url_hash;
	uint64_t state;
	uint64_t word;
	size_t at;
};

void demo_body_begin(struct demo_body *body, const char *url, uint64_t version);

/* writes the next size_bytes bytes of the body */
void demo_body_next(struct demo_body *body, void *ret_bytes, size_t size_bytes);

/* whether the next size_bytes bytes of the body are these; moves on either way */
bool demo_body_matches(struct demo_body *body, const void *bytes, size_t size_bytes);

#endif
