/* SPDX-License-Identifier: MIT */
/*
 * shmctl on damaged files: every verb that looks ends in time, by no signal, with one of its exit codes and, if that
 * is one of failure, with a complaint.
 *
 * COSHM_FUZZ_FILES   damaged files (8)
 * COSHM_TEST_SEED    what the damage is made of (1)
 */
#include "fuzz/stage.h"
#include "support/procs.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define WORDS_MAX 8
#define OPEN_FILE "PATH"    /* in a command: the segment's path */
#define OBJECT(x) "PATH:" x /* an object in it */
#define DAMAGE	  6	    /* exit code */
#define ABSENT	  3

static const char *const verbs[][WORDS_MAX] = {
	{"ls", OPEN_FILE},
	{"ls", OPEN_FILE, "--json"},
	{"info", OPEN_FILE},
	{"info", OPEN_FILE, "--json"},
	{"ps", OPEN_FILE},
	{"ps", OPEN_FILE, "--json"},
	{"stats", OPEN_FILE},
	{"stats", OPEN_FILE, "--prom"},
	{"verify", OPEN_FILE},
	{"verify", OPEN_FILE, "--json"},
	{"verify", OBJECT(STAGE_CACHE_NAME)},
	{"cache", "ls", OBJECT(STAGE_CACHE_NAME), "--show-values"},
	{"cache", "ls", OBJECT(STAGE_CACHE_NAME), "--json"},
	{"cache", "get", OBJECT(STAGE_CACHE_NAME), "key-05", "--peek"},
	{"limit", "show", OBJECT(STAGE_LIMITER_NAME), "key-03"},
	{"queue", "ls", OPEN_FILE},
	{"queue", "peek", OBJECT(STAGE_QUEUE_NAME), "--show-values"},
	{"queue", "peek", OBJECT(STAGE_QUEUE_NAME), "--json"},
	{"queue", "dead", OBJECT(STAGE_QUEUE_NAME), "--json"},
};
#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static const char *shmctl;
static int complaint; /* a file: stderr of the last run */
static char prefix[TEST_SEGMENT_NAME_SIZE];

struct command {
	const char *words[WORDS_MAX + 2];
	char targets[WORDS_MAX][192];
};

static void command_make(struct command *command, const struct stage *stage, size_t verb)
{
	unsigned int i;

	command->words[0] = shmctl;
	for (i = 0; i < WORDS_MAX && verbs[verb][i]; i++) {
		command->words[i + 1] = verbs[verb][i];
		if (strncmp(verbs[verb][i], OPEN_FILE, strlen(OPEN_FILE)) != 0)
			continue;
		snprintf(command->targets[i], sizeof(command->targets[i]), "%s%s", stage->path,
			 verbs[verb][i] + strlen(OPEN_FILE));
		command->words[i + 1] = command->targets[i];
	}
	command->words[i + 1] = NULL;
}

static int run_command(void *arg)
{
	const struct command *command = arg;
	int nothing = open("/dev/null", O_RDWR);

	dup2(nothing, STDIN_FILENO);
	dup2(nothing, STDOUT_FILENO);
	dup2(complaint, STDERR_FILENO);
	execv(command->words[0], (char **)(uintptr_t)command->words);
	_exit(PROC_MISUSED);
}

static void print_complaint(const struct command *command, int code, const char *text)
{
	char line[512] = "";

	for (unsigned int i = 1; command->words[i]; i++)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), " %s",
			 command->words[i]);
	fprintf(stderr, "shmctl%s: %d\n%s\n", line, code, text);
}

