/* SPDX-License-Identifier: MIT */
#include "admission.h"

#include <errno.h>
#include <stdlib.h>

#include "../common/clock.h"

int demo_admission_open(struct demo_admission *admission, size_t client_count, uint32_t rate_per_s,
			uint32_t burst)
{
	struct demo_admission_client *clients = calloc(client_count, sizeof(*clients));

	if (!clients)
		return -ENOMEM;
	*admission = (struct demo_admission){
		.rate_per_s = rate_per_s,
		.burst = burst,
		.client_count = client_count,
		.clients = clients,
	};
	return 0;
}

void demo_admission_close(struct demo_admission *admission)
{
	for (size_t i = 0; i < admission->client_count; i++)
		free(admission->clients[i].recent_sent_ns);
	free(admission->clients);
	*admission = (struct demo_admission){0};
}

/* a window can only be over the rule if it holds more than the burst; twice that sees most */
static size_t ring_size(const struct demo_admission *admission)
{
	return 2 * (size_t)admission->burst + 2;
}

static bool is_over(const struct demo_admission *admission, uint64_t count, uint64_t for_ns)
{
	uint64_t over = count > admission->burst ? count - admission->burst : 0;

	/* over <= r * T, in integers; a run of centuries would be needed to overflow */
	return (unsigned __int128)over * DEMO_NS_PER_S >
	       (unsigned __int128)admission->rate_per_s * for_ns;
}

static bool any_window_is_over(const struct demo_admission *admission,
			       const struct demo_admission_client *client, uint64_t now_ns)
{
	size_t size = ring_size(admission);
	uint64_t kept = client->count < size ? client->count : size;
	uint64_t sent_ns = UINT64_MAX;

	for (uint64_t back = 1; back <= kept; back++) {
		uint64_t one_ns = client->recent_sent_ns[(client->count - back) % size];

		if (one_ns < sent_ns)
			sent_ns = one_ns;
		if (is_over(admission, back, now_ns - sent_ns))
			return true;
	}
	return false;
}

int demo_admission_note(struct demo_admission *admission, size_t client_index, uint64_t sent_ns,
			uint64_t received_ns)
{
	struct demo_admission_client *client = &admission->clients[client_index];
	size_t size = ring_size(admission);

	if (!client->recent_sent_ns) {
		client->recent_sent_ns = calloc(size, sizeof(*client->recent_sent_ns));
		if (!client->recent_sent_ns)
			return -ENOMEM;
		client->first_sent_ns = sent_ns;
	}
	if (sent_ns < client->first_sent_ns)
		client->first_sent_ns = sent_ns;
	client->last_received_ns = received_ns;
	client->recent_sent_ns[client->count++ % size] = sent_ns;
	client->is_over = client->is_over || any_window_is_over(admission, client, received_ns) ||
			  is_over(admission, client->count, received_ns - client->first_sent_ns);
	return 0;
}

size_t demo_admission_over_count(const struct demo_admission *admission)
{
	size_t count = 0;

	for (size_t i = 0; i < admission->client_count; i++)
		count += admission->clients[i].is_over;
	return count;
}
