/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * encap.h: puts the outer header in front of a packet and points the frame at the next hop.
 *
 * What stands where is flow-compatible with Katran: the outer source of IP in IP and the source port of GUE come from the client, so that
 * backends spread flows over their queues. GUE is variant 1: the inner packet follows the UDP header at once. The inner packet is not changed.
 */
#ifndef ELB_ENCAP_H
#define ELB_ENCAP_H

#define ELB_TTL 64
#define ELB_IPIP_PREFIX bpf_htonl(0xac100000)	/* 172.16.0.0 */
#define ELB_IPIP_PREFIX6 bpf_htonl(0x01000000)	/* 100::, RFC 6666 */
#define ELB_ONES 0xffff				/* minus zero in one's complement: any number of them changes no sum */

/* What of a packet goes into its outer header. */
struct elb_inner {
	u32 length;		/* of the IP packet */
	u32 offset;		/* of the IP packet in the frame */
	u64 sum;		/* of all its bytes, as 16-bit words in memory; only for GUE */
	__be16 ethertype;
	u8 tos;			/* or traffic class */
	u8 ip6;
};

static __always_inline u32 elb_sum4(const void *address)
{
	const u16 *word = address;

	return (u32)word[0] + word[1];
}

/*
 * The sum of an inner packet without reading it: a transport checksum makes the sum of its segment and its pseudo header minus zero, and an
 * IPv4 header sums to minus zero by itself. In an IPv6 packet the addresses stand in the header and, with the other sign, in the pseudo header.
 */
static __always_inline u64 elb_sum_known(const struct packet *packet, u32 transport, u8 proto)
{
	u64 sum = 8 * ELB_ONES - bpf_htons(transport) - bpf_htons(proto);

	if (packet->ip6) {
		const u16 *word = (const u16 *)packet->ip6;

		return sum + word[0] + word[1] + word[2] + word[3];
	}
	if (packet->icmp || !packet->ip4)	/* ICMP has no pseudo header */
		return ELB_ONES;
	return sum - elb_sum4(&packet->ip4->saddr) - elb_sum4(&packet->ip4->daddr);
}

/* The empty assembly keeps LLVM from mixing the pointers of different headers, which the verifier refuses. */
static __always_inline u32 elb_offset(const struct packet *packet, const void *at)
{
	s64 offset = at - packet->data;

	asm volatile("" : "+r"(offset));
	return offset;
}

static __always_inline u32 elb_transport_bytes(const struct packet *packet)
{
	if (packet->tcp)
		return sizeof(struct tcphdr);
	if (packet->udp)
		return sizeof(struct udphdr);
	return packet->fragment == FRAGMENT_LATER ? 0 : sizeof(struct icmphdr);
}

/* Fills `inner`; false where the packet is not all there, or is shorter than its headers. */
static __always_inline bool elb_inner(struct xdp_md *ctx, const struct packet *packet, bool gue, struct elb_inner *inner)
{
	bool whole = !packet->fragment && !(packet->udp && !packet->udp->check);
	u32 header;
	s64 sum;

	inner->offset = sizeof(struct ethhdr) + packet->vlans * sizeof(struct vlan_tag);
	if (packet->ip6) {
		inner->ip6 = 1;
		inner->length = sizeof(struct ipv6hdr) + bpf_ntohs(packet->ip6->payload_len);
		inner->tos = bpf_ntohs(*(__be16 *)packet->ip6) >> 4;
		header = sizeof(struct ipv6hdr);
		if (packet->ip6->nexthdr != packet->l4_proto) {
			whole = false;
			if (packet->l4)
				header = elb_offset(packet, packet->l4) - inner->offset;
		}
	} else if (packet->ip4) {
		inner->length = bpf_ntohs(packet->ip4->tot_len);
		inner->tos = packet->ip4->tos;
		header = packet->ip4->ihl * 4;
	} else {
		return false;
	}
	if (inner->length < header + elb_transport_bytes(packet))
		return false;
	if (packet->spare < 0 && bpf_xdp_get_buff_len(ctx) < inner->offset + inner->length)
		return false;
	if (!gue)
		return true;
	if (whole) {
		inner->sum = elb_sum_known(packet, inner->length - header, packet->l4_proto);
		return true;
	}
	sum = elb_sum_bytes(ctx, inner->offset, inner->length);
	inner->sum = sum;
	return sum >= 0;
}

static __always_inline void elb_outer4(struct iphdr *ip, const struct elb_member *member, __be32 source, u32 sum, u32 length, u8 tos, u8 proto)
{
	*(__be16 *)ip = bpf_htons(0x4500 | tos);
	ip->tot_len = bpf_htons(length);
	*(u32 *)&ip->id = 0;
	ip->ttl = ELB_TTL;
	ip->protocol = proto;
	ip->saddr = source;
	ip->daddr = member->destination[0];
	ip->check = ~elb_fold((u64)sum + ip->tot_len + bpf_htons(tos));
}

