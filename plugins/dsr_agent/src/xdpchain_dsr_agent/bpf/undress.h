/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * undress.h: takes off what is around a packet, and addresses it to the workload.
 *
 * The Ethernet header and VLAN tags stay; the checksums of the inner packet are corrected, so what was damaged on its way stays so.
 */
#ifndef DSR_UNDRESS_H
#define DSR_UNDRESS_H

#define DSR_FIXED_GSO (1ULL << 0)	/* BPF_F_ADJ_ROOM_FIXED_GSO */
#define DSR_DECAP_IP4 (1ULL << 7)	/* BPF_F_ADJ_ROOM_DECAP_L3_IPV4 */
#define DSR_DECAP_IP6 (1ULL << 8)	/* BPF_F_ADJ_ROOM_DECAP_L3_IPV6 */

enum dsr_ecn {
	DSR_NOT_ECT,
	DSR_ECT1,
	DSR_ECT0,
	DSR_CE,
	DSR_ECN,	/* how many; one less is the mask */
};

/* What becomes of an inner packet. */
struct dsr_change {
	const __be32 *source;
	const __be32 *destination;
	__be16 port;
	u32 tos;
	u64 addresses;		/* by how much they differ from what they were */
};

/*
 * The inner traffic class, by RFC 6040; false where congestion was marked on the way and the packet cannot say so.
 */
static __always_inline bool dsr_ecn(const struct dsr_frame *frame, u32 *tos)
{
	u32 outer = frame->around_tos & (DSR_ECN - 1), inner = frame->tos & (DSR_ECN - 1);

	*tos = frame->tos;
	if (outer == DSR_CE) {
		*tos |= DSR_CE;
		return inner != DSR_NOT_ECT;
	}
	if (outer == DSR_ECT1 && inner == DSR_ECT0)
		*tos ^= DSR_ECT0 | DSR_ECT1;
	return true;
}

/* The addresses and the traffic class in an IP header, whose end lies in the frame. */
static __always_inline bool dsr_write_ip(void *ctx, bool nic, const struct dsr_frame *frame, u32 offset, const struct dsr_change *change)
{
	if (frame->ip6) {
		struct ipv6hdr *ip = dsr_at(ctx, nic, offset, sizeof(*ip));

		if (!ip)
			return false;
		*(__be16 *)ip ^= bpf_htons((frame->tos ^ change->tos) << 4);
		__builtin_memcpy(&ip->saddr, change->source, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, change->destination, sizeof(ip->daddr));
	} else {
		struct iphdr *ip = dsr_at(ctx, nic, offset, sizeof(*ip));

		if (!ip)
			return false;
		ip->check = dsr_changed(ip->check, change->addresses + dsr_difference2(bpf_htons(frame->tos), bpf_htons(change->tos)));
		ip->tos = change->tos;
		ip->saddr = change->source[3];
		ip->daddr = change->destination[3];
	}
	return true;
}

/* The ports stand at the same place in both headers, the checksums do not. */
static __always_inline bool dsr_write_transport(struct xdp_md *ctx, const struct dsr_frame *frame, u32 offset, const struct dsr_change *change)
{
	u64 difference = change->addresses + dsr_difference2(frame->destination_port, change->port);

	if (frame->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = dsr_at(ctx, true, offset, sizeof(*tcp));

		if (!tcp)
			return false;
		tcp->check = dsr_changed(tcp->check, difference);
		tcp->dest = change->port;
	} else {
		struct udphdr *udp = dsr_at(ctx, true, offset, sizeof(*udp));

		if (!udp)
			return false;
		udp->check = dsr_changed_udp(udp->check, difference);
		udp->dest = change->port;
	}
	return true;
}

/*
 * The same where the checksum may be one that is not computed yet: it is that of the pseudo header then, knows no ports and is not inverted. The
 * kernel's helper corrects only what is whole, so it shows in what it does to it. It is asked once, for it costs as much as a look-up.
 */
static __always_inline bool dsr_store_transport(struct __sk_buff *ctx, const struct dsr_frame *frame, u32 offset, const struct dsr_change *change)
{
	u32 inside = frame->proto == IPPROTO_TCP ? __builtin_offsetof(struct tcphdr, check) : __builtin_offsetof(struct udphdr, check);
	u16 before, *check = dsr_at(ctx, false, offset + inside, sizeof(*check));
	u64 difference = change->addresses + dsr_difference2(frame->destination_port, change->port);
	u64 none = frame->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	bool same = dsr_fold(difference) == 0xffff;	/* minus zero would not show */
	struct udphdr *ports;

	if (!check)
		return false;
	before = *check;
	if (before || frame->proto == IPPROTO_TCP) {
		if (bpf_l4_csum_replace(ctx, (offset + inside) & (2 * DSR_FAR - 1), 0, same ? 1 : dsr_fold(difference), none))
			return false;
		check = dsr_at(ctx, false, offset + inside, sizeof(*check));
		if (!check)
			return false;
		if (*check == before)
			*check = dsr_fold(before + change->addresses);
		else if (same)
			*check = before;
	}
	ports = dsr_at(ctx, false, offset, sizeof(*ports));
	if (!ports)
		return false;
	ports->dest = change->port;
	return true;
}

