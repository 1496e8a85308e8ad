/* SPDX-License-Identifier: MIT */
/*
 * The directory of objects.
 *
 * Words     entry->word (state, owner, generation), under directory_lock; but BUILDING -> LIVE is the creator's alone, and
 *           BUILDING of a dead creator -> FREE also any reaper's.
 *           member->open_objects: the member's own.
 * Commit    create: the store of LIVE. remove: the store of REMOVED.
 * Repair    none. BUILDING of a dead creator is a gap for the next create, and made FREE by it or by reaping. Memory growth is published after the file
 *           system has given it. The directory's lock guards only single-word commits, so whoever takes it over from a
 *           dead holder simply goes on.
 * Opening   (Dekker with reuse) set my bit, then look again whether the entry is still LIVE; reuse looks for bits after
 *           REMOVED was stored. Both seq_cst: at least one sees the other.
 */
#include "base/crash.h"
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_WORDS (COSHM_NAME_SIZE_BYTES / 8)

struct name {
	uint64_t words[NAME_WORDS];
};

static int name_parse(const char *text, struct name *name)
{
	size_t length = text ? strnlen(text, COSHM_NAME_SIZE_BYTES) : 0;

	if (length == COSHM_NAME_SIZE_BYTES)
		return coshm__fail(-ENAMETOOLONG, "object name \"%.60s\" is longer than %d bytes",
				   text, COSHM_NAME_SIZE_BYTES - 1);
	for (size_t i = 0; i < length; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-",
			    text[i]))
			length = 0;
	if (length == 0)
		return coshm__fail(-EINVAL,
				   "an object's name is made of letters, digits, '.', '_' and '-'");
	memset(name, 0, sizeof(*name));
	memcpy(name->words, text, length);
	return 0;
}

static int name_is(const struct coshm__entry_shm *entry, const struct name *name)
{
	for (unsigned int i = 0; i < NAME_WORDS; i++)
		if (coshm__a64_load_relaxed(&entry->name[i]) != name->words[i])
			return 0;
	return 1;
}

struct range {
	uint64_t offset_bytes;
	uint64_t size_bytes;
};

/* The entry's range, read once: what is in the segment may change at any time. 1 if it is a possible one */
static int range_read(const struct coshm__segment *segment, const struct coshm__entry_shm *entry,
		      struct range *ret)
{
	ret->offset_bytes = coshm__a64_load_relaxed(&entry->offset_bytes);
	ret->size_bytes = coshm__a64_load_relaxed(&entry->size_bytes);
	return ret->offset_bytes % COSHM__PAGE_BYTES == 0 &&
	       ret->size_bytes % COSHM__PAGE_BYTES == 0 &&
	       ret->offset_bytes >= segment->objects_offset &&
	       ret->offset_bytes <= segment->size_max_bytes &&
	       ret->size_bytes <= segment->size_max_bytes - ret->offset_bytes;
}

/* The same, and the memory is there. 0, -EUCLEAN, or as coshm__segment_has */
static int memory_read(struct coshm__segment *segment, const struct coshm__entry_shm *entry,
		       struct range *ret)
{
	return range_read(segment, entry, ret)
		       ? coshm__segment_has(segment, ret->offset_bytes, ret->size_bytes)
		       : -EUCLEAN;
}

/* The live entry of that name; its word in *ret_word. -ENOENT */
static int entry_find(const struct coshm__segment *segment, const struct name *name,
		      uint64_t *ret_word)
{
	for (int i = 0; i < COSHM__ENTRY_COUNT; i++) {
		struct coshm__entry_shm *entry = &segment->entries[i];
		/* [D2] acquire, pairs [D1]; carries the entry's fields and the object's first contents */
		uint64_t word = coshm__a64_load_acquire(&entry->word);

		if (coshm__entry_state_of(word) == COSHM__ENTRY_LIVE && name_is(entry, name)) {
			*ret_word = word;
			return i;
		}
	}
	return -ENOENT;
}

