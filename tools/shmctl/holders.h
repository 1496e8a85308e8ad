/* SPDX-License-Identifier: MIT */
/* holders.h - which stopped processes have a file open */
#ifndef SHMCTL_HOLDERS_H
#define SHMCTL_HOLDERS_H

#include <stddef.h>

/*
 * Writes "pid 12 (web), pid 13 (web)" for the first three, printable. Returns how many there are; processes that may
 * not be looked into are not among them.
 */
unsigned int holders_stopped(const char *path, char *text, size_t size_bytes);

#endif
