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
#include <grp.h>
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
#define NOBODY 65534

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

/* --- descriptors -------------------------------------------------------------------------------------------------- */

static const struct coshm_segment_config plain = {.size_bytes = MIB, .size_max_bytes = 2 * MIB};

/* Each call that may need descriptors, with @count of them. 0 all went well, 90 some were refused; else a line */
static int each_call_with(void *arg)
{
	const int count = (int)(intptr_t)arg;
	const struct coshm_queue_config config = {.capacity = 1000};
	struct coshm_segment *segment = NULL, *other = NULL;
	struct coshm_queue *queue = NULL;
	int refused = 0, created, error;

	NEED(leave_descriptors(count) == 0);
	created = coshm_segment_create(other_name, &plain, 0, &segment);
	if (created) {
		GIVES(-EMFILE, created);
		NEED(segment == NULL && access(other_path, F_OK) == -1);
		refused = 1;
	}
	if (!created) {
		/* This grows it. */
		GIVES(0, coshm_queue_create(segment, "q", &config, 0, &queue));
		GIVES(0, coshm_segment_detach(segment));
		GIVES(0, coshm_segment_unlink(other_name));
	} else {
		error = coshm_segment_unlink(other_name);
		NEED(error == -EMFILE || error == -ENOENT);
	}
	error = coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &other);
	if (error) {
		GIVES(-EMFILE, error);
		NEED(other == NULL);
		refused = 1;
	} else {
		NEED(stock_verify(other, 0) == 0);
		GIVES(0, coshm_segment_detach(other));
	}
	return refused ? PROC_CODE_MAX : 0;
}

