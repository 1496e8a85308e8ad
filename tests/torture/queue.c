/* SPDX-License-Identifier: MIT */
/*
 * Two queues, one whose payloads lie in the records and one whose lie in blocks. Each task has an entry in the books
 * that says who has it. A delivery is right if nobody had the task, if who had it gave it up, or is dead; an end is right if
 * the task was still his.
 */
#include "torture/work.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CAPACITY	  300
#define INLINE_BYTES_MAX  192
#define PAYLOAD_BYTES_MAX 20000
#define POOL_BYTES	  (2 << 20)

static const char *const queue_names[QUEUES] = {"inline", "blocks"};

struct payload_head {
	uint32_t index, generation;
	uint64_t seed;
};

#define GENERATION_MASK UINT64_C(0xfffffff)

static uint64_t word_of(enum task_state state, uint64_t generation, uint32_t process)
{
	return (uint64_t)state << 60 | (generation & GENERATION_MASK) << 32 | process;
}

static enum task_state state_of(uint64_t word)
{
	return (enum task_state)(word >> 60);
}

static uint64_t generation_of(uint64_t word)
{
	return word >> 32 & GENERATION_MASK;
}

static const char *state_name(uint64_t word)
{
	static const char *const names[] = {"free",	"enqueuing", "enqueued", "leased",
					    "given up", "acking",    "dropping"};

	return names[state_of(word)];
}

static size_t payload_fill(uint32_t queue, uint32_t index, uint64_t generation,
			   unsigned char *bytes)
{
	uint64_t random = mix(books->plan.seed ^ generation << 20 ^ index ^ (uint64_t)queue << 60);
	struct payload_head head = {index, (uint32_t)generation, random};
	size_t size;

	size = sizeof(head) + random_below(&random, queue == 0 ? INLINE_BYTES_MAX - sizeof(head) + 1
						    : random_below(&random, 4)
							    ? 3000
							    : PAYLOAD_BYTES_MAX - sizeof(head) + 1);
	memcpy(bytes, &head, sizeof(head));
	pattern_fill(head.seed, bytes + sizeof(head), size - sizeof(head));
	return size;
}

/* The task's entry, if the bytes are a payload. NULL: said */
static struct task_book *payload_read(struct worker *worker, uint32_t queue,
				      const unsigned char *bytes, size_t size,
				      uint64_t *ret_generation)
{
	struct payload_head head;

	if (size >= sizeof(head)) {
		memcpy(&head, bytes, sizeof(head));
		if (head.index < TASKS &&
		    payload_fill(queue, head.index, head.generation, worker->buffer) == size &&
		    memcmp(worker->buffer, bytes, size) == 0) {
			*ret_generation = head.generation;
			return &books->tasks[queue][head.index];
		}
	}
	violation("queue %s: %zu bytes that nobody enqueued", queue_names[queue], size);
	return NULL;
}

static void enqueue_one(struct worker *worker, uint32_t queue)
{
	const uint32_t index = (uint32_t)random_below(&worker->random, TASKS);
	struct task_book *task = &books->tasks[queue][index];
	struct coshm_enqueue_options options = {.delay_ns = 0};
	uint64_t word = atomic_load(&task->word), generation = generation_of(word) + 1, expected;
	size_t size;
	int error;

	if (state_of(word) != TASK_FREE ||
	    !atomic_compare_exchange_strong(&task->word, &word,
					    word_of(TASK_ENQUEUING, generation, process_self())))
		return;
	word = word_of(TASK_ENQUEUING, generation, process_self());
	size = payload_fill(queue, index, generation, worker->copy);
	if (random_below(&worker->random, 4) == 0)
		options.delay_ns = random_below(&worker->random, 20 * MS);
	atomic_store(&task->due_at_ns, now_ns() + options.delay_ns);
	error = coshm_queue_enqueue(worker->handles->queues[queue], worker->copy, size, &options,
				    NULL);
	expected = word;
	if (error == 0) {
		/* Somebody may have it already. */
		atomic_compare_exchange_strong(&task->word, &expected,
					       word_of(TASK_ENQUEUED, generation, 0));
		count(EVENT_ENQUEUED, 1);
	} else if (error == -EAGAIN) {
		if (!atomic_compare_exchange_strong(&task->word, &expected,
						    word_of(TASK_FREE, generation, 0)))
			violation("queue %s task %u: refused, but it is %s", queue_names[queue],
				  index, state_name(expected));
		count(EVENT_QUEUE_FULL, 1);
	} else {
		violation("queue %s: enqueue gives %d", queue_names[queue], error);
	}
}

