/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * icmp.h: ICMP of both families around a VIP: echo requests are answered, errors are led to the flow that they quote, and who sends what does not
 * fit is told.
 *
 * The answers go back the way the packet came: addresses and MAC addresses change places, VLAN tags stay.
 */
#ifndef ELB_ICMP_H
#define ELB_ICMP_H

#define ELB_ICMP_TTL 64
#define ELB_QUOTE 512			/* bytes of a packet that an error quotes; RFC 1812 bounds the whole error to 576, RFC 4443 to 1280 */
#define ELB_QUOTED_PORTS 8		/* bytes of a transport header that an error quotes at least (RFC 792) */
#define ELB_QUOTED_EXTENSIONS 4
#define ELB_MIN_MTU6 1280		/* RFC 8200 */
#define ELB_ANSWERS 1000		/* errors for each CPU and tick */

/* How many errors this CPU has sent. */
struct elb_budget {
	u32 tick;
	u32 spent;
};
_Static_assert(sizeof(struct elb_budget) == 8, "as in the schema");

BPF_TABLE("percpu_array", u32, struct elb_budget, elb_budget, BY_SCHEMA);	/* one; the datapath writes */

/* The headers of a packet without extension headers, read anew. False where they are not all there. */
static __always_inline bool elb_icmp_packet(struct xdp_md *ctx, const struct elb_frame *frame, struct packet *packet)
{
	void *data = (void *)(long)ctx->data, *ip, *icmp;

	if (frame->vlans > PACKET_MAX_VLANS)
		return false;
	ip = data + sizeof(struct ethhdr) + frame->vlans * sizeof(struct vlan_tag);
	asm volatile("" : "+r"(ip));	/* one pointer, whose bounds the verifier knows, instead of the same sum twice */
	icmp = ip + (frame->header & 63);
	asm volatile("" : "+r"(icmp));
	*packet = (struct packet){ .data = data, .end = (void *)(long)ctx->data_end, .eth = data, .fragment = frame->fragment };
	if (packet->data + sizeof(struct ethhdr) > packet->end || icmp + sizeof(struct icmphdr) > packet->end)
		return false;
	if (frame->ip6) {
		if (ip + sizeof(struct ipv6hdr) > packet->end)
			return false;
		packet->ip6 = ip;
		packet->icmp6 = icmp;
		packet->spare = packet_spare(packet->ip6 + 1, packet->end, packet->ip6->payload_len);
	} else {
		if (ip + sizeof(struct iphdr) > packet->end)
			return false;
		packet->ip4 = ip;
		packet->icmp = icmp;
		packet->spare = packet_spare(packet->ip4, packet->end, packet->ip4->tot_len);
	}
	return true;
}

static __always_inline bool elb_is_echo(const struct packet *packet)
{
	if (packet->ip4 && packet->icmp)
		return packet->icmp->type == ICMP_ECHO;
	return packet->ip6 && packet->icmp6 && packet->icmp6->icmp6_type == ICMPV6_ECHO_REQUEST;
}

/*
 * The ports of a quoted packet, whose transport header begins at `l4`. Bytes behind the ICMP message do not count: a frame may be padded.
 * The empty assembly keeps LLVM from mixing the pointers with the length, which the verifier refuses.
 */
static __always_inline bool elb_quoted_ports(const struct packet *packet, void *l4, u8 proto, struct elb_flow *flow)
{
	s64 there = packet->end - l4;
	struct udphdr *ports = l4;	/* those of TCP stand there, too */

	asm volatile("" : "+r"(there));
	if (packet->spare > 0)
		there -= packet->spare;
	if ((proto != IPPROTO_TCP && proto != IPPROTO_UDP) || there < ELB_QUOTED_PORTS || (void *)(ports + 1) > packet->end)
		return false;
	flow->source_port = ports->dest;
	flow->destination_port = ports->source;
	flow->proto = proto;
	return true;
}

