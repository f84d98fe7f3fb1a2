/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * chance.h: the second chance. A packet of a connection that is not known here goes on to the next backend that its list of hops names.
 *
 * Each agent moves the index in the list on, and whoever finds none left delivers: no packet goes round for ever.
 */
#ifndef DSR_CHANCE_H
#define DSR_CHANCE_H

#define DSR_AF_INET 2
#define DSR_AF_INET6 10

/* The hop that comes next; IPv4 in the first word. */
static __always_inline bool dsr_next_hop(void *ctx, bool nic, const struct dsr_frame *frame, __be32 *address)
{
	u32 offset = frame->link + frame->hops, size = frame->around_ip6 ? sizeof(struct in6_addr) : sizeof(__be32);
	struct dsr_hops *hops = dsr_at(ctx, nic, offset, sizeof(*hops));
	__be32 *hop;

	if (!hops)
		return false;
	hop = dsr_at(ctx, nic, offset + sizeof(*hops) + (hops->next & (DSR_MAX_HOPS - 1)) * size, sizeof(struct in6_addr));
	if (!hop)	/* what is in it is no shorter than an IPv6 address */
		return false;
	address[0] = hop[0];
	address[1] = hop[1];
	address[2] = hop[2];
	address[3] = hop[3];
	return true;
}

/* Writes it into the outer header, and the index behind it. `less` is what the time to live loses. */
static __always_inline bool dsr_send_on(void *ctx, bool nic, const struct dsr_frame *frame, const __be32 *address, u32 less)
{
	u32 offset = frame->link + frame->hops - sizeof(struct dsr_gue) - sizeof(struct udphdr);
	struct udphdr *udp = dsr_at(ctx, nic, offset, sizeof(*udp) + sizeof(struct dsr_gue) + sizeof(struct dsr_hops));
	struct dsr_hops *hops = (void *)(udp + 1) + sizeof(struct dsr_gue);
	u64 difference = 0;
	__be16 *index;

	if (!udp)
		return false;
	index = (__be16 *)&hops->next;
	difference += dsr_difference2(*index, *index + bpf_htons(0x100));
	*index += bpf_htons(0x100);
	if (frame->around_ip6) {
		struct ipv6hdr *ip = dsr_at(ctx, nic, frame->link, sizeof(*ip));

		if (!ip)
			return false;
		difference += dsr_difference(ip->daddr.s6_addr32, address);
		udp->check = dsr_changed_udp(udp->check, difference);
		ip->hop_limit -= less;
		__builtin_memcpy(&ip->daddr, address, sizeof(ip->daddr));
	} else {
		struct iphdr *ip = dsr_at(ctx, nic, frame->link, sizeof(*ip));
		u64 moved;

		if (!ip)
			return false;
		moved = (u64)(u32)~ip->daddr + address[0];
		udp->check = dsr_changed_udp(udp->check, difference + moved);
		ip->check = dsr_changed(ip->check, moved + dsr_difference2(bpf_htons(ip->ttl << 8), bpf_htons((ip->ttl - less) << 8)));
		ip->ttl -= less;
		ip->daddr = address[0];
	}
	return true;
}

/* What the routing knows of the way to the next hop: what bpf_fib_lookup says. */
static __always_inline long dsr_route(void *ctx, bool nic, const struct dsr_frame *frame, const __be32 *address, struct bpf_fib_lookup *fib)
{
	u32 arrived = nic ? ((struct xdp_md *)ctx)->ingress_ifindex : ((struct __sk_buff *)ctx)->ingress_ifindex;
	u32 *tos = (u32 *)&fib->tos;

	fib->ifindex = arrived;
	fib->tot_len = frame->around + frame->length;
	fib->l4_protocol = IPPROTO_UDP;
	*tos = 0;
	if (frame->around_ip6) {
		struct ipv6hdr *ip = dsr_at(ctx, nic, frame->link, sizeof(*ip));

		if (!ip)
			return -1;
		fib->family = DSR_AF_INET6;
		__builtin_memcpy(fib->ipv6_src, &ip->saddr, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, address, sizeof(fib->ipv6_dst));
	} else {
		struct iphdr *ip = dsr_at(ctx, nic, frame->link, sizeof(*ip));

		if (!ip)
			return -1;
		fib->family = DSR_AF_INET;
		fib->ipv4_src = ip->saddr;
		fib->ipv4_dst = address[0];
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

static __always_inline u32 dsr_time_to_live(void *ctx, bool nic, const struct dsr_frame *frame)
{
	u8 *ttl = dsr_at(ctx, nic, frame->link + (frame->around_ip6 ? __builtin_offsetof(struct ipv6hdr, hop_limit) : __builtin_offsetof(struct iphdr, ttl)), 1);

	return ttl ? *ttl : 0;
}

static __always_inline verdict dsr_leave_by(struct xdp_md *ctx, const struct bpf_fib_lookup *fib)
{
	struct ethhdr *eth = dsr_at(ctx, true, 0, sizeof(*eth));

	if (!eth)
		return drop(NO_ROOM);
	__builtin_memcpy(eth->h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, fib->smac, ETH_ALEN);
	if (fib->ifindex == ctx->ingress_ifindex)
		return tx(FORWARDED);
	return bpf_redirect(fib->ifindex, 0) == REDIRECT ? redirect(FORWARDED) : drop(NO_ROOM);
}

/* Sends a packet on to its next hop. Where that one's hardware address is not known at XDP, the host's stack finds it. Tagged frames: nobody knows which
 * tag they would need there. */
static __always_inline verdict dsr_forward(void *ctx, bool nic, const struct dsr_frame *frame)
{
	struct bpf_fib_lookup fib = {};
	__be32 address[4];
	long found;

	if (dsr_time_to_live(ctx, nic, frame) <= 1)
		return drop(EXPIRED);
	if (frame->link != sizeof(struct ethhdr) || !dsr_next_hop(ctx, nic, frame, address))
		return drop(NO_ROOM);
	found = dsr_route(ctx, nic, frame, address, &fib);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return drop(NO_ROOM);
	if (nic && found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return dsr_send_on(ctx, nic, frame, address, 0) ? pass(FORWARDED) : drop(NO_ROOM);
	if (!dsr_send_on(ctx, nic, frame, address, 1))
		return drop(NO_ROOM);
	if (nic)
		return dsr_leave_by(ctx, &fib);
	return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0) == TC_ACT_REDIRECT ? redirect(FORWARDED) : drop(NO_ROOM);
}

#endif
