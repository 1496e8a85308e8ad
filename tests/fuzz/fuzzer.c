/* SPDX-License-Identifier: MIT */
/* The entry of a coverage-guided fuzzer; FUZZ_TARGET says which of targets.h. */
#include "fuzz/stage.h"
#include "fuzz/targets.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
	FUZZ_TARGET.run(bytes, size_bytes);
	return 0;
}
