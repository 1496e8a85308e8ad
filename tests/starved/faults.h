/* SPDX-License-Identifier: MIT */
/*
 * tests/starved/faults.h - one call to the C library fails, as it does on a machine that has no more to give
 *
 * A program that is linked with the --wrap options of tests/starved/local.am gets these in place of malloc, open and so
 * on, in all that is linked statically: the library and the test, not cmocka.
 */
#ifndef TESTS_STARVED_FAULTS_H
#define TESTS_STARVED_FAULTS_H

enum fault_kind {
	FAULT_MEMORY = 1,  /* malloc, calloc, aligned_alloc, realpath: ENOMEM */
	FAULT_MAP = 2,	   /* mmap: ENOMEM */
	FAULT_OPEN = 4,	   /* open: EMFILE */
	FAULT_LOCK = 8,	   /* fcntl(F_OFD_SETLK): ENOLCK */
	FAULT_ROOM = 16,   /* posix_fallocate and pwrite: ENOSPC */
	FAULT_ATFORK = 32, /* pthread_atfork: ENOMEM */
	FAULT_EVERY = 64,  /* with others: from that call on, each one */
};

/* The @which-th call (from 1) of these kinds fails, once, from now on; 0: none does, they are counted. */
void faults_arm(unsigned int kinds, unsigned int which);

/* No fault any more. Returns how many calls of the kinds there were. */
unsigned int faults_disarm(void);

/* Pieces of memory that were got and not given back. */
long faults_memory_in_use(void);

#endif
