/* SPDX-License-Identifier: MIT */
#include "master.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/clock.h"
#include "../common/serverfile.h"
#include "killer.h"
#include "socket.h"
#include "spawn.h"

/* a worker that fails by itself is started again after a pause, not in a loop that eats the CPU */
#define RESTART_PAUSE_NS (500 * DEMO_NS_PER_MS)

#define READY_MS_MAX 10000
#define EMPTY_NS_MAX (20 * DEMO_NS_PER_S)
#define TICK_NS	     (10 * DEMO_NS_PER_MS)

/* a task can be between two states at the moment of a look; not at all of several */
#define EMPTY_LOOKS 3

enum phase {
	PHASE_RUNNING,
	PHASE_SETTLING,	      /* SIGUSR1: no more kills, and the queue runs empty */
	PHASE_DRAINING_WEB,   /* SIGTERM: first nobody accepts, */
	PHASE_DRAINING_TASKS, /* then what was accepted is done, */
	PHASE_DRAINING_QUEUE, /* then those who did it leave */
	PHASE_OVER,
};

struct master {
	const struct demo_web_options *options;
	const struct demo_traffic *traffic;
	struct demo_app app;
	struct demo_spawner spawner;
	struct demo_children *children;
	uint64_t restart_at_ns[DEMO_CHILDREN_MAX];
	enum phase phase;
	uint64_t phase_until_ns;
	int empty_looks;
	int go_fd;
	bool has_damage;
};

static int fail(const char *what, int rc)
{
	fprintf(stderr, "prefork-web: %s: %s\n", what, coshm_strerror(rc));
	return rc;
}

/* Before the segment exists, so that the killer has no handle on it but its own. */
static int start_killer(struct master *master)
{
	int go[2];
	pid_t pid;

	if (master->options->kill_every_ms == 0)
		return 0;
	if (pipe(go) != 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(go[1]);
		_exit(demo_killer_main(master->options, master->children, go[0]));
	}
	close(go[0]);
	master->go_fd = go[1];
	master->spawner.killer_pid = pid;
	return 0;
}

static void stop_killer(struct master *master)
{
	pid_t pid = master->spawner.killer_pid;

	if (pid == 0)
		return;
	master->spawner.killer_pid = 0;
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
}

static void add_children(struct demo_children *children, enum demo_role role, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct demo_child *child = &children->list[children->count++];

		child->role = role;
		child->index = i;
	}
}

static int make_table(struct master *master)
{
	void *memory = mmap(NULL, sizeof(*master->children), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	master->children = memory;
	add_children(master->children, DEMO_ROLE_WEB, master->options->web_workers);
	add_children(master->children, DEMO_ROLE_QUEUE, master->options->queue_workers);
	return 0;
}

/* one byte from each web worker; a worker that ends instead has said why */
static int wait_until_ready(struct master *master, int fd)
{
	uint64_t until_ns = demo_now_ns() + READY_MS_MAX * DEMO_NS_PER_MS;
	uint32_t missing = master->options->web_workers;
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	siginfo_t info = {0};
	char byte;

	while (missing > 0) {
		if (demo_now_ns() > until_ns)
			return -ETIMEDOUT;
		if (poll(&wait, 1, 20) == 1 && read(fd, &byte, 1) == 1)
			missing--;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
			return -ECHILD;
	}
	return 0;
}

static int start_workers(struct master *master)
{
	int ready[2];
	int rc = 0;

	if (pipe(ready) != 0)
		return -errno;
	master->spawner.ready_fd = ready[1];
	for (uint32_t i = 0; rc == 0 && i < master->children->count; i++)
		rc = demo_spawn(&master->spawner, &master->children->list[i]);
	if (rc == 0)
		rc = wait_until_ready(master, ready[0]);
	/* both ends stay open: workers that are started later write into it as well */
	return rc;
}

static void respawn(struct master *master)
{
	for (uint32_t i = 0; i < master->children->count; i++) {
		struct demo_child *child = &master->children->list[i];
		bool wanted =
			master->phase < PHASE_DRAINING_WEB ||
			(child->role == DEMO_ROLE_QUEUE && master->phase < PHASE_DRAINING_QUEUE);
		int rc;

		if (!wanted || atomic_load(&child->pid) != 0 ||
		    demo_now_ns() < master->restart_at_ns[i])
			continue;
		rc = demo_spawn(&master->spawner, child);
		if (rc < 0) {
			fail("starting a worker", rc);
			master->restart_at_ns[i] = demo_now_ns() + RESTART_PAUSE_NS;
		}
	}
}

static void reap(struct master *master)
{
	struct demo_child *child;
	bool has_failed;

	while (demo_reap(&master->spawner, &child, &has_failed)) {
		if (!child) {
			fputs("prefork-web: the killer has ended\n", stderr);
			master->spawner.killer_pid = 0;
		} else if (has_failed) {
			fputs("prefork-web: a worker failed\n", stderr);
			master->restart_at_ns[child - master->children->list] =
				demo_now_ns() + RESTART_PAUSE_NS;
		}
	}
	respawn(master);
}

static int stop_at_task(void *context, const struct coshm_task_info *info, const void *payload)
{
	(void)context;
	(void)info;
	(void)payload;
	return 1;
}

static bool queue_is_empty(struct master *master)
{
	const uint32_t unfinished = 1u << COSHM_TASK_READY | 1u << COSHM_TASK_DELAYED |
				    1u << COSHM_TASK_LEASED | 1u << COSHM_TASK_OTHER;

	if (coshm_queue_each(master->app.queue, unfinished, 0, stop_at_task, NULL) == 0)
		master->empty_looks++;
	else
		master->empty_looks = 0;
	return master->empty_looks >= EMPTY_LOOKS;
}

static void say_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level == COSHM_VERIFY_DAMAGE)
		fprintf(stderr, "prefork-web: damage: %s: %s\n", where, text);
}

