/* SPDX-License-Identifier: MIT */
/*
 * Requests go out 64 at a time, as from a proxy that keeps its connection busy. The answer is a head without a body. One
 * process of nginx: with a master its workers would outlive a bench that is killed.
 */
#include "limit_req.h"

#include "../support/server.h"
#include "../support/wire.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STEP = 64, KEYS = 1000000 };

static struct bench_server nginx;
static struct bench_wire *wire;

/* Everything that nginx wants to write lies in its folder, or nowhere. */
static void write_configuration(const char *path)
{
	static const char *const paths[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};
	FILE *file = fopen(path, "w");

	if (!file)
		bench_fail("nginx's configuration");
	fprintf(file,
		"daemon off;\nmaster_process off;\npid %s/pid;\nerror_log stderr emerg;\n%s"
		"events {}\nhttp {\naccess_log off;\nkeepalive_requests 1000000000;\n",
		nginx.folder, geteuid() == 0 ? "user root;\n" : "");
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		fprintf(file, "%s_temp_path %s;\n", paths[i], nginx.folder);
	/* A state of a key takes 128 bytes. */
	fprintf(file,
		"limit_req_zone $arg_key zone=generous:160m rate=1000000r/s;\n"
		"limit_req_zone $arg_key zone=strict:1m rate=1r/m;\n"
		"server {\nlisten unix:%s;\n"
		"location /free { empty_gif; }\n"
		"location /generous { limit_req zone=generous burst=1000000 nodelay; empty_gif; }\n"
		"location /strict { limit_req zone=strict; empty_gif; }\n}\n}\n",
		nginx.socket);
	if (fclose(file))
		bench_fail("nginx's configuration");
}

static void ask(const char *location, unsigned int key)
{
	bench_wire_print(wire, "HEAD /%s?key=%u HTTP/1.1\r\nHost: bench\r\n\r\n", location, key);
}

/* The status; the rest of the head is skipped. */
static int answer(void)
{
	int status = 0;

	if (sscanf(bench_wire_line(wire), "HTTP/1.1 %d", &status) != 1)
		bench_fail("nginx's answer");
	while (*bench_wire_line(wire))
		;
	return status;
}

int limit_req_prepare(const struct bench_case *c)
{
	char conf[128], pid[128];
	const char *arguments[] = {"nginx", "-e", "stderr", "-c", conf, NULL};
	int result;

	(void)c;
	if (nginx.pid)
		return 0;
	bench_server_folder(&nginx);
	snprintf(conf, sizeof(conf), "%s/conf", nginx.folder);
	snprintf(pid, sizeof(pid), "%s/pid", nginx.folder);
	bench_remove_at_exit(conf);
	bench_remove_at_exit(pid);
	write_configuration(conf);
	result = bench_server_start_prepared(&nginx, arguments);
	unlink(conf);
	unlink(pid);
	bench_removed(conf);
	bench_removed(pid);
	if (result) {
		/* The files lay in it. */
		rmdir(nginx.folder);
		return -1;
	}
	limit_req_begin(NULL);
	ask("strict", 0);
	answer();
	limit_req_end(NULL);
	return 0;
}

void limit_req_stop(void)
{
	if (nginx.pid)
		bench_server_stop(&nginx);
}

void limit_req_begin(struct bench_worker *worker)
{
	(void)worker;
	wire = bench_wire_open(nginx.socket);
	if (!wire)
		bench_fail("nginx");
}

void limit_req_end(struct bench_worker *worker)
{
	(void)worker;
	bench_wire_close(wire);
	wire = NULL;
}

static void step(struct bench_worker *worker, const char *location, uint64_t keys, int expected)
{
	for (int i = 0; i < STEP; i++)
		ask(location, (unsigned int)bench_random_below(&worker->random, keys));
	for (int i = 0; i < STEP; i++)
		worker->wrong += answer() != expected;
	worker->operations += STEP;
}

void limit_req_step_free(struct bench_worker *worker)
{
	step(worker, "free", 1, 200);
}

void limit_req_step_hot(struct bench_worker *worker)
{
	step(worker, "generous", 1, 200);
}

void limit_req_step_refused(struct bench_worker *worker)
{
	step(worker, "strict", 1, 503);
}

void limit_req_step_many(struct bench_worker *worker)
{
	step(worker, "generous", KEYS, 200);
}
