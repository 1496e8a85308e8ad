/* SPDX-License-Identifier: MIT */
/* One line of an access log in combined (or common) format. */
#ifndef DEMO_ACCESSLOG_H
#define DEMO_ACCESSLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct demo_log_line {
	const char *client; /* not terminated: these point into the line */
	size_t client_size_bytes;
	const char *path;
	size_t path_size_bytes;
	uint64_t size_bytes; /* 0 where the log has '-' */
};

/*
 * Whether the line holds a client, a request with a path that can be sent again as it stands, and
 * a size. Logs hold what attackers send, so anything else is skipped by the caller, never guessed.
 */
bool demo_log_parse(const char *line, struct demo_log_line *ret_line);

#endif
