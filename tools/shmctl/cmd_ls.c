/* SPDX-License-Identifier: MIT */
/* ls: the segments of this host, the objects of a segment. And what shmctl says without a word. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "segments.h"
#include "summary.h"
#include "units.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct units_text owner_of(const struct found_segment *found)
{
	const struct passwd *user = getpwuid(found->file.st_uid);
	const struct group *group = getgrgid(found->file.st_gid);
	char user_id[12], group_id[12];
	struct units_text owner;

	snprintf(user_id, sizeof(user_id), "%u", found->file.st_uid);
	snprintf(group_id, sizeof(group_id), "%u", found->file.st_gid);
	snprintf(owner.text, sizeof(owner.text), "%.15s:%.15s", user ? user->pw_name : user_id,
		 group ? group->gr_name : group_id);
	return owner;
}

/* A word or two; the whole story is in the complaint of "shmctl info". */
static const char *state_of(const struct found_segment *found)
{
	switch (-found->error) {
	case 0:
		return found->info.removed ? "removed" : "ok";
	case EACCES:
		return "no permission";
	case EPERM:
		return "writable by all";
	case EPROTONOSUPPORT:
		return "other layout";
	case ESTALE:
		return "stale";
	case EUCLEAN:
		return "damaged";
	default:
		return "unreadable";
	}
}

static json_t *segment_json(const struct found_segment *found)
{
	const struct coshm_segment_info *info = &found->info;
	json_t *object =
		json_pack("{s:o, s:s, s:i, s:i, s:i}", "name", output_json_text(found->name),
			  "state", state_of(found), "uid", (int)found->file.st_uid, "gid",
			  (int)found->file.st_gid, "mode", (int)(found->file.st_mode & 07777));

	if (found->error) {
		json_object_set_new(object, "reason", json_string(coshm_strerror(found->error)));
		return object;
	}
	json_object_set_new(object, "size_bytes", output_json_number(info->size_bytes));
	json_object_set_new(object, "size_max_bytes", output_json_number(info->size_max_bytes));
	json_object_set_new(object, "used_bytes", output_json_number(info->used_bytes));
	json_object_set_new(object, "objects", json_integer(info->object_count));
	json_object_set_new(object, "members", json_integer(info->member_count));
	json_object_set_new(object, "dead_members", json_integer(found->dead_members));
	json_object_set_new(object, "age_ns",
			    output_json_number(info->now_ns - info->created_at_ns));
	return object;
}

static void segment_line(struct libscols_table *table, const struct found_segment *found)
{
	struct libscols_line *line = output_line(table, NULL);
	const struct coshm_segment_info *info = &found->info;

	output_cell(line, 0, "%s", found->name);
	output_cell(line, 6, "%s", owner_of(found).text);
	output_cell(line, 7, "%04o", found->file.st_mode & 07777);
	output_cell(line, 9, "%s", state_of(found));
	if (found->error) {
		output_alarm(line, 9);
		return;
	}
	output_cell(line, 1, "%s", units_size(info->size_bytes).text);
	output_cell(line, 2, "%s", units_size(info->size_max_bytes).text);
	output_cell(line, 3, "%s", units_size(info->used_bytes).text);
	output_cell(line, 4, "%u", info->object_count);
	output_cell(line, 5, "%u", info->member_count);
	output_cell(line, 8, "%s", units_duration(info->now_ns - info->created_at_ns).text);
	if (found->dead_members) {
		output_cell(line, 9, "%u dead member%s", found->dead_members,
			    found->dead_members == 1 ? "" : "s");
		output_alarm(line, 9);
	}
}

static int print_segments(const struct args *args, const struct found_segments *list)
{
	static const struct output_column columns[] = {
		{"NAME", 0},
		{"SIZE", OUTPUT_RIGHT},
		{"MAX", OUTPUT_RIGHT},
		{"USED", OUTPUT_RIGHT},
		{"OBJECTS", OUTPUT_RIGHT},
		{"MEMBERS", OUTPUT_RIGHT},
		{"OWNER", 0},
		{"MODE", 0},
		{"AGE", OUTPUT_RIGHT},
		{"STATE", 0},
	};
	struct libscols_table *table;

	if (args->json) {
		json_t *array = json_array();

		for (size_t i = 0; i < list->count; i++)
			json_array_append_new(array, segment_json(&list->segments[i]));
		return output_json(json_pack("{s:o}", "segments", array));
	}
	table = output_table(args, columns, OUTPUT_COUNT(columns));
	for (size_t i = 0; i < list->count; i++)
		segment_line(table, &list->segments[i]);
	output_table_end(table, "no segments in " SEGMENTS_FOLDER
				"; make one: shmctl create demo --size 64M");
	return STATUS_OK;
}

