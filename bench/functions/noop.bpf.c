/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * noop: lets every packet go on, but has to parse it for that.
 *
 * Reads:   Ethernet to TCP headers.
 * Writes:  nothing.
 * Verdict: NEXT; DROP to TCP port 9 (discard), which the benchmark sends nothing to.
 */
#include "xdpchain.h"

static __always_inline verdict noop(struct xdp_md *ctx, struct packet *packet)
{
	if (packet->tcp && packet->tcp->dest == bpf_htons(9))
		return drop(NO_REASON);
	return next(NO_REASON);
}
