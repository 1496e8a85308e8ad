/* SPDX-License-Identifier: MIT */
/* The file behind a segment: finding it, judging it, locking its init byte, giving it memory. */
#include "base/log.h"
#include "base/procfs.h"
#include "segment/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define ALLOCATE_CHUNK_BYTES (UINT64_C(16) << 20)
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

static int name_is_sound(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > 200 || !strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)name[i] <= ' ' || name[i] == 127)
			return 0;
	return 1;
}

/* Absolute, so that a fork child finds it after a chdir. */
int coshm__path_of(const char *name, char path[256])
{
	char *resolved, folder[256];
	const char *slash;
	int length;

	if (!name)
		return -EINVAL;
	slash = strrchr(name, '/');
	if (!slash) {
		if (!name_is_sound(name))
			return coshm__fail(-EINVAL,
					   "\"%s\" is no name for a segment: up to 200 "
					   "printable characters, or a path",
					   name);
		snprintf(path, 256, "/dev/shm/%s", name);
		return 0;
	}
	if (strlen(name) >= sizeof(folder) || !name_is_sound(slash + 1))
		return coshm__fail(-EINVAL, "\"%s\" is no path for a segment", name);
	snprintf(folder, sizeof(folder), "%.*s", slash == name ? 1 : (int)(slash - name), name);
	resolved = realpath(folder, NULL);
	if (!resolved)
		return coshm__fail(-errno, "%s: %s", folder, strerror(errno));
	length = snprintf(path, 256, "%s/%s", strcmp(resolved, "/") ? resolved : "", slash + 1);
	free(resolved);
	return length < 256 ? 0 : -ENAMETOOLONG;
}

/* File systems on which memory that was allocated stays writable. Copy-on-write ones (btrfs) may run full on any store. */
static int judge_file_system(const char *path, int fd)
{
	struct statfs status;

	if (fstatfs(fd, &status))
		return -errno;
	switch ((unsigned long)status.f_type) {
	case TMPFS_MAGIC:
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
		return 0;
	}
	return coshm__fail(-EMEDIUMTYPE, "%s: file system type 0x%lx cannot carry a segment", path,
			   (unsigned long)status.f_type);
}

static int judge_owner(const char *path, const struct stat *status, uint32_t attach_flags)
{
	if (status->st_mode & S_IWOTH)
		return coshm__fail(-EBADFD, "%s is writable by everyone: chmod o-w it", path);
	if (status->st_uid == 0 || status->st_uid == geteuid() ||
	    (attach_flags & COSHM_ATTACH_ANY_OWNER))
		return 0;
	return coshm__fail(-EPERM, "%s belongs to uid %u: neither root nor this user", path,
			   (unsigned int)status->st_uid);
}

int coshm__file_judge_owner(int fd, const char *path, uint32_t attach_flags)
{
	struct stat status;

	return fstat(fd, &status) ? -errno : judge_owner(path, &status, attach_flags);
}

int coshm__file_open(const char *path, int open_flags, uint32_t attach_flags, int *ret_fd)
{
	struct stat status;
	int error,
		fd = open(path, open_flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);

	if (fd < 0) {
		error = -errno;
		/* EDQUOT itself stands for a full segment. */
		if (error == -ENOSPC || error == -EDQUOT)
			return coshm__fail(
				-ENOSPC,
				"%s: no room for one more file: remove some, or give the "
				"file system more inodes (df -i, mount -o nr_inodes=)",
				path);
		/* A folder, a socket: what fstat says of those that can be opened. */
		if (error == -EISDIR || error == -ENXIO)
			return coshm__fail(-EUCLEAN, "%s is not a regular file", path);
		if (error != -ENOENT && error != -EEXIST)
			coshm__fail(error, "%s: %s", path, strerror(-error));
		return error;
	}
	if (fstat(fd, &status))
		error = -errno;
	else if (!S_ISREG(status.st_mode))
		error = coshm__fail(-EUCLEAN, "%s is not a regular file", path);
	else
		error = judge_file_system(path, fd);
	if (!error)
		error = judge_owner(path, &status, attach_flags);
	if (!error) {
		*ret_fd = fd;
		return 0;
	}
	if (open_flags & O_CREAT)
		unlink(path);
	close(fd);
	return error;
}

