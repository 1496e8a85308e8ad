/* SPDX-License-Identifier: MIT */
#include "ledger.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

#define EVENT_MAGIC   0x31474c44u /* "DLG1" */
#define LEDGER_SUFFIX ".ledger"

const char *const demo_holding_names[DEMO_HOLDING_COUNT] = {
	[DEMO_HOLDING_LEASE] = "lease",	    [DEMO_HOLDING_LANE] = "lane",
	[DEMO_HOLDING_PAGE] = "page",	    [DEMO_HOLDING_RLOCK] = "rlock",
	[DEMO_HOLDING_NOTHING] = "nothing",
};

int demo_ledger_open(struct demo_ledger *ledger, const char *run_dir, uint64_t worker)
{
	char *path;
	int fd;

	if (asprintf(&path, "%s/%020" PRIu64 LEDGER_SUFFIX, run_dir, worker) < 0)
		return -ENOMEM;
	/* O_EXCL: a second writer of the same file would be a bug in the numbering */
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = -errno;
	free(path);
	if (fd < 0)
		return fd;
	*ledger = (struct demo_ledger){.fd = fd, .worker = worker};
	return 0;
}

void demo_ledger_close(struct demo_ledger *ledger)
{
	if (ledger->fd >= 0)
		close(ledger->fd);
	ledger->fd = -1;
}

int demo_ledger_append(const struct demo_ledger *ledger, enum demo_event_kind kind,
		       uint64_t subject, const uint64_t value[3])
{
	struct demo_event event = {
		.magic = EVENT_MAGIC,
		.kind = (uint32_t)kind,
		.at_ns = demo_now_ns(),
		.worker = ledger->worker,
		.subject = subject,
	};
	ssize_t n;

	if (ledger->fd < 0)
		return 0;
	if (value)
		memcpy(event.value, value, sizeof(event.value));
	n = write(ledger->fd, &event, sizeof(event));
	if (n < 0)
		return -errno;
	return n == sizeof(event) ? 0 : -ENOSPC;
}

int demo_ledger_reader_open(struct demo_ledger_reader *reader, const char *run_dir)
{
	*reader = (struct demo_ledger_reader){.run_dir = strdup(run_dir)};
	return reader->run_dir ? 0 : -ENOMEM;
}

void demo_ledger_reader_close(struct demo_ledger_reader *reader)
{
	for (size_t i = 0; i < reader->file_count; i++)
		free(reader->files[i].path);
	free(reader->files);
	free(reader->run_dir);
	*reader = (struct demo_ledger_reader){0};
}

static bool is_known(const struct demo_ledger_reader *reader, const char *path)
{
	for (size_t i = 0; i < reader->file_count; i++)
		if (strcmp(reader->files[i].path, path) == 0)
			return true;
	return false;
}

static int add_file(struct demo_ledger_reader *reader, const char *name)
{
	struct demo_ledger_file *files;
	char *path;

	if (asprintf(&path, "%s/%s", reader->run_dir, name) < 0)
		return -ENOMEM;
	if (is_known(reader, path)) {
		free(path);
		return 0;
	}
	files = reallocarray(reader->files, reader->file_count + 1, sizeof(*files));
	if (!files) {
		free(path);
		return -ENOMEM;
	}
	reader->files = files;
	files[reader->file_count++] = (struct demo_ledger_file){.path = path};
	return 0;
}

static int find_files(struct demo_ledger_reader *reader)
{
	DIR *dir = opendir(reader->run_dir);
	struct dirent *entry;
	int rc = 0;

	if (!dir)
		return -errno;
	while (rc == 0 && (entry = readdir(dir))) {
		size_t length = strlen(entry->d_name);
		size_t suffix = strlen(LEDGER_SUFFIX);

		if (length > suffix && strcmp(entry->d_name + length - suffix, LEDGER_SUFFIX) == 0)
			rc = add_file(reader, entry->d_name);
	}
	closedir(dir);
	return rc;
}

static int read_file(struct demo_ledger_file *file,
		     void (*on_event)(void *user, const struct demo_event *event), void *user)
{
	struct demo_event events[256];
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	int rc = 0;

	if (fd < 0)
		return -errno;
	while (rc == 0 && (n = pread(fd, events, sizeof(events), (off_t)file->offset)) > 0) {
		size_t count = (size_t)n / sizeof(events[0]);

		if ((size_t)n % sizeof(events[0]) != 0)
			rc = -EBADMSG;
		for (size_t i = 0; rc == 0 && i < count; i++) {
			if (events[i].magic == EVENT_MAGIC)
				on_event(user, &events[i]);
			else
				rc = -EBADMSG;
		}
		file->offset += (uint64_t)n;
	}
	close(fd);
	return rc;
}

int demo_ledger_read(struct demo_ledger_reader *reader,
		     void (*on_event)(void *user, const struct demo_event *event), void *user)
{
	int rc = find_files(reader);

	for (size_t i = 0; rc == 0 && i < reader->file_count; i++)
		rc = read_file(&reader->files[i], on_event, user);
	return rc;
}
