/* SPDX-License-Identifier: MIT */
#include "base/futex.h"
#include "base/clock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

int coshm__futex_wait(struct coshm__a32 *word, uint32_t expected, uint64_t timeout_ns)
{
	int saved_errno = errno;
	int result = 0;
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / COSHM__NS_PER_S),
		.tv_nsec = (long)(timeout_ns % COSHM__NS_PER_S),
	};

	if (syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0) < 0)
		result = -errno;
	errno = saved_errno;
	return result;
}

int coshm__futex_wake(struct coshm__a32 *word, int count)
{
	int saved_errno = errno;
	long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);

	errno = saved_errno;
	return woken > 0 ? (int)woken : 0;
}
