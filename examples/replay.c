/* SPDX-License-Identifier: MIT */
/*
 * replay - send an access log to prefork-web and judge the answers
 *
 * Knows nothing of shared memory: what it checks, it sees in HTTP responses and in the ledgers.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "demo/client/history.h"
#include "demo/client/load.h"
#include "demo/client/options.h"
#include "demo/client/report.h"
#include "demo/client/verdict.h"
#include "demo/common/clock.h"
#include "demo/common/ledger.h"
#include "demo/common/traffic.h"

/* how long the queue may take to run empty when the traffic has stopped */
#define SETTLE_NS_MAX (30 * DEMO_NS_PER_S)

/* a request without an answer for so long counts as hung, unless it may be blocked for longer */
#define HUNG_NS_MIN (5 * DEMO_NS_PER_S)

struct replay {
	struct demo_replay_options options;
	struct demo_traffic traffic;
	struct demo_load load;
	struct demo_ledger_reader reader;
	struct demo_history history;
	struct demo_live live;
};

static int fail(const char *what, int rc)
{
	fprintf(stderr, "replay: %s: %s\n", what, strerror(-rc));
	return 1;
}

static void on_event(void *user, const struct demo_event *event)
{
	demo_history_add(user, event);
}

static int read_ledgers(struct replay *replay)
{
	if (!replay->options.run_dir)
		return 0;
	return demo_ledger_read(&replay->reader, on_event, &replay->history);
}

static void on_second(evutil_socket_t fd, short what, void *context)
{
	struct replay *replay = context;
	int rc = read_ledgers(replay);

	(void)fd;
	(void)what;
	if (rc < 0)
		replay->history.error = rc;
	demo_live_line(&replay->live, replay->options.json ? stderr : stdout, &replay->load.outcome,
		       &replay->history, replay->options.run_dir != NULL);
}

/* asks the server to stop killing, to run its queue empty and to report; then reads the report */
static int settle(struct replay *replay)
{
	uint64_t until_ns = demo_now_ns() + SETTLE_NS_MAX;
	int rc = read_ledgers(replay);

	if (rc < 0 || kill((pid_t)replay->options.server.pid, SIGUSR1) != 0)
		return rc < 0 ? rc : -errno;
	while (rc == 0 && !replay->history.has_settled && demo_now_ns() < until_ns) {
		demo_sleep_ns(10 * DEMO_NS_PER_MS);
		rc = read_ledgers(replay);
	}
	return rc;
}

static int run_load(struct replay *replay)
{
	static const struct timeval second = {.tv_sec = 1};
	struct event *timer =
		event_new(demo_load_base(&replay->load), -1, EV_PERSIST, on_second, replay);
	int rc;

	if (!timer || event_add(timer, &second) != 0)
		return -ENOMEM;
	rc = demo_load_run(&replay->load);
	event_free(timer);
	return rc < 0 ? rc : replay->history.error;
}

static int report(struct replay *replay, double seconds)
{
	const struct demo_replay_options *options = &replay->options;
	struct demo_run run = {
		.seconds = seconds,
		.worker_count = options->server.web_workers,
		.has_ledgers = options->run_dir != NULL,
		.expects_kills = options->run_dir && options->server.kill_every_ms != 0,
		.block_ns_max = options->block_ms_max * DEMO_NS_PER_MS,
		.over_admitted = demo_admission_over_count(&replay->load.admission),
		.outcome = replay->load.outcome,
	};
	struct demo_verdict verdict;
	int rc = 0;

	if (run.has_ledgers)
		rc = demo_history_judge(&replay->history, &run.findings);
	if (rc < 0)
		return fail("ledgers", rc);
	demo_verdict_reach(&run, &verdict);
	if (options->json)
		rc = demo_report_json(stdout, &run, &verdict);
	else
		demo_report_table(stdout, &run, &verdict);
	if (rc < 0)
		return fail("writing the report", rc);
	return verdict.ok ? 0 : 1;
}

static int replay_log(struct replay *replay)
{
	uint64_t begun_ns = demo_now_ns();
	double seconds;
	int rc = read_ledgers(replay);

	if (rc < 0)
		return fail("ledgers", rc);
	demo_history_forget_settled(&replay->history);
	rc = run_load(replay);
	if (rc < 0)
		return fail("sending", rc);
	seconds = (double)(demo_now_ns() - begun_ns) / 1e9;
	if (replay->options.run_dir) {
		rc = settle(replay);
		if (rc < 0)
			return fail("waiting for the server to settle", rc);
	}
	return report(replay, seconds);
}

static int open_all(struct replay *replay)
{
	const struct demo_replay_options *options = &replay->options;
	struct demo_load_options load = {
		.port = options->server.port,
		.connections = options->connections,
		.requests_per_connection = options->requests_per_connection,
		.conditional_percent = options->conditional_percent,
		.for_ns = options->seconds * DEMO_NS_PER_S,
		.timeout_ns = options->block_ms_max * DEMO_NS_PER_MS,
	};
	int rc;

	if (load.timeout_ns < HUNG_NS_MIN)
		load.timeout_ns = HUNG_NS_MIN;
	rc = demo_traffic_open(&replay->traffic, options->log_path);

	if (rc < 0)
		return fail(options->log_path ? options->log_path : "generating traffic", rc);
	if (options->run_dir)
		rc = demo_ledger_reader_open(&replay->reader, options->run_dir);
	if (rc == 0)
		rc = demo_load_open(&replay->load, &replay->traffic, &load,
				    options->server.rate_per_s, options->server.burst);
	return rc < 0 ? fail("starting", rc) : 0;
}

int main(int argc, char **argv)
{
	static struct replay replay;
	int status = demo_replay_options_read(argc, argv, &replay.options);

	if (status != -1)
		return status;
	signal(SIGPIPE, SIG_IGN);
	status = open_all(&replay);
	if (status == 0)
		status = replay_log(&replay);
	demo_load_close(&replay.load);
	demo_ledger_reader_close(&replay.reader);
	demo_history_close(&replay.history);
	demo_traffic_close(&replay.traffic);
	return status;
}
