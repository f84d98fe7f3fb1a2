/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * ratelimit: lets in at most `rate` new TCP connections, packets or bytes per window, by destination, and by source.
 *
 * Reads:   Ethernet to transport headers; what the config handler has written to the tables of tables.h.
 * Writes:  rl_windows, rl_sources, rl_senders, rl_stats; the packet only where it becomes an answer.
 * Verdict: DROP or TX (an answer) for what is over a limit, DROP for what could hide a SYN; NEXT for everything else.
 */
#include "xdpchain.h"
#include "tables.h"
#include "limit.h"
#include "find.h"
#include "source.h"
#include "answer.h"

/* What becomes of a packet that is refused. */
static __always_inline verdict rl_refuse(struct xdp_md *ctx, const struct rl_frame *frame, const struct rl_rule *rule,
		struct rl_stats *stats, u32 reason)
{
	u32 action = rule->action;

	if (action == RL_COUNT || (rule->flags & RL_IN_PART && bpf_get_prandom_u32() >= rule->enforce)) {
		stats->spared++;
		return next(reason);
	}
	if (action == RL_RESET && frame->flags & RL_SYN) {
		if (rl_reset(ctx, frame)) {
			stats->answered++;
			return tx(reason);
		}
		stats->no_answer++;
	}
	/* who may not come in at all, or is too much by himself, gets no cookie */
	if (action == RL_COOKIE && frame->flags & RL_SYN && (reason == RATE_EXCEEDED || reason == CONTENDED)) {
		if (rl_cookie(ctx, frame)) {
			stats->answered++;
			return tx(SYN_COOKIE);
		}
		stats->no_answer++;
		return drop(NO_COOKIE);
	}
	return drop(reason);
}

/* Why a source may not send this packet, 0 if it may. */
static __always_inline u32 rl_judge_source(const struct rl_rule *rule, const struct rl_seat *seat, struct rl_stats *stats,
		struct rl_request *request, struct rl_change *change)
{
	u32 flags = rule->flags;
	enum rl_answer answer;
	u64 *word = &seat->set->word[(seat->way - 1) & 7];

	if (rl_is_banned(seat, request->now)) {
		stats->banned++;
		return BANNED;
	}
	answer = rl_ask(word, &rule->source, flags & RL_SOURCE_GCRA, flags & RL_COUNT_ALL, request, change);
	if (answer == RL_ADMITTED)
		return 0;
	if (answer == RL_CONTENDED) {
		stats->contended++;
		return CONTENDED;
	}
	rl_blame(rule, seat, request->now);
	stats->source_exceeded++;
	return SOURCE_EXCEEDED;
}

/* Why the limits refuse a packet, 0 if they do not. The source is asked first: who is over his own limit takes nothing of what all share. */
static __always_inline u32 rl_judge(struct xdp_md *ctx, const struct rl_frame *frame, const struct rl_rule *rule, u64 *word,
		struct rl_stats *stats)
{
	struct rl_request request = { .amount = rule->flags & RL_BYTES ? bpf_xdp_get_buff_len(ctx) : 1, .now = bpf_ktime_get_ns() };
	struct rl_change of_source = {}, of_all = {};
	u32 flags = rule->flags, reason;
	struct rl_seat seat = {};
	enum rl_answer answer;

	if (flags & RL_PER_SOURCE) {
		if (!rl_find_source(rule, frame, request.now, &seat, stats)) {
			stats->contended++;
			return CONTENDED;
		}
		reason = rl_judge_source(rule, &seat, stats, &request, &of_source);
		if (reason)
			return reason;
	}
	answer = rl_ask(word, &rule->shared, flags & RL_GCRA, flags & RL_COUNT_ALL, &request, &of_all);
	if (answer == RL_ADMITTED) {
		stats->admitted++;
		return 0;
	}
	if (seat.set && !(flags & RL_COUNT_ALL))
		rl_give_back(&seat.set->word[(seat.way - 1) & 7], &of_source);
	if (answer == RL_CONTENDED) {
		stats->contended++;
		return CONTENDED;
	}
	stats->rate_exceeded++;
	return RATE_EXCEEDED;
}

static __always_inline verdict rl_apply(struct xdp_md *ctx, const struct rl_frame *frame, const struct rl_rule *rule)
{
	struct rl_window *window;
	struct rl_stats *stats;
	u32 at = rule->window, reason;

	window = rl_windows.lookup(&at);
	stats = rl_stats.lookup(&at);
	if (!window || !stats)
		return next(NO_WINDOW);
	if (rule->flags & RL_LISTED) {
		u32 listed = rl_listed(rule, frame);

		if (listed == RL_ALLOW) {
			stats->allowed++;
			return next(ALLOWED);
		}
		if (listed == RL_DENY) {
			stats->denied++;
			return rl_refuse(ctx, frame, rule, stats, DENIED);
		}
	}
	reason = rl_judge(ctx, frame, rule, &window->word, stats);
	return reason ? rl_refuse(ctx, frame, rule, stats, reason) : next(ADMITTED);
}

/*
 * A packet that may have a rule. It is parsed once more: were all of what is needed here kept from the first time, the packets that are of no
 * concern would pay for it.
 */
static __always_inline verdict rl_look(struct xdp_md *ctx, u32 gates)
{
	u32 zero = 0, place;
	struct rl_frame *frame;
	struct packet packet;
	struct rl_rule *rule;

	asm volatile("" : "+r"(ctx) : : "memory");
	frame = rl_frames.lookup(&zero);
	packet_parse(&packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (!frame || !rl_read(&packet, gates, frame))
		return next(NO_REASON);
	place = rl_find(frame, gates);
	if (!place)
		return next(NO_REASON);
	rule = rl_rules.lookup(&place);
	if (!rule || !rule->shared.span)
		return next(NO_WINDOW);
	if (!(frame->flags & RL_SYN) && (frame->proto & RL_PROTO) == RL_TCP && !(rule->flags & RL_BYTES))
		return next(NO_REASON);
	return rl_apply(ctx, frame, rule);
}

/* Whether a packet may have a rule. */
static __always_inline bool rl_concerns(const struct packet *packet)
{
	u32 gates = rl_open_gates(), port, *place;
	struct tcphdr *tcp = packet->tcp;

	if (!tcp)
		return gates & RL_OTHER_PACKETS;
	if ((tcp_flag_word(tcp) & (TCP_FLAG_SYN | TCP_FLAG_ACK)) != TCP_FLAG_SYN)
		return gates & RL_TCP_PACKETS;
	if (gates & RL_NOT_BY_PORT)
		return true;
	port = bpf_ntohs(tcp->dest);
	place = rl_ports.lookup(&port);
	return place && *place;
}

static __always_inline verdict ratelimit(struct xdp_md *ctx, struct packet *packet)
{
	if (!packet->tcp && packet->malformed == OUT_OF_REACH)
		return drop(UNREADABLE);
	if (!rl_concerns(packet))
		return next(NO_REASON);
	return rl_look(ctx, rl_open_gates());
}
