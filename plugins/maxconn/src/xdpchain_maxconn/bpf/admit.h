/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * admit.h: whether a SYN may come in.
 *
 * A new connection takes a reservation in each count that it concerns, and then looks whether any of them is over its limit; if so, it gives all
 * of them back. Of any set of connections that are let in, the one that reserved last has seen the reservations of all others: so they are never
 * more than the limit. CPUs that are at it at the same moment may turn each other away when fewer places are left than there are CPUs.
 */
#ifndef MAXCONN_ADMIT_H
#define MAXCONN_ADMIT_H

#include "half.h"

#define MC_SHARED 1
#define MC_SOURCE 2

enum mc_answer {
	MC_UNCONCERNED,
	MC_ADMITTED,
	MC_HELD,		/* it has its reservation already: the SYN was sent again */
	MC_EXCUSED,
	MC_REFUSED,
	MC_RESET,
	MC_SOURCE_REFUSED,
	MC_SOURCE_RESET,
	MC_NO_ROOM,
};

/*
 * One rule that a new connection concerns. Its pointers are never NULL, or the verifier would follow each mixture of those that are and those
 * that are not through all that comes behind: where there is no rule they lead to place 0, or where those of the other rule lead.
 */
struct mc_concern {
	struct mc_rule *rule;
	struct mc_count *shared;
	struct mc_count *source;	/* what `shared` is where sources are not looked at */
	u64 source_max;			/* 0: sources are not looked at */
	u32 place;			/* 0: there is no such rule */
};

/* The same answer for each SYN of a connection, or a client would only have to ask again. */
static __always_inline u32 mc_lot(const struct mc_flow *flow)
{
	u32 hash = flow->remote[0] ^ flow->remote[1] ^ flow->remote[2] ^ flow->remote[3] ^ ((u32)flow->remote_port << 16 | flow->local_port);

	hash = (hash ^ hash >> 16) * 0x7feb352d;
	hash = (hash ^ hash >> 15) * 0x846ca68b;
	return (hash ^ hash >> 16) % 100;
}

static __always_inline bool mc_allowed(const struct mc_settings *settings, const struct mc_flow *flow)
{
	struct mc_prefix prefix = { .bits = 128 };

	if (!settings->allow)
		return false;
	__builtin_memcpy(prefix.address, flow->remote, sizeof(prefix.address));
	return mc_allow.lookup(&prefix) != NULL;
}

/* False if the maps do not fit together: never, unless somebody writes to them. */
static __always_inline bool mc_concern_of(struct mc_concern *concern, struct mc_claim *claim, u32 which, u32 place, bool ip6)
{
	struct mc_rule *rule = mc_rules.lookup(&place);
	struct mc_limit *limit = mc_limits.lookup(&place);

	if (!rule || !limit)
		return false;
	concern->rule = rule;
	concern->shared = &limit->count;
	concern->source = &limit->count;
	concern->source_max = 0;
	concern->place = rule->id ? place : 0;
	claim->id[which] = rule->id;
	claim->place[which] = place;
	claim->bits[which] = MC_NO_SOURCE;
	if (rule->source_max)
		claim->bits[which] = ip6 ? rule->bits[1] : rule->bits[0];
	return true;
}

/* Which limits of a rule are passed when `more` connections come in. Without branches for the verifier to follow. */
static __always_inline u32 mc_over_shared(const struct mc_concern *concern, u32 epoch, u64 more)
{
	return concern->place ? (u64)(concern->rule->max - mc_used(concern->shared, epoch) - more) >> 63 & MC_SHARED : 0;
}

static __always_inline u32 mc_over_source(const struct mc_concern *concern, u32 epoch, u64 more)
{
	return concern->source_max ? (u64)(concern->source_max - mc_used(concern->source, epoch) - more) >> 62 & MC_SOURCE : 0;
}

/* Whether a connection that is over is refused. */
static __always_inline bool mc_enforced(const struct mc_concern *concern, const struct mc_settings *settings, const struct mc_flow *flow)
{
	u32 enforce = concern->rule->enforce;

	if (!enforce || mc_allowed(settings, flow))
		return false;
	return enforce >= 100 || mc_lot(flow) < enforce;
}

/* Look at a rule without writing anything: a flood at a full limit is turned away here. The source is looked for if all may come in. */
static __always_inline u32 mc_look(struct mc_concern *concern, const struct mc_settings *settings, const struct mc_flow *flow,
				   struct mc_claim *claim, u32 which, u32 epoch, bool *refused)
{
	u32 over = mc_over_shared(concern, epoch, 1);
	struct mc_count *source;

