/* SPDX-License-Identifier: MIT */
/* A member uses a limiter while others scribble over it. Input: which stage, then calls and edits in turn. */
#include "fuzz/check.h"
#include "fuzz/look.h"
#include "fuzz/stage.h"
#include "fuzz/targets.h"

#include <errno.h>

struct limiter_user {
	struct coshm_segment *segment;
	struct coshm_limiter *limiter;
	char key[STAGE_KEY_BYTES + 1];
};

#define TRY_ERRORS FUZZ_ERRORS(E2BIG, EUCLEAN, LOOK_ERRORS)

static void configure(struct limiter_user *user, uint8_t choice)
{
	const struct coshm_limiter_config config = {
		.rate = UINT64_C(1) << choice % 20, .per_ns = 1000000000, .burst = choice};

	FUZZ_CALL(0, FUZZ_ERRORS(EINVAL, EAGAIN, EUCLEAN, ENOTRECOVERABLE, LOOK_ERRORS),
		  coshm_limiter_configure(user->limiter, &config));
}

static void call(struct limiter_user *user, uint8_t what, struct fuzz_input *input)
{
	uint8_t choice = fuzz_u8(input), cost = fuzz_u8(input) % 8;
	struct coshm_limiter_result result;
	uint32_t members;

	stage_key(choice, user->key);
	switch (what % 10) {
	case 0:
	case 1:
		FUZZ_CALL(1, TRY_ERRORS,
			  coshm_limiter_try(user->limiter, user->key, STAGE_KEY_BYTES, cost,
					    &result));
		break;
	case 2:
		FUZZ_CALL(1, TRY_ERRORS,
			  coshm_limiter_try_at(user->limiter, user->key, STAGE_KEY_BYTES, cost,
					       coshm_segment_now_ns(user->segment) -
						       (UINT64_C(1) << choice % 40),
					       &result));
		break;
	case 3:
		FUZZ_CALL(1, FUZZ_ERRORS(E2BIG, EUCLEAN, EINTR, LOOK_ERRORS),
			  coshm_limiter_wait(user->limiter, user->key, STAGE_KEY_BYTES, cost, 1000,
					     &result));
		break;
	case 4:
		FUZZ_CALL(0, FUZZ_ERRORS(EUCLEAN, EAGAIN, LOOK_ERRORS),
			  coshm_limiter_refund(user->limiter, user->key, STAGE_KEY_BYTES, cost));
		break;
	case 5:
		FUZZ_CALL(0, FUZZ_ERRORS(EUCLEAN, EAGAIN, LOOK_ERRORS),
			  coshm_limiter_reset(user->limiter, user->key, STAGE_KEY_BYTES));
		break;
	case 6:
		configure(user, choice);
		break;
	case 7:
		look_at_limiter(user->limiter, choice, choice / 2);
		break;
	case 8:
		look_at_segment(user->segment, choice);
		break;
	case 9:
		FUZZ_CALL(0, FUZZ_ERRORS(LOOK_ERRORS), coshm_segment_reap(user->segment, &members));
		break;
	}
}

static void run(const uint8_t *bytes, size_t size_bytes)
{
	struct fuzz_input input = {.bytes = bytes, .size_bytes = size_bytes};
	struct stage *stage = stage_put_up(STAGE_LIMITER, fuzz_u8(&input) & 1);
	struct limiter_user user = {.segment = NULL};

	fuzz_begin();
	fuzz_require(coshm_segment_attach(stage->path, 0, &user.segment) == 0, "it attaches");
	fuzz_require(coshm_limiter_open(user.segment, STAGE_LIMITER_NAME, &user.limiter) == 0,
		     "it opens");
	stage_guard(stage, user.segment);
	while (!fuzz_input_is_over(&input) && !fuzz_is_patience_spent()) {
		uint8_t step = fuzz_u8(&input);

		if (step < 80)
			stage_edit(stage, &input);
		else
			call(&user, step, &input);
	}
	FUZZ_CALL(0, FUZZ_ERRORS(EBADF), coshm_limiter_close(user.limiter));
	stage_leave(stage, user.segment);
}

const struct fuzz_target fuzz_limiter = {.name = "limiter", .run = run};
