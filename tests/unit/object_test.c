/* SPDX-License-Identifier: MIT */
/* The directory of objects as one process sees it: names, types, memory, handles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "segment/internal.h"
#include "support/procs.h"
#include "support/shmfs.h"
#include "support/toy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static char name[TEST_SEGMENT_NAME_SIZE];
static struct coshm_segment *segment;

static int begin(void **state)
{
	(void)state;
	test_segment_name(name, "object");
	heard_start();
	segment = toy_segment_create(name, 8 * MIB);
	return 0;
}

static int end(void **state)
{
	(void)state;
	coshm_segment_detach(segment);
	return coshm_segment_unlink(name);
}

static void name_errors(void **state)
{
	const char *const bad[] = {"", "a b", "a/b", "a:b", "\xc3\xa4", "a\n", "*", "a\"b"};
	char longest[COSHM_NAME_SIZE_BYTES + 1];
	void *toy = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(toy_create(segment, bad[i], 0, 0, &toy), -EINVAL);
		assert_int_equal(toy_open(segment, bad[i], &toy), -EINVAL);
		assert_int_equal(coshm_object_remove(segment, bad[i]), -EINVAL);
	}
	assert_int_equal(toy_create(segment, NULL, 0, 0, &toy), -EINVAL);
	memset(longest, 'n', sizeof(longest));
	longest[COSHM_NAME_SIZE_BYTES] = '\0';
	assert_int_equal(toy_create(segment, longest, 0, 0, &toy), -ENAMETOOLONG);
	assert_int_equal(toy_open(segment, longest, &toy), -ENAMETOOLONG);
	assert_int_equal(coshm_object_remove(segment, longest), -ENAMETOOLONG);
	assert_null(toy);
	longest[COSHM_NAME_SIZE_BYTES - 1] = '\0';
	assert_int_equal(toy_create(segment, longest, 0, 1, &toy), 0);
	assert_int_equal(coshm_object_remove(segment, longest), 0);
	assert_int_equal(toy_create(segment, "Aa0._-", 0, 1, &toy), 0);
	assert_int_equal(toy_open(segment, "Aa0._", &toy), -ENOENT);
	assert_int_equal(toy_open(segment, "Aa0._-x", &toy), -ENOENT);
}

static void create_open_remove(void **state)
{
	void *first, *second, *third = NULL;

	(void)state;
	assert_int_equal(toy_open(segment, "a", &third), -ENOENT);
	assert_int_equal(toy_create(segment, "a", 0, 7, &first), 0);
	heard_clear();
	assert_int_equal(toy_create(segment, "a", 0, 8, &third), -EEXIST);
	assert_non_null(strstr(heard_text(), "\"a\""));
	assert_null(third);
	assert_int_equal(toy_create(segment, "a", COSHM_CREATE_OR_OPEN, 8, &second), 0);
	assert_int_equal(toy_peek(second)->payload.value, 7);
	assert_ptr_not_equal(first, second);
	assert_int_equal(toy_close(first), 0);
	assert_null(toy_peek(first));
	assert_int_equal(coshm_object_remove(segment, "a"), 0);
	assert_int_equal(coshm_object_remove(segment, "a"), -ENOENT);
	assert_int_equal(toy_open(segment, "a", &third), -ENOENT);
	/* Unlink semantics: what is open stays, and hears of it. */
	assert_int_equal(toy_peek(second)->payload.value, 7);
	assert_int_equal(toy_peek(second)->removed.value, 1);
	/* The name is free at once. */
	assert_int_equal(toy_create(segment, "a", 0, 9, &third), 0);
	assert_ptr_not_equal(toy_peek(second), toy_peek(third));
	assert_int_equal(toy_peek(third)->payload.value, 9);
	assert_int_equal(toy_peek(third)->removed.value, 0);
}

