/* SPDX-License-Identifier: MIT */
/* What include/coshm/segment.h promises to one process: life cycle, errors and their texts, handles, damaged headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "support/procs.h"
#include "support/shmfs.h"
#include "support/toy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static char name[TEST_SEGMENT_NAME_SIZE];
static char path[TEST_SEGMENT_NAME_SIZE + 16];

static int fresh_name(void **state)
{
	(void)state;
	test_segment_name(name, "segment");
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	heard_start();
	return 0;
}

static int clean(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static int create(const struct coshm_segment_config *config, uint32_t flags,
		  struct coshm_segment **ret)
{
	return coshm_segment_create(name, config, flags, ret);
}

static int create_plain(struct coshm_segment **ret)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};

	return create(&config, 0, ret);
}

/* The error that was returned also has a sentence of its own. */
static void assert_explained(int error, const char *fix)
{
	assert_non_null(coshm_strerror(error));
	assert_null(strstr(coshm_strerror(error), "errno(3)"));
	if (!strstr(heard_text(), fix))
		print_message("# heard: %s\n", heard_text());
	assert_non_null(strstr(heard_text(), fix));
}

static void overwrite(const void *bytes, size_t size, off_t offset)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, size, offset), (ssize_t)size);
	close(fd);
}

static void segment_has_the_size_it_was_created_with(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB + 1,
						    .size_max_bytes = 4 * MIB,
						    .member_count_max = 8,
						    .thread_count_max = 24};
	struct coshm_segment_info info;
	struct coshm_segment *segment;
	struct stat status;

	(void)state;
	assert_int_equal(create(&config, 0, &segment), 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_string_equal(info.path, path);
	assert_int_equal(info.size_bytes, MIB + 4096);
	assert_int_equal(info.size_max_bytes, 4 * MIB);
	assert_int_equal(info.member_count, 1);
	assert_int_equal(info.member_count_max, 8);
	assert_int_equal(info.thread_count_max, 24);
	assert_int_equal(info.creator_pid, getpid());
	assert_int_equal(info.object_count, 0);
	assert_int_equal(info.object_count_max, 256);
	assert_int_equal(info.removed, 0);
	assert_true(info.used_bytes >= 4096 && info.used_bytes <= info.size_bytes);
	assert_true(info.created_at_ns <= info.now_ns && info.created_at_ns > 0);
	assert_true(info.created_realtime_ns > UINT64_C(1500000000) * 1000000000);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_size, MIB + 4096);
	/* There from the start: not a hole that may turn out not to fit later. */
	assert_true((uint64_t)status.st_blocks * 512 >= MIB);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void name_and_path_mean_the_same_file(void **state)
{
	struct coshm_segment *by_name, *by_path;
	struct coshm_segment_info first, second;

	(void)state;
	assert_int_equal(create_plain(&by_name), 0);
	assert_int_equal(coshm_segment_attach(path, 0, &by_path), 0);
	assert_ptr_not_equal(by_name, by_path);
	assert_int_equal(coshm_segment_info(by_name, &first), 0);
	assert_int_equal(coshm_segment_info(by_path, &second), 0);
	assert_memory_equal(first.uuid, second.uuid, 16);
	/* Two handles, one membership. */
	assert_int_equal(second.member_count, 1);
	assert_int_equal(coshm_segment_detach(by_name), 0);
	assert_int_equal(coshm_segment_info(by_path, &second), 0);
	assert_int_equal(second.member_count, 1);
	assert_int_equal(coshm_segment_detach(by_path), 0);
	assert_int_equal(coshm_segment_unlink(path), 0);
}

static void segment_in_another_folder_by_relative_path(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	char folder[] = "/dev/shm/segment-test-XXXXXX", home[4096];
	struct coshm_segment *segment;
	struct coshm_segment_info info;

	(void)state;
	assert_non_null(mkdtemp(folder));
	assert_non_null(getcwd(home, sizeof(home)));
	assert_int_equal(chdir(folder), 0);
	assert_int_equal(coshm_segment_create("./here", &config, 0, &segment), 0);
	assert_int_equal(chdir(home), 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.path[0], '/');
	assert_int_equal(access(info.path, F_OK), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(info.path), 0);
	assert_int_equal(rmdir(folder), 0);
}

static void create_or_open_opens_what_is_there(void **state)
{
	const struct coshm_segment_config small = {.size_bytes = MIB};
	const struct coshm_segment_config large = {.size_bytes = 2 * MIB};
	struct coshm_segment *first, *second, *third = NULL;
	struct coshm_segment_info info;

	(void)state;
	assert_int_equal(create(&small, COSHM_CREATE_OR_OPEN, &first), 0);
	assert_int_equal(create(&large, COSHM_CREATE_OR_OPEN, &second), 0);
	assert_int_equal(coshm_segment_info(second, &info), 0);
	assert_int_equal(info.size_bytes, MIB); /* keeps its own configuration */
	heard_clear();
	assert_int_equal(create(&small, 0, &third), -EEXIST);
	assert_null(third);
	assert_explained(-EEXIST, path);
	assert_int_equal(coshm_segment_detach(first), 0);
	assert_int_equal(coshm_segment_detach(second), 0);
}

