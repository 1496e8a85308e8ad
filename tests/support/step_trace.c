/* SPDX-License-Identifier: MIT */
/* One process under ptrace. Tracer and tracee share a CPU: each step is two switches between them. */
#include "support/step_local.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of one copy by a single instruction; the rest is then made at once. */
#define REPETITIONS_MAX 40

/* Of who goes on at full speed: longer than any wait of the library. */
#define PATIENCE_S 30

static volatile sig_atomic_t out_of_patience;

static void lose_patience(int signal)
{
	(void)signal;
	out_of_patience = 1;
}

/* From now on wait_stop gives up after a while; until it is told not to. */
static void be_patient(int yes)
{
	struct itimerval span = {.it_value = {.tv_sec = yes ? PATIENCE_S : 0}};
	struct sigaction action = {.sa_handler = lose_patience};

	out_of_patience = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &span, NULL);
}

/* Waits for the next stop; leaves an end to be collected by proc_collect. 1 stopped, 0 it has ended */
static int wait_stop(pid_t pid, int *ret_signal)
{
	siginfo_t info;

	do
		memset(&info, 0, sizeof(info));
	while (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT) && errno == EINTR &&
	       !out_of_patience);
	if (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED ||
	    info.si_code == CLD_DUMPED || info.si_pid == 0)
		return 0;
	*ret_signal = info.si_status & 0x7f;
	return 1;
}

#if defined(__x86_64__)
static uintptr_t counter_of(pid_t pid)
{
	return (uintptr_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip),
				 NULL);
}

/* An instruction: where its opcode is, and what stands before it. */
struct instruction {
	const unsigned char *opcode;
	unsigned int rex; /* bits R, X, B of it, or of what stands for it */
	int is_0f, is_vex, is_unknown;
};

static struct instruction decode(const unsigned char *code)
{
	struct instruction i = {.rex = 0};

	while (*code == 0x66 || *code == 0xf0 || *code == 0xf2 || *code == 0xf3)
		code++;
	if ((*code & 0xf0) == 0x40)
		i.rex = *code++ & 7u;
	if (code[0] == 0xc5) {
		i.is_vex = i.is_0f = 1;
		i.opcode = code + 2;
	} else if (code[0] == 0xc4) {
		i.is_vex = i.is_0f = 1;
		i.rex = (unsigned int)(~code[1] >> 5) & 7u;
		i.is_unknown = (code[1] & 0x1f) != 1;
		i.opcode = code + 3;
	} else if (code[0] == 0x0f) {
		i.is_0f = 1;
		i.is_unknown = code[1] == 0x38 || code[1] == 0x3a;
		i.opcode = code + 1;
	} else {
		i.is_unknown = code[0] == 0x62;
		i.opcode = code;
	}
	return i;
}

/* 0: for sure it stores nothing, should its operand be memory. The stack does not count: it is nobody's segment. */
static int may_store_0f(const struct instruction *i)
{
	unsigned char opcode = *i->opcode;

	switch (opcode) {
	case 0x1e: /* endbr, nop */
	case 0x1f:
	case 0x10: /* loads */
	case 0x12:
	case 0x14:
	case 0x16:
	case 0x28:
	case 0x6e:
	case 0x6f:
	case 0x74: /* comparisons */
	case 0x75:
	case 0x76:
	case 0x77: /* vzeroupper */
	case 0xd7: /* pmovmskb */
	case 0xda:
	case 0xde:
	case 0xdb: /* logic */
	case 0xeb:
	case 0xef:
	case 0x31: /* rdtsc */
	case 0xa2: /* cpuid */
	case 0xa3: /* bt */
	case 0xaf: /* imul */
	case 0xb6: /* movzx, movsx, bsf, bsr */
	case 0xb7:
	case 0xbc:
	case 0xbd:
	case 0xbe:
	case 0xbf:
		return 0;
	}
	return !((opcode & 0xf0) == 0x40 || (opcode & 0xf0) == 0x80 || /* cmov, jcc */
		 (opcode >= 0x51 && opcode <= 0x6d) || (opcode >= 0xc8 && opcode <= 0xcf));
}

