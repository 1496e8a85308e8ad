/* SPDX-License-Identifier: MIT */
/* Reading counters: no lock, no store. A sum over stripes that others are adding to is right for some moment per stripe. */
#include "stats/stats.h"
#include "segment/member.h"
#include "stats/table.h"

#include <errno.h>
#include <string.h>

uint64_t coshm__count_sum(const struct coshm__counters_shm *counters, uint32_t row)
{
	uint64_t sum = 0;

	for (unsigned int stripe = 0; stripe < COSHM__STAT_STRIPES; stripe++)
		sum += coshm__a64_load_relaxed(&counters->value[stripe][row]);
	return sum;
}

/* In the order of the rows of COSHM__STAT_SEGMENT. */
static uint64_t segment_value(const struct coshm__segment *segment, uint32_t row)
{
	const struct coshm__header_shm *header = segment->header;
	struct coshm_segment_info info;

	switch (row) {
	case COSHM__STAT_SEGMENT_attaches:
		return coshm__a64_load_relaxed(&header->attaches);
	case COSHM__STAT_SEGMENT_detaches:
		return coshm__a64_load_relaxed(&header->detaches);
	case COSHM__STAT_SEGMENT_deaths:
		return coshm__a64_load_relaxed(&header->deaths);
	case COSHM__STAT_SEGMENT_reaped:
		return coshm__a64_load_relaxed(&header->reaped);
	case COSHM__STAT_SEGMENT_lock_steals:
		return coshm__a64_load_relaxed(&header->lock_steals);
	case COSHM__STAT_SEGMENT_threads:
		return coshm__thread_count(segment, 0);
	}
	coshm__segment_describe(segment, &info);
	switch (row) {
	case COSHM__STAT_SEGMENT_members:
		return info.member_count;
	case COSHM__STAT_SEGMENT_committed:
		return info.size_bytes;
	case COSHM__STAT_SEGMENT_used:
		return info.used_bytes;
	}
	return 0;
}

static uint64_t object_value(struct coshm__handle *view, const struct coshm__stat_row *rows,
			     uint32_t row)
{
	struct coshm__counters_shm *counters;

	if (rows[row].source == COSHM__STAT_IS_GAUGE)
		return view->object_type->gauge ? view->object_type->gauge(view, row) : 0;
	counters = view->object_type->counters ? view->object_type->counters(view) : NULL;
	return counters ? coshm__count_sum(counters, row) : 0;
}

struct visit {
	struct coshm_segment *token;
	const char *wanted; /* NULL: all */
	int (*each)(void *context, const struct coshm_stat *stat);
	void *context;
	int found;
};

/* One group of rows; index COSHM__ENTRY_COUNT stands for the segment. The callback runs outside of any operation. */
static int visit_rows(struct visit *visit, const struct coshm_object_info *info)
{
	uint32_t count, type = info ? info->type : 0;
	const struct coshm__stat_row *rows = coshm__stat_rows(type, &count);
	int error = 0;

	for (uint32_t row = 0; row < count && !error; row++) {
		struct coshm_stat stat = {
			.object = info ? info->name : "",
			.type = info ? coshm__object_type_find(type)->name : "segment",
			.name = rows[row].name,
			.unit = rows[row].unit,
			.doc = rows[row].doc,
			.kind = rows[row].source == COSHM__STAT_IS_COUNTER ? COSHM_STAT_COUNTER
									   : COSHM_STAT_GAUGE,
		};
		struct coshm__handle *view = NULL;
		struct coshm__op op;

		error = coshm__op_begin_look(&op, visit->token, COSHM__TYPE_SEGMENT);
		if (error)
			return error;
		if (info)
			error = coshm__view_find(op.segment, info->index, &view);
		if (!info)
			stat.value = segment_value(op.segment, row);
		else if (view && view->type == type)
			stat.value = object_value(view, rows, row);
		coshm__op_end(&op);
		/* Zeros would look like an object that nobody uses. Removed or damaged ones have none. */
		if (coshm__is_out_of_reach(error))
			return error;
		error = visit->each(visit->context, &stat);
	}
	return error;
}

static int visit_object(void *context, const struct coshm_object_info *info)
{
	struct visit *visit = context;

	if (info->removed || (visit->wanted && strcmp(visit->wanted, info->name)) ||
	    !coshm__object_type_find(info->type))
		return 0;
	visit->found = 1;
	return visit_rows(visit, info);
}

int coshm_stats_each(struct coshm_segment *segment, const char *object,
		     int (*each)(void *context, const struct coshm_stat *stat), void *context)
{
	struct visit visit = {.token = segment, .wanted = object, .each = each, .context = context};
	int error = 0;

	if (!object || !*object) {
		error = visit_rows(&visit, NULL);
		if (error || object)
			return error;
	}
	error = coshm_inspect_objects(segment, visit_object, &visit);
	if (!error && object && !visit.found)
		return -ENOENT;
	return error;
}

struct by_name {
	const char *name;
	uint64_t value;
};

static int is_name(void *context, const struct coshm_stat *stat)
{
	struct by_name *by_name = context;

	if (strcmp(stat->name, by_name->name))
		return 0;
	by_name->value = stat->value;
	return 1;
}

int coshm_stats_value(struct coshm_segment *segment, const char *object, const char *name,
		      uint64_t *ret_value)
{
	struct by_name by_name = {.name = name};
	int found = coshm_stats_each(segment, object ? object : "", is_name, &by_name);

	if (found == 0)
		return -ENOENT;
	if (found < 0)
		return found;
	*ret_value = by_name.value;
	return 0;
}
