/* SPDX-License-Identifier: MIT */
/*
 * Create, attach, detach, unlink.
 *
 * Words     the file's size, header.magic and header.state; creators are serialised by the init byte's lock.
 * Commit    state = READY, one store, when the creator is a member and nothing can fail any more. Before it, whoever
 *           locks the init byte next begins anew:
 *             file is empty                          a creator died before it wrote the magic number
 *             magic, state BUILDING                  a creator died later
 *           Anything else that is not a READY segment is somebody's file and is left alone (-EUCLEAN).
 * Attach    to a READY header takes no lock. To one that is BUILDING: wait for the creator, if there is one.
 */
#include "base/crash.h"
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INIT_TIMEOUT_NS (5 * COSHM__NS_PER_S)
#define SIZE_MIN_BYTES	(UINT64_C(1) << 20)
#define SIZE_MAX_BYTES	(UINT64_C(1) << 45)
#ifdef COSHM__FENCED_DEFAULT
#define FLAGS_ALWAYS COSHM_SEGMENT_FENCED
#else
#define FLAGS_ALWAYS 0
#endif

static uint64_t round_to_pages(uint64_t bytes)
{
	return (bytes + COSHM__PAGE_BYTES - 1) & ~(uint64_t)(COSHM__PAGE_BYTES - 1);
}

static int config_check(const struct coshm_segment_config *callers,
			struct coshm_segment_config *config)
{
	int error = coshm__read_struct(config, sizeof(*config), sizeof(*config), callers);

	if (error)
		return error;
	config->flags |= FLAGS_ALWAYS;
	if (config->size_max_bytes == 0)
		config->size_max_bytes = config->size_bytes;
	if (config->mode == 0)
		config->mode = 0600;
	if (config->member_count_max == 0)
		config->member_count_max = 256;
	if (config->thread_count_max == 0)
		config->thread_count_max = 4 * config->member_count_max;
	if (config->size_bytes < SIZE_MIN_BYTES || config->size_max_bytes > SIZE_MAX_BYTES)
		return coshm__fail(
			-EINVAL, "size_bytes is at least 1 MiB and size_max_bytes at most 32 TiB");
	config->size_bytes = round_to_pages(config->size_bytes);
	config->size_max_bytes = round_to_pages(config->size_max_bytes);
	if (config->size_max_bytes < config->size_bytes)
		return coshm__fail(-EINVAL, "size_max_bytes is smaller than size_bytes");
	if (config->mode & ~0770u)
		return coshm__fail(-EINVAL,
				   "mode 0%o: only permissions of owner and group are allowed",
				   config->mode);
	if (config->member_count_max >= COSHM__MEMBERS_LIMIT ||
	    config->thread_count_max < config->member_count_max ||
	    config->thread_count_max >= COSHM__THREADS_LIMIT)
		return coshm__fail(-EINVAL,
				   "member_count_max is 1 to %u, thread_count_max from there to %u",
				   COSHM__MEMBERS_LIMIT - 1, COSHM__THREADS_LIMIT - 1);
	if (config->flags & ~(uint32_t)(COSHM_SEGMENT_FENCED | COSHM_SEGMENT_HUGE_PAGES))
		return coshm__fail(-EINVAL, "unknown segment flags");
	return 0;
}

static int random_fill(void *bytes, size_t size)
{
	ssize_t got;

	do
		got = getrandom(bytes, size, 0);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)size ? 0 : -EIO;
}

