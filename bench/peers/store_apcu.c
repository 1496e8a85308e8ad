/* SPDX-License-Identifier: MIT */
/* APCu, from PHP. Its memory is that of one process and what it forks: the script forks as often as there are workers. */
#include "interpreter.h"

#include <stdio.h>

static struct interpreter php = {
	.note = "of a get in PHP, its loop and call, subtracted",
	.needs = "php-cli and php-apcu",
};

/* As many as fit, at 256 bytes beside the value: else its chains get long. */
static unsigned long long items(const struct store_shape *shape)
{
	return shape->evict_at_bytes ? shape->evict_at_bytes / (shape->value_bytes + 256)
				     : shape->key_count;
}

static int apcu_open(const struct store_shape *shape)
{
	uint64_t all_bytes = (uint64_t)shape->key_count * (shape->value_bytes + 512) + (16 << 20);
	uint64_t size_bytes = shape->evict_at_bytes ? shape->evict_at_bytes : all_bytes;
	char size[64], hint[64], value_bytes[32], procs[32];
	const char *arguments[] = {
		"php",
		"-n",
		"-d",
		"extension=apcu",
		"-d",
		size,
		"-d",
		hint,
		"-d",
		"apc.enable_cli=1",
		"-d",
		"memory_limit=-1",
		BENCH_PEERS "/apcu.php",
		BENCH_SERVER_SOCKET,
		php.files[INTERPRETER_KEYS],
		value_bytes,
		procs,
		NULL,
	};

	snprintf(size, sizeof(size), "apc.shm_size=%lluM", (unsigned long long)size_bytes >> 20);
	snprintf(hint, sizeof(hint), "apc.entries_hint=%llu", items(shape));
	snprintf(value_bytes, sizeof(value_bytes), "%zu", shape->value_bytes);
	snprintf(procs, sizeof(procs), "%d", INTERPRETER_PROCS);
	interpreter_prepare(&php, shape);
	return interpreter_start(&php, arguments);
}

static void apcu_fill(const struct store_shape *shape)
{
	interpreter_fill(&php, shape);
}

static void apcu_close(void)
{
	interpreter_stop(&php);
}

const struct store store_apcu = {
	.name = "APCu, from PHP",
	.lacks = "forks of one process only; hangs when a writer is killed; forgets all when full; "
		 "PHP's loop and call are subtracted",
	.evicts = 1,
	.interpreter = &php,
	.open = apcu_open,
	.fill = apcu_fill,
	.close = apcu_close,
};
