/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "support/procs.h"
#include "support/shmfs.h"

#define SHORT_NS UINT64_C(50000000)

struct shared {
	struct proc_barrier *barrier;
	_Atomic unsigned int before;
	_Atomic unsigned int seen_by_first;
	_Atomic unsigned int ticks;
};

static int give_code(void *arg)
{
	return *(int *)arg;
}

static void exit_code_comes_back(void **state)
{
	int codes[] = {0, 7, PROC_CODE_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		assert_int_equal(proc_collect(proc_spawn(give_code, &codes[i]), PROC_DEADLINE_NS),
				 codes[i]);
}

static void value_that_is_no_exit_code_is_misuse(void **state)
{
	int codes[] = {-1, PROC_CODE_MAX + 1, 256};

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		assert_int_equal(proc_collect(proc_spawn(give_code, &codes[i]), PROC_DEADLINE_NS),
				 PROC_MISUSED);
}

static int call_assert(void *arg)
{
	(void)arg;
	assert_int_equal(1, 2);
	return 0;
}

static int call_skip(void *arg)
{
	(void)arg;
	skip();
	return 0;
}

static int call_exit(void *arg)
{
	(void)arg;
	exit(0);
}

static void assertion_skip_or_exit_in_a_child_is_never_a_success(void **state)
{
	(void)state;
	assert_int_equal(proc_collect(proc_spawn(call_assert, NULL), PROC_DEADLINE_NS), -SIGABRT);
	assert_int_equal(proc_collect(proc_spawn(call_skip, NULL), PROC_DEADLINE_NS), -SIGABRT);
	assert_int_equal(proc_collect(proc_spawn(call_exit, NULL), PROC_DEADLINE_NS), PROC_MISUSED);
}

/* If this line got through, the driver would report one result too many. */
static int print_tap(void *arg)
{
	(void)arg;
	printf("ok 1 - printed by a child\n");
	fflush(stdout);
	return 0;
}

static void output_of_a_child_stays_out_of_the_tap_stream(void **state)
{
	(void)state;
	assert_int_equal(proc_collect(proc_spawn(print_tap, NULL), PROC_DEADLINE_NS), 0);
}

static int sleep_long(void *arg)
{
	(void)arg;
	test_sleep_ns(2 * PROC_DEADLINE_NS);
	return 0;
}

static void hung_child_is_killed_and_reported(void **state)
{
	struct proc *proc = proc_spawn(sleep_long, NULL);
	const pid_t pid = proc_pid(proc);

	(void)state;
	assert_int_equal(proc_collect(proc, SHORT_NS), PROC_HUNG);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

static int kill_self(void *arg)
{
	(void)arg;
	return raise(SIGKILL);
}

static int crash(void *arg)
{
	(void)arg;
	return raise(SIGSEGV);
}

static void death_by_signal_is_told_from_an_exit_code(void **state)
{
	(void)state;
	assert_int_equal(proc_collect(proc_spawn(crash, NULL), PROC_DEADLINE_NS), -SIGSEGV);
	assert_int_equal(proc_collect(proc_spawn(kill_self, NULL), PROC_DEADLINE_NS), -SIGKILL);
}

static int meet(void *arg)
{
	struct shared *shared = arg;

	atomic_fetch_add(&shared->before, 1);
	if (proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS))
		return 1;
	if (atomic_load(&shared->before) != 4)
		return 2;
	/* Once more: a barrier can be used again at once. */
	return proc_barrier_wait(shared->barrier, PROC_DEADLINE_NS) ? 3 : 0;
}

static void nobody_passes_a_barrier_before_all_have_come(void **state)
{
	struct shared *shared = proc_shared_alloc(sizeof(*shared));
	struct proc *children[4];

	(void)state;
	shared->barrier = proc_barrier_new(4);
	for (size_t i = 0; i < 4; i++)
		children[i] = proc_spawn(meet, shared);
	assert_int_equal(proc_collect_all(children, 4, PROC_DEADLINE_NS, NULL), 0);
}

static void barrier_gives_up_when_one_does_not_come(void **state)
{
	(void)state;
	assert_int_equal(proc_barrier_wait(proc_barrier_new(2), SHORT_NS), -ETIMEDOUT);
}

static void collect_all_counts_and_names_each_failure(void **state)
{
	int codes[] = {0, 3, 0};
	int results[3];
	struct proc *children[3];

	(void)state;
	for (size_t i = 0; i < 3; i++)
		children[i] = proc_spawn(give_code, &codes[i]);
	assert_int_equal(proc_collect_all(children, 3, PROC_DEADLINE_NS, results), 1);
	assert_memory_equal(results, codes, sizeof(codes));
}

static int tick(void *arg)
{
	struct shared *shared = arg;

	for (;;)
		atomic_fetch_add(&shared->ticks, 1);
	return 0;
}

static void wait_for_tick_after(struct shared *shared, unsigned int ticks)
{
	const uint64_t start_ns = test_now_ns();

	while (atomic_load(&shared->ticks) == ticks && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	assert_int_not_equal(atomic_load(&shared->ticks), ticks);
}

static void paused_child_does_nothing_until_resumed(void **state)
{
	struct shared *shared = proc_shared_alloc(sizeof(*shared));
	struct proc *proc = proc_spawn(tick, shared);
	unsigned int ticks;

	(void)state;
	for (int round = 0; round < 3; round++) {
		wait_for_tick_after(shared, atomic_load(&shared->ticks));
		assert_int_equal(proc_pause(proc), 0);
		ticks = atomic_load(&shared->ticks);
		test_sleep_ns(SHORT_NS);
		assert_int_equal(atomic_load(&shared->ticks), ticks);
		assert_int_equal(proc_is_running(proc), 1);
		proc_resume(proc);
		wait_for_tick_after(shared, ticks);
	}
	proc_kill(proc);
}

static int stop_self(void *arg)
{
	(void)arg;
	raise(SIGSTOP);
	return 5;
}

static void child_that_stops_itself_is_seen_and_goes_on(void **state)
{
	struct proc *proc = proc_spawn(stop_self, NULL);

	(void)state;
	assert_int_equal(proc_wait_stopped(proc, PROC_DEADLINE_NS), 1);
	proc_resume(proc);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 5);
}

static void waiting_for_a_stop_ends_when_the_child_ends(void **state)
{
	int code = 4;
	struct proc *proc = proc_spawn(give_code, &code);

	(void)state;
	assert_int_equal(proc_wait_stopped(proc, PROC_DEADLINE_NS), 0);
	assert_int_equal(proc_is_running(proc), 0);
	assert_int_equal(proc_pause(proc), -ESRCH);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 4);
}

