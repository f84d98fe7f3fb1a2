/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * judge: ends a chain. Counts a test frame under what it has passed, as trail wrote it, and drops it.
 *
 * Writes: judge_paths. Verdict: DROP for test frames, else NEXT.
 */
#include "xdpchain.h"

BPF_TABLE("percpu_hash", u64, u64, judge_paths, BY_SCHEMA);	/* how many and which numbers, one byte each -> frames */

static __always_inline verdict judge(struct xdp_md *ctx, struct packet *packet)
{
	u8 *at = packet->data + sizeof(struct ethhdr);
	u64 path = 0, one = 1, *count;

	if (!packet->eth || packet->ethertype != bpf_htons(0x88b5) || (void *)at + 9 > packet->end)
		return next(NO_REASON);
	__builtin_memcpy(&path, at + 1, 7);
	path = path << 8 | *at;
	count = judge_paths.lookup(&path);
	if (count)
		*count += 1;
	else
		judge_paths.update(&path, &one);
	return drop(JUDGED);
}
