/* SPDX-License-Identifier: MIT */
/* As many members as a segment can have, at once: one more is refused by name, and the death of many makes room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "starved/stock.h"
#include "support/shmfs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * A thousand processes keep a small machine busy for minutes. So most members are stand-ins: slots in the middle, all of
 * which one process keeps as a member keeps its own.
 */
#define MEMBERS	       1023 /* the most that a segment can have */
#define STAND_IN_FIRST 80
#define STAND_INS      900
#define NURSES	       4
#define CROWD	       (MEMBERS - STAND_INS - 1) /* the test itself is one */
#define COMERS	       60
#define GENERATION     5

struct shared {
	_Atomic unsigned int born, refused, unborn, standing;
};

static struct shared *shared;
static struct stock stock;
static char name[TEST_SEGMENT_NAME_SIZE];
static int until_closed
	[2]; /* a pipe: a thousand that look at a word from time to time keep a machine busy */

/* What makes it a member. All at once it is no more than that: a thousand on two CPUs keep each other waiting. */
static int takes_part(struct stock *own, unsigned int index)
{
	GIVES_AT_LAST(0, coshm_cache_set(own->cache, &index, sizeof(index), "here", 4, 0));
	GIVES(1, coshm_limiter_try(own->limiter, &index, sizeof(index), 1, NULL));
	return 0;
}

/* Some come by name, the others inherit their handles. */
static int lives(unsigned int index)
{
	struct stock own = stock;
	char byte;
	int error = 0;

	if (index % 8 == 0)
		error = stock_open(&own, name, 0);
	if (!error)
		error = takes_part(&own, index);
	if (error) {
		atomic_fetch_add(&shared->refused, 1);
		return 1;
	}
	atomic_fetch_add(&shared->born, 1);
	while (read(until_closed[0], &byte, 1) < 0 && errno == EINTR)
		;
	return (index % 8 == 0 && stock_close(&own)) || stock_close(&stock);
}

struct nurse {
	unsigned int first, end;
};

/* Bears some of them and waits for all. */
static int nurses(void *arg)
{
	const struct nurse *nurse = arg;
	int status, wrong = 0;
	pid_t pid;

	close(until_closed[1]);
	for (unsigned int i = nurse->first; i < nurse->end; i += NURSES) {
		pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(lives(i));
		}
		if (pid < 0)
			atomic_fetch_add(&shared->unborn, 1);
	}
	while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR) {
		if (pid > 0 && status)
			wrong++;
	}
	return wrong ? 1 : 0;
}

/* The kernel is told of all at once; the rest as in member.c. */
static int stands_in(void *unused)
{
	struct flock bytes = {.l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = (off_t)(COSHM__LOCK_BYTE_MEMBERS + STAND_IN_FIRST),
			      .l_len = STAND_INS};
	char path[TEST_SEGMENT_NAME_SIZE + 16];
	struct coshm__header_shm *header;
	struct coshm__member_shm *members;
	struct coshm__thread_shm *threads;
	int fd;

	(void)unused;
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	fd = open(path, O_RDWR);
	NEED(fd >= 0 && fcntl(fd, F_OFD_SETLK, &bytes) == 0);
	header = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	NEED(header != MAP_FAILED);
	members = (void *)((unsigned char *)header + header->members_offset);
	threads = (void *)((unsigned char *)header + header->threads_offset);
	for (uint32_t slot = STAND_IN_FIRST; slot < STAND_IN_FIRST + STAND_INS; slot++) {
		uint64_t word = coshm__member_word(GENERATION, COSHM__MEMBER_ALIVE);

		NEED(coshm__a64_load_acquire(&members[slot].word) == 0);
		coshm__a32_store_relaxed(&threads[slot].owner, coshm__member_id(slot, word));
		coshm__a64_store_release(&members[slot].word, word);
	}
	coshm__a32_store_seq_cst(&header->member_high_water, STAND_IN_FIRST + STAND_INS);
	atomic_store(&shared->standing, 1);
	for (;;)
		pause();
}

