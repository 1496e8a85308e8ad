/* SPDX-License-Identifier: MIT */
#include "support/procs.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCS_MAX	 256
#define SEGMENTS_MAX	 256
#define POLL_INTERVAL_NS UINT64_C(500000)
#define NS_PER_S	 UINT64_C(1000000000)

struct proc {
	pid_t pid; /* 0: slot is free */
};

struct proc_barrier {
	_Atomic uint32_t arrived;
	_Atomic uint32_t round; /* futex word */
	uint32_t party_count;
};

static struct proc procs[PROCS_MAX];

static char segment_names[SEGMENTS_MAX][TEST_SEGMENT_NAME_SIZE];
static unsigned int segment_count;
static pid_t segments_owner;

static int in_child;

/* Written by --enable-coverage builds at exit(), which a child never reaches. */
extern void __gcov_dump(void) __attribute__((weak));

/* 99 is what Automake's test driver calls a hard error. */
__attribute__((noreturn)) static void give_up(const char *what)
{
	fprintf(stderr, "test support: %s: %s\n", what, strerror(errno));
	exit(99);
}

uint64_t test_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

void test_sleep_ns(uint64_t for_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(for_ns / NS_PER_S),
		.tv_nsec = (long)(for_ns % NS_PER_S),
	};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/*
 * cmocka's skip() takes no notice of CMOCKA_TEST_ABORT and always longjmps; programs find this
 * one first.  Declared here because the support also builds where cmocka is missing.
 */
void _skip(const char *file, int line);

void _skip(const char *file, int line)
{
	void (*skip_of_cmocka)(const char *file, int line);

	if (in_child) {
		fprintf(stderr, "%s:%d: skip() in a child process\n", file, line);
		abort();
	}
	*(void **)&skip_of_cmocka = dlsym(RTLD_NEXT, "_skip");
	skip_of_cmocka(file, line);
}

static void child_called_exit(void)
{
	static const char text[] = "test support: a child must return from its function, "
				   "not call exit()\n";

	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	_exit(PROC_MISUSED);
}

__attribute__((noreturn)) static void child_run(pid_t parent, int (*body)(void *arg), void *arg)
{
	static const int crashes[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS};
	int code, null_fd;

	/* The parent may have died before this took effect. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(PROC_MISUSED);

	null_fd = open("/dev/null", O_WRONLY);
	if (null_fd < 0 || dup2(null_fd, STDOUT_FILENO) < 0)
		_exit(PROC_MISUSED);
	close(null_fd);

	in_child = 1;
	/* cmocka then calls abort() where a failed assertion would longjmp. */
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	/* Its handlers for crashes would do the same; a crash is to be seen as what it is. */
	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		signal(crashes[i], SIG_DFL);
	/* Runs before every handler that the parent registered. */
	atexit(child_called_exit);

	code = body(arg);
	fflush(NULL);
	if (code < 0 || code > PROC_CODE_MAX) {
		fprintf(stderr, "test support: a child's function returned %d, not 0 .. %d\n", code,
			PROC_CODE_MAX);
		code = PROC_MISUSED;
	}
	if (__gcov_dump)
		__gcov_dump();
	_exit(code);
}

struct proc *proc_spawn(int (*body)(void *arg), void *arg)
{
	const pid_t parent = getpid();
	struct proc *proc = NULL;

	for (size_t i = 0; i < PROCS_MAX && !proc; i++) {
		if (procs[i].pid == 0)
			proc = &procs[i];
	}
	if (!proc) {
		errno = ENOSPC;
		give_up("too many children");
	}

	/* What stands in the buffers now would be written twice. */
	fflush(NULL);
	proc->pid = fork();
	if (proc->pid < 0)
		give_up("fork");
	if (proc->pid == 0)
		child_run(parent, body, arg);
	return proc;
}

pid_t proc_pid(const struct proc *proc)
{
	return proc->pid;
}

/* waitid() on one child without waiting; returns 1 if it had something to say. */
static int proc_look(const struct proc *proc, int options, siginfo_t *ret_info)
{
	siginfo_t info;
	int rc;

	do {
		memset(&info, 0, sizeof(info));
		rc = waitid(P_PID, (id_t)proc->pid, &info, options | WNOHANG);
	} while (rc && errno == EINTR);
	if (rc)
		give_up("waitid");
	if (info.si_pid == 0)
		return 0;
	*ret_info = info;
	return 1;
}

static int proc_look_until(const struct proc *proc, int options, uint64_t timeout_ns,
			   siginfo_t *ret_info)
{
	const uint64_t start_ns = test_now_ns();

	for (;;) {
		if (proc_look(proc, options, ret_info))
			return 1;
		if (test_now_ns() - start_ns >= timeout_ns)
			return 0;
		test_sleep_ns(POLL_INTERVAL_NS);
	}
}

int proc_is_running(const struct proc *proc)
{
	siginfo_t info;

	return !proc_look(proc, WEXITED | WNOWAIT, &info);
}

