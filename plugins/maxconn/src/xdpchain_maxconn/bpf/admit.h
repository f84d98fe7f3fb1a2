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

/* One rule that a new connection concerns. */
struct mc_concern {
	struct mc_count *shared;	/* NULL: the rule is not concerned */
	struct mc_count *source;
	u64 max;
	u64 source_max;
	u32 enforce;
	u32 reset;
	u32 place;
	u32 over;
	bool excused;			/* over, and let in all the same */
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

static __always_inline void mc_concern_of(struct mc_concern *concern, const struct mc_claim *claim, u32 which, const struct mc_flow *flow)
{
	u32 place = claim->place[which];
	struct mc_rule *rule;

	__builtin_memset(concern, 0, sizeof(*concern));
	if (!claim->id[which])
		return;
	rule = mc_rules.lookup(&place);
	if (!rule)
		return;
	concern->max = rule->max;
	concern->source_max = rule->source_max;
	concern->enforce = rule->enforce;
	concern->reset = rule->reset;
	concern->place = place;
	concern->source = mc_source_count(claim, which, flow, true);
	concern->shared = mc_shared_count(claim, which);
}

/* Whether a connection is refused when `more` come in. */
static __always_inline bool
mc_refuses(struct mc_concern *concern, const struct mc_settings *settings, const struct mc_flow *flow, u32 epoch, u64 more)
{
	if (!concern->shared || concern->excused)
		return false;
	concern->over = 0;
	if (mc_used(concern->shared, epoch) + more > concern->max)
		concern->over = MC_SHARED;
	else if (concern->source && mc_used(concern->source, epoch) + more > concern->source_max)
		concern->over = MC_SOURCE;
	if (!concern->over)
		return false;
	if (concern->enforce && !mc_allowed(settings, flow) && (concern->enforce >= 100 || mc_lot(flow) < concern->enforce))
		return true;
	concern->excused = true;
	return false;
}

static __always_inline enum mc_answer mc_refuse(const struct mc_concern *concern)
{
	struct mc_stats *stats = mc_stats_of(concern->place);

	if (concern->over == MC_SHARED) {
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
	if (concern->shared)
		mc_reserve(concern->shared, epoch);
	if (concern->source)
		mc_reserve(concern->source, epoch);
}

static __always_inline void mc_give_back_both(const struct mc_concern *concern, u32 epoch)
{
	if (concern->shared)
		mc_give_back(concern->shared, epoch, epoch);
	if (concern->source)
		mc_give_back(concern->source, epoch, epoch);
}

static __always_inline void mc_tell_admitted(const struct mc_concern *concern)
{
	struct mc_stats *stats = concern->shared ? mc_stats_of(concern->place) : NULL;

	if (!stats)
		return;
	stats->admitted++;
	if (concern->excused)
		stats->excused++;
}

static __always_inline enum mc_answer mc_admit(const struct mc_settings *settings, const struct mc_flow *flow, u64 now)
{
	struct mc_reservation *held, reservation;
	struct mc_concern here, node;
	u32 epoch = mc_epoch(now);

	if (!mc_claim(settings, flow, &reservation.claim))
		return MC_UNCONCERNED;
	held = mc_half.lookup((struct mc_flow *)flow);
	if (held && epoch - mc_epoch(held->since_ns) < MC_EPOCHS)
		return MC_HELD;
	mc_concern_of(&here, &reservation.claim, MC_HERE, flow);
	mc_concern_of(&node, &reservation.claim, MC_NODE, flow);
	/* a look that writes nothing: a flood at a full limit is turned away here */
	if (mc_refuses(&here, settings, flow, epoch, 1))
		return mc_refuse(&here);
	if (mc_refuses(&node, settings, flow, epoch, 1))
		return mc_refuse(&node);
	mc_reserve_both(&here, epoch);
	mc_reserve_both(&node, epoch);
	if (mc_refuses(&here, settings, flow, epoch, 0)) {
		mc_give_back_both(&here, epoch);
		mc_give_back_both(&node, epoch);
		return mc_refuse(&here);
	}
	if (mc_refuses(&node, settings, flow, epoch, 0)) {
		mc_give_back_both(&here, epoch);
		mc_give_back_both(&node, epoch);
		return mc_refuse(&node);
	}
	reservation.since_ns = now;
	if (held)
		mc_half.delete((struct mc_flow *)flow);	/* of an epoch that is long over */
	if (mc_half.insert((struct mc_flow *)flow, &reservation)) {
		/* another CPU has just let the same SYN in */
		mc_give_back_both(&here, epoch);
		mc_give_back_both(&node, epoch);
		return mc_half.lookup((struct mc_flow *)flow) ? MC_HELD : MC_NO_ROOM;
	}
	mc_tell_admitted(&here);
	mc_tell_admitted(&node);
	return here.excused || node.excused ? MC_EXCUSED : MC_ADMITTED;
}

#endif
