/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * maxconn: lets in a TCP connection only while fewer than `max` are open or being opened.
 *
 * Reads:   Ethernet to TCP headers; the rules; socket states by the tracepoint sock:inet_sock_set_state
 * Writes:  counts, connections, reservations; the packet only to answer it with RST
 * Verdict: DROP or TX for a SYN over a limit, DROP for what could hide a SYN; NEXT for everything else
 *
 * What is counted is told by the kernel's own sockets (track.h); a SYN holds a reservation until its connection is established (admit.h); what
 * was missed is repaired by a sweep (repair.h).
 */
#include "xdpchain.h"
#include "tables.h"
#include "count.h"
#include "admit.h"
#include "track.h"
#include "repair.h"
#include "reset.h"

static __always_inline bool mc_flow_of(const struct packet *packet, struct mc_flow *flow)
{
	if (packet->ip4) {
		flow->local[0] = 0;
		flow->local[1] = 0;
		flow->local[2] = bpf_htonl(0xffff);
		flow->local[3] = packet->ip4->daddr;
		flow->remote[0] = 0;
		flow->remote[1] = 0;
		flow->remote[2] = bpf_htonl(0xffff);
		flow->remote[3] = packet->ip4->saddr;
	} else if (packet->ip6) {
		__builtin_memcpy(flow->local, &packet->ip6->daddr, sizeof(flow->local));
		__builtin_memcpy(flow->remote, &packet->ip6->saddr, sizeof(flow->remote));
	} else {
		return false;
	}
	flow->local_port = bpf_ntohs(packet->tcp->dest);
	flow->remote_port = bpf_ntohs(packet->tcp->source);
	return true;
}

static __always_inline verdict maxconn(struct xdp_md *ctx, struct packet *packet)
{
	struct tcphdr *tcp = packet->tcp;
	struct mc_flow flow __attribute__((aligned(8)));
	struct mc_settings *settings;
	enum mc_answer answer;
	u32 reason, listed;

	if (!tcp)
		return packet->malformed == OUT_OF_REACH ? drop(UNREADABLE) : next(NO_REASON);
	/* with RST or FIN beside it a listening socket takes it for no SYN */
	if ((tcp_flag_word(tcp) & (TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST | TCP_FLAG_FIN)) != TCP_FLAG_SYN)
		return next(NO_REASON);
	settings = mc_get_settings();
	listed = mc_listed(bpf_ntohs(tcp->dest));
	if (!settings || !(listed | settings->node | settings->addresses) || !mc_flow_of(packet, &flow))
		return next(NO_REASON);
	answer = mc_admit(settings, &flow, mc_find(settings, &flow, listed));
	switch (answer) {
	case MC_UNCONCERNED:
		return next(NO_REASON);
	case MC_ADMITTED:
		return next(ADMITTED);
	case MC_HELD:
		return next(SENT_AGAIN);
	case MC_EXCUSED:
		return next(WOULD_REFUSE);
	case MC_REFUSED:
		return drop(LIMIT_REACHED);
	case MC_SOURCE_REFUSED:
		return drop(SOURCE_LIMIT_REACHED);
	case MC_NO_ROOM:
		return drop(NO_ROOM);
	default:
		reason = answer == MC_RESET ? LIMIT_REACHED : SOURCE_LIMIT_REACHED;
		return mc_make_reset(ctx) ? tx(reason) : drop(reason);
	}
}
