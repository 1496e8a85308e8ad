/* SPDX-License-Identifier: MIT */
#include "history.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "../common/clock.h"

static void count_live(struct demo_history *history, const struct demo_event *event)
{
	switch (event->kind) {
	case DEMO_EVENT_TASK_ACCEPTED:
		history->accepted_count++;
		break;
	case DEMO_EVENT_TASK_DONE:
		history->done_count++;
		break;
	case DEMO_EVENT_KILLED:
		history->kill_count++;
		if (event->value[0] != 0 && event->value[2] != UINT64_MAX &&
		    event->value[2] > history->recovery_ns_max)
			history->recovery_ns_max = event->value[2];
		break;
	case DEMO_EVENT_SETTLED:
		history->has_settled = true;
		break;
	default:
		break;
	}
}

void demo_history_add(void *user, const struct demo_event *event)
{
	struct demo_history *history = user;
	struct demo_event *larger;
	size_t count = history->event_count;

	if (count == 0 || (count >= 1024 && (count & (count - 1)) == 0)) {
		larger = reallocarray(history->events, count == 0 ? 1024 : count * 2,
				      sizeof(*larger));
		if (!larger) {
			history->error = -ENOMEM;
			return;
		}
		history->events = larger;
	}
	history->events[history->event_count++] = *event;
	count_live(history, event);
}

void demo_history_forget_settled(struct demo_history *history)
{
	size_t kept = 0;

	if (!history->has_settled)
		return;
	for (size_t i = 0; i < history->event_count; i++)
		if (history->events[i].kind == DEMO_EVENT_CHILD_STARTED)
			history->events[kept++] = history->events[i];
	history->event_count = kept;
	history->has_settled = false;
	history->accepted_count = 0;
	history->done_count = 0;
	history->kill_count = 0;
	history->recovery_ns_max = 0;
}

void demo_history_close(struct demo_history *history)
{
	free(history->events);
	*history = (struct demo_history){0};
}

/* A worker's death: how it came, and when the killer decided on it (0: never). */
struct death {
	uint64_t worker;
	uint64_t killing_at_ns;
	bool has_died;
	bool was_killed;
	bool has_failed; /* neither SIGKILL nor exit status 0 */
};

struct deaths {
	struct death *list;
	size_t count;
};

