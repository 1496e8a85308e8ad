/* SPDX-License-Identifier: MIT */
/*
 * Time that leaps. Who waits for something that somebody holds who stands still would wait for nothing: instead the clock
 * of all processes of the row goes on by as much as one of them wants to sleep. These are found before libc's.
 */
#include "support/step_local.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)

int step_never_sleep;
_Atomic uint64_t *step_leap_ns;

static int leap(const struct timespec *span)
{
	atomic_fetch_add(step_leap_ns, (uint64_t)span->tv_sec * NS_PER_S + (uint64_t)span->tv_nsec);
	return 0;
}

/* The call itself, in as few instructions as can be: the vDSO's loop does not end while it is stepped slower than time goes. */
static long kernel(long number, const long a[6])
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	long result = number;

	__asm__ volatile("syscall"
			 : "+a"(result)
			 : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	if (result >= 0 || result < -4095)
		return result;
	errno = (int)-result;
	return -1;
#else
	static long (*of_libc)(long number, ...);

	if (!of_libc)
		*(void **)&of_libc = dlsym(RTLD_NEXT, "syscall");
	return of_libc(number, a[0], a[1], a[2], a[3], a[4], a[5]);
#endif
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = (int)kernel(SYS_clock_gettime, (long[6]){clock, (long)now});
	uint64_t ns;

	if (result || !step_leap_ns)
		return result;
	ns = (uint64_t)now->tv_nsec + atomic_load(step_leap_ns);
	now->tv_sec += (time_t)(ns / NS_PER_S);
	now->tv_nsec = (long)(ns % NS_PER_S);
	return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *span, struct timespec *rest)
{
	if (step_leap_ns && !(flags & TIMER_ABSTIME))
		return leap(span);
	return kernel(SYS_clock_nanosleep, (long[6]){clock, flags, (long)span, (long)rest}) ? errno
											    : 0;
}

int nanosleep(const struct timespec *span, struct timespec *rest)
{
	if (step_leap_ns)
		return leap(span);
	if (step_never_sleep)
		return 0;
	return (int)kernel(SYS_nanosleep, (long[6]){(long)span, (long)rest});
}

/* All of its arguments are words, and futex has the most. */
long syscall(long number, ...)
{
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (step_leap_ns && number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT && a[3]) {
		errno = EAGAIN;
		if (*(volatile uint32_t *)a[0] == (uint32_t)a[2]) {
			leap((const struct timespec *)a[3]);
			errno = ETIMEDOUT;
		}
		return -1;
	}
	return kernel(number, a);
}
