/* SPDX-License-Identifier: MIT */
/* bench/peers/channel_coshm.h - for what only our queue can do */
#ifndef BENCH_PEERS_CHANNEL_COSHM_H
#define BENCH_PEERS_CHANNEL_COSHM_H

struct coshm_queue;

/* Of the open channel. */
struct coshm_queue *channel_coshm_queue(void);

#endif
