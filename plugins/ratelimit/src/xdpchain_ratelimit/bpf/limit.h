/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * limit.h: the two limits. All of the state of one is a 64-bit word, changed by compare-and-swap: it is exact across CPUs, and over the limit
 * nothing is written (unless what is refused shall count, too).
 *
 * The window is made of two buckets: what was admitted in the current window and in the one before, whose number weighs as much as it still
 * overlaps the span of one window that ends now. With the rate R, the window W and the time e into the current window, one more is admitted if
 *
 *	previous * (W - e) + (current + 1) * W <= R * W
 *
 * so that any interval of length L sees at most R * (1 + L / W). The config bounds R * W to 2^62, so no product overflows.
 *
 * With a burst B it is GCRA, whose word is the theoretical arrival time: when all that was admitted would be paid off, if each unit costs C = W / R.
 * n more are admitted at t if
 *
 *	max(word, t) + n * C <= t + B * C
 *
 * so that any interval of length L sees at most B + L / C. Times are in 2^-14 ns, modulo 2^64 (13 days). A word further ahead than there can be is
 * an old one, seen from behind.
 *
 * To ask for the time costs more than all the rest for one limit. So a CPU does it once in a tick of the kernel, and for what comes later in that
 * tick it takes the time to be that or up to RL_LAG more. Within one window what is used only becomes less, so what is admitted at the first of
 * these moments, or refused at the last, would be so at the right one, too, and leave the same word. Where the answer or the window could be
 * another by then, and for GCRA, whose word holds the time itself, the time is asked for: the answers are always those of the right time.
 */
#ifndef RL_LIMIT_H
#define RL_LIMIT_H

#define RL_NUMBER_BITS 20
#define RL_COUNT_BITS 22
#define RL_NUMBER_MASK ((1ULL << RL_NUMBER_BITS) - 1)
#define RL_COUNT_MASK ((1ULL << RL_COUNT_BITS) - 1)
#define RL_FINE_BITS 14
#define RL_SKEW (1000000000ULL << RL_FINE_BITS)	/* further ahead than CPUs' clocks differ, and than a burst that was larger before reaches mostly */
#define RL_TRIES 16
#define RL_LAG 20000000ULL	/* ns: two of the longest ticks that kernels have */

enum rl_answer {
	RL_ADMITTED,
	RL_OVER,
	RL_CONTENDED,
};

/* A word before and after what was admitted. */
struct rl_change {
	u64 before;
	u64 after;
};

/* How much is asked for, and when: the time is `now` or up to `lag` ns later. */
struct rl_request {
	u64 amount;
	u64 now;
	u64 lag;
};

static __always_inline void rl_ask_time(struct rl_request *request, struct rl_stats *stats)
{
	stats->tick = bpf_jiffies64();	/* first: so the time is not of an earlier tick */
	stats->now = bpf_ktime_get_ns();
	request->now = stats->now;
	request->lag = 0;
}

/* The time of this tick's first packet is good enough for most. */
static __always_inline void rl_guess_time(struct rl_request *request, struct rl_stats *stats)
{
	request->now = stats->now;
	request->lag = RL_LAG;
	if (stats->tick != bpf_jiffies64())
		rl_ask_time(request, stats);
}

static __always_inline enum rl_answer rl_ask_window(u64 *word, const struct rl_limit *limit, bool all, struct rl_request *request,
		struct rl_stats *stats, struct rl_change *change)
{
	u64 span = limit->span, budget = limit->most * span, number = request->now / span, left_ns = span - request->now % span;

	if (left_ns < request->lag) {	/* it may be the next window by now */
		rl_ask_time(request, stats);
		number = request->now / span;
		left_ns = span - request->now % span;
	}
	for (int i = 0; i < RL_TRIES; i++) {
		u64 old = *(volatile u64 *)word, left = left_ns, used, new;
		u64 begun = old >> (2 * RL_COUNT_BITS), previous = old >> RL_COUNT_BITS & RL_COUNT_MASK, current = old & RL_COUNT_MASK;
		u64 age = (number - begun) & RL_NUMBER_MASK;
		bool over;

		if (age == RL_NUMBER_MASK) {	/* another CPU's clock is a hair ahead, in the next window: so this is that one's first moment */
			left = span;
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
		used = previous * left + (current + 1) * span;
		over = used > budget;
		if (over && used - previous * request->lag <= budget) {	/* it may be less by now */
			rl_ask_time(request, stats);
			number = request->now / span;
			left_ns = span - request->now % span;
			continue;
		}
		if (over && (!all || current >= limit->most))
			return RL_OVER;
		new = begun << (2 * RL_COUNT_BITS) | previous << RL_COUNT_BITS | (current + 1);
		if (__sync_val_compare_and_swap(word, old, new) == old) {
			change->before = old;
			change->after = new;
			return over ? RL_OVER : RL_ADMITTED;
		}
	}
	return RL_CONTENDED;
}

static __always_inline enum rl_answer rl_ask_gcra(u64 *word, const struct rl_limit *limit, bool all, u64 amount, u64 now,
		struct rl_change *change)
{
	u64 cost = limit->span * amount, room = limit->span * limit->most;
	bool too_large = amount > limit->most;	/* and its cost may not fit into 64 bits */

	now <<= RL_FINE_BITS;
	for (int i = 0; i < RL_TRIES; i++) {
		u64 old = *(volatile u64 *)word, ahead = old - now, after;
		bool over;

		if (ahead > room + RL_SKEW)
			ahead = 0;
		over = too_large || ahead + cost > room;
		if (over && (!all || ahead >= room))
			return RL_OVER;
		after = now + (over ? room : ahead + cost);
		if (__sync_val_compare_and_swap(word, old, after) == old) {
			change->before = old;
			change->after = after;
			return over ? RL_OVER : RL_ADMITTED;
		}
	}
	return RL_CONTENDED;
}

static __always_inline enum rl_answer rl_ask(u64 *word, const struct rl_limit *limit, bool gcra, bool all, struct rl_request *request,
		struct rl_stats *stats, struct rl_change *change)
{
	if (!gcra)
		return rl_ask_window(word, limit, all, request, stats, change);
	if (request->lag)
		rl_ask_time(request, stats);
	return rl_ask_gcra(word, limit, all, request->amount, request->now, change);
}

/* Takes back what was admitted, unless somebody has come meanwhile: less is admitted then than could be. */
static __always_inline void rl_give_back(u64 *word, const struct rl_change *change)
{
	__sync_val_compare_and_swap(word, change->after, change->before);
}

#endif
