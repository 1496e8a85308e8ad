/* SPDX-License-Identifier: MIT */
/*
 * P6 of segment.h on a file system whose room ends at each page in turn: a full one is -ENOSPC that leaves nothing behind and
 * costs the others nothing, and what was given is there for good: no SIGBUS, whoever eats the rest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "starved/stock.h"
#include "support/shmfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PAGE	4096
#define NAME	"room"
#define FILE_OF "/dev/shm/" NAME
#define FILLER	"/dev/shm/filler"

/* --- a file system of so many pages, in a child's own mount namespace ------------------------------------------- */

static int mount_small(const char *options)
{
	return unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	       mount("coshm-test", "/dev/shm", "tmpfs", 0, options);
}

static uint64_t pages_free(void)
{
	struct statvfs status;

	return statvfs("/dev/shm", &status) ? UINT64_MAX : status.f_bfree;
}

static uint64_t pages_used(void)
{
	struct statvfs status;

	return statvfs("/dev/shm", &status) ? UINT64_MAX : status.f_blocks - status.f_bfree;
}

/* So many pages are free from now on. */
static int leave_free(uint64_t pages)
{
	char options[64];

	snprintf(options, sizeof(options), "size=%llu",
		 (unsigned long long)(pages_used() + pages) * PAGE);
	return mount("coshm-test", "/dev/shm", "tmpfs", MS_REMOUNT, options) ||
	       pages_free() != pages;
}

/* Somebody else takes all that is left. */
static int eat_the_rest(void)
{
	static char block[PAGE];
	int fd = open(FILLER, O_CREAT | O_RDWR | O_TRUNC, 0600);

	if (fd < 0)
		return -1;
	while (write(fd, block, sizeof(block)) > 0)
		;
	close(fd);
	return pages_free() != 0;
}

static int files_there(void)
{
	DIR *folder = opendir("/dev/shm");
	const struct dirent *entry;
	int count = 0;

	while (folder && (entry = readdir(folder)))
		count += entry->d_name[0] != '.';
	if (folder)
		closedir(folder);
	return folder ? count : -1;
}

/* Whoever writes to each page of the file lives on: in a child, as it may not. */
static int touch_all(void *arg)
{
	struct stat status;
	int fd = open(FILE_OF, O_RDWR);
	unsigned char *bytes;

	(void)arg;
	NEED(fd >= 0 && fstat(fd, &status) == 0);
	bytes = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	NEED(bytes != MAP_FAILED);
	/* Adding nothing is a write, too, and takes nothing from those who are at work. */
	for (off_t offset = 0; offset < status.st_size; offset += 64)
		__atomic_fetch_add(&bytes[offset], 0, __ATOMIC_RELAXED);
	return 0;
}

static const struct coshm_segment_config small_segment = {
	.size_bytes = MIB, .size_max_bytes = 16 * MIB, .member_count_max = 8};

/* --- creation of a segment ---------------------------------------------------------------------------------------- */

static int segment_on_each_size(void *arg)
{
	struct coshm_segment *segment = NULL;
	uint64_t pages;

	(void)arg;
	NEED(mount_small("size=64k,mode=1777") == 0);
	for (pages = 1; pages <= 300; pages++) {
		int error;

		NEED(leave_free(pages) == 0);
		hear_start();
		error = coshm_segment_create(NAME, &small_segment, 0, &segment);
		if (error == 0)
			break;
		GIVES(-ENOSPC, error);
		NEED(strstr(hear_text(), "--shm-size"));
		NEED(segment == NULL && files_there() == 0 && pages_used() == 0);
	}
	/* As soon as there is room for it. */
	NEED(pages == MIB / PAGE);
	NEED(pages_free() == 0);
	NEED(run_in_child(touch_all, NULL) == 0);
	NEED(stock_verify(segment, 0) == 0);
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(NAME));
	NEED(pages_used() == 0);
	return 0;
}

static void room_that_ends_at_any_page_of_a_new_segment_leaves_nothing(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(segment_on_each_size, NULL), 0);
}