static void other_type_is_eprototype(void **state)
{
	void *toy, *other = NULL;
	struct coshm_member_info info;

	(void)state;
	assert_int_equal(toy_create(segment, "a", 0, 7, &toy), 0);
	heard_clear();
	assert_int_equal(coshm__object_open(segment, "a", &other_type, &other), -EPROTOTYPE);
	assert_int_equal(coshm__object_create(segment, "a", &other_type, 4096, COSHM_CREATE_OR_OPEN,
					      NULL, NULL, &other),
			 -EPROTOTYPE);
	assert_null(other);
	assert_non_null(strstr(heard_text(), "cache"));
	assert_int_equal(toy_close(toy), 0);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
}

static int refuse(struct coshm__handle *handle, const void *context)
{
	memset(handle->object, 0x5a, handle->size_bytes);
	return *(const int *)context;
}

static void failed_initialisation_undoes_the_creation(void **state)
{
	struct coshm_segment_info before, after;
	const int error = -E2BIG;
	void *toy = NULL;

	(void)state;
	assert_int_equal(coshm_segment_info(segment, &before), 0);
	for (int i = 0; i < 300; i++)
		assert_int_equal(coshm__object_create(segment, "a", &toy_type, 8192, 0, refuse,
						      &error, &toy),
				 -E2BIG);
	assert_null(toy);
	assert_int_equal(coshm_segment_info(segment, &after), 0);
	assert_int_equal(after.used_bytes, before.used_bytes);
	assert_int_equal(after.object_count, 0);
	/* And the memory that it dirtied is zero for the next one: toy_create checks that. */
	assert_int_equal(toy_create(segment, "a", 0, 1, &toy), 0);
}

static void holds_256_objects_and_no_more(void **state)
{
	struct coshm_segment_info info;
	void *toys[COSHM__ENTRY_COUNT], *more = NULL;
	char each[16];

	(void)state;
	for (int i = 0; i < COSHM__ENTRY_COUNT; i++) {
		snprintf(each, sizeof(each), "o%d", i);
		assert_int_equal(toy_create(segment, each, 0, (uint64_t)i, &toys[i]), 0);
	}
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.object_count, 256);
	heard_clear();
	assert_int_equal(toy_create(segment, "more", 0, 1, &more), -EDQUOT);
	assert_non_null(strstr(heard_text(), "256"));
	/* No two share memory. */
	for (int i = 0; i < COSHM__ENTRY_COUNT; i++)
		assert_int_equal(toy_peek(toys[i])->payload.value, i);
	assert_int_equal(coshm_object_remove(segment, "o77"), 0);
	assert_int_equal(toy_create(segment, "more", 0, 1, &more), -EDQUOT); /* still open */
	assert_int_equal(toy_close(toys[77]), 0);
	assert_int_equal(toy_create(segment, "more", 0, 1, &more), 0);
}

static uint64_t offset_of(void *token)
{
	return coshm__offset_of(toy_segment(segment), toy_peek(token));
}

static void memory_of_a_removed_object_is_reused_only_when_nobody_has_it_open(void **state)
{
	void *old, *second, *fresh, *last;
	uint64_t offset;

	(void)state;
	assert_int_equal(toy_create(segment, "old", 0, 1, &old), 0);
	assert_int_equal(toy_open(segment, "old", &second), 0);
	offset = offset_of(old);
	assert_int_equal(coshm_object_remove(segment, "old"), 0);
	assert_int_equal(toy_create(segment, "b", 0, 2, &fresh), 0);
	assert_true(offset_of(fresh) != offset);
	assert_int_equal(toy_close(old), 0);
	assert_int_equal(toy_create(segment, "c", 0, 3, &fresh), 0);
	assert_true(offset_of(fresh) != offset); /* one of two handles is left */
	assert_int_equal(toy_peek(second)->payload.value, 1);
	assert_int_equal(toy_close(second), 0);
	assert_int_equal(toy_create(segment, "d", 0, 4, &last), 0);
	assert_int_equal(offset_of(last), offset);
}

