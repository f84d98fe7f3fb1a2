/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * dsr_agent: direct server return for workloads that know nothing of it.
 *
 * On the network's side packets arrive at XDP and leave by TC egress; on a workload's side they arrive (at the workload) by TC egress and leave by
 * TC ingress.
 */
#include "xdpchain.h"
#include "tables.h"
#include "frame.h"
#include "flow.h"
#include "sum.h"
#include "outer.h"
#include "undress.h"
#include "service.h"
#include "fragment.h"
#include "icmp.h"
#include "chance.h"
#include "arrive.h"
#include "translate.h"
#include "mss.h"
#include "hairpin.h"
#include "onward.h"
#include "leave.h"

static __always_inline verdict dsr_arrive_nic(struct xdp_md *ctx, struct packet *packet)
{
	return dsr_arrive(ctx, true, packet);
}

static __always_inline verdict dsr_leave_nic(struct __sk_buff *ctx, struct packet *packet)
{
	return dsr_leave(ctx, packet, false);
}

static __always_inline verdict dsr_arrive_port(struct __sk_buff *ctx, struct packet *packet)
{
	return dsr_arrive(ctx, false, packet);
}

static __always_inline verdict dsr_leave_port(struct __sk_buff *ctx, struct packet *packet)
{
	return dsr_leave(ctx, packet, true);
}
