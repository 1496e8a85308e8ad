/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include "run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REMOVALS_MAX = 32 };

int bench_quick, bench_cpu_time;
char bench_absent[128];

static struct bench_results results;
static int rows_room, redo_max = 3, rounds, rounds_added_max = -1;
static double seconds;
static const char *only;
static int json;

/* --- leaving nothing behind --- */

static char removals[REMOVALS_MAX][256];
static int removal_count;
static const pid_t *servers[REMOVALS_MAX]; /* 0 while there is none */
static int server_count;
static pid_t owner;

static void remove_all(void)
{
	for (int i = 0; i < server_count && getpid() == owner; i++)
		if (*servers[i] > 0)
			kill(*servers[i], SIGKILL);
	/* Files, then the folders that held them. */
	for (int i = 0; i < removal_count && getpid() == owner; i++)
		unlink(removals[i]);
	for (int i = 0; i < removal_count && getpid() == owner; i++)
		rmdir(removals[i]);
}

static void end_by_signal(int number)
{
	remove_all();
	_exit(128 + number);
}

static void become_owner(void)
{
	if (owner)
		return;
	owner = getpid();
	atexit(remove_all);
	signal(SIGINT, end_by_signal);
	signal(SIGTERM, end_by_signal);
	signal(SIGHUP, end_by_signal);
}

void bench_kill_at_exit(const pid_t *server)
{
	become_owner();
	for (int i = 0; i < server_count; i++)
		if (servers[i] == server)
			return;
	if (server_count == REMOVALS_MAX)
		bench_fail("too many servers");
	servers[server_count++] = server;
}

void bench_remove_at_exit(const char *path)
{
	int i = 0;

	become_owner();
	while (i < removal_count && removals[i][0])
		i++;
	if (i == REMOVALS_MAX)
		bench_fail("too many files to remove");
	snprintf(removals[i], sizeof(removals[i]), "%s", path);
	removal_count = i == removal_count ? i + 1 : removal_count;
}

void bench_removed(const char *path)
{
	for (int i = 0; i < removal_count; i++)
		if (!strcmp(removals[i], path))
			removals[i][0] = 0;
}

const char *bench_segment_name(void)
{
	static char name[64];
	char path[128];

	if (!name[0]) {
		snprintf(name, sizeof(name), "coshm-bench-%s-%d", program_invocation_short_name,
			 (int)getpid());
		snprintf(path, sizeof(path), "/dev/shm/%s", name);
		bench_remove_at_exit(path);
	}
	return name;
}

/* --- cases --- */

void bench_add(const struct bench_case *c)
{
	if (results.row_count == rows_room) {
		rows_room = rows_room ? 2 * rows_room : 64;
		results.rows = realloc(results.rows, (size_t)rows_room * sizeof(*results.rows));
		if (!results.rows)
			bench_fail("realloc");
	}
	memset(&results.rows[results.row_count], 0, sizeof(*results.rows));
	results.rows[results.row_count++].c = *c;
}

void bench_note(const char *name, double value, const char *unit)
{
	if (results.note_count < (int)(sizeof(results.notes) / sizeof(results.notes[0])))
		results.notes[results.note_count++] =
			(struct bench_note){.name = name, .unit = unit, .value = value};
}

/* What the chosen ones are compared with stays, too. */
static void choose(void)
{
	for (int i = 0; only && i < results.row_count; i++) {
		struct bench_row *row = &results.rows[i];

		row->left_out = !strstr(row->c.question, only) && !strstr(row->c.subject, only);
	}
	for (int i = 0; only && i < results.row_count; i++) {
		struct bench_row *row = &results.rows[i];

		for (int k = 0; k < results.row_count && row->left_out; k++)
			if (!results.rows[k].left_out && (row->c.is_limit || row->c.is_ours) &&
			    !strcmp(row->c.question, results.rows[k].c.question) &&
			    strstr(results.rows[k].c.subject, only))
				row->left_out = 0;
	}
}

/* --- rounds --- */

static int quiet(const struct bench_case *c, const struct bench_measured *m)
{
	return bench_shares_cpus(c) || m->switches <= 2 + (int)(seconds * 10);
}

static struct bench_measured run_once(const struct bench_case *c)
{
	struct bench_measured measured;

	if (c->set_up)
		c->set_up(c);
	measured = bench_measure(c, seconds);
	if (c->tear_down)
		c->tear_down(c);
	results.wrong += measured.wrong;
	return measured;
}

static void run_case(struct bench_row *row)
{
	struct bench_measured best = run_once(&row->c);

	for (int i = 0; i < redo_max && !quiet(&row->c, &best); i++) {
		struct bench_measured again = run_once(&row->c);

		row->redone++;
		if (again.switches < best.switches)
			best = again;
	}
	row->rounds[row->round_count++] = best;
}

