/* SPDX-License-Identifier: MIT */
#include "segments.h"

#include "errors.h"
#include "output.h"
#include "sigbus.h"

#include <coshm/inspect.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int count_dead(void *context, const struct coshm_member_info *info)
{
	unsigned int *dead = context;

	*dead += info->state == COSHM_MEMBER_DEAD;
	return 0;
}

static void look_at(struct found_segment *found)
{
	struct coshm_segment *segment;

	sigbus_expect(found->name, true);
	found->error = coshm_segment_attach(
		found->name, COSHM_ATTACH_READ_ONLY | COSHM_ATTACH_ANY_OWNER, &segment);
	if (found->error)
		return;
	found->error = coshm_segment_info(segment, &found->info);
	if (coshm_inspect_members(segment, count_dead, &found->dead_members) < 0)
		found->dead_members = 0;
	coshm_segment_detach(segment);
	if (sigbus_met())
		found->error = -EUCLEAN;
}

bool segments_has_magic(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char start[64] = "";
	bool found;

	if (fd < 0)
		return false;
	found = read(fd, start, sizeof(start)) == (ssize_t)sizeof(start) &&
		memmem(start, 8, "coshm", 5);
	close(fd);
	return found;
}

/* Semaphores, other programs' memory, what vanished since the folder was read. */
static bool is_foreign(const struct found_segment *found)
{
	char path[sizeof(SEGMENTS_FOLDER) + NAME_MAX + 1];

	if (!strncmp(found->name, "sem.", 4))
		return true;
	if (!found->error || found->error == -EACCES || found->error == -EPROTONOSUPPORT)
		return false;
	/* Refused before it was looked into (everyone may write to it), cut off, never finished: or no segment at all. */
	snprintf(path, sizeof(path), SEGMENTS_FOLDER "/%s", found->name);
	return !segments_has_magic(path);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct found_segment *)a)->name,
		      ((const struct found_segment *)b)->name);
}

int segments_find(struct found_segments *ret_found)
{
	struct found_segments list = {.segments = NULL};
	const struct dirent *entry;
	DIR *folder = opendir(SEGMENTS_FOLDER);

	if (!folder)
		return -errno;
	while ((entry = readdir(folder))) {
		struct found_segment found = {.error = 0};

		snprintf(found.name, sizeof(found.name), "%s", entry->d_name);
		if (fstatat(dirfd(folder), entry->d_name, &found.file, AT_SYMLINK_NOFOLLOW) != 0 ||
		    !S_ISREG(found.file.st_mode))
			continue;
		look_at(&found);
		if (is_foreign(&found))
			continue;
		list.segments = reallocarray(list.segments, list.count + 1, sizeof(found));
		if (!list.segments)
			output_no_memory();
		list.segments[list.count++] = found;
	}
	closedir(folder);
	errors_forget();
	if (list.count)
		qsort(list.segments, list.count, sizeof(*list.segments), by_name);
	*ret_found = list;
	return 0;
}

void segments_free(struct found_segments *found)
{
	free(found->segments);
	found->segments = NULL;
	found->count = 0;
}
