/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * half.h: the reservations, by their connections.
 *
 * The kernel's own hash tables cost a SYN more than all the rest together, so this is one of its own: sets of MC_WAYS ways, and for each way a tag.
 * The tags of a set are one line of the cache, and mostly tell that a connection is not there. A way belongs to who brings its tag from one value
 * to the next by compare-and-swap, so each reservation is made once and given back once; nobody ever waits. With each use of a way its version
 * changes, so a tag that is the same is that of the same reservation.
 *
 * A new connection takes a free way of its set, else that of the oldest one, which is forgotten then: its reservation counts on until its epochs
 * are over. If two CPUs get the same SYN at the same moment, both may make a reservation; a sweep gives the second one back.
 */
#ifndef MAXCONN_HALF_H
#define MAXCONN_HALF_H

#include "count.h"

/* A tag, from its lowest bits: state, print (of the flow), time, version. */
#define MC_PRINT_SHIFT 2
#define MC_PRINT_BITS 18
#define MC_TIME_SHIFT (MC_PRINT_SHIFT + MC_PRINT_BITS)
#define MC_TIME_BITS 22
#define MC_VERSION_SHIFT (MC_TIME_SHIFT + MC_TIME_BITS)
#define MC_TICK_SHIFT 25	/* nanoseconds to units of a tag's time: 39 hours until it is the same again */
#define MC_TRIES 3

enum mc_way_state {
	MC_WAY_FREE,
	MC_WAY_WRITTEN,		/* by the CPU that has just taken it */
	MC_WAY_HELD,
};

/* Where a connection may be, and if it is there, where. */
struct mc_spot {
	struct mc_ways *ways;
	u32 set;
	u32 print;
	struct mc_half *half;	/* NULL: it is not there */
	u64 tag;
};

/* Multilinear hashing: who does not know the secret cannot tell which connections meet. */
static __always_inline u32 mc_hash(const struct mc_flow *flow)
{
	u32 zero = 0, ports = (u32)flow->remote_port << 16 | flow->local_port;
	struct mc_secret *secret = mc_secret.lookup(&zero);
	u64 sum;

	if (!secret)
		return 0;
	sum = secret->word[0] + secret->word[1] * ports + secret->word[2] * flow->local[3];
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += secret->word[3 + i] * flow->remote[i];
	return sum >> 32;
}

static __always_inline bool mc_same_flow(const struct mc_flow *one, const struct mc_flow *other)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (one->local_port ^ other->local_port) |
		 (one->remote_port ^ other->remote_port));
}

static __always_inline u64 mc_read_tag(struct mc_spot *spot, u32 way)
{
	return *(volatile u64 *)&spot->ways->tag[way & (MC_WAYS - 1)];
}

/* Bring a tag from one value to the next: only one who tries can. */
static __always_inline bool mc_set_tag(struct mc_spot *spot, u32 way, u64 from, u64 to)
{
	return __sync_val_compare_and_swap(&spot->ways->tag[way & (MC_WAYS - 1)], from, to) == from;
}

static __always_inline struct mc_half *mc_half_at(const struct mc_spot *spot, u32 way)
{
	u32 at = spot->set * MC_WAYS + way;

	return mc_half.lookup(&at);
}

/* Whether a tag has this state and print. */
static __always_inline bool mc_is_tag(u64 tag, u32 wanted)
{
	return !(((u32)tag ^ wanted) << (32 - MC_TIME_SHIFT));
}

/* False if the maps do not fit together: never. `flow` must lie at a multiple of 8. */
static __always_inline bool mc_find_half(struct mc_spot *spot, const struct mc_flow *flow)
{
	u32 hash = mc_hash(flow), wanted;

	spot->set = hash >> (32 - MC_SET_BITS);
	spot->print = hash & ((1 << MC_PRINT_BITS) - 1);
	spot->half = NULL;
	spot->tag = 0;
	spot->ways = mc_ways.lookup(&spot->set);
	if (!spot->ways)
		return false;
	wanted = spot->print << MC_PRINT_SHIFT | MC_WAY_HELD;
	/* mostly it is not there: nothing else is done for that */
#pragma unroll
	for (u32 way = 0; way < MC_WAYS; way++)
		if (mc_is_tag(mc_read_tag(spot, way), wanted))
			goto likely;
	return true;
likely:
	for (u32 way = 0; way < MC_WAYS; way++) {
		u64 tag = mc_read_tag(spot, way);
		struct mc_half *half;
		u32 after;

		if (!mc_is_tag(tag, wanted))
			continue;
		/* 0, but computed from the tag: no processor reads the entry before it */
		after = tag;
		asm volatile("%0 &= 0" : "+r"(after));
		half = mc_half_at(spot, way + after);
		if (!half || !mc_same_flow(&half->flow, flow) || mc_read_tag(spot, way) != tag)
			continue;
		spot->half = half;
		spot->tag = tag;
		break;
	}
	return true;
}

/* Take a connection out; false if somebody else has done so. */
static __always_inline bool mc_forget_half(struct mc_spot *spot)
{
	return mc_set_tag(spot, spot->half->way, spot->tag, spot->tag >> MC_VERSION_SHIFT << MC_VERSION_SHIFT);
}

/*
 * How good a way is for a new connection: free ones are best, then the oldest; 0 if it is being written. Without branches, and hidden from LLVM: the
 * verifier would follow each of them.
 */
static __always_inline u64 mc_worth(u64 tag, u32 now)
{
	u64 free = tag & 3, settled = tag & MC_WAY_WRITTEN;
	u64 age = (now - (u32)(tag >> MC_TIME_SHIFT)) & ((1 << MC_TIME_BITS) - 1);

	asm volatile("%0 += -1\n%0 >>= 63" : "+r"(free));
	asm volatile("%0 += -1" : "+r"(settled));
	return (age + 1 + (free << MC_TIME_BITS)) & settled;
}

static __always_inline u32 mc_choose_way(struct mc_spot *spot, u32 now)
{
	u64 best = 0;

#pragma unroll
	for (u64 way = 0; way < MC_WAYS; way++) {
		u64 more = (mc_worth(mc_read_tag(spot, way), now) << 8 | way) - best, is_more = more;

		asm volatile("%0 >>= 63\n%0 += -1" : "+r"(is_more));	/* all ones if it is, else 0 */
		best += more & is_more;
	}
	return best & (MC_WAYS - 1);
}

/* Put a connection in that is not there. False where others were faster, again and again. */
static __always_inline bool mc_keep_half(struct mc_spot *spot, const struct mc_flow *flow, u64 since_ns, const struct mc_claim *claim)
{
	u32 now = since_ns >> MC_TICK_SHIFT & ((1 << MC_TIME_BITS) - 1), way;
	u64 tag, version;
	struct mc_half *half;
	bool taken = false;

	for (int i = 0; i < MC_TRIES && !taken; i++) {
		way = mc_choose_way(spot, now);
		tag = mc_read_tag(spot, way);
		version = ((tag >> MC_VERSION_SHIFT) + 1) << MC_VERSION_SHIFT;
		taken = !(tag & MC_WAY_WRITTEN) && mc_set_tag(spot, way, tag, version | MC_WAY_WRITTEN);
	}
	if (!taken)
		return false;
	half = mc_half_at(spot, way);
	if (!half)
		return false;
	half->flow = *flow;
	half->way = way;
	half->since_ns = since_ns;
	half->claim = *claim;
	return mc_set_tag(spot, way, version | MC_WAY_WRITTEN,
			  version | (u64)now << MC_TIME_SHIFT | spot->print << MC_PRINT_SHIFT | MC_WAY_HELD);
}

#endif
