/* SPDX-License-Identifier: MIT */
/*
 * bench/peers/limit_req.h - nginx's limit_req, by whole requests: HTTP is in the figure, so it stands beside the same
 * request without a limit
 */
#ifndef BENCH_PEERS_LIMIT_REQ_H
#define BENCH_PEERS_LIMIT_REQ_H

#include "../support/bench.h"

int limit_req_prepare(const struct bench_case *c);
void limit_req_stop(void);
void limit_req_begin(struct bench_worker *worker);
void limit_req_end(struct bench_worker *worker);

void limit_req_step_free(struct bench_worker *worker); /* no limit */
void limit_req_step_hot(struct bench_worker *worker);
void limit_req_step_refused(struct bench_worker *worker);
void limit_req_step_many(struct bench_worker *worker); /* a million keys */

#endif
