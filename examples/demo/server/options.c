/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "../common/names.h"
#include "../common/options.h"

static const char help[] =
	"usage: prefork-web [options]\n"
	"\n"
	"A prefork web server on 127.0.0.1 whose workers share one coshm segment: a rate limiter\n"
	"per client, a cache of rendered pages and a queue of pages to render. Any worker may be\n"
	"killed at any moment; the master starts another one and does nothing else about it.\n"
	"\n"
	"  --port P            0 (default) takes any free one\n"
	"  --web-workers N     processes that answer requests, each with its own listening\n"
	"                      socket on the same port (4)\n"
	"  --queue-workers N   processes that render pages (2)\n"
	"  --rate R --burst B  what a client gets per second, and at once (20, 40)\n"
	"  --cache-size S      bytes, or with K, M, G; default: a quarter of all pages together,\n"
	"                      so that it must evict\n"
	"  --queue-capacity N  pages that may wait to be rendered (64); more is 503\n"
	"  --log FILE          which pages there are and how large: an access log in combined\n"
	"                      format; default COSHM_ACCESS_LOG, else a generated site\n"
	"  --segment NAME      under /dev/shm (prefork-web)\n"
	"  --run-dir DIR       write ledgers there, for replay\n"
	"  --kill-every MS     also be the murderer: every MS milliseconds a worker gets SIGKILL,\n"
	"                      chosen so that each kind of thing is held by some victim: a task's\n"
	"                      lease, a lane or a page of the cache, another lock, nothing\n"
	"\n"
	"A request: limiter (429) -> cache (200 HIT, 304) -> on a miss one request is elected to\n"
	"enqueue the rendering (503 if the queue is full), all wait up to 100 ms for the page\n"
	"(200 MISS), else 202. The header X-Client says whom to charge.\n"
	"\n"
	"Try:  curl -i http://127.0.0.1:PORT/any/page     shmctl stats prefork-web\n"
	"\n"
	"SIGTERM, SIGINT  drain: answer, render what was accepted, remove the segment, exit 0\n"
	"SIGUSR1          stop killing, let the queue run empty, verify, report in the ledger\n";

enum option_id {
	OPTION_HELP = 'h',
	OPTION_PORT = 256,
	OPTION_WEB_WORKERS,
	OPTION_QUEUE_WORKERS,
	OPTION_RATE,
	OPTION_BURST,
	OPTION_CACHE_SIZE,
	OPTION_QUEUE_CAPACITY,
	OPTION_LOG,
	OPTION_SEGMENT,
	OPTION_RUN_DIR,
	OPTION_KILL_EVERY,
};

static const struct option long_options[] = {
	{"help", no_argument, NULL, OPTION_HELP},
	{"port", required_argument, NULL, OPTION_PORT},
	{"web-workers", required_argument, NULL, OPTION_WEB_WORKERS},
	{"queue-workers", required_argument, NULL, OPTION_QUEUE_WORKERS},
	{"rate", required_argument, NULL, OPTION_RATE},
	{"burst", required_argument, NULL, OPTION_BURST},
	{"cache-size", required_argument, NULL, OPTION_CACHE_SIZE},
	{"queue-capacity", required_argument, NULL, OPTION_QUEUE_CAPACITY},
	{"log", required_argument, NULL, OPTION_LOG},
	{"segment", required_argument, NULL, OPTION_SEGMENT},
	{"run-dir", required_argument, NULL, OPTION_RUN_DIR},
	{"kill-every", required_argument, NULL, OPTION_KILL_EVERY},
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

static bool take_port(struct demo_web_options *options, const char *text)
{
	uint64_t value;

	if (!demo_option_number(text, 0, 65535, &value))
		return false;
	options->port = (uint16_t)value;
	return true;
}

static bool take_text(const char *text, const char **ret_text)
{
	*ret_text = text;
	return *text != '\0';
}

static bool take(struct demo_web_options *options, int id, const char *text)
{
	switch (id) {
	case OPTION_PORT:
		return take_port(options, text);
	case OPTION_WEB_WORKERS:
		return number(text, 1, 64, &options->web_workers);
	case OPTION_QUEUE_WORKERS:
		return number(text, 1, 64, &options->queue_workers);
	case OPTION_RATE:
		return number(text, 1, 1000000, &options->rate_per_s);
	case OPTION_BURST:
		return number(text, 1, 1000000, &options->burst);
	case OPTION_CACHE_SIZE:
		return demo_option_size(text, 256 << 10, 1ull << 40, &options->cache_size_bytes);
	case OPTION_QUEUE_CAPACITY:
		return demo_option_number(text, 1, 65536, &options->queue_capacity);
	case OPTION_LOG:
		return take_text(text, &options->log_path);
	case OPTION_SEGMENT:
		return take_text(text, &options->segment);
	case OPTION_RUN_DIR:
		return take_text(text, &options->run_dir);
	case OPTION_KILL_EVERY:
		return number(text, 0, 3600000, &options->kill_every_ms);
	default:
		return false;
	}
}

int demo_web_options_read(int argc, char **argv, struct demo_web_options *ret_options)
{
	struct demo_web_options options = {
		.segment = "prefork-web",
		.log_path = getenv("COSHM_ACCESS_LOG"),
		.queue_capacity = 64,
		.web_workers = DEMO_WEB_WORKERS,
		.queue_workers = DEMO_QUEUE_WORKERS,
		.rate_per_s = DEMO_LIMIT_RATE_PER_S,
		.burst = DEMO_LIMIT_BURST,
	};
	int id;

	if (options.log_path && !*options.log_path)
		options.log_path = NULL;
	while ((id = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (id == OPTION_HELP) {
			fputs(help, stdout);
			return 0;
		}
		if (id == '?' || !take(&options, id, optarg)) {
			if (id != '?')
				fprintf(stderr, "prefork-web: \"%s\" is not a usable value\n",
					optarg);
			fputs("prefork-web --help tells more\n", stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "prefork-web: what is \"%s\"? prefork-web --help tells more\n",
			argv[optind]);
		return 2;
	}
	*ret_options = options;
	return -1;
}
