/* SPDX-License-Identifier: MIT */
#include "torture/books.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct books *books;

const char *const event_names[EVENTS] = {
	[EVENT_SETS] = "sets",
	[EVENT_SETS_REFUSED] = "sets_refused",
	[EVENT_DELETES] = "deletes",
	[EVENT_HITS] = "hits",
	[EVENT_MISSES] = "misses",
	[EVENT_LARGE_HITS] = "large_hits",
	[EVENT_SCANNED] = "scanned",
	[EVENT_PEEKS_READ_ONLY] = "read_only_hits",
	[EVENT_SCANNED_READ_ONLY] = "read_only_scanned",
	[EVENT_PINS] = "pins",
	[EVENT_INCREMENTS] = "increments",
	[EVENT_FLUSHES] = "flushes",
	[EVENT_ADMITTED] = "admitted",
	[EVENT_REFUSED] = "refused",
	[EVENT_ENQUEUED] = "enqueued",
	[EVENT_QUEUE_FULL] = "queue_full",
	[EVENT_DELIVERED] = "delivered",
	[EVENT_DELIVERED_AGAIN] = "delivered_again",
	[EVENT_ACKED] = "acked",
	[EVENT_GIVEN_UP] = "given_up",
	[EVENT_DROPPED] = "dropped",
	[EVENT_OBJECTS] = "objects",
	[EVENT_LIVES] = "lives",
	[EVENT_FORKS] = "forks",
	[EVENT_EXECS] = "execs",
	[EVENT_DETACHES] = "detaches",
	[EVENT_DEATHS_AT_POINTS] = "deaths_at_points",
	[EVENT_PAUSES_AT_POINTS] = "pauses_at_points",
};

int books_open(const char *folder, const struct plan *plan)
{
	char path[160];
	int fd, error = 0;

	snprintf(path, sizeof(path), "%s/books", folder);
	fd = open(path, O_RDWR | O_CLOEXEC | (plan ? O_CREAT | O_EXCL : 0), 0600);
	if (fd < 0)
		return -errno;
	if (plan && ftruncate(fd, sizeof(*books)))
		error = -errno;
	if (!error) {
		books = mmap(NULL, sizeof(*books), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (books == MAP_FAILED)
			error = -errno;
	}
	close(fd);
	if (!error && plan)
		books->plan = *plan;
	return error;
}

void violation(const char *format, ...)
{
	char text[512];
	va_list arguments;
	int length;

	length = snprintf(text, sizeof(text), "violation at %.3f s in process %d: ",
			  (double)(now_ns() - books->plan.started_at_ns) / 1e9, (int)getpid());
	va_start(arguments, format);
	vsnprintf(text + length, sizeof(text) - (size_t)length - 1, format, arguments);
	va_end(arguments);
	strcat(text, "\n");
	/* Of a broken soak the first few lines tell, not the thousands that may follow. */
	if (atomic_fetch_add(&books->violations, 1) < 20)
		(void)!write(STDERR_FILENO, text, strlen(text));
	atomic_store(&books->over, 1);
}

int is_over(void)
{
	return atomic_load_explicit(&books->over, memory_order_relaxed) ||
	       now_ns() > books->plan.hard_end_ns;
}

/* --- processes and actors ------------------------------------------------------------------------------------- */

static uint32_t self; /* index:8 << 24 | serial:24 */

static uint32_t reference_of(uint32_t index, uint32_t word)
{
	return index << 24 | (word >> 1 & 0xffffff);
}

uint32_t process_self(void)
{
	return self;
}

void process_enter(void)
{
	self = 0;
	for (uint32_t i = 0; i < PROCESSES; i++) {
		struct process_book *process = &books->processes[i];
		uint32_t word = atomic_load(&process->word);
		int nobody = 0;

		if (atomic_load(&process->pid) != 0 ||
		    !atomic_compare_exchange_strong(&process->pid, &nobody, -1))
			continue;
		atomic_store(&process->reads_only, 0);
		/* 0 would be nobody. */
		word = ((word >> 1) + 1) & 0xffffff;
		word = (word ? word : 1) << 1;
		atomic_store(&process->word, word);
		self = reference_of(i, word);
		/* Last: who finds the entry by its pid may doom it. */
		atomic_store(&process->pid, getpid());
		return;
	}
	fprintf(stderr, "torture: more than %d processes\n", PROCESSES);
	_exit(3);
}

static void doom(struct process_book *process)
{
	atomic_fetch_or(&process->word, 1);
}

void process_doom_self(void)
{
	doom(&books->processes[self >> 24]);
}

static struct process_book *process_find(pid_t pid)
{
	for (uint32_t i = 0; i < PROCESSES; i++)
		if (atomic_load(&books->processes[i].pid) == pid)
			return &books->processes[i];
	return NULL;
}

void process_doom(pid_t pid)
{
	struct process_book *process = process_find(pid);

	if (process)
		doom(process);
}

int process_collected(pid_t pid)
{
	struct process_book *process = process_find(pid);
	uint32_t word, reference, gardener;

	if (!process)
		return -1;
	word = atomic_load(&process->word);
	doom(process);
	reference = reference_of((uint32_t)(process - books->processes), word);
	gardener = reference;
	atomic_compare_exchange_strong(&books->gardener, &gardener, 0);
	for (int i = 0; i < ACTORS; i++) {
		uint32_t owner = reference;

		atomic_compare_exchange_strong(&books->actors[i].owner, &owner, 0);
	}
	atomic_store(&process->pid, 0);
	return (int)(word & 1);
}

int process_is_gone(uint32_t reference)
{
	uint32_t word = atomic_load(&books->processes[reference >> 24].word);

	return (word >> 1 & 0xffffff) != (reference & 0xffffff) || (word & 1);
}

int actor_claim(void)
{
	for (int i = 0; i < ACTORS; i++) {
		uint32_t nobody = 0;

		if (atomic_load(&books->actors[i].owner) == 0 &&
		    atomic_compare_exchange_strong(&books->actors[i].owner, &nobody, self))
			return i;
	}
	return -1;
}

void actor_release(int actor)
{
	if (actor >= 0)
		atomic_store(&books->actors[actor].owner, 0);
}

/* --- time and chance ------------------------------------------------------------------------------------------ */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t now_coarse_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

void sleep_ns(uint64_t for_ns)
{
	const struct timespec ts = {.tv_sec = (time_t)(for_ns / SECOND),
				    .tv_nsec = (long)(for_ns % SECOND)};

	nanosleep(&ts, NULL);
}

uint64_t mix(uint64_t word)
{
	word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
	return word ^ (word >> 31);
}

uint64_t random_next(uint64_t *word)
{
	return mix(*word += UINT64_C(0x9e3779b97f4a7c15));
}

static uint64_t pattern_word(uint64_t seed, uint64_t position)
{
	return (seed ^ (position * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xd6e8feb86659fd93);
}

void pattern_fill(uint64_t seed, void *bytes, size_t size_bytes)
{
	unsigned char *to = bytes;

	for (size_t i = 0; i < size_bytes; i += 8) {
		const uint64_t word = pattern_word(seed, i);

		memcpy(to + i, &word, size_bytes - i < 8 ? size_bytes - i : 8);
	}
}

int pattern_matches(uint64_t seed, const void *bytes, size_t size_bytes)
{
	const unsigned char *from = bytes;

	for (size_t i = 0; i < size_bytes; i += 8) {
		const uint64_t word = pattern_word(seed, i);

		if (memcmp(from + i, &word, size_bytes - i < 8 ? size_bytes - i : 8) != 0)
			return 0;
	}
	return 1;
}
