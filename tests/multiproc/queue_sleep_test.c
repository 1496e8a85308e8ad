/* SPDX-License-Identifier: MIT */
/* Waiting: sleepers cost nothing, producers make no system call for nobody, and whoever sleeps is woken. P3, P5 */
#include "../unit/queue_fixture.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const struct coshm_queue_config config = {
	.capacity = 64, .backoff_kind = COSHM_BACKOFF_FIXED, .backoff_base_ns = 1000 * 1000};

struct shared {
	struct coshm__a32 ready;
	struct coshm__a64 cpu_us, slept_us;
};

struct job {
	struct fixture f;
	struct shared *shared;
};

static void open_job(struct job *job)
{
	fixture_open(&job->f, &config);
	job->shared = proc_shared_alloc(sizeof(*job->shared));
}

static uint64_t cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* In a child: it is a member of its own from here on. */
static int become_member(struct job *job)
{
	struct coshm_queue_depth depth;
	int error = coshm_queue_depth(job->f.queue, &depth);

	coshm__a32_fetch_add_acq_rel(&job->shared->ready, 1);
	return error;
}

static void wait_for_members(struct job *job, uint32_t count)
{
	for (int tries = 0; coshm__a32_load_acquire(&job->shared->ready) < count; tries++) {
		assert_in_range(tries, 0, 60000);
		test_sleep_ns(1 * MS);
	}
}

/* Until consumers have gone to sleep so often, ticks included. */
static void wait_for_sleeps(struct fixture *f, uint64_t count)
{
	for (int tries = 0; stat_of(f, "sleeps") < count; tries++) {
		assert_in_range(tries, 0, 60000);
		test_sleep_ns(1 * MS);
	}
	test_sleep_ns(5 * MS); /* counted just before it sleeps */
}

static int take_one(void *arg)
{
	const uint64_t start_ns = test_now_ns();
	struct job *job = arg;
	struct coshm_task task;

	if (become_member(job) || coshm_queue_reserve(job->f.queue, COSHM_FOREVER, &task) != 1)
		return 1;
	coshm__a64_store_seq_cst(&job->shared->cpu_us, cpu_us());
	coshm__a64_store_seq_cst(&job->shared->slept_us, (test_now_ns() - start_ns) / 1000);
	return coshm_queue_ack(job->f.queue, &task) ? 2 : 0;
}

static void sleeping_consumers_use_next_to_no_cpu(void **state)
{
	struct job jobs[3];
	struct proc *procs[3];

	(void)state;
	open_job(&jobs[0]);
	for (int i = 0; i < 3; i++) {
		jobs[i].f = jobs[0].f;
		jobs[i].shared = proc_shared_alloc(sizeof(struct shared));
		procs[i] = proc_spawn(take_one, &jobs[i]);
	}
	for (int i = 0; i < 3; i++)
		wait_for_members(&jobs[i], 1);
	wait_for_sleeps(&jobs[0].f, 3);
	test_sleep_ns(600 * MS);
	for (int i = 0; i < 3; i++)
		put(&jobs[0].f, "x");
	assert_int_equal(proc_collect_all(procs, 3, PROC_DEADLINE_NS, NULL), 0);
	/* A tick is some 20 us of work in 50 ms; to spin would be 600 ms, or more on a busy machine. */
	for (int i = 0; i < 3; i++)
		assert_in_range(coshm__a64_load_seq_cst(&jobs[i].shared->cpu_us), 0,
				100 * 1000 +
					coshm__a64_load_seq_cst(&jobs[i].shared->slept_us) / 50);
	fixture_close(&jobs[0].f);
}

/* Woken by the enqueue, not by their ticks: each of the three is called exactly once. */
static void each_enqueue_wakes_one_sleeper_and_none_when_nobody_sleeps(void **state)
{
	struct job job;
	struct proc *procs[3];
	struct coshm_task task;
	uint64_t before;

	(void)state;
	open_job(&job);
	for (int i = 0; i < 3; i++)
		procs[i] = proc_spawn(take_one, &job);
	wait_for_members(&job, 3);
	wait_for_sleeps(&job.f, 3);
	assert_int_equal(stat_of(&job.f, "wakeups"), 0);
	for (int i = 0; i < 3; i++)
		put(&job.f, "x");
	assert_int_equal(proc_collect_all(procs, 3, PROC_DEADLINE_NS, NULL), 0);
	assert_in_range(stat_of(&job.f, "wakeups"), 1, 6);

	put(&job.f, "x"); /* finds that nobody sleeps any more */
	assert_string_equal(get(&job.f, &task), "x");
	assert_int_equal(coshm_queue_ack(job.f.queue, &task), 0);
	before = stat_of(&job.f, "wakeups");
	for (int i = 0; i < 1000; i++) {
		put(&job.f, "x");
		assert_string_equal(get(&job.f, &task), "x");
		assert_int_equal(coshm_queue_ack(job.f.queue, &task), 0);
	}
	assert_int_equal(stat_of(&job.f, "wakeups"), before);
	fixture_close(&job.f);
}

