/* SPDX-License-Identifier: MIT */
/*
 * Did any client get more than B + r*T, as seen from outside?
 *
 * A response tells only that the limiter admitted the request somewhere between sending it and
 * receiving the answer. So T runs from before the first request was sent until after the last
 * answer came: a limiter that works can never be accused, whatever was delayed in between. The rule
 * is tried on the whole run and on every recent window that ends with a response, since a limiter
 * that forgets its state now and then would hide in a long run behind the idle time.
 */
#ifndef DEMO_CLIENT_ADMISSION_H
#define DEMO_CLIENT_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct demo_admission {
	uint32_t rate_per_s;
	uint32_t burst;
	size_t client_count;
	struct demo_admission_client *clients;
};

struct demo_admission_client {
	uint64_t first_sent_ns;
	uint64_t last_received_ns;
	uint64_t count;
	uint64_t *recent_sent_ns; /* of the last ones, as a ring */
	bool is_over;
};

int demo_admission_open(struct demo_admission *admission, size_t client_count, uint32_t rate_per_s,
			uint32_t burst);
void demo_admission_close(struct demo_admission *admission);

/* in the order of received_ns; 0 or -ENOMEM */
int demo_admission_note(struct demo_admission *admission, size_t client_index, uint64_t sent_ns,
			uint64_t received_ns);

/* clients that got more than the rule allows */
size_t demo_admission_over_count(const struct demo_admission *admission);

#endif
