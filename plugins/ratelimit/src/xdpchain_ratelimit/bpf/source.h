/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * source.h: what is known about who sends.
 *
 * The state of a source is found in one step: its hash says the set, and a set has room for five sources in one cache line. To wait for that line
 * takes longer than all else that is done for a SYN. A new source takes an empty place, or that of the source of its set that has been silent
 * for longest.
 *
 * Places are given under the lock of the set, so a source never has two. Looking up takes no lock: a CPU that is just counting for a source which
 * is being replaced may count once for the new one.
 */
#ifndef RL_SOURCE_H
#define RL_SOURCE_H

#define RL_WAYS 5
#define RL_TICK_BITS 30		/* ages are in ticks of 2^30 ns (1.07 s), modulo 256 */
#define RL_LOCK_TRIES 64
#define RL_SAMPLE 16
#define RL_LOCK rl_mark(0)
#define RL_SEEN 8	/* bits of a tag for the tick */
#define RL_FIRST_FACTOR 0x9e3779b97f4a7c15ULL
#define RL_SECOND_FACTOR 0xc2b2ae3d27d4eb4fULL

/* The place of a source. */
struct rl_seat {
	struct rl_set *set;
	u32 at;		/* its set's key in rl_sources */
	u32 way;	/* 1 to 5 */
	u64 *word;
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

/* BPF's atomic operations are for 64 bits: the last tag and the marks behind it. */
static __always_inline u64 *rl_marks(struct rl_set *set)
{
	return (u64 *)&set->tag[RL_WAYS - 1];
}

static __always_inline u64 rl_mark(u32 bit)
{
	return 1ULL << bit << (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 32 : 0);
}

/* The way of a tag in a set, 0: none. Without a branch: the verifier would follow each way on its own through all that comes behind. */
static __always_inline u32 rl_way(struct rl_set *set, u64 tag)
{
	u64 way = 0;

#pragma unroll
	for (u32 i = 1; i <= RL_WAYS; i++) {
		u64 same = (*(volatile u32 *)&set->tag[i - 1] ^ tag) >> RL_SEEN;

		asm volatile("%0 += -1\n%0 >>= 61" : "+r"(same));	/* 7 if it was 0, else 0 */
		way |= same & i;
	}
	return way;
}

/* The way that a new source takes: the largest of an age and a way in one number. */
static __always_inline u32 rl_victim(struct rl_set *set, u32 tick)
{
	u32 oldest = 0;

#pragma unroll
	for (u32 i = 1; i <= RL_WAYS; i++) {
		u32 tag = *(volatile u32 *)&set->tag[i - 1], age = tag ? (u8)(tick - tag) : 256;

		age = age << 3 | i;
		if (age > oldest)
			oldest = age;
	}
	return oldest;
}

static __always_inline struct rl_sender *rl_sender_of(const struct rl_seat *seat)
{
	u32 at = seat->at * RL_WAYS + seat->way - 1;

	return rl_senders.lookup(&at);
}

/* Lets the verifier know that a way is one. */
static __always_inline u64 rl_index(const struct rl_seat *seat)
{
	u64 index = seat->way - 1;

	asm volatile("" : "+r"(index));
	return index < RL_WAYS ? index : RL_WAYS - 1;
}

/* Makes a place that of a source; `tag` has the tick, too. */
static __always_inline void rl_bring_in(const struct rl_rule *rule, const u64 *address, u32 tag, struct rl_seat *seat)
{
	struct rl_sender *sender;
	u64 index = rl_index(seat);

	sender = rl_sender_of(seat);
	if (sender)
		*sender = (struct rl_sender){ .id = rule->source_id, .address = { address[0], address[1] } };
	seat->set->word[index] = 0;
	__sync_fetch_and_and(rl_marks(seat->set), ~rl_mark(seat->way));	/* and all that is written so far is seen before the tag is */
	*(volatile u32 *)&seat->set->tag[index] = tag;
}

/* Gives a source a place. False: other CPUs kept the set locked for too long. */
static __always_inline bool rl_settle(const struct rl_rule *rule, const u64 *address, u32 tag, u32 tick,
		struct rl_seat *seat, struct rl_stats *stats)
{
	struct rl_set *set = seat->set;
	u32 i, victim;

	for (i = 0; i < RL_LOCK_TRIES; i++)
		if (!(__sync_fetch_and_or(rl_marks(set), RL_LOCK) & RL_LOCK))
			break;
	if (i == RL_LOCK_TRIES)
		return false;
	seat->way = rl_way(set, tag);
	if (!seat->way) {
		victim = rl_victim(set, tick);
		seat->way = victim & 7;
		rl_bring_in(rule, address, tag | tick, seat);
		if (victim >> 3 <= rule->memory)
			stats->evicted++;
	}
	__sync_fetch_and_and(rl_marks(set), ~RL_LOCK);
	return true;
}

/* Finds the place of a packet's source under a rule, or makes one. False where it could not. */
static __always_inline bool rl_find_source(const struct rl_rule *rule, const struct rl_frame *frame, u64 now,
		struct rl_seat *seat, struct rl_stats *stats)
{
	u32 tick = (u8)(now >> RL_TICK_BITS), tag;
	u64 address[2], hash, index;
	u8 *seen;

	rl_mask(rule, frame, address);
	hash = rl_hash(rule, address);
	tag = hash >> 32 & ~0xffU;
	if (!tag)
		tag = 1 << RL_SEEN;
	seat->at = hash & rule->sets;
	seat->set = rl_sources.lookup(&seat->at);
	if (!seat->set)
		return false;
	seat->way = rl_way(seat->set, tag);
	if (!seat->way && !rl_settle(rule, address, tag, tick, seat, stats))
		return false;
	index = rl_index(seat);
	seat->word = &seat->set->word[index];
	seen = (u8 *)&seat->set->tag[index];
	if (*seen != tick)
		*seen = tick;
	return true;
}

/* Whether a source is banned. The set has a mark of it, which spares all others a look at the sender. */
static __always_inline bool rl_is_banned(const struct rl_seat *seat, struct rl_request *request, struct rl_stats *stats)
{
	struct rl_sender *sender;

	if (!(seat->set->marks >> seat->way & 1))
		return false;
	sender = rl_sender_of(seat);
	if (!sender)
		return false;
	if (request->lag)
		rl_ask_time(request, stats);
	if (sender->banned_until > request->now) {
		sender->refused++;
		return true;
	}
	__sync_fetch_and_and(rl_marks(seat->set), ~rl_mark(seat->way));
	return false;
}

/*
 * Bans a source that was refused if the rule says so, and else counts it. Its sender lies in memory that is seldom in a cache: so one of sixteen is
 * counted, as sixteen: those whose numbers, times the golden ratio, have the smallest remainders.
 */
static __always_inline void rl_blame(const struct rl_rule *rule, const struct rl_seat *seat, struct rl_request *request,
		struct rl_stats *stats)
{
	struct rl_sender *sender;

	if (!rule->ban_ns && stats->source_exceeded * RL_FIRST_FACTOR > ~0ULL / RL_SAMPLE)
		return;
	sender = rl_sender_of(seat);
	if (!sender)
		return;
	if (!rule->ban_ns) {
		sender->refused += RL_SAMPLE;
		return;
	}
	if (request->lag)
		rl_ask_time(request, stats);
	sender->refused++;
	sender->banned_until = request->now + rule->ban_ns;
	__sync_fetch_and_or(rl_marks(seat->set), rl_mark(seat->way));
}

#endif
