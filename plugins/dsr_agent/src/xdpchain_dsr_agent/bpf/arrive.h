/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * arrive.h: what comes towards workloads. Packets that a load balancer has encapsulated are taken out and addressed to the workload of their
 * service; of packets that come to a workload's own address it is noted that their flows are not to be translated.
 *
 * The same code runs at XDP of a NIC (`nic`) and at TC egress of a workload's port; what differs is how the packet is reached and written.
 */
#ifndef DSR_ARRIVE_H
#define DSR_ARRIVE_H

/* The client's first packet, or one that may be. */
static __always_inline bool dsr_may_begin(const struct dsr_frame *frame)
{
	return frame->proto == IPPROTO_UDP || (frame->flags & (DSR_F_SYN | DSR_F_ACK)) == DSR_F_SYN;
}

enum dsr_heard {
	DSR_KNOWN,	/* or known from now on */
	DSR_STRANGE,	/* in the midst of a connection that is not known, and somebody else may know it */
};

/* Who a client calls. */
struct dsr_call {
	const __be32 *vip;	/* NULL: the workload itself */
	__be16 port;		/* of the VIP */
	u32 marks;		/* enum dsr_mark, for a flow that begins */
	u32 place;
	const struct dsr_service *service;
	u32 now;
};

static __always_inline bool dsr_is_same(const struct dsr_flow *flow, const struct dsr_call *call)
{
	if (!call->vip)
		return flow->marks & DSR_IS_DIRECT;
	return !(flow->marks & DSR_IS_DIRECT) && flow->vip_port == call->port && dsr_same(flow->vip, call->vip);
}

static __always_inline void dsr_begin_arriving(struct dsr_key *key, const struct dsr_frame *frame, const struct dsr_call *call, u32 state)
{
	struct dsr_flow flow = {
		.vip_port = call->port,
		.state = state,
		.marks = call->marks,
		.seen = call->now,
		.place = call->place,
		.around = frame->around,
		.id = call->service->id,
	};

	if (call->vip)
		__builtin_memcpy(flow.vip, call->vip, sizeof(flow.vip));
	dsr_begin(key, &flow);
}

/* A packet of a client: what its flow becomes. */
static __always_inline enum dsr_heard dsr_hear(struct dsr_key *key, const struct dsr_frame *frame, const struct dsr_call *call)
{
	bool begins = dsr_may_begin(frame), opening;
	struct dsr_stats *stats;
	struct dsr_flow *flow;

	flow = dsr_find(key, call->now, &opening);
	if (flow && !(flow->marks & DSR_HELD)) {
		if (dsr_is_same(flow, call) && !(begins && (flow->state == DSR_FIN || flow->state == DSR_CLOSED))) {
			dsr_note(flow, frame->proto, frame->flags, true, call->now);
			if (flow->place != call->place) {
				flow->place = call->place;
				flow->id = call->service->id;
			}
			if (flow->state == DSR_CLOSED && !opening)
				dsr_retire(key, flow);
			else if (flow->state != DSR_CLOSED && opening && flow->marks & DSR_ANSWERED && !(begins && frame->proto == IPPROTO_TCP))
				dsr_promote(key, flow);
			return DSR_KNOWN;
		}
		if (!begins) {
			stats = dsr_stats_of(call->place);
			if (stats)
				stats->conflicts++;
			if (!call->vip || flow->marks & DSR_IS_DIRECT)
				return DSR_KNOWN;
		}
	} else if (!flow && !begins && frame->hops) {
		return DSR_STRANGE;
	}
	dsr_begin_arriving(key, frame, call, frame->proto == IPPROTO_UDP ? DSR_UDP : begins ? DSR_SYN : DSR_ESTABLISHED);
	return DSR_KNOWN;
}

/* A packet that was addressed to a workload itself. */
static __always_inline void dsr_arrive_direct(const struct dsr_frame *frame, const struct dsr_settings *settings)
{
	struct dsr_call call = { .marks = DSR_IS_DIRECT };
	struct dsr_key key = {};

	if (frame->malformed || !dsr_has_ports(frame))
		return;
	call.place = dsr_port_of(frame->destination, frame->destination_port, frame->proto, settings);
	call.service = dsr_service_of(call.place);
	if (!call.place || !call.service)
		return;
	call.now = dsr_now();
	__builtin_memcpy(key.workload, frame->destination, sizeof(key.workload));
	__builtin_memcpy(key.client, frame->source, sizeof(key.client));
	key.port = frame->destination_port;
	key.client_port = frame->source_port;
	key.proto = frame->proto;
	dsr_hear(&key, frame, &call);
}

static __always_inline void dsr_count_arriving(const struct dsr_frame *frame, u32 place)
{
	struct dsr_stats *stats = dsr_stats_of(place);

	if (!stats)
		return;
	stats->in_packets++;
	stats->in_bytes += frame->length;
}

/* A packet for a service: to the workload with it. */
static __always_inline verdict dsr_deliver(void *ctx, bool nic, const struct dsr_frame *frame, const struct dsr_settings *settings, u32 place,
					   struct dsr_service *service)
{
	struct dsr_change change = { .source = frame->source, .destination = service->workload };
	struct dsr_call call = { .vip = frame->destination, .port = frame->destination_port, .place = place, .service = service };
	const __be32 *hairpin = frame->ip6 ? settings->hairpin6 : settings->hairpin4;
	struct dsr_key key = {};