static int may_store_1(const struct instruction *i)
{
	unsigned char opcode = *i->opcode, extension = i->opcode[1] >> 3 & 7;

	if ((opcode >= 0x50 && opcode <= 0x5f) || (opcode & 0xf0) == 0x70 ||
	    (opcode & 0xf0) == 0xb0 || (opcode >= 0x90 && opcode <= 0x99))
		return 0;
	if (opcode < 0x40)
		/* of each eight: two store to their first operand, the others to registers; cmp stores never */
		return opcode < 0x38 && (opcode & 7) < 2;
	switch (opcode) {
	case 0x63: /* movsxd */
	case 0x68: /* push */
	case 0x6a:
	case 0x69: /* imul */
	case 0x6b:
	case 0x84: /* test */
	case 0x85:
	case 0x8a: /* mov to a register */
	case 0x8b:
	case 0x8d: /* lea */
	case 0xa8: /* test */
	case 0xa9:
	case 0xc2: /* ret, leave, call, jmp */
	case 0xc3:
	case 0xc9:
	case 0xe8:
	case 0xe9:
	case 0xeb:
		return 0;
	case 0x80: /* 7: cmp */
	case 0x81:
	case 0x83:
		return extension != 7;
	case 0xf6: /* 2 and 3: not and neg */
	case 0xf7:
		return extension == 2 || extension == 3;
	case 0xff: /* 2 to 6: call, jmp, push */
		return extension < 2;
	}
	return 1;
}

static int has_modrm_1(unsigned char opcode)
{
	return opcode < 0x40 || (opcode >= 0x80 && opcode <= 0x8f) || (opcode & 0xfe) == 0xc0 ||
	       (opcode & 0xfe) == 0xc6 || (opcode & 0xfc) == 0xd0 || (opcode & 0xf6) == 0xf6;
}

static uint64_t register_of(const struct user_regs_struct *r, unsigned int number)
{
	const uint64_t all[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				  r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};

	return all[number & 15];
}

static int64_t signed_at(const unsigned char *at, int bytes)
{
	int32_t word;

	if (bytes == 1)
		return (int8_t)*at;
	memcpy(&word, at, sizeof(word));
	return word;
}

/* The address that the operand behind @modrm stands for. 0: a register, or the program's own data */
static uintptr_t address_of(pid_t pid, const unsigned char *modrm, unsigned int rex)
{
	unsigned int mod = *modrm >> 6, rm = *modrm & 7u, base = rm;
	struct user_regs_struct r;
	uint64_t address = 0;

	if (mod == 3 || (mod == 0 && rm == 5))
		return 0;
	if (ptrace(PTRACE_GETREGS, pid, NULL, &r))
		return 0;
	modrm++;
	if (rm == 4) {
		unsigned int sib = *modrm++, index = (sib >> 3 & 7u) | (rex & 2u) << 2;

		base = sib & 7u;
		if (index != 4)
			address = register_of(&r, index) << (sib >> 6);
	}
	if (mod == 0 && base == 5)
		return address + (uint64_t)signed_at(modrm, 4);
	address += register_of(&r, base | (rex & 1u) << 3);
	return address + (uint64_t)(mod == 1   ? signed_at(modrm, 1)
				    : mod == 2 ? signed_at(modrm, 4)
					       : 0);
}

static int is_syscall(const unsigned char *code)
{
	return code[0] == 0x0f && code[1] == 0x05;
}

/* What the instruction at @pc stores, if it does. */
static enum step_store store_of(pid_t pid, uintptr_t pc, uintptr_t *ret_address)
{
	/* It was forked from here and has not executed anything else since: its code is where ours is. */
	const unsigned char *code = (const unsigned char *)pc;
	struct instruction i = decode(code);

	*ret_address = 0;
	if (is_syscall(code))
		return STEP_STORES_ANYWHERE;
	/* through fs or gs: its own */
	if (*code == 0x64 || *code == 0x65)
		return STEP_STORES_NOTHING;
	if (i.is_unknown)
		return STEP_STORES_ANYWHERE;
	if (!(i.is_0f ? may_store_0f(&i) : may_store_1(&i)))
		return STEP_STORES_NOTHING;
	if (!i.is_0f && !has_modrm_1(*i.opcode))
		return STEP_STORES_ANYWHERE;
	*ret_address = address_of(pid, i.opcode + 1, i.rex);
	return *ret_address ? STEP_STORES_THERE : STEP_STORES_NOTHING;
}

/* May it read or write memory through an operand that address_of can tell? The copies of payloads need not be told. */
static int has_memory_operand(const struct instruction *i)
{
	unsigned char opcode = *i->opcode;

	if (i->is_unknown)
		return 0;
	if (i->is_0f)
		return !(opcode == 0x05 || opcode == 0x0d || opcode == 0x1e || opcode == 0x1f ||
			 opcode == 0x31 || opcode == 0x77 || opcode == 0xa2 ||
			 (opcode & 0xf0) == 0x80 || (opcode >= 0xc8 && opcode <= 0xcf));
	if (opcode == 0x8d) /* lea */
		return 0;
	return opcode < 0x40
		       ? (opcode & 7) < 4
		       : opcode == 0x63 || opcode == 0x69 || opcode == 0x6b || has_modrm_1(opcode);
}

/* The address that the instruction at @pc reads or writes, 0 if none is of interest. */
static uintptr_t touched_by(pid_t pid, uintptr_t pc)
{
	const unsigned char *code = (const unsigned char *)pc;
	struct instruction i = decode(code);

	if (*code == 0x64 || *code == 0x65 || !has_memory_operand(&i))
		return 0;
	return address_of(pid, i.opcode + 1, i.rex);
}

