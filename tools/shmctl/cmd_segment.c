/* SPDX-License-Identifier: MIT */
/* create, rm, reap: verbs that change a segment as a whole. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "sigbus.h"
#include "units.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void parse_group(const struct command *command, const char *text,
			struct coshm_segment_config *config)
{
	const struct group *group = getgrnam(text);
	uint64_t id;

	if (group)
		config->group_id = group->gr_gid;
	else if (!units_parse_count(text, &id) && id < UINT32_MAX)
		config->group_id = (uint32_t)id;
	else
		args_wrong(command, "--group %s: there is no such group (see getent group)", text);
	config->group_id_set = 1;
}

static int cmd_create(const struct command *command, int argc, char **argv)
{
	struct coshm_segment_config config = {.struct_size_bytes = sizeof(config)};
	const char *mode = NULL, *group = NULL;
	uint64_t members = 0, threads = 0;
	bool fenced = false, huge_pages = false;
	const struct args_option options[] = {
		{"size", "S", "memory that is there from the start, at least 1M", .required = true,
		 .size_bytes = &config.size_bytes},
		{"max-size", "S", "grow up to this as objects are created (default: --size)",
		 .not_zero = "leave it out for --size", .size_bytes = &config.size_max_bytes},
		{"mode", "MODE", "permission bits of the file (default: 0600)", .text = &mode},
		{"group", "G", "group of the file, a name or a number", .text = &group},
		{"members", "N", "processes at once, at most 1023 (default: 256)",
		 .not_zero = "leave it out for the default", .count = &members},
		{"threads", "N",
		 "threads of all of them that need not take turns, at most 8191 (default: 4 for "
		 "each member)",
		 .not_zero = "leave it out for the default", .count = &threads},
		{"fenced", NULL, "for hosts where membarrier(2) is missing or forbidden",
		 .flag = &fenced},
		{"huge-pages", NULL, "ask for pages of 2 MiB: large caches are faster by a third",
		 .flag = &huge_pages},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct target target = args_segment(&args, 0);
	struct coshm_segment *segment;
	int status = STATUS_OK;
	int error;

	if (mode && units_parse_mode(mode, &config.mode))
		args_wrong(command,
			   "--mode %s: wanted are permission bits in octal, such as 0660, and not "
			   "none at all",
			   mode);
	if (group)
		parse_group(command, group, &config);
	if (members > UINT32_MAX)
		args_wrong(command, "--members %" PRIu64 ": too many", members);
	if (threads > UINT32_MAX)
		args_wrong(command, "--threads %" PRIu64 ": too many", threads);
	config.member_count_max = (uint32_t)members;
	config.thread_count_max = (uint32_t)threads;
	if (fenced)
		config.flags |= COSHM_SEGMENT_FENCED;
	if (huge_pages)
		config.flags |= COSHM_SEGMENT_HUGE_PAGES;

	error = coshm_segment_create(target.segment, &config, 0, &segment);
	if (error) {
		status = errors_fail_create(&target, &config, error);
	} else {
		coshm_segment_detach(segment);
		if (args.json)
			output_json(output_json_about(&target));
		output_remark("created %s; next: shmctl cache create %s%spages --size %s",
			      attach_path(target.segment), target.text,
			      strchr(target.text, '/') ? ":" : "/",
			      units_size(config.size_bytes / 4).text);
	}
	target_free(&target);
	return status;
}

const struct command command_create = {
	.name = "create",
	.operands = "SEG",
	.summary = "Make a segment",
	.help = "SEG is a name (the file is /dev/shm/SEG) or a path. The memory is allocated now, "
		"so a full file\n"
		"system is an error here and never a crash later. --max-size costs address space "
		"only. The default\n"
		"mode is 0600; for several users give a group and 0660. A mode with bits for "
		"others is "
		"refused.\n",
	.examples = "  shmctl create shop --size 64M\n"
		    "  shmctl create shop --size 4G --huge-pages\n"
		    "  shmctl create shop --size 64M --max-size 1G --mode 0660 --group www-data\n"
		    "  shmctl create /run/app/shop.shm --size 64M\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_create,
};

static int rm_object(const struct args *args, struct target target)
{
	struct attached attached;
	int status = attach_open(&attached, target, attach_flags(args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	error = coshm_object_remove(attached.segment, attached.target.object);
	if (error)
		status = errors_fail_object(&attached.target, "object", error, attached.segment);
	attach_close(&attached);
	return status;
}

static int rm_segment(struct target *target)
{
	int error = coshm_segment_unlink(target->segment);
	int status = error ? errors_fail_segment(target, error) : STATUS_OK;

	target_free(target);
	return status;
}

struct census {
	const char *name;
	bool found;
	unsigned int members;
};

static int look_for_name(void *context, const struct coshm_object_info *info)
{
	struct census *census = context;

	if (!info->removed && !strcmp(info->name, census->name)) {
		census->found = true;
		census->members = info->member_count;
	}
	return 0;
}

/* What the question is about. A segment that cannot be looked into can still be removed. */
static int take_census(const struct target *target, struct census *ret_census)
{
	struct coshm_segment *segment;
	struct coshm_segment_info info;
	int status = STATUS_OK;
	int error;

	sigbus_expect(target->segment, true);
	error = coshm_segment_attach(target->segment,
				     COSHM_ATTACH_READ_ONLY | COSHM_ATTACH_ANY_OWNER, &segment);
	if (error == -ENOENT || error == -ETIMEDOUT || (error && target->object))
		return errors_fail_segment(target, error);
	errors_forget();
	if (error)
		return STATUS_OK;
	if (target->object) {
		ret_census->name = target->object;
		error = coshm_inspect_objects(segment, look_for_name, ret_census);
		if (error || !ret_census->found)
			status = errors_fail_object(target, "object", error ? error : -ENOENT,
						    segment);
	} else if (!coshm_segment_info(segment, &info)) {
		ret_census->members = info.member_count;
	}
	coshm_segment_detach(segment);
	/* All the more reason to remove it. */
	(void)sigbus_met();
	return status;
}