static __always_inline bool elb_quoted4(const struct packet *packet, struct elb_flow *flow)
{
	u8 type = packet->icmp->type;
	struct iphdr *ip = (void *)(packet->icmp + 1);
	u32 header;

	if (type != ICMP_DEST_UNREACH && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETERPROB)
		return false;
	if ((void *)(ip + 1) > packet->end)
		return false;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip) || ip->frag_off & bpf_htons(0x1fff) || ip->saddr != packet->ip4->daddr)
		return false;
	flow->source[2] = ELB_MAPPED;
	flow->source[3] = ip->daddr;
	flow->destination[2] = ELB_MAPPED;
	flow->destination[3] = ip->saddr;
	return elb_quoted_ports(packet, (void *)ip + header, ip->protocol, flow);
}

static __always_inline bool elb_quoted6(const struct packet *packet, struct elb_flow *flow)
{
	struct ipv6hdr *ip = (void *)(packet->icmp6 + 1);
	u8 type = packet->icmp6->icmp6_type, proto;
	u32 at = sizeof(*ip);

	if (type < ICMPV6_DEST_UNREACH || type > ICMPV6_PARAMPROB)
		return false;
	if ((void *)(ip + 1) > packet->end || ip->version != 6)
		return false;
	proto = ip->nexthdr;
#pragma unroll
	for (int i = 0; i < ELB_QUOTED_EXTENSIONS; i++) {
		struct ip6_extension *extension = (void *)ip + at;

		if (!packet_is_extension(proto))
			break;
		if ((void *)(extension + 1) > packet->end)
			return false;
		if (proto == IPPROTO_FRAGMENT && extension->offset_more & bpf_htons(0xfff8))
			return false;
		at += packet_extension_bytes(proto, extension->length);
		proto = extension->next_header;
	}
	__builtin_memcpy(flow->source, &ip->daddr, sizeof(flow->source));
	__builtin_memcpy(flow->destination, &ip->saddr, sizeof(flow->destination));
	for (int i = 0; i < 4; i++)
		if (flow->destination[i] != packet->ip6->daddr.s6_addr32[i])
			return false;
	return elb_quoted_ports(packet, (void *)ip + at, proto, flow);
}

/*
 * The client's flow that an ICMP error is about: what the VIP has sent, the other way round. False where the packet is no error, or quotes too
 * little, or what its addressee has not sent.
 */
static __always_inline bool elb_quoted(struct packet *packet, struct elb_flow *flow)
{
	*flow = (struct elb_flow){};
	if (packet->ip4 && packet->icmp)
		return elb_quoted4(packet, flow);
	if (packet->ip6 && packet->icmp6)
		return elb_quoted6(packet, flow);
	return false;
}

static __always_inline void elb_swap_macs(struct ethhdr *eth)
{
	u16 *mac = (u16 *)eth;

#pragma unroll
	for (int i = 0; i < 3; i++) {
		u16 word = mac[i];

		mac[i] = mac[i + 3];
		mac[i + 3] = word;
	}
}

/* The checksums are corrected, not computed: what was damaged on its way stays so. */
static __always_inline void elb_echo4(struct iphdr *ip, struct icmphdr *icmp)
{
	u16 *ttl = (u16 *)&ip->ttl, *type = (u16 *)&icmp->type, old, check;
	__be32 client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	old = *ttl;
	ip->ttl = ELB_ICMP_TTL;
	ip->check = elb_sum_changed(ip->check, old, *ttl);
	old = *type;
	icmp->type = ICMP_ECHOREPLY;
	check = elb_sum_changed(icmp->checksum, old, *type);
	icmp->checksum = check ? check : 0xffff;	/* both are right, but in a reply of nothing but zeros */
}