static void open_bit_goes_with_the_last_handle(void **state)
{
	struct coshm__segment *inner = toy_segment(segment);
	void *first, *second;

	(void)state;
	assert_int_equal(toy_create(segment, "a", 0, 1, &first), 0);
	assert_int_equal(coshm__object_open_count(inner, 0), 1);
	assert_int_equal(toy_open(segment, "a", &second), 0);
	assert_int_equal(coshm__object_open_count(inner, 0), 1);
	assert_int_equal(toy_close(first), 0);
	assert_int_equal(toy_peek(second)->left_by.value, 0);
	assert_int_equal(coshm__object_open_count(inner, 0), 1);
	{
		struct toy_shm *toy = toy_peek(second);

		assert_int_equal(toy_close(second), 0);
		assert_int_equal(coshm__object_open_count(inner, 0), 0);
		/* It was asked to give back what the process held. */
		assert_int_equal(toy->left_by.value, 1);
	}
	assert_int_equal(coshm__object_open(segment, "a", &other_type, &first), -EPROTOTYPE);
	assert_int_equal(coshm__object_open_count(inner, 0), 0);
}

/* The two halves of the segment are never handed out twice, in whatever order things come and go. */
static void gaps_fit_and_never_overlap(void **state)
{
	struct coshm__segment *inner = toy_segment(segment);
	void *toys[40] = {NULL};
	unsigned int random = 12345;
	uint64_t damage, pending;
	char each[16];

	(void)state;
	for (int i = 0; i < 2000; i++) {
		unsigned int slot, pages;

		random = random * 1103515245 + 12345;
		slot = (random >> 8) % 40;
		pages = 4 + (random >> 16) % 30;
		snprintf(each, sizeof(each), "o%u", slot);
		if (toys[slot]) {
			assert_int_equal(coshm_object_remove(segment, each), 0);
			assert_int_equal(toy_close(toys[slot]), 0);
			toys[slot] = NULL;
		} else {
			int error = toy_create_sized(segment, each, pages * 4096, &toys[slot]);

			if (error == -EDQUOT)
				continue;
			assert_int_equal(error, 0);
			toy_peek(toys[slot])->payload.value = slot;
		}
		for (unsigned int j = 0; j < 40; j++)
			if (toys[j])
				assert_int_equal(toy_peek(toys[j])->payload.value, j);
	}
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage, 0);
	assert_int_equal(pending, 0);
	assert_true(coshm__a64_load_relaxed(&inner->header->touched_bytes) <= 4 * MIB);
}

struct seen {
	unsigned int count;
	struct coshm_object_info info;
};

static int see(void *context, const struct coshm_object_info *info)
{
	struct seen *seen = context;

	seen->count++;
	seen->info = *info;
	return 0;
}

static void objects_are_shown_with_who_has_them_open(void **state)
{
	struct coshm_segment_info empty, info;
	struct seen seen = {0};
	void *toy;

	(void)state;
	assert_int_equal(coshm_segment_info(segment, &empty), 0);
	assert_int_equal(coshm_inspect_objects(segment, see, &seen), 0);
	assert_int_equal(seen.count, 0);
	assert_int_equal(toy_create(segment, "shop", 0, 1, &toy), 0);
	assert_int_equal(coshm_inspect_objects(segment, see, &seen), 0);
	assert_int_equal(seen.count, 1);
	assert_string_equal(seen.info.name, "shop");
	assert_int_equal(seen.info.type, COSHM_OBJECT_QUEUE);
	assert_int_equal(seen.info.member_count, 1);
	assert_int_equal(seen.info.removed, 0);
	assert_true(seen.info.size_bytes >= sizeof(struct toy_shm));
	assert_int_equal(seen.info.offset_bytes, offset_of(toy));
	assert_true(seen.info.created_at_ns > 0 &&
		    seen.info.created_at_ns <= coshm_segment_now_ns(segment));
	assert_int_equal(coshm_object_remove(segment, "shop"), 0);
	assert_int_equal(coshm_inspect_objects(segment, see, &seen), 0);
	assert_int_equal(seen.info.removed, 1);
	assert_int_equal(seen.info.member_count, 1);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.used_bytes, empty.used_bytes + seen.info.size_bytes);
	/* Closed everywhere: its memory is free, whether or not somebody has taken it yet. */
	assert_int_equal(toy_close(toy), 0);
	seen.count = 0;
	assert_int_equal(coshm_inspect_objects(segment, see, &seen), 0);
	assert_int_equal(seen.count, 0);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.used_bytes, empty.used_bytes);
}

