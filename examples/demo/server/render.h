/* SPDX-License-Identifier: MIT */
/* A queue worker: takes rendering tasks and puts pages into the cache. */
#ifndef DEMO_SERVER_RENDER_H
#define DEMO_SERVER_RENDER_H

#include "../common/ledger.h"
#include "app.h"

/* returns the exit status, after SIGTERM has been drained */
int demo_render_main(struct demo_app *app, const struct demo_ledger *ledger);

#endif
