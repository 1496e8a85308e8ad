/* SPDX-License-Identifier: MIT */
/* What the kernel has: a pipe, a POSIX message queue, and the least that a wake-up costs. */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t payload_bytes;

static void enter(int procs)
{
	(void)procs;
}

static void leave(void)
{
}

/* --- pipe: messages of up to PIPE_BUF are whole; longer ones are, with one writer and one reader --- */

static int ends[2];

static int pipe_open(size_t size_bytes)
{
	payload_bytes = size_bytes;
	return pipe2(ends, O_CLOEXEC);
}

static void pipe_close(void)
{
	close(ends[0]);
	close(ends[1]);
}

static void pipe_put(const void *payload)
{
	for (size_t done = 0; done < payload_bytes;) {
		ssize_t some = write(ends[1], (const char *)payload + done, payload_bytes - done);

		if (some < 0)
			bench_fail("write to a pipe");
		done += (size_t)some;
	}
}

static void pipe_get(void *payload)
{
	for (size_t done = 0; done < payload_bytes;) {
		ssize_t some = read(ends[0], (char *)payload + done, payload_bytes - done);

		if (some <= 0)
			bench_fail("read from a pipe");
		done += (size_t)some;
	}
}

const struct channel channel_pipe = {
	.name = "pipe",
	.lacks = "no acknowledgement: what a killed reader took is lost",
	.payload_max_bytes = CHANNEL_PAYLOAD_MAX,
	.sleeps = 1,
	.slowness = 4,
	.open = pipe_open,
	.close = pipe_close,
	.enter = enter,
	.leave = leave,
	.put = pipe_put,
	.get = pipe_get,
};

/* --- POSIX message queue --- */

static mqd_t mq;

static int posix_open(size_t size_bytes)
{
	struct mq_attr wanted = {.mq_maxmsg = (long)channel_capacity(size_bytes),
				 .mq_msgsize = (long)size_bytes};
	char name[64];

	payload_bytes = size_bytes;
	snprintf(name, sizeof(name), "/coshm-bench-%d", (int)getpid());
	mq = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &wanted);
	if (mq == (mqd_t)-1) {
		wanted.mq_maxmsg = 10;
		mq = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &wanted);
	}
	if (mq == (mqd_t)-1) {
		snprintf(bench_absent, sizeof(bench_absent), "mq_open: %s", strerror(errno));
		return -1;
	}
	mq_unlink(name);
	return 0;
}

static void posix_close(void)
{
	mq_close(mq);
}

static void posix_put(const void *payload)
{
	if (mq_send(mq, payload, payload_bytes, 0))
		bench_fail("mq_send");
}

static void posix_get(void *payload)
{
	if (mq_receive(mq, payload, payload_bytes, NULL) < 0)
		bench_fail("mq_receive");
}

const struct channel channel_mq = {
	.name = "POSIX mq",
	.lacks = "no acknowledgement; 10 messages deep for users without privileges",
	.payload_max_bytes = CHANNEL_PAYLOAD_MAX,
	.sleeps = 1,
	.slowness = 8,
	.open = posix_open,
	.close = posix_close,
	.enter = enter,
	.leave = leave,
	.put = posix_put,
	.get = posix_get,
};

/* --- a store and a futex, one message at a time --- */

struct bell {
	_Atomic uint32_t rung;
	unsigned char payload[64];
};

static struct bell *bell;
static uint32_t heard;

static int bell_open(size_t size_bytes)
{
	payload_bytes = size_bytes;
	bell = bench_shared(sizeof(*bell));
	return 0;
}

static void bell_close(void)
{
	munmap(bell, sizeof(*bell));
}

static void bell_enter(int procs)
{
	(void)procs;
	heard = atomic_load(&bell->rung);
}

static void bell_put(const void *payload)
{
	memcpy(bell->payload, payload, payload_bytes);
	atomic_fetch_add(&bell->rung, 1);
	syscall(SYS_futex, &bell->rung, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void bell_get(void *payload)
{
	while (atomic_load(&bell->rung) == heard)
		syscall(SYS_futex, &bell->rung, FUTEX_WAIT, heard, NULL, NULL, 0);
	heard++;
	memcpy(payload, bell->payload, payload_bytes);
}

const struct channel channel_bell = {
	.name = "store + futex (the limit)",
	.lacks = "one message, not a queue",
	.payload_max_bytes = 64,
	.one_each = 1,
	.sleeps = 1,
	.slowness = 1,
	.open = bell_open,
	.close = bell_close,
	.enter = bell_enter,
	.leave = leave,
	.put = bell_put,
	.get = bell_get,
};
