/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * ratelimit: lets in at most `rate` new TCP connections per window, by destination port.
 *
 * Reads:   Ethernet to TCP headers; rl_ports, rl_rules.
 * Writes:  rl_windows, rl_stats; never the packet.
 * Verdict: DROP for a SYN over the limit, and for what could hide a SYN; NEXT for everything else.
 *
 * The window is made of two buckets: the SYNs admitted in the current window and in the one before, whose number weighs as much as it still
 * overlaps the span of one window that ends now. With the rate R, the window W and the time e into the current window, a SYN is admitted if
 *
 *	previous * (W - e) + (current + 1) * W <= R * W
 *
 * so that any interval of length L sees at most R * (1 + L / W) of them. All of it is one word, changed by compare-and-swap: the limit is exact
 * across CPUs, and over the limit nothing is written at all. The config bounds R * W to 2^62, so no product overflows.
 */
#include "xdpchain.h"

#define RL_NUMBER_BITS 20
#define RL_COUNT_BITS 22
#define RL_NUMBER_MASK ((1ULL << RL_NUMBER_BITS) - 1)
#define RL_COUNT_MASK ((1ULL << RL_COUNT_BITS) - 1)
#define RL_TRIES 16

struct rl_rule {
	u64 window;	/* key in rl_windows and rl_stats */
	u64 rate;
	u64 window_ns;	/* 0: no rule */
};
_Static_assert(sizeof(struct rl_rule) == 24, "as in the schema");

struct rl_window {
	u64 id;		/* of the rule: ports and window; 0: free */
	u64 word;	/* number, previous, current */
};
_Static_assert(sizeof(struct rl_window) == 16, "as in the schema");

struct rl_stats {
	u64 admitted;
	u64 limited;
};
_Static_assert(sizeof(struct rl_stats) == 16, "as in the schema");

/* All are arrays, which the JIT compiles to plain memory accesses. The config handler writes everything but the words and the statistics. */
BPF_TABLE("array", u32, u32, rl_ports, BY_SCHEMA);		/* port, host order -> key in rl_rules; 0: no rule */
BPF_TABLE("array", u32, struct rl_rule, rl_rules, BY_SCHEMA);	/* never changed while a port leads to it */
BPF_TABLE("array", u32, struct rl_window, rl_windows, BY_SCHEMA);
BPF_TABLE("percpu_array", u32, struct rl_stats, rl_stats, BY_SCHEMA);

enum rl_answer {
	RL_ADMITTED,
	RL_OVER,
	RL_CONTENDED,
};

static __always_inline enum rl_answer rl_ask(u64 *word, const struct rl_rule *rule, u64 now)
{
	u64 window_ns = rule->window_ns, budget = rule->rate * window_ns;
	u64 number = now / window_ns, elapsed = now - number * window_ns;

	for (int i = 0; i < RL_TRIES; i++) {
		u64 old = *(volatile u64 *)word;
		u64 begun = old >> (2 * RL_COUNT_BITS), previous = old >> RL_COUNT_BITS & RL_COUNT_MASK, current = old & RL_COUNT_MASK;
		u64 age = (number - begun) & RL_NUMBER_MASK, left_ns = window_ns - elapsed;

		if (age == RL_NUMBER_MASK) {	/* another CPU's clock is a hair ahead, in the next window: so this is that one's first moment */
			left_ns = window_ns;
		} else {
			begun = number & RL_NUMBER_MASK;
			if (age == 1) {
				previous = current;
				current = 0;
			} else if (age) {
				previous = 0;
				current = 0;
			}
		}
		if (previous * left_ns + (current + 1) * window_ns > budget)
			return RL_OVER;
		if (__sync_val_compare_and_swap(word, old, begun << (2 * RL_COUNT_BITS) | previous << RL_COUNT_BITS | (current + 1)) == old)
			return RL_ADMITTED;
	}
	return RL_CONTENDED;
}

static __always_inline verdict ratelimit(struct xdp_md *ctx, struct packet *packet)
{
	struct tcphdr *tcp = packet->tcp;
	struct rl_window *window;
	struct rl_stats *stats;
	struct rl_rule *rule;
	u32 port, *slot, at;

	if (!tcp)
		return packet->malformed == OUT_OF_REACH ? drop(UNREADABLE) : next(NO_REASON);
	if ((tcp_flag_word(tcp) & (TCP_FLAG_SYN | TCP_FLAG_ACK)) != TCP_FLAG_SYN)
		return next(NO_REASON);
	port = bpf_ntohs(tcp->dest);
	slot = rl_ports.lookup(&port);
	if (!slot || !*slot)
		return next(NO_REASON);
	rule = rl_rules.lookup(slot);
	if (!rule || !rule->window_ns)
		return next(NO_WINDOW);
	at = rule->window;
	window = rl_windows.lookup(&at);
	stats = rl_stats.lookup(&at);
	if (!window || !stats)
		return next(NO_WINDOW);
	switch (rl_ask(&window->word, rule, bpf_ktime_get_ns())) {
	case RL_ADMITTED:
		stats->admitted++;
		return next(ADMITTED);
	case RL_OVER:
		stats->limited++;
		return drop(RATE_EXCEEDED);
	default:
		stats->limited++;
		return drop(CONTENDED);
	}
}
