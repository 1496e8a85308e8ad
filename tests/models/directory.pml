/* SPDX-License-Identifier: MIT */
/*
 * directory.pml - the directory of objects (src/segment/object.c), and what reapers do with it (src/segment/reap.c)
 *
 * An object of one name is there. Two members create or open that name, use what they got, close it and leave; a third
 * removes it; REAPERS reapers. Up to DEATHS deaths in front of any change, and RESTARTS of the dead come again, as the next
 * generation of their slot. Waiting is a guard, so each run is finite, and a run that cannot go on is reported as an
 * invalid end state.
 *
 *   -DTIDY_BY_STORE   control: who tidies stores FREE, instead of a CAS from the word that was judged
 *   -DNO_OPEN_RECHECK control: who has set its open bit does not look whether the entry is still LIVE
 *   -DREAPERS=2       one may stand still in a repair, while another one finishes
 *   -DNO_REAP_MARK    control: the reapers do not announce themselves
 */
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef REAPERS
#define REAPERS 1
#endif

#define ENTRIES 2
#define MEMBERS 3 /* 1 and 2 create, 3 removes; 4 and up are reapers, which have nothing open and do not die */

#define FREE	 0
#define BUILDING 1
#define LIVE	 2
#define REMOVED	 3

#define ALIVE 1
#define DEAD  2

/* Entries. There is one place in memory more than can be taken at a time. */
byte state[ENTRIES], generation[ENTRIES], owner[ENTRIES], owner_generation[ENTRIES], place[ENTRIES];

/* Members: the word, and open_objects. */
byte member[MEMBERS + 1], member_generation[MEMBERS + 1], bits[MEMBERS + 1];
byte reaps[MEMBERS + 3];
byte lock_owner, lock_generation;

/* What the kernel knows. */
bool runs[MEMBERS + 1];

/* What the model knows and the code does not. Lives of objects are numbered; bytes: whose contents are there. */
byte life[ENTRIES], bytes[ENTRIES], lives, deaths, restarts, ended;
byte left[MEMBERS + 1]; /* the life that a member is in the middle of, dead or alive */
bool exists;

#define LOCALS                                                                                     \
	byte e, m, seen_state, seen_generation, seen_owner, seen_owner_generation, mine;           \
	bool yes

#define FORGET                                                                                     \
	e = 0; m = 0; seen_state = 0; seen_generation = 0; seen_owner = 0; seen_owner_generation = 0; \
	mine = 0; yes = 0

#define DIES                                                                                       \
	atomic {                                                                                   \
		deaths < DEATHS;                                                                   \
		deaths++;                                                                          \
		runs[me] = 0;                                                                      \
		FORGET;                                                                            \
		goto dead                                                                          \
	}

#define LOAD_WORD                                                                                  \
	seen_state = state[e];                                                                     \
	seen_generation = generation[e];                                                           \
	seen_owner = owner[e];                                                                     \
	seen_owner_generation = owner_generation[e]

#define SAME_WORD                                                                                  \
	(state[e] == seen_state && generation[e] == seen_generation && owner[e] == seen_owner &&   \
	 owner_generation[e] == seen_owner_generation)

#define STORE_FREE                                                                                 \
	state[e] = FREE;                                                                           \
	owner[e] = 0;                                                                              \
	owner_generation[e] = 0

#define CAS_FREE                                                                                   \
	if                                                                                         \
	:: SAME_WORD -> STORE_FREE                                                                 \
	:: else                                                                                    \
	fi

/* As coshm__member_is_dead: records it. The pieces of this are the model lock's. */
#define JUDGE(who, whose)                                                                          \
	if                                                                                         \
	:: member_generation[who] != whose || member[who] != ALIVE -> yes = 1                      \
	:: else ->                                                                                 \
		if                                                                                 \
		:: !runs[who] -> member[who] = DEAD; yes = 1                                       \
		:: else -> yes = 0                                                                 \
		fi                                                                                 \
	fi

#define HAS_BIT(who) (member[who] != FREE && (bits[who] >> e) % 2)

inline begin_to_run()
{
	if
	:: d_step {
		member[me] == FREE ->
		bits[me] = 0;
		runs[me] = 1;
		member_generation[me]++;
		member[me] = ALIVE }
	fi
}