/* The fields that creation writes before READY. The atomic ones are 0 and stay so. */
static int header_fill(struct coshm__header_shm *header, const struct coshm_segment_config *config,
		       int64_t clock_offset_ns)
{
	int error;

	/* One member more, the rescuer; and a reserve for each. */
	coshm__layout_fill(header, config->member_count_max + 1,
			   config->member_count_max + 1 + config->thread_count_max);
	if (header->objects_offset > config->size_bytes)
		return coshm__fail(-EINVAL,
				   "size_bytes is too small: %u members and %u threads take %llu "
				   "bytes of tables",
				   config->member_count_max, config->thread_count_max,
				   (unsigned long long)header->objects_offset);
	header->flags = config->flags;
	header->size_max_bytes = config->size_max_bytes;
	header->created_at_ns = coshm__clock_read(CLOCK_MONOTONIC) - (uint64_t)clock_offset_ns;
	header->created_realtime_ns = coshm__clock_read(CLOCK_REALTIME);
	header->creator_pid = (uint32_t)getpid();
	coshm__a64_store_relaxed(&header->committed_bytes, config->size_bytes);
	coshm__a64_store_relaxed(&header->touched_bytes, header->objects_offset);
	coshm__a32_store_relaxed(&header->thread_high_water, header->member_count_max);
	error = coshm__boot_id(header->boot_id);
	if (!error || error == -ENOENT)
		error = random_fill(header->uuid, sizeof(header->uuid));
	if (!error)
		error = random_fill(&header->place_seed, sizeof(header->place_seed));
	if (!error)
		error = random_fill(header->fingerprint_secret, sizeof(header->fingerprint_secret));
	return error;
}

/* Under the init lock, on a file that is ours to fill: everything but READY. */
static int file_fill(int fd, const char *path, const struct coshm_segment_config *config,
		     struct coshm__header_shm *header)
{
	int64_t clock_offset_ns;
	int error = coshm__clock_namespace_offset_ns(&clock_offset_ns);

	_Static_assert(offsetof(struct coshm__header_shm, state) + 4 <= 64,
		       "magic and state in one write");
	if (error)
		return error;
	memset(header, 0, sizeof(*header));
	header->magic = COSHM__MAGIC;
	coshm__a32_store_relaxed(&header->state, COSHM__SEGMENT_BUILDING);
	error = header_fill(header, config, clock_offset_ns);
	if (error)
		return error;
	error = coshm__file_limit_check(config->size_bytes);
	if (error)
		return coshm__file_no_space(path, config->size_bytes, error);
	if (ftruncate(fd, 0))
		return -errno;
	error = coshm__file_write(fd, header, 64, 0);
	if (error)
		return coshm__file_no_space(path, config->size_bytes, error);
	COSHM__CRASH_POINT(SEGMENT_MAGIC);
	error = coshm__file_allocate(fd, 0, config->size_bytes);
	if (error)
		return coshm__file_no_space(path, config->size_bytes, error);
	COSHM__CRASH_POINT(SEGMENT_ALLOCATED);
	if (config->group_id_set && fchown(fd, (uid_t)-1, (gid_t)config->group_id))
		return coshm__fail(-errno, "%s: chgrp %u: %s", path, config->group_id,
				   strerror(errno));
	if (fchmod(fd, (mode_t)config->mode))
		return -errno;
	error = coshm__file_write(fd, header, sizeof(*header), 0);
	if (error)
		return error;
	COSHM__CRASH_POINT(SEGMENT_WRITTEN);
	return 0;
}

enum file_verdict { FILE_OURS_TO_FILL, FILE_READY, FILE_OUTDATED, FILE_FOREIGN };

/* Under the init lock: what is this file? *ret_error says why it is not ready. */
static enum file_verdict file_judge(int fd, const char *path, int *ret_error)
{
	struct coshm__header_shm header;
	ssize_t got = pread(fd, &header, sizeof(header), 0);

	*ret_error = -EINPROGRESS;
	if (got == 0)
		return FILE_OURS_TO_FILL;
	if (got >= 64 && header.magic == COSHM__MAGIC &&
	    coshm__a32_load_relaxed(&header.state) == COSHM__SEGMENT_BUILDING)
		return FILE_OURS_TO_FILL;
	if (got < (ssize_t)sizeof(header)) {
		*ret_error = coshm__fail(-EUCLEAN, "%s is not a coshm segment", path);
		return FILE_FOREIGN;
	}
	*ret_error = coshm__layout_check(&header, path);
	if (*ret_error == 0)
		return FILE_READY;
	return *ret_error == -ESTALE ? FILE_OUTDATED : FILE_FOREIGN;
}

/* Is the name still this file's? It may have been unlinked while we waited for the lock. */
static int is_named(int fd, const char *path)
{
	struct stat by_fd, by_name;

	return fstat(fd, &by_fd) == 0 && lstat(path, &by_name) == 0 &&
	       by_fd.st_ino == by_name.st_ino && by_fd.st_dev == by_name.st_dev;
}

