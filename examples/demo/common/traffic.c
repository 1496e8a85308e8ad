/* SPDX-License-Identifier: MIT */
#include "traffic.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accesslog.h"
#include "names.h"
#include "random.h"

/* doubles at each power of two; arrays start empty */
static int grow(void *array_pointer, size_t count, size_t item_size_bytes)
{
	void **array = array_pointer;
	void *larger;

	if (count != 0 && (count < 64 || (count & (count - 1)) != 0))
		return 0;
	larger = reallocarray(*array, count == 0 ? 64 : count * 2, item_size_bytes);
	if (!larger)
		return -ENOMEM;
	*array = larger;
	return 0;
}

static const char *name_at(const struct demo_traffic *traffic, bool is_url, uint32_t index)
{
	return is_url ? traffic->urls[index].path : traffic->clients[index];
}

/* the slot that holds the name, or the empty one where it belongs */
static uint32_t *find_slot(const struct demo_traffic *traffic, bool is_url, const char *name)
{
	uint32_t *slots = is_url ? traffic->url_slots : traffic->client_slots;
	size_t i = (size_t)demo_hash(name, strlen(name));

	for (;; i++) {
		uint32_t *slot = &slots[i & (traffic->slot_count - 1)];

		if (*slot == 0 || strcmp(name_at(traffic, is_url, *slot - 1), name) == 0)
			return slot;
	}
}

static int rehash(struct demo_traffic *traffic)
{
	size_t count = traffic->slot_count ? traffic->slot_count * 2 : 1024;
	uint32_t *urls = calloc(count, sizeof(*urls));
	uint32_t *clients = calloc(count, sizeof(*clients));

	if (!urls || !clients) {
		free(urls);
		free(clients);
		return -ENOMEM;
	}
	free(traffic->url_slots);
	free(traffic->client_slots);
	traffic->url_slots = urls;
	traffic->client_slots = clients;
	traffic->slot_count = count;
	for (uint32_t i = 0; i < traffic->url_count; i++)
		*find_slot(traffic, true, traffic->urls[i].path) = i + 1;
	for (uint32_t i = 0; i < traffic->client_count; i++)
		*find_slot(traffic, false, traffic->clients[i]) = i + 1;
	return 0;
}

static int add_url(struct demo_traffic *traffic, const char *path, uint32_t *ret_index)
{
	uint32_t *slot = find_slot(traffic, true, path);
	char *copy;

	if (*slot == 0) {
		copy = strdup(path);
		if (!copy || grow(&traffic->urls, traffic->url_count, sizeof(*traffic->urls)) < 0) {
			free(copy);
			return -ENOMEM;
		}
		traffic->urls[traffic->url_count] = (struct demo_url){.path = copy};
		*slot = (uint32_t)++traffic->url_count;
	}
	*ret_index = *slot - 1;
	return 0;
}

static int add_client(struct demo_traffic *traffic, const char *client, uint32_t *ret_index)
{
	uint32_t *slot = find_slot(traffic, false, client);
	char *copy;

	if (*slot == 0) {
		copy = strdup(client);
		if (!copy ||
		    grow(&traffic->clients, traffic->client_count, sizeof(*traffic->clients)) < 0) {
			free(copy);
			return -ENOMEM;
		}
		traffic->clients[traffic->client_count] = copy;
		*slot = (uint32_t)++traffic->client_count;
	}
	*ret_index = *slot - 1;
	return 0;
}

int demo_traffic_add(struct demo_traffic *traffic, const char *client, const char *path,
		     uint64_t size_bytes)
{
	struct demo_request request = {0};
	struct demo_url *url;
	uint32_t size;
	int rc = 0;

	if (traffic->url_count + traffic->client_count >= traffic->slot_count / 2)
		rc = rehash(traffic);
	if (rc == 0)
		rc = add_url(traffic, path, &request.url_index);
	if (rc == 0)
		rc = add_client(traffic, client, &request.client_index);
	if (rc == 0)
		rc = grow(&traffic->requests, traffic->request_count, sizeof(*traffic->requests));
	if (rc < 0)
		return rc;
	traffic->requests[traffic->request_count++] = request;

	/* a page has one size: the largest that was ever sent for it (304 and 206 send less) */
	url = &traffic->urls[request.url_index];
	size = size_bytes < DEMO_PAGE_SIZE_BYTES_MAX ? (uint32_t)size_bytes
						     : DEMO_PAGE_SIZE_BYTES_MAX;
	if (size > url->size_bytes) {
		traffic->distinct_bytes += size - url->size_bytes;
		url->size_bytes = size;
	}
	return 0;
}

static int add_line(struct demo_traffic *traffic, const char *text)
{
	struct demo_log_line line;
	char path[DEMO_URL_SIZE_BYTES_MAX];
	char client[65];

	if (!demo_log_parse(text, &line)) {
		traffic->skipped_line_count++;
		return 0;
	}
	memcpy(path, line.path, line.path_size_bytes);
	path[line.path_size_bytes] = '\0';
	memcpy(client, line.client, line.client_size_bytes);
	client[line.client_size_bytes] = '\0';
	return demo_traffic_add(traffic, client, path, line.size_bytes);
}

int demo_traffic_load(struct demo_traffic *traffic, const char *log_path)
{
	FILE *file = fopen(log_path, "re");
	char *line = NULL;
	size_t line_capacity = 0;
	int rc = 0;

	*traffic = (struct demo_traffic){0};
	if (!file)
		return -errno;
	errno = 0;
	while (rc == 0 && getline(&line, &line_capacity, file) >= 0)
		rc = add_line(traffic, line);
	if (rc == 0 && ferror(file))
		rc = errno ? -errno : -EIO;
	if (rc == 0 && traffic->request_count == 0)
		rc = -ENODATA;
	free(line);
	fclose(file);
	if (rc < 0)
		demo_traffic_close(traffic);
	return rc;
}

int demo_traffic_open(struct demo_traffic *traffic, const char *log_path)
{
	return log_path ? demo_traffic_load(traffic, log_path) : demo_traffic_generate(traffic);
}

void demo_traffic_close(struct demo_traffic *traffic)
{
	for (size_t i = 0; i < traffic->url_count; i++)
		free(traffic->urls[i].path);
	for (size_t i = 0; i < traffic->client_count; i++)
		free(traffic->clients[i]);
	free(traffic->urls);
	free(traffic->clients);
	free(traffic->requests);
	free(traffic->url_slots);
	free(traffic->client_slots);
	*traffic = (struct demo_traffic){0};
}

const struct demo_url *demo_traffic_find_url(const struct demo_traffic *traffic, const char *path)
{
	uint32_t slot;

	if (traffic->slot_count == 0)
		return NULL;
	slot = *find_slot(traffic, true, path);
	return slot ? &traffic->urls[slot - 1] : NULL;
}