inline lock()
{
	if
	:: d_step {
		lock_owner == 0 || member_generation[lock_owner] != lock_generation || !runs[lock_owner] ->
		lock_owner = me;
		lock_generation = member_generation[me] }
	:: DIES
	fi
}

inline unlock()
{
	if
	:: d_step { assert(lock_owner == me && lock_generation == member_generation[me]); lock_owner = 0 }
	:: DIES
	fi
}

/* yes: nobody has it open, and nobody reaps in it */
inline count_open()
{
	yes = 1;
	m = 1;
	do
	:: m <= MEMBERS -> d_step { yes = (yes && !HAS_BIT(m)); m++ }
	:: else -> break
	od;
	do
	:: m <= MEMBERS + REAPERS -> d_step { yes = (yes && !reaps[m]); m++ }
	:: else -> break
	od;
	m = 0
}

inline tidy()
{
	e = 0;
	do
	:: e < ENTRIES ->
		yes = 0;
		d_step { LOAD_WORD };
		if
		:: seen_state == REMOVED -> count_open()
		:: else
		fi;
		if
		:: seen_state == BUILDING -> d_step { JUDGE(seen_owner, seen_owner_generation) }
		:: else
		fi;
		if
		:: yes ->
			if
#ifdef TIDY_BY_STORE
			:: d_step { STORE_FREE }
#else
			:: d_step { CAS_FREE }
#endif
			:: DIES
			fi
		:: else
		fi;
		d_step { seen_state = 0; seen_generation = 0; seen_owner = 0; seen_owner_generation = 0; yes = 0; e++ }
	:: else -> break
	od;
	e = 0
}

/* e: the first entry in that state, or ENTRIES */
inline find(wanted)
{
	e = 0;
	do
	:: e < ENTRIES && state[e] != wanted -> e++
	:: else -> break
	od
}

/* Entry e, whose word was seen: yes if it is open. */
inline open_entry()
{
	if
	:: d_step { bits[me] = bits[me] | (1 << e) }
	:: DIES
	fi;
#ifdef NO_OPEN_RECHECK
	yes = 1;
#else
	d_step { yes = SAME_WORD };
#endif
	if
	:: yes
	:: else ->
		if
		:: d_step { bits[me] = bits[me] & ~(1 << e) }
		:: DIES
		fi
	fi
}

proctype creator(byte me)
{
	LOCALS;

again:
	begin_to_run();
	do
	:: lock();
		tidy();
		d_step {
			find(LIVE);
			if
			:: e < ENTRIES -> LOAD_WORD; mine = life[e]
			:: else ->
				find(BUILDING);
				if
				:: e < ENTRIES -> LOAD_WORD
				:: else -> find(FREE)
				fi
			fi
		};
		if
		:: e == ENTRIES -> unlock(); goto leave /* full */
		:: e < ENTRIES && seen_state == LIVE -> unlock(); break
		:: e < ENTRIES && seen_state == BUILDING ->
			unlock();
			/* sleeps until it is worth another try */
			d_step {
				!SAME_WORD || !runs[seen_owner] || member_generation[seen_owner] != seen_owner_generation ->
				FORGET }
		:: e < ENTRIES && seen_state == FREE ->
			if
			:: d_step { /* in the gap */
				assert(state[e] == FREE);
				place[e] = 0;
				do
				:: place[e] == place[1 - e] && state[1 - e] != FREE && place[e] == 0 -> place[e] = 1
				:: else -> break
				od;
				lives++;
				life[e] = lives;
				mine = lives;
				generation[e]++;
				owner[e] = me;
				owner_generation[e] = member_generation[me];
				state[e] = BUILDING }
			:: DIES
			fi;
			unlock();
			if
			:: bytes[place[e]] = mine
			:: DIES
			fi;
			if
			:: d_step { /* a store: nobody else changes it while its creator lives */
				assert(state[e] == BUILDING && owner[e] == me && owner_generation[e] == member_generation[me]);
				assert(!exists);
				exists = 1;
				state[e] = LIVE;
				owner[e] = 0;
				owner_generation[e] = 0;
				LOAD_WORD }
			:: d_step { /* what it is to hold cannot be made */
				assert(state[e] == BUILDING && owner[e] == me && owner_generation[e] == member_generation[me]);
				STORE_FREE;
				FORGET };
				goto leave
			:: DIES
			fi;
			break
		fi
	od;
	open_entry();
	if
	:: yes ->
		if
		:: d_step { assert(bytes[place[e]] == mine); left[me] = mine }
		:: DIES
		fi;
		if
		:: d_step { assert(bytes[place[e]] == mine); left[me] = 0 }
		:: DIES
		fi;
		if
		:: d_step { bits[me] = bits[me] & ~(1 << e) }
		:: DIES
		fi
	:: else
	fi;
leave:
	if
	:: d_step { FORGET; runs[me] = 0; member[me] = FREE }
	:: DIES
	fi;
	goto done;
dead:
	if
	:: atomic { restarts < RESTARTS && member[me] == FREE -> restarts++; goto again }
	:: member[me] == FREE
	fi;
done:
	ended++
}

