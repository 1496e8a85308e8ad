/* SPDX-License-Identifier: MIT */
/*
 * coshm/segment.h - the shared memory that everything else lives in
 *
 * Use when      two or more processes of one host should share caches, limiters and queues. One segment per
 *               application is the rule; objects inside it are found by name.
 * Use something else for data that must survive a reboot, for several hosts, or among processes that do not trust
 *               each other: whoever may write the segment can destroy what is in it.
 *
 * Promises      P1 There is no daemon and no hidden thread. A segment lives as long as its file does.
 *               P2 A creator killed at any instruction leaves nothing that the next one would trip over.
 *               P3 What a killed member held is free again 10 ms after the kernel has torn the process down while
 *                  anyone works on the segment and gets a CPU (99 of 100), 100 ms when all sleep. (One operation in
 *                  5 ms, of any member, asks the kernel who is dead and cleans up for at most 1 ms; cache reads never
 *                  do. "No system call" in the other headers means: none but that.)
 *               P4 Liveness is a fact from the kernel (a file lock that lives as long as the process's memory): no
 *                  timeout, no pid; right across containers and PID namespaces. A stopped process is not dead.
 *               P5 A member that is forked, execs, exits or is killed never takes others' work with it.
 *               P6 A full file system is -ENOSPC at create time, never SIGBUS later; a full segment is -EDQUOT.
 * Not promised  N1 Memory of a removed object is reused only when no member has it open any more.
 *               N2 exec, and exit without coshm_segment_detach, count as deaths: what the member held is repaired
 *                  for it, which costs the others a little more than a clean detach.
 *               N3 A segment never shrinks.
 *               N4 The library keeps a descriptor for each segment. In a process that has closed it (close_range) any
 *                  function may need another one, and return -EMFILE, -ENFILE, or -ENOTCONN if the file is out of
 *                  reach by then; it may call again later.
 * After fork    The child uses the handles it inherited; it becomes a member of its own at its first call, whichever that
 *               is: any function that takes a handle then also returns what becoming a member may: -EUSERS
 *               (member_count_max processes are attached), -ENOTCONN (the file is gone or out of reach), -ENOTSUP,
 *               -ENOMEM, -EMFILE, -ENFILE, -ENOLCK; and -ESTALE from an object that was removed before. The child
 *               may call again later. Leases, pins and locks of the parent stay the parent's. This also holds for a
 *               raw clone(). vfork children must exec at once.
 * Threads       Everything is MT. A thread that used coshm may exit at any time outside of a coshm call.
 */
#ifndef COSHM_SEGMENT_H
#define COSHM_SEGMENT_H

#include <coshm/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How to create a segment. Zero is the default in each field but size_bytes. */
struct coshm_segment_config {
	size_t struct_size_bytes;
	uint64_t
		size_bytes; /* memory that is there from the start; at least 1 MiB; rounded up to pages */
	uint64_t
		size_max_bytes; /* address space set aside; the segment grows up to it when objects are created.
				  * Default: size_bytes. Costs no memory. */
	uint32_t mode; /* permission bits of the file; default 0600. Bits for others are refused. */
	uint32_t group_id; /* group of the file if group_id_set is 1 */
	uint32_t group_id_set;
	uint32_t
		member_count_max; /* processes that may be attached at once; default 256, at most 1023 */
	uint32_t
		thread_count_max; /* threads of all members that work at full speed; what a process has beyond that takes
				   * turns. Default 4 x member_count_max, at least that many, at most 8191 */
	uint32_t flags; /* COSHM_SEGMENT_* */
	uint32_t reserved;
};

