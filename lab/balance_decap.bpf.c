/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * balance_decap: what a backend behind a load balancer does: takes the outer header off (IP in IP, GUE variant 1), after having added up its
 * checksums over every byte, as a network card would that trusts nobody.
 *
 * Reads:   outer headers, balance_port
 * Writes:  balance_seen
 * Verdict: XDP_PASS, or XDP_DROP where a checksum is wrong
 */
#include "xdpchain.h"

#define CHUNK 64
#define MOST_CHUNKS 26	/* 1664 bytes: more than the largest frame of this network */

enum seen {
	SEEN_IPIP,
	SEEN_GUE,
	SEEN_BAD_IP,	/* the outer IPv4 checksum is wrong */
	SEEN_BAD_UDP,	/* the outer UDP checksum is wrong, or there is none */
};

BPF_TABLE("array", u32, u32, balance_port, BY_SCHEMA);		/* one: UDP port of GUE; Python writes */
BPF_TABLE("percpu_array", u32, u64, balance_seen, BY_SCHEMA);	/* by enum seen; this program writes */

static __always_inline void seen(u32 what)
{
	u64 *count = balance_seen.lookup(&what);

	if (count)
		*count += 1;
}

static __always_inline u16 fold(u64 sum)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The sum of `length` bytes from `at`; 1 more than any sum where they cannot be read. */
static __always_inline u64 sum_of(struct xdp_md *ctx, u32 at, u32 length, u64 sum)
{
	u32 chunk[CHUNK / 4];
	u64 rest;

	for (int i = 0; i < MOST_CHUNKS && length >= CHUNK; i++) {
		if (bpf_xdp_load_bytes(ctx, at, chunk, CHUNK))
			return ~0ULL;
		sum += (u32)bpf_csum_diff(NULL, 0, chunk, sizeof(chunk), 0);
		at += CHUNK;
		length -= CHUNK;
		asm volatile("" : "+r"(length));	/* or LLVM counts rounds down to 0, and the verifier sees no end */
	}
	if (!length)
		return sum;
	rest = length;
	asm volatile("" : "+r"(rest));
	if (rest >= CHUNK)
		return ~0ULL;
	__builtin_memset(chunk, 0, sizeof(chunk));
	if (bpf_xdp_load_bytes(ctx, at, chunk, ((rest - 1) & (CHUNK - 1)) + 1))	/* for the verifier, who has forgotten that it is not 0 */
		return ~0ULL;
	return sum + (u32)bpf_csum_diff(NULL, 0, chunk, sizeof(chunk), 0);
}

static __always_inline bool ip_is_right(struct iphdr *ip)
{
	return fold((u32)bpf_csum_diff(NULL, 0, (void *)ip, sizeof(*ip), 0)) == 0xffff;
}

static __always_inline bool udp_is_right(struct xdp_md *ctx, struct udphdr *udp, u64 addresses)
{
	u32 length = bpf_ntohs(udp->len);
	u64 sum;

	if (!udp->check)
		return false;
	sum = sum_of(ctx, (void *)udp - (void *)(long)ctx->data, length, addresses + bpf_htons(IPPROTO_UDP) + udp->len);
	return sum != ~0ULL && fold(sum) == 0xffff;
}

int decapsulate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *l4;
	u32 zero = 0, *port = balance_port.lookup(&zero);
	struct ethhdr *eth = data, kept;
	struct ipv6hdr *ip6 = data + sizeof(*eth);
	struct iphdr *ip4 = data + sizeof(*eth);
	u64 addresses = 0;
	u8 proto, *inner;

	if (!port || (void *)(ip4 + 1) > end)
		return XDP_PASS;
	kept = *eth;
	if (kept.h_proto == bpf_htons(ETH_P_IP)) {
		proto = ip4->protocol;
		addresses = (u64)ip4->saddr + ip4->daddr;
		l4 = ip4 + 1;	/* a load balancer sends no options */
	} else if (kept.h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		proto = ip6->nexthdr;
		addresses = (u32)bpf_csum_diff(NULL, 0, (void *)&ip6->saddr, 32, 0);
		l4 = ip6 + 1;
	} else {
		return XDP_PASS;
	}
	inner = l4;
	if (proto == IPPROTO_UDP) {
		struct udphdr *udp = l4;

		if ((void *)(udp + 1) > end || udp->dest != bpf_htons(*port))
			return XDP_PASS;
		if (!udp_is_right(ctx, udp, addresses)) {
			seen(SEEN_BAD_UDP);
			return XDP_DROP;
		}
		inner = (void *)(udp + 1);
	} else if (proto != IPPROTO_IPIP && proto != IPPROTO_IPV6) {
		return XDP_PASS;
	}
	if (kept.h_proto == bpf_htons(ETH_P_IP) && !ip_is_right(ip4)) {
		seen(SEEN_BAD_IP);
		return XDP_DROP;
	}
	if ((void *)(inner + 1) > end)
		return XDP_PASS;
	seen(proto == IPPROTO_UDP ? SEEN_GUE : SEEN_IPIP);
	kept.h_proto = *inner >> 4 == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (bpf_xdp_adjust_head(ctx, (void *)inner - (void *)(eth + 1)))
		return XDP_DROP;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	*eth = kept;
	return XDP_PASS;
}