/* Length of a repeated string operation, 0 of all others: the CPU stops after each repetition. */
static unsigned int repeats(const unsigned char *code)
{
	unsigned int length = 1;

	if (code[0] != 0xf3 && code[0] != 0xf2)
		return 0;
	if ((code[length] & 0xf0) == 0x40)
		length++;
	return code[length] == 0xa4 || code[length] == 0xa5 || code[length] == 0xaa ||
			       code[length] == 0xab
		       ? length + 1
		       : 0;
}

/* To the instruction at @pc, by a breakpoint there. 1; 0 it stopped elsewhere, by a signal; negative */
static int run_to(pid_t pid, uintptr_t pc, int *ret_signal)
{
	long before, word;

	errno = 0;
	before = ptrace(PTRACE_PEEKTEXT, pid, pc, NULL);
	word = (before & ~0xffL) | 0xcc;
	if (errno || ptrace(PTRACE_POKETEXT, pid, pc, word) ||
	    ptrace(PTRACE_CONT, pid, NULL, NULL) || !wait_stop(pid, ret_signal) ||
	    ptrace(PTRACE_POKETEXT, pid, pc, before))
		return -1;
	if (*ret_signal != SIGTRAP)
		return 0;
	return ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rip), pc) ? -1 : 1;
}
#else
/* Nothing is stepped here, see step_lacks. */
static uintptr_t counter_of(pid_t pid)
{
	(void)pid;
	return 0;
}

static int is_syscall(const unsigned char *code)
{
	(void)code;
	return 1;
}

static enum step_store store_of(pid_t pid, uintptr_t pc, uintptr_t *ret_address)
{
	(void)pid;
	(void)pc;
	(void)ret_address;
	return STEP_STORES_ANYWHERE;
}

static uintptr_t touched_by(pid_t pid, uintptr_t pc)
{
	(void)pid;
	(void)pc;
	return 0;
}

static unsigned int repeats(const unsigned char *code)
{
	(void)code;
	return 0;
}

static int run_to(pid_t pid, uintptr_t pc, int *ret_signal)
{
	(void)pid;
	(void)pc;
	(void)ret_signal;
	return -1;
}
#endif

/* Where the tracee has the file mapped; changes with its system calls only. */
static void find_mappings(struct step_tracee *tracee)
{
	char path[64], line[512];
	FILE *maps;

	tracee->mapping_count = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)proc_pid(tracee->proc));
	maps = fopen(path, "r");
	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long long from, to, offset;

		if (tracee->path && strstr(line, tracee->path) &&
		    sscanf(line, "%llx-%llx %*s %llx", &from, &to, &offset) == 3 &&
		    tracee->mapping_count < STEP_MAPPINGS_MAX)
			tracee->mappings[tracee->mapping_count++] =
				(struct step_mapping){(uintptr_t)from, (uintptr_t)to, offset};
	}
	if (maps)
		fclose(maps);
}

/* Is the address of the last store in the file? Then where. */
static int is_in_file(const struct step_tracee *tracee, uintptr_t address, uint64_t *ret_offset)
{
	for (unsigned int i = 0; i < tracee->mapping_count; i++) {
		const struct step_mapping *m = &tracee->mappings[i];

		if (address >= m->from && address < m->to) {
			*ret_offset = address - m->from + m->offset;
			return 1;
		}
	}
	return 0;
}

struct step_talk *step_own_talk;

static int tracee_body(void *arg)
{
	struct step_tracee *tracee = arg;
	struct step_talk *talk = tracee->talk;

	step_own_talk = talk;
	step_message = talk->message;
	step_leap_ns = tracee->leap_ns;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) {
		atomic_store(&talk->phase, STEP_UNTRACEABLE);
		return 1;
	}
	if (tracee->before && tracee->before(tracee->world)) {
		atomic_store(&talk->phase, STEP_FAILED);
		return 2;
	}
	atomic_store(&talk->phase, STEP_READY);
	raise(SIGSTOP);
	atomic_store(&talk->phase, STEP_INSIDE);
	talk->result = tracee->inside(tracee->world);
	atomic_store(&talk->phase, STEP_DONE);
	/* Not to end: a member that ends is another story. */
	for (;;)
		raise(SIGSTOP);
}

static int resume(pid_t pid, int how, int signal)
{
	return ptrace((enum __ptrace_request)how, pid, NULL, (void *)(uintptr_t)signal) ? -errno
											: 0;
}

/* The death, or a signal that would be one. */
static int died(struct step_tracee *tracee, int signal)
{
	if (!*tracee->talk->message)
		snprintf(tracee->talk->message, sizeof(tracee->talk->message),
			 signal ? "it got signal %d" : "it ended in phase %d",
			 signal ? signal : atomic_load(&tracee->talk->phase));
	return -1;
}

