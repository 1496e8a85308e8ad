/* SPDX-License-Identifier: MIT */
#include "args.h"

#include "errors.h"
#include "nearest.h"
#include "output.h"
#include "units.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 16
#define LONG_BASE   256 /* getopt_long's value of row 0: above every letter */

struct option_set {
	struct args_option rows[OPTIONS_MAX];
	size_t count;
};

static void add_rows(struct option_set *set, const struct args_option *rows, size_t count)
{
	if (set->count + count > OPTIONS_MAX)
		abort();
	if (count)
		memcpy(set->rows + set->count, rows, count * sizeof(*rows));
	set->count += count;
}

/* The options that come with what a verb does. */
static void add_common(struct option_set *set, struct args *args, bool *help)
{
	unsigned int flags = args->command->flags;
	const struct args_option json = {"json", NULL, "print one JSON document, numbers exact",
					 .flag = &args->json};
	const struct args_option headings = {"noheadings", NULL,
					     "print the table without its heading",
					     .flag = &args->no_headings};
	const struct args_option yes = {"yes", NULL, "do it without asking", .letter = 'y',
					.flag = &args->yes};
	const struct args_option owner = {
		"any-owner", NULL, "trust a segment that belongs to a user other than root and you",
		.flag = &args->any_owner};
	const struct args_option help_row = {"help", NULL, "print this", .letter = 'h',
					     .flag = help};

	if (flags & COMMAND_CONFIRMS)
		add_rows(set, &yes, 1);
	if (flags & COMMAND_ACTS)
		add_rows(set, &owner, 1);
	if (flags & COMMAND_JSON)
		add_rows(set, &json, 1);
	if (flags & COMMAND_TABLE)
		add_rows(set, &headings, 1);
	add_rows(set, &help_row, 1);
}

static void print_option_name(char *text, size_t size_bytes, const struct args_option *row,
			      bool all_names)
{
	const char *value = row->value_name ? row->value_name : "";
	const char *blank = row->value_name ? " " : "";

	if (row->letter && all_names)
		snprintf(text, size_bytes, "-%c, --%s%s%s", row->letter, row->name, blank, value);
	else if (row->letter)
		snprintf(text, size_bytes, "-%c%s%s", row->letter, blank, value);
	else
		snprintf(text, size_bytes, "--%s%s%s", row->name, blank, value);
}

/* A page of text as wide as the narrowest terminal in use. */
#define PAGE_COLUMNS 79

struct page {
	size_t indent; /* of every line but the first */
	size_t column;
};

static void print_word(struct page *page, const char *word, size_t length)
{
	if (page->column > page->indent && page->column + 1 + length > PAGE_COLUMNS) {
		printf("\n%*s", (int)page->indent, "");
		page->column = page->indent;
	} else if (page->column > page->indent) {
		putchar(' ');
		page->column++;
	}
	printf("%.*s", (int)length, word);
	page->column += length;
}

static void print_words(struct page *page, const char *text)
{
	while (*text) {
		size_t length = strcspn(text, " \n");

		if (length)
			print_word(page, text, length);
		text += length;
		text += *text != '\0';
	}
}

static void print_options(const struct option_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct args_option *row = &set->rows[i];
		struct page page = {.indent = 27, .column = 27};
		char left[48];

		print_option_name(left, sizeof(left), row, true);
		printf("  %-24s ", left);
		print_words(&page, row->help);
		if (row->required)
			print_words(&page, "(required)");
		putchar('\n');
	}
}

