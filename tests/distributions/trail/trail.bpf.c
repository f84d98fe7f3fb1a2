/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * trail: writes its number into test frames (ethertype 0x88b5), behind those of the functions before it, so that what a frame passed can
 * be read off it. Byte 0 of the payload counts the numbers.
 *
 * Reads: trail_number. Writes: trail_seen. Verdict: NEXT.
 */
#include "xdpchain.h"

#define ROOM 7	/* numbers that fit into what the judge looks at */

BPF_TABLE("array", u32, u64, trail_number, BY_SCHEMA);	/* element 0: the number; written by the config handler */
BPF_TABLE("hash", u32, u64, trail_seen, BY_SCHEMA);	/* key 0: test frames so far; written here */

static __always_inline verdict trail(struct xdp_md *ctx, struct packet *packet)
{
	u8 *count = packet->data + sizeof(struct ethhdr), *at;
	u32 zero = 0;
	u64 *number = trail_number.lookup(&zero), one = 1, *seen;

	if (!number || !packet->eth || packet->ethertype != bpf_htons(0x88b5) || (void *)count + 40 > packet->end)
		return next(NO_REASON);
	seen = trail_seen.lookup(&zero);
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		trail_seen.update(&zero, &one);
	if (*count < ROOM) {
		at = count + 1 + *count;
		if ((void *)at + 1 <= packet->end)
			*at = *number;
	}
	*count += 1;
	return next(MARKED);
}
