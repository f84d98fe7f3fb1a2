/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * icmp.h: ICMP errors of both families. Whoever gets one looks for the packet that it quotes among those that it has sent, so the quote is translated
 * as that packet was, the other way round.
 *
 * A quote may end behind 8 bytes of the transport header (RFC 792): the ports, and the checksum of UDP, but not that of TCP. Errors are rare, so all
 * is read and written by offset, in whatever buffers it lies; offsets count from the beginning of the frame.
 */
#ifndef DSR_ICMP_H
#define DSR_ICMP_H

#define DSR_QUOTED_PORTS 8
#define DSR_QUOTED_EXTENSIONS 4
#define DSR_RECOMPUTE 1		/* BPF_F_RECOMPUTE_CSUM: what the kernel knows of the sum of the bytes stays right */

struct dsr_icmp {
	u8 type;
	u8 code;
	__sum16 check;
	__be32 rest;
};

/* What the addresses of an IPv4 header share its checksum with. */
struct dsr_end4 {
	u8 ttl;
	u8 proto;
	__sum16 check;
	__be32 address[2];
};

struct dsr_quote {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	u32 proto;
	u32 ip;		/* offset of the quoted IP header */
	u32 transport;	/* and of the quoted transport header */
	u32 there;	/* how much of it is quoted */
};

/* What a quote becomes. */
struct dsr_quoted {
	const __be32 *source;
	const __be32 *destination;
	__be16 source_port;
	__be16 destination_port;
};

static __always_inline bool dsr_load(void *ctx, bool nic, u32 offset, void *to, u32 bytes)
{
	return !(nic ? bpf_xdp_load_bytes(ctx, offset, to, bytes) : bpf_skb_load_bytes(ctx, offset, to, bytes));
}

static __always_inline bool dsr_store(void *ctx, bool nic, u32 offset, void *from, u32 bytes)
{
	return !(nic ? bpf_xdp_store_bytes(ctx, offset, from, bytes) : bpf_skb_store_bytes(ctx, offset, from, bytes, DSR_RECOMPUTE));
}

/* Where the ICMP header begins. */
static __always_inline u32 dsr_icmp_at(const struct dsr_frame *frame)
{
	return frame->link + frame->around + frame->header;
}

