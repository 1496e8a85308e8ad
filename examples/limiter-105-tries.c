/* SPDX-License-Identifier: MIT */
/*
 * The textbook's rate limiter: 105 tries against 100 tokens, of which 10 per second come back.
 *
 *	cc limiter-105-tries.c $(pkg-config --cflags --libs coshm) && ./a.out
 *
 * The tries name their moment (coshm_limiter_try_at), so that the outcome is the textbook's to the token, however slow
 * the machine is. A server calls coshm_limiter_try, which takes the present.
 */
#include <coshm/coshm.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, coshm_strerror(result));
		exit(1);
	}
}

/* Returns how many of @count tries passed. */
static int try_often(struct coshm_limiter *limiter, const char *when, int count, uint64_t now_ns)
{
	struct coshm_limiter_result result = {0};
	int allowed = 0;

	for (int i = 0; i < count; i++) {
		int answer = coshm_limiter_try_at(limiter, "198.51.100.17", 13, 1, now_ns, &result);

		check(answer, "try");
		allowed += answer;
	}
	printf("%-12s %3d tries: %3d allowed, %d denied; %llu left, the next one in %llu ms, all "
	       "in %llu ms\n",
	       when, count, allowed, count - allowed, (unsigned long long)result.remaining,
	       (unsigned long long)(result.retry_after_ns / MS),
	       (unsigned long long)(result.reset_after_ns / MS));
	return allowed;
}

int main(void)
{
	struct coshm_segment_config memory = {.size_bytes = 1 << 20};
	struct coshm_limiter_config ten_per_second = {.rate = 10, .burst = 100};
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	uint64_t start_ns;
	char name[40];
	int right;

	snprintf(name, sizeof(name), "limiter-105-tries-%d", (int)getpid());
	check(coshm_segment_create(name, &memory, 0, &segment), "segment");
	check(coshm_limiter_create(segment, "requests", &ten_per_second, 0, &limiter), "limiter");

	/* A moment must lie in the past; the last one below is the present. */
	start_ns = coshm_segment_now_ns(segment) - 1000 * MS;
	right = try_often(limiter, "at once", 105, start_ns) == 100;
	right &= try_often(limiter, "0.5 s later", 6, start_ns + 500 * MS) == 5;
	right &= try_often(limiter, "1 s later", 6, start_ns + 1000 * MS) == 5;

	check(coshm_limiter_close(limiter), "close");
	check(coshm_segment_detach(segment), "detach");
	check(coshm_segment_unlink(name), "unlink");
	return !right;
}