static int cmd_rm(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct target target = args_target(&args, 0);
	struct census census = {.members = 0};
	int status = take_census(&target, &census);

	if (status) {
		target_free(&target);
		return status;
	}
	if (!output_confirm(&args, "Remove %s %s, in use by %u process%s?",
			    target.object ? "object" : "segment", target.text, census.members,
			    census.members == 1 ? "" : "es")) {
		target_free(&target);
		return STATUS_FAILURE;
	}
	status = target.object ? rm_object(&args, target) : rm_segment(&target);
	if (!status && args.json)
		output_json(json_pack("{s:o}", "removed", output_json_text(target.text)));
	return status;
}

const struct command command_rm = {
	.name = "rm",
	.operands = "SEG[/OBJ]",
	.summary = "Remove a segment, or an object in one",
	.help = "As with rm(1) of a file in use, processes that are attached go on with what they "
		"have, and nobody\n"
		"can attach or open it any more. What it held is lost: tasks and dead letters as "
		"well. Asks on a\n"
		"terminal and needs --yes elsewhere.\n",
	.examples = "  shmctl rm shop/pages\n"
		    "  shmctl rm shop --yes\n",
	.flags = COMMAND_ACTS | COMMAND_CONFIRMS | COMMAND_JSON,
	.run = cmd_rm,
};

static int count_dead(void *context, const struct coshm_member_info *info)
{
	unsigned int *dead = context;

	*dead += info->state == COSHM_MEMBER_DEAD;
	return 0;
}

static int cmd_reap(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct attached attached;
	unsigned int dead = 0;
	uint32_t reaped = 0;
	json_t *document;
	int status =
		attach_open(&attached, args_segment(&args, 0), attach_flags(&args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	error = coshm_segment_reap(attached.segment, &reaped);
	if (!error)
		error = coshm_inspect_members(attached.segment, count_dead, &dead);
	document = output_json_about(&attached.target);
	attach_close(&attached);
	if (error) {
		json_decref(document);
		return errors_fail(attached.target.text, error);
	}
	json_object_set_new(document, "reaped", json_integer(reaped));
	json_object_set_new(document, "dead_left", json_integer(dead));
	if (args.json)
		return output_json(document);
	json_decref(document);
	printf("%u dead member%s reaped, %u left\n", reaped, reaped == 1 ? "" : "s", dead);
	return STATUS_OK;
}

const struct command command_reap = {
	.name = "reap",
	.operands = "SEG",
	.summary = "Finish now what dead members left",
	.help = "Nobody has to call it: members do the same in passing, and attaching for this "
		"command may\n"
		"already have done it (then it reports 0). Useful when no one works on the "
		"segment.\n",
	.examples = "  shmctl reap shop\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_reap,
};