uint32_t coshm__object_open_count(const struct coshm__segment *segment, uint32_t entry_index)
{
	/* [M7] seq_cst, pairs [M6] */
	uint32_t count = 0, high = coshm__a32_load_seq_cst(&segment->header->member_high_water);

	for (uint32_t i = 0; i < high && i < segment->member_count_max; i++) {
		struct coshm__member_shm *member = &segment->members[i];

		/* [D4] seq_cst, pairs [D3]. The bits of a free slot mean nothing. */
		if ((coshm__a64_load_seq_cst(&member->word) & 3) != COSHM__MEMBER_FREE &&
		    /* [D4] */
		    (coshm__a64_load_seq_cst(&member->open_objects[entry_index / 64]) >>
			     (entry_index % 64) &
		     1))
			count++;
	}
	return count;
}

static struct coshm__member_shm *own_member(struct coshm__segment *segment)
{
	uint64_t key = coshm__a64_load_relaxed(&coshm__process->key[segment->index]);

	return &segment->members[COSHM__MEMBER_SLOT_OF((uint32_t)key)];
}

/* 1 if the entry is still what it was */
static int open_bit_set(struct coshm__segment *segment, uint32_t index, uint64_t word)
{
	struct coshm__member_shm *member = own_member(segment);

	/* [D3] seq_cst, pairs [D4], [D5] */
	coshm__a64_fetch_or_seq_cst(&member->open_objects[index / 64], UINT64_C(1) << index % 64);
	COSHM__CRASH_POINT(DIRECTORY_OPEN_BIT);
	/* [D3] */
	return coshm__a64_load_seq_cst(&segment->entries[index].word) == word;
}

static void open_bit_clear(struct coshm__segment *segment, uint32_t index)
{
	/* [D3] */
	coshm__a64_fetch_and_seq_cst(&own_member(segment)->open_objects[index / 64],
				     ~(UINT64_C(1) << index % 64));
	COSHM__CRASH_POINT(DIRECTORY_CLOSED_BIT);
}

/*
 * Under the process mutex: handles that are out of the table and wait for their grace period. They count like open ones
 * until they are released: once the open bit is cleared, the memory may be somebody else's.
 */
static struct coshm__handle *closing;

/* How many handles of this process lead to the entry? Under the process mutex. */
static uint32_t handles_on(const struct coshm__segment *segment, uint32_t index, uint64_t word)
{
	uint32_t count = 0;

	for (unsigned int i = 0; i < COSHM__HANDLES_MAX; i++) {
		struct coshm__handle *handle =
			atomic_load_explicit(&coshm__handles[i], memory_order_relaxed);

		if (handle && handle->segment == segment && handle->type != COSHM__TYPE_SEGMENT &&
		    handle->entry_index == index && handle->entry_word == word)
			count++;
	}
	for (const struct coshm__handle *handle = closing; handle; handle = handle->local_next)
		count += handle->segment == segment && handle->entry_index == index &&
			 handle->entry_word == word;
	return count;
}

static struct coshm__handle *handle_new(struct coshm__segment *segment, uint32_t index,
					uint64_t word, const struct range *range,
					const struct coshm__object_type *type)
{
	struct coshm__handle *handle = calloc(1, sizeof(*handle));

	if (!handle)
		return NULL;
	handle->type = type->type;
	handle->object_type = type;
	handle->segment = segment;
	handle->entry_index = index;
	handle->entry_word = word;
	handle->size_bytes = range->size_bytes;
	handle->object = segment->base + range->offset_bytes;
	return handle;
}

/* With its process-local part. 0, -ENOMEM, -EUCLEAN */
static int handle_attach(struct coshm__segment *segment, uint32_t index, uint64_t word,
			 const struct range *range, const struct coshm__object_type *type,
			 struct coshm__handle **ret_handle)
{
	struct coshm__handle *handle = handle_new(segment, index, word, range, type);
	int error = handle ? type->attach(handle) : -ENOMEM;

	if (error)
		free(handle);
	else
		*ret_handle = handle;
	return error;
}

static void handle_free(struct coshm__handle *handle)
{
	if (handle) {
		handle->object_type->detach(handle);
		free(handle);
	}
}

