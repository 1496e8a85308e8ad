/* SPDX-License-Identifier: MIT */
/* Counters: values, names, the two text forms, and that a death changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support/procs.h"
#include "stats/table.h"
#include "support/toy.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;
static void *token;
static char text[65536];

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "stats");
	segment = toy_segment_create(name, 0);
	return toy_create(segment, "tasks", 0, 100, &token);
}

static int end(void **state)
{
	(void)state;
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

static uint64_t value_of(const char *object, const char *counter)
{
	uint64_t value = UINT64_MAX;

	assert_int_equal(coshm_stats_value(segment, object, counter, &value), 0);
	return value;
}

static int add(void *arg)
{
	struct coshm__op op;
	struct toy_shm *toy;

	for (int i = 0; i < 1000; i++) {
		if (toy_begin(&op, token, &toy))
			return 1;
		coshm__count(&op, &toy->counters, COSHM__STAT_QUEUE_enqueued, 3);
		coshm__op_end(&op);
	}
	if (arg)
		kill(getpid(), SIGKILL);
	return coshm_segment_detach(segment) ? 2 : 0;
}

static void additions_of_all_members_add_up_also_of_the_dead(void **state)
{
	(void)state;
	assert_int_equal(value_of("tasks", "enqueued"), 0);
	for (int i = 0; i < 40; i++) {
		struct proc *two[2] = {proc_spawn(add, NULL), proc_spawn(add, &token)};

		assert_int_equal(proc_collect(two[0], PROC_DEADLINE_NS), 0);
		assert_int_equal(proc_collect(two[1], PROC_DEADLINE_NS), -SIGKILL);
		assert_int_equal(coshm_segment_reap(segment, NULL), 0);
		assert_int_equal(value_of("tasks", "enqueued"), (i + 1) * 6000);
	}
	assert_int_equal(value_of("tasks", "acked"), 0);
	assert_int_equal(value_of(NULL, "deaths"), 40);
	assert_int_equal(value_of(NULL, "reaped"), 40);
	assert_int_equal(value_of("", "attaches"), 81);
	assert_int_equal(value_of("", "detaches"), 40);
}

static void gauges_follow_what_they_measure(void **state)
{
	struct coshm_segment_info info;

	(void)state;
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(value_of(NULL, "members"), 1);
	assert_int_equal(value_of(NULL, "committed"), info.size_bytes);
	assert_int_equal(value_of(NULL, "used"), info.used_bytes);
	assert_int_equal(value_of(NULL, "threads"), 1);
}

static void unknown_names_are_enoent(void **state)
{
	uint64_t value = 5;
	size_t size = 5;

	(void)state;
	assert_int_equal(coshm_stats_value(segment, NULL, "nonsense", &value), -ENOENT);
	assert_int_equal(coshm_stats_value(segment, "tasks", "deaths", &value), -ENOENT);
	assert_int_equal(coshm_stats_value(segment, "nobody", "enqueued", &value), -ENOENT);
	assert_int_equal(coshm_stats_json(segment, "nobody", text, sizeof(text), &size), -ENOENT);
	assert_int_equal(coshm_stats_prometheus(segment, "nobody", text, sizeof(text), &size),
			 -ENOENT);
	assert_int_equal(value, 5);
	assert_int_equal(size, 5);
}

struct seen {
	unsigned int rows, stop_at;
	int empty;
};

static int see(void *context, const struct coshm_stat *stat)
{
	struct seen *seen = context;

	seen->rows++;
	seen->empty += !*stat->name || !*stat->doc || !stat->type || !stat->unit || !stat->object ||
		       stat->kind > COSHM_STAT_GAUGE;
	return seen->rows == seen->stop_at ? 42 : 0;
}

static void each_visits_every_row_and_stops_when_told(void **state)
{
	struct seen seen = {0};

	(void)state;
	assert_int_equal(coshm_stats_each(segment, NULL, see, &seen), 0);
	assert_int_equal(seen.rows, COSHM__STAT_SEGMENT_COUNT + COSHM__STAT_QUEUE_COUNT);
	assert_int_equal(seen.empty, 0);
	seen = (struct seen){.stop_at = 3};
	assert_int_equal(coshm_stats_each(segment, NULL, see, &seen), 42);
	assert_int_equal(seen.rows, 3);
	seen = (struct seen){0};
	assert_int_equal(coshm_stats_each(segment, "tasks", see, &seen), 0);
	assert_int_equal(seen.rows, COSHM__STAT_QUEUE_COUNT);
}

/* --- JSON: just enough of a reader to refuse what is none ----------------------------------------------------------- */

