/* SPDX-License-Identifier: MIT */
/*
 * jsonq [PATH] - is stdin exactly one JSON document, and what is at PATH ("members.0.pid") in it?
 *
 * Prints the value: strings as they are, the rest as JSON; "length" at the end of a path counts an array or object.
 * Exit codes: 0 found, 1 not one valid document, 3 nothing at PATH.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *step(json_t *at, const char *word)
{
	if (json_is_array(at))
		return json_array_get(at, strtoul(word, NULL, 10));
	return json_object_get(at, word);
}

int main(int argc, char **argv)
{
	json_error_t mistake;
	json_t *document = json_loadf(stdin, JSON_REJECT_DUPLICATES, &mistake), *at = document;
	char *word = argc > 1 ? strtok(argv[1], ".") : NULL;

	if (!document) {
		fprintf(stderr, "line %d: %s\n", mistake.line, mistake.text);
		return 1;
	}
	for (; word && at; word = strtok(NULL, ".")) {
		if (!strcmp(word, "length") && !json_object_get(at, word)) {
			printf("%zu\n",
			       json_is_array(at) ? json_array_size(at) : json_object_size(at));
			json_decref(document);
			return 0;
		}
		at = step(at, word);
	}
	if (at && argc > 1) {
		if (json_is_string(at))
			fwrite(json_string_value(at), 1, json_string_length(at), stdout);
		else
			json_dumpf(at, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
		putchar('\n');
	}
	json_decref(document);
	return at ? 0 : 3;
}
