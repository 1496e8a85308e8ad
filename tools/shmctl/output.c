/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <coshm/types.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

void output_no_memory(void)
{
	fputs("shmctl: out of memory\n", stderr);
	exit(STATUS_FAILURE);
}

static bool stdout_takes_colours(void)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no_color && *no_color) && term &&
	       strcmp(term, "dumb") != 0;
}

struct libscols_table *output_table(const struct args *args, const struct output_column *columns,
				    size_t count)
{
	struct libscols_table *table = scols_new_table();

	if (!table)
		output_no_memory();
	scols_table_enable_noheadings(table, args->no_headings);
	scols_table_enable_colors(table, stdout_takes_colours());
	/* Cells are escaped here already; smartcols would escape the backslashes again. */
	scols_table_enable_noencoding(table, 1);
	for (size_t i = 0; i < count; i++) {
		int flags = 0;

		if (columns[i].flags & OUTPUT_RIGHT)
			flags |= SCOLS_FL_RIGHT;
		if (columns[i].flags & OUTPUT_TRUNC)
			flags |= SCOLS_FL_TRUNC;
		if (columns[i].flags & OUTPUT_TREE)
			flags |= SCOLS_FL_TREE;
		if (!scols_table_new_column(table, columns[i].name, 0, flags))
			output_no_memory();
	}
	return table;
}

struct libscols_line *output_line(struct libscols_table *table, struct libscols_line *parent)
{
	struct libscols_line *line = scols_table_new_line(table, parent);

	if (!line)
		output_no_memory();
	return line;
}

void output_cell_bytes(struct libscols_line *line, size_t column, const void *data,
		       size_t size_bytes, size_t columns_max)
{
	char *text = output_escape(data, size_bytes, columns_max);

	/* The table frees it. */
	if (scols_line_refer_data(line, column, text))
		output_no_memory();
}

void output_cell(struct libscols_line *line, size_t column, const char *format, ...)
{
	va_list arguments;
	char *raw;
	int length;

	va_start(arguments, format);
	length = vasprintf(&raw, format, arguments);
	va_end(arguments);
	if (length < 0)
		output_no_memory();
	output_cell_bytes(line, column, raw, (size_t)length, 0);
	free(raw);
}

void output_alarm(struct libscols_line *line, size_t column)
{
	scols_cell_set_color(scols_line_get_cell(line, column), "red");
}

/* --- Fitting a table into a terminal. Smartcols would cut without a mark, and the first column most. ------------- */

#define COLUMNS_MAX	 16
#define TRUNC_COLUMN_MIN 8 /* a cell that is cut keeps so much of what it says */

static size_t terminal_columns(void)
{
	struct winsize size;
	const char *columns = getenv("COLUMNS");

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return columns && atoi(columns) > 0 ? (size_t)atoi(columns) : 80;
}

/* How many columns it takes; with @room, what of it fits, its length in *ret_bytes. */
static size_t text_columns(const char *text, size_t room, size_t *ret_bytes)
{
	size_t columns = 0, bytes = 0;
	mbstate_t state = {0};

	while (text[bytes]) {
		wchar_t c;
		size_t length = mbrtowc(&c, text + bytes, strlen(text + bytes), &state);
		int width = length && length <= MB_LEN_MAX ? wcwidth(c) : 1;

		if (length == 0 || length > MB_LEN_MAX) {
			length = 1;
			memset(&state, 0, sizeof(state));
		}
		if (columns + (size_t)(width > 0 ? width : 0) > room)
			break;
		columns += (size_t)(width > 0 ? width : 0);
		bytes += length;
	}
	if (ret_bytes)
		*ret_bytes = bytes;
	return columns;
}

static size_t whole_columns(const char *text)
{
	return text ? text_columns(text, SIZE_MAX, NULL) : 0;
}

static bool is_trunc(struct libscols_table *table, size_t column)
{
	return scols_column_get_flags(scols_table_get_column(table, column)) & SCOLS_FL_TRUNC;
}

