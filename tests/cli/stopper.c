/* SPDX-License-Identifier: MIT */
/*
 * stopper FILE - takes the lock under which segments are created, says so, and stops itself
 *
 * So does a creator that somebody stops, or that sits in a debugger.
 */
#include "segment/internal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct flock range = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)COSHM__LOCK_BYTE_INIT,
		.l_len = 1,
	};
	int fd = argc > 1 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0 || fcntl(fd, F_OFD_SETLK, &range))
		return 1;
	puts("locked");
	fflush(stdout);
	raise(SIGSTOP);
	return 0;
}
