/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * repair.h: the routine that does what a sweep has found out.
 *
 * Python compares the sockets with the maps and writes down what differs; by then packets and events may have changed it again. So each step here
 * looks once more: only the very connection that was seen is taken out, one that was closed since is not put back, and a count is set only while
 * it still is what was compared.
 */
#ifndef MAXCONN_REPAIR_H
#define MAXCONN_REPAIR_H

#include "track.h"

static __always_inline void mc_note(const struct mc_claim *claim, bool found)
{
#pragma unroll
	for (u32 i = 0; i < MC_RULES; i++) {
		struct mc_stats *stats = mc_stats_of(claim->place[i]);

		if (!claim->id[i] || !stats)
			continue;
		if (found)
			stats->found++;
		else
			stats->lost++;
	}
}

static __always_inline void mc_add_missing(const struct mc_settings *settings, struct mc_flow *flow, u64 seen_ns)
{
	u64 *closed_ns = mc_closed.lookup(flow);
	struct mc_connection *connection;
	struct mc_claim claim;

	if (closed_ns && *closed_ns >= seen_ns)
		return;
	if (!mc_open(settings, flow, bpf_ktime_get_ns()))
		return;
	connection = mc_flows.lookup(flow);
	if (!connection)
		return;
	claim = connection->claim;
	mc_note(&claim, true);
}

/* The new claim is counted before the old one is not: no limit sees too few. */
static __always_inline void mc_recount(const struct mc_settings *settings, struct mc_flow *flow)
{
	struct mc_connection *connection = mc_flows.lookup(flow), next;
	struct mc_claim before;

	if (!connection || connection->generation == settings->generation)
		return;
	before = connection->claim;
	next.since_ns = connection->since_ns;
	next.generation = settings->generation;
	if (!mc_claim(settings, flow, &next.claim)) {
		mc_close(flow, 0, &before);
		return;
	}
	mc_count_all(&next.claim, flow, 1);
	/* who takes it out has it: it may be closed at this moment */
	if (mc_flows.delete(flow) || mc_flows.insert(flow, &next)) {
		mc_count_all(&next.claim, flow, -1);
		return;
	}
	mc_count_all(&before, flow, -1);
}

static __always_inline void mc_set(struct mc_count *count, const struct mc_todo *todo, u32 place)
{
	struct mc_stats *stats = mc_stats_of(place);

	if (__sync_val_compare_and_swap(&count->established, todo->old, todo->new) != todo->old || !stats)
		return;
	stats->corrected += todo->new > todo->old ? todo->new - todo->old : todo->old - todo->new;
}

static __always_inline void mc_forget(struct mc_source *source, u32 epoch)
{
	struct mc_count *count = mc_sources.lookup(source);

	if (count && !mc_used(count, epoch))
		mc_sources.delete(source);
}

/* One step in each run; it may be run on a little after the last. */
static __always_inline int mc_repair(void *ctx)
{
	struct mc_settings *settings = mc_get_settings();
	struct mc_source source;
	struct mc_count *count;
	struct mc_limit *limit;
	struct mc_claim claim;
	struct mc_flow flow __attribute__((aligned(8)));
	struct mc_todo *todo;
	struct mc_job *job;
	u32 zero = 0, at, place;

	job = mc_job.lookup(&zero);
	if (!job || !settings || job->at >= job->todo)
		return 0;
	at = job->at++;
	todo = mc_todo.lookup(&at);
	if (!todo)
		return 0;
	__builtin_memcpy(&flow, todo->key, sizeof(flow));
	__builtin_memcpy(&source, todo->key, sizeof(source));
	__builtin_memcpy(&place, todo->key, sizeof(place));
	switch (todo->what) {
	case MC_ADD:
		mc_add_missing(settings, &flow, job->at_ns);
		break;
	case MC_REMOVE:
		if (mc_close(&flow, todo->old, &claim))
			mc_note(&claim, false);
		break;
	case MC_RELEASE:
		mc_release(&flow, todo->old);
		break;
	case MC_RECOUNT:
		mc_recount(settings, &flow);
		break;
	case MC_SET_LIMIT:
		limit = mc_limits.lookup(&place);
		if (limit)
			mc_set(&limit->count, todo, place);
		break;
	case MC_SET_SOURCE:
		count = mc_sources.lookup(&source);
		if (count)
			mc_set(count, todo, 0);
		break;
	case MC_FORGET:
		mc_forget(&source, mc_epoch(bpf_ktime_get_ns()));
		break;
	}
	return job->at < job->todo;
}

#endif
