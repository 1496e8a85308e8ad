/* SPDX-License-Identifier: MIT */
/* Counters as JSON and as Prometheus text. Names hold no character that either would have to escape, but the path may. */
#include "stats/stats.h"
#include "stats/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
	char *buffer;
	size_t capacity_bytes;
	size_t size_bytes; /* needed so far, also beyond the capacity */
	char object[COSHM_NAME_SIZE_BYTES];
	char segment[256];
	int started;
};

static void __attribute__((format(printf, 2, 3))) append(struct text *text, const char *format, ...)
{
	size_t room = text->size_bytes < text->capacity_bytes
			      ? text->capacity_bytes - text->size_bytes
			      : 0;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(room ? text->buffer + text->size_bytes : NULL, room, format, arguments);
	va_end(arguments);
	text->size_bytes += length > 0 ? (size_t)length : 0;
}

static int text_finish(const struct text *text, int error, size_t *ret_size_bytes)
{
	if (error)
		return error;
	if (ret_size_bytes)
		*ret_size_bytes = text->size_bytes;
	return text->size_bytes < text->capacity_bytes ? 0 : -ENOBUFS;
}

/* {"": {"type": "segment", "members": 3, ...}, "pages": {"type": "cache", ...}} */
static int json_stat(void *context, const struct coshm_stat *stat)
{
	struct text *text = context;

	if (!text->started || strcmp(text->object, stat->object)) {
		append(text, "%s\"%s\": {\"type\": \"%s\"", text->started ? "}, " : "{",
		       stat->object, stat->type);
		snprintf(text->object, sizeof(text->object), "%s", stat->object);
		text->started = 1;
	}
	append(text, ", \"%s%s%s\": %" PRIu64, stat->name, *stat->unit ? "_" : "", stat->unit,
	       stat->value);
	return 0;
}

int coshm_stats_json(struct coshm_segment *segment, const char *object, char *buffer,
		     size_t capacity_bytes, size_t *ret_size_bytes)
{
	struct text text = {.buffer = buffer, .capacity_bytes = capacity_bytes};
	int error = coshm_stats_each(segment, object, json_stat, &text);

	append(&text, "%s", text.started ? "}}" : "{}");
	return text_finish(&text, error, ret_size_bytes);
}

static void label_of(const char *path, char label[256])
{
	size_t used = 0;

	if (strncmp(path, "/dev/shm/", 9) == 0)
		path += 9;
	for (; *path && used < 253; path++) {
		if (*path == '"' || *path == '\\')
			label[used++] = '\\';
		label[used++] = *path;
	}
	label[used] = '\0';
}

/* One metric of all objects: the format wants its samples together behind one header. */
struct metric {
	struct text *text;
	const char *type;
	const char *name;
	int started;
};

static int metric_stat(void *context, const struct coshm_stat *stat)
{
	struct metric *metric = context;
	struct text *text = metric->text;
	char name[128];

	if (strcmp(stat->type, metric->type) || strcmp(stat->name, metric->name))
		return 0;
	snprintf(name, sizeof(name), "coshm_%s_%s%s%s%s", stat->type, stat->name,
		 *stat->unit ? "_" : "", stat->unit,
		 stat->kind == COSHM_STAT_COUNTER ? "_total" : "");
	if (!metric->started)
		append(text, "# HELP %s %s\n# TYPE %s %s\n", name, stat->doc, name,
		       stat->kind == COSHM_STAT_COUNTER ? "counter" : "gauge");
	metric->started = 1;
	append(text, "%s{segment=\"%s\"", name, text->segment);
	if (*stat->object)
		append(text, ",object=\"%s\"", stat->object);
	append(text, "} %" PRIu64 "\n", stat->value);
	return 0;
}

static int append_type(struct text *text, struct coshm_segment *segment, const char *object,
		       uint32_t type, const char *type_name)
{
	uint32_t count;
	const struct coshm__stat_row *rows = coshm__stat_rows(type, &count);
	int error = 0;

	for (uint32_t row = 0; row < count && !error; row++) {
		struct metric metric = {.text = text, .type = type_name, .name = rows[row].name};

		error = coshm_stats_each(segment, object, metric_stat, &metric);
	}
	return error;
}

int coshm_stats_prometheus(struct coshm_segment *segment, const char *object, char *buffer,
			   size_t capacity_bytes, size_t *ret_size_bytes)
{
	struct text text = {.buffer = buffer, .capacity_bytes = capacity_bytes};
	struct coshm_segment_info info;
	int error = coshm_segment_info(segment, &info);

	if (error)
		return error;
	label_of(info.path, text.segment);
	error = append_type(&text, segment, object, 0, "segment");
	for (size_t i = 0; coshm__object_types[i] && !error; i++)
		error = append_type(&text, segment, object, coshm__object_types[i]->type,
				    coshm__object_types[i]->name);
	return text_finish(&text, error, ret_size_bytes);
}
