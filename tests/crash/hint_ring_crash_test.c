/* SPDX-License-Identifier: MIT */
#include "base/crash.h"
#include "structs/hint_ring.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define RECORDS 4
#define ENTRIES 8

static struct coshm__hint_ring_shm *shm;

static void bind_ring(struct coshm__hint_ring *ring)
{
	memset(ring, 0, sizeof(*ring));
	ring->shm = shm;
	ring->entry_count = ENTRIES;
}

static int make_ring(void **state)
{
	struct coshm__hint_ring ring;

	(void)state;
	shm = mmap(NULL, coshm__hint_ring_size_bytes(RECORDS), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shm == MAP_FAILED)
		return -1;
	bind_ring(&ring);
	coshm__hint_ring_initialise(&ring, 0);
	return 0;
}

static int drop_ring(void **state)
{
	(void)state;
	return munmap(shm, coshm__hint_ring_size_bytes(RECORDS));
}

static int take(struct coshm__hint_ring *ring)
{
	uint64_t position;
	uint32_t index;

	if (!coshm__hint_ring_peek(ring, &position, &index))
		return -1;
	coshm__hint_ring_advance(ring, position);
	return (int)index;
}

/* A child that pushes 77, or takes one hint, and meets @signal at @point. Returns when it has. */
static pid_t start(enum coshm__crash_point point, int signal, int pushes)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct coshm__hint_ring ring;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(600);
		bind_ring(&ring);
		coshm__crash_arm(point, signal, 1);
		_exit(pushes ? coshm__hint_ring_push(&ring, 77) != 0 : take(&ring) < 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	if (signal == SIGSTOP)
		assert_true(WIFSTOPPED(status));
	else
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return pid;
}

static void resume(pid_t pid)
{
	int status;

	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* If a pusher only checked "not my cycle yet", it would put 77 in place of a newer hint here. */
static void pusher_that_slept_for_laps_at_any_point_overwrites_no_newer_hint(void **state)
{
	static const enum coshm__crash_point points[] = {COSHM__CRASH_HINT_PUSH_AIMED,
							 COSHM__CRASH_HINT_PUSHED,
							 COSHM__CRASH_HINT_TAIL_MOVED};

	for (int p = 0; p < 3; p++) {
		for (int laps = 0; laps <= 2; laps++) {
			for (int ahead = 0; ahead < ENTRIES; ahead++) {
				struct coshm__hint_ring ring;
				int seen_77 = 0, next = 100;
				pid_t pid;

				make_ring(state);
				bind_ring(&ring);
				pid = start(points[p], SIGSTOP, 1);
				if (p > 0)
					assert_int_equal(take(&ring), 77);
				for (int i = 0; i < laps * ENTRIES + ahead; i++) {
					assert_int_equal(coshm__hint_ring_push(&ring, 5), 0);
					assert_int_equal(take(&ring), 5);
				}
				for (uint32_t i = 100; i < 100 + ENTRIES - 1; i++)
					assert_int_equal(coshm__hint_ring_push(&ring, i), 0);
				resume(pid);
				for (int hint; (hint = take(&ring)) >= 0;) {
					if (hint == 77) {
						seen_77++;
						continue;
					}
					assert_int_equal(hint, next);
					next++;
				}
				assert_int_equal(next, 100 + ENTRIES - 1);
				assert_int_equal(seen_77, p == 0);
				drop_ring(state);
			}
		}
	}
}

static void ring_goes_on_after_a_pusher_killed_at_any_point(void **state)
{
	static const enum coshm__crash_point points[] = {COSHM__CRASH_HINT_PUSH_AIMED,
							 COSHM__CRASH_HINT_PUSHED,
							 COSHM__CRASH_HINT_TAIL_MOVED};

	for (int p = 0; p < 3; p++) {
		struct coshm__hint_ring ring;

		make_ring(state);
		bind_ring(&ring);
		start(points[p], SIGKILL, 1);
		for (uint32_t i = 0; i < ENTRIES - 1; i++)
			assert_int_equal(coshm__hint_ring_push(&ring, i), 0);
		if (p > 0)
			assert_int_equal(take(&ring), 77);
		for (int i = 0; i < ENTRIES - 1; i++)
			assert_int_equal(take(&ring), i);
		assert_int_equal(take(&ring), -1);
		drop_ring(state);
	}
}

static void ring_goes_on_after_a_taker_stopped_or_killed_at_its_point(void **state)
{
	static const int signals[] = {SIGKILL, SIGSTOP};

	for (int s = 0; s < 2; s++) {
		struct coshm__hint_ring ring;
		pid_t pid;

		make_ring(state);
		bind_ring(&ring);
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(coshm__hint_ring_push(&ring, i), 0);
		pid = start(COSHM__CRASH_HINT_HEAD_MOVED, signals[s], 0);
		for (int i = 1; i < 3; i++)
			assert_int_equal(take(&ring), i);
		assert_int_equal(take(&ring), -1);
		if (signals[s] == SIGSTOP)
			resume(pid);
		drop_ring(state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pusher_that_slept_for_laps_at_any_point_overwrites_no_newer_hint),
		cmocka_unit_test(ring_goes_on_after_a_pusher_killed_at_any_point),
		cmocka_unit_test(ring_goes_on_after_a_taker_stopped_or_killed_at_its_point),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
