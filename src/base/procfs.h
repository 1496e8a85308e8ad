/* SPDX-License-Identifier: MIT */
/* base/procfs.h - short files of /proc, which may not be mounted */
#ifndef COSHM__BASE_PROCFS_H
#define COSHM__BASE_PROCFS_H

#include <stddef.h>

/*
 * Reads a file into @text and ends it with a zero byte. Returns its length; -ENOENT: this machine, or this mount namespace,
 * has none, and that will stay so; -EMFILE, -ENFILE, -ENOMEM: it may well be there.
 */
int coshm__procfs_read(const char *path, char *text, size_t size_bytes);

#endif
