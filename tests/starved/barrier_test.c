/* SPDX-License-Identifier: MIT */
/*
 * Where membarrier(2) is missing or forbidden: creating and joining without fences is refused by name, all objects work with
 * them, beside members that have it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "starved/stock.h"
#include "support/shmfs.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROLE  "--without-membarrier"
#define LIVES 12

static char name[TEST_SEGMENT_NAME_SIZE], light[TEST_SEGMENT_NAME_SIZE + 8];

static int forbid_membarrier(int error)
{
	struct sock_filter steps[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = steps};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* A machine without it has it for no program from its start: liburcu relies on its first answer. */
struct start {
	int error; /* 0: membarrier works */
	const char *what;
};

static int starts(void *arg)
{
	const struct start *start = arg;

	if (start->error)
		NEED(forbid_membarrier(start->error) == 0);
	execl("/proc/self/exe", "barrier_test", ROLE, start->what, name, (char *)NULL);
	return 1;
}

/* --- what a program that was started so does ------------------------------------------------------------------------ */

static int is_refused(void)
{
	struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;
	struct coshm_segment_info info;
	char fresh[sizeof(name) + 8], path[sizeof(fresh) + 16];

	snprintf(fresh, sizeof(fresh), "%s-fresh", name);
	snprintf(path, sizeof(path), "/dev/shm/%s", fresh);
	hear_start();
	GIVES(-ENOTSUP, coshm_segment_attach(light, 0, &segment));
	NEED(strstr(hear_text(), light) && strstr(hear_text(), "COSHM_SEGMENT_FENCED"));
	NEED(strstr(coshm_strerror(-ENOTSUP), "COSHM_SEGMENT_FENCED"));
	hear_start();
	GIVES(-ENOTSUP, coshm_segment_create(fresh, &config, 0, &segment));
	NEED(strstr(hear_text(), "COSHM_SEGMENT_FENCED"));
	GIVES(-ENOTSUP, coshm_segment_create(light, &config, COSHM_CREATE_OR_OPEN, &segment));
	NEED(segment == NULL && access(path, F_OK) == -1);
	/* To look at it takes nothing. */
	GIVES(0, coshm_segment_attach(light, COSHM_ATTACH_READ_ONLY, &segment));
	GIVES(0, coshm_segment_info(segment, &info));
	NEED(info.member_count == 1 && !(info.flags & COSHM_SEGMENT_FENCED));
	NEED(stock_verify(segment, 0) == 0);
	GIVES(0, coshm_segment_detach(segment));
	config.flags = COSHM_SEGMENT_FENCED;
	GIVES(0, coshm_segment_create(fresh, &config, 0, &segment));
	GIVES(0, coshm_segment_info(segment, &info));
	NEED(info.flags & COSHM_SEGMENT_FENCED);
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(fresh));
	return 0;
}

static int works(void)
{
	struct stock stock;

	NEED(stock_open(&stock, name, COSHM_SEGMENT_FENCED) == 0);
	for (int i = 0; i < 200; i++)
		NEED(stock_use(&stock, (unsigned int)getpid()) == 0);
	return stock_close(&stock);
}

static int works_until_killed(void)
{
	struct stock stock;

	NEED(stock_open(&stock, name, COSHM_SEGMENT_FENCED) == 0);
	for (;;)
		NEED(stock_use(&stock, (unsigned int)getpid()) == 0);
}

static int uses_in_a_child(void *arg)
{
	struct stock *stock = arg;

	for (int i = 0; i < 100; i++)
		NEED(stock_use(stock, (unsigned int)getpid()) == 0);
	return stock_close(stock);
}

static int forks_too(void)
{
	struct stock stock;
	struct proc *children[2];

	NEED(stock_open(&stock, name, COSHM_SEGMENT_FENCED) == 0);
	for (int i = 0; i < 2; i++)
		children[i] = proc_spawn(uses_in_a_child, &stock);
	NEED(proc_collect_all(children, 2, PROC_DEADLINE_NS, NULL) == 0);
	NEED(stock_verify(stock.segment, 1) == 0);
	return stock_close(&stock);
}

/* --- tests ------------------------------------------------------------------------------------------------------------ */

