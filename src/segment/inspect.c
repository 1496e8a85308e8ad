/* SPDX-License-Identifier: MIT */
/* Looking without touching: no lock, no store, copies that are checked again before they are shown. */
#include "segment/internal.h"

#include <coshm/inspect.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void coshm__finding(struct coshm__findings *findings, int level, const char *where,
		    const char *format, ...)
{
	char text[256], place[COSHM_NAME_SIZE_BYTES + 64];
	const char *part = strchr(where, '/');
	va_list arguments;

	/* Nothing keeps its memory. It may be another object's by now, and then that was looked at. */
	if (findings->object && !coshm__object_is_there(findings->object))
		return;
	findings->result.pending += level == COSHM_VERIFY_PENDING;
	findings->result.damage += level == COSHM_VERIFY_DAMAGE;
	if (!findings->report)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	/* Of ten queues, which? The type alone would not say. */
	if (findings->object_name) {
		snprintf(place, sizeof(place), "%s%s", findings->object_name, part ? part : "");
		where = place;
	}
	findings->report(findings->context, level, where, text);
}

/* What comes out of a segment may be damaged, and goes to terminals and into JSON. */
static void make_printable(char *text, size_t size_bytes)
{
	text[size_bytes - 1] = '\0';
	for (; *text; text++)
		if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\')
			*text = '?';
}

/* 1 copied; 0 no object there, or it changed meanwhile */
static int object_copy(struct coshm__segment *segment, uint32_t index,
		       struct coshm_object_info *info)
{
	struct coshm__entry_shm *entry = &segment->entries[index];
	uint64_t word = coshm__a64_load_acquire(&entry->word); /* [D2] */
	uint64_t name[COSHM_NAME_SIZE_BYTES / 8];

	if (coshm__entry_state_of(word) != COSHM__ENTRY_LIVE &&
	    coshm__entry_state_of(word) != COSHM__ENTRY_REMOVED)
		return 0;
	memset(info, 0, sizeof(*info));
	for (unsigned int i = 0; i < COSHM_NAME_SIZE_BYTES / 8; i++)
		name[i] = coshm__a64_load_relaxed(&entry->name[i]);
	memcpy(info->name, name, sizeof(name));
	make_printable(info->name, sizeof(info->name));
	info->type = (uint32_t)coshm__a64_load_relaxed(&entry->type);
	info->index = index;
	info->offset_bytes = coshm__a64_load_relaxed(&entry->offset_bytes);
	info->size_bytes = coshm__a64_load_relaxed(&entry->size_bytes);
	info->created_at_ns = coshm__a64_load_relaxed(&entry->created_at_ns);
	info->member_count = coshm__object_open_count(segment, index);
	info->removed = coshm__entry_state_of(word) == COSHM__ENTRY_REMOVED;
	if (info->removed && info->member_count == 0)
		return 0; /* a gap: the next creation takes it */
	coshm__acquire_fence(); /* the copies above before the second look; TSan builds do not inspect live segments */
	return coshm__a64_load_relaxed(&entry->word) == word;
}

int coshm_inspect_objects(struct coshm_segment *token,
			  int (*each)(void *context, const struct coshm_object_info *info),
			  void *context)
{
	int error = 0;

	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT && !error; i++) {
		struct coshm_object_info info;
		struct coshm__op op;
		int found;

		error = coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT);
		if (error)
			break;
		found = object_copy(op.segment, i, &info);
		coshm__op_end(&op);
		if (found)
			error = each(context, &info);
	}
	return error;
}

/* 0, or out of reach */
static int locks_count(struct coshm__segment *segment, struct coshm__thread_shm *thread,
		       uint32_t member_id, struct coshm_member_info *info)
{
	for (unsigned int i = 0; i < COSHM__LOCKS_HELD; i++) {
		uint64_t offset = coshm__a64_load_relaxed(&thread->lock_offset[i]);
		struct coshm__rlock_shm *lock =
			offset & COSHM__LOCK_IS_HELD
				? coshm__segment_at(segment, --offset, sizeof(*lock))
				: NULL;

		if (!lock || coshm__rlock_owner(lock) != member_id)
			continue;
		info->locks_held++;
		for (uint32_t e = 0; e < COSHM__ENTRY_COUNT; e++) {
			struct coshm__handle *view = NULL;
			int error = coshm__view_find(segment, e, &view);
			uint64_t start = view ? coshm__offset_of(segment, view->object) : 0;

			if (coshm__is_out_of_reach(error))
				return error;
			if (view && view->object_type->lock_is_lane && offset >= start &&
			    offset - start < view->size_bytes)
				info->lanes_held +=
					view->object_type->lock_is_lane(view, offset - start) == 1;
		}
	}
	return 0;
}

