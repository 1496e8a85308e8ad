/* SPDX-License-Identifier: MIT */
/* nearest.h - what was probably meant by a word that is not known */
#ifndef SHMCTL_NEAREST_H
#define SHMCTL_NEAREST_H

/* The one of @words (ended by NULL) with the fewest edits from @wrong, or NULL if all are too far away. */
const char *nearest_word(const char *wrong, const char *const *words);

#endif