/* Under the process mutex, inside an operation on the segment. @handle: made by the creator; NULL: it is made here */
static int open_entry(struct coshm__op *op, uintptr_t segment_token, uint32_t index, uint64_t word,
		      const struct coshm__object_type *type, struct coshm__handle *handle,
		      void **ret_token)
{
	struct coshm__segment *segment = op->segment;
	struct coshm__entry_shm *entry = &segment->entries[index];
	int error = 0, was_open = segment->read_only || handles_on(segment, index, word) > 0;
	struct range range;

	/* First the bit, then a look at what it keeps. */
	if (!was_open && !open_bit_set(segment, index, word))
		error = -ENOENT;
	if (!error && coshm__a64_load_relaxed(&entry->type) != type->type)
		error = coshm__fail(-EPROTOTYPE, "the object is no %s", type->name);
	if (!error)
		error = memory_read(segment, entry, &range);
	if (error == -EUCLEAN)
		coshm__fail(error, "the directory entry lies outside of the segment");
	if (!error && segment->read_only) {
		coshm__acquire_fence(); /* without a bit, as in every look without a lock: see object_copy */
		error = coshm__a64_load_relaxed(&entry->word) == word ? 0 : -ENOENT;
	}
	if (!error && !handle)
		error = handle_attach(segment, index, word, &range, type, &handle);
	if (!error) {
		handle->segment_token = segment_token;
		error = coshm__handle_publish(handle);
	}
	if (error) {
		if (!was_open)
			open_bit_clear(segment, index);
		handle_free(handle);
		return error;
	}
	*ret_token = (void *)handle->token;
	return 0;
}

int coshm__object_open(struct coshm_segment *token, const char *text,
		       const struct coshm__object_type *type, void **ret_token)
{
	struct coshm__op op;
	struct name name;
	uint64_t word = 0;
	int saved_errno = errno, index;
	int error = coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT);

	/* The first operation of a fork child registers it, which takes the mutex that is needed below. */
	if (error)
		return error;
	coshm__op_end(&op);
	coshm__process_lock();
	error = coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT);
	if (error) {
		coshm__process_unlock();
		return error;
	}
	error = name_parse(text, &name);
	/* relaxed: it only says whether the name is gone */
	if (!error && coshm__a32_load_relaxed(&op.segment->header->state) != COSHM__SEGMENT_READY)
		error = coshm__fail(-ESTALE, "%s was removed", op.segment->path);
	if (!error) {
		index = entry_find(op.segment, &name, &word);
		error = index < 0 ? coshm__fail(-ENOENT, "%s: no object \"%s\"", op.segment->path,
						text)
				  : open_entry(&op, (uintptr_t)token, (uint32_t)index, word, type,
					       NULL, ret_token);
	}
	coshm__op_end(&op);
	coshm__process_unlock();
	errno = saved_errno;
	return error;
}

/* --- creation, under the directory lock -------------------------------------------------------------------- */

/* Entries that mean nothing any more become FREE: of dead creators, and removed ones that nobody has open. */
static void entries_tidy(struct coshm__op *op)
{
	struct coshm__segment *segment = op->segment;

	for (uint32_t i = 0; i < COSHM__ENTRY_COUNT; i++) {
		struct coshm__entry_shm *entry = &segment->entries[i];
		uint64_t word =
			coshm__a64_load_seq_cst(&entry->word); /* [D4]: REMOVED before the bits */
		uint64_t state = coshm__entry_state_of(word);

		if ((state == COSHM__ENTRY_BUILDING &&
		     coshm__member_is_dead(segment, coshm__entry_owner_of(word))) ||
		    (state == COSHM__ENTRY_REMOVED && coshm__object_open_count(segment, i) == 0 &&
		     !coshm__somebody_reaps(segment))) {
			/* [D1]. A CAS: who was building may have made it LIVE, and left, since the load. */
			coshm__a64_cas_acq_rel(&entry->word, &word,
					       coshm__entry_word(coshm__entry_generation_of(word),
								 0, COSHM__ENTRY_FREE));
			COSHM__CRASH_POINT(DIRECTORY_TIDIED);
		}
	}
}

/* Where does an object of this size fit? Tries the start and the end of every other one. */
static int gap_find(const struct coshm__segment *segment, uint64_t size_bytes, uint64_t *ret_offset)
{
	uint64_t start = segment->objects_offset;

	for (unsigned int moves = 0; moves <= COSHM__ENTRY_COUNT; moves++) {
		uint64_t blocked_until = 0;

		if (start > segment->size_max_bytes || size_bytes > segment->size_max_bytes - start)
			break;
		for (int i = 0; i < COSHM__ENTRY_COUNT; i++) {
			const struct coshm__entry_shm *entry = &segment->entries[i];
			struct range range;
			uint64_t end;

			if (coshm__entry_state_of(coshm__a64_load_relaxed(&entry->word)) ==
			    COSHM__ENTRY_FREE)
				continue;
			/* Where its memory is nobody knows: it could be anywhere. */
			if (!range_read(segment, entry, &range))
				return coshm__fail(-EUCLEAN, "%s: the directory is damaged",
						   segment->path);
			end = range.offset_bytes + range.size_bytes;
			if (range.offset_bytes < start + size_bytes && start < end &&
			    end > blocked_until)
				blocked_until = end;
		}
		if (!blocked_until) {
			*ret_offset = start;
			return 0;
		}
		start = blocked_until;
	}
	return coshm__fail(-EDQUOT,
			   "%s: no gap of %llu bytes: create it with a larger size_max_bytes",
			   segment->path, (unsigned long long)size_bytes);
}

