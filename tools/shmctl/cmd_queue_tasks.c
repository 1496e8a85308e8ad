/* SPDX-License-Identifier: MIT */
/* queue peek, dead: the tasks of a queue. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREVIEW_COLUMNS 60

struct listed_task {
	struct coshm_task_info info;
	void *payload;
};

struct task_listing {
	bool show_values;
	uint64_t limit; /* 0: none */
	size_t count;
	size_t capacity;
	struct listed_task *tasks;
};

static int collect_task(void *context, const struct coshm_task_info *info, const void *payload)
{
	struct task_listing *listing = context;
	struct listed_task task = {.info = *info};

	if (payload) {
		task.payload = malloc(info->payload_size_bytes + 1);
		if (!task.payload)
			return -ENOMEM;
		memcpy(task.payload, payload, info->payload_size_bytes);
	}
	if (listing->count == listing->capacity) {
		listing->capacity = 2 * listing->capacity + 64;
		listing->tasks = reallocarray(listing->tasks, listing->capacity, sizeof(task));
		if (!listing->tasks)
			output_no_memory();
	}
	listing->tasks[listing->count++] = task;
	return 0;
}

static int by_age(const void *a, const void *b)
{
	const struct coshm_task_info *x = &((const struct listed_task *)a)->info;
	const struct coshm_task_info *y = &((const struct listed_task *)b)->info;

	if (x->enqueued_at_ns != y->enqueued_at_ns)
		return x->enqueued_at_ns < y->enqueued_at_ns ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void free_tasks(struct task_listing *listing)
{
	for (size_t i = 0; i < listing->count; i++)
		free(listing->tasks[i].payload);
	free(listing->tasks);
}

static uint64_t span(uint64_t from_ns, uint64_t to_ns)
{
	return to_ns > from_ns ? to_ns - from_ns : 0;
}

static const char *task_state_name(uint32_t state)
{
	static const char *const names[] = {"", "ready", "delayed", "leased", "dead", "other"};

	return state && state < OUTPUT_COUNT(names) ? names[state] : "other";
}

static const char *outcome_name(uint32_t outcome)
{
	switch (outcome) {
	case COSHM_ATTEMPT_RUNNING:
		return "running";
	case COSHM_ATTEMPT_FAILED:
		return "failed";
	case COSHM_ATTEMPT_CRASHED:
		return "crashed";
	default:
		return "unknown";
	}
}

static uint32_t attempt_count(const struct coshm_task_info *info)
{
	uint32_t room = OUTPUT_COUNT(info->attempt_records);

	return info->attempt_record_count < room ? info->attempt_record_count : room;
}

static json_t *attempts_json(const struct coshm_task_info *info, uint64_t now_ns)
{
	json_t *array = json_array();

	for (uint32_t i = 0; i < attempt_count(info); i++) {
		const struct coshm_task_attempt *attempt = &info->attempt_records[i];
		json_t *object =
			json_pack("{s:i, s:s, s:o}", "attempt", (int)attempt->attempt, "outcome",
				  outcome_name(attempt->outcome), "ended_ago_ns",
				  output_json_number(span(attempt->ended_at_ns, now_ns)));

		output_json_bytes(object, "error", attempt->error,
				  strnlen(attempt->error, sizeof(attempt->error)));
		json_array_append_new(array, object);
	}
	return array;
}

static json_t *task_json(const struct listed_task *task, uint64_t now_ns)
{
	const struct coshm_task_info *info = &task->info;
	json_t *object =
		json_pack("{s:o, s:s, s:o, s:o, s:i, s:i, s:o}", "id", output_json_number(info->id),
			  "state", task_state_name(info->state), "age_ns",
			  output_json_number(span(info->enqueued_at_ns, now_ns)),
			  "payload_size_bytes", output_json_number(info->payload_size_bytes),
			  "attempts", (int)info->attempts, "max_attempts", (int)info->max_attempts,
			  "failed_attempts", attempts_json(info, now_ns));

	if (info->state == COSHM_TASK_DELAYED)
		json_object_set_new(object, "due_in_ns",
				    json_integer((json_int_t)(info->due_at_ns - now_ns)));
	if (info->state == COSHM_TASK_LEASED)
		json_object_set_new(object, "holder_pid", json_integer(info->holder_pid));
	if (task->payload)
		output_json_bytes(object, "payload", task->payload, info->payload_size_bytes);
	return object;
}

static void payload_cell(struct libscols_line *line, size_t column, const struct listed_task *task)
{
	if (task->payload)
		output_cell_bytes(line, column, task->payload, task->info.payload_size_bytes,
				  PREVIEW_COLUMNS);
}

static void waiting_line(struct libscols_table *table, const struct listed_task *task,
			 uint64_t now_ns)
{
	struct libscols_line *line = output_line(table, NULL);
	const struct coshm_task_info *info = &task->info;

	output_cell(line, 0, "%" PRIu64, info->id);
	output_cell(line, 1, "%s", task_state_name(info->state));
	output_cell(line, 2, "%s", units_duration(span(info->enqueued_at_ns, now_ns)).text);
	output_cell(line, 3, "%s", units_size(info->payload_size_bytes).text);
	output_cell(line, 4, "%u/%u", info->attempts, info->max_attempts);
	if (info->state == COSHM_TASK_DELAYED && info->due_at_ns > now_ns)
		output_cell(line, 5, "due in %s",
			    units_duration(span(now_ns, info->due_at_ns)).text);
	else if (info->due_at_ns && info->state <= COSHM_TASK_DELAYED)
		output_cell(line, 5, "due %s ago",
			    units_duration(span(info->due_at_ns, now_ns)).text);
	else if (info->state == COSHM_TASK_LEASED)
		output_cell(line, 5, "with pid %u", info->holder_pid);
	payload_cell(line, 6, task);
}

/* A dead letter with a line for each attempt below it. */
static void dead_lines(struct libscols_table *table, const struct listed_task *task,
		       uint64_t now_ns)
{
	struct libscols_line *line = output_line(table, NULL);
	const struct coshm_task_info *info = &task->info;

	output_cell(line, 0, "%" PRIu64, info->id);
	output_cell(line, 1, "%s", units_duration(span(info->enqueued_at_ns, now_ns)).text);
	output_cell(line, 2, "%s", units_size(info->payload_size_bytes).text);
	output_cell(line, 3, "%u/%u", info->attempts, info->max_attempts);
	payload_cell(line, 5, task);
	for (uint32_t i = 0; i < attempt_count(info); i++) {
		const struct coshm_task_attempt *attempt = &info->attempt_records[i];
		struct libscols_line *child = output_line(table, line);

		output_cell(child, 0, "attempt %u", attempt->attempt);
		output_cell(child, 1, "%s",
			    units_duration(span(attempt->ended_at_ns, now_ns)).text);
		output_cell(child, 3, "%s", outcome_name(attempt->outcome));
		output_cell_bytes(child, 4, attempt->error,
				  strnlen(attempt->error, sizeof(attempt->error)), 0);
	}
}

static const struct output_column waiting_columns[] = {
	{"ID", OUTPUT_RIGHT},	   {"STATE", 0}, {"AGE", OUTPUT_RIGHT},	    {"SIZE", OUTPUT_RIGHT},
	{"ATTEMPT", OUTPUT_RIGHT}, {"WHERE", 0}, {"PAYLOAD", OUTPUT_TRUNC},
};
static const struct output_column dead_columns[] = {
	{"ID", OUTPUT_TREE},	    {"AGE", OUTPUT_RIGHT},   {"SIZE", OUTPUT_RIGHT},
	{"ATTEMPTS", OUTPUT_RIGHT}, {"ERROR", OUTPUT_TRUNC}, {"PAYLOAD", OUTPUT_TRUNC},
};

static void print_tasks(const struct args *args, const struct task_listing *listing, size_t shown,
			bool dead, uint64_t now_ns)
{
	const struct output_column *columns = dead ? dead_columns : waiting_columns;
	size_t column_count = dead ? OUTPUT_COUNT(dead_columns) : OUTPUT_COUNT(waiting_columns);
	struct libscols_table *table =
		output_table(args, columns, column_count - !listing->show_values);

	for (size_t i = 0; i < shown; i++) {
		if (dead)
			dead_lines(table, &listing->tasks[i], now_ns);
		else
			waiting_line(table, &listing->tasks[i], now_ns);
	}
	output_table_end(table, dead ? "no dead letters" : "no tasks");
	if (shown < listing->count)
		fprintf(stderr, "shmctl: only the first %zu of %zu; for all: --limit 0\n", shown,
			listing->count);
}

static void print_tasks_json(const struct target *target, const struct task_listing *listing,
			     size_t shown, uint64_t now_ns)
{
	json_t *document = output_json_about(target), *array = json_array();

	for (size_t i = 0; i < shown; i++)
		json_array_append_new(array, task_json(&listing->tasks[i], now_ns));
	json_object_set_new(document, "tasks", array);
	json_object_set_new(document, "truncated", json_boolean(shown < listing->count));
	output_json(document);
}

static int list_tasks(const struct command *command, int argc, char **argv, bool dead)
{
	struct task_listing listing = {.limit = 1000};
	const struct args_option options[] = {
		{"limit", "N", "at most this many, oldest first (default: 1000; 0: all)",
		 .count = &listing.limit},
		{"show-values", NULL, "print payloads, too: they may be secrets of others",
		 .flag = &listing.show_values},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	uint32_t dead_mask = UINT32_C(1) << COSHM_TASK_DEAD;
	struct attached attached;
	uint64_t now_ns;
	size_t shown;
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_QUEUE);
	int error;

	if (status)
		return status;
	error = coshm_queue_each(attached.queue, dead ? dead_mask : ~dead_mask,
				 listing.show_values ? COSHM_QUEUE_EACH_PAYLOAD : 0, collect_task,
				 &listing);
	now_ns = coshm_segment_now_ns(attached.segment);
	if (listing.count)
		qsort(listing.tasks, listing.count, sizeof(*listing.tasks), by_age);
	shown = listing.limit && listing.count > listing.limit ? listing.limit : listing.count;
	if (error)
		status = errors_fail(attached.target.text, error);
	else if (args.json)
		print_tasks_json(&attached.target, &listing, shown, now_ns);
	else
		print_tasks(&args, &listing, shown, dead, now_ns);
	free_tasks(&listing);
	attach_close(&attached);
	return status;
}

static int cmd_queue_peek(const struct command *command, int argc, char **argv)
{
	return list_tasks(command, argc, argv, false);
}

static int cmd_queue_dead(const struct command *command, int argc, char **argv)
{
	return list_tasks(command, argc, argv, true);
}

const struct command command_queue_peek = {
	.name = "queue peek",
	.operands = "SEG/OBJ",
	.summary = "List the tasks that wait or are being worked on",
	.help = "Oldest first; takes nothing. Payloads are hidden unless asked for. Dead letters: "
		"shmctl queue dead.\n",
	.examples = "  shmctl queue peek shop/mail --limit 20\n"
		    "  shmctl queue peek shop/mail --show-values\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_queue_peek,
};

const struct command command_queue_dead = {
	.name = "queue dead",
	.operands = "SEG/OBJ",
	.summary = "List dead letters with the error of each attempt",
	.help = "failed: the worker gave the task back with this error. crashed: the worker died.\n"
		"The last 8 attempts are kept. Payloads are hidden unless asked for.\n",
	.examples =
		"  shmctl queue dead shop/mail\n"
		"  shmctl queue dead shop/mail --json | jq '.tasks[].failed_attempts[-1].error'\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_queue_dead,
};
