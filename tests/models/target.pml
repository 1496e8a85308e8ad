/* SPDX-License-Identifier: MIT */
/*
 * target.pml - the last free page takes in what lives in another (src/modules/cache/target.c, evict.c)
 *
 * A source of two items that fill it, the last free page, MOVERS movers that walk the source or put a value in place of
 * one of its items first, and others who delete items or replace them elsewhere at any time. DEATHS deaths of movers in front
 * of any step; the dead begin again, and the source of the dead is SEALED again at any time. An item may also not be movable
 * now. Until nothing lives in the source: no bound on what is repeated but deaths and what others do. Safety only.
 *
 *   -DNO_SECOND_LOOK  control: who replaces an item does not look again once it owns the source
 *   -DLOOK_FIRST      control: it looks before it asks how far the target is filled
 *   -DNO_RESET        control: the length of an item is written while the word names another one
 *   -DCOUNT_EARLY     control: an item counts before its slot names it
 *   -DFORGET          control: what is on its way never counts
 */
#ifndef DEATHS
#define DEATHS 3
#endif
#ifndef OTHERS
#define OTHERS 3
#endif
#ifndef MOVERS
#define MOVERS 2
#endif

#define PAGE	8
#define SIZE(k) (k == 0 -> 3 : 5)

/* The source's page word. */
#define SEALED 0
#define FREED  100
/* else EVICT, of mover - 1 */
byte source = SEALED;

/* Where the slot of each key points to. */
#define SOURCE	  50
#define ELSEWHERE 51
#define GONE	  52
/* else an offset in the target */
byte slot[2] = SOURCE;

/* The target: there or not, its one word, and what lies in it. */
bool there;
byte used, coming; /* key + 1 */
byte length[9];	   /* that stands at an offset */
bool seen[9];	   /* a slot has named what lies there, so others may be reading it */

byte deaths, others;

#define DIES                        \
	atomic {                    \
		deaths < DEATHS;    \
		deaths++;           \
		goto again          \
	}

/* Others replace or delete, and take what the dead owned from them. */
active proctype world()
{
	byte k;

end:
	do
	:: d_step { others < OTHERS && source != FREED -> others++; k = 0 }
		if
		:: k = 0
		:: k = 1
		fi;
		if
		:: slot[k] = ELSEWHERE
		:: slot[k] = GONE
		fi;
		k = 0
	od
}

bool alive[MOVERS];

active proctype reaper()
{
end:
	do
	:: d_step { source > 0 && source <= MOVERS && !alive[source - 1] -> source = SEALED }
	od
}

/* At offset at, the item of key k, with size bytes. */
#define WRITTEN(at) assert(!seen[at])

active [MOVERS] proctype mover()
{
	byte at, k, next, wants, size, first;
	bool ok, fits;

again:
	skip;
	d_step {
		alive[_pid - 2] = 0;
		at = 0; k = 0; next = 0; wants = 0; size = 0; first = 0; ok = 0; fits = 0;
	}
end:
	do
	:: source == FREED -> break
	:: else ->
		/* To walk, or to put a value in place of key wants - 1, which was seen in the source some time ago. */
		if
		:: wants = 0
		:: wants = 1
		:: wants = 2
		fi;
		if
		:: d_step { source == SEALED -> source = _pid - 1; alive[_pid - 2] = 1 }
		:: source == FREED -> break
		fi;
		ok = 1;
#ifdef LOOK_FIRST
		if
		:: wants -> ok = (slot[wants - 1] == SOURCE)
		:: !wants
		:: DIES
		fi;
#endif
		/* How far is it filled? */
		if
		:: !there -> d_step { there = 1; used = 0; coming = 0; at = 0; k = 0 }
		:: there -> d_step { at = used; k = coming }
		:: DIES
		fi;
#ifndef FORGET
		if
		:: d_step { !k || slot[k - 1] == SOURCE -> k = 0 }
		:: d_step { k && slot[k - 1] != SOURCE -> at = at + length[at]; k = 0 }
		:: DIES
		fi;
#endif
#ifndef LOOK_FIRST
#ifndef NO_SECOND_LOOK
		if
		:: wants -> ok = (slot[wants - 1] == SOURCE)
		:: !wants
		:: DIES
		fi;
#endif
#endif
		/* The value that is wanted first, then what lives in the source. */
		next = 0;
		first = (ok -> wants : 0);
		if
		:: !ok -> next = 2
		:: else
		fi;
		do
		:: next < 2 || first ->
			if
			:: first -> k = first - 1
			:: else -> d_step { k = next; next++ }
			fi;
			if
			:: !first && slot[k] != SOURCE -> goto moved
			:: !first -> goto moved /* not now */
			:: first || slot[k] == SOURCE
			:: DIES
			fi;
			size = SIZE(k);
			/* No room: then it can never be moved. */
			assert(at + size <= PAGE);
#ifndef NO_RESET
			if
			:: d_step { used = at; coming = 0 }
			:: DIES
			fi;
#endif
			if
			:: d_step { WRITTEN(at); length[at] = size }
			:: DIES
			fi;
			if
#ifdef COUNT_EARLY
			:: d_step { used = at + size; coming = 0 }
#else
			:: d_step { used = at; coming = k + 1 }
#endif
			:: DIES
			fi;
			if
			:: WRITTEN(at)
			:: DIES
			fi;
			if
			:: d_step {
				fits = (first || slot[k] == SOURCE);
				if
				:: fits -> slot[k] = at; seen[at] = 1
				:: else
				fi }
			:: DIES
			fi;
			if
			:: fits ->
				if
				:: d_step { at = at + size; used = at; coming = 0 }
				:: DIES
				fi
			:: else
			fi;
moved:
			first = 0
		:: else -> break
		od;
		/* When nothing lives in the source any more, the target is a page like others. */
		if
		:: d_step { slot[0] != SOURCE && slot[1] != SOURCE && ok -> source = FREED }
		:: d_step {
			slot[0] == SOURCE || slot[1] == SOURCE || !ok ->
			source = SEALED;
			alive[_pid - 2] = 0 }
		:: DIES
		fi;
		d_step { k = 0; at = 0; size = 0; fits = 0; wants = 0; ok = 0; next = 0 }
	od
}
