/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "examples/demo/common/clock.h"
#include "examples/demo/common/ledger.h"
#include "examples/demo/common/serverfile.h"
#include "support/procs.h"

static char run_dir[512];

static int make_run_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(run_dir, sizeof(run_dir), "%.400s/coshm-ledger-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(run_dir) ? 0 : -1;
}

static int remove_run_dir(void **state)
{
	char command[600];

	(void)state;
	snprintf(command, sizeof(command), "rm -r '%s'", run_dir);
	return system(command);
}

struct seen {
	uint64_t count;
	uint64_t subject_sum;
	uint64_t last_subject;
};

static void see(void *user, const struct demo_event *event)
{
	struct seen *seen = user;

	seen->count++;
	seen->subject_sum += event->subject;
	seen->last_subject = event->subject;
}

static void events_of_all_writers_are_read_once(void **state)
{
	struct demo_ledger_reader reader;
	struct demo_ledger a, b;
	struct seen seen = {0};

	(void)state;
	assert_int_equal(demo_ledger_open(&a, run_dir, 1), 0);
	assert_int_equal(demo_ledger_reader_open(&reader, run_dir), 0);
	assert_int_equal(demo_ledger_append(&a, DEMO_EVENT_TASK_DONE, 5, NULL), 0);
	assert_int_equal(demo_ledger_read(&reader, see, &seen), 0);
	assert_int_equal(seen.count, 1);

	assert_int_equal(demo_ledger_open(&b, run_dir, 2), 0);
	assert_int_equal(demo_ledger_append(&b, DEMO_EVENT_TASK_DONE, 6, NULL), 0);
	assert_int_equal(demo_ledger_append(&a, DEMO_EVENT_TASK_DONE, 7, NULL), 0);
	assert_int_equal(demo_ledger_read(&reader, see, &seen), 0);
	assert_int_equal(demo_ledger_read(&reader, see, &seen), 0);
	assert_int_equal(seen.count, 3);
	assert_int_equal(seen.subject_sum, 18);
	demo_ledger_reader_close(&reader);
	demo_ledger_close(&a);
	demo_ledger_close(&b);
}

static void one_worker_has_one_ledger(void **state)
{
	struct demo_ledger a, b;

	(void)state;
	assert_int_equal(demo_ledger_open(&a, run_dir, 1), 0);
	assert_int_equal(demo_ledger_open(&b, run_dir, 1), -EEXIST);
	demo_ledger_close(&a);
}

static int write_for_ever(void *arg)
{
	struct demo_ledger ledger;

	(void)arg;
	if (demo_ledger_open(&ledger, run_dir, 9) != 0)
		return 1;
	for (uint64_t i = 0;; i++)
		if (demo_ledger_append(&ledger, DEMO_EVENT_TASK_DONE, i, NULL) != 0)
			return 2;
}

static void a_kill_leaves_whole_events(void **state)
{
	struct demo_ledger_reader reader;
	struct seen seen = {0};
	struct proc *proc = proc_spawn(write_for_ever, NULL);
	uint64_t until_ns = demo_now_ns() + PROC_DEADLINE_NS;

	(void)state;
	assert_int_equal(demo_ledger_reader_open(&reader, run_dir), 0);
	while (seen.count < 20000 && demo_now_ns() < until_ns)
		assert_int_equal(demo_ledger_read(&reader, see, &seen), 0);
	kill(proc_pid(proc), SIGKILL);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), -SIGKILL);
	assert_int_equal(demo_ledger_read(&reader, see, &seen), 0);
	assert_int_equal(seen.last_subject, seen.count - 1);
	demo_ledger_reader_close(&reader);
}

static void a_torn_event_is_an_error(void **state)
{
	struct demo_ledger_reader reader;
	struct demo_ledger a;
	struct seen seen = {0};

	(void)state;
	assert_int_equal(demo_ledger_open(&a, run_dir, 1), 0);
	assert_int_equal(demo_ledger_append(&a, DEMO_EVENT_TASK_DONE, 5, NULL), 0);
	assert_int_equal(write(a.fd, "torn", 4), 4);
	demo_ledger_close(&a);
	assert_int_equal(demo_ledger_reader_open(&reader, run_dir), 0);
	assert_int_equal(demo_ledger_read(&reader, see, &seen), -EBADMSG);
	demo_ledger_reader_close(&reader);
}

static void the_server_file_is_read_back(void **state)
{
	struct demo_server out = {
		.pid = 7,
		.port = 65535,
		.web_workers = 4,
		.rate_per_s = 20,
		.burst = 40,
		.kill_every_ms = 200,
		.segment = "demo-7",
		.log_path = "/a path/with spaces.log",
	};
	struct demo_server in = {0};

	(void)state;
	assert_int_equal(demo_server_read(&in, run_dir), -ENOENT);
	assert_int_equal(demo_server_write(&out, run_dir), 0);
	assert_int_equal(demo_server_read(&in, run_dir), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	out.log_path[0] = '\0';
	assert_int_equal(demo_server_write(&out, run_dir), 0);
	assert_int_equal(demo_server_read(&in, run_dir), 0);
	assert_string_equal(in.log_path, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_run_dir, remove_run_dir)
	const struct CMUnitTest tests[] = {
		TEST(events_of_all_writers_are_read_once), TEST(one_worker_has_one_ledger),
		TEST(a_kill_leaves_whole_events),	   TEST(a_torn_event_is_an_error),
		TEST(the_server_file_is_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