int step_trace_begin(struct step_tracee *tracee)
{
	int signal;
	pid_t pid;

	*tracee->talk = (struct step_talk){.result = 0};
	tracee->steps = 0;
	tracee->pc = 0;
	tracee->proc = proc_spawn(tracee_body, tracee);
	pid = proc_pid(tracee->proc);
	for (;;) {
		if (!wait_stop(pid, &signal))
			return died(tracee, 0);
		if (signal == SIGSTOP)
			break;
		if (signal == SIGSEGV || signal == SIGBUS || signal == SIGABRT)
			return died(tracee, signal);
		if (resume(pid, PTRACE_CONT, signal))
			return died(tracee, 0);
	}
	while (atomic_load(&tracee->talk->phase) == STEP_READY) {
		if (resume(pid, PTRACE_SINGLESTEP, 0) || !wait_stop(pid, &signal))
			return died(tracee, 0);
	}
	find_mappings(tracee);
	return 0;
}

int step_trace_next(struct step_tracee *tracee)
{
	pid_t pid = proc_pid(tracee->proc);
	uintptr_t address, pc = counter_of(pid);
	unsigned int repeated = pc == tracee->pc ? repeats((const unsigned char *)pc) : 0;
	int signal, was_syscall;

	tracee->store = store_of(pid, pc, &address);
	if (tracee->store == STEP_STORES_THERE &&
	    !is_in_file(tracee, address, &tracee->store_offset))
		tracee->store = STEP_STORES_NOTHING;
	was_syscall = !pc || is_syscall((const unsigned char *)pc);
	tracee->was_syscall = was_syscall;
	if (tracee->wants_touches) {
		address = touched_by(pid, pc);
		tracee->touches = was_syscall ||
				  (address && is_in_file(tracee, address, &tracee->touch_offset));
	}
	tracee->repetitions = repeated ? tracee->repetitions + 1 : 0;
	tracee->pc = pc;
	if (tracee->repetitions > REPETITIONS_MAX) {
		if (run_to(pid, pc + repeated, &signal) <= 0)
			return died(tracee, 0);
	} else if (resume(pid, PTRACE_SINGLESTEP, 0) || !wait_stop(pid, &signal)) {
		return died(tracee, 0);
	}
	if (signal != SIGTRAP && signal != SIGSTOP)
		return died(tracee, signal);
	if (was_syscall)
		find_mappings(tracee);
	if (atomic_load(&tracee->talk->phase) == STEP_DONE)
		return 0;
	tracee->steps++;
	return 1;
}

static int run_to_occurrence(struct step_tracee *tracee, uintptr_t pc, uint64_t occurrence)
{
	pid_t pid = proc_pid(tracee->proc);
	int signal, reached = counter_of(pid) == pc;

	for (;;) {
		if (reached && --occurrence == 0)
			return 1;
		/* Over it; a repeated one is reached but once. */
		while (reached && counter_of(pid) == pc)
			if (resume(pid, PTRACE_SINGLESTEP, 0) || !wait_stop(pid, &signal) ||
			    signal != SIGTRAP)
				return died(tracee, 0);
		reached = run_to(pid, pc, &signal);
		if (reached < 0)
			return died(tracee, 0);
		if (!reached && signal == SIGSTOP && atomic_load(&tracee->talk->phase) == STEP_DONE)
			return 0;
		if (!reached)
			return died(tracee, signal);
	}
}

int step_trace_run_to(struct step_tracee *tracee, uintptr_t pc, uint64_t occurrence)
{
	int result;

	be_patient(1);
	result = run_to_occurrence(tracee, pc, occurrence);
	be_patient(0);
	return result;
}

uintptr_t step_trace_counter(const struct step_tracee *tracee)
{
	return counter_of(proc_pid(tracee->proc));
}

int step_trace_go_on(struct step_tracee *tracee)
{
	int signal = 0, stopped = 1;

	be_patient(1);
	while (stopped && atomic_load(&tracee->talk->phase) != STEP_DONE) {
		if (signal && signal != SIGTRAP && signal != SIGSTOP)
			break;
		stopped = resume(proc_pid(tracee->proc), PTRACE_CONT, 0) == 0 &&
			  wait_stop(proc_pid(tracee->proc), &signal);
	}
	if (out_of_patience)
		snprintf(tracee->talk->message, sizeof(tracee->talk->message),
			 "it does not come to its end");
	be_patient(0);
	if (stopped && atomic_load(&tracee->talk->phase) == STEP_DONE)
		return 0;
	return died(tracee, stopped ? signal : 0);
}

void step_trace_kill(struct step_tracee *tracee)
{
	if (tracee->proc)
		proc_kill(tracee->proc);
	tracee->proc = NULL;
}
