/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * agent_front: what stands before a program that changes headers, so that each run of a test begins with the same frame.
 *
 * A test run gives a program its own output again. The front gives the frame its length back and writes its first FRAME_HEADERS bytes anew; what is
 * behind them nobody has changed. FRAME_BYTES is the frame's length, FRAME_AROUND what the program takes off, if it does. With FRAME_MANY the
 * two bytes at FRAME_ADDRESS and at FRAME_PORT are a flow's, one of 65,536 by chance; checksums do not follow, and nobody looks.
 *
 * Reads:   nothing of the packet.
 * Writes:  its headers.
 * Verdict: that of the program behind it.
 */
#include "xdpchain.h"
#include <linux/pkt_cls.h>

struct front_headers {
	u8 byte[FRAME_HEADERS];
};

BPF_TABLE("prog", u32, u32, front_next, 1);
BPF_TABLE("array", u32, struct front_headers, front_headers, 1);

static __always_inline bool front_write(void *data, void *end)
{
	struct front_headers *headers;
	u32 zero = 0, chance;

	headers = front_headers.lookup(&zero);
	if (!headers || data + FRAME_HEADERS > end)
		return false;
	__builtin_memcpy(data, headers, FRAME_HEADERS);
	if (FRAME_MANY) {
		chance = bpf_get_prandom_u32();
		*(u16 *)(data + FRAME_ADDRESS) = chance & 0xff;
		*(u16 *)(data + FRAME_PORT) = chance >> 8 & 0xff;
	}
	return true;
}

int front_xdp(struct xdp_md *ctx)
{
	long less = (void *)(long)ctx->data_end - (void *)(long)ctx->data - FRAME_BYTES;

	if (bpf_xdp_adjust_head(ctx, less) || !front_write((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return XDP_ABORTED;
	front_next.call(ctx, 0);
	return XDP_ABORTED;
}

int front_tc(struct __sk_buff *ctx)
{
	if (ctx->len < FRAME_BYTES && bpf_skb_adjust_room(ctx, FRAME_AROUND, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_SHOT;
	if (bpf_skb_pull_data(ctx, FRAME_HEADERS) || !front_write((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return TC_ACT_SHOT;
	front_next.call(ctx, 0);
	return TC_ACT_SHOT;
}

/* The cheapest that there can be of its kind: what is around the packet goes. */
int front_shrink(struct __sk_buff *ctx)
{
	bpf_skb_adjust_room(ctx, -FRAME_AROUND, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
	return TC_ACT_OK;
}

int front_pass_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

int front_pass_tc(struct __sk_buff *ctx)
{
	return TC_ACT_OK;
}
