/* SPDX-License-Identifier: MIT */
/* segments.h - the segments that lie in /dev/shm */
#ifndef SHMCTL_SEGMENTS_H
#define SHMCTL_SEGMENTS_H

#include <coshm/segment.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#define SEGMENTS_FOLDER "/dev/shm"

struct found_segment {
	char name[NAME_MAX + 1];
	struct stat file;
	int error; /* why it could not be attached, 0 if it could */
	struct coshm_segment_info info;
	unsigned int dead_members;
};

struct found_segments {
	struct found_segment *segments; /* by name */
	size_t count;
};

/*
 * Looks at every file of the folder. Files of other programs are left out; a segment that cannot be attached (and a file
 * that may be one, but is not ours to read) is in the list with its error. Returns 0 or a negative errno.
 */
int segments_find(struct found_segments *ret_found);
/* Does the file start as a segment does, whatever became of the rest? */
bool segments_has_magic(const char *path);
void segments_free(struct found_segments *found);

#endif
