/* SPDX-License-Identifier: MIT */
/*
 * lock.pml - the robust lock (src/segment/rlock.c), members (member.c) and their reaping (reap.c)
 *
 * Three processes on three member slots. A life: register, take the lock or look after another member, leave. Each of its
 * steps is one change that others can see, and it may die in front of each; RESTARTS of the dead begin a new life. Waiting is
 * a guard, so that each run is finite, and a run that cannot go on is reported as an invalid end state: that, and the look
 * at the end of each run, is the proof of progress.
 *
 *   -DNO_GENERATION    control: a slot's next owner has the id of the last one
 *   -DFALSE_DEATH      one living member is recorded as dead; a release must still not free what others hold
 *   -DRELEASE_BY_STORE control: with FALSE_DEATH, the release does not name the owner
 */
#ifndef DEATHS
#define DEATHS 3
#endif
#ifndef RESTARTS
#define RESTARTS 2
#endif
#ifdef RELEASE_BY_STORE
#define FALSE_DEATH
#endif

#define FREE  0
#define ALIVE 1
#define DEAD  2

#define ID(slot, generation) ((slot) + 1 + 4 * (generation))
#define SLOT_OF(id)	     (((id) & 3) - 1)
#define GENERATION_OF(id)    ((id) >> 2)
#ifdef NO_GENERATION
#define NEXT(generation) (generation)
#else
#define NEXT(generation) ((generation) + 1)
#endif

byte state[3], generation[3]; /* the member word */
bool byte_locked[3];	      /* the kernel's record: ends with the process */
bool noted[3];		      /* lock_offset of the slot's thread */
byte owner, count;	      /* the lock word */
bit first, second;	      /* what it guards: equal, unless its holder is in the middle */

/* What the model knows and the code does not. */
byte inside, deaths, restarts, ended, started;

#define FORGET                                                                                     \
	other = 0; seen = 0; seen_count = 0; seen_generation = 0; result = 0; target = 0;           \
	target_generation = 0; stolen = 0; holds = 0

/* The process's memory goes, and with it the byte; all in one step. */
#define DIES                                                                                       \
	atomic {                                                                                   \
		deaths < DEATHS;                                                                   \
		deaths++;                                                                          \
		byte_locked[slot] = 0;                                                             \
		inside = inside - holds;                                                           \
		FORGET;                                                                            \
		slot = 0;                                                                          \
		id = 0;                                                                            \
		goto dead                                                                          \
	}

/* Is @who dead? Three steps: the member word, the kernel's answer, the CAS that records it. */
inline ask_dead(who, answer)
{
	if
	:: d_step {
		other = SLOT_OF(who);
		seen_generation = generation[other];
		if
		:: state[other] != ALIVE || seen_generation != GENERATION_OF(who) -> answer = 1
		:: else -> answer = 2
		fi }
	:: DIES
	fi;
	if
	:: answer == 2 ->
		if
		:: answer = !byte_locked[other]
		:: DIES
		fi;
		if
		:: answer ->
			if
			:: d_step {
				if
				:: state[other] == ALIVE && generation[other] == seen_generation ->
					state[other] = DEAD
				:: else
				fi }
			:: DIES
			fi
		:: else
		fi
	:: else
	fi
}

/* One try. result: 1 taken, 0 a living member has it, 2 lost a race. The note is read only after a death. */
inline try_lock()
{
	if
	:: d_step {
		noted[slot] = 1;
		seen = owner;
		seen_count = count;
		stolen = 0;
		result = 1 }
	:: DIES
	fi;
	if
	:: seen != 0 -> ask_dead(seen, result); stolen = result
	:: else
	fi;
	if
	:: result == 1 ->
		if
		:: d_step {
			if
			:: owner == seen && count == seen_count ->
				owner = id;
				count++;
#ifndef FALSE_DEATH
				assert(inside == 0);
#endif
				inside++;
				holds = 1
			:: else -> result = 2
			fi;
			seen = 0;
			seen_count = 0;
			other = 0;
			seen_generation = 0 }
		:: DIES
		fi
	:: else
	fi;
	/* who dies in front of this leaves the repair to the next taker */
	if
	:: result == 1 && stolen ->
		if
		:: d_step { second = first; stolen = 0 }
		:: DIES
		fi
	:: else
	fi
}

