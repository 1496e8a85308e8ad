/* SPDX-License-Identifier: MIT */
/* cache create, ls, get, set, del. */
#include "attach.h"
#include "errors.h"
#include "input.h"
#include "output.h"
#include "summary.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREVIEW_COLUMNS 60
#define SCAN_BUDGET	4096 /* index buckets per call: so that a limit is noticed soon */
#define KEY_BYTES_MAX	65535

static int cmd_cache_create(const struct command *command, int argc, char **argv)
{
	struct coshm_cache_config config = {.struct_size_bytes = sizeof(config)};
	const char *policy = NULL;
	uint64_t lanes = 0;
	const struct args_option options[] = {
		{"size", "S", "memory for everything: items, index, tables; at least 256K",
		 .required = true, .size_bytes = &config.size_bytes},
		{"policy", "P", "what goes when it is full: s3fifo (default), lru or none",
		 .text = &policy},
		{"max-entries", "N", "lru only: at most this many entries",
		 .not_zero = "leave it out for no limit", .count = &config.max_entries},
		{"lanes", "N", "writers that append side by side (default: by CPUs and size)",
		 .not_zero = "leave it out for the default", .count = &lanes},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct target target = args_object(&args, 0);
	struct attached attached;
	int status, error;

	if (policy && summary_policy_parse(policy, &config.policy))
		args_wrong(command, "--policy %s: there are s3fifo, lru and none", policy);
	if (config.max_entries && config.policy != COSHM_CACHE_LRU)
		args_wrong(command, "--max-entries is for --policy lru only");
	if (lanes > UINT32_MAX)
		args_wrong(command, "--lanes %" PRIu64 ": too many", lanes);
	config.lanes = (uint32_t)lanes;

	status = attach_open(&attached, target, attach_flags(&args), ATTACH_SEGMENT);
	if (status)
		return status;
	error = coshm_cache_create(attached.segment, attached.target.object, &config, 0,
				   &attached.cache);
	if (error == -ENOSPC)
		attach_advise_room(&attached);
	return attach_leave(&attached, &args, error, output_json_about(&attached.target));
}

const struct command command_cache_create = {
	.name = "cache create",
	.operands = "SEG/OBJ",
	.summary = "Make a cache in a segment",
	.help = "s3fifo keeps what is asked for again and suits skewed web loads; lru drops the "
		"least recently used,\n"
		"exactly so with --lanes 1; none drops nothing, and a set that does not fit "
		"fails.\n",
	.examples = "  shmctl cache create shop/pages --size 32M\n"
		    "  shmctl cache create shop/recent --size 1M --policy lru \\\n"
		    "      --max-entries 1000 --lanes 1\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_cache_create,
};

struct item_listing {
	struct libscols_table *table; /* or */
	json_t *array;
	bool show_values;
	uint64_t limit; /* 0: none */
	uint64_t shown;
};

static void add_item_json(json_t *array, const void *key, size_t key_size_bytes, const void *value,
			  const struct coshm_cache_item *item, bool show_values)
{
	json_t *object = json_object();

	output_json_bytes(object, "key", key, key_size_bytes);
	json_object_set_new(object, "value_size_bytes", output_json_number(item->value_size_bytes));
	json_object_set_new(object, "ttl_ns", output_json_ns(item->ttl_ns));
	json_object_set_new(object, "number", json_boolean(item->number));
	if (show_values && value)
		output_json_bytes(object, "value", value, item->value_size_bytes);
	json_array_append_new(array, object);
}

static int add_item(void *context, const void *key, size_t key_size_bytes, const void *value,
		    const struct coshm_cache_item *item)
{
	struct item_listing *listing = context;
	struct libscols_line *line;

	if (listing->limit && listing->shown == listing->limit)
		return 1;
	listing->shown++;
	if (listing->array) {
		add_item_json(listing->array, key, key_size_bytes, value, item,
			      listing->show_values);
		return 0;
	}
	line = output_line(listing->table, NULL);
	output_cell_bytes(line, 0, key, key_size_bytes, 0);
	output_cell(line, 1, "%s", units_size(item->value_size_bytes).text);
	output_cell(line, 2, "%s",
		    item->ttl_ns == COSHM_FOREVER ? "-" : units_duration(item->ttl_ns).text);
	if (listing->show_values && value)
		output_cell_bytes(line, 3, value, item->value_size_bytes, PREVIEW_COLUMNS);
	return 0;
}

/* Returns 1 if there was more than the limit, 0 at the end, or a negative errno. */
static int walk(struct coshm_cache *cache, struct item_listing *listing)
{
	uint64_t cursor = 0;
	int error;

	do {
		error = coshm_cache_scan(cache, &cursor, SCAN_BUDGET,
					 listing->show_values ? COSHM_CACHE_SCAN_VALUES : 0,
					 add_item, listing);
	} while (!error && cursor);
	return error;
}

static int cmd_cache_ls(const struct command *command, int argc, char **argv)
{
	static const struct output_column columns[] = {
		{"KEY", OUTPUT_TRUNC},
		{"SIZE", OUTPUT_RIGHT},
		{"TTL", OUTPUT_RIGHT},
		{"VALUE", OUTPUT_TRUNC},
	};
	struct item_listing listing = {.limit = 1000};
	const struct args_option options[] = {
		{"limit", "N", "at most this many (default: 1000; 0: all)",
		 .count = &listing.limit},
		{"show-values", NULL, "print values, too: they may be secrets of others",
		 .flag = &listing.show_values},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct attached attached;
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_CACHE);
	int more;

	if (status)
		return status;
	if (args.json)
		listing.array = json_array();
	else
		listing.table =
			output_table(&args, columns, OUTPUT_COUNT(columns) - !listing.show_values);
	more = walk(attached.cache, &listing);
	if (more < 0) {
		status = errors_fail(attached.target.text, more);
	} else if (args.json) {
		json_t *document = output_json_about(&attached.target);

		json_object_set(document, "items", listing.array);
		json_object_set_new(document, "truncated", json_boolean(more));
		output_json(document);
	}
	if (listing.table)
		output_table_end(listing.table, "no items");
	if (more > 0 && !args.json)
		fprintf(stderr, "shmctl: only the first %" PRIu64 "; for all: --limit 0\n",
			listing.limit);
	json_decref(listing.array);
	attach_close(&attached);
	return status;
}

const struct command command_cache_ls = {
	.name = "cache ls",
	.operands = "SEG/OBJ",
	.summary = "List the items of a cache",
	.help = "In no particular order, and without touching what the cache knows of their use. "
		"An item that\n"
		"moves meanwhile may be listed twice. Values are hidden unless asked for.\n",
	.examples = "  shmctl cache ls shop/pages\n"
		    "  shmctl cache ls shop/pages --limit 0 --json | jq '.items | length'\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_cache_ls,
};

struct value {
	void *data;
	size_t size_bytes;
	struct coshm_cache_item item;
};

/* As coshm_cache_get, into memory of its own. A peek tells the size first, so that the get counts once. */
static int fetch(struct coshm_cache *cache, const char *key, bool peek, struct value *value)
{
	size_t capacity = 0;
	int result = coshm_cache_peek(cache, key, strlen(key), NULL, &capacity, NULL);

	for (int tries = 0; tries < 8; tries++) {
		if (result < 0 && result != -ENOBUFS)
			return result;
		free(value->data);
		value->size_bytes = capacity;
		value->data = malloc(capacity + 1);
		if (!value->data)
			return -ENOMEM;
		result = (peek ? coshm_cache_peek : coshm_cache_get)(
			cache, key, strlen(key), value->data, &value->size_bytes, &value->item);
		if (result != -ENOBUFS)
			return result;
		capacity = value->size_bytes;
	}
	return -EAGAIN;
}

static void print_value_json(json_t *document, int hit, const struct value *value)
{
	char version[17];

	json_object_set_new(document, "hit", json_boolean(hit));
	if (hit) {
		snprintf(version, sizeof(version), "%" PRIx64, value->item.version);
		output_json_bytes(document, "value", value->data, value->size_bytes);
		json_object_set_new(document, "value_size_bytes",
				    output_json_number(value->size_bytes));
		json_object_set_new(document, "ttl_ns", output_json_ns(value->item.ttl_ns));
		json_object_set_new(document, "number", json_boolean(value->item.number));
		json_object_set_new(document, "version", json_string(version));
	}
	output_json(document);
}

static const char *key_operand(const struct command *command, const struct args *args)
{
	const char *key = args->operands[1];

	if (!*key || strlen(key) > KEY_BYTES_MAX)
		args_wrong(command, "KEY has %zu bytes; it has 1 to %d", strlen(key),
			   KEY_BYTES_MAX);
	return key;
}

static int cmd_cache_get(const struct command *command, int argc, char **argv)
{
	bool peek = false;
	const struct args_option options[] = {
		{"peek", NULL,
		 "do not count it, do not tell the policy; needs read permission only",
		 .flag = &peek},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct value value = {.data = NULL};
	struct attached attached;
	const char *key = key_operand(command, &args);
	uint32_t flags =
		peek ? COSHM_ATTACH_READ_ONLY | COSHM_ATTACH_ANY_OWNER : attach_flags(&args);
	json_t *document;
	int status = attach_open(&attached, args_object(&args, 0), flags, ATTACH_CACHE);
	int hit;

	if (status)
		return status;
	hit = fetch(attached.cache, key, peek, &value);
	document = output_json_about(&attached.target);
	output_json_bytes(document, "key", key, strlen(key));
	attach_close(&attached);
	if (hit < 0)
		status = errors_fail(attached.target.text, hit);
	else if (args.json)
		print_value_json(json_incref(document), hit, &value);
	else if (hit)
		output_raw(value.data, value.size_bytes);
	if (hit == 0) {
		status = STATUS_NO;
		output_remark("shmctl: %s: no such key", attached.target.text);
	}
	json_decref(document);
	free(value.data);
	return status;
}

const struct command command_cache_get = {
	.name = "cache get",
	.operands = "SEG/OBJ KEY",
	.summary = "Write a value to standard output, byte for byte",
	.help = "Nothing is added, no newline either. It counts as a hit or miss like any other "
		"get and tells the\n"
		"policy that the item is in use, unless --peek is given. Exit code 7 if the key is "
		"not there.\n",
	.examples = "  shmctl cache get shop/pages /index.html\n"
		    "  shmctl cache get shop/pages /logo.png > logo.png\n"
		    "  shmctl cache get --peek shop/pages /index.html\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_cache_get,
};

static int cmd_cache_set(const struct command *command, int argc, char **argv)
{
	uint64_t ttl_ns = COSHM_FOREVER;
	const struct args_option options[] = {
		{"ttl", "D", "time to live, such as 5m (default: for ever)",
		 .not_zero = "leave it out for ever", .for_ns = &ttl_ns},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct coshm_cache_config config = {.struct_size_bytes = sizeof(config)};
	struct attached attached;
	const char *key = key_operand(command, &args);
	size_t size_bytes = 0;
	void *data = NULL;
	json_t *document;
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_CACHE);
	int error;

	if (status)
		return status;
	error = coshm_cache_config(attached.cache, &config);
	if (!error)
		error = input_operand(args.operands[2], config.size_bytes, &data, &size_bytes);
	if (!error)
		error = coshm_cache_set(attached.cache, key, strlen(key), data, size_bytes, ttl_ns);
	if (error == -E2BIG)
		errors_advise("key and value take an eighth of the cache at most, here %s: create "
			      "the cache with a larger --size",
			      units_size(config.size_bytes / 8).text);
	if (error == -ENOSPC && config.policy == COSHM_CACHE_NONE)
		errors_advise("with --policy none nothing is pushed out: delete keys (shmctl cache "
			      "del), or create the cache with a larger --size or another policy");
	document = output_json_about(&attached.target);
	output_json_bytes(document, "key", key, strlen(key));
	json_object_set_new(document, "value_size_bytes", output_json_number(size_bytes));
	free(data);
	return attach_leave(&attached, &args, error, document);
}

const struct command command_cache_set = {
	.name = "cache set",
	.operands = "SEG/OBJ KEY VALUE",
	.summary = "Store a value",
	.help = "VALUE - reads standard input. A VALUE that starts with another '-' goes behind "
		"--.\n",
	.examples = "  shmctl cache set shop/pages greeting hello --ttl 5m\n"
		    "  curl -s http://localhost/ | shmctl cache set shop/pages / -\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_cache_set,
};

static int cmd_cache_del(const struct command *command, int argc, char **argv)
{
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct attached attached;
	const char *key = key_operand(command, &args);
	json_t *document;
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_CACHE);
	int deleted;

	if (status)
		return status;
	deleted = coshm_cache_delete(attached.cache, key, strlen(key));
	document = output_json_about(&attached.target);
	output_json_bytes(document, "key", key, strlen(key));
	json_object_set_new(document, "deleted", json_boolean(deleted > 0));
	status = attach_leave(&attached, &args, deleted < 0 ? deleted : 0, document);
	if (deleted)
		return status;
	output_remark("shmctl: %s: no such key", attached.target.text);
	return STATUS_NO;
}

const struct command command_cache_del = {
	.name = "cache del",
	.operands = "SEG/OBJ KEY",
	.summary = "Delete a value",
	.help = "Exit code 7 if the key was not there.\n",
	.examples = "  shmctl cache del shop/pages /index.html\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_cache_del,
};
