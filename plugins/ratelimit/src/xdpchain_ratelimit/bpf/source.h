/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * source.h: what is known about who sends.
 *
 * The state of a source is found in one step: its hash says the set, and a set has room for seven sources in two cache lines. A hash table of the
 * kernel would take three times as long. A new source takes an empty place of its set, or that of the source that has been silent for longest.
 *
 * Places are given under the lock of the set, so a source never has two. Looking up takes no lock: a CPU that is just counting for a source which
 * is being replaced may count once for the new one.
 */
#ifndef RL_SOURCE_H
#define RL_SOURCE_H

#define RL_WAYS 7
#define RL_TICK_BITS 30		/* ages are in ticks of 2^30 ns (1.07 s), modulo 256 */
#define RL_LOCK_TRIES 64
#define RL_SAMPLE 16
#define RL_FIRST_FACTOR 0x9e3779b97f4a7c15ULL
#define RL_SECOND_FACTOR 0xc2b2ae3d27d4eb4fULL

/* The place of a source. */
struct rl_seat {
	struct rl_set *set;
	u32 at;		/* its set's key in rl_sources */
	u32 way;	/* 1 to 7 */
};

/* What the lists of a rule say about a source, by the longest prefix; 0: nothing. */
static __always_inline u32 rl_listed(const struct rl_rule *rule, const struct rl_frame *frame)
{
	struct rl_list_key key = { .length = 160, .list = 2 * rule->window };
	u32 *listed;

	__builtin_memcpy(key.address, frame->source, sizeof(key.address));
	if (frame->proto & RL_IPV6)
		key.list++;
	listed = rl_lists.lookup(&key);
	return listed ? *listed : 0;
}

