/* SPDX-License-Identifier: MIT */
#include <coshm/types.h>

#include <errno.h>
#include <stddef.h>

struct error_text {
	int error;
	const char *text;
};

static const struct error_text error_texts[] = {
#define COSHM__ERROR_ROW(error, text) {error, text},
#include "base/errors.def"
#undef COSHM__ERROR_ROW
};

const char *coshm_strerror(int error)
{
	if (error >= 0 && error <= 1)
		return error ? "yes" : "done";
	if (error < 0)
		error = -error;
	for (size_t i = 0; i < sizeof(error_texts) / sizeof(error_texts[0]); i++)
		if (error_texts[i].error == error)
			return error_texts[i].text;
	return "an error of the operating system: look its number up in errno(3)";
}