/*
 * From here on any system call is the process's end, but for exit; the clock, which is none where the machine has a
 * usable one; and fstat and fcntl, by which one of all members looks for dead ones every 5 ms.
 */
static int forbid_system_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fstat, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int only_forbid(void *arg)
{
	(void)arg;
	if (forbid_system_calls())
		return 1;
	_exit(0);
}

static int work_without_system_calls(void *arg)
{
	struct job *job = arg;
	struct coshm_task task;
	int code = 0;

	/* This process becomes a member first. */
	if (coshm_queue_enqueue(job->f.queue, "x", 1, NULL, NULL) ||
	    coshm_queue_reserve(job->f.queue, 0, &task) != 1 ||
	    coshm_queue_ack(job->f.queue, &task))
		return 1;
	if (forbid_system_calls())
		return 2;
	for (int i = 0; i < 10000 && !code; i++) {
		if (coshm_queue_enqueue(job->f.queue, "payload", 7, NULL, NULL) ||
		    coshm_queue_reserve(job->f.queue, 0, &task) != 1)
			code = 3;
		else if (i % 3 == 0)
			code = coshm_queue_nack(job->f.queue, &task, "again", 0) ||
			       coshm_queue_reserve(job->f.queue, 0, &task) != 1;
		if (!code && coshm_queue_ack(job->f.queue, &task))
			code = 4;
	}
	_exit(code);
}

static void no_operation_makes_a_system_call_while_nobody_sleeps(void **state)
{
	struct job job;

	(void)state;
	if (proc_collect(proc_spawn(only_forbid, NULL), PROC_DEADLINE_NS) != 0) {
		print_message("# skip: no seccomp filters here\n");
		skip();
	}
	open_job(&job);
	assert_int_equal(
		proc_collect(proc_spawn(work_without_system_calls, &job), PROC_DEADLINE_NS), 0);
	fixture_close(&job.f);
}

static int die_with_a_lease(void *arg)
{
	struct job *job = arg;
	struct coshm_task task;

	if (coshm_queue_reserve(job->f.queue, COSHM_FOREVER, &task) != 1)
		return 1;
	raise(SIGKILL);
	return 2;
}

/* Nobody works, nobody calls reap: a sleeper finds the death by itself and gets the task. */
static void sleeper_gets_the_task_of_a_worker_that_died_while_all_slept(void **state)
{
	struct job job;
	struct proc *victim, *sleeper;

	(void)state;
	open_job(&job);
	put(&job.f, "x");
	victim = proc_spawn(die_with_a_lease, &job);
	assert_int_equal(proc_collect(victim, PROC_DEADLINE_NS), -SIGKILL);
	sleeper = proc_spawn(take_one, &job);
	assert_int_equal(proc_collect(sleeper, PROC_DEADLINE_NS), 0);
	assert_int_equal(stat_of(&job.f, "crashed"), 1);
	assert_int_equal(stat_of(&job.f, "acked"), 1);
	fixture_close(&job.f);
}

static int take_a_late_one(void *arg)
{
	struct job *job = arg;
	struct coshm_task task;

	if (coshm_queue_reserve(job->f.queue, COSHM_FOREVER, &task) != 1)
		return 1;
	return coshm_queue_ack(job->f.queue, &task) ? 2 : 0;
}

static void sleeper_wakes_up_for_a_task_whose_delay_began_after_it_fell_asleep(void **state)
{
	struct coshm_enqueue_options soon = {.delay_ns = 3 * MS};
	struct job job;
	struct proc *proc;

	(void)state;
	open_job(&job);
	proc = proc_spawn(take_a_late_one, &job);
	wait_for_sleeps(&job.f, 1);
	assert_int_equal(coshm_queue_enqueue(job.f.queue, "x", 1, &soon, NULL), 0);
	assert_int_equal(proc_collect(proc, PROC_DEADLINE_NS), 0);
	assert_int_equal(stat_of(&job.f, "wakeups"), 1);
	fixture_close(&job.f);
}

static void on_alarm(int signal)
{
	(void)signal;
}

static int wait_interrupted(void *arg)
{
	struct job *job = arg;
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	/* again and again: one may come between two sleeps */
	struct itimerval soon = {.it_value = {.tv_usec = 120 * 1000},
				 .it_interval = {.tv_usec = 10 * 1000}};
	struct coshm_task task;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	return coshm_queue_reserve(job->f.queue, COSHM_FOREVER, &task) == -EINTR ? 0 : 1;
}

static void signal_ends_a_wait_with_eintr(void **state)
{
	struct job job;

	(void)state;
	open_job(&job);
	assert_int_equal(proc_collect(proc_spawn(wait_interrupted, &job), PROC_DEADLINE_NS), 0);
	fixture_close(&job.f);
}

