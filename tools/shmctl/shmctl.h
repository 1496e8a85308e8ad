/* SPDX-License-Identifier: MIT */
/*
 * shmctl.h - what every part of the tool shares: commands and exit codes
 *
 * The tool uses the public headers of coshm only. Three rules hold in every command: data goes to stdout and talk to
 * stderr; a command that became a member leaves the segment before it writes anything that could block or kill it; and
 * verbs that only look attach read-only.
 */
#ifndef SHMCTL_SHMCTL_H
#define SHMCTL_SHMCTL_H

#include <stdbool.h>
#include <stddef.h>

/* Exit codes; shmctl(1) lists them. */
enum status {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
	STATUS_USAGE = 2,
	STATUS_ABSENT = 3, /* no such segment or object */
	STATUS_PERMISSION = 4,
	STATUS_LAYOUT = 5,
	STATUS_DAMAGE = 6,
	STATUS_NO = 7, /* denied, miss, empty */
};

/* What a verb does decides how it attaches and which common options it takes. */
enum command_flags {
	COMMAND_ACTS = 1,     /* becomes a member; else it looks, read-only */
	COMMAND_TABLE = 2,    /* --noheadings */
	COMMAND_JSON = 4,     /* --json */
	COMMAND_CONFIRMS = 8, /* --yes */
	COMMAND_PROGRAM = 16, /* takes "-- CMD..." */
};

struct command {
	const char *name;     /* "cache get", "ls" */
	const char *operands; /* "SEG/OBJ KEY", optional ones in brackets */
	const char *summary;  /* one line */
	const char *help;     /* what else to know */
	const char *examples; /* a line each */
	unsigned int flags;
	int (*run)(const struct command *command, int argc, char **argv); /* returns enum status */
};

extern const struct command command_ls, command_info, command_ps, command_stats, command_verify;
extern const struct command command_create, command_rm, command_reap;
extern const struct command command_cache_create, command_cache_ls, command_cache_get,
	command_cache_set, command_cache_del;
extern const struct command command_limit_create, command_limit_show, command_limit_take;
extern const struct command command_queue_create, command_queue_ls, command_queue_peek,
	command_queue_dead, command_queue_redrive, command_queue_drop, command_queue_push,
	command_queue_pop;

/* shmctl without arguments: what is here, and what to try next. */
int cmd_here(bool json);

#endif
