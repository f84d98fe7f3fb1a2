/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * track.h: which member a flow of a moving slot belongs to. tables.h says what moving and holding are.
 *
 * A flow that begins goes to the slot's member and, while the slot is holding, is remembered there. Of any other flow that nobody remembers it is known
 * while the slot is holding that it was at the previous member; after that, that it is at the slot's member or has been silent for longer than
 * the hold. Nothing is remembered that this does not need.
 *
 * That a flow is not remembered proves nothing where the memory was lost. With a second chance it is remembered with its doubt: its packets go to the
 * previous member, and name the slot's for an agent there that does not know the flow either.
 */
#ifndef ELB_TRACK_H
#define ELB_TRACK_H

/* Ticks after which a flow is over that has not come to the end of its handshake, that was closed from one side, that was reset. */
#define ELB_LIMIT_OPENING 60
#define ELB_LIMIT_CLOSING 60
#define ELB_LIMIT_RESET 10

BPF_TABLE("percpu_array", u32, u64, elb_kept, BY_SCHEMA);	/* marks of flows with connection ids that were seen to lately; the datapath writes */

struct elb_slot {
	u32 pool;
	u32 number;
	u32 word;
	u32 until;
	u32 hold;
};

static __always_inline u32 elb_tick(void)
{
	return bpf_ktime_get_ns() >> ELB_TICK_BITS;
}

static __always_inline u32 elb_limit(u32 phase, u32 hold)
{
	u32 limit = hold;

	if (phase == ELB_OPENING)
		limit = ELB_LIMIT_OPENING;
	if (phase == ELB_CLOSING)
		limit = ELB_LIMIT_CLOSING;
	if (phase == ELB_RESET)
		limit = ELB_LIMIT_RESET;
	return limit < hold ? limit : hold;
}

static __always_inline u32 elb_phase(u32 phase, u32 event)
{
	if (event & ELB_RST)
		return ELB_RESET;
	if (phase == ELB_RESET)
		return ELB_RESET;
	if (event & ELB_FIN)
		return ELB_CLOSING;
	if (phase == ELB_OPENING && !(event & ELB_SYN))
		return ELB_OPEN;
	return phase;
}

/* The state of a member, and its incarnation: 0 if it is gone. */
static __always_inline u32 elb_state(u32 member)
{
	u32 *state = elb_states.lookup(&member);

	return state && *state & 3 ? *state : 0;
}

static __always_inline void elb_need(const struct elb_slot *slot, u32 until)
{
	u32 pool = slot->pool, number = slot->number, zero = 0;
	struct elb_moves *moves;
	void *inner;

	inner = elb_moves.lookup(&pool);
	if (!inner)
		return;
	moves = bpf_map_lookup_elem(inner, &zero);
	if (moves && number < ELB_RING_SIZE && (s32)(until - moves->needed[number]) > 0)
		moves->needed[number] = until;
}

static __always_inline u32 elb_previous(const struct elb_slot *slot)
{
	u32 pool = slot->pool, number = slot->number, zero = 0, member;
	struct elb_moves *moves;
	void *inner;

	inner = elb_moves.lookup(&pool);
	if (!inner)
		return 0;
	moves = bpf_map_lookup_elem(inner, &zero);
	if (!moves || number >= ELB_RING_SIZE)
		return 0;
	member = moves->previous[number];
	return elb_state(member) ? member : 0;
}

static __always_inline void elb_remember(struct elb_flow *flow, u32 member, u32 phase, u32 now)
{
	struct elb_memory memory = { .member = member, .incarnation = elb_state(member) >> 2, .seen = now, .phase = phase };

	elb_flows.update(flow, &memory);
}

#define ELB_KEPT_BITS 8

/* Whether this CPU has seen to the flow a moment ago. Another flow with the same mark comes a moment later. */
static __always_inline bool elb_is_kept(const struct elb_flow *flow, u32 member)
{
	u32 now = bpf_jiffies64() >> 8;	/* the cheapest clock: a quarter of a second, or a whole one */
	u32 mark = (flow->source[3] ^ flow->source[1] ^ (u32)flow->source_port << 16 ^ flow->destination_port) * 0x9e3779b1;
	u32 place = mark >> (32 - ELB_KEPT_BITS);
	u64 *kept, want;

	mark ^= member * 0x85ebca6b;
	want = (u64)mark << 32 | now;
	kept = elb_kept.lookup(&place);
	if (!kept)
		return false;
	if (*kept == want)
		return true;
	*kept = want;
	return false;
}

/* Remembers a flow that somebody else knows the member of. */
static __always_inline void elb_keep(struct elb_flow *flow, u32 member)
{
	struct elb_memory *memory = elb_flows.lookup(flow);
	u32 now = elb_tick();

	if (!memory || memory->member != member || memory->incarnation != elb_state(member) >> 2)
		elb_remember(flow, member, ELB_OPEN, now);
	else if (memory->seen != now)
		memory->seen = now;
}

/*
 * The member for a packet of a flow; 0: none. `remembered` says whether the flow table knew. Where that leaves a doubt, `alternate` becomes the other
 * member that it may be at; NULL: no doubt is asked for.
 */
static __always_inline u32 elb_member_of(struct elb_flow *flow, const struct elb_slot *slot, u32 event, bool *remembered, u32 *alternate)
{
	u32 now = elb_tick(), current = slot->word & ELB_MEMBER, state, phase, doubt, member, limit;
	bool holding = slot->word & ELB_HOLDING && (s32)(slot->until - now) > 0;
	struct elb_memory *memory;

	memory = elb_flows.lookup(flow);
	if (memory) {
		member = memory->member;
		phase = memory->phase & ELB_PHASE;
		doubt = memory->phase >> ELB_ALTERNATE_SHIFT;
		state = elb_state(member);
		if (state && state >> 2 == memory->incarnation && now - memory->seen <= elb_limit(phase, slot->hold) &&
		    (!(event & ELB_SYN) || phase == ELB_OPENING)) {
			*remembered = true;
			if (event & ELB_LOOK)
				return member;
			if (alternate && doubt && elb_state(doubt))
				*alternate = doubt;
			phase = elb_phase(phase, event);
			if ((phase | doubt << ELB_ALTERNATE_SHIFT) != memory->phase)
				memory->phase = phase | doubt << ELB_ALTERNATE_SHIFT;
			if (now != memory->seen)
				memory->seen = now;
			limit = elb_limit(phase, slot->hold);
			if (member != current)
				elb_need(slot, now + limit);
			return member;
		}
	}
	if (event & ELB_SYN) {
		if (current && (holding || memory))
			elb_remember(flow, current, ELB_OPENING, now);
		return current;
	}
	member = holding ? elb_previous(slot) : 0;
	if (!member)
		return current;
	doubt = 0;
	if (alternate && member != current)
		*alternate = doubt = current;
	if (!(event & ELB_LOOK)) {
		phase = elb_phase(ELB_OPEN, event);
		elb_remember(flow, member, phase | doubt << ELB_ALTERNATE_SHIFT, now);
		elb_need(slot, now + elb_limit(phase, slot->hold));
	}
	return member;
}

#endif
