/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * reset.h: answering a SYN with RST (RFC 9293, section 3.10.7.1), in the frame that brought it.
 *
 * The answer has no options and no data: the frame is cut down to its headers (60 bytes at least), and sent back behind the same VLAN tags.
 * Fragments, IPv4 options and IPv6 extension headers are not answered: a client of the sort that sends them learns by waiting.
 */
#ifndef MAXCONN_RESET_H
#define MAXCONN_RESET_H

#define MC_FRAME_MIN 60
#define MC_TTL 64

static __always_inline u32 mc_sum(const void *data, u32 bytes, u32 sum)
{
	const u16 *word = data;

#pragma unroll
	for (u32 i = 0; i < bytes / 2; i++)
		sum += word[i];
	return sum;
}

static __always_inline u16 mc_fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A plain SYN: its headers one behind the other. */
struct mc_syn {
	struct ethhdr *eth;
	void *ip;
	struct tcphdr *tcp;
	void *data;
	void *end;
	bool ip6;
};

/*
 * Find the headers of a plain SYN. The packet is read anew: what the verifier need not remember of it while the SYN is judged, it need not tell
 * apart, and of all forms that a packet may have only these are left.
 */
static __always_inline bool mc_read_syn(struct xdp_md *ctx, struct mc_syn *syn)
{
	__be16 ethertype;
	void *at;

	*syn = (struct mc_syn){ .data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end };
	syn->eth = syn->data;
	at = syn->eth + 1;
	if (at + 2 * sizeof(struct vlan_tag) > syn->end)
		return false;
	ethertype = syn->eth->h_proto;
#pragma unroll
	for (int i = 0; i < PACKET_MAX_VLANS; i++) {
		struct vlan_tag *tag = at;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		ethertype = tag->ethertype;
		at = tag + 1;
	}
	syn->ip = at;
	syn->ip6 = ethertype != bpf_htons(ETH_P_IP);
	syn->tcp = at + (syn->ip6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	return (void *)(syn->tcp + 1) <= syn->end;
}

/* How many bytes of data it has; negative if it is one that is not answered. */
static __always_inline int mc_syn_data(const struct mc_syn *syn)
{
	const struct ipv6hdr *ip6 = syn->ip;
	const struct iphdr *ip4 = syn->ip;
	int bytes;

	if (syn->ip6) {
		if (ip6->nexthdr != IPPROTO_TCP)
			return -1;
		bytes = bpf_ntohs(ip6->payload_len);
	} else {
		if (ip4->ihl != 5 || ip4->frag_off & bpf_htons(0x3fff))
			return -1;
		bytes = bpf_ntohs(ip4->tot_len) - (int)sizeof(*ip4);
	}
	return bytes - syn->tcp->doff * 4;
}

static __always_inline void mc_answer_tcp(struct tcphdr *tcp, u32 data, u32 sum)
{
	struct tcphdr answer = { .source = tcp->dest, .dest = tcp->source, .doff = sizeof(*tcp) / 4, .rst = 1, .ack = 1 };

	answer.ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + 1 + data);
	sum += bpf_htons(IPPROTO_TCP) + bpf_htons(sizeof(*tcp));
	answer.check = mc_fold(mc_sum(&answer, sizeof(answer), sum));
	*tcp = answer;
}

static __always_inline void mc_answer_ip4(struct iphdr *ip, struct tcphdr *tcp, u32 data)
{
	struct iphdr answer = { .version = 4, .ihl = 5, .ttl = MC_TTL, .protocol = IPPROTO_TCP };

	answer.tot_len = bpf_htons(sizeof(*ip) + sizeof(*tcp));
	answer.frag_off = bpf_htons(0x4000);	/* DF: RFC 6864 wants no identification then */
	answer.saddr = ip->daddr;
	answer.daddr = ip->saddr;
	answer.check = mc_fold(mc_sum(&answer, sizeof(answer), 0));
	mc_answer_tcp(tcp, data, mc_sum(&answer.saddr, 8, 0));
	*ip = answer;
}

static __always_inline void mc_answer_ip6(struct ipv6hdr *ip, struct tcphdr *tcp, u32 data)
{
	struct ipv6hdr answer = { .version = 6, .nexthdr = IPPROTO_TCP, .hop_limit = MC_TTL };

	answer.payload_len = bpf_htons(sizeof(*tcp));
	answer.saddr = ip->daddr;
	answer.daddr = ip->saddr;
	mc_answer_tcp(tcp, data, mc_sum(&answer.saddr, 32, 0));
	*ip = answer;
}

/* Make the answer of a SYN; false if it cannot be made. */
static __always_inline bool mc_make_reset(struct xdp_md *ctx)
{
	int data, wanted, there;
	struct mc_syn syn;
	u8 mac[ETH_ALEN];

	if (!mc_read_syn(ctx, &syn))
		return false;
	data = mc_syn_data(&syn);
	if (data < 0)
		return false;
	wanted = (void *)(syn.tcp + 1) - syn.data;
	if (wanted < MC_FRAME_MIN)
		wanted = MC_FRAME_MIN;
	there = syn.end - syn.data;
	if (there > wanted && (bpf_xdp_adjust_tail(ctx, wanted - there) || !mc_read_syn(ctx, &syn)))
		return false;
	if (syn.ip6)
		mc_answer_ip6(syn.ip, syn.tcp, data);
	else
		mc_answer_ip4(syn.ip, syn.tcp, data);
	__builtin_memcpy(mac, syn.eth->h_source, ETH_ALEN);
	__builtin_memcpy(syn.eth->h_source, syn.eth->h_dest, ETH_ALEN);
	__builtin_memcpy(syn.eth->h_dest, mac, ETH_ALEN);
	return true;
}

#endif
