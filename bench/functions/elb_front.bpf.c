/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * elb_front: what stands before a program that encapsulates, so that each run of a test begins with the same frame.
 *
 * A test run gives a program its own output again. The new headers went in front, and the last 14 bytes of them over the Ethernet header:
 * the frame is whole again without them and with its Ethernet header. All else of the frame is as it was.
 *
 * The benchmark defines FRAME_BYTES (the frame's length), FRAME_TYPE (its ethertype), and where the frame has what varies with the flow:
 * FRAME_ADDRESS (low half of the source address), FRAME_PORT (source port), FRAME_BALANCE (4 bytes that are the complement of the two, in
 * what the transport's checksum covers), and for IPv4 FRAME_ID (2 bytes that are the complement of the first). So all checksums stay right.
 * FRAME_SERVICE is the last byte of the destination, which is 0 in the frame where front_services is used, FRAME_NETWORK the half of the source
 * address before the low one, as a little-endian number.
 *
 * Reads:   nothing of the packet.
 * Writes:  the Ethernet header; the source; the destination.
 * Verdict: that of the program behind it.
 */
#include "xdpchain.h"

#define FLOW_START 0x00800000	/* the flow's four bytes in the frame that the test run begins with */

struct front_eth {
	__be16 word[7];
};
_Static_assert(sizeof(struct front_eth) == ETH_HLEN, "a header");

BPF_TABLE("prog", u32, u32, front_next, 1);
BPF_TABLE("array", u32, u32, front_count, 1);	/* new flows so far */

/* What the benchmark compares the frame with, on its way between the two programs. */
struct front_frame {
	u8 byte[FRAME_BYTES];
	u8 mask[FRAME_BYTES];	/* 0 where it varies */
};

BPF_TABLE("array", u32, struct front_frame, front_expected, 1);
BPF_TABLE("array", u32, u64, front_seen, 2);	/* frames that were as expected; that were not */
BPF_TABLE("prog", u32, u32, front_behind, 1);

static __always_inline u8 *front_restored(struct xdp_md *ctx)
{
	long headers = (void *)(long)ctx->data_end - (void *)(long)ctx->data - FRAME_BYTES;
	struct front_eth *eth;

	if (bpf_xdp_adjust_head(ctx, headers))
		return NULL;
	eth = (void *)(long)ctx->data;
	if ((void *)eth + FRAME_BYTES > (void *)(long)ctx->data_end)
		return NULL;
	*eth = (struct front_eth){ { bpf_htons(0x0200), 0, bpf_htons(2), bpf_htons(0x0200), 0, bpf_htons(1), bpf_htons(FRAME_TYPE) } };
	return (u8 *)eth;
}

static __always_inline void front_choose(u8 *frame, u32 flow)
{
	*(u16 *)(frame + FRAME_ADDRESS) = flow;
	*(u16 *)(frame + FRAME_PORT) = flow >> 16;
	*(u32 *)(frame + FRAME_BALANCE) = ~flow;
#ifdef FRAME_ID
	*(u16 *)(frame + FRAME_ID) = ~flow;
#endif
}

/* The one flow that the frame has. */
int front_one(struct xdp_md *ctx)
{
	if (!front_restored(ctx))
		return XDP_ABORTED;
	front_next.call(ctx, 0);
	return XDP_ABORTED;
}

/* One of 65,536 flows by chance: 256 addresses with 256 ports. */
int front_many(struct xdp_md *ctx)
{
	u8 *frame = front_restored(ctx);
	u32 chance;

	if (!frame)
		return XDP_ABORTED;
	chance = bpf_get_prandom_u32();
	front_choose(frame, FLOW_START ^ (chance & 0xff) << 8 ^ (chance & 0xff00) << 16);
	front_next.call(ctx, 0);
	return XDP_ABORTED;
}

/* A flow that was not there before: a counter, multiplied with an odd number, is another 2^32 times. */
int front_new(struct xdp_md *ctx)
{
	u8 *frame = front_restored(ctx);
	u32 zero = 0, *count = front_count.lookup(&zero);

	if (!frame || !count)
		return XDP_ABORTED;
	front_choose(frame, (*count)++ * 0x9e3779b1);
	front_next.call(ctx, 0);
	return XDP_ABORTED;
}

/* Any of 2^32 flows by chance. */
int front_any(struct xdp_md *ctx)
{
	u8 *frame = front_restored(ctx);

	if (!frame)
		return XDP_ABORTED;
	front_choose(frame, bpf_get_prandom_u32());
	front_next.call(ctx, 0);
	return XDP_ABORTED;
}

/*
 * One of 65,536 flows by chance: 256 ports with 256 destinations. What the destination gains the other half of the source address loses, so that no
 * checksum changes.
 */
int front_services(struct xdp_md *ctx)
{
	u8 *frame = front_restored(ctx);
	u32 chance, source;

	if (!frame)
		return XDP_ABORTED;
	chance = bpf_get_prandom_u32();
	frame[FRAME_SERVICE] = chance;
	source = FRAME_NETWORK + 0xffff - (chance << 8 & 0xff00);
	*(u16 *)(frame + FRAME_ADDRESS - 2) = (source & 0xffff) + (source >> 16);
	front_choose(frame, FLOW_START ^ (chance & 0xff00) << 16);
	front_next.call(ctx, 0);
	return XDP_ABORTED;
}

/* Between a front and the program under test, to prove that the front does what it says. */
int front_proof(struct xdp_md *ctx)
{
	u8 *frame = (void *)(long)ctx->data;
	struct front_frame *expected;
	u32 index = 0;
	u64 *seen;

	expected = front_expected.lookup(&index);
	if (!expected)
		return XDP_ABORTED;
	index = frame + FRAME_BYTES != (void *)(long)ctx->data_end;
	if (frame + FRAME_BYTES > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (u32 at = 0; at < FRAME_BYTES; at++)
		if ((frame[at] ^ expected->byte[at]) & expected->mask[at])
			index = 1;
	seen = front_seen.lookup(&index);
	if (!seen)
		return XDP_ABORTED;
	(*seen)++;
	front_behind.call(ctx, 0);
	return XDP_ABORTED;
}

/* The cheapest encapsulation that there can be: constant bytes in front. */
struct front_outer {
	u64 word[5];
	u16 rest;
};

int front_floor(struct xdp_md *ctx)
{
	struct front_outer *outer;

	if (bpf_xdp_adjust_head(ctx, -28))
		return XDP_ABORTED;
	outer = (void *)(long)ctx->data;
	if ((void *)(outer + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (int at = 0; at < 5; at++)
		outer->word[at] = 0x1122334455667788;
	outer->rest = 0x1122;
	return XDP_TX;
}
