/* SPDX-License-Identifier: MIT */
/* Who is attached, who is dead: what the kernel knows, whatever the application does with pids, files and threads. */
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
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEMBERS 6
#define THREADS 12
#define FEW	4 /* of members, and of threads' slots */

struct shared {
	_Atomic int stop;
	_Atomic int ready;
	_Atomic uint32_t id;
	_Atomic int pid;
	_Atomic unsigned int works;
	_Atomic unsigned int wrong;
};

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static struct shared *shared;
static void *token;

static int begin_with(uint32_t members, uint32_t threads)
{
	const struct coshm_segment_config config = {
		.size_bytes = 1 << 20, .member_count_max = members, .thread_count_max = threads};

	test_segment_name(name, "member");
	shared = proc_shared_alloc(sizeof(*shared));
	if (coshm_segment_create(name, &config, 0, &segment))
		return -1;
	return toy_create(segment, "toy", 0, 0, &token);
}

static int begin(void **state)
{
	(void)state;
	return begin_with(MEMBERS, 64);
}

static int begin_with_few_threads(void **state)
{
	(void)state;
	return begin_with(FEW, FEW);
}

static int end(void **state)
{
	(void)state;
	if (segment)
		coshm_segment_detach(segment);
	segment = NULL;
	return coshm_segment_unlink(name);
}

static uint32_t member_id(void)
{
	struct coshm__op op;
	uint32_t id;

	if (coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT))
		return 0;
	id = op.member_id;
	coshm__op_end(&op);
	return id;
}

static int wait_for(_Atomic int *word)
{
	const uint64_t start_ns = test_now_ns();

	while (!atomic_load(word)) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return -1;
		test_sleep_ns(200000);
	}
	return 0;
}

/* A child that joins, says who it is, and stays. */
static int join(void *arg)
{
	uint32_t id = member_id();

	(void)arg;
	if (!id)
		return 1;
	atomic_store(&shared->id, id);
	atomic_store(&shared->pid, getpid());
	atomic_store(&shared->ready, 1);
	while (!atomic_load(&shared->stop))
		test_sleep_ns(500000);
	return coshm_segment_detach(segment) ? 2 : 0;
}

static struct proc *spawn_member(void)
{
	struct proc *child;

	atomic_store(&shared->ready, 0);
	child = proc_spawn(join, NULL);
	assert_int_equal(wait_for(&shared->ready), 0);
	return child;
}

static int is_dead(uint32_t id)
{
	return coshm__member_is_dead(toy_segment(segment), id);
}

/* Death shows as soon as the kernel has torn the process down; the time is not what is tested. */
static int becomes_dead(uint32_t id)
{
	const uint64_t start_ns = test_now_ns();

	while (!is_dead(id)) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			return 0;
		test_sleep_ns(100000);
	}
	return 1;
}

static void members_are_told_apart_and_counted(void **state)
{
	struct coshm_member_info info;
	struct proc *child = spawn_member();
	struct coshm_segment_info segment_info;

	(void)state;
	assert_true(shared->id != member_id());
	assert_int_equal(coshm_segment_info(segment, &segment_info), 0);
	assert_int_equal(segment_info.member_count, 2);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)shared->pid, &info), 1);
	assert_int_equal(info.id, shared->id);
	assert_int_equal(info.state, COSHM_MEMBER_ALIVE);
	assert_true(info.attached_at_ns > 0 &&
		    info.attached_at_ns <= coshm_segment_now_ns(segment));
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
	assert_int_equal(is_dead(shared->id), 1);
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_int_equal(toy_stat(segment, "attaches"), 2);
	assert_int_equal(toy_stat(segment, "detaches"), 1);
	assert_int_equal(toy_stat(segment, "deaths"), 0);
}

static void stopped_member_is_not_dead(void **state)
{
	struct proc *child = spawn_member();

	(void)state;
	assert_int_equal(proc_pause(child), 0);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(is_dead(shared->id), 0);
		assert_int_equal(coshm_segment_reap(segment, NULL), 0);
		test_sleep_ns(1000000);
	}
	proc_resume(child);
	assert_int_equal(is_dead(shared->id), 0);
	proc_kill(child);
	assert_int_equal(becomes_dead(shared->id), 1);
	assert_int_equal(coshm__member_is_known_dead(toy_segment(segment), shared->id), 1);
}

