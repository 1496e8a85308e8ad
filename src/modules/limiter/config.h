/* SPDX-License-Identifier: MIT */
/*
 * limiter/config.h - the configuration in force: eight records, and the version that says which one counts
 *
 * Read version, record, version. The record of version v is written again for version v + 8, which begins only when v + 7
 * is in force: the copy is whole unless that much has happened meanwhile.
 */
#ifndef COSHM__LIMITER_CONFIG_H
#define COSHM__LIMITER_CONFIG_H

#include "modules/limiter/gcra.h"
#include "modules/limiter/limiter_shm.h"

#define COSHM__LIMITER_CONFIG_TRIES 100

static inline uint64_t coshm__limiter_config_field(const struct coshm__a64 *word)
{
	/* [LM9] acquire, pairs [LM10]: who has read a word of a later record reads a later version as well */
	return coshm__a64_load_acquire(word);
}

static inline bool coshm__limiter_config_is_whole(const struct coshm__limiter_shm *shm,
						  uint64_t version)
{
	/* relaxed: behind [LM9] */
	return coshm__likely(coshm__a64_load_relaxed(&shm->config_version) - version <
			     COSHM__LIMITER_CONFIG_COUNT - 1);
}

/* As a whole. 0; -EUCLEAN: not a possible one; what is, cannot make sums overflow or a division trap. */
static inline int coshm__limiter_config_load(const struct coshm__limiter_shm *shm,
					     struct coshm__gcra *ret_gcra)
{
	for (int tries = 0; tries < COSHM__LIMITER_CONFIG_TRIES; tries++) {
		/* [LM7] acquire, pairs [LM8]; carries the record */
		uint64_t version = coshm__a64_load_acquire(&shm->config_version);
		const struct coshm__limiter_config_shm *config =
			&shm->configs[version % COSHM__LIMITER_CONFIG_COUNT];

		ret_gcra->burst = coshm__limiter_config_field(&config->burst);
		ret_gcra->period = coshm__limiter_config_field(&config->period);
		ret_gcra->capacity = coshm__limiter_config_field(&config->capacity);
		ret_gcra->capacity_ever = coshm__limiter_config_field(&config->capacity_ever);
		if (coshm__limiter_config_is_whole(shm, version))
			return coshm__gcra_is_sane(ret_gcra) ? 0 : -EUCLEAN;
	}
	return -EUCLEAN;
}

#endif
