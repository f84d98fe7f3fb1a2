/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * dscp: marks what leaves an interface by the port of its service, and counts the TCP connections of each mark.
 *
 * Reads:   dscp_ports; ports of TCP and UDP; the first and any later fragment of neither are told apart: a later one has no ports
 * Writes:  the DSCP of IPv4 and IPv6 (RFC 2474), with the checksum of the IPv4 header; dscp_connections
 * Verdict: NEXT, always: marked, kept (it has this mark already), or no reason where no rule fits
 */
#include "xdpchain.h"

#define DSCP_SHIFT 2		/* the lower two bits of the byte are ECN (RFC 3168) and stay */
#define DSCP_VALUES 64

/* port -> DSCP + 1, 0 where there is no rule; Python writes */
BPF_TABLE("array", u32, u8, dscp_ports, BY_SCHEMA);
/* DSCP -> connections established by this node or to it; dscp_state counts */
BPF_TABLE("percpu_array", u32, u64, dscp_connections, BY_SCHEMA);

static __always_inline u8 dscp_of_ports(u16 one, u16 other)
{
	u32 port = one;
	u8 *rule = dscp_ports.lookup(&port);

	if (rule && *rule)
		return *rule;
	port = other;
	rule = dscp_ports.lookup(&port);
	return rule ? *rule : 0;
}

/* RFC 1624, equation 3: the checksum after one 16-bit word of the header has changed. */
static __always_inline void dscp_mark_ip4(struct iphdr *ip, u8 dscp)
{
	u8 tos = dscp << DSCP_SHIFT | (ip->tos & ((1 << DSCP_SHIFT) - 1));
	u32 sum = (u16)~bpf_ntohs(ip->check);

	sum += (u16)~ip->tos;
	sum += tos;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->tos = tos;
	ip->check = bpf_htons((u16)~sum);
}

/* The traffic class lies across two bytes: version (4 bits), class (8), flow label (20). IPv6 has no header checksum. */
static __always_inline void dscp_mark_ip6(struct ipv6hdr *ip, u8 dscp)
{
	u8 class = dscp << DSCP_SHIFT | (ip->flow_lbl[0] >> 4 & ((1 << DSCP_SHIFT) - 1));

	ip->priority = class >> 4;
	ip->flow_lbl[0] = class << 4 | (ip->flow_lbl[0] & 0x0f);
}

static __always_inline verdict dscp(struct __sk_buff *ctx, struct packet *packet)
{
	u8 now, rule = 0;

	if (packet->tcp)
		rule = dscp_of_ports(bpf_ntohs(packet->tcp->source), bpf_ntohs(packet->tcp->dest));
	else if (packet->udp)
		rule = dscp_of_ports(bpf_ntohs(packet->udp->source), bpf_ntohs(packet->udp->dest));
	if (!rule)
		return next(NO_REASON);
	if (packet->ip4) {
		now = packet->ip4->tos >> DSCP_SHIFT;
		if (now == rule - 1)
			return next(KEPT);
		dscp_mark_ip4(packet->ip4, rule - 1);
	} else if (packet->ip6) {
		now = packet->ip6->priority << 2 | packet->ip6->flow_lbl[0] >> 6;
		if (now == rule - 1)
			return next(KEPT);
		dscp_mark_ip6(packet->ip6, rule - 1);
	}
	return next(MARKED);
}

/* What the tracepoint sock:inet_sock_set_state tells, as its `format` file in tracefs says. Ports are in the order of this machine. */
struct dscp_state_event {
	u64 common;
	u64 socket;
	s32 old_state;
	s32 new_state;
	u16 source_port;
	u16 target_port;
	u16 family;
	u16 protocol;
};

#define TCP_ESTABLISHED 1

static __always_inline int dscp_state(struct dscp_state_event *event)
{
	u32 mark;
	u64 *connections;
	u8 rule;

	if (event->protocol != IPPROTO_TCP || event->new_state != TCP_ESTABLISHED)
		return 0;
	rule = dscp_of_ports(event->source_port, event->target_port);
	if (!rule)
		return 0;
	mark = rule - 1;
	connections = dscp_connections.lookup(&mark);
	if (connections)
		(*connections)++;
	return 0;
}
