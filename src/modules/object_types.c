/* SPDX-License-Identifier: MIT */
/* The types of objects in this build. The segment layer finds them here without knowing any of them. */
#include "modules/limiter/limiter.h"
#include "segment/object.h"

#include <stddef.h>

const struct coshm__object_type *const coshm__object_types[] = {
	&coshm__limiter_type,
	NULL,
};
