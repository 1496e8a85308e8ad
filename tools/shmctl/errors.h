/* SPDX-License-Identifier: MIT */
/*
 * errors.h - what went wrong, in two lines: what, and what to do about it
 *
 * Every function prints to stderr and returns the exit code (enum status) that belongs to the error.
 */
#ifndef SHMCTL_ERRORS_H
#define SHMCTL_ERRORS_H

#include "args.h"

struct coshm_segment;
struct coshm_segment_config;

/* Listen to the library's log: it knows the details of a failure. */
void errors_listen(void);
/* Forget what it said about calls whose failure was expected. */
void errors_forget(void);
/* Errors are a JSON document on stdout as well, unless there was one before. */
void errors_in_json(void);
/* What to do about the next error, where a command knows better than the library. */
__attribute__((format(printf, 1, 2))) void errors_advise(const char *format, ...);

/* @subject: what the command was about, such as "shop/pages". @error: a return of coshm, or a negative errno. */
int errors_fail(const char *subject, int error);
/* The segment could not be attached. */
int errors_fail_segment(const struct target *target, int error);
/* ... or not be made. */
int errors_fail_create(const struct target *target, const struct coshm_segment_config *config,
		       int error);
/* The object could not be opened as a @type ("cache"); @segment tells what is there instead. */
int errors_fail_object(const struct target *target, const char *type, int error,
		       struct coshm_segment *segment);
/* As errors_fail with words of the tool's own; @fix may be NULL. */
int errors_say(int status, const char *subject, const char *what, const char *fix);

int errors_status(int error);
const char *errors_type_name(unsigned int object_type);

#endif
