/* SPDX-License-Identifier: MIT */
/* Segments on stages that take some setting up: other users, small file systems, time namespaces, stopped creators. */
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
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#define MIB    (UINT64_C(1) << 20)
#define NOBODY 65534
#define GROUP  61234

static char name[TEST_SEGMENT_NAME_SIZE];
static char path[TEST_SEGMENT_NAME_SIZE + 16];

static int fresh_name(void **state)
{
	(void)state;
	test_segment_name(name, "stage");
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

#define NEED(condition)                                                                           \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			return 1 + __LINE__ % 80;                                                 \
		}                                                                                 \
	} while (0)

static int run_in_child(int (*body)(void *arg), void *arg)
{
	return proc_collect(proc_spawn(body, arg), PROC_DEADLINE_NS);
}

static int create_plain(uint32_t mode)
{
	const struct coshm_segment_config config = {
		.size_bytes = MIB, .mode = mode, .group_id = GROUP, .group_id_set = mode != 0};
	struct coshm_segment *segment;
	void *toy;
	int error = coshm_segment_create(name, &config, 0, &segment);

	if (!error) {
		error = toy_create(segment, "toy", 0, 7, &toy);
		coshm_segment_detach(segment);
	}
	return error;
}

/* --- other users ------------------------------------------------------------------------------------------------- */

static int become(uid_t uid, gid_t gid, const gid_t *groups, size_t count)
{
	return setgroups(count, groups) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid);
}

static int nobody_is_refused_by_permissions(void *arg)
{
	struct coshm_segment *segment = NULL;

	(void)arg;
	NEED(become(NOBODY, NOBODY, NULL, 0) == 0);
	NEED(coshm_segment_attach(name, 0, &segment) == -EACCES);
	NEED(strstr(heard_text(), path));
	NEED(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment) == -EACCES);
	NEED(coshm_segment_unlink(name) == -EACCES);
	NEED(segment == NULL);
	return 0;
}