static void bad_configurations_say_which_field(void **state)
{
	const struct {
		struct coshm_segment_config config;
		const char *text;
	} cases[] = {
		{{.size_bytes = MIB - 1}, "size_bytes"},
		{{.size_bytes = 0}, "size_bytes"},
		{{.size_bytes = UINT64_MAX}, "size"},
		{{.size_bytes = UINT64_MAX - 4095, .size_max_bytes = 4096}, "size"},
		{{.size_bytes = 2 * MIB, .size_max_bytes = MIB}, "size_max_bytes"},
		{{.size_bytes = MIB, .size_max_bytes = UINT64_MAX}, "size"},
		{{.size_bytes = MIB, .mode = 0666}, "mode"},
		{{.size_bytes = MIB, .mode = 0602}, "mode"},
		{{.size_bytes = MIB, .mode = 04600}, "mode"},
		{{.size_bytes = MIB, .member_count_max = 1024}, "member_count_max"},
		{{.size_bytes = MIB, .thread_count_max = 8192}, "thread_count_max"},
		{{.size_bytes = MIB, .flags = 0x80}, "flags"},
		{{.size_bytes = MIB, .member_count_max = 1023, .thread_count_max = 8191},
		 "too small"},
		{{.struct_size_bytes = 8, .size_bytes = MIB}, "struct_size_bytes"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct coshm_segment *segment = (void *)&cases;
		int error;

		heard_clear();
		error = create(&cases[i].config, 0, &segment);
		if (error != -EINVAL)
			print_message("# case %zu: %d\n", i, error);
		assert_int_equal(error, -EINVAL);
		assert_explained(error, cases[i].text);
		assert_ptr_equal(segment, &cases); /* out parameters stay as they were */
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void config_of_a_newer_program_is_taken_only_if_it_asks_for_nothing_new(void **state)
{
	struct {
		struct coshm_segment_config config;
		uint64_t of_the_future;
	} newer = {.config = {.struct_size_bytes = sizeof(newer), .size_bytes = MIB}};
	struct coshm_segment *segment;

	(void)state;
	newer.of_the_future = 1;
	assert_int_equal(create(&newer.config, 0, &segment), -EINVAL);
	newer.of_the_future = 0;
	assert_int_equal(create(&newer.config, 0, &segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void name_has_up_to_200_printable_characters(void **state)
{
	char long_name[201] = "";
	struct coshm_segment *segment;
	const struct coshm_segment_config config = {.size_bytes = MIB};

	(void)state;
	snprintf(long_name, sizeof(long_name), "%s+%%", name);
	memset(long_name + strlen(long_name), 'n', sizeof(long_name) - 1 - strlen(long_name));
	assert_int_equal(coshm_segment_create(long_name, &config, 0, &segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_unlink(long_name), 0);
}

static void bad_arguments_are_einval(void **state)
{
	char long_name[202] = "";
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment;

	(void)state;
	assert_int_equal(coshm_segment_create(NULL, &config, 0, &segment), -EINVAL);
	assert_int_equal(coshm_segment_create("", &config, 0, &segment), -EINVAL);
	assert_int_equal(coshm_segment_create(".", &config, 0, &segment), -EINVAL);
	assert_int_equal(coshm_segment_create("..", &config, 0, &segment), -EINVAL);
	assert_int_equal(coshm_segment_create("two words", &config, 0, &segment), -EINVAL);
	memset(long_name, 'n', sizeof(long_name) - 1);
	assert_int_equal(coshm_segment_create(long_name, &config, 0, &segment), -EINVAL);
	assert_explained(-EINVAL, "200");
	assert_int_equal(coshm_segment_create(name, NULL, 0, &segment), -EINVAL);
	assert_int_equal(coshm_segment_create(name, &config, 0x40, &segment), -EINVAL);
	assert_int_equal(coshm_segment_create(name, &config, 0, NULL), -EINVAL);
	assert_int_equal(coshm_segment_attach(name, 0x40, &segment), -EINVAL);
	assert_int_equal(coshm_segment_attach(name, 0, NULL), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
}

static void mode_is_what_was_asked_for_under_any_umask(void **state)
{
	const uint32_t modes[] = {0, 0600, 0640, 0660, 0770};
	const mode_t masks[] = {0, 022, 077, 0777};

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		for (size_t j = 0; j < 4; j++) {
			const struct coshm_segment_config config = {.size_bytes = MIB,
								    .mode = modes[i]};
			struct coshm_segment *segment;
			mode_t before = umask(masks[j]);
			struct stat status;
			int error = create(&config, 0, &segment);

			umask(before);
			assert_int_equal(error, 0);
			assert_int_equal(stat(path, &status), 0);
			assert_int_equal(status.st_mode & 07777, modes[i] ? modes[i] : 0600);
			assert_int_equal(coshm_segment_detach(segment), 0);
			assert_int_equal(coshm_segment_unlink(name), 0);
		}
	}
}

static void attach_says_what_is_wrong_with_the_file(void **state)
{
	struct coshm_segment *segment = NULL;
	char link_path[sizeof(path) + 8];

	(void)state;
	assert_int_equal(coshm_segment_attach(name, 0, &segment), -ENOENT);
	assert_explained(-ENOENT, path);
	assert_int_equal(coshm_segment_attach("/no/such/folder/x", 0, &segment), -ENOENT);

	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	segment = NULL;

	snprintf(link_path, sizeof(link_path), "%s-link", path);
	assert_int_equal(symlink(path, link_path), 0);
	heard_clear();
	assert_int_equal(coshm_segment_attach(link_path, 0, &segment), -ELOOP);
	assert_explained(-ELOOP, link_path);
	assert_int_equal(unlink(link_path), 0);

	assert_int_equal(chmod(path, 0602), 0);
	heard_clear();
	assert_int_equal(coshm_segment_attach(name, 0, &segment), -EBADFD);
	assert_explained(-EBADFD, "chmod");
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_ANY_OWNER, &segment), -EBADFD);
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment), -EBADFD);
	assert_int_equal(chmod(path, 0600), 0);

	heard_clear();
	assert_int_equal(coshm_segment_attach("/dev/shm/", 0, &segment), -EINVAL);
	assert_int_equal(coshm_segment_attach("/dev/null", 0, &segment), -EUCLEAN);
	assert_explained(-EUCLEAN, "/dev/null");
	assert_null(segment);
}

static void folder_is_no_segment(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;
	int error;

	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	error = coshm_segment_attach(name, 0, &segment);
	assert_true(error < 0);
	error = coshm_segment_create(name, &config, COSHM_CREATE_OR_OPEN, &segment);
	assert_true(error < 0);
	assert_true(coshm_segment_unlink(name) < 0);
	assert_null(segment);
	assert_explained(error, path);
	assert_int_equal(rmdir(path), 0);
}

/* Whatever is called on it, somebody else's file stays byte for byte what it was. */
static void foreign_files_are_left_alone(void **state)
{
	const size_t sizes[] = {1, 7, 8, 63, 64, 65, 4095, 4096, 8192, 2 << 20};
	const struct coshm_segment_config config = {.size_bytes = MIB};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned char *before = malloc(sizes[i]), *after = malloc(sizes[i]);
		struct coshm_segment *segment = NULL;
		struct stat was, is;
		int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0640);

		assert_true(fd >= 0 && before && after);
		for (size_t j = 0; j < sizes[i]; j++)
			before[j] = (unsigned char)(j * 7 + 1);
		assert_int_equal(write(fd, before, sizes[i]), (ssize_t)sizes[i]);
		assert_int_equal(fstat(fd, &was), 0);
		heard_clear();
		assert_int_equal(coshm_segment_attach(name, 0, &segment), -EUCLEAN);
		assert_explained(-EUCLEAN, path);
		assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment),
				 -EUCLEAN);
		assert_int_equal(create_plain(&segment), -EUCLEAN);
		assert_int_equal(create(&config, COSHM_CREATE_OR_OPEN, &segment), -EUCLEAN);
		assert_int_equal(coshm_segment_unlink(name), -EUCLEAN);
		assert_null(segment);
		assert_int_equal(stat(path, &is), 0);
		assert_int_equal(is.st_ino, was.st_ino);
		assert_int_equal(is.st_size, was.st_size);
		assert_int_equal(is.st_mode, was.st_mode);
		assert_int_equal(pread(fd, after, sizes[i], 0), (ssize_t)sizes[i]);
		assert_memory_equal(before, after, sizes[i]);
		close(fd);
		unlink(path);
		free(before);
		free(after);
	}
}

