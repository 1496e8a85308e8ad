/* SPDX-License-Identifier: MIT */
/* info: what a segment is. ps: who is attached to it. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct short_text {
	char text[64];
};

static struct short_text uuid_text(const uint8_t uuid[16])
{
	struct short_text out;
	size_t length = 0;

	for (size_t i = 0; i < 16; i++)
		length +=
			(size_t)snprintf(out.text + length, sizeof(out.text) - length, "%s%02x",
					 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	return out;
}

static struct short_text date_text(uint64_t realtime_ns)
{
	struct short_text out = {"?"};
	time_t seconds = (time_t)(realtime_ns / 1000000000);
	struct tm parts;

	if (localtime_r(&seconds, &parts))
		strftime(out.text, sizeof(out.text), "%Y-%m-%d %H:%M:%S %z", &parts);
	return out;
}

static json_t *info_json(const struct target *target, const struct coshm_segment_info *info)
{
	json_t *object = output_json_about(target);
	char fingerprint[17];

	snprintf(fingerprint, sizeof(fingerprint), "%016" PRIx64, info->layout_fingerprint);
	json_object_set_new(object, "path", output_json_text(info->path));
	json_object_set_new(object, "uuid", json_string(uuid_text(info->uuid).text));
	json_object_set_new(object, "layout_version", json_integer(info->layout_version));
	json_object_set_new(object, "layout_fingerprint", json_string(fingerprint));
	json_object_set_new(object, "fenced", json_boolean(info->flags & COSHM_SEGMENT_FENCED));
	json_object_set_new(object, "huge_pages",
			    json_boolean(info->flags & COSHM_SEGMENT_HUGE_PAGES));
	json_object_set_new(object, "removed", json_boolean(info->removed));
	json_object_set_new(object, "size_bytes", output_json_number(info->size_bytes));
	json_object_set_new(object, "size_max_bytes", output_json_number(info->size_max_bytes));
	json_object_set_new(object, "used_bytes", output_json_number(info->used_bytes));
	json_object_set_new(object, "created_realtime_ns",
			    output_json_number(info->created_realtime_ns));
	json_object_set_new(object, "age_ns",
			    output_json_number(info->now_ns - info->created_at_ns));
	json_object_set_new(object, "creator_pid", json_integer(info->creator_pid));
	json_object_set_new(object, "members", json_integer(info->member_count));
	json_object_set_new(object, "members_max", json_integer(info->member_count_max));
	json_object_set_new(object, "thread_high_water", json_integer(info->thread_high_water));
	json_object_set_new(object, "threads_max", json_integer(info->thread_count_max));
	json_object_set_new(object, "objects", json_integer(info->object_count));
	json_object_set_new(object, "objects_max", json_integer(info->object_count_max));
	return object;
}

__attribute__((format(printf, 3, 4))) static void
info_line(struct libscols_table *table, const char *what, const char *format, ...)
{
	struct libscols_line *line = output_line(table, NULL);
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	output_cell(line, 0, "%s", what);
	output_cell(line, 1, "%s", text);
}

static void info_table(const struct args *args, const struct coshm_segment_info *info)
{
	static const struct output_column columns[] = {{"WHAT", 0}, {"VALUE", 0}};
	struct libscols_table *table = output_table(args, columns, OUTPUT_COUNT(columns));

	info_line(table, "path", "%s%s", info->path, info->removed ? " (removed)" : "");
	info_line(table, "size", "%s of at most %s, %s used", units_size(info->size_bytes).text,
		  units_size(info->size_max_bytes).text, units_size(info->used_bytes).text);
	info_line(table, "created", "%s, %s ago, by pid %u",
		  date_text(info->created_realtime_ns).text,
		  units_duration(info->now_ns - info->created_at_ns).text, info->creator_pid);
	info_line(table, "members", "%u of at most %u", info->member_count, info->member_count_max);
	info_line(table, "threads", "%u at once so far, of at most %u", info->thread_high_water,
		  info->thread_count_max);
	info_line(table, "objects", "%u of at most %u", info->object_count, info->object_count_max);
	info_line(table, "readers", "%s",
		  info->flags & COSHM_SEGMENT_FENCED ? "full fences (created with --fenced)"
						     : "membarrier");
	info_line(table, "pages", "%s",
		  info->flags & COSHM_SEGMENT_HUGE_PAGES
			  ? "of 2 MiB where the kernel gives them (created with --huge-pages)"
			  : "of 4 KiB");
	info_line(table, "layout", "%u, fingerprint %016" PRIx64, info->layout_version,
		  info->layout_fingerprint);
	info_line(table, "uuid", "%s", uuid_text(info->uuid).text);
	output_table_end(table, "");
}

static int cmd_info(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct coshm_segment_info info;
	struct attached attached;
	int status =
		attach_open(&attached, args_segment(&args, 0), attach_flags(&args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	error = coshm_segment_info(attached.segment, &info);
	if (error)
		status = errors_fail(attached.target.text, error);
	else if (args.json)
		status = output_json(info_json(&attached.target, &info));
	else
		info_table(&args, &info);
	attach_close(&attached);
	return status;
}

const struct command command_info = {
	.name = "info",
	.operands = "SEG",
	.summary = "Describe a segment: sizes, age, limits, layout",
	.examples = "  shmctl info shop\n"
		    "  shmctl info shop --json\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_info,
};

struct member_listing {
	uint64_t now_ns;
	unsigned int dead;
	struct libscols_table *table; /* or */
	json_t *array;
};

