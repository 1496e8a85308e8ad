/* SPDX-License-Identifier: MIT */
#include "hint_ring_flow.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "support/procs.h"

static pid_t start(void *memory, void (*work)(struct flow *flow))
{
	pid_t pid = fork();

	if (pid == 0) {
		struct flow flow;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		flow_bind(&flow, memory);
		work(&flow);
		_exit(0);
	}
	return pid;
}

static void rest_us(long for_us)
{
	const struct timespec for_a_while = {.tv_nsec = for_us * 1000};

	nanosleep(&for_a_while, NULL);
}

/* 0 if the process ends by itself. */
static int finish(pid_t pid)
{
	int status;

	for (uint64_t start_ns = test_now_ns(); test_now_ns() - start_ns < PROC_DEADLINE_NS;) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		rest_us(1000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

/*
 * Eight records: a process that is stopped for a moment always sleeps over many laps. Whoever is stopped owns at most
 * one record, so the other seven must go on; and when it wakes up, its old view of the ring must not do harm.
 */
static void stopped_processes_block_nobody_and_wake_up_harmless(void **state)
{
	struct flow flow;
	pid_t pids[4];
	uint64_t word, before;
	int free_count = 0, rounds_without_progress = 0, unfinished = 0;
	void *memory = mmap(NULL, flow_size_bytes(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	flow_initialise(&flow, memory);
	coshm__a32_store_relaxed(&flow.shared->producers, 2);
	for (int i = 0; i < 4; i++) {
		pids[i] = start(memory, i % 2 ? flow_consume_until_all_is_done
					      : flow_produce_until_stopped);
		assert_true(pids[i] > 0);
	}
	for (int round = 0; round < 150; round++) {
		pid_t victim = pids[round % 4];

		rest_us(500 + round * 7);
		kill(victim, SIGSTOP);
		before = coshm__a64_load_relaxed(&flow.shared->consumed);
		/* progress, not speed: the machine may be busy */
		for (uint64_t start_ns = test_now_ns();
		     test_now_ns() - start_ns < PROC_DEADLINE_NS;) {
			if (coshm__a64_load_relaxed(&flow.shared->consumed) >= before + 100)
				break;
			rest_us(500);
		}
		if (coshm__a64_load_relaxed(&flow.shared->consumed) < before + 100)
			rounds_without_progress++;
		kill(victim, SIGCONT);
		if (rounds_without_progress > 0)
			break;
	}
	coshm__a32_store_relaxed(&flow.shared->stop_producing, 1);
	for (int i = 0; i < 4; i++)
		unfinished += finish(pids[i]) != 0;
	assert_int_equal(rounds_without_progress, 0);
	assert_int_equal(unfinished, 0);
	assert_int_equal(coshm__a64_load_relaxed(&flow.shared->torn), 0);
	assert_int_equal(coshm__a64_load_relaxed(&flow.shared->consumed),
			 coshm__a64_load_relaxed(&flow.shared->produced));
	while (flow_take(&flow, &flow.free, FLOW_FREE, FLOW_BUILD, &word) >= 0)
		free_count++;
	assert_int_equal(free_count, FLOW_RECORDS);
	munmap(memory, flow_size_bytes());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stopped_processes_block_nobody_and_wake_up_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