/* The books agree that this process has it now. The word; 0: said */
static uint64_t task_take(uint32_t queue, struct task_book *task, uint64_t generation)
{
	const uint64_t mine = word_of(TASK_LEASED, generation, process_self());
	const uint32_t index = (uint32_t)(task - books->tasks[queue]);
	uint64_t word = atomic_load(&task->word);

	do {
		int is_right = 0;

		if (generation_of(word) != generation) {
			violation("queue %s task %u: delivered after its end (%llu, now %llu)",
				  queue_names[queue], index, (unsigned long long)generation,
				  (unsigned long long)generation_of(word));
			return 0;
		}
		switch (state_of(word)) {
		case TASK_ENQUEUING:
		case TASK_ENQUEUED:
		case TASK_GIVING_UP:
		case TASK_DROPPING: /* it was redriven before it could be dropped */
			is_right = 1;
			break;
		case TASK_LEASED:
		case TASK_ACKING:
			is_right = process_is_gone((uint32_t)word);
			break;
		case TASK_FREE:
			break;
		}
		if (!is_right) {
			violation("queue %s task %u: delivered while it is %s by process %d",
				  queue_names[queue], index, state_name(word),
				  atomic_load(&books->processes[(uint32_t)word >> 24].pid));
			return 0;
		}
	} while (!atomic_compare_exchange_strong(&task->word, &word, mine));
	if (atomic_load(&task->due_at_ns) > now_ns())
		violation("queue %s task %u: delivered %llu us before its time", queue_names[queue],
			  index,
			  (unsigned long long)(atomic_load(&task->due_at_ns) - now_ns()) / 1000);
	count(state_of(word) <= TASK_ENQUEUED ? EVENT_DELIVERED : EVENT_DELIVERED_AGAIN, 1);
	atomic_store(&task->due_at_ns, 0);
	return mine;
}

static void task_change(uint32_t queue, struct task_book *task, uint64_t *word, uint64_t next,
			const char *what)
{
	uint64_t expected = *word;

	if (!atomic_compare_exchange_strong(&task->word, &expected, next))
		violation("queue %s task %u: %s, but it is %s by process %d", queue_names[queue],
			  (unsigned)(task - books->tasks[queue]), what, state_name(expected),
			  atomic_load(&books->processes[(uint32_t)expected >> 24].pid));
	*word = next;
}

/* One task with its entry, or NULL. *ret_word is what the entry says. */
static struct task_book *deliver(struct worker *worker, uint32_t queue, uint64_t timeout_ns,
				 struct coshm_task *task, uint64_t *ret_word)
{
	size_t size = BUFFER_BYTES;
	struct task_book *book;
	uint64_t generation;
	int result = coshm_queue_reserve(worker->handles->queues[queue], timeout_ns, task);

	if (result == 0)
		return NULL;
	if (result != 1) {
		violation("queue %s: reserve gives %d", queue_names[queue], result);
		return NULL;
	}
	result = coshm_queue_payload(worker->handles->queues[queue], task, worker->copy, &size);
	if (result) {
		violation("queue %s: payload gives %d", queue_names[queue], result);
		return NULL;
	}
	book = payload_read(worker, queue, worker->copy, size, &generation);
	if (!book)
		return NULL;
	*ret_word = task_take(queue, book, generation);
	return *ret_word ? book : NULL;
}

