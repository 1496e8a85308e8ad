/* SPDX-License-Identifier: MIT */
/*
 * output.h - data on stdout: a table for people, one JSON document for programs
 *
 * Bytes that come out of a segment (keys, values, error texts, commands) are data of others: in a table what could
 * move a terminal's cursor is shown as \n, \xNN and the like.
 */
#ifndef SHMCTL_OUTPUT_H
#define SHMCTL_OUTPUT_H

#include "args.h"

#include <jansson.h>
#include <libsmartcols.h>

enum output_column_flags {
	OUTPUT_RIGHT = 1, /* numbers */
	OUTPUT_TRUNC = 2, /* gives way on a narrow terminal; in a pipe nothing is cut */
	OUTPUT_TREE = 4,
};

struct output_column {
	const char *name;
	unsigned int flags;
};

#define OUTPUT_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A table of the given columns. Running out of memory ends the program: nothing that looks holds anything. */
struct libscols_table *output_table(const struct args *args, const struct output_column *columns,
				    size_t count);
/* The next line; @parent only in a table with a tree column. */
struct libscols_line *output_line(struct libscols_table *table, struct libscols_line *parent);
__attribute__((format(printf, 3, 4))) void output_cell(struct libscols_line *line, size_t column,
						       const char *format, ...);
/* Escaped bytes, see output_escape. */
void output_cell_bytes(struct libscols_line *line, size_t column, const void *data,
		       size_t size_bytes, size_t columns_max);
/* Shows the cell in red where colours are in use (a terminal, no NO_COLOR). */
void output_alarm(struct libscols_line *line, size_t column);
/* Prints the table and frees it. Without lines it remarks @if_empty instead: an empty table has no heading either. */
void output_table_end(struct libscols_table *table, const char *if_empty);

/* Prints the document and frees it. NULL is out of memory. Returns enum status. */
int output_json(json_t *document);
/* Was there one already? */
bool output_has_json(void);
/* "name": text where the bytes are UTF-8; else null, and the bytes in "name_hex". */
void output_json_bytes(json_t *object, const char *name, const void *data, size_t size_bytes);
/* null for COSHM_FOREVER */
json_t *output_json_ns(uint64_t ns);
json_t *output_json_number(uint64_t number);
json_t *output_json_text(const char *text);
/* {"segment": ..., "object": ...}, the start of every document that is about one of them. */
json_t *output_json_about(const struct target *target);

/* Printable form of @data, at most @columns_max characters (0: no limit), "..." where it was cut. free() it. */
char *output_escape(const void *data, size_t size_bytes, size_t columns_max);

/* Raw bytes to stdout. Returns enum status. */
int output_raw(const void *data, size_t size_bytes);

/* A remark on stderr, for a person at a terminal only: scripts know from the exit code. */
__attribute__((format(printf, 1, 2))) void output_remark(const char *format, ...);

/* Flushes stdout: a full disk must not look like success. Returns @status, or STATUS_FAILURE after a complaint. */
int output_finish(int status);

/* Asks on a terminal, wants --yes elsewhere (exit 2). Returns whether to go on. */
__attribute__((format(printf, 2, 3))) bool output_confirm(const struct args *args,
							  const char *format, ...);

/* For the few things that nothing can be done about. */
__attribute__((noreturn)) void output_no_memory(void);

#endif
