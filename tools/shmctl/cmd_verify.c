/* SPDX-License-Identifier: MIT */
/* verify: is the segment sound? */
#include "attach.h"
#include "errors.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>

struct findings {
	struct libscols_table *table; /* or */
	json_t *array;
};

static const char *level_name(int level)
{
	switch (level) {
	case COSHM_VERIFY_NOTE:
		return "note";
	case COSHM_VERIFY_PENDING:
		return "pending";
	default:
		return "DAMAGE";
	}
}

static void add_finding(void *context, int level, const char *where, const char *text)
{
	const struct findings *findings = context;
	struct libscols_line *line;

	if (findings->array) {
		json_array_append_new(
			findings->array,
			json_pack("{s:s, s:o, s:o}", "level",
				  level >= COSHM_VERIFY_DAMAGE ? "damage" : level_name(level),
				  "where", output_json_text(where), "text",
				  output_json_text(text)));
		return;
	}
	line = output_line(findings->table, NULL);
	output_cell(line, 0, "%s", level_name(level));
	output_cell(line, 1, "%s", where);
	output_cell(line, 2, "%s", text);
	if (level >= COSHM_VERIFY_DAMAGE)
		output_alarm(line, 0);
}

static void print_verdict(const struct target *target, const struct coshm_verify_result *result)
{
	printf("%s: %s, %" PRIu64 " object%s checked", target->text,
	       result->damage ? "DAMAGED" : "ok", result->checked_objects,
	       result->checked_objects == 1 ? "" : "s");
	if (result->damage)
		printf(", %" PRIu64 " damaged place%s", result->damage,
		       result->damage == 1 ? "" : "s");
	if (result->pending)
		printf(", %" PRIu64 " thing%s left by dead members", result->pending,
		       result->pending == 1 ? "" : "s");
	putchar('\n');
}

static void print_json(const struct target *target, const struct coshm_verify_result *result,
		       json_t *findings)
{
	json_t *document = output_json_about(target);

	json_object_set_new(document, "ok", json_boolean(!result->damage));
	json_object_set_new(document, "checked_objects",
			    output_json_number(result->checked_objects));
	json_object_set_new(document, "pending", output_json_number(result->pending));
	json_object_set_new(document, "damage", output_json_number(result->damage));
	json_object_set(document, "findings", findings);
	output_json(document);
}

static int cmd_verify(const struct command *command, int argc, char **argv)
{
	static const struct output_column columns[] = {
		{"LEVEL", 0},
		{"WHERE", 0},
		{"FINDING", OUTPUT_TRUNC},
	};
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct coshm_verify_result result = {.checked_objects = 0};
	struct findings findings = {.table = NULL};
	struct attached attached;
	int status =
		attach_open(&attached, args_target(&args, 0), attach_flags(&args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	if (args.json)
		findings.array = json_array();
	else
		findings.table = output_table(&args, columns, OUTPUT_COUNT(columns));
	error = coshm_inspect_verify(attached.segment, attached.target.object, add_finding,
				     &findings, &result);
	if (findings.table)
		output_table_end(findings.table, "no findings");
	if (error && attached.target.object)
		status = errors_fail_object(&attached.target, "object", error, attached.segment);
	else if (error)
		status = errors_fail(attached.target.text, error);
	else if (args.json)
		print_json(&attached.target, &result, findings.array);
	else
		print_verdict(&attached.target, &result);
	if (!error && result.damage) {
		status = STATUS_DAMAGE;
		output_remark("WHERE starts with the object: remove it and create it again (shmctl "
			      "rm %s/OBJ; the whole segment for \"segment\"), and please report it "
			      "with the lines above",
			      attached.target.segment);
	} else if (!error && result.pending) {
		output_remark("that is no damage: any member finishes it in passing; to do it now: "
			      "shmctl reap %s",
			      attached.target.segment);
	}
	json_decref(findings.array);
	attach_close(&attached);
	return status;
}

const struct command command_verify = {
	.name = "verify",
	.operands = "SEG[/OBJ]",
	.summary = "Walk every structure of a segment and check it",
	.help = "Tells three things apart: note (normal, worth knowing), pending (work that a dead "
		"member left\n"
		"and any survivor finishes: no damage) and DAMAGE (cannot come from any run of the "
		"library,\n"
		"killed or not). Exit code 6 if there is damage. Safe on a segment in use: it "
		"takes no lock.\n",
	.examples = "  shmctl verify shop\n"
		    "  shmctl verify shop/mail --json\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_verify,
};
