/* SPDX-License-Identifier: MIT */
/* Members with another C library: no type of libc is in a segment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "starved/stock.h"
#include "support/shmfs.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#define VICTIMS 4

static char name[TEST_SEGMENT_NAME_SIZE], member[PATH_MAX];
static struct stock stock;

static char reads[] = "reads", works[] = "works", works_until_killed[] = "works-until-killed";

/* It lies beside this program. */
static const char *lacks_musl(void)
{
	ssize_t length = readlink("/proc/self/exe", member, sizeof(member) - 16);

	if (length < 0)
		return "/proc/self/exe";
	member[length] = '\0';
	strcpy(strrchr(member, '/') + 1, "musl_member");
	return access(member, X_OK) ? "musl-gcc, when configure ran (Debian: musl-tools)" : NULL;
}

static int is(void *role)
{
	execl(member, "musl_member", role, name, (char *)NULL);
	return 1;
}

static int uses(void *unused)
{
	(void)unused;
	for (int i = 0; i < 200; i++)
		NEED(stock_use(&stock, (unsigned int)getpid()) == 0);
	return stock_close(&stock);
}

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "musl");
	return stock_open(&stock, name, 0);
}

static int end(void **state)
{
	(void)state;
	if (stock_close(&stock))
		return 1;
	return coshm_segment_unlink(name);
}

static void member_with_musl_reads_what_glibc_wrote_and_the_other_way_round(void **state)
{
	struct coshm_limiter_result result;
	struct coshm_task task;
	char text[64];
	size_t size = sizeof(text);

	(void)state;
	TEST_NEEDS(lacks_musl());
	assert_int_equal(coshm_cache_set(stock.cache, "from", 4, "glibc", 5, 0), 0);
	assert_int_equal(coshm_limiter_try(stock.limiter, "spent", 5, 8, &result), 1);
	assert_int_equal(coshm_queue_enqueue(stock.queue, "glibc", 5, NULL, NULL), 0);
	assert_int_equal(run_in_child(is, reads), 0);
	assert_int_equal(coshm_cache_get(stock.cache, "from", 4, text, &size, NULL), 1);
	assert_int_equal(size, 4);
	assert_memory_equal(text, "musl", 4);
	assert_int_equal(coshm_queue_reserve(stock.queue, 0, &task), 1);
	assert_int_equal(task.payload_size_bytes, 4);
	assert_int_equal(coshm_queue_ack(stock.queue, &task), 0);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
}

static void members_with_musl_and_glibc_work_and_die_beside_each_other(void **state)
{
	struct coshm_queue_depth depth;
	struct proc *procs[4];

	(void)state;
	TEST_NEEDS(lacks_musl());
	for (int i = 0; i < VICTIMS; i++)
		assert_int_equal(coshm_queue_enqueue(stock.queue, "tttt", 4, NULL, NULL), 0);
	for (int i = 0; i < 4; i++)
		procs[i] = i % 2 ? proc_spawn(uses, NULL) : proc_spawn(is, works);
	for (int i = 0; i < VICTIMS; i++) {
		struct proc *victim = proc_spawn(is, works_until_killed);

		test_sleep_ns(20000000);
		assert_int_equal(proc_is_running(victim), 1);
		proc_kill(victim);
	}
	assert_int_equal(proc_collect_all(procs, 4, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(coshm_queue_depth(stock.queue, &depth), 0);
	assert_int_equal(depth.leased, 0);
	/* A victim's own task in flight comes on top, or one of these was acked in its place. */
	assert_in_range(depth.ready + depth.delayed, VICTIMS, 2 * VICTIMS);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
}

#define MUSL_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		MUSL_TEST(member_with_musl_reads_what_glibc_wrote_and_the_other_way_round),
		MUSL_TEST(members_with_musl_and_glibc_work_and_die_beside_each_other),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("musl", tests, NULL, NULL);
}