static void measure(struct libscols_table *table, size_t count, size_t widths[COLUMNS_MAX])
{
	struct libscols_iter *lines = scols_new_iter(SCOLS_ITER_FORWARD);
	struct libscols_line *line;

	if (!lines)
		output_no_memory();
	for (size_t i = 0; i < count; i++)
		widths[i] = whole_columns(scols_cell_get_data(
			scols_column_get_header(scols_table_get_column(table, i))));
	while (scols_table_next_line(table, lines, &line) == 0)
		for (size_t i = 0; i < count; i++) {
			size_t width =
				whole_columns(scols_cell_get_data(scols_line_get_cell(line, i)));

			/* The branch that a tree is drawn with. */
			if (scols_line_get_parent(line) &&
			    scols_column_is_tree(scols_table_get_column(table, i)))
				width += 2;
			if (width > widths[i])
				widths[i] = width;
		}
	scols_free_iter(lines);
}

static void cut_cells(struct libscols_table *table, size_t column, size_t room)
{
	const char *mark = MB_CUR_MAX > 1 ? "\u2026" : "...";
	size_t mark_columns = MB_CUR_MAX > 1 ? 1 : 3;
	struct libscols_iter *lines = scols_new_iter(SCOLS_ITER_FORWARD);
	struct libscols_line *line;

	if (!lines)
		output_no_memory();
	while (scols_table_next_line(table, lines, &line) == 0) {
		const char *text = scols_cell_get_data(scols_line_get_cell(line, column));
		size_t bytes;
		char *cut;

		if (whole_columns(text) <= room)
			continue;
		text_columns(text, room - mark_columns, &bytes);
		if (asprintf(&cut, "%.*s%s", (int)bytes, text, mark) < 0 ||
		    scols_line_refer_data(line, column, cut))
			output_no_memory();
	}
	scols_free_iter(lines);
}

/* What is too wide is taken from the widest of the columns that may give way, so that short ones stay whole. */
static void fit_table(struct libscols_table *table, size_t room)
{
	size_t count = scols_table_get_ncols(table), widths[COLUMNS_MAX], total;

	if (count > COLUMNS_MAX)
		return;
	measure(table, count, widths);
	total = count - 1;
	for (size_t i = 0; i < count; i++)
		total += widths[i];
	while (total > room) {
		size_t widest = count;

		for (size_t i = 0; i < count; i++)
			if (is_trunc(table, i) && widths[i] > TRUNC_COLUMN_MIN &&
			    (widest == count || widths[i] > widths[widest]))
				widest = i;
		if (widest == count)
			break;
		widths[widest]--;
		total--;
	}
	for (size_t i = 0; i < count; i++)
		if (is_trunc(table, i))
			cut_cells(table, i, widths[i]);
}

void output_table_end(struct libscols_table *table, const char *if_empty)
{
	if (scols_table_is_empty(table)) {
		output_remark("%s", if_empty);
	} else {
		if (isatty(STDOUT_FILENO))
			fit_table(table, terminal_columns());
		if (scols_print_table(table) < 0)
			output_no_memory();
	}
	scols_unref_table(table);
}

static bool has_json;

bool output_has_json(void)
{
	return has_json;
}

int output_json(json_t *document)
{
	if (!document)
		output_no_memory();
	has_json = true;
	if (json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) == 0)
		putchar('\n');
	json_decref(document);
	return STATUS_OK;
}

void output_json_bytes(json_t *object, const char *name, const void *data, size_t size_bytes)
{
	json_t *text = json_stringn(data, size_bytes);
	const unsigned char *bytes = data;
	char *hex, hex_name[64];

	if (text) {
		json_object_set_new(object, name, text);
		return;
	}
	hex = malloc(2 * size_bytes + 1);
	if (!hex)
		output_no_memory();
	for (size_t i = 0; i < size_bytes; i++)
		sprintf(hex + 2 * i, "%02x", bytes[i]);
	snprintf(hex_name, sizeof(hex_name), "%s_hex", name);
	json_object_set_new(object, name, json_null());
	json_object_set_new(object, hex_name, json_string(hex));
	free(hex);
}

