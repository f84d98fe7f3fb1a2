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

/* Behind the UDP header: GUE in variant 0 whose private data is a list of hops, of which one is left. Addresses are of the outer family. */
struct elb_chance {
	u8 words;	/* variant 0, no control message, how many words of private data */
	u8 proto;	/* of the inner packet */
	__be16 flags;
	__be16 type;	/* 0: a list of hops */
	u8 next;
	u8 hops;
	__be32 hop[4];	/* one word of it if it is IPv4 */
};
#define ELB_CHANCE4_BYTES (__builtin_offsetof(struct elb_chance, hop) + sizeof(__be32))
#define ELB_CHANCE6_BYTES sizeof(struct elb_chance)

/* What is written at most. The shortest inner packet makes more than that of any frame. */
#define ELB_LINK_BYTES (sizeof(struct ethhdr) + PACKET_MAX_VLANS * sizeof(struct vlan_tag))
#define ELB_OUTER4_BYTES (ELB_LINK_BYTES + sizeof(struct iphdr) + sizeof(struct udphdr))
#define ELB_OUTER6_BYTES (ELB_LINK_BYTES + sizeof(struct ipv6hdr) + sizeof(struct udphdr))

/* The Ethernet header and the VLAN tags; gives where the IP header begins. */
static __always_inline void *elb_link(void *data, const struct elb_frame *frame, u64 hop, __be16 ethertype)
{
	u16 *eth = data;

	eth[0] = hop;
	eth[1] = hop >> 16;
	eth[2] = hop >> 32;
	eth[3] = frame->mac[0];
	eth[4] = frame->mac[1];
	eth[5] = frame->mac[2];
	eth += 6;
	if (frame->vlans) {
		*(u32 *)eth = frame->tags[0];
		eth += 2;
		if (frame->vlans > 1) {
			*(u32 *)eth = frame->tags[1];
			eth += 2;
		}
	}
	*eth = ethertype;
	return eth + 1;
}

/* Sends the packet to a member. `hop` is what elb_hops says: the MAC address in the low 48 bits. */
static __always_inline verdict elb_send(struct xdp_md *ctx, const struct elb_frame *frame, const struct elb_member *member, u64 hop,
					const struct elb_client *client, u32 reason)
{
	u32 overhead = member->overhead, form = member->form, length = frame->length;
	u16 last = client->address[3] >> 16, first = client->address[3];	/* the client's last 16 bits, and the 16 before */
	__be16 port = client->port, mixed;
	void *data, *ip;

	if (bpf_xdp_adjust_head(ctx, -(int)overhead))
		return drop(NO_ROOM);
	data = (void *)(long)ctx->data;
	if (data + ELB_OUTER4_BYTES > (void *)(long)ctx->data_end)
		return drop(NO_ROOM);
	if (!(form & ELB_OUTER6)) {
		ip = elb_link(data, frame, hop, bpf_htons(ETH_P_IP));
		mixed = (frame->ip6 ? first : last) ^ __builtin_bswap16(port);
		if (form & ELB_GUE) {
			elb_outer4(ip, member, member->source[0], member->ip_sum, length + overhead, frame->tos, IPPROTO_UDP);
			elb_udp(ip + sizeof(struct iphdr), member, mixed, length + sizeof(struct udphdr), frame->sum);
		} else {
			elb_outer4(ip, member, ELB_IPIP_PREFIX | (u32)mixed << 16, member->ip_sum + bpf_htons(0xac10) + mixed,
				   length + overhead, frame->tos, IPPROTO_IPIP);
		}
		return tx(reason);
	}
	if (data + ELB_OUTER6_BYTES > (void *)(long)ctx->data_end)
		return drop(NO_ROOM);
	ip = elb_link(data, frame, hop, bpf_htons(ETH_P_IPV6));
	if (form & ELB_GUE) {
		mixed = (frame->ip6 ? first : last) ^ port;
		elb_outer6(ip, member, length + sizeof(struct udphdr), frame->tos, IPPROTO_UDP);
		__builtin_memcpy(ip + __builtin_offsetof(struct ipv6hdr, saddr), member->source, sizeof(member->source));
		elb_udp(ip + sizeof(struct ipv6hdr), member, mixed, length + sizeof(struct udphdr), frame->sum);
	} else {
		__be32 *source = ip + __builtin_offsetof(struct ipv6hdr, saddr);

		elb_outer6(ip, member, length, frame->tos, frame->ip6 ? IPPROTO_IPV6 : IPPROTO_IPIP);
		source[0] = ELB_IPIP_PREFIX6;
		source[1] = 0;
		source[2] = 0;
		source[3] = client->address[3] ^ port;
	}
	return tx(reason);
}

