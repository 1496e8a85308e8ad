/* SPDX-License-Identifier: MIT */
/*
 * The textbook's cache: room for three, the least recently used one goes.
 *
 *	cc lru-capacity-3.c $(pkg-config --cflags --libs coshm) && ./a.out
 */
#include <coshm/coshm.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, coshm_strerror(result));
		exit(1);
	}
}

static void put(struct coshm_cache *cache, int number)
{
	check(coshm_cache_set(cache, &number, sizeof(number), &number, sizeof(number), 0), "put");
	printf("put %d\n", number);
}

static int get(struct coshm_cache *cache, int number)
{
	int value = 0;
	size_t size = sizeof(value);
	int found = coshm_cache_get(cache, &number, sizeof(number), &value, &size, NULL);

	check(found, "get");
	printf("get %d -> %s\n", number, found ? "there" : "gone");
	return found;
}

int main(void)
{
	struct coshm_segment_config memory = {.size_bytes = 2 << 20};
	struct coshm_cache_config three = {.size_bytes = 1 << 20,
					   .policy = COSHM_CACHE_LRU,
					   .lanes = 1, /* one lane: the order is exact */
					   .max_entries = 3};
	struct coshm_segment *segment;
	struct coshm_cache *cache;
	char name[32];
	int right;

	snprintf(name, sizeof(name), "lru-capacity-3-%d", (int)getpid());
	check(coshm_segment_create(name, &memory, 0, &segment), "create segment");
	check(coshm_cache_create(segment, "three", &three, 0, &cache), "create cache");

	put(cache, 1);
	put(cache, 2);
	put(cache, 3);
	right = get(cache, 1);
	put(cache, 4); /* pushes out 2: 1 was used after it */
	right &= !get(cache, 2) && get(cache, 1) && get(cache, 3) && get(cache, 4);

	check(coshm_segment_detach(segment), "detach");
	check(coshm_segment_unlink(name), "unlink");
	return right ? 0 : 1;
}
