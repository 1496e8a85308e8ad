/* SPDX-License-Identifier: MIT */
/* queue redrive, drop: what to do with dead letters. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A task's id, or 0 for all. */
static uint64_t id_operand(const struct command *command, const char *text)
{
	uint64_t id = 0;

	if (strcmp(text, "all") != 0 && (units_parse_count(text, &id) || !id))
		args_wrong(command, "'%s' is no id of a task; wanted is one, or all", text);
	return id;
}

static int act_on_dead(const struct args *args, struct target target, uint64_t id,
		       int (*act)(struct coshm_queue *queue, uint64_t id, uint64_t *ret_count),
		       const char *done)
{
	struct attached attached;
	uint64_t count = 0;
	json_t *document;
	int status = attach_open(&attached, target, attach_flags(args), ATTACH_QUEUE);
	int error;

	if (status)
		return status;
	error = act(attached.queue, id, &count);
	document = output_json_about(&attached.target);
	json_object_set_new(document, done, output_json_number(count));
	if (error == -ENOENT) {
		json_decref(document);
		attach_close(&attached);
		errors_advise("list them: shmctl queue dead %s", attached.target.text);
		return errors_say(STATUS_ABSENT, attached.target.text, "no dead letter has that id",
				  NULL);
	}
	status = attach_leave(&attached, args, error, document);
	if (!status && !args->json)
		printf("%" PRIu64 " dead letter%s %s\n", count, count == 1 ? "" : "s", done);
	return status;
}

static int cmd_queue_redrive(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	uint64_t id = id_operand(command, args.operands[1]);

	return act_on_dead(&args, args_object(&args, 0), id, coshm_queue_redrive, "redriven");
}

static int cmd_queue_drop(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	uint64_t id = id_operand(command, args.operands[1]);
	struct target target = args_object(&args, 0);

	if (!output_confirm(&args, "Delete %s%s of %s?", id ? "dead letter " : "all dead letters",
			    id ? args.operands[1] : "", target.text)) {
		target_free(&target);
		return STATUS_FAILURE;
	}
	return act_on_dead(&args, target, id, coshm_queue_drop, "dropped");
}

const struct command command_queue_redrive = {
	.name = "queue redrive",
	.operands = "SEG/OBJ ID",
	.summary = "Make a dead letter ready again, or all",
	.help = "Its attempts are counted from zero again; the errors of those before stay in its "
		"history. ID is what shmctl queue dead shows, or all.\n",
	.examples = "  shmctl queue redrive shop/mail 65537\n"
		    "  shmctl queue redrive shop/mail all\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_queue_redrive,
};

const struct command command_queue_drop = {
	.name = "queue drop",
	.operands = "SEG/OBJ ID",
	.summary = "Delete a dead letter, or all",
	.help = "Makes room in the queue: dead letters stay until they are redriven or dropped. ID "
		"is what shmctl queue dead shows, or all. Asks on a terminal and needs --yes "
		"elsewhere.\n",
	.examples = "  shmctl queue drop shop/mail 65537\n"
		    "  shmctl queue drop shop/mail all --yes\n",
	.flags = COMMAND_ACTS | COMMAND_CONFIRMS | COMMAND_JSON,
	.run = cmd_queue_drop,
};
