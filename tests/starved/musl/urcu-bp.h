/* SPDX-License-Identifier: MIT */
/*
 * Stands in for liburcu, which Debian has for glibc only, in musl_member.c: in a program with a single thread nobody else
 * reads, so there is nothing to wait for. liburcu keeps nothing in a segment, so other members cannot tell.
 */
#ifndef TESTS_STARVED_MUSL_URCU_BP_H
#define TESTS_STARVED_MUSL_URCU_BP_H

static inline void urcu_bp_read_lock(void)
{
}

static inline void urcu_bp_read_unlock(void)
{
}

static inline void urcu_bp_synchronize_rcu(void)
{
}

static inline void urcu_bp_before_fork(void)
{
}

static inline void urcu_bp_after_fork_parent(void)
{
}

static inline void urcu_bp_after_fork_child(void)
{
}

#endif
