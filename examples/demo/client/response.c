/* SPDX-License-Identifier: MIT */
#include "response.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/buffer.h>

#include "../common/names.h"

/* no server of this demo comes near it; without a bound, bytes that never end a line would pile up */
#define HEAD_SIZE_BYTES_MAX 16384

static const char *const ratelimit_names[] = {
	"RateLimit",	     "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining",
	"X-RateLimit-Reset",
};

enum { RATELIMIT_FIELDS_ALL = (1 << 5) - 1 };

void demo_response_begin(struct demo_response *response)
{
	*response = (struct demo_response){.worker_index = -1, .age_ms = -1};
}

static bool parse_number(const char *text, int base, uint64_t *ret_number)
{
	char *end;
	unsigned long long number;

	if (*text < '0' || (*text > '9' && base == 10))
		return false;
	errno = 0;
	number = strtoull(text, &end, base);
	if (errno || *end)
		return false;
	*ret_number = number;
	return true;
}

static bool parse_etag(const char *text, uint64_t *ret_version)
{
	char digits[17];

	if (strlen(text) != 18 || text[0] != '"' || text[17] != '"' ||
	    strspn(text + 1, "0123456789abcdef") != 16)
		return false;
	memcpy(digits, text + 1, 16);
	digits[16] = '\0';
	*ret_version = strtoull(digits, NULL, 16);
	return true;
}

static int parse_status(struct demo_response *response, const char *line)
{
	uint64_t status;
	char digits[4];

	if (strncmp(line, "HTTP/1.1 ", 9) != 0 || strlen(line) < 12)
		return -EBADMSG;
	memcpy(digits, line + 9, 3);
	digits[3] = '\0';
	if (!parse_number(digits, 10, &status) || status < 100)
		return -EBADMSG;
	response->status = (int)status;
	return 0;
}

static int parse_header(struct demo_response *response, const char *name, const char *value)
{
	uint64_t number = 0;
	bool is_number = parse_number(value, 10, &number);

	if (strcasecmp(name, "Content-Length") == 0) {
		if (!is_number)
			return -EBADMSG;
		response->has_length = true;
		response->size_bytes = number;
	} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
		return -EBADMSG; /* the server knows every length; chunks would be a surprise */
	} else if (strcasecmp(name, "Connection") == 0) {
		response->is_close = strcasecmp(value, "close") == 0;
	} else if (strcasecmp(name, "ETag") == 0) {
		response->has_etag = parse_etag(value, &response->version);
	} else if (strcasecmp(name, DEMO_HEADER_CACHE) == 0) {
		response->is_hit = strcasecmp(value, "HIT") == 0;
	} else if (strcasecmp(name, DEMO_HEADER_WORKER) == 0 && is_number && number < 1024) {
		response->worker_index = (int)number;
	} else if (strcasecmp(name, DEMO_HEADER_AGE_MS) == 0 && is_number) {
		response->age_ms = (int64_t)number;
	} else if (strcasecmp(name, "Retry-After") == 0 && is_number) {
		response->has_retry_after = true;
		response->retry_after_s = number;
	}
	for (size_t i = 0; i < sizeof(ratelimit_names) / sizeof(ratelimit_names[0]); i++)
		if (strcasecmp(name, ratelimit_names[i]) == 0)
			response->ratelimit_fields |= 1u << i;
	return 0;
}

static int parse_line(struct demo_response *response, char *line)
{
	char *value;

	if (response->status == 0)
		return parse_status(response, line);
	value = strchr(line, ':');
	if (!value)
		return -EBADMSG;
	*value++ = '\0';
	value += strspn(value, " \t");
	return parse_header(response, line, value);
}

static int end_head(struct demo_response *response)
{
	bool has_no_body = response->status == 304 || response->status == 204;

	response->has_head = true;
	response->has_ratelimit = response->ratelimit_fields == RATELIMIT_FIELDS_ALL;
	if (has_no_body)
		response->size_bytes = 0;
	else if (!response->has_length)
		return -EBADMSG;
	return 1;
}

int demo_response_read_head(struct demo_response *response, struct evbuffer *input)
{
	size_t length;
	char *line;
	int rc = 0;

	while (rc == 0) {
		line = evbuffer_readln(input, &length, EVBUFFER_EOL_CRLF_STRICT);
		if (!line)
			return evbuffer_get_length(input) > HEAD_SIZE_BYTES_MAX ? -EBADMSG : 0;
		if (length == 0)
			rc = response->status == 0 ? -EBADMSG : end_head(response);
		else
			rc = strlen(line) == length ? parse_line(response, line) : -EBADMSG;
		free(line);
	}
	return rc;
}