/*
 * The file from @now on, where its memory ends, to @end_bytes. What was allocated before the room ran out goes back: nobody
 * has seen it, and others may want it. Not more than that, whatever the header said: members use the rest.
 */
static int grow(int fd, const char *path, uint64_t now, uint64_t end_bytes)
{
	struct stat before;
	int error;

	if (fstat(fd, &before))
		return -errno;
	if (now > (uint64_t)before.st_size)
		now = (uint64_t)before.st_size;
	error = coshm__file_allocate(fd, now, end_bytes);
	if (error && ftruncate(fd, before.st_size))
		coshm__log(COSHM_LOG_WARNING, "%s: cannot give back memory", path);
	return error;
}

/* Memory for everything up to end. */
static int commit(struct coshm__segment *segment, uint64_t end_bytes)
{
	struct coshm__a64 *committed = &segment->header->committed_bytes;
	uint64_t now = coshm__a64_load_relaxed(committed);
	int error, close_it, fd;

	if (end_bytes <= now)
		return 0;
	fd = coshm__segment_fd(segment, &close_it);
	error = fd < 0 ? fd : grow(fd, segment->path, now, end_bytes);
	if (close_it && fd >= 0)
		close(fd);
	if (error)
		return coshm__file_no_space(segment->path, end_bytes - now, error);
	COSHM__CRASH_POINT(DIRECTORY_GROWN);
	/* relaxed: it is only a bound; offsets beyond the old one are published later, by [D1] */
	coshm__a64_store_relaxed(committed, end_bytes);
	COSHM__CRASH_POINT(DIRECTORY_COMMITTED);
	return 0;
}

struct building {
	uint32_t index;
	uint64_t word;
	struct range range;
	uint64_t used_bytes; /* of the object's memory, from its start: not known to be zero */
};

/* Takes an entry and memory: state BUILDING. */
static int build_begin(struct coshm__op *op, const struct name *name, uint32_t type,
		       uint64_t size_bytes, struct building *ret)
{
	struct coshm__segment *segment = op->segment;
	struct coshm__a64 *touched = &segment->header->touched_bytes;
	uint64_t offset = 0, untouched;
	struct coshm__entry_shm *entry;
	uint32_t index = 0;
	int error;

	while (index < COSHM__ENTRY_COUNT &&
	       coshm__entry_state_of(coshm__a64_load_relaxed(&segment->entries[index].word)) !=
		       COSHM__ENTRY_FREE)
		index++;
	if (index == COSHM__ENTRY_COUNT)
		return coshm__fail(-EDQUOT, "%s has %d objects already", segment->path,
				   COSHM__ENTRY_COUNT);
	error = gap_find(segment, size_bytes, &offset);
	if (!error)
		error = commit(segment, offset + size_bytes);
	if (error)
		return error;
	untouched = coshm__a64_load_relaxed(touched);
	ret->used_bytes = untouched <= offset		    ? 0
			  : untouched - offset < size_bytes ? untouched - offset
							    : size_bytes;
	if (untouched < offset + size_bytes)
		coshm__a64_store_relaxed(touched, offset + size_bytes);
	COSHM__CRASH_POINT(DIRECTORY_TOUCHED);
	entry = &segment->entries[index];
	/* Who looks without a lock and sees a field of the new object also sees that the old one is gone. */
	coshm__release_fence();
	coshm__a64_store_relaxed(&entry->type, type);
	coshm__a64_store_relaxed(&entry->offset_bytes, offset);
	coshm__a64_store_relaxed(&entry->size_bytes, size_bytes);
	coshm__a64_store_relaxed(&entry->created_at_ns, coshm__now_ns(segment));
	for (unsigned int i = 0; i < NAME_WORDS; i++)
		coshm__a64_store_relaxed(&entry->name[i], name->words[i]);
	ret->index = index;
	ret->range = (struct range){.offset_bytes = offset, .size_bytes = size_bytes};
	ret->word = coshm__entry_word(
		(coshm__entry_generation_of(coshm__a64_load_relaxed(&entry->word)) + 1) &
			0x3fffffff,
		op->member_id, COSHM__ENTRY_BUILDING);
	coshm__a64_store_release(&entry->word, ret->word); /* [D1] */
	COSHM__CRASH_POINT(DIRECTORY_BUILDING);
	return 0;
}

