/* SPDX-License-Identifier: MIT */
/* Snapshots of segments: each update and each copy costs what has changed, and one look at the rest. */
#include "support/step_local.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((noreturn)) static void give_up(const char *what, const char *path)
{
	fprintf(stderr, "step: %s %s: %s\n", what, path, strerror(errno));
	exit(99);
}

static void *must(void *memory)
{
	if (!memory || memory == MAP_FAILED)
		give_up("memory", "");
	return memory;
}

void step_file_open(struct step_file *file, const char *name, int writable)
{
	*file = (struct step_file){.fd = -1, .writable = writable};
	snprintf(file->path, sizeof(file->path), "/dev/shm/%s", name);
}

void step_file_close(struct step_file *file)
{
	if (file->fd < 0)
		return;
	munmap(file->map, STEP_SEGMENT_MAX);
	close(file->fd);
	file->fd = -1;
}

/* Follows the name: to another file, or to none. 1 there is one, and status is its */
static int file_follow(struct step_file *file, struct stat *status)
{
	int flags = O_CLOEXEC | (file->writable ? O_RDWR : O_RDONLY);

	if (stat(file->path, status)) {
		step_file_close(file);
		return 0;
	}
	if (file->fd >= 0 && status->st_ino == file->inode)
		return 1;
	step_file_close(file);
	file->fd = open(file->path, flags);
	if (file->fd < 0)
		give_up("cannot open", file->path);
	file->inode = status->st_ino;
	file->map = must(mmap(NULL, STEP_SEGMENT_MAX, PROT_READ | (file->writable ? PROT_WRITE : 0),
			      MAP_SHARED, file->fd, 0));
	return 1;
}

struct step_image *step_image_new(void)
{
	struct step_image *image = must(calloc(1, sizeof(*image)));

