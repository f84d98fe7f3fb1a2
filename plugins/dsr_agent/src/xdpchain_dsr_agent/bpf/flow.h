/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * flow.h: remembering flows, and in which state they are.
 *
 * A flow begins in dsr_opening. Once the workload has answered and the client has spoken again, it moves to dsr_flows: whoever forges packets gets
 * no further than dsr_opening. There it goes back when it is over. Both forget the least recently used when they are full. An entry that was idle for longer than its state allows
 * counts as absent.
 */
#ifndef DSR_FLOW_H
#define DSR_FLOW_H

/* What time it is, for one CPU. */
struct dsr_clock {
	u64 jiffies;
	u64 tick;
};
_Static_assert(sizeof(struct dsr_clock) == 16, "as in the schema");

BPF_TABLE("percpu_array", u32, struct dsr_clock, dsr_clock, BY_SCHEMA);	/* one */

/* The clock costs as much as a look-up, jiffies cost nothing: a CPU reads the clock once in each. */
static __always_inline u32 dsr_now(void)
{
	u64 jiffies = bpf_jiffies64();
	struct dsr_clock *clock;
	u32 zero = 0;

	clock = dsr_clock.lookup(&zero);
	if (!clock)
		return bpf_ktime_get_coarse_ns() >> DSR_TICK_BITS;
	if (clock->jiffies != jiffies) {
		clock->jiffies = jiffies;
		clock->tick = bpf_ktime_get_coarse_ns() >> DSR_TICK_BITS;
	}
	return clock->tick;
}

static __always_inline u32 dsr_idle(u32 state)
{
	switch (state) {
	case DSR_SYN:
		return 28;	/* 30 s */
	case DSR_ESTABLISHED:
		return 6706;	/* 2 h */
	case DSR_CLOSED:
		return 10;	/* 10 s */
	default:
		return 56;	/* 60 s: DSR_FIN, DSR_UDP */
	}
}

static __always_inline struct dsr_stats *dsr_stats_of(u32 place)
{
	return dsr_stats.lookup(&place);
}

static __always_inline struct dsr_service *dsr_service_of(u32 place)
{
	return dsr_services.lookup(&place);
}

static __always_inline bool dsr_alive(const struct dsr_flow *flow, u32 now)
{
	return flow && (s32)(now - flow->seen) <= (s32)dsr_idle(flow->state);	/* another CPU's clock may be ahead */
}

/* A flow that is known and was not idle for too long. `*opening` says which of the maps has it. */
static __always_inline struct dsr_flow *dsr_find(struct dsr_key *key, u32 now, bool *opening)
{
	struct dsr_flow *flow = dsr_flows.lookup(key);

	*opening = false;
	if (dsr_alive(flow, now))
		return flow;
	flow = dsr_opening.lookup(key);
	*opening = true;
	return dsr_alive(flow, now) ? flow : NULL;
}

/* A flow that begins, or is met in the middle. */
static __always_inline void dsr_begin(struct dsr_key *key, const struct dsr_flow *flow)
{
	struct dsr_stats *stats = dsr_stats_of(flow->place);

	if (dsr_flows.lookup(key))
		dsr_flows.delete(key);
	dsr_opening.update(key, (struct dsr_flow *)flow);
	if (stats)
		stats->flows++;
}

/* The client has spoken again in a flow that the workload has answered. */
static __always_inline void dsr_promote(struct dsr_key *key, struct dsr_flow *flow)
{
	struct dsr_flow copy = *flow;

	if (copy.state == DSR_SYN)
		copy.state = DSR_ESTABLISHED;
	if (!dsr_flows.update(key, &copy))
		dsr_opening.delete(key);
}

/* A flow that is over goes back: else many short ones would take the room of those that live and are silent. */
static __always_inline void dsr_retire(struct dsr_key *key, struct dsr_flow *flow)
{
	struct dsr_flow copy = *flow;

	if (!dsr_opening.update(key, &copy))
		dsr_flows.delete(key);
}

/* What a packet says of the state of its flow. `in` is from the client. Written only where it changes: others read on their CPUs. */
static __always_inline void dsr_note(struct dsr_flow *flow, u32 proto, u32 flags, bool in, u32 now)
{
	u32 state = flow->state, marks = flow->marks;

	if (proto == IPPROTO_TCP) {
		if (flags & DSR_F_FIN)
			marks |= in ? DSR_FIN_IN : DSR_FIN_OUT;
		if (flags & DSR_F_RST || (marks & (DSR_FIN_IN | DSR_FIN_OUT)) == (DSR_FIN_IN | DSR_FIN_OUT))
			state = DSR_CLOSED;
		else if (marks & (DSR_FIN_IN | DSR_FIN_OUT))
			state = DSR_FIN;
	}
	if (!in && !(proto == IPPROTO_TCP && flags & DSR_F_RST))
		marks |= DSR_ANSWERED;
	if (flow->state != state)
		flow->state = state;
	if (flow->marks != marks)
		flow->marks = marks;
	if (flow->seen != now)
		flow->seen = now;
}

#endif