static void segment_free(struct coshm__segment *segment)
{
	if (segment->base)
		munmap(segment->base, segment->size_max_bytes);
	if (segment->fd >= 0)
		close(segment->fd);
	free(segment->reap_progress);
	free(segment);
}

/* Reads the header until it is READY. A creator that died leaves its init byte unlocked: then there is no segment. */
static int header_read(int fd, const char *path, struct coshm__header_shm *header)
{
	uint64_t deadline_ns = coshm__clock_read(CLOCK_MONOTONIC) + INIT_TIMEOUT_NS;
	const struct timespec pause = {.tv_nsec = (long)COSHM__NS_PER_MS};

	for (;;) {
		struct flock range = {
			.l_type = F_WRLCK,
			.l_whence = SEEK_SET,
			.l_start = (off_t)COSHM__LOCK_BYTE_INIT,
			.l_len = 1,
		};
		int creator_works = fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type == F_WRLCK;
		ssize_t got = pread(fd, header, sizeof(*header), 0);
		int error = -EINPROGRESS;

		if (got >= 0)
			memset((unsigned char *)header + got, 0, sizeof(*header) - (size_t)got);

		if (got > 0 && got < (ssize_t)sizeof(*header) && header->magic != COSHM__MAGIC)
			return coshm__fail(-EUCLEAN, "%s is not a coshm segment", path);
		if (got == (ssize_t)sizeof(*header))
			error = coshm__layout_check(header, path);
		if (error != -EINPROGRESS)
			return error;
		if (!creator_works)
			return coshm__fail(-ENOENT,
					   "%s was never finished by its creator: create it again",
					   path);
		if (coshm__clock_read(CLOCK_MONOTONIC) >= deadline_ns)
			return coshm__fail(-ETIMEDOUT, "%s: its creator has not finished for 5 s",
					   path);
		nanosleep(&pause, NULL);
	}
}

static int segment_map(struct coshm__segment *segment, const struct coshm__header_shm *header,
		       const struct stat *status)
{
	int protection = segment->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	void *base;

	/* Growth happens before committed_bytes says so: a file shorter than that has been truncated. */
	if ((uint64_t)status->st_size < coshm__a64_load_relaxed(&header->committed_bytes))
		return coshm__fail(-EUCLEAN,
				   "%s is shorter than its header says: truncated or badly copied",
				   segment->path);
	segment->huge = (header->flags & COSHM_SEGMENT_HUGE_PAGES) != 0;
	base = segment->huge
		       ? coshm__map_aligned(header->size_max_bytes, protection, segment->fd)
		       : mmap(NULL, header->size_max_bytes, protection, MAP_SHARED, segment->fd, 0);
	if (base == MAP_FAILED)
		return coshm__fail(-ENOMEM, "%s: mapping %llu bytes: %s (ulimit -v, -l?)",
				   segment->path, (unsigned long long)header->size_max_bytes,
				   strerror(errno));
	/* A core dump with the segment in it would hold the member's lock while it is written. */
	madvise(base, header->size_max_bytes, MADV_DONTDUMP);
	segment->base = base;
	segment->size_max_bytes = header->size_max_bytes;
	coshm__a64_store_relaxed(&segment->usable_bytes,
				 coshm__a64_load_relaxed(&header->committed_bytes));
	segment->objects_offset = header->objects_offset;
	segment->member_count_max = header->member_count_max;
	segment->thread_count_max = header->thread_count_max;
	segment->header = base;
	segment->members = (void *)(segment->base + header->members_offset);
	segment->threads = (void *)(segment->base + header->threads_offset);
	segment->entries = (void *)(segment->base + header->entries_offset);
	segment->fenced = (header->flags & COSHM_SEGMENT_FENCED) != 0;
	segment->device = (uint64_t)status->st_dev;
	segment->inode = (uint64_t)status->st_ino;
	return coshm__clock_namespace_offset_ns(&segment->clock_offset_ns);
}

/* Under the process mutex. Stays set until a dropped segment is gone for good, so that keys do not mix. */
static unsigned char index_used[COSHM__SEGMENTS_MAX];

