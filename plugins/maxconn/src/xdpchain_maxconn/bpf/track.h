/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * track.h: what the kernel says of its sockets.
 *
 * A connection counts from the moment when its socket is established until the kernel closes it; what TIME_WAIT leaves is no socket. Whoever puts
 * a connection into mc_flows counts it, and whoever takes it out counts it down: each happens once, whatever else is under way.
 */
#ifndef MAXCONN_TRACK_H
#define MAXCONN_TRACK_H

#include "half.h"

/* The kernel's numbers (include/net/tcp_states.h), which its own statistics show, too. */
enum mc_state {
	MC_TCP_ESTABLISHED = 1,
	MC_TCP_SYN_SENT = 2,
	MC_TCP_SYN_RECV = 3,
	MC_TCP_CLOSE = 7,
	MC_TCP_LISTEN = 10,
};

/* The reservation of a connection that has come, or will not come any more. */
static __always_inline void mc_release(const struct mc_flow *flow, u64 since_ns)
{
	struct mc_claim claim;
	struct mc_spot spot;
	u64 since;

	if (!mc_find_half(&spot, flow) || !spot.half)
		return;
	since = spot.half->since_ns;
	claim = spot.half->claim;
	if ((!since_ns || since == since_ns) && mc_forget_half(&spot))
		mc_give_back_all(&claim, flow, mc_epoch(since), mc_epoch(bpf_ktime_get_ns()));
}

/* A connection that has come. False if it is counted already, or nothing is to be counted. */
static __always_inline bool mc_open(const struct mc_settings *settings, struct mc_flow *flow, u64 now)
{
	struct mc_connection connection = { .since_ns = now, .generation = settings->generation };
	struct mc_stats *stats;
	bool opened = false;

	if (!mc_claim(settings, flow, &connection.claim))
		return false;
	if (!mc_flows.insert(flow, &connection)) {
		mc_count_all(&connection.claim, flow, 1);
		opened = true;
	} else if (!mc_flows.lookup(flow)) {
		stats = mc_stats_of(connection.claim.id[MC_HERE] ? connection.claim.place[MC_HERE] : connection.claim.place[MC_NODE]);
		if (stats)
			stats->full++;
	}
	mc_release(flow, 0);
	return opened;
}

/* A connection that is gone; with `since_ns` only if it is the one that began then. */
static __always_inline bool mc_close(struct mc_flow *flow, u64 since_ns, struct mc_claim *claim)
{
	struct mc_connection *connection = mc_flows.lookup(flow);

	if (!connection || (since_ns && connection->since_ns != since_ns))
		return false;
	*claim = connection->claim;
	if (mc_flows.delete(flow))
		return false;
	mc_count_all(claim, flow, -1);
	return true;
}

/* The namespace of a socket, by its cookie. */
static __always_inline u64 mc_netns(u64 socket)
{
	u64 net = 0, cookie = 0;

	bpf_probe_read_kernel(&net, sizeof(net), (void *)(socket + MC_SOCK_NET));
	bpf_probe_read_kernel(&cookie, sizeof(cookie), (void *)(net + MC_NET_COOKIE));
	return cookie;
}

static __always_inline int mc_state(struct mc_state_event *event)
{
	u32 old = event->oldstate, new = event->newstate;
	struct mc_settings *settings;
	struct mc_flow flow __attribute__((aligned(8)));
	struct mc_claim claim;
	bool comes, goes;
	u64 now;

	comes = new == MC_TCP_ESTABLISHED && (old == MC_TCP_SYN_RECV || old == MC_TCP_SYN_SENT);
	goes = new == MC_TCP_CLOSE && old != MC_TCP_LISTEN && old != MC_TCP_SYN_SENT && old != MC_TCP_CLOSE;
	if (event->protocol != IPPROTO_TCP || !(comes || goes))
		return 0;
	settings = mc_get_settings();
	if (!settings || (comes && old == MC_TCP_SYN_SENT && !settings->outgoing))
		return 0;
	if (mc_netns(event->skaddr) != own_netns())
		return 0;
	/* both families are told in these two, IPv4 as ::ffff:a.b.c.d */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		flow.local[i] = ((__be32 *)event->saddr_v6)[i];
		flow.remote[i] = ((__be32 *)event->daddr_v6)[i];
	}
	flow.local_port = event->sport;
	flow.remote_port = event->dport;
	now = bpf_ktime_get_ns();
	if (comes) {
		mc_open(settings, &flow, now);
		return 0;
	}
	if (old == MC_TCP_SYN_RECV) {
		mc_release(&flow, 0);
		return 0;
	}
	if (mc_close(&flow, 0, &claim))
		mc_closed.update(&flow, &now);
	return 0;
}

#endif