static void wait_ends_after_its_timeout_with_0(void **state)
{
	struct job job;
	struct coshm_task task;
	uint64_t begin_ns;

	(void)state;
	open_job(&job);
	begin_ns = test_now_ns();
	assert_int_equal(coshm_queue_reserve(job.f.queue, 130 * MS, &task), 0);
	assert_true(test_now_ns() - begin_ns >= 130 * MS);
	fixture_close(&job.f);
}

static int wait_for_removal(void *arg)
{
	struct job *job = arg;
	struct coshm_task task;

	if (become_member(job))
		return 1;
	return coshm_queue_reserve(job->f.queue, COSHM_FOREVER, &task) == -ESHUTDOWN ? 0 : 2;
}

static void removal_wakes_all_sleepers(void **state)
{
	struct job job;
	struct proc *procs[3];

	(void)state;
	open_job(&job);
	for (int i = 0; i < 3; i++)
		procs[i] = proc_spawn(wait_for_removal, &job);
	wait_for_members(&job, 3);
	wait_for_sleeps(&job.f, 3);
	assert_int_equal(coshm_object_remove(job.f.segment, "q"), 0);
	assert_int_equal(proc_collect_all(procs, 3, PROC_DEADLINE_NS, NULL), 0);
	fixture_close(&job.f);
}

static void *close_later(void *arg)
{
	struct job *job = arg;

	wait_for_sleeps(&job->f, 1);
	return (void *)(intptr_t)coshm_queue_close(job->f.queue);
}

static void closing_the_handle_ends_the_wait_of_another_thread(void **state)
{
	struct job job;
	struct coshm_task task;
	pthread_t thread;
	void *closed;

	(void)state;
	open_job(&job);
	assert_int_equal(pthread_create(&thread, NULL, close_later, &job), 0);
	assert_int_equal(coshm_queue_reserve(job.f.queue, COSHM_FOREVER, &task), -EBADF);
	pthread_join(thread, &closed);
	assert_null(closed);
	assert_int_equal(coshm_queue_open(job.f.segment, "q", &job.f.queue), 0);
	fixture_close(&job.f);
}

/* --- fork -------------------------------------------------------------------------------------------------------------- */

struct inherited {
	struct job job;
	struct coshm_task task;
};

static int use_the_parents_lease(void *arg)
{
	struct inherited *in = arg;
	char text[16];
	size_t size = sizeof(text);

	return coshm_queue_payload(in->job.f.queue, &in->task, text, &size) != -ESTALE ||
	       coshm_queue_ack(in->job.f.queue, &in->task) != -ESTALE ||
	       coshm_queue_nack(in->job.f.queue, &in->task, "", 0) != -ESTALE ||
	       coshm_queue_release(in->job.f.queue, &in->task) != -ESTALE ||
	       coshm_queue_bury(in->job.f.queue, &in->task, "") != -ESTALE;
}

static int use_and_detach(void *arg)
{
	struct inherited *in = arg;
	int error = use_the_parents_lease(arg);

	return error ? error : coshm_segment_detach(in->job.f.segment) != 0;
}

static void forked_child_cannot_end_its_parents_lease_nor_take_it_along(void **state)
{
	struct inherited in;

	(void)state;
	open_job(&in.job);
	put(&in.job.f, "x");
	assert_string_equal(get(&in.job.f, &in.task), "x");
	assert_int_equal(proc_collect(proc_spawn(use_the_parents_lease, &in), PROC_DEADLINE_NS), 0);
	assert_int_equal(coshm_segment_reap(in.job.f.segment, NULL), 0);
	assert_depth(&in.job.f, 0, 0, 1, 0);
	assert_int_equal(proc_collect(proc_spawn(use_and_detach, &in), PROC_DEADLINE_NS), 0);
	assert_depth(&in.job.f, 0, 0, 1, 0);
	assert_int_equal(coshm_queue_ack(in.job.f.queue, &in.task), 0);
	fixture_close(&in.job.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sleeping_consumers_use_next_to_no_cpu),
		cmocka_unit_test(each_enqueue_wakes_one_sleeper_and_none_when_nobody_sleeps),
		cmocka_unit_test(no_operation_makes_a_system_call_while_nobody_sleeps),
		cmocka_unit_test(sleeper_gets_the_task_of_a_worker_that_died_while_all_slept),
		cmocka_unit_test(
			sleeper_wakes_up_for_a_task_whose_delay_began_after_it_fell_asleep),
		cmocka_unit_test(signal_ends_a_wait_with_eintr),
		cmocka_unit_test(wait_ends_after_its_timeout_with_0),
		cmocka_unit_test(removal_wakes_all_sleepers),
		cmocka_unit_test(closing_the_handle_ends_the_wait_of_another_thread),
		cmocka_unit_test(forked_child_cannot_end_its_parents_lease_nor_take_it_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