static void other_layouts_are_refused_and_not_touched(void **state)
{
	const struct {
		size_t offset, size;
	} fields[] = {
		{offsetof(struct coshm__header_shm, layout_version), 4},
		{offsetof(struct coshm__header_shm, layout_fingerprint), 8},
		{offsetof(struct coshm__header_shm, feature_incompatible), 8},
	};
	struct coshm_segment *segment = NULL;
	static unsigned char before[MIB], after[MIB];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		uint64_t value = 0x1234567;
		int fd;

		assert_int_equal(create_plain(&segment), 0);
		assert_int_equal(coshm_segment_detach(segment), 0);
		segment = NULL;
		overwrite(&value, fields[i].size, (off_t)fields[i].offset);
		fd = open(path, O_RDONLY);
		assert_int_equal(pread(fd, before, MIB, 0), MIB);
		heard_clear();
		assert_int_equal(coshm_segment_attach(name, 0, &segment), -EPROTONOSUPPORT);
		assert_explained(-EPROTONOSUPPORT, path);
		assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment),
				 -EPROTONOSUPPORT);
		assert_int_equal(create_plain(&segment), -EPROTONOSUPPORT);
		assert_int_equal(pread(fd, after, MIB, 0), MIB);
		assert_memory_equal(before, after, MIB);
		close(fd);
		/* The way out that the text names. */
		assert_int_equal(coshm_segment_unlink(name), 0);
	}
}

static void segment_of_another_boot_is_stale_and_is_replaced_by_a_creator(void **state)
{
	const uint8_t boot_id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
	struct coshm_segment *segment = NULL;
	struct coshm_segment_info info;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	segment = NULL;
	overwrite(boot_id, 16, offsetof(struct coshm__header_shm, boot_id));
	heard_clear();
	assert_int_equal(coshm_segment_attach(name, 0, &segment), -ESTALE);
	assert_explained(-ESTALE, "reboot");
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.member_count, 1);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void truncated_file_is_refused(void **state)
{
	const off_t sizes[] = {1, 63, 64, 100, 4095, 4096, 65536, MIB - 4096, MIB - 1};
	struct coshm_segment *segment = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(create_plain(&segment), 0);
		assert_int_equal(coshm_segment_detach(segment), 0);
		segment = NULL;
		assert_int_equal(truncate(path, sizes[i]), 0);
		heard_clear();
		assert_true(coshm_segment_attach(name, 0, &segment) < 0);
		assert_true(*heard_text() != '\0');
		assert_true(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment) < 0);
		assert_null(segment);
		assert_int_equal(unlink(path), 0);
	}
}

