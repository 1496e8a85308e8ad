/* SPDX-License-Identifier: MIT */
/* modules/cache/type.c - the cache as an object of a segment: create, open, close */
#include "base/log.h"
#include "modules/cache/cache.h"

#include <stdlib.h>

static void read_config(const struct coshm__cache_shm *shm, struct coshm_cache_config *config)
{
	*config = (struct coshm_cache_config){
		.struct_size_bytes = sizeof(*config),
		.size_bytes = shm->size_bytes,
		.max_entries = shm->max_entries,
		.average_item_bytes = shm->average_item_bytes,
		.policy = shm->policy,
		.lanes = shm->lane_count,
	};
}

static int attach(struct coshm__handle *handle)
{
	struct coshm_cache_config config;
	struct coshm__cache *cache;

	if (handle->size_bytes < sizeof(struct coshm__cache_shm))
		return coshm__fail(-EUCLEAN, "too small for a cache");
	read_config(handle->object, &config);
	if (config.lanes == 0)
		return coshm__fail(-EUCLEAN, "no cache, or its header is damaged");
	cache = malloc(sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	if (coshm__cache_layout(cache, &config, handle->object) ||
	    cache->total_bytes > handle->size_bytes) {
		free(cache);
		return coshm__fail(-EUCLEAN, "no cache, or its header is damaged");
	}
	cache->log_offset = coshm__offset_of(handle->segment, cache->log);
	cache->seed = handle->segment->header->place_seed;
	handle->local = cache;
	return 0;
}

static void detach(struct coshm__handle *handle)
{
	free(handle->local);
	handle->local = NULL;
}

static int initialise(struct coshm__handle *handle, const void *context)
{
	const struct coshm__cache *wanted = context;
	struct coshm__cache_shm *shm = handle->object;
	struct coshm_cache_config config;
	struct coshm__cache cache;
	int error;

	shm->size_bytes = wanted->total_bytes;
	shm->max_entries = wanted->max_entries;
	shm->average_item_bytes = wanted->average_item_bytes;
	shm->policy = wanted->policy;
	shm->lane_count = wanted->lane_count;
	read_config(shm, &config);
	error = coshm__cache_layout(&cache, &config, handle->object);
	if (!error && cache.policy == COSHM_CACHE_LRU)
		coshm__cache_lru_initialise(&cache);
	return error;
}

static struct coshm__counters_shm *counters(struct coshm__handle *handle)
{
	return ((struct coshm__cache *)handle->local)->counters;
}

/* Up when what the words mean changes and no size does. 1: TARGET pages. */
#define REVISION UINT64_C(1)

#define FINGERPRINT                                                                     \
	(sizeof(struct coshm__cache_shm) | sizeof(struct coshm__cache_lane_shm) << 10 | \
	 sizeof(struct coshm__cache_page_shm) << 18 |                                   \
	 sizeof(struct coshm__cache_bucket_shm) << 26 |                                 \
	 sizeof(struct coshm__cache_item_shm) << 34 |                                   \
	 sizeof(struct coshm__cache_large_shm) << 42 |                                  \
	 sizeof(struct coshm__cache_list_shm) << 50 | REVISION << 60)

const struct coshm__object_type coshm__cache_type = {
	.type = COSHM_OBJECT_CACHE,
	.name = "cache",
	.layout_fingerprint = FINGERPRINT,
	.attach = attach,
	.detach = detach,
	.abandoned = coshm__cache_abandoned,
	.reap = coshm__cache_reap,
	.recover_lock = coshm__cache_recover_lock,
	.holdings = coshm__cache_holdings,
	.lock_is_lane = coshm__cache_lock_is_lane,
	.verify = coshm__cache_verify,
	.counters = counters,
	.gauge = coshm__cache_gauge,
};

int coshm_cache_create(struct coshm_segment *segment, const char *name,
		       const struct coshm_cache_config *config, uint32_t flags,
		       struct coshm_cache **ret_cache)
{
	struct coshm_cache_config copy;
	struct coshm__cache wanted;
	void *token;
	int error;

	if (!config || !ret_cache)
		return coshm__fail(-EINVAL, "cache: %s is NULL", config ? "ret_cache" : "config");
	if (flags & ~(uint32_t)COSHM_CREATE_OR_OPEN)
		return coshm__fail(-EINVAL, "cache: flags %x are unknown", flags);
	error = coshm__read_struct(&copy, sizeof(copy), sizeof(copy), config);
	if (!error)
		error = coshm__cache_layout(&wanted, &copy, NULL);
	if (!error)
		error = coshm__object_create(segment, name, &coshm__cache_type, wanted.total_bytes,
					     flags, initialise, &wanted, &token);
	if (!error)
		*ret_cache = token;
	return error;
}

int coshm_cache_open(struct coshm_segment *segment, const char *name,
		     struct coshm_cache **ret_cache)
{
	void *token;
	int error;

	if (!ret_cache)
		return coshm__fail(-EINVAL, "cache: ret_cache is NULL");
	error = coshm__object_open(segment, name, &coshm__cache_type, &token);
	if (!error)
		*ret_cache = token;
	return error;
}

int coshm_cache_close(struct coshm_cache *cache)
{
	return coshm__object_close(cache, COSHM_OBJECT_CACHE);
}

int coshm_cache_config(struct coshm_cache *token, struct coshm_cache_config *ret_config)
{
	struct coshm_cache_config config;
	struct coshm__op op;
	int error;

	if (!ret_config)
		return coshm__fail(-EINVAL, "cache: ret_config is NULL");
	error = coshm__op_begin_look(&op, token, COSHM_OBJECT_CACHE);
	if (error)
		return error;
	read_config(((const struct coshm__cache *)op.handle->local)->shm, &config);
	if (coshm__look_is_stale(&op))
		error = -ESTALE;
	coshm__op_end(&op);
	return error ? error
		     : coshm__write_struct(ret_config, sizeof(config), &config, sizeof(config));
}
