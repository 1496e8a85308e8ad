/* SPDX-License-Identifier: MIT */
#include "target.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int target_parse(const char *text, struct target *ret_target)
{
	bool is_path = text[0] == '/' || text[0] == '.';
	const char *mark = is_path ? strrchr(text, ':') : strchr(text, '/');
	struct target target = {.text = text};
	size_t length;

	/* /srv:1/shop: a colon in a folder's name */
	if (is_path && mark && strchr(mark, '/'))
		mark = NULL;
	length = mark ? (size_t)(mark - text) : strlen(text);
	if (!length || (mark && (!mark[1] || strchr(mark + 1, '/'))))
		return -EINVAL;
	target.segment = strndup(text, length);
	target.object = mark ? strdup(mark + 1) : NULL;
	if (!target.segment || (mark && !target.object)) {
		target_free(&target);
		return -ENOMEM;
	}
	*ret_target = target;
	return 0;
}

void target_free(struct target *target)
{
	free(target->segment);
	free(target->object);
	target->segment = NULL;
	target->object = NULL;
}