static __always_inline void elb_echo6(struct ipv6hdr *ip, struct icmp6hdr *icmp)
{
	u16 *type = (u16 *)&icmp->icmp6_type, old = *type;
	struct in6_addr client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	ip->hop_limit = ELB_ICMP_TTL;
	icmp->icmp6_type = ICMPV6_ECHO_REPLY;
	icmp->icmp6_cksum = elb_sum_changed(icmp->icmp6_cksum, old, *type);
}

/*
 * Answers an echo request in its own frame. One with IP options or extension headers is refused: they may have to be followed on the way back, or
 * must not stand there.
 */
static __always_inline verdict elb_echo(struct xdp_md *ctx, struct packet *packet)
{
	if (packet->fragment)
		return drop(ECHO_REFUSED);
	if (packet->ip4 && packet->icmp && packet->ip4->ihl == 5)
		elb_echo4(packet->ip4, packet->icmp);
	else if (packet->ip6 && packet->icmp6 && packet->ip6->nexthdr == IPPROTO_ICMPV6)
		elb_echo6(packet->ip6, packet->icmp6);
	else
		return drop(ECHO_REFUSED);
	elb_swap_macs(packet->eth);
	return tx(ECHO_REPLY);
}

#define ELB_QUOTES ~0U	/* no verdict */

/* Answers an ICMP packet for a VIP, or makes `frame` that of the flow that it quotes. */
static __always_inline verdict elb_icmp(struct xdp_md *ctx, struct elb_frame *frame)
{
	struct packet packet;

	if (frame->fragment)
		return drop(FRAGMENT);
	if (frame->extended)
		return drop(UNROUTABLE);
	if (frame->length < frame->header + sizeof(struct icmphdr) || !elb_icmp_packet(ctx, frame, &packet))
		return drop(MALFORMED);
	if (elb_is_echo(&packet))
		return elb_echo(ctx, &packet);
	if (!elb_quoted(&packet, &frame->flow))
		return next(NO_REASON);
	frame->event = ELB_LOOK;
	frame->transport = sizeof(struct icmphdr);
	return ELB_QUOTES;
}

static __always_inline bool elb_may_answer(void)
{
	u32 zero = 0, tick = bpf_ktime_get_ns() >> ELB_TICK_BITS;
	struct elb_budget *budget = elb_budget.lookup(&zero);

	if (!budget)
		return false;
	if (budget->tick != tick) {
		budget->tick = tick;
		budget->spent = 0;
	}
	if (budget->spent >= ELB_ANSWERS)
		return false;
	budget->spent++;
	return true;
}

/*
 * Writes the Ethernet header and VLAN tags in front of a frame that has grown by `room` bytes, the other way round. Gives where the IP header
 * begins, or NULL.
 */
static __always_inline void *elb_link_back(struct xdp_md *ctx, u32 room, u32 vlans)
{
	u16 *new = (void *)(long)ctx->data, *old = (void *)new + room;

	if ((void *)(old + 11) > (void *)(long)ctx->data_end)
		return NULL;
	new[0] = old[3];
	new[1] = old[4];
	new[2] = old[5];
	new[3] = old[0];
	new[4] = old[1];
	new[5] = old[2];
	new[6] = old[6];
	if (!vlans)
		return new + 7;
	new[7] = old[7];
	new[8] = old[8];
	if (vlans == 1)
		return new + 9;
	new[9] = old[9];
	new[10] = old[10];
	return new + 11;
}

