/* SPDX-License-Identifier: MIT */
/* limit create, show, take. */
#include "attach.h"
#include "errors.h"
#include "output.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cmd_limit_create(const struct command *command, int argc, char **argv)
{
	struct coshm_limiter_config config = {.struct_size_bytes = sizeof(config)};
	const char *rate = NULL;
	const struct args_option options[] = {
		{"rate", "R", "tokens that come back: N/s, N/m or N/h", .required = true,
		 .text = &rate},
		{"burst", "B", "tokens at once", .required = true, .count = &config.burst},
		{"keys", "N", "keys in debt at once that there is memory for", .required = true,
		 .count = &config.keys_max},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct target target = args_object(&args, 0);
	struct attached attached;
	int status, error;

	if (units_parse_rate(rate, &config.rate, &config.per_ns))
		args_wrong(command, "--rate %s: wanted is N/s, N/m or N/h, such as 10/s", rate);
	if (!config.burst || !config.keys_max)
		args_wrong(command, "--burst and --keys start at 1");
	status = attach_open(&attached, target, attach_flags(&args), ATTACH_SEGMENT);
	if (status)
		return status;
	error = coshm_limiter_create(attached.segment, attached.target.object, &config, 0,
				     &attached.limiter);
	if (error == -ENOSPC)
		attach_advise_room(&attached);
	return attach_leave(&attached, &args, error, output_json_about(&attached.target));
}

const struct command command_limit_create = {
	.name = "limit create",
	.operands = "SEG/OBJ",
	.summary = "Make a rate limiter in a segment",
	.help = "Each key has a bucket of B tokens that fills up again at rate R. A key whose "
		"bucket is full needs\n"
		"no memory. If more than N keys are in debt, the one nearest to full is forgotten "
		"and starts full.\n",
	.examples = "  shmctl limit create shop/login --rate 10/m --burst 5 --keys 100000\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_limit_create,
};

static void put_result(json_t *document, const char *key, size_t key_size_bytes, int allowed,
		       const struct coshm_limiter_result *result)
{
	output_json_bytes(document, "key", key, key_size_bytes);
	json_object_set_new(document, "allowed", json_boolean(allowed));
	json_object_set_new(document, "limit", output_json_number(result->limit));
	json_object_set_new(document, "remaining", output_json_number(result->remaining));
	json_object_set_new(document, "retry_after_ns", output_json_number(result->retry_after_ns));
	json_object_set_new(document, "reset_after_ns", output_json_number(result->reset_after_ns));
}

static int cmd_limit_show(const struct command *command, int argc, char **argv)
{
	static const struct output_column columns[] = {
		{"KEY", OUTPUT_TRUNC},	   {"STATE", 0},	   {"REMAINING", OUTPUT_RIGHT},
		{"LIMIT", OUTPUT_RIGHT},   {"RATE", OUTPUT_RIGHT}, {"NEXT-IN", OUTPUT_RIGHT},
		{"FULL-IN", OUTPUT_RIGHT},
	};
	struct args args = args_parse(command, NULL, 0, argc, argv);
	struct coshm_limiter_config config = {.struct_size_bytes = sizeof(config)};
	struct coshm_limiter_result result;
	struct attached attached;
	const char *key = args.operands[1];
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_LIMITER);
	int allowed, error;

	if (status)
		return status;
	allowed = coshm_limiter_peek(attached.limiter, key, strlen(key), &result);
	error = allowed < 0 ? allowed : coshm_limiter_config(attached.limiter, &config);
	if (error) {
		status = errors_fail(attached.target.text, error);
	} else if (args.json) {
		json_t *document = output_json_about(&attached.target);

		put_result(document, key, strlen(key), allowed, &result);
		json_object_set_new(document, "rate", output_json_number(config.rate));
		json_object_set_new(document, "per_ns", output_json_number(config.per_ns));
		output_json(document);
	} else {
		struct libscols_table *table = output_table(&args, columns, OUTPUT_COUNT(columns));
		struct libscols_line *line = output_line(table, NULL);

		output_cell(line, 0, "%s", key);
		output_cell(line, 1, "%s", allowed ? "open" : "denied");
		output_cell(line, 2, "%" PRIu64, result.remaining);
		output_cell(line, 3, "%" PRIu64, result.limit);
		output_cell(line, 4, "%s", units_rate(config.rate, config.per_ns).text);
		output_cell(line, 5, "%s", units_duration(result.retry_after_ns).text);
		output_cell(line, 6, "%s", units_duration(result.reset_after_ns).text);
		if (!allowed)
			output_alarm(line, 1);
		output_table_end(table, "");
	}
	attach_close(&attached);
	return status;
}