static struct coshm__segment *segment_find(const struct stat *status, int read_only)
{
	for (unsigned int i = 0; i < COSHM__SEGMENTS_MAX; i++) {
		struct coshm__segment *segment =
			atomic_load_explicit(&coshm__segments[i], memory_order_relaxed);

		if (segment && segment->device == (uint64_t)status->st_dev &&
		    segment->inode == (uint64_t)status->st_ino && segment->read_only == read_only)
			return segment;
	}
	return NULL;
}

static int segment_place(struct coshm__segment *segment)
{
	for (unsigned int i = 0; i < COSHM__SEGMENTS_MAX; i++) {
		if (index_used[i])
			continue;
		index_used[i] = 1;
		segment->index = i;
		return 0;
	}
	return coshm__fail(-EMFILE, "%d segments are attached in this process: detach some",
			   COSHM__SEGMENTS_MAX);
}

/* Under the process mutex. Takes over fd. */
static int segment_join(const char *path, int fd, int read_only,
			const struct coshm__header_shm *header, struct coshm__segment **ret)
{
	struct coshm__segment *segment;
	struct stat status;
	int error, placed;

	segment = calloc(1, sizeof(*segment));
	if (!segment) {
		close(fd);
		return -ENOMEM;
	}
	segment->fd = fd;
	segment->read_only = read_only;
	snprintf(segment->path, sizeof(segment->path), "%s", path);
	error = segment_place(segment);
	placed = !error;
	if (!error)
		error = fstat(fd, &status) ? -errno : 0;
	if (!error)
		error = segment_map(segment, header, &status);
	if (!error && !segment->read_only) {
		segment->reap_progress = coshm__reap_progress_new(segment);
		error = segment->reap_progress ? 0 : -ENOMEM;
	}
	if (!error && !segment->read_only)
		error = coshm__member_register(segment);
	if (error) {
		if (placed)
			index_used[segment->index] = 0;
		segment_free(segment);
		return error;
	}
	/* [G4] release, pairs [G5]; carries the segment's fields */
	atomic_store_explicit(&coshm__segments[segment->index], segment, memory_order_release);
	*ret = segment;
	return 0;
}

/* Under the process mutex. Takes over fd. */
static int segment_new(const char *path, int fd, uint32_t flags, struct coshm__segment **ret)
{
	const int read_only = (flags & COSHM_ATTACH_READ_ONLY) != 0;
	struct coshm__header_shm header;
	int error = header_read(fd, path, &header);

	if (!error && header.feature_read_only && !read_only)
		error = coshm__fail(-EPROTONOSUPPORT,
				    "%s uses features %llx that this library can only read", path,
				    (unsigned long long)header.feature_read_only);
	if (!error)
		return segment_join(path, fd, read_only, &header, ret);
	close(fd);
	return error;
}

static int is_same_file(int fd, int other_fd)
{
	struct stat status, other;

	return fstat(fd, &status) == 0 && fstat(other_fd, &other) == 0 &&
	       status.st_ino == other.st_ino && status.st_dev == other.st_dev;
}

/* A descriptor without the init lock. */
static int file_open_own(int fd, const char *path, const struct coshm_segment_config *config,
			 int *ret_fd)
{
	int error = coshm__file_open(path, O_RDWR, 0, ret_fd);

	if (error == -EACCES)
		return coshm__fail(error, "%s: its creator may not use it with mode 0%o", path,
				   config->mode);
	if (error || is_same_file(fd, *ret_fd))
		return error;
	close(*ret_fd);
	return -EAGAIN;
}

/*
 * Under the init lock and the process mutex, on a file that is ours to fill. Its creator becomes a member while nobody else
 * can: whatever keeps him from that also keeps the segment from coming into being.
 */
static int segment_make(int fd, const char *path, const struct coshm_segment_config *config,
			struct coshm__segment **ret)
{
	struct coshm__header_shm header;
	int own_fd, error = file_fill(fd, path, config, &header);

	if (!error)
		error = file_open_own(fd, path, config, &own_fd);
	if (!error)
		error = segment_join(path, own_fd, 0, &header, ret);
	if (error) {
		if (is_named(fd, path))
			unlink(path);
		return error;
	}
	COSHM__CRASH_POINT(SEGMENT_JOINED);
	/* [G6] release, pairs the pread of who attaches; carries the header. The commit point. */
	coshm__a32_store_release(&(*ret)->header->state, COSHM__SEGMENT_READY);
	COSHM__CRASH_POINT(SEGMENT_READY);
	return 0;
}

