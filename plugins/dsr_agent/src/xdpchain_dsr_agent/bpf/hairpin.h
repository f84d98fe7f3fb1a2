/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * hairpin.h: a workload that calls its own service.
 *
 * It would hear from itself, so what arrives has another address as its source. What the workload answers to that address is for itself again, and
 * turns round here: the caller hears the VIP.
 */
#ifndef DSR_HAIRPIN_H
#define DSR_HAIRPIN_H

/* Sends a frame back where it came from: to the workload behind a port, or up into this host. The sender's MAC address is the one that is to hear. */
static __always_inline verdict dsr_turn_round(struct __sk_buff *ctx, bool port)
{
	struct ethhdr *eth = dsr_at(ctx, false, 0, sizeof(*eth));
	u16 *mac = (u16 *)eth;

	if (!eth)
		return drop(NO_ROOM);
#pragma unroll
	for (int i = 0; i < 3; i++) {
		u16 word = mac[i];

		mac[i] = mac[i + 3];
		mac[i + 3] = word;
	}
	bpf_redirect(ctx->ifindex, port ? 0 : BPF_F_INGRESS);
	return redirect(HAIRPINNED);
}

#endif
