/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * ring.h: the routines that make a pool's ring and bring it to rest. They work through elb_plan, a bounded part of it in each run.
 *
 * elb_build fills elb_rings[0] by Maglev, then merges it with the ring that packets see, so that no flow changes its member; the config handler
 * puts it in that one's place. elb_settle ends the moving of slots whose remembered flows are over.
 *
 * The verifier goes through every step of a loop, in every state that it can begin in. So what a loop carries from step to step is xored with
 * plan->zero: to the verifier it is any number then, and all states are one.
 */
#ifndef ELB_RING_H
#define ELB_RING_H

#define ELB_FILL_STEPS 64	/* in one run; ring.py knows these two */
#define ELB_MERGE_STEPS 32	/* slots in one run */
#define ELB_LIST_STEPS 256	/* slots in one run */

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
static __always_inline u64 elb_opaque(u64 number)
{
	asm volatile("" : "+r"(number));
	return number;
}

/* The low 32 bits modulo 2^16 + 1, where 2^16 is -1. No branch: it would be mispredicted every second time. */
static __always_inline u64 elb_modulo_ring(u64 sum)
{
	s64 rest = (s64)(sum & 0xffff) - (s64)(sum >> 16 & 0xffff);

	return rest + (elb_opaque(rest >> 63) & ELB_RING_SIZE);
}

/* Whether a turn takes a slot in this round: it saves up its weight until it can pay the largest one. */
static __always_inline bool elb_is_due(const struct elb_plan *plan, struct elb_turn *turn)
{
	u64 lack = plan->heaviest - turn->weight, credit = turn->credit;

	if (credit < lack) {
		turn->credit = credit + turn->weight;
		return false;
	}
	turn->credit = credit - lack;
	return true;
}

static __always_inline u64 elb_next_turn(const struct elb_plan *plan, u64 at)
{
	at++;
	return at < plan->members ? at ^ plan->zero : plan->zero;
}

/* Whether the next place of a turn is a slot that is free. */
static __always_inline bool elb_try(const struct elb_ring *ring, u64 *sum, u64 skip, u64 *slot)
{
	*slot = elb_opaque(elb_modulo_ring(*sum));
	*sum += skip;
	return *slot < ELB_RING_SIZE && !ring->word[*slot];
}

/* Turns take slots, by trying their places one after the other. */
static __always_inline void elb_fill(struct elb_plan *plan, struct elb_ring *ring)
{
	u64 at = plan->at, taken = plan->taken, end = ELB_RING_SIZE - plan->listed, zero = plan->zero, sum = zero, skip = zero, slot;
	struct elb_turn *turn = &plan->turn[at % ELB_POOL_MEMBERS];

	if (plan->stage == ELB_IN_TURN) {
		sum = turn->sum ^ zero;
		skip = turn->skip ^ zero;
	}
	for (u64 i = 0; i < ELB_FILL_STEPS; i++) {
		if (!skip) {
			turn = &plan->turn[at % ELB_POOL_MEMBERS];
			if (!elb_is_due(plan, turn)) {
				at = elb_next_turn(plan, at);
				continue;
			}
			sum = turn->sum ^ zero;
			skip = turn->skip ^ zero;
		}
		/* three at once, since going round costs as much as a try */
		if (!elb_try(ring, &sum, skip, &slot) && !elb_try(ring, &sum, skip, &slot) && !elb_try(ring, &sum, skip, &slot))
			continue;
		ring->word[slot] = turn->member;
		turn->sum = sum;
		taken = (taken + 1) ^ zero;
		skip = zero;
		if (turn->more)
			turn->more--;
		else
			at = elb_next_turn(plan, at);
		if (taken >= end)
			break;
	}
	if (taken >= end)
		plan->stage = ELB_LIST;
	else
		plan->stage = skip ? ELB_IN_TURN : ELB_NEXT_TURN;
	plan->at = at;
	plan->taken = taken;
	if (skip)
		turn->sum = sum;
}