/* Everything that a program does with a segment. */
static int exercise(uint32_t attach_flags)
{
	struct coshm_segment *segment;
	struct coshm_segment_info info;
	uint64_t damage, pending;
	void *toy = NULL;
	char *text = malloc(1 << 20);
	size_t size;
	int error = coshm_segment_attach(name, attach_flags, &segment);

	if (!error) {
		(void)!coshm_segment_info(segment, &info);
		coshm_segment_now_ns(segment);
		(void)!coshm_segment_reap(segment, NULL);
		(void)!toy_verify(segment, &damage, &pending);
		(void)!coshm_stats_json(segment, NULL, text, 1 << 20, &size);
		(void)!coshm_stats_prometheus(segment, NULL, text, 1 << 20, &size);
		if (toy_open(segment, "one", &toy) == 0)
			toy_close(toy);
		if (toy_create(segment, "two", COSHM_CREATE_OR_OPEN, 1, &toy) == 0)
			toy_close(toy);
		(void)!coshm_object_remove(segment, "one");
		error = coshm_segment_detach(segment);
	}
	free(text);
	return error;
}

struct flip {
	size_t offset;
	unsigned char mask;
	uint32_t attach_flags;
};

static int exercise_in_child(void *arg)
{
	(void)arg;
	coshm_set_log(NULL, NULL, 0);
	if (!freopen("/dev/null", "w", stderr))
		return 1;
	exercise(0);
	exercise(COSHM_ATTACH_READ_ONLY);
	return 0;
}

/*
 * One flipped bit in any byte of the header (and, coarser, of the tables behind it) gives an error or a segment that
 * works, and never a crash or a hang of who looks.
 */
