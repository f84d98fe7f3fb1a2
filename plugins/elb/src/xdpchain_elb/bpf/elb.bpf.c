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
#include "hash.h"
#include "ids.h"
#include "icmp.h"
#include "track.h"
#include "encap.h"
#include "ring.h"

#define ELB_MAPPED bpf_htonl(0xffff)

static __always_inline void elb_map4(__be32 *address, __be32 ip4)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = ELB_MAPPED;
	address[3] = ip4;
}

/* The number of the VIP with an address and port, or NULL. Port 0 asks for any port, port 0 and proto 0 for the address alone. */
static __always_inline u32 *elb_service(const __be32 *address, __be16 port, u8 proto)
{
	struct elb_service key = { .port = port, .proto = proto };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return elb_services.lookup(&key);
}

static __always_inline u32 *elb_prefix(const __be32 *address, __be16 port, u8 proto)
{
	struct elb_prefix key = { .length = 160, .port = port, .proto = proto };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return elb_prefixes.lookup(&key);
}

static __always_inline u32 elb_open_gates(void)
{
	u32 zero = 0, *gates;

	gates = elb_gates.lookup(&zero);
	return gates ? *gates : 0;
}

static __always_inline struct elb_vip *elb_find(const struct elb_flow *flow)
{
	u32 *number, gates;

	number = elb_service(flow->destination, flow->destination_port, flow->proto);
	if (!number) {
		gates = elb_open_gates();
		if (gates & ELB_PREFIXES)
			number = elb_prefix(flow->destination, flow->destination_port, flow->proto);
		if (!number && gates & ELB_ANY_PORTS) {
			number = elb_service(flow->destination, 0, flow->proto);
			if (!number && gates & ELB_PREFIXES)
				number = elb_prefix(flow->destination, 0, flow->proto);
		}
	}
	return number ? elb_vips.lookup(number) : NULL;
}

/* Whether some VIP has this address. */
static __always_inline bool elb_has(const __be32 *address)
{
	return elb_service(address, 0, 0) || (elb_open_gates() & ELB_PREFIXES && elb_prefix(address, 0, 0));
}

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
static __always_inline u32 elb_named(struct packet *packet, const struct elb_vip *vip, u32 *reason)
{
	u32 options = vip->options, kind = STABLE_ID, *member;
	struct elb_id key = { .pool = vip->pool };

	if (options & ELB_SERVER_ID) {
		kind = SERVER_ID;
		key.id = elb_tcp_id(packet);
	} else if (options & ELB_QUIC) {
		kind = QUIC_ID;
		key.id = elb_quic_id(packet);
	} else {
		key.id = elb_stable_id(packet);
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

/* Sends a packet to the backend of its flow. `event` is what the packet means for the flow. */
static __always_inline verdict elb_balance(struct xdp_md *ctx, struct packet *packet, struct elb_flow *flow, const struct elb_vip *vip, u32 event,
					   u32 reason)
{
	struct elb_slot slot = { .hold = vip->hold };
	struct elb_inner inner = {};
	struct elb_member *outer;
	struct elb_client client;
	bool remembered = false;
	struct elb_stats *stats;
	u32 member = 0, key;
	u64 *hop;

	elb_client(&client, flow, vip->options);
	if (vip->options & (ELB_QUIC | ELB_SERVER_ID | ELB_STABLE_UDP) && !(event & ELB_LOOK))
		member = elb_named(packet, vip, &reason);
	if (!member) {
		slot.pool = elb_pool(vip, flow);
		slot.number = elb_slot(&client, packet->ip6, flow->destination_port, vip->options);
		if (!elb_look_up_slot(&slot))
			return drop(NO_BACKEND);
		member = slot.word & ELB_MEMBER;
		if (slot.word & ELB_MOVING) {
			member = elb_member_of(flow, &slot, event, &remembered);
			reason = reason == RING ? remembered ? TRACKED : MOVING : reason;
		}
	}
	key = 2 * member + vip->side;
	outer = elb_members.lookup(&key);
	stats = elb_stats.lookup(&member);
	if (!member || !outer || !stats)
		return drop(NO_BACKEND);
	if (!elb_inner(ctx, packet, outer->form & ELB_GUE, &inner))
		return drop(MALFORMED);
	hop = elb_hops.lookup(&outer->backend);
	if (!hop || !*hop)
		return drop(NO_NEXT_HOP);
	if (inner.length + outer->overhead > *hop >> 48)
		return elb_too_big(ctx, packet, (*hop >> 48) - outer->overhead);
	stats->packets++;
	stats->bytes += inner.offset + inner.length;
	stats->flows += event & ELB_SYN;
	return elb_send(ctx, packet, outer, *hop, &inner, &client, reason);
}

static __always_inline bool elb_balanced(u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

static __always_inline u32 elb_event_of(const struct packet *packet)
{
	u32 flags;

	if (!packet->tcp)
		return ELB_PACKET;
	flags = tcp_flag_word(packet->tcp);
	if ((flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN)
		return ELB_SYN;
	if (flags & TCP_FLAG_RST)
		return ELB_RST;
	return flags & TCP_FLAG_FIN ? ELB_FIN : ELB_PACKET;
}

static __always_inline verdict elb(struct xdp_md *ctx, struct packet *packet)
{
	struct elb_flow flow = {};
	u32 event, reason = RING;
	struct elb_vip *vip;

	if (packet->ip4) {
		elb_map4(flow.source, packet->ip4->saddr);
		elb_map4(flow.destination, packet->ip4->daddr);
	} else if (packet->ip6) {
		__builtin_memcpy(flow.source, &packet->ip6->saddr, sizeof(flow.source));
		__builtin_memcpy(flow.destination, &packet->ip6->daddr, sizeof(flow.destination));
	} else {
		return next(NO_REASON);
	}
	flow.proto = packet->l4_proto;
	event = elb_event_of(packet);
	if (packet->tcp) {
		flow.source_port = packet->tcp->source;
		flow.destination_port = packet->tcp->dest;
	} else if (packet->udp) {
		flow.source_port = packet->udp->source;
		flow.destination_port = packet->udp->dest;
	} else {
		if (!elb_has(flow.destination))
			return next(NO_REASON);
		if (packet->malformed)
			return drop(MALFORMED);
		if (packet->icmp || packet->icmp6) {
			if (elb_is_echo(packet))
				return elb_echo(ctx, packet);
			if (!elb_quoted(packet, &flow))
				return next(NO_REASON);
			event = ELB_LOOK;
			reason = ICMP_ERROR;
		}
	}
	vip = elb_find(&flow);
	if (!vip)
		return packet->fragment == FRAGMENT_LATER && elb_balanced(flow.proto) ? drop(FRAGMENT) : next(NO_REASON);
	if (packet->fragment) {
		if (!(vip->options & ELB_PORTLESS))
			return drop(FRAGMENT);
		flow.source_port = 0;
		flow.destination_port = 0;
	}
	return elb_balance(ctx, packet, &flow, vip, event, reason);
}