static const char *lacks_segments_without_fences(void)
{
	struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment_info info = {0};
	struct coshm_segment *segment;
	const char *lacks = shmfs_lacks_membarrier();

	if (lacks)
		return lacks;
	if (coshm_segment_create(light, &config, 0, &segment) == 0) {
		(void)!coshm_segment_info(segment, &info);
		coshm_segment_detach(segment);
		(void)!coshm_segment_unlink(light);
	}
	return info.flags & COSHM_SEGMENT_FENCED ? "segments without fences: here all have them"
						 : NULL;
}

static int fresh_names(void **state)
{
	(void)state;
	test_segment_name(name, "barrier");
	snprintf(light, sizeof(light), "%s-light", name);
	return 0;
}

static void refusal_names_the_flag_whatever_the_kernel_says(void **state)
{
	struct start starts_with[] = {{ENOSYS, "is-refused"}, {EPERM, "is-refused"}};
	struct stock stock;

	(void)state;
	TEST_NEEDS(lacks_segments_without_fences());
	assert_int_equal(stock_open(&stock, light, 0), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(run_in_child(starts, &starts_with[i]), 0);
	/* Nobody was disturbed. */
	assert_int_equal(stock_use(&stock, 1), 0);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(coshm_segment_unlink(light), 0);
}

static void all_objects_work_with_fences_and_beside_those_who_have_it(void **state)
{
	struct start with[] = {{ENOSYS, "works"}, {0, "works"}, {EPERM, "forks-too"}};
	struct start victim = {ENOSYS, "works-until-killed"};
	struct proc *children[3];
	struct stock stock;

	(void)state;
	assert_int_equal(stock_open(&stock, name, COSHM_SEGMENT_FENCED), 0);
	for (int i = 0; i < 3; i++)
		children[i] = proc_spawn(starts, &with[i]);
	for (int i = 0; i < LIVES; i++) {
		struct proc *child = proc_spawn(starts, &victim);

		test_sleep_ns(10000000);
		assert_int_equal(proc_is_running(child), 1);
		proc_kill(child);
	}
	assert_int_equal(proc_collect_all(children, 3, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

/* Forbids it to itself while it is at work. Ends without detaching: liburcu, too, asks for it then. */
static int fills_the_cache(void *arg)
{
	static char value[1000];
	struct stock *stock = arg;
	int error = 0;

	NEED(coshm_cache_set(stock->cache, "there", 5, "before", 6, 0) == 0);
	NEED(forbid_membarrier(EPERM) == 0);
	for (int i = 0; i < 100000 && !error; i++)
		error = coshm_cache_set(stock->cache, &i, sizeof(i), value, sizeof(value), 0);
	/* No page is used again that a reader may still be in. */
	NEED(error == -EAGAIN);
	NEED(coshm_cache_exists(stock->cache, "there", 5) >= 0);
	_exit(0);
}

static void member_that_loses_it_at_work_frees_no_page(void **state)
{
	static char value[1000];
	struct stock stock;

	(void)state;
	TEST_NEEDS(lacks_segments_without_fences());
	assert_int_equal(stock_open(&stock, light, 0), 0);
	assert_int_equal(run_in_child(fills_the_cache, &stock), 0);
	/* The others still can. */
	for (int i = 0; i < 5000; i++)
		assert_int_equal(
			coshm_cache_set(stock.cache, &i, sizeof(i), value, sizeof(value), 0), 0);
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(coshm_segment_unlink(light), 0);
}

#define BARRIER_TEST(test) cmocka_unit_test_setup(test, fresh_names)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		BARRIER_TEST(refusal_names_the_flag_whatever_the_kernel_says),
		BARRIER_TEST(member_that_loses_it_at_work_frees_no_page),
		BARRIER_TEST(all_objects_work_with_fences_and_beside_those_who_have_it),
	};

	if (argc == 4 && !strcmp(argv[1], ROLE)) {
		snprintf(name, sizeof(name), "%s", argv[3]);
		snprintf(light, sizeof(light), "%s-light", name);
		return !strcmp(argv[2], "is-refused")		? is_refused()
		       : !strcmp(argv[2], "works")		? works()
		       : !strcmp(argv[2], "works-until-killed") ? works_until_killed()
		       : !strcmp(argv[2], "forks-too")		? forks_too()
								: 1;
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("barrier", tests, NULL, NULL);
}