	*refused = over && mc_enforced(concern, settings, flow);
	if (*refused || !concern->place || !concern->rule->source_max)
		return over;
	source = mc_source_count(claim, which, flow, true);
	if (!source) {
		claim->bits[which] = MC_NO_SOURCE;	/* no room for another source: the shared limit holds */
		return over;
	}
	concern->source = source;
	concern->source_max = concern->rule->source_max;
	over |= mc_over_source(concern, epoch, 1);
	*refused = over & MC_SOURCE && mc_enforced(concern, settings, flow);
	return over;
}

static __always_inline enum mc_answer mc_refuse(const struct mc_concern *concern, u32 over)
{
	struct mc_stats *stats = mc_stats_of(concern->place);

	if (over & MC_SHARED) {
		if (stats)
			stats->refused++;
		return concern->rule->reset ? MC_RESET : MC_REFUSED;
	}
	if (stats)
		stats->source_refused++;
	return concern->rule->reset ? MC_SOURCE_RESET : MC_SOURCE_REFUSED;
}

static __always_inline void mc_reserve_both(const struct mc_concern *concern, u32 epoch)
{
	if (concern->place)
		mc_reserve(concern->shared, epoch);
	if (concern->source_max)
		mc_reserve(concern->source, epoch);
}

/* Look again, with the reservation; for what was over before it has been decided already. */
static __always_inline enum mc_answer mc_look_again(const struct mc_concern *concern, const struct mc_settings *settings,
						    const struct mc_flow *flow, u32 epoch, u32 over)
{
	u32 late = over ? 0 : mc_over_shared(concern, epoch, 0) | mc_over_source(concern, epoch, 0);

	return late && mc_enforced(concern, settings, flow) ? mc_refuse(concern, late) : MC_ADMITTED;
}

/* What is told of place 0, where there is no rule, nobody reads. */
static __always_inline void mc_tell_admitted(u32 place, u32 over)
{
	struct mc_stats *stats = mc_stats_of(place);

	if (!stats)
		return;
	stats->admitted++;
	stats->excused += !!over;
}

/*
 * The time, a tick behind at most; whoever compares it with the sockets waits for a second or more. Each CPU asks the clock once in a tick: to call
 * the kernel for it costs as much as to find a connection.
 */
static __always_inline u64 mc_now(void)
{
	u64 tick = bpf_jiffies64();
	struct mc_clock *clock;
	u32 zero = 0;

	clock = mc_clock.lookup(&zero);
	if (!clock)
		return bpf_ktime_get_coarse_ns();
	if (clock->tick != tick) {
		clock->ns = bpf_ktime_get_coarse_ns();
		clock->tick = tick;
	}
	return clock->ns;
}

static __always_inline enum mc_answer mc_admit(const struct mc_settings *settings, const struct mc_flow *flow, u32 place)
{
	bool ip6 = mc_is_ip6(flow->remote), refused;
	struct mc_concern here, node;
	struct mc_claim claim = {};
	u32 over_here, over_node;
	enum mc_answer answer;
	struct mc_spot spot;
	u64 now = mc_now();
	u32 epoch = mc_epoch(now);

	if (!mc_find_half(&spot, flow))
		return MC_UNCONCERNED;
	if (spot.half) {
		if (epoch - mc_epoch(spot.half->since_ns) < MC_EPOCHS)
			return MC_HELD;
		mc_forget_half(&spot);	/* of an epoch that is long over */
	}
	if (!mc_concern_of(&here, &claim, MC_HERE, place, ip6))
		return MC_UNCONCERNED;
	node = here;
	node.place = 0;
	if (settings->node && !mc_concern_of(&node, &claim, MC_NODE, settings->node, ip6))
		return MC_UNCONCERNED;
	if (!(here.place | node.place))
		return MC_UNCONCERNED;
	over_here = mc_look(&here, settings, flow, &claim, MC_HERE, epoch, &refused);
	if (refused)
		return mc_refuse(&here, over_here);
	over_node = mc_look(&node, settings, flow, &claim, MC_NODE, epoch, &refused);
	if (refused)
		return mc_refuse(&node, over_node);
	mc_reserve_both(&here, epoch);
	mc_reserve_both(&node, epoch);
	answer = mc_look_again(&here, settings, flow, epoch, over_here);
	if (answer == MC_ADMITTED)
		answer = mc_look_again(&node, settings, flow, epoch, over_node);
	if (answer == MC_ADMITTED && !mc_keep_half(&spot, flow, now, &claim))
		answer = MC_NO_ROOM;
	if (answer != MC_ADMITTED) {
		mc_give_back_all(&claim, flow, epoch, epoch);
		return answer;
	}
	mc_tell_admitted(claim.place[MC_HERE], over_here);
	mc_tell_admitted(claim.place[MC_NODE], over_node);
	return over_here | over_node ? MC_EXCUSED : MC_ADMITTED;
}

#endif