/* 0 taken, *ret is BUILDING; 1 there is a live one; -EINPROGRESS somebody is building it; negative */
static int build_or_find(struct coshm__op *op, const struct name *name, uint32_t type,
			 uint64_t size_bytes, struct building *ret)
{
	struct coshm__rlock_shm *lock = &op->segment->header->directory_lock;
	int error = coshm__rlock_acquire(op, lock, COSHM__LOCK_TIMEOUT_NS);

	if (error)
		return error;
	entries_tidy(op);
	for (int i = 0; i < COSHM__ENTRY_COUNT && !error; i++) {
		struct coshm__entry_shm *entry = &op->segment->entries[i];
		uint64_t state =
			coshm__entry_state_of(coshm__a64_load_acquire(&entry->word)); /* [D2] */

		if (state == COSHM__ENTRY_LIVE && name_is(entry, name))
			error = 1;
		else if (state == COSHM__ENTRY_BUILDING && name_is(entry, name))
			error = -EINPROGRESS;
	}
	if (!error)
		error = build_begin(op, name, type, size_bytes, ret);
	coshm__rlock_release(op, lock);
	return error;
}

/* BUILDING -> LIVE; or -> FREE if the module's initialisation fails, or there is no memory for the creator's handle. */
static int build_finish(struct coshm__op *op, const struct building *building,
			const struct coshm__object_type *type,
			int (*initialise)(struct coshm__handle *handle, const void *context),
			const void *context, struct coshm__handle **ret_handle)
{
	struct coshm__entry_shm *entry = &op->segment->entries[building->index];
	uint64_t live =
		coshm__entry_word(coshm__entry_generation_of(building->word), 0, COSHM__ENTRY_LIVE);
	struct coshm__handle *handle = NULL;
	int error = 0;

	/* Also when the directory and the file say different things: then it is not there. */
	error = coshm__segment_has(op->segment, building->range.offset_bytes,
				   building->range.size_bytes);
	if (error == -EUCLEAN)
		coshm__fail(error, "%s: new memory is not there", op->segment->path);
	if (!error) {
		handle = handle_new(op->segment, building->index, live, &building->range, type);
		error = handle ? 0 : -ENOMEM;
	}
	if (!error) {
		memset(handle->object, 0, building->used_bytes);
		error = initialise(handle, context);
	}
	if (!error)
		error = type->attach(handle);
	if (error)
		free(handle);
	else
		*ret_handle = handle;
	COSHM__CRASH_POINT(DIRECTORY_INITIALISED);
	/* [D1] release, pairs [D2]; carries the entry and the object's first contents. The commit point. */
	coshm__a64_store_release(
		&entry->word, error ? coshm__entry_word(coshm__entry_generation_of(building->word),
							0, COSHM__ENTRY_FREE)
				    : live);
	COSHM__CRASH_POINT(DIRECTORY_LIVE);
	return error;
}

/* The dead may keep memory and entries. 1 they do not any more; 0 somebody has been cleaning up for 100 ms */
static int make_room(struct coshm__op *op)
{
	const struct timespec pause = {.tv_nsec = (long)COSHM__NS_PER_MS};

	coshm__reap_all(op, UINT64_MAX, NULL);
	for (int waits = 0; waits < 100 && coshm__somebody_reaps(op->segment); waits++)
		nanosleep(&pause, NULL);
	return !coshm__somebody_reaps(op->segment);
}