/*
 * Half of all tries would be for the last slots. So these are listed, and each turn takes the one that it would come to first. It comes to a slot after
 * (slot - place) / skip steps, modulo the size of the ring. That holds as long as its places do not wrap around at 2^32; with skips that let them
 * one slot alone is listed, which goes to whoever's turn it is. A turn with a skip of 65536 might never find it: its places repeat one before their end.
 */
static __always_inline void elb_list(struct elb_plan *plan, struct elb_ring *ring)
{
	u64 at = plan->looked, zero = plan->zero, free = plan->free ^ zero, slot;

	for (u64 i = 0; i < ELB_LIST_STEPS; i++) {
		slot = elb_opaque(at + i);
		if (slot >= ELB_RING_SIZE)
			break;
		if (ring->word[slot])
			continue;
		plan->last[free % ELB_LAST_SLOTS] = slot;
		free = (free + 1) ^ zero;
	}
	plan->free = free;
	plan->looked = at + ELB_LIST_STEPS;
	if (plan->looked >= ELB_RING_SIZE)
		plan->stage = ELB_PICK;
}

/* The product of two numbers below 2^16 + 1, modulo that. */
static __always_inline u64 elb_multiply(u64 a, u64 b)
{
	u64 product = a * b;
	s64 rest = (s64)(product & 0xffff) - (s64)(product >> 16);

	return rest + (elb_opaque(rest >> 63) & ELB_RING_SIZE);
}

/* The slot among the last ones that a turn comes to first: its place in the list, and above that how many steps it is away. */
static __always_inline u64 elb_nearest(const struct elb_plan *plan, const struct elb_turn *turn)
{
	u64 inverse = turn->inverse, place = elb_modulo_ring(turn->sum), nearest = ~0ULL >> 1, number;
	s64 distance, closer;

	for (u64 i = 0; i < ELB_LAST_SLOTS; i++) {
		if (i >= plan->free)
			break;
		distance = (s64)plan->last[i] - (s64)place;
		distance += elb_opaque(distance >> 63) & ELB_RING_SIZE;
		number = elb_multiply(distance, inverse) * ELB_LAST_SLOTS + i;
		closer = number - nearest;
		nearest += closer & elb_opaque(closer >> 63);
	}
	return nearest;
}

/* One turn takes one of the last slots, if it is due. */
static __always_inline void elb_pick(struct elb_plan *plan, struct elb_ring *ring)
{
	u64 at = plan->at, free = plan->free - 1, nearest, number, slot;
	struct elb_turn *turn = &plan->turn[at % ELB_POOL_MEMBERS];

	if (!elb_is_due(plan, turn)) {
		plan->at = elb_next_turn(plan, at);
		return;
	}
	nearest = elb_nearest(plan, turn);
	number = nearest % ELB_LAST_SLOTS;
	slot = elb_opaque(plan->last[number]);
	if (slot < ELB_RING_SIZE)
		ring->word[slot] = turn->member;
	turn->sum += (nearest / ELB_LAST_SLOTS + 1) * turn->skip;
	plan->last[number] = plan->last[free % ELB_LAST_SLOTS];
	plan->free = free;
	if (turn->more)
		turn->more--;
	else
		plan->at = elb_next_turn(plan, at);
	if (free)
		return;
	plan->stage = ELB_MERGE;
	plan->at = 0;
}

struct elb_merger {
	struct elb_ring *old;
	struct elb_moves *moves;
	u64 zero;
	u64 held;	/* 1: the old ring is still holding */
	u32 end;	/* until of the new ring */
};

static __always_inline u64 elb_is_any(u64 number)
{
	return (number | -number) >> 63;
}

/*
 * The word of a slot that was `old` and goes to `member`. It is written with few branches, since the verifier goes all ways through each slot of a run:
 * what is 1 or 0 makes masks.
 */
