/* SPDX-License-Identifier: MIT */
/*
 * Which pages must be in the server's cache, as far as a client can know
 *
 * A hit tells the page's age, so until when it lives. A request that is sent after it, and answered before that time,
 * finds the page, or the page went early: it was evicted. After a miss nothing is known until the next hit, so each
 * early miss is an eviction of its own, and their number is a lower bound for what the cache says of itself.
 */
#ifndef DEMO_CLIENT_PRESENCE_H
#define DEMO_CLIENT_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "response.h"

/* of one page; zero: nothing is known */
struct demo_presence {
	uint64_t known_at_ns; /* when the last response came in */
	uint64_t until_ns;    /* the page lives at least until then */
};

/* Whether this response shows that the page had gone early; it is what is known from then on. */
bool demo_presence_note(struct demo_presence *presence, const struct demo_response *response,
			uint64_t sent_ns, uint64_t received_ns);

#endif
