/* SPDX-License-Identifier: MIT */
/* shmctl: look into and operate coshm segments. */
#include "args.h"
#include "errors.h"
#include "nearest.h"
#include "output.h"
#include "shmctl.h"
#include "sigbus.h"

#include <coshm/types.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

struct command_group {
	const char *name; /* NULL: verbs without a group word */
	const char *title;
	const char *example;
	const struct command *const *commands; /* ended by NULL */
};

static const struct command *const segment_commands[] = {
	&command_ls, &command_info, &command_ps, &command_stats, &command_verify, &command_create,
	&command_rm, &command_reap, NULL};
static const struct command *const cache_commands[] = {&command_cache_create, &command_cache_ls,
						       &command_cache_get,    &command_cache_set,
						       &command_cache_del,    NULL};
static const struct command *const limit_commands[] = {&command_limit_create, &command_limit_show,
						       &command_limit_take, NULL};
static const struct command *const queue_commands[] = {
	&command_queue_create, &command_queue_ls,      &command_queue_peek,
	&command_queue_dead,   &command_queue_redrive, &command_queue_drop,
	&command_queue_push,   &command_queue_pop,     NULL};

static const struct command_group groups[] = {
	{NULL, "Segments", "shmctl ps shop", segment_commands},
	{"cache", "Caches: what is computed once and read often",
	 "shmctl cache get shop/pages /index.html", cache_commands},
	{"limit", "Rate limiters: so many per second for each key",
	 "shmctl limit take shop/login 203.0.113.9 && echo welcome", limit_commands},
	{"queue", "Task queues: no task is lost when a worker dies",
	 "shmctl queue pop shop/mail -- sendmail -t", queue_commands},
};

static void print_group(const struct command_group *group)
{
	printf("\n%s\n", group->title);
	for (const struct command *const *command = group->commands; *command; command++)
		printf("  %-14s %s\n", (*command)->name, (*command)->summary);
	printf("  $ %s\n", group->example);
}

static void print_help(void)
{
	printf("shmctl looks into and operates coshm segments: caches, rate limiters and\n"
	       "task queues in shared memory.\n\n"
	       "Try first:\n"
	       "  shmctl                                       what is here\n"
	       "  shmctl create demo --size 64M                a segment to play with\n"
	       "  shmctl cache create demo/pages --size 16M    a cache in it\n"
	       "  shmctl cache set demo/pages greeting hello\n"
	       "  shmctl cache get demo/pages greeting\n"
	       "  shmctl rm demo\n");
	for (size_t i = 0; i < OUTPUT_COUNT(groups); i++)
		print_group(&groups[i]);
	printf("\nSEG is a name (shop is /dev/shm/shop) or a path (/run/app/shop.shm); an\n"
	       "object is SEG/OBJ, with a path PATH:OBJ. Sizes take K M G, durations ns us ms\n"
	       "s m h, rates N/s N/m N/h. Every command has its own --help with examples;\n"
	       "most take --json. The manual: man 1 shmctl\n");
}

static const struct command_group *find_group(const char *word)
{
	for (size_t i = 0; i < OUTPUT_COUNT(groups); i++)
		if (groups[i].name && !strcmp(groups[i].name, word))
			return &groups[i];
	return NULL;
}

/* The word that a command is called by within its group: "get" of "cache get". */
static const char *verb_of(const struct command *command)
{
	const char *blank = strchr(command->name, ' ');

	return blank ? blank + 1 : command->name;
}

static const struct command *find_command(const struct command_group *group, const char *word)
{
	for (const struct command *const *command = group->commands; *command; command++)
		if (!strcmp(verb_of(*command), word))
			return *command;
	return NULL;
}

/* Complains about a word that is neither a group nor a verb, with the best guess at what was meant. */
static int unknown_word(const struct command_group *group, const char *word)
{
	const char *words[16] = {NULL}, *nearest;
	char fix[128];
	size_t count = 0;

	for (size_t i = 0; i < OUTPUT_COUNT(groups) && group == groups; i++) {
		const struct command *command =
			groups[i].name ? find_command(&groups[i], word) : NULL;

		if (command) {
			snprintf(fix, sizeof(fix), "did you mean shmctl %s?", command->name);
			return errors_say(STATUS_USAGE, word, "not a command by itself", fix);
		}
		if (groups[i].name)
			words[count++] = groups[i].name;
	}
	for (const struct command *const *command = group->commands; *command; command++)
		words[count++] = verb_of(*command);
	nearest = nearest_word(word, words);
	snprintf(fix, sizeof(fix), "%s%s%s%s%s", nearest ? "did you mean shmctl " : "see shmctl ",
		 group->name ? group->name : "", group->name ? " " : "",
		 nearest ? nearest : "--help", nearest ? "?" : "");
	return errors_say(STATUS_USAGE, word, "no such command", fix);
}

static bool is_help(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help");
}

static int run_in_group(const struct command_group *group, int argc, char **argv)
{
	const struct command *command;

	if (argc < 2 || is_help(argv[1])) {
		print_group(group);
		printf("\nMore: shmctl %s VERB --help\n", group->name);
		return argc < 2 ? STATUS_USAGE : STATUS_OK;
	}
	command = find_command(group, argv[1]);
	if (!command)
		return unknown_word(group, argv[1]);
	return command->run(command, argc - 1, argv + 1);
}

/* shmctl --json cache ls X becomes shmctl cache ls --json X. */
static void move_leading_options(int argc, char **argv)
{
	int options = 0, words;
	char *moved[2];

	while (1 + options < argc && argv[1 + options][0] == '-')
		options++;
	if (!options || 1 + options == argc)
		return;
	words = find_group(argv[1 + options]) && 2 + options < argc ? 2 : 1;
	memcpy(moved, argv + 1 + options, (size_t)words * sizeof(*moved));
	memmove(argv + 1 + words, argv + 1, (size_t)options * sizeof(*argv));
	memcpy(argv + 1, moved, (size_t)words * sizeof(*moved));
}

static int run_words(int argc, char **argv)
{
	const struct command_group *group = find_group(argv[1]);
	const struct command *command = find_command(&groups[0], argv[1]);

	if (group)
		return run_in_group(group, argc - 1, argv + 1);
	if (command)
		return command->run(command, argc - 1, argv + 1);
	return unknown_word(&groups[0], argv[1]);
}

/* Before anything is parsed: a mistake in the command line is told as a document, too. */
static bool wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--json"))
			return true;
	return false;
}

static int run(int argc, char **argv)
{
	char help[] = "--help";

	if (wants_json(argc, argv))
		errors_in_json();
	move_leading_options(argc, argv);
	if (argc == 1)
		return cmd_here(false);
	if (argc == 2 && !strcmp(argv[1], "--json"))
		return cmd_here(true);
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		printf("shmctl %s\n", coshm_version());
		return STATUS_OK;
	}
	if (argc == 2 && is_help(argv[1])) {
		print_help();
		return STATUS_OK;
	}
	if (!strcmp(argv[1], "help") && argc <= 4) {
		char *words[] = {argv[0], argv[2], argc == 4 ? argv[3] : help, help, NULL};

		return run_words(argc == 4 ? 4 : 3, words);
	}
	return run_words(argc, argv);
}

int main(int argc, char **argv)
{
	/* Only how characters are written: a decimal comma in numbers would break who reads them. */
	setlocale(LC_CTYPE, "");
	errors_listen();
	sigbus_start();
	return output_finish(sigbus_finish(run(argc, argv)));
}
