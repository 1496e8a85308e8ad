/* SPDX-License-Identifier: MIT */
/*
 * hazard.pml - page hazards (src/structs/hazard.c) and a page's life in the cache (src/modules/cache/page.c, evict.c,
 * lane.c)
 *
 * A reader, a writer, EVICTORS evictors, one slot, two pages of one item; up to DEATHS deaths in front of any step; the dead are
 * reaped and begin again. The reader's stores of its hazard wait in a store buffer, which empties at any time, and always
 * when an evictor runs its barrier. No bound on what is repeated but WRITES: safety only.
 *
 *   -DNO_RECHECK      control: the reader does not look at the slot and the generation again
 *   -DNO_SLOT_RECHECK control: it looks at the generation only
 *   -DNO_BARRIER      control: the evictor does not run the barrier
 *   -DNO_WRITE_HAZARD control: it walks over pages that somebody still writes to
 */
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef WRITES
#define WRITES 4
#endif
#ifndef EVICTORS
#define EVICTORS 1
#endif

#define FREE   0
#define OPEN   1
#define SEALED 2
#define EVICT  3
#define LIMBO  4

#define NOBODY 9
#define NONE   7 /* in the store buffer */

/* Pages are 1 and 2; 0 is no page. */
byte state[3], page_owner[3];
byte generation[3] = 1;
byte slot_page, slot_generation;
byte bytes_a[3], bytes_b[3]; /* which life of the page they are of */
byte read_hazard, write_hazard;
byte buffer = NONE;
byte lane; /* who holds its lock */

/* What the model knows and the code does not. */
byte deaths, writes;
bool reader_dead, writer_dead;

active proctype store_buffer()
{
end:
	do
	:: d_step { buffer != NONE -> read_hazard = buffer; buffer = NONE }
	od
}

#define READER_DIES                                                                                \
	atomic {                                                                                   \
		deaths < DEATHS;                                                                   \
		deaths++;                                                                          \
		buffer = NONE;                                                                     \
		reader_dead = 1;                                                                   \
		page = 0;                                                                          \
		seen_generation = 0;                                                               \
		value = 0;                                                                         \
		goto again                                                                         \
	}

active proctype reader()
{
	byte page, seen_generation, value;
	bool same;

again:
end:
	!reader_dead;
end_idle:
	do
	:: d_step {
		slot_page != 0 ->
		page = slot_page;
		seen_generation = slot_generation };
		if
		:: buffer = page
		:: READER_DIES
		fi;
		same = 1;
#ifndef NO_RECHECK
#ifndef NO_SLOT_RECHECK
		if
		:: same = (slot_page == page && slot_generation == seen_generation)
		:: READER_DIES
		fi;
#endif
		if
		:: same -> same = (generation[page] == seen_generation)
		:: !same
		:: READER_DIES
		fi;
#endif
		if
		:: same ->
			if
			:: value = bytes_a[page]
			:: READER_DIES
			fi;
			if
			:: d_step {
				assert(value == seen_generation && bytes_b[page] == seen_generation);
				value = 0 }
			:: READER_DIES
			fi
		:: else
		fi;
		if
		:: d_step { buffer = 0; page = 0; seen_generation = 0; same = 0 }
		:: READER_DIES
		fi
	od
}

#define WRITER_DIES                                                                                \
	atomic {                                                                                   \
		deaths < DEATHS;                                                                   \
		deaths++;                                                                          \
		writer_dead = 1;                                                                   \
		page = 0;                                                                          \
		mine = 0;                                                                          \
		old_page = 0;                                                                      \
		old_generation = 0;                                                                \
		goto again                                                                         \
	}