/* 0 created and joined; 1 there was one already; -EAGAIN the name changed hands, try again; negative */
static int create_once(const char *path, const struct coshm_segment_config *config,
		       struct coshm__segment **ret)
{
	int error, fd;
	enum file_verdict verdict;

	/* Without O_CREAT first: with fs.protected_regular it fails on other users' files in sticky folders. */
	error = coshm__file_open(path, O_RDWR, COSHM_ATTACH_ANY_OWNER, &fd);
	if (error == -ENOENT)
		error = coshm__file_open(path, O_RDWR | O_CREAT | O_EXCL, 0, &fd);
	if (error)
		return error == -EEXIST ? -EAGAIN : error;
	COSHM__CRASH_POINT(SEGMENT_EMPTY);
	error = coshm__file_lock_init(fd, path, INIT_TIMEOUT_NS);
	if (error) {
		close(fd);
		return error;
	}
	verdict = file_judge(fd, path, &error);
	if (!is_named(fd, path)) {
		error = -EAGAIN;
	} else if (verdict == FILE_READY) {
		error = 1;
	} else if (verdict == FILE_OUTDATED) {
		error = unlink(path) ? -errno : -EAGAIN;
	} else if (verdict == FILE_OURS_TO_FILL) {
		/* With ANY_OWNER above nobody has asked yet whether it is. */
		error = coshm__file_judge_owner(fd, path, 0);
		if (!error)
			error = segment_make(fd, path, config, ret);
	}
	close(fd);
	return error;
}

static void segment_drop(struct coshm__segment *segment)
{
	int close_it, fd;

	/* relaxed: the grace period orders what follows */
	atomic_store_explicit(&coshm__segments[segment->index], NULL, memory_order_relaxed);
	coshm__process_unlock();
	coshm__handles_quiesce();
	coshm__process_lock();
	coshm__views_free(segment);
	if (!segment->read_only)
		coshm__member_leave(segment);
	index_used[segment->index] = 0;
	/* If the number is the application's now, it is not ours to close. */
	fd = coshm__segment_fd(segment, &close_it);
	if (close_it) {
		if (fd >= 0)
			close(fd);
		segment->fd = -1;
	}
	segment_free(segment);
}

/* Under the process mutex. */
static int handle_give(struct coshm__handle *handle, struct coshm__segment *segment)
{
	int error;

	handle->segment = segment;
	handle->type = COSHM__TYPE_SEGMENT;
	error = coshm__handle_publish(handle);
	if (!error)
		segment->handle_count++;
	return error;
}

static int attach_path(const char *path, uint32_t flags, struct coshm_segment **ret_segment)
{
	int read_only = (flags & COSHM_ATTACH_READ_ONLY) != 0, fd, error;
	struct coshm__segment *segment;
	struct coshm__handle *handle;
	struct stat status;

	error = coshm__file_open(path, read_only ? O_RDONLY : O_RDWR, flags, &fd);
	if (error)
		return error == -ENOENT ? coshm__fail(error, "%s: no such segment", path) : error;
	handle = calloc(1, sizeof(*handle));
	if (!handle || fstat(fd, &status)) {
		free(handle);
		close(fd);
		return -ENOMEM;
	}
	coshm__process_lock();
	segment = segment_find(&status, read_only);
	if (segment) {
		close(fd);
		/* relaxed: it carries nothing. Its remover may be dead, and its name still there. */
		if (coshm__a32_load_relaxed(&segment->header->state) == COSHM__SEGMENT_REMOVED)
			error = coshm__fail(-ESTALE, "%s was removed", path);
		else
			error = read_only ? 0 : coshm__member_ensure(segment);
	} else {
		error = segment_new(path, fd, flags, &segment);
	}
	if (!error) {
		error = handle_give(handle, segment);
		if (error && segment->handle_count == 0)
			segment_drop(segment);
	}
	coshm__process_unlock();
	if (error)
		free(handle);
	else
		*ret_segment = (struct coshm_segment *)handle->token;
	return error;
}

