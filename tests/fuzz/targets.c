/* SPDX-License-Identifier: MIT */
#include "fuzz/targets.h"

const struct fuzz_target *const fuzz_targets[FUZZ_TARGET_COUNT] = {
	&fuzz_attach,
	&fuzz_cache,
	&fuzz_limiter,
	&fuzz_queue,
};
