/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * tables.h: everything that ratelimit keeps in the kernel, and who writes it.
 *
 *	packet --rl_targets, rl_prefixes, rl_ports--> place --rl_rules--> rule --window--> rl_windows, rl_stats
 *	                                                                      \--source--> rl_sources
 *
 * An IPv4 address is written as IPv4-mapped (::ffff:a.b.c.d) wherever a key holds 16 bytes. The config handler writes everything but what is said
 * beside a table.
 */
#ifndef RL_TABLES_H
#define RL_TABLES_H

enum rl_proto {
	RL_TCP = 0,
	RL_UDP = 1,
	RL_ICMP = 2,		/* of both families; has no ports */
	RL_PROTO = 0x3f,
	RL_IPV6 = 0x40,		/* keeps a short IPv6 prefix from covering IPv4-mapped addresses */
	RL_ANY_PORT = 0x80,
};

/* Key of rl_ports: what no address decides. Of any port: RL_ANY_PORTS + proto. */
#define RL_UDP_PORTS 65536
#define RL_ANY_PORTS 131072

struct rl_target {
	__be32 address[4];	/* destination */
	__be16 port;		/* 0 with RL_ANY_PORT */
	u8 proto;		/* enum rl_proto */
	u8 zero;
};
_Static_assert(sizeof(struct rl_target) == 20, "as in the schema");

struct rl_prefix {
	u32 length;	/* bits of what follows: 32 + those of the address */
	u8 proto;
	u8 zero;
	__be16 port;
	__be32 address[4];
};
_Static_assert(sizeof(struct rl_prefix) == 24, "as in the schema");

/* What stands where a place in rl_rules is not known. */
#define RL_FREE 0			/* there is no rule */
#define RL_LOOK 0xffffffff		/* for a SYN, it is to be looked for */
#define RL_LOOK_CLOSER 0xfffffffe	/* for what must be parsed once more */

/* rl_gates: what kinds of rules there are. Packets are looked up only where one could concern them. */
enum rl_gate {
	RL_EXACT = 1,		/* for an address and a port */
	RL_PREFIXES = 2,	/* for a prefix and a port */
	RL_ANYWHERE = 4,	/* for a port alone */
	RL_ALL_PORTS = 3,	/* by how many bits the same three for any port stand further left */
	RL_ANY_PORT_GATES = 7 << RL_ALL_PORTS,
	RL_TCP_PACKETS = 64,	/* TCP by bytes, so that all of its packets count */
	RL_UDP_RULES = 128,
	RL_ICMP_RULES = 256,
	RL_ANSWERING = 512,	/* some action makes answers of SYNs */
	RL_OTHER_PACKETS = RL_TCP_PACKETS | RL_UDP_RULES | RL_ICMP_RULES,	/* without a TCP header */
	RL_NOT_BY_PORT = RL_EXACT | RL_PREFIXES | RL_ANY_PORT_GATES,		/* rules that rl_ports alone does not find */
};

enum rl_flag {
	RL_GCRA = 1,		/* the shared limit has a burst; else it is a window */
	RL_SOURCE_GCRA = 2,
	RL_BYTES = 4,
	RL_PER_SOURCE = 8,
	RL_LISTED = 16,		/* rl_lists has prefixes for this rule */
	RL_COUNT_ALL = 32,	/* what is refused counts, too */
	RL_IN_PART = 64,	/* `enforce` is less than all */
	RL_ANSWERS = 128,	/* the action makes an answer of a SYN */
	RL_READS = RL_PER_SOURCE | RL_LISTED | RL_ANSWERS,	/* needs more of a packet than its destination */
};

enum rl_action {
	RL_DROP = 0,
	RL_COUNT = 1,
	RL_RESET = 2,
	RL_COOKIE = 3,
};

/* A window: `span` ns, `most` in it. GCRA: `span` is what one unit costs in 2^-14 ns, `most` the burst. */
struct rl_limit {
	u64 span;
	u64 most;
};

/* Never changed while something leads there: another one has another place. */
struct rl_rule {
	struct rl_limit shared;	/* span 0: no rule */
	struct rl_limit source;
	u64 source_id;		/* what its sources are told apart by from those of other rules */
	u64 ban_ns;		/* 0: nobody is banned */
	u64 mask4;		/* what counts of a source: of the second half of an IPv4-mapped address, */
	u64 mask6_high;		/* and of an IPv6 address; as in memory */
	u64 mask6_low;
	u32 window;		/* key in rl_windows and rl_stats, list in rl_lists */
	u32 flags;
	u32 action;
	u32 enforce;		/* share of what is over the limit that the action is taken on, of 2^32 */
	u32 sets;		/* of rl_sources, less 1: a power of two */
	u32 memory;		/* ticks for which what is known of a source matters, 255 at most */
};
_Static_assert(sizeof(struct rl_rule) == 96, "as in the schema");

