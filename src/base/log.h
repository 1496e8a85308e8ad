/* SPDX-License-Identifier: MIT */
/* base/log.h - details of failures for the application's callback; silence without one */
#ifndef COSHM__BASE_LOG_H
#define COSHM__BASE_LOG_H

#include <coshm/types.h>

void coshm__log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Logs an error and returns @error, so that one line can do both. */
int coshm__fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
