/* SPDX-License-Identifier: MIT */
#include "store.h"

#include <stdio.h>
#include <string.h>

enum { STORES_MAX = 16 };

static struct {
	const struct store *store;
	struct store_shape shape;
} opened[STORES_MAX];

static int place_of(const struct store *store)
{
	for (int i = 0; i < STORES_MAX; i++)
		if (!opened[i].store || opened[i].store == store)
			return i;
	bench_fail("too many stores");
}

void store_value(char *value, size_t size_bytes, uint32_t number)
{
	memset(value, (int)number, size_bytes);
}

static void fill_by_set(const struct store *store, const struct store_shape *shape)
{
	char key[BENCH_KEY_BYTES], value[STORE_VALUE_MAX];

	store->enter();
	for (uint32_t i = 0; i < shape->key_count; i++) {
		if (store->resume && i % 64 == 0)
			store->resume();
		bench_make_key(key, i);
		store_value(value, shape->value_bytes, i);
		if (store->set(key, value) != 1)
			bench_fail(store->name);
		if (store->pause && (i % 64 == 63 || i + 1 == shape->key_count))
			store->pause();
	}
	store->leave();
}

void store_close(const struct store *store)
{
	int i = place_of(store);

	if (opened[i].store && opened[i].shape.key_count)
		store->close();
	memset(&opened[i].shape, 0, sizeof(opened[i].shape));
}

int store_prepare(const struct store *store, const struct store_shape *shape)
{
	int i = place_of(store);

	if (store->absent) {
		snprintf(bench_absent, sizeof(bench_absent), "%s", store->absent);
		return -1;
	}
	if (opened[i].store && !memcmp(&opened[i].shape, shape, sizeof(*shape)))
		return 0;
	store_close(store);
	opened[i].store = store;
	if (store->open(shape))
		return -1;
	memcpy(&opened[i].shape, shape, sizeof(*shape));
	if (store->fill)
		store->fill(shape);
	else
		fill_by_set(store, shape);
	return 0;
}