	if (!dsr_ecn(frame, &change.tos))
		return drop(CONGESTED);
	if (dsr_same(frame->source, service->workload) && hairpin[3]) {
		change.source = hairpin;
		call.marks = DSR_HAIRPIN;
	}
	change.port = service->backend_port ? service->backend_port : frame->destination_port;
	call.now = dsr_now();
	__builtin_memcpy(key.workload, service->workload, sizeof(key.workload));
	__builtin_memcpy(key.client, change.source, sizeof(key.client));
	key.port = change.port;
	key.client_port = frame->source_port;
	key.proto = frame->proto;
	if (dsr_hear(&key, frame, &call) == DSR_STRANGE)
		return dsr_forward(ctx, nic, frame);
	dsr_count_arriving(frame, place);
	if (frame->fragment)
		dsr_remember_rest(frame, change.source, change.destination, place, call.now);
	return dsr_undress(ctx, nic, frame, &change) ? next(DELIVERED) : drop(NO_ROOM);
}

/* A packet without ports of its own: a later fragment, or an ICMP error about what the workload has sent. */
static __always_inline verdict dsr_deliver_portless(void *ctx, bool nic, const struct dsr_frame *frame, const struct dsr_settings *settings)
{
	struct dsr_change change = { .source = frame->source };
	struct dsr_service *service;
	struct dsr_rest *rest;
	u32 place, reason;

	if (!dsr_ecn(frame, &change.tos))
		return drop(CONGESTED);
	if (frame->fragment == FRAGMENT_LATER) {
		rest = dsr_rest_of(frame, dsr_now());
		if (!rest)
			return drop(EARLY_FRAGMENT);
		change.source = rest->source;
		change.destination = rest->destination;
		place = rest->place;
	} else if (frame->icmp) {
		reason = dsr_arrive_icmp(ctx, nic, frame, settings, &place);
		if (reason != DELIVERED)
			return drop(reason);
		service = dsr_service_of(place);
		if (!service)
			return drop(NO_SERVICE);
		change.destination = service->workload;
	} else {
		return drop(frame->proto == IPPROTO_IPIP || frame->proto == IPPROTO_IPV6 ? BAD_INNER : NO_SERVICE);
	}
	dsr_count_arriving(frame, place);
	return dsr_undress(ctx, nic, frame, &change) ? next(DELIVERED) : drop(NO_ROOM);
}

/* A packet for one of our endpoints that another one is in. */
static __always_inline verdict dsr_arrive_wrapped(void *ctx, bool nic, struct packet *packet, struct dsr_frame *frame,
						  const struct dsr_settings *settings)
{
	struct dsr_service *service;
	u32 place;

	__builtin_memcpy(frame->endpoint, frame->destination, sizeof(frame->endpoint));
	if (!dsr_read_outer(ctx, nic, frame))
		return drop(BAD_OUTER);
	if (!dsr_read_inner(ctx, nic, packet, frame) || !dsr_is_whole(frame))
		return drop(BAD_INNER);
	if (!dsr_has_ports(frame))
		return dsr_deliver_portless(ctx, nic, frame, settings);
	place = dsr_target_of(frame, frame->destination, frame->destination_port, frame->proto, settings);
	service = dsr_service_of(place);
	if (!place || !service)
		return drop(dsr_wraps(frame->proto, frame->destination_port, settings) ? BAD_INNER : NO_SERVICE);
	return dsr_deliver(ctx, nic, frame, settings, place, service);
}

/* Whether there is more to find out about a packet. */
static __always_inline bool dsr_may_concern(const struct packet *packet, const struct dsr_settings *settings)
{
	if (packet->tcp)
		return dsr_is_listed(IPPROTO_TCP, packet->tcp->dest, settings);
	if (packet->udp)
		return dsr_wraps(IPPROTO_UDP, packet->udp->dest, settings) || dsr_is_listed(IPPROTO_UDP, packet->udp->dest, settings);
	return dsr_wraps(packet->l4_proto, 0, settings);
}

static __always_inline verdict dsr_arrive(void *ctx, bool nic, struct packet *packet)
{
	struct dsr_frame *frame = dsr_frame_at_hand();
	enum dsr_outer outer = DSR_ELSEWHERE;
	struct dsr_settings *settings;
	u32 zero = 0;

	settings = dsr_settings.lookup(&zero);
	if (!frame || !settings || !dsr_may_concern(packet, settings) || !dsr_read(packet, frame))
		return next(NO_REASON);
	if (dsr_wraps(frame->proto, frame->destination_port, settings))
		outer = dsr_outer_of(frame, settings);
	if (outer == DSR_ELSEWHERE) {
		dsr_arrive_direct(frame, settings);
		return next(NO_REASON);
	}
	if (frame->fragment)
		return drop(OUTER_FRAGMENT);
	if (outer == DSR_STRANGER)
		return drop(STRANGE_SOURCE);
	return dsr_arrive_wrapped(ctx, nic, packet, frame, settings);
}

#endif