json_t *output_json_number(uint64_t number)
{
	/* JSON numbers of jansson are signed; nothing that is counted or measured here gets that far. */
	return json_integer(number > INT64_MAX ? INT64_MAX : (json_int_t)number);
}

json_t *output_json_ns(uint64_t ns)
{
	return ns == COSHM_FOREVER ? json_null() : output_json_number(ns);
}

json_t *output_json_text(const char *text)
{
	json_t *string = json_string(text);
	char *escaped;

	if (string)
		return string;
	escaped = output_escape(text, strlen(text), 0);
	string = json_string(escaped);
	free(escaped);
	return string;
}

json_t *output_json_about(const struct target *target)
{
	json_t *object = json_object();

	json_object_set_new(object, "segment", output_json_text(target->segment));
	if (target->object)
		json_object_set_new(object, "object", output_json_text(target->object));
	return object;
}

struct text {
	char *data;
	size_t length;
	size_t capacity;
};

static void append(struct text *text, const char *data, size_t length)
{
	if (text->length + length + 1 > text->capacity) {
		text->capacity = 2 * (text->length + length + 32);
		text->data = realloc(text->data, text->capacity);
		if (!text->data)
			output_no_memory();
	}
	memcpy(text->data + text->length, data, length);
	text->length += length;
	text->data[text->length] = '\0';
}

/* Zero-width and direction marks print nothing themselves but can make a line read as something else. */
static bool is_deceptive(wchar_t c)
{
	return (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x2069) || c == 0xfeff || c == 0xad;
}

/* Appends one character or byte of @data; returns how many bytes that took. */
static size_t append_one(struct text *out, const char *data, size_t size_bytes)
{
	static const char escapes[] = "\a\b\t\n\v\f\r\033\\", letters[] = "abtnvfre\\";
	const char *escape = *data ? strchr(escapes, *data) : NULL;
	mbstate_t state = {0};
	char text[8];
	wchar_t c;
	size_t length;

	if (escape) {
		text[0] = '\\';
		text[1] = letters[escape - escapes];
		append(out, text, 2);
		return 1;
	}
	length = mbrtowc(&c, data, size_bytes, &state);
	if (length == 0 || length > size_bytes || !iswprint((wint_t)c) || is_deceptive(c)) {
		snprintf(text, sizeof(text), "\\x%02x", (unsigned char)*data);
		append(out, text, 4);
		return 1;
	}
	append(out, data, length);
	return length;
}

char *output_escape(const void *data, size_t size_bytes, size_t columns_max)
{
	struct text out = {.data = NULL};
	const char *at = data;
	size_t shown = 0;

	append(&out, "", 0);
	while (size_bytes) {
		size_t length;

		if (columns_max && shown++ == columns_max) {
			append(&out, "...", 3);
			break;
		}
		length = append_one(&out, at, size_bytes);
		at += length;
		size_bytes -= length;
	}
	return out.data;
}

int output_raw(const void *data, size_t size_bytes)
{
	fwrite(data, 1, size_bytes, stdout);
	return STATUS_OK;
}

void output_remark(const char *format, ...)
{
	va_list arguments;

	if (!isatty(STDERR_FILENO))
		return;
	fflush(stdout);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

int output_finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "shmctl: cannot write the output: %s\n", strerror(errno));
	return STATUS_FAILURE;
}

bool output_confirm(const struct args *args, const char *format, ...)
{
	va_list arguments;
	char answer[16] = "";

	if (args->yes)
		return true;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		args_wrong(args->command,
			   "this cannot be undone and there is no terminal to ask on; "
			   "say --yes if you mean it");
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputs(" [y/N] ", stderr);
	if (!fgets(answer, sizeof(answer), stdin))
		answer[0] = '\0';
	if (answer[0] == 'y' || answer[0] == 'Y')
		return true;
	fputs("shmctl: left as it is\n", stderr);
	return false;
}
