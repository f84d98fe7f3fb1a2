/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * frame.h: what elb knows of a packet, in numbers.
 *
 * The verifier follows every way in which a packet may have been parsed through all that comes behind, unless nothing is left of the differences.
 * So what is needed is read at once, no pointer into the packet lives longer, and the numbers lie in a map: what is in one is unknown to the
 * verifier, so all ways join.
 */
#ifndef ELB_FRAME_H
#define ELB_FRAME_H

#define ELB_MAPPED bpf_htonl(0xffff)	/* the third word of an IPv4-mapped address */
#define ELB_ONES 0xffff			/* minus zero in one's complement: any number of them changes no sum */

enum elb_event {
	ELB_PACKET = 0,
	ELB_SYN = 1,
	ELB_FIN = 2,
	ELB_RST = 4,
	ELB_LOOK = 8,	/* somebody else speaks about the flow: an ICMP error */
};

struct elb_frame {
	struct elb_flow flow;	/* of an ICMP error: the one that it quotes */
	u32 event;		/* enum elb_event */
	u32 ip6;
	u32 vlans;
	u32 fragment;		/* enum fragment */
	u32 malformed;		/* enum malformed */
	u32 icmp;		/* or ICMPv6 */
	u32 summed;		/* the sum of its bytes follows from its headers */
	u32 extended;		/* IPv6 with extension headers */
	u32 link;		/* bytes in front of the IP header */
	u32 header;		/* bytes from the IP header to the transport header */
	u32 transport;		/* bytes of the transport header that must be there; 0 where there is none that we balance */
	u8 tos;			/* or traffic class */
	u16 mac[3];		/* to which it was sent */
	u32 tags[PACKET_MAX_VLANS];
	u32 length;		/* of the IP packet */
	u64 sum;		/* of the bytes of the IP packet, as 16-bit words in memory; where `summed` */
};

BPF_TABLE("percpu_array", u32, struct elb_frame, elb_frames, BY_SCHEMA);	/* one: the packet at hand */

static __always_inline void elb_map4(__be32 *address, __be32 ip4)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = ELB_MAPPED;
	address[3] = ip4;
}

/* The empty assembly keeps LLVM from mixing pointers to different headers, which the verifier refuses. */
static __always_inline u32 elb_distance(const void *from, const void *to)
{
	s64 bytes = to - from;

	asm volatile("" : "+r"(bytes));
	return bytes;
}

