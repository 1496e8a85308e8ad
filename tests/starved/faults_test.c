/* SPDX-License-Identifier: MIT */
/*
 * Each request to the C library and the kernel that a public call makes fails once: the call says so and has changed
 * nothing, or does what it does without the fault; nothing is leaked; and the same call works afterwards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "modules/limiter/limiter_shm.h"
#include "segment/rlock.h"
#include "segment/segment.h"
#include "starved/faults.h"
#include "starved/stock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static char name[TEST_SEGMENT_NAME_SIZE], other_name[TEST_SEGMENT_NAME_SIZE + 8];

/* What one step works on, and what came out of it. */
struct stage {
	struct stock stock;
	struct stock other; /* what the step has made */
	char answer[16384];
	size_t answer_size;
	_Atomic int *dead_is_ready;
};

static struct stage stage;

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void answer(const char *format, ...)
{
	size_t room = sizeof(stage.answer) - stage.answer_size;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(stage.answer + stage.answer_size, room, format, arguments);
	va_end(arguments);
	if (length > 0 && (size_t)length < room)
		stage.answer_size += (size_t)length;
}

/* --- steps: one public call each ----------------------------------------------------------------------------------- */

static int create_segment(void)
{
	const struct coshm_segment_config config = {.size_bytes = 2 * MIB};

	return coshm_segment_create(other_name, &config, 0, &stage.other.segment);
}

static int create_or_open_segment(void)
{
	const struct coshm_segment_config config = {.size_bytes = 2 * MIB};

	return coshm_segment_create(name, &config, COSHM_CREATE_OR_OPEN, &stage.other.segment);
}

static int detach_and_unlink(void)
{
	GIVES(0, coshm_segment_detach(stage.other.segment));
	GIVES(0, coshm_segment_unlink(other_name));
	return 0;
}

static int detach(void)
{
	GIVES(0, coshm_segment_detach(stage.other.segment));
	return 0;
}

static int make_another(void)
{
	GIVES(0, create_segment());
	return detach();
}

static int unlink_segment(void)
{
	return coshm_segment_unlink(other_name);
}

static int attach(void)
{
	return coshm_segment_attach(name, 0, &stage.other.segment);
}

static int attach_read_only(void)
{
	return coshm_segment_attach(name, COSHM_ATTACH_READ_ONLY, &stage.other.segment);
}

static int create_cache(void)
{
	const struct coshm_cache_config config = {.size_bytes = 3 * MIB};

	return coshm_cache_create(stage.stock.segment, "new", &config, 0, &stage.other.cache);
}

static int create_limiter(void)
{
	const struct coshm_limiter_config config = {.rate = 1, .keys_max = 100000};

	return coshm_limiter_create(stage.stock.segment, "new", &config, 0, &stage.other.limiter);
}

static int create_queue(void)
{
	const struct coshm_queue_config config = {.capacity = 4000};

	return coshm_queue_create(stage.stock.segment, "new", &config, 0, &stage.other.queue);
}

static int create_or_open_queue(void)
{
	const struct coshm_queue_config config = {.capacity = 4000};

	return coshm_queue_create(stage.stock.segment, "mails", &config, COSHM_CREATE_OR_OPEN,
				  &stage.other.queue);
}

static int close_all(void)
{
	GIVES(0, coshm_cache_close(stage.other.cache));
	GIVES(0, coshm_limiter_close(stage.other.limiter));
	GIVES(0, coshm_queue_close(stage.other.queue));
	return 0;
}

static int close_and_remove(void)
{
	int line = close_all();

	if (!line)
		GIVES(0, coshm_object_remove(stage.stock.segment, "new"));
	return line;
}

static int open_cache(void)
{
	return coshm_cache_open(stage.stock.segment, "pages", &stage.other.cache);
}

static int open_limiter(void)
{
	return coshm_limiter_open(stage.stock.segment, "calls", &stage.other.limiter);
}

static int open_queue(void)
{
	return coshm_queue_open(stage.stock.segment, "mails", &stage.other.queue);
}

/* Whoever has the queue open is told that it is over. */
static int remove_queue(void)
{
	struct coshm_task task;
	int error = coshm_object_remove(stage.stock.segment, "bin");

	if (!error)
		answer("%d", coshm_queue_reserve(stage.other.queue, 0, &task));
	return error;
}

