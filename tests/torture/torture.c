/* SPDX-License-Identifier: MIT */
/*
 * torture [--seconds N] [--processes N] [--seed S] [--objects cache,limiter,queue] [--no-kill] [--large]
 *         [--json] [--keep]
 *
 * A soak: processes that use everything at once, in every way a process can come by a segment and leave it, while one
 * watches, kills (SIGKILL), stops for 1 ms to 1 s, and starts successors. What each did stands in books outside of the segment;
 * whatever the segment says that the books forbid is a violation and ends the soak with status 1.
 *
 * --large lets half of the values be of many pages, and more processes only read.
 * --seed repeats what each life does and in which order the watcher acts; how they interleave is the kernel's choice.
 * --keep leaves the segment and the folder with the books.
 */
#include "torture/work.h"

#include <coshm/inspect.h>

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS_MAX     64
#define STOPPED_MAX   (SLOTS_MAX / 3)
#define PAUSE_MEAN_NS (30 * MS) /* between two acts of the watcher, for 16 processes */
/* Far more than a machine needs that runs twenty other things first. */
#define RECOVERY_MAX_NS (60 * SECOND)
#define FINISH_MAX_NS	(120 * SECOND)

static const char *const holding_names[HOLDINGS] = {"lock", "lane",  "page read", "page written",
						    "pin",  "lease", "nothing"};

struct samples {
	uint64_t *for_ns;
	size_t count, room;
};

struct soak {
	struct handles handles;
	uint64_t random;
	struct {
		pid_t pid;
		uint64_t life;
	} slots[SLOTS_MAX];
	struct {
		pid_t pid; /* 0: free */
		uint64_t until_ns;
	} stopped[STOPPED_MAX];
	struct samples recovery[HOLDINGS]; /* from SIGKILL on */
	struct samples torn_down, since;   /* the kernel's part of it, and the rest */
	uint64_t kills, stops, verifications;
	int json, keep;
};

/* --- members -------------------------------------------------------------------------------------------------- */

static void spawn(struct soak *soak, uint32_t slot)
{
	const uint64_t life = ++soak->slots[slot].life;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		member_live(&soak->handles, slot, life);
	if (pid < 0)
		violation("fork fails");
	soak->slots[slot].pid = pid;
}

/* One child that has ended. 1; 0 none has now; -1 there are no children */
static int collect_one(struct soak *soak)
{
	siginfo_t info = {.si_pid = 0};
	int was_doomed;
	pid_t pid;

	if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT))
		return errno == ECHILD ? -1 : 0;
	pid = info.si_pid;
	if (pid == 0)
		return 0;
	/* -1: its parent took it out of the books, and died before it collected it. */
	was_doomed = process_collected(pid);
	if (info.si_code == CLD_EXITED
		    ? info.si_status != 0
		    : info.si_status != SIGKILL || (was_doomed == 0 && !is_over()))
		violation("process %d ended by %s %d", (int)pid,
			  info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
	for (int i = 0; i < STOPPED_MAX; i++)
		if (soak->stopped[i].pid == pid)
			soak->stopped[i].pid = 0;
	waitpid(pid, NULL, 0);
	for (uint32_t slot = 0; slot < books->plan.processes; slot++) {
		if (soak->slots[slot].pid != pid)
			continue;
		soak->slots[slot].pid = 0;
		if (!is_over())
			spawn(soak, slot);
	}
	return 1;
}

/* --- what a kill leaves, and for how long --------------------------------------------------------------------- */

static void sample_add(struct samples *samples, uint64_t for_ns)
{
	if (samples->count == samples->room) {
		samples->room = samples->room ? 2 * samples->room : 1024;
		samples->for_ns = realloc(samples->for_ns, samples->room * sizeof(uint64_t));
		if (!samples->for_ns)
			exit(3);
	}
	samples->for_ns[samples->count++] = for_ns;
}

struct victim {
	uint32_t pid;
	int is_member;
	uint32_t held[HOLDINGS];
};

static int victim_each(void *context, const struct coshm_member_info *info)
{
	struct victim *victim = context;

	if (info->pid != victim->pid)
		return 0;
	victim->is_member = 1;
	victim->held[HOLD_LOCK] += info->locks_held - info->lanes_held;
	victim->held[HOLD_LANE] += info->lanes_held;
	victim->held[HOLD_PAGE_READ] += info->pages_read;
	victim->held[HOLD_PAGE_WRITTEN] += info->pages_written;
	victim->held[HOLD_PIN] += info->pages_pinned;
	victim->held[HOLD_LEASE] += info->leases_held;
	return 0;
}