static __always_inline u64 elb_merged(const struct elb_merger *merger, u64 slot, u64 old, u64 member)
{
	u64 current = old & ELB_MEMBER, moving = old >> 31, holding = old >> 30 & moving & merger->held, previous, known, hold;
	struct elb_moves *moves = merger->moves;
	u32 unknown, *state;	/* where a flow that is not remembered belongs */

	previous = moves->previous[slot];
	unknown = current ^ ((current ^ previous) & -holding);
	state = elb_states.lookup(&unknown);
	if (!state)
		return member;
	known = elb_is_any(unknown) & elb_is_any(*state & 3);
	if (member == current)
		return member | ELB_MOVING | (holding & known) << 30;
	if (!(known | moving))
		return member;
	if ((s32)(merger->end - moves->needed[slot]) > 0)
		moves->needed[slot] = merger->end;
	hold = known & elb_is_any(unknown ^ member);
	moves->previous[slot] = previous ^ ((previous ^ unknown) & -hold);
	return member | ELB_MOVING | hold << 30;
}

/* The member that took a slot. */
static __always_inline u32 elb_taker(const struct elb_plan *plan, const struct elb_ring *ring, u64 slot)
{
	u32 member = ring->word[slot];

	return member ? member : plan->rest;
}

/* A ring that is merged with nothing is made when its slots are taken, unless one member has them all. */
static __always_inline void elb_take(struct elb_plan *plan, struct elb_ring *ring)
{
	u64 at = plan->at, slot;

	if (!plan->rest) {
		plan->at = ELB_RING_SIZE;
		return;
	}
	for (u64 i = 0; i < ELB_MERGE_STEPS; i++) {
		slot = elb_opaque(at + i);
		if (slot >= ELB_RING_SIZE)
			break;
		ring->word[slot] = plan->rest;
	}
}

static __always_inline void elb_merge(struct elb_plan *plan, struct elb_ring *ring, const struct elb_merger *merger)
{
	u64 at = plan->at, zero = plan->zero, moving = plan->moving, holding = plan->holding, slot, old, word;

	for (u64 i = 0; i < ELB_MERGE_STEPS; i++) {
		slot = elb_opaque(at + i);
		if (slot >= ELB_RING_SIZE)
			break;
		word = elb_taker(plan, ring, slot) ^ zero;
		old = merger->old->word[slot];
		if (word != old)
			word = elb_merged(merger, slot, old, word);
		word ^= zero;
		ring->word[slot] = word;
		moving += word >> 31;
		holding += word >> 30 & 1;
	}
	plan->moving = moving;
	plan->holding = holding;
}

static __always_inline void elb_finish(struct elb_plan *plan, struct elb_ring *ring)
{
	struct elb_merger merger = { .old = elb_look_up_ring(plan->pool), .moves = elb_look_up_moves(plan->pool), .zero = plan->zero };
	u32 now = elb_tick();

	if (!plan->at)
		ring->until = now + plan->hold;
	if (plan->track && merger.old && merger.moves) {
		merger.held = ((s32)(merger.old->until - now) > 0) ^ merger.zero;
		merger.end = ring->until;
		elb_merge(plan, ring, &merger);
	} else {
		elb_take(plan, ring);
	}
	plan->at += ELB_MERGE_STEPS;
	if (plan->at < ELB_RING_SIZE)
		return;
	plan->stage = ELB_DONE;
	elb_tell_progress(plan);
}

static __always_inline int elb_build(struct xdp_md *ctx)
{
	struct elb_plan *plan = elb_look_up_plan();
	struct elb_ring *ring;

	if (!plan)
		return 0;
	ring = elb_look_up_ring(plan->into);
	if (!ring || plan->stage == ELB_DONE)
		return 0;
	switch (plan->stage) {
	case ELB_LIST:
		elb_list(plan, ring);
		break;
	case ELB_PICK:
		elb_pick(plan, ring);
		break;
	case ELB_MERGE:
		elb_finish(plan, ring);
		break;
	default:
		elb_fill(plan, ring);
	}
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
