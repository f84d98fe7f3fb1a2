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
	u32 hops;		/* bytes from the first IP header to the hop that comes next in a list; 0: none is left */
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

static __always_inline u32 dsr_flags_of(const struct tcphdr *tcp)
{
	return ((const u8 *)tcp)[13];
}

#endif