struct rl_window {
	u64 id;		/* of the rule: destination, ports, window; 0: free */
	u64 word;	/* see limit.h; the datapath writes */
};
_Static_assert(sizeof(struct rl_window) == 16, "as in the schema");

/* What a rule has answered, a count for each reason, and what became of those that were refused; and the time, see limit.h. */
struct rl_stats {
	u64 tick;
	u64 now;
	u64 admitted;
	u64 allowed;
	u64 denied;
	u64 banned;
	u64 source_exceeded;
	u64 rate_exceeded;
	u64 contended;
	u64 spared;	/* refused, but let through: `enforce`, or the action `count` */
	u64 answered;	/* refused with an answer: RST or SYN cookie */
	u64 no_answer;	/* dropped, since there could be no answer */
	u64 evicted;	/* sources that lost their place to another one while it mattered */
};
_Static_assert(sizeof(struct rl_stats) == 104, "as in the schema");

/* Five sources. `marks` has the set's lock in bit 0, and in bit n whether the source of way n (1 to 5) may be banned. */
struct rl_set {
	u64 word[5];	/* see limit.h */
	u32 tag[5];	/* a hash of rule and source in the upper 24 bits, 0: free; below it the tick of the last packet, modulo 256 */
	u32 marks;
};
_Static_assert(sizeof(struct rl_set) == 64, "one cache line");

/* Who a source is: at 5 * set + way - 1. */
struct rl_sender {
	u64 id;			/* of the rule's sources */
	u64 address[2];		/* masked */
	u64 banned_until;	/* ns since boot */
	u64 refused;
};
_Static_assert(sizeof(struct rl_sender) == 40, "as in the schema");

struct rl_list_key {
	u32 length;	/* bits of what follows: 32 + those of the address */
	u32 list;	/* 2 * window of the rule, + 1 for IPv6 */
	__be32 address[4];
};
_Static_assert(sizeof(struct rl_list_key) == 24, "as in the schema");

enum rl_listed {
	RL_ALLOW = 1,
	RL_DENY = 2,
};

/* A packet that may have a rule, as it was read: one for each CPU. What follows works on this alone. */
struct rl_frame {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	u32 seq;	/* of TCP */
	u32 segment;	/* sequence numbers that the segment takes: its data, SYN and FIN */
	u16 link;	/* bytes in front of the IP header */
	u16 l4;		/* bytes in front of the transport header */
	u8 proto;	/* enum rl_proto */
	u8 flags;	/* enum rl_frame_flag */
	u8 tcp_bytes;	/* of the TCP header */
	u8 zero;
};
_Static_assert(sizeof(struct rl_frame) == 52, "as in the schema");

enum rl_frame_flag {
	RL_PORTS = 1,		/* there are ports: else a rule for all ports is the only one */
	RL_SYN = 2,
	RL_UNICAST = 4,		/* from one to one, so that it may be answered */
};

/* How fast sources lose their places; upkeep writes. */
struct rl_pressure {
	u64 evicted;
	u64 at_ns;
	u64 per_second;
};
_Static_assert(sizeof(struct rl_pressure) == 24, "as in the schema");

/* Arrays are what the JIT compiles to plain memory accesses. */
BPF_F_TABLE("hash", struct rl_target, u32, rl_targets, BY_SCHEMA, 1);		/* -> rl_rules */
BPF_F_TABLE("lpm_trie", struct rl_prefix, u32, rl_prefixes, BY_SCHEMA, 1);	/* -> rl_rules */
BPF_TABLE("array", u32, u32, rl_ports, BY_SCHEMA);		/* -> rl_rules; 0: no rule */
BPF_TABLE("array", u32, u32, rl_gates, BY_SCHEMA);		/* one: enum rl_gate */
BPF_TABLE("array", u32, struct rl_rule, rl_rules, BY_SCHEMA);
BPF_TABLE("array", u32, struct rl_window, rl_windows, BY_SCHEMA);
BPF_TABLE("percpu_array", u32, struct rl_stats, rl_stats, BY_SCHEMA);	/* the datapath writes */
BPF_F_TABLE("lpm_trie", struct rl_list_key, u32, rl_lists, BY_SCHEMA, 1);	/* enum rl_listed */
BPF_TABLE("array", u32, struct rl_set, rl_sources, BY_SCHEMA);	/* the datapath writes; mappable, so that sets begin where cache lines do */
BPF_TABLE("array", u32, struct rl_sender, rl_senders, BY_SCHEMA);	/* the datapath writes */
BPF_TABLE("array", u32, u64, rl_seed, BY_SCHEMA);			/* one; the datapath writes */
BPF_TABLE("percpu_array", u32, struct rl_frame, rl_frames, BY_SCHEMA);	/* one; the datapath writes */
BPF_TABLE("array", u32, struct rl_pressure, rl_pressure, BY_SCHEMA);	/* one; upkeep writes */

#endif
