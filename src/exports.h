/* SPDX-License-Identifier: MIT */
/*
 * exports.h - included by the build in front of every source of the library
 *
 * The library is compiled with hidden visibility. What a public header declares is exported, because it is seen here
 * first; so the headers themselves need no markers.
 */
#ifndef COSHM__EXPORTS_H
#define COSHM__EXPORTS_H

#pragma GCC visibility push(default)
#include <coshm/coshm.h>
#include <coshm/inspect.h>
#pragma GCC visibility pop

#endif
