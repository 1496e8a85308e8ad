/* SPDX-License-Identifier: MIT */
#include "starved/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

static unsigned int armed_kinds, armed_which, calls;
static long in_use;

void faults_arm(unsigned int kinds, unsigned int which)
{
	armed_kinds = kinds;
	armed_which = which;
	calls = 0;
}

unsigned int faults_disarm(void)
{
	armed_kinds = 0;
	return calls;
}

long faults_memory_in_use(void)
{
	return in_use;
}

static int fails(unsigned int kind)
{
	if (!(armed_kinds & kind))
		return 0;
	calls++;
	return calls == armed_which ||
	       (armed_which && calls > armed_which && (armed_kinds & FAULT_EVERY));
}

static void *got(void *memory)
{
	in_use += memory != NULL;
	return memory;
}

static void *nothing(void)
{
	errno = ENOMEM;
	return NULL;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_realpath(const char *path, char *resolved);
void __real_free(void *memory);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_open(const char *path, int flags, ...);
int __real_fcntl(int fd, int command, ...);
int __real_posix_fallocate(int fd, off_t offset, off_t length);
ssize_t __real_pwrite(int fd, const void *bytes, size_t size, off_t offset);
int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_realpath(const char *path, char *resolved);
void __wrap_free(void *memory);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_open(const char *path, int flags, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_posix_fallocate(int fd, off_t offset, off_t length);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset);
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

void *__wrap_malloc(size_t size)
{
	return fails(FAULT_MEMORY) ? nothing() : got(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails(FAULT_MEMORY) ? nothing() : got(__real_calloc(count, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return fails(FAULT_MEMORY) ? nothing() : got(__real_aligned_alloc(alignment, size));
}

char *__wrap_realpath(const char *path, char *resolved)
{
	return fails(FAULT_MEMORY) ? nothing() : got(__real_realpath(path, resolved));
}

void __wrap_free(void *memory)
{
	in_use -= memory != NULL;
	__real_free(memory);
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	if (!fails(FAULT_MAP))
		return __real_mmap(address, size, protection, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode = 0;

	if (flags & O_CREAT) {
		va_start(arguments, flags);
		mode = va_arg(arguments, mode_t);
		va_end(arguments);
	}
	if (!fails(FAULT_OPEN))
		return __real_open(path, flags, mode);
	errno = EMFILE;
	return -1;
}

int __wrap_fcntl(int fd, int command, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, command);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	/* Giving one back needs nothing. */
	if (command != F_OFD_SETLK || ((struct flock *)argument)->l_type == F_UNLCK ||
	    !fails(FAULT_LOCK))
		return __real_fcntl(fd, command, argument);
	errno = ENOLCK;
	return -1;
}

int __wrap_posix_fallocate(int fd, off_t offset, off_t length)
{
	return fails(FAULT_ROOM) ? ENOSPC : __real_posix_fallocate(fd, offset, length);
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	if (!fails(FAULT_ROOM))
		return __real_pwrite(fd, bytes, size, offset);
	errno = ENOSPC;
	return -1;
}

int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return fails(FAULT_ATFORK) ? ENOMEM : __real_pthread_atfork(prepare, parent, child);
}
