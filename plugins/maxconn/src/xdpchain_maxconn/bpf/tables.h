/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * tables.h: the maps of maxconn, as tables.py declares them.
 *
 * Addresses have 16 bytes, IPv4 as ::ffff:a.b.c.d, which is also how the kernel tells those of a v4 connection to a v6 socket. A connection
 * concerns two rules at most: HERE, the one of its destination, and NODE, the one of the whole node. Each may limit all connections together
 * (the shared count, in mc_limits) and those of each source prefix (in mc_sources).
 */
#ifndef MAXCONN_TABLES_H
#define MAXCONN_TABLES_H

#define MC_HERE 0
#define MC_NODE 1
#define MC_RULES 2

#define MC_EPOCH_SHIFT 35	/* nanoseconds to epochs of 34 seconds */
#define MC_EPOCHS 4		/* a reservation that nobody gives back is forgotten after three to four of them */
#define MC_NO_SOURCE 255	/* bits of a source prefix: this rule does not look at sources */

struct mc_flow {
	__be32 local[4];
	__be32 remote[4];
	u16 local_port;		/* in the order of this machine */
	u16 remote_port;
};
_Static_assert(sizeof(struct mc_flow) == 36, "as in the schema");

struct mc_service {
	__be32 address[4];
	u32 port;		/* 0: all that are not listed */
};
_Static_assert(sizeof(struct mc_service) == 20, "as in the schema");

struct mc_prefix {
	u32 bits;
	__be32 address[4];
};
_Static_assert(sizeof(struct mc_prefix) == 20, "as in the schema");

struct mc_settings {
	u32 generation;		/* of the rules: a connection that was counted by other ones is to be counted anew */
	u32 node;		/* the place of the node's rule; 0: none */
	u32 addresses;		/* whether mc_services has anything */
	u32 allow;		/* whether mc_allow has */
	u32 outgoing;		/* whether connections count that this node has opened */
};
_Static_assert(sizeof(struct mc_settings) == 20, "as in the schema");

struct mc_rule {
	u64 id;			/* 0: none */
	u64 max;
	u64 source_max;		/* 0: sources are not looked at */
	u32 enforce;		/* how many of 100 connections over the limit are refused; the others pass and are told */
	u8 reset;		/* they are answered with RST */
	u8 bits[2];		/* of a source prefix: IPv4 (96 more), IPv6 */
	u8 unused;
};
_Static_assert(sizeof(struct mc_rule) == 32, "as in the schema");

/*
 * How many connections there are. Reservations are counted by the epoch in which they were made, `epoch << 32 | count` in the slot epoch % 4, so
 * that those of which nothing is heard again go by themselves.
 */
struct mc_count {
	u64 established;
	u64 reserved[MC_EPOCHS];
};
_Static_assert(sizeof(struct mc_count) == 40, "as in the schema");

struct mc_limit {
	u64 id;			/* of the rule whose count this is */
	struct mc_count count;
};
_Static_assert(sizeof(struct mc_limit) == 48, "as in the schema");

struct mc_mask {
	__be32 word[4];
};
_Static_assert(sizeof(struct mc_mask) == 16, "as in the schema");

struct mc_source {
	u64 id;			/* of the rule */
	__be32 address[4];	/* of the prefix */
};
_Static_assert(sizeof(struct mc_source) == 24, "as in the schema");

/* What a connection is counted in; kept with it, since the rules may change while it lives. */
struct mc_claim {
	u64 id[MC_RULES];	/* 0: nothing */
	u32 place[MC_RULES];
	u8 bits[MC_RULES];
	u8 unused[6];
};
_Static_assert(sizeof(struct mc_claim) == 32, "as in the schema");

/* A connection with a reservation. */
struct mc_half {
	struct mc_flow flow;
	u32 way;		/* where this is; the verifier takes what is read here for one number, what a loop has counted for eight */
	u64 since_ns;
	struct mc_claim claim;
};
_Static_assert(sizeof(struct mc_half) == 80, "as in the schema");

#define MC_WAYS 8
#define MC_SET_BITS 13

/* What is in the ways of a set: see half.h. */
struct mc_ways {
	u64 tag[MC_WAYS];
};
_Static_assert(sizeof(struct mc_ways) == 64, "as in the schema");

