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

/* How many bytes of data a SYN has; negative if it is one that is not answered. */
static __always_inline int mc_syn_data(const struct packet *packet)
{
	void *behind;
	int bytes;

	if (packet->fragment)
		return -1;
	if (packet->ip4) {
		behind = packet->ip4 + 1;
		bytes = bpf_ntohs(packet->ip4->tot_len) - (int)sizeof(struct iphdr);
	} else if (packet->ip6) {
		behind = packet->ip6 + 1;
		bytes = bpf_ntohs(packet->ip6->payload_len);
	} else {
		return -1;
	}
	return (void *)packet->tcp == behind ? bytes - packet->tcp->doff * 4 : -1;
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

/*
 * Make the answer of a SYN; false if it cannot be made. It is parsed anew: what the verifier need not remember of the packet while the SYN is
 * judged, it need not tell apart.
 */
static __always_inline bool mc_make_reset(struct xdp_md *ctx, struct packet *packet)
{
	int data, wanted, there;
	u8 mac[ETH_ALEN];

	packet_parse(packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	data = packet->tcp ? mc_syn_data(packet) : -1;
	if (data < 0)
		return false;
	wanted = (void *)(packet->tcp + 1) - packet->data;
	if (wanted < MC_FRAME_MIN)
		wanted = MC_FRAME_MIN;
	there = packet->end - packet->data;
	if (there > wanted) {
		if (bpf_xdp_adjust_tail(ctx, wanted - there))
			return false;
		packet_parse(packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	}
	if (!packet->eth || !packet->tcp)
		return false;
	if (packet->ip4)
		mc_answer_ip4(packet->ip4, packet->tcp, data);
	else if (packet->ip6)
		mc_answer_ip6(packet->ip6, packet->tcp, data);
	else
		return false;
	__builtin_memcpy(mac, packet->eth->h_source, ETH_ALEN);
	__builtin_memcpy(packet->eth->h_source, packet->eth->h_dest, ETH_ALEN);
	__builtin_memcpy(packet->eth->h_dest, mac, ETH_ALEN);
	return true;
}

#endif
