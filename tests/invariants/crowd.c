/* SPDX-License-Identifier: MIT */
#include "invariants/crowd.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <coshm/inspect.h>

#define STOPPED_MAX 4

struct crowd_state {
	_Atomic unsigned int failures;
	_Atomic unsigned int over;
};

static struct crowd_state *state;

static struct crowd_state *state_get(void)
{
	if (!state)
		state = proc_shared_alloc(sizeof(*state));
	return state;
}

uint64_t test_run_ns(void)
{
	const char *seconds = getenv("COSHM_TEST_SECONDS");
	const double value = seconds ? strtod(seconds, NULL) : 0;

	return value > 0 ? (uint64_t)(value * 1e9) : 2 * SECOND;
}

uint64_t random_next(uint64_t *word)
{
	uint64_t z = (*word += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t random_seed(const struct member *member)
{
	static uint64_t run_seed;

	if (run_seed == 0) {
		const char *text = getenv("COSHM_TEST_SEED");

		run_seed = text ? strtoull(text, NULL, 0) : test_now_ns();
		run_seed += run_seed == 0;
	}
	if (!member)
		return run_seed;
	return run_seed + ((uint64_t)member->index << 32) + ((uint64_t)member->lifetime << 40);
}

static uint64_t pattern_word(uint64_t seed, uint64_t position)
{
	return (seed ^ (position * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xd6e8feb86659fd93);
}

void pattern_fill(uint64_t seed, void *bytes, size_t size_bytes)
{
	unsigned char *to = bytes;

	for (size_t i = 0; i < size_bytes; i += 8) {
		const uint64_t word = pattern_word(seed, i);

		memcpy(to + i, &word, size_bytes - i < 8 ? size_bytes - i : 8);
	}
}

int pattern_matches(uint64_t seed, const void *bytes, size_t size_bytes)
{
	const unsigned char *from = bytes;

	for (size_t i = 0; i < size_bytes; i += 8) {
		const uint64_t word = pattern_word(seed, i);

		if (memcmp(from + i, &word, size_bytes - i < 8 ? size_bytes - i : 8))
			return 0;
	}
	return 1;
}

int promise_broken(const char *file, int line, const char *what, long long a, long long b)
{
	fprintf(stderr, "%s:%d: broken in process %d: %s", file, line, (int)getpid(), what);
	if (a != b)
		fprintf(stderr, " (%lld, %lld)", a, b);
	fputc('\n', stderr);
	atomic_fetch_add(&state_get()->failures, 1);
	return 1;
}

int crowd_is_over(void)
{
	return atomic_load_explicit(&state_get()->over, memory_order_relaxed) ||
	       atomic_load_explicit(&state_get()->failures, memory_order_relaxed);
}

void crowd_start(struct crowd *crowd, unsigned int count, int (*body)(void *member), void *books,
		 void (*died)(void *books, unsigned int index))
{
	assert_true(count <= CROWD_MAX);
	random_seed(NULL);
	atomic_store(&state_get()->failures, 0);
	atomic_store(&state_get()->over, 0);
	memset(crowd, 0, sizeof(*crowd));
	crowd->count = count;
	crowd->body = body;
	crowd->died = died;
	for (unsigned int i = 0; i < count; i++) {
		crowd->members[i] = (struct member){.books = books, .index = i};
		crowd->procs[i] = proc_spawn(body, &crowd->members[i]);
	}
}

void crowd_kill(struct crowd *crowd, unsigned int index)
{
	struct member *member = &crowd->members[index];

	proc_kill(crowd->procs[index]);
	crowd->kills++;
	if (crowd->died)
		crowd->died(member->books, index);
	member->lifetime++;
	crowd->procs[index] = proc_spawn(crowd->body, member);
}

void crowd_torment(struct crowd *crowd, unsigned int first, unsigned int count, int torments,
		   uint64_t for_ns)
{
	const uint64_t start_ns = test_now_ns();
	uint64_t seed = random_seed(NULL) ^ start_ns;
	struct {
		unsigned int index;
		uint64_t until_ns; /* 0: free */
	} stopped[STOPPED_MAX] = {{0, 0}};

	/* At least one of each, however late this process is. */
	while ((test_now_ns() - start_ns < for_ns || ((torments & CROWD_KILL) && !crowd->kills) ||
		((torments & CROWD_STOP) && !crowd->stops)) &&
	       !crowd_is_over()) {
		const unsigned int victim = first + (unsigned int)random_below(&seed, count);
		const unsigned int slot = (unsigned int)random_below(&seed, STOPPED_MAX);
		int is_stopped = 0;

		for (unsigned int i = 0; i < STOPPED_MAX; i++) {
			if (stopped[i].until_ns && test_now_ns() >= stopped[i].until_ns) {
				proc_resume(crowd->procs[stopped[i].index]);
				stopped[i].until_ns = 0;
			}
			is_stopped |= stopped[i].until_ns && stopped[i].index == victim;
		}
		if (!is_stopped && (torments & CROWD_KILL) &&
		    (!(torments & CROWD_STOP) || random_below(&seed, 2))) {
			crowd_kill(crowd, victim);
		} else if (!is_stopped && (torments & CROWD_STOP) && !stopped[slot].until_ns) {
			if (proc_pause(crowd->procs[victim]) == 0) {
				stopped[slot].index = victim;
				stopped[slot].until_ns =
					test_now_ns() + random_below(&seed, 20 * MS) + 1;
				crowd->stops++;
			}
		}
		test_sleep_ns(random_below(&seed, 6 * MS));
	}
	for (unsigned int i = 0; i < STOPPED_MAX; i++) {
		if (stopped[i].until_ns)
			proc_resume(crowd->procs[stopped[i].index]);
	}
}

void crowd_join_within(struct crowd *crowd, uint64_t timeout_ns)
{
	const size_t failed = proc_collect_all(crowd->procs, crowd->count, timeout_ns, NULL);

	atomic_store(&state_get()->over, 1);
	assert_int_equal(atomic_load(&state_get()->failures), 0);
	assert_int_equal(failed, 0);
}

void crowd_join(struct crowd *crowd)
{
	crowd_join_within(crowd, PROC_DEADLINE_NS);
}

void crowd_finish(struct crowd *crowd)
{
	atomic_store(&state_get()->over, 1);
	crowd_join(crowd);
}

struct coshm_segment *segment_for_test(char ret_name[TEST_SEGMENT_NAME_SIZE], const char *tag,
				       uint64_t size_bytes)
{
	const struct coshm_segment_config config = {
		.struct_size_bytes = sizeof(config),
		.size_bytes = size_bytes,
	};
	static char former[TEST_SEGMENT_NAME_SIZE];
	struct coshm_segment *segment = NULL;

	/* A /dev/shm may have room for one, but not for one of each test of the program. */
	if (former[0])
		assert_int_equal(coshm_segment_unlink(former), 0);
	test_segment_name(ret_name, tag);
	memcpy(former, ret_name, sizeof(former));
	assert_int_equal(coshm_segment_create(ret_name, &config, 0, &segment), 0);
	return segment;
}

int segment_for_member(const struct member *member, const char *name,
		       struct coshm_segment *inherited, struct coshm_segment **ret_segment)
{
	if (member->index % 2 == 0) {
		*ret_segment = inherited;
		return 0;
	}
	return coshm_segment_attach(name, 0, ret_segment);
}

static void report_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level != COSHM_VERIFY_NOTE)
		fprintf(stderr, "verify: level %d, %s: %s\n", level, where, text);
}

void segment_is_sound(struct coshm_segment *segment)
{
	struct coshm_verify_result result;

	assert_int_equal(coshm_inspect_verify(segment, NULL, report_finding, NULL, &result), 0);
	assert_int_equal(result.damage, 0);

	assert_int_equal(coshm_segment_reap(segment, NULL), 0);
	assert_int_equal(coshm_inspect_verify(segment, NULL, report_finding, NULL, &result), 0);
	assert_true(result.checked_objects > 0);
	assert_int_equal(result.damage, 0);
	assert_int_equal(result.pending, 0);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifndef SANITIZED
static void on_system_call(int number, siginfo_t *info, void *context)
{
	char text[64];
	const int length =
		snprintf(text, sizeof(text), "system call %d was made\n", info->si_syscall);

	(void)number;
	(void)context;
	(void)!write(STDERR_FILENO, text, (size_t)length);
	_exit(SYSTEM_CALL_MADE);
}
#endif

int forbid_system_calls(enum system_calls but)
{
#ifndef SANITIZED
	/* The clock is a system call where the kernel's vDSO cannot read it; write is for the
	 * report above. */
	static struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	static const struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(filter[0]),
		.filter = filter,
	};
	static struct sock_filter strict_filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	static const struct sock_fprog strict_program = {
		.len = sizeof(strict_filter) / sizeof(strict_filter[0]),
		.filter = strict_filter,
	};
	const struct sigaction action = {.sa_sigaction = on_system_call, .sa_flags = SA_SIGINFO};

	/* Of two filters the stricter one decides. */
	if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    (but == SYSTEM_CALLS_NONE &&
	     prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &strict_program)) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
#endif
	(void)but;
	return 0;
}