/* 0 created, *ret_handle is the creator's; 1 there is one of that name already, which @flags allow; negative */
static int object_build(struct coshm_segment *token, const char *text,
			const struct coshm__object_type *type, uint64_t size_bytes, uint32_t flags,
			int (*initialise)(struct coshm__handle *handle, const void *context),
			const void *context, struct coshm__handle **ret_handle)
{
	struct coshm__op op;
	struct name name;
	struct building building = {0};
	int is_reaped = 0, was_full = 0, error = coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT);

	if (error)
		return error;
	error = name_parse(text, &name);
	/* relaxed: it only says whether the name is gone */
	if (!error && coshm__a32_load_relaxed(&op.segment->header->state) != COSHM__SEGMENT_READY)
		error = coshm__fail(-ESTALE, "%s was removed", op.segment->path);
	if (!error && (size_bytes == 0 || size_bytes > op.segment->size_max_bytes))
		error = coshm__fail(-EDQUOT,
				    "%s: an object of %llu bytes is larger than the segment "
				    "may grow (%llu)",
				    op.segment->path, (unsigned long long)size_bytes,
				    (unsigned long long)op.segment->size_max_bytes);
	size_bytes = (size_bytes + COSHM__PAGE_BYTES - 1) & ~(uint64_t)(COSHM__PAGE_BYTES - 1);
	for (int tries = 0; !error; tries++) {
		const struct timespec pause = {.tv_nsec = (long)COSHM__NS_PER_MS};

		error = build_or_find(&op, &name, type->type, size_bytes, &building);
		if ((error == -EDQUOT || error == -ENOSPC || error == -EFBIG) && !is_reaped) {
			if (!was_full) {
				was_full = 1;
				is_reaped = make_room(&op);
				error = 0;
				continue;
			}
			error = coshm__fail(
				-EAGAIN,
				"%s: no room for \"%s\" before a member is done that has "
				"been cleaning up for 100 ms; if it is stopped, resume or kill it",
				op.segment->path, text);
		}
		if (error == -EINPROGRESS && tries == 100)
			error = coshm__fail(-EAGAIN,
					    "%s: somebody has been creating \"%s\" for "
					    "100 ms",
					    op.segment->path, text);
		if (error != -EINPROGRESS)
			break;
		/* Somebody else is making it: this is short. */
		error = 0;
		coshm__op_end(&op);
		nanosleep(&pause, NULL);
		error = coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT);
		if (error)
			return error;
	}
	if (error == 0)
		error = build_finish(&op, &building, type, initialise, context, ret_handle);
	else if (error == 1 && !(flags & COSHM_CREATE_OR_OPEN))
		error = coshm__fail(-EEXIST, "%s: object \"%s\" exists already", op.segment->path,
				    text);
	coshm__op_end(&op);
	return error;
}

static int handle_reserve(void)
{
	int error;

	if (!coshm__process)
		return -EBADF;
	coshm__process_lock();
	error = coshm__handle_reserve();
	coshm__process_unlock();
	return error;
}

/* Gives back the place that was reserved, and puts the creator's handle there, if any. */
static int created_open(struct coshm_segment *token, struct coshm__handle *handle, void **ret_token)
{
	struct coshm__op op;
	int error = 0;

	coshm__process_lock();
	coshm__handle_unreserve();
	if (handle) {
		error = coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT);
		if (error) {
			handle_free(handle);
		} else {
			error = open_entry(&op, (uintptr_t)token, handle->entry_index,
					   handle->entry_word, handle->object_type, handle,
					   ret_token);
			coshm__op_end(&op);
		}
	}
	coshm__process_unlock();
	return error;
}

/* Once others can use the object: it takes a while, and nobody waits for it but this process's detach. */
static void ask_for_huge_pages(struct coshm_segment *token, const struct coshm__handle *handle)
{
	struct coshm__op op;

	if (coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT))
		return;
	coshm__huge_pages(op.segment, coshm__offset_of(op.segment, handle->object),
			  handle->size_bytes);
	coshm__op_end(&op);
}

int coshm__object_create(struct coshm_segment *token, const char *text,
			 const struct coshm__object_type *type, uint64_t size_bytes, uint32_t flags,
			 int (*initialise)(struct coshm__handle *handle, const void *context),
			 const void *context, void **ret_token)
{
	struct coshm__handle *handle = NULL;
	int saved_errno = errno, built, error = handle_reserve();

	if (error)
		return error;
	built = object_build(token, text, type, size_bytes, flags, initialise, context, &handle);
	if (handle)
		ask_for_huge_pages(token, handle);
	error = created_open(token, handle, ret_token);
	errno = saved_errno;
	if (built == 1)
		return coshm__object_open(token, text, type, ret_token);
	return built ? built : error;
}

