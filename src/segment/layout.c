/* SPDX-License-Identifier: MIT */
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static uint64_t mix(uint64_t hash, uint64_t value)
{
	/* FNV-1a over words: it only has to differ when a size does. */
	return (hash ^ value) * UINT64_C(0x100000001b3);
}

uint64_t coshm__layout_fingerprint(void)
{
	const uint64_t facts[] = {
		COSHM__LAYOUT_VERSION,
		sizeof(struct coshm__header_shm),
		offsetof(struct coshm__header_shm, directory_lock),
		offsetof(struct coshm__header_shm, next_reap_at_ns),
		sizeof(struct coshm__member_shm),
		offsetof(struct coshm__member_shm, pins),
		sizeof(struct coshm__thread_shm),
		offsetof(struct coshm__thread_shm, lock_offset),
		sizeof(struct coshm__entry_shm),
		COSHM__ENTRY_COUNT,
		COSHM__PIN_COUNT,
		COSHM__MEMBER_GENERATION_BITS,
		sizeof(void *),
		(uint64_t)sysconf(_SC_PAGESIZE),
#if defined(__x86_64__)
		0x8664,
#elif defined(__aarch64__)
		0xaa64,
#else
#error "coshm is built and tested for x86-64 and arm64 only"
#endif
	};
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
		hash = mix(hash, facts[i]);
	for (size_t i = 0; coshm__object_types[i]; i++) {
		hash = mix(hash, coshm__object_types[i]->type);
		hash = mix(hash, coshm__object_types[i]->layout_fingerprint);
	}
	return hash;
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

void coshm__layout_fill(struct coshm__header_shm *header, uint32_t member_count_max,
			uint32_t thread_count_max)
{
	header->layout_version = COSHM__LAYOUT_VERSION;
	header->layout_fingerprint = coshm__layout_fingerprint();
	header->page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
	header->member_count_max = member_count_max;
	header->thread_count_max = thread_count_max;
	header->entry_count = COSHM__ENTRY_COUNT;
	header->members_offset = sizeof(struct coshm__header_shm);
	header->threads_offset =
		round_up(header->members_offset +
				 (uint64_t)member_count_max * sizeof(struct coshm__member_shm),
			 128);
	header->entries_offset = header->threads_offset +
				 (uint64_t)thread_count_max * sizeof(struct coshm__thread_shm);
	header->objects_offset = round_up(
		header->entries_offset + COSHM__ENTRY_COUNT * sizeof(struct coshm__entry_shm),
		COSHM__PAGE_BYTES);
}

static int check_geometry(const struct coshm__header_shm *header)
{
	struct coshm__header_shm expected;

	memset(&expected, 0, sizeof(expected));
	if (header->member_count_max < 2 || header->member_count_max > COSHM__MEMBERS_LIMIT ||
	    header->thread_count_max <= header->member_count_max ||
	    header->thread_count_max > COSHM__THREADS_LIMIT + COSHM__MEMBERS_LIMIT)
		return -EUCLEAN;
	coshm__layout_fill(&expected, header->member_count_max, header->thread_count_max);
	if (header->entry_count != expected.entry_count ||
	    header->members_offset != expected.members_offset ||
	    header->threads_offset != expected.threads_offset ||
	    header->entries_offset != expected.entries_offset ||
	    header->objects_offset != expected.objects_offset ||
	    header->size_max_bytes < header->objects_offset ||
	    header->size_max_bytes % COSHM__PAGE_BYTES != 0 ||
	    header->size_max_bytes > (UINT64_C(1) << 46) ||
	    coshm__a64_load_relaxed(&header->committed_bytes) > header->size_max_bytes ||
	    coshm__a64_load_relaxed(&header->committed_bytes) < header->objects_offset)
		return -EUCLEAN;
	return 0;
}

int coshm__layout_check(const struct coshm__header_shm *header, const char *path)
{
	uint8_t boot_id[16];
	uint32_t state;
	int error;

	if (header->magic != COSHM__MAGIC)
		return coshm__fail(-EUCLEAN, "%s is not a coshm segment", path);
	state = coshm__a32_load_relaxed(&header->state); /* of a private copy */
	if (state == COSHM__SEGMENT_BUILDING)
		return -EINPROGRESS;
	if (header->layout_version != COSHM__LAYOUT_VERSION)
		return coshm__fail(-EPROTONOSUPPORT,
				   "%s has layout version %u, this library has %u", path,
				   header->layout_version, COSHM__LAYOUT_VERSION);
	if (header->layout_fingerprint != coshm__layout_fingerprint())
		return coshm__fail(
			-EPROTONOSUPPORT,
			"%s was made by a differently built coshm (fingerprint %016llx, here "
			"%016llx)",
			path, (unsigned long long)header->layout_fingerprint,
			(unsigned long long)coshm__layout_fingerprint());
	if (header->feature_incompatible)
		return coshm__fail(-EPROTONOSUPPORT,
				   "%s uses features %llx that this library does not know", path,
				   (unsigned long long)header->feature_incompatible);
	if (state == COSHM__SEGMENT_REMOVED)
		return coshm__fail(-ESTALE, "%s was removed", path);
	error = coshm__boot_id(boot_id);
	if (error && error != -ENOENT)
		return coshm__fail(error, "%s: cannot tell whether it is of this boot: %s", path,
				   strerror(-error));
	if (!error && memcmp(boot_id, header->boot_id, 16) != 0 &&
	    memcmp(header->boot_id, (uint8_t[16]){0}, 16) != 0)
		return coshm__fail(-ESTALE, "%s is from before the last reboot: create it again",
				   path);
	if (state != COSHM__SEGMENT_READY || check_geometry(header))
		return coshm__fail(-EUCLEAN, "%s: the segment's header is damaged", path);
	return 0;
}