static __always_inline u32 elb_event_of(const struct tcphdr *tcp)
{
	u32 flags = tcp_flag_word(tcp);

	if ((flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN)
		return ELB_SYN;
	if (flags & TCP_FLAG_RST)
		return ELB_RST;
	return flags & TCP_FLAG_FIN ? ELB_FIN : ELB_PACKET;
}

static __always_inline bool elb_is_mapped(const __be32 *address)
{
	return !(address[0] | address[1] | (address[2] ^ ELB_MAPPED));
}

/* The addresses, and all that decides which VIP and which flow. False where there is no IP, or an IPv4 address in the clothes of IPv6. */
static __always_inline bool elb_read_flow(const struct packet *packet, struct elb_frame *frame)
{
	u32 event = ELB_PACKET, ip6 = 0, extended = 0, transport = 0, unsummed = 0, icmp, header, length;

	if (packet->ip4) {
		elb_map4(frame->flow.source, packet->ip4->saddr);
		elb_map4(frame->flow.destination, packet->ip4->daddr);
		header = packet->ip4->ihl * 4;
		length = bpf_ntohs(packet->ip4->tot_len);
		icmp = packet->l4_proto == IPPROTO_ICMP;
	} else if (packet->ip6) {
		ip6 = 1;
		icmp = packet->l4_proto == IPPROTO_ICMPV6;
		__builtin_memcpy(frame->flow.source, &packet->ip6->saddr, sizeof(frame->flow.source));
		__builtin_memcpy(frame->flow.destination, &packet->ip6->daddr, sizeof(frame->flow.destination));
		if (elb_is_mapped(frame->flow.destination))
			return false;
		header = sizeof(struct ipv6hdr);
		length = sizeof(struct ipv6hdr) + bpf_ntohs(packet->ip6->payload_len);
		if (packet->ip6->nexthdr != packet->l4_proto) {
			extended = 1;
			if (packet->l4)
				header = elb_distance(packet->ip6, packet->l4);
		}
	} else {
		return false;
	}
	if (packet->tcp) {
		transport = sizeof(struct tcphdr);
		event = elb_event_of(packet->tcp);
		frame->flow.source_port = packet->tcp->source;
		frame->flow.destination_port = packet->tcp->dest;
	} else if (packet->udp) {
		transport = sizeof(struct udphdr);
		/* a datagram may be shorter than its packet (RFC 9868): its checksum says nothing of what is behind it */
		unsummed = !packet->udp->check || bpf_ntohs(packet->udp->len) != length - header;
		frame->flow.source_port = packet->udp->source;
		frame->flow.destination_port = packet->udp->dest;
	} else {
		frame->flow.source_port = 0;
		frame->flow.destination_port = 0;
	}
	frame->flow.proto = packet->l4_proto;
	frame->header = header;
	frame->event = event;
	frame->ip6 = ip6;
	frame->vlans = packet->vlans;
	frame->fragment = packet->fragment;
	frame->malformed = packet->malformed;
	frame->icmp = icmp;
	frame->extended = extended;
	frame->summed = !(packet->fragment | extended | unsummed);
	frame->transport = transport;
	return true;
}

static __always_inline u32 elb_sum4(const void *address)
{
	const u16 *word = address;

	return (u32)word[0] + word[1];
}

/*
 * The sum of a packet without reading it: a transport checksum makes the sum of its segment and its pseudo header minus zero, and an IPv4
 * header sums to minus zero by itself. In an IPv6 packet the addresses stand in the header and, with the other sign, in the pseudo header.
 */
static __always_inline u64 elb_known_sum(const struct elb_frame *frame, const void *ip)
{
	u8 proto = frame->icmp ? IPPROTO_ICMPV6 : frame->flow.proto;
	u64 sum = 8 * ELB_ONES - bpf_htons(frame->length - frame->header) - bpf_htons(proto);
	const u16 *word = ip;

	if (frame->ip6)
		return sum + word[0] + word[1] + word[2] + word[3];
	if (frame->icmp)	/* that of IPv4 has no pseudo header */
		return ELB_ONES;
	return sum - elb_sum4(&frame->flow.source[3]) - elb_sum4(&frame->flow.destination[3]);
}

/* Everything else. False where the packet is not all there, or is shorter than its headers. */
static __always_inline bool elb_read_frame(struct xdp_md *ctx, struct elb_frame *frame)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *ip;
	const u16 *word = data;

	if (frame->vlans > PACKET_MAX_VLANS)
		return false;
	frame->link = sizeof(struct ethhdr) + frame->vlans * sizeof(struct vlan_tag);
	ip = data + frame->link;
	if (data + sizeof(struct ethhdr) + sizeof(frame->tags) > end || ip + sizeof(struct iphdr) > end)
		return false;
	frame->mac[0] = word[0];
	frame->mac[1] = word[1];
	frame->mac[2] = word[2];
	if (frame->vlans)
		frame->tags[0] = *(u32 *)(data + 2 * ETH_ALEN);
	if (frame->vlans > 1)
		frame->tags[1] = *(u32 *)(data + 2 * ETH_ALEN + sizeof(struct vlan_tag));
	word = ip;
	if (frame->ip6) {
		frame->length = sizeof(struct ipv6hdr) + bpf_ntohs(word[2]);
		frame->tos = bpf_ntohs(word[0]) >> 4;
	} else {
		frame->length = bpf_ntohs(word[1]);
		frame->tos = bpf_ntohs(word[0]);
	}
	if (frame->length < frame->header + frame->transport)
		return false;
	if (end - ip < frame->length && bpf_xdp_get_buff_len(ctx) < frame->link + frame->length)
		return false;
	if (frame->summed)
		frame->sum = elb_known_sum(frame, ip);
	return true;
}

#endif