static void bear(struct nurse *nurse, struct proc **procs, unsigned int first, unsigned int end)
{
	for (unsigned int i = 0; i < NURSES; i++) {
		nurse[i] = (struct nurse){.first = first + i, .end = end};
		procs[i] = proc_spawn(nurses, &nurse[i]);
	}
}

static int comes_to(const _Atomic unsigned int *count, unsigned int wanted)
{
	const uint64_t start_ns = test_now_ns();

	while (atomic_load(count) < wanted && !atomic_load(&shared->refused) &&
	       !atomic_load(&shared->unborn)) {
		if (test_now_ns() - start_ns > PROC_DEADLINE_NS)
			break;
		test_sleep_ns(1000000);
	}
	return atomic_load(count) == wanted;
}

static int one_more_is_refused(void *arg)
{
	struct coshm_segment *segment = NULL;
	uint64_t count;

	(void)arg;
	hear_start();
	GIVES(-EUSERS, coshm_segment_attach(name, 0, &segment));
	NEED(segment == NULL && strstr(hear_text(), "member_count_max"));
	NEED(strstr(coshm_strerror(-EUSERS), "member_count_max"));
	GIVES(-EUSERS, coshm_cache_count(stock.cache, &count));
	/* Looking is free. */
	GIVES(0, coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &segment));
	GIVES(0, coshm_segment_detach(segment));
	return 0;
}

static uint32_t members(void)
{
	struct coshm_segment_info info = {0};

	(void)!coshm_segment_info(stock.segment, &info);
	return info.member_count;
}

static void full_house_refuses_one_more_and_deaths_by_the_hundred_make_room(void **state)
{
	struct nurse first[NURSES], second[NURSES];
	struct proc *first_procs[NURSES], *second_procs[NURSES], *stand_in;

	(void)state;
	shared = proc_shared_alloc(sizeof(*shared));
	assert_int_equal(pipe(until_closed), 0);
	test_segment_name(name, "crowd");
	assert_int_equal(stock_open_for(&stock, name, 0, MEMBERS, 0), 0);
	stand_in = proc_spawn(stands_in, NULL);
	assert_true(comes_to(&shared->standing, 1));
	bear(first, first_procs, 0, CROWD);
	if (!comes_to(&shared->born, CROWD) && atomic_load(&shared->unborn)) {
		close(until_closed[1]);
		proc_collect_all(first_procs, NURSES, PROC_DEADLINE_NS, NULL);
		print_message("# skip: a limit of processes below %d\n", CROWD);
		skip();
	}
	assert_int_equal(atomic_load(&shared->born), CROWD);
	assert_int_equal(members(), MEMBERS);
	assert_int_equal(run_in_child(one_more_is_refused, NULL), 0);
	assert_int_equal(stock_use(&stock, MEMBERS), 0);
	proc_kill(stand_in);
	/* Nobody has cleaned up so far: those who come do it. */
	atomic_store(&shared->born, 0);
	bear(second, second_procs, 0, COMERS);
	assert_true(comes_to(&shared->born, COMERS));
	assert_int_equal(atomic_load(&shared->refused), 0);
	assert_int_equal(coshm_segment_reap(stock.segment, NULL), 0);
	assert_int_equal(members(), MEMBERS - STAND_INS + COMERS);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	close(until_closed[1]);
	assert_int_equal(proc_collect_all(first_procs, NURSES, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(proc_collect_all(second_procs, NURSES, PROC_DEADLINE_NS, NULL), 0);
	assert_int_equal(members(), 1);
	assert_int_equal(stock_verify(stock.segment, 0), 0);
	assert_int_equal(stock_close(&stock), 0);
	assert_int_equal(coshm_segment_unlink(name), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_house_refuses_one_more_and_deaths_by_the_hundred_make_room),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}
