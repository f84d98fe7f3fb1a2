/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * packet.h: the packet as parsed, and the cursor that parses it.
 *
 * Every header pointer is either NULL or points to a header that lies wholly inside the frame. The compiler drops what a function does not
 * read. Up to two VLAN tags (802.1Q, 802.1ad), IPv4 options, and up to PACKET_MAX_EXTENSIONS IPv6 extension headers are stepped over.
 */
#ifndef XDPCHAIN_PACKET_H
#define XDPCHAIN_PACKET_H

#define PACKET_MAX_VLANS 2
#define PACKET_MAX_EXTENSIONS 6

#ifndef ETH_P_8021AD
#define ETH_P_8021AD 0x88A8
#endif

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

/*
 * RFC 8200, section 4, and RFC 4302: what every extension header has in its first 8 bytes. `length` is in 8 bytes without the first 8, of an
 * authentication header in 4 bytes without the first 8; a fragment header has 8 bytes, and its length is reserved.
 */
struct ip6_extension {
	u8 next_header;
	u8 length;
	__be16 offset_more;	/* of a fragment header */
	__be32 id;		/* of a fragment header */
};

#define PACKET_EXTENSIONS \
	(1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ROUTING | 1ULL << IPPROTO_FRAGMENT | 1ULL << IPPROTO_AH | 1ULL << IPPROTO_DSTOPTS)

enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,	/* has the transport header */
	FRAGMENT_LATER = 2,	/* has none: l4 is NULL */
};

enum malformed {
	WELL_FORMED = 0,
	CUT_SHORT = 1,		/* a header is cut short, or contradicts the frame */
	OUT_OF_REACH = 2,	/* a host would find a transport header, but it reaches into a later fragment or is behind too many extension headers */
};

struct packet {
	void *data;
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip4;		/* NULL if this is not IPv4, or its header is cut short or lies about its length */
	struct ipv6hdr *ip6;
	void *l4;			/* where the transport header begins; how much of it is there, only tcp, udp, icmp, icmp6 say */
	struct tcphdr *tcp;		/* without its options */
	struct udphdr *udp;
	struct icmphdr *icmp;
	struct icmp6hdr *icmp6;
	__be16 ethertype;		/* behind the VLAN tags */
	u8 vlans;
	u8 l4_proto;			/* behind the extension headers; 0 where there is no IP */
	u8 fragment;			/* enum fragment */
	u8 malformed;			/* enum malformed */
	s64 spare;			/* bytes of the first buffer behind the IP packet; negative if it may go on in another buffer */
};

static __always_inline void packet_transport(struct packet *packet)
{
	u8 missing = packet->fragment ? OUT_OF_REACH : CUT_SHORT;	/* a first fragment may be too short for the header (RFC 1858) */
	void *l4 = packet->l4;

	switch (packet->l4_proto) {
	case IPPROTO_TCP:
		if (l4 + sizeof(struct tcphdr) <= packet->end)
			packet->tcp = l4;
		else
			packet->malformed = missing;
		break;
	case IPPROTO_UDP:
		if (l4 + sizeof(struct udphdr) <= packet->end)
			packet->udp = l4;
		else
			packet->malformed = missing;
		break;
	case IPPROTO_ICMP:
		if (l4 + sizeof(struct icmphdr) <= packet->end)
			packet->icmp = l4;
		else
			packet->malformed = missing;
		break;
	case IPPROTO_ICMPV6:
		if (l4 + sizeof(struct icmp6hdr) <= packet->end)
			packet->icmp6 = l4;
		else
			packet->malformed = missing;
		break;
	default:
		if (l4 > packet->end)
			packet->malformed = missing;
	}
}

/*
 * `length` counts from `from`; 0 says nothing: the kernel's own segments over 64 KiB have it. The empty assembly keeps LLVM from mixing the
 * length into the pointers, which the verifier refuses.
 */
static __always_inline s64 packet_spare(void *from, void *end, __be16 length)
{
	s64 there = end - from;

	asm volatile("" : "+r"(there));
	return there - 1 - (u16)(bpf_ntohs(length) - 1);
}

static __always_inline void packet_ip4(struct packet *packet, struct iphdr *ip)
{
	u32 header = ip->ihl * 4;
	u16 offset;

	if (ip->version != 4 || header < sizeof(*ip) || (void *)ip + header > packet->end) {
		packet->malformed = CUT_SHORT;
		return;
	}
	packet->ip4 = ip;
	packet->spare = packet_spare(ip, packet->end, ip->tot_len);
	packet->l4_proto = ip->protocol;
	offset = ip->frag_off & bpf_htons(0x3fff);	/* MF and the offset */
	if (offset) {
		packet->fragment = offset & bpf_htons(0x1fff) ? FRAGMENT_LATER : FRAGMENT_FIRST;
		if (packet->fragment == FRAGMENT_LATER)
			return;
	}
	packet->l4 = (void *)ip + header;
	packet_transport(packet);
}

static __always_inline bool packet_is_extension(u8 proto)
{
	return proto < 64 && PACKET_EXTENSIONS >> proto & 1;
}