static const char *skip_space(const char *at)
{
	while (*at && strchr(" \t\r\n", *at))
		at++;
	return at;
}

/* Behind the value that starts here, or NULL. */
static const char *json_value(const char *at)
{
	at = skip_space(at);
	if (*at == '{') {
		at = skip_space(at + 1);
		if (*at == '}')
			return at + 1;
		for (;;) {
			at = skip_space(at);
			if (*at != '"' || !(at = json_value(at)))
				return NULL;
			at = skip_space(at);
			if (*at++ != ':' || !(at = json_value(at)))
				return NULL;
			at = skip_space(at);
			if (*at == '}')
				return at + 1;
			if (*at++ != ',')
				return NULL;
		}
	}
	if (*at == '"') {
		for (at++; *at && *at != '"'; at++)
			if ((unsigned char)*at < ' ' || *at == '\\')
				return NULL;
		return *at == '"' ? at + 1 : NULL;
	}
	if (!isdigit((unsigned char)*at) || (at[0] == '0' && isdigit((unsigned char)at[1])))
		return NULL;
	while (isdigit((unsigned char)*at))
		at++;
	return at;
}

static void json_can_be_read(void **state)
{
	size_t size = 0, again;
	const char *rest;
	void *second;

	(void)state;
	assert_int_equal(toy_create(segment, "more.tasks_2", 0, 1, &second), 0);
	add(NULL);
	/* The last handle was detached by add: a new one. */
	assert_int_equal(coshm_segment_attach(name, 0, &segment), 0);
	assert_int_equal(coshm_stats_json(segment, NULL, NULL, 0, &size), -ENOBUFS);
	assert_true(size > 100 && size < sizeof(text));
	assert_int_equal(coshm_stats_json(segment, NULL, text, size, &again), -ENOBUFS);
	assert_int_equal(again, size);
	assert_int_equal(coshm_stats_json(segment, NULL, text, size + 1, &again), 0);
	assert_int_equal(strlen(text), size);
	rest = json_value(text);
	assert_non_null(rest);
	assert_int_equal(*skip_space(rest), '\0');
	assert_non_null(strstr(text, "\"enqueued\": 3000"));
	assert_non_null(strstr(text, "\"more.tasks_2\""));
	assert_int_equal(coshm_stats_json(segment, "tasks", text, sizeof(text), &size), 0);
	assert_non_null(json_value(text));
	assert_null(strstr(text, "deaths"));
}

/* --- Names: Prometheus wants the unit last and once, and base units ------------------------------------------------- */

static void check_name(const char *type, const struct coshm__stat_row *row)
{
	char metric[128], *word, *rest = NULL;
	const char *words[16] = {NULL};
	unsigned int count = 0;

	if (*row->unit && strcmp(row->unit, "bytes") != 0 && strcmp(row->unit, "seconds") != 0)
		fail_msg("%s: the unit \"%s\" is none of Prometheus'", row->name, row->unit);
	snprintf(metric, sizeof(metric), "coshm_%s_%s%s%s%s", type, row->name,
		 *row->unit ? "_" : "", row->unit,
		 row->source == COSHM__STAT_IS_COUNTER ? "_total" : "");
	for (word = strtok_r(metric, "_", &rest); word; word = strtok_r(NULL, "_", &rest)) {
		for (unsigned int i = 0; i < count; i++)
			if (!strcmp(words[i], word))
				fail_msg("%s %s: \"%s\" is in its name twice", type, row->name,
					 word);
		assert_true(count < 16);
		words[count++] = word;
	}
}