static void any_damaged_byte_of_the_fixed_part_is_survived(void **state)
{
	const unsigned char masks[] = {0x01, 0x80, 0xff};
	struct coshm_segment *segment;
	struct coshm_segment_info info;
	struct coshm__header_shm *header;
	unsigned char *image, *base;
	void *toy;
	size_t end, failures = 0;
	int fd;

	(void)state;
	{
		const struct coshm_segment_config config = {
			.size_bytes = MIB, .member_count_max = 4, .thread_count_max = 8};

		assert_int_equal(create(&config, 0, &segment), 0);
	}
	assert_int_equal(toy_create(segment, "one", 0, 7, &toy), 0);
	assert_int_equal(toy_close(toy), 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	image = malloc(MIB);
	fd = open(path, O_RDWR);
	assert_true(image && fd >= 0);
	assert_int_equal(pread(fd, image, MIB, 0), MIB);
	header = (void *)image;
	end = header->entries_offset + 4 * sizeof(struct coshm__entry_shm);
	base = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(base, MAP_FAILED);

	for (size_t offset = 0; offset < end; offset++) {
		size_t mask_count = offset < 640 ? 3 : 1;

		/* Behind the live part of the header and of each table there are only zeros. */
		if (offset >= 640 && offset < 4096)
			continue;
		if (offset >= 4096 && offset % 5)
			continue;
		for (size_t m = 0; m < mask_count; m++) {
			struct proc *child;
			int result;

			memcpy(base, image, MIB);
			base[offset] ^= masks[offset < 640 ? m : 2];
			child = proc_spawn(exercise_in_child, NULL);
			result = proc_collect(child, PROC_DEADLINE_NS);
			if (result) {
				print_message("# byte %zu ^ 0x%x: %d\n", offset,
					      masks[offset < 640 ? m : 2], result);
				failures++;
			}
		}
	}
	munmap(base, MIB);
	close(fd);
	free(image);
	assert_int_equal(failures, 0);
}

static void removed_segment_is_used_on_but_not_attached(void **state)
{
	struct coshm_segment *segment, *second = NULL;
	struct coshm_segment_info info;
	void *toy, *another = NULL;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(toy_create(segment, "a", 0, 1, &toy), 0);
	assert_int_equal(link(path, strcat(strcpy(info.path, path), "-kept")), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(coshm_segment_unlink(name), -ENOENT);
	assert_int_equal(coshm_segment_attach(name, 0, &second), -ENOENT);
	/* By whatever name is left: it is marked, also for who is attached. */
	for (uint32_t flags = 0; flags <= COSHM_ATTACH_READ_ONLY; flags++) {
		heard_clear();
		assert_int_equal(coshm_segment_attach(info.path, flags, &second), -ESTALE);
		assert_explained(-ESTALE, "removed");
		assert_null(second);
	}
	assert_int_equal(unlink(info.path), 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.removed, 1);
	assert_int_equal(toy_peek(toy)->payload.value, 1);
	assert_int_equal(toy_open(segment, "a", &another), -ESTALE);
	assert_int_equal(toy_create(segment, "b", 0, 1, &another), -ESTALE);
	assert_null(another);
	/* The name is free for a new one meanwhile. */
	assert_int_equal(create_plain(&second), 0);
	assert_int_equal(toy_open(second, "a", &another), -ENOENT);
	assert_int_equal(toy_close(toy), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_detach(second), 0);
}

static int stop_here(void *context, const struct coshm_object_info *info)
{
	(void)context;
	(void)info;
	return 7;
}

static int stop_member(void *context, const struct coshm_member_info *info)
{
	(void)context;
	(void)info;
	return 7;
}

static int stop_stat(void *context, const struct coshm_stat *stat)
{
	(void)context;
	(void)stat;
	return 7;
}

/* Every function that takes a segment answers -EBADF (or 0 ns) to @segment. */
static void assert_every_function_refuses(struct coshm_segment *segment)
{
	struct coshm_verify_result verified;
	struct coshm_member_info member;
	struct coshm_segment_info info;
	uint64_t value;
	uint32_t count;
	void *toy = NULL;
	char text[64];
	size_t size;

	assert_int_equal(coshm_segment_info(segment, &info), -EBADF);
	assert_int_equal(coshm_segment_reap(segment, &count), -EBADF);
	assert_int_equal(coshm_segment_now_ns(segment), 0);
	assert_int_equal(coshm_object_remove(segment, "x"), -EBADF);
	assert_int_equal(coshm_inspect_objects(segment, stop_here, NULL), -EBADF);
	assert_int_equal(coshm_inspect_members(segment, stop_member, NULL), -EBADF);
	assert_int_equal(coshm_inspect_member(segment, 1, &member), -EBADF);
	assert_int_equal(coshm_inspect_verify(segment, NULL, NULL, NULL, &verified), -EBADF);
	assert_int_equal(coshm_stats_each(segment, NULL, stop_stat, NULL), -EBADF);
	assert_int_equal(coshm_stats_value(segment, NULL, "deaths", &value), -EBADF);
	assert_int_equal(coshm_stats_json(segment, NULL, text, sizeof(text), &size), -EBADF);
	assert_int_equal(coshm_stats_prometheus(segment, NULL, text, sizeof(text), &size), -EBADF);
	assert_int_equal(toy_create(segment, "x", 0, 0, &toy), -EBADF);
	assert_int_equal(toy_open(segment, "x", &toy), -EBADF);
	assert_null(toy);
}

static void closed_and_null_handles_are_ebadf_everywhere(void **state)
{
	struct coshm_segment *segment, *again,
		*garbage[] = {(void *)1, (void *)4096, (void *)UINTPTR_MAX, (void *)&segment};
	struct coshm__op op;
	void *toy;

	(void)state;
	assert_every_function_refuses(NULL);
	assert_int_equal(coshm_segment_detach(NULL), 0);
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(toy_create(segment, "a", 0, 1, &toy), 0);
	/* A handle of one kind is not one of another. */
	assert_every_function_refuses(toy);
	assert_int_equal(coshm__op_begin(&op, segment, COSHM_OBJECT_QUEUE), -EBADF);
	assert_int_equal(coshm__op_begin(&op, toy, COSHM_OBJECT_CACHE), -EBADF);
	assert_int_equal(coshm__object_close(toy, COSHM_OBJECT_CACHE), -EBADF);
	assert_int_equal(coshm_segment_detach((struct coshm_segment *)toy), -EBADF);

	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_every_function_refuses(segment);
	assert_int_equal(coshm_segment_detach(segment), -EBADF);
	/* Objects were closed with the segment handle that they were opened through. */
	assert_int_equal(coshm__op_begin(&op, toy, COSHM_OBJECT_QUEUE), -EBADF);
	assert_int_equal(toy_close(toy), -EBADF);
	assert_int_equal(toy_close(NULL), 0);
	/* A later handle in the same place of the table is not the old one. */
	assert_int_equal(coshm_segment_attach(name, 0, &again), 0);
	assert_every_function_refuses(segment);
	assert_int_equal(coshm_segment_detach(segment), -EBADF);
	for (size_t i = 0; i < 4; i++) {
		assert_every_function_refuses(garbage[i]);
		assert_int_equal(coshm_segment_detach(garbage[i]), -EBADF);
	}
	assert_int_equal(coshm_segment_detach(again), 0);
}

static void objects_are_closed_with_their_own_segment_handle_only(void **state)
{
	struct coshm_segment *first, *second;
	void *by_first, *by_second;

	(void)state;
	assert_int_equal(create_plain(&first), 0);
	assert_int_equal(coshm_segment_attach(name, 0, &second), 0);
	assert_int_equal(toy_create(first, "a", 0, 5, &by_first), 0);
	assert_int_equal(toy_open(second, "a", &by_second), 0);
	assert_int_equal(coshm_segment_detach(first), 0);
	assert_null(toy_peek(by_first));
	assert_int_equal(toy_peek(by_second)->payload.value, 5);
	assert_int_equal(coshm_segment_detach(second), 0);
	assert_null(toy_peek(by_second));
}

static void read_only_attach_looks_and_cannot_change(void **state)
{
	struct coshm_segment *writer, *reader;
	struct coshm_segment_info info;
	struct coshm_verify_result verified;
	struct coshm__op op;
	void *toy, *seen, *none = NULL;

	(void)state;
	assert_int_equal(create_plain(&writer), 0);
	assert_int_equal(toy_create(writer, "a", 0, 9, &toy), 0);
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &reader), 0);
	assert_int_equal(coshm_segment_info(reader, &info), 0);
	assert_int_equal(info.member_count, 1); /* takes no member slot */
	assert_true(coshm_segment_now_ns(reader) > 0);
	assert_int_equal(coshm_segment_reap(reader, NULL), -EROFS);
	assert_int_equal(coshm_object_remove(reader, "a"), -EROFS);
	assert_int_equal(toy_create(reader, "b", 0, 0, &none), -EROFS);
	assert_int_equal(toy_open(reader, "a", &seen), 0);
	assert_int_equal(coshm__op_begin(&op, seen, COSHM_OBJECT_QUEUE), -EROFS);
	assert_int_equal(toy_peek(seen)->payload.value, 9);
	assert_int_equal(coshm_inspect_verify(reader, NULL, NULL, NULL, &verified), 0);
	assert_int_equal(verified.checked_objects, 1);
	assert_int_equal(verified.damage, 0);
	assert_int_equal(verified.pending, 0);
	/* The mapping itself is not writable, so nothing above can have written. */
	{
		const unsigned long base = (unsigned long)toy_segment(reader)->base;
		unsigned long from, to;
		char line[512];
		FILE *maps = fopen("/proc/self/maps", "r");
		int found = 0;

		while (maps && fgets(line, sizeof(line), maps))
			if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= base && base < to)
				found = strstr(line, " r--s ") != NULL;
		if (maps)
			fclose(maps);
		assert_int_equal(found, 1);
	}
	assert_int_equal(coshm_segment_detach(reader), 0);
	assert_int_equal(coshm_segment_detach(writer), 0);
	/* Also where no writer is. */
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &reader), 0);
	assert_int_equal(toy_open(reader, "a", &seen), 0);
	assert_int_equal(coshm_segment_detach(reader), 0);
}