static int group_member_uses_it(void *arg)
{
	const gid_t groups[] = {GROUP};
	struct coshm_segment *segment;
	void *toy;

	(void)arg;
	NEED(become(NOBODY, NOBODY, groups, 1) == 0);
	NEED(coshm_segment_attach(name, 0, &segment) == 0);
	NEED(toy_open(segment, "toy", &toy) == 0);
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static int group_reader_looks(void *arg)
{
	const gid_t groups[] = {GROUP};
	struct coshm_segment *segment = NULL;
	struct coshm_verify_result verified;
	struct coshm_segment_info info;
	void *toy;

	(void)arg;
	NEED(become(NOBODY, NOBODY, groups, 1) == 0);
	NEED(coshm_segment_attach(name, 0, &segment) == -EACCES);
	NEED(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment) == 0);
	NEED(coshm_segment_info(segment, &info) == 0);
	NEED(toy_open(segment, "toy", &toy) == 0);
	NEED(toy_peek(toy)->payload.value == 7);
	NEED(coshm_inspect_verify(segment, NULL, NULL, NULL, &verified) == 0);
	NEED(verified.damage == 0 && verified.checked_objects == 1);
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

/* Sees that the living live and the dead are dead, with nothing but permission to read. */
static int stays_a_member(void *arg)
{
	struct coshm_segment *segment;

	NEED(coshm_segment_attach(name, 0, &segment) == 0);
	atomic_store((_Atomic int *)arg, 1);
	for (;;)
		pause();
}

static int group_reader_sees_who_lives(void *arg)
{
	const int wanted = *(int *)arg;
	const gid_t groups[] = {GROUP};
	struct coshm_segment *segment;
	struct coshm_member_info info;

	NEED(become(NOBODY, NOBODY, groups, 1) == 0);
	NEED(coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment) == 0);
	NEED(coshm_inspect_member(segment, (uint32_t)((int *)arg)[1], &info) == 1);
	NEED(info.state == (uint32_t)wanted);
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static void permissions_of_owner_and_group_decide(void **state)
{
	struct stat status;

	(void)state;
	TEST_NEEDS(shmfs_lacks_root());
	assert_int_equal(create_plain(0), 0);
	assert_int_equal(run_in_child(nobody_is_refused_by_permissions, NULL), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(create_plain(0660), 0);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_gid, GROUP);
	assert_int_equal(status.st_mode & 07777, 0660);
	assert_int_equal(run_in_child(group_member_uses_it, NULL), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(create_plain(0640), 0);
	assert_int_equal(run_in_child(group_reader_looks, NULL), 0);
}

static void reader_without_write_permission_sees_who_lives(void **state)
{
	int *wanted = proc_shared_alloc(4096);
	_Atomic int *ready = (_Atomic int *)(wanted + 16);
	struct proc *member;

	(void)state;
	TEST_NEEDS(shmfs_lacks_root());
	assert_int_equal(create_plain(0640), 0);
	member = proc_spawn(stays_a_member, (void *)ready);
	while (!atomic_load(ready))
		test_sleep_ns(200000);
	wanted[0] = COSHM_MEMBER_ALIVE;
	wanted[1] = proc_pid(member);
	assert_int_equal(run_in_child(group_reader_sees_who_lives, wanted), 0);
	proc_kill(member);
	wanted[0] = COSHM_MEMBER_DEAD;
	assert_int_equal(run_in_child(group_reader_sees_who_lives, wanted), 0);
}

static int creates_for_a_foreign_group(void *arg)
{
	(void)arg;
	NEED(become(NOBODY, NOBODY, NULL, 0) == 0);
	NEED(create_plain(0660) == -EPERM);
	NEED(strstr(heard_text(), "chgrp"));
	NEED(access(path, F_OK) == -1); /* an error has changed nothing */
	return 0;
}

static void group_that_the_creator_is_not_in_is_eperm(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_root());
	assert_int_equal(run_in_child(creates_for_a_foreign_group, NULL), 0);
}

static int owned_by_a_third_user(void *arg)
{
	const gid_t groups[] = {GROUP};
	struct coshm_segment *segment = NULL;

	(void)arg;
	NEED(become(NOBODY, NOBODY, groups, 1) == 0);
	NEED(coshm_segment_attach(name, 0, &segment) == -EPERM);
	NEED(strstr(heard_text(), "61111"));
	NEED(segment == NULL);
	NEED(coshm_segment_attach(name, COSHM_ATTACH_ANY_OWNER, &segment) == 0);
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static void file_of_a_third_user_needs_any_owner(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_root());
	assert_int_equal(create_plain(0660), 0);
	assert_int_equal(chown(path, 61111, GROUP), 0);
	assert_int_equal(run_in_child(owned_by_a_third_user, NULL), 0);
}

/* An empty file of somebody else, in which a segment would be somebody else's. */
static void empty_file_of_another_user_is_not_filled(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;
	struct stat status;
	int fd;

	(void)state;
	TEST_NEEDS(shmfs_lacks_root());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0640);
	assert_true(fd >= 0);
	assert_int_equal(fchown(fd, 61111, 61111), 0);
	assert_int_equal(coshm_segment_create(name, &config, 0, &segment), -EPERM);
	assert_int_equal(coshm_segment_create(name, &config, COSHM_CREATE_OR_OPEN, &segment),
			 -EPERM);
	assert_null(segment);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_size, 0);
	assert_int_equal(status.st_uid, 61111);
	assert_int_equal(status.st_mode & 07777, 0640);
	close(fd);
}

static int creates_what_it_may_not_write(void *arg)
{
	const struct coshm_segment_config config = {.size_bytes = MIB, .mode = 0400};
	struct coshm_segment *segment = NULL;

	(void)arg;
	if (geteuid() == 0)
		NEED(become(NOBODY, NOBODY, NULL, 0) == 0);
	NEED(coshm_segment_create(name, &config, 0, &segment) == -EACCES);
	NEED(strstr(heard_text(), "0400"));
	NEED(segment == NULL);
	NEED(access(path, F_OK) == -1);
	return 0;
}

