/* SPDX-License-Identifier: MIT */
/* A web worker: one event loop, one listening socket of its own on the shared port. */
#ifndef DEMO_SERVER_WEB_H
#define DEMO_SERVER_WEB_H

#include <stdint.h>

#include "../common/ledger.h"
#include "app.h"

/*
 * @port      on 127.0.0.1, kept for us by the master
 * @ready_fd  gets one byte when the worker listens
 * Returns the exit status, after SIGTERM has been drained.
 */
int demo_web_main(struct demo_app *app, const struct demo_ledger *ledger, uint32_t worker_index,
		  uint16_t port, int ready_fd);

#endif