static int compare_u64(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int compare_deaths(const void *a, const void *b)
{
	return compare_u64(((const struct death *)a)->worker, ((const struct death *)b)->worker);
}

static struct death *find_death(const struct deaths *deaths, uint64_t worker)
{
	struct death key = {.worker = worker};

	return deaths->count
		       ? bsearch(&key, deaths->list, deaths->count, sizeof(key), compare_deaths)
		       : NULL;
}

static int collect_deaths(const struct demo_history *history, struct deaths *ret_deaths)
{
	struct deaths deaths = {calloc(history->event_count + 1, sizeof(*deaths.list)), 0};

	if (!deaths.list)
		return -ENOMEM;
	for (size_t i = 0; i < history->event_count; i++)
		if (history->events[i].kind == DEMO_EVENT_CHILD_STARTED)
			deaths.list[deaths.count++].worker = history->events[i].subject;
	qsort(deaths.list, deaths.count, sizeof(*deaths.list), compare_deaths);

	for (size_t i = 0; i < history->event_count; i++) {
		const struct demo_event *event = &history->events[i];
		struct death *death;

		if (event->kind != DEMO_EVENT_KILLING && event->kind != DEMO_EVENT_CHILD_DIED)
			continue;
		death = find_death(&deaths, event->subject);
		if (!death)
			continue;
		if (event->kind == DEMO_EVENT_KILLING) {
			death->killing_at_ns = event->at_ns;
			continue;
		}
		death->has_died = true;
		death->was_killed = event->value[0] == CLD_KILLED && event->value[1] == SIGKILL;
		death->has_failed = !death->was_killed &&
				    !(event->value[0] == CLD_EXITED && event->value[1] == 0);
	}
	*ret_deaths = deaths;
	return 0;
}

static bool is_task_event(const struct demo_event *event)
{
	return event->kind == DEMO_EVENT_TASK_ACCEPTED || event->kind == DEMO_EVENT_TASK_BEGUN ||
	       event->kind == DEMO_EVENT_TASK_DONE;
}

/* task events first, by task and then by time */
static int compare_events(const void *a, const void *b)
{
	const struct demo_event *x = a;
	const struct demo_event *y = b;

	if (is_task_event(x) != is_task_event(y))
		return is_task_event(x) ? -1 : 1;
	if (is_task_event(x) && x->subject != y->subject)
		return compare_u64(x->subject, y->subject);
	return compare_u64(x->at_ns, y->at_ns);
}

/* the worker of the former run was sent SIGKILL before the further run began, and died of it */
static bool is_excused(const struct deaths *deaths, const struct demo_event *former,
		       const struct demo_event *further)
{
	const struct death *death = find_death(deaths, former->worker);

	return death && death->was_killed && death->killing_at_ns != 0 &&
	       death->killing_at_ns <= further->at_ns;
}

static void judge_task(const struct deaths *deaths, const struct demo_event *events, size_t count,
		       struct demo_history_findings *findings)
{
	const struct demo_event *run = NULL;
	bool is_accepted = false;
	bool is_done = false;
	bool is_again = false;

	for (size_t i = 0; i < count; i++) {
		is_accepted = is_accepted || events[i].kind == DEMO_EVENT_TASK_ACCEPTED;
		is_done = is_done || events[i].kind == DEMO_EVENT_TASK_DONE;
		if (events[i].kind != DEMO_EVENT_TASK_BEGUN)
			continue;
		if (run) {
			bool excused = is_excused(deaths, run, &events[i]);

			is_again = true;
			findings->redelivered_after_death += excused;
			findings->unexcused_runs += !excused;
		}
		run = &events[i];
	}
	findings->tasks_accepted += is_accepted;
	findings->tasks_executed += is_done;
	findings->tasks_lost += is_accepted && !is_done;
	findings->tasks_run_twice += is_again;
}

static void judge_tasks(const struct demo_history *history, const struct deaths *deaths,
			struct demo_history_findings *findings)
{
	const struct demo_event *events = history->events;
	size_t end;

	for (size_t i = 0; i < history->event_count && is_task_event(&events[i]); i = end) {
		end = i + 1;
		while (end < history->event_count && is_task_event(&events[end]) &&
		       events[end].subject == events[i].subject)
			end++;
		judge_task(deaths, &events[i], end - i, findings);
	}
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* nearest rank */
static double percentile(const double *sorted, size_t count, unsigned int percent)
{
	return count ? sorted[(count * percent + 99) / 100 - (percent ? 1 : 0)] : 0;
}

static void judge_kill(const struct demo_event *event, struct demo_history_findings *findings)
{
	findings->kills++;
	for (int kind = 0; kind < DEMO_HOLDING_NOTHING; kind++)
		findings->kills_holding[kind] += (event->value[0] & DEMO_HOLDING_BIT(kind)) != 0;
	if (event->value[0] == 0) {
		findings->kills_holding[DEMO_HOLDING_NOTHING]++;
		return;
	}
	findings->recoveries++;
	findings->recoveries_unseen += event->value[2] == UINT64_MAX;
}

static int judge_kills(const struct demo_history *history, struct demo_history_findings *findings)
{
	double *recoveries = calloc(history->event_count + 1, sizeof(*recoveries));
	double *teardowns = calloc(history->event_count + 1, sizeof(*teardowns));
	size_t recovery_count = 0;
	size_t teardown_count = 0;

	if (!recoveries || !teardowns) {
		free(recoveries);
		free(teardowns);
		return -ENOMEM;
	}
	for (size_t i = 0; i < history->event_count; i++) {
		const struct demo_event *event = &history->events[i];

		if (event->kind != DEMO_EVENT_KILLED)
			continue;
		judge_kill(event, findings);
		if (event->value[1] != UINT64_MAX)
			teardowns[teardown_count++] = (double)event->value[1] / 1e6;
		if (event->value[0] != 0 && event->value[2] != UINT64_MAX)
			recoveries[recovery_count++] = (double)event->value[2] / 1e6;
	}
	qsort(recoveries, recovery_count, sizeof(*recoveries), compare_doubles);
	qsort(teardowns, teardown_count, sizeof(*teardowns), compare_doubles);
	findings->recovery_ms_p50 = percentile(recoveries, recovery_count, 50);
	findings->recovery_ms_p99 = percentile(recoveries, recovery_count, 99);
	findings->recovery_ms_max = percentile(recoveries, recovery_count, 100);
	findings->teardown_ms_p50 = percentile(teardowns, teardown_count, 50);
	findings->teardown_ms_max = percentile(teardowns, teardown_count, 100);
	free(recoveries);
	free(teardowns);
	return 0;
}

static void judge_end(const struct demo_history *history, struct demo_history_findings *findings)
{
	for (size_t i = 0; i < history->event_count; i++) {
		const struct demo_event *event = &history->events[i];

		if (event->kind != DEMO_EVENT_SETTLED)
			continue;
		findings->has_settled = true;
		findings->evictions = event->value[0];
		findings->verify_error = (int)(int64_t)event->value[1];
		findings->is_drained = event->value[2] == 1;
	}
}

int demo_history_judge(struct demo_history *history, struct demo_history_findings *ret_findings)
{
	struct demo_history_findings findings = {0};
	struct deaths deaths;
	int rc;

	if (history->error)
		return history->error;
	rc = collect_deaths(history, &deaths);
	if (rc < 0)
		return rc;
	if (history->event_count)
		qsort(history->events, history->event_count, sizeof(*history->events),
		      compare_events);
	judge_tasks(history, &deaths, &findings);
	/* nobody but the killer may end a worker, and the killer uses SIGKILL alone */
	for (size_t i = 0; i < deaths.count; i++)
		findings.unexpected_deaths +=
			deaths.list[i].has_failed ||
			(deaths.list[i].was_killed && deaths.list[i].killing_at_ns == 0);
	judge_end(history, &findings);
	rc = judge_kills(history, &findings);
	free(deaths.list);
	if (rc == 0)
		*ret_findings = findings;
	return rc;
}