static void few_descriptors_are_emfile_that_changes_nothing(void **state)
{
	struct stock_picture before, after;
	int count = 0, result;

	(void)state;
	assert_int_equal(stock_picture(&stock, &before), 0);
	for (; count < 10; count++) {
		result = run_in_child(each_call_with, (void *)(intptr_t)count);
		if (result == 0)
			break;
		assert_int_equal(result, PROC_CODE_MAX);
	}
	/* Three are enough: the file, its init lock, the member's own. */
	assert_int_equal(count, 3);
	assert_int_equal(stock_picture(&stock, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
}

/* What a member does at work needs none. */
static int works_without_descriptors(void *arg)
{
	const struct coshm_queue_config config = {.capacity = 5000};
	struct coshm_segment_info info;
	struct coshm_queue *queue;

	(void)arg;
	NEED(stock_use(&stock, 1) == 0); /* a member of its own */
	NEED(leave_descriptors(0) == 0);
	NEED(stock_use(&stock, 1) == 0);
	GIVES(0, coshm_segment_info(stock.segment, &info));
	GIVES(0, coshm_segment_reap(stock.segment, NULL));
	NEED(stock_verify(stock.segment, 0) == 0);
	/* Growth, too. */
	GIVES(0, coshm_queue_create(stock.segment, "new", &config, 0, &queue));
	GIVES(0, coshm_queue_close(queue));
	GIVES(0, coshm_object_remove(stock.segment, "new"));
	return stock_close(&stock);
}

static void members_work_without_a_free_descriptor(void **state)
{
	(void)state;
	assert_int_equal(run_in_child(works_without_descriptors, NULL), 0);
}

/* A fork child that is no member yet needs one, and may call again when it has it. */
static int child_needs_one(void *arg)
{
	uint64_t count;

	(void)arg;
	NEED(leave_descriptors(0) == 0);
	GIVES(-EMFILE, coshm_cache_count(stock.cache, &count));
	GIVES(-EMFILE, coshm_segment_reap(stock.segment, NULL));
	NEED(limit_set(RLIMIT_NOFILE, 100) == 0);
	NEED(stock_use(&stock, 1) == 0);
	return stock_close(&stock);
}

static void fork_child_without_a_descriptor_is_emfile_until_it_has_one(void **state)
{
	(void)state;
	assert_int_equal(run_in_child(child_needs_one, NULL), 0);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
}

/* --- descriptors that the application has closed ------------------------------------------------------------------- */

struct shared {
	_Atomic int step;
};

static struct shared *shared;

static int wait_for(int step)
{
	const uint64_t start_ns = test_now_ns();

	while (atomic_load(&shared->step) < step) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return -1;
		test_sleep_ns(200000);
	}
	return 0;
}

/* A daemon that has closed all, and cannot open any more: what came later is out of its reach, not damaged. */
static int closed_all(void *arg)
{
	struct coshm_verify_result result;
	struct coshm_queue *queue = NULL;
	uint64_t value;

	(void)arg;
	NEED(stock_use(&stock, 1) == 0);
	NEED(close_range(3, ~0u, 0) == 0);
	atomic_store(&shared->step, 1);
	NEED(wait_for(2) == 0);
	NEED(leave_descriptors(0) == 0);
	/* It may look at what it knew. */
	NEED(stock_use(&stock, 1) == 0);
	GIVES(-EMFILE, coshm_queue_open(stock.segment, "late", &queue));
	NEED(queue == NULL);
	GIVES(-EMFILE, coshm_stats_value(stock.segment, "late", "ready", &value));
	GIVES(-EMFILE, coshm_inspect_verify(stock.segment, NULL, NULL, NULL, &result));
	GIVES(-EMFILE, coshm_object_remove(stock.segment, "late"));
	GIVES(0, coshm_segment_reap(stock.segment, NULL));
	atomic_store(&shared->step, 3);
	NEED(wait_for(4) == 0);
	NEED(limit_set(RLIMIT_NOFILE, 100) == 0);
	GIVES(0, coshm_queue_open(stock.segment, "late", &queue));
	NEED(stock_verify(stock.segment, 0) == 0);
	return stock_close(&stock);
}

static int takes_the_late_task_and_dies(void *arg)
{
	struct coshm_task task;

	NEED(coshm_queue_reserve(arg, 0, &task) == 1);
	kill(getpid(), SIGKILL);
	return 1;
}

static int is_dead(void *context, const struct coshm_member_info *info)
{
	(void)context;
	return info->state == COSHM_MEMBER_DEAD;
}

static void who_cannot_open_an_object_leaves_its_dead_to_others(void **state)
{
	const struct coshm_queue_config config = {.capacity = 5000};
	struct coshm_queue_depth depth;
	struct coshm_queue *late;
	struct proc *daemon;

	(void)state;
	shared = proc_shared_alloc(sizeof(*shared));
	daemon = proc_spawn(closed_all, NULL);
	assert_int_equal(wait_for(1), 0);
	assert_int_equal(coshm_queue_create(stock.segment, "late", &config, 0, &late), 0);
	assert_int_equal(coshm_queue_enqueue(late, "task", 4, NULL, NULL), 0);
	assert_int_equal(run_in_child(takes_the_late_task_and_dies, late), -SIGKILL);
	/* The death is recorded, nobody has cleaned up. */
	assert_int_equal(coshm_inspect_members(stock.segment, is_dead, NULL), 1);
	atomic_store(&shared->step, 2);
	assert_int_equal(wait_for(3), 0);
	/* The daemon has not said that all is done. */
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(coshm_queue_depth(late, &depth), 0);
	assert_int_equal(depth.leased, 0);
	assert_int_equal(depth.ready, 1);
	atomic_store(&shared->step, 4);
	assert_int_equal(proc_collect(daemon, PROC_DEADLINE_NS), 0);
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

/* --- address space -------------------------------------------------------------------------------------------------- */

static uint64_t address_space(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file && fscanf(file, "%llu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages * 4096;
}

static int rising_address_space(void *arg)
{
	struct coshm_segment *segment = NULL;
	int refused = 0, error = -ENOMEM;

	(void)arg;
	/* What the program itself takes for its first call should be there. */
	GIVES(0, coshm_segment_create(other_name, &plain, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(other_name));
	segment = NULL;
	for (uint64_t room = 0; error && room < 8 * MIB; room += 64 << 10) {
		NEED(limit_set(RLIMIT_AS, address_space() + room) == 0);
		hear_start();
		error = coshm_segment_create(other_name, &plain, 0, &segment);
		NEED(limit_set(RLIMIT_AS, RLIM_INFINITY) == 0);
		if (error) {
			GIVES(-ENOMEM, error);
			refused++;
			NEED(segment == NULL && access(other_path, F_OK) == -1);
			NEED(stock_mappings(other_name) == 0);
		}
	}
	NEED(error == 0 && refused > 20);
	GIVES(0, coshm_segment_detach(segment));
	segment = NULL;
	error = -ENOMEM;
	for (uint64_t room = 0; error && room < 8 * MIB; room += 64 << 10) {
		NEED(limit_set(RLIMIT_AS, address_space() + room) == 0);
		error = coshm_segment_attach(other_name, 0, &segment);
		NEED(limit_set(RLIMIT_AS, RLIM_INFINITY) == 0);
		if (error)
			GIVES(-ENOMEM, error);
	}
	NEED(stock_verify(segment, 0) == 0);
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(other_name));
	return 0;
}

static const char *lacks_limits_of_address_space(void)
{
#if defined(__SANITIZE_ADDRESS__)
	return "a build without AddressSanitizer, which takes all of the address space";
#else
	return NULL;
#endif
}

static void small_address_space_is_enomem_that_leaves_nothing(void **state)
{
	(void)state;
	TEST_NEEDS(lacks_limits_of_address_space());
	assert_int_equal(run_in_child(rising_address_space, NULL), 0);
}

/* --- locked memory --------------------------------------------------------------------------------------------------- */

/* mlockall makes each new mapping count against RLIMIT_MEMLOCK, the segment's as well. */
static int all_memory_is_locked(void *arg)
{
	struct coshm_segment *segment = NULL;

	(void)arg;
	if (geteuid() == 0)
		NEED(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		     setresuid(NOBODY, NOBODY, NOBODY) == 0);
	NEED(limit_set(RLIMIT_MEMLOCK, 65536) == 0);
	NEED(mlockall(MCL_FUTURE) == 0);
	hear_start();
	GIVES(-ENOMEM, coshm_segment_create(other_name, &plain, 0, &segment));
	NEED(strstr(hear_text(), "-l"));
	NEED(segment == NULL && access(other_path, F_OK) == -1);
	NEED(munlockall() == 0);
	GIVES(0, coshm_segment_create(other_name, &plain, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(other_name));
	return 0;
}

static void limit_of_locked_memory_is_enomem_that_names_it(void **state)
{
	(void)state;
	TEST_NEEDS(lacks_limits_of_address_space());
	assert_int_equal(run_in_child(all_memory_is_locked, NULL), 0);
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
		LIMIT_TEST(few_descriptors_are_emfile_that_changes_nothing),
		LIMIT_TEST(members_work_without_a_free_descriptor),
		LIMIT_TEST(fork_child_without_a_descriptor_is_emfile_until_it_has_one),
		LIMIT_TEST(who_cannot_open_an_object_leaves_its_dead_to_others),
		LIMIT_TEST(clock_that_cannot_be_asked_for_is_no_guess),
		LIMIT_TEST(small_address_space_is_enomem_that_leaves_nothing),
		LIMIT_TEST(limit_of_locked_memory_is_enomem_that_names_it),
		LIMIT_TEST(limit_of_a_files_size_is_efbig_and_no_signal),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
