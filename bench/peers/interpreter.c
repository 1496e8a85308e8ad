/* SPDX-License-Identifier: MIT */
/* A question is a line: what to do, the first key of the load, how many. The answer counts what went wrong. */
#include "interpreter.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	STEP = 1 << 15,	  /* milliseconds: beside that, the question and the answer are nothing */
	LOOPS_BEFORE = 4, /* until a tracing compiler is done */
	LOOPS = 8,
};

static const char *const names[INTERPRETER_FILES] = {
	[INTERPRETER_KEYS] = "keys",
	[INTERPRETER_CONF] = "conf",
	[INTERPRETER_PID] = "pid",
};

static uint64_t ask(struct interpreter *interpreter, const char *what, uint64_t first,
		    uint64_t count)
{
	bench_wire_print(interpreter->wire, "%s %llu %llu\n", what, (unsigned long long)first,
			 (unsigned long long)count);
	return strtoull(bench_wire_line(interpreter->wire), NULL, 10);
}

static void join(struct interpreter *interpreter)
{
	interpreter->wire = bench_wire_accept(interpreter->server.listener);
	if (!interpreter->wire)
		bench_fail("no process of the script connects");
}

static pid_t other_end(const struct bench_wire *wire)
{
	struct ucred who;
	socklen_t size_bytes = sizeof(who);

	if (getsockopt(wire->fd, SOL_SOCKET, SO_PEERCRED, &who, &size_bytes))
		bench_fail("SO_PEERCRED");
	return who.pid;
}

/* Its worker only waits for it. */
static void share_our_cpu(pid_t process)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) ||
	    sched_setaffinity(process, sizeof(set), &set))
		bench_fail("sched_setaffinity");
}

static void write_keys(const char *path, uint32_t key_count)
{
	FILE *file = fopen(path, "w");

	if (!file || fwrite(bench_load(BENCH_ZIPF, key_count), BENCH_KEY_BYTES, BENCH_LOAD_LENGTH,
			    file) != BENCH_LOAD_LENGTH)
		bench_fail(path);
	if (fclose(file))
		bench_fail(path);
}

void interpreter_prepare(struct interpreter *interpreter, const struct store_shape *shape)
{
	if (!interpreter->loop_ns)
		interpreter->loop_ns = bench_shared(sizeof(*interpreter->loop_ns));
	bench_server_folder(&interpreter->server);
	for (int i = 0; i < INTERPRETER_FILES; i++) {
		snprintf(interpreter->files[i], sizeof(interpreter->files[i]), "%s/%s",
			 interpreter->server.folder, names[i]);
		bench_remove_at_exit(interpreter->files[i]);
	}
	write_keys(interpreter->files[INTERPRETER_KEYS], shape->key_count);
}

int interpreter_start(struct interpreter *interpreter, const char *const arguments[])
{
	int result = bench_server_start_caller(&interpreter->server, arguments);
	size_t used;

	for (int i = 0; i < INTERPRETER_FILES; i++) {
		unlink(interpreter->files[i]);
		bench_removed(interpreter->files[i]);
	}
	if (!result)
		return 0;
	/* They lay in the folder when the server was to remove it. */
	rmdir(interpreter->server.folder);
	used = strlen(bench_absent);
	snprintf(bench_absent + used, sizeof(bench_absent) - used, "; Debian: %s",
		 interpreter->needs);
	return -1;
}

void interpreter_fill(struct interpreter *interpreter, const struct store_shape *shape)
{
	join(interpreter);
	if (ask(interpreter, "fill", 0, shape->key_count) > 0)
		bench_fail("fill by a script");
	interpreter_end(interpreter);
}

void interpreter_stop(struct interpreter *interpreter)
{
	bench_server_stop(&interpreter->server);
}

/* In CPU time: what else runs here is not taken for the loop's. */
static uint64_t measure_loop(struct interpreter *interpreter, const char *operation, pid_t process)
{
	char what[16];
	uint64_t before_ns = 0;

	snprintf(what, sizeof(what), "%s-loop", operation);
	for (int i = -LOOPS_BEFORE; i < LOOPS; i++) {
		if (i == 0)
			before_ns = bench_cpu_ns(process);
		ask(interpreter, what, 0, STEP);
	}
	return (bench_cpu_ns(process) - before_ns) / LOOPS;
}

void interpreter_begin(struct interpreter *interpreter, const char *operation,
		       struct bench_worker *worker)
{
	join(interpreter);
	worker->helper = other_end(interpreter->wire);
	share_our_cpu(worker->helper);
	interpreter->aside_ns = measure_loop(interpreter, operation, worker->helper);
	if (!strcmp(operation, "get"))
		*interpreter->loop_ns = (double)interpreter->aside_ns / STEP;
}

void interpreter_step(struct interpreter *interpreter, const char *operation,
		      struct bench_worker *worker)
{
	uint64_t first = worker->at / STEP * STEP % BENCH_LOAD_LENGTH;

	worker->wrong += ask(interpreter, operation, first, STEP);
	worker->aside_ns += interpreter->aside_ns;
	worker->at += STEP;
	worker->operations += STEP;
}

void interpreter_end(struct interpreter *interpreter)
{
	bench_wire_close(interpreter->wire);
	interpreter->wire = NULL;
}

void interpreter_report(const struct interpreter *interpreter)
{
	if (interpreter->loop_ns && *interpreter->loop_ns > 0)
		bench_note(interpreter->note, *interpreter->loop_ns, "ns");
}
