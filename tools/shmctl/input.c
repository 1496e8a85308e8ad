/* SPDX-License-Identifier: MIT */
#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct buffer {
	char *data;
	size_t size_bytes;
	size_t capacity;
};

/* Returns 1 if there may be more, 0 at the end, or a negative errno. */
static int read_some(struct buffer *buffer, uint64_t size_bytes_max)
{
	size_t room = buffer->capacity - buffer->size_bytes;
	ssize_t got;

	if (buffer->size_bytes > size_bytes_max)
		return 0;
	if (!room) {
		char *larger = realloc(buffer->data, 2 * buffer->capacity + 65536);

		if (!larger)
			return -ENOMEM;
		buffer->data = larger;
		buffer->capacity = 2 * buffer->capacity + 65536;
		room = buffer->capacity - buffer->size_bytes;
	}
	if (room > size_bytes_max + 1 - buffer->size_bytes)
		room = size_bytes_max + 1 - buffer->size_bytes;
	got = read(STDIN_FILENO, buffer->data + buffer->size_bytes, room);
	if (got < 0)
		return errno == EINTR ? 1 : -errno;
	buffer->size_bytes += (size_t)got;
	return got > 0;
}

int input_operand(const char *operand, uint64_t size_bytes_max, void **ret_data,
		  size_t *ret_size_bytes)
{
	struct buffer buffer = {.data = NULL};
	int more = 1;

	if (strcmp(operand, "-") != 0) {
		buffer.data = strdup(operand);
		if (!buffer.data)
			return -ENOMEM;
		buffer.size_bytes = strlen(operand);
		more = 0;
	}
	while (more > 0)
		more = read_some(&buffer, size_bytes_max);
	if (more < 0) {
		free(buffer.data);
		return more;
	}
	*ret_data = buffer.data;
	*ret_size_bytes = buffer.size_bytes;
	return 0;
}
