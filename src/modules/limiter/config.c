/* SPDX-License-Identifier: MIT */
/*
 * The configuration: eight records and the version that says which one counts.
 *
 * Commit    the store of config_version.
 * Readers   version, record, version again. The record of version v is written again for version v + 8, which begins
 *           only when v + 7 is in force: the copy is whole unless that much has happened meanwhile.
 * Stopped   a configurer holds up other configurers, nobody else.
 */
#include "base/crash.h"
#include "base/log.h"
#include "modules/limiter/limiter.h"
#include "segment/rlock.h"

#include <string.h>

#define COPY_TRIES 100

struct words {
	uint64_t rate, per_ns, burst, period, capacity, capacity_ever;
};

/* [LM9] acquire, pairs [LM10]: a word of a later record makes the second load of the version a later one, too */
static inline uint64_t field(const struct coshm__a64 *word)
{
	return coshm__a64_load_acquire(word);
}

/* 1 if the record is still not being written again */
static inline bool is_whole(const struct coshm__limiter_shm *shm, uint64_t version)
{
	/* relaxed: behind [LM9] */
	return coshm__likely(coshm__a64_load_relaxed(&shm->config_version) - version <
			     COSHM__LIMITER_CONFIG_COUNT - 1);
}

/* Sums of these cannot overflow, and a division cannot trap. */
static inline bool is_sane(uint64_t period, uint64_t capacity)
{
	return period != 0 && period % 2 == 0 && capacity < COSHM__GCRA_CAPACITY_LIMIT;
}

int coshm__limiter_config_load(const struct coshm__limiter_shm *shm, struct coshm__gcra *ret_gcra)
{
	for (int tries = 0; tries < COPY_TRIES; tries++) {
		/* [LM7] acquire, pairs [LM8]; carries the record */
		uint64_t version = coshm__a64_load_acquire(&shm->config_version);
		const struct coshm__limiter_config_shm *config =
			&shm->configs[version % COSHM__LIMITER_CONFIG_COUNT];

		ret_gcra->burst = field(&config->burst);
		ret_gcra->period = field(&config->period);
		ret_gcra->capacity = field(&config->capacity);
		ret_gcra->capacity_ever = field(&config->capacity_ever);
		if (coshm__likely(is_whole(shm, version)))
			return coshm__likely(is_sane(ret_gcra->period, ret_gcra->capacity) &&
					     ret_gcra->capacity_ever < COSHM__GCRA_CAPACITY_LIMIT)
				       ? 0
				       : -EUCLEAN;
	}
	return -EUCLEAN;
}

int coshm__limiter_config_show(const struct coshm__limiter_shm *shm,
			       struct coshm_limiter_config *ret_config)
{
	for (int tries = 0; tries < COPY_TRIES; tries++) {
		/* acquire, as [LM7] */
		uint64_t version = coshm__a64_load_acquire(&shm->config_version);
		const struct coshm__limiter_config_shm *config =
			&shm->configs[version % COSHM__LIMITER_CONFIG_COUNT];

		ret_config->rate = field(&config->rate);
		ret_config->per_ns = field(&config->per_ns);
		ret_config->burst = field(&config->burst);
		if (is_whole(shm, version)) {
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
			    : coshm__fail(-EINVAL, "limiter: no configuration");

	if (error)
		return error;
	if (config.rate == 0 || config.reserved[0] || config.reserved[1])
		return coshm__fail(-EINVAL, "limiter: rate is 0, or a reserved field is not");
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
	int error = ret_config ? coshm__op_begin_look(&op, token, COSHM_OBJECT_LIMITER) : -EINVAL;

	if (error)
		return error;
	error = coshm__limiter_config_show(coshm__limiter_of(&op)->shm, &config);
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
