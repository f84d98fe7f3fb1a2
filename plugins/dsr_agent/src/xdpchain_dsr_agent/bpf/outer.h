/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * outer.h: what is around a packet, and the packet in it.
 *
 * All headers are looked at where the core's cursor and `end` reach: at XDP in the first buffer, at TC in the linear part.
 */
#ifndef DSR_OUTER_H
#define DSR_OUTER_H

#define DSR_FAR 512		/* bytes of headers at most, of each: those around the packet and its own */
#define DSR_MAX_HOPS 4

/* GUE, draft-ietf-intarea-gue; the first word. Variant 1 is the IP packet itself. */
struct dsr_gue {
	u8 words;	/* variant 0, no control message, so many words of private data */
	u8 proto;	/* IPPROTO_IPIP or IPPROTO_IPV6 */
	__be16 flags;
};

/* Private data that names alternate backends; their addresses follow, of the outer family. */
struct dsr_hops {
	__be16 type;	/* 0 */
	u8 next;	/* the index of the one that comes next */
	u8 count;
};

/* The empty assembly keeps LLVM from making a pointer into the context for several readers, which the verifier refuses. */
static __always_inline void *dsr_data(void *ctx, bool nic)
{
	asm volatile("" : "+r"(ctx));
	return nic ? (void *)(long)((struct xdp_md *)ctx)->data : (void *)(long)((struct __sk_buff *)ctx)->data;
}

static __always_inline void *dsr_end(void *ctx, bool nic)
{
	asm volatile("" : "+r"(ctx));
	return nic ? (void *)(long)((struct xdp_md *)ctx)->data_end : (void *)(long)((struct __sk_buff *)ctx)->data_end;
}

/*
 * The bytes at an offset that lies in a map, or NULL. The empty assembly hides from LLVM what it knows of the offset and the verifier does not, and
 * makes one pointer, whose bounds the verifier knows, instead of two sums.
 */
static __always_inline void *dsr_at(void *ctx, bool nic, u64 offset, u32 bytes)
{
	void *at = dsr_data(ctx, nic);

	asm volatile("" : "+r"(offset));
	at += offset & (2 * DSR_FAR - 1);
	asm volatile("" : "+r"(at));
	return at + bytes > dsr_end(ctx, nic) ? NULL : at;
}

/* Whether a frame has that many bytes, in whatever buffers. */
static __always_inline bool dsr_reaches(void *ctx, bool nic, u32 bytes)
{
	if (!nic)
		return ((struct __sk_buff *)ctx)->len >= bytes;
	return dsr_end(ctx, nic) - dsr_data(ctx, nic) >= bytes || bpf_xdp_get_buff_len(ctx) >= bytes;
}

/* Whether a packet looks as if one were in it. Of UDP in fragments only the first tells. */
static __always_inline bool dsr_wraps(u32 proto, __be16 port, const struct dsr_settings *settings)
{
	if (proto == IPPROTO_UDP)
		return settings->forms & DSR_GUE && port == settings->gue_port;
	return settings->forms & DSR_IPIP && (proto == IPPROTO_IPIP || proto == IPPROTO_IPV6);
}

/* The private data of variant 0: nothing, or a list of hops. */
static __always_inline bool dsr_read_hops(void *ctx, bool nic, struct dsr_frame *frame, u32 offset, u32 words)
{
	u32 size = frame->around_ip6 ? sizeof(struct in6_addr) : sizeof(__be32);
	struct dsr_hops *hops;

	if (!words)
		return true;
	hops = dsr_at(ctx, nic, offset, sizeof(*hops));
	if (!hops || hops->type || !hops->count || hops->count > DSR_MAX_HOPS || words * 4 != sizeof(*hops) + hops->count * size)
		return false;
	if (hops->next < hops->count)
		frame->hops = offset - frame->link;
	return true;
}

