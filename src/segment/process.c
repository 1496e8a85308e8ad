/* SPDX-License-Identifier: MIT */
/*
 * The process: a page that forks wipe, fork handlers, and the registry of handles.
 *
 * liburcu (the bp flavour) protects the registry and everything a handle leads to, mapping included: a thread is inside
 * a read section for the length of each operation; who closes takes the handle out of the table, waits for a grace
 * period and only then frees or unmaps. That is process-local; readers in other processes are the business of hazards.
 */
#include "base/log.h"
#include "segment/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct coshm__process *coshm__process;
struct coshm__handle *_Atomic coshm__handles[COSHM__HANDLES_MAX];
struct coshm__segment *_Atomic coshm__segments[COSHM__SEGMENTS_MAX];
_Thread_local struct coshm__thread_local coshm__thread_locals[COSHM__SEGMENTS_MAX];

static uintptr_t handle_generation; /* under the process mutex */

/*
 * A fork must not copy a descriptor that carries a member's lock for a moment: it would keep a dead parent alive. Nor
 * views that another thread is just changing. That mutex comes last: it is waited for inside of read sections, for which
 * a grace period waits, which liburcu's handler waits for.
 */
static void fork_prepare(void)
{
	pthread_mutex_lock(&coshm__process->mutex);
	urcu_bp_before_fork();
	pthread_mutex_lock(&coshm__process->views);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&coshm__process->views);
	urcu_bp_after_fork_parent();
	pthread_mutex_unlock(&coshm__process->mutex);
}

/* The kernel has zeroed the page: the mutexes are unlocked and no member is registered. */
static void fork_child(void)
{
	urcu_bp_after_fork_child();
	coshm__process->urcu_works = 1;
}

/* On an error all is as before: memory may be there the next time. */
static int process_begin(void)
{
	size_t size = (sizeof(struct coshm__process) + COSHM__PAGE_BYTES - 1) &
		      ~(size_t)(COSHM__PAGE_BYTES - 1);
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	if (madvise(page, size, MADV_WIPEONFORK)) {
		munmap(page, size);
		return coshm__fail(-ENOTSUP, "madvise(MADV_WIPEONFORK) failed: coshm needs "
					     "Linux 4.14 or later");
	}
	coshm__process = page;
	coshm__process->urcu_works = 1;
	if (pthread_atfork(fork_prepare, fork_parent, fork_child) == 0)
		return 0;
	coshm__process = NULL;
	munmap(page, size);
	return -ENOMEM;
}

#define BEGUN UINT32_MAX

/* As pthread_once, but what failed is tried again. In a fork child a thread of the parent's that was at it is gone. */
int coshm__process_initialise(void)
{
	static struct coshm__a32 beginner; /* a pid; 0 nobody; BEGUN */
	const struct timespec pause = {.tv_nsec = (long)COSHM__NS_PER_MS};

	for (;;) {
		/* [G8] acquire, pairs [G7]; carries the page */
		uint32_t seen = coshm__a32_load_acquire(&beginner), mine = (uint32_t)getpid();
		int error;

		if (coshm__likely(seen == BEGUN))
			return 0;
		if (seen == mine) {
			nanosleep(&pause, NULL);
			continue;
		}
		/* relaxed: whoever failed has left nothing */
		if (!coshm__a32_cas_relaxed(&beginner, &seen, mine))
			continue;
		error = process_begin();
		/* [G7] release, pairs [G8] */
		coshm__a32_store_release(&beginner, error ? 0 : BEGUN);
		return error;
	}
}

void coshm__process_lock(void)
{
	pthread_mutex_lock(&coshm__process->mutex);
}

void coshm__process_unlock(void)
{
	pthread_mutex_unlock(&coshm__process->mutex);
}