/* Anyone who may read the file can place one. */
static void read_lock_of_a_stranger_keeps_no_dead_member_alive(void **state)
{
	struct proc *child = spawn_member();
	struct flock range = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	char path[TEST_SEGMENT_NAME_SIZE + 16];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	range.l_start = (off_t)(COSHM__LOCK_BYTE_MEMBERS + COSHM__MEMBER_SLOT_OF(shared->id));
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &range), -1);
	assert_int_equal(is_dead(shared->id), 0);
	proc_kill(child);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &range), 0);
	assert_int_equal(becomes_dead(shared->id), 1);
	close(fd);
}

static void ids_nobody_has_are_dead(void **state)
{
	uint32_t mine = member_id();

	(void)state;
	assert_int_equal(is_dead(mine), 0);
	assert_int_equal(coshm__member_is_known_dead(toy_segment(segment), mine), 0);
	assert_int_equal(coshm__member_is_dead24(toy_segment(segment), coshm__id24(mine)), 0);
	assert_int_equal(is_dead(mine + 1), 1); /* a later generation of the slot */
	assert_int_equal(is_dead(mine ^ (5u << COSHM__MEMBER_GENERATION_BITS)), 1);
	assert_int_equal(is_dead(1000u << COSHM__MEMBER_GENERATION_BITS | 1), 1);
	assert_int_equal(is_dead(0), 1);
	assert_int_equal(coshm__member_is_dead24(toy_segment(segment), coshm__id24(mine) + 1), 1);
	assert_int_equal(coshm__member_is_dead24(toy_segment(segment), 1023u << 14 | 1), 1);
}

/* Slot, generation and life do not mix: a slot's next member is somebody else. */
static void slot_is_reused_with_another_generation(void **state)
{
	uint32_t former = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct proc *child = spawn_member();

		assert_true(shared->id != former);
		if (former)
			assert_int_equal(is_dead(former), 1);
		former = shared->id;
		proc_kill(child);
		assert_int_equal(becomes_dead(former), 1);
		assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	}
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_int_equal(toy_stat(segment, "deaths"), 20);
}