/* A number that nobody outside knows: else one could choose addresses that share a set, or a tag. */
static __always_inline u64 rl_secret(void)
{
	u32 zero = 0;
	u64 *seed;

	seed = rl_seed.lookup(&zero);
	if (!seed)
		return 0;
	if (!*seed)
		__sync_val_compare_and_swap(seed, 0, (u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1);
	return *seed;
}

/* What counts of a packet's source under a rule. */
static __always_inline void rl_mask(const struct rl_rule *rule, const struct rl_frame *frame, u64 *address)
{
	__builtin_memcpy(address, frame->source, sizeof(frame->source));
	if (frame->proto & RL_IPV6) {
		address[0] &= rule->mask6_high;
		address[1] &= rule->mask6_low;
	} else {
		address[1] &= rule->mask4;
	}
}

static __always_inline u64 rl_hash(const struct rl_rule *rule, const u64 *address)
{
	u64 hash = (address[0] ^ rule->source_id ^ rl_secret()) * RL_FIRST_FACTOR;

	hash ^= hash >> 32;
	hash = (hash ^ address[1]) * RL_SECOND_FACTOR;
	hash ^= hash >> 29;
	hash *= RL_FIRST_FACTOR;
	return hash ^ hash >> 32;
}

/* The way of a tag in a set, 0: none. Without a branch: the verifier would follow each way on its own through all that comes behind. */
static __always_inline u32 rl_way(struct rl_set *set, u64 tag)
{
	u64 way = 0;

#pragma unroll
	for (u32 i = 1; i <= RL_WAYS; i++) {
		u64 same = (*(volatile u64 *)&set->tag[i] ^ tag) >> 1;

		asm volatile("%0 += -1\n%0 >>= 63" : "+r"(same));	/* 1 if it was 0 (tags have bit 63 set, so the difference has not), else 0 */
		way |= same * i;
	}
	return way & 7;
}

/* The way that a new source takes: the largest of an age and a way in one number. */
static __always_inline u32 rl_victim(struct rl_set *set, u32 tick)
{
	u64 oldest = 0;

#pragma unroll
	for (u32 i = 1; i <= RL_WAYS; i++) {
		u64 age = set->tag[i] ? (u8)(tick - set->seen[i]) : 256;

		age = age << 3 | i;
		if (age > oldest)
			oldest = age;
	}
	return oldest;
}

static __always_inline struct rl_sender *rl_sender_of(const struct rl_seat *seat)
{
	u32 at = seat->at * 8 + seat->way;

	return rl_senders.lookup(&at);
}

/* Gives a source a place. False: other CPUs kept the set locked for too long. */
static __always_inline bool rl_settle(const struct rl_rule *rule, const u64 *address, u64 tag, u32 tick,
		struct rl_seat *seat, struct rl_stats *stats)
{
	struct rl_set *set = seat->set;
	struct rl_sender *sender;
	u32 i, victim;

	for (i = 0; i < RL_LOCK_TRIES; i++)
		if (!__sync_val_compare_and_swap(&set->tag[0], 0, 1))
			break;
	if (i == RL_LOCK_TRIES)
		return false;
	seat->way = rl_way(set, tag);
	if (!seat->way) {
		victim = rl_victim(set, tick);
		seat->way = victim & 7;
		if (victim >> 3 <= rule->memory)
			stats->evicted++;
		sender = rl_sender_of(seat);
		if (sender)
			*sender = (struct rl_sender){ .id = rule->source_id, .address = { address[0], address[1] } };
		set->word[(seat->way - 1) & 7] = 0;
		__sync_lock_test_and_set(&set->tag[seat->way & 7], tag);
	}
	__sync_lock_test_and_set(&set->tag[0], 0);
	return true;
}

/* Finds the place of a packet's source under a rule, or makes one. False where it could not. */
static __always_inline bool rl_find_source(const struct rl_rule *rule, const struct rl_frame *frame, u64 now,
		struct rl_seat *seat, struct rl_stats *stats)
{
	u64 address[2], hash, tag;
	u32 tick = (u8)(now >> RL_TICK_BITS);

	rl_mask(rule, frame, address);
	hash = rl_hash(rule, address);
	tag = (hash | 1ULL << 63) & ~1ULL;
	seat->at = hash >> 1 & rule->sets;
	seat->set = rl_sources.lookup(&seat->at);
	if (!seat->set)
		return false;
	*(volatile u8 *)&seat->set->seen[0];	/* has the second cache line fetched while the first one is waited for */
	seat->way = rl_way(seat->set, tag);
	if (!seat->way && !rl_settle(rule, address, tag, tick, seat, stats))
		return false;
	if (seat->set->seen[seat->way & 7] != tick)
		seat->set->seen[seat->way & 7] = tick;
	return true;
}

/* Whether a source is banned. The tag has a mark of it, which spares all others a look at the sender. */
static __always_inline bool rl_is_banned(const struct rl_seat *seat, u64 now)
{
	u64 *tag = &seat->set->tag[seat->way & 7];
	struct rl_sender *sender;

	if (!(*tag & 1))
		return false;
	sender = rl_sender_of(seat);
	if (!sender)
		return false;
	if (sender->banned_until > now) {
		sender->refused++;
		return true;
	}
	__sync_fetch_and_and(tag, ~1ULL);
	return false;
}

/*
 * Bans a source that was refused if the rule says so, and else counts it. Its sender lies in memory that is seldom in a cache: so one of sixteen is
 * counted, by the low bits of the time, as sixteen.
 */
static __always_inline void rl_blame(const struct rl_rule *rule, const struct rl_seat *seat, u64 now)
{
	struct rl_sender *sender;

	if (!rule->ban_ns && now % RL_SAMPLE)
		return;
	sender = rl_sender_of(seat);
	if (!sender)
		return;
	if (!rule->ban_ns) {
		sender->refused += RL_SAMPLE;
		return;
	}
	sender->refused++;
	sender->banned_until = now + rule->ban_ns;
	__sync_fetch_and_or(&seat->set->tag[seat->way & 7], 1);
}

#endif