proctype remover(byte me)
{
	LOCALS;

	begin_to_run();
	lock();
	d_step { find(LIVE) };
	if
	:: e < ENTRIES ->
		if
		:: d_step { assert(state[e] == LIVE); state[e] = REMOVED; exists = 0 }
		:: DIES
		fi
	:: else
	fi;
	unlock();
	if
	:: d_step { FORGET; runs[me] = 0; member[me] = FREE }
	:: DIES
	fi;
	goto done;
dead:
	member[me] == FREE;
done:
	ended++
}

/* m: the dead member, as generation mine */
proctype reaper(byte me)
{
	LOCALS;
	byte at;

end:
	do
	:: d_step { member[1] == ALIVE && !runs[1] -> member[1] = DEAD }
	:: d_step { member[2] == ALIVE && !runs[2] -> member[2] = DEAD }
	:: d_step { member[3] == ALIVE && !runs[3] -> member[3] = DEAD }
	:: d_step { member[1] == DEAD -> m = 1; mine = member_generation[1] }; goto pass
	:: d_step { member[2] == DEAD -> m = 2; mine = member_generation[2] }; goto pass
	:: d_step { member[3] == DEAD -> m = 3; mine = member_generation[3] }; goto pass
	od;
pass:
#ifndef NO_REAP_MARK
	reaps[me] = m;
	if
	:: d_step { member[m] != DEAD || member_generation[m] != mine -> reaps[me] = 0; FORGET };
		goto end
	:: else
	fi;
#endif
	do
	:: e < ENTRIES ->
		d_step { LOAD_WORD; yes = (seen_state == BUILDING && seen_owner == m && seen_owner_generation == mine) };
		if
		:: yes -> d_step { CAS_FREE }
		:: else
		fi;
		e++
	:: else -> break
	od;
	e = 0;
	do
	:: e < ENTRIES ->
		d_step { yes = (bits[m] >> e) % 2 };
		if
		:: yes ->
			/* Looks for what the dead left, which is found by its name; the CAS that takes it over. */
			d_step {
				at = place[e];
				yes = (left[m] != 0 && bytes[at] == left[m]);
				seen_owner = left[m];
				if
				:: yes -> left[m] = 0
				:: else
				fi
			};
			/* And the repair, which names nobody. */
			if
			:: yes -> assert(bytes[at] == seen_owner)
			:: else
			fi
		:: else
		fi;
		d_step { seen_owner = 0; at = 0; e++ }
	:: else -> break
	od;
	e = 0;
	d_step {
		if
		:: member[m] == DEAD && member_generation[m] == mine -> assert(left[m] == 0); member[m] = FREE
		:: else
		fi;
		FORGET };
	reaps[me] = 0;
	goto end
dead:
	skip
}

init
{
	byte e;

	atomic {
		lives = 1;
		life[0] = 1;
		bytes[0] = 1;
		state[0] = LIVE;
		generation[0] = 1;
		exists = 1;
		run creator(1);
		run creator(2);
		run remover(3);
		e = 0;
		do
		:: e < REAPERS -> e++; run reaper(MEMBERS + e)
		:: else -> e = 0; break
		od
	};
	ended == MEMBERS && member[1] == FREE && member[2] == FREE && member[3] == FREE;
	d_step {
		/* No entry is of somebody dead, and the name is there or not, as it was said. */
		assert(state[0] != BUILDING && state[1] != BUILDING);
		assert((state[0] == LIVE) + (state[1] == LIVE) == exists)
	}
}
