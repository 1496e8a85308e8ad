/* SPDX-License-Identifier: MIT */
#ifndef DEMO_CLIENT_OPTIONS_H
#define DEMO_CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "../common/serverfile.h"

struct demo_replay_options {
	const char *run_dir; /* NULL: a server that keeps no ledgers */
	const char *log_path;
	struct demo_server server;
	uint32_t seconds;
	uint32_t connections;
	uint32_t requests_per_connection;
	uint32_t conditional_percent;
	uint32_t block_ms_max;
	bool json;
};

/*
 * Fills in what the command line and RUN_DIR/server say. Returns -1 to go on, else the exit status
 * for main (0 after --help); has printed why.
 */
int demo_replay_options_read(int argc, char **argv, struct demo_replay_options *ret_options);

#endif
