/* SPDX-License-Identifier: MIT */
#include "presence.h"

#include "../common/clock.h"
#include "../common/names.h"

/* the clocks of cache and renderer are coarser than ours */
#define MARGIN_NS (100 * DEMO_NS_PER_MS)

bool demo_presence_note(struct demo_presence *presence, const struct demo_response *response,
			uint64_t sent_ns, uint64_t received_ns)
{
	bool was_there = sent_ns > presence->known_at_ns && received_ns < presence->until_ns;
	bool is_page = response->status == 200 || response->status == 304;
	uint64_t until_ns = sent_ns + DEMO_PAGE_TTL_MS * DEMO_NS_PER_MS, age_ns;

	/* 202: it is being rendered; 503: it would have to be, and the queue is full */
	if (!is_page && response->status != 202 && response->status != 503)
		return false;
	*presence = (struct demo_presence){.known_at_ns = received_ns};
	if (!is_page || !response->is_hit)
		return was_there;
	if (response->age_ms >= 0) {
		age_ns = (uint64_t)response->age_ms * DEMO_NS_PER_MS + MARGIN_NS;
		presence->until_ns = until_ns > age_ns ? until_ns - age_ns : 0;
	}
	return false;
}