struct mc_secret {
	u64 word[7];
};
_Static_assert(sizeof(struct mc_secret) == 56, "as in the schema");

struct mc_connection {
	u64 since_ns;
	u64 generation;
	struct mc_claim claim;
};
_Static_assert(sizeof(struct mc_connection) == 48, "as in the schema");

/* What a CPU has last heard of the clock. */
struct mc_clock {
	u64 tick;		/* jiffies */
	u64 ns;
};
_Static_assert(sizeof(struct mc_clock) == 16, "as in the schema");

struct mc_stats {
	u64 admitted;
	u64 refused;		/* by the shared limit */
	u64 source_refused;
	u64 excused;		/* over a limit, and let in all the same: dry run, enforce, allow */
	u64 found;		/* open without having been counted, as a sweep saw */
	u64 lost;		/* counted without being open */
	u64 corrected;		/* how far a count was from its connections */
	u64 full;		/* not counted, for the table is full */
};
_Static_assert(sizeof(struct mc_stats) == 64, "as in the schema");

/* What a sweep has found out, for mc_repair() to do. */
struct mc_todo {
	u8 key[36];
	u32 what;		/* enum mc_what */
	u64 old;
	u64 new;
};
_Static_assert(sizeof(struct mc_todo) == 56, "as in the schema");

struct mc_job {
	u64 at_ns;		/* when the sockets were read */
	u32 at;
	u32 todo;
};
_Static_assert(sizeof(struct mc_job) == 16, "as in the schema");

enum mc_what {
	MC_ADD = 1,		/* a connection that is open and not counted */
	MC_REMOVE,		/* one that is counted and not open; `old`: since when */
	MC_RELEASE,		/* a reservation whose handshake is over; `old`: since when */
	MC_RECOUNT,		/* a connection that was counted by other rules */
	MC_SET_LIMIT,		/* a count that differs from its connections: from `old` to `new`; the key begins with the place */
	MC_SET_SOURCE,		/* the same of a source; the key begins with the source's */
	MC_FORGET,		/* a source without connections */
};

/* Python writes the first six. */
BPF_TABLE("array", u32, struct mc_settings, mc_settings, BY_SCHEMA);
BPF_TABLE("array", u32, struct mc_rule, mc_rules, BY_SCHEMA);
BPF_TABLE("array", u32, u32, mc_ports, BY_SCHEMA);			/* port -> place of its rule, whatever the address; 0: none */
BPF_TABLE("hash", struct mc_service, u32, mc_services, BY_SCHEMA);	/* the same for an address */
BPF_F_TABLE("lpm_trie", struct mc_prefix, u32, mc_allow, BY_SCHEMA, 1);
BPF_TABLE("array", u32, struct mc_mask, mc_masks, BY_SCHEMA);		/* of prefixes, by their bits */
BPF_TABLE("array", u32, struct mc_limit, mc_limits, BY_SCHEMA);		/* by place */
BPF_TABLE("hash", struct mc_source, struct mc_count, mc_sources, BY_SCHEMA);
BPF_TABLE("hash", struct mc_flow, struct mc_connection, mc_flows, BY_SCHEMA);
BPF_TABLE("array", u32, struct mc_secret, mc_secret, BY_SCHEMA);		/* Python writes it once */
BPF_TABLE("array", u32, struct mc_ways, mc_ways, BY_SCHEMA);		/* by set */
BPF_TABLE("array", u32, struct mc_half, mc_half, BY_SCHEMA);		/* by set * MC_WAYS + way */
BPF_TABLE("lru_hash", struct mc_flow, u64, mc_closed, BY_SCHEMA);	/* when connections were closed, for a sweep that has seen them open */
BPF_TABLE("percpu_array", u32, struct mc_clock, mc_clock, BY_SCHEMA);
BPF_TABLE("percpu_array", u32, struct mc_stats, mc_stats, BY_SCHEMA);	/* by place */
BPF_TABLE("array", u32, struct mc_todo, mc_todo, BY_SCHEMA);
BPF_TABLE("array", u32, struct mc_job, mc_job, BY_SCHEMA);

#endif
