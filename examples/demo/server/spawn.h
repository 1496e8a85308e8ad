/* SPDX-License-Identifier: MIT */
/* Forking and reaping of workers. */
#ifndef DEMO_SERVER_SPAWN_H
#define DEMO_SERVER_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../common/ledger.h"
#include "app.h"
#include "children.h"

struct demo_spawner {
	struct demo_app *app;
	struct demo_children *children;
	struct demo_ledger ledger; /* the master's; fd -1: none are kept */
	uint64_t next_worker;
	uint16_t port;
	int reserved_fd;  /* keeps the port ours; workers have no use for it */
	int ready_fd;	  /* web workers say so when they listen; -1 later on */
	pid_t killer_pid; /* may trace the workers; 0: there is none */
};

/* 0 or -errno; in the child it does not return */
int demo_spawn(struct demo_spawner *spawner, struct demo_child *child);

/*
 * Reaps one dead child, if there is one. 1 and its place in the table (NULL: it was the killer),
 * 0 none.
 */
int demo_reap(struct demo_spawner *spawner, struct demo_child **ret_child, bool *ret_has_failed);

/* to all living workers of a role */
void demo_signal_role(struct demo_spawner *spawner, enum demo_role role, int signal_number);

/* how many workers of a role live */
uint32_t demo_living(const struct demo_spawner *spawner, enum demo_role role);

#endif
