/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * elb: a layer-4 load balancer on one NIC. Sends each packet for a VIP to one of its backends, encapsulated, out of the interface it came in on.
 *
 * Reads:   Ethernet to transport headers; QUIC connection ids and TCP options where a VIP asks for them; the tables of tables.h.
 * Writes:  an outer header in front of the packet, the MAC addresses; elb_flows and elb_moves for flows of moving slots; elb_stats.
 * Verdict: TX towards a backend, or with the answer to an echo request or to a packet that is too large; DROP with a reason for what is for a VIP and
 *          cannot be sent; NEXT for everything that is for no VIP.
 */
#include "xdpchain.h"
#include "tables.h"
#include "sum.h"
#include "frame.h"
#include "service.h"
#include "hash.h"
#include "ids.h"
#include "icmp.h"
#include "track.h"
#include "encap.h"
#include "ring.h"

#define ELB_FAR 512	/* bytes of headers at most */

/* The pool for a client: the VIP's own, or that of the longest source route. */
static __always_inline u32 elb_pool(const struct elb_vip *vip, const struct elb_flow *flow)
{
	struct elb_source key = { .length = 160, .pool = vip->pool };
	u32 *pool;

	if (!(vip->options & ELB_SOURCE_ROUTES))
		return vip->pool;
	__builtin_memcpy(key.address, flow->source, sizeof(key.address));
	pool = elb_sources.lookup(&key);
	return pool ? *pool : vip->pool;
}

/* The member that a server id in the packet names, or 0. */
static __always_inline u32 elb_named(struct xdp_md *ctx, const struct elb_frame *frame, const struct elb_vip *vip, u32 *reason)
{
	u32 options = vip->options, kind = STABLE_ID, at = (frame->link + frame->header) & (ELB_FAR - 1), *member;
	struct packet packet = { .end = (void *)(long)ctx->data_end };
	void *transport = (void *)(long)ctx->data + at;
	struct elb_id key = { .pool = vip->pool };

	asm volatile("" : "+r"(transport));	/* one pointer, whose bounds the verifier knows, instead of the same sum twice */
	if (transport + sizeof(struct udphdr) > packet.end)
		return 0;
	packet.tcp = transport;
	packet.udp = transport;
	if (options & ELB_SERVER_ID) {
		kind = SERVER_ID;
		key.id = elb_tcp_id(&packet);
	} else if (options & ELB_QUIC) {
		kind = QUIC_ID;
		key.id = elb_quic_id(&packet);
	} else {
		key.id = elb_stable_id(&packet);
	}
	if (!key.id)
		return 0;
	member = elb_ids.lookup(&key);
	if (!member)
		return 0;
	*reason = kind;
	return *member;
}

static __always_inline bool elb_look_up_slot(struct elb_slot *slot)
{
	u32 zero = 0, number = slot->number;
	struct elb_ring *ring;
	void *inner;

	inner = elb_rings.lookup(&slot->pool);
	if (!inner)
		return false;
	ring = bpf_map_lookup_elem(inner, &zero);
	if (!ring || number >= ELB_RING_SIZE)
		return false;
	slot->word = *(volatile u32 *)&ring->word[number];
	slot->until = ring->until;
	return true;
}

/* Whether a packet that nobody remembers may get a second chance. */
static __always_inline bool elb_may_doubt(const struct elb_frame *frame, const struct elb_vip *vip)
{
	return vip->options & ELB_SECOND_CHANCE && !(frame->event & (ELB_SYN | ELB_LOOK)) && !frame->fragment;
}

/*
 * The member for a packet, or 0. `named` is the one that a connection id has named: where it is not the slot's, as after a client's move to another
 * address, the flow is remembered there for those of its packets that have no id. They ask the flow table even in a settled slot.
 */