static void resume_due(struct soak *soak, int all)
{
	const uint64_t at_ns = now_ns();

	for (int i = 0; i < STOPPED_MAX; i++) {
		if (!soak->stopped[i].pid || (!all && at_ns < soak->stopped[i].until_ns))
			continue;
		kill(soak->stopped[i].pid, SIGCONT);
		soak->stopped[i].pid = 0;
	}
}

static void kill_one(struct soak *soak, pid_t pid, int is_stopped)
{
	struct victim victim = {.pid = (uint32_t)pid};
	struct coshm_member_info info;
	uint64_t start_ns, for_ns, torn_down_ns = 0;
	struct pollfd fd = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	int found, holds = 0;

	/* What a stopped process holds is what it dies with; of others a moment later is looked at. */
	if (is_stopped)
		(void)!coshm_inspect_members(soak->handles.segment, victim_each, &victim);
	process_doom(pid);
	start_ns = now_ns();
	kill(pid, SIGKILL);
	process_doom(pid); /* an exec in between made a new entry */
	soak->kills++;
	if (!is_stopped)
		(void)!coshm_inspect_members(soak->handles.segment, victim_each, &victim);
	do {
		if (!torn_down_ns && fd.fd >= 0 && poll(&fd, 1, 0) == 1)
			torn_down_ns = now_ns() - start_ns;
		found = coshm_inspect_member(soak->handles.segment, (uint32_t)pid, &info);
		for_ns = now_ns() - start_ns;
		if (found < 0)
			violation("inspect gives %d", found);
		if (for_ns > RECOVERY_MAX_NS)
			violation(
				"killed process %d is still a member after %llu s (state %u, locks "
				"%u, read %u, written %u, pinned %u, leases %u)",
				(int)pid, (unsigned long long)(for_ns / SECOND), info.state,
				info.locks_held, info.pages_read, info.pages_written,
				info.pages_pinned, info.leases_held);
		if (found != 1)
			break;
		/* Of few processes, all others may stand still, or be dead: then nobody is there to reap. */
		resume_due(soak, 0);
		while (collect_one(soak) == 1)
			;
		sleep_ns(50000);
	} while (found == 1 && !is_over());
	if (fd.fd >= 0)
		close(fd.fd);
	if (!victim.is_member || found)
		return;
	if (fd.fd >= 0) {
		/* Who has not been seen to be torn down was it in this very moment. */
		torn_down_ns = torn_down_ns ? torn_down_ns : for_ns;
		sample_add(&soak->torn_down, torn_down_ns);
		sample_add(&soak->since, for_ns - torn_down_ns);
	}
	for (int i = 0; i < HOLD_NOTHING; i++) {
		if (victim.held[i])
			sample_add(&soak->recovery[i], for_ns);
		holds |= victim.held[i] != 0;
	}
	if (!holds)
		sample_add(&soak->recovery[HOLD_NOTHING], for_ns);
}

/* 1 all its threads stand still; 0 it has ended, or is none of our children */
static int stop_one(pid_t pid)
{
	const uint64_t start_ns = now_ns();
	siginfo_t info;

	if (kill(pid, SIGSTOP))
		return 0;
	do {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT))
			return 0;
		if (info.si_pid)
			return info.si_code == CLD_STOPPED;
		sleep_ns(50000);
	} while (now_ns() - start_ns < RECOVERY_MAX_NS);
	violation("process %d does not stop", (int)pid);
	return 0;
}

/* Of those in the books, grandchildren too. 0: the one that was meant is not there. */
static pid_t victim_choose(struct soak *soak)
{
	const int pid =
		atomic_load(&books->processes[random_below(&soak->random, PROCESSES / 4)].pid);

	return pid > 0 && pid != getpid() ? pid : 0;
}

