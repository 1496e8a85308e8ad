/* SPDX-License-Identifier: MIT */
/*
 * Changing the configuration, and showing it.
 *
 * Commit    the store of config_version.
 * Stopped   a configurer holds up other configurers, nobody else.
 */
#include "base/crash.h"
#include "base/log.h"
#include "modules/limiter/config.h"
#include "modules/limiter/limiter.h"
#include "segment/rlock.h"

#include <string.h>

static int config_show(const struct coshm__limiter_shm *shm,
		       struct coshm_limiter_config *ret_config)
{
	for (int tries = 0; tries < COSHM__LIMITER_CONFIG_TRIES; tries++) {
		/* acquire, as [LM7] */
		uint64_t version = coshm__a64_load_acquire(&shm->config_version);
		const struct coshm__limiter_config_shm *config =
			&shm->configs[version % COSHM__LIMITER_CONFIG_COUNT];

		ret_config->rate = coshm__limiter_config_field(&config->rate);
		ret_config->per_ns = coshm__limiter_config_field(&config->per_ns);
		ret_config->burst = coshm__limiter_config_field(&config->burst);
		if (coshm__limiter_config_is_whole(shm, version)) {
			ret_config->keys_max = shm->keys_max;
			return 0;
		}
	}
	return -EUCLEAN;
}

int coshm__limiter_config_read(const struct coshm_limiter_config *callers,
			       struct coshm_limiter_config *ret_config,
			       struct coshm__gcra *ret_gcra)
{
	struct coshm_limiter_config config;
	int error = callers ? coshm__read_struct(&config, sizeof(config), sizeof(config), callers)
			    : coshm__fail(-EINVAL, "limiter: config is NULL");

	if (error)
		return error;
	if (config.rate == 0)
		return coshm__fail(-EINVAL, "limiter: rate is 0; it is 1 at least");
	if (config.reserved[0] || config.reserved[1])
		return coshm__fail(-EINVAL, "limiter: a reserved field is not 0");
	if (config.per_ns == 0)
		config.per_ns = COSHM__NS_PER_S;
	if (config.burst == 0)
		config.burst = config.rate;
	if (coshm__gcra_make(config.rate, config.per_ns, config.burst, ret_gcra))
		return coshm__fail(
			-EINVAL,
			"limiter: %llu per %llu ns with a burst of %llu: the bucket takes "
			"over 208 days to fill, or tokens come faster than one per 1/128 ns",
			(unsigned long long)config.rate, (unsigned long long)config.per_ns,
			(unsigned long long)config.burst);
	*ret_config = config;
	return 0;
}

static void record_write(struct coshm__limiter_config_shm *record,
			 const struct coshm_limiter_config *config, const struct coshm__gcra *gcra,
			 uint64_t capacity_ever)
{
	const uint64_t values[] = {config->rate, config->per_ns, config->burst,
				   gcra->period, gcra->capacity, capacity_ever};
	struct coshm__a64 *fields[] = {&record->rate,	&record->per_ns,   &record->burst,
				       &record->period, &record->capacity, &record->capacity_ever};

	for (unsigned int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		/* [LM10] release, pairs [LM9]; carries the version that is in force while this is written */
		coshm__a64_store_release(fields[i], values[i]);
		COSHM__CRASH_POINT(LIMITER_CONFIG_FIELD);
	}
}

void coshm__limiter_config_start(struct coshm__limiter_shm *shm,
				 const struct coshm_limiter_config *config,
				 const struct coshm__gcra *gcra)
{
	record_write(&shm->configs[0], config, gcra, gcra->capacity);
}

int coshm_limiter_config(struct coshm_limiter *token, struct coshm_limiter_config *ret_config)
{
	struct coshm_limiter_config config = {.struct_size_bytes = sizeof(config)};
	struct coshm__op op;
	int error = ret_config ? coshm__op_begin_look(&op, token, COSHM_OBJECT_LIMITER)
			       : coshm__fail(-EINVAL, "limiter: ret_config is NULL");

	if (error)
		return error;
	error = config_show(coshm__limiter_of(&op)->shm, &config);
	if (coshm__look_is_stale(&op))
		error = -ESTALE;
	coshm__op_end(&op);
	return error ? error
		     : coshm__write_struct(ret_config, sizeof(*ret_config), &config,
					   sizeof(config));
}

int coshm_limiter_configure(struct coshm_limiter *token, const struct coshm_limiter_config *callers)
{
	struct coshm_limiter_config config;
	struct coshm__limiter_shm *shm;
	struct coshm__gcra next, now;
	struct coshm__op op;
	uint64_t version, ever;
	int error = coshm__limiter_config_read(callers, &config, &next);

	if (error)
		return error;
	error = coshm__op_begin(&op, token, COSHM_OBJECT_LIMITER);
	if (error)
		return error;
	shm = coshm__limiter_of(&op)->shm;
	if (config.keys_max && config.keys_max != shm->keys_max)
		error = coshm__fail(-EINVAL, "limiter: keys_max is fixed at creation, to %llu",
				    (unsigned long long)shm->keys_max);
	if (!error)
		error = coshm__rlock_acquire(&op, &shm->config_lock, COSHM__LOCK_TIMEOUT_NS);
	if (error) {
		coshm__op_end(&op);
		return error;
	}
	error = coshm__limiter_config_load(shm, &now);
	if (!error) {
		/* relaxed: only holders of the lock write it */
		version = coshm__a64_load_relaxed(&shm->config_version) + 1;
		ever = now.capacity_ever > next.capacity ? now.capacity_ever : next.capacity;
		record_write(&shm->configs[version % COSHM__LIMITER_CONFIG_COUNT], &config, &next,
			     ever);
		/* [LM8] release, pairs [LM7]; carries the record. The commit point. */
		coshm__a64_store_release(&shm->config_version, version);
		COSHM__CRASH_POINT(LIMITER_CONFIG_PUBLISHED);
	}
	coshm__rlock_release(&op, &shm->config_lock);
	coshm__op_end(&op);
	return error;
}
