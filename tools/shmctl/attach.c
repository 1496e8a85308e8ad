/* SPDX-License-Identifier: MIT */
#include "attach.h"

#include "errors.h"
#include "output.h"
#include "sigbus.h"
#include "units.h"

#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

uint32_t attach_flags(const struct args *args)
{
	if (!(args->command->flags & COMMAND_ACTS))
		return COSHM_ATTACH_READ_ONLY | COSHM_ATTACH_ANY_OWNER;
	return args->any_owner ? COSHM_ATTACH_ANY_OWNER : 0;
}

const char *attach_path(const char *segment)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s%s", strchr(segment, '/') ? "" : "/dev/shm/", segment);
	return path;
}

static int open_object(struct attached *attached, enum attach_what what)
{
	const char *name = attached->target.object;

	switch (what) {
	case ATTACH_CACHE:
		return coshm_cache_open(attached->segment, name, &attached->cache);
	case ATTACH_LIMITER:
		return coshm_limiter_open(attached->segment, name, &attached->limiter);
	case ATTACH_QUEUE:
		return coshm_queue_open(attached->segment, name, &attached->queue);
	case ATTACH_SEGMENT:
		break;
	}
	return 0;
}

int attach_open(struct attached *ret_attached, struct target target, uint32_t flags,
		enum attach_what what)
{
	static const char *const types[] = {"object", "cache", "limiter", "queue"};
	struct attached attached = {.target = target};
	int status = STATUS_OK;
	int error;

	sigbus_expect(target.segment, flags & COSHM_ATTACH_READ_ONLY);
	error = coshm_segment_attach(target.segment, flags, &attached.segment);
	if (error) {
		status = errors_fail_segment(&target, error);
	} else {
		error = open_object(&attached, what);
		if (error)
			status = errors_fail_object(&target, types[what], error, attached.segment);
	}
	if (status)
		attach_close(&attached);
	else
		*ret_attached = attached;
	return status;
}

void attach_close(struct attached *attached)
{
	/* Detaching closes the object's handle as well. */
	if (attached->segment)
		coshm_segment_detach(attached->segment);
	attached->segment = NULL;
	attached->cache = NULL;
	attached->limiter = NULL;
	attached->queue = NULL;
	target_free(&attached->target);
}

void attach_advise_room(const struct attached *attached)
{
	struct coshm_segment_info info;
	struct statvfs file_system;

	if (coshm_segment_info(attached->segment, &info))
		return;
	if (statvfs(info.path, &file_system) == 0 &&
	    (uint64_t)file_system.f_bavail * file_system.f_frsize <
		    info.size_max_bytes - info.size_bytes)
		errors_advise("its file system is full, though the segment may grow to %s: see df "
			      "-h %s; make room there, or enlarge it",
			      units_size(info.size_max_bytes).text, info.path);
	else
		errors_advise("the segment has %s of at most %s in use: remove an object, or "
			      "create the segment anew with a larger --max-size",
			      units_size(info.used_bytes).text,
			      units_size(info.size_max_bytes).text);
}

int attach_leave(struct attached *attached, const struct args *args, int error, json_t *document)
{
	attach_close(attached);
	if (error || !args->json)
		json_decref(document);
	if (error)
		return errors_fail(attached->target.text, error);
	return args->json ? output_json(document) : STATUS_OK;
}