static void full_house_is_eusers_until_one_leaves_or_dies(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct proc *children[MEMBERS];
	struct coshm_segment_info info;
	int count = 0;

	(void)state;
	heard_start();
	/* One slot may be set aside for cleaning up; the rest is for members. */
	for (; count < MEMBERS - 2; count++)
		children[count] = spawn_member();
	for (; count < MEMBERS; count++) {
		int result;

		atomic_store(&shared->ready, 0);
		children[count] = proc_spawn(join, NULL);
		while (!shared->ready && proc_is_running(children[count]) &&
		       test_now_ns() - start_ns < PROC_DEADLINE_NS)
			test_sleep_ns(1000000);
		if (shared->ready)
			continue;
		result = proc_collect(children[count], PROC_DEADLINE_NS);
		assert_int_equal(result, 1);
		break;
	}
	assert_true(count < MEMBERS);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_true(info.member_count <= MEMBERS);
	assert_int_equal(info.member_count, count + 1);
	/* A death makes room without anybody's help. */
	proc_kill(children[0]);
	children[0] = spawn_member();
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(children, (size_t)count, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
}

static int attach_anew(void *arg)
{
	struct coshm_segment *own;
	void *toy;

	(void)arg;
	if (coshm_segment_attach(name, 0, &own))
		return 1;
	if (toy_open(own, "toy", &toy))
		return 2;
	if (coshm_segment_reap(own, NULL))
		return 3;
	if (toy_stat(own, "members") != 1)
		return 4;
	if (toy_stat(own, "threads") != 1)
		return 5;
	return coshm_segment_detach(own) ? 6 : 0;
}

static void attach_works_after_all_members_were_killed(void **state)
{
	struct proc *children[MEMBERS];
	int count = 0;

	(void)state;
	assert_int_equal(coshm_segment_detach(segment), 0);
	segment = NULL;
	for (int round = 0; round < 3; round++) {
		/* As many as fit, in processes that attach by themselves. */
		struct coshm_segment *own;

		assert_int_equal(coshm_segment_attach(name, 0, &own), 0);
		segment = own;
		for (count = 0; count < MEMBERS - 2; count++)
			children[count] = spawn_member();
		assert_int_equal(coshm_segment_detach(own), 0);
		segment = NULL;
		for (int i = 0; i < count; i++)
			kill(proc_pid(children[i]), SIGSTOP);
		for (int i = 0; i < count; i++)
			proc_kill(children[i]);
		assert_int_equal(proc_collect(proc_spawn(attach_anew, NULL), PROC_DEADLINE_NS), 0);
	}
}

/* All slots are of the dead, and those who come to clean up are killed in it, too. */
static int attach_and_die(void *arg)
{
	struct coshm_segment *own;

	(void)arg;
	if (coshm_segment_attach(name, 0, &own))
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

static void dead_by_the_dozen_never_fill_the_house(void **state)
{
	(void)state;
	assert_int_equal(coshm_segment_detach(segment), 0);
	segment = NULL;
	for (int i = 0; i < 5 * MEMBERS; i++)
		assert_int_equal(proc_collect(proc_spawn(attach_and_die, NULL), PROC_DEADLINE_NS),
				 -SIGKILL);
	assert_int_equal(proc_collect(proc_spawn(attach_anew, NULL), PROC_DEADLINE_NS), 0);
}

static _Atomic int rescues, begins;

/* Called by the thread that cleans up as the rescuer: it is held up until the other one tries to work. */
static void hold_the_rescuer(void *context, int level, const char *text)
{
	(void)context;
	(void)level;
	(void)text;
	if (atomic_exchange(&rescues, 1))
		return;
	if (wait_for(&begins))
		_exit(50);
	test_sleep_ns(50000000);
}

static void *work_while_it_rescues(void *arg)
{
	struct coshm__op op;
	int *wrong = arg;

	wait_for(&rescues);
	atomic_store(&begins, 1);
	*wrong = coshm__op_begin(&op, token, COSHM_OBJECT_QUEUE);
	if (*wrong)
		return NULL;
	/* The membership that it works under is the one that the process keeps. */
	if (coshm__member_is_rescuer(op.segment, op.member_id))
		*wrong = 1;
	else if (coshm__a32_load_relaxed(&op.thread->owner) != op.member_id)
		*wrong = 2;
	coshm__op_end(&op);
	return NULL;
}

static int child_with_two_threads(void *arg)
{
	pthread_t thread;
	int wrong = 0;

	(void)arg;
	coshm_set_log(hold_the_rescuer, NULL, COSHM_LOG_WARNING);
	if (pthread_create(&thread, NULL, work_while_it_rescues, &wrong))
		return 1;
	if (!member_id())
		return 2;
	if (pthread_join(thread, NULL) || wrong)
		return 10 + abs(wrong) % 50;
	return atomic_load(&rescues) ? 0 : 3;
}

static void only_the_thread_that_rescues_works_as_the_rescuer(void **state)
{
	(void)state;
	for (int i = 0; i < MEMBERS - 1; i++)
		assert_int_equal(proc_collect(proc_spawn(attach_and_die, NULL), PROC_DEADLINE_NS),
				 -SIGKILL);
	assert_int_equal(proc_collect(proc_spawn(child_with_two_threads, NULL), PROC_DEADLINE_NS),
			 0);
}

static int close_all_and_stay(void *arg)
{
	uint32_t id = member_id();

	(void)arg;
	if (!id)
		return 1;
	if (close_range(3, ~0u, 0))
		closefrom(3);
	atomic_store(&shared->id, id);
	atomic_store(&shared->ready, 1);
	while (!atomic_load(&shared->stop))
		test_sleep_ns(500000);
	/* It also still asks the kernel about others, and works. */
	if (coshm__member_is_dead(toy_segment(segment), (uint32_t)(uintptr_t)arg))
		return 2;
	if (coshm_segment_reap(segment, NULL))
		return 3;
	return coshm_segment_detach(segment) ? 4 : 0;
}

static void closing_all_descriptors_is_not_death(void **state)
{
	struct proc *child = proc_spawn(close_all_and_stay, (void *)(uintptr_t)member_id());

	(void)state;
	assert_int_equal(wait_for(&shared->ready), 0);
	assert_int_equal(is_dead(shared->id), 0);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
	assert_int_equal(toy_stat(segment, "deaths"), 0);
}

static int exec_sleep(void *arg)
{
	uint32_t id = member_id();

	(void)arg;
	if (!id)
		return 1;
	atomic_store(&shared->id, id);
	atomic_store(&shared->ready, 1);
	execl("/bin/sleep", "sleep", "600", (char *)NULL);
	return 2;
}

static void exec_is_death(void **state)
{
	struct proc *child = proc_spawn(exec_sleep, NULL);

	(void)state;
	assert_int_equal(wait_for(&shared->ready), 0);
	assert_int_equal(becomes_dead(shared->id), 1);
	assert_int_equal(proc_is_running(child), 1);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
	proc_kill(child);
}

static int vfork_and_stay(void *arg)
{
	pid_t pid;
	int status;

	pid = vfork();
	if (pid == 0) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(9);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		return 1;
	return join(arg);
}

static void vfork_and_exec_change_nothing(void **state)
{
	struct proc *child = proc_spawn(vfork_and_stay, NULL);

	(void)state;
	assert_int_equal(wait_for(&shared->ready), 0);
	assert_int_equal(is_dead(shared->id), 0);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect(child, PROC_DEADLINE_NS), 0);
	assert_int_equal(toy_stat(segment, "deaths"), 0);
}

/* The parent is a member and forks; the child never uses coshm, and outlives the parent. */
static int leave_a_child_behind(void *arg)
{
	uint32_t id = member_id();
	const int raw = arg != NULL;
	long pid;

	if (!id)
		return 1;
	pid = raw ? syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
	if (pid == 0) {
		atomic_store(&shared->pid, (int)getpid());
		while (!atomic_load(&shared->stop))
			test_sleep_ns(500000);
		_exit(0);
	}
	while (!atomic_load(&shared->pid))
		test_sleep_ns(200000);
	atomic_store(&shared->id, id);
	atomic_store(&shared->ready, 1);
	for (;;)
		pause();
}

static void killed_parent_is_dead_though_its_child_lives(void **state)
{
	(void)state;
	for (uintptr_t raw = 0; raw < 2; raw++) {
		struct proc *parent;

		atomic_store(&shared->ready, 0);
		atomic_store(&shared->pid, 0);
		parent = proc_spawn(leave_a_child_behind, (void *)raw);
		assert_int_equal(wait_for(&shared->ready), 0);
		assert_int_equal(is_dead(shared->id), 0);
		proc_kill(parent);
		assert_int_equal(becomes_dead(shared->id), 1);
		assert_int_equal(kill(shared->pid, 0), 0);
		kill(shared->pid, SIGKILL);
	}
}

/* --- threads -------------------------------------------------------------------------------------------------- */

static void *use_once(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	(void)arg;
	if (toy_begin(&op, token, &toy)) {
		atomic_fetch_add(&shared->wrong, 1);
		return NULL;
	}
	if (coshm__a32_load_relaxed(&op.thread->owner) != op.member_id)
		atomic_fetch_add(&shared->wrong, 1);
	coshm__hazard_protect(&op, 0, 4096);
	coshm__hazard_clear(&op, 0);
	coshm__op_end(&op);
	return NULL;
}

static void exited_threads_give_their_slots_back(void **state)
{
	struct coshm_member_info info;
	pthread_t thread;

	(void)state;
	for (int i = 0; i < 500; i++) { /* many more than there are slots */
		assert_int_equal(pthread_create(&thread, NULL, use_once, NULL), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.thread_count, 1);
}

static _Atomic int used;

static void *use_and_stay(void *arg)
{
	use_once(NULL);
	atomic_fetch_add(&used, 1);
	while (!atomic_load((_Atomic int *)arg))
		test_sleep_ns(1000000);
	return NULL;
}

static void stay(pthread_t *thread, _Atomic int *until)
{
	const int before = atomic_load(&used);

	assert_int_equal(pthread_create(thread, NULL, use_and_stay, until), 0);
	while (atomic_load(&used) == before)
		test_sleep_ns(1000000);
}

/* The new mapping may lie where the old one was, and the slot may be another thread's. */
static void thread_of_a_former_membership_gives_no_slot_back(void **state)
{
	static _Atomic int former_may_exit, next_may_exit;
	struct coshm_member_info info;
	pthread_t former, next;

	(void)state;
	stay(&former, &former_may_exit);
	assert_int_equal(coshm_segment_detach(segment), 0);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
	assert_int_equal(toy_open(segment, "toy", &token), 0);
	use_once(NULL);
	stay(&next, &next_may_exit);
	atomic_store(&former_may_exit, 1);
	assert_int_equal(pthread_join(former, NULL), 0);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.thread_count, 2);
	atomic_store(&next_may_exit, 1);
	assert_int_equal(pthread_join(next, NULL), 0);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.thread_count, 1);
	assert_int_equal(atomic_load(&shared->wrong), 0);
}

