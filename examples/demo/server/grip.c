/* SPDX-License-Identifier: MIT */
#include "grip.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/clock.h"

#define STOP_NS_MAX (100 * DEMO_NS_PER_MS)
#define POLL_NS	    (20 * DEMO_NS_PER_S / 1000000)

#if defined(__x86_64__)
#define PROGRAM_COUNTER rip
#define STACK_POINTER	rsp
static const unsigned char breakpoint[] = {0xcc}; /* int3 */
#elif defined(__aarch64__)
#define PROGRAM_COUNTER pc
#define STACK_POINTER	sp
static const unsigned char breakpoint[] = {0x00, 0x00, 0x20, 0xd4}; /* brk #0 */
#endif

static char state_of(pid_t pid)
{
	char path[32];
	char text[256];
	const char *end;
	FILE *file;
	char state = '?';

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return '?';
	/* the name in the second field may hold anything, a ')' too */
	if (fgets(text, sizeof(text), file) && (end = strrchr(text, ')')) && end[1] == ' ')
		state = end[2];
	fclose(file);
	return state;
}

static int stop_by_signal(struct demo_grip *grip)
{
	uint64_t until_ns = demo_now_ns() + STOP_NS_MAX;

	if (kill(grip->pid, SIGSTOP) != 0)
		return -errno;
	while (state_of(grip->pid) != 'T') {
		if (demo_now_ns() > until_ns || state_of(grip->pid) == '?') {
			kill(grip->pid, SIGCONT);
			return -ETIMEDOUT;
		}
		demo_sleep_ns(POLL_NS);
	}
	return 0;
}

/* What waiting for a traced process can end in. */
enum stop {
	STOP_NONE, /* it still runs */
	STOP_ASKED,
	STOP_TRAP,
	STOP_SIGNAL,
	STOP_ENDED,
};

/* lets it move, by one instruction or freely, and hands it the signal that it was to get */
static int resume(struct demo_grip *grip, int request)
{
	unsigned long signal_number = (unsigned long)grip->signal_number;

	grip->signal_number = 0;
	return ptrace((enum __ptrace_request)request, grip->pid, NULL, signal_number) == 0 ? 0
											   : -errno;
}

static enum stop stop_of(struct demo_grip *grip, int status)
{
	if (!WIFSTOPPED(status))
		return STOP_ENDED;
	if (status >> 16 == PTRACE_EVENT_STOP)
		return STOP_ASKED;
	if (WSTOPSIG(status) == SIGTRAP)
		return STOP_TRAP;
	grip->signal_number = WSTOPSIG(status);
	return STOP_SIGNAL;
}

/* one look; a process that was stopped by a signal runs on with it */
static enum stop look(struct demo_grip *grip)
{
	int status;
	pid_t pid = waitpid(grip->pid, &status, __WALL | WNOHANG);
	enum stop stop;

	if (pid == 0)
		return STOP_NONE;
	stop = pid < 0 ? STOP_ENDED : stop_of(grip, status);
	if (stop != STOP_SIGNAL)
		return stop;
	resume(grip, PTRACE_CONT);
	return STOP_NONE;
}

static enum stop wait_for_stop(struct demo_grip *grip, uint64_t within_ns)
{
	uint64_t until_ns = demo_now_ns() + within_ns;
	enum stop stop;

	while ((stop = look(grip)) == STOP_NONE && demo_now_ns() < until_ns)
		demo_sleep_ns(POLL_NS);
	return stop;
}

int demo_grip_take(struct demo_grip *grip, pid_t pid)
{
	*grip = (struct demo_grip){.pid = pid};
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0)
		return errno == ESRCH ? -ESRCH : stop_by_signal(grip);
	grip->is_traced = true;
	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 &&
	    wait_for_stop(grip, STOP_NS_MAX) == STOP_ASKED)
		return 0;
	demo_grip_let_go(grip);
	return -ETIMEDOUT;
}

void demo_grip_let_go(struct demo_grip *grip)
{
	if (grip->is_traced)
		resume(grip, PTRACE_DETACH);
	else
		kill(grip->pid, SIGCONT);
}

bool demo_grip_can_step(const struct demo_grip *grip)
{
#ifdef PROGRAM_COUNTER
	return grip->is_traced;
#else
	(void)grip;
	return false;
#endif
}

#ifdef PROGRAM_COUNTER

