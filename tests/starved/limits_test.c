/* SPDX-License-Identifier: MIT */
/* Processes at their own limits: descriptors, address space, locked memory, size of a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "starved/stock.h"
#include "support/shmfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

static char name[TEST_SEGMENT_NAME_SIZE], other_name[TEST_SEGMENT_NAME_SIZE + 8];
static char path[TEST_SEGMENT_NAME_SIZE + 16], other_path[TEST_SEGMENT_NAME_SIZE + 24];
static struct stock stock;

static int fresh_name(void **state)
{
	(void)state;
	test_segment_name(name, "limits");
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	snprintf(other_name, sizeof(other_name), "%s-new", name);
	snprintf(other_path, sizeof(other_path), "%s-new", path);
	return 0;
}

static int stock_it(void **state)
{
	fresh_name(state);
	return stock_open(&stock, name, 0);
}

static int clean(void **state)
{
	(void)state;
	if (stock.segment)
		stock_close(&stock);
	unlink(path);
	unlink(other_path);
	return 0;
}

static int limit_set(int resource, rlim_t current)
{
	struct rlimit limit;

	if (getrlimit((__rlimit_resource_t)resource, &limit))
		return -1;
	limit.rlim_cur = current < limit.rlim_max ? current : limit.rlim_max;
	return setrlimit((__rlimit_resource_t)resource, &limit);
}

/* The child has the numbers up to this one, all in use; then @count more. */
static int leave_descriptors(int count)
{
	int highest = 2, fd;

	if (limit_set(RLIMIT_NOFILE, 1000))
		return -1;
	/* No holes. */
	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd < 40);
	if (fd < 0)
		return -1;
	for (int i = 3; i <= fd; i++)
		if (fcntl(i, F_GETFD) >= 0)
			highest = i;
	return limit_set(RLIMIT_NOFILE, (rlim_t)(highest + 1 + count));
}

/* --- a clock, and a boot, that cannot be asked for ------------------------------------------------------------------ */

static int reads_in_another_time(void *arg)
{
	struct coshm_segment *segment = NULL;
	uint64_t now_ns, *times = arg;
	int error = -EMFILE;

	for (int count = 0; count < 4 && error; count++) {
		NEED(leave_descriptors(count) == 0);
		error = coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment);
		if (error)
			GIVES(-EMFILE, error);
	}
	/* Not at the price of a wrong clock. */
	now_ns = coshm_segment_now_ns(segment);
	NEED(now_ns > times[0] && now_ns < times[0] + 2 * PROC_DEADLINE_NS);
	GIVES(0, coshm_segment_detach(segment));
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
		_exit(reads_in_another_time(arg));
	NEED(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void clock_that_cannot_be_asked_for_is_no_guess(void **state)
{
	uint64_t *times = proc_shared_alloc(4096);

	(void)state;
	TEST_NEEDS(shmfs_lacks_time_namespaces());
	times[0] = coshm_segment_now_ns(stock.segment);
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(run_in_child(in_another_time, times), 0);
}

/* --- size of a file --------------------------------------------------------------------------------------------------- */

/* SIGXFSZ ends whoever does not expect it. */
static int small_files_only(void *arg)
{
	const rlim_t limits[] = {0, 63, 64, 4095, 4096, MIB - 1};
	const struct coshm_queue_config config = {.capacity = 1000};
	struct coshm_segment *segment = NULL;
	struct coshm_segment_info before, after;
	struct coshm_queue *queue = NULL;

	(void)arg;
	signal(SIGXFSZ, SIG_DFL);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		NEED(limit_set(RLIMIT_FSIZE, limits[i]) == 0);
		hear_start();
		GIVES(-EFBIG, coshm_segment_create(other_name, &plain, 0, &segment));
		NEED(strstr(hear_text(), "ulimit -f"));
		NEED(strstr(coshm_strerror(-EFBIG), "ulimit -f"));
		NEED(segment == NULL && access(other_path, F_OK) == -1);
	}
	NEED(limit_set(RLIMIT_FSIZE, MIB) == 0);
	GIVES(0, coshm_segment_create(other_name, &plain, 0, &segment));
	GIVES(0, coshm_segment_info(segment, &before));
	hear_start();
	GIVES(-EFBIG, coshm_queue_create(segment, "q", &config, 0, &queue));
	NEED(strstr(hear_text(), "ulimit -f"));
	GIVES(0, coshm_segment_info(segment, &after));
	NEED(queue == NULL && after.size_bytes == before.size_bytes && after.object_count == 0);
	NEED(stock_verify(segment, 0) == 0);
	/* Who writes to what is there writes no file. */
	NEED(limit_set(RLIMIT_FSIZE, 0) == 0);
	NEED(stock_use(&stock, 1) == 0);
	GIVES(-EFBIG, coshm_segment_unlink(other_name));
	NEED(access(other_path, F_OK) == 0);
	NEED(limit_set(RLIMIT_FSIZE, RLIM_INFINITY) == 0);
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(other_name));
	return stock_close(&stock);
}

static void limit_of_a_files_size_is_efbig_and_no_signal(void **state)
{
	(void)state;
	assert_int_equal(run_in_child(small_files_only, NULL), 0);
}

#define LIMIT_TEST(test) cmocka_unit_test_setup_teardown(test, stock_it, clean)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		LIMIT_TEST(clock_that_cannot_be_asked_for_is_no_guess),
		LIMIT_TEST(limit_of_a_files_size_is_efbig_and_no_signal),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