/* 0, the handle is on a new segment; 1 there was one already; negative */
static int create_path(const char *path, const struct coshm_segment_config *config,
		       struct coshm__handle *handle)
{
	struct coshm__segment *segment;
	int error;

	/* The mutex keeps a fork from copying the descriptor that carries the init lock. */
	coshm__process_lock();
	error = coshm__handle_reserve();
	if (!error) {
		for (int tries = 0; tries < 16; tries++) {
			error = create_once(path, config, &segment);
			if (error != -EAGAIN)
				break;
		}
		coshm__handle_unreserve();
		if (!error)
			error = handle_give(handle, segment);
	}
	coshm__process_unlock();
	return error;
}

int coshm_segment_create(const char *name, const struct coshm_segment_config *config,
			 uint32_t flags, struct coshm_segment **ret_segment)
{
	struct coshm_segment_config checked;
	struct coshm__handle *handle;
	char path[256];
	int error, saved_errno = errno;

	if (!config || !ret_segment || (flags & ~(uint32_t)COSHM_CREATE_OR_OPEN))
		return -EINVAL;
	error = coshm__process_initialise();
	if (!error)
		error = config_check(config, &checked);
	if (!error)
		error = coshm__path_of(name, path);
	if (error)
		goto out;
	handle = calloc(1, sizeof(*handle));
	error = handle ? create_path(path, &checked, handle) : -ENOMEM;
	if (!error)
		*ret_segment = (struct coshm_segment *)handle->token;
	else
		free(handle);
	if (error == 1)
		error = flags & COSHM_CREATE_OR_OPEN
				? attach_path(path, 0, ret_segment)
				: coshm__fail(-EEXIST, "%s exists already", path);
out:
	errno = saved_errno;
	return error;
}

int coshm_segment_attach(const char *name, uint32_t flags, struct coshm_segment **ret_segment)
{
	char path[256];
	int error, saved_errno = errno;

	if (!ret_segment || (flags & ~(uint32_t)(COSHM_ATTACH_READ_ONLY | COSHM_ATTACH_ANY_OWNER)))
		return -EINVAL;
	error = coshm__process_initialise();
	if (!error)
		error = coshm__path_of(name, path);
	if (!error)
		error = attach_path(path, flags, ret_segment);
	errno = saved_errno;
	return error;
}

static int pins_held(const struct coshm__segment *segment)
{
	uint64_t key = coshm__a64_load_relaxed(&coshm__process->key[segment->index]);
	const struct coshm__member_shm *member;

	if (!key)
		return 0;
	member = &segment->members[COSHM__MEMBER_SLOT_OF((uint32_t)key)];
	for (unsigned int i = 0; i < COSHM__PIN_COUNT; i++)
		if (coshm__a64_load_relaxed(&member->pins[i]))
			return 1;
	return 0;
}

int coshm_segment_detach(struct coshm_segment *token)
{
	struct coshm__handle *handle;
	struct coshm__segment *segment;
	int saved_errno = errno;

	if (!token)
		return 0;
	if (!coshm__process)
		return -EBADF;
	coshm__process_lock();
	handle = atomic_load_explicit(&coshm__handles[(uintptr_t)token % COSHM__HANDLES_MAX],
				      memory_order_relaxed);
	if (!handle || handle->token != (uintptr_t)token || handle->type != COSHM__TYPE_SEGMENT) {
		coshm__process_unlock();
		return -EBADF;
	}
	segment = handle->segment;
	if (segment->handle_count == 1 && pins_held(segment)) {
		coshm__process_unlock();
		return coshm__fail(-EBUSY, "%s: views are still pinned", segment->path);
	}
	coshm__handle_retire((uintptr_t)token, COSHM__TYPE_SEGMENT);
	coshm__process_unlock();
	coshm__objects_close_of(segment, handle->token);
	coshm__handles_quiesce();
	coshm__process_lock();
	if (--segment->handle_count == 0)
		segment_drop(segment);
	coshm__process_unlock();
	free(handle);
	errno = saved_errno;
	return 0;
}

static int state_write(int fd, uint32_t state)
{
	return coshm__file_write(fd, &state, sizeof(state),
				 offsetof(struct coshm__header_shm, state));
}