/* Changes what is guarded, in two steps, the second together with the release: who dies before it leaves a repair. */
inline change_and_unlock()
{
	if
	:: d_step {
#ifndef FALSE_DEATH
		assert(first == second);
#endif
		first = !first }
	:: DIES
	fi;
	if
	:: d_step {
		second = first;
		inside--;
		holds = 0;
#ifndef FALSE_DEATH
		assert(owner == id);
#endif
#ifdef RELEASE_BY_STORE
		assert(owner == id || owner == 0);
		owner = 0
#else
		if
		:: owner == id -> owner = 0
		:: else
		fi
#endif
	   }
	:: DIES
	fi
}

proctype process(byte me)
{
	byte slot, id, other, seen, seen_count, seen_generation, result, target, target_generation;
	bool stolen;
	bit holds;

again:
	/*
	 * Registers in the first free slot whose byte is not locked, or gives up. One step: under the byte lock nobody else
	 * writes to a free slot. In order, because they are all alike.
	 */
	atomic {
		started >= me;
		if
		:: started == me && started < 2 -> started++
		:: else
		fi;
		do
		:: slot < 3 && (state[slot] != FREE || byte_locked[slot]) -> slot++
		:: else -> break
		od;
		if
		:: slot == 3 -> slot = 0; goto done
		:: else
		fi;
		byte_locked[slot] = 1;
		noted[slot] = 0;
		state[slot] = ALIVE;
		generation[slot] = NEXT(generation[slot]);
		id = ID(slot, generation[slot])
	};
	if
	:: true -> /* an operation under the lock */
		do
		:: try_lock();
			if
			:: result == 1 -> break
			:: result == 2
			:: result == 0 ->
				/* sleeps until the word changes or its holder is dead */
				if
				:: owner != seen || count != seen_count || !byte_locked[SLOT_OF(seen)] ||
				   state[SLOT_OF(seen)] != ALIVE
				:: DIES
				fi
			fi
		od;
		change_and_unlock()
	:: true -> /* looks after another member */
		atomic {
			if
			:: slot != 0 && state[0] != FREE -> target = 0
			:: slot != 1 && state[1] != FREE -> target = 1
			:: slot != 2 && state[2] != FREE -> target = 2
			:: else -> goto leave
			fi;
			target_generation = generation[target]
		};
		ask_dead(ID(target, target_generation), result);
		atomic {
			other = 0;
			seen_generation = 0;
			result = 0;
			if
			:: state[target] == DEAD && generation[target] == target_generation
			:: else -> target = 0; target_generation = 0; goto leave
			fi
		};
		/* its lock first, if its note says so and it is still its */
		if
		:: noted[target] && owner == ID(target, target_generation) ->
			try_lock();
			if
			:: result == 1 -> change_and_unlock()
			:: else
			fi
		:: else
		fi;
		if
		:: d_step {
			if
			:: state[target] == DEAD && generation[target] == target_generation ->
				state[target] = FREE
			:: else
			fi;
			target = 0;
			target_generation = 0 }
		:: DIES
		fi
	fi;
leave:
	/* The byte goes after the word; until then nobody takes the slot. */
	atomic {
		if
		:: state[slot] == ALIVE && ID(slot, generation[slot]) == id -> state[slot] = FREE
		:: else
		fi;
		byte_locked[slot] = 0;
		FORGET;
		slot = 0;
		id = 0;
		goto done
	};
dead:
	if
	:: atomic { restarts < RESTARTS -> restarts++; goto again }
	:: true
	fi;
done:
	ended++
}

#ifdef FALSE_DEATH
active proctype liar()
{
	byte i;

end:
	if
	:: state[0] == ALIVE -> i = 0
	:: state[1] == ALIVE -> i = 1
	fi;
	d_step {
		if
		:: state[i] == ALIVE -> state[i] = DEAD
		:: else
		fi
	}
}
#endif

init
{
	atomic { run process(0); run process(1); run process(2) };
	ended == 3;
	/* Free, or its holder is dead and the kernel says so: whoever comes next gets it. */
	assert(owner == 0 || !byte_locked[SLOT_OF(owner)]);
	assert(inside == 0)
}