static void acknowledge(struct worker *worker, uint32_t queue, const struct coshm_task *task,
			struct task_book *book, uint64_t word)
{
	const uint64_t generation = generation_of(word);
	int error;

	task_change(queue, book, &word, word_of(TASK_ACKING, generation, process_self()),
		    "about to be acked");
	error = coshm_queue_ack(worker->handles->queues[queue], task);
	if (error) {
		violation("queue %s: ack gives %d", queue_names[queue], error);
		return;
	}
	task_change(queue, book, &word, word_of(TASK_FREE, generation, 0), "acked");
	count(EVENT_ACKED, 1);
}

static void give_up(struct worker *worker, uint32_t queue, const struct coshm_task *task,
		    struct task_book *book, uint64_t word)
{
	struct coshm_queue *handle = worker->handles->queues[queue];
	const uint64_t delay_ns = random_below(&worker->random, 2)
					  ? COSHM_FOREVER
					  : random_below(&worker->random, 10 * MS);
	int error;

	task_change(queue, book, &word,
		    word_of(TASK_GIVING_UP, generation_of(word), process_self()),
		    "about to be given up");
	switch (random_below(&worker->random, 8)) {
	case 0:
		error = coshm_queue_bury(handle, task, "hopeless");
		break;
	case 1:
	case 2:
		error = coshm_queue_release(handle, task);
		break;
	default:
		error = coshm_queue_nack(handle, task, "not now", delay_ns);
	}
	if (error)
		violation("queue %s: giving up gives %d", queue_names[queue], error);
	count(EVENT_GIVEN_UP, 1);
}

static void consume_one(struct worker *worker, uint32_t queue)
{
	const uint64_t timeout_ns =
		random_below(&worker->random, 8) ? 0 : random_below(&worker->random, 3 * MS);
	struct coshm_task task;
	uint64_t word;
	struct task_book *book = deliver(worker, queue, timeout_ns, &task, &word);

	if (!book)
		return;
	if (random_below(&worker->random, 8) == 0)
		sleep_ns(random_below(&worker->random, 3 * MS));
	if (random_below(&worker->random, 5))
		acknowledge(worker, queue, &task, book, word);
	else
		give_up(worker, queue, &task, book, word);
}

void queue_work_over_fork(struct worker *worker, pid_t (*fork_now)(void *context), void *context)
{
	const uint32_t queue = (uint32_t)random_below(&worker->random, QUEUES);
	struct coshm_task task;
	uint64_t word;
	struct task_book *book = deliver(worker, queue, 0, &task, &word);
	pid_t pid = fork_now(context);

	if (!book)
		return;
	if (pid == 0) {
		/* The lease is the parent's, and stays it whatever the child tries. */
		size_t size = BUFFER_BYTES;

		if (coshm_queue_ack(worker->handles->queues[queue], &task) != -ESTALE ||
		    coshm_queue_release(worker->handles->queues[queue], &task) != -ESTALE ||
		    coshm_queue_payload(worker->handles->queues[queue], &task, worker->copy,
					&size) != -ESTALE)
			violation("queue %s: a forked child ends its parent's lease",
				  queue_names[queue]);
		return;
	}
	acknowledge(worker, queue, &task, book, word);
}

void queue_hold(struct worker *worker, int gives_up)
{
	const uint32_t queue = (uint32_t)random_below(&worker->random, QUEUES);
	struct coshm_task task;
	uint64_t word;
	struct task_book *book = deliver(worker, queue, 0, &task, &word);

	if (book && gives_up)
		task_change(queue, book, &word,
			    word_of(TASK_GIVING_UP, generation_of(word), process_self()),
			    "about to be left");
}

/* --- the gardener --------------------------------------------------------------------------------------------- */

