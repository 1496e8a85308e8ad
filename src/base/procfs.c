/* SPDX-License-Identifier: MIT */
#include "base/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int coshm__procfs_read(const char *path, char *text, size_t size_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : -ENOENT;
	do
		length = read(fd, text, size_bytes - 1);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		length = errno == ENOMEM ? -ENOMEM : -ENOENT;
	else
		text[length] = '\0';
	close(fd);
	return (int)length;
}