static int full_then_not(void *arg)
{
	struct coshm_segment *segment = NULL;

	(void)arg;
	NEED(mount_small("size=2m,mode=1777") == 0);
	/* With not even a page for the first 64 bytes. */
	NEED(eat_the_rest() == 0);
	for (int i = 0; i < 3; i++)
		GIVES(-ENOSPC,
		      coshm_segment_create(NAME, &small_segment, COSHM_CREATE_OR_OPEN, &segment));
	NEED(files_there() == 1);
	NEED(unlink(FILLER) == 0);
	GIVES(0, coshm_segment_create(NAME, &small_segment, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	return 0;
}

static void segment_is_created_once_there_is_room_again(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(full_then_not, NULL), 0);
}

static int without_inodes(void *arg)
{
	struct coshm_segment *segment = NULL;
	char path[64];
	int files = 0;

	(void)arg;
	NEED(mount_small("size=4m,mode=1777,nr_inodes=8") == 0);
	for (;; files++) {
		int fd;

		snprintf(path, sizeof(path), "%s-%d", FILLER, files);
		fd = open(path, O_CREAT | O_RDWR, 0600);
		if (fd < 0)
			break;
		close(fd);
	}
	NEED(errno == ENOSPC && files > 0 && files < 9);
	hear_start();
	GIVES(-ENOSPC, coshm_segment_create(NAME, &small_segment, 0, &segment));
	NEED(strstr(hear_text(), "inodes"));
	NEED(files_there() == files);
	snprintf(path, sizeof(path), "%s-0", FILLER);
	NEED(unlink(path) == 0);
	GIVES(0, coshm_segment_create(NAME, &small_segment, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	return 0;
}

static void file_system_without_inodes_is_enospc_that_names_them(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(without_inodes, NULL), 0);
}

/* --- growth: creation of objects ---------------------------------------------------------------------------------- */

static int create_cache(struct coshm_segment *segment)
{
	const struct coshm_cache_config config = {.size_bytes = 300000};
	struct coshm_cache *cache;
	int error = coshm_cache_create(segment, "new", &config, 0, &cache);

	return error ? error : coshm_cache_close(cache);
}

static int create_limiter(struct coshm_segment *segment)
{
	const struct coshm_limiter_config config = {.rate = 1, .keys_max = 12000};
	struct coshm_limiter *limiter;
	int error = coshm_limiter_create(segment, "new", &config, 0, &limiter);

	return error ? error : coshm_limiter_close(limiter);
}

static int create_queue(struct coshm_segment *segment)
{
	const struct coshm_queue_config config = {.capacity = 250};
	struct coshm_queue *queue;
	int error = coshm_queue_create(segment, "new", &config, 0, &queue);

	return error ? error : coshm_queue_close(queue);
}

/* The segment is full to the last page, so that the next object is all growth. */
static int fill_segment(struct coshm_segment *segment)
{
	struct coshm_segment_info info;
	struct coshm_cache_config config = {0};
	struct coshm_cache *cache;

	GIVES(0, coshm_segment_info(segment, &info));
	config.size_bytes = info.size_bytes - info.used_bytes;
	GIVES(0, coshm_cache_create(segment, "filler", &config, 0, &cache));
	GIVES(0, coshm_cache_close(cache));
	return 0;
}

static int object_on_each_size(int (*create)(struct coshm_segment *segment), uint64_t pages_max,
			       struct stock *stock)
{
	struct stock_picture before, after;
	uint64_t pages, used = pages_used();

	NEED(stock_picture(stock, &before) == 0);
	for (pages = 0; pages <= pages_max; pages++) {
		int error;

		NEED(leave_free(pages) == 0);
		hear_start();
		error = create(stock->segment);
		if (error == 0)
			break;
		GIVES(-ENOSPC, error);
		NEED(strstr(hear_text(), "--shm-size"));
		NEED(stock_picture(stock, &after) == 0);
		NEED(!memcmp(&before, &after, sizeof(after)));
		NEED(pages_used() == used);
	}
	NEED(pages > 1 && pages <= pages_max);
	NEED(stock_picture(stock, &after) == 0);
	NEED(after.object_count == before.object_count + 1);
	/* To the page. */
	NEED(after.size_bytes - before.size_bytes == pages * PAGE);
	NEED(pages_free() == 0);
	/* All of it is there, and all others go on. */
	NEED(run_in_child(touch_all, NULL) == 0);
	NEED(stock_use(stock, (unsigned int)pages_max) == 0);
	NEED(stock_verify(stock->segment, 0) == 0);
	/* Its memory stays the segment's: fill that, too. */
	GIVES(0, coshm_object_remove(stock->segment, "new"));
	return 0;
}

static int object_growth(void *arg)
{
	int (*create[])(struct coshm_segment * segment) = {create_cache, create_limiter,
							   create_queue};

	(void)arg;
	NEED(mount_small("size=16m,mode=1777") == 0);
	for (int i = 0; i < 3; i++) {
		struct stock stock;

		NEED(stock_open(&stock, NAME, 0) == 0);
		NEED(fill_segment(stock.segment) == 0);
		NEED(object_on_each_size(create[i], 200, &stock) == 0);
		NEED(stock_close(&stock) == 0);
		GIVES(0, coshm_segment_unlink(NAME));
		NEED(mount("coshm-test", "/dev/shm", "tmpfs", MS_REMOUNT, "size=16m") == 0);
	}
	return 0;
}

static void room_that_ends_at_any_page_of_a_new_object_changes_nothing(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(object_growth, NULL), 0);
}

/* Fills both to the last byte. */
static int use_up(void *arg)
{
	static unsigned char bytes[1000];
	struct stock *stock = arg;
	uint64_t count = 0;

	memset(bytes, 7, sizeof(bytes));
	for (unsigned int i = 0; i < 3000; i++)
		GIVES(0, coshm_cache_set(stock->cache, &i, sizeof(i), bytes, sizeof(bytes), 0));
	GIVES(0, coshm_cache_count(stock->cache, &count));
	NEED(count > 100 && count < 3000); /* it was full */
	while (coshm_queue_enqueue(stock->queue, bytes, sizeof(bytes), NULL, NULL) == 0)
		;
	for (unsigned int i = 0; i < 1000; i++)
		NEED(coshm_limiter_try(stock->limiter, &i, sizeof(i), 8, NULL) >= 0);
	return stock_close(stock);
}

static int eaten_after_success(void *arg)
{
	struct stock_picture before, after;
	struct stock stock;

	(void)arg;
	NEED(mount_small("size=16m,mode=1777") == 0);
	NEED(stock_open(&stock, NAME, 0) == 0);
	NEED(fill_segment(stock.segment) == 0);
	/* It has grown, and somebody eats the rest. */
	GIVES(0, create_queue(stock.segment));
	GIVES(0, coshm_object_remove(stock.segment, "new"));
	NEED(eat_the_rest() == 0);
	NEED(run_in_child(touch_all, NULL) == 0);
	NEED(run_in_child(use_up, &stock) == 0);
	NEED(stock_picture(&stock, &before) == 0);
	for (int i = 0; i < 3; i++)
		GIVES(-ENOSPC, create_cache(stock.segment));
	NEED(stock_picture(&stock, &after) == 0);
	NEED(!memcmp(&before, &after, sizeof(after)));
	NEED(unlink(FILLER) == 0);
	GIVES(0, create_cache(stock.segment));
	NEED(stock_verify(stock.segment, 0) == 0);
	return stock_close(&stock);
}

static void room_that_others_eat_is_not_taken_from_what_is_there(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(eaten_after_success, NULL), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(room_that_ends_at_any_page_of_a_new_segment_leaves_nothing),
		cmocka_unit_test(segment_is_created_once_there_is_room_again),
		cmocka_unit_test(file_system_without_inodes_is_enospc_that_names_them),
		cmocka_unit_test(room_that_ends_at_any_page_of_a_new_object_changes_nothing),
		cmocka_unit_test(room_that_others_eat_is_not_taken_from_what_is_there),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("room", tests, NULL, NULL);
}