static void act(struct soak *soak)
{
	const uint64_t what = random_below(&soak->random, 100);
	/* 1 ms to 1 s, as many short as long ones. */
	const uint64_t for_ns = MS << random_below(&soak->random, 11);
	const uint64_t slot = random_below(&soak->random, STOPPED_MAX);
	pid_t pid = 0;

	for (int tries = 0; tries < 1000 && !pid; tries++)
		pid = victim_choose(soak);
	if (!pid)
		return;
	if (books->plan.no_kill || what < 35) {
		if (soak->stopped[slot % (books->plan.processes / 3 + 1)].pid || kill(pid, SIGSTOP))
			return;
		soak->stopped[slot % (books->plan.processes / 3 + 1)].pid = pid;
		soak->stopped[slot % (books->plan.processes / 3 + 1)].until_ns = now_ns() + for_ns;
		soak->stops++;
	} else if (what < 60) {
		kill_one(soak, pid, stop_one(pid));
	} else {
		kill_one(soak, pid, 0);
	}
}

/* --- verification --------------------------------------------------------------------------------------------- */

static void finding(void *context, int level, const char *where, const char *text)
{
	const int *at_rest = context;

	if (level == COSHM_VERIFY_DAMAGE || (*at_rest && level != COSHM_VERIFY_NOTE))
		fprintf(stderr, "verify: level %d, %s: %s\n", level, where, text);
}

static void verify(struct soak *soak, int at_rest)
{
	struct coshm_verify_result result = {0};
	int error = coshm_inspect_verify(soak->handles.segment, NULL, finding, &at_rest, &result);

	soak->verifications++;
	if (error || result.damage || (at_rest && result.pending))
		violation("verify gives %d: %llu damaged, %llu pending", error,
			  (unsigned long long)result.damage, (unsigned long long)result.pending);
}

static int member_at_rest(void *context, const struct coshm_member_info *info)
{
	unsigned int *members = context;

	++*members;
	if (info->state != COSHM_MEMBER_ALIVE || info->thread_count > 2 || info->locks_held ||
	    info->pages_read || info->pages_written || info->pages_pinned || info->leases_held)
		violation("member %u (pid %u) in state %u: threads %u, locks %u, read %u, written "
			  "%u, pinned %u, leases %u",
			  info->index, info->pid, info->state, info->thread_count, info->locks_held,
			  info->pages_read, info->pages_written, info->pages_pinned,
			  info->leases_held);
	return 0;
}

static void audit(struct soak *soak)
{
	struct worker worker = {.handles = &soak->handles, .random = soak->random, .actor = -1};
	unsigned int members = 0;

	worker.buffer = malloc(BUFFER_BYTES);
	worker.copy = malloc(BUFFER_BYTES);
	if (!worker.buffer || !worker.copy)
		exit(3);
	if (coshm_segment_reap(soak->handles.segment, NULL))
		violation("reap fails");
	verify(soak, 1);
	if (coshm_inspect_members(soak->handles.segment, member_at_rest, &members) || members != 1)
		violation("%u members at the end, not 1", members);
	if (books->plan.objects & OBJECT_CACHE)
		cache_audit(&worker);
	if (books->plan.objects & OBJECT_LIMITER)
		limiter_audit(&worker);
	if (books->plan.objects & OBJECT_QUEUE)
		queue_audit(&worker);
	verify(soak, 1);
	free(worker.buffer);
	free(worker.copy);
}

/* --- the soak ------------------------------------------------------------------------------------------------- */

static void torment(struct soak *soak)
{
	const uint64_t mean_ns = PAUSE_MEAN_NS * 16 / books->plan.processes;
	uint64_t next_act_ns = now_ns(), next_look_ns = next_act_ns;
	int looks = 0;

	while (!is_over() && now_ns() - books->plan.started_at_ns < books->plan.run_ns) {
		while (collect_one(soak) == 1)
			;
		resume_due(soak, 0);
		if (now_ns() >= next_act_ns) {
			act(soak);
			next_act_ns = now_ns() + random_below(&soak->random, 2 * mean_ns);
		}
		if (now_ns() >= next_look_ns) {
			if (books->plan.objects & OBJECT_LIMITER)
				limiter_check();
			if (++looks % 8 == 0)
				verify(soak, 0);
			next_look_ns = now_ns() + BIN_NS;
		}
		sleep_ns(500000);
	}
}

static void dump_hung(void)
{
	for (uint32_t i = 0; i < PROCESSES; i++) {
		const int pid = atomic_load(&books->processes[i].pid);

		if (pid > 0 && pid != getpid()) {
			violation("process %d does not end", pid);
			/* With --keep a debugger can look at it. */
			process_doom(pid);
			kill(pid, SIGKILL);
		}
	}
}

