/* SPDX-License-Identifier: MIT */
/*
 * ring.pml - hint rings (src/structs/hint_ring.c) and record words (src/modules/queue/: record.c, enqueue.c, reserve.c,
 * finish.c, reap.c)
 *
 * Two producers of one task each, two consumers that take one each and acknowledge it, CAPACITY records, and a reaper; up to
 * DEATHS deaths in front of any change that a producer or consumer makes. Waiting is a guard, so each run is finite, and a run that
 * cannot go on is reported as an invalid end state. At the end of each run every record must be where somebody finds it.
 *
 *   -DCLAIM_AFTER_HEAD control: a taker moves the head first and then claims the record
 *   -DNO_TICKET        control: the CAS of a record's word compares the state only
 */
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef CAPACITY
#define CAPACITY 1
#endif

#define ENTRIES (2 * CAPACITY)

#define FREE	0
#define BUILD	1
#define PUBLISH 2
#define READY	3
#define LEASED	4
#define DELAYED 6
#define FREEPUB 9

/* Rings: 0 of free records, 1 of ready ones. An entry is a cycle and an index. */
byte head[2] = ENTRIES, tail[2] = ENTRIES;
byte cycle[2 * ENTRIES], hint[2 * ENTRIES];
#define AT(ring, position) ((ring) * ENTRIES + (position) % ENTRIES)

/* The record word, and its one field. */
byte state[CAPACITY], owner[CAPACITY], ticket[CAPACITY], task[CAPACITY];
#ifdef NO_TICKET
#define SAME(r, seen_state, seen_ticket) (state[r] == (seen_state))
#else
#define SAME(r, seen_state, seen_ticket) (state[r] == (seen_state) && ticket[r] == (seen_ticket))
#endif

/* What the model knows and the code does not. Tasks and members are 1 and up, 0 is none. */
byte deaths, ended, reaped;
bool dead[6], accepted[3], acknowledged[3];
byte deliveries[3], holders[3];

#define DIES                                                                                       \
	atomic {                                                                                   \
		me < 5 && deaths < DEATHS;                                                         \
		deaths++;                                                                          \
		dead[me] = 1;                                                                      \
		if                                                                                 \
		:: holding -> holders[holding]--                                                   \
		:: else                                                                            \
		fi;                                                                                \
		FORGET;                                                                            \
		goto out                                                                           \
	}

#define FORGET                                                                                     \
	r = 0; position = 0; seen_state = 0; seen_ticket = 0; outcome = 0; holding = 0

#define LOCALS                                                                                     \
	byte r, position, seen_state, seen_ticket, outcome, holding

/* outcome: 1 pushed, 0 the ring is full */
inline push(ring)
{
	outcome = 2;
	do
	:: outcome != 2 -> break
	:: outcome == 2 ->
		position = tail[ring];
		if
		/* in already: help the tail on */
		:: d_step {
			cycle[AT(ring, position)] == position / ENTRIES ->
			if
			:: tail[ring] == position -> tail[ring]++
			:: else
			fi }
		/* slept for a lap; if not, the ring would be damaged */
		:: d_step {
			cycle[AT(ring, position)] > position / ENTRIES -> assert(tail[ring] != position) }
		:: d_step {
			cycle[AT(ring, position)] < position / ENTRIES ->
			assert(cycle[AT(ring, position)] + 1 == position / ENTRIES);
			if
			:: position >= head[ring] + ENTRIES -> outcome = 0
			:: else -> outcome = 3
			fi };
			if
			:: outcome == 3 ->
				if
				:: d_step {
					if
					:: cycle[AT(ring, position)] + 1 == position / ENTRIES ->
						cycle[AT(ring, position)] = position / ENTRIES;
						hint[AT(ring, position)] = r;
						outcome = 1
					:: else -> outcome = 2
					fi }
				:: DIES
				fi;
				if
				:: outcome == 1 ->
					if
					:: d_step {
						if
						:: tail[ring] == position -> tail[ring]++
						:: else
						fi }
					:: DIES
					fi
				:: else
				fi
			:: else
			fi
		fi
	od;
	position = 0
}

