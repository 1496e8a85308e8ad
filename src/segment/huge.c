/* SPDX-License-Identifier: MIT */
/*
 * segment/huge.c - memory in pages of 2 MiB, as far as the kernel gives them
 *
 * Random access to a large table misses the CPU's table of page addresses as often as its caches. A page of 2 MiB has one
 * entry there instead of 512. /dev/shm is mounted without them, so they are asked for by MADV_COLLAPSE, which makes them out of
 * the pages that are there, for all who have mapped the file, whatever the mount says. That takes a mapping whose addresses
 * and offsets agree modulo 2 MiB. All of it is a hint: the contents do not change, and what fails is ignored.
 */
#include "segment/internal.h"

#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define HUGE_BYTES (UINT64_C(2) << 20)

void *coshm__map_aligned(uint64_t size_bytes, int protection, int fd)
{
	uint64_t room_bytes = size_bytes + HUGE_BYTES, before;
	unsigned char *room, *base;

	room = mmap(NULL, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (room == MAP_FAILED) /* address space is short */
		return mmap(NULL, size_bytes, protection, MAP_SHARED, fd, 0);
	before = -(uint64_t)(uintptr_t)room % HUGE_BYTES;
	base = mmap(room + before, size_bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
	if (base == MAP_FAILED) {
		munmap(room, room_bytes);
		return MAP_FAILED;
	}
	if (before)
		munmap(room, before);
	if (before < HUGE_BYTES)
		munmap(base + size_bytes, HUGE_BYTES - before);
	return base;
}

void coshm__huge_pages(const struct coshm__segment *segment, uint64_t offset_bytes,
		       uint64_t size_bytes)
{
	uint64_t from = offset_bytes / HUGE_BYTES * HUGE_BYTES;
	uint64_t to = (offset_bytes + size_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;

	if (!segment->huge)
		return;
	if (to > segment->size_max_bytes)
		to = segment->size_max_bytes;
	madvise(segment->base + from, to - from, MADV_COLLAPSE);
}
