/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * count.h: finding what a connection is counted in, and counting.
 *
 * A count is read and changed by all CPUs at once. It never reads too low: a reservation is added before the count is compared with its limit,
 * and a connection is added before its reservation is taken back, while a reader looks at reservations first.
 */
#ifndef MAXCONN_COUNT_H
#define MAXCONN_COUNT_H

#include "tables.h"

static __always_inline u32 mc_epoch(u64 ns)
{
	return ns >> MC_EPOCH_SHIFT;
}

static __always_inline struct mc_settings *mc_get_settings(void)
{
	u32 zero = 0;

	return mc_settings.lookup(&zero);
}

static __always_inline struct mc_stats *mc_stats_of(u32 place)
{
	return mc_stats.lookup(&place);
}

static __always_inline bool mc_is_ip6(const __be32 address[4])
{
	return address[0] || address[1] || address[2] != bpf_htonl(0xffff);
}

/* The place of the rule for a destination; the most specific one wins: address and port, address, port (`listed`). */
static __always_inline u32 mc_find(const struct mc_settings *settings, const struct mc_flow *flow, u32 listed)
{
	struct mc_service service = { .port = flow->local_port };
	u32 *place;

	if (!settings->addresses)
		return listed;
	__builtin_memcpy(service.address, flow->local, sizeof(service.address));
	place = mc_services.lookup(&service);
	if (place)
		return *place;
	service.port = 0;
	place = mc_services.lookup(&service);
	return place ? *place : listed;
}

/* The place of the rule for a port, whatever the address. */
static __always_inline u32 mc_listed(u32 port)
{
	u32 *place = mc_ports.lookup(&port);

	return place ? *place : 0;
}

static __always_inline bool mc_claim_one(struct mc_claim *claim, u32 which, u32 place, bool ip6)
{
	struct mc_rule *rule;

	if (!place)
		return false;
	rule = mc_rules.lookup(&place);
	if (!rule || !rule->id)
		return false;
	claim->id[which] = rule->id;
	claim->place[which] = place;
	claim->bits[which] = MC_NO_SOURCE;
	if (rule->source_max)
		claim->bits[which] = ip6 ? rule->bits[1] : rule->bits[0];
	return true;
}

/* What a connection is to be counted in; false: nothing. */
static __always_inline bool mc_claim(const struct mc_settings *settings, const struct mc_flow *flow, struct mc_claim *claim)
{
	bool ip6 = mc_is_ip6(flow->remote), here, node;

	__builtin_memset(claim, 0, sizeof(*claim));
	here = mc_claim_one(claim, MC_HERE, mc_find(settings, flow, mc_listed(flow->local_port)), ip6);
	node = mc_claim_one(claim, MC_NODE, settings->node, ip6);
	return here || node;
}

/* False where there is no such prefix. */
static __always_inline bool mc_source_key(struct mc_source *key, u64 id, const __be32 address[4], u32 bits)
{
	struct mc_mask *mask = mc_masks.lookup(&bits);

	if (!mask)
		return false;
	key->id = id;
#pragma unroll
	for (int i = 0; i < 4; i++)
		key->address[i] = address[i] & mask->word[i];
	return true;
}

static __always_inline struct mc_count *mc_shared_count(const struct mc_claim *claim, u32 which)
{
	u32 place = claim->place[which];
	struct mc_limit *limit;

	if (!claim->id[which])
		return NULL;
	limit = mc_limits.lookup(&place);
	return limit && limit->id == claim->id[which] ? &limit->count : NULL;
}

static __always_inline struct mc_count *mc_source_count(const struct mc_claim *claim, u32 which, const struct mc_flow *flow, bool make)
{
	struct mc_count *count, none = {};
	struct mc_source key;

	if (!claim->id[which] || claim->bits[which] == MC_NO_SOURCE)
		return NULL;
	if (!mc_source_key(&key, claim->id[which], flow->remote, claim->bits[which]))
		return NULL;
	count = mc_sources.lookup(&key);
	if (count || !make)
		return count;
	mc_sources.insert(&key, &none);
	return mc_sources.lookup(&key);
}

/* Connections and reservations. Without branches, and hidden from LLVM: the verifier would follow each of them. */
static __always_inline u64 mc_used(struct mc_count *count, u32 epoch)
{
	u64 used = 0, established;

#pragma unroll
	for (int i = 0; i < MC_EPOCHS; i++) {
		u64 word = *(volatile u64 *)&count->reserved[i], valid = (u32)(epoch - (u32)(word >> 32));

		/* all ones if it is of one of the last epochs, else 0 */
		asm volatile("%0 += %1\n%0 s>>= 63" : "+r"(valid) : "i"(-MC_EPOCHS));
		used += word & 0xffffffff & valid;
	}
	established = *(volatile u64 *)&count->established;
	return (s64)established > 0 ? used + established : used;
}

/* Make a reservation. A slot that is of this epoch stays so for as long as it counts, so nobody can come between. */
static __always_inline void mc_reserve(struct mc_count *count, u32 epoch)
{
	u64 *slot = &count->reserved[epoch % MC_EPOCHS], old = *(volatile u64 *)slot;

	if ((u32)(old >> 32) != epoch && __sync_val_compare_and_swap(slot, old, (u64)epoch << 32 | 1) == old)
		return;
	__sync_fetch_and_add(slot, 1);
}

/*
 * Give a reservation back. In the last epoch in which it counts its slot might be taken over by a new one at this moment: there it goes by itself.
 */
static __always_inline void mc_give_back(struct mc_count *count, u32 epoch, u32 now)
{
	u64 *slot = &count->reserved[epoch % MC_EPOCHS];

	if (now - epoch < MC_EPOCHS - 1)
		__sync_fetch_and_add(slot, -1);
}

static __always_inline void mc_give_back_all(const struct mc_claim *claim, const struct mc_flow *flow, u32 epoch, u32 now)
{
#pragma unroll
	for (u32 i = 0; i < MC_RULES; i++) {
		struct mc_count *shared = mc_shared_count(claim, i), *source = mc_source_count(claim, i, flow, false);

		if (shared)
			mc_give_back(shared, epoch, now);
		if (source)
			mc_give_back(source, epoch, now);
	}
}

/* Count a connection once more (1) or once less (-1). */
static __always_inline void mc_count_all(const struct mc_claim *claim, const struct mc_flow *flow, s64 by)
{
#pragma unroll
	for (u32 i = 0; i < MC_RULES; i++) {
		struct mc_count *shared = mc_shared_count(claim, i), *source = mc_source_count(claim, i, flow, by > 0);

		if (shared)
			__sync_fetch_and_add(&shared->established, by);
		if (source)
			__sync_fetch_and_add(&source->established, by);
	}
}

#endif
