/* SPDX-License-Identifier: MIT */
#ifndef DEMO_SERVER_OPTIONS_H
#define DEMO_SERVER_OPTIONS_H

#include <stdint.h>

struct demo_web_options {
	const char *segment;
	const char *run_dir;	   /* NULL: no ledgers */
	const char *log_path;	   /* NULL: generated traffic */
	uint64_t cache_size_bytes; /* 0: a quarter of the distinct bytes */
	uint64_t queue_capacity;
	uint16_t port;
	uint32_t web_workers;
	uint32_t queue_workers;
	uint32_t rate_per_s;
	uint32_t burst;
	uint32_t kill_every_ms; /* 0: never */
};

/* -1 to go on, else the exit status for main; has printed why */
int demo_web_options_read(int argc, char **argv, struct demo_web_options *ret_options);

#endif