enum coshm_segment_flags {
	/* Readers pay a full memory fence per read (some 5 ns) instead of relying on membarrier(2). Needed where
	 * membarrier is not allowed for every member (strict seccomp, gVisor). Fixed at creation. No
	 * program may forbid membarrier to itself once it runs: liburcu asks for it once, at the start, and ends the
	 * program if it fails later. */
	COSHM_SEGMENT_FENCED = 1,
	/* Ask the kernel for pages of 2 MiB, for each object when it is created (Linux 6.1 or later; 0.1 to 1 ms per page).
	 * Large caches are faster by a third then. A hint: what there are none for stays in pages of 4 KiB, as
	 * everything does where the kernel has none; ShmemHugePages in /proc/meminfo says what was given to all. Fixed at
	 * creation. */
	COSHM_SEGMENT_HUGE_PAGES = 2,
};

enum coshm_attach_flags {
	/* Map the segment read-only, take no member slot, never lock. Works on a hung or dead pool, and for users
	 * who may only read the file. Functions that would write answer -EROFS. It keeps nothing: when an object was
	 * removed, the last member has closed it and its memory is free, every function on it answers -ESTALE. */
	COSHM_ATTACH_READ_ONLY = 1,
	/* Accept a file owned by a user other than root and the caller, as seen inside a user namespace. */
	COSHM_ATTACH_ANY_OWNER = 2,
};

struct coshm_segment_info {
	char path[256];
	uint8_t uuid[16];
	uint32_t layout_version;
	uint32_t flags;
	uint64_t layout_fingerprint;
	uint64_t size_bytes;	 /* committed: memory that is there */
	uint64_t size_max_bytes; /* mapped */
	uint64_t
		used_bytes; /* by the header, the tables, and objects that are there or still open */
	uint64_t created_at_ns;	      /* segment clock */
	uint64_t created_realtime_ns; /* CLOCK_REALTIME */
	uint64_t now_ns;	      /* segment clock, now; for a saved file: when it was saved */
	uint32_t creator_pid;	      /* as seen by the creator; for display */
	uint32_t member_count;	      /* attached now */
	uint32_t member_count_max;
	uint32_t thread_count_max;
	uint32_t thread_high_water; /* of thread_count_max, so many were in use at once */
	uint32_t object_count;
	uint32_t object_count_max;
	uint32_t removed; /* 1: unlinked by coshm_segment_unlink; nobody can attach any more */
};

/*
 * coshm_segment_create - make a segment and attach to it
 * @name         "shop" is /dev/shm/shop: up to 200 printable characters, no blank; a name with a slash is a path of up
 *               to 255 bytes (tmpfs, ext4 or xfs)
 * @config       read, not kept
 * @flags        COSHM_CREATE_OR_OPEN: attach if it is there already
 * @ret_segment  the handle
 *
 * Safety    MT MP KILL       Progress  blocking, at most 5 s behind another creator
 * Returns   0; -EEXIST; -EINVAL (a size or a mode; the log says which);
 *           -ENOSPC (file system full, out of inodes, or smaller than asked: Docker's /dev/shm has 64 MB, use
 *           --shm-size); -EFBIG (over RLIMIT_FSIZE; no SIGXFSZ comes);
 *           -EACCES (also a mode that shuts the creator out); -EPERM (a group that the creator is not in);
 *           -EPERM, -EBADFD (what is there, as attach says);
 *           -ELOOP (a symbolic link); -ENOMEM (no address space for size_max_bytes);
 *           -EMEDIUMTYPE (not a file system that works: NFS, FUSE, 9p ...); -ETIMEDOUT; -ENOTSUP (no membarrier:
 *           create with COSHM_SEGMENT_FENCED); -EAGAIN (the name became another file's, again and again); else as
 *           coshm_segment_attach
 */
COSHM_CHECK_RESULT int coshm_segment_create(const char *name,
					    const struct coshm_segment_config *config,
					    uint32_t flags, struct coshm_segment **ret_segment);