int proc_collect(struct proc *proc, uint64_t timeout_ns)
{
	siginfo_t info;
	int result;

	if (proc_look_until(proc, WEXITED, timeout_ns, &info)) {
		result = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
		proc->pid = 0;
		return result;
	}
	proc_kill(proc);
	return PROC_HUNG;
}

static void report(pid_t pid, size_t index, int result)
{
	if (result == PROC_HUNG)
		fprintf(stderr, "child %zu (pid %d) hung and was killed\n", index, (int)pid);
	else if (result < 0)
		fprintf(stderr, "child %zu (pid %d) was ended by signal %d\n", index, (int)pid,
			-result);
	else if (result > 0)
		fprintf(stderr, "child %zu (pid %d) gave code %d\n", index, (int)pid, result);
}

size_t proc_collect_all(struct proc *const handles[], size_t count, uint64_t timeout_ns,
			int ret_results[])
{
	const uint64_t start_ns = test_now_ns();
	size_t failed = 0;

	for (size_t i = 0; i < count; i++) {
		const pid_t pid = handles[i]->pid;
		const uint64_t used_ns = test_now_ns() - start_ns;
		const uint64_t left_ns = used_ns < timeout_ns ? timeout_ns - used_ns : 0;
		const int result = proc_collect(handles[i], left_ns);

		report(pid, i, result);
		failed += result != 0;
		if (ret_results)
			ret_results[i] = result;
	}
	return failed;
}

void proc_kill(struct proc *proc)
{
	siginfo_t info;

	kill(proc->pid, SIGKILL);
	if (!proc_look_until(proc, WEXITED, PROC_DEADLINE_NS, &info)) {
		errno = ETIMEDOUT;
		give_up("a killed child does not go away");
	}
	proc->pid = 0;
}

int proc_wait_stopped(struct proc *proc, uint64_t timeout_ns)
{
	siginfo_t info;

	if (!proc_look_until(proc, WSTOPPED | WEXITED | WNOWAIT, timeout_ns, &info))
		return -ETIMEDOUT;
	return info.si_code == CLD_STOPPED;
}

int proc_pause(struct proc *proc)
{
	int rc;

	kill(proc->pid, SIGSTOP);
	rc = proc_wait_stopped(proc, PROC_DEADLINE_NS);
	if (rc < 0) {
		errno = -rc;
		give_up("a child does not stop");
	}
	return rc ? 0 : -ESRCH;
}

void proc_resume(struct proc *proc)
{
	siginfo_t info;

	/* Take the report of the stop away, or the next wait would find it again. */
	proc_look(proc, WSTOPPED, &info);
	kill(proc->pid, SIGCONT);
}

void *proc_shared_alloc(size_t size_bytes)
{
	void *base =
		mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		give_up("mmap");
	return base;
}

struct proc_barrier *proc_barrier_new(unsigned int party_count)
{
	struct proc_barrier *barrier = proc_shared_alloc(sizeof(*barrier));

	barrier->party_count = party_count;
	return barrier;
}

int proc_barrier_wait(struct proc_barrier *barrier, uint64_t timeout_ns)
{
	const uint64_t start_ns = test_now_ns();
	const uint32_t round = atomic_load(&barrier->round);

	if (atomic_fetch_add(&barrier->arrived, 1) + 1 == barrier->party_count) {
		atomic_store(&barrier->arrived, 0);
		atomic_fetch_add(&barrier->round, 1);
		syscall(SYS_futex, &barrier->round, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
		return 0;
	}
	while (atomic_load(&barrier->round) == round) {
		const uint64_t used_ns = test_now_ns() - start_ns;
		struct timespec ts;

		if (used_ns >= timeout_ns)
			return -ETIMEDOUT;
		ts.tv_sec = (time_t)((timeout_ns - used_ns) / NS_PER_S);
		ts.tv_nsec = (long)((timeout_ns - used_ns) % NS_PER_S);
		syscall(SYS_futex, &barrier->round, FUTEX_WAIT, round, &ts, NULL, 0);
	}
	return 0;
}

static int name_is_ours(const char *name)
{
	for (unsigned int i = 0; i < segment_count; i++) {
		if (strstr(name, segment_names[i]))
			return 1;
	}
	return 0;
}

static void segments_remove(void)
{
	struct dirent *entry;
	DIR *dir;

	if (getpid() != segments_owner)
		return;
	dir = opendir("/dev/shm");
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (name_is_ours(entry->d_name))
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
}

void test_segment_name(char ret_name[TEST_SEGMENT_NAME_SIZE], const char *tag)
{
	const pid_t self = getpid();

	if (segments_owner == 0) {
		segments_owner = self;
		atexit(segments_remove);
	}
	if (segment_count == SEGMENTS_MAX) {
		errno = ENOSPC;
		give_up("too many segment names");
	}
	/* Of fixed width, so that no name is the beginning of another one. */
	snprintf(ret_name, TEST_SEGMENT_NAME_SIZE, "coshm-test-%.20s-%d-%03u", tag, (int)self,
		 segment_count);
	/* A child of the owner has its own pid in the name and must remove the segment itself. */
	if (self == segments_owner)
		memcpy(segment_names[segment_count], ret_name, TEST_SEGMENT_NAME_SIZE);
	segment_count++;
}