/* @own_count: the first rows are the command's own; of the common ones only those that matter are shown above. */
static void print_usage(const struct command *command, const struct option_set *set,
			size_t own_count)
{
	struct page page = {.indent = 7, .column = 7};
	char left[48], word[64];

	printf("Usage: ");
	print_words(&page, "shmctl");
	print_words(&page, command->name);
	print_words(&page, command->operands);
	for (size_t i = 0; i < own_count; i++) {
		const struct args_option *row = &set->rows[i];

		print_option_name(left, sizeof(left), row, false);
		snprintf(word, sizeof(word), row->required ? "%s" : "[%s]", left);
		print_word(&page, word, strlen(word));
	}
	if (command->flags & COMMAND_CONFIRMS)
		print_words(&page, "[--yes]");
	if (command->flags & COMMAND_JSON)
		print_words(&page, "[--json]");
	if (command->flags & COMMAND_PROGRAM)
		print_words(&page, "-- CMD [ARGUMENT...]");
	putchar('\n');
}

static void print_help(const struct command *command, const struct option_set *set,
		       size_t own_count)
{
	struct page page = {.indent = 0};

	print_usage(command, set, own_count);
	printf("\n%s.\n", command->summary);
	if (command->help) {
		putchar('\n');
		print_words(&page, command->help);
		putchar('\n');
	}
	printf("\nOptions:\n");
	print_options(set);
	printf("\nExamples:\n%s", command->examples);
}

void args_wrong(const struct command *command, const char *format, ...)
{
	va_list arguments;
	char what[512], fix[64];

	va_start(arguments, format);
	vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	snprintf(fix, sizeof(fix), "shmctl %s --help shows how", command->name);
	errors_forget();
	exit(output_finish(errors_say(STATUS_USAGE, command->name, what, fix)));
}

static void prepare_getopt(const struct option_set *set, struct option longs[OPTIONS_MAX + 1],
			   char letters[2 * OPTIONS_MAX + 2])
{
	char *letter = letters;

	*letter++ = ':';
	for (size_t i = 0; i < set->count; i++) {
		const struct args_option *row = &set->rows[i];

		longs[i] = (struct option){
			.name = row->name,
			.has_arg = row->value_name ? required_argument : no_argument,
			.val = LONG_BASE + (int)i,
		};
		if (!row->letter)
			continue;
		*letter++ = row->letter;
		if (row->value_name)
			*letter++ = ':';
	}
	*letter = '\0';
	longs[set->count] = (struct option){.name = NULL};
}

static int row_of(const struct option_set *set, int value)
{
	if (value >= LONG_BASE)
		return value - LONG_BASE;
	for (size_t i = 0; i < set->count; i++)
		if (set->rows[i].letter == value)
			return (int)i;
	return -1;
}

__attribute__((noreturn)) static void unknown_option(const struct command *command,
						     const struct option_set *set, const char *word)
{
	const char *names[OPTIONS_MAX + 1] = {NULL};
	const char *nearest = NULL;

	for (size_t i = 0; i < set->count; i++)
		names[i] = set->rows[i].name;
	if (!strncmp(word, "--", 2))
		nearest = nearest_word(word + 2, names);
	if (nearest)
		args_wrong(command, "no option %s; did you mean --%s?", word, nearest);
	args_wrong(command, "no option %s; what starts with '-' and is no option goes behind --",
		   word);
}

static void store(const struct command *command, const struct args_option *row, const char *value)
{
	static const char *const wanted[] = {
		"a whole number", "a size: a number with K, M or G (of 1024), such as 64M",
		"a duration: a number with ns, us, ms, s, m or h, such as 30s"};
	int error = 0, kind = 0;

	if (row->flag) {
		*row->flag = true;
	} else if (row->text) {
		*row->text = value;
	} else if (row->count) {
		error = units_parse_count(value, row->count);
	} else if (row->size_bytes) {
		kind = 1;
		error = units_parse_size(value, row->size_bytes);
	} else {
		kind = 2;
		error = units_parse_duration(value, row->for_ns);
	}
	if (error == -ERANGE)
		args_wrong(command, "--%s %s: too large a number", row->name, value);
	if (!error && row->not_zero &&
	    !(row->count	? *row->count
	      : row->size_bytes ? *row->size_bytes
				: *row->for_ns))
		args_wrong(command, "--%s %s: it starts above 0; %s", row->name, value,
			   row->not_zero);
	if (error)
		args_wrong(command, "--%s %s: wanted is %s", row->name, value, wanted[kind]);
}