static void inspection_of_a_read_only_attach_changes_no_byte(void **state)
{
	static unsigned char before[MIB], after[MIB];
	struct coshm_segment *writer, *reader;
	uint64_t damage, pending;
	char text[8192];
	size_t size;
	void *toy;
	int fd;

	(void)state;
	assert_int_equal(create_plain(&writer), 0);
	assert_int_equal(toy_create(writer, "a", 0, 9, &toy), 0);
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, before, MIB, 0), MIB);
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &reader), 0);
	assert_int_equal(toy_verify(reader, &damage, &pending), 0);
	assert_int_equal(coshm_inspect_members(reader, stop_member, NULL), 7);
	assert_int_equal(coshm_inspect_objects(reader, stop_here, NULL), 7);
	assert_int_equal(coshm_stats_json(reader, NULL, text, sizeof(text), &size), 0);
	assert_int_equal(coshm_stats_prometheus(reader, NULL, text, sizeof(text), &size), 0);
	assert_int_equal(coshm_segment_detach(reader), 0);
	assert_int_equal(pread(fd, after, MIB, 0), MIB);
	assert_memory_equal(before, after, MIB);
	close(fd);
	assert_int_equal(coshm_segment_detach(writer), 0);
}

/* Member ids start anew in every file: what a thread remembers of a former segment must not be taken for this one's. */
static void second_segment_of_a_process_gets_thread_slots_of_its_own(void **state)
{
	struct coshm_segment *segment;
	struct coshm__op op;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(create_plain(&segment), 0);
		assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
		assert_true(op.thread >= op.segment->threads &&
			    op.thread < op.segment->threads + op.segment->thread_count_max);
		assert_int_equal(coshm__a32_load_relaxed(&op.thread->owner), op.member_id);
		coshm__op_end(&op);
		assert_int_equal(coshm_segment_detach(segment), 0);
		assert_int_equal(coshm_segment_unlink(name), 0);
	}
}

static void pinned_views_keep_a_segment_attached(void **state)
{
	struct coshm_segment *segment;
	struct coshm__op op;
	int pin;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
	pin = coshm__pin_set(&op, 4096);
	coshm__op_end(&op);
	assert_int_equal(pin, 0);
	heard_clear();
	assert_int_equal(coshm_segment_detach(segment), -EBUSY);
	assert_explained(-EBUSY, "pinned");
	/* Nothing has changed: it still works. */
	assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
	assert_int_equal(coshm__pin_clear(&op, (uint32_t)pin, 8192), -ESTALE);
	assert_int_equal(coshm__pin_clear(&op, (uint32_t)pin, 4096), 0);
	assert_int_equal(coshm__pin_clear(&op, (uint32_t)pin, 4096), -ESTALE);
	assert_int_equal(coshm__pin_clear(&op, 64, 4096), -ESTALE);
	coshm__op_end(&op);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void all_pins_taken_is_eagain(void **state)
{
	struct coshm_segment *segment;
	struct coshm_member_info info;
	struct coshm__op op;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
	for (int i = 0; i < COSHM__PIN_COUNT; i++)
		assert_int_equal(coshm__pin_set(&op, 4096), i);
	assert_int_equal(coshm__pin_set(&op, 4096), -EAGAIN);
	coshm__op_end(&op);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.pages_pinned, COSHM__PIN_COUNT);
	assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
	for (uint32_t i = 0; i < COSHM__PIN_COUNT; i++)
		assert_int_equal(coshm__pin_clear(&op, i, 4096), 0);
	coshm__op_end(&op);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void errno_is_left_as_it_was(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment, *reader, *none;
	uint64_t damage, pending;
	void *toy;

	(void)state;
	errno = 4242;
	assert_int_equal(coshm_segment_attach(name, 0, &none), -ENOENT);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_create("/no/such/folder/x", &config, 0, &none), -ENOENT);
	assert_int_equal(errno, 4242);
	assert_int_equal(create(&config, 0, &segment), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(create(&config, 0, &none), -EEXIST);
	assert_int_equal(errno, 4242);
	assert_int_equal(toy_create(segment, "a", 0, 1, &toy), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(toy_open(segment, "b", &toy), -ENOENT);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &reader), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(toy_verify(reader, &damage, &pending), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_detach(reader), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_object_remove(segment, "a"), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_unlink(name), -ENOENT);
	assert_int_equal(errno, 4242);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(errno, 4242);
}

static void growth_goes_up_to_size_max(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB, .size_max_bytes = 4 * MIB};
	struct coshm_segment *segment;
	struct coshm_segment_info before, after;
	struct stat status;
	void *toy = NULL, *big;

	(void)state;
	TEST_NEEDS(shmfs_lacks_space(8 * MIB));
	assert_int_equal(create(&config, 0, &segment), 0);
	heard_clear();
	assert_int_equal(toy_create_sized(segment, "too-big", 4 * MIB, &toy), -EDQUOT);
	assert_explained(-EDQUOT, "size_max_bytes");
	assert_int_equal(coshm_segment_info(segment, &before), 0);
	assert_int_equal(before.size_bytes, MIB);
	assert_int_equal(toy_create_sized(segment, "big", 2 * MIB, &big), 0);
	assert_int_equal(coshm_segment_info(segment, &after), 0);
	assert_true(after.size_bytes >= 2 * MIB && after.size_bytes <= 4 * MIB);
	assert_int_equal(after.used_bytes, before.used_bytes + 2 * MIB);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_size, after.size_bytes);
	/* An error has changed nothing. */
	assert_int_equal(toy_create_sized(segment, "too-big", 2 * MIB, &toy), -EDQUOT);
	assert_null(toy);
	assert_int_equal(coshm_segment_info(segment, &before), 0);
	assert_int_equal(before.size_bytes, after.size_bytes);
	assert_int_equal(before.used_bytes, after.used_bytes);
	assert_int_equal(before.object_count, 1);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void member_sees_memory_that_another_one_added_after_it_attached(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB, .size_max_bytes = 4 * MIB};
	struct coshm_segment *writer, *reader;
	void *big, *seen;

	(void)state;
	TEST_NEEDS(shmfs_lacks_space(8 * MIB));
	assert_int_equal(create(&config, 0, &writer), 0);
	assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &reader), 0);
	assert_int_equal(toy_create_sized(writer, "big", 2 * MIB, &big), 0);
	assert_int_equal(toy_open(reader, "big", &seen), 0);
	assert_int_equal(((unsigned char *)toy_peek(seen))[2 * MIB - 1], 0xa5);
	assert_int_equal(coshm_segment_detach(reader), 0);
	assert_int_equal(coshm_segment_detach(writer), 0);
}

