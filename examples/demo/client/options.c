/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/names.h"
#include "../common/options.h"

static const char help[] =
	"usage: replay --run-dir DIR | --port PORT  [options]\n"
	"\n"
	"Replays an access log against prefork-web and judges what comes back.\n"
	"\n"
	"  --run-dir DIR       where prefork-web keeps its ledgers; tells port, limits and pid\n"
	"  --port PORT         a server on 127.0.0.1 without ledgers: checks the responses alone\n"
	"  --log FILE          combined format; default: the server's, else COSHM_ACCESS_LOG, "
	"else\n"
	"                      generated Zipf traffic. Both sides must use the same.\n"
	"  --seconds N         how long to send (10)\n"
	"  --connections N     keep-alive connections, one request at a time on each (64)\n"
	"  --requests-per-connection N  then connect anew (100)\n"
	"  --conditional P     percent of repeated requests with If-None-Match (25)\n"
	"  --rate R --burst B  what the server enforces per client and second (20, 40); with\n"
	"                      --run-dir the server says it\n"
	"  --max-block-ms N    no answer may take longer (1000)\n"
	"  --json              one JSON object instead of the table; the live lines go to stderr\n"
	"\n"
	"Checked on every response: the body byte by byte against (URL, version, size), its age\n"
	"against the TTL, the headers that its status needs. Checked over the run: admissions per\n"
	"client against burst + rate x time on the client's clock, the longest wait of a request\n"
	"whose worker was not killed, and, from the ledgers, every task: none lost, none run "
	"again\n"
	"unless its worker was killed before.\n"
	"\n"
	"A run of 60 s or more is also red if it had no eviction, 304, 429 or redelivery, if no\n"
	"victim died holding a lease, a lane, a page, another lock, or nothing, or if a worker\n"
	"served under 10 % of the responses. Shorter runs report these without judging them.\n"
	"\n"
	"JSON keys: seconds requests status resets hit_ratio evictions bad_bodies over_admitted\n"
	"tasks_accepted tasks_executed tasks_lost tasks_run_twice redelivered_after_death kills\n"
	"kills_holding recovery_ms longest_block_ms requests_per_worker verify ok.\n"
	"kills_holding counts a victim under each kind that it held. recovery_ms is from SIGKILL\n"
	"until all that the victim held is free. null: cannot be known without ledgers.\n"
	"evictions, kills_holding, recovery_ms and verify are what the library says of itself: "
	"the\n"
	"server asks coshm_stats_each, coshm_inspect_member and coshm_inspect_verify. Everything "
	"else\n"
	"is seen from outside of the segment, and evictions are held against pages that were seen "
	"to\n"
	"go before their time.\n"
	"\n"
	"exit status: 0 every rule held, 1 not, 2 usage\n";

enum option_id {
	OPTION_HELP = 'h',
	OPTION_RUN_DIR = 256,
	OPTION_PORT,
	OPTION_LOG,
	OPTION_SECONDS,
	OPTION_CONNECTIONS,
	OPTION_REQUESTS_PER_CONNECTION,
	OPTION_CONDITIONAL,
	OPTION_RATE,
	OPTION_BURST,
	OPTION_MAX_BLOCK_MS,
	OPTION_JSON,
};

static const struct option long_options[] = {
	{"help", no_argument, NULL, OPTION_HELP},
	{"run-dir", required_argument, NULL, OPTION_RUN_DIR},
	{"port", required_argument, NULL, OPTION_PORT},
	{"log", required_argument, NULL, OPTION_LOG},
	{"seconds", required_argument, NULL, OPTION_SECONDS},
	{"connections", required_argument, NULL, OPTION_CONNECTIONS},
	{"requests-per-connection", required_argument, NULL, OPTION_REQUESTS_PER_CONNECTION},
	{"conditional", required_argument, NULL, OPTION_CONDITIONAL},
	{"rate", required_argument, NULL, OPTION_RATE},
	{"burst", required_argument, NULL, OPTION_BURST},
	{"max-block-ms", required_argument, NULL, OPTION_MAX_BLOCK_MS},
	{"json", no_argument, NULL, OPTION_JSON},
	{NULL, 0, NULL, 0},
};

static bool number(const char *text, uint64_t least, uint64_t most, uint32_t *ret_number)
{
	uint64_t value;

	if (!demo_option_number(text, least, most, &value))
		return false;
	*ret_number = (uint32_t)value;
	return true;
}

static bool take_port(struct demo_replay_options *options, const char *text)
{
	uint64_t value;

	if (!demo_option_number(text, 1, 65535, &value))
		return false;
	options->server.port = (uint16_t)value;
	return true;
}

static bool take(struct demo_replay_options *options, int id, const char *text)
{
	switch (id) {
	case OPTION_RUN_DIR:
		options->run_dir = text;
		return true;
	case OPTION_PORT:
		return take_port(options, text);
	case OPTION_LOG:
		options->log_path = text;
		return true;
	case OPTION_SECONDS:
		return number(text, 1, 1000000, &options->seconds);
	case OPTION_CONNECTIONS:
		return number(text, 1, 1000, &options->connections);
	case OPTION_REQUESTS_PER_CONNECTION:
		return number(text, 1, UINT32_MAX, &options->requests_per_connection);
	case OPTION_CONDITIONAL:
		return number(text, 0, 100, &options->conditional_percent);
	case OPTION_RATE:
		return number(text, 1, 1000000, &options->server.rate_per_s);
	case OPTION_BURST:
		return number(text, 1, 1000000, &options->server.burst);
	case OPTION_MAX_BLOCK_MS:
		return number(text, 1, 1000000, &options->block_ms_max);
	case OPTION_JSON:
		options->json = true;
		return true;
	default:
		return false;
	}
}

static int read_server(struct demo_replay_options *options)
{
	int rc = demo_server_read(&options->server, options->run_dir);

	if (rc == 0)
		return -1;
	fprintf(stderr, "replay: %s/server: %s\n", options->run_dir,
		rc == -ENOENT ? "not there: is prefork-web running with this --run-dir?"
			      : strerror(-rc));
	return 1;
}

static void choose_log(struct demo_replay_options *options)
{
	const char *from_environment = getenv("COSHM_ACCESS_LOG");

	if (options->log_path)
		return;
	if (options->run_dir) {
		if (options->server.log_path[0])
			options->log_path = options->server.log_path;
	} else if (from_environment && *from_environment) {
		options->log_path = from_environment;
	}
}

int demo_replay_options_read(int argc, char **argv, struct demo_replay_options *ret_options)
{
	struct demo_replay_options *options = ret_options;
	int id;

	*options = (struct demo_replay_options){
		.server = {.web_workers = DEMO_WEB_WORKERS,
			   .rate_per_s = DEMO_LIMIT_RATE_PER_S,
			   .burst = DEMO_LIMIT_BURST},
		.seconds = 10,
		.connections = 64,
		.requests_per_connection = 100,
		.conditional_percent = 25,
		.block_ms_max = 1000,
	};
	while ((id = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (id == OPTION_HELP) {
			fputs(help, stdout);
			return 0;
		}
		if (id == '?' || !take(options, id, optarg)) {
			if (id != '?')
				fprintf(stderr, "replay: \"%s\" is not a usable value\n", optarg);
			fputs("replay --help tells more\n", stderr);
			return 2;
		}
	}
	if (optind < argc || (!options->run_dir && options->server.port == 0)) {
		fputs("replay: needs --run-dir or --port; replay --help tells more\n", stderr);
		return 2;
	}
	if (options->run_dir && read_server(options) != -1)
		return 1;
	choose_log(options);
	return -1;
}