static __always_inline void elb_outer6(struct ipv6hdr *ip, const struct elb_member *member, u32 payload, u8 tos, u8 proto)
{
	*(__be32 *)ip = bpf_htonl(0x60000000 | (u32)tos << 20);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = proto;
	ip->hop_limit = ELB_TTL;
	__builtin_memcpy(&ip->daddr, member->destination, sizeof(ip->daddr));
}

static __always_inline void elb_udp(struct udphdr *udp, const struct elb_member *member, __be16 source, u32 length, u64 sum)
{
	u16 check;

	udp->source = source;
	udp->dest = member->gue_port;
	udp->len = bpf_htons(length);
	check = ~elb_fold(sum + member->udp_sum + source + 2 * (u64)udp->len);
	udp->check = check ? check : ELB_ONES;
}

/*
 * Sends the packet to a member. `hop` is what elb_hops says: the MAC address in the low 48 bits.
 */
static __always_inline verdict elb_send(struct xdp_md *ctx, const struct packet *packet, const struct elb_member *member, u64 hop,
					const struct elb_inner *inner, const struct elb_client *client, u32 reason)
{
	u32 overhead = member->overhead, form = member->form, vlans = packet->vlans, tags[PACKET_MAX_VLANS] = {};
	u16 last = client->address[3] >> 16, first = client->address[3];	/* the client's last 16 bits, and the 16 before */
	__be16 port = client->port, mixed;
	const u16 *old = (const u16 *)packet->eth;
	u16 mac0, mac1, mac2;
	void *data, *ip;
	u16 *eth;

	mac0 = old[0];
	mac1 = old[1];
	mac2 = old[2];
	if (vlans) {
		const u32 *tag = packet->data + 2 * ETH_ALEN;

		tags[0] = tag[0];
		if (vlans > 1)
			tags[1] = tag[1];
	}
	if (bpf_xdp_adjust_head(ctx, -(int)overhead))
		return drop(NO_ROOM);
	data = (void *)(long)ctx->data;
	ip = data + sizeof(struct ethhdr);
	if (ip + sizeof(tags) + sizeof(struct ipv6hdr) + sizeof(struct udphdr) > (void *)(long)ctx->data_end)
		return drop(NO_ROOM);
	eth = data;
	eth[0] = hop;
	eth[1] = hop >> 16;
	eth[2] = hop >> 32;
	eth[3] = mac0;
	eth[4] = mac1;
	eth[5] = mac2;
	eth += 6;
	if (vlans) {
		*(u32 *)eth = tags[0];
		eth += 2;
		ip += 4;
		if (vlans > 1) {
			*(u32 *)eth = tags[1];
			eth += 2;
			ip += 4;
		}
	}
	if (!(form & ELB_OUTER6)) {
		*eth = bpf_htons(ETH_P_IP);
		mixed = (inner->ip6 ? first : last) ^ __builtin_bswap16(port);
		if (form & ELB_GUE) {
			elb_outer4(ip, member, member->source[0], member->ip_sum, inner->length + overhead, inner->tos, IPPROTO_UDP);
			elb_udp(ip + sizeof(struct iphdr), member, mixed, inner->length + sizeof(struct udphdr), inner->sum);
		} else {
			elb_outer4(ip, member, ELB_IPIP_PREFIX | (u32)mixed << 16, member->ip_sum + bpf_htons(0xac10) + mixed,
				   inner->length + overhead, inner->tos, IPPROTO_IPIP);
		}
		return tx(reason);
	}
	*eth = bpf_htons(ETH_P_IPV6);
	if (form & ELB_GUE) {
		mixed = (inner->ip6 ? first : last) ^ port;
		elb_outer6(ip, member, inner->length + sizeof(struct udphdr), inner->tos, IPPROTO_UDP);
		__builtin_memcpy(ip + __builtin_offsetof(struct ipv6hdr, saddr), member->source, sizeof(member->source));
		elb_udp(ip + sizeof(struct ipv6hdr), member, mixed, inner->length + sizeof(struct udphdr), inner->sum);
	} else {
		__be32 *source = ip + __builtin_offsetof(struct ipv6hdr, saddr);

		elb_outer6(ip, member, inner->length, inner->tos, inner->ip6 ? IPPROTO_IPV6 : IPPROTO_IPIP);
		source[0] = ELB_IPIP_PREFIX6;
		source[1] = 0;
		source[2] = 0;
		source[3] = client->address[3] ^ port;
	}
	return tx(reason);
}

#endif
