/* SPDX-License-Identifier: MIT */
/* From /proc: the kernel does not tell who holds a lock that belongs to an open file. */
#include "holders.h"

#include "output.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOWN_MAX 3

/* "12 (a name) T 1 ...". The name may hold blanks and parentheses, so the state is behind the last one. */
static bool is_stopped(const char *pid, char name[32])
{
	char path[64], text[512] = "";
	const char *open_mark, *close_mark;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	open_mark = strchr(text, '(');
	close_mark = strrchr(text, ')');
	if (length <= 0 || !open_mark || !close_mark || close_mark < open_mark || !close_mark[1])
		return false;
	snprintf(name, 32, "%.*s", (int)(close_mark - open_mark - 1), open_mark + 1);
	/* T: by a signal; t: by a debugger */
	return close_mark[2] == 'T' || close_mark[2] == 't';
}

static bool has_open(const char *pid, const struct stat *file)
{
	const struct dirent *entry;
	char path[64];
	bool found = false;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	folder = opendir(path);
	while (folder && !found && (entry = readdir(folder))) {
		struct stat other;

		found = fstatat(dirfd(folder), entry->d_name, &other, 0) == 0 &&
			other.st_ino == file->st_ino && other.st_dev == file->st_dev;
	}
	if (folder)
		closedir(folder);
	return found;
}

unsigned int holders_stopped(const char *path, char *text, size_t size_bytes)
{
	DIR *folder = opendir("/proc");
	const struct dirent *entry;
	unsigned int count = 0;
	size_t length = 0;
	struct stat file;

	text[0] = '\0';
	while (folder && stat(path, &file) == 0 && (entry = readdir(folder))) {
		char name[32], *printable;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
		    !is_stopped(entry->d_name, name) || !has_open(entry->d_name, &file))
			continue;
		if (count++ >= SHOWN_MAX || length >= size_bytes)
			continue;
		printable = output_escape(name, strlen(name), 0);
		length += (size_t)snprintf(text + length, size_bytes - length, "%spid %.20s (%s)",
					   length ? ", " : "", entry->d_name, printable);
		free(printable);
	}
	if (folder)
		closedir(folder);
	return count;
}