/* Record r, whose word is {seen_state, seen_ticket}: pushes its hint, then @done; parks it if the ring is full. */
inline hand_over(ring, done)
{
	push(ring);
	if
	:: d_step {
		if
		:: SAME(r, seen_state, seen_ticket) ->
			if
			:: outcome == 1 -> state[r] = done
			:: else
			fi;
			owner[r] = 0;
			ticket[r]++
		:: else
		fi;
		outcome = 0 }
	:: DIES
	fi
}

inline move_head(ring)
{
	if
	:: d_step {
		if
		:: head[ring] == position -> head[ring]++
		:: else
		fi }
	:: DIES
	fi
}

#define TAKEABLE(ring, s) ((ring) == 0 && ((s) == FREE || (s) == FREEPUB) || (ring) == 1 && ((s) == READY || (s) == PUBLISH))

inline lease_begins()
{
	if
	:: state[r] == LEASED ->
		holding = task[r];
		assert(holding != 0 && accepted[holding] && !acknowledged[holding]);
		assert(holders[holding] == 0);
		holders[holding]++;
		deliveries[holding]++
	:: else
	fi
}

/*
 * outcome: 1 record r is in state @claimed, its ticket in seen_ticket; 0 there is no hint. The load of the word and the CAS
 * are one step: no word comes back, so a CAS that succeeds found what was loaded.
 */
inline claim(ring, claimed)
{
	outcome = 2;
	do
	:: outcome != 2 -> break
	:: outcome == 2 ->
		position = head[ring];
		d_step {
			if
			:: cycle[AT(ring, position)] == position / ENTRIES -> r = hint[AT(ring, position)]; outcome = 3
			:: cycle[AT(ring, position)] < position / ENTRIES -> outcome = 0
			:: cycle[AT(ring, position)] > position / ENTRIES -> assert(head[ring] != position)
			fi
		};
		if
		:: outcome == 3 ->
#ifdef CLAIM_AFTER_HEAD
			move_head(ring);
#endif
			if
			:: d_step {
				if
				:: TAKEABLE(ring, state[r]) ->
					state[r] = claimed;
					owner[r] = me;
					ticket[r]++;
					seen_state = claimed;
					seen_ticket = ticket[r];
					lease_begins();
					outcome = 1
				:: else -> outcome = 2; r = 0
				fi }
#ifdef CLAIM_AFTER_HEAD
			:: DIES
#endif
			fi;
#ifndef CLAIM_AFTER_HEAD
			move_head(ring)
#endif
		:: else
		fi
	od;
	position = 0
}

proctype producer(byte me)
{
	LOCALS;

	claim(0, BUILD);
	if
	:: outcome == 0 -> goto out /* full: told so */
	:: else
	fi;
	if
	:: d_step {
		assert(state[r] == BUILD && owner[r] == me);
		task[r] = me;
		state[r] = PUBLISH;
		ticket[r]++;
		seen_state = PUBLISH;
		seen_ticket = ticket[r];
		accepted[me] = 1 }
	:: DIES
	fi;
	hand_over(1, READY);
out:
	atomic { FORGET; ended++ }
}

#define HAS_HINT(ring) (cycle[AT(ring, head[ring])] == head[ring] / ENTRIES)

inline find(wanted)
{
	r = 0;
	do
	:: r < CAPACITY && state[r] != wanted -> r++
	:: else -> break
	od
}

