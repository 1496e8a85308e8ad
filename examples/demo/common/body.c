/* SPDX-License-Identifier: MIT */
#include "body.h"

#include <string.h>

#include "random.h"

void demo_body_begin(struct demo_body *body, const char *url, uint64_t version)
{
	uint64_t url_hash = demo_hash(url, strlen(url));

	*body = (struct demo_body){
		.version = version,
		.url_hash = url_hash,
		/* xorshift never leaves 0 */
		.state = demo_mix(version ^ demo_mix(url_hash)) | 1,
	};
}

static uint64_t body_word(struct demo_body *body, size_t index)
{
	uint64_t x = body->state;

	if (index == 0)
		return body->version;
	if (index == 1)
		return body->url_hash;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	body->state = x;
	return x;
}

static unsigned char body_byte(struct demo_body *body)
{
	size_t within = body->at % 8;

	if (within == 0)
		body->word = body_word(body, body->at / 8);
	body->at++;
	return (unsigned char)(body->word >> (8 * within));
}

static void put_le64(unsigned char *p, uint64_t x)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	memcpy(p, &x, sizeof(x));
#else
	for (int i = 0; i < 8; i++)
		p[i] = (unsigned char)(x >> (8 * i));
#endif
}

void demo_body_next(struct demo_body *body, void *ret_bytes, size_t size_bytes)
{
	unsigned char *p = ret_bytes;
	unsigned char *end = p + size_bytes;

	while (p < end && body->at % 8 != 0)
		*p++ = body_byte(body);
	for (; end - p >= 8; p += 8, body->at += 8)
		put_le64(p, body_word(body, body->at / 8));
	while (p < end)
		*p++ = body_byte(body);
}

bool demo_body_matches(struct demo_body *body, const void *bytes, size_t size_bytes)
{
	const unsigned char *p = bytes;
	unsigned char expected[4096];
	bool same = true;

	while (size_bytes > 0) {
		size_t n = size_bytes < sizeof(expected) ? size_bytes : sizeof(expected);

		demo_body_next(body, expected, n);
		same = memcmp(p, expected, n) == 0 && same;
		p += n;
		size_bytes -= n;
	}
	return same;
}