static void *work(void *arg)
{
	(void)arg;
	while (!atomic_load(&shared->stop)) {
		struct coshm__op op;
		struct toy_shm *toy;
		int error = toy_begin(&op, token, &toy);

		if (error) {
			atomic_fetch_add(&shared->wrong, 1);
			return NULL;
		}
		/* Whoever shares a slot uses it alone for as long as the operation takes. */
		if (coshm__a64_load_relaxed(&op.thread->read_hazard[0]) != 0)
			atomic_fetch_add(&shared->wrong, 1);
		coshm__hazard_protect(&op, 0, 4096);
		if (coshm__rlock_acquire(&op, &toy->lock, PROC_DEADLINE_NS) == 0) {
			if (toy_step(&op, toy))
				atomic_fetch_add(&shared->wrong, 1);
			coshm__rlock_release(&op, &toy->lock);
		} else {
			atomic_fetch_add(&shared->wrong, 1);
		}
		coshm__hazard_clear(&op, 0);
		coshm__op_end(&op);
		atomic_fetch_add(&shared->works, 1);
	}
	return NULL;
}

static void more_threads_than_slots_take_turns(void **state)
{
	const uint64_t start_ns = test_now_ns();
	pthread_t threads[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
	while (atomic_load(&shared->works) < 20000 && !atomic_load(&shared->wrong) &&
	       test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	atomic_store(&shared->stop, 1);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_true(atomic_load(&shared->works) >= 20000);
}

static void *work_once_and_stay(void *arg)
{
	use_once(arg);
	atomic_fetch_add(&shared->works, 1);
	while (!atomic_load(&shared->stop))
		test_sleep_ns(500000);
	return NULL;
}

/* For a process that is no member yet, by fork or by nothing. */
static int is_refused(void *arg)
{
	struct coshm_segment *own = NULL;

	if (arg &&
	    (coshm__op_begin(&(struct coshm__op){0}, segment, COSHM__TYPE_SEGMENT) != -EUSERS ||
	     coshm_segment_reap(segment, NULL) != -EUSERS))
		return 1;
	if (coshm_segment_attach(name, 0, &own) != -EUSERS || own)
		return 2;
	return strstr(heard_text(), "member_count_max") ? 0 : 3;
}

static void as_many_processes_as_members_get_in_when_threads_have_all_slots(void **state)
{
	const uint64_t start_ns = test_now_ns();
	struct coshm_segment_info info;
	struct proc *children[FEW - 1];
	pthread_t threads[THREADS];

	(void)state;
	heard_start();
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work_once_and_stay, NULL), 0);
	/* Each has looked for a slot, and nobody gives one back before the end. */
	while (atomic_load(&shared->works) < THREADS && test_now_ns() - start_ns < PROC_DEADLINE_NS)
		test_sleep_ns(1000000);
	assert_int_equal(toy_stat(segment, "threads"), FEW);
	for (int i = 0; i < FEW - 1; i++)
		children[i] = spawn_member();
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.member_count, FEW);
	assert_int_equal(info.thread_high_water, FEW);
	assert_int_equal(proc_collect(proc_spawn(is_refused, &children), PROC_DEADLINE_NS), 0);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(children, FEW - 1, PROC_DEADLINE_NS, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
}

