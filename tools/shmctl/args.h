/* SPDX-License-Identifier: MIT */
/*
 * args.h - the command line: options, operands, names of segments and objects
 *
 * A command lists its options as rows; parsing, --help and the complaints about mistakes come from the rows.
 */
#ifndef SHMCTL_ARGS_H
#define SHMCTL_ARGS_H

#include "shmctl.h"
#include "target.h"

#include <stdint.h>

/* Exactly one of the pointers below the line is set and says what the option's value is. */
struct args_option {
	const char *name;
	const char *value_name; /* NULL: takes none */
	const char *help;
	char letter; /* 0: none */
	bool required;
	const char *
		not_zero; /* 0 is refused, since the library takes it for its default; what to do instead */
	/* --- */
	bool *flag;
	uint64_t *count;
	uint64_t *size_bytes;
	uint64_t *for_ns;
	const char **text;
};

struct args {
	const struct command *command;
	bool json;
	bool no_headings;
	bool yes;
	bool any_owner;
	int operand_count;
	char **operands;
	char **program; /* what follows "--" of a COMMAND_PROGRAM, ended by NULL */
};

/* Takes the command line apart. Does not return on --help (exit 0) and on a mistake (a complaint, exit 2). */
struct args args_parse(const struct command *command, const struct args_option *options,
		       size_t option_count, int argc, char **argv);

/* Complains about the command line, names --help, exits with 2. */
__attribute__((noreturn, format(printf, 2, 3))) void args_wrong(const struct command *command,
								const char *format, ...);

/* The operand @index as a segment (args_segment), an object (args_object) or either; exits with 2 if it is not. */
struct target args_segment(const struct args *args, int index);
struct target args_object(const struct args *args, int index);
struct target args_target(const struct args *args, int index);

#endif