	image->bytes = must(mmap(NULL, STEP_SEGMENT_MAX, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	image->page_hash = must(calloc(STEP_SEGMENT_MAX / STEP_PAGE, sizeof(uint64_t)));
	return image;
}

void step_image_free(struct step_image *image)
{
	munmap(image->bytes, STEP_SEGMENT_MAX);
	free(image->page_hash);
	free(image);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
	return a ^ a >> 29;
}

/* The first and the last byte that differ, as far as one page goes. */
static void note_change(struct step_image *image, const unsigned char *now, uint64_t at)
{
	uint64_t from = 0, to = STEP_PAGE;

	while (from < to && image->bytes[at + from] == now[from])
		from++;
	while (to > from && image->bytes[at + to - 1] == now[to - 1])
		to--;
	image->changed_from = at + from;
	image->changed_bytes = to - from;
	memcpy(image->changed_was, image->bytes + at + from, to - from);
}

static int update_page(struct step_image *image, const struct step_file *file, uint64_t at)
{
	uint64_t length = image->size - at < STEP_PAGE ? image->size - at : STEP_PAGE;
	uint64_t *hash = &image->page_hash[at / STEP_PAGE];

	if (!memcmp(image->bytes + at, file->map + at, length))
		return 0;
	if (length == STEP_PAGE)
		note_change(image, file->map + at, at);
	memcpy(image->bytes + at, file->map + at, length);
	image->hash ^= mix(*hash, at);
	*hash = coshm__hash_place(at, image->bytes + at, STEP_PAGE);
	image->hash ^= mix(*hash, at);
	return 1;
}

int step_image_update(struct step_image *image, struct step_file *file)
{
	struct stat status;
	int exists = file_follow(file, &status), changed = 0;
	uint64_t size = exists ? (uint64_t)status.st_size : 0;

	if (size > STEP_SEGMENT_MAX)
		size = STEP_SEGMENT_MAX;
	if (exists != image->exists || size != image->size) {
		for (uint64_t at = size / STEP_PAGE * STEP_PAGE; at < image->size;
		     at += STEP_PAGE) {
			memset(image->bytes + at, 0, STEP_PAGE);
			image->hash ^= mix(image->page_hash[at / STEP_PAGE], at) ^ mix(0, at);
			image->page_hash[at / STEP_PAGE] = 0;
		}
		image->hash = mix(image->hash, size + (uint64_t)exists);
		image->exists = exists;
		image->size = size;
		changed = 1;
	}
	image->changed_bytes = 0;
	for (uint64_t at = 0; at < size; at += STEP_PAGE)
		changed |= update_page(image, file, at);
	return changed;
}

int step_image_update_at(struct step_image *image, struct step_file *file, uint64_t offset)
{
	uint64_t first = offset / STEP_PAGE * STEP_PAGE,
		 last = (offset + 63) / STEP_PAGE * STEP_PAGE;
	int changed = 0;

	if (file->fd < 0 || first >= image->size)
		return step_image_update(image, file);
	image->changed_bytes = 0;
	changed = update_page(image, file, first);
	if (last != first && last < image->size)
		changed |= update_page(image, file, last);
	return changed;
}

void step_image_write(const struct step_image *image, struct step_file *file)
{
	struct stat status;

	if (!image->exists) {
		if (unlink(file->path) && errno != ENOENT)
			give_up("cannot remove", file->path);
		step_file_close(file);
		return;
	}
	if (!file_follow(file, &status)) {
		int fd = open(file->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		if (fd < 0)
			give_up("cannot create", file->path);
		close(fd);
		if (!file_follow(file, &status))
			give_up("cannot find", file->path);
	}
	if ((uint64_t)status.st_size != image->size && ftruncate(file->fd, (off_t)image->size))
		give_up("cannot resize", file->path);
	for (uint64_t at = 0; at < image->size; at += STEP_PAGE) {
		uint64_t length = image->size - at < STEP_PAGE ? image->size - at : STEP_PAGE;

		if (memcmp(file->map + at, image->bytes + at, length))
			memcpy(file->map + at, image->bytes + at, length);
	}
}

static void word_difference(struct step_difference *sum, const unsigned char *before,
			    const unsigned char *after, uint64_t at)
{
	uint64_t was, is;

	memcpy(&was, before + at, sizeof(was));
	memcpy(&is, after + at, sizeof(is));
	if (was == is)
		return;
	sum->where = mix(sum->where, at << 2 | (uint64_t)(was == 0) << 1 | (uint64_t)(is == 0));
	sum->what = mix(mix(sum->what, at), was ^ (uint64_t)(is == 0));
}

struct step_difference step_image_difference(const struct step_image *before,
					     const struct step_image *after)
{
	uint64_t most = before->size > after->size ? before->size : after->size;
	uint64_t sizes =
		mix(before->size ^ (uint64_t)before->exists, after->size ^ (uint64_t)after->exists);
	struct step_difference sum = {sizes, sizes};

	for (uint64_t page = 0; page < most; page += STEP_PAGE)
		if (before->page_hash[page / STEP_PAGE] != after->page_hash[page / STEP_PAGE])
			for (uint64_t at = page; at < page + STEP_PAGE; at += sizeof(uint64_t))
				word_difference(&sum, before->bytes, after->bytes, at);
	return sum;
}

/* --- sets ---------------------------------------------------------------------------------------------------- */

static int set_put(uint64_t *words, size_t size, uint64_t word)
{
	size_t at = mix(word, 1) & (size - 1);

	while (words[at] && words[at] != word)
		at = (at + 1) & (size - 1);
	if (words[at])
		return 0;
	words[at] = word;
	return 1;
}

/* Not seen by children: each state is looked at by a new one, and to copy the page tables of a large set took it longer. */
static uint64_t *words_new(size_t size)
{
	void *words = mmap(NULL, size * sizeof(uint64_t), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(words != MAP_FAILED ? words : NULL);
	(void)madvise(words, size * sizeof(uint64_t), MADV_DONTFORK);
	return words;
}

static void words_free(uint64_t *words, size_t size)
{
	if (words)
		munmap(words, size * sizeof(uint64_t));
}

int step_set_add(struct step_set *set, uint64_t word)
{
	word += !word;
	if (set->count * 2 >= set->size) {
		size_t size = set->size ? set->size * 2 : 4096;
		uint64_t *words = words_new(size);

		for (size_t i = 0; i < set->size; i++)
			if (set->words[i])
				set_put(words, size, set->words[i]);
		words_free(set->words, set->size);
		set->words = words;
		set->size = size;
	}
	if (!set_put(set->words, set->size, word))
		return 0;
	set->count++;
	return 1;
}

void step_set_free(struct step_set *set)
{
	words_free(set->words, set->size);
	*set = (struct step_set){0};
}