/*
 * The size of an extension header, without a branch: the verifier would follow every branch through all headers that may come behind it, and
 * take a hundred times as long. For the same reason the comparisons are hidden from LLVM.
 */
static __always_inline u64 packet_extension_bytes(u64 proto, u64 length)
{
	u64 fragment = proto, ah = proto;

	asm volatile("%0 ^= %1\n%0 += -1\n%0 >>= 63" : "+r"(fragment) : "i"(IPPROTO_FRAGMENT));	/* 1 if equal, else 0 */
	asm volatile("%0 ^= %1\n%0 += -1\n%0 >>= 63" : "+r"(ah) : "i"(IPPROTO_AH));
	length &= fragment - 1;
	return (length + 1 + ah) << (3 - ah) & 0xffc;
}

static __always_inline void packet_ip6(struct packet *packet, struct ipv6hdr *ip)
{
	void *at = ip + 1;
	u8 proto = ip->nexthdr;

	if (ip->version != 6) {
		packet->malformed = CUT_SHORT;
		return;
	}
	packet->ip6 = ip;
	packet->spare = packet_spare(ip + 1, packet->end, ip->payload_len);
#pragma unroll
	for (int i = 0; i < PACKET_MAX_EXTENSIONS; i++) {
		struct ip6_extension *extension = at;

		if (!packet_is_extension(proto))
			break;
		if ((void *)(extension + 1) > packet->end) {
			packet->malformed = CUT_SHORT;
			return;
		}
		at += packet_extension_bytes(proto, extension->length);
		if (proto == IPPROTO_FRAGMENT) {
			if (extension->offset_more & bpf_htons(0xfff8)) {
				packet->fragment = FRAGMENT_LATER;
				packet->l4_proto = extension->next_header;
				return;
			}
			if (extension->offset_more & bpf_htons(1))
				packet->fragment = FRAGMENT_FIRST;
		}
		proto = extension->next_header;
	}
	packet->l4_proto = proto;
	packet->l4 = at;
	if (packet_is_extension(proto))
		packet->malformed = OUT_OF_REACH;
	else
		packet_transport(packet);
}

/* struct ethhdr is packed: its own field is read byte by byte */
static __always_inline __be16 packet_ethertype(void *data)
{
	return *(__be16 *)(data + __builtin_offsetof(struct ethhdr, h_proto));
}

/*
 * Most frames are a whole IPv4 packet without options, or TCP or UDP behind a bare IPv6 header, in Ethernet without VLAN tags: those are parsed
 * here with few comparisons, the same as below. The one length asked for is that of an IPv6 header, or an IPv4 header and TCP's. Returns false,
 * and leaves `packet` alone, where the frame is another one.
 */
static __always_inline bool packet_plain(struct packet *packet)
{
	struct ethhdr *eth = packet->data;
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct iphdr *ip4 = (void *)(eth + 1);
	__be16 ethertype;

	if ((void *)(ip6 + 1) > packet->end)
		return false;
	ethertype = packet_ethertype(eth);
	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (ip4->version != 4 || ip4->ihl != 5 || ip4->frag_off & bpf_htons(0x3fff))
			return false;
		packet->ip4 = ip4;
		packet->spare = packet_spare(ip4, packet->end, ip4->tot_len);
		packet->l4_proto = ip4->protocol;
		packet->l4 = ip4 + 1;
		packet_transport(packet);
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (ip6->version != 6 || (ip6->nexthdr != IPPROTO_TCP && ip6->nexthdr != IPPROTO_UDP))
			return false;
		packet->ip6 = ip6;
		packet->spare = packet_spare(ip6 + 1, packet->end, ip6->payload_len);
		packet->l4_proto = ip6->nexthdr;
		packet->l4 = ip6 + 1;
		packet_transport(packet);
	} else {
		return false;
	}
	packet->eth = eth;
	packet->ethertype = ethertype;
	return true;
}

static __always_inline void packet_parse(struct packet *packet, void *data, void *end)
{
	struct ethhdr *eth = data;
	void *at = eth + 1;
	__be16 ethertype;

	*packet = (struct packet){ .data = data, .end = end, .spare = -1 };
	if (packet_plain(packet))
		return;
	if (at > end) {
		packet->malformed = CUT_SHORT;
		return;
	}
	packet->eth = eth;
	ethertype = packet_ethertype(data);
#pragma unroll
	for (int i = 0; i < PACKET_MAX_VLANS; i++) {
		struct vlan_tag *tag = at;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end) {
			packet->malformed = CUT_SHORT;
			return;
		}
		ethertype = tag->ethertype;
		at = tag + 1;
		packet->vlans++;
	}
	packet->ethertype = ethertype;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (at + sizeof(struct iphdr) <= end)
			packet_ip4(packet, at);
		else
			packet->malformed = CUT_SHORT;
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (at + sizeof(struct ipv6hdr) <= end)
			packet_ip6(packet, at);
		else
			packet->malformed = CUT_SHORT;
	}
}

#endif