static int create_bin(void)
{
	const struct coshm_queue_config config = {.capacity = 1};

	GIVES(0, coshm_queue_create(stage.stock.segment, "bin", &config, 0, &stage.other.queue));
	return 0;
}

static int close_bin(void)
{
	GIVES(0, coshm_queue_close(stage.other.queue));
	return 0;
}

static int set_large(void)
{
	static unsigned char bytes[100000];

	return coshm_cache_set(stage.stock.cache, "l", 1, bytes, sizeof(bytes), 0);
}

static int replace_large(void)
{
	static unsigned char bytes[90000];
	int result = coshm_cache_replace(stage.stock.cache, "large", 5, bytes, sizeof(bytes), 0);

	return result;
}

static int delete_large(void)
{
	GIVES(1, coshm_cache_delete(stage.stock.cache, "l", 1));
	return 0;
}

static int see_item(void *context, const void *key, size_t key_size_bytes, const void *value,
		    const struct coshm_cache_item *item)
{
	(void)context;
	answer("%.*s %d %llu\n", (int)key_size_bytes, (const char *)key, value != NULL,
	       (unsigned long long)item->value_size_bytes);
	return 0;
}

static int scan(void)
{
	uint64_t cursor = 0;

	return coshm_cache_scan(stage.stock.cache, &cursor, 0, COSHM_CACHE_SCAN_VALUES, see_item,
				NULL);
}

static int see_task(void *context, const struct coshm_task_info *info, const void *payload)
{
	(void)context;
	answer("%u %d\n", info->state, payload != NULL);
	return 0;
}

static int each_task(void)
{
	return coshm_queue_each(stage.stock.queue, 0, COSHM_QUEUE_EACH_PAYLOAD, see_task, NULL);
}

static int handle_task(void *context, const struct coshm_task *task, const void *payload,
		       char error[56])
{
	(void)context;
	(void)error;
	answer("%llu %d\n", (unsigned long long)task->payload_size_bytes, payload != NULL);
	return COSHM_WORKER_ACK;
}

static int work(void)
{
	const struct coshm_worker_options options = {.flags = COSHM_WORKER_NO_SIGNALS |
							      COSHM_WORKER_UNTIL_EMPTY};

	return coshm_worker_run(stage.stock.queue, handle_task, NULL, &options);
}

static int enqueue_again(void)
{
	char payload[500];

	memset(payload, 1, sizeof(payload));
	GIVES(0, coshm_queue_enqueue(stage.stock.queue, payload, sizeof(payload), NULL, NULL));
	return 0;
}

static int see_stat(void *context, const struct coshm_stat *stat)
{
	(void)context;
	/* Those that the faults themselves, or the clock, move. */
	if (*stat->object || !strcmp(stat->name, "members"))
		answer("%s %s %llu\n", stat->object, stat->name, (unsigned long long)stat->value);
	return 0;
}

static int each_stat(void)
{
	return coshm_stats_each(stage.stock.segment, NULL, see_stat, NULL);
}

static int one_stat(void)
{
	uint64_t value = 0;
	int error = coshm_stats_value(stage.stock.segment, "mails", "acked", &value);

	answer("%llu", (unsigned long long)value);
	return error;
}

static int stats_json(void)
{
	char text[8192];
	size_t size;
	int error = coshm_stats_json(stage.stock.segment, "mails", text, sizeof(text), &size);

	answer("%s", error ? "" : text);
	return error;
}

static int stats_prometheus(void)
{
	char text[16384];
	size_t size;
	int error = coshm_stats_prometheus(stage.stock.segment, "calls", text, sizeof(text), &size);

	answer("%s", error ? "" : text);
	return error;
}

static int see_object(void *context, const struct coshm_object_info *info)
{
	(void)context;
	answer("%s %u\n", info->name, info->member_count);
	return 0;
}

static int objects(void)
{
	return coshm_inspect_objects(stage.stock.segment, see_object, NULL);
}

static int see_member(void *context, const struct coshm_member_info *info)
{
	(void)context;
	answer("%u %u %u\n", info->state, info->thread_count, info->leases_held);
	return 0;
}

static int members(void)
{
	return coshm_inspect_members(stage.stock.segment, see_member, NULL);
}

static int one_member(void)
{
	struct coshm_member_info info = {0};
	int found = coshm_inspect_member(stage.stock.segment, (uint32_t)getpid(), &info);

	answer("%d %u", found, info.leases_held);
	return found;
}

