/* SPDX-License-Identifier: MIT */
/*
 * coshm/types.h - names that every other header uses
 */
#ifndef COSHM_TYPES_H
#define COSHM_TYPES_H

/*
 * Around the declarations of every public header: C linkage, and exported although the library
 * hides everything by default.
 */
#ifdef __cplusplus
#define COSHM_BEGIN_DECLS                                  \
	_Pragma("GCC visibility push(default)") extern "C" \
	{
#define COSHM_END_DECLS \
	}               \
	_Pragma("GCC visibility pop")
#else
#define COSHM_BEGIN_DECLS _Pragma("GCC visibility push(default)")
#define COSHM_END_DECLS	  _Pragma("GCC visibility pop")
#endif

COSHM_BEGIN_DECLS

/*
 * coshm_version - release version of the library that is running, "MAJOR.MINOR.PATCH"
 *
 * Safety    MT MP AS FORK          Progress  wait-free
 * Returns   a constant string
 */
const char *coshm_version(void);

/*
 * coshm_check_version - is the library that is running at least MAJOR.MINOR?
 * @major, @minor   what the caller was built for
 *
 * Safety    MT MP AS FORK          Progress  wait-free
 * Returns   1 yes, 0 no; another major version is no
 */
int coshm_check_version(unsigned int major, unsigned int minor);

COSHM_END_DECLS

#endif
