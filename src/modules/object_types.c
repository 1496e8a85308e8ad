/* SPDX-License-Identifier: MIT */
/* The types of objects in this build. The segment layer finds them here without knowing any of them. */
#include "modules/limiter/limiter.h"
#include "modules/queue/queue.h"
#include "segment/object.h"

#include <stddef.h>

extern const struct coshm__object_type coshm__cache_type;

const struct coshm__object_type *const coshm__object_types[] = {
	&coshm__cache_type,
	&coshm__limiter_type,
	&coshm__queue_type,
	NULL,
};