static int shm_exists(const char *name)
{
	const int fd = shm_open(name, O_RDONLY, 0);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int shm_touch(const char *name)
{
	const int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);

	if (fd >= 0)
		close(fd);
	return fd < 0;
}

/* Stands for a whole test program: it makes a name, has a child, and ends by exit(). */
static int be_a_test_program(void)
{
	char name[TEST_SEGMENT_NAME_SIZE];
	int zero = 0;

	test_segment_name(name, "inner");
	if (shm_touch(name) || proc_collect(proc_spawn(give_code, &zero), PROC_DEADLINE_NS))
		return 1;
	/* The child's end has removed nothing. */
	return shm_exists(name) ? 0 : 2;
}

/* Not by /proc/self/exe, which is valgrind under valgrind. */
static const char *program;

static int run_test_program(void *arg)
{
	(void)arg;
	execl(program, "procs_test", "--inner", (char *)NULL);
	return 10;
}

static void segments_are_removed_when_the_parent_ends_and_not_before(void **state)
{
	struct proc *proc = proc_spawn(run_test_program, NULL);
	const pid_t pid = proc_pid(proc);
	char name[TEST_SEGMENT_NAME_SIZE];

	(void)state;
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	snprintf(name, sizeof(name), "coshm-test-inner-%d-000", (int)pid);
	assert_int_equal(shm_exists(name), 0);
}

static void segment_names_differ(void **state)
{
	char a[TEST_SEGMENT_NAME_SIZE], b[TEST_SEGMENT_NAME_SIZE];

	(void)state;
	test_segment_name(a, "same-tag");
	test_segment_name(b, "same-tag");
	assert_string_not_equal(a, b);
}

static void what_is_missing_has_a_reason(void **state)
{
	(void)state;
	assert_null(shmfs_lacks_space(0));
	assert_non_null(strstr(shmfs_lacks_space(UINT64_MAX >> 1), "MiB"));
	if (geteuid() == 0)
		assert_null(shmfs_lacks_root());
	else
		assert_non_null(shmfs_lacks_root());
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exit_code_comes_back),
		cmocka_unit_test(value_that_is_no_exit_code_is_misuse),
		cmocka_unit_test(assertion_skip_or_exit_in_a_child_is_never_a_success),
		cmocka_unit_test(output_of_a_child_stays_out_of_the_tap_stream),
		cmocka_unit_test(hung_child_is_killed_and_reported),
		cmocka_unit_test(death_by_signal_is_told_from_an_exit_code),
		cmocka_unit_test(nobody_passes_a_barrier_before_all_have_come),
		cmocka_unit_test(barrier_gives_up_when_one_does_not_come),
		cmocka_unit_test(collect_all_counts_and_names_each_failure),
		cmocka_unit_test(paused_child_does_nothing_until_resumed),
		cmocka_unit_test(child_that_stops_itself_is_seen_and_goes_on),
		cmocka_unit_test(waiting_for_a_stop_ends_when_the_child_ends),
		cmocka_unit_test(segments_are_removed_when_the_parent_ends_and_not_before),
		cmocka_unit_test(segment_names_differ),
		cmocka_unit_test(what_is_missing_has_a_reason),
	};

	if (argc == 2 && strcmp(argv[1], "--inner") == 0)
		return be_a_test_program();
	program = argv[0];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
