/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * frame.h: what dsr_agent knows of a packet, in numbers.
 *
 * The verifier follows every way in which a packet may have been parsed through all that comes behind, unless nothing is left of the differences.
 * So what is needed is read at once, no pointer into the packet lives longer, and the numbers lie in a map: what is in one is unknown to the
 * verifier, so all ways join.
 */
#ifndef DSR_FRAME_H
#define DSR_FRAME_H

#define DSR_MAPPED bpf_htonl(0xffff)	/* the third word of an IPv4-mapped address */

enum dsr_flags {
	DSR_F_FIN = 1,
	DSR_F_SYN = 2,
	DSR_F_RST = 4,
	DSR_F_ACK = 16,
};

struct dsr_frame {
	__be32 endpoint[4];	/* the outer destination; where something was around the packet */
	__be32 source[4];	/* of the packet itself: the inner one */
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	u32 proto;
	u32 flags;		/* enum dsr_flags: of TCP */
	u32 ip6;
	u32 fragment;		/* enum fragment */
	u32 malformed;		/* enum malformed */
	u32 icmp;		/* or ICMPv6 */
	u32 id;			/* of a datagram in fragments */
	u32 link;		/* bytes in front of the first IP header */
	u32 around;		/* bytes from the first IP header to the packet itself; 0: nothing was around it */
	u32 around_ip6;
	u32 around_tos;
	u32 hops;		/* bytes from the first IP header to a list of hops that has one left; 0: none */
	u32 header;		/* bytes from the IP header to the transport header */
	u32 length;		/* of the IP packet */
	u32 tos;
};

BPF_TABLE("percpu_array", u32, struct dsr_frame, dsr_frames, BY_SCHEMA);	/* one: the packet at hand */

static __always_inline void dsr_map4(__be32 *address, __be32 ip4)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = DSR_MAPPED;
	address[3] = ip4;
}

static __always_inline bool dsr_is_mapped(const __be32 *address)
{
	return !(address[0] | address[1] | (address[2] ^ DSR_MAPPED));
}

static __always_inline bool dsr_same(const __be32 *one, const __be32 *other)
{
	return !((one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]));
}

static __always_inline u32 dsr_flags_of(const struct tcphdr *tcp)
{
	return ((const u8 *)tcp)[13];
}

/* The empty assembly keeps LLVM from mixing pointers to different headers, which the verifier refuses. */
static __always_inline u32 dsr_distance(const void *from, const void *to)
{
	s64 bytes = to - from;

	asm volatile("" : "+r"(bytes));
	return bytes;
}

/* The id of an IPv6 datagram in fragments; 0 where its fragment header is behind more than one other. */
static __always_inline u32 dsr_fragment_id(const struct packet *packet)
{
	struct ip6_extension *extension = (void *)(packet->ip6 + 1);
	u8 proto = packet->ip6->nexthdr;

	if ((void *)(extension + 1) > packet->end)
		return 0;
	if (proto != IPPROTO_FRAGMENT) {
		proto = extension->next_header;
		extension = (void *)extension + packet_extension_bytes(packet->ip6->nexthdr, extension->length);
		if (proto != IPPROTO_FRAGMENT || (void *)(extension + 1) > packet->end)
			return 0;
	}
	return extension->id;
}

/*
 * Reads a parsed packet into `frame`: all but `endpoint`, `link` and what was around the packet. False where there is no IP, or an IPv4 address in
 * the clothes of IPv6. `length` is what the header says: 0 (IPv4) or 40 (IPv6) in the kernel's own segments over 64 KiB.
 */
static __always_inline bool dsr_read_packet(const struct packet *packet, struct dsr_frame *frame)
{
	u32 ip6 = 0, flags = 0, id = 0, header, length, tos;

	if (packet->ip4) {
		dsr_map4(frame->source, packet->ip4->saddr);
		dsr_map4(frame->destination, packet->ip4->daddr);
		header = packet->ip4->ihl * 4;
		length = bpf_ntohs(packet->ip4->tot_len);
		tos = packet->ip4->tos;
		id = packet->ip4->id;
	} else if (packet->ip6) {
		ip6 = 1;
		__builtin_memcpy(frame->source, &packet->ip6->saddr, sizeof(frame->source));
		__builtin_memcpy(frame->destination, &packet->ip6->daddr, sizeof(frame->destination));
		if (dsr_is_mapped(frame->source) || dsr_is_mapped(frame->destination))
			return false;
		header = sizeof(struct ipv6hdr);
		if (packet->l4)
			header = dsr_distance(packet->ip6, packet->l4);
		length = sizeof(struct ipv6hdr) + bpf_ntohs(packet->ip6->payload_len);
		tos = bpf_ntohs(*(__be16 *)packet->ip6) >> 4 & 0xff;
		if (packet->fragment)
			id = dsr_fragment_id(packet);
	} else {
		return false;
	}
	if (packet->tcp) {
		flags = dsr_flags_of(packet->tcp);
		frame->source_port = packet->tcp->source;
		frame->destination_port = packet->tcp->dest;
	} else if (packet->udp) {
		frame->source_port = packet->udp->source;
		frame->destination_port = packet->udp->dest;
	} else {
		frame->source_port = 0;
		frame->destination_port = 0;
	}
	frame->proto = packet->l4_proto;
	frame->flags = flags;
	frame->ip6 = ip6;
	frame->fragment = packet->fragment;
	frame->malformed = packet->malformed;
	frame->icmp = packet->l4_proto == (ip6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	frame->id = id;
	frame->header = header;
	frame->length = length;
	frame->tos = tos;
	return true;
}

/* A packet as the core has parsed it; what may be around another one in it does not count. */
static __always_inline bool dsr_read(const struct packet *packet, struct dsr_frame *frame)
{
	if (!dsr_read_packet(packet, frame))
		return false;
	frame->link = sizeof(struct ethhdr) + packet->vlans * sizeof(struct vlan_tag);
	frame->around = 0;
	frame->hops = 0;
	return true;
}

static __always_inline struct dsr_frame *dsr_frame_at_hand(void)
{
	u32 zero = 0;

	return dsr_frames.lookup(&zero);
}

#endif
