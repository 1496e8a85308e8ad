/* SPDX-License-Identifier: MIT */
/* COSHM_SEGMENT_HUGE_PAGES: what the kernel says about the mapping, and that nothing else changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <coshm/coshm.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/procs.h"
#include "support/shmfs.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define MIB	   (UINT64_C(1) << 20)
#define HUGE_BYTES (2 * MIB)
#define KEYS	   10000

static char name[TEST_SEGMENT_NAME_SIZE];

struct mapped {
	int count; /* mappings of the file, without the one page that tells that the process lives */
	int aligned;
	unsigned long huge_kib;
};

static struct mapped look_up(const char *file)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	struct mapped mapped = {0};
	unsigned long from, to, kib;
	char line[512];
	int is_ours = 0;

	while (smaps && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			is_ours = strstr(line, file) && to - from > 4096;
			mapped.count += is_ours;
			mapped.aligned += is_ours && from % HUGE_BYTES == 0;
		} else if (is_ours && sscanf(line, "ShmemPmdMapped: %lu kB", &kib) == 1) {
			mapped.huge_kib += kib;
		}
	}
	if (smaps)
		fclose(smaps);
	return mapped;
}

/* Asks for one without the library. */
static const char *lacks_huge_pages(void)
{
	unsigned char *room, *page;
	struct mapped mapped;
	int fd;

	test_segment_name(name, "huge-control");
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)HUGE_BYTES))
		return "a file in /dev/shm";
	room = mmap(NULL, 2 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	page = room + -(uintptr_t)room % HUGE_BYTES;
	page = mmap(page, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	memset(page, 1, HUGE_BYTES);
	madvise(page, HUGE_BYTES, MADV_COLLAPSE);
	page[0] = 2;
	mapped = look_up(name);
	munmap(room, 2 * HUGE_BYTES);
	close(fd);
	shm_unlink(name);
	return mapped.huge_kib ? NULL
			       : "a kernel that gives huge pages (Linux 6.1, and free memory)";
}

static void make(uint32_t flags, struct coshm_segment **ret_segment)
{
	const struct coshm_segment_config config = {
		.size_bytes = 8 * MIB, .size_max_bytes = 16 * MIB, .flags = flags};

	test_segment_name(name, "huge");
	assert_int_equal(coshm_segment_create(name, &config, 0, ret_segment), 0);
}

static void fill(struct coshm_cache *cache)
{
	for (uint32_t i = 0; i < KEYS; i++)
		assert_int_equal(coshm_cache_set(cache, &i, sizeof(i), &i, sizeof(i), 0), 0);
}

/* By get or, where nothing may be written, by peek. */
static void check(struct coshm_cache *cache)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		uint32_t value = 0;
		size_t size_bytes = sizeof(value);

		assert_int_equal(coshm_cache_peek(cache, &i, sizeof(i), &value, &size_bytes, NULL),
				 1);
		assert_int_equal(value, i);
	}
}

static void objects_lie_in_huge_pages_in_each_mapping_and_keep_their_contents(void **state)
{
	const struct coshm_cache_config config = {.size_bytes = 4 * MIB};
	struct coshm_segment *segment, *view;
	struct coshm_cache *first, *second, *seen;
	unsigned long huge_kib;

	(void)state;
	TEST_NEEDS(shmfs_lacks_space(24 * MIB));
	TEST_NEEDS(lacks_huge_pages());
	make(COSHM_SEGMENT_HUGE_PAGES, &segment);
	assert_int_equal(coshm_cache_create(segment, "first", &config, 0, &first), 0);
	fill(first);
	check(first);
	huge_kib = look_up(name).huge_kib;
	assert_true(huge_kib >= 2048);

	/* The segment grows; what the kernel rearranges is in use. */
	assert_int_equal(coshm_cache_create(segment, "second", &config, 0, &second), 0);
	check(first);
	fill(second);
	check(second);
	assert_true(look_up(name).huge_kib > huge_kib);

	huge_kib = look_up(name).huge_kib;
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &view), 0);
	assert_int_equal(coshm_cache_open(view, "first", &seen), 0);
	check(seen);
	assert_int_equal(look_up(name).count, 2);
	assert_int_equal(look_up(name).aligned, 2);
	assert_true(look_up(name).huge_kib > huge_kib);

	assert_int_equal(coshm_segment_detach(view), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(look_up(name).count, 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

static void nothing_is_asked_for_without_the_flag(void **state)
{
	const struct coshm_cache_config config = {.size_bytes = 4 * MIB};
	struct coshm_segment *segment;
	struct coshm_cache *cache;

	(void)state;
	TEST_NEEDS(shmfs_lacks_space(24 * MIB));
	make(0, &segment);
	if (look_up(name).huge_kib) { /* mounted with huge=always */
		assert_int_equal(coshm_segment_detach(segment), 0);
		assert_int_equal(coshm_segment_unlink(name), 0);
		TEST_NEEDS("a /dev/shm without huge pages of its own");
	}
	assert_int_equal(coshm_cache_create(segment, "c", &config, 0, &cache), 0);
	fill(cache);
	check(cache);
	assert_int_equal(look_up(name).huge_kib, 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_lie_in_huge_pages_in_each_mapping_and_keep_their_contents),
		cmocka_unit_test(nothing_is_asked_for_without_the_flag),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