static __always_inline u32 elb_choose(struct elb_frame *frame, const struct elb_client *client, const struct elb_vip *vip, u32 named, u32 *reason,
				      u32 *alternate)
{
	struct elb_slot slot = { .hold = vip->hold };
	bool remembered = false;
	u32 member;

	if (named && elb_is_kept(&frame->flow, named))
		return named;
	slot.pool = elb_pool(vip, &frame->flow);
	slot.number = elb_slot(client, frame->ip6, frame->flow.destination_port, vip->options);
	if (!elb_look_up_slot(&slot))
		return named;
	if (named) {
		if (slot.word != named)
			elb_keep(&frame->flow, named);
		return named;
	}
	if (!(slot.word & ELB_MOVING) && !(vip->options & ELB_QUIC))
		return slot.word & ELB_MEMBER;
	member = elb_member_of(&frame->flow, &slot, frame->event, &remembered, elb_may_doubt(frame, vip) ? alternate : NULL);
	if (*reason == RING && (remembered || slot.word & ELB_MOVING))
		*reason = remembered ? TRACKED : MOVING;
	return member;
}

/* Sends a packet to the backend of its flow. */
static __always_inline verdict elb_balance(struct xdp_md *ctx, struct elb_frame *frame, const struct elb_vip *vip, u32 reason)
{
	u32 options = vip->options, member = 0, alternate = 0, key, mtu, overhead;
	struct elb_client client = {};
	struct elb_member *outer, *other = NULL;
	struct elb_stats *stats;
	u64 *hop;

	elb_client(&client, &frame->flow, options);
	if (options & (ELB_QUIC | ELB_SERVER_ID | ELB_STABLE_UDP) && !(frame->event & ELB_LOOK) && !frame->fragment)
		member = elb_named(ctx, frame, vip, &reason);
	if (!member || options & ELB_QUIC)
		member = elb_choose(frame, &client, vip, member, &reason, &alternate);
	key = 2 * member + vip->side;
	outer = elb_members.lookup(&key);
	stats = elb_stats.lookup(&member);
	if (!member || !outer || !stats)
		return drop(NO_BACKEND);
	hop = elb_hops.lookup(&outer->backend);
	if (!hop || !*hop)
		return drop(NO_NEXT_HOP);
	overhead = outer->overhead;
	if (alternate) {
		key = 2 * alternate + vip->side;
		other = elb_members.lookup(&key);
		if (other && other->form == outer->form)
			overhead += elb_chance_bytes(outer);
		else
			other = NULL;	/* the list has addresses of the outer family only */
	}
	mtu = *hop >> 48;
	if (frame->length + overhead > mtu)
		return elb_too_big(ctx, frame, mtu - overhead);
	if (outer->form & ELB_GUE && !frame->summed) {
		s64 sum = elb_sum_bytes(ctx, frame->link, frame->length);

		if (sum < 0)
			return drop(MALFORMED);
		frame->sum = sum;
	}
	stats->packets++;
	stats->bytes += frame->link + frame->length;
	stats->flows += frame->event & ELB_SYN;
	if (other)
		return elb_send_with_chance(ctx, frame, outer, other, *hop, &client, overhead);
	return elb_send(ctx, frame, outer, *hop, &client, reason);
}

static __always_inline bool elb_balanced(u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

static __always_inline verdict elb(struct xdp_md *ctx, struct packet *packet)
{
	u32 zero = 0, reason = RING, number;
	struct elb_frame *frame;
	struct elb_vip *vip;
	verdict v;

	frame = elb_frames.lookup(&zero);
	if (!frame || !elb_read_flow(packet, frame))
		return next(NO_REASON);
	if (!frame->transport) {
		if (!elb_has(frame->flow.destination))
			return next(NO_REASON);
		if (frame->malformed)
			return drop(MALFORMED);
		if (frame->icmp) {
			reason = ICMP_ERROR;
			if (!elb_read_frame(ctx, frame))
				return drop(MALFORMED);
			v = elb_icmp(ctx, frame);
			if (v != ELB_QUOTES)
				return v;
		}
	}
	number = elb_find(&frame->flow);
	vip = elb_vips.lookup(&number);
	if (!number || !vip)
		return frame->fragment == FRAGMENT_LATER && elb_balanced(frame->flow.proto) ? drop(FRAGMENT) : next(NO_REASON);
	if (frame->fragment) {
		if (!(vip->options & ELB_PORTLESS))
			return drop(FRAGMENT);
		frame->flow.source_port = 0;
		frame->flow.destination_port = 0;
	}
	if (!elb_read_frame(ctx, frame))
		return drop(MALFORMED);
	return elb_balance(ctx, frame, vip, reason);
}
