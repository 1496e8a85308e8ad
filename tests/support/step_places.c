/* SPDX-License-Identifier: MIT */
/*
 * Ways to a place in a call. A breakpoint at an instruction that was executed a few times before is quickly reached; from
 * there it is single steps. The cheapest such way is kept up to date with each instruction.
 */
#include "support/step_local.h"

#include <stdlib.h>

#define VISITED_SIZE 65536 /* a power of two */
#define STOP_COST    3	   /* of a breakpoint that is not yet the right one, in steps */

struct step_visited {
	uintptr_t pc;
	uint64_t count;
};

void step_places_add(struct step_places *places, struct step_place place)
{
	if (places->count == places->size) {
		places->size = places->size ? 2 * places->size : 256;
		places->list = realloc(places->list, places->size * sizeof(*places->list));
		if (!places->list)
			exit(99);
	}
	places->list[places->count++] = place;
}

void step_places_free(struct step_places *places)
{
	free(places->list);
	*places = (struct step_places){0};
}

static uint64_t visit(struct step_visited *visited, uintptr_t pc)
{
	size_t at = pc * UINT64_C(0x9e3779b97f4a7c15) >> 48;

	while (visited[at].pc && visited[at].pc != pc)
		at = (at + 1) % VISITED_SIZE;
	visited[at].pc = pc;
	return ++visited[at].count;
}

void step_way_begin(struct step_way *way)
{
	*way = (struct step_way){.visited = calloc(VISITED_SIZE, sizeof(*way->visited))};
	if (!way->visited)
		exit(99);
}

void step_way_end(struct step_way *way)
{
	free(way->visited);
}

uint64_t step_way_add(struct step_way *way, const struct step_tracee *tracee)
{
	uint64_t count;

	way->cost++;
	if (tracee->pc == way->last)
		return 0;
	way->last = tracee->pc;
	count = visit(way->visited, tracee->pc);
	if (!way->anchor.pc || count * STOP_COST <= way->cost) {
		way->cost = count * STOP_COST;
		way->anchor = (struct step_place){
			.pc = tracee->pc, .occurrence = count, .step = tracee->steps - 1};
	}
	return count;
}

struct step_place step_way_place(const struct step_way *way, const struct step_tracee *tracee)
{
	struct step_place place = way->anchor;

	place.further = tracee->steps - 1 - place.step;
	place.step = tracee->steps - 1;
	place.at = tracee->pc;
	return place;
}

int step_trace_run_to_place(struct step_tracee *tracee, const struct step_place *place)
{
	int running = 1;

	if (!place->occurrence && !place->further)
		return step_trace_go_on(tracee) < 0 ? -1 : 1;
	if (place->occurrence)
		running = step_trace_run_to(tracee, place->pc, place->occurrence);
	for (uint64_t i = 0; i < place->further && running > 0; i++)
		running = step_trace_next(tracee);
	tracee->steps = place->step;
	return running > 0 ? step_trace_counter(tracee) == place->at : running;
}
