/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * onward.h: answers of a workload's port straight to the next hop.
 *
 * A host that routes for its workloads may have filters that know connections, or that a packet's source must be reached by the interface that it came
 * in by. Both refuse an answer whose source is the VIP: its first half came in another form, and nothing leads to the VIP. So what the host
 * would forward goes where its routes lead, past its stack; all else is the stack's.
 */
#ifndef DSR_ONWARD_H
#define DSR_ONWARD_H

#ifndef AF_INET
#define AF_INET 2
#endif
#ifndef AF_INET6
#define AF_INET6 10
#endif
#define DSR_TO_THIS_HOST 0	/* PACKET_HOST */
#define DSR_DONT_FRAGMENT bpf_htons(0x4000)

enum dsr_way {
	DSR_BY_STACK,
	DSR_ONWARD,
	DSR_REFUSED,	/* the stack will refuse it, and tell the sender why: so it must get what the sender has sent */
};

/* The longest packet that the frame becomes on the wire: of many segments in one all but the last are as long. */
static __always_inline u32 dsr_longest(struct __sk_buff *ctx, const struct dsr_frame *frame)
{
	u32 segment = ctx->gso_size;

	return segment ? dsr_headers(ctx, frame) + segment : frame->length;
}

/* Which way a packet goes when it has become what `become` says. `fib` is filled where it goes on from here. */
static __always_inline u32 dsr_way_of(struct __sk_buff *ctx, const struct dsr_frame *frame, const struct dsr_become *become, struct bpf_fib_lookup *fib)
{
	u32 lives, options, may_be_cut;
	struct iphdr *ip4;
	long result;

	/* a tag that is not in the frame any more means another interface of the stack */
	if (ctx->pkt_type != DSR_TO_THIS_HOST || ctx->vlan_present || frame->link != sizeof(struct ethhdr))
		return DSR_BY_STACK;
	ip4 = dsr_at(ctx, false, sizeof(struct ethhdr), sizeof(*ip4));
	if (!ip4)
		return DSR_BY_STACK;
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = frame->proto;
	fib->sport = become->source_port;
	fib->dport = frame->destination_port;
	fib->tot_len = dsr_longest(ctx, frame);
	fib->ifindex = ctx->ifindex;
	if (frame->ip6) {
		struct ipv6hdr *ip6 = (void *)ip4;

		fib->family = AF_INET6;
		fib->flowinfo = bpf_htonl(frame->tos << 20);
		__builtin_memcpy(fib->ipv6_src, become->source, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, become->destination, sizeof(fib->ipv6_dst));
		lives = ip6->hop_limit;
		options = ip6->nexthdr == IPPROTO_HOPOPTS;
		may_be_cut = 0;
	} else {
		fib->family = AF_INET;
		fib->tos = frame->tos;
		fib->ipv4_src = become->source[3];
		fib->ipv4_dst = become->destination[3];
		lives = ip4->ttl;
		options = frame->header != sizeof(*ip4);
		may_be_cut = !(ip4->frag_off & DSR_DONT_FRAGMENT);
	}
	result = bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return may_be_cut ? DSR_BY_STACK : DSR_REFUSED;
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DSR_BY_STACK;
	if (lives <= 1)
		return DSR_REFUSED;
	return options ? DSR_BY_STACK : DSR_ONWARD;
}

static __always_inline verdict dsr_go_onward(const struct bpf_fib_lookup *fib, u32 reason)
{
	struct bpf_redir_neigh hop = { .nh_family = fib->family };

	__builtin_memcpy(hop.ipv6_nh, fib->ipv6_dst, sizeof(hop.ipv6_nh));
	bpf_redirect_neigh(fib->ifindex, &hop, sizeof(hop), 0);
	return redirect(reason);
}

#endif