/* Not among them: redirects, which are for hosts of one link. */
static __always_inline bool dsr_is_error(u32 ip6, u8 type)
{
	if (ip6)
		return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

static __always_inline bool dsr_quote4(void *ctx, bool nic, struct dsr_quote *quote)
{
	struct iphdr ip;

	if (!dsr_load(ctx, nic, quote->ip, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(0x1fff))
		return false;
	dsr_map4(quote->source, ip.saddr);
	dsr_map4(quote->destination, ip.daddr);
	quote->proto = ip.protocol;
	quote->transport = quote->ip + ip.ihl * 4;
	return true;
}

static __always_inline bool dsr_quote6(void *ctx, bool nic, struct dsr_quote *quote)
{
	struct ip6_extension extension;
	struct ipv6hdr ip;
	u32 at = sizeof(ip);
	u8 proto;

	if (!dsr_load(ctx, nic, quote->ip, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(quote->source, &ip.saddr, sizeof(quote->source));
	__builtin_memcpy(quote->destination, &ip.daddr, sizeof(quote->destination));
	proto = ip.nexthdr;
#pragma unroll
	for (int i = 0; i < DSR_QUOTED_EXTENSIONS; i++) {
		if (!packet_is_extension(proto))
			break;
		if (!dsr_load(ctx, nic, quote->ip + at, &extension, sizeof(extension)))
			return false;
		if (proto == IPPROTO_FRAGMENT && extension.offset_more & bpf_htons(0xfff8))
			return false;
		at += packet_extension_bytes(proto, extension.length);
		proto = extension.next_header;
	}
	quote->proto = proto;
	quote->transport = quote->ip + at;
	return true;
}

/* The packet that an ICMP error quotes. False where that is not enough, or no TCP or UDP. */
static __always_inline bool dsr_read_quote(void *ctx, bool nic, const struct dsr_frame *frame, struct dsr_quote *quote)
{
	u32 end = frame->link + frame->around + frame->length;
	__be16 ports[2];

	*quote = (struct dsr_quote){ .ip = dsr_icmp_at(frame) + sizeof(struct dsr_icmp) };
	if (!(frame->ip6 ? dsr_quote6(ctx, nic, quote) : dsr_quote4(ctx, nic, quote)))
		return false;
	if (quote->proto != IPPROTO_TCP && quote->proto != IPPROTO_UDP)
		return false;
	/* bytes behind the message do not count: a frame may be padded */
	if (end < quote->transport + DSR_QUOTED_PORTS || !dsr_load(ctx, nic, quote->transport, ports, sizeof(ports)))
		return false;
	quote->there = end - quote->transport;
	quote->source_port = ports[0];
	quote->destination_port = ports[1];
	return true;
}

/* The addresses in the quoted IP header. `changed` is what the ICMP checksum must learn of; what comes into it is not folded. */
static __always_inline bool dsr_write_quoted_ip(void *ctx, bool nic, u32 ip6, const struct dsr_quote *quote, const struct dsr_quoted *new,
						u64 difference, u64 *changed)
{
	struct dsr_end4 end;
	__sum16 old;

	*changed += difference;
	if (ip6) {
		return dsr_store(ctx, nic, quote->ip + __builtin_offsetof(struct ipv6hdr, saddr), (void *)new->source, sizeof(quote->source)) &&
		       dsr_store(ctx, nic, quote->ip + __builtin_offsetof(struct ipv6hdr, daddr), (void *)new->destination,
				 sizeof(quote->destination));
	}
	if (!dsr_load(ctx, nic, quote->ip + __builtin_offsetof(struct iphdr, ttl), &end, sizeof(end)))
		return false;
	old = end.check;
	end.check = dsr_changed(old, difference);
	end.address[0] = new->source[3];
	end.address[1] = new->destination[3];
	*changed += dsr_difference2(old, end.check);
	return dsr_store(ctx, nic, quote->ip + __builtin_offsetof(struct iphdr, ttl), &end, sizeof(end));
}

/* The ports, and the checksum if it is quoted. */
static __always_inline bool dsr_write_quoted_transport(void *ctx, bool nic, const struct dsr_quote *quote, const struct dsr_quoted *new,
						       u64 difference, u64 *changed)
{
	u32 inside = quote->proto == IPPROTO_TCP ? __builtin_offsetof(struct tcphdr, check) : __builtin_offsetof(struct udphdr, check);
	__be16 ports[2] = { new->source_port, new->destination_port };
	u64 port = dsr_difference2(quote->source_port, ports[0]) + dsr_difference2(quote->destination_port, ports[1]);
	__sum16 old, check;

	*changed += port;
	if (!dsr_store(ctx, nic, quote->transport, ports, sizeof(ports)))
		return false;
	if (quote->there < inside + sizeof(check))
		return true;
	if (!dsr_load(ctx, nic, quote->transport + inside, &old, sizeof(old)))
		return false;
	check = quote->proto == IPPROTO_UDP ? dsr_changed_udp(old, difference + port) : dsr_changed(old, difference + port);
	*changed += dsr_difference2(old, check);
	return dsr_store(ctx, nic, quote->transport + inside, &check, sizeof(check));
}

/*
 * Writes what a quote becomes. `outside` is the difference of the addresses of the ICMP packet itself, which the checksum of ICMPv6 covers. False
 * where it cannot be; then the packet must not go on.
 */
static __always_inline bool dsr_write_quote(void *ctx, bool nic, const struct dsr_frame *frame, const struct dsr_quote *quote,
					    const struct dsr_quoted *new, u64 outside)
{
	u64 difference = dsr_difference(quote->source, new->source) + dsr_difference(quote->destination, new->destination);
	u32 at = dsr_icmp_at(frame) + __builtin_offsetof(struct dsr_icmp, check);
	u64 changed = frame->ip6 ? outside : 0;
	__sum16 check;

	if (!dsr_write_quoted_ip(ctx, nic, frame->ip6, quote, new, difference, &changed) ||
	    !dsr_write_quoted_transport(ctx, nic, quote, new, difference, &changed))
		return false;
	if (!dsr_load(ctx, nic, at, &check, sizeof(check)))
		return false;
	check = dsr_changed(check, changed);
	return dsr_store(ctx, nic, at, &check, sizeof(check));
}

/*
 * An ICMP packet that was encapsulated to us, which is still so. What an error quotes becomes what the workload has sent; its addresses are left to
 * the caller, who gets the place of the service: the destination is the workload. Gives a reason: DELIVERED, or why it is dropped.
 */
static __always_inline u32 dsr_arrive_icmp(void *ctx, bool nic, const struct dsr_frame *frame, const struct dsr_settings *settings,
					   u32 *place)
{
	struct dsr_service *service;
	struct dsr_quoted new;
	struct dsr_quote quote;
	u8 type;

	if (!dsr_load(ctx, nic, dsr_icmp_at(frame), &type, sizeof(type)))
		return BAD_INNER;
	if (!dsr_is_error(frame->ip6, type))
		return NO_SERVICE;
	if (frame->fragment || !dsr_read_quote(ctx, nic, frame, &quote) || !dsr_same(quote.source, frame->destination))
		return ICMP_UNMATCHED;
	*place = dsr_target_of(frame, quote.source, quote.source_port, quote.proto, settings);
	service = dsr_service_of(*place);
	if (!*place || !service)
		return ICMP_UNMATCHED;
	new = (struct dsr_quoted){
		.source = service->workload,
		.destination = quote.destination,
		.source_port = service->port ? service->backend_port : quote.source_port,
		.destination_port = quote.destination_port,
	};
	return dsr_write_quote(ctx, nic, frame, &quote, &new, dsr_difference(frame->destination, service->workload)) ? DELIVERED : NO_ROOM;
}

/* The flow that a quoted packet of a client belongs to, or NULL. */
static __always_inline struct dsr_flow *dsr_quoted_flow(const struct dsr_quote *quote)
{
	struct dsr_key key = { .port = quote->destination_port, .client_port = quote->source_port, .proto = quote->proto };
	bool opening;

	__builtin_memcpy(key.workload, quote->destination, sizeof(key.workload));
	__builtin_memcpy(key.client, quote->source, sizeof(key.client));
	return dsr_find(&key, dsr_now(), &opening);
}

/*
 * An ICMP packet that leaves. What an error quotes becomes what the client has sent, if that was to a VIP; its own addresses become what `source` and
 * `destination` point to then, and are left to the caller. The source becomes the VIP if it was the workload; that of a router in between stays. Gives
 * a reason: ANSWERED, NO_ROOM, or NO_REASON where it is not changed.
 */
static __always_inline u32 dsr_leave_icmp(struct __sk_buff *ctx, const struct dsr_frame *frame, __be32 *source, __be32 *destination, u32 *place)
{
	struct dsr_service *service;
	struct dsr_quoted new;
	struct dsr_quote quote;
	struct dsr_flow *flow;
	u8 type;

	if (!frame->icmp || frame->fragment || !dsr_load(ctx, false, dsr_icmp_at(frame), &type, sizeof(type)) || !dsr_is_error(frame->ip6, type))
		return NO_REASON;
	if (!dsr_read_quote(ctx, false, frame, &quote))
		return NO_REASON;
	flow = dsr_quoted_flow(&quote);
	if (!flow || flow->marks & (DSR_IS_DIRECT | DSR_HELD))
		return NO_REASON;
	service = dsr_service_of(flow->place);
	if (!service || service->id != flow->id)
		return NO_REASON;
	*place = flow->place;
	if (dsr_same(frame->source, quote.destination))
		__builtin_memcpy(source, flow->vip, sizeof(flow->vip));
	new = (struct dsr_quoted){
		.source = quote.source,
		.destination = flow->vip,
		.source_port = quote.source_port,
		.destination_port = flow->vip_port,
	};
	if (flow->marks & DSR_HAIRPIN) {
		__builtin_memcpy(destination, quote.destination, sizeof(quote.destination));
		new.source = destination;
	}
	return dsr_write_quote(ctx, false, frame, &quote, &new, dsr_difference(frame->source, source) + dsr_difference(frame->destination, destination)) ?
		       ANSWERED : NO_ROOM;
}

#endif
