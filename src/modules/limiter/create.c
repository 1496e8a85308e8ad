/* SPDX-License-Identifier: MIT */
/* Life of a limiter: create, open, close; how large it is. */
#include "base/log.h"
#include "modules/limiter/limiter.h"

/* Enough for a process that limits its clients, in 0.2 MiB. */
#define KEYS_DEFAULT 10000
#define KEYS_LIMIT   (UINT64_C(1) << 34)

/* 13 buckets for 80 keys: 77 % full when all keys have debt. At least two, so that a key has two. */
static uint64_t bucket_count_for(uint64_t keys_max)
{
	uint64_t count = (keys_max * 13 + 79) / 80;

	return count < 2 ? 2 : count;
}

struct birth {
	struct coshm_limiter_config config;
	struct coshm__gcra gcra;
};

/* Zeroed buckets are vacant. */
static int initialise(struct coshm__handle *handle, const void *context)
{
	const struct birth *birth = context;
	struct coshm__limiter_shm *shm = handle->object;

	shm->keys_max = birth->config.keys_max;
	shm->bucket_count = bucket_count_for(birth->config.keys_max);
	coshm__limiter_config_start(shm, &birth->config, &birth->gcra);
	return 0;
}

int coshm_limiter_create(struct coshm_segment *segment, const char *name,
			 const struct coshm_limiter_config *config, uint32_t flags,
			 struct coshm_limiter **ret_limiter)
{
	struct birth birth;
	uint64_t size_bytes;
	void *token;
	int error = coshm__limiter_config_read(config, &birth.config, &birth.gcra);

	if (error)
		return error;
	if (!ret_limiter)
		return coshm__fail(-EINVAL, "limiter: ret_limiter is NULL");
	if (flags & ~(uint32_t)COSHM_CREATE_OR_OPEN)
		return coshm__fail(-EINVAL, "limiter: flags %x are unknown", flags);
	if (birth.config.keys_max == 0)
		birth.config.keys_max = KEYS_DEFAULT;
	if (birth.config.keys_max > KEYS_LIMIT)
		return coshm__fail(-EINVAL, "limiter: keys_max is over %llu",
				   (unsigned long long)KEYS_LIMIT);
	size_bytes =
		sizeof(struct coshm__limiter_shm) +
		bucket_count_for(birth.config.keys_max) * sizeof(struct coshm__limiter_bucket_shm);
	error = coshm__object_create(segment, name, &coshm__limiter_type, size_bytes, flags,
				     initialise, &birth, &token);
	if (!error)
		*ret_limiter = token;
	return error;
}

int coshm_limiter_open(struct coshm_segment *segment, const char *name,
		       struct coshm_limiter **ret_limiter)
{
	void *token;
	int error = ret_limiter ? coshm__object_open(segment, name, &coshm__limiter_type, &token)
				: coshm__fail(-EINVAL, "limiter: ret_limiter is NULL");

	if (!error)
		*ret_limiter = token;
	return error;
}

int coshm_limiter_close(struct coshm_limiter *limiter)
{
	return coshm__object_close(limiter, COSHM_OBJECT_LIMITER);
}