static void mode_that_locks_the_creator_out_is_eacces_and_leaves_nothing(void **state)
{
	(void)state;
	assert_int_equal(run_in_child(creates_what_it_may_not_write, NULL), 0);
}

/* --- processes that may not do all they need --------------------------------------------------------------------- */

static int forbid_membarrier(void)
{
	struct sock_filter steps[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = steps};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

#define WITHOUT_MEMBARRIER "--without-membarrier"

/* liburcu asks once, when a program starts, and relies on the answer. */
static int starts_without_membarrier(void *arg)
{
	NEED(forbid_membarrier() == 0);
	execl("/proc/self/exe", "segment_test", WITHOUT_MEMBARRIER, name, (char *)arg,
	      (char *)NULL);
	return 1;
}

static int lives_without_membarrier(const char *fresh, const char *light)
{
	struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;

	snprintf(name, sizeof(name), "%s", fresh);
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	heard_start();
	NEED(coshm_segment_attach(light, 0, &segment) == -ENOTSUP);
	NEED(coshm_segment_create(name, &config, 0, &segment) == -ENOTSUP);
	NEED(strstr(heard_text(), "COSHM_SEGMENT_FENCED"));
	NEED(segment == NULL);
	NEED(access(path, F_OK) == -1);
	/* The advice works. */
	config.flags = COSHM_SEGMENT_FENCED;
	NEED(coshm_segment_create(name, &config, 0, &segment) == 0);
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static const char *lacks_segments_without_fences(void)
{
#ifdef COSHM__FENCED_DEFAULT
	return "segments without fences: in this build all have them";
#else
	return shmfs_lacks_membarrier();
#endif
}

static void membarrier_that_is_forbidden_is_enotsup_and_leaves_nothing(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	char light[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment;

	(void)state;
	TEST_NEEDS(lacks_segments_without_fences());
	test_segment_name(light, "light");
	assert_int_equal(coshm_segment_create(light, &config, 0, &segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(run_in_child(starts_without_membarrier, light), 0);
}

/* Address space for some, not for all: 32 TiB each. */
static int runs_out_of_address_space(void *arg)
{
	const struct coshm_segment_config config = {.size_bytes = MIB,
						    .size_max_bytes = UINT64_C(1) << 45};
	char each[TEST_SEGMENT_NAME_SIZE + 4], each_path[sizeof(each) + 16];
	struct coshm_segment *segment = NULL;
	int error = 0;

	(void)arg;
	for (int i = 0; i < 10 && !error; i++) {
		snprintf(each, sizeof(each), "%s-%d", name, i);
		error = coshm_segment_create(each, &config, 0, &segment);
	}
	NEED(error == -ENOMEM);
	NEED(strstr(heard_text(), "mapping"));
	snprintf(each_path, sizeof(each_path), "/dev/shm/%s", each);
	NEED(access(each_path, F_OK) == -1);
	return 0;
}

static void address_space_that_is_used_up_is_enomem_and_leaves_nothing(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_space(16 * MIB));
	assert_int_equal(run_in_child(runs_out_of_address_space, NULL), 0);
}

/* --- small file systems ------------------------------------------------------------------------------------------ */

static int private_tmpfs(const char *size)
{
	char options[64];

	snprintf(options, sizeof(options), "size=%s,mode=1777", size);
	return unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	       mount("coshm-test", "/dev/shm", "tmpfs", 0, options);
}

static int in_64_mib(void *arg)
{
	const struct coshm_segment_config large = {.size_bytes = 128 * MIB};
	const struct coshm_segment_config small = {.size_bytes = MIB, .size_max_bytes = 512 * MIB};
	struct coshm_segment_info before, after;
	struct coshm_segment *segment = NULL;
	void *toy = NULL;
	int fd;
	static char block[1 << 20];

	(void)arg;
	NEED(private_tmpfs("64m") == 0);
	NEED(coshm_segment_create(name, &large, 0, &segment) == -ENOSPC);
	NEED(strstr(heard_text(), "--shm-size"));
	NEED(strstr(coshm_strerror(-ENOSPC), "--shm-size"));
	NEED(segment == NULL);
	NEED(access(path, F_OK) == -1);
	/* More than is there is fine as address space. */
	NEED(coshm_segment_create(name, &small, 0, &segment) == 0);
	NEED(coshm_segment_info(segment, &before) == 0);
	heard_clear();
	NEED(toy_create_sized(segment, "big", 100 * MIB, &toy) == -ENOSPC);
	NEED(strstr(heard_text(), "--shm-size"));
	NEED(toy_create_sized(segment, "huge", 512 * MIB, &toy) == -EDQUOT);
	NEED(toy == NULL);
	NEED(coshm_segment_info(segment, &after) == 0);
	NEED(memcmp(&before.size_bytes, &after.size_bytes, sizeof(before.size_bytes)) == 0);
	NEED(before.object_count == after.object_count && before.used_bytes == after.used_bytes);
	NEED(toy_create_sized(segment, "fits", 20 * MIB, &toy) == 0);
	/* Fill what is left: the memory that was promised stays usable, to the last byte. */
	fd = open("/dev/shm/filler", O_CREAT | O_RDWR, 0600);
	NEED(fd >= 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	memset((unsigned char *)toy_peek(toy) + sizeof(struct toy_shm), 0x11,
	       20 * MIB - sizeof(struct toy_shm));
	NEED(toy_create_sized(segment, "more", 2 * MIB, &toy) == -ENOSPC);
	{
		uint64_t damage, pending;

		NEED(toy_verify(segment, &damage, &pending) == 0 && damage + pending == 0);
	}
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static int in_a_full_one(void *arg)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;
	static char block[4096];
	int fd;

	(void)arg;
	NEED(private_tmpfs("2m") == 0);
	fd = open("/dev/shm/filler", O_CREAT | O_RDWR, 0600);
	NEED(fd >= 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	NEED(coshm_segment_create(name, &config, 0, &segment) == -ENOSPC);
	NEED(strstr(heard_text(), "no room"));
	NEED(access(path, F_OK) == -1);
	NEED(unlink("/dev/shm/filler") == 0 && close(fd) == 0);
	NEED(coshm_segment_create(name, &config, 0, &segment) == 0);
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static void docker_sized_file_system_is_enospc_never_sigbus(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(in_64_mib, NULL), 0);
}

static void full_file_system_is_enospc(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(in_a_full_one, NULL), 0);
}

static void file_system_that_cannot_is_emediumtype(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;

	(void)state;
	/* procfs, for want of NFS. */
	assert_int_equal(
		coshm_segment_attach("/proc/self/status", COSHM_ATTACH_READ_ONLY, &segment),
		-EMEDIUMTYPE);
	assert_non_null(strstr(heard_text(), "file system"));
	assert_true(coshm_segment_create("/proc/self/x", &config, 0, &segment) < 0);
	assert_null(segment);
}

static int on_ramfs(void *arg)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;

	(void)arg;
	NEED(private_tmpfs("2m") == 0);
	NEED(mount("coshm-test", "/dev/shm", "ramfs", 0, NULL) == 0);
	NEED(coshm_segment_create(name, &config, 0, &segment) == -EMEDIUMTYPE);
	NEED(segment == NULL);
	NEED(access(path, F_OK) == -1);
	return 0;
}

static void file_system_that_cannot_is_left_as_it_was(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(on_ramfs, NULL), 0);
}

/* --- creators that do not get on --------------------------------------------------------------------------------- */

static int hold_the_init_lock(void *arg)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	NEED(fd >= 0 && coshm__file_lock_init(fd, path, 0) == 0);
	atomic_store((_Atomic int *)arg, 1);
	for (;;)
		pause();
}

static void stopped_creator_is_etimedout_and_a_killed_one_is_replaced(void **state)
{
	const struct coshm_segment_config config = {.size_bytes = MIB};
	_Atomic int *ready = proc_shared_alloc(4096);
	struct coshm_segment *segment = NULL;
	struct proc *creator = proc_spawn(hold_the_init_lock, (void *)ready);

	(void)state;
	while (!atomic_load(ready))
		test_sleep_ns(200000);
	assert_int_equal(coshm_segment_create(name, &config, 0, &segment), -ETIMEDOUT);
	assert_non_null(strstr(heard_text(), path));
	assert_int_equal(coshm_segment_attach(name, 0, &segment), -ETIMEDOUT);
	assert_null(segment);
	proc_kill(creator);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), -ENOENT);
	assert_int_equal(coshm_segment_create(name, &config, 0, &segment), 0);
	assert_int_equal(coshm_segment_detach(segment), 0);
}