static void names_have_their_unit_once_and_last(void **state)
{
	static const char *const types[] = {"segment", "cache", "limiter", "queue"};

	(void)state;
	for (uint32_t type = 0; type < 4; type++) {
		uint32_t count;
		const struct coshm__stat_row *rows = coshm__stat_rows(type, &count);

		assert_true(count > 0);
		for (uint32_t i = 0; i < count; i++)
			check_name(types[type], &rows[i]);
	}
}

/* --- Prometheus text -------------------------------------------------------------------------------------------------- */

static int is_metric_name(const char *word, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)word[i]) && word[i] != '_' && word[i] != ':')
			return 0;
	return length > 6 && !strncmp(word, "coshm_", 6);
}

static void prometheus_text_keeps_to_the_format(void **state)
{
	char current[128] = "", kind[16] = "", *line, *next;
	unsigned int samples = 0, headers = 0;
	size_t size, again;
	void *second;

	(void)state;
	assert_int_equal(toy_create(segment, "more", 0, 1, &second), 0);
	assert_int_equal(coshm_stats_prometheus(segment, NULL, NULL, 0, &size), -ENOBUFS);
	assert_int_equal(coshm_stats_prometheus(segment, NULL, text, size + 1, &again), 0);
	assert_int_equal(again, size);
	assert_int_equal(strlen(text), size);
	assert_int_equal(text[size - 1], '\n');
	for (line = text; *line; line = next) {
		next = strchr(line, '\n');
		*next++ = '\0';
		if (!strncmp(line, "# HELP ", 7)) {
			char *space = strchr(line + 7, ' ');

			assert_non_null(space);
			*space = '\0';
			/* Each metric once, all its samples behind it. */
			assert_true(strcmp(current, line + 7) != 0);
			snprintf(current, sizeof(current), "%s", line + 7);
			assert_true(is_metric_name(current, strlen(current)));
			headers++;
		} else if (!strncmp(line, "# TYPE ", 7)) {
			assert_int_equal(strncmp(line + 7, current, strlen(current)), 0);
			snprintf(kind, sizeof(kind), "%s", line + 7 + strlen(current) + 1);
			assert_true(!strcmp(kind, "counter") || !strcmp(kind, "gauge"));
			assert_int_equal(!strcmp(kind, "counter"),
					 strlen(current) > 6 &&
						 !strcmp(current + strlen(current) - 6, "_total"));
		} else {
			char *brace = strchr(line, '{'), *end_brace = strstr(line, "} ");
			char *digits;

			assert_non_null(brace);
			assert_non_null(end_brace);
			assert_int_equal((size_t)(brace - line), strlen(current));
			assert_int_equal(strncmp(line, current, strlen(current)), 0);
			assert_non_null(strstr(line, "segment=\""));
			strtoull(end_brace + 2, &digits, 10);
			assert_int_equal(*digits, '\0');
			samples++;
		}
	}
	assert_int_equal(headers, COSHM__STAT_SEGMENT_COUNT + COSHM__STAT_QUEUE_COUNT);
	assert_int_equal(samples, COSHM__STAT_SEGMENT_COUNT + 2 * COSHM__STAT_QUEUE_COUNT);
}

static void bytes_are_in_the_names_of_what_is_counted_in_bytes(void **state)
{
	size_t size;

	(void)state;
	assert_int_equal(coshm_stats_prometheus(segment, "", text, sizeof(text), &size), 0);
	assert_non_null(strstr(text, "coshm_segment_committed_bytes{"));
	assert_non_null(strstr(text, "coshm_segment_deaths_total{"));
	assert_null(strstr(text, "coshm_queue_"));
}

#define STATS_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		STATS_TEST(additions_of_all_members_add_up_also_of_the_dead),
		STATS_TEST(gauges_follow_what_they_measure),
		STATS_TEST(unknown_names_are_enoent),
		STATS_TEST(each_visits_every_row_and_stops_when_told),
		STATS_TEST(json_can_be_read),
		STATS_TEST(names_have_their_unit_once_and_last),
		STATS_TEST(prometheus_text_keeps_to_the_format),
		STATS_TEST(bytes_are_in_the_names_of_what_is_counted_in_bytes),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
