/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * leave.h: what a workload sends.
 *
 * A packet of a flow that came through a VIP gets the VIP as its source. One of no known flow is the service's to decide; all else leaves as it is.
 */
#ifndef DSR_LEAVE_H
#define DSR_LEAVE_H

#define DSR_LEARN_TICKS 3	/* how long a flow is held back in which the client was not heard */

/* Whether a packet looks as if a load balancer had sent it. */
static __always_inline bool dsr_is_spoofed(const struct packet *packet, const struct dsr_settings *settings)
{
	struct dsr_prefix source = { .bits = 128 };

	if (!dsr_wraps(packet->l4_proto, packet->udp ? packet->udp->dest : 0, settings))
		return false;
	if (packet->ip4)
		dsr_map4(source.address, packet->ip4->saddr);
	else if (packet->ip6)
		__builtin_memcpy(source.address, &packet->ip6->saddr, sizeof(source.address));
	return dsr_accept.lookup(&source);
}

/* Whether a packet belongs to another one: to the first fragment of its datagram, or to what it quotes. */
static __always_inline bool dsr_may_belong(const struct packet *packet)
{
	return packet->fragment || packet->icmp || packet->icmp6;
}

/* Whether a packet comes from a port that a service may have: most packets on a busy network do not, and are asked no more. */
static __always_inline bool dsr_may_answer(const struct packet *packet, const struct dsr_settings *settings)
{
	if (packet->tcp)
		return dsr_is_listed(IPPROTO_TCP, packet->tcp->source, settings);
	return packet->udp && dsr_is_listed(IPPROTO_UDP, packet->udp->source, settings);
}

static __always_inline void dsr_key_of_leaving(struct dsr_key *key, const struct dsr_frame *frame)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->workload, frame->source, sizeof(key->workload));
	__builtin_memcpy(key->client, frame->destination, sizeof(key->client));
	key->port = frame->source_port;
	key->client_port = frame->destination_port;
	key->proto = frame->proto;
}

/* A flow in which the workload has spoken first, or that is met in the middle. */
static __always_inline void dsr_begin_leaving(struct dsr_key *key, const struct dsr_service *service, u32 place, u32 state, u32 marks, u32 now)
{
	struct dsr_flow flow = { .state = state, .marks = marks, .seen = now, .place = place, .id = service->id };

	if (!(marks & DSR_IS_DIRECT)) {
		flow.vip_port = service->port ? service->port : key->port;
		__builtin_memcpy(flow.vip, service->vip, sizeof(flow.vip));
	}
	dsr_begin(key, &flow);
}

enum dsr_guess {
	DSR_LEAVES,	/* as it is */
	DSR_WAITS,	/* until the client is heard */
	DSR_GUESSED,	/* as the service's rule says */
};

/* A packet of no known flow. `held` is what is remembered of it since the workload spoke first, or NULL. */
static __always_inline u32 dsr_guess(struct dsr_key *key, const struct dsr_service *service, u32 place, const struct dsr_flow *held, u32 flags, u32 now)
{
	u32 state = key->proto == IPPROTO_TCP ? DSR_ESTABLISHED : DSR_UDP;

	/* a connection that the workload opens: what belongs to it must be known from what belongs to the service */
	if (key->proto == IPPROTO_TCP && (flags & (DSR_F_SYN | DSR_F_ACK)) == DSR_F_SYN) {
		dsr_begin_leaving(key, service, place, DSR_SYN, DSR_IS_DIRECT | DSR_ANSWERED, now);
		return DSR_LEAVES;
	}
	if (service->unknown == DSR_DIRECT)
		return DSR_LEAVES;
	if (service->unknown == DSR_LEARN) {
		if (!held)
			dsr_begin_leaving(key, service, place, state, DSR_HELD, now);
		if (!held || (s32)(now - held->seen) < DSR_LEARN_TICKS)
			return DSR_WAITS;
	}
	dsr_begin_leaving(key, service, place, state, DSR_ANSWERED, now);
	return DSR_GUESSED;
}

static __always_inline void dsr_count_leaving(struct __sk_buff *ctx, const struct dsr_frame *frame, u32 place, bool guessed)
{
	struct dsr_stats *stats = dsr_stats_of(place);

	if (!stats)
		return;
	stats->out_packets += dsr_segments(ctx, frame);
	stats->out_bytes += ctx->len - frame->link;
	stats->guessed += guessed;
}

/* A packet of a flow that came through a VIP. */
static __always_inline verdict dsr_answer(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_flow *flow,
					  const struct dsr_settings *settings, bool guessed, bool port)
{
	u32 hairpin = flow->marks & DSR_HAIRPIN, reason = guessed ? GUESSED : ANSWERED, way = DSR_BY_STACK;
	struct dsr_become become = { .source_port = flow->vip_port };
	struct bpf_fib_lookup fib;

	__builtin_memcpy(become.source, flow->vip, sizeof(become.source));
	if (hairpin)
		__builtin_memcpy(become.destination, frame->source, sizeof(become.destination));
	else
		__builtin_memcpy(become.destination, frame->destination, sizeof(become.destination));
	if (port && !hairpin && !settings->to_stack) {
		way = dsr_way_of(ctx, frame, &become, &fib);
		if (way == DSR_REFUSED)
			return next(NO_REASON);
		become.hops = way == DSR_ONWARD;
	}
	if (frame->flags & DSR_F_SYN)
		dsr_clamp(ctx, frame, dsr_overhead(flow->around, settings->forms));
	dsr_count_leaving(ctx, frame, flow->place, guessed);
	if (frame->fragment)
		dsr_remember_rest(frame, become.source, become.destination, flow->place, flow->seen);
	if (!dsr_translate(ctx, frame, &become))
		return drop(NO_ROOM);
	if (hairpin)
		return dsr_turn_round(ctx, port);
	return port && way == DSR_ONWARD ? dsr_go_onward(&fib, reason) : next(reason);
}