static void member_info_shows_what_is_held(void **state)
{
	struct coshm_member_info info, none;
	struct coshm__op op;
	struct toy_shm *toy;
	void *token;
	int pin;

	(void)state;
	assert_int_equal(toy_create(segment, "a", 0, 1, &token), 0);
	assert_int_equal(toy_begin(&op, token, &toy), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lock, 0), 0);
	assert_int_equal(coshm__rlock_acquire(&op, &toy->lane_lock, 0), 0);
	coshm__hazard_protect(&op, 0, 8192);
	coshm__hazard_protect(&op, 3, 8192);
	coshm__hazard_write(&op, 1, 4096);
	pin = coshm__pin_set(&op, 4096);
	toy->claims[5].value = op.member_id;
	coshm__op_end(&op);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.state, COSHM_MEMBER_ALIVE);
	assert_int_equal(info.pid, getpid());
	assert_int_equal(info.locks_held, 2);
	assert_int_equal(info.lanes_held, 1);
	assert_int_equal(info.pages_read, 2);
	assert_int_equal(info.pages_written, 1);
	assert_int_equal(info.pages_pinned, 1);
	assert_int_equal(info.leases_held, 1);
	assert_int_equal(info.thread_count, 1);
	assert_true(strlen(info.command) > 0);
	assert_int_equal(coshm_inspect_member(segment, 1, &none), getpid() == 1);

	assert_int_equal(toy_begin(&op, token, &toy), 0);
	coshm__rlock_release(&op, &toy->lane_lock);
	coshm__rlock_release(&op, &toy->lock);
	coshm__hazard_clear(&op, 0);
	coshm__hazard_clear(&op, 3);
	coshm__hazard_write_clear(&op, 1);
	assert_int_equal(coshm__pin_clear(&op, (uint32_t)pin, 4096), 0);
	toy->claims[5].value = 0;
	coshm__op_end(&op);
	assert_int_equal(coshm_inspect_member(segment, (uint32_t)getpid(), &info), 1);
	assert_int_equal(info.locks_held + info.pages_read + info.pages_written +
				 info.pages_pinned + info.leases_held,
			 0);
}

static void verify_tells_damage(void **state)
{
	struct coshm__segment *inner = toy_segment(segment);
	uint64_t damage, pending, word;
	void *first, *second;

	(void)state;
	assert_int_equal(toy_create(segment, "a", 0, 1, &first), 0);
	assert_int_equal(toy_create(segment, "b", 0, 1, &second), 0);
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
	/* Overlapping objects. */
	word = inner->entries[1].offset_bytes.value;
	inner->entries[1].offset_bytes.value = inner->entries[0].offset_bytes.value;
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_true(damage > 0);
	/* Outside of the segment. */
	inner->entries[1].offset_bytes.value = UINT64_C(1) << 40;
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_true(damage > 0);
	inner->entries[1].offset_bytes.value = word;
	/* A word that no run can leave. */
	word = inner->entries[1].word.value;
	inner->entries[1].word.value = 7;
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_true(damage > 0);
	inner->entries[1].word.value = word;
	word = inner->members[9].word.value;
	inner->members[9].word.value = 3;
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_true(damage > 0);
	inner->members[9].word.value = word;
	/* The object's own. */
	toy_peek(first)->left.value = 1;
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage, 1);
	toy_peek(first)->left.value = 0;
	assert_int_equal(toy_verify(segment, &damage, &pending), 0);
	assert_int_equal(damage + pending, 0);
	assert_int_equal(coshm_inspect_verify(segment, "nobody", NULL, NULL, NULL), -ENOENT);
}

