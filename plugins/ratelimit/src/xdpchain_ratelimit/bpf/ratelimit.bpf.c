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
	if (action == RL_RESET && frame && frame->flags & RL_SYN) {
		if (rl_reset(ctx, frame)) {
			stats->answered++;
			return tx(reason);
		}
		stats->no_answer++;
	}
	/* who may not come in at all, or is too much by himself, gets no cookie */
	if (action == RL_COOKIE && frame && frame->flags & RL_SYN && (reason == RATE_EXCEEDED || reason == CONTENDED)) {
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

	if (rl_is_banned(seat, request, stats)) {
		stats->banned++;
		return BANNED;
	}
	answer = rl_ask(seat->word, &rule->source, flags & RL_SOURCE_GCRA, flags & RL_COUNT_ALL, request, stats, change);
	if (answer == RL_ADMITTED)
		return 0;
	if (answer == RL_CONTENDED) {
		stats->contended++;
		return CONTENDED;
	}
	rl_blame(rule, seat, request, stats);
	stats->source_exceeded++;
	return SOURCE_EXCEEDED;
}

/* Why the limits refuse a packet, 0 if they do not. The source is asked first: who is over his own limit takes nothing of what all share. */
static __always_inline u32 rl_judge(struct xdp_md *ctx, const struct rl_frame *frame, const struct rl_rule *rule, u64 *word,
		struct rl_stats *stats)
{
	struct rl_request request = { .amount = rule->flags & RL_BYTES ? bpf_xdp_get_buff_len(ctx) : 1 };
	struct rl_change of_source = {}, of_all = {};
	u32 flags = rule->flags, reason;
	struct rl_seat seat = {};
	enum rl_answer answer;

	rl_guess_time(&request, stats);
	if (flags & RL_PER_SOURCE && frame) {
		if (!rl_find_source(rule, frame, request.now, &seat, stats)) {
			stats->contended++;
			return CONTENDED;
		}
		reason = rl_judge_source(rule, &seat, stats, &request, &of_source);
		if (reason)
			return reason;
	}
	answer = rl_ask(word, &rule->shared, flags & RL_GCRA, flags & RL_COUNT_ALL, &request, stats, &of_all);
	if (answer == RL_ADMITTED) {
		stats->admitted++;
		return 0;
	}
	if (seat.word && !(flags & RL_COUNT_ALL))
		rl_give_back(seat.word, &of_source);
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
	if (rule->flags & RL_LISTED && frame) {
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

/* What a packet is limited by, if ports alone say it: its rule's place, RL_FREE, or that it is to be looked for. */
static __always_inline u32 rl_concern(const struct packet *packet)
{
	struct tcphdr *tcp = packet->tcp;
	u32 port, *place;

	if (!tcp) {
		/* what has no TCP header although it should, or goes on behind the last header that is read, may hide a SYN */
		if (packet->l4_proto == IPPROTO_TCP || packet_is_extension(packet->l4_proto))
			return RL_LOOK_CLOSER;
		return rl_open_gates() & RL_OTHER_PACKETS ? RL_LOOK_CLOSER : RL_FREE;
	}
	if ((tcp_flag_word(tcp) & (TCP_FLAG_SYN | TCP_FLAG_ACK)) != TCP_FLAG_SYN)
		return rl_open_gates() & RL_TCP_PACKETS ? RL_LOOK_CLOSER : RL_FREE;
	if (rl_open_gates() & RL_NOT_BY_PORT)
		return RL_LOOK;
	port = bpf_ntohs(tcp->dest);
	place = rl_ports.lookup(&port);
	return place ? *place : RL_FREE;
}

/*
 * Reads what is needed of a packet; returns its verdict if it has one already, else 0. Of a SYN without VLAN tags that gets no answer, that is always
 * in the same place. Else the packet is parsed once more: were all of it kept from the first time, the packets that are of no concern would pay
 * for it.
 */
static __always_inline verdict rl_fetch(struct xdp_md *ctx, u32 place, __be16 port, struct rl_frame *frame)
{
	u32 gates = rl_open_gates();
	struct packet packet;

	asm volatile("" : "+r"(ctx) : : "memory");
	if (place != RL_LOOK_CLOSER && !(gates & RL_ANSWERING) && rl_read_plain(ctx, port, frame))
		return 0;
	packet_parse(&packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (packet.malformed == OUT_OF_REACH)
		return drop(UNREADABLE);
	return rl_read(&packet, gates, frame) ? 0 : next(NO_REASON);
}

/* The verdict about a packet that may have a rule: `place` is that of the rule, or says that it is to be looked for. */
static __always_inline verdict rl_look(struct xdp_md *ctx, u32 place, __be16 port)
{
	struct rl_frame *frame = NULL;
	struct rl_rule *rule;
	u32 zero = 0;
	verdict verdict;

	rule = rl_rules.lookup(&place);
	if (!rule || rule->flags & RL_READS) {
		frame = rl_frames.lookup(&zero);
		if (!frame)
			return next(NO_REASON);
		verdict = rl_fetch(ctx, place, port, frame);
		if (verdict)
			return verdict;
	}
	if (!rule) {
		place = rl_find(frame, rl_open_gates());
		if (!place)
			return next(NO_REASON);
		rule = rl_rules.lookup(&place);
		if (!rule)
			return next(NO_WINDOW);
		if (!(frame->flags & RL_SYN) && (frame->proto & RL_PROTO) == RL_TCP && !(rule->flags & RL_BYTES))
			return next(NO_REASON);
	}
	if (!rule->shared.span)
		return next(NO_WINDOW);
	return rl_apply(ctx, frame, rule);
}

static __always_inline verdict ratelimit(struct xdp_md *ctx, struct packet *packet)
{
	u32 place;

	place = rl_concern(packet);
	if (place == RL_FREE)
		return next(NO_REASON);
	return rl_look(ctx, place, packet->tcp ? packet->tcp->dest : 0);
}