static int ls_segments(const struct args *args)
{
	struct found_segments list;
	int error = segments_find(&list);
	int status;

	if (error)
		return errors_say(STATUS_FAILURE, SEGMENTS_FOLDER, strerror(-error), NULL);
	status = print_segments(args, &list);
	segments_free(&list);
	return status;
}

struct object_listing {
	struct coshm_segment *segment;
	uint64_t now_ns;
	struct libscols_table *table; /* or */
	json_t *array;
};

static int add_object(void *context, const struct coshm_object_info *info)
{
	struct object_listing *listing = context;
	struct summary summary = summary_of(listing->segment, info);
	uint64_t age_ns = listing->now_ns - info->created_at_ns;
	struct libscols_line *line;

	if (listing->array) {
		json_array_append_new(
			listing->array,
			json_pack(
				"{s:o, s:s, s:o, s:o, s:i, s:b, s:o}", "name",
				output_json_text(info->name), "type", errors_type_name(info->type),
				"size_bytes", output_json_number(info->size_bytes), "age_ns",
				output_json_number(age_ns), "members", (int)info->member_count,
				"removed", (int)info->removed, "contents", summary_json(&summary)));
		return 0;
	}
	line = output_line(listing->table, NULL);
	output_cell(line, 0, "%s", info->name);
	output_cell(line, 1, "%s", errors_type_name(info->type));
	output_cell(line, 2, "%s", units_size(info->size_bytes).text);
	output_cell(line, 3, "%u", info->member_count);
	output_cell(line, 4, "%s", units_duration(age_ns).text);
	output_cell(line, 5, "%s",
		    info->removed ? "removed, but still open somewhere"
				  : summary_text(&summary).text);
	return 0;
}

static int ls_objects(const struct args *args, struct target target)
{
	static const struct output_column columns[] = {
		{"NAME", 0},
		{"TYPE", 0},
		{"SIZE", OUTPUT_RIGHT},
		{"MEMBERS", OUTPUT_RIGHT},
		{"AGE", OUTPUT_RIGHT},
		{"CONTENTS", OUTPUT_TRUNC},
	};
	struct object_listing listing = {.segment = NULL};
	struct attached attached;
	int status = attach_open(&attached, target, attach_flags(args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	listing.segment = attached.segment;
	listing.now_ns = coshm_segment_now_ns(attached.segment);
	if (args->json)
		listing.array = json_array();
	else
		listing.table = output_table(args, columns, OUTPUT_COUNT(columns));
	error = coshm_inspect_objects(attached.segment, add_object, &listing);
	if (error)
		status = errors_fail(target.text, error);
	else if (args->json)
		output_json(json_pack("{s:s, s:O}", "segment", attached.target.segment, "objects",
				      listing.array));
	if (listing.table)
		output_table_end(listing.table, "no objects; make one: shmctl cache create --help");
	json_decref(listing.array);
	attach_close(&attached);
	return status;
}

static int cmd_ls(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);

	if (!args.operand_count)
		return ls_segments(&args);
	return ls_objects(&args, args_segment(&args, 0));
}

const struct command command_ls = {
	.name = "ls",
	.operands = "[SEG]",
	.summary = "List the segments of this host, or the objects in one",
	.help = "Without SEG it looks at every file in " SEGMENTS_FOLDER
		". Files of other programs are left out;\n"
		"a segment that cannot be read is listed with the reason.\n",
	.examples = "  shmctl ls\n"
		    "  shmctl ls shop\n"
		    "  shmctl ls /run/app/shop.shm\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_ls,
};

/* Something to type for somebody who has nothing yet, and for somebody who has. */
static void print_next(const struct found_segments *list)
{
	char *name = NULL;

	for (size_t i = 0; i < list->count && !name; i++)
		if (!list->segments[i].error)
			name = output_escape(list->segments[i].name, strlen(list->segments[i].name),
					     0);
	if (!name)
		printf("No segment here yet. Try:\n"
		       "  shmctl create demo --size 64M\n"
		       "  shmctl cache create demo/pages --size 16M\n"
		       "  shmctl cache set demo/pages greeting hello\n"
		       "  shmctl cache get demo/pages greeting\n");
	else
		printf("\nTry next:\n"
		       "  shmctl ls %-20s what is in it\n"
		       "  shmctl ps %-20s who is attached\n"
		       "  shmctl stats %-17s what it counted\n",
		       name, name, name);
	printf("\nAll commands: shmctl --help\n");
	free(name);
}

int cmd_here(bool json)
{
	const struct args args = {.command = &command_ls, .json = json};
	struct found_segments list;
	int error = segments_find(&list);
	int status = STATUS_OK;

	if (error)
		return errors_say(STATUS_FAILURE, SEGMENTS_FOLDER, strerror(-error), NULL);
	if (list.count || json)
		status = print_segments(&args, &list);
	if (!json)
		print_next(&list);
	segments_free(&list);
	return status;
}