/* 0, or out of reach */
static int threads_hold(struct coshm__segment *segment, uint32_t member_id,
			struct coshm_member_info *info)
{
	/* [T5] acquire: a look */
	uint32_t high = coshm__a32_load_acquire(&segment->header->thread_high_water);

	int error = 0;

	for (uint32_t i = 0; i < high && i < segment->thread_count_max && !error; i++) {
		struct coshm__thread_shm *thread = &segment->threads[i];

		/* [T2] acquire: a look */
		if (coshm__a32_load_acquire(&thread->owner) != member_id)
			continue;
		for (unsigned int h = 0; h < COSHM__HAZARD_READS; h++)
			info->pages_read += coshm__a64_load_relaxed(&thread->read_hazard[h]) != 0;
		for (unsigned int h = 0; h < COSHM__HAZARD_WRITES; h++)
			info->pages_written +=
				coshm__a64_load_relaxed(&thread->write_hazard[h]) != 0;
		error = locks_count(segment, thread, member_id, info);
	}
	return error;
}

/* What of objects the member holds. 0, or out of reach */
static int objects_hold(struct coshm__segment *segment, const struct coshm__member_shm *member,
			uint32_t member_id, struct coshm_member_info *info)
{
	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT; i++) {
		struct coshm__handle *view = NULL;
		int error;

		if (!(coshm__a64_load_relaxed(&member->open_objects[i / 64]) >> (i % 64) & 1))
			continue;
		error = coshm__view_find(segment, i, &view);
		if (coshm__is_out_of_reach(error))
			return error;
		if (view && view->object_type->holdings)
			view->object_type->holdings(view, member_id, info);
	}
	return 0;
}

/* 1 copied; 0 no member there, or it changed meanwhile; negative: an object is out of reach */
static int member_copy(struct coshm__segment *segment, uint32_t slot,
		       struct coshm_member_info *info)
{
	struct coshm__member_shm *member = &segment->members[slot];
	uint64_t word = coshm__a64_load_acquire(&member->word), command[2]; /* [M2] */
	uint32_t id = coshm__member_id(slot, word);
	int error;

	if ((word & 3) == COSHM__MEMBER_FREE)
		return 0;
	memset(info, 0, sizeof(*info));
	info->index = slot;
	info->id = id;
	info->pid = coshm__a32_load_relaxed(&member->pid);
	info->attached_at_ns = coshm__a64_load_relaxed(&member->attached_at_ns);
	command[0] = coshm__a64_load_relaxed(&member->command[0]);
	command[1] = coshm__a64_load_relaxed(&member->command[1]);
	memcpy(info->command, command, sizeof(info->command));
	make_printable(info->command, sizeof(info->command));
	info->state = coshm__member_is_dead(segment, id) ? COSHM_MEMBER_DEAD : COSHM_MEMBER_ALIVE;
	info->thread_count = coshm__thread_count(segment, id);
	error = threads_hold(segment, id, info);
	for (unsigned int i = 0; i < COSHM__PIN_COUNT; i++)
		info->pages_pinned += coshm__a64_load_relaxed(&member->pins[i]) != 0;
	if (!error)
		error = objects_hold(segment, member, id, info);
	if (error)
		return error;
	word = coshm__a64_load_acquire(&member->word); /* [M2] */
	return coshm__member_id(slot, word) == id && (word & 3) != COSHM__MEMBER_FREE;
}

int coshm_inspect_members(struct coshm_segment *token,
			  int (*each)(void *context, const struct coshm_member_info *info),
			  void *context)
{
	struct coshm__op op;
	int error = 0;

	for (uint32_t slot = 0; !error; slot++) {
		struct coshm_member_info info;
		int found = 0, end;

		error = coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT);
		if (error)
			break;
		/* [M7] acquire: a look */
		end = slot >= op.segment->member_count_max ||
		      slot >= coshm__a32_load_acquire(&op.segment->header->member_high_water);
		if (!end)
			found = member_copy(op.segment, slot, &info);
		coshm__op_end(&op);
		if (end)
			break;
		error = found < 0 ? found : found ? each(context, &info) : 0;
	}
	return error;
}

struct by_pid {
	uint32_t pid;
	struct coshm_member_info *ret_info;
};

