/* SPDX-License-Identifier: MIT */
#include "support/shmfs.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

const char *shmfs_lacks_root(void)
{
	return geteuid() == 0 ? NULL : "needs root";
}

static int try_in_child(int (*attempt)(void))
{
	int status = -1;
	const pid_t pid = fork();

	if (pid == 0)
		_exit(attempt());
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0;
}

static int try_pid_namespace(void)
{
	int status = -1;
	pid_t pid;

	if (unshare(CLONE_NEWPID))
		return 1;
	pid = fork();
	if (pid == 0)
		_exit(getpid() != 1);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status != 0;
}

static int try_mount_namespace(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 1;
	return mount("shmfs-probe", "/dev/shm", "tmpfs", 0, "size=65536") != 0;
}

static int try_time_namespace(void)
{
	return unshare(CLONE_NEWTIME) != 0;
}

static int try_membarrier(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0))
		return 1;
	return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0;
}

const char *shmfs_lacks_pid_namespaces(void)
{
	return try_in_child(try_pid_namespace) ? NULL : "may not make a PID namespace (needs root)";
}

const char *shmfs_lacks_mount_namespaces(void)
{
	return try_in_child(try_mount_namespace)
		       ? NULL
		       : "may not mount in a private namespace (needs root)";
}

const char *shmfs_lacks_time_namespaces(void)
{
	return try_in_child(try_time_namespace) ? NULL
						: "may not make a time namespace (needs root)";
}

const char *shmfs_lacks_membarrier(void)
{
	return try_in_child(try_membarrier) ? NULL : "no membarrier(GLOBAL_EXPEDITED) here";
}

const char *shmfs_lacks_space(uint64_t size_bytes)
{
	static char text[96];
	struct statvfs fs;

	if (statvfs("/dev/shm", &fs))
		return "no /dev/shm here";
	if ((uint64_t)fs.f_bavail * fs.f_frsize >= size_bytes)
		return NULL;
	snprintf(text, sizeof(text), "needs %llu MiB free on /dev/shm",
		 (unsigned long long)(size_bytes >> 20));
	return text;
}
