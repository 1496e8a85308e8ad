/* SPDX-License-Identifier: MIT */
#include "serverfile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int path_in(char **ret_path, const char *run_dir, const char *name)
{
	return asprintf(ret_path, "%s/%s", run_dir, name) < 0 ? -ENOMEM : 0;
}

static int write_lines(const struct demo_server *server, const char *path)
{
	FILE *file = fopen(path, "we");
	bool failed;

	if (!file)
		return -errno;
	fprintf(file, "pid %" PRIu32 "\nport %" PRIu16 "\nweb_workers %" PRIu32 "\n", server->pid,
		server->port, server->web_workers);
	fprintf(file, "rate_per_s %" PRIu32 "\nburst %" PRIu32 "\nkill_every_ms %" PRIu32 "\n",
		server->rate_per_s, server->burst, server->kill_every_ms);
	fprintf(file, "segment %s\nlog %s\n", server->segment, server->log_path);
	failed = ferror(file) != 0;
	return fclose(file) != 0 || failed ? -EIO : 0;
}

int demo_server_write(const struct demo_server *server, const char *run_dir)
{
	char *path = NULL;
	char *temporary = NULL;
	int rc = path_in(&path, run_dir, "server");

	if (rc == 0)
		rc = path_in(&temporary, run_dir, "server.new");
	if (rc == 0)
		rc = write_lines(server, temporary);
	if (rc == 0 && rename(temporary, path) != 0)
		rc = -errno;
	free(path);
	free(temporary);
	return rc;
}

/* an unknown key is no error: a newer server may say more */
static bool take_line(struct demo_server *server, const char *key, const char *value)
{
	const struct {
		const char *key;
		uint32_t *number;
	} numbers[] = {
		{"pid", &server->pid},
		{"web_workers", &server->web_workers},
		{"rate_per_s", &server->rate_per_s},
		{"burst", &server->burst},
		{"kill_every_ms", &server->kill_every_ms},
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (strcmp(key, numbers[i].key) == 0)
			return sscanf(value, "%" SCNu32, numbers[i].number) == 1;
	if (strcmp(key, "port") == 0)
		return sscanf(value, "%" SCNu16, &server->port) == 1;
	if (strcmp(key, "segment") == 0)
		return snprintf(server->segment, sizeof(server->segment), "%s", value) <
		       (int)sizeof(server->segment);
	if (strcmp(key, "log") == 0)
		return snprintf(server->log_path, sizeof(server->log_path), "%s", value) <
		       (int)sizeof(server->log_path);
	return true;
}

int demo_server_read(struct demo_server *ret_server, const char *run_dir)
{
	struct demo_server server = {0};
	char *path = NULL;
	char *line = NULL;
	size_t capacity = 0;
	FILE *file;
	int rc = path_in(&path, run_dir, "server");

	if (rc < 0)
		return rc;
	file = fopen(path, "re");
	rc = file ? 0 : -errno;
	free(path);
	while (rc == 0 && getline(&line, &capacity, file) >= 0) {
		char *value = strchr(line, ' ');

		line[strcspn(line, "\n")] = '\0';
		if (!value) {
			rc = -EBADMSG;
			break;
		}
		*value++ = '\0';
		rc = take_line(&server, line, value) ? 0 : -EBADMSG;
	}
	free(line);
	if (file)
		fclose(file);
	if (rc == 0 && (server.port == 0 || server.pid == 0))
		rc = -EBADMSG;
	if (rc == 0)
		*ret_server = server;
	return rc;
}