static void finish(struct soak *soak)
{
	uint64_t deadline_ns = now_ns() + FINISH_MAX_NS;
	int left;

	atomic_store(&books->over, 1);
	resume_due(soak, 1);
	while ((left = collect_one(soak)) >= 0) {
		if (now_ns() > deadline_ns) {
			dump_hung();
			deadline_ns = now_ns() + FINISH_MAX_NS;
		}
		if (left == 0)
			sleep_ns(MS);
	}
	/* The audit works like everybody. */
	atomic_store(&books->over, atomic_load(&books->violations) != 0);
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sort(struct samples *samples)
{
	if (samples->count > 0) /* else there is nothing at all */
		qsort(samples->for_ns, samples->count, sizeof(uint64_t), compare);
}

static double at_ms(const struct samples *samples, double share)
{
	return samples->count
		       ? (double)samples->for_ns[(size_t)((double)(samples->count - 1) * share)] /
				 1e6
		       : 0;
}

static void report_samples(const char *name, const struct samples *samples, int json)
{
	printf(json ? "\"%s\": {\"count\": %zu, \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}"
		    : "  %-22s %8zu %9.3f %9.3f %9.3f\n",
	       name, samples->count, at_ms(samples, 0.5), at_ms(samples, 0.99), at_ms(samples, 1));
}

static void report(struct soak *soak, double seconds)
{
	const unsigned long long violations = atomic_load(&books->violations);

	for (int i = 0; i < HOLDINGS; i++)
		sort(&soak->recovery[i]);
	sort(&soak->torn_down);
	sort(&soak->since);
	if (soak->json) {
		printf("{\"seed\": %llu, \"seconds\": %.1f, \"processes\": %u, \"violations\": "
		       "%llu, "
		       "\"kills\": %llu, \"stops\": %llu, \"verifications\": %llu, \"events\": {",
		       (unsigned long long)books->plan.seed, seconds, books->plan.processes,
		       violations, (unsigned long long)soak->kills, (unsigned long long)soak->stops,
		       (unsigned long long)soak->verifications);
		for (int i = 0; i < EVENTS; i++)
			printf("%s\"%s\": %llu", i ? ", " : "", event_names[i],
			       (unsigned long long)atomic_load(&books->events[i]));
		printf("}, \"recovery_ms\": {");
		for (int i = 0; i < HOLDINGS; i++) {
			report_samples(holding_names[i], &soak->recovery[i], 1);
			printf(", ");
		}
		report_samples("kernel's teardown", &soak->torn_down, 1);
		printf(", ");
		report_samples("since teardown", &soak->since, 1);
		printf("}}\n");
		return;
	}
	printf("seed %llu, %.1f s, %u processes: %llu kills, %llu stops, %llu verifications\n",
	       (unsigned long long)books->plan.seed, seconds, books->plan.processes,
	       (unsigned long long)soak->kills, (unsigned long long)soak->stops,
	       (unsigned long long)soak->verifications);
	for (int i = 0; i < EVENTS; i++)
		printf("  %-18s %llu\n", event_names[i],
		       (unsigned long long)atomic_load(&books->events[i]));
	printf("from SIGKILL until nothing of the victim is left, by what it held (ms)\n"
	       "  %-22s %8s %9s %9s %9s\n",
	       "", "kills", "p50", "p99", "max");
	for (int i = 0; i < HOLDINGS; i++)
		report_samples(holding_names[i], &soak->recovery[i], 0);
	report_samples("the kernel's teardown", &soak->torn_down, 0);
	report_samples("since that", &soak->since, 0);
	printf("%llu violations\n", violations);
}

static int begin(struct soak *soak, struct plan *plan)
{
	const char *folder = getenv("TMPDIR");
	struct coshm_segment *segment;
	int error;

	snprintf(plan->folder, sizeof(plan->folder), "%.80s/coshm-torture-XXXXXX",
		 folder ? folder : "/tmp");
	if (!mkdtemp(plan->folder)) {
		fprintf(stderr, "torture: %s: %s\n", plan->folder, strerror(errno));
		return -1;
	}
	snprintf(plan->segment, sizeof(plan->segment), "coshm-torture-%d", (int)getpid());
	plan->started_at_ns = now_ns();
	plan->hard_end_ns = plan->started_at_ns + plan->run_ns + 300 * SECOND;
	error = books_open(plan->folder, plan);
	if (!error)
		error = coshm_segment_create(
			plan->segment,
			&(struct coshm_segment_config){.size_bytes = 24 << 20,
						       .size_max_bytes = 64 << 20,
						       .member_count_max = 250,
						       .thread_count_max = 600},
			0, &segment);
	if (!error && (plan->objects & OBJECT_CACHE))
		error = cache_create(segment);
	if (!error && (plan->objects & OBJECT_LIMITER))
		error = limiter_create(segment);
	if (!error && (plan->objects & OBJECT_QUEUE))
		error = queue_create(segment);
	if (!error)
		error = handles_open(&soak->handles, 0);
	if (!error)
		error = coshm_segment_detach(segment);
	if (error)
		fprintf(stderr, "torture: %s\n", coshm_strerror(error));
	return error;
}

static void end(struct soak *soak)
{
	char path[160];

	if (soak->keep) {
		fprintf(stderr, "kept: segment %s, books in %s\n", books->plan.segment,
			books->plan.folder);
		return;
	}
	(void)!coshm_segment_detach(soak->handles.segment);
	(void)!coshm_segment_unlink(books->plan.segment);
	snprintf(path, sizeof(path), "%s/books", books->plan.folder);
	unlink(path);
	rmdir(books->plan.folder);
}

static uint32_t objects_parse(const char *text)
{
	uint32_t objects = 0;

	if (strstr(text, "cache"))
		objects |= OBJECT_CACHE;
	if (strstr(text, "limiter"))
		objects |= OBJECT_LIMITER;
	if (strstr(text, "queue"))
		objects |= OBJECT_QUEUE;
	return objects;
}

static int parse(int argc, char **argv, struct plan *plan, struct soak *soak)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 's'},
		{"processes", required_argument, NULL, 'p'},
		{"seed", required_argument, NULL, 'e'},
		{"objects", required_argument, NULL, 'o'},
		{"no-kill", no_argument, NULL, 'n'},
		{"large", no_argument, NULL, 'l'},
		{"json", no_argument, NULL, 'j'},
		{"keep", no_argument, NULL, 'k'},
		{NULL, 0, NULL, 0},
	};
	int option;

	*plan = (struct plan){.seed = mix(now_ns() ^ (uint64_t)getpid() << 32) >> 32,
			      .run_ns = 10 * SECOND,
			      .processes = 16,
			      .objects = OBJECT_ALL};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's':
			plan->run_ns = (uint64_t)(strtod(optarg, NULL) * 1e9);
			break;
		case 'p':
			plan->processes = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'e':
			plan->seed = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			plan->objects = objects_parse(optarg);
			break;
		case 'n':
			plan->no_kill = 1;
			break;
		case 'l':
			plan->large = 1;
			break;
		case 'j':
			soak->json = 1;
			break;
		case 'k':
			soak->keep = 1;
			break;
		default:
			return -1;
		}
	}
	if (optind != argc || plan->processes < 2 || plan->processes > SLOTS_MAX ||
	    plan->objects == 0 || plan->run_ns == 0)
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	static struct soak soak;
	struct plan plan;
	uint64_t start_ns;

	if (argc == 5 && strcmp(argv[1], "--member") == 0) {
		/* After exec: the entry of what this process was before is over. */
		if (books_open(argv[2], NULL))
			return 3;
		process_collected(getpid());
		member_live(NULL, (uint32_t)strtoul(argv[3], NULL, 10),
			    strtoull(argv[4], NULL, 10));
	}
	if (parse(argc, argv, &plan, &soak)) {
		fprintf(stderr,
			"torture [--seconds N] [--processes 2..%d] [--seed S]\n"
			"        [--objects cache,limiter,queue] [--no-kill] [--large]\n"
			"        [--json] [--keep]\n",
			SLOTS_MAX);
		return 2;
	}
	/* Whose parent was killed is ours to collect. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (begin(&soak, &plan))
		return 3;
	process_enter();
	soak.random = plan.seed;
	start_ns = now_ns();
	for (uint32_t slot = 0; slot < plan.processes; slot++)
		spawn(&soak, slot);
	torment(&soak);
	finish(&soak);
	/* What ends early leaves much that the audit would be surprised at. */
	if (!atomic_load(&books->violations))
		audit(&soak);
	report(&soak, (double)(now_ns() - start_ns) / 1e9);
	end(&soak);
	return atomic_load(&books->violations) != 0;
}
