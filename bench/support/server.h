/* SPDX-License-Identifier: MIT */
/* bench/support/server.h - a server that lives as long as the bench, on a socket in a folder of its own */
#ifndef BENCH_SUPPORT_SERVER_H
#define BENCH_SUPPORT_SERVER_H

#include <sys/types.h>

struct bench_server {
	pid_t pid;    /* 0: does not run */
	int listener; /* where it calls us, by bench_server_start_caller; 0: nowhere */
	char folder[64];
	char socket[96];
};

/* Words of a command line that stand for what is not known before. */
#define BENCH_SERVER_SOCKET "@socket"
#define BENCH_SERVER_FOLDER "@folder"

/* 0 it listens; -1 it cannot be had, and bench_absent says why. The program is looked for in PATH. */
int bench_server_start(struct bench_server *server, const char *const arguments[]);
/* The same behind bench_server_folder: for a server that finds something in its folder. */
int bench_server_start_prepared(struct bench_server *server, const char *const arguments[]);
/*
 * The other way round: each of its processes connects to our socket, serves us there, and connects anew behind that. So
 * no two of our workers get the same process, which a server that is called does not promise. It must end when it
 * finds nobody to connect to. 0: the first one is there.
 */
int bench_server_start_caller(struct bench_server *server, const char *const arguments[]);
/* Before the last two: makes the folder, for what the server finds in it. */
void bench_server_folder(struct bench_server *server);
void bench_server_stop(struct bench_server *server);

#endif