/*
 * Goes on from the outer IP header, which `frame` has, to the packet behind it: `around`, `proto` (IPPROTO_IPIP or IPPROTO_IPV6) and `length` (of what
 * is there) become the inner ones.
 */
static __always_inline bool dsr_read_gue(void *ctx, bool nic, struct dsr_frame *frame)
{
	u32 offset = frame->link + frame->around + sizeof(struct udphdr), words;
	struct udphdr *udp = dsr_at(ctx, nic, offset - sizeof(*udp), sizeof(*udp) + sizeof(struct dsr_gue));
	struct dsr_gue *gue = (void *)(udp + 1);

	if (!udp || bpf_ntohs(udp->len) != frame->length || frame->length < sizeof(*udp) + sizeof(*gue))
		return false;
	frame->around += sizeof(*udp);
	frame->length -= sizeof(*udp);
	if (gue->words >> 6 == 1) {
		frame->proto = gue->words >> 5 == 2 ? IPPROTO_IPIP : IPPROTO_IPV6;	/* 4 is 0100, 6 is 0110 */
		return true;
	}
	words = gue->words & 31;
	if (gue->words != words || gue->flags || (gue->proto != IPPROTO_IPIP && gue->proto != IPPROTO_IPV6))
		return false;
	frame->proto = gue->proto;
	if (frame->length < sizeof(*gue) + words * 4 || !dsr_read_hops(ctx, nic, frame, offset + sizeof(*gue), words))
		return false;
	frame->around += sizeof(*gue) + words * 4;
	frame->length -= sizeof(*gue) + words * 4;
	return true;
}

/* Makes `frame`, which is that of the outer packet, that of what is in it, but for what only the inner packet says. */
static __always_inline bool dsr_read_outer(void *ctx, bool nic, struct dsr_frame *frame)
{
	u32 header = frame->header;

	if (frame->malformed || frame->length < header || frame->link + header >= DSR_FAR / 2 || !dsr_reaches(ctx, nic, frame->link + frame->length))
		return false;
	frame->around = header;
	frame->around_ip6 = frame->ip6;
	frame->around_tos = frame->tos;
	frame->hops = 0;
	frame->length -= header;
	return frame->proto != IPPROTO_UDP || dsr_read_gue(ctx, nic, frame);
}

static __always_inline bool dsr_has_ports(const struct dsr_frame *frame)
{
	return (frame->proto == IPPROTO_TCP || frame->proto == IPPROTO_UDP) && frame->fragment != FRAGMENT_LATER;
}

/* The bytes of a transport header that must be there. */
static __always_inline u32 dsr_transport(const struct dsr_frame *frame)
{
	if (frame->fragment == FRAGMENT_LATER)
		return 0;
	if (frame->proto == IPPROTO_TCP)
		return sizeof(struct tcphdr);
	return sizeof(struct udphdr);	/* ICMP has as many */
}

/* The packet in it. `packet` becomes that of the inner one, without an Ethernet header. */
static __always_inline bool dsr_read_inner(void *ctx, bool nic, struct packet *packet, struct dsr_frame *frame)
{
	u32 there = frame->length, proto = frame->proto;
	void *ip = dsr_at(ctx, nic, frame->link + frame->around, sizeof(struct iphdr));

	*packet = (struct packet){ .data = dsr_data(ctx, nic), .end = dsr_end(ctx, nic), .spare = -1 };
	if (!ip)
		return false;
	if (proto == IPPROTO_IPIP)
		packet_ip4(packet, ip);
	else if (ip + sizeof(struct ipv6hdr) <= packet->end)
		packet_ip6(packet, ip);
	if (!dsr_read_packet(packet, frame))
		return false;
	return frame->length == there && frame->header < DSR_FAR;
}

/* What is left to check of it, from numbers alone. */
static __always_inline bool dsr_is_whole(const struct dsr_frame *frame)
{
	return !frame->malformed && frame->length >= frame->header + dsr_transport(frame);
}

#endif
