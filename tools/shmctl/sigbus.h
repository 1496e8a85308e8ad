/* SPDX-License-Identifier: MIT */
/*
 * sigbus.h - a segment's file that is cut while it is mapped
 *
 * The kernel then sends SIGBUS to whoever touches what is gone. Verbs that look go on with zeros in its place, which is
 * damage as any other; what was cut is said at the end. A verb that acts must not go on as if others saw what it stores.
 */
#ifndef SHMCTL_SIGBUS_H
#define SHMCTL_SIGBUS_H

#include <stdbool.h>

void sigbus_start(void);

/* From here on the segment @name is touched. @looks: it is mapped read-only */
void sigbus_expect(const char *name, bool looks);

/* Has anything been missing since sigbus_expect? The caller tells: sigbus_finish will not. */
bool sigbus_met(void);

/* At the end: complains if anything was missing. @status, or STATUS_DAMAGE */
int sigbus_finish(int status);

#endif
