/* SPDX-License-Identifier: MIT */
/*
 * RUN_DIR/server: what a client must know of a running prefork-web
 *
 * "key value" lines, so that shell scripts read it too. It appears by rename(2) when every worker
 * listens, which makes it the sign of readiness as well.
 */
#ifndef DEMO_SERVERFILE_H
#define DEMO_SERVERFILE_H

#include <limits.h>
#include <stdint.h>

struct demo_server {
	uint32_t pid; /* of the master */
	uint16_t port;
	uint32_t web_workers;
	uint32_t rate_per_s;
	uint32_t burst;
	uint32_t kill_every_ms; /* 0: no killer */
	char segment[64];
	char log_path[PATH_MAX]; /* "": generated traffic */
};

/* 0 or -errno */
int demo_server_write(const struct demo_server *server, const char *run_dir);

/* 0, -ENOENT while the server is not ready, -EBADMSG, -errno */
int demo_server_read(struct demo_server *ret_server, const char *run_dir);

#endif
