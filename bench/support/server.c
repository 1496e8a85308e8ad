/* SPDX-License-Identifier: MIT */
#include "server.h"

#include "bench.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 32 };

static void run(const struct bench_server *server, const char *const arguments[])
{
	char *words[ARGUMENTS_MAX + 1];
	int count = 0, null = open("/dev/null", O_RDWR);

	for (; arguments[count] && count < ARGUMENTS_MAX; count++) {
		const char *word = arguments[count];

		if (!strcmp(word, BENCH_SERVER_SOCKET))
			word = server->socket;
		else if (!strcmp(word, BENCH_SERVER_FOLDER))
			word = server->folder;
		words[count] = strdup(word);
	}
	words[count] = NULL;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	execvp(words[0], words);
	_exit(127);
}

void bench_server_folder(struct bench_server *server)
{
	snprintf(server->folder, sizeof(server->folder), "/tmp/coshm-bench-XXXXXX");
	if (!mkdtemp(server->folder))
		bench_fail("mkdtemp");
	snprintf(server->socket, sizeof(server->socket), "%s/socket", server->folder);
	bench_remove_at_exit(server->folder);
	bench_remove_at_exit(server->socket);
}

static int listens(const struct bench_server *server)
{
	struct bench_wire *wire = bench_wire_open(server->socket);

	bench_wire_close(wire);
	return wire != NULL;
}

static int calls(const struct bench_server *server)
{
	struct pollfd listener = {.fd = server->listener, .events = POLLIN};

	return poll(&listener, 1, 0) == 1;
}

static int start(struct bench_server *server, const char *const arguments[],
		 int (*is_there)(const struct bench_server *))
{
	const struct timespec moment = {.tv_nsec = 10000000};
	int status;

	bench_kill_at_exit(&server->pid);
	server->pid = fork();
	if (server->pid < 0)
		bench_fail("fork");
	if (server->pid == 0)
		run(server, arguments);
	for (int i = 0; i < 3000; i++) {
		if (is_there(server))
			return 0;
		if (waitpid(server->pid, &status, WNOHANG) == server->pid) {
			server->pid = 0;
			break;
		}
		nanosleep(&moment, NULL);
	}
	if (server->pid == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
		snprintf(bench_absent, sizeof(bench_absent), "%s is not in PATH", arguments[0]);
	else
		snprintf(bench_absent, sizeof(bench_absent), "%s does not start", arguments[0]);
	bench_server_stop(server);
	return -1;
}

int bench_server_start(struct bench_server *server, const char *const arguments[])
{
	bench_server_folder(server);
	return bench_server_start_prepared(server, arguments);
}

int bench_server_start_prepared(struct bench_server *server, const char *const arguments[])
{
	return start(server, arguments, listens);
}

int bench_server_start_caller(struct bench_server *server, const char *const arguments[])
{
	server->listener = bench_wire_listen(server->socket);
	return start(server, arguments, calls);
}

void bench_server_stop(struct bench_server *server)
{
	if (server->pid > 0) {
		kill(server->pid, SIGKILL);
		waitpid(server->pid, NULL, 0);
	}
	server->pid = 0;
	if (server->listener > 0)
		close(server->listener);
	server->listener = 0;
	unlink(server->socket);
	rmdir(server->folder);
	bench_removed(server->socket);
	bench_removed(server->folder);
}
