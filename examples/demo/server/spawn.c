/* SPDX-License-Identifier: MIT */
#include "spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "render.h"
#include "web.h"

/* The master blocks what it waits for; a worker must hear SIGTERM, and leave Ctrl-C to the master,
 * which drains in the right order. */
static void take_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static int open_ledger(const struct demo_spawner *spawner, uint64_t worker,
		       struct demo_ledger *ret_ledger)
{
	const char *run_dir = spawner->app->options->run_dir;

	if (run_dir)
		return demo_ledger_open(ret_ledger, run_dir, worker);
	*ret_ledger = (struct demo_ledger){.fd = -1};
	return 0;
}

/* what ps(1) and "shmctl ps" show; the kernel keeps 15 characters */
static void take_name(const struct demo_child *child)
{
	char name[32];

	snprintf(name, sizeof(name), "prefork:%s-%u",
		 child->role == DEMO_ROLE_QUEUE ? "queue" : "web", child->index);
	prctl(PR_SET_NAME, name);
}

static int child_main(struct demo_spawner *spawner, const struct demo_child *child, uint64_t worker,
		      pid_t master)
{
	struct demo_ledger ledger;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != master)
		return 1;
	if (spawner->killer_pid)
		prctl(PR_SET_PTRACER, (unsigned long)spawner->killer_pid, 0, 0, 0);
	take_name(child);
	take_signals();
	close(spawner->reserved_fd);
	close(spawner->ledger.fd);
	if (open_ledger(spawner, worker, &ledger) < 0)
		return 1;
	if (child->role == DEMO_ROLE_QUEUE)
		return demo_render_main(spawner->app, &ledger);
	return demo_web_main(spawner->app, &ledger, child->index, spawner->port, spawner->ready_fd);
}

int demo_spawn(struct demo_spawner *spawner, struct demo_child *child)
{
	uint64_t worker = spawner->next_worker++;
	uint64_t value[3] = {child->role, 0, 0};
	pid_t master = getpid();
	pid_t pid;
	int rc;

	fflush(NULL);
	/* before fork: the worker's own ledger must not tell of a worker that nobody started */
	rc = demo_ledger_append(&spawner->ledger, DEMO_EVENT_CHILD_STARTED, worker, value);
	if (rc < 0)
		return rc;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(child_main(spawner, child, worker, master));
	atomic_store(&child->worker, worker);
	atomic_store(&child->pid, (uint32_t)pid);
	return 0;
}

static struct demo_child *find_child(struct demo_spawner *spawner, pid_t pid)
{
	for (uint32_t i = 0; i < spawner->children->count; i++)
		if (atomic_load(&spawner->children->list[i].pid) == (uint32_t)pid)
			return &spawner->children->list[i];
	return NULL;
}

int demo_reap(struct demo_spawner *spawner, struct demo_child **ret_child, bool *ret_has_failed)
{
	siginfo_t info = {0};
	struct demo_child *child;

	if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
		return 0;
	child = find_child(spawner, info.si_pid);
	if (child) {
		uint64_t value[3] = {(uint64_t)info.si_code, (uint64_t)info.si_status, 0};

		/* a full disk shows up as a death that nobody excused: red, as it should be */
		(void)!demo_ledger_append(&spawner->ledger, DEMO_EVENT_CHILD_DIED,
					  atomic_load(&child->worker), value);
		atomic_store(&child->pid, 0);
	}
	waitid(P_PID, (id_t)info.si_pid, &info, WEXITED);
	*ret_child = child;
	*ret_has_failed =
		info.si_code == CLD_EXITED ? info.si_status != 0 : info.si_status != SIGKILL;
	return 1;
}

void demo_signal_role(struct demo_spawner *spawner, enum demo_role role, int signal_number)
{
	for (uint32_t i = 0; i < spawner->children->count; i++) {
		struct demo_child *child = &spawner->children->list[i];
		uint32_t pid = atomic_load(&child->pid);

		if (child->role == (uint32_t)role && pid != 0)
			kill((pid_t)pid, signal_number);
	}
}

uint32_t demo_living(const struct demo_spawner *spawner, enum demo_role role)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < spawner->children->count; i++)
		count += spawner->children->list[i].role == (uint32_t)role &&
			 atomic_load(&spawner->children->list[i].pid) != 0;
	return count;
}
