/* SPDX-License-Identifier: MIT */
/* A program with the whole library in it, built by musl-gcc: what musl_test.c does with it. One thread only. */
#include "starved/stock.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int works(const char *name)
{
	struct stock stock;

	NEED(stock_open(&stock, name, 0) == 0);
	for (int i = 0; i < 200; i++)
		NEED(stock_use(&stock, (unsigned int)getpid()) == 0);
	NEED(stock_verify(stock.segment, 1) == 0);
	return stock_close(&stock);
}

/* With a task, and while it writes. */
static int works_until_killed(const char *name)
{
	struct coshm_task task;
	struct stock stock;

	NEED(stock_open(&stock, name, 0) == 0);
	GIVES(1, coshm_queue_reserve(stock.queue, PROC_DEADLINE_NS, &task));
	for (;;)
		NEED(stock_use(&stock, (unsigned int)getpid()) == 0);
}

/* What a member of the other kind has left. */
static int reads(const char *name)
{
	struct coshm_limiter_result result;
	struct coshm_task task;
	struct stock stock;
	char text[64];
	size_t size = sizeof(text);

	NEED(stock_open(&stock, name, 0) == 0);
	GIVES(1, coshm_cache_get(stock.cache, "from", 4, text, &size, NULL));
	NEED(size == 5 && !memcmp(text, "glibc", 5));
	GIVES(0, coshm_cache_set(stock.cache, "from", 4, "musl", 4, 0));
	GIVES(0, coshm_limiter_try(stock.limiter, "spent", 5, 1, &result));
	GIVES(1, coshm_queue_reserve(stock.queue, 0, &task));
	size = sizeof(text);
	GIVES(0, coshm_queue_payload(stock.queue, &task, text, &size));
	NEED(size == 5 && !memcmp(text, "glibc", 5));
	GIVES(0, coshm_queue_ack(stock.queue, &task));
	GIVES(0, coshm_queue_enqueue(stock.queue, "musl", 4, NULL, NULL));
	return stock_close(&stock);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 1;
	return !strcmp(argv[1], "works")		? works(argv[2])
	       : !strcmp(argv[1], "works-until-killed") ? works_until_killed(argv[2])
	       : !strcmp(argv[1], "reads")		? reads(argv[2])
							: 1;
}
