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

#include "count.h"

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
 * that are not through all that comes behind.
 */
struct mc_concern {
	struct mc_count *shared;
	struct mc_count *source;	/* what `shared` is where `source_max` is 0 */
	u64 max;
	u64 source_max;			/* 0: sources are not looked at */
	u32 enforce;
	u32 reset;
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
static __always_inline bool mc_concern_of(struct mc_concern *concern, const struct mc_claim *claim, u32 which, const struct mc_flow *flow)
{
	u32 place = claim->place[which];
	struct mc_rule *rule = mc_rules.lookup(&place);
	struct mc_limit *limit = mc_limits.lookup(&place);

	if (!rule || !limit)
		return false;
	concern->shared = &limit->count;
	concern->source = &limit->count;
	concern->max = rule->max;
	concern->source_max = 0;
	concern->enforce = rule->enforce;
	concern->reset = rule->reset;
	concern->place = place;
	if (rule->source_max) {
		struct mc_count *source = mc_source_count(claim, which, flow, true);

		/* no room for another source: the shared limit holds */
		if (source) {
			concern->source = source;
			concern->source_max = rule->source_max;
		}
	}
	return true;
}

/* Which limits of a rule are passed when `more` connections come in. Without branches for the verifier to follow. */
static __always_inline u32 mc_over(const struct mc_concern *concern, u32 epoch, u64 more)
{
	u64 over;

	if (!concern->place)
		return 0;
	over = (u64)(concern->max - mc_used(concern->shared, epoch) - more) >> 63 & MC_SHARED;
	if (concern->source_max)
		over |= (u64)(concern->source_max - mc_used(concern->source, epoch) - more) >> 62 & MC_SOURCE;
	return over;
}

/* Whether a connection that is over is refused. */
static __always_inline bool mc_enforced(const struct mc_concern *concern, const struct mc_settings *settings, const struct mc_flow *flow)
{
	if (!concern->enforce || mc_allowed(settings, flow))
		return false;
	return concern->enforce >= 100 || mc_lot(flow) < concern->enforce;
}

static __always_inline enum mc_answer mc_refuse(const struct mc_concern *concern, u32 over)
{
	struct mc_stats *stats = mc_stats_of(concern->place);

	if (over & MC_SHARED) {
		if (stats)
			stats->refused++;
		return concern->reset ? MC_RESET : MC_REFUSED;
	}
	if (stats)
		stats->source_refused++;
	return concern->reset ? MC_SOURCE_RESET : MC_SOURCE_REFUSED;
}

static __always_inline void mc_reserve_both(const struct mc_concern *concern, u32 epoch)
{
	if (concern->place)
		mc_reserve(concern->shared, epoch);
	if (concern->source_max)
		mc_reserve(concern->source, epoch);
}

static __always_inline void mc_give_back_both(const struct mc_concern *concern, u32 epoch)
{
	if (concern->place)
		mc_give_back(concern->shared, epoch, epoch);
	if (concern->source_max)
		mc_give_back(concern->source, epoch, epoch);
}

static __always_inline void mc_tell_admitted(const struct mc_concern *concern, u32 over)
{
	struct mc_stats *stats = concern->place ? mc_stats_of(concern->place) : NULL;

	if (!stats)
		return;
	stats->admitted++;
	if (over)
		stats->excused++;
}

static __always_inline enum mc_answer mc_admit(const struct mc_settings *settings, struct mc_flow *flow)
{
	struct mc_reservation *held, reservation;
	u32 epoch, over_here, over_node, late;
	struct mc_concern here, node;

	if (!mc_claim(settings, flow, &reservation.claim))
		return MC_UNCONCERNED;
	/* a tick behind at most, and a quarter of the price; whoever compares it with the sockets waits for a second or more */
	reservation.since_ns = bpf_ktime_get_coarse_ns();
	epoch = mc_epoch(reservation.since_ns);
	held = mc_half.lookup(flow);
	if (held) {
		if (epoch - mc_epoch(held->since_ns) < MC_EPOCHS)
			return MC_HELD;
		mc_half.delete(flow);	/* of an epoch that is long over */
	}
	if (!mc_concern_of(&here, &reservation.claim, MC_HERE, flow) || !mc_concern_of(&node, &reservation.claim, MC_NODE, flow))
		return MC_UNCONCERNED;
	/* a look that writes nothing: a flood at a full limit is turned away here */
	over_here = mc_over(&here, epoch, 1);
	over_node = mc_over(&node, epoch, 1);
	if (over_here && mc_enforced(&here, settings, flow))
		return mc_refuse(&here, over_here);
	if (over_node && mc_enforced(&node, settings, flow))
		return mc_refuse(&node, over_node);
	mc_reserve_both(&here, epoch);
	mc_reserve_both(&node, epoch);
	late = over_here ? 0 : mc_over(&here, epoch, 0);
	if (late && mc_enforced(&here, settings, flow)) {
		mc_give_back_both(&here, epoch);
		mc_give_back_both(&node, epoch);
		return mc_refuse(&here, late);
	}
	late = over_node ? 0 : mc_over(&node, epoch, 0);
	if (late && mc_enforced(&node, settings, flow)) {
		mc_give_back_both(&here, epoch);
		mc_give_back_both(&node, epoch);
		return mc_refuse(&node, late);
	}
	if (mc_half.insert(flow, &reservation)) {
		/* another CPU has just let the same SYN in */
		mc_give_back_both(&here, epoch);
		mc_give_back_both(&node, epoch);
		return mc_half.lookup(flow) ? MC_HELD : MC_NO_ROOM;
	}
	mc_tell_admitted(&here, over_here);
	mc_tell_admitted(&node, over_node);
	return over_here || over_node ? MC_EXCUSED : MC_ADMITTED;
}

#endif