static int is_pid(void *context, const struct coshm_member_info *info)
{
	struct by_pid *by_pid = context;

	if (info->pid != by_pid->pid)
		return 0;
	*by_pid->ret_info = *info;
	/* A pid may come again: prefer a living member. */
	return info->state == COSHM_MEMBER_ALIVE ? 1 : 0;
}

int coshm_inspect_member(struct coshm_segment *token, uint32_t pid,
			 struct coshm_member_info *ret_info)
{
	struct coshm_member_info info = {0};
	struct by_pid by_pid = {.pid = pid, .ret_info = &info};
	int error = coshm_inspect_members(token, is_pid, &by_pid);

	if (error < 0)
		return error;
	if (info.pid != pid || info.id == 0)
		return 0;
	*ret_info = info;
	return 1;
}

/* --- verify ------------------------------------------------------------------------------------------------- */

static void verify_members(struct coshm__segment *segment, struct coshm__findings *findings)
{
	for (uint32_t slot = 0; slot < segment->member_count_max; slot++) {
		uint64_t word = coshm__a64_load_acquire(&segment->members[slot].word); /* [M2] */

		if (!coshm__member_word_is_sound(word))
			coshm__finding(findings, COSHM_VERIFY_DAMAGE, "segment/members",
				       "slot %u has the impossible word %llx", slot,
				       (unsigned long long)word);
		else if ((word & 3) != COSHM__MEMBER_FREE &&
			 coshm__member_is_dead(segment, coshm__member_id(slot, word)))
			coshm__finding(findings, COSHM_VERIFY_PENDING, "segment/members",
				       "member %u (pid %u) is dead and not cleaned up yet", slot,
				       coshm__a32_load_relaxed(&segment->members[slot].pid));
	}
}

static void verify_entry(struct coshm__segment *segment, uint32_t index,
			 struct coshm__findings *findings)
{
	struct coshm__entry_shm *entry = &segment->entries[index];
	uint64_t word = coshm__a64_load_acquire(&entry->word); /* [D2] */
	uint64_t state = coshm__entry_state_of(word);
	uint64_t offset = coshm__a64_load_relaxed(&entry->offset_bytes);
	uint64_t size = coshm__a64_load_relaxed(&entry->size_bytes);
	int error;

	if (state > COSHM__ENTRY_REMOVED) {
		coshm__finding(findings, COSHM_VERIFY_DAMAGE, "segment/directory",
			       "entry %u has the impossible word %llx", index,
			       (unsigned long long)word);
		return;
	}
	if (state == COSHM__ENTRY_FREE)
		return;
	if (state == COSHM__ENTRY_BUILDING) {
		if (coshm__member_is_dead(segment, coshm__entry_owner_of(word)))
			coshm__finding(findings, COSHM_VERIFY_PENDING, "segment/directory",
				       "entry %u was never finished by its creator", index);
		return;
	}
	error = coshm__segment_has(segment, offset, size);
	if (coshm__is_out_of_reach(error)) {
		findings->error = error;
		return;
	}
	if (offset % COSHM__PAGE_BYTES || offset < segment->objects_offset || error) {
		coshm__finding(findings, COSHM_VERIFY_DAMAGE, "segment/directory",
			       "entry %u lies outside of the segment", index);
		return;
	}
	for (uint32_t other = index + 1; other < COSHM__ENTRY_COUNT; other++) {
		struct coshm__entry_shm *second = &segment->entries[other];
		uint64_t start = coshm__a64_load_relaxed(&second->offset_bytes);
		uint64_t second_word = coshm__a64_load_acquire(&second->word); /* [D2] */

		if (coshm__entry_state_of(second_word) < COSHM__ENTRY_LIVE ||
		    coshm__entry_state_of(second_word) > COSHM__ENTRY_REMOVED ||
		    start >= offset + size ||
		    offset >= start + coshm__a64_load_relaxed(&second->size_bytes))
			continue;
		/* A live pool may have reused one meanwhile: only if both stay, they overlap. */
		/* [D2] */
		if (coshm__a64_load_acquire(&entry->word) == word &&
		    /* [D2] */
		    coshm__a64_load_acquire(&second->word) == second_word)
			coshm__finding(findings, COSHM_VERIFY_DAMAGE, "segment/directory",
				       "entries %u and %u overlap", index, other);
	}
}

/* The name must match when one was asked for. */
static int verify_object(struct coshm__segment *segment, uint32_t index, const char *wanted,
			 struct coshm__findings *findings)
{
	struct coshm__entry_shm *entry = &segment->entries[index];
	uint64_t word = coshm__a64_load_relaxed(&entry->word); /* only compared with itself */
	struct coshm_object_info info;
	struct coshm__handle *view = NULL;
	int error;

