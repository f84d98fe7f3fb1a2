/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * tables.h: the maps of dsr_agent, as tables.py declares them.
 *
 * Addresses have 16 bytes, IPv4 as ::ffff:a.b.c.d. Ports are in network order. Times are ticks of 2^30 ns since boot.
 */
#ifndef DSR_TABLES_H
#define DSR_TABLES_H

#define DSR_TICK_BITS 30

enum dsr_form {
	DSR_GUE = 1,		/* variants 0 and 1 */
	DSR_IPIP = 2,		/* IPv4 or IPv6 in IPv4 or IPv6 */
};

struct dsr_settings {
	u32 forms;		/* enum dsr_form: the encapsulations that are taken off */
	u32 all_ports;		/* whether there is a service of all ports */
	u32 to_stack;		/* answers go through the host's stack, not to the next hop at once */
	__be16 gue_port;
	u16 zero;
	u32 generation;		/* of all that Python writes; 0 while it changes */
	__be32 hairpin4[4];	/* the source that a workload sees when it calls its own service */
	__be32 hairpin6[4];
};
_Static_assert(sizeof(struct dsr_settings) == 52, "as in the schema");

/* Where an encapsulated packet was sent, and where the one in it. */
struct dsr_target {
	__be32 endpoint[4];	/* the outer destination */
	__be32 vip[4];
	__be16 port;		/* 0: all that are not listed */
	u8 proto;
	u8 zero;
};
_Static_assert(sizeof(struct dsr_target) == 36, "as in the schema");

struct dsr_address {
	__be32 word[4];
};
_Static_assert(sizeof(struct dsr_address) == 16, "as in the schema");

struct dsr_prefix {
	u32 bits;
	__be32 address[4];
};
_Static_assert(sizeof(struct dsr_prefix) == 20, "as in the schema");

/* A port of a workload. */
struct dsr_port {
	__be32 workload[4];
	__be16 port;		/* 0: all that are not listed */
	u8 proto;
	u8 zero;
};
_Static_assert(sizeof(struct dsr_port) == 20, "as in the schema");

/* What becomes of a packet from a service's port that is of no flow that is known. */
enum dsr_unknown {
	DSR_SNAT,		/* its source becomes the VIP: the port is reached through the VIP only */
	DSR_DIRECT,		/* it leaves as it is */
	DSR_LEARN,		/* it is held back until the client is heard, but not for ever */
};

struct dsr_service {
	__be32 vip[4];
	__be32 workload[4];
	u64 id;			/* 0: none */
	__be16 port;		/* 0: all, and each is the workload's, too */
	__be16 backend_port;
	u8 proto;
	u8 unknown;		/* enum dsr_unknown */
	u16 zero;
};
_Static_assert(sizeof(struct dsr_service) == 48, "as in the schema");

/* A flow as the workload sees it: what it sends has all of this. */
struct dsr_key {
	__be32 workload[4];
	__be32 client[4];
	__be16 port;		/* the workload's */
	__be16 client_port;
	u8 proto;
	u8 zero[3];
};
_Static_assert(sizeof(struct dsr_key) == 40, "as in the schema");

enum dsr_state {
	DSR_SYN,		/* the client has sent a SYN */
	DSR_ESTABLISHED,
	DSR_FIN,		/* one side has ended */
	DSR_CLOSED,		/* both have, or one has reset */
	DSR_UDP,
	DSR_STATES,
};

enum dsr_mark {
	DSR_ANSWERED = 1,	/* the workload has sent something that is no RST */
	DSR_FIN_IN = 2,
	DSR_FIN_OUT = 4,
	DSR_IS_DIRECT = 8,	/* the client calls the workload by its own address: nothing is translated */
	DSR_HAIRPIN = 16,	/* the client is the workload itself, under another address */
	DSR_HELD = 32,		/* the workload has spoken first, and `learn` waits for the client */
};

struct dsr_flow {
	__be32 vip[4];
	__be16 vip_port;
	u8 state;		/* enum dsr_state */
	u8 marks;		/* enum dsr_mark */
	u32 seen;		/* tick of its last packet */
	u32 place;		/* of its service */
	u32 around;		/* bytes that were around the client's first packet */
	u64 id;			/* of its service */
};
_Static_assert(sizeof(struct dsr_flow) == 40, "as in the schema");

/* A datagram in fragments; those behind the first have no ports. */
struct dsr_datagram {
	__be32 source[4];
	__be32 destination[4];
	u32 id;			/* as in the packet */
	u8 proto;
	u8 zero[3];
};
_Static_assert(sizeof(struct dsr_datagram) == 40, "as in the schema");

struct dsr_rest {
	__be32 source[4];	/* what they become */
	__be32 destination[4];
	u32 seen;
	u32 place;
};
_Static_assert(sizeof(struct dsr_rest) == 40, "as in the schema");

struct dsr_stats {
	u64 in_packets;		/* from clients, through the VIP */
	u64 in_bytes;		/* of IP packets, without what was around them */
	u64 out_packets;
	u64 out_bytes;
	u64 flows;		/* that began */
	u64 guessed;		/* packets of no known flow that left with the VIP, by the service's rule */
	u64 conflicts;		/* packets of a flow whose place another live one has */
};
_Static_assert(sizeof(struct dsr_stats) == 56, "as in the schema");

/* Python writes the first seven. */
BPF_TABLE("array", u32, struct dsr_settings, dsr_settings, BY_SCHEMA);
BPF_F_TABLE("lpm_trie", struct dsr_prefix, u32, dsr_accept, BY_SCHEMA, 1);	/* outer sources */
BPF_TABLE("hash", struct dsr_address, u32, dsr_endpoints, BY_SCHEMA);		/* outer destinations that are ours */
BPF_TABLE("hash", struct dsr_target, u32, dsr_targets, BY_SCHEMA);		/* -> place of the service */
BPF_TABLE("hash", struct dsr_port, u32, dsr_ports, BY_SCHEMA);			/* -> place of the service */
BPF_TABLE("array", u32, u32, dsr_listed, BY_SCHEMA);				/* port in host order -> 1 TCP | 2 UDP: one of dsr_ports has it */
BPF_TABLE("array", u32, struct dsr_service, dsr_services, BY_SCHEMA);		/* by place; place 0 is none */
BPF_TABLE("lru_hash", struct dsr_key, struct dsr_flow, dsr_flows, BY_SCHEMA);	/* those that both sides have spoken in, and not ended */
BPF_TABLE("lru_hash", struct dsr_key, struct dsr_flow, dsr_opening, BY_SCHEMA);	/* the others: a flood of SYNs forgets only these */
BPF_TABLE("lru_hash", struct dsr_datagram, struct dsr_rest, dsr_rests, BY_SCHEMA);
BPF_TABLE("percpu_array", u32, struct dsr_stats, dsr_stats, BY_SCHEMA);		/* by place */

#endif
