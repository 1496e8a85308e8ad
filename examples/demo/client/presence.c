/* SPDX-License-Identifier: MIT */
#include "presence.h"

#include "../common/clock.h"
#include "../common/names.h"

/* the clocks of cache and renderer are coarser than ours */
#define MARGIN_NS (100 * DEMO_NS_PER_MS)

bool demo_presence_note(struct demo_presence *presence, const struct demo_response *response,
			uint64_t sent_ns, uint64_t received_ns)
{
	uint64_t age_ns, until_ns = sent_ns + DEMO_PAGE_TTL_MS * DEMO_NS_PER_MS;
	bool was_there = sent_ns > presence->known_at_ns && received_ns < presence->until_ns;

	if ((response->status != 200 && response->status != 304) || response->age_ms < 0)
		return false;
	age_ns = (uint64_t)response->age_ms * DEMO_NS_PER_MS + MARGIN_NS;
	presence->known_at_ns = received_ns;
	presence->until_ns = until_ns > age_ns ? until_ns - age_ns : 0;
	return was_there && !response->is_hit;
}