int coshm_object_remove(struct coshm_segment *token, const char *text)
{
	struct coshm__op op;
	struct coshm__handle *view = NULL;
	struct coshm__rlock_shm *lock;
	struct name name;
	uint64_t word = 0;
	int index, error = coshm__op_begin(&op, token, COSHM__TYPE_SEGMENT);

	if (error)
		return error;
	lock = &op.segment->header->directory_lock;
	error = name_parse(text, &name);
	if (!error)
		error = coshm__rlock_acquire(&op, lock, COSHM__LOCK_TIMEOUT_NS);
	if (error) {
		coshm__op_end(&op);
		return error;
	}
	index = entry_find(op.segment, &name, &word);
	if (index >= 0)
		error = coshm__view_find(op.segment, (uint32_t)index, &view);
	/* A damaged one can be removed, too. Nobody could be told that it is over if it is out of reach now. */
	if (!coshm__is_out_of_reach(error))
		error = 0;
	if (!error && index >= 0) {
		/* [D5] seq_cst, pairs [D3]; whoever sets its bit later sees it. The commit point. */
		coshm__a64_store_seq_cst(&op.segment->entries[index].word,
					 coshm__entry_word(coshm__entry_generation_of(word), 0,
							   COSHM__ENTRY_REMOVED));
		COSHM__CRASH_POINT(DIRECTORY_REMOVED);
		/* Under the lock, which keeps the entry and its memory from being reused, should this process be stopped. */
		if (view && view->object_type->removed)
			view->object_type->removed(view);
	}
	coshm__rlock_release(&op, lock);
	if (index < 0)
		error = coshm__fail(-ENOENT, "%s: no object \"%s\"", op.segment->path, text);
	coshm__op_end(&op);
	return error;
}

int coshm__object_is_there(const struct coshm__handle *handle)
{
	const struct coshm__entry_shm *entry = &handle->segment->entries[handle->entry_index];
	uint64_t word;

	/* A fence, pairs the one in build_begin: who read a byte of the memory's next life sees that the entry is over. */
	coshm__acquire_fence();
	word = coshm__a64_load_relaxed(&entry->word);
	return coshm__entry_generation_of(word) == coshm__entry_generation_of(handle->entry_word) &&
	       (coshm__entry_state_of(word) == COSHM__ENTRY_LIVE ||
		coshm__entry_state_of(word) == COSHM__ENTRY_REMOVED);
}

/* --- closing ------------------------------------------------------------------------------------------------ */

static void closing_remove(const struct coshm__handle *handle)
{
	struct coshm__handle **link = &closing;

	while (*link && *link != handle)
		link = &(*link)->local_next;
	if (*link)
		*link = handle->local_next;
}

/* After the grace period, under the process mutex: was it the process's last handle on the object? */
static void handle_release(struct coshm__handle *handle)
{
	struct coshm__segment *segment = handle->segment;
	struct coshm__op op;

	closing_remove(handle);
	if (!segment->read_only && !coshm__a32_load_relaxed(&handle->stale) &&
	    handles_on(segment, handle->entry_index, handle->entry_word) == 0 &&
	    coshm__a64_load_relaxed(&coshm__process->key[segment->index]) &&
	    coshm__op_begin_internal(&op, segment) == 0) {
		op.handle = handle;
		if (handle->object_type->leave)
			handle->object_type->leave(&op, handle);
		open_bit_clear(segment, handle->entry_index);
		coshm__op_end(&op);
	}
	handle_free(handle);
}

int coshm__object_close(void *token, uint32_t type)
{
	struct coshm__handle *handle;
	int saved_errno = errno;

	if (!token)
		return 0;
	if (!coshm__process)
		return -EBADF;
	coshm__process_lock();
	handle = coshm__handle_retire((uintptr_t)token, type);
	if (handle) {
		handle->local_next = closing;
		closing = handle;
	}
	coshm__process_unlock();
	if (!handle)
		return -EBADF;
	coshm__handles_quiesce();
	coshm__process_lock();
	handle_release(handle);
	coshm__process_unlock();
	errno = saved_errno;
	return 0;
}

