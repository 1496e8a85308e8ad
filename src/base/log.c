/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static void (*log_callback)(void *context, int level, const char *message);
static void *log_context;
static int log_level = -1;

void coshm_set_log(void (*log)(void *context, int level, const char *message), void *context,
		   int level)
{
	log_callback = log;
	log_context = context;
	log_level = log ? level : -1;
}

static void __attribute__((format(printf, 2, 0)))
log_va(int level, const char *format, va_list arguments)
{
	char message[512];
	int saved_errno = errno;

	if (level <= log_level) {
		vsnprintf(message, sizeof(message), format, arguments);
		log_callback(log_context, level, message);
	}
	errno = saved_errno;
}

void coshm__log(int level, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_va(level, format, arguments);
	va_end(arguments);
}

int coshm__fail(int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_va(COSHM_LOG_ERROR, format, arguments);
	va_end(arguments);
	return error;
}
