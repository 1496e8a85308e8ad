/* SPDX-License-Identifier: MIT */
#include "nearest.h"

#include <stddef.h>
#include <string.h>

static size_t smallest(size_t a, size_t b, size_t c)
{
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

#define WORD_MAX 32

/* Edits (insert, drop, change, swap neighbours) that make one word the other; WORD_MAX if one is too long to matter. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[WORD_MAX + 1][WORD_MAX + 1];
	size_t a_length = strlen(a), b_length = strlen(b);

	if (a_length > WORD_MAX || b_length > WORD_MAX)
		return WORD_MAX;
	for (size_t i = 0; i <= a_length; i++)
		for (size_t j = 0; j <= b_length; j++) {
			if (!i || !j) {
				rows[i][j] = i + j;
				continue;
			}
			rows[i][j] = smallest(rows[i - 1][j] + 1, rows[i][j - 1] + 1,
					      rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    rows[i - 2][j - 2] + 1 < rows[i][j])
				rows[i][j] = rows[i - 2][j - 2] + 1;
		}
	return rows[a_length][b_length];
}

const char *nearest_word(const char *wrong, const char *const *words)
{
	const char *best = NULL;
	size_t best_distance = strlen(wrong) / 3 + 2;

	for (; *words; words++) {
		size_t edits = distance(wrong, *words);

		/* a word all of whose letters were replaced is no neighbour */
		if (edits < best_distance && edits < strlen(*words)) {
			best_distance = edits;
			best = *words;
		}
	}
	return best;
}
