/* SPDX-License-Identifier: MIT */
/*
 * target.h - what a command is about: a segment, or an object in one
 *
 *   SEG        a name: /dev/shm/SEG           SEG/OBJ
 *   PATH       starts with '/' or '.'         PATH:OBJ, at the last ':'
 */
#ifndef SHMCTL_TARGET_H
#define SHMCTL_TARGET_H

struct target {
	const char *text; /* as it was written; borrowed */
	char *segment;
	char *object; /* NULL: the segment itself */
};

/* Returns 0; -EINVAL: an empty part, or more than one '/' in a name; -ENOMEM */
int target_parse(const char *text, struct target *ret_target);

/* Frees the parts; the text stays. */
void target_free(struct target *target);

#endif