static int reserve_one(void)
{
	struct coshm_task task;

	GIVES(1, coshm_queue_reserve(stage.stock.queue, 0, &task));
	return 0;
}

static void see_finding(void *context, int level, const char *where, const char *text)
{
	(void)context;
	if (level != COSHM_VERIFY_NOTE || strstr(text, "memory"))
		answer("%d %s %s\n", level, where, text);
}

static int verify(void)
{
	struct coshm_verify_result result = {0};
	int error = coshm_inspect_verify(stage.stock.segment, NULL, see_finding, NULL, &result);

	answer("%llu %llu %llu", (unsigned long long)result.checked_objects,
	       (unsigned long long)result.damage, (unsigned long long)result.pending);
	return error;
}

static int peek(void)
{
	struct coshm_cache *cache;
	unsigned char value[100000];
	size_t size = sizeof(value);
	int result = coshm_cache_open(stage.other.segment, "pages", &cache);

	if (result)
		return result;
	result = coshm_cache_peek(cache, "large", 5, value, &size, NULL);
	answer("%zu", size);
	GIVES(0, coshm_cache_close(cache));
	return result;
}

static int attach_to_look(void)
{
	GIVES(0, attach_read_only());
	return 0;
}

static int info(void)
{
	struct coshm_segment_info info;

	return coshm_segment_info(stage.stock.segment, &info);
}

static int take_a_task_and_die(void *arg)
{
	struct coshm_task task;

	(void)arg;
	NEED(coshm_queue_reserve(stage.stock.queue, PROC_DEADLINE_NS, &task) == 1);
	kill(getpid(), SIGKILL);
	return 1;
}

static int let_one_die(void)
{
	NEED(run_in_child(take_a_task_and_die, NULL) == -SIGKILL);
	return 0;
}

static int reap(void)
{
	struct coshm_queue_depth depth = {0};
	int error = coshm_segment_reap(stage.stock.segment, NULL);

	if (!error)
		error = coshm_queue_depth(stage.stock.queue, &depth);
	answer("%llu", (unsigned long long)depth.leased);
	return error;
}

/* --- the walk ------------------------------------------------------------------------------------------------------ */

enum step_flags {
	UNATTACHED = 1,	  /* the process has nothing of coshm but its process-wide state */
	MAY_DO_LESS = 2,  /* without an error: somebody else, or the next call, does the rest */
	KEEPS_MEMORY = 4, /* the segment may stay larger */
};

struct step {
	const char *name;
	int (*run)(void);
	int (*before)(void);
	int (*undo)(void);
	unsigned int flags;
};

static const struct step steps[] = {
	{"create a segment", create_segment, NULL, detach_and_unlink, UNATTACHED},
	{"create or open a segment", create_or_open_segment, NULL, detach, UNATTACHED},
	{"unlink a segment", unlink_segment, make_another, NULL, UNATTACHED},
	{"attach", attach, NULL, detach, UNATTACHED},
	{"attach read-only", attach_read_only, NULL, detach, UNATTACHED},
	{"attach again", attach, NULL, detach, 0},
	{"create a cache", create_cache, NULL, close_and_remove, KEEPS_MEMORY},
	{"create a limiter", create_limiter, NULL, close_and_remove, KEEPS_MEMORY},
	{"create a queue", create_queue, NULL, close_and_remove, KEEPS_MEMORY},
	{"create or open a queue", create_or_open_queue, NULL, close_all, 0},
	{"open a cache", open_cache, NULL, close_all, 0},
	{"open a limiter", open_limiter, NULL, close_all, 0},
	{"open a queue", open_queue, NULL, close_all, 0},
	{"remove a queue", remove_queue, create_bin, close_bin, 0},
	{"set a large value", set_large, NULL, delete_large, 0},
	{"replace a large value", replace_large, NULL, NULL, 0},
	{"scan a cache", scan, NULL, NULL, 0},
	{"peek on a read-only attach", peek, attach_to_look, detach, 0},
	{"walk over tasks", each_task, NULL, NULL, 0},
	{"run a worker", work, NULL, enqueue_again, 0},
	{"all statistics", each_stat, NULL, NULL, 0},
	{"one statistic", one_stat, NULL, NULL, 0},
	{"statistics as JSON", stats_json, NULL, NULL, 0},
	{"statistics for Prometheus", stats_prometheus, NULL, NULL, 0},
	{"objects", objects, NULL, NULL, 0},
	{"members", members, reserve_one, NULL, 0},
	{"one member", one_member, reserve_one, NULL, 0},
	{"verify", verify, NULL, NULL, 0},
	{"info", info, NULL, NULL, 0},
	{"reap", reap, let_one_die, NULL, MAY_DO_LESS},
};