/* The first free place, if there is one more than are reserved. -EMFILE */
static int place_find(uintptr_t *ret_index)
{
	uint32_t spare = coshm__process->handles_reserved;

	*ret_index = COSHM__HANDLES_MAX;
	for (uintptr_t index = 0; index < COSHM__HANDLES_MAX; index++) {
		if (atomic_load_explicit(&coshm__handles[index], memory_order_relaxed))
			continue;
		if (*ret_index == COSHM__HANDLES_MAX)
			*ret_index = index;
		if (spare-- == 0)
			return 0;
	}
	return coshm__fail(-EMFILE, "%d handles are open in this process: close some",
			   COSHM__HANDLES_MAX);
}

int coshm__handle_reserve(void)
{
	uintptr_t index;
	int error = place_find(&index);

	if (!error)
		coshm__process->handles_reserved++;
	return error;
}

void coshm__handle_unreserve(void)
{
	coshm__process->handles_reserved--;
}

int coshm__handle_publish(struct coshm__handle *handle)
{
	uintptr_t index;
	int error = place_find(&index);

	if (error)
		return error;
	handle->token = ++handle_generation * COSHM__HANDLES_MAX + index;
	/* [G2] release, pairs [G1], [G3]; carries the handle's fields */
	atomic_store_explicit(&coshm__handles[index], handle, memory_order_release);
	return 0;
}

struct coshm__handle *coshm__handle_retire(uintptr_t token, uint32_t type)
{
	struct coshm__handle *_Atomic *place = &coshm__handles[token % COSHM__HANDLES_MAX];
	/* relaxed: publishing and retiring are under the process mutex */
	struct coshm__handle *handle = atomic_load_explicit(place, memory_order_relaxed);

	if (!handle || handle->token != token || handle->type != type)
		return NULL;
	/* relaxed: the grace period orders what follows */
	atomic_store_explicit(place, NULL, memory_order_relaxed);
	return handle;
}

void coshm__handles_quiesce(void)
{
	/*
	 * In a raw-clone child liburcu still lists threads that only the parent has, and would wait for them for ever. Such a
	 * child has one thread, this one, which is in no operation.
	 */
	if (coshm__process->urcu_works)
		urcu_bp_synchronize_rcu();
#if defined(COSHM__THREAD_SANITIZER)
	void __tsan_acquire(void *);
	__tsan_acquire(&coshm__handles);
#endif
}

int coshm__read_struct(void *copy, size_t copy_size_bytes, size_t first_size_bytes,
		       const void *callers)
{
	size_t callers_size_bytes;
	const unsigned char *bytes = callers;

	memcpy(&callers_size_bytes, callers, sizeof(callers_size_bytes));
	if (callers_size_bytes == 0)
		callers_size_bytes = first_size_bytes;
	if (callers_size_bytes < first_size_bytes)
		return coshm__fail(-EINVAL, "struct_size_bytes is smaller than any version's");
	for (size_t i = copy_size_bytes; i < callers_size_bytes; i++)
		if (bytes[i])
			return coshm__fail(-EINVAL, "a field that this version of coshm does not "
						    "know is not 0");
	memset(copy, 0, copy_size_bytes);
	memcpy(copy, callers,
	       callers_size_bytes < copy_size_bytes ? callers_size_bytes : copy_size_bytes);
	memcpy(copy, &callers_size_bytes, sizeof(callers_size_bytes));
	return 0;
}

int coshm__write_struct(void *callers, size_t first_size_bytes, const void *ours,
			size_t our_size_bytes)
{
	size_t callers_size_bytes;

	memcpy(&callers_size_bytes, callers, sizeof(callers_size_bytes));
	if (callers_size_bytes == 0)
		callers_size_bytes = first_size_bytes;
	if (callers_size_bytes < first_size_bytes)
		return coshm__fail(-EINVAL, "struct_size_bytes is smaller than any version's");
	memcpy(callers, ours,
	       callers_size_bytes < our_size_bytes ? callers_size_bytes : our_size_bytes);
	memcpy(callers, &callers_size_bytes, sizeof(callers_size_bytes));
	return 0;
}
