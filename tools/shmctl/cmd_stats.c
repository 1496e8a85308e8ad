/* SPDX-License-Identifier: MIT */
/* stats: every counter of a segment and its objects. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_line(void *context, const struct coshm_stat *stat)
{
	struct libscols_line *line = output_line(context, NULL);

	output_cell(line, 0, "%s", *stat->object ? stat->object : "-");
	output_cell(line, 1, "%s%s%s", stat->name, *stat->unit ? "_" : "", stat->unit);
	if (!strcmp(stat->unit, "bytes"))
		output_cell(line, 2, "%s", units_size(stat->value).text);
	else
		output_cell(line, 2, "%" PRIu64, stat->value);
	output_cell(line, 3, "%s", stat->doc);
	return 0;
}

static int print_table(const struct args *args, const struct attached *attached)
{
	static const struct output_column columns[] = {
		{"OBJECT", 0},
		{"NAME", 0},
		{"VALUE", OUTPUT_RIGHT},
		{"MEANING", OUTPUT_TRUNC},
	};
	struct libscols_table *table = output_table(args, columns, OUTPUT_COUNT(columns));
	int error = coshm_stats_each(attached->segment, attached->target.object, add_line, table);

	if (error) {
		scols_unref_table(table);
		return error;
	}
	output_table_end(table, "no counters");
	return 0;
}

struct stats_document {
	json_t *own;	 /* counters of what was asked for: the segment, or one object */
	json_t *objects; /* NULL if one was asked for */
	char object[COSHM_NAME_SIZE_BYTES];
	json_t *counters; /* of the last in objects, borrowed */
	char type[16];
};

static int add_number(void *context, const struct coshm_stat *stat)
{
	struct stats_document *document = context;
	json_t *counters = document->own;
	char name[64];

	snprintf(document->type, sizeof(document->type), "%s", stat->type);
	snprintf(name, sizeof(name), "%s%s%s", stat->name, *stat->unit ? "_" : "", stat->unit);
	if (document->objects && *stat->object) {
		if (strcmp(document->object, stat->object) != 0) {
			snprintf(document->object, sizeof(document->object), "%s", stat->object);
			document->counters = json_object();
			json_array_append_new(
				document->objects,
				json_pack("{s:o, s:s, s:o}", "name", output_json_text(stat->object),
					  "type", stat->type, "counters", document->counters));
		}
		counters = document->counters;
	}
	json_object_set_new(counters, name, output_json_number(stat->value));
	return 0;
}

static int print_json(const struct attached *attached)
{
	struct stats_document document = {.own = json_object()};
	json_t *about = output_json_about(&attached->target);
	int error;

	if (!attached->target.object)
		document.objects = json_array();
	error = coshm_stats_each(attached->segment, attached->target.object, add_number, &document);
	if (attached->target.object)
		json_object_set_new(about, "type", json_string(document.type));
	json_object_set_new(about, "counters", document.own);
	if (document.objects)
		json_object_set_new(about, "objects", document.objects);
	if (error)
		json_decref(about);
	else
		output_json(about);
	return error;
}

/* The library's own text. It may grow between asking for its size and getting it, when an object appears. */
static int print_prometheus(const struct attached *attached)
{
	size_t size_bytes = 0, capacity_bytes = 65536;

	for (int tries = 0; tries < 8; tries++) {
		char *text = malloc(capacity_bytes);
		int error;

		if (!text)
			return -ENOMEM;
		error = coshm_stats_prometheus(attached->segment, attached->target.object, text,
					       capacity_bytes, &size_bytes);
		if (!error)
			output_raw(text, size_bytes);
		free(text);
		if (error != -ENOBUFS)
			return error;
		capacity_bytes = 2 * size_bytes + 1;
	}
	return -EAGAIN;
}

static int cmd_stats(const struct command *command, int argc, char **argv)
{
	bool prometheus = false;
	const struct args_option options[] = {
		{"prom", NULL, "print Prometheus text", .flag = &prometheus},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct attached attached;
	int status, error;

	if (args.json && prometheus)
		args_wrong(command, "--json and --prom exclude each other");
	status = attach_open(&attached, args_target(&args, 0), attach_flags(&args), ATTACH_SEGMENT);
	if (status)
		return status;
	if (args.json)
		error = print_json(&attached);
	else if (prometheus)
		error = print_prometheus(&attached);
	else
		error = print_table(&args, &attached);
	if (error && attached.target.object)
		status = errors_fail_object(&attached.target, "object", error, attached.segment);
	else if (error)
		status = errors_fail(attached.target.text, error);
	attach_close(&attached);
	return status;
}

const struct command command_stats = {
	.name = "stats",
	.operands = "SEG[/OBJ]",
	.summary = "Print the counters of a segment and its objects",
	.help = "Counters only grow, and survive the processes that counted. In the table sizes "
		"are rounded; --json and --prom have the exact numbers. The name of a metric is "
		"coshm_TYPE_NAME, with _total behind a counter.\n",
	.examples = "  shmctl stats shop\n"
		    "  shmctl stats shop/pages --json\n"
		    "  shmctl stats shop --prom > /var/lib/node_exporter/shop.prom\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_stats,
};
