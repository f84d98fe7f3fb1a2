/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * found.h: what was found in the tables of the config lately.
 *
 * Searches in them cost more than all else that is done for a packet, so each CPU remembers what it found, or that there was nothing, in a small
 * table that is asked first. What it remembers counts under the same generation of the config only; while that is 0 nothing is remembered.
 */
#ifndef DSR_FOUND_H
#define DSR_FOUND_H

#define DSR_FOUND_BITS 8

enum dsr_question {
	DSR_OUTER,	/* enum dsr_outer of an outer destination and source */
	DSR_TARGET,	/* the place that an endpoint and a VIP lead to, by a port and a protocol */
	DSR_PORT,	/* the place that a workload's port and a protocol lead to; both addresses are the workload's */
};

struct dsr_found {
	__be32 first[4];
	__be32 second[4];
	u32 what;		/* the question, the port and the protocol */
	u32 generation;
	u32 answer;
	u32 zero;
};
_Static_assert(sizeof(struct dsr_found) == 48, "as in the schema");

BPF_TABLE("percpu_array", u32, struct dsr_found, dsr_found, BY_SCHEMA);	/* the datapath writes */

static __always_inline u32 dsr_what(enum dsr_question question, __be16 port, u32 proto)
{
	return question << 24 | (u32)port << 8 | proto;
}

static __always_inline struct dsr_found *dsr_found_at(const __be32 *first, const __be32 *second, u32 what)
{
	u32 mixed = first[3] ^ first[1] ^ what, place;

	place = (mixed + (second[3] ^ second[1]) * 0x85ebca6b) * 0x9e3779b1 >> (32 - DSR_FOUND_BITS);
	return dsr_found.lookup(&place);
}

static __always_inline bool dsr_is_found(const struct dsr_found *found, const __be32 *first, const __be32 *second, u32 what, u32 generation)
{
	return found->what == what && found->generation == generation && generation && dsr_same(found->first, first) &&
	       dsr_same(found->second, second);
}

/* Not where the config has begun to change since `generation` was read: what was found may be of either. */
static __always_inline void dsr_find_again(struct dsr_found *found, const __be32 *first, const __be32 *second, u32 what, u32 generation, u32 answer,
					   const struct dsr_settings *settings)
{
	if (!generation || *(volatile const u32 *)&settings->generation != generation)
		return;
	__builtin_memcpy(found->first, first, sizeof(found->first));
	__builtin_memcpy(found->second, second, sizeof(found->second));
	found->what = what;
	found->generation = generation;
	found->answer = answer;
}

#endif