/* Counts "SEG/OBJ KEY [MORE]" and complains about the first word that has no operand. */
static void check_operands(const struct args *args)
{
	const char *at = args->command->operands;
	int count = 0;

	while (*at) {
		size_t length = strcspn(at, " ");

		if (count == args->operand_count && *at != '[')
			args_wrong(args->command, "%.*s is missing", (int)length, at);
		if (count < args->operand_count)
			count++;
		at += length;
		at += *at == ' ';
	}
	if (count < args->operand_count)
		args_wrong(args->command, "%s is one word too many%s", args->operands[count],
			   args->command->flags & COMMAND_PROGRAM
				   ? "; the program to run goes behind --"
				   : "; put blanks in quotes");
}

/* What is behind "--" belongs to the program, so getopt must not see it: it would move it about. */
static int cut_program(struct args *args, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--")) {
			args->program = argv + i + 1;
			return i;
		}
	return argc;
}

struct args args_parse(const struct command *command, const struct args_option *options,
		       size_t option_count, int argc, char **argv)
{
	struct args args = {.command = command};
	struct option_set set = {.count = 0};
	struct option longs[OPTIONS_MAX + 1];
	char letters[2 * OPTIONS_MAX + 2];
	bool given[OPTIONS_MAX] = {false}, help = false;
	int value;

	add_rows(&set, options, option_count);
	add_common(&set, &args, &help);
	prepare_getopt(&set, longs, letters);
	if (command->flags & COMMAND_PROGRAM)
		argc = cut_program(&args, argc, argv);

	optind = 0;
	opterr = 0;
	while ((value = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		int row = row_of(&set, value);

		if (value == ':')
			args_wrong(command, "%s needs a value", argv[optind - 1]);
		if (row < 0 && optopt >= LONG_BASE)
			args_wrong(command, "--%s takes no value",
				   set.rows[optopt - LONG_BASE].name);
		if (row < 0 && optopt) {
			char word[3] = {'-', (char)optopt, '\0'};

			unknown_option(command, &set, word);
		}
		if (row < 0)
			unknown_option(command, &set, argv[optind - 1]);
		store(command, &set.rows[row], optarg);
		given[row] = true;
	}
	if (help) {
		print_help(command, &set, option_count);
		exit(output_finish(STATUS_OK));
	}
	args.operand_count = argc - optind;
	args.operands = argv + optind;
	check_operands(&args);
	for (size_t i = 0; i < set.count; i++)
		if (set.rows[i].required && !given[i])
			args_wrong(command, "--%s %s is missing", set.rows[i].name,
				   set.rows[i].value_name);
	if (command->flags & COMMAND_PROGRAM && (!args.program || !args.program[0]))
		args_wrong(command, "write -- and the program to run at the end");
	return args;
}

struct target args_target(const struct args *args, int index)
{
	const char *text = args->operands[index];
	struct target target;

	if (target_parse(text, &target))
		args_wrong(
			args->command,
			"'%s' names nothing: it is SEG or SEG/OBJ, or with a path PATH or PATH:OBJ "
			"(a path starts with / or .)",
			text);
	return target;
}

struct target args_segment(const struct args *args, int index)
{
	struct target target = args_target(args, index);

	if (target.object)
		args_wrong(args->command, "'%s' names an object; wanted is the segment alone: %s",
			   target.text, target.segment);
	return target;
}

struct target args_object(const struct args *args, int index)
{
	struct target target = args_target(args, index);

	if (!target.object)
		args_wrong(args->command,
			   "'%s' names a segment; wanted is an object in it: %s%sNAME", target.text,
			   target.text, strchr(target.text, '/') ? ":" : "/");
	return target;
}