/* "1 lease, 2 pages pinned": only what there is, "-" for nothing. */
static struct short_text holdings_text(const struct coshm_member_info *info)
{
	const struct {
		uint32_t count;
		const char *one;
		const char *many;
	} kinds[] = {
		{info->leases_held, "lease", "leases"},
		{info->locks_held, "lock", "locks"},
		{info->pages_pinned, "page pinned", "pages pinned"},
		{info->pages_written, "page written", "pages written"},
		{info->pages_read, "page read", "pages read"},
	};
	struct short_text out = {"-"};
	size_t length = 0;

	for (size_t i = 0; i < OUTPUT_COUNT(kinds); i++) {
		if (!kinds[i].count || length >= sizeof(out.text))
			continue;
		length += (size_t)snprintf(out.text + length, sizeof(out.text) - length, "%s%u %s",
					   length ? ", " : "", kinds[i].count,
					   kinds[i].count == 1 ? kinds[i].one : kinds[i].many);
	}
	return out;
}

static json_t *member_json(const struct coshm_member_info *info, uint64_t age_ns)
{
	size_t length = strnlen(info->command, sizeof(info->command));
	json_t *object = json_pack("{s:i, s:s, s:o, s:i, s:o}", "pid", (int)info->pid, "state",
				   info->state == COSHM_MEMBER_ALIVE ? "alive" : "dead", "id",
				   output_json_number(info->id), "threads", (int)info->thread_count,
				   "age_ns", output_json_number(age_ns));

	output_json_bytes(object, "command", info->command, length);
	json_object_set_new(object, "holds",
			    json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "locks",
				      (int)info->locks_held, "lanes", (int)info->lanes_held,
				      "pages_read", (int)info->pages_read, "pages_written",
				      (int)info->pages_written, "pages_pinned",
				      (int)info->pages_pinned, "leases", (int)info->leases_held));
	return object;
}

static int add_member(void *context, const struct coshm_member_info *info)
{
	struct member_listing *listing = context;
	uint64_t age_ns = listing->now_ns - info->attached_at_ns;
	struct libscols_line *line;

	listing->dead += info->state == COSHM_MEMBER_DEAD;
	if (listing->array) {
		json_array_append_new(listing->array, member_json(info, age_ns));
		return 0;
	}
	line = output_line(listing->table, NULL);
	output_cell(line, 0, "%u", info->pid);
	output_cell(line, 1, "%.*s", (int)strnlen(info->command, sizeof(info->command)),
		    info->command);
	output_cell(line, 2, "%s", info->state == COSHM_MEMBER_ALIVE ? "alive" : "dead");
	if (info->state == COSHM_MEMBER_DEAD)
		output_alarm(line, 2);
	output_cell(line, 3, "%u", info->thread_count);
	output_cell(line, 4, "%s", units_duration(age_ns).text);
	output_cell(line, 5, "%s", holdings_text(info).text);
	return 0;
}

static int cmd_ps(const struct command *command, int argc, char **argv)
{
	static const struct output_column columns[] = {
		{"PID", OUTPUT_RIGHT},	   {"COMMAND", 0},	  {"STATE", 0},
		{"THREADS", OUTPUT_RIGHT}, {"AGE", OUTPUT_RIGHT}, {"HOLDS", OUTPUT_TRUNC},
	};
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct member_listing listing = {.now_ns = 0};
	struct attached attached;
	int status =
		attach_open(&attached, args_segment(&args, 0), attach_flags(&args), ATTACH_SEGMENT);
	int error;

	if (status)
		return status;
	listing.now_ns = coshm_segment_now_ns(attached.segment);
	if (args.json)
		listing.array = json_array();
	else
		listing.table = output_table(&args, columns, OUTPUT_COUNT(columns));
	error = coshm_inspect_members(attached.segment, add_member, &listing);
	if (error)
		status = errors_fail(attached.target.text, error);
	else if (args.json)
		output_json(json_pack("{s:s, s:O}", "segment", attached.target.segment, "members",
				      listing.array));
	if (listing.table)
		output_table_end(listing.table, "nobody is attached");
	if (listing.dead)
		output_remark("whoever works on the segment next gives back what the dead held; "
			      "to do it now: shmctl reap %s",
			      attached.target.segment);
	json_decref(listing.array);
	attach_close(&attached);
	return status;
}

const struct command command_ps = {
	.name = "ps",
	.operands = "SEG",
	.summary = "List the processes attached to a segment, and what each holds",
	.help = "dead: the process is gone (the kernel says so, no timeout); what it held is being "
		"given back by\n"
		"whoever works on the segment next. The pid is as the process itself saw it, so in "
		"a container it\n"
		"is the container's.\n",
	.examples = "  shmctl ps shop\n"
		    "  shmctl ps shop --json | jq '.members[] | select(.state == \"dead\")'\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_ps,
};
