/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * answer.h: the answers to a SYN, made of its own frame: RST, and SYN/ACK with a cookie.
 *
 * An answer goes back the way the SYN came: MAC addresses, addresses and ports change places, VLAN tags stay, IP options and extension headers do
 * not. A frame whose destination is a group is never answered.
 */
#ifndef RL_ANSWER_H
#define RL_ANSWER_H

#define RL_TTL 64
#define RL_MSS_OPTION 0x02040000	/* kind 2, length 4, and the MSS */
#define RL_COOKIE_WINDOW 64240		/* a multiple of the usual MSS, as the kernel has it; window scaling is not offered */
#define RL_MOST_TCP 60

struct rl_reply {
	struct tcphdr tcp;
	__be32 mss;		/* of a SYN/ACK only */
};
_Static_assert(sizeof(struct rl_reply) == 24, "no holes");

/* The network headers of an answer, and what of the frame it replaces. */
struct rl_route {
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	};
	u32 link;	/* bytes in front of the IP header */
	bool six;
};

static __always_inline u16 rl_fold(s64 sum)
{
	u32 folded = (u32)sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return ~folded;
}

/* False where there can be no answer. `bytes` is the length of what follows the IP header. */
static __always_inline bool rl_route_back(const struct rl_frame *frame, u32 bytes, struct rl_route *route)
{
	if (!(frame->flags & RL_UNICAST))
		return false;
	route->link = frame->link;
	if (frame->proto & RL_IPV6) {
		route->six = true;
		route->ip6.version = 6;
		route->ip6.payload_len = bpf_htons(bytes);
		route->ip6.nexthdr = IPPROTO_TCP;
		route->ip6.hop_limit = RL_TTL;
		__builtin_memcpy(&route->ip6.saddr, frame->destination, sizeof(struct in6_addr));
		__builtin_memcpy(&route->ip6.daddr, frame->source, sizeof(struct in6_addr));
		return true;
	}
	route->ip4.version = 4;
	route->ip4.ihl = sizeof(struct iphdr) / 4;
	route->ip4.tot_len = bpf_htons(sizeof(struct iphdr) + bytes);
	route->ip4.frag_off = bpf_htons(0x4000);	/* DF */
	route->ip4.ttl = RL_TTL;
	route->ip4.protocol = IPPROTO_TCP;
	route->ip4.saddr = frame->destination[3];
	route->ip4.daddr = frame->source[3];
	route->ip4.check = rl_fold(bpf_csum_diff(NULL, 0, (void *)&route->ip4, sizeof(route->ip4), 0));
	return true;
}

/* The ports and the acknowledgement of an answer. */
static __always_inline void rl_reply_to(const struct rl_frame *frame, u32 taken, u32 bytes, struct rl_reply *reply)
{
	reply->tcp.source = frame->destination_port;
	reply->tcp.dest = frame->source_port;
	reply->tcp.ack_seq = bpf_htonl(frame->seq + taken);
	reply->tcp.doff = bytes / 4;
	reply->tcp.ack = 1;
}

static __always_inline u16 rl_tcp_sum(const struct rl_route *route, struct rl_reply *reply, u32 bytes)
{
	u32 pseudo = bpf_htonl(IPPROTO_TCP + bytes);	/* protocol and length in one word: the sum is the same */
	s64 sum;

	sum = bpf_csum_diff(NULL, 0, (void *)reply, sizeof(*reply), pseudo);	/* without an option it is 0 */
	if (route->six)
		sum = bpf_csum_diff(NULL, 0, (void *)&route->ip6.saddr, 2 * sizeof(struct in6_addr), sum);
	else
		sum = bpf_csum_diff(NULL, 0, (void *)&route->ip4.saddr, 2 * sizeof(__be32), sum);
	return rl_fold(sum);
}

static __always_inline void rl_swap_macs(struct ethhdr *eth)
{
	u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
}

/* Writes the answer over the frame. False: the frame cannot take it. */
static __always_inline bool rl_write(struct xdp_md *ctx, const struct rl_route *route, struct rl_reply *reply, u32 bytes)
{
	u32 header = route->six ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	u32 total = route->link + header + bytes, now = bpf_xdp_get_buff_len(ctx);
	void *data, *end, *at;

	if (total < ETH_ZLEN)
		total = now < ETH_ZLEN && now > total ? now : now < total ? total : ETH_ZLEN;
	if (total != now && bpf_xdp_adjust_tail(ctx, (int)(total - now)))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) > end)
		return false;
	rl_swap_macs(data);
	at = data + (route->link & 31);
	asm volatile("" : "+r"(at));	/* one pointer, whose bounds the verifier knows */
	if (route->six) {
		if (at + sizeof(struct ipv6hdr) > end)
			return false;
		__builtin_memcpy(at, &route->ip6, sizeof(struct ipv6hdr));
		at += sizeof(struct ipv6hdr);
	} else {
		if (at + sizeof(struct iphdr) > end)
			return false;
		__builtin_memcpy(at, &route->ip4, sizeof(struct iphdr));
		at += sizeof(struct iphdr);
	}
	asm volatile("" : "+r"(at));
	if (at + sizeof(struct tcphdr) > end)
		return false;
	__builtin_memcpy(at, &reply->tcp, sizeof(struct tcphdr));
	if (bytes == sizeof(struct tcphdr))
		return true;
	at += sizeof(struct tcphdr);
	if (at + sizeof(__be32) > end)
		return false;
	*(__be32 *)at = reply->mss;
	return true;
}

