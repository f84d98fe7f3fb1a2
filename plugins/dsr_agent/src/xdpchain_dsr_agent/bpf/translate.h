/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * translate.h: other addresses and another source port for a packet that leaves.
 *
 * What comes from a workload may be many segments in one, and its transport checksum may be whole, absent, only that of the pseudo header (a device
 * does the rest), or follow from a sum of the whole packet that the kernel has. A program cannot see which; bpf_l4_csum_replace does. The IPv4
 * header's own checksum is always whole.
 */
#ifndef DSR_TRANSLATE_H
#define DSR_TRANSLATE_H

#define DSR_ONES 0xffff	/* minus zero in one's complement: adding it changes no checksum */

/* What a packet gets that leaves; what stays is here, too. */
struct dsr_become {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	u16 hops;		/* by how many hops it has less to live */
};

static __always_inline u32 dsr_transport_at(const struct dsr_frame *frame)
{
	return frame->link + frame->header;
}

static __always_inline u32 dsr_check_at(const struct dsr_frame *frame)
{
	u32 inside = frame->proto == IPPROTO_TCP ? __builtin_offsetof(struct tcphdr, check) : __builtin_offsetof(struct udphdr, check);

	return dsr_transport_at(frame) + inside;
}

/* The bytes of the IP header and the transport header: each segment of many in one will have them. */
static __always_inline u32 dsr_headers(struct __sk_buff *ctx, const struct dsr_frame *frame)
{
	struct tcphdr *tcp;

	if (frame->proto != IPPROTO_TCP)
		return frame->header + sizeof(struct udphdr);
	tcp = dsr_at(ctx, false, dsr_transport_at(frame), sizeof(*tcp));
	return frame->header + (tcp ? tcp->doff * 4 : sizeof(*tcp));
}

/* How many packets the frame becomes on the wire. Where a guest has made the segments, gso_segs does not say. */
static __always_inline u32 dsr_segments(struct __sk_buff *ctx, const struct dsr_frame *frame)
{
	u32 segment = ctx->gso_size;

	return segment ? (ctx->len - frame->link - dsr_headers(ctx, frame) + segment - 1) / segment : 1;
}

/* Corrects a transport checksum that is whole for a change in the segment; one that is only that of the pseudo header stays. */
static __always_inline bool dsr_correct(struct __sk_buff *ctx, const struct dsr_frame *frame, u64 difference)
{
	u64 none = frame->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	return !bpf_l4_csum_replace(ctx, dsr_check_at(frame), 0, dsr_fold(difference), none);
}

/* The addresses and the hop limit in the IP header. `difference` is that of the addresses. */
static __always_inline bool dsr_write_addresses(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_become *become, u64 difference)
{
	if (frame->ip6) {
		struct ipv6hdr *ip = dsr_at(ctx, false, frame->link, sizeof(*ip));

		if (!ip)
			return false;
		__builtin_memcpy(&ip->saddr, become->source, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, become->destination, sizeof(ip->daddr));
		ip->hop_limit -= become->hops;
	} else {
		struct iphdr *ip = dsr_at(ctx, false, frame->link, sizeof(*ip));
		u16 *ttl, old;

		if (!ip)
			return false;
		ttl = (u16 *)&ip->ttl;
		old = *ttl;
		ip->saddr = become->source[3];
		ip->daddr = become->destination[3];
		ip->ttl -= become->hops;
		ip->check = dsr_changed(ip->check, difference + dsr_difference2(old, *ttl));
	}
	return true;
}

/*
 * What of a change in the IP header the kernel must be told where it has a sum of the whole packet: in IPv4 the header's checksum makes up for all that
 * changes in it, in IPv6 nothing does.
 */
static __always_inline u64 dsr_unbalanced(const struct dsr_frame *frame, const struct dsr_become *become, u64 difference)
{
	return frame->ip6 ? difference + dsr_difference2(bpf_htons(become->hops), 0) : 0;
}

static __always_inline bool dsr_write_header(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_become *become, u64 difference)
{
	if (frame->ip6)
		bpf_csum_update(ctx, dsr_fold(dsr_unbalanced(frame, become, difference)));
	return dsr_write_addresses(ctx, frame, become, difference);
}

/*
 * Corrects the transport checksum for other addresses and another port; false where the packet does not reach that far.
 *
 * The helper is asked for one change only, for it costs as much as all the rest: as if everything were in the segment. A checksum that has changed is
 * whole, and is right now. One that has not is that of the pseudo header: it knows no ports, is not inverted, and nobody has a sum of such a packet.
 * So that a whole one must change, what is asked for is no multiple of 0xffff.
 */
static __always_inline bool dsr_correct_all(struct __sk_buff *ctx, const struct dsr_frame *frame, u64 addresses, u64 port, u64 unbalanced)
{
	u16 *check = dsr_at(ctx, false, dsr_check_at(frame), sizeof(*check)), asked = dsr_fold(addresses + port), before;
	u64 rest = 0;

	if (!check)
		return false;
	before = *check;
	if (frame->proto == IPPROTO_UDP && !before) {
		bpf_csum_update(ctx, dsr_fold(unbalanced + port));
		return true;
	}
	if (asked == DSR_ONES) {
		rest = addresses;
		asked = dsr_fold(port);
	}
	if (asked != DSR_ONES) {
		if (!dsr_correct(ctx, frame, asked))
			return false;
		check = dsr_at(ctx, false, dsr_check_at(frame), sizeof(*check));
		if (!check)
			return false;
		if (*check == before) {
			*check = dsr_fold(before + addresses);
			return true;
		}
		if (rest)
			*check = frame->proto == IPPROTO_UDP ? dsr_changed_udp(*check, rest) : dsr_changed(*check, rest);
	}
	/* the checksum makes up for the port, and for the addresses, which are not in the segment */
	bpf_csum_update(ctx, dsr_fold(unbalanced + (u16)~dsr_fold(addresses)));
	return true;
}

/* Translates a packet that has a TCP or UDP header. False where that cannot be; the packet must not go on then, half of it may be done. */
static __always_inline bool dsr_translate(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_become *become)
{
	u64 addresses = dsr_difference(frame->source, become->source) + dsr_difference(frame->destination, become->destination);
	u64 port_changed = dsr_difference2(frame->source_port, become->source_port);
	__be16 *port;

	if (!dsr_correct_all(ctx, frame, addresses, port_changed, dsr_unbalanced(frame, become, addresses)))
		return false;
	port = dsr_at(ctx, false, dsr_transport_at(frame), sizeof(*port));
	if (!port)
		return false;
	*port = become->source_port;
	return dsr_write_addresses(ctx, frame, become, addresses);
}

#endif
