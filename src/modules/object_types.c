/* SPDX-License-Identifier: MIT */
/* The types of objects in this build. The segment layer finds them here without knowing any of them. */
#include "segment/object.h"

#include <stddef.h>

/* Declared here: their own headers are beside this file, not below it. */
extern const struct coshm__object_type coshm__cache_type;
extern const struct coshm__object_type coshm__limiter_type;
extern const struct coshm__object_type coshm__queue_type;

const struct coshm__object_type *const coshm__object_types[] = {
	&coshm__cache_type,
	&coshm__limiter_type,
	&coshm__queue_type,
	NULL,
};