/* --- time namespaces --------------------------------------------------------------------------------------------- */

static int tells_the_time(void *arg)
{
	struct coshm_segment *segment;

	NEED(coshm_segment_attach(name, 0, &segment) == 0);
	*(uint64_t *)arg = coshm_segment_now_ns(segment);
	((uint64_t *)arg)[1] = test_now_ns();
	NEED(coshm_segment_detach(segment) == 0);
	return 0;
}

static int in_another_time(void *arg)
{
	int fd, status;
	pid_t pid;

	NEED(unshare(CLONE_NEWTIME) == 0);
	fd = open("/proc/self/timens_offsets", O_WRONLY);
	NEED(fd >= 0 && write(fd, "monotonic 86400 5\n", 18) == 18);
	close(fd);
	pid = fork();
	if (pid == 0)
		_exit(tells_the_time(arg));
	NEED(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void members_of_other_time_namespaces_have_the_same_clock(void **state)
{
	uint64_t *times = proc_shared_alloc(4096), before, after;
	struct coshm_segment *segment;

	(void)state;
	TEST_NEEDS(shmfs_lacks_time_namespaces());
	assert_int_equal(create_plain(0), 0);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
	before = coshm_segment_now_ns(segment);
	assert_int_equal(run_in_child(in_another_time, times), 0);
	after = coshm_segment_now_ns(segment);
	assert_true(before <= times[0] && times[0] <= after);
	assert_true(times[1] > after + UINT64_C(80000) * 1000000000); /* it was in another time */
	assert_int_equal(coshm_segment_detach(segment), 0);
}

#define STAGE_TEST(test) cmocka_unit_test_setup_teardown(test, fresh_name, clean)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		STAGE_TEST(permissions_of_owner_and_group_decide),
		STAGE_TEST(reader_without_write_permission_sees_who_lives),
		STAGE_TEST(group_that_the_creator_is_not_in_is_eperm),
		STAGE_TEST(file_of_a_third_user_needs_any_owner),
		STAGE_TEST(empty_file_of_another_user_is_not_filled),
		STAGE_TEST(mode_that_locks_the_creator_out_is_eacces_and_leaves_nothing),
		STAGE_TEST(membarrier_that_is_forbidden_is_enotsup_and_leaves_nothing),
		STAGE_TEST(address_space_that_is_used_up_is_enomem_and_leaves_nothing),
		STAGE_TEST(docker_sized_file_system_is_enospc_never_sigbus),
		STAGE_TEST(full_file_system_is_enospc),
		STAGE_TEST(file_system_that_cannot_is_emediumtype),
		STAGE_TEST(file_system_that_cannot_is_left_as_it_was),
		STAGE_TEST(stopped_creator_is_etimedout_and_a_killed_one_is_replaced),
		STAGE_TEST(members_of_other_time_namespaces_have_the_same_clock),
	};

	if (argc == 4 && !strcmp(argv[1], WITHOUT_MEMBARRIER))
		return lives_without_membarrier(argv[2], argv[3]);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("segment on stages", tests, NULL, NULL);
}