static void more_than_32_segments_are_emfile_and_leak_nothing(void **state)
{
	struct coshm_segment *segments[COSHM__SEGMENTS_MAX + 1] = {NULL};
	char names[COSHM__SEGMENTS_MAX + 1][TEST_SEGMENT_NAME_SIZE];
	const struct coshm_segment_config config = {
		.size_bytes = MIB, .member_count_max = 4, .thread_count_max = 8};
	int i;

	(void)state;
	TEST_NEEDS(shmfs_lacks_space(128 * MIB)); /* 32 of it, and other tests run beside it */
	for (i = 0; i <= COSHM__SEGMENTS_MAX; i++)
		test_segment_name(names[i], "many");
	for (i = 0; i < COSHM__SEGMENTS_MAX; i++)
		assert_int_equal(coshm_segment_create(names[i], &config, 0, &segments[i]), 0);
	heard_clear();
	assert_int_equal(coshm_segment_create(names[i], &config, 0, &segments[i]), -EMFILE);
	assert_explained(-EMFILE, "detach");
	assert_null(segments[i]);
	assert_int_equal(coshm_segment_attach(names[i], 0, &segments[i]), -ENOENT);
	assert_int_equal(coshm_segment_detach(segments[3]), 0);
	assert_int_equal(
		coshm_segment_create(names[i], &config, COSHM_CREATE_OR_OPEN, &segments[3]), 0);
	for (i = 0; i < COSHM__SEGMENTS_MAX; i++)
		assert_int_equal(coshm_segment_detach(segments[i]), 0);
	for (i = 0; i <= COSHM__SEGMENTS_MAX; i++)
		(void)!coshm_segment_unlink(names[i]);
}

