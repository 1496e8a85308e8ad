/* SPDX-License-Identifier: MIT */
/*
 * tests/support/shmfs.h - what this machine lets a test do
 *
 * Each question answers NULL if the thing is there, else a text that says what is missing.  A
 * test that needs it starts with TEST_NEEDS(shmfs_lacks_root()) and is then skipped with that
 * text as the reason.  Never needed for the promises themselves, only for a test's stage.
 */
#ifndef TESTS_SUPPORT_SHMFS_H
#define TESTS_SUPPORT_SHMFS_H

#include <stdint.h>

const char *shmfs_lacks_root(void);

/* unshare(CLONE_NEWPID), and a process in it. */
const char *shmfs_lacks_pid_namespaces(void);

/* unshare(CLONE_NEWNS), and mounting a tmpfs in it. */
const char *shmfs_lacks_mount_namespaces(void);

/* unshare(CLONE_NEWTIME), Linux 5.6. */
const char *shmfs_lacks_time_namespaces(void);

/* MEMBARRIER_CMD_GLOBAL_EXPEDITED and its registration. */
const char *shmfs_lacks_membarrier(void);

/* @size_bytes free on /dev/shm. */
const char *shmfs_lacks_space(uint64_t size_bytes);

/* Prints the reason where tests/support/run-tap picks it up.  Parent only, like skip(). */
#define TEST_NEEDS(lacks)                                      \
	do {                                                   \
		const char *lacks_ = (lacks);                  \
		if (lacks_) {                                  \
			print_message("# skip: %s\n", lacks_); \
			skip();                                \
		}                                              \
	} while (0)

#endif
