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
	output_cell(line, 1, "%s", stat->name);
	if (!strcmp(stat->unit, "bytes"))
		output_cell(line, 2, "%s", units_size(stat->value).text);
	else if (!strcmp(stat->unit, "ns"))
		output_cell(line, 2, "%s", units_duration(stat->value).text);
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

/* The library's own text. It may grow between asking for its size and getting it, when an object appears. */
static int get_text(const struct attached *attached,
		    int (*write_text)(struct coshm_segment *segment, const char *object,
				      char *buffer, size_t capacity_bytes, size_t *ret_size_bytes),
		    char **ret_text, size_t *ret_size_bytes)
{
	size_t capacity_bytes = 65536;

	for (int tries = 0; tries < 8; tries++) {
		char *text = malloc(capacity_bytes);
		int error;

		if (!text)
			return -ENOMEM;
		error = write_text(attached->segment, attached->target.object, text, capacity_bytes,
				   ret_size_bytes);
		if (!error) {
			*ret_text = text;
			return 0;
		}
		free(text);
		if (error != -ENOBUFS)
			return error;
		capacity_bytes = 2 * *ret_size_bytes + 1;
	}
	return -EAGAIN;
}

static int print_text(const struct attached *attached, bool json)
{
	size_t size_bytes = 0;
	json_error_t mistake;
	json_t *document;
	char *text;
	int error = get_text(attached, json ? coshm_stats_json : coshm_stats_prometheus, &text,
			     &size_bytes);

	if (error)
		return error;
	if (json) {
		document = json_loadb(text, size_bytes, 0, &mistake);
		if (document)
			output_json(document);
		else
			error = -EUCLEAN;
	} else {
		output_raw(text, size_bytes);
	}
	free(text);
	return error;
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
	if (args.json || prometheus)
		error = print_text(&attached, args.json);
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
		"and times are\n"
		"rounded; --json and --prom have the exact numbers.\n",
	.examples = "  shmctl stats shop\n"
		    "  shmctl stats shop/pages --json\n"
		    "  shmctl stats shop --prom > /var/lib/node_exporter/shop.prom\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_stats,
};