/* A packet without ports of its own: a later fragment, or an ICMP error about what a client has sent. */
static __always_inline verdict dsr_leave_portless(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_settings *settings, bool port)
{
	u32 way = DSR_BY_STACK, place = 0, reason;
	struct dsr_become become = {};
	struct bpf_fib_lookup fib;
	struct dsr_rest *rest;
	u64 difference;

	__builtin_memcpy(become.source, frame->source, sizeof(become.source));
	__builtin_memcpy(become.destination, frame->destination, sizeof(become.destination));
	if (frame->fragment == FRAGMENT_LATER) {
		rest = dsr_rest_of(frame, dsr_now());
		if (!rest)
			return next(NO_REASON);
		place = rest->place;
		if (!place)
			return drop(HELD);
		__builtin_memcpy(become.source, rest->source, sizeof(become.source));
		__builtin_memcpy(become.destination, rest->destination, sizeof(become.destination));
	} else {
		reason = dsr_leave_icmp(ctx, frame, become.source, become.destination, &place);
		if (reason != ANSWERED)
			return reason == NO_REASON ? next(NO_REASON) : drop(reason);
	}
	difference = dsr_difference(frame->source, become.source) + dsr_difference(frame->destination, become.destination);
	dsr_count_leaving(ctx, frame, place, false);
	if (!dsr_same(become.destination, frame->destination))
		return dsr_write_header(ctx, frame, &become, difference) ? dsr_turn_round(ctx, port) : drop(NO_ROOM);
	/* where the stack refuses it, it tells nobody: there is no error about an error, or about a later fragment */
	if (port && !settings->to_stack)
		way = dsr_way_of(ctx, frame, &become, &fib);
	become.hops = way == DSR_ONWARD;
	if (!dsr_write_header(ctx, frame, &become, difference))
		return drop(NO_ROOM);
	return way == DSR_ONWARD ? dsr_go_onward(&fib, ANSWERED) : next(ANSWERED);
}

/* A packet that comes from a port that some workload's service has. */
static __always_inline verdict dsr_leave_service(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_settings *settings, bool port)
{
	struct dsr_service *service;
	bool opening, guessed = false;
	u32 now = dsr_now(), place;
	struct dsr_flow *flow;
	struct dsr_key key;

	dsr_key_of_leaving(&key, frame);
	flow = dsr_find(&key, now, &opening);
	if (flow && !(flow->marks & (DSR_IS_DIRECT | DSR_HELD))) {
		service = dsr_service_of(flow->place);
		if (!service || service->id != flow->id)
			flow = NULL;	/* of a service that is gone */
	}
	if (!flow || flow->marks & DSR_HELD) {
		place = dsr_port_of(key.workload, key.port, key.proto, settings);
		service = dsr_service_of(place);
		if (!place || !service)
			return next(NO_REASON);
		switch (dsr_guess(&key, service, place, flow, frame->flags, now)) {
		case DSR_LEAVES:
			return next(NO_REASON);
		case DSR_WAITS:
			if (frame->fragment)
				dsr_remember_rest(frame, frame->source, frame->destination, 0, now);
			return drop(HELD);
		}
		guessed = true;
		flow = dsr_opening.lookup(&key);
		if (!flow)
			return drop(NO_ROOM);
	}
	dsr_note(flow, key.proto, frame->flags, false, now);
	if (flow->marks & DSR_IS_DIRECT)
		return next(NO_REASON);
	return dsr_answer(ctx, frame, flow, settings, guessed, port);
}

/* `port`: whether the workload is behind this interface. */
static __always_inline verdict dsr_leave(struct __sk_buff *ctx, const struct packet *packet, bool port)
{
	struct dsr_frame *frame = dsr_frame_at_hand();
	struct dsr_settings *settings;
	u32 zero = 0;

	settings = dsr_settings.lookup(&zero);
	if (!settings || !frame)
		return next(NO_REASON);
	if (port && dsr_is_spoofed(packet, settings))
		return drop(SPOOFED);
	if ((!dsr_may_answer(packet, settings) && !dsr_may_belong(packet)) || !dsr_read(packet, frame))
		return next(NO_REASON);
	/* the kernel's own segments may be too long for the header to say */
	if (!ctx->gso_size && !dsr_is_whole(frame))
		return next(NO_REASON);
	if (!dsr_has_ports(frame))
		return dsr_leave_portless(ctx, frame, settings, port);
	if (frame->fragment)
		dsr_forget_rest(frame);
	return dsr_leave_service(ctx, frame, settings, port);
}

#endif