/*
 * coshm_segment_attach - become a member of a segment
 * @flags        COSHM_ATTACH_*
 *
 * Attaching the same segment twice in a process gives two handles on one membership.
 * Safety    MT MP KILL       Progress  blocking, at most 5 s behind a creator; some 20 us otherwise
 * Returns   0; -EINVAL, -ENAMETOOLONG (not a name); -ENOENT; -EACCES; -EPERM (file of another owner:
 *           COSHM_ATTACH_ANY_OWNER takes it); -EBADFD (file that is world-writable: nothing takes it); -ELOOP (a
 *           symbolic link);
 *           -EPROTONOSUPPORT (other layout version or architecture; nothing was touched); -EUCLEAN (no segment, or
 *           damaged); -ESTALE (left over from before a reboot, or removed); -EUSERS (member_count_max processes
 *           are attached); -ENOTSUP (no membarrier here, and the segment was not created FENCED); -ENOMEM; -EMFILE,
 *           -ENFILE; -ENOLCK (the kernel has no memory for a lock); -ETIMEDOUT (a creator is stopped); -EMEDIUMTYPE
 *           (not a file system that works); -EROFS (mounted so, and not attached read-only); -ENOTDIR (in a path)
 */
COSHM_CHECK_RESULT int coshm_segment_attach(const char *name, uint32_t flags,
					    struct coshm_segment **ret_segment);

/*
 * coshm_segment_detach - close the handle; the last one ends the membership and the mapping
 *
 * Closes every object handle that was opened through this handle. Waits for calls of other threads that are inside.
 * Returns   0; -EBUSY: it is the last handle, and views are still pinned (unpin them first); -EBADF
 */
int coshm_segment_detach(struct coshm_segment *segment);

/*
 * coshm_segment_unlink - remove a segment's name
 *
 * As with unlink(2), members go on with what they have mapped; nobody can attach any more, and opening further
 * objects answers -ESTALE.
 * Safety    MT MP KILL       Progress  blocking, at most 5 s behind a creator
 * Returns   0; -EUCLEAN (not a segment: left alone); -EAGAIN (the name became another file's, again and again); else as
 *           coshm_segment_attach
 */
COSHM_CHECK_RESULT int coshm_segment_unlink(const char *name);

/*
 * coshm_segment_info - describe a segment
 * Safety    MT MP FORK       Returns   0, -EBADF
 */
COSHM_CHECK_RESULT int coshm_segment_info(struct coshm_segment *segment,
					  struct coshm_segment_info *ret_info);

/*
 * coshm_segment_reap - finish what dead members left, now
 * @ret_members   how many dead members were found and cleaned up completely; may be NULL
 *
 * Nobody has to call it: operations do the same in passing. Useful after a crash, from cron or in a test.
 * Safety    MT MP FORK KILL       Progress  bounded by the size of the objects that the dead had open
 * Returns   0; -EROFS; -EBADF
 */
COSHM_CHECK_RESULT int coshm_segment_reap(struct coshm_segment *segment, uint32_t *ret_members);

/*
 * coshm_segment_now_ns - the segment's clock
 *
 * CLOCK_MONOTONIC with the time namespace's offset taken out, so that members in containers agree.
 * Safety    MT MP FORK       Cost  one clock_gettime (some 17 ns)
 * Returns   nanoseconds; 0 if the handle is closed
 */
uint64_t coshm_segment_now_ns(struct coshm_segment *segment);

/*
 * coshm_object_remove - remove an object by name
 *
 * Unlink semantics: handles that are open keep working, sleepers are woken, the name is free at once and the memory
 * is reused when the last member has closed it, and nobody is in the middle of cleaning up after a dead one: a member that
 * is stopped in that keeps it, as one does who has it open.
 * Safety    MT MP FORK KILL
 * Returns   0; -ENOENT; -EINVAL, -ENAMETOOLONG (not a name); -EAGAIN (directory busy for 100 ms); -ENOMEM (of this
 *           process); -EROFS; -EBADF; -EUCLEAN, -ENOTRECOVERABLE (damage)
 */
COSHM_CHECK_RESULT int coshm_object_remove(struct coshm_segment *segment, const char *name);

#ifdef __cplusplus
}
#endif
#endif