static __always_inline u64 elb_sum_words(const void *at, u32 words)
{
	const u32 *word = at;
	u64 sum = 0;

#pragma unroll
	for (u32 i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

struct elb_error4 {
	struct iphdr ip;
	__be32 type;
	__be32 mtu;
	struct iphdr quoted;
};

struct elb_error6 {
	struct ipv6hdr ip;
	__be32 type;
	__be32 mtu;
	struct ipv6hdr quoted;
};

#define ELB_ERROR4_ROOM __builtin_offsetof(struct elb_error4, quoted)
#define ELB_ERROR6_ROOM __builtin_offsetof(struct elb_error6, quoted)

static __always_inline verdict elb_too_big4(struct xdp_md *ctx, u32 vlans, u32 quote, u64 sum, u32 mtu)
{
	struct elb_error4 *error = elb_link_back(ctx, ELB_ERROR4_ROOM, vlans);
	struct iphdr *ip = &error->ip;

	if (!error || (void *)(error + 1) > (void *)(long)ctx->data_end)
		return drop(NO_ROOM);
	*(__be16 *)ip = bpf_htons(0x4500);
	ip->tot_len = bpf_htons(ELB_ERROR4_ROOM + quote);
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000);	/* never fragmented, so it needs no id (RFC 6864) */
	ip->ttl = ELB_ICMP_TTL;
	ip->protocol = IPPROTO_ICMP;
	ip->check = 0;
	ip->saddr = error->quoted.daddr;
	ip->daddr = error->quoted.saddr;
	ip->check = ~elb_fold(elb_sum_words(ip, 5));
	error->type = bpf_htonl(ICMP_DEST_UNREACH << 24 | ICMP_FRAG_NEEDED << 16);
	error->mtu = bpf_htonl(mtu < 0xffff ? mtu : 0xffff);
	((struct icmphdr *)&error->type)->checksum = ~elb_fold(sum + error->type + error->mtu);
	return tx(TOO_BIG);
}

static __always_inline verdict elb_too_big6(struct xdp_md *ctx, u32 vlans, u32 quote, u64 sum, u32 mtu)
{
	struct elb_error6 *error = elb_link_back(ctx, ELB_ERROR6_ROOM, vlans);
	u32 length = sizeof(struct icmp6hdr) + quote;
	struct ipv6hdr *ip = &error->ip;

	if (!error || (void *)(error + 1) > (void *)(long)ctx->data_end)
		return drop(NO_ROOM);
	*(__be32 *)ip = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = ELB_ICMP_TTL;
	ip->saddr = error->quoted.daddr;
	ip->daddr = error->quoted.saddr;
	error->type = bpf_htonl(ICMPV6_PKT_TOOBIG << 24);
	error->mtu = bpf_htonl(mtu > ELB_MIN_MTU6 ? mtu : ELB_MIN_MTU6);
	sum += elb_sum_words(&ip->saddr, 8) + bpf_htonl(length) + bpf_htonl(IPPROTO_ICMPV6) + error->type + error->mtu;
	((struct icmp6hdr *)&error->type)->icmp6_cksum = ~elb_fold(sum);
	return tx(TOO_BIG);
}

/*
 * Tells the sender of a packet that `mtu` bytes fit, in the packet's own frame: it is cut behind what is quoted, and grows in front. No error is an
 * answer to an ICMP message or to a later fragment (RFC 1122, RFC 4443).
 */
static __always_inline verdict elb_too_big(struct xdp_md *ctx, const struct elb_frame *frame, u32 mtu)
{
	u32 quote = frame->length < ELB_QUOTE ? frame->length : ELB_QUOTE, room = frame->ip6 ? ELB_ERROR6_ROOM : ELB_ERROR4_ROOM;
	s64 sum;

	if (frame->icmp || frame->fragment == FRAGMENT_LATER || !elb_may_answer())
		return drop(TOO_BIG_LIMITED);
	sum = elb_sum_chunks(ctx, frame->link, quote, ELB_QUOTE / ELB_CHUNK);
	if (sum < 0)
		return drop(MALFORMED);
	if (bpf_xdp_adjust_tail(ctx, (int)(frame->link + quote) - (int)bpf_xdp_get_buff_len(ctx)) || bpf_xdp_adjust_head(ctx, -(int)room))
		return drop(NO_ROOM);
	if (frame->ip6)
		return elb_too_big6(ctx, frame->vlans, quote, sum, mtu);
	return elb_too_big4(ctx, frame->vlans, quote, sum, mtu);
}

#endif