/* The init lock keeps the name from being given to another file between the look and the unlink. -EAGAIN: it was */
static int unlink_once(const char *path)
{
	struct coshm__header_shm header;
	int fd, error = coshm__file_open(path, O_RDWR, COSHM_ATTACH_ANY_OWNER, &fd);

	if (error)
		return error;
	error = coshm__file_lock_init(fd, path, INIT_TIMEOUT_NS);
	if (error) {
		close(fd);
		return error;
	}
	if (!is_named(fd, path)) {
		close(fd);
		return -EAGAIN;
	}
	/* A file that is no segment is not ours to remove. One of another layout, or half made, is. */
	if (pread(fd, &header, 64, 0) != 64 || header.magic != COSHM__MAGIC)
		error = coshm__fail(-EUCLEAN, "%s is not a coshm segment: left alone", path);
	else
		error = state_write(fd, COSHM__SEGMENT_REMOVED);
	COSHM__CRASH_POINT(SEGMENT_REMOVED);
	if (!error && unlink(path) && errno != ENOENT) {
		error = coshm__fail(-errno, "%s: %s", path, strerror(errno));
		/* It may be written and yet not be removed from its folder: then it stays what it was. */
		state_write(fd, coshm__a32_load_relaxed(&header.state));
	}
	close(fd);
	return error;
}

int coshm_segment_unlink(const char *name)
{
	char path[256];
	int error, saved_errno = errno;

	error = coshm__process_initialise();
	if (!error)
		error = coshm__path_of(name, path);
	if (!error) {
		/* As in creation. */
		coshm__process_lock();
		for (int tries = 0; tries < 16; tries++) {
			error = unlink_once(path);
			if (error != -EAGAIN)
				break;
		}
		coshm__process_unlock();
	}
	errno = saved_errno;
	return error;
}

/* How far may be touched without SIGBUS? As far as both the header and the file's size say. 0, or why it cannot be asked */
static int usable_refresh(struct coshm__segment *segment, uint64_t *ret_usable)
{
	/* relaxed: it only grows, and memory below any value ever read is there */
	uint64_t usable = coshm__a64_load_relaxed(&segment->header->committed_bytes);
	int saved_errno = errno, close_it, fd = coshm__segment_fd(segment, &close_it);
	int error = fd < 0 ? fd : 0;
	struct stat status;

	if (usable > segment->size_max_bytes)
		usable = segment->size_max_bytes;
	if (!error && fstat(fd, &status))
		error = -errno;
	if (close_it && fd >= 0)
		close(fd);
	errno = saved_errno;
	if (error)
		return error;
	if (usable > (uint64_t)status.st_size)
		usable = (uint64_t)status.st_size;
	/* relaxed: as above; a smaller value of a slower thread costs one more look */
	if (usable > coshm__a64_load_relaxed(&segment->usable_bytes))
		coshm__a64_store_relaxed(&segment->usable_bytes, usable);
	*ret_usable = usable;
	return 0;
}

int coshm__segment_has(struct coshm__segment *segment, uint64_t offset_bytes, uint64_t size_bytes)
{
	/* relaxed: as above */
	uint64_t usable = coshm__a64_load_relaxed(&segment->usable_bytes);
	int error = 0;

	if (offset_bytes % 8 != 0 || size_bytes > segment->size_max_bytes ||
	    offset_bytes > segment->size_max_bytes - size_bytes)
		return -EUCLEAN;
	if (offset_bytes + size_bytes > usable)
		error = usable_refresh(segment, &usable);
	return error ? error : offset_bytes + size_bytes > usable ? -EUCLEAN : 0;
}

void *coshm__segment_at(struct coshm__segment *segment, uint64_t offset_bytes, uint64_t size_bytes)
{
	return coshm__segment_has(segment, offset_bytes, size_bytes) ? NULL
								     : segment->base + offset_bytes;
}

uint64_t coshm_segment_now_ns(struct coshm_segment *token)
{
	struct coshm__op op;
	uint64_t now_ns;

	if (coshm__op_begin_look(&op, token, COSHM__TYPE_SEGMENT))
		return 0;
	now_ns = coshm__now_ns(op.segment);
	coshm__op_end(&op);
	return now_ns;
}