struct letter {
	struct worker *worker;
	uint32_t queue;
	uint64_t id;
	struct task_book *book;
	uint64_t word;
};

static int pick_letter(void *context, const struct coshm_task_info *info, const void *payload)
{
	struct letter *letter = context;
	uint64_t generation;

	letter->book = payload_read(letter->worker, letter->queue, payload,
				    info->payload_size_bytes, &generation);
	if (!letter->book)
		return 1;
	letter->id = info->id;
	letter->word = atomic_load(&letter->book->word);
	if (info->state != COSHM_TASK_DEAD || info->attempts == 0)
		violation("queue %s: a dead letter in state %u after %u attempts",
			  queue_names[letter->queue], info->state, info->attempts);
	if (generation_of(letter->word) != generation)
		violation("queue %s task %u: a dead letter after its end",
			  queue_names[letter->queue],
			  (unsigned)(letter->book - books->tasks[letter->queue]));
	return 1;
}

/* One at a time, so that nobody else can bring back what is about to be dropped. */
static void garden(struct worker *worker, uint32_t queue)
{
	struct coshm_queue *handle = worker->handles->queues[queue];
	struct letter letter = {.worker = worker, .queue = queue};
	uint32_t nobody = 0;
	uint64_t done = 0;
	int error;

	if (!atomic_compare_exchange_strong(&books->gardener, &nobody, process_self()))
		return;
	if (random_below(&worker->random, 3)) {
		error = coshm_queue_redrive(handle, 0, &done);
		if (error)
			violation("queue %s: redrive gives %d", queue_names[queue], error);
	} else {
		error = coshm_queue_each(handle, 1u << COSHM_TASK_DEAD, COSHM_QUEUE_EACH_PAYLOAD,
					 pick_letter, &letter);
		if (error < 0)
			violation("queue %s: each gives %d", queue_names[queue], error);
		if (letter.book) {
			const uint64_t generation = generation_of(letter.word);

			task_change(queue, letter.book, &letter.word,
				    word_of(TASK_DROPPING, generation, process_self()),
				    "about to be dropped");
			error = coshm_queue_drop(handle, letter.id, &done);
			if (error)
				violation("queue %s: drop gives %d", queue_names[queue], error);
			task_change(queue, letter.book, &letter.word,
				    word_of(TASK_FREE, generation, 0), "dropped");
			count(EVENT_DROPPED, 1);
		}
	}
	atomic_store(&books->gardener, 0);
}

void queue_work(struct worker *worker)
{
	const uint32_t queue = (uint32_t)random_below(&worker->random, QUEUES);
	const uint64_t what = random_below(&worker->random, 1000);

	if (what < 480)
		enqueue_one(worker, queue);
	else if (what < 990)
		consume_one(worker, queue);
	else if (what < 996)
		garden(worker, queue);
	else {
		struct coshm_queue_depth depth;

		if (coshm_queue_depth(worker->handles->queues[queue], &depth) ||
		    depth.ready + depth.delayed + depth.leased + depth.dead > CAPACITY)
			violation("queue %s: more tasks than it has room for", queue_names[queue]);
	}
}

/* --- the beginning and the end -------------------------------------------------------------------------------- */

int queue_create(struct coshm_segment *segment)
{
	const struct coshm_queue_config configs[QUEUES] = {
		{.capacity = CAPACITY,
		 .payload_max_bytes = INLINE_BYTES_MAX,
		 .backoff_base_ns = MS,
		 .backoff_max_ns = 8 * MS,
		 .max_attempts = 6},
		{.capacity = CAPACITY,
		 .payload_max_bytes = PAYLOAD_BYTES_MAX,
		 .payload_pool_bytes = POOL_BYTES,
		 .backoff_base_ns = MS,
		 .backoff_max_ns = 8 * MS,
		 .backoff_jitter_percent = 50,
		 .max_attempts = 4},
	};
	int error = 0;

	for (uint32_t i = 0; i < QUEUES && !error; i++) {
		struct coshm_queue *queue;

		error = coshm_queue_create(segment, queue_names[i], &configs[i], 0, &queue);
		if (!error)
			error = coshm_queue_close(queue);
	}
	return error;
}

