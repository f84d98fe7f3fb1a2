/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * hash.h: from a flow to its slot.
 *
 * The hash is Bob Jenkins' lookup3 as Katran uses it: any change, and a flow finds another backend on the nodes of one group.
 */
#ifndef ELB_HASH_H
#define ELB_HASH_H

#define ELB_HASH_SEED (512 * ELB_RING_SIZE)	/* Katran's number of VIPs enters the hash, whatever ours is */
#define ELB_HASH_SEED6 512
#define ELB_HASH_BASE 0xdeadbeef

static __always_inline u32 elb_rol(u32 word, u32 bits)
{
	return word << bits | word >> (32 - bits);
}

static __always_inline u32 elb_final(u32 a, u32 b, u32 c)
{
	c ^= b; c -= elb_rol(b, 14);
	a ^= c; a -= elb_rol(c, 11);
	b ^= a; b -= elb_rol(a, 25);
	c ^= b; c -= elb_rol(b, 16);
	a ^= c; a -= elb_rol(c, 4);
	b ^= a; b -= elb_rol(a, 14);
	c ^= b; c -= elb_rol(b, 24);
	return c;
}

static __always_inline u32 elb_hash2(u32 x, u32 y)
{
	u32 iv = ELB_HASH_SEED + ELB_HASH_BASE + 8;

	return elb_final(x + iv, y + iv, iv);
}

static __always_inline u32 elb_hash6(const u32 *w)
{
	u32 a, b, c;

	a = b = c = ELB_HASH_BASE + 16 + ELB_HASH_SEED6;
	a += w[0];
	b += w[1];
	c += w[2];
	a -= c; a ^= elb_rol(c, 4); c += b;
	b -= a; b ^= elb_rol(a, 6); a += c;
	c -= b; c ^= elb_rol(b, 8); b += a;
	a -= c; a ^= elb_rol(c, 16); c += b;
	b -= a; b ^= elb_rol(a, 19); a += c;
	c -= b; c ^= elb_rol(b, 4); b += a;
	a += w[3];
	return elb_final(a, b, c);
}

/* The client as it is hashed, and as the outer header shows it: what the options of a VIP leave of its address and port. */
struct elb_client {
	__be32 address[4];	/* IPv4: in the last word */
	__be16 port;
};

static __always_inline void elb_client(struct elb_client *client, const struct elb_flow *flow, u32 options)
{
	bool destination_only = options & ELB_DESTINATION_PORT_ONLY;

	client->port = flow->source_port;
	if (options & ELB_NO_SOURCE_PORT)
		client->port = 0;
	if (destination_only)
		client->port = flow->destination_port;
#pragma unroll
	for (int i = 0; i < 4; i++)
		client->address[i] = destination_only ? 0 : flow->source[i];
}

static __always_inline u32 elb_slot(const struct elb_client *client, bool ip6, __be16 destination_port, u32 options)
{
	u32 ports = client->port | (u32)(options & ELB_NO_DESTINATION_PORT ? 0 : destination_port) << 16;
	u32 address = ip6 ? elb_hash6(client->address) : client->address[3];
	u32 hash = elb_hash2(address, ports);
	s32 slot = (s32)(hash & 0xffff) - (s32)(hash >> 16);	/* modulo 2^16 + 1, where 2^16 is -1 */

	return slot < 0 ? slot + ELB_RING_SIZE : slot;
}

#endif
