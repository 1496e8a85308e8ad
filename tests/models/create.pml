/* SPDX-License-Identifier: MIT */
/*
 * create.pml - create, attach and unlink of a segment (src/segment/attach.c)
 *
 * Two creators, one attacher, one unlinker; up to DEATHS deaths in front of any step, and of each dead creator the caller
 * tries again. A name, and files behind it, each with the init byte's lock, which ends with its holder. Waiting is a guard,
 * so each run is finite, and a run that cannot go on is reported as an invalid end state.
 *
 *   -DREADY_EARLY   control: READY is written with the header, not behind everything else
 *   -DNO_NAME_CHECK control: who has got the init lock does not look whether the name is still this file's
 */
#ifndef DEATHS
#define DEATHS 3
#endif

#define FILES 4 /* 0: none */

/* What the header says; EMPTY: no header. */
#define EMPTY	 0
#define BUILDING 1
#define READY	 2
#define REMOVED	 3

byte name;		/* the file that has the name, 0: none */
byte file_count;	/* files that there ever were */
byte header[FILES];	/* state */
bool allocated[FILES], written[FILES], joined[FILES];
byte init_lock[FILES];	/* who holds it, 0: nobody */

/* What the model knows and the code does not. */
byte deaths, ended, successes, attached;

#define DIES                                                                                       \
	atomic {                                                                                   \
		deaths < DEATHS;                                                                   \
		deaths++;                                                                          \
		if                                                                                 \
		:: file != 0 && init_lock[file] == me -> init_lock[file] = 0                       \
		:: else                                                                            \
		fi;                                                                                \
		file = 0;                                                                          \
		goto dead                                                                          \
	}

#define UNLOCK                                                                                     \
	if                                                                                         \
	:: d_step { init_lock[file] = 0; file = 0 }                                                \
	:: DIES                                                                                    \
	fi

/* Opens what the name says; with @make, makes an empty file if there is none. 0 if there is none still. */
inline open_name(make)
{
	if
	:: d_step { file = name }
	:: DIES
	fi;
	if
	:: file == 0 && make ->
		if
		:: d_step { /* O_EXCL: if somebody was faster, again */
			if
			:: name == 0 ->
				file_count++;
				assert(file_count < FILES);
				name = file_count;
				file = name
			:: else
			fi }
		:: DIES
		fi
	:: else
	fi
}

inline lock_init()
{
	if
	:: d_step { init_lock[file] == 0 -> init_lock[file] = me }
	:: DIES
	fi
}

#define IS_NAMED (name == file)
#ifdef NO_NAME_CHECK
#undef IS_NAMED
#define IS_NAMED true
#endif

proctype creator(byte me)
{
	byte file;

again:
	do
	:: open_name(1);
		if
		:: file != 0 ->
			lock_init();
			if
			:: !IS_NAMED -> UNLOCK
			:: IS_NAMED && header[file] == READY -> UNLOCK; break
			:: IS_NAMED && header[file] == REMOVED ->
				/* its unlinker died half-way */
				if
				:: d_step { /* by name: it must still be this file's */
					assert(name == file);
					name = 0 }
				:: DIES
				fi;
				UNLOCK
			:: IS_NAMED && (header[file] == EMPTY || header[file] == BUILDING) ->
				if /* truncates */
				:: d_step {
					assert(init_lock[file] == me);
					header[file] = EMPTY;
					allocated[file] = 0;
					written[file] = 0;
					joined[file] = 0 }
				:: DIES
				fi;
				if
#ifdef READY_EARLY
				:: header[file] = READY
#else
				:: header[file] = BUILDING
#endif
				:: DIES
				fi;
				if
				:: allocated[file] = 1
				:: DIES
				fi;
				if
				:: written[file] = 1
				:: DIES
				fi;
				if
				:: joined[file] = 1
				:: DIES
				fi;
				if
				:: d_step { assert(name == file); header[file] = READY }
				:: DIES
				fi;
				UNLOCK;
				break
			fi
		:: else
		fi
	od;
	goto done;
dead:
	goto again; /* the next caller */
done:
	/* It returns with a segment, its own or another's. */
	successes++;
	ended++
}

proctype attacher(byte me)
{
	byte file;
	bool works, complete;

	open_name(0);
	do
	:: file == 0 -> break /* no such segment */
	:: file != 0 ->
		if
		:: d_step { works = (init_lock[file] != 0); complete = 0 }
		:: DIES
		fi;
		if
		:: header[file] == READY ->
			d_step {
				assert(allocated[file] && written[file] && joined[file]);
				attached = file
			};
			break
		:: header[file] == REMOVED -> break
		:: header[file] != READY && header[file] != REMOVED && !works -> break /* never finished */
		:: header[file] != READY && header[file] != REMOVED && works ->
			/* a creator is at it: waits for a change */
			if
			:: header[file] == READY || header[file] == REMOVED || init_lock[file] == 0
			:: DIES
			fi
		fi
	od;
dead:
	ended++
}

proctype unlinker(byte me)
{
	byte file;

	do
	:: open_name(0);
		if
		:: file == 0 -> break
		:: else
		fi;
		lock_init();
		if
		:: !IS_NAMED -> UNLOCK
		:: IS_NAMED && header[file] == EMPTY -> UNLOCK; break /* no segment: left alone */
		:: IS_NAMED && header[file] != EMPTY ->
			if
			:: header[file] = REMOVED
			:: DIES
			fi;
			if
			:: d_step { /* by name: it must still be this file's */
				assert(name == file);
				name = 0 }
			:: DIES
			fi;
			UNLOCK;
			break
		fi
	od;
dead:
	ended++
}

init
{
	atomic { run creator(1); run creator(2); run attacher(3); run unlinker(4) };
	ended == 4;
	/* Each creator returned with a segment, so there was one; a name without a segment is an unlinker's that died. */
	assert(successes > 0);
	assert(name == 0 || header[name] == READY || header[name] == REMOVED);
	assert(init_lock[1] == 0 && init_lock[2] == 0 && init_lock[3] == 0)
}