static int write_text(pid_t pid, uintptr_t address, const void *bytes, size_t size_bytes)
{
	unsigned long word;

	errno = 0;
	word = (unsigned long)ptrace(PTRACE_PEEKTEXT, pid, (void *)address, NULL);
	if (errno)
		return -errno;
	memcpy(&word, bytes, size_bytes);
	if (ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)word) != 0)
		return -errno;
	return 0;
}

static int get_registers(pid_t pid, struct user_regs_struct *ret_registers)
{
	struct iovec all = {.iov_base = ret_registers, .iov_len = sizeof(*ret_registers)};

	return ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &all) == 0 ? 0 : -errno;
}

/* back to the instruction that the breakpoint stood for: some machines trap after it */
static int stand_at(struct demo_grip *grip, uintptr_t address)
{
	struct user_regs_struct registers;
	struct iovec all = {.iov_base = &registers, .iov_len = sizeof(registers)};
	int rc = get_registers(grip->pid, &registers);

	if (rc < 0)
		return rc;
	registers.PROGRAM_COUNTER = address;
	grip->stack = registers.STACK_POINTER;
	return ptrace(PTRACE_SETREGSET, grip->pid, (void *)NT_PRSTATUS, &all) == 0 ? 0 : -errno;
}

/* our wish to stop it can win over the trap of a breakpoint that it has just met */
static bool is_trap_due(pid_t pid, uintptr_t function)
{
	struct user_regs_struct registers;

	return get_registers(pid, &registers) == 0 &&
	       registers.PROGRAM_COUNTER - function <= sizeof(breakpoint);
}

static int run_to_breakpoint(struct demo_grip *grip, uintptr_t function, uint64_t within_ns,
			     bool *ret_has_hit)
{
	enum stop stop;
	int rc = resume(grip, PTRACE_CONT);

	if (rc < 0)
		return rc;
	stop = wait_for_stop(grip, within_ns);
	if (stop == STOP_NONE) {
		ptrace(PTRACE_INTERRUPT, grip->pid, NULL, NULL);
		stop = wait_for_stop(grip, STOP_NS_MAX);
	}
	if (stop == STOP_ASKED && is_trap_due(grip->pid, function)) {
		resume(grip, PTRACE_CONT);
		stop = wait_for_stop(grip, STOP_NS_MAX);
	}
	*ret_has_hit = stop == STOP_TRAP;
	return stop == STOP_TRAP || stop == STOP_ASKED ? 0 : -ESRCH;
}

int demo_grip_run_to(struct demo_grip *grip, uintptr_t function, uint64_t within_ns)
{
	unsigned char saved[sizeof(long)];
	long word;
	bool has_hit;
	int rc;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, grip->pid, (void *)function, NULL);
	if (errno)
		return -errno;
	memcpy(saved, &word, sizeof(saved));
	rc = write_text(grip->pid, function, breakpoint, sizeof(breakpoint));
	if (rc < 0)
		return rc;
	rc = run_to_breakpoint(grip, function, within_ns, &has_hit);
	if (rc == 0)
		rc = write_text(grip->pid, function, saved, sizeof(saved));
	if (rc == 0 && has_hit)
		rc = stand_at(grip, function);
	return rc < 0 ? rc : has_hit ? 0 : -ETIMEDOUT;
}

/* the stack grows downwards on these machines */
bool demo_grip_has_left(const struct demo_grip *grip)
{
	struct user_regs_struct registers;

	return get_registers(grip->pid, &registers) < 0 || registers.STACK_POINTER > grip->stack;
}

#else

int demo_grip_run_to(struct demo_grip *grip, uintptr_t function, uint64_t within_ns)
{
	(void)grip;
	(void)function;
	(void)within_ns;
	return -ENOTSUP;
}

bool demo_grip_has_left(const struct demo_grip *grip)
{
	(void)grip;
	return true;
}

#endif

int demo_grip_step(struct demo_grip *grip)
{
	int status;
	int rc = resume(grip, PTRACE_SINGLESTEP);

	if (rc < 0)
		return rc;
	if (waitpid(grip->pid, &status, __WALL) != grip->pid)
		return -ESRCH;
	return stop_of(grip, status) == STOP_ENDED ? -ESRCH : 0;
}

void demo_grip_kill(struct demo_grip *grip)
{
	kill(grip->pid, SIGKILL);
}

bool demo_grip_is_gone(struct demo_grip *grip)
{
	char state;

	/* the master is not told of a traced child's end before its tracer has been */
	if (grip->is_traced)
		return waitpid(grip->pid, NULL, __WALL | WNOHANG) != 0;
	state = state_of(grip->pid);
	return state == 'Z' || state == '?';
}