/* RFC 9293, section 3.5.2: a RST for a segment without ACK has the sequence number 0 and acknowledges all of the segment. */
static __always_inline bool rl_reset(struct xdp_md *ctx, const struct rl_frame *frame)
{
	struct rl_route route = {};
	struct rl_reply reply = {};
	u32 bytes = sizeof(struct tcphdr);

	if (!rl_route_back(frame, bytes, &route))
		return false;
	rl_reply_to(frame, frame->segment, bytes, &reply);
	reply.tcp.rst = 1;
	reply.tcp.check = rl_tcp_sum(&route, &reply, bytes);
	return rl_write(ctx, &route, &reply, bytes);
}

/* Cookies are made for a listening socket, so that it takes them: a program that makes them for nobody would have every ACK refused. */
static __always_inline s64 rl_cookie_of(void *listener, void *ip, u32 ip_bytes, struct tcphdr *tcp, u64 bytes)
{
	s64 cookie;

	if (!listener)
		return -1;
	cookie = bpf_tcp_gen_syncookie(listener, ip, ip_bytes, tcp, bytes);
	bpf_sk_release(listener);
	return cookie;
}

static __always_inline s64 rl_cookie4(struct xdp_md *ctx, const struct rl_frame *frame, struct tcphdr *tcp, u64 bytes)
{
	struct iphdr ip = { .version = 4, .ihl = sizeof(ip) / 4, .saddr = frame->source[3], .daddr = frame->destination[3] };
	struct bpf_sock_tuple tuple = {};

	tuple.ipv4.saddr = ip.saddr;
	tuple.ipv4.daddr = ip.daddr;
	tuple.ipv4.sport = frame->source_port;
	tuple.ipv4.dport = frame->destination_port;
	return rl_cookie_of(bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0), &ip, sizeof(ip), tcp, bytes);
}

static __always_inline s64 rl_cookie6(struct xdp_md *ctx, const struct rl_frame *frame, struct tcphdr *tcp, u64 bytes)
{
	struct ipv6hdr ip = { .version = 6 };
	struct bpf_sock_tuple tuple = {};

	__builtin_memcpy(&ip.saddr, frame->source, 2 * sizeof(struct in6_addr));
	__builtin_memcpy(tuple.ipv6.saddr, frame->source, 2 * sizeof(struct in6_addr));
	tuple.ipv6.sport = frame->source_port;
	tuple.ipv6.dport = frame->destination_port;
	return rl_cookie_of(bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0), &ip, sizeof(ip), tcp, bytes);
}

/* The kernel's cookie in the low word and its MSS above, or negative: nobody listens here, or the kernel does not want cookies. */
static __always_inline s64 rl_make_cookie(struct xdp_md *ctx, const struct rl_frame *frame)
{
	u8 tcp[RL_MOST_TCP + 4] __attribute__((aligned(8))) = {};	/* whole words */
	u64 bytes = frame->tcp_bytes;

	if (bytes < sizeof(struct tcphdr))
		return -1;
	asm volatile("" : "+r"(bytes));	/* LLVM would make one comparison of the two, from which the verifier does not learn the bounds */
	if (bytes > RL_MOST_TCP)
		return -1;
	asm volatile("" : "+r"(bytes));
	if (bpf_xdp_load_bytes(ctx, frame->l4, tcp, bytes))
		return -1;
	return frame->proto & RL_IPV6 ? rl_cookie6(ctx, frame, (void *)tcp, bytes) : rl_cookie4(ctx, frame, (void *)tcp, bytes);
}

/*
 * A SYN/ACK with a cookie. It offers an MSS and nothing else: window scaling, SACK and timestamps are what a kernel remembers in a timestamp, and
 * without one its check of the cookie takes none of them for agreed.
 */
static __always_inline bool rl_cookie(struct xdp_md *ctx, const struct rl_frame *frame)
{
	u32 bytes = sizeof(struct rl_reply), mtu = 0, headers, mss;
	struct rl_route route = {};
	struct rl_reply reply = {};
	s64 cookie;

	cookie = rl_make_cookie(ctx, frame);
	if (cookie < 0 || !rl_route_back(frame, bytes, &route))
		return false;
	mss = cookie >> 32 & 0xffff;
	headers = sizeof(struct tcphdr) + (route.six ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	if (bpf_check_mtu(ctx, 0, &mtu, 0, 0) >= 0 && mtu > headers && mss > mtu - headers)
		mss = mtu - headers;
	rl_reply_to(frame, 1, bytes, &reply);
	reply.tcp.seq = bpf_htonl((u32)cookie);
	reply.tcp.syn = 1;
	reply.tcp.window = bpf_htons(RL_COOKIE_WINDOW);
	reply.mss = bpf_htonl(RL_MSS_OPTION | mss);
	reply.tcp.check = rl_tcp_sum(&route, &reply, bytes);
	return rl_write(ctx, &route, &reply, bytes);
}

#endif