static __always_inline u32 elb_chance_bytes(const struct elb_member *member)
{
	return member->form & ELB_OUTER6 ? ELB_CHANCE6_BYTES : ELB_CHANCE4_BYTES;
}

/* Writes it behind a UDP header; gives the sum of its words. */
static __always_inline u64 elb_chance(void *at, const struct elb_frame *frame, const struct elb_member *alternate, u32 bytes)
{
	struct elb_chance chance = { .words = bytes / 4 - 1, .proto = frame->ip6 ? IPPROTO_IPV6 : IPPROTO_IPIP, .hops = 1 };
	const u16 *word = (const u16 *)&chance;
	u64 sum = 0;

	__builtin_memcpy(chance.hop, alternate->destination, sizeof(chance.hop));
#pragma unroll
	for (u32 i = 0; i < ELB_CHANCE6_BYTES / 2; i++)
		sum += i < bytes / 2 ? word[i] : 0;
	__builtin_memcpy(at, &chance, bytes);
	return sum;
}

/* Sends the packet to a member in GUE that names another one; both headers are of one family. `overhead` is that of the whole. */
static __always_inline verdict elb_send_with_chance(struct xdp_md *ctx, const struct elb_frame *frame, const struct elb_member *member,
						    const struct elb_member *alternate, u64 hop, const struct elb_client *client, u32 overhead)
{
	u32 length = frame->length;
	u16 last = client->address[3] >> 16, first = client->address[3];
	__be16 port = client->port;
	void *data, *ip, *end;
	u64 sum = frame->sum;

	if (bpf_xdp_adjust_head(ctx, -(int)overhead))
		return drop(NO_ROOM);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!(member->form & ELB_OUTER6)) {
		if (data + ELB_OUTER4_BYTES + ELB_CHANCE4_BYTES > end)
			return drop(NO_ROOM);
		ip = elb_link(data, frame, hop, bpf_htons(ETH_P_IP));
		elb_outer4(ip, member, member->source[0], member->ip_sum, length + overhead, frame->tos, IPPROTO_UDP);
		ip += sizeof(struct iphdr);
		sum += elb_chance(ip + sizeof(struct udphdr), frame, alternate, ELB_CHANCE4_BYTES);
		elb_udp(ip, member, (frame->ip6 ? first : last) ^ __builtin_bswap16(port), length + overhead - sizeof(struct iphdr), sum);
		return tx(SECOND_CHANCE);
	}
	if (data + ELB_OUTER6_BYTES + ELB_CHANCE6_BYTES > end)
		return drop(NO_ROOM);
	ip = elb_link(data, frame, hop, bpf_htons(ETH_P_IPV6));
	elb_outer6(ip, member, length + overhead - sizeof(struct ipv6hdr), frame->tos, IPPROTO_UDP);
	__builtin_memcpy(ip + __builtin_offsetof(struct ipv6hdr, saddr), member->source, sizeof(member->source));
	ip += sizeof(struct ipv6hdr);
	sum += elb_chance(ip + sizeof(struct udphdr), frame, alternate, ELB_CHANCE6_BYTES);
	elb_udp(ip, member, (frame->ip6 ? first : last) ^ port, length + overhead - sizeof(struct ipv6hdr), sum);
	return tx(SECOND_CHANCE);
}

#endif