static void write_report(struct master *master, bool is_drained)
{
	struct coshm_verify_result result = {0};
	uint64_t evictions = 0;
	int rc = coshm_inspect_verify(master->app.segment, NULL, say_finding, NULL, &result);

	if (rc == 0 && result.damage)
		rc = -EUCLEAN;
	if (rc == 0)
		rc = demo_app_evictions(&master->app, &evictions);
	if (rc < 0)
		fail("verify", rc);
	master->has_damage = rc < 0;
	rc = demo_ledger_append(&master->spawner.ledger, DEMO_EVENT_SETTLED, 0,
				(uint64_t[3]){evictions, (uint64_t)(int64_t)rc, is_drained});
	if (rc < 0)
		fail("ledger", rc);
}

static int write_server_file(struct master *master)
{
	const struct demo_web_options *options = master->options;
	struct demo_server server = {
		.pid = (uint32_t)getpid(),
		.port = master->spawner.port,
		.web_workers = options->web_workers,
		.rate_per_s = options->rate_per_s,
		.burst = options->burst,
		.kill_every_ms = master->spawner.killer_pid ? options->kill_every_ms : 0,
	};
	char *log_path = options->log_path ? realpath(options->log_path, NULL) : NULL;

	if (!options->run_dir)
		return 0;
	snprintf(server.segment, sizeof(server.segment), "%s", options->segment);
	snprintf(server.log_path, sizeof(server.log_path), "%s", log_path ? log_path : "");
	free(log_path);
	return demo_server_write(&server, options->run_dir);
}

static void enter(struct master *master, enum phase phase)
{
	master->phase = phase;
	master->phase_until_ns = demo_now_ns() + EMPTY_NS_MAX;
	master->empty_looks = 0;
}

static void begin_settling(struct master *master)
{
	if (master->phase != PHASE_RUNNING)
		return;
	stop_killer(master);
	write_server_file(master);
	enter(master, PHASE_SETTLING);
}

static void begin_draining(struct master *master)
{
	if (master->phase > PHASE_SETTLING)
		return;
	stop_killer(master);
	enter(master, PHASE_DRAINING_WEB);
	demo_signal_role(&master->spawner, DEMO_ROLE_WEB, SIGTERM);
}

