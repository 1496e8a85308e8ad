/* SPDX-License-Identifier: MIT */
/* The master: makes the segment, keeps the workers running, and knows nothing about recovery. */
#ifndef DEMO_SERVER_MASTER_H
#define DEMO_SERVER_MASTER_H

#include "../common/traffic.h"
#include "options.h"

/* returns the exit status */
int demo_master_main(const struct demo_web_options *options, const struct demo_traffic *traffic);

#endif