static void run_round(int first, int end)
{
	for (int i = first; i < end; i++)
		if (!results.rows[i].left_out)
			run_case(&results.rows[i]);
}

/* Half of the rounds lie further apart than a fifth of the median. */
static int too_wide(const struct bench_row *row)
{
	double values[BENCH_ROUNDS_MAX];
	struct bench_summary s;

	if (row->left_out || bench_shares_cpus(&row->c))
		return 0;
	for (int r = 0; r < row->round_count; r++)
		values[r] = row->rounds[r].ns;
	s = bench_summarize(values, row->round_count);
	return s.high - s.low > s.median / 5;
}

static int any_too_wide(int first, int end)
{
	for (int i = first; i < end; i++)
		if (too_wide(&results.rows[i]))
			return 1;
	return 0;
}

static void prepare(struct bench_row *row)
{
	bench_absent[0] = 0;
	if (row->left_out || !row->c.prepare || row->c.prepare(&row->c) == 0)
		return;
	snprintf(row->absent, sizeof(row->absent), "%s",
		 bench_absent[0] ? bench_absent : "cannot run here");
	row->left_out = 1;
}

static void run_question(int first, int end)
{
	for (int i = first; i < end; i++)
		prepare(&results.rows[i]);
	for (int r = 0; r < rounds; r++)
		run_round(first, end);
	for (int r = 0; r < rounds_added_max && any_too_wide(first, end); r++)
		run_round(first, end);
	for (int i = first; i < end; i++)
		if (!results.rows[i].left_out && results.rows[i].c.finish)
			results.rows[i].c.finish(&results.rows[i].c);
}

static void run_all(void)
{
	for (int first = 0, end; first < results.row_count; first = end) {
		for (end = first + 1; end < results.row_count; end++)
			if (strcmp(results.rows[first].c.question, results.rows[end].c.question))
				break;
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "\r\033[K%d/%d %s\r", first, results.row_count,
				results.rows[first].c.question);
		run_question(first, end);
	}
}

/* --- options --- */

static int usage(const struct bench_program *program)
{
	fprintf(stderr,
		"usage: %s [--quick] [--rounds N] [--seconds S] [--only TEXT] [--redo N] [--add "
		"N]\n"
		"       [--cpu-time] [--json]%s%s\n"
		"  --quick    one short round: a smoke test, not a measurement\n"
		"  --rounds   repetitions of each case (%d)\n"
		"  --seconds  length of a repetition of a timed case (%g)\n"
		"  --only     cases whose question or subject contains TEXT, and what they are\n"
		"             compared with\n"
		"  --redo     how often a repetition is redone whose workers lost their CPU (3)\n"
		"  --cpu-time ns are the busiest worker's CPU time, where no server is asked: for "
		"a\n"
		"             machine that others use, too\n"
		"  --add      rounds added at most where they disagree (as many as --rounds)\n",
		program->name, program->options ? " " : "",
		program->options ? program->options : "", program->rounds, program->seconds);
	return 2;
}

/* How many words it took; 0: unknown. */
static int common_option(const char *name, const char *value)
{
	if (!strcmp(name, "--json"))
		return json = 1;
	if (!strcmp(name, "--quick"))
		return bench_quick = 1;
	if (!strcmp(name, "--cpu-time"))
		return bench_cpu_time = 1;
	if (!value)
		return 0;
	if (!strcmp(name, "--rounds"))
		return rounds = atoi(value), 2;
	if (!strcmp(name, "--seconds"))
		return seconds = atof(value), 2;
	if (!strcmp(name, "--redo"))
		return redo_max = atoi(value), 2;
	if (!strcmp(name, "--add"))
		return rounds_added_max = atoi(value), 2;
	if (!strcmp(name, "--only"))
		return only = value, 2;
	return 0;
}

int bench_main(int argc, char **argv, const struct bench_program *program)
{
	for (int i = 1; i < argc;) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		int taken = common_option(argv[i], value);

		if (!taken && program->option)
			taken = program->option(argv[i], value) == 1 ? 2 : 0;
		if (!taken)
			return usage(program);
		i += taken;
	}
	if (bench_quick) {
		redo_max = rounds_added_max = 0;
		rounds = rounds ? rounds : 1;
		seconds = seconds > 0 ? seconds : 0.02;
	}
	rounds = rounds ? rounds : program->rounds;
	seconds = seconds > 0 ? seconds : program->seconds;
	rounds_added_max = rounds_added_max < 0 ? rounds : rounds_added_max;
	if (rounds < 1 || redo_max < 0 || rounds + rounds_added_max > BENCH_ROUNDS_MAX)
		return usage(program);
	results.program = program->name;
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	program->add_cases();
	choose();
	run_all();
	if (program->close)
		program->close();
	bench_report(&results, json);
	return results.wrong != 0;
}
