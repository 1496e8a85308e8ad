/* SPDX-License-Identifier: MIT */
/* queue create, ls, push. */
#include "attach.h"
#include "errors.h"
#include "input.h"
#include "output.h"
#include "summary.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cmd_queue_create(const struct command *command, int argc, char **argv)
{
	struct coshm_queue_config config = {.struct_size_bytes = sizeof(config)};
	const char *backoff_text = NULL;
	struct units_backoff backoff;
	uint64_t max_attempts = 0;
	const struct args_option options[] = {
		{"capacity", "N", "tasks in any state, dead letters included", .required = true,
		 .count = &config.capacity},
		{"max-payload", "S", "largest payload", .required = true,
		 .not_zero = "1 will do for tasks without one",
		 .size_bytes = &config.payload_max_bytes},
		{"pool", "S",
		 "memory that payloads over 192 bytes share (default: enough for all tasks, "
		 "but a quarter of the segment at most)",
		 .not_zero = "leave it out for the default",
		 .size_bytes = &config.payload_pool_bytes},
		{"max-attempts", "N", "deliveries before a task is dead (default: 20)",
		 .not_zero = "1 is no retry", .count = &max_attempts},
		{"backoff", "B",
		 "delay before a retry: fixed:D, linear:D..D or exponential:D..D "
		 "(default: exponential:1s..1h)",
		 .text = &backoff_text},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct target target = args_object(&args, 0);
	struct attached attached;
	int status, error;

	if (backoff_text) {
		if (units_parse_backoff(backoff_text, &backoff))
			args_wrong(
				command,
				"--backoff %s: wanted is fixed:D, linear:D..D or exponential:D..D, "
				"such as fixed:1ms or exponential:1s..5m, with delays above 0",
				backoff_text);
		config.backoff_kind = backoff.kind;
		config.backoff_base_ns = backoff.base_ns;
		config.backoff_max_ns = backoff.max_ns;
	}
	if (max_attempts > UINT32_MAX)
		args_wrong(command, "--max-attempts %" PRIu64 ": too many", max_attempts);
	config.max_attempts = (uint32_t)max_attempts;

	status = attach_open(&attached, target, attach_flags(&args), ATTACH_SEGMENT);
	if (status)
		return status;
	error = coshm_queue_create(attached.segment, attached.target.object, &config, 0,
				   &attached.queue);
	if (error == -ENOSPC)
		attach_advise_room(&attached);
	if (!error)
		error = coshm_queue_config(attached.queue, &config);
	status = attach_leave(&attached, &args, error, output_json_about(&attached.target));
	if (!status && config.payload_pool_bytes / config.payload_max_bytes < config.capacity &&
	    config.payload_pool_bytes)
		output_remark("the pool of %s holds %" PRIu64 " payloads of %s at once, fewer than "
			      "--capacity; --pool sets it",
			      units_size(config.payload_pool_bytes).text,
			      config.payload_pool_bytes / config.payload_max_bytes,
			      units_size(config.payload_max_bytes).text);
	return status;
}

const struct command command_queue_create = {
	.name = "queue create",
	.operands = "SEG/OBJ",
	.summary = "Make a task queue in a segment",
	.help = "A task that fails comes back after the backoff; after its last attempt it is kept "
		"as a dead letter.\n",
	.examples = "  shmctl queue create shop/mail --capacity 1000 --max-payload 4K\n"
		    "  shmctl queue create shop/mail --capacity 1000 --max-payload 1M \\\n"
		    "      --max-attempts 5 --backoff exponential:1s..5m\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_queue_create,
};

struct queue_listing {
	struct coshm_segment *segment;
	struct libscols_table *table; /* or */
	json_t *array;
};

static struct units_text backoff_text(const struct coshm_queue_config *config)
{
	const char *kind = summary_backoff_name(config->backoff_kind);
	struct units_text out;

	if (config->backoff_kind == COSHM_BACKOFF_FIXED)
		snprintf(out.text, sizeof(out.text), "%s:%.9s", kind,
			 units_duration(config->backoff_base_ns).text);
	else
		snprintf(out.text, sizeof(out.text), "%s:%.8s..%.8s", kind,
			 units_duration(config->backoff_base_ns).text,
			 units_duration(config->backoff_max_ns).text);
	return out;
}

static int add_queue(void *context, const struct coshm_object_info *info)
{
	struct queue_listing *listing = context;
	const struct coshm_queue_depth *depth;
	struct libscols_line *line;
	struct summary summary;

	if (info->type != COSHM_OBJECT_QUEUE || info->removed)
		return 0;
	summary = summary_of(listing->segment, info);
	depth = &summary.depth;
	if (listing->array) {
		json_t *object = json_pack("{s:o}", "name", output_json_text(info->name));

		json_object_update_new(object, summary_json(&summary));
		json_array_append_new(listing->array, object);
		return 0;
	}
	line = output_line(listing->table, NULL);
	output_cell(line, 0, "%s", info->name);
	if (!summary.type)
		return 0;
	output_cell(line, 1, "%" PRIu64, depth->ready);
	output_cell(line, 2, "%" PRIu64, depth->delayed);
	output_cell(line, 3, "%" PRIu64, depth->leased);
	output_cell(line, 4, "%" PRIu64, depth->dead);
	if (depth->dead)
		output_alarm(line, 4);
	output_cell(line, 5, "%" PRIu64, depth->capacity);
	output_cell(line, 6, "%s", units_size(summary.queue.payload_max_bytes).text);
	output_cell(line, 7, "%s",
		    summary.queue.payload_pool_bytes
			    ? units_size(summary.queue.payload_pool_bytes).text
			    : "-");
	output_cell(line, 8, "%u", summary.queue.max_attempts);
	output_cell(line, 9, "%s", backoff_text(&summary.queue).text);
	return 0;
}

static int cmd_queue_ls(const struct command *command, int argc, char **argv)
{
	static const struct output_column columns[] = {
		{"NAME", 0},
		{"READY", OUTPUT_RIGHT},
		{"DELAYED", OUTPUT_RIGHT},
		{"LEASED", OUTPUT_RIGHT},
		{"DEAD", OUTPUT_RIGHT},
		{"CAPACITY", OUTPUT_RIGHT},
		{"PAYLOAD", OUTPUT_RIGHT},
		{"POOL", OUTPUT_RIGHT},
		{"ATTEMPTS", OUTPUT_RIGHT},
		{"BACKOFF", OUTPUT_TRUNC},
	};
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct queue_listing listing = {.segment = NULL};
	struct attached attached;
	int status =
		attach_open(&attached, args_segment(&args, 0), attach_flags(&args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	listing.segment = attached.segment;
	if (args.json)
		listing.array = json_array();
	else
		listing.table = output_table(&args, columns, OUTPUT_COUNT(columns));
	error = coshm_inspect_objects(attached.segment, add_queue, &listing);
	if (error)
		status = errors_fail(attached.target.text, error);
	else if (args.json)
		output_json(json_pack("{s:s, s:O}", "segment", attached.target.segment, "queues",
				      listing.array));
	if (listing.table)
		output_table_end(listing.table, "no queues; make one: shmctl queue create --help");
	json_decref(listing.array);
	attach_close(&attached);
	return status;
}

const struct command command_queue_ls = {
	.name = "queue ls",
	.operands = "SEG",
	.summary = "List the queues of a segment with their depths",
	.help = "READY waits for a worker, DELAYED for its time, LEASED is with a worker, DEAD "
		"needs a person: shmctl queue dead. Payloads over 192 bytes share the POOL, which "
		"may be full before CAPACITY is reached.\n",
	.examples = "  shmctl queue ls shop\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_queue_ls,
};

/* The queue took no more. Why, and what helps? Waiting alone does not, if it is full of dead letters. */
static void advise_full(const struct attached *attached, const struct coshm_queue_config *config)
{
	const char *text = attached->target.text;
	struct coshm_queue_depth depth;
	uint64_t tasks;

	if (coshm_queue_depth(attached->queue, &depth))
		return;
	tasks = depth.ready + depth.delayed + depth.leased + depth.dead;
	if (depth.dead && depth.dead * 2 >= tasks)
		errors_advise("%" PRIu64 " of its %" PRIu64 " tasks are dead letters, which stay: "
			      "see shmctl queue dead %s, then queue redrive or queue drop",
			      depth.dead, tasks, text);
	else if (tasks < depth.capacity)
		errors_advise("%" PRIu64 " of %" PRIu64 " places are taken, but the pool of %s for "
			      "payloads over 192 bytes is full: let workers take some (queue pop), "
			      "or create the queue with a larger --pool",
			      tasks, depth.capacity, units_size(config->payload_pool_bytes).text);
	else
		errors_advise("all %" PRIu64 " places are taken (%" PRIu64 " ready, %" PRIu64
			      " delayed, %" PRIu64 " with workers): wait for workers (queue pop), "
			      "or create the queue with a larger --capacity",
			      depth.capacity, depth.ready, depth.delayed, depth.leased);
}

static int cmd_queue_push(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct coshm_queue_config config = {.struct_size_bytes = sizeof(config)};
	struct attached attached;
	size_t size_bytes = 0;
	void *data = NULL;
	uint64_t id = 0;
	json_t *document;
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_QUEUE);
	int error;

	if (status)
		return status;
	error = coshm_queue_config(attached.queue, &config);
	if (!error)
		error = input_operand(args.operands[1], config.payload_max_bytes, &data,
				      &size_bytes);
	if (!error)
		error = coshm_queue_enqueue(attached.queue, data, size_bytes, NULL, &id);
	if (error == -EAGAIN)
		advise_full(&attached, &config);
	free(data);
	document = output_json_about(&attached.target);
	json_object_set_new(document, "id", output_json_number(id));
	if (error == -EAGAIN) {
		json_decref(document);
		attach_close(&attached);
		return errors_say(STATUS_FAILURE, attached.target.text, "the queue is full",
				  "wait for workers: shmctl queue pop");
	}
	status = attach_leave(&attached, &args, error, document);
	if (!status && !args.json)
		printf("%" PRIu64 "\n", id);
	return status;
}

const struct command command_queue_push = {
	.name = "queue push",
	.operands = "SEG/OBJ PAYLOAD",
	.summary = "Append a task and print its id",
	.help = "PAYLOAD - reads standard input. Once the id is printed the task is delivered at "
		"least once,\n"
		"whoever dies. A full queue is an error (exit code 1): dead letters take room, "
		"too.\n",
	.examples = "  shmctl queue push shop/mail 'to: alice'\n"
		    "  tar c report | shmctl queue push shop/archive -\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_queue_push,
};
