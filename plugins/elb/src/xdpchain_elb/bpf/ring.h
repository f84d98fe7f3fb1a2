/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * ring.h: the routines that make a pool's ring and bring it to rest. They work through elb_plan, a bounded part of it in each run.
 *
 * elb_build fills elb_rings[0] by Maglev, then merges it with the ring that packets see, so that no flow changes its member; the config handler
 * puts it in that one's place. elb_settle ends the moving of slots whose remembered flows are over.
 */
#ifndef ELB_RING_H
#define ELB_RING_H

#include "track.h"

#define ELB_FILL_STEPS 1024	/* tries to take a slot in one run */
#define ELB_MERGE_STEPS 512	/* slots in one run */

static __always_inline struct elb_plan *elb_look_up_plan(void)
{
	u32 zero = 0;

	return elb_plan.lookup(&zero);
}

static __always_inline struct elb_ring *elb_look_up_ring(u32 pool)
{
	u32 zero = 0;
	void *inner = elb_rings.lookup(&pool);

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

static __always_inline struct elb_moves *elb_look_up_moves(u32 pool)
{
	u32 zero = 0;
	void *inner = elb_moves.lookup(&pool);

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

static __always_inline void elb_tell_progress(const struct elb_plan *plan)
{
	struct elb_progress progress = { .moving = plan->moving, .holding = plan->holding };
	u32 pool = plan->pool;

	elb_progress.update(&pool, &progress);
}

/* The same number, of which the compiler knows nothing: so it compares the very register that becomes an index, and the verifier sees the bound. */
static __always_inline u32 elb_opaque(u32 number)
{
	asm volatile("" : "+r"(number));
	return number;
}

/* A number modulo 2^16 + 1, where 2^16 is -1. */
static __always_inline u32 elb_modulo_ring(u32 sum)
{
	s32 rest = (s32)(sum & 0xffff) - (s32)(sum >> 16);

	return rest < 0 ? rest + ELB_RING_SIZE : rest;
}

/* Whether a turn takes a slot in this round. Version 2 saves up its weight until it can pay the largest one. */
static __always_inline bool elb_is_due(const struct elb_plan *plan, struct elb_turn *turn)
{
	u32 lack = plan->heaviest - turn->weight;

	if (plan->version == 1)
		return true;
	if (turn->credit < lack) {
		turn->credit += turn->weight;
		return false;
	}
	turn->credit -= lack;
	return true;
}

static __always_inline u32 elb_next_turn(const struct elb_plan *plan, u32 at)
{
	return at + 1 < plan->members ? at + 1 : 0;
}

/*
 * Turns take slots. The last slot goes to whoever's turn it is without a search: it is the one that is left, and a turn with a skip of 65536 would
 * never find it, since the wrap at 2^32 lets its places repeat one before their end.
 */
static __always_inline void elb_fill(struct elb_plan *plan, struct elb_ring *ring)
{
	u32 at = plan->at, taken = plan->taken, sum = 0, skip = 0, slot;
	struct elb_turn *turn = &plan->turn[at % ELB_POOL_MEMBERS];
	u64 *word, bit;

	if (plan->stage == ELB_IN_TURN) {
		sum = turn->sum;
		skip = turn->skip;
	}
	for (u32 i = 0; i < ELB_FILL_STEPS; i++) {
		if (!skip) {
			turn = &plan->turn[at % ELB_POOL_MEMBERS];
			if (!elb_is_due(plan, turn)) {
				at = elb_next_turn(plan, at);
				continue;
			}
			if (taken == ELB_RING_SIZE - 1) {
				plan->rest = turn->member;
				plan->stage = ELB_MERGE;
				plan->at = 0;
				return;
			}
			sum = turn->sum;
			skip = turn->skip;
		}
		slot = elb_opaque(elb_modulo_ring(sum));
		if (slot >= ELB_RING_SIZE)
			return;
		sum += skip;
		word = &plan->map[slot / 64];
		bit = 1ULL << slot % 64;
		if (*word & bit)
			continue;
		*word |= bit;
		ring->word[slot] = turn->member;
		turn->sum = sum;
		taken++;
		skip = 0;
		if (plan->version == 1 && turn->credit)
			turn->credit--;
		else
			at = elb_next_turn(plan, at);
	}
	plan->stage = skip ? ELB_IN_TURN : ELB_NEXT_TURN;
	plan->at = at;
	plan->taken = taken;
	if (skip)
		turn->sum = sum;
}

/* The word of a slot that goes to `member` and was `old`. `now` and `until` are of the old ring, `end` is the new ring's until. */
static __always_inline u32 elb_merged(struct elb_moves *moves, u32 slot, u32 old, u32 member, bool held, u32 end)
{
	u32 current = old & ELB_MEMBER, unknown = current;	/* where a flow that is not remembered belongs */
	bool moving = old & ELB_MOVING, holding = moving && old & ELB_HOLDING && held;

	if (member == current && !moving)
		return member;
	if (holding)
		unknown = moves->previous[slot];
	if (!elb_state(unknown))
		unknown = 0;
	if (member == current)
		return member | ELB_MOVING | (holding && unknown ? ELB_HOLDING : 0);
	if (!unknown && !moving)
		return member;
	if ((s32)(end - moves->needed[slot]) > 0)
		moves->needed[slot] = end;
	if (!unknown || unknown == member)
		return member | ELB_MOVING;
	moves->previous[slot] = unknown;
	return member | ELB_MOVING | ELB_HOLDING;
}

static __always_inline void elb_merge(struct elb_plan *plan, struct elb_ring *ring)
{
	u32 at = plan->at, moving = plan->moving, holding = plan->holding, now = elb_tick(), slot, member, word, end;
	struct elb_moves *moves = elb_look_up_moves(plan->pool);
	struct elb_ring *old = elb_look_up_ring(plan->pool);
	bool track = plan->track && old && moves, held = false;

	if (!at)
		ring->until = now + plan->hold;
	end = ring->until;
	if (track)
		held = (s32)(old->until - now) > 0;
	for (u32 i = 0; i < ELB_MERGE_STEPS; i++) {
		slot = elb_opaque(at + i);
		if (slot >= ELB_RING_SIZE) {
			plan->stage = ELB_DONE;
			break;
		}
		member = plan->map[slot / 64] >> slot % 64 & 1 ? ring->word[slot] : plan->rest;
		word = member;
		if (track)
			word = elb_merged(moves, slot, old->word[slot], member, held, end);
		ring->word[slot] = word;
		if (word & ELB_MOVING)
			moving++;
		if (word & ELB_HOLDING)
			holding++;
	}
	plan->at = at + ELB_MERGE_STEPS;
	plan->moving = moving;
	plan->holding = holding;
	if (plan->stage == ELB_DONE)
		elb_tell_progress(plan);
}

static __always_inline int elb_build(struct xdp_md *ctx)
{
	struct elb_plan *plan = elb_look_up_plan();
	struct elb_ring *ring = elb_look_up_ring(0);

	if (!plan || !ring || plan->stage == ELB_DONE)
		return 0;
	if (plan->stage == ELB_MERGE)
		elb_merge(plan, ring);
	else
		elb_fill(plan, ring);
	return plan->stage != ELB_DONE;
}

static __always_inline int elb_settle(struct xdp_md *ctx)
{
	u32 at, moving, holding, now = elb_tick(), slot, word;
	struct elb_plan *plan = elb_look_up_plan();
	struct elb_moves *moves;
	struct elb_ring *ring;
	bool held;

	if (!plan || plan->stage == ELB_DONE)
		return 0;
	ring = elb_look_up_ring(plan->pool);
	moves = elb_look_up_moves(plan->pool);
	if (!ring || !moves)
		return 0;
	at = plan->at;
	moving = plan->moving;
	holding = plan->holding;
	held = (s32)(ring->until - now) > 0;
	for (u32 i = 0; i < ELB_MERGE_STEPS; i++) {
		slot = elb_opaque(at + i);
		if (slot >= ELB_RING_SIZE) {
			plan->stage = ELB_DONE;
			break;
		}
		word = ring->word[slot];
		if (!(word & ELB_MOVING))
			continue;
		if (held && word & ELB_HOLDING) {
			holding++;
		} else if ((s32)(now - moves->needed[slot]) > 0) {
			*(volatile u32 *)&ring->word[slot] = word & ELB_MEMBER;	/* packets see the one or the other */
			continue;
		}
		moving++;
	}
	plan->at = at + ELB_MERGE_STEPS;
	plan->moving = moving;
	plan->holding = holding;
	if (plan->stage == ELB_DONE)
		elb_tell_progress(plan);
	return plan->stage != ELB_DONE;
}

#endif