static void drain(struct worker *worker, uint32_t queue)
{
	const uint64_t deadline_ns = now_ns() + 60 * SECOND;
	struct coshm_queue_depth depth;

	do {
		struct coshm_task task;
		struct task_book *book;
		uint64_t word;

		if (coshm_queue_redrive(worker->handles->queues[queue], 0, NULL))
			violation("queue %s: redrive fails", queue_names[queue]);
		while ((book = deliver(worker, queue, 20 * MS, &task, &word)))
			acknowledge(worker, queue, &task, book, word);
		if (coshm_queue_depth(worker->handles->queues[queue], &depth))
			violation("queue %s: no depth", queue_names[queue]);
		if (now_ns() > deadline_ns) {
			violation("queue %s does not run empty: %llu ready, %llu delayed, %llu "
				  "leased, %llu dead",
				  queue_names[queue], (unsigned long long)depth.ready,
				  (unsigned long long)depth.delayed,
				  (unsigned long long)depth.leased, (unsigned long long)depth.dead);
			return;
		}
	} while (depth.ready + depth.delayed + depth.leased + depth.dead > 0);
}

static uint32_t fill_and_empty(struct worker *worker, struct coshm_queue *queue, size_t size)
{
	uint32_t fitted = 0, taken = 0;
	struct coshm_task task;

	memset(worker->copy, 'q', size);
	while (fitted <= CAPACITY &&
	       coshm_queue_enqueue(queue, worker->copy, size, NULL, NULL) == 0)
		fitted++;
	while (coshm_queue_reserve(queue, 0, &task) == 1 && coshm_queue_ack(queue, &task) == 0)
		taken++;
	if (taken != fitted)
		violation("a queue gives %u of %u", taken, fitted);
	return fitted;
}

void queue_audit(struct worker *worker)
{
	for (uint32_t queue = 0; queue < QUEUES; queue++) {
		struct coshm_queue *handle = worker->handles->queues[queue];
		uint32_t first, second;

		drain(worker, queue);
		for (uint32_t i = 0; i < TASKS; i++) {
			const uint64_t word = atomic_load(&books->tasks[queue][i].word);
			const int is_certain = state_of(word) == TASK_ENQUEUED ||
					       state_of(word) == TASK_LEASED ||
					       state_of(word) == TASK_GIVING_UP;

			if (is_certain)
				violation("queue %s task %u is lost: it was %s last",
					  queue_names[queue], i, state_name(word));
		}
		first = fill_and_empty(worker, handle, 8);
		second = fill_and_empty(worker, handle, 8);
		if (first != CAPACITY || second != CAPACITY)
			violation("queue %s holds %u, then %u tasks, not %d", queue_names[queue],
				  first, second, CAPACITY);
		if (queue == 1) {
			struct coshm_queue *fresh;
			uint32_t wanted;

			if (coshm_queue_create(worker->handles->segment, "fresh",
					       &(struct coshm_queue_config){
						       .capacity = CAPACITY,
						       .payload_max_bytes = PAYLOAD_BYTES_MAX,
						       .payload_pool_bytes = POOL_BYTES},
					       0, &fresh)) {
				violation("no room for a queue at the end");
				return;
			}
			wanted = fill_and_empty(worker, fresh, PAYLOAD_BYTES_MAX);
			first = fill_and_empty(worker, handle, PAYLOAD_BYTES_MAX);
			if (first != wanted)
				violation("queue %s: %u large payloads fit, not %u",
					  queue_names[queue], first, wanted);
			if (coshm_queue_close(fresh) ||
			    coshm_object_remove(worker->handles->segment, "fresh"))
				violation("a queue cannot be removed");
		}
	}
}