static int attach_and_stay(void *arg)
{
	struct coshm_segment *own;

	(void)arg;
	if (coshm_segment_attach(name, 0, &own))
		return 1;
	atomic_store(&shared->ready, 1);
	while (!atomic_load(&shared->stop))
		test_sleep_ns(500000);
	return coshm_segment_detach(own) ? 2 : 0;
}

static void one_process_more_than_members_is_eusers(void **state)
{
	struct proc *children[FEW];

	(void)state;
	heard_start();
	assert_int_equal(coshm_segment_detach(segment), 0);
	segment = NULL;
	for (int i = 0; i < FEW; i++) {
		atomic_store(&shared->ready, 0);
		children[i] = proc_spawn(attach_and_stay, NULL);
		assert_int_equal(wait_for(&shared->ready), 0);
	}
	assert_int_equal(is_refused(NULL), 0);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect_all(children, FEW, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
}

static void process_with_one_thread_has_one_thread(void **state)
{
	struct coshm_segment_info segment_info;
	struct coshm_member_info info;

	(void)state;
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.thread_count, 1);
	assert_int_equal(toy_stat(segment, "threads"), 1);
	assert_int_equal(coshm_segment_info(segment, &segment_info), 0);
	assert_int_equal(segment_info.thread_high_water, 1);
}