static void full_table_of_handles_is_emfile_and_creates_no_segment(void **state)
{
	static struct coshm_segment *handles[COSHM__HANDLES_MAX];
	char other[TEST_SEGMENT_NAME_SIZE];
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment, *none = NULL;
	int count = 0, error;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	test_segment_name(other, "one-more");
	while ((error = coshm_segment_attach(name, 0, &handles[count])) == 0)
		count++;
	assert_int_equal(error, -EMFILE);
	assert_int_equal(coshm_segment_create(other, &config, 0, &none), -EMFILE);
	assert_null(none);
	assert_int_equal(coshm_segment_detach(handles[--count]), 0);
	assert_int_equal(coshm_segment_attach(other, 0, &none), -ENOENT);
	/* The last place is enough for what is created. */
	assert_int_equal(coshm_segment_create(other, &config, 0, &none), 0);
	assert_int_equal(coshm_segment_detach(none), 0);
	assert_int_equal(coshm_segment_unlink(other), 0);
	while (count--)
		assert_int_equal(coshm_segment_detach(handles[count]), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static unsigned int open_files(void)
{
	unsigned int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void attach_and_detach_leak_no_descriptor_no_mapping_no_slot(void **state)
{
	struct coshm_segment *segment, *keeper;
	struct coshm_segment_info info;
	unsigned int files;
	void *toy;

	(void)state;
	assert_int_equal(create_plain(&keeper), 0);
	assert_int_equal(toy_create(keeper, "a", 0, 1, &toy), 0);
	assert_int_equal(coshm_segment_detach(keeper), 0);
	files = open_files();
	for (int i = 0; i < 300; i++) { /* more often than there are member slots */
		assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
		assert_int_equal(toy_open(segment, "a", &toy), 0);
		assert_int_equal(coshm_segment_detach(segment), 0);
		assert_int_equal(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment), 0);
		assert_int_equal(coshm_segment_detach(segment), 0);
		assert_int_equal(coshm_segment_attach("/dev/null", 0, &segment), -EUCLEAN);
	}
	assert_int_equal(open_files(), files);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.member_count, 1);
	assert_int_equal(info.thread_high_water, 1);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

static void out_of_descriptors_is_an_error_that_changes_nothing(void **state)
{
	struct coshm_segment *segment = NULL;
	struct coshm_segment_info info;
	struct rlimit limit, none;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	segment = NULL;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	for (rlim_t files = 3; files < 12; files++) {
		int error;

		none = limit;
		none.rlim_cur = files;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
		error = coshm_segment_attach(name, 0, &segment);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
		if (error == 0) {
			assert_int_equal(coshm_segment_info(segment, &info), 0);
			assert_int_equal(info.member_count, 1);
			assert_int_equal(coshm_segment_detach(segment), 0);
			segment = NULL;
		} else {
			assert_int_equal(error, -EMFILE);
			assert_null(segment);
		}
	}
}

/* A daemon closes everything above 2, and the application gets the numbers again for files of its own. */
static int closes_all_and_reuses_numbers(void *arg)
{
	const struct coshm_segment_config config = {.size_bytes = MIB, .size_max_bytes = 4 * MIB};
	struct coshm_segment *segment;
	struct coshm_segment_info info;
	struct stat status;
	int files[16], error;
	void *big = NULL;
	char file[] = "/tmp/segment-test-XXXXXX";

	(void)arg;
	if (create(&config, 0, &segment))
		return 1;
	if (close_range(3, ~0u, 0))
		return 0; /* an old kernel */
	files[0] = mkstemp(file);
	unlink(file);
	for (int i = 1; i < 16; i++)
		files[i] = dup(files[0]);
	if (files[0] < 0 || files[15] < 0)
		return 2;
	error = toy_create_sized(segment, "big", 2 * MIB, &big);
	if (fstat(files[0], &status) || status.st_size != 0)
		return 3; /* memory for the segment was taken from the application's file */
	if (error)
		return 4; /* the path is still there, so growth is possible */
	if (((unsigned char *)toy_peek(big))[2 * MIB - 1] != 0xa5)
		return 5;
	if (coshm_segment_info(segment, &info) || info.member_count != 1)
		return 6;
	if (coshm_segment_detach(segment))
		return 7;
	for (int i = 0; i < 16; i++)
		if (fcntl(files[i], F_GETFD) < 0)
			return 8; /* the application's file was closed */
	return 0;
}

static void descriptors_that_the_application_took_over_are_not_touched(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_space(8 * MIB));
	assert_int_equal(
		proc_collect(proc_spawn(closes_all_and_reuses_numbers, NULL), PROC_DEADLINE_NS), 0);
}

static void clock_agrees_with_clock_monotonic(void **state)
{
	struct coshm_segment *segment;
	uint64_t first, between, second;
	int64_t offset_ns;

	(void)state;
	assert_int_equal(create_plain(&segment), 0);
	first = test_now_ns();
	between = coshm_segment_now_ns(segment);
	second = test_now_ns();
	/* In the initial time namespace they are one clock. */
	assert_int_equal(coshm__clock_namespace_offset_ns(&offset_ns), 0);
	if (offset_ns == 0)
		assert_true(first <= between && between <= second);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

#define SEGMENT_TEST(test) cmocka_unit_test_setup_teardown(test, fresh_name, clean)

/* With an argument: only the tests whose names match it. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SEGMENT_TEST(segment_has_the_size_it_was_created_with),
		SEGMENT_TEST(name_and_path_mean_the_same_file),
		SEGMENT_TEST(segment_in_another_folder_by_relative_path),
		SEGMENT_TEST(create_or_open_opens_what_is_there),
		SEGMENT_TEST(bad_configurations_say_which_field),
		SEGMENT_TEST(config_of_a_newer_program_is_taken_only_if_it_asks_for_nothing_new),
		SEGMENT_TEST(name_has_up_to_200_printable_characters),
		SEGMENT_TEST(bad_arguments_are_einval),
		SEGMENT_TEST(mode_is_what_was_asked_for_under_any_umask),
		SEGMENT_TEST(attach_says_what_is_wrong_with_the_file),
		SEGMENT_TEST(folder_is_no_segment),
		SEGMENT_TEST(foreign_files_are_left_alone),
		SEGMENT_TEST(other_layouts_are_refused_and_not_touched),
		SEGMENT_TEST(segment_of_another_boot_is_stale_and_is_replaced_by_a_creator),
		SEGMENT_TEST(truncated_file_is_refused),
		SEGMENT_TEST(any_damaged_byte_of_the_fixed_part_is_survived),
		SEGMENT_TEST(removed_segment_is_used_on_but_not_attached),
		SEGMENT_TEST(closed_and_null_handles_are_ebadf_everywhere),
		SEGMENT_TEST(objects_are_closed_with_their_own_segment_handle_only),
		SEGMENT_TEST(read_only_attach_looks_and_cannot_change),
		SEGMENT_TEST(inspection_of_a_read_only_attach_changes_no_byte),
		SEGMENT_TEST(second_segment_of_a_process_gets_thread_slots_of_its_own),
		SEGMENT_TEST(pinned_views_keep_a_segment_attached),
		SEGMENT_TEST(all_pins_taken_is_eagain),
		SEGMENT_TEST(errno_is_left_as_it_was),
		SEGMENT_TEST(growth_goes_up_to_size_max),
		SEGMENT_TEST(member_sees_memory_that_another_one_added_after_it_attached),
		SEGMENT_TEST(more_than_32_segments_are_emfile_and_leak_nothing),
		SEGMENT_TEST(full_table_of_handles_is_emfile_and_creates_no_segment),
		SEGMENT_TEST(attach_and_detach_leak_no_descriptor_no_mapping_no_slot),
		SEGMENT_TEST(out_of_descriptors_is_an_error_that_changes_nothing),
		SEGMENT_TEST(descriptors_that_the_application_took_over_are_not_touched),
		SEGMENT_TEST(clock_agrees_with_clock_monotonic),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