/* Offsets come from shared memory: whatever they are, the pointer is inside or NULL. */
static void verify_says_nothing_of_an_object_whose_memory_was_given_away(void **state)
{
	struct coshm__findings findings = {.report = NULL};
	struct coshm__op op;
	void *first, *second;

	(void)state;
	assert_int_equal(toy_create(segment, "a", 0, 1, &first), 0);
	assert_int_equal(coshm__op_begin(&op, segment, COSHM__TYPE_SEGMENT), 0);
	findings.object = coshm__view_get(op.segment, 0);
	assert_non_null(findings.object);
	coshm__finding(&findings, COSHM_VERIFY_DAMAGE, "a", "damaged");
	coshm__op_end(&op);
	assert_int_equal(findings.result.damage, 1);
	/* Removed, but open: it is still what it was. */
	assert_int_equal(coshm_object_remove(segment, "a"), 0);
	coshm__finding(&findings, COSHM_VERIFY_DAMAGE, "a", "damaged");
	assert_int_equal(findings.result.damage, 2);
	assert_int_equal(toy_close(first), 0);
	assert_int_equal(toy_create(segment, "b", 0, 1, &second), 0);
	coshm__finding(&findings, COSHM_VERIFY_DAMAGE, "a", "damaged");
	assert_int_equal(findings.result.damage, 2);
}

static void offsets_are_checked(void **state)
{
	struct coshm__segment *inner = toy_segment(segment);
	uint64_t end_bytes = inner->header->committed_bytes.value;

	(void)state;
	assert_ptr_equal(coshm__segment_at(inner, 0, 1), inner->base);
	assert_non_null(coshm__segment_at(inner, end_bytes - 8, 8));
	assert_null(coshm__segment_at(inner, end_bytes - 8, 9));
	assert_null(coshm__segment_at(inner, end_bytes, 1));
	assert_null(coshm__segment_at(inner, 4, 4));
	assert_null(coshm__segment_at(inner, UINT64_MAX - 7, 8));
	assert_null(coshm__segment_at(inner, 8, UINT64_MAX));
	assert_null(coshm__segment_at(inner, UINT64_MAX - 7, UINT64_MAX));
}

static void full_table_of_handles_is_emfile_and_leaks_nothing(void **state)
{
	struct coshm__segment *inner = toy_segment(segment);
	static void *handles[COSHM__HANDLES_MAX];
	struct coshm_segment_info info;
	void *toy, *none = NULL;
	int count = 0, error;

	(void)state;
	assert_int_equal(toy_create(segment, "a", 0, 1, &toy), 0);
	while ((error = toy_open(segment, "a", &handles[count])) == 0)
		count++;
	assert_int_equal(error, -EMFILE);
	assert_true(count > 4000);
	assert_int_equal(toy_create(segment, "b", 0, 1, &none), -EMFILE);
	assert_null(none);
	assert_int_equal(coshm_segment_info(segment, &info), 0);
	assert_int_equal(info.object_count, 1);
	/* The last place is enough for what is created. */
	assert_int_equal(toy_close(handles[--count]), 0);
	assert_int_equal(toy_create(segment, "b", 0, 1, &none), 0);
	assert_int_equal(toy_close(none), 0);
	while (count--)
		assert_int_equal(toy_close(handles[count]), 0);
	assert_int_equal(toy_close(toy), 0);
	assert_int_equal(coshm__object_open_count(inner, 0), 0);
	assert_int_equal(coshm__object_open_count(inner, 1), 0);
}

#define OBJECT_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		OBJECT_TEST(name_errors),
		OBJECT_TEST(create_open_remove),
		OBJECT_TEST(other_type_is_eprototype),
		OBJECT_TEST(failed_initialisation_undoes_the_creation),
		OBJECT_TEST(holds_256_objects_and_no_more),
		OBJECT_TEST(memory_of_a_removed_object_is_reused_only_when_nobody_has_it_open),
		OBJECT_TEST(open_bit_goes_with_the_last_handle),
		OBJECT_TEST(gaps_fit_and_never_overlap),
		OBJECT_TEST(objects_are_shown_with_who_has_them_open),
		OBJECT_TEST(member_info_shows_what_is_held),
		OBJECT_TEST(verify_tells_damage),
		OBJECT_TEST(verify_says_nothing_of_an_object_whose_memory_was_given_away),
		OBJECT_TEST(offsets_are_checked),
		OBJECT_TEST(full_table_of_handles_is_emfile_and_leaks_nothing),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("object", tests, NULL, NULL);
}
