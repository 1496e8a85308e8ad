/* SPDX-License-Identifier: MIT */
#include "starved/stock.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#define DAY_NS UINT64_C(86400000000000)

int stock_open_for(struct stock *stock, const char *name, uint32_t segment_flags,
		   uint32_t member_count_max, uint32_t thread_count_max)
{
	const struct coshm_segment_config segment = {.size_bytes = 4 * MIB,
						     .size_max_bytes = 16 * MIB,
						     .flags = segment_flags,
						     .member_count_max = member_count_max,
						     .thread_count_max = thread_count_max};
	const struct coshm_cache_config cache = {.size_bytes = MIB};
	/* One token a day: what is taken stays taken. */
	const struct coshm_limiter_config limiter = {
		.rate = 1, .per_ns = DAY_NS, .burst = 8, .keys_max = 4096};
	/* A task may kill many workers, and need not wait in between. */
	const struct coshm_queue_config queue = {.capacity = 64 + member_count_max,
						 .payload_max_bytes = 1000,
						 .backoff_base_ns = 1,
						 .max_attempts = 1000000};

	*stock = (struct stock){0};
	GIVES(0, coshm_segment_create(name, &segment, COSHM_CREATE_OR_OPEN, &stock->segment));
	GIVES_AT_LAST(0, coshm_cache_create(stock->segment, "pages", &cache, COSHM_CREATE_OR_OPEN,
					    &stock->cache));
	GIVES_AT_LAST(0, coshm_limiter_create(stock->segment, "calls", &limiter,
					      COSHM_CREATE_OR_OPEN, &stock->limiter));
	GIVES_AT_LAST(0, coshm_queue_create(stock->segment, "mails", &queue, COSHM_CREATE_OR_OPEN,
					    &stock->queue));
	return 0;
}

int stock_open(struct stock *stock, const char *name, uint32_t segment_flags)
{
	return stock_open_for(stock, name, segment_flags, 0, 0);
}

int stock_close(struct stock *stock)
{
	struct coshm_segment *segment = stock->segment;

	*stock = (struct stock){0};
	GIVES(0, coshm_segment_detach(segment));
	return 0;
}

static int use_cache(struct coshm_cache *cache, unsigned int who)
{
	/* Several pages. */
	unsigned char large[100000], back[sizeof(large)];
	char key[32], text[32];
	size_t key_size = (size_t)snprintf(key, sizeof(key), "key-%u", who), size = sizeof(text);
	struct coshm_cache_view view;
	int64_t sum = 0;
	int there;

	memset(large, (int)(who & 0x7f) + 1, sizeof(large));
	GIVES_AT_LAST(0, coshm_cache_set(cache, key, key_size, key, key_size, 0));
	/* What others set may have driven it out. */
	there = coshm_cache_get(cache, key, key_size, text, &size, NULL);
	NEED(there == 0 || (there == 1 && size == key_size && !memcmp(text, key, size)));
	there = coshm_cache_pin(cache, key, key_size, &view);
	NEED(there >= 0);
	if (there) {
		NEED(view.size_bytes == key_size && !memcmp(view.data, key, key_size));
		GIVES(0, coshm_cache_unpin(cache, &view));
	}
	GIVES_AT_LAST(0, coshm_cache_set(cache, key, key_size, large, sizeof(large), 0));
	size = sizeof(back);
	there = coshm_cache_get(cache, key, key_size, back, &size, NULL);
	NEED(there == 0 || (there == 1 && size == sizeof(large) && !memcmp(large, back, size)));
	NEED(coshm_cache_delete(cache, key, key_size) >= 0);
	GIVES_AT_LAST(0, coshm_cache_incr(cache, "sum", 3, 1, 0, 0, &sum));
	NEED(sum > 0);
	return 0;
}

static int use_limiter(struct coshm_limiter *limiter, unsigned int who)
{
	struct coshm_limiter_result result;

	GIVES(1, coshm_limiter_try(limiter, &who, sizeof(who), 8, &result));
	NEED(result.remaining == 0);
	GIVES(0, coshm_limiter_try(limiter, &who, sizeof(who), 1, &result));
	NEED(result.retry_after_ns > DAY_NS / 2);
	GIVES(0, coshm_limiter_reset(limiter, &who, sizeof(who)));
	return 0;
}

static int use_queue(struct coshm_queue *queue, unsigned int who)
{
	unsigned char payload[700];
	struct coshm_task task;
	size_t size = sizeof(payload);

	memset(payload, (int)(who & 0x7f) + 1, sizeof(payload));
	GIVES(0, coshm_queue_enqueue(queue, payload, sizeof(payload), NULL, NULL));
	/* Somebody's, not always one's own. */
	GIVES(1, coshm_queue_reserve(queue, PROC_DEADLINE_NS, &task));
	GIVES(0, coshm_queue_payload(queue, &task, payload, &size));
	NEED(size && payload[0] && payload[0] == payload[size - 1]);
	GIVES(0, coshm_queue_ack(queue, &task));
	return 0;
}

int stock_use(struct stock *stock, unsigned int who)
{
	int line = use_cache(stock->cache, who);

	if (!line)
		line = use_limiter(stock->limiter, who);
	return line ? line : use_queue(stock->queue, who);
}

int stock_picture(struct stock *stock, struct stock_picture *ret_picture)
{
	struct coshm_segment_info info;
	struct stat status;

	memset(ret_picture, 0, sizeof(*ret_picture));
	GIVES(0, coshm_segment_info(stock->segment, &info));
	ret_picture->size_bytes = info.size_bytes;
	ret_picture->used_bytes = info.used_bytes;
	ret_picture->member_count = info.member_count;
	ret_picture->object_count = info.object_count;
	ret_picture->removed = info.removed;
	if (stat(info.path, &status) == 0) {
		ret_picture->file_size_bytes = (uint64_t)status.st_size;
		ret_picture->file_blocks = (uint64_t)status.st_blocks;
	}
	if (stock->cache)
		GIVES(0, coshm_cache_count(stock->cache, &ret_picture->entries));
	if (stock->queue)
		GIVES(0, coshm_queue_depth(stock->queue, &ret_picture->depth));
	return 0;
}

static void print_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level != COSHM_VERIFY_NOTE)
		fprintf(stderr, "# verify: %s: %s: %s\n",
			level == COSHM_VERIFY_DAMAGE ? "DAMAGE" : "pending", where, text);
}

int stock_verify(struct coshm_segment *segment, int pending_allowed)
{
	struct coshm_verify_result result;

	GIVES(0, coshm_inspect_verify(segment, NULL, print_finding, NULL, &result));
	NEED(result.damage == 0);
	NEED(pending_allowed || result.pending == 0);
	return 0;
}

int stock_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = -1; /* the folder's own */

	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return folder ? count - 2 : -1;
}

int stock_mappings(const char *name)
{
	FILE *file = fopen("/proc/self/maps", "r");
	char line[512];
	int count = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		count += strstr(line, name) != NULL;
	fclose(file);
	return count;
}

static char heard[16384];

static void hear(void *context, int level, const char *message)
{
	size_t used = strlen(heard);

	(void)context;
	(void)level;
	snprintf(heard + used, sizeof(heard) - used, "%s\n", message);
}

void hear_start(void)
{
	heard[0] = '\0';
	coshm_set_log(hear, NULL, COSHM_LOG_INFO);
}

const char *hear_text(void)
{
	return heard;
}