/* The first handle from *index on that was opened through the segment's; its token, 0 if there is none. */
static uintptr_t next_of(const struct coshm__segment *segment, uintptr_t segment_token,
			 unsigned int *index, uint32_t *ret_type)
{
	while (*index < COSHM__HANDLES_MAX) {
		struct coshm__handle *handle =
			atomic_load_explicit(&coshm__handles[(*index)++], memory_order_relaxed);

		if (handle && handle->segment == segment && handle->type != COSHM__TYPE_SEGMENT &&
		    handle->segment_token == segment_token) {
			*ret_type = handle->type;
			return handle->token;
		}
	}
	return 0;
}

void coshm__objects_close_of(struct coshm__segment *segment, uintptr_t segment_token)
{
	unsigned int index = 0;
	uintptr_t token;
	uint32_t type;

	do {
		coshm__process_lock();
		token = next_of(segment, segment_token, &index, &type);
		coshm__process_unlock();
		if (token)
			coshm__object_close((void *)token, type);
	} while (token);
}

void coshm__objects_inherit(struct coshm__segment *segment)
{
	uint64_t has_bit[COSHM__ENTRY_COUNT] = {0}; /* the word of the entry that the bit is for */

	closing = NULL; /* of threads that only the parent has */
	for (unsigned int i = 0; i < COSHM__HANDLES_MAX; i++) {
		struct coshm__handle *handle =
			atomic_load_explicit(&coshm__handles[i], memory_order_relaxed);

		if (!handle || handle->segment != segment || handle->type == COSHM__TYPE_SEGMENT)
			continue;
		/* All handles on one entry share its bit and its fate. */
		if (has_bit[handle->entry_index] == handle->entry_word)
			continue;
		if (open_bit_set(segment, handle->entry_index, handle->entry_word)) {
			has_bit[handle->entry_index] = handle->entry_word;
			continue;
		}
		if (!has_bit[handle->entry_index])
			open_bit_clear(segment, handle->entry_index);
		coshm__a32_store_relaxed(&handle->stale, 1);
	}
}

/* --- views -------------------------------------------------------------------------------------------------- */

static int view_new(struct coshm__segment *segment, uint32_t index, uint64_t word,
		    struct coshm__handle **ret_view)
{
	const struct coshm__object_type *type = coshm__object_type_find(
		(uint32_t)coshm__a64_load_relaxed(&segment->entries[index].type));
	struct range range;
	int error;

	error = type ? memory_read(segment, &segment->entries[index], &range) : -EUCLEAN;
	if (error)
		return error;
	return handle_attach(segment, index, word, &range, type, ret_view);
}

int coshm__view_find(struct coshm__segment *segment, uint32_t index,
		     struct coshm__handle **ret_view)
{
	uint64_t word = coshm__a64_load_acquire(&segment->entries[index].word); /* [D2] */
	uint64_t state = coshm__entry_state_of(word);
	struct coshm__handle *view;
	int error = 0;

	if (state != COSHM__ENTRY_LIVE && state != COSHM__ENTRY_REMOVED)
		return -ENOENT;
	word = coshm__entry_word(coshm__entry_generation_of(word), 0, COSHM__ENTRY_LIVE);
	pthread_mutex_lock(&coshm__process->views);
	view = segment->views[index];
	if (view && view->entry_word != word) {
		/* Another thread may be using it: it is freed with the segment. */
		view->local_next = segment->retired_views;
		segment->retired_views = view;
		view = NULL;
	}
	if (!view)
		error = view_new(segment, index, word, &view);
	segment->views[index] = view;
	pthread_mutex_unlock(&coshm__process->views);
	if (!error)
		*ret_view = view;
	return error;
}

struct coshm__handle *coshm__view_get(struct coshm__segment *segment, uint32_t index)
{
	struct coshm__handle *view = NULL;

	return coshm__view_find(segment, index, &view) ? NULL : view;
}

void coshm__views_free(struct coshm__segment *segment)
{
	for (unsigned int i = 0; i < COSHM__ENTRY_COUNT; i++)
		handle_free(segment->views[i]);
	while (segment->retired_views) {
		struct coshm__handle *view = segment->retired_views;

		segment->retired_views = view->local_next;
		handle_free(view);
	}
}

const struct coshm__object_type *coshm__object_type_find(uint32_t type)
{
	for (size_t i = 0; coshm__object_types[i]; i++)
		if (coshm__object_types[i]->type == type)
			return coshm__object_types[i];
	return NULL;
}
