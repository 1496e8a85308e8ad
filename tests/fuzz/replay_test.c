/* SPDX-License-Identifier: MIT */
/*
 * The targets of the fuzzers without the fuzzers: inputs that were kept, and some made up anew from a seed.
 *
 *   replay_test                       the test
 *   replay_test TARGET FILE...        these inputs only, in this process: for a debugger
 *
 * COSHM_FUZZ_COUNT   made-up inputs per target (200)
 * COSHM_TEST_SEED    what they are made of (1)
 */
#include "fuzz/stage.h"
#include "fuzz/targets.h"
#include "support/procs.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define INPUT_BYTES_MAX	 4096
#define KEPT_MAX	 256
#define INPUT_DEADLINE_S 100 /* for one input, in a build of any kind on a slow machine */

struct input {
	char name[160];
	size_t size_bytes;
	uint8_t bytes[INPUT_BYTES_MAX];
};

/* What the child is at, for the parent to tell. */
static struct input *at_hand;
static struct input kept[KEPT_MAX];
static unsigned int kept_count;
static const struct fuzz_target *target;
static char prefix[TEST_SEGMENT_NAME_SIZE];

static int read_input(const char *path, struct input *ret_input)
{
	FILE *file = fopen(path, "rb");

	if (!file)
		return -errno;
	snprintf(ret_input->name, sizeof(ret_input->name), "%s", path);
	ret_input->size_bytes = fread(ret_input->bytes, 1, sizeof(ret_input->bytes), file);
	fclose(file);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct input *)a)->name, ((const struct input *)b)->name);
}

/* In the same order everywhere: the made-up ones are made of them. */
static void read_kept(void)
{
	const char *source = getenv("srcdir");
	const struct dirent *entry;
	char folder[512], path[1024];
	DIR *dir;

	kept_count = 0;
	snprintf(folder, sizeof(folder), "%s/tests/fuzz/corpus/%s", source ? source : ".",
		 target->name);
	dir = opendir(folder);
	if (!dir)
		return;
	while (kept_count < KEPT_MAX && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (read_input(path, &kept[kept_count]) == 0)
			kept_count++;
	}
	closedir(dir);
	qsort(kept, kept_count, sizeof(kept[0]), by_name);
}

static void run_input(const struct input *input)
{
	*at_hand = *input;
	target->run(input->bytes, input->size_bytes);
}

static int replay_kept(void *arg)
{
	(void)arg;
	stage_set_prefix(prefix);
	for (unsigned int i = 0; i < kept_count; i++)
		run_input(&kept[i]);
	stage_remove_all();
	return 0;
}

static uint64_t random_next(uint64_t *state)
{
	/* xorshift64* */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* Noise, or the beginning of a kept input with noise in it. */
static void make_up(struct input *input, uint64_t seed, unsigned int number)
{
	uint64_t random = (seed << 32 | number) * UINT64_C(0x9e3779b97f4a7c15) + 1;

	random_next(&random);
	snprintf(input->name, sizeof(input->name), "seed %llu, number %u", (unsigned long long)seed,
		 number);
	input->size_bytes = 8 + random_next(&random) % 250;
	for (size_t i = 0; i < input->size_bytes; i++)
		input->bytes[i] = (uint8_t)(random_next(&random) >> 56);
	if (kept_count && random_next(&random) % 4) {
		const struct input *from = &kept[random_next(&random) % kept_count];
		size_t copied =
			from->size_bytes < input->size_bytes ? from->size_bytes : input->size_bytes;

		memcpy(input->bytes, from->bytes, copied);
		for (unsigned int i = random_next(&random) % 5 + 1; i > 0 && copied; i--)
			input->bytes[random_next(&random) % copied] =
				(uint8_t)(random_next(&random) >> 56);
	}
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static int replay_made_up(void *arg)
{
	static struct input input;
	uint64_t count = setting("COSHM_FUZZ_COUNT", 200), seed = setting("COSHM_TEST_SEED", 1);

	(void)arg;
	stage_set_prefix(prefix);
	for (unsigned int i = 0; i < count; i++) {
		make_up(&input, seed, i);
		run_input(&input);
	}
	stage_remove_all();
	return 0;
}

/* The input that broke it, for a second look: it outlives the test. */
static void keep_broken(void)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "fuzz-broken-%s", target->name);
	file = fopen(path, "wb");
	if (file) {
		(void)!fwrite(at_hand->bytes, 1, at_hand->size_bytes, file);
		fclose(file);
	}
	print_message("# broken by %s, written to %s\n", at_hand->name, path);
}

static void run_in_child(int (*body)(void *arg))
{
	int code;

	memset(at_hand, 0, sizeof(*at_hand));
	code = proc_collect(proc_spawn(body, NULL), INPUT_DEADLINE_S * UINT64_C(1000000000));
	if (code)
		keep_broken();
	assert_int_equal(code, 0);
}

static void inputs_that_were_kept_break_nothing(void **state)
{
	target = *state;
	read_kept();
	assert_true(kept_count > 0);
	run_in_child(replay_kept);
}

static void inputs_made_up_break_nothing(void **state)
{
	target = *state;
	read_kept();
	run_in_child(replay_made_up);
}

static int by_hand(int argc, char **argv)
{
	static struct input input;

	for (unsigned int i = 0; i < FUZZ_TARGET_COUNT; i++)
		if (!strcmp(argv[1], fuzz_targets[i]->name))
			target = fuzz_targets[i];
	if (!target) {
		fprintf(stderr, "replay_test: no target %s\n", argv[1]);
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (read_input(argv[i], &input)) {
			fprintf(stderr, "replay_test: cannot read %s\n", argv[i]);
			return 2;
		}
		fprintf(stderr, "%s\n", argv[i]);
		target->run(input.bytes, input.size_bytes);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static char names[2 * FUZZ_TARGET_COUNT][64];
	struct CMUnitTest tests[2 * FUZZ_TARGET_COUNT];

	if (argc > 2)
		return by_hand(argc, argv);
	for (unsigned int i = 0; i < FUZZ_TARGET_COUNT; i++) {
		snprintf(names[2 * i], sizeof(names[0]), "inputs_that_were_kept_break_nothing: %s",
			 fuzz_targets[i]->name);
		snprintf(names[2 * i + 1], sizeof(names[0]), "inputs_made_up_break_nothing: %s",
			 fuzz_targets[i]->name);
		tests[2 * i] = (struct CMUnitTest){.name = names[2 * i],
						   .test_func = inputs_that_were_kept_break_nothing,
						   .initial_state = (void *)fuzz_targets[i]};
		tests[2 * i + 1] = (struct CMUnitTest){.name = names[2 * i + 1],
						       .test_func = inputs_made_up_break_nothing,
						       .initial_state = (void *)fuzz_targets[i]};
	}
	at_hand = proc_shared_alloc(sizeof(*at_hand));
	test_segment_name(prefix, "fuzz");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
