/* SPDX-License-Identifier: MIT */
#include "accesslog.h"

#include <string.h>

#include "names.h"

/* visible ASCII only: a path with anything else would not be the same bytes after HTTP */
static bool sendable(const char *bytes, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++)
		if (bytes[i] <= ' ' || bytes[i] > '~' || bytes[i] == '"' || bytes[i] == '\\')
			return false;
	return true;
}

static bool parse_path(const char *request, const char *end, struct demo_log_line *line)
{
	const char *path = memchr(request, ' ', (size_t)(end - request));
	const char *path_end;

	if (!path)
		return false;
	path++;
	path_end = memchr(path, ' ', (size_t)(end - path));
	if (!path_end)
		path_end = end; /* HTTP/0.9 */
	line->path = path;
	line->path_size_bytes = (size_t)(path_end - path);
	return *path == '/' && line->path_size_bytes < DEMO_URL_SIZE_BYTES_MAX &&
	       sendable(path, line->path_size_bytes);
}

/* the closing quote of the request: the first one that no backslash escapes */
static const char *closing_quote(const char *p)
{
	for (; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p : NULL;
}

static bool parse_size(const char *p, uint64_t *ret_size_bytes)
{
	uint64_t size = 0;

	while (*p == ' ')
		p++;
	while (*p >= '0' && *p <= '9') /* the status */
		p++;
	if (*p++ != ' ')
		return false;
	if (*p == '-') {
		*ret_size_bytes = 0;
		return true;
	}
	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if (size < UINT64_MAX / 16)
			size = size * 10 + (uint64_t)(*p - '0');
	*ret_size_bytes = size;
	return true;
}

bool demo_log_parse(const char *line, struct demo_log_line *ret_line)
{
	struct demo_log_line parsed = {.client = line};
	const char *space = strchr(line, ' ');
	const char *quote = strchr(line, '"');
	const char *end;

	if (!space || !quote || space == line || space > quote)
		return false;
	parsed.client_size_bytes = (size_t)(space - line);
	end = closing_quote(quote + 1);
	if (!end || parsed.client_size_bytes > 64 || !sendable(line, parsed.client_size_bytes) ||
	    !parse_path(quote + 1, end, &parsed) || !parse_size(end + 1, &parsed.size_bytes))
		return false;
	*ret_line = parsed;
	return true;
}