static const struct kind {
	const char *name;
	unsigned int kind;
	int error;
} kinds[] = {
	{"memory", FAULT_MEMORY, -ENOMEM},   {"mapping", FAULT_MAP, -ENOMEM},
	{"descriptor", FAULT_OPEN, -EMFILE}, {"lock", FAULT_LOCK, -ENOLCK},
	{"room", FAULT_ROOM, -ENOSPC},
};

static int begin_step(const struct step *step)
{
	int line = 0;

	stage.answer_size = 0;
	stage.answer[0] = '\0';
	stage.other = (struct stock){0};
	if (!(step->flags & UNATTACHED))
		line = stock_open(&stage.stock, name, 0);
	return line || !step->before ? line : step->before();
}

static int end_step(const struct step *step)
{
	return step->flags & UNATTACHED ? 0 : stock_close(&stage.stock);
}

static int run_step(const struct step *step)
{
	stage.answer_size = 0;
	stage.answer[0] = '\0';
	return step->run();
}

/* It failed: as if it had not been called, and it says why in words. */
static int check_refusal(const struct step *step, const struct kind *kind, int result,
			 const struct stock_picture *before)
{
	struct stock_picture after;

	GIVES(kind->error, result);
	NEED(!strstr(coshm_strerror(result), "errno(3)"));
	if (step->flags & UNATTACHED) {
		NEED(stock_mappings(name) == 0);
		return 0;
	}
	NEED(stock_picture(&stage.stock, &after) == 0);
	if (step->flags & KEEPS_MEMORY) {
		after.size_bytes = before->size_bytes;
		after.file_size_bytes = before->file_size_bytes;
		after.file_blocks = before->file_blocks;
	}
	NEED(!memcmp(&after, before, sizeof(after)));
	return 0;
}

/* The @which-th request of that kind fails. */
static int fail_one(const struct step *step, const struct kind *kind, unsigned int which,
		    int wanted, const char *wanted_answer)
{
	struct stock_picture before = {0};
	int line, result;

	line = begin_step(step);
	if (!line && !(step->flags & UNATTACHED))
		line = stock_picture(&stage.stock, &before);
	if (line)
		return line;
	faults_arm(kind->kind, which);
	result = run_step(step);
	faults_disarm();
	if (result < 0) {
		line = check_refusal(step, kind, result, &before);
		if (line)
			return line;
		result = run_step(step);
	} else if (step->flags & MAY_DO_LESS) {
		result = run_step(step);
	}
	GIVES(wanted, result);
	if (strcmp(stage.answer, wanted_answer))
		fprintf(stderr, "# answered\n%s\n# instead of\n%s\n", stage.answer, wanted_answer);
	NEED(!strcmp(stage.answer, wanted_answer));
	if (step->undo)
		line = step->undo();
	if (!line && !(step->flags & UNATTACHED))
		line = stock_verify(stage.stock.segment, 0);
	return line ? line : end_step(step);
}

static int walk(const struct step *step, const struct kind *kind, unsigned int *ret_faults)
{
	static char wanted_answer[sizeof(stage.answer)];
	long memory = faults_memory_in_use();
	int descriptors = stock_descriptors(), wanted, line = begin_step(step);
	unsigned int count;

	if (line)
		return line;
	faults_arm(kind->kind, 0);
	wanted = run_step(step);
	count = faults_disarm();
	NEED(wanted >= 0);
	memcpy(wanted_answer, stage.answer, sizeof(wanted_answer));
	line = step->undo ? step->undo() : 0;
	if (!line)
		line = end_step(step);
	for (unsigned int which = 1; which <= count && !line; which++) {
		line = fail_one(step, kind, which, wanted, wanted_answer);
		if (line)
			fprintf(stderr, "# %s: %s %u of %u\n", step->name, kind->name, which,
				count);
	}
	*ret_faults += count;
	if (line)
		return line;
	NEED(faults_memory_in_use() == memory);
	NEED(stock_descriptors() == descriptors);
	NEED(stock_mappings(name) == 0);
	return 0;
}

