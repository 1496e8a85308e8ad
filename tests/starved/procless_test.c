/* SPDX-License-Identifier: MIT */
/* Without /proc: all that works with it works, but a fork child needs the file's name, and nobody notices a reboot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/segment_shm.h"
#include "starved/stock.h"
#include "support/shmfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char name[TEST_SEGMENT_NAME_SIZE], path[TEST_SEGMENT_NAME_SIZE + 16];

static int lose_proc(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	for (int i = 0; i < 8 && access("/proc/self", F_OK) == 0; i++)
		if (umount2("/proc", MNT_DETACH))
			return -1;
	return access("/proc/self", F_OK) == 0;
}

/* A fork that returns the child's code; proc_spawn's children look into /proc. */
static int in_a_child_of_this(int (*body)(void *arg), void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(body(arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 89;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int uses(void *arg)
{
	struct stock *stock = arg;

	for (unsigned int i = 0; i < 20; i++)
		NEED(stock_use(stock, (unsigned int)getpid()) == 0);
	return stock_close(stock);
}

static int uses_and_dies(void *arg)
{
	struct coshm_task task;
	struct stock *stock = arg;

	NEED(stock_use(stock, (unsigned int)getpid()) == 0);
	GIVES(0, coshm_queue_enqueue(stock->queue, "t", 1, NULL, NULL));
	GIVES(1, coshm_queue_reserve(stock->queue, 0, &task));
	raise(SIGKILL);
	return 1;
}

static int attaches(void *arg)
{
	struct stock stock;

	(void)arg;
	NEED(stock_open(&stock, name, 0) == 0);
	return uses(&stock);
}

static int whole_life(void *arg)
{
	const struct coshm_queue_config config = {.capacity = 5000};
	struct coshm_segment *looked;
	struct coshm_queue_depth depth;
	struct coshm_queue *queue;
	struct coshm_task task;
	struct stock stock;

	NEED(lose_proc() == 0);
	NEED(stock_open(&stock, name, 0) == 0);
	NEED(stock_use(&stock, 1) == 0);
	/* Forked, attached, killed. */
	NEED(in_a_child_of_this(uses, &stock) == 0);
	NEED(in_a_child_of_this(attaches, NULL) == 0);
	NEED(in_a_child_of_this(uses_and_dies, &stock) == -SIGKILL);
	GIVES(0, coshm_segment_reap(stock.segment, NULL));
	GIVES(0, coshm_queue_depth(stock.queue, &depth));
	NEED(depth.ready == 1 && depth.leased == 0);
	GIVES(1, coshm_queue_reserve(stock.queue, 0, &task));
	GIVES(0, coshm_queue_ack(stock.queue, &task));
	/* Growth, inspection. */
	GIVES(0, coshm_queue_create(stock.segment, "new", &config, 0, &queue));
	NEED(stock_verify(stock.segment, 0) == 0);
	GIVES(0, coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &looked));
	NEED(stock_verify(looked, 0) == 0);
	GIVES(0, coshm_segment_detach(looked));
	GIVES(0, coshm_object_remove(stock.segment, "new"));
	NEED(stock_close(&stock) == 0);
	if (arg)
		GIVES(0, coshm_segment_unlink(name));
	return 0;
}

static int fresh_name(void **state)
{
	(void)state;
	test_segment_name(name, "procless");
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static void whole_life_of_a_segment_needs_no_proc(void **state)
{
	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(run_in_child(whole_life, path), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void members_with_and_without_proc_share_a_segment(void **state)
{
	struct stock stock;

	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	/* Made without it, joined with it. */
	assert_int_equal(run_in_child(whole_life, NULL), 0);
	assert_int_equal(stock_open(&stock, name, 0), 0);
	assert_int_equal(stock_use(&stock, 1), 0);
	/* The other way round. */
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
	assert_int_equal(stock_open(&stock, name, 0), 0);
	assert_int_equal(run_in_child(whole_life, NULL), 0);
	assert_int_equal(stock_use(&stock, 1), 0);
	/* The child has not detached what it inherited. */
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
}

/* --- what is lost ------------------------------------------------------------------------------------------------------ */

static int finds_no_file(void *arg)
{
	struct stock *stock = arg;
	uint64_t count;

	hear_start();
	GIVES(-ENOTCONN, coshm_cache_count(stock->cache, &count));
	NEED(strstr(hear_text(), name));
	NEED(strstr(coshm_strerror(-ENOTCONN), "attach before dropping privileges"));
	return 0;
}

/* In a chroot there is neither /proc nor the file's name: who is a member goes on, grows and reaps. */
static int in_a_jail(void *arg)
{
	const struct coshm_queue_config config = {.capacity = 5000};
	struct coshm_queue *queue;
	struct stock stock;

	NEED(stock_open(&stock, name, 0) == 0);
	NEED(chroot(arg) == 0 && chdir("/") == 0);
	NEED(stock_use(&stock, 1) == 0);
	GIVES(0, coshm_queue_create(stock.segment, "new", &config, 0, &queue));
	GIVES(0, coshm_segment_reap(stock.segment, NULL));
	NEED(in_a_child_of_this(finds_no_file, &stock) == 0);
	/* The child took nothing with it. */
	NEED(stock_use(&stock, 1) == 0);
	NEED(stock_verify(stock.segment, 0) == 0);
	return stock_close(&stock);
}

static void member_that_jails_itself_goes_on_but_its_children_are_enotconn(void **state)
{
	char folder[] = "/dev/shm/procless-test-XXXXXX";
	int result;

	(void)state;
	TEST_NEEDS(shmfs_lacks_root());
	assert_non_null(mkdtemp(folder));
	result = run_in_child(in_a_jail, folder);
	assert_int_equal(rmdir(folder), 0);
	assert_int_equal(result, 0);
}

static int attaches_without_proc(void *arg)
{
	struct coshm_segment *segment;

	(void)arg;
	NEED(lose_proc() == 0);
	GIVES(0, coshm_segment_attach(name, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	return 0;
}

/* On ext4 or xfs a file outlives the boot that its clock belongs to. */
static void only_proc_tells_a_segment_of_an_earlier_boot(void **state)
{
	const unsigned char other_boot[16] = {1, 2, 3};
	struct coshm_segment *segment = NULL;
	struct stock stock;
	int fd;

	(void)state;
	TEST_NEEDS(shmfs_lacks_mount_namespaces());
	assert_int_equal(stock_open(&stock, name, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, other_boot, 16, offsetof(struct coshm__header_shm, boot_id)),
			 16);
	close(fd);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), -ESTALE);
	assert_int_equal(run_in_child(attaches_without_proc, NULL), 0);
}

#define PROCLESS_TEST(test) cmocka_unit_test_setup_teardown(test, fresh_name, clean)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		PROCLESS_TEST(whole_life_of_a_segment_needs_no_proc),
		PROCLESS_TEST(members_with_and_without_proc_share_a_segment),
		PROCLESS_TEST(member_that_jails_itself_goes_on_but_its_children_are_enotconn),
		PROCLESS_TEST(only_proc_tells_a_segment_of_an_earlier_boot),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("procless", tests, NULL, NULL);
}