	if (!object_copy(segment, index, &info) ||
	    (wanted && (info.removed || strcmp(info.name, wanted))))
		return 0;
	findings->result.checked_objects++;
	findings->object_name = info.name;
	if (!coshm__object_type_find(info.type)) {
		coshm__finding(findings, COSHM_VERIFY_NOTE, info.name,
			       "type %u is not known to this version", info.type);
		findings->object_name = NULL;
		return 1;
	}
	error = coshm__view_find(segment, index, &view);
	if (coshm__is_out_of_reach(error))
		findings->error = error;
	/* A live pool may have removed it meanwhile, and begun another one in its entry. */
	else if (!view && coshm__a64_load_relaxed(&entry->word) == word)
		coshm__finding(findings, COSHM_VERIFY_DAMAGE, info.name,
			       "its header does not fit its size");
	else if (view && view->object_type->verify) {
		findings->object = view;
		view->object_type->verify(view, findings);
		findings->object = NULL;
	}
	findings->object_name = NULL;
	return 1;
}

int coshm_inspect_verify(struct coshm_segment *token, const char *object,
			 void (*report)(void *context, int level, const char *where,
					const char *text),
			 void *context, struct coshm_verify_result *ret_result)
{
	struct coshm__findings findings = {.report = report, .context = context};
	int found = 0, error = 0;

	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT && !findings.error; i++) {
		struct coshm__op op;

		error = coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT);
		if (error)
			return error;
		if (i == 0 && !object)
			verify_members(op.segment, &findings);
		if (!object)
			verify_entry(op.segment, i, &findings);
		found += verify_object(op.segment, i, object, &findings);
		coshm__op_end(&op);
	}
	if (findings.error)
		return findings.error;
	if (object && !found)
		return -ENOENT;
	if (ret_result)
		*ret_result = findings.result;
	return 0;
}

void coshm__segment_describe(const struct coshm__segment *segment,
			     struct coshm_segment_info *ret_info)
{
	struct coshm_segment_info info = {0};

	snprintf(info.path, sizeof(info.path), "%s", segment->path);
	memcpy(info.uuid, segment->header->uuid, sizeof(info.uuid));
	info.layout_version = segment->header->layout_version;
	info.layout_fingerprint = segment->header->layout_fingerprint;
	info.flags = segment->header->flags;
	info.size_bytes = coshm__a64_load_relaxed(&segment->header->committed_bytes);
	info.size_max_bytes = segment->size_max_bytes;
	info.used_bytes = segment->objects_offset;
	info.created_at_ns = segment->header->created_at_ns;
	info.created_realtime_ns = segment->header->created_realtime_ns;
	info.now_ns = coshm__now_ns(segment);
	info.creator_pid = segment->header->creator_pid;
	/* One is the rescuer's. */
	info.member_count_max = segment->member_count_max - 1;
	info.thread_count_max = segment->thread_count_max - segment->member_count_max;
	info.thread_high_water = coshm__a32_load_relaxed(&segment->header->thread_high_water);
	info.thread_high_water -= info.thread_high_water > segment->member_count_max
					  ? segment->member_count_max
					  : info.thread_high_water;
	info.object_count_max = COSHM__ENTRY_COUNT;
	info.removed = coshm__a32_load_relaxed(&segment->header->state) == COSHM__SEGMENT_REMOVED;
	for (uint32_t i = 0; i < segment->member_count_max; i++)
		/* [M2] */
		info.member_count += (coshm__a64_load_acquire(&segment->members[i].word) & 3) ==
				     COSHM__MEMBER_ALIVE;
	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT; i++) {
		uint64_t state = coshm__entry_state_of(
			coshm__a64_load_acquire(&segment->entries[i].word)); /* [D2] */

		if (state == COSHM__ENTRY_FREE ||
		    (state == COSHM__ENTRY_REMOVED && coshm__object_open_count(segment, i) == 0))
			continue;
		info.object_count += state == COSHM__ENTRY_LIVE;
		info.used_bytes += coshm__a64_load_relaxed(&segment->entries[i].size_bytes);
	}
	*ret_info = info;
}

int coshm_segment_info(struct coshm_segment *token, struct coshm_segment_info *ret_info)
{
	struct coshm__op op;
	int error = coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT);

	if (error)
		return error;
	coshm__segment_describe(op.segment, ret_info);
	coshm__op_end(&op);
	return 0;
}
