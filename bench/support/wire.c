/* SPDX-License-Identifier: MIT */
#include "wire.h"

#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return address;
}

/* Takes the descriptor. */
static struct bench_wire *wire_of(int fd)
{
	struct bench_wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		bench_fail("calloc");
	wire->fd = fd;
	return wire;
}

struct bench_wire *bench_wire_open(const char *path)
{
	struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && !connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return wire_of(fd);
	if (fd >= 0)
		close(fd);
	return NULL;
}

int bench_wire_listen(const char *path)
{
	struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) ||
	    listen(fd, BENCH_WORKERS_MAX))
		bench_fail("listen");
	return fd;
}

struct bench_wire *bench_wire_accept(int listener)
{
	struct pollfd caller = {.fd = listener, .events = POLLIN};
	int fd = -1;

	if (poll(&caller, 1, 60000) == 1)
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return fd < 0 ? NULL : wire_of(fd);
}

void bench_wire_close(struct bench_wire *wire)
{
	if (!wire)
		return;
	close(wire->fd);
	free(wire);
}

static void flush(struct bench_wire *wire)
{
	for (size_t sent = 0; sent < wire->out_size;) {
		ssize_t some =
			send(wire->fd, wire->out + sent, wire->out_size - sent, MSG_NOSIGNAL);

		if (some < 0 && errno != EINTR)
			bench_fail("send to a server");
		sent += some > 0 ? (size_t)some : 0;
	}
	wire->out_size = 0;
}

void bench_wire_put(struct bench_wire *wire, const void *bytes, size_t size_bytes)
{
	if (wire->out_size + size_bytes > sizeof(wire->out))
		flush(wire);
	if (size_bytes > sizeof(wire->out))
		bench_fail("message too large");
	memcpy(wire->out + wire->out_size, bytes, size_bytes);
	wire->out_size += size_bytes;
}

void bench_wire_print(struct bench_wire *wire, const char *format, ...)
{
	char text[256];
	va_list arguments;
	int size;

	va_start(arguments, format);
	size = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (size < 0 || (size_t)size >= sizeof(text))
		bench_fail("line too long");
	bench_wire_put(wire, text, (size_t)size);
}

static void receive(struct bench_wire *wire)
{
	ssize_t some;

	flush(wire);
	if (wire->in_at > 0) {
		memmove(wire->in, wire->in + wire->in_at, wire->in_end - wire->in_at);
		wire->in_end -= wire->in_at;
		wire->in_at = 0;
	}
	if (wire->in_end == sizeof(wire->in))
		bench_fail("answer too large");
	do
		some = recv(wire->fd, wire->in + wire->in_end, sizeof(wire->in) - wire->in_end, 0);
	while (some < 0 && errno == EINTR);
	if (some <= 0)
		bench_fail("answer of a server");
	wire->in_end += (size_t)some;
}

const char *bench_wire_line(struct bench_wire *wire)
{
	for (size_t seen = 0;;) {
		size_t have = wire->in_end - wire->in_at;
		char *start = wire->in + wire->in_at;
		char *end = have > seen ? memchr(start + seen, '\n', have - seen) : NULL;

		if (end) {
			wire->in_at += (size_t)(end - start) + 1;
			if (end > start && end[-1] == '\r')
				end--;
			*end = 0;
			return start;
		}
		seen = have;
		receive(wire);
	}
}

const char *bench_wire_bytes(struct bench_wire *wire, size_t size_bytes)
{
	const char *start;

	while (wire->in_end - wire->in_at < size_bytes + 2)
		receive(wire);
	start = wire->in + wire->in_at;
	wire->in_at += size_bytes + 2;
	return start;
}