proctype consumer(byte me)
{
	LOCALS;

	do
	:: claim(1, LEASED);
		if
		:: outcome == 1 -> break
		:: else
		fi;
		/* one that is due */
		d_step {
			outcome = 0;
			find(DELAYED);
			if
			:: r < CAPACITY ->
				state[r] = LEASED;
				owner[r] = me;
				ticket[r]++;
				seen_state = LEASED;
				seen_ticket = ticket[r];
				lease_begins();
				outcome = 1
			:: else -> r = 0; seen_state = 0; seen_ticket = 0
			fi
		};
		if
		:: outcome == 1 -> break
		:: else
		fi;
		/* sleeps until there is something, or there will be nothing any more */
		if
		:: HAS_HINT(1) || (state[0] == DELAYED || state[CAPACITY - 1] == DELAYED)
		:: !HAS_HINT(1) && ended >= 2 -> goto out
		fi
	od;
	/* acknowledges it */
	if
	:: d_step {
		holders[holding]--;
		if
		:: SAME(r, LEASED, seen_ticket) ->
			assert(owner[r] == me);
			state[r] = FREEPUB;
			ticket[r]++;
			acknowledged[holding] = 1
		:: else -> assert(false)
		fi;
		holding = 0;
		task[r] = 0;
		seen_state = FREEPUB;
		seen_ticket = ticket[r] }
	:: DIES
	fi;
	hand_over(0, FREE);
out:
	atomic { FORGET; ended++ }
}

/* Looks at each record as soon as somebody is dead. */
proctype reaper(byte me)
{
	LOCALS;
	byte i, known;

end:
	do
	:: deaths > reaped ->
		known = deaths;
		do
		:: i < CAPACITY && owner[i] != 0 && dead[owner[i]] ->
			d_step { r = i; seen_state = state[r]; seen_ticket = ticket[r]; outcome = dead[owner[r]] };
			if
			:: outcome && seen_state == BUILD ->
				d_step {
					outcome = 0;
					if
					:: SAME(r, seen_state, seen_ticket) ->
						state[r] = FREEPUB;
						owner[r] = me;
						ticket[r]++;
						seen_state = FREEPUB;
						seen_ticket = ticket[r];
						task[r] = 0;
						outcome = 1
					:: else
					fi
				};
				if
				:: outcome -> hand_over(0, FREE)
				:: else
				fi
			:: outcome && seen_state == LEASED ->
				d_step {
					if
					:: SAME(r, seen_state, seen_ticket) ->
						state[r] = DELAYED;
						owner[r] = 0;
						ticket[r]++
					:: else
					fi
				}
			:: outcome && seen_state == PUBLISH -> hand_over(1, READY)
			:: outcome && seen_state == FREEPUB -> hand_over(0, FREE)
			:: else
			fi
		:: i < CAPACITY && (owner[i] == 0 || !dead[owner[i]]) -> i++
		:: i >= CAPACITY -> break
		od;
		atomic { reaped = known; FORGET; i = 0; known = 0 }
	od;
out:
	skip
}

init
{
	byte i, at;
	bool found;

	d_step {
		do
		:: i < CAPACITY -> cycle[i] = 1; hint[i] = i; i++
		:: else -> break
		od;
		tail[0] = ENTRIES + CAPACITY;
		i = 0
	};
	atomic { run producer(1); run producer(2); run consumer(3); run consumer(4); run reaper(5) };
	ended == 4 && reaped == deaths;
	d_step {
		do
		:: i < CAPACITY ->
			/* Without an owner, and with a hint, if one is needed. */
			found = (state[i] == DELAYED || state[i] == PUBLISH || state[i] == FREEPUB);
			at = head[state[i] == READY];
			do
			:: !found && cycle[AT((state[i] == READY), at)] == at / ENTRIES ->
				found = (hint[AT((state[i] == READY), at)] == i);
				at++
			:: else -> break
			od;
			assert(owner[i] == 0 && found);
			assert(state[i] == FREE || state[i] == READY || state[i] == DELAYED || state[i] == PUBLISH ||
			       state[i] == FREEPUB);
			/* What is still there is delivered later. */
			if
			:: state[i] == READY || state[i] == DELAYED || state[i] == PUBLISH ->
				assert(accepted[task[i]] && !acknowledged[task[i]]);
				holders[task[i]] = 9
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 1;
		do
		:: i <= 2 ->
			assert(!accepted[i] || acknowledged[i] || holders[i] == 9);
			assert(deliveries[i] <= 1 + deaths);
			i++
		:: else -> break
		od
	}
}