static int prepare(void **state)
{
	static unsigned char bytes[90000];
	struct coshm_task task;
	struct stock stock;
	int line;

	(void)state;
	test_segment_name(name, "faults");
	snprintf(other_name, sizeof(other_name), "%s-new", name);
	line = stock_open(&stock, name, 0);
	if (line)
		return line;
	memset(bytes, 1, sizeof(bytes));
	GIVES(0, coshm_cache_set(stock.cache, "small", 5, "value", 5, 0));
	GIVES(0, coshm_cache_set(stock.cache, "large", 5, bytes, sizeof(bytes), 0));
	GIVES(0, coshm_queue_enqueue(stock.queue, bytes, 500, NULL, NULL));
	GIVES(1, coshm_queue_reserve(stock.queue, 0, &task));
	GIVES(0, coshm_queue_bury(stock.queue, &task, "a dead letter"));
	GIVES(0, coshm_queue_enqueue(stock.queue, bytes, 500, NULL, NULL));
	return stock_close(&stock);
}

static int clean(void **state)
{
	(void)state;
	return coshm_segment_unlink(name);
}

static void walk_over_all(const struct kind *kind)
{
	unsigned int faults = 0, failed = 0;

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		int line = walk(&steps[i], kind, &faults);

		if (line) {
			fprintf(stderr, "# FAILED: %s, without %s\n", steps[i].name, kind->name);
			failed++;
			/* What is open is not known any more. */
			break;
		}
	}
	print_message("# %u faults\n", faults);
	assert_int_equal(failed, 0);
	assert_true(faults > 0);
}

static void no_memory_is_enomem_changes_nothing_and_passes(void **state)
{
	(void)state;
	walk_over_all(&kinds[0]);
}

static void no_mapping_is_enomem_changes_nothing_and_passes(void **state)
{
	(void)state;
	walk_over_all(&kinds[1]);
}

static void no_descriptor_is_emfile_changes_nothing_and_passes(void **state)
{
	(void)state;
	walk_over_all(&kinds[2]);
}

static void no_lock_is_enolck_changes_nothing_and_passes(void **state)
{
	(void)state;
	walk_over_all(&kinds[3]);
}

static void no_room_is_enospc_changes_nothing_and_passes(void **state)
{
	(void)state;
	walk_over_all(&kinds[4]);
}

/* --- what a process does once -------------------------------------------------------------------------------------- */

