/* SPDX-License-Identifier: MIT */
/*
 * The killer: ends a worker by SIGKILL every so often, and watches what becomes of what it held
 *
 * A process of its own that looks at the segment through a read-only attach; the master neither
 * helps it nor hears from it. Victims are taken so that each kind of holding occurs about equally
 * often: the lease of a task, a lane lock of the cache, a page of the cache that is being read or
 * written, another lock, nothing.
 */
#ifndef DEMO_SERVER_KILLER_H
#define DEMO_SERVER_KILLER_H

#include "children.h"
#include "options.h"

/* waits for a byte from go_fd (the server is up), kills until SIGTERM; returns the exit status */
int demo_killer_main(const struct demo_web_options *options, const struct demo_children *children,
		     int go_fd);

#endif