/* The exit code of one verb, which is one that a reader may expect. */
static int look(const struct stage *stage, size_t verb)
{
	struct command command;
	char text[4096] = "";
	ssize_t length;
	int code, is_fine;

	command_make(&command, stage, verb);
	assert_int_equal(ftruncate(complaint, 0), 0);
	assert_int_equal(lseek(complaint, 0, SEEK_SET), 0);
	code = proc_collect(proc_spawn(run_command, &command), PROC_DEADLINE_NS);
	length = pread(complaint, text, sizeof(text) - 1, 0);
	is_fine = code >= 0 && code <= 7 && code != 2 && !strstr(text, "Sanitizer") &&
		  !strstr(text, "runtime error") &&
		  (code == 0 || code == 7 || length > 0 || !strcmp(verbs[verb][0], "verify"));
	if (!is_fine)
		print_complaint(&command, code, text);
	assert_true(is_fine);
	return code;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void sound_file_is_shown(void **state)
{
	struct stage *stage = stage_put_up(STAGE_ALL, 1);

	(void)state;
	for (size_t verb = 0; verb < VERB_COUNT; verb++) {
		int code = look(stage, verb);

		/* Not every key is still there. */
		assert_true(code == 0 || code == 7);
	}
}

static void overwritten_files_are_shown_or_refused(void **state)
{
	uint64_t files = setting("COSHM_FUZZ_FILES", 8), seed = setting("COSHM_TEST_SEED", 1);

	(void)state;
	srandom((unsigned int)seed);
	for (uint64_t file = 0; file < files; file++) {
		struct stage *stage = stage_put_up(STAGE_ALL, 1);
		uint8_t bytes[512];
		struct fuzz_input input = {.bytes = bytes, .size_bytes = sizeof(bytes)};

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)random();
		/* From a word here and there to most of what leads anywhere. */
		for (uint64_t edits = UINT64_C(1) << file % 7; edits > 0; edits--)
			stage_edit(stage, &input);
		for (size_t verb = 0; verb < VERB_COUNT; verb++)
			look(stage, verb);
	}
}

static void short_files_are_refused(void **state)
{
	static const uint64_t sizes[] = {0, 1, 63, 2048, 4096, 9000, 100000, (1 << 20) - 4096};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct stage *stage = stage_put_up(STAGE_ALL, 1);

		stage_cut(stage, sizes[i]);
		for (size_t verb = 0; verb < VERB_COUNT; verb += 3) {
			int code = look(stage, verb);

			/* Half a header is also what a creator leaves that died. */
			assert_true(code == DAMAGE || (code == ABSENT && sizes[i] < 4096));
		}
	}
}

/* As an editor, or a second "cp" over the file, would do it. */
static int cut_and_mend(void *arg)
{
	struct stage *stage = arg;

	for (;;) {
		stage_cut(stage, (uint64_t)random() % stage->size_bytes);
		if (ftruncate(stage->fd, (off_t)stage->size_bytes) ||
		    pwrite(stage->fd, stage->image, stage->size_bytes, 0) !=
			    (ssize_t)stage->size_bytes)
			return 1;
	}
}

static void file_that_is_cut_while_it_is_mapped_kills_no_verb_that_looks(void **state)
{
	struct stage *stage = stage_put_up(STAGE_ALL, 1);
	struct proc *cutter = proc_spawn(cut_and_mend, stage);

	(void)state;
	for (size_t i = 0; i < 3 * VERB_COUNT; i++)
		look(stage, i % VERB_COUNT);
	proc_kill(cutter);
}

static int take_away(void **state)
{
	(void)state;
	stage_remove_all();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_file_is_shown),
		cmocka_unit_test(overwritten_files_are_shown_or_refused),
		cmocka_unit_test(short_files_are_refused),
		cmocka_unit_test(file_that_is_cut_while_it_is_mapped_kills_no_verb_that_looks),
	};

	shmctl = getenv("SHMCTL");
	if (!shmctl)
		shmctl = "tools/shmctl/shmctl";
	if (access(shmctl, X_OK)) {
		printf("1..0 # SKIP shmctl is not built (it needs libsmartcols and jansson)\n");
		return 0;
	}
	test_segment_name(prefix, "shmctl");
	stage_set_prefix(prefix);
	complaint = fileno(tmpfile());
	return cmocka_run_group_tests(tests, NULL, take_away);
}