/* This program has not used coshm yet. */
static int first_call_ever(void *arg)
{
	const unsigned int kind = (unsigned int)(uintptr_t)arg;
	const struct coshm_segment_config config = {.size_bytes = MIB};
	struct coshm_segment *segment = NULL;

	faults_arm(kind, 1);
	GIVES(-ENOMEM, coshm_segment_create(name, &config, 0, &segment));
	faults_disarm();
	GIVES(0, coshm_segment_create(name, &config, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	GIVES(0, coshm_segment_unlink(name));
	return 0;
}

static void first_call_that_fails_does_not_spoil_the_next(void **state)
{
	(void)state;
	test_segment_name(name, "faults-first");
	assert_int_equal(run_in_child(first_call_ever, (void *)FAULT_MAP), 0);
	assert_int_equal(run_in_child(first_call_ever, (void *)FAULT_ATFORK), 0);
}

/* --- no lock at all ------------------------------------------------------------------------------------------------ */

static int attaches_without_locks(void *unused)
{
	struct coshm_segment *segment = NULL;

	(void)unused;
	faults_arm(FAULT_LOCK | FAULT_EVERY, 1);
	GIVES(-ENOLCK, coshm_segment_attach(name, 0, &segment));
	NEED(segment == NULL && faults_disarm() > 0);
	GIVES(0, coshm_segment_attach(name, 0, &segment));
	GIVES(0, coshm_segment_detach(segment));
	return 0;
}

static void house_is_not_full_where_no_lock_can_be_had(void **state)
{
	(void)state;
	assert_int_equal(run_in_child(attaches_without_locks, NULL), 0);
}

/* --- fork children ------------------------------------------------------------------------------------------------- */

static const struct kind *child_kind;

static int child_uses_it(void *arg)
{
	const unsigned int which = (unsigned int)(uintptr_t)arg;
	uint64_t count;
	int result;

	faults_arm(child_kind->kind, which);
	result = coshm_cache_count(stage.stock.cache, &count);
	/* No such call: the walk is over. */
	if (faults_disarm() < which)
		return PROC_CODE_MAX;
	/* There may be another way. */
	if (result)
		GIVES(child_kind->error, result);
	GIVES(0, coshm_cache_count(stage.stock.cache, &count));
	NEED(stock_use(&stage.stock, which) == 0);
	return stock_close(&stage.stock);
}

static void fork_child_that_cannot_become_a_member_may_try_again(void **state)
{
	struct stock_picture before, after;

	(void)state;
	assert_int_equal(stock_open(&stage.stock, name, 0), 0);
	assert_int_equal(stock_picture(&stage.stock, &before), 0);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		child_kind = &kinds[i];
		for (uintptr_t which = 1;; which++) {
			int result = run_in_child(child_uses_it, (void *)which);

			if (result == PROC_CODE_MAX)
				break;
			if (result)
				print_message("# %s %u\n", child_kind->name, (unsigned int)which);
			assert_int_equal(result, 0);
		}
	}
	/* The last of each kind returned without a detach. */
	assert_int_equal(coshm_segment_reap(stage.stock.segment, NULL), 0);
	assert_int_equal(stock_picture(&stage.stock, &after), 0);
	after.entries = before.entries;
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(stock_verify(stage.stock.segment, 0), 0);
	assert_int_equal(stock_close(&stage.stock), 0);
}

/* --- a thread that dies in a lock ----------------------------------------------------------------------------------- */

static void *takes_a_lock_and_exits(void *arg)
{
	struct coshm__op op;
	struct coshm__limiter_shm *shm;

	if (coshm__op_begin(&op, stage.stock.limiter, COSHM_OBJECT_LIMITER))
		return NULL;
	shm = op.handle->object;
	*(int *)arg = coshm__rlock_acquire(&op, &shm->config_lock, PROC_DEADLINE_NS);
	coshm__op_end(&op);
	/* What it takes to find out what the lock guards is not there when the thread's end is dealt with. */
	faults_arm(FAULT_MEMORY, 1);
	return NULL;
}

static int loses_a_thread(void *arg)
{
	const struct coshm_limiter_config config = {.rate = 1};
	int taken = -1;
	pthread_t thread;

	(void)arg;
	NEED(stock_open(&stage.stock, name, 0) == 0);
	NEED(pthread_create(&thread, NULL, takes_a_lock_and_exits, &taken) == 0);
	NEED(pthread_join(thread, NULL) == 0);
	NEED(faults_disarm() == 1 && taken == 0);
	/* Held by one who is alive. */
	GIVES(-EAGAIN, coshm_limiter_configure(stage.stock.limiter, &config));
	return 0; /* and dies */
}

static void thread_that_dies_in_a_lock_without_memory_condemns_nothing(void **state)
{
	const struct coshm_limiter_config config = {.rate = 1};

	(void)state;
	assert_int_equal(run_in_child(loses_a_thread, NULL), 0);
	assert_int_equal(stock_open(&stage.stock, name, 0), 0);
	assert_int_equal(coshm_segment_reap(stage.stock.segment, NULL), 0);
	assert_int_equal(coshm_limiter_configure(stage.stock.limiter, &config), 0);
	assert_int_equal(stock_verify(stage.stock.segment, 0), 0);
	assert_int_equal(stock_close(&stage.stock), 0);
}

#define WALK_TEST(test) cmocka_unit_test_setup_teardown(test, prepare, clean)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		/* First: later ones are not the first call ever. */
		cmocka_unit_test(first_call_that_fails_does_not_spoil_the_next),
		WALK_TEST(no_memory_is_enomem_changes_nothing_and_passes),
		WALK_TEST(no_mapping_is_enomem_changes_nothing_and_passes),
		WALK_TEST(no_descriptor_is_emfile_changes_nothing_and_passes),
		WALK_TEST(no_lock_is_enolck_changes_nothing_and_passes),
		WALK_TEST(no_room_is_enospc_changes_nothing_and_passes),
		WALK_TEST(house_is_not_full_where_no_lock_can_be_had),
		WALK_TEST(fork_child_that_cannot_become_a_member_may_try_again),
		WALK_TEST(thread_that_dies_in_a_lock_without_memory_condemns_nothing),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
