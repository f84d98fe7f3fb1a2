/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * geoblock: drops packets that come from listed prefixes.
 *
 * Reads:   the source address of IPv4 and IPv6, VLAN tags or not
 * Writes:  geoblock_prefixes: the packets of each prefix
 * Verdict: DROP (blocked), else NEXT
 */
#include "xdpchain.h"

#define FULL_LENGTH 128

/* One table for both families: an IPv4 address is looked up as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), its prefixes are 96 bits longer. */
struct geoblock_prefix {
	u32 length;			/* in bits, in the order of this machine */
	struct in6_addr address;	/* in network byte order */
};

_Static_assert(sizeof(struct geoblock_prefix) == 20, "the map schema in Python says so, too");

/* prefix -> packets dropped; Python writes the prefixes, this program counts */
BPF_F_TABLE("lpm_trie", struct geoblock_prefix, u64, geoblock_prefixes, BY_SCHEMA, BPF_F_NO_PREALLOC);

static __always_inline verdict geoblock(struct xdp_md *ctx, struct packet *packet)
{
	struct geoblock_prefix source = { .length = FULL_LENGTH };
	u64 *packets;

	if (packet->ip4) {
		source.address.s6_addr32[2] = bpf_htonl(0xffff);
		source.address.s6_addr32[3] = packet->ip4->saddr;
	} else if (packet->ip6) {
		source.address = packet->ip6->saddr;
	} else {
		return next(NO_REASON);
	}
	packets = geoblock_prefixes.lookup(&source);
	if (!packets)
		return next(NO_REASON);
	__sync_fetch_and_add(packets, 1);
	return drop(BLOCKED);
}