static void advance(struct master *master)
{
	bool is_late = demo_now_ns() > master->phase_until_ns;

	switch (master->phase) {
	case PHASE_SETTLING:
		if (queue_is_empty(master) || is_late) {
			write_report(master, master->empty_looks >= EMPTY_LOOKS);
			enter(master, PHASE_RUNNING);
		}
		break;
	case PHASE_DRAINING_WEB:
		if (is_late)
			demo_signal_role(&master->spawner, DEMO_ROLE_WEB, SIGKILL);
		if (demo_living(&master->spawner, DEMO_ROLE_WEB) == 0)
			enter(master, PHASE_DRAINING_TASKS);
		break;
	case PHASE_DRAINING_TASKS:
		if (queue_is_empty(master) || is_late) {
			write_report(master, master->empty_looks >= EMPTY_LOOKS);
			enter(master, PHASE_DRAINING_QUEUE);
			demo_signal_role(&master->spawner, DEMO_ROLE_QUEUE, SIGTERM);
		}
		break;
	case PHASE_DRAINING_QUEUE:
		if (is_late)
			demo_signal_role(&master->spawner, DEMO_ROLE_QUEUE, SIGKILL);
		if (demo_living(&master->spawner, DEMO_ROLE_QUEUE) == 0)
			enter(master, PHASE_OVER);
		break;
	default:
		break;
	}
}

static void serve(struct master *master, const sigset_t *signals)
{
	const struct timespec tick = {.tv_nsec = (long)TICK_NS};

	while (master->phase != PHASE_OVER) {
		int signal_number = sigtimedwait(signals, NULL, &tick);

		/* first the dead: a report must tell of all that died before it */
		reap(master);
		if (signal_number == SIGTERM || signal_number == SIGINT)
			begin_draining(master);
		else if (signal_number == SIGUSR1)
			begin_settling(master);
		reap(master);
		advance(master);
	}
}

static int start(struct master *master)
{
	const struct demo_web_options *options = master->options;
	int rc;

	rc = start_killer(master);
	if (rc < 0)
		return fail("killer", rc);
	if (options->run_dir)
		rc = demo_ledger_open(&master->spawner.ledger, options->run_dir,
				      DEMO_WORKER_MASTER);
	if (rc < 0)
		return fail(options->run_dir, rc);
	master->spawner.reserved_fd = demo_socket_bind(&master->spawner.port);
	if (master->spawner.reserved_fd < 0)
		return fail("port", master->spawner.reserved_fd);
	rc = demo_app_create(&master->app, options, master->traffic);
	if (rc < 0)
		return rc;
	rc = start_workers(master);
	if (rc == 0)
		rc = write_server_file(master);
	return rc < 0 ? fail("starting", rc) : 0;
}

static void announce(const struct master *master)
{
	const struct demo_web_options *options = master->options;
	struct coshm_cache_config pages;

	if (coshm_cache_config(master->app.pages, &pages) < 0)
		return;
	printf("http://127.0.0.1:%u  segment %s, %" PRIu32 " web and %" PRIu32 " queue workers\n",
	       master->spawner.port, options->segment, options->web_workers,
	       options->queue_workers);
	printf("%zu pages of %.1f MiB in all, cache %.1f MiB; limit %" PRIu32 "/s, burst %" PRIu32
	       " per client",
	       master->traffic->url_count, (double)master->traffic->distinct_bytes / 1048576,
	       (double)pages.size_bytes / 1048576, options->rate_per_s, options->burst);
	if (options->kill_every_ms)
		printf("; a worker gets SIGKILL every %" PRIu32 " ms", options->kill_every_ms);
	putchar('\n');
	fflush(stdout);
}

static void end_all(struct master *master)
{
	demo_signal_role(&master->spawner, DEMO_ROLE_WEB, SIGKILL);
	demo_signal_role(&master->spawner, DEMO_ROLE_QUEUE, SIGKILL);
	stop_killer(master);
	if (!master->app.segment)
		return;
	demo_app_leave(&master->app);
	if (coshm_segment_unlink(master->options->segment) < 0)
		fprintf(stderr, "prefork-web: segment %s could not be removed\n",
			master->options->segment);
}

int demo_master_main(const struct demo_web_options *options, const struct demo_traffic *traffic)
{
	static struct master master;
	sigset_t signals;
	int rc;

	master.options = options;
	master.traffic = traffic;
	master.go_fd = -1;
	master.spawner = (struct demo_spawner){
		.app = &master.app,
		.ledger = {.fd = -1, .worker = DEMO_WORKER_MASTER},
		.port = options->port,
		.next_worker = 1,
	};
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	rc = make_table(&master);
	if (rc < 0)
		return fail("memory", rc) < 0;
	master.spawner.children = master.children;
	rc = start(&master);
	if (rc == 0) {
		announce(&master);
		if (master.go_fd >= 0 && write(master.go_fd, "", 1) != 1)
			fputs("prefork-web: the killer has ended\n", stderr);
		serve(&master, &signals);
	}
	end_all(&master);
	return rc < 0 || master.has_damage;
}