/* The Ethernet header and the VLAN tags of a frame, as they stand there; what is behind them may be in it, too. */
struct dsr_link {
	u32 macs[3];
	u32 tags[PACKET_MAX_VLANS];
};

static __always_inline bool dsr_read_link(void *ctx, bool nic, struct dsr_link *link)
{
	u32 *at = dsr_at(ctx, nic, 0, sizeof(*link));

	if (!at)
		return false;
	__builtin_memcpy(link, at, sizeof(*link));
	return true;
}

static __always_inline __be16 dsr_ethertype(const struct dsr_frame *frame)
{
	return frame->ip6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

/* Writes it where the frame will begin, with the ethertype of the inner packet. */
static __always_inline bool dsr_write_link(struct xdp_md *ctx, const struct dsr_frame *frame, const struct dsr_link *link)
{
	u32 *at = dsr_at(ctx, true, frame->around, sizeof(*link) + sizeof(__be16));

	if (!at)
		return false;
	at[0] = link->macs[0];
	at[1] = link->macs[1];
	at[2] = link->macs[2];
	at += 3;
	if (frame->link > sizeof(struct ethhdr))
		*at++ = link->tags[0];
	if (frame->link > sizeof(struct ethhdr) + sizeof(struct vlan_tag))
		*at++ = link->tags[1];
	*(__be16 *)at = dsr_ethertype(frame);
	return true;
}

/* At XDP: all is written where it will be, then the frame begins later. */
static __always_inline bool dsr_undress_nic(struct xdp_md *ctx, const struct dsr_frame *frame, const struct dsr_change *change)
{
	u32 ip = frame->link + frame->around;
	struct dsr_link link;

	if (!dsr_write_ip(ctx, true, frame, ip, change))
		return false;
	if (dsr_has_ports(frame) && !dsr_write_transport(ctx, frame, ip + frame->header, change))
		return false;
	return dsr_read_link(ctx, true, &link) && dsr_write_link(ctx, frame, &link) && !bpf_xdp_adjust_head(ctx, frame->around);
}

struct dsr_tag {
	__be16 proto;
	u16 tci;
};

/*
 * At TC the kernel takes nothing away from a frame with a VLAN tag in it, so the first tag goes, which may be beside the frame; with it the kernel
 * takes the next one out of the frame, to be beside it. False where there are more.
 */
static __always_inline bool dsr_pop_tag(struct __sk_buff *ctx, const struct dsr_frame *frame, struct dsr_tag *tag)
{
	u32 inside = frame->link - sizeof(struct ethhdr);
	__be16 *first = dsr_at(ctx, false, 2 * ETH_ALEN, sizeof(struct vlan_tag));

	if (!first)
		return false;
	if (ctx->vlan_present) {
		tag->proto = ctx->vlan_proto;
		tag->tci = ctx->vlan_tci;
		inside += sizeof(struct vlan_tag);
	} else {
		tag->proto = first[0];
		tag->tci = bpf_ntohs(first[1]);
	}
	return inside <= PACKET_MAX_VLANS * sizeof(struct vlan_tag) && !bpf_skb_vlan_pop(ctx);
}

/* Takes away what is around; the kernel moves the MAC addresses. */
static __always_inline bool dsr_shrink(struct __sk_buff *ctx, const struct dsr_frame *frame)
{
	u64 flags = DSR_FIXED_GSO;

	if (frame->ip6 != frame->around_ip6)
		flags |= frame->ip6 ? DSR_DECAP_IP6 : DSR_DECAP_IP4;
	return !bpf_skb_adjust_room(ctx, -(int)frame->around, BPF_ADJ_ROOM_MAC, flags);
}

static __always_inline bool dsr_undress_port(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_change *change)
{
	bool tagged = frame->link != sizeof(struct ethhdr);
	struct dsr_tag tag = {};
	struct ethhdr *eth;

	if (tagged && !dsr_pop_tag(ctx, frame, &tag))
		return false;
	if (!dsr_shrink(ctx, frame))
		return false;
	if (dsr_has_ports(frame) && !dsr_store_transport(ctx, frame, sizeof(*eth) + frame->header, change))
		return false;
	if (!dsr_write_ip(ctx, false, frame, sizeof(*eth), change))
		return false;
	eth = dsr_at(ctx, false, 0, sizeof(*eth));
	if (!eth)
		return false;
	*(__be16 *)((void *)eth + 2 * ETH_ALEN) = dsr_ethertype(frame);
	return !tagged || !bpf_skb_vlan_push(ctx, tag.proto, tag.tci);
}

static __always_inline bool dsr_undress(void *ctx, bool nic, const struct dsr_frame *frame, struct dsr_change *change)
{
	change->addresses = dsr_difference(frame->source, change->source) + dsr_difference(frame->destination, change->destination);
	return nic ? dsr_undress_nic(ctx, frame, change) : dsr_undress_port(ctx, frame, change);
}

#endif
