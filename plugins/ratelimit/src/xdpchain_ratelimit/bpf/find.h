/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * find.h: from a packet to its rule, by what is read of it. A rule that names the port goes before one for all ports; of several such, the one with
 * the longest destination.
 */
#ifndef RL_FIND_H
#define RL_FIND_H

/* Neighbour discovery and its like: without them there is no IPv6 at all. */
#define RL_ND_FIRST 133
#define RL_ND_LAST 137

static __always_inline u32 rl_open_gates(void)
{
	u32 zero = 0, *gates;

	gates = rl_gates.lookup(&zero);
	return gates ? *gates : 0;
}

/* The place of the rule for a target, 0: none. `gates` are those of this kind of port, `at` its key in rl_ports. */
static __always_inline u32 rl_find_for(const struct rl_target *target, u32 gates, u32 at)
{
	u32 *place;

	if (gates & RL_EXACT) {
		place = rl_targets.lookup(target);
		if (place)
			return *place;
	}
	if (gates & RL_PREFIXES) {
		struct rl_prefix key = { .length = 160, .proto = target->proto, .port = target->port };

		__builtin_memcpy(key.address, target->address, sizeof(key.address));
		place = rl_prefixes.lookup(&key);
		if (place)
			return *place;
	}
	if (gates & RL_ANYWHERE) {
		place = rl_ports.lookup(&at);
		if (place)
			return *place;
	}
	return 0;
}

/* The place of a packet's rule, 0: none. A later fragment has no ports: it is found by rules for all ports only. */
static __always_inline u32 rl_find(const struct rl_frame *frame, u32 gates)
{
	u32 protocol = frame->proto & RL_PROTO, at = bpf_ntohs(frame->destination_port), place;
	struct rl_target target = { .port = frame->destination_port, .proto = frame->proto };

	__builtin_memcpy(target.address, frame->destination, sizeof(target.address));
	if (frame->flags & RL_PORTS) {
		if (protocol == RL_UDP)
			at += RL_UDP_PORTS;
		place = rl_find_for(&target, gates, at);
		if (place)
			return place;
	}
	if (!(gates & RL_ANY_PORT_GATES))
		return 0;
	target.port = 0;
	target.proto |= RL_ANY_PORT;
	return rl_find_for(&target, gates >> RL_ALL_PORTS, RL_ANY_PORTS + protocol);
}

/* Whether a packet that is not TCP, or a later fragment, may have a rule. */
static __always_inline bool rl_concerns_other(const struct packet *packet, u32 gates)
{
	switch (packet->l4_proto) {
	case IPPROTO_TCP:
		return gates & RL_TCP_PACKETS && packet->fragment == FRAGMENT_LATER;
	case IPPROTO_UDP:
		return gates & RL_UDP_RULES;
	case IPPROTO_ICMP:
		return gates & RL_ICMP_RULES && packet->ip4;
	case IPPROTO_ICMPV6:
		if (packet->icmp6 && packet->icmp6->icmp6_type >= RL_ND_FIRST && packet->icmp6->icmp6_type <= RL_ND_LAST)
			return false;
		return gates & RL_ICMP_RULES && packet->ip6;
	default:
		return false;
	}
}

/* What a SYN's IP packet has behind its TCP header; of a fragment, what is there. Bytes of padding behind the packet do not count. */
static __always_inline u32 rl_data_bytes(const struct packet *packet)
{
	s64 there;

	if (packet->ip6)
		there = (s64)bpf_ntohs(packet->ip6->payload_len) - ((void *)packet->tcp - (void *)(packet->ip6 + 1));
	else if (packet->ip4)
		there = (s64)bpf_ntohs(packet->ip4->tot_len) - packet->ip4->ihl * 4;
	else
		return 0;
	there -= packet->tcp->doff * 4;
	return there > 0 ? there : 0;
}

static __always_inline void rl_read_tcp(const struct packet *packet, struct rl_frame *frame)
{
	struct tcphdr *tcp = packet->tcp;

	frame->proto = RL_TCP;
	frame->flags = RL_PORTS;
	frame->source_port = tcp->source;
	frame->destination_port = tcp->dest;
	frame->seq = bpf_ntohl(tcp->seq);
	frame->segment = tcp->syn + tcp->fin + rl_data_bytes(packet);
	frame->tcp_bytes = tcp->doff * 4;
	if (tcp->syn && !tcp->ack)
		frame->flags |= RL_SYN;
}

static __always_inline void rl_map_ip4(struct rl_frame *frame, __be32 source, __be32 destination)
{
	__builtin_memset(frame->source, 0, 2 * sizeof(struct in6_addr));
	frame->source[2] = bpf_htonl(0xffff);
	frame->source[3] = source;
	frame->destination[2] = bpf_htonl(0xffff);
	frame->destination[3] = destination;
}

/* Reads a SYN whose IP header follows the Ethernet header; false: it does not. What only answers need is not read. */
static __always_inline bool rl_read_plain(struct xdp_md *ctx, __be16 port, struct rl_frame *frame)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip4 = data + ETH_HLEN;
	__be16 ethertype;

	if ((void *)(ip6 + 1) > end)
		return false;
	ethertype = *(__be16 *)(data + __builtin_offsetof(struct ethhdr, h_proto));
	frame->destination_port = port;
	frame->flags = RL_PORTS | RL_SYN;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		frame->proto = RL_TCP;
		rl_map_ip4(frame, ip4->saddr, ip4->daddr);
		return true;
	}
	frame->proto = RL_TCP | RL_IPV6;
	__builtin_memcpy(frame->source, &ip6->saddr, 2 * sizeof(struct in6_addr));
	return ethertype == bpf_htons(ETH_P_IPV6);
}

/* Reads a packet; false: no rule can be for it. */
static __always_inline bool rl_read(const struct packet *packet, u32 gates, struct rl_frame *frame)
{
	frame->destination_port = 0;
	if (packet->tcp) {
		rl_read_tcp(packet, frame);
	} else {
		if (!rl_concerns_other(packet, gates))
			return false;
		frame->flags = 0;
		frame->proto = packet->l4_proto == IPPROTO_TCP ? RL_TCP : packet->l4_proto == IPPROTO_UDP ? RL_UDP : RL_ICMP;
		if (packet->udp) {
			frame->flags = RL_PORTS;
			frame->destination_port = packet->udp->dest;
		}
	}
	if (packet->eth && !(packet->eth->h_dest[0] & 1) && !(packet->eth->h_source[0] & 1))
		frame->flags |= RL_UNICAST;
	if (packet->ip6) {
		frame->proto |= RL_IPV6;
		__builtin_memcpy(frame->source, &packet->ip6->saddr, 2 * sizeof(struct in6_addr));
		frame->link = (void *)packet->ip6 - packet->data;
	} else if (packet->ip4) {
		rl_map_ip4(frame, packet->ip4->saddr, packet->ip4->daddr);
		frame->link = (void *)packet->ip4 - packet->data;
	} else {
		return false;
	}
	frame->l4 = packet->l4 ? packet->l4 - packet->data : 0;
	return true;
}

#endif