/*
 * Creators take turns by this lock. It dies with its holder, so a half-made segment is simply made again. Polled
 * rather than slept on: a stopped creator must not stop others for ever.
 */
int coshm__file_lock_init(int fd, const char *path, uint64_t timeout_ns)
{
	struct flock range = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)COSHM__LOCK_BYTE_INIT,
		.l_len = 1,
	};
	const struct timespec pause = {.tv_nsec = (long)COSHM__NS_PER_MS};
	uint64_t deadline_ns = coshm__clock_read(CLOCK_MONOTONIC) + timeout_ns;

	while (fcntl(fd, F_OFD_SETLK, &range)) {
		if (errno != EAGAIN && errno != EACCES)
			return coshm__fail(-errno, "%s: locking it: %s", path, strerror(errno));
		if (coshm__clock_read(CLOCK_MONOTONIC) >= deadline_ns)
			return coshm__fail(
				-ETIMEDOUT, "%s: another process has been creating it for %llu s",
				path, (unsigned long long)(timeout_ns / COSHM__NS_PER_S));
		nanosleep(&pause, NULL);
	}
	return 0;
}

int coshm__file_no_space(const char *path, uint64_t wanted_bytes, int error)
{
	if (error == -EFBIG)
		return coshm__fail(error,
				   "%s: no file may have %llu bytes more: raise RLIMIT_FSIZE "
				   "(ulimit -f), if the file system can",
				   path, (unsigned long long)wanted_bytes);
	/* The second: of the user on this file system. EDQUOT itself stands for a full segment. */
	if (error == -ENOSPC || error == -EDQUOT)
		return coshm__fail(
			-ENOSPC,
			"%s: no room for %llu bytes: free some, ask for less, or enlarge the "
			"file system (docker run --shm-size, emptyDir sizeLimit, "
			"mount -o remount,size=)",
			path, (unsigned long long)wanted_bytes);
	return coshm__fail(error, "%s: allocating %llu bytes: %s", path,
			   (unsigned long long)wanted_bytes, strerror(-error));
}

int coshm__file_limit_check(uint64_t end_bytes)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	    end_bytes > limit.rlim_cur)
		return -EFBIG;
	return 0;
}

int coshm__file_write(int fd, const void *bytes, size_t size, uint64_t offset)
{
	ssize_t wrote;
	int error = coshm__file_limit_check(offset + size);

	if (error)
		return error;
	do
		wrote = pwrite(fd, bytes, size, (off_t)offset);
	while (wrote < 0 && errno == EINTR);
	if (wrote == (ssize_t)size)
		return 0;
	return wrote < 0 ? -errno : -ENOSPC;
}

/* In chunks: older kernels undo a whole call when a signal comes. */
int coshm__file_allocate(int fd, uint64_t from_bytes, uint64_t to_bytes)
{
	if (coshm__file_limit_check(to_bytes))
		return -EFBIG;
	while (from_bytes < to_bytes) {
		uint64_t chunk = to_bytes - from_bytes;
		int error;

		if (chunk > ALLOCATE_CHUNK_BYTES)
			chunk = ALLOCATE_CHUNK_BYTES;
		error = posix_fallocate(fd, (off_t)from_bytes, (off_t)chunk);
		if (error == EINTR)
			continue;
		if (error)
			return -error;
		from_bytes += chunk;
	}
	return 0;
}

int coshm__boot_id(uint8_t ret_boot_id[16])
{
	char text[64];
	unsigned int byte, count = 0;
	int length = coshm__procfs_read("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	if (length < 0 && length != -ENOENT)
		return length;
	memset(ret_boot_id, 0, 16);
	for (int i = 0; i + 1 < length && count < 16; i++) {
		if (text[i] == '-')
			continue;
		if (sscanf(text + i, "%2x", &byte) != 1)
			break;
		ret_boot_id[count++] = (uint8_t)byte;
		i++;
	}
	return count == 16 ? 0 : -ENOENT;
}