/* --- PID namespaces ------------------------------------------------------------------------------------------- */

/* Two processes that are both number 1 in their own world. */
static int member_as_pid_1(void *arg)
{
	pid_t pid;
	int status;

	(void)arg;
	if (unshare(CLONE_NEWPID))
		return 1;
	pid = fork();
	if (pid == 0) {
		if (getpid() != 1)
			_exit(2);
		_exit(join(NULL));
	}
	if (pid < 0)
		return 3;
	atomic_store((_Atomic int *)arg, pid);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 50;
}

static void members_with_equal_pids_live_and_die_apart(void **state)
{
	struct proc *first, *second;
	_Atomic int *pids;
	uint32_t first_id, second_id;

	(void)state;
	TEST_NEEDS(shmfs_lacks_pid_namespaces());
	pids = proc_shared_alloc(4096);
	first = proc_spawn(member_as_pid_1, (void *)&pids[0]);
	assert_int_equal(wait_for(&shared->ready), 0);
	first_id = shared->id;
	assert_int_equal(shared->pid, 1);
	atomic_store(&shared->ready, 0);
	second = proc_spawn(member_as_pid_1, (void *)&pids[1]);
	assert_int_equal(wait_for(&shared->ready), 0);
	second_id = shared->id;
	assert_int_equal(shared->pid, 1);
	assert_int_equal(is_dead(first_id), 0);
	assert_int_equal(is_dead(second_id), 0);
	/* Its parent says it, who may be slower than itself; and 0 would be all of this test. */
	assert_int_equal(wait_for(&pids[0]), 0);
	kill(pids[0], SIGKILL);
	assert_int_equal(proc_collect(first, PROC_DEADLINE_NS), 50);
	assert_int_equal(becomes_dead(first_id), 1);
	assert_int_equal(is_dead(second_id), 0);
	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(is_dead(second_id), 0);
	atomic_store(&shared->stop, 1);
	assert_int_equal(proc_collect(second, PROC_DEADLINE_NS), 0);
	assert_int_equal(toy_stat(segment, "members"), 1);
	assert_int_equal(toy_stat(segment, "deaths"), 1);
}

#define MEMBER_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)
#define THREAD_TEST(test) cmocka_unit_test_setup_teardown(test, begin_with_few_threads, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		MEMBER_TEST(members_are_told_apart_and_counted),
		MEMBER_TEST(stopped_member_is_not_dead),
		MEMBER_TEST(read_lock_of_a_stranger_keeps_no_dead_member_alive),
		MEMBER_TEST(ids_nobody_has_are_dead),
		MEMBER_TEST(slot_is_reused_with_another_generation),
		MEMBER_TEST(full_house_is_eusers_until_one_leaves_or_dies),
		MEMBER_TEST(attach_works_after_all_members_were_killed),
		MEMBER_TEST(dead_by_the_dozen_never_fill_the_house),
		MEMBER_TEST(only_the_thread_that_rescues_works_as_the_rescuer),
		MEMBER_TEST(closing_all_descriptors_is_not_death),
		MEMBER_TEST(exec_is_death),
		MEMBER_TEST(vfork_and_exec_change_nothing),
		MEMBER_TEST(killed_parent_is_dead_though_its_child_lives),
		MEMBER_TEST(exited_threads_give_their_slots_back),
		MEMBER_TEST(thread_of_a_former_membership_gives_no_slot_back),
		THREAD_TEST(more_threads_than_slots_take_turns),
		THREAD_TEST(as_many_processes_as_members_get_in_when_threads_have_all_slots),
		THREAD_TEST(one_process_more_than_members_is_eusers),
		MEMBER_TEST(process_with_one_thread_has_one_thread),
		MEMBER_TEST(members_with_equal_pids_live_and_die_apart),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("member", tests, NULL, NULL);
}
