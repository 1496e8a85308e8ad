/* SPDX-License-Identifier: MIT */
/* coshm/coshm.h - everything */
#ifndef COSHM_COSHM_H
#define COSHM_COSHM_H

#include <coshm/cache.h>
#include <coshm/inspect.h>
#include <coshm/limiter.h>
#include <coshm/queue.h>
#include <coshm/segment.h>
#include <coshm/stats.h>
#include <coshm/types.h>

#endif