active proctype writer()
{
	byte page, mine, old_page, old_generation;

again:
end:
	!writer_dead;
end_idle:
	do
	:: d_step {
		lane == 0 && writes < WRITES && (state[1] == FREE || state[2] == FREE) ->
		lane = 1;
		writes++ };
		if
		:: d_step { state[1] == FREE -> state[1] = OPEN; page = 1; mine = generation[1] }
		:: d_step { state[2] == FREE -> state[2] = OPEN; page = 2; mine = generation[2] }
		:: WRITER_DIES
		fi;
		if
		:: write_hazard = page
		:: WRITER_DIES
		fi;
		if
		:: lane = 0
		:: WRITER_DIES
		fi;
		if
		:: bytes_a[page] = mine
		:: WRITER_DIES
		fi;
		if
		:: bytes_b[page] = mine
		:: WRITER_DIES
		fi;
		do
		:: d_step { old_page = slot_page; old_generation = slot_generation };
			if
			:: atomic {
				if
				:: slot_page == old_page && slot_generation == old_generation ->
					assert(state[page] != FREE && generation[page] == mine);
					slot_page = page;
					slot_generation = mine;
					old_page = 0;
					old_generation = 0;
					break
				:: else
				fi }
			:: WRITER_DIES
			fi
		od;
		if
		:: d_step { write_hazard = 0; page = 0; mine = 0 }
		:: WRITER_DIES
		fi
	od
}

/* Locks first, then the thread slot, and with it what hazards there are. */
active proctype reaper()
{
end:
	do
	:: writer_dead ->
		if
		:: lane == 1 -> lane = 0
		:: else
		fi;
		d_step { write_hazard = 0; writer_dead = 0 }
	:: d_step { reader_dead -> read_hazard = 0; reader_dead = 0 }
	od
}

#define EVICTOR_DIES                                                                               \
	atomic {                                                                                   \
		deaths < DEATHS;                                                                   \
		deaths++;                                                                          \
		if                                                                                 \
		:: state[page] == EVICT && page_owner[page] == me -> page_owner[page] = NOBODY     \
		:: else                                                                            \
		fi;                                                                                \
		page = 0;                                                                          \
		seen_generation = 0;                                                               \
		kept = 0;                                                                          \
		goto again                                                                         \
	}

inline choose(wanted)
{
	if
	:: state[1] == wanted -> page = 1
	:: state[2] == wanted -> page = 2
	fi
}

proctype evictor(byte me)
{
	byte page, seen_generation;
	bool kept;

again:
end_idle:
	do
	/* Seals, under the lane's lock. */
	:: d_step { lane == 0 && (state[1] == OPEN || state[2] == OPEN) -> choose(OPEN); state[page] = SEALED; page = 0 }
	/* What a dead evictor had begun. */
	:: d_step { state[1] == EVICT && page_owner[1] == NOBODY -> state[1] = SEALED }
	:: d_step { state[2] == EVICT && page_owner[2] == NOBODY -> state[2] = SEALED }
	/* Walks over a page. */
	:: d_step {
		state[1] == SEALED || state[2] == SEALED ->
		choose(SEALED);
		state[page] = EVICT;
		page_owner[page] = me };
#ifndef NO_WRITE_HAZARD
		if
		:: kept = (write_hazard == page)
		:: EVICTOR_DIES
		fi;
#endif
		if
		:: kept ->
			if
			:: d_step { state[page] = SEALED; page = 0; kept = 0 }
			:: EVICTOR_DIES
			fi
		:: else ->
			if
			:: d_step {
				if
				:: slot_page == page -> slot_page = 0; slot_generation = 0
				:: else
				fi }
			:: EVICTOR_DIES
			fi;
			if
			:: d_step {
				assert(state[page] == EVICT && page_owner[page] == me);
				state[page] = LIMBO;
				page_owner[page] = 0;
				page = 0 }
			:: EVICTOR_DIES
			fi
		fi
	/* Frees what waits. */
	:: d_step {
		state[1] == LIMBO || state[2] == LIMBO ->
		choose(LIMBO);
		seen_generation = generation[page] };
#ifndef NO_BARRIER
		if
		:: d_step {
			if
			:: buffer != NONE -> read_hazard = buffer; buffer = NONE
			:: else
			fi }
		:: EVICTOR_DIES
		fi;
#endif
		if
		:: kept = (read_hazard == page)
		:: EVICTOR_DIES
		fi;
		if
		:: kept = (kept || write_hazard == page)
		:: EVICTOR_DIES
		fi;
		if
		:: d_step {
			if
			:: !kept && state[page] == LIMBO && generation[page] == seen_generation ->
				assert(slot_page != page);
				state[page] = FREE;
				generation[page]++
			:: else
			fi;
			page = 0;
			seen_generation = 0;
			kept = 0 }
		:: EVICTOR_DIES
		fi
	od
}

init
{
	byte i;

	atomic {
		do
		:: i < EVICTORS -> i++; run evictor(i)
		:: else -> break
		od
	};
	i = 0
}
