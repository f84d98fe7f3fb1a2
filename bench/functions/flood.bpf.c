/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * flood: what stands at the attacker's end of the cable, and the cheapest thing that can stand at the other one.
 *
 * `flood` is run with live frames and sends them: SYNs with sources by chance. A frame comes back as the receiver left it, so it is written whole
 * each time. The model has 0 where the source address and port belong, and in other fields what is their complement: the IP header's id for the
 * address, the sequence number for the address once more, the urgent pointer (without URG it means nothing) for the port. So both checksums are
 * right for every source.
 *
 * Reads:   flood_model.
 * Writes:  the frame.
 * Verdict: `flood` TX; `flood_sink` DROP for what is sent to a forged source, else PASS; `flood_drop` DROP.
 */
#include "xdpchain.h"

#define FLOOD_WORDS 7
#define FLOOD_IP 14
#define FLOOD_TCP 34
#define FLOOD_FORGED 0x80000000		/* all forged sources are in 128.0.0.0/3 */
#define FLOOD_FORGED_MASK 0xe0000000

struct flood_model {
	u64 word[FLOOD_WORDS];	/* the frame, as far as it has headers, and two bytes more */
	u64 hosts;		/* the bits of a source that are by chance */
};
_Static_assert(sizeof(struct flood_model) == 64, "no holes");

BPF_TABLE("array", u32, struct flood_model, flood_model, 1);

int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	u32 zero = 0, chance = bpf_get_prandom_u32(), source, sum;
	struct iphdr *ip = data + FLOOD_IP;
	struct tcphdr *tcp = data + FLOOD_TCP;
	struct flood_model *model;
	u64 *word = data;

	model = flood_model.lookup(&zero);
	if (!model || data + sizeof(model->word) > end)
		return XDP_ABORTED;
#pragma unroll
	for (u32 at = 0; at < FLOOD_WORDS; at++)
		word[at] = model->word[at];
	source = FLOOD_FORGED | (chance & (u32)model->hosts);
	sum = (source >> 16) + (source & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->id = bpf_htons((u16)~sum);
	ip->saddr = bpf_htonl(source);
	tcp->seq = ~ip->saddr;
	tcp->source = chance * 0x9e3779b1 >> 16;
	tcp->urg_ptr = ~tcp->source;
	return XDP_TX;
}

int flood_sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + FLOOD_IP;
	struct ethhdr *eth = data;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	return (ip->daddr & bpf_htonl(FLOOD_FORGED_MASK)) == bpf_htonl(FLOOD_FORGED) ? XDP_DROP : XDP_PASS;
}

int flood_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}