const struct command command_limit_show = {
	.name = "limit show",
	.operands = "SEG/OBJ KEY",
	.summary = "Show a key's bucket without taking from it",
	.help = "NEXT-IN: when a token is there again; FULL-IN: when all are.\n",
	.examples = "  shmctl limit show shop/login 203.0.113.9\n",
	.flags = COMMAND_TABLE | COMMAND_JSON,
	.run = cmd_limit_show,
};

struct taken {
	uint64_t allowed;
	uint64_t denied;
};

/* One key per line. An empty line is no key and is passed over. */
static int take_lines(struct coshm_limiter *limiter, uint64_t cost, struct taken *taken)
{
	size_t capacity = 0;
	char *line = NULL;
	ssize_t length;
	int result = 0;

	while (result >= 0 && (length = getline(&line, &capacity, stdin)) > 0) {
		if (line[length - 1] == '\n')
			length--;
		if (!length)
			continue;
		result = coshm_limiter_try(limiter, line, (size_t)length, cost, NULL);
		taken->allowed += result == 1;
		taken->denied += result == 0;
	}
	free(line);
	if (result >= 0 && ferror(stdin))
		return -EIO;
	return result < 0 ? result : 0;
}

/* Of an error of coshm_limiter_try. */
static void advise(int error)
{
	if (error == -E2BIG)
		errors_advise("take fewer at once, or create the limiter with a larger --burst");
}

static int take_many(const struct args *args, struct attached *attached, uint64_t cost)
{
	struct taken taken = {.allowed = 0};
	int error = take_lines(attached->limiter, cost, &taken);

	attach_close(attached);
	/* What was taken before an error is taken; say so in any case. */
	if (args->json)
		output_json(json_pack("{s:o, s:o}", "allowed", output_json_number(taken.allowed),
				      "denied", output_json_number(taken.denied)));
	else
		printf("allowed %" PRIu64 ", denied %" PRIu64 "\n", taken.allowed, taken.denied);
	advise(error);
	if (error)
		return errors_fail(attached->target.text, error);
	return taken.denied ? STATUS_NO : STATUS_OK;
}

static int take_one(const struct args *args, struct attached *attached, const char *key,
		    uint64_t cost)
{
	struct coshm_limiter_result result;
	json_t *document = output_json_about(&attached->target);
	int allowed = coshm_limiter_try(attached->limiter, key, strlen(key), cost, &result);

	attach_close(attached);
	if (allowed < 0) {
		json_decref(document);
		advise(allowed);
		return errors_fail(attached->target.text, allowed);
	}
	put_result(document, key, strlen(key), allowed, &result);
	if (args->json)
		output_json(json_incref(document));
	else if (allowed)
		printf("allowed, %" PRIu64 " of %" PRIu64 " left\n", result.remaining,
		       result.limit);
	else
		printf("denied, %" PRIu64 " of %" PRIu64 " left, again in %s\n", result.remaining,
		       result.limit, units_duration(result.retry_after_ns).text);
	json_decref(document);
	return allowed ? STATUS_OK : STATUS_NO;
}

static int cmd_limit_take(const struct command *command, int argc, char **argv)
{
	uint64_t cost = 1;
	const struct args_option options[] = {
		{"cost", "COST", "tokens to take (default: 1; 0 only looks)", .letter = 'n',
		 .count = &cost},
	};
	struct args args = args_parse(command, options, OUTPUT_COUNT(options), argc, argv);
	struct attached attached;
	const char *key = args.operands[1];
	int status =
		attach_open(&attached, args_object(&args, 0), attach_flags(&args), ATTACH_LIMITER);

	if (status)
		return status;
	if (!strcmp(key, "-"))
		return take_many(&args, &attached, cost);
	return take_one(&args, &attached, key, cost);
}

const struct command command_limit_take = {
	.name = "limit take",
	.operands = "SEG/OBJ KEY",
	.summary = "May this key do it now? Takes the tokens if so",
	.help = "Exit code 0 if allowed, 7 if denied: made for if and && in scripts. KEY - takes "
		"one key per line\n"
		"of standard input, prints \"allowed N, denied N\" and exits with 7 if any was "
		"denied.\n",
	.examples = "  shmctl limit take shop/login 203.0.113.9 && echo welcome\n"
		    "  shmctl limit take shop/export alice -n 10 --json\n"
		    "  cut -d' ' -f1 access.log | shmctl limit take shop/login -\n",
	.flags = COMMAND_ACTS | COMMAND_JSON,
	.run = cmd_limit_take,
};
